//! Copies: the three shapes at one size and at growing ones, many small collections, and the
//! comparison after a copy.

use std::time::Duration;

use anyhow::Result;
use rig::ReplicaSet;

use super::{Contender, Runs, far_server, server};
use crate::measured::{Measured, Row};
use crate::options::Options;
use crate::ours::Ours;
use crate::watch::Watch;
use crate::{data, floor, foreign};

/// What 64 KB of a connection take on a far way, in each direction: 3 MB/s for each connection.
const FAR: Duration = Duration::from_millis(20);

/// The three shapes, at this size.
pub(crate) async fn shapes(case: &str, gigabytes: f64, options: &Options) -> Result<Vec<Row>> {
    let source = server("rs-source", options).await?;
    let bytes = data::fill_shapes(&source.client().await?, gigabytes).await?;
    let gigabytes = bytes as f64 / 1e9;
    eprintln!("{case}: {gigabytes:.3} GB");
    copies(case, Some(gigabytes), &source, options).await
}

/// Many small collections.
pub(crate) async fn many(options: &Options) -> Result<Vec<Row>> {
    let source = server("rs-source", options).await?;
    data::fill_many(&source.client().await?, options.collections).await?;
    eprintln!("many: {} collections", options.collections);
    copies("many", None, &source, options).await
}

/// The three shapes to a destination that is far away: with as many writers as the copy finds to be
/// best, and with four.
pub(crate) async fn far(options: &Options) -> Result<Vec<Row>> {
    let source = server("rs-source", options).await?;
    let bytes = data::fill_shapes(&source.client().await?, options.far_gigabytes).await?;
    let gigabytes = bytes as f64 / 1e9;
    eprintln!("far: {gigabytes:.3} GB");
    let mut runs = Runs::new(vec![Contender::Fixed, Contender::Ours]);
    floor::run(&["floor-read", &source.uri(), &source.uri()]).await?;
    for round in 0..options.rounds {
        for contender in runs.order(round) {
            let destination = far_server("rs-destination", FAR, options).await?;
            let migration = Ours::start(&source, &destination, "off").await?;
            let migration = match contender {
                Contender::Fixed => migration.declare("copy.parallelism", 4),
                _ => migration,
            };
            let measured = ours(migration, &source, &destination).await?;
            data::ensure_equal(
                &source.client().await?,
                &destination.client().await?,
                data::DB,
                contender.name(),
            )
            .await?;
            runs.add(contender, measured);
        }
    }
    Ok(runs.rows("far", Some(gigabytes)))
}

async fn copies(
    case: &str,
    gigabytes: Option<f64>,
    source: &ReplicaSet,
    options: &Options,
) -> Result<Vec<Row>> {
    let mut contenders = vec![Contender::Floor, Contender::Ours];
    if foreign::find("mongodump").is_some() && foreign::find("mongorestore").is_some() {
        contenders.push(Contender::Dump);
    }
    if foreign::find("pcsm").is_some() {
        contenders.push(Contender::Pcsm);
    }
    let mut runs = Runs::new(contenders);
    // Whoever reads first would pay for filling the source's cache.
    floor::run(&["floor-read", &source.uri(), &source.uri()]).await?;
    for round in 0..options.rounds {
        for contender in runs.order(round) {
            let destination = server("rs-destination", options).await?;
            let measured = match contender {
                Contender::Floor => {
                    let watch = Watch::start(source, &destination).await?;
                    watch
                        .end(floor::run(&["floor-copy", &source.uri(), &destination.uri()]).await?)
                        .await?
                }
                Contender::Ours | Contender::Fixed | Contender::Verified => {
                    ours(Ours::start(source, &destination, "off").await?, source, &destination)
                        .await?
                }
                Contender::Dump => {
                    let watch = Watch::start(source, &destination).await?;
                    watch.end(foreign::dump(source, &destination).await?).await?
                }
                Contender::Pcsm => {
                    let pcsm = foreign::Pcsm::start(source, &destination).await?;
                    let watch = Watch::start(source, &destination).await?;
                    let (began, before) = (std::time::Instant::now(), pcsm.cost()?);
                    pcsm.tell("start").await?;
                    pcsm.synced().await?;
                    let (cpu, peak) = pcsm.cost()?;
                    let measured = Measured {
                        seconds: began.elapsed().as_secs_f64(),
                        own_cpu: (cpu - before.0).as_secs_f64(),
                        own_peak: peak,
                        ..Measured::default()
                    };
                    watch.end(measured).await?
                }
            };
            data::ensure_equal(
                &source.client().await?,
                &destination.client().await?,
                data::DB,
                contender.name(),
            )
            .await?;
            runs.add(contender, measured);
        }
    }
    Ok(runs.rows(case, gigabytes))
}

async fn ours(ours: Ours, source: &ReplicaSet, destination: &ReplicaSet) -> Result<Measured> {
    let watch = Watch::start(source, destination).await?;
    let (before, _) = ours.cost()?;
    ours.apply().await?;
    let took = ours.copied().await?;
    let (cpu, peak) = ours.cost()?;
    let measured = Measured {
        seconds: took as f64 / 1e3,
        own_cpu: (cpu - before).as_secs_f64(),
        own_peak: peak,
        ..Measured::default()
    };
    watch.end(measured).await
}

/// The comparison of both sides after a copy, against reading both.
pub(crate) async fn verify(options: &Options) -> Result<Vec<Row>> {
    let source = server("rs-source", options).await?;
    let bytes = data::fill_shapes(&source.client().await?, options.gigabytes).await?;
    eprintln!("verify: {:.3} GB", bytes as f64 / 1e9);
    let mut runs = Runs::new(vec![Contender::Floor, Contender::Ours]);
    for _ in 0..options.rounds {
        let destination = server("rs-destination", options).await?;
        let ours = Ours::start(&source, &destination, "full").await?;
        ours.apply().await?;
        ours.copied().await?;
        let watch = Watch::start(&source, &destination).await?;
        let (before, _) = ours.cost()?;
        let (compared, ready) = ours.verified().await?;
        let (cpu, peak) = ours.cost()?;
        let measured = Measured {
            seconds: compared,
            own_cpu: (cpu - before).as_secs_f64(),
            own_peak: peak,
            more: vec![("until ready s".to_owned(), ready)],
            ..Measured::default()
        };
        let measured = watch.end(measured).await?;
        drop(ours);
        let watch = Watch::start(&source, &destination).await?;
        let read = watch
            .end(floor::run(&["floor-read", &source.uri(), &destination.uri()]).await?)
            .await?;
        runs.add(Contender::Floor, read);
        runs.add(Contender::Ours, measured);
    }
    Ok(runs.rows("verify", Some(bytes as f64 / 1e9)))
}
