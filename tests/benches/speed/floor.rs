//! The floors: the least that a copy, a tail and a comparison take, each a process of its own,
//! sharing no code with the engine.

pub(crate) mod copy;
pub(crate) mod read;
pub(crate) mod tail;

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use mongodb::Client;
use mongodb::options::ClientOptions;
use serde::{Deserialize, Serialize};

use crate::cost;
use crate::measured::Measured;
use crate::options::Role;

/// What a floor prints when it is done.
#[derive(Debug, Serialize, Deserialize)]
struct Printed {
    seconds: f64,
    cpu: f64,
    peak: u64,
    work: u64,
}

/// Plays a floor in this process, and prints what it took.
pub(crate) async fn play(role: Role) -> Result<()> {
    let began = Instant::now();
    let (began, work) = match role {
        Role::FloorCopy { source, destination } => {
            (began, copy::run(&client(&source).await?, &client(&destination).await?).await?)
        }
        Role::FloorRead { source, destination } => {
            (began, read::run(&client(&source).await?, &client(&destination).await?).await?)
        }
        Role::FloorTail { source, destination, time, increment } => {
            let start = mongodb::bson::Timestamp { time, increment };
            (began, tail::run(&client(&source).await?, &client(&destination).await?, start).await?)
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let pid = cost::own_pid()?;
    let printed =
        Printed { seconds, cpu: cost::cpu(pid)?.as_secs_f64(), peak: cost::peak(pid)?, work };
    println!("{}", serde_json::to_string(&printed)?);
    Ok(())
}

/// Runs a floor as a process.
pub(crate) async fn run(arguments: &[&str]) -> Result<Measured> {
    let program = std::env::current_exe().context("failed to find this program")?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let output = command.spawn().context("failed to start a floor")?.wait_with_output().await?;
    ensure!(output.status.success(), "the floor {arguments:?} failed");
    let printed: Printed =
        serde_json::from_slice(&output.stdout).context("failed to read what the floor printed")?;
    Ok(Measured {
        seconds: printed.seconds,
        own_cpu: printed.cpu,
        own_peak: printed.peak,
        work: printed.work,
        ..Measured::default()
    })
}

async fn client(uri: &str) -> Result<Client> {
    Ok(Client::with_options(ClientOptions::parse(uri).await?)?)
}

/// The user collections of a deployment, the largest first: namespaces, with documents and bytes.
async fn collections(client: &Client) -> Result<Vec<Collection>> {
    let mut found = Vec::new();
    for db in client.list_database_names().await? {
        if ["admin", "local", "config"].contains(&db.as_str()) {
            continue;
        }
        let names = client.database(&db).list_collection_names().await?;
        let few = names.len() < 100;
        for name in names {
            // Sizes only pay where there is something to order.
            let (documents, bytes) = if few { size(client, &db, &name).await? } else { (1, 1024) };
            found.push(Collection { db: db.clone(), name, documents, bytes });
        }
    }
    found.sort_by_key(|collection| std::cmp::Reverse(collection.bytes));
    Ok(found)
}

/// A collection to read.
#[derive(Debug, Clone)]
pub(crate) struct Collection {
    db: String,
    name: String,
    documents: i64,
    bytes: i64,
}

impl Collection {
    /// Documents to ask for, so that a reply weighs about 2 MB.
    fn batch_size(&self) -> u32 {
        let mean = self.bytes / self.documents.max(1);
        u32::try_from(((2 << 20) / mean.max(16)).clamp(1, 100_000)).unwrap_or(1_000)
    }
}

async fn size(client: &Client, db: &str, name: &str) -> Result<(i64, i64)> {
    let stats = client.database(db).run_command(mongodb::bson::doc! { "collStats": name }).await?;
    let number = |field: &str| match stats.get(field) {
        Some(mongodb::bson::Bson::Int32(number)) => i64::from(*number),
        Some(mongodb::bson::Bson::Int64(number)) => *number,
        Some(mongodb::bson::Bson::Double(number)) => *number as i64,
        _ => 0,
    };
    Ok((number("count"), number("size")))
}
