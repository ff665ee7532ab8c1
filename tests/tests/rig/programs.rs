//! The rig's hold on the real programs: the daemon is killed, stopped and started again; the
//! command line's answers come back.

use std::time::Duration;

use rig::child_process::is_running;
use rig::cutoverd::Config;
use rig::{Cutover, Cutoverd};

#[tokio::test]
async fn a_daemon_is_killed_started_again_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = Cutoverd::start(Config::default()).await.unwrap();
    let cutover = Cutover::new(folder.path()).daemon(&daemon);
    let status = cutover.succeed(["status", "--json"]).await.unwrap().json().unwrap();
    assert_eq!(status, serde_json::json!({ "migrations": [] }));
    assert!(daemon.rss_bytes().unwrap() > 1 << 20);
    assert!(daemon.peak_rss_bytes().unwrap() >= daemon.rss_bytes().unwrap());

    let first = daemon.pid();
    daemon.kill9().await.unwrap();
    assert!(!is_running(first));
    assert_eq!(cutover.run(["status"]).await.unwrap().code, 3);
    daemon.restart().await.unwrap();
    assert_ne!(daemon.pid(), first);
    cutover.succeed(["status"]).await.unwrap();

    assert_eq!(daemon.terminate().await.unwrap(), 0, "{}", daemon.log());
    daemon.restart().await.unwrap();
    let (last, socket) = (daemon.pid(), daemon.socket());
    drop(daemon);
    assert!(!is_running(last));
    assert!(!socket.parent().unwrap().exists());
}

#[tokio::test]
async fn a_daemon_that_does_not_start_says_why() {
    let error =
        Cutoverd::start(Config::default().arg("--no-such-flag")).await.unwrap_err().to_string();
    assert!(error.contains("--no-such-flag"), "{error}");
}

#[tokio::test]
async fn mistakes_come_back_as_exit_codes_and_diagnostics() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.hcl"), "migration \"orders\" {\n  sauce {}\n}\n")
        .unwrap();
    let output = Cutover::new(folder.path())
        .timeout(Duration::from_secs(20))
        .run(["validate"])
        .await
        .unwrap();
    assert_eq!(output.code, 1, "{output}");
    assert!(output.stderr.contains("sauce") && output.stdout.is_empty(), "{output}");
}
