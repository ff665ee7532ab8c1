//! A disk that is full, at the start of the daemon and in between: what is held is given back
//! without it, and the rest waits for room.

use std::time::Duration;

use daemon::state_fault::Cause;
use schemas::fault::FaultCode;
use schemas::observed::Observed;
use schemas::phase::Phase;
use schemas::spec::{MigrationSpec, SourceAfter};
use schemas::time::Length;

use super::bench::{Bench, spec};

/// Says that the disk is full, and that nobody may rely on the run.
fn says_so(observed: &Observed) -> bool {
    let status = &observed.status;
    let is_told = status
        .error
        .as_ref()
        .is_some_and(|fault| fault.code == FaultCode::StateDirUnusable && fault.retryable);
    is_told && !status.ready.value && status.acknowledge_token.is_none()
}

async fn ready(bench: &Bench, spec: &MigrationSpec) {
    bench.apply(spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = tokio::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_that_is_over_its_time_is_undone_though_the_disk_is_full_since_before_the_start() {
    let mut bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.cutover.max_downtime = Length::from_secs(600);
    ready(&bench, &spec).await;
    bench.world.look().drains = false;
    bench.acknowledge(&spec).await.expect("taken");
    until("the source is blocked", || bench.world.look().source_blocked).await;
    bench
        .wait_until("orders", "a drain", |observed| observed.status.phase == Phase::Draining)
        .await;
    bench.crash().await;
    bench.fill_disk(true);
    // Its checkpoints lie on the same disk.
    bench.world.look().state_fault = Some(Cause::Full.fault("the run's checkpoints: full"));
    bench.shift_clock(700);
    bench.start(None).await;
    until("the source takes writes", || !bench.world.look().source_blocked).await;
    bench.wait_until("orders", "the word", says_so).await;
    // Nothing of it is in the journal, and the next daemon must cope.
    bench.crash().await;
    bench.start(None).await;
    bench.wait_until("orders", "the word", says_so).await;
    bench.world.look().state_fault = None;
    bench.world.look().drains = true;
    bench.fill_disk(false);
    let back = bench.wait_for("orders", Phase::Ready).await;
    assert_eq!(back.status.error.expect("why").code, FaultCode::MaxDowntimeExceeded);
    assert!(!bench.world.look().source_blocked);
    bench.acknowledge(&back.spec).await.expect("taken");
    bench.wait_for("orders", Phase::Completed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_destination_is_opened_though_the_disk_is_full() {
    for (place, is_full_before) in [
        ("before:open_destination", true),
        ("after:open_destination", true),
        ("after:restore_settings", false),
    ] {
        let mut bench = Bench::new();
        bench.start(Some(place)).await;
        let mut spec = spec("orders");
        spec.cutover.source_after = SourceAfter::Open;
        ready(&bench, &spec).await;
        // The daemon may die before it answers.
        let _ = bench.acknowledge(&spec).await;
        bench.wait_for_death().await;
        bench.fill_disk(true);
        if is_full_before {
            bench.world.look().state_fault = Some(Cause::Full.fault("the run's checkpoints: full"));
        }
        bench.start(None).await;
        until("the destination is open", || bench.world.look().destination_open).await;
        until("the source takes writes again", || !bench.world.look().source_blocked).await;
        let open = bench.wait_until("orders", "the word", says_so).await;
        assert_eq!(open.status.phase, Phase::Finalizing, "{place}");
        bench
            .wait_until("orders", "writable", |observed| observed.status.destination_writable)
            .await;
        bench.world.look().state_fault = None;
        bench.fill_disk(false);
        bench.wait_for("orders", Phase::Completed).await;
        assert!(!bench.world.look().source_blocked, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_fills_in_a_drain_ends_it_and_does_not_keep_the_source_blocked() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.cutover.max_downtime = Length::from_secs(2);
    ready(&bench, &spec).await;
    bench.world.look().drains = false;
    bench.acknowledge(&spec).await.expect("taken");
    until("the source is blocked", || bench.world.look().source_blocked).await;
    bench.fill_disk(true);
    until("the source takes writes", || !bench.world.look().source_blocked).await;
    let held = bench.wait_until("orders", "the word", says_so).await;
    assert_eq!(held.status.phase, Phase::Draining, "what is not in the journal is not told");
    bench.fill_disk(false);
    let back = bench.wait_for("orders", Phase::Ready).await;
    assert_eq!(back.status.error.expect("why").code, FaultCode::MaxDowntimeExceeded);
    let told = bench.entries("orders").await;
    assert!(told.iter().any(|entry| entry.message.contains("giving the cutover up")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_on_a_full_disk_is_not_ready_and_goes_on_when_there_is_room() {
    let mut bench = Bench::started().await;
    let spec = spec("orders");
    ready(&bench, &spec).await;
    let token = bench.observed("orders").await.status.acknowledge_token;
    bench.fill_disk(true);
    bench.wait_until("orders", "the word", says_so).await;
    let mut acknowledged = spec.clone();
    acknowledged.cutover.acknowledge = token;
    let refused = bench.apply(&acknowledged).await.expect_err("nothing can be noted down");
    assert_eq!(refused.code, FaultCode::StateDirUnusable);
    bench.fill_disk(false);
    bench.wait_until("orders", "ready again", |observed| observed.status.ready.value).await;
    // And a start on the full disk.
    bench.crash().await;
    bench.fill_disk(true);
    bench.start(None).await;
    until("the sync runs", || !bench.world.running().is_empty()).await;
    bench.wait_until("orders", "the word", says_so).await;
    bench.fill_disk(false);
    bench.wait_until("orders", "ready again", |observed| observed.status.ready.value).await;
}
