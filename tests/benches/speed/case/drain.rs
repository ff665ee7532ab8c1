//! Backlogs: written while nobody follows, then applied by each contender from the same stream to a
//! destination of its own.

use std::time::Instant;

use anyhow::{Context as _, Result};
use mongodb::Client;
use mongodb::bson::{Timestamp, doc};
use rig::ReplicaSet;

use super::{Contender, Runs, server};
use crate::backlog::{self, DB};
use crate::measured::{Measured, Row};
use crate::options::{Backlog, Options};
use crate::ours::Ours;
use crate::watch::Watch;
use crate::{data, floor, foreign};

/// A backlog of this kind.
pub(crate) async fn run(kind: Backlog, options: &Options) -> Result<Vec<Row>> {
    let case = format!("drain {}", kind.name());
    eprintln!("{case}: {} writes", options.events);
    let mut contenders = vec![Contender::Floor, Contender::Ours, Contender::Verified];
    if foreign::find("pcsm").is_some() {
        contenders.push(Contender::Pcsm);
    }
    let mut runs = Runs::new(contenders);
    for round in 0..options.rounds {
        let (source, for_floor, for_ours) = tokio::try_join!(
            server("rs-source", options),
            server("rs-floor", options),
            server("rs-ours", options)
        )?;
        let client = source.client().await?;
        kind.fill(&client, options.events).await?;
        kind.fill(&for_floor.client().await?, options.events).await?;
        let ours = Ours::start(&source, &for_ours, "off").await?;
        ours.apply().await?;
        ours.ready().await?;
        ours.pause().await?;
        // What others write is watched for there, and what changes is compared again.
        let for_verified = server("rs-verified", options).await?;
        let verified = Ours::start(&source, &for_verified, "full").await?;
        verified.apply().await?;
        verified.ready().await?;
        verified.pause().await?;
        let pcsm = match foreign::find("pcsm") {
            None => None,
            Some(_) => {
                let destination = server("rs-pcsm", options).await?;
                let pcsm = foreign::Pcsm::start(&source, &destination).await?;
                pcsm.tell("start").await?;
                pcsm.synced().await?;
                pcsm.tell("pause").await?;
                Some((pcsm, destination))
            }
        };
        let start = now(&client).await?;
        kind.write(&client, options.events).await?;
        let mut events = 0;
        let mut done = Vec::new();
        for contender in runs.order(round) {
            let (destination, measured) = match contender {
                Contender::Floor => {
                    let watch = Watch::start(&source, &for_floor).await?;
                    let (time, increment) = (start.time.to_string(), start.increment.to_string());
                    let arguments =
                        ["floor-tail", &source.uri(), &for_floor.uri(), &time, &increment];
                    let measured = watch.end(floor::run(&arguments).await?).await?;
                    events = measured.work;
                    (&for_floor, measured)
                }
                Contender::Ours => (&for_ours, drain_ours(&ours, &source, &for_ours).await?),
                Contender::Pcsm => {
                    let (pcsm, destination) = pcsm.as_ref().context("pcsm was found before")?;
                    (destination, drain_pcsm(pcsm, &source, destination).await?)
                }
                Contender::Verified => {
                    let mut measured = drain_ours(&verified, &source, &for_verified).await?;
                    let after = Instant::now();
                    verified.compared().await?;
                    measured
                        .more
                        .push(("compared after s".to_owned(), after.elapsed().as_secs_f64()));
                    (&for_verified, measured)
                }
                Contender::Dump | Contender::Fixed => continue,
            };
            data::ensure_equal(&client, &destination.client().await?, DB, contender.name()).await?;
            done.push((contender, measured));
        }
        for (contender, mut measured) in done {
            measured.work = events;
            measured.more.push(("events/s".to_owned(), events as f64 / measured.seconds));
            runs.add(contender, measured);
        }
    }
    Ok(runs.rows(&case, None))
}

async fn drain_ours(
    ours: &Ours,
    source: &ReplicaSet,
    destination: &ReplicaSet,
) -> Result<Measured> {
    let client = destination.client().await?;
    let watch = Watch::start(source, destination).await?;
    let (before, _) = ours.cost()?;
    let began = Instant::now();
    ours.resume().await?;
    backlog::wait_until_done(&client).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, peak) = ours.cost()?;
    watch
        .end(Measured {
            seconds,
            own_cpu: (cpu - before).as_secs_f64(),
            own_peak: peak,
            ..Measured::default()
        })
        .await
}

async fn drain_pcsm(
    pcsm: &foreign::Pcsm,
    source: &ReplicaSet,
    destination: &ReplicaSet,
) -> Result<Measured> {
    let client = destination.client().await?;
    let watch = Watch::start(source, destination).await?;
    let (before, _) = pcsm.cost()?;
    let began = Instant::now();
    pcsm.tell("resume").await?;
    backlog::wait_until_done(&client).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, peak) = pcsm.cost()?;
    watch
        .end(Measured {
            seconds,
            own_cpu: (cpu - before).as_secs_f64(),
            own_peak: peak,
            ..Measured::default()
        })
        .await
}

/// The source's cluster time now.
async fn now(client: &Client) -> Result<Timestamp> {
    let note = doc! {
        "appendOplogNote": 1, "data": { "msg": "the backlog begins" },
        "writeConcern": { "w": "majority" },
    };
    let reply = client.database("admin").run_command(note).await?;
    Ok(reply.get_timestamp("operationTime")?)
}
