//! Random operations of several clients on few names and keys, through copy, tail, restarts, kills
//! and elections; then both sides are compared.
//!
//! `CUTOVER_SOURCE_VERSION=5.0.32` takes a source of that version, which reports no definitions.
//! `CUTOVER_SEEDS=200` tries so many seeds, `CUTOVER_SEEDS=201-400` those, `CUTOVER_SEED=7` that
//! one alone, `CUTOVER_SHRINK=1` leaves out of a failing seed what it fails without,
//! `CUTOVER_LOG=daemon=debug` shows what the engine does.

mod cluster;
mod generate;
mod history;
mod shrink;
mod tally;
mod uneven;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;

pub(crate) use self::generate::{Event, Operation, Plan};
use super::harness::{Pair, Run, run};

/// Seeds that a normal run tries, and of those the ones that it tries with an old source as well.
const QUICK: u64 = 24;
const QUICK_OLD: std::ops::RangeInclusive<u64> = 1..=4;
/// A source that reports no definitions.
const OLD: &str = "5.0.32";

/// How long one plan may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

/// Between two operations of one client, at most.
const PACE: Duration = Duration::from_millis(25);

async fn client(pair: &Pair) -> Result<Client> {
    let mut options = ClientOptions::parse(pair.source.uri()).await?;
    options.server_selection_timeout = Some(Duration::from_secs(20));
    Ok(Client::with_options(options)?)
}

/// Does one operation; whether it did anything. What the server refuses did not happen, and is no
/// error.
async fn operate(client: &Client, operation: &Operation) -> bool {
    match operation {
        Operation::Command { db, command } => client
            .database(db)
            .run_command(command.clone())
            .await
            .is_ok_and(|reply| has_effect(&reply)),
        Operation::Transaction { commands, commits } => {
            transact(client, commands, *commits).await.unwrap_or(false)
        }
    }
}

/// Whether a command that was carried out has changed something; of what does not report, it is
/// taken to.
fn has_effect(reply: &Document) -> bool {
    let changed = reply.get_i32("nModified").or_else(|_| reply.get_i32("n"));
    !reply.contains_key("writeErrors") && changed.unwrap_or(1) > 0
}

async fn transact(client: &Client, commands: &[(String, Document)], commits: bool) -> Result<bool> {
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    let mut is_changed = false;
    for (db, command) in commands {
        let database = client.database(db);
        let mut command = command.clone();
        if let Some((name, id)) = generate::cluster::changed_by_key(&command) {
            let found = database
                .collection(name)
                .find_one(doc! { "_id": id.clone() })
                .session(&mut session)
                .await?;
            generate::cluster::name_key(&mut command, &found.unwrap_or_default());
        }
        let reply = database.run_command(command).session(&mut session).await?;
        is_changed |= has_effect(&reply);
    }
    if commits {
        session.commit_transaction().await?
    } else {
        session.abort_transaction().await?
    }
    Ok(commits && is_changed)
}

/// Drops the buckets of time-series collections that an election left half made, as their owner is
/// told to: the cutover does not take them for gone.
async fn drop_stray_buckets(client: &Client) -> Result<()> {
    for name in client.list_database_names().await? {
        let database = client.database(&name);
        let names = database.list_collection_names().await?;
        for buckets in names.iter().filter(|name| {
            name.strip_prefix("system.buckets.")
                .is_some_and(|of| !names.iter().any(|name| name == of))
        }) {
            run(client, &name, doc! { "drop": buckets }).await?;
        }
    }
    Ok(())
}

