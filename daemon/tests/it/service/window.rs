//! The window against restarts and clocks.

use schemas::fault::FaultCode;
use schemas::phase::Phase;
use schemas::time::Length;
use schemas::wire::v1::Extend;
use schemas::wire::v1::act_request::Act;

use super::bench::{Bench, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_down_at_the_deadline_expires_first_and_an_extension_goes_on() {
    let mut bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.cutover.window = Length::from_hours(1);
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.stop().await;
    assert!(bench.world.running().is_empty(), "a clean stop leaves nothing running");
    bench.shift_clock(2 * 3_600);
    bench.world.look().calls.clear();
    bench.start(None).await;
    let expired = bench.wait_for("orders", Phase::Expired).await.status;
    assert_eq!(expired.window.remaining_seconds, Some(0.0));
    assert_eq!(expired.error.expect("it says so").code, FaultCode::WindowExpired);
    bench.wait_until("orders", "the destination", |_| bench.world.look().destination_open).await;
    assert!(
        !bench.world.look().calls.iter().any(|call| call == "start_sync"),
        "it expires before it applies anything"
    );
    let mut late = spec.clone();
    late.cutover.acknowledge = Some("cut-whatever".to_owned());
    assert_eq!(
        bench.apply(&late).await.expect_err("the window is over").code,
        FaultCode::WindowExpired
    );

    spec.cutover.extensions = 1;
    bench.apply(&spec).await.expect("an extension");
    let again = bench.wait_for("orders", Phase::Ready).await.status;
    assert_eq!(again.window.opened_at, expired.window.opened_at);
    bench.acknowledge(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Completed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_without_the_resume_point_fails_and_says_why() {
    let bench = Bench::started().await;
    let mut spec = spec("orders");
    spec.cutover.window = Length::from_hours(1);
    bench.apply(&spec).await.expect("taken");
    bench.wait_for("orders", Phase::Ready).await;
    bench.shift_clock(2 * 3_600);
    bench.wait_for("orders", Phase::Expired).await;
    bench.world.look().resume_point_held = false;
    bench.act("orders", Act::Extend(Extend { extensions: 1 })).await.expect("granted");
    let failed = bench.wait_for("orders", Phase::Failed).await.status.error.expect("the reason");
    assert_eq!(failed.code, FaultCode::ResumePointLost);
    assert!(failed.remedy.contains("generation"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_does_not_lengthen_the_window() {
    let mut bench = Bench::new();
    bench.shift_clock(10 * 3_600);
    bench.start(None).await;
    let mut spec = spec("orders");
    spec.cutover.window = Length::from_hours(1);
    bench.apply(&spec).await.expect("taken");
    let before = bench.wait_for("orders", Phase::Ready).await.status.window;
    bench.shift_clock(0);
    let after = bench.observed("orders").await.status.window;
    assert_eq!(after.expires_at, before.expires_at);
    assert!(after.remaining_seconds <= before.remaining_seconds, "{after:?}");
    bench.stop().await;
    bench.shift_clock(-5 * 3_600);
    bench.start(None).await;
    let restarted = bench.observed("orders").await.status.window;
    assert!(restarted.remaining_seconds <= after.remaining_seconds, "{restarted:?}");
}
