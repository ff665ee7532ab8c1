//! A run from its declaration to its end, and what errors do on the way.

use std::collections::VecDeque;
use std::time::Duration;

use daemon::engine::Ending;
use schemas::fault::{Fault, FaultCode};
use schemas::history::{Entry, EntryKind};
use schemas::phase::Phase;
use schemas::spec::{SourceAfter, SourceWrites};
use schemas::time::Length;
use schemas::wire::v1::EventsRequest;

use super::bench::{Bench, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_migration_becomes_ready_and_an_acknowledged_one_completes() {
    let bench = Bench::started().await;
    let spec = spec("orders");
    assert_eq!(bench.apply(&spec).await.expect("taken"), 1);
    let ready = bench.wait_for("orders", Phase::Ready).await.status;
    assert!(ready.ready.value, "{:?}", ready.ready);
    assert!(
        ready
            .acknowledge_token
            .as_deref()
            .is_some_and(|token| token.starts_with("cut-") && token.len() == 44)
    );
    let remaining = ready.window.remaining_seconds.expect("the window is open");
    assert!((431_900.0..=432_000.0).contains(&remaining), "{remaining}");
    assert!(!bench.world.look().source_blocked);

    bench.acknowledge(&spec).await.expect("it is the run's token");
    let done = bench.wait_for("orders", Phase::Completed).await;
    assert!(done.status.destination_writable);
    assert_eq!(done.acknowledged_token, done.spec.cutover.acknowledge);
    assert!(done.status.cutover.downtime_seconds.expect("measured") < 5.0);
    assert!(
        done.status
            .cutover
            .acknowledged_by
            .as_deref()
            .is_some_and(|by| by.contains("ada") && by.contains("abc123"))
    );
    assert_eq!(done.status.acknowledge_token, None);
    {
        let outside = bench.world.look();
        assert!(outside.source_blocked, "a fence against forgotten writers");
        assert!(outside.destination_open && outside.settings_restored);
        assert_eq!(outside.cleaned, Some(Ending::Completed));
    }
    assert!(bench.world.running().is_empty());

    let entries = bench.entries("orders").await;
    let transitions: Vec<Phase> = entries.iter().filter_map(|entry| entry.to).collect();
    assert_eq!(
        transitions,
        [
            Phase::Copying,
            Phase::CatchingUp,
            Phase::Ready,
            Phase::Draining,
            Phase::Finalizing,
            Phase::Completed
        ]
    );
    let own = rustix::process::geteuid().as_raw();
    let acknowledged =
        entries.iter().find(|entry| entry.to == Some(Phase::Draining)).expect("it was journaled");
    assert_eq!(acknowledged.actor.as_ref().and_then(|actor| actor.uid), Some(own));

    // Forgetting it gives the source back.
    bench.remove("orders").await.expect("a completed run is forgotten");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while bench.find("orders").await.is_some() {
        assert!(tokio::time::Instant::now() < deadline, "it is forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!bench.world.look().source_blocked);
    assert!(!bench.entries("orders").await.is_empty(), "its records stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_source_is_given_back_by_the_clean_up() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.cutover.source_after = SourceAfter::Open;
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.acknowledge(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Completed).await;
    assert!(!bench.world.look().source_blocked);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_source_is_never_blocked() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.cutover.source_writes = SourceWrites::Observe;
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.acknowledge(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Completed).await;
    let outside = bench.world.look();
    assert!(!outside.calls.iter().any(|call| call == "block_source"));
    assert!(outside.calls.iter().any(|call| call == "watch_source_quiet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_is_undone_and_its_token_is_spent() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.cutover.max_downtime = Length::from_secs(1);
    bench.apply(&spec).await.expect("taken");
    let first = bench.wait_for("orders", Phase::Ready).await;
    bench.world.look().drains = false;
    let acknowledged = bench.acknowledge(&spec).await.expect("taken");
    let back = bench
        .wait_until("orders", "the way back", |observed| {
            observed.status.phase == Phase::Ready && observed.status.error.is_some()
        })
        .await;
    assert_eq!(back.status.error.expect("the reason").code, FaultCode::MaxDowntimeExceeded);
    assert!(!bench.world.look().source_blocked);
    assert_eq!(back.status.window.opened_at, first.status.window.opened_at);
    assert_ne!(back.status.acknowledge_token, first.status.acknowledge_token);

    // The old token again, after the declaration had let go of it.
    bench.world.look().drains = true;
    let mut without = acknowledged.clone();
    without.cutover.acknowledge = None;
    bench.apply(&without).await.expect("no act");
    let refused = bench.apply(&acknowledged).await.expect_err("it was used");
    assert_eq!(refused.code, FaultCode::WrongToken);
    bench.acknowledge(&without).await.expect("the new one");
    bench.wait_for("orders", Phase::Completed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_pass_are_shown_and_retried_and_others_stop_the_run() {
    let bench = Bench::started().await;
    let gone = Fault::new(FaultCode::Unreachable, "db-a does not answer");
    bench.world.look().faults.insert("validate", VecDeque::from([gone.clone()]));
    let spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    let shown =
        bench.wait_until("orders", "the error", |observed| observed.status.error.is_some()).await;
    assert_eq!(shown.status.phase, Phase::Validating);
    assert_eq!(shown.status.error, Some(gone.clone()));
    bench.wait_for("orders", Phase::Ready).await;

    bench.world.fail_sync(gone).await;
    let fallen = bench.wait_for("orders", Phase::CatchingUp).await;
    assert_eq!(fallen.status.acknowledge_token, None);
    assert!(bench.wait_for("orders", Phase::Ready).await.status.error.is_none());

    let lost = Fault::new(FaultCode::ResumePointLost, "the oplog has rolled over");
    bench.world.fail_sync(lost.clone()).await;
    assert_eq!(bench.wait_for("orders", Phase::Failed).await.status.error, Some(lost));
    assert!(bench.world.running().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizing_that_fails_is_tried_again() {
    let bench = Bench::started().await;
    let denied = Fault::new(FaultCode::MissingPrivileges, "collMod is not granted");
    bench.world.look().faults.insert(
        "restore_settings",
        VecDeque::from([denied.clone(), denied.clone(), denied.clone()]),
    );
    let spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.acknowledge(&spec).await.expect("taken");
    let stuck =
        bench.wait_until("orders", "the error", |observed| observed.status.error.is_some()).await;
    assert_eq!((stuck.status.phase, stuck.status.error), (Phase::Finalizing, Some(denied)));
    assert!(bench.wait_for("orders", Phase::Completed).await.status.error.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_at_the_end_gets_its_balancer_back_later() {
    let bench = Bench::started().await;
    let away = Fault::new(FaultCode::Unreachable, "the source does not answer");
    let spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    assert_eq!(bench.world.look().balancer_held.len(), 1);
    bench
        .world
        .look()
        .faults
        .insert("release_source", VecDeque::from([away.clone(), away.clone(), away.clone()]));
    bench.acknowledge(&spec).await.expect("taken");
    let stuck =
        bench.wait_until("orders", "the error", |observed| observed.status.error.is_some()).await;
    assert_eq!((stuck.status.phase, stuck.status.error), (Phase::Finalizing, Some(away)));
    // The destination does not wait for the source.
    assert!(stuck.status.destination_writable && bench.world.look().cleaned.is_some());
    bench.wait_for("orders", Phase::Completed).await;
    assert!(bench.world.look().balancer_held.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lag_over_its_bound_takes_readiness_back() {
    let bench = Bench::started().await;
    let spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.world.look().lag = Duration::from_secs(41);
    let unready =
        bench.wait_until("orders", "the reason", |observed| !observed.status.ready.value).await;
    assert_eq!(unready.status.ready.reasons, ["lag 41 s is over max_lag 10 s"]);
    // Whether it has fallen back already or not: nothing is acknowledged.
    if unready.status.acknowledge_token.is_some() {
        assert_eq!(
            bench.acknowledge(&spec).await.expect_err("not ready").code,
            FaultCode::NotReady
        );
    }
    bench.wait_for("orders", Phase::CatchingUp).await;
    bench.world.look().lag = Duration::ZERO;
    let again = bench.wait_for("orders", Phase::Ready).await;
    assert_eq!(again.status.window.opened_at, unready.status.window.opened_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_followed_as_they_come() {
    let bench = Bench::started().await;
    bench.apply(&spec("orders")).await.expect("taken");
    let request =
        EventsRequest { workspace: String::new(), name: "orders".to_owned(), follow: true };
    let mut stream = bench.client().await.events(request).await.expect("it answers").into_inner();
    let mut kinds = Vec::new();
    loop {
        let response = tokio::time::timeout(Duration::from_secs(20), stream.message())
            .await
            .expect("more comes")
            .expect("it goes on");
        let entry: Entry =
            serde_json::from_str(&response.expect("it does not end").entry).expect("a record");
        kinds.push(entry.kind);
        if entry.to == Some(Phase::Ready) {
            break;
        }
    }
    assert_eq!(kinds.first(), Some(&EntryKind::Applied));
}
