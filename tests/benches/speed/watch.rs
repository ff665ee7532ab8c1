//! Watches two servers over a run: their processor time, and what the destination receives.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use rig::ReplicaSet;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cost;
use crate::measured::Measured;

/// Often enough for a picture, and little work for the server.
const EVERY: Duration = Duration::from_millis(250);

/// A run that is watched.
pub(crate) struct Watch {
    pids: (i32, i32),
    before: (Duration, Duration),
    stop: oneshot::Sender<()>,
    sampler: JoinHandle<Result<Vec<(f64, f64)>>>,
}

impl Watch {
    pub(crate) async fn start(source: &ReplicaSet, destination: &ReplicaSet) -> Result<Self> {
        let pids = (source.pid(0), destination.pid(0));
        let client = destination.client().await?;
        let first = bytes_in(&client).await?;
        let (stop, mut stopped) = oneshot::channel();
        let began = Instant::now();
        let sampler = tokio::spawn(async move {
            let mut received = vec![(0.0, 0.0)];
            let mut ticks = tokio::time::interval(EVERY);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => return Ok(received),
                }
                let bytes = bytes_in(&client).await?;
                received.push((began.elapsed().as_secs_f64(), bytes - first));
            }
        });
        Ok(Self { pids, before: (cost::cpu(pids.0)?, cost::cpu(pids.1)?), stop, sampler })
    }

    /// Ends the watch and adds what was seen.
    pub(crate) async fn end(self, mut measured: Measured) -> Result<Measured> {
        measured.source_cpu = (cost::cpu(self.pids.0)? - self.before.0).as_secs_f64();
        measured.destination_cpu = (cost::cpu(self.pids.1)? - self.before.1).as_secs_f64();
        // It has ended by itself only with an error, which comes out below.
        let _ = self.stop.send(());
        measured.received = self.sampler.await??;
        Ok(measured)
    }
}

async fn bytes_in(client: &Client) -> Result<f64> {
    let only = doc! {
        "serverStatus": 1, "repl": 0, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0, "locks": 0,
        "transactions": 0, "storageEngine": 0,
    };
    let status = client.database("admin").run_command(only).await?;
    number(&status, "network", "bytesIn")
}

fn number(document: &Document, section: &str, field: &str) -> Result<f64> {
    match document.get_document(section)?.get(field) {
        Some(Bson::Int32(number)) => Ok(f64::from(*number)),
        Some(Bson::Int64(number)) => Ok(*number as f64),
        Some(Bson::Double(number)) => Ok(*number),
        _ => None.with_context(|| format!("serverStatus has no {section}.{field}")),
    }
}
