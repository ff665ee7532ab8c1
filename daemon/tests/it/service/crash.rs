//! The daemon dies at every place in turn; the next one must finish or undo what it finds.

use std::time::Duration;

use daemon::crash_point::PLACES;
use schemas::id::Generation;
use schemas::phase::Phase;
use schemas::spec::{ExistingData, MigrationSpec, SourceAfter, SourceWrites};
use schemas::time::Length;
use schemas::wire::v1::act_request::Act;
use schemas::wire::v1::{Pause, Resume};

use super::bench::{Bench, spec};

/// What leads a run through a place.
enum Path {
    /// Declared, ready, acknowledged, completed.
    Cutover,
    /// The same with writes observed.
    Observed,
    /// A drain that is too slow, then undone.
    TooSlow,
    /// Paused and resumed by hand.
    Pause,
    /// A window that closes and is extended.
    Expiry,
    /// Cancelled.
    Cancel,
    /// A generation after a cancelled one, with what is there dropped.
    Rerun,
    /// A fault that stops it.
    Failure,
}

fn path_to(place: &str) -> Path {
    match place {
        "before:retire_earlier"
        | "after:retire_earlier"
        | "before:drop_earlier"
        | "after:drop_earlier"
        | "before:drop_existing"
        | "after:drop_existing" => Path::Rerun,
        "before:watch_source" | "after:watch_source" => Path::Observed,
        "before:unblock_source" | "after:unblock_source" => Path::TooSlow,
        "journaled:paused" => Path::Pause,
        "before:check_resume_point"
        | "after:check_resume_point"
        | "before:free_destination"
        | "after:free_destination"
        | "journaled:expired" => Path::Expiry,
        "journaled:cancelled" => Path::Cancel,
        "journaled:failed" => Path::Failure,
        _ => Path::Cutover,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_that_dies_anywhere_is_taken_up_by_the_next() {
    let runs = PLACES.iter().map(|place| tokio::spawn(die_at(place)));
    for run in runs.collect::<Vec<_>>() {
        run.await.expect("it ends as it must");
    }
}

async fn die_at(place: &'static str) {
    let mut bench = Bench::new();
    bench.start(Some(place)).await;
    let mut spec = spec("orders");
    spec.cutover.window = Length::from_hours(1);
    let path = path_to(place);
    match path {
        Path::Cutover | Path::Pause | Path::Expiry | Path::Cancel | Path::Failure => {}
        Path::Observed => spec.cutover.source_writes = SourceWrites::Observe,
        Path::TooSlow => {
            spec.cutover.max_downtime = Length::from_secs(1);
            bench.world.look().drains = false;
        }
        Path::Rerun => spec.destination.existing_data = ExistingData::Drop,
    }
    // Calls fail in the midst of a death; what was taken is in the journal.
    let _ = drive(&mut bench, &mut spec, &path).await;
    bench.wait_for_death().await;

    bench.world.look().drains = true;
    bench.start(None).await;
    if bench.find("orders").await.is_none() {
        // It died before the declaration was taken; then it is declared again.
        bench.apply(&spec).await.expect("taken");
    }
    let end = bench
        .wait_until("orders", "the end", |observed| {
            matches!(
                observed.status.phase,
                Phase::Ready
                    | Phase::Completed
                    | Phase::Paused
                    | Phase::Cancelled
                    | Phase::Failed
                    | Phase::Expired
            )
        })
        .await;
    let phase = end.status.phase;
    match path {
        Path::Cutover | Path::Observed | Path::TooSlow | Path::Rerun => {
            assert!(matches!(phase, Phase::Ready | Phase::Completed), "{place}: {phase}");
        }
        Path::Pause | Path::Expiry | Path::Cancel | Path::Failure => {}
    }
    let fence = phase == Phase::Completed && end.spec.cutover.source_after == SourceAfter::Blocked;
    // An undo that was on its way may need a moment more.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        fence || !bench.world.look().source_blocked,
        "{place}: the source is left blocked in {phase}"
    );
    // A cancelled run gives back what it holds after it is told to be one.
    let held = || bench.world.look().balancer_held.clone();
    let began = tokio::time::Instant::now();
    while phase == Phase::Cancelled
        && !held().is_empty()
        && began.elapsed() < Duration::from_secs(10)
    {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let held = held();
    match phase {
        Phase::Completed | Phase::Cancelled => {
            assert!(held.is_empty(), "{place}: the balancer stays stopped in {phase}: {held:?}")
        }
        _ => assert!(
            held.iter().all(|run| *run == end.status.run),
            "{place}: an earlier run holds the balancer: {held:?}"
        ),
    }
    if phase == Phase::Ready {
        bench.acknowledge(&end.spec).await.unwrap_or_else(|fault| panic!("{place}: {fault}"));
        bench.wait_for("orders", Phase::Completed).await;
        assert!(
            bench.world.look().balancer_held.is_empty(),
            "{place}: the balancer is not given back"
        );
    }
    bench.stop().await;
}

/// Leads a run along its path, for as long as the daemon lives.
async fn drive(bench: &mut Bench, spec: &mut MigrationSpec, path: &Path) -> Option<()> {
    bench.apply(spec).await.ok()?;
    alive_until(bench, Phase::Ready).await?;
    match path {
        Path::Cutover | Path::Observed | Path::TooSlow => {
            bench.acknowledge(spec).await.ok()?;
        }
        Path::Pause => {
            bench.act("orders", Act::Pause(Pause {})).await.ok()?;
            bench.act("orders", Act::Resume(Resume {})).await.ok()?;
        }
        Path::Expiry => {
            bench.shift_clock(2 * 3_600);
            alive_until(bench, Phase::Expired).await?;
            spec.cutover.extensions = 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
            if !bench.is_dead() {
                bench.apply(spec).await.ok()?;
            }
        }
        Path::Cancel => {
            bench.remove("orders").await.ok()?;
        }
        Path::Rerun => {
            spec.generation = Generation(2);
            bench.apply(spec).await.ok()?;
        }
        Path::Failure => {
            let fault = schemas::fault::Fault::new(
                schemas::fault::FaultCode::ResumePointLost,
                "the oplog has rolled over",
            );
            bench.world.fail_sync(fault).await;
        }
    }
    Some(())
}

async fn alive_until(bench: &Bench, phase: Phase) -> Option<()> {
    loop {
        if bench.is_dead() {
            return None;
        }
        // A dead registry answers nothing; the next look notices.
        let looked = tokio::time::timeout(Duration::from_secs(2), bench.try_find("orders")).await;
        if let Ok(Some(observed)) = looked
            && observed.status.phase == phase
        {
            return Some(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