/// Runs a plan on a pair of replica sets that has nothing, and compares.
pub(crate) async fn hold(pair: &Pair, plan: &Plan) -> Result<()> {
    let setting_up = client(pair).await?;
    // Measurements are not carried from a source that does not report their changes.
    let is_carried = |operation: &Operation| {
        pair.tells_definitions()
            || !matches!(operation, Operation::Command { db, .. } if db == generate::SERIES)
    };
    for operation in plan.before.iter().filter(|operation| is_carried(operation)) {
        operate(&setting_up, operation).await;
    }
    if let Some(milliseconds) = plan.slow_copy {
        let data = doc! {
            "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": milliseconds,
        };
        run(
            &pair.to,
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": { "times": 60 }, "data": data },
        )
        .await?;
    }
    let mut sync =
        Run::start_with(pair, plan.declared.apply(pair.spec()), plan.tuning.clone()).await?;
    let is_carried = &is_carried;
    let working = plan.clients.iter().map(|operations| async move {
        let client = client(pair).await?;
        for (pause, operation) in operations {
            tokio::time::sleep(PACE.mul_f64(*pause)).await;
            if is_carried(operation) {
                operate(&client, operation).await;
            }
        }
        Ok::<(), anyhow::Error>(())
    });
    let disturbing = async {
        for (after, event) in &plan.events {
            tokio::time::sleep(Duration::from_millis(*after)).await;
            sync.look()?;
            match event {
                Event::Faults { on_source, times, data } => {
                    let fail = doc! {
                        "configureFailPoint": "failCommand", "mode": { "times": *times },
                        "data": data.clone(),
                    };
                    // A server that is being elected may not take it, and then nothing fails.
                    let _ =
                        run(if *on_source { &pair.from } else { &pair.to }, "admin", fail).await;
                }
                Event::Restart => sync.restart().await?,
                Event::Kill => sync.kill().await?,
                Event::SourceStepsDown => {
                    pair.source.step_down(1).await.context("the source's step-down")?
                }
                Event::DestinationStepsDown => {
                    pair.destination.step_down(1).await.context("the destination's step-down")?
                }
                Event::SourceConfigStepsDown
                | Event::DestinationConfigStepsDown
                | Event::DestinationChunkMoves => {
                    bail!("a replica set has no config server, and no chunks")
                }
            }
        }
        Ok(())
    };
    tokio::try_join!(futures_util::future::try_join_all(working), disturbing)?;
    pair.source.primary().await?;
    pair.destination.primary().await?;
    for client in [&pair.from, &pair.to] {
        run(client, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    }
    drop_stray_buckets(&pair.from).await?;
    let report = sync.prove(pair).await?;
    println!(
        "  {} collections, {} indexes, {} documents",
        report.collections, report.indexes, report.source_documents
    );
    Ok(())
}

/// The seeds that are asked for, else the usual ones.
fn seeds(usual: impl IntoIterator<Item = u64>) -> Result<Vec<u64>> {
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text} is no seed"));
    if let Ok(seed) = std::env::var("CUTOVER_SEED") {
        return Ok(vec![number(&seed)?]);
    }
    match std::env::var("CUTOVER_SEEDS") {
        Err(_) => Ok(usual.into_iter().collect()),
        Ok(seeds) => match seeds.split_once('-') {
            Some((first, last)) => Ok((number(first)?..=number(last)?).collect()),
            None => Ok((1..=number(&seeds)?).collect()),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_lose_nothing() -> Result<()> {
    try_seeds(std::env::var("CUTOVER_SOURCE_VERSION").ok().as_deref(), 1..=QUICK).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_on_a_source_that_tells_no_definitions_lose_nothing() -> Result<()> {
    if ["CUTOVER_SEED", "CUTOVER_SEEDS", "CUTOVER_SOURCE_VERSION"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        // Somebody has chosen, and the other test does that.
        return Ok(());
    }
    try_seeds(Some(OLD), QUICK_OLD).await
}

async fn try_seeds(source: Option<&str>, usual: std::ops::RangeInclusive<u64>) -> Result<()> {
    if let Ok(filter) = std::env::var("CUTOVER_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .try_init();
    }
    let seeds = seeds(usual)?;
    let mut pair = Pair::start_from(source).await?;
    let mut failed = Vec::new();
    let (mut operations, began) = (0, Instant::now());
    for seed in &seeds {
        let plan = Plan::new(*seed);
        operations += plan.operations();
        println!("seed {seed}: {plan}");
        let began = Instant::now();
        let since = (history::now(&pair.from).await?, history::now(&pair.to).await?);
        let held = match tokio::time::timeout(PATIENCE, hold(&pair, &plan)).await {
            Ok(held) => held,
            Err(_) => Err(anyhow::anyhow!("it takes longer than {PATIENCE:?}")),
        };
        if let Err(error) = held {
            println!("seed {seed} FAILED, replay it with CUTOVER_SEED={seed}: {error:#}");
            let named = history::named(&format!("{error:#}"), &generate::DATABASES);
            history::print("source", &pair.from, since.0, &named).await?;
            history::print("destination", &pair.to, since.1, &named).await?;
            failed.push(*seed);
            if std::env::var_os("CUTOVER_SHRINK").is_some() {
                shrink::shrink(plan, source).await?;
            }
            pair = Pair::start_from(source).await?;
        }
        println!("  {:?}", began.elapsed());
        pair.clear().await?;
    }
    println!("{} seeds, {operations} operations in {:?}", seeds.len(), began.elapsed());
    if !failed.is_empty() {
        bail!(
            "failed with CUTOVER_SEED={}",
            failed.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(())
}
