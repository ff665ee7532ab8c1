//! Loads that go on while they are followed: as fast as the source takes them, and at a fixed rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::FindOneOptions;
use tokio::task::JoinHandle;

use super::{Contender, Runs, server};
use crate::backlog::{self, DB, Load};
use crate::data;
use crate::measured::{Measured, Row};
use crate::options::{Backlog, Options};
use crate::ours::Ours;
use crate::watch::Watch;

/// Writes a second of the fixed rate.
const RATE: u64 = 2_000;
/// Where the probes are.
const PROBES: &str = "probes";
const BETWEEN_PROBES: Duration = Duration::from_millis(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Follows a load; `rate`: the fixed one.
pub(crate) async fn run(case: &str, rate: Option<u64>, options: &Options) -> Result<Vec<Row>> {
    eprintln!("{case}: {} s", options.load_seconds);
    let mut runs = Runs::new(vec![Contender::Ours]);
    for _ in 0..options.rounds {
        let (source, destination) =
            tokio::try_join!(server("rs-source", options), server("rs-destination", options))?;
        let (client, there) = (source.client().await?, destination.client().await?);
        Backlog::Mixed.fill(&client, 0).await?;
        let ours = Ours::start(&source, &destination, "off").await?;
        ours.apply().await?;
        ours.ready().await?;
        let watch = Watch::start(&source, &destination).await?;
        let (before, _) = ours.cost()?;
        let probes = Probes::start(&client, &there);
        let load = Load::start(&client, rate);
        tokio::time::sleep(Duration::from_secs(options.load_seconds)).await;
        let sent = probes.stop_sending();
        let (written, took) = load.stop(&client).await?;
        let after = Instant::now();
        backlog::wait_until_done(&there).await?;
        let drained = after.elapsed().as_secs_f64();
        let lags = sent.lags().await?;
        let (cpu, peak) = ours.cost()?;
        let seconds = took.as_secs_f64() + drained;
        let measured = Measured {
            seconds,
            own_cpu: (cpu - before).as_secs_f64(),
            own_peak: peak,
            work: written,
            more: vec![
                ("written/s".to_owned(), written as f64 / took.as_secs_f64()),
                ("events/s".to_owned(), written as f64 / seconds),
                ("drain / load".to_owned(), drained / took.as_secs_f64()),
                ("lag p50 s".to_owned(), percentile(&lags, 0.50)),
                ("lag p99 s".to_owned(), percentile(&lags, 0.99)),
                ("lag max s".to_owned(), percentile(&lags, 1.0)),
            ],
            ..Measured::default()
        };
        let measured = watch.end(measured).await?;
        data::ensure_equal(&client, &there, DB, "cutover").await?;
        runs.add(Contender::Ours, measured);
    }
    Ok(runs.rows(case, None))
}

/// The fixed rate.
pub(crate) const fn fixed() -> Option<u64> {
    Some(RATE)
}

/// Numbered documents, written to the source and looked for on the destination.
struct Probes {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<BTreeMap<i64, Instant>>>,
    looker: JoinHandle<Result<Vec<(i64, Instant)>>>,
    sent_all: Arc<std::sync::OnceLock<i64>>,
}

impl Probes {
    fn start(source: &Client, destination: &Client) -> Self {
        let (stop, sent_all) =
            (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::OnceLock::new()));
        let probes = source.database(DB).collection::<Document>(PROBES);
        let (stopped, last) = (Arc::clone(&stop), Arc::clone(&sent_all));
        let sender = tokio::spawn(async move {
            let mut sent = BTreeMap::new();
            let mut ticks = tokio::time::interval(BETWEEN_PROBES);
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                probes.insert_one(doc! { "_id": number }).await?;
                sent.insert(number, Instant::now());
                number += 1;
            }
            // Nobody else sets it.
            let _ = last.set(number - 1);
            Ok(sent)
        });
        let looked = destination.database(DB).collection::<Document>(PROBES);
        let last = Arc::clone(&sent_all);
        let looker = tokio::spawn(async move {
            let newest = FindOneOptions::builder().sort(doc! { "_id": -1 }).build();
            let mut seen: Vec<(i64, Instant)> = Vec::new();
            loop {
                if let Some(found) = looked.find_one(doc! {}).with_options(newest.clone()).await? {
                    let number =
                        found.get_i64("_id").or_else(|_| found.get_i32("_id").map(i64::from))?;
                    if seen.last().is_none_or(|(before, _)| *before < number) {
                        seen.push((number, Instant::now()));
                    }
                    if last.get() == Some(&number) {
                        return Ok(seen);
                    }
                }
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
        });
        Self { stop, sender, looker, sent_all }
    }

    fn stop_sending(self) -> Self {
        self.stop.store(true, Ordering::Relaxed);
        self
    }

    /// The seconds from each probe's acknowledgement to its appearance, in order of their size.
    async fn lags(self) -> Result<Vec<f64>> {
        let sent = self.sender.await??;
        let seen = self.looker.await??;
        self.sent_all.get().context("no probe was sent")?;
        let mut lags = Vec::new();
        let mut seen = seen.into_iter().peekable();
        for (number, at) in sent {
            while seen.next_if(|(newest, _)| *newest < number).is_some() {}
            let (_, appeared) = seen.peek().context("a probe never appeared")?;
            lags.push(appeared.saturating_duration_since(at).as_secs_f64());
        }
        lags.sort_by(f64::total_cmp);
        Ok(lags)
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
