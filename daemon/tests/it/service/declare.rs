//! What apply takes, what it refuses, and what people do by hand.

use std::collections::VecDeque;

use schemas::fault::{Fault, FaultCode};
use schemas::id::Generation;
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::spec::{ExistingData, IndexBuild, SecretRef};
use schemas::wire::to_json;
use schemas::wire::v1::act_request::Act;
use schemas::wire::v1::{Cancel, Change, Extend, Pause, RestartShard, Resume};

use super::bench::{Bench, spec};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_again_is_no_change_and_a_stale_plan_is_refused() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    assert_eq!(bench.apply_at(0, "orders", Some(&spec)).await, Ok(1));
    let run = bench.observed("orders").await.status.run;
    assert_eq!(bench.apply_at(1, "orders", Some(&spec)).await, Ok(1));
    assert_eq!(bench.observed("orders").await.status.run, run);
    spec.cutover.extensions = 1;
    let refused = bench.apply_at(0, "orders", Some(&spec)).await.expect_err("planned on nothing");
    assert_eq!(refused.code, FaultCode::PlanOutdated);
    assert_eq!(bench.apply_at(1, "orders", Some(&spec)).await, Ok(2));
    assert_eq!(bench.observed("orders").await.spec, spec);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_changes_are_taken_or_none() {
    let bench = Bench::started().await;
    let change = |name: &str, serial| Change {
        name: name.to_owned(),
        expected_serial: serial,
        spec: to_json(&spec(name)),
        drops: Vec::new(),
    };
    let refused =
        bench.apply_all(vec![change("a", 0), change("b", 7)]).await.expect_err("b is not at 7");
    assert_eq!(refused.code, FaultCode::PlanOutdated);
    assert!(bench.find("a").await.is_none());
    let mut named = spec("a");
    named.cutover.acknowledge = Some("cut-0".to_owned());
    let with_token = Change {
        name: "a".to_owned(),
        expected_serial: 0,
        spec: to_json(&named),
        drops: Vec::new(),
    };
    assert_eq!(
        bench.apply_all(vec![with_token]).await.expect_err("no run yet").code,
        FaultCode::WrongToken
    );
    assert_eq!(bench.apply_all(vec![change("a", 0), change("b", 0)]).await, Ok(vec![1, 1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_works_by_changes_only_with_a_new_generation() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    spec.copy.indexes = IndexBuild::BeforeCopy;
    let refused = bench.apply(&spec).await.expect_err("it cannot change in place");
    assert_eq!(refused.code, FaultCode::ImmutableAttribute);
    assert!(refused.message.contains("copy.indexes"), "{refused}");
    let old = bench.observed("orders").await;

    spec.generation = Generation(2);
    bench.apply(&spec).await.expect("a new run");
    let new = bench.wait_for("orders", Phase::Ready).await;
    assert_ne!(new.status.run, old.status.run);
    assert_eq!(bench.world.look().dropped, [Namespace::new("shop", "orders")]);
    assert_eq!(bench.world.running().into_iter().collect::<Vec<_>>(), [new.status.run]);
    spec.generation = Generation(1);
    assert_eq!(
        bench.apply(&spec).await.expect_err("it only rises").code,
        FaultCode::ImmutableAttribute
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_of_a_completed_run_gives_its_source_back_first() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.acknowledge(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Completed).await;
    assert!(bench.world.look().source_blocked);
    spec.generation = Generation(2);
    bench.apply(&spec).await.expect("a new run");
    bench.wait_for("orders", Phase::Ready).await;
    assert!(!bench.world.look().source_blocked);
    assert_eq!(bench.world.look().dropped, [Namespace::new("shop", "orders")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_run_change_in_place() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    let before = bench.wait_for("orders", Phase::Ready).await.status;
    spec.cutover.extensions = 2;
    bench.apply(&spec).await.expect("taken");
    let after = bench.observed("orders").await.status;
    assert_eq!(after.window.extensions, 2);
    assert_ne!(after.acknowledge_token, before.acknowledge_token, "the token fits one spec");
    spec.copy.parallelism = Some(3);
    bench.apply(&spec).await.expect("taken");
    let again = bench.wait_for("orders", Phase::Ready).await.status;
    assert_eq!(again.run, before.run);
    assert_eq!(bench.world.running().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_tried_again_with_what_was_changed_for_it() {
    let bench = Bench::started().await;
    let denied = Fault::new(FaultCode::AuthenticationFailed, "wrong password");
    bench.world.look().faults.insert("validate", VecDeque::from([denied.clone()]));
    let mut spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    assert_eq!(bench.wait_for("orders", Phase::Failed).await.status.error, Some(denied));
    spec.cutover.extensions = 1;
    bench.apply(&spec).await.expect("taken");
    assert_eq!(bench.observed("orders").await.status.phase, Phase::Failed, "that does not mend it");
    spec.source.connection.password = Some(SecretRef::Env("ORDERS_PASSWORD".to_owned()));
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_others_change_nothing() {
    let bench = Bench::started().await;
    let (orders, users) = (spec("orders"), spec("users"));
    bench.apply(&orders).await.expect("taken");
    bench.apply(&users).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    let foreign = bench.wait_for("users", Phase::Ready).await.status.acknowledge_token;
    for token in [foreign, Some("cut-".to_owned()), Some(String::new())] {
        let mut wrong = orders.clone();
        wrong.cutover.acknowledge = token;
        assert_eq!(
            bench.apply(&wrong).await.expect_err("not this run's").code,
            FaultCode::WrongToken
        );
    }
    let observed = bench.observed("orders").await;
    assert_eq!((observed.status.phase, observed.status.serial.0), (Phase::Ready, 1));
    // A token and a change of what it was made for, at once.
    let mut both = orders.clone();
    both.cutover.acknowledge = observed.status.acknowledge_token.clone();
    both.cutover.extensions = 9;
    assert_eq!(
        bench.apply(&both).await.expect_err("it is another spec's now").code,
        FaultCode::WrongToken
    );
    assert_eq!(bench.observed("orders").await.status.window.extensions, 0);
    // The token that a run was cut over with, said again with another change.
    let done = bench.acknowledge(&orders).await.expect("taken");
    bench.wait_for("orders", Phase::Completed).await;
    let serial = bench.observed("orders").await.status.serial.0;
    assert_eq!(bench.apply(&done).await, Ok(serial));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_block_cancels_and_stays_visible_until_a_new_generation() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.remove("orders").await.expect("taken");
    let cancelled =
        bench.wait_until("orders", "the clean-up", |_| bench.world.look().cleaned.is_some()).await;
    assert!(!cancelled.declared);
    assert_eq!(cancelled.status.phase, Phase::Cancelled);
    assert!(!cancelled.status.destination_writable);
    assert!(bench.world.look().destination_open);
    assert!(bench.world.running().is_empty());
    let refused = bench.apply(&spec).await.expect_err("the same generation");
    assert_eq!(refused.code, FaultCode::WrongState);
    assert!(refused.remedy.contains("generation"), "{refused:?}");
    spec.generation = Generation(2);
    bench.apply(&spec).await.expect("a new run");
    assert!(bench.wait_for("orders", Phase::Ready).await.declared);
    assert_eq!(bench.world.look().dropped, [Namespace::new("shop", "orders")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_by_hand_are_drift_until_they_are_declared() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.act("orders", Act::Pause(Pause {})).await.expect("done");
    let paused = bench.wait_for("orders", Phase::Paused).await;
    assert_eq!(paused.by_hand.paused, Some(true));
    assert!(paused.status.paused);
    // The declaration says otherwise, and is applied again.
    assert_eq!(bench.apply(&spec).await, Ok(2));
    assert_eq!(bench.wait_for("orders", Phase::Ready).await.by_hand.paused, None);

    bench.act("orders", Act::Pause(Pause {})).await.expect("done");
    bench.act("orders", Act::Resume(Resume {})).await.expect("done");
    assert_eq!(bench.observed("orders").await.by_hand.paused, None);

    let message = bench.act("orders", Act::Extend(Extend { extensions: 1 })).await.expect("done");
    assert!(message.contains("24 h"), "{message}");
    assert_eq!(
        bench.act("orders", Act::Extend(Extend { extensions: 0 })).await.expect_err("none").code,
        FaultCode::InvalidConfiguration
    );
    assert_eq!(bench.observed("orders").await.by_hand.extensions, 1);
    spec.cutover.extensions = 1;
    bench.apply(&spec).await.expect("taken");
    let official = bench.observed("orders").await;
    assert_eq!((official.by_hand.extensions, official.status.window.extensions), (0, 1));

    let unknown = bench
        .act("orders", Act::RestartShard(RestartShard { shard: "rs9".to_owned() }))
        .await
        .expect_err("no such shard");
    assert!(unknown.remedy.contains("rs0"), "{unknown:?}");
    bench
        .act("orders", Act::RestartShard(RestartShard { shard: "rs0".to_owned() }))
        .await
        .expect("done");
    bench.wait_for("orders", Phase::Ready).await;

    bench.act("orders", Act::Cancel(Cancel {})).await.expect("done");
    let cancelled = bench.wait_for("orders", Phase::Cancelled).await;
    assert!(cancelled.by_hand.cancelled && cancelled.declared);
    assert_eq!(bench.apply(&spec).await.expect_err("it is over").code, FaultCode::WrongState);
    assert_eq!(
        bench.act("users", Act::Pause(Pause {})).await.expect_err("unknown").code,
        FaultCode::UnknownMigration
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_pause_holds_and_lets_go() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.paused = true;
    spec.destination.existing_data = ExistingData::Drop;
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Paused).await;
    assert!(!bench.world.look().calls.iter().any(|call| call == "validate"));
    spec.paused = false;
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    assert_eq!(bench.world.look().dropped, [Namespace::new("shop", "old")]);
    spec.paused = true;
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Paused).await;
    bench.wait_until("orders", "the stop", |_| bench.world.running().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_do_not_share_destination_namespaces() {
    let bench = Bench::started().await;
    let one = spec("orders");
    let mut two = spec("users");
    two.destination.connection.uri =
        format!("{}/?retryWrites=true", one.destination.connection.uri);
    bench.apply(&one).await.expect("taken");
    assert_eq!(
        bench.apply(&two).await.expect_err("both take everything").code,
        FaultCode::DestinationInUse
    );
    bench.remove("orders").await.expect("cancelled");
    bench.apply(&two).await.expect("nobody else is at work");
}
