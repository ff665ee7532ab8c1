//! What the copy asks of its source is bounded: by the declared rate, and further while the source
//! is under pressure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::bson::{Document, doc};
use rig::fault_proxy::Faults;
use rig::replica_set::Options;
use schemas::spec::RateLimit;

use super::harness::{Pair, Run};

const COLLECTIONS: i32 = 3;
const EACH: i32 = 1_000;
const RATE: u64 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_rate_is_held_over_all_readers() -> Result<()> {
    let pair = filled().await?;
    let began = Instant::now();
    let mut run = limited(&pair, Tuning::default()).await?;
    run.caught_up().await?;
    // A batch is a fourth of a second's; the last one begins when all before it have had their
    // time.
    let least = Duration::from_secs_f64(f64::from(COLLECTIONS * EACH) / RATE as f64 - 0.25);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    let report = pair.compare().await?;
    assert!(report.is_equal() && report.equal_documents == 3_000, "{report}");
    run.engine().stop_sync().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_back_off_from_a_pressed_source_and_say_so() -> Result<()> {
    let pair = filled().await?;
    // Every source is pressed by this.
    let mut run = limited(&pair, Tuning { source_queue: 0, ..Tuning::default() }).await?;
    let began = Instant::now();
    while !run.blockers()?.iter().any(|blocker| blocker.contains("backed off to one reader")) {
        ensure!(began.elapsed() < Duration::from_secs(60), "nothing was said");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.caught_up().await?;
    assert!(pair.compare().await?.is_equal());
    run.engine().stop_sync().await;
    Ok(())
}

/// Each insertion is on its way for so long that writers only wait: what more of them bring is not
/// a matter of how busy a machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_far_destination_gets_more_writers_within_the_bound() -> Result<()> {
    const DOCUMENTS: i32 = 12_000;
    let there = Options { proxied: true, ..Options::default() };
    let pair = Pair::start_with(Options::default(), there).await?;
    let collection = pair.from.database("far").collection::<Document>("data");
    collection
        .insert_many((0..DOCUMENTS).map(|n| doc! { "_id": n, "text": "x".repeat(100) }))
        .await?;
    // Many parts, and batches of ten documents.
    let tuning = Tuning {
        part_bytes: 16 << 10,
        batch_bytes: 4 << 10,
        batch_documents: 10,
        crew_stretch: Duration::from_millis(200),
        ..Tuning::default()
    };
    let most = tuning.most_workers;
    let mut run = Run::start_with(&pair, pair.spec(), tuning).await?;
    let proxy = pair.destination.proxy(0).context("no proxy")?;
    proxy.set(Faults { delay: Duration::from_millis(100), ..Faults::default() });
    let began = Instant::now();
    let mut seen = BTreeSet::new();
    loop {
        seen.extend(run.engine().progress().copy_workers.map(|workers| workers.writers));
        // By halves: the second one is tried where the first was faster.
        if let (Some(first), Some(last)) = (seen.first(), seen.last())
            && *last > first * 3 / 2
        {
            break;
        }
        ensure!(began.elapsed() < Duration::from_secs(90), "there were {seen:?} writers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.heal();
    run.caught_up().await?;
    ensure!(seen.iter().all(|writers| *writers <= most), "there were {seen:?} writers");
    assert_eq!(run.engine().progress().copy_workers, None, "nobody copies any more");
    assert!(pair.compare().await?.is_equal());
    run.engine().stop_sync().await;
    Ok(())
}

async fn filled() -> Result<Pair> {
    let pair = Pair::start().await?;
    for number in 0..COLLECTIONS {
        let collection = pair.from.database("paced").collection::<Document>(&format!("c{number}"));
        collection
            .insert_many((0..EACH).map(|n| doc! { "_id": n, "text": "x".repeat(100) }))
            .await?;
    }
    Ok(pair)
}

async fn limited(pair: &Pair, tuning: Tuning) -> Result<Run> {
    let mut spec = pair.spec();
    spec.copy.rate_limit = Some(RateLimit::Documents(RATE));
    Run::start_with(pair, spec, tuning).await
}
