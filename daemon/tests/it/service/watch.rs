//! A watched directory: what changes there is applied, and what is not whole changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemas::directory_watch::{WatchOutcome, Watching};
use schemas::phase::Phase;
use schemas::wire::v1::act_request::Act;
use schemas::wire::v1::{GetDaemonRequest, Pause};

use super::bench::Bench;

/// A migration with something in its cutover block.
fn hcl(name: &str, cutover: &str) -> String {
    format!(
        r#"daemon {{
  workspace = "payments"
}}
migration "{name}" {{
  source {{
    uri = "mongodb://{name}-a.example.net/?replicaSet=a"
  }}
  destination {{
    uri = "mongodb://{name}-b.example.net/?replicaSet=b"
  }}
  cutover {{
    {cutover}
  }}
}}
"#
    )
}

/// As an editor writes: a file of its own beside it, then a rename.
fn save(directory: &Path, name: &str, text: &str) {
    let aside = directory.join(format!(".{name}.swp"));
    fs::write(&aside, text).expect("writes");
    fs::rename(aside, directory.join(name)).expect("renames");
}

async fn watching(bench: &Bench) -> Option<Watching> {
    let answer = bench
        .client()
        .await
        .get_daemon(GetDaemonRequest {})
        .await
        .expect("it answers")
        .into_inner();
    (!answer.watching.is_empty())
        .then(|| serde_json::from_str(&answer.watching).expect("what it watches"))
}

/// Waits until the watch says something.
async fn says(bench: &Bench, what: &str, holds: impl Fn(&Watching) -> bool) -> Watching {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    loop {
        let said = watching(bench).await.expect("it watches");
        if holds(&said) {
            return said;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}: {said:#?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

async fn refused(bench: &Bench, text: &str) -> Watching {
    let contains = |said: &Watching| {
        said.diagnostics.iter().any(|one| format!("{} {}", one.summary, one.detail).contains(text))
    };
    says(bench, text, |said| said.outcome == WatchOutcome::Refused && contains(said)).await
}

async fn bench_with(text: &str) -> (Bench, PathBuf) {
    let mut bench = Bench::new();
    let directory = bench.folder().join("hcl");
    fs::create_dir(&directory).expect("a folder");
    fs::write(directory.join("main.hcl"), text).expect("writes");
    bench.watch = Some(directory.clone());
    bench.start(None).await;
    (bench, directory)
}

async fn appears(bench: &Bench, name: &str, phase: Phase) {
    says(bench, "the first apply", |said| said.outcome == WatchOutcome::Applied).await;
    bench.wait_for(name, phase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_directory_is_applied_as_it_changes_and_only_acknowledge_cuts_over() {
    let (bench, directory) = bench_with(&hcl("orders", "max_lag = \"10s\"")).await;
    appears(&bench, "orders", Phase::Ready).await;
    let ready = bench.observed("orders").await.status;
    let journaled = bench.entries("orders").await;
    let by = journaled.iter().find_map(|entry| entry.actor.clone()).expect("somebody applied it");
    assert!(by.to_string().contains("cutoverd --watch"), "{by}");

    save(&directory, "main.hcl", &hcl("orders", "max_lag = \"20s\""));
    let changed =
        bench.wait_until("orders", "the edit", |one| one.status.serial > ready.serial).await;
    assert_eq!(changed.spec.cutover.max_lag.to_string(), "20s");
    assert_eq!(changed.status.run, ready.run, "an edit starts nothing again");
    assert!(!bench.world.look().source_blocked, "nothing but a token cuts over");

    // A token of nobody changes nothing; the run's own does.
    save(
        &directory,
        "main.hcl",
        &hcl("orders", "acknowledge = \"cut-9ed0b9dc2914ec9b1cdfd8862c597b1fae1cd356\""),
    );
    refused(&bench, "token").await;
    assert_eq!(bench.observed("orders").await.status.phase, Phase::Ready);
    let token = bench.observed("orders").await.status.acknowledge_token.expect("it is ready");
    let whole = format!("max_lag = \"20s\"\n    acknowledge = \"{token}\"");
    save(&directory, "main.hcl", &hcl("orders", &whole));
    bench.wait_for("orders", Phase::Completed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_whole_change_nothing_and_are_told() {
    let text = hcl("orders", "max_lag = \"10s\"");
    let (bench, directory) = bench_with(&text).await;
    appears(&bench, "orders", Phase::Ready).await;
    let before = bench.observed("orders").await;
    let file = directory.join("main.hcl");

    // Cut off in the middle, emptied, misspelt, gone: each is reported, and the migration goes on
    // as it was.
    fs::write(&file, &text[..text.len() / 2]).expect("writes");
    refused(&bench, "not closed").await;
    fs::write(&file, "").expect("writes");
    refused(&bench, "is empty").await;
    fs::write(&file, text.replace("max_lag", "max_lagg")).expect("writes");
    let told = refused(&bench, "max_lag").await;
    assert_eq!(told.diagnostics[0].place.as_ref().map(|place| place.line), Some(12));
    fs::remove_file(&file).expect("removes");
    refused(&bench, "no .hcl file").await;
    let after = bench.observed("orders").await;
    assert_eq!(
        (after.status.serial, after.status.phase),
        (before.status.serial, before.status.phase)
    );

    // What editors leave beside a file is none of it.
    fs::write(directory.join(".main.hcl.swp"), "junk").expect("writes");
    fs::write(directory.join("main.hcl~"), "junk").expect("writes");
    save(&directory, "main.hcl", &hcl("orders", "max_lag = \"30s\""));
    bench
        .wait_until("orders", "the whole file", |one| one.spec.cutover.max_lag.to_string() == "30s")
        .await;
    says(&bench, "that it is well", |said| {
        said.outcome == WatchOutcome::Applied && said.diagnostics.is_empty()
    })
    .await;

    // A block that is taken out on purpose cancels its migration, as an apply does.
    save(&directory, "main.hcl", "daemon {\n  workspace = \"payments\"\n}\n");
    bench.wait_for("orders", Phase::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_by_hand_stands_over_a_restart() {
    let (mut bench, directory) = bench_with(&hcl("orders", "max_lag = \"10s\"")).await;
    appears(&bench, "orders", Phase::Ready).await;
    bench.act("orders", Act::Pause(Pause {})).await.expect("it holds");
    bench.wait_for("orders", Phase::Paused).await;
    bench.stop().await;
    bench.start(None).await;
    says(&bench, "the restart", |said| said.outcome == WatchOutcome::Applied).await;
    assert_eq!(
        bench.observed("orders").await.status.phase,
        Phase::Paused,
        "the directory has not changed"
    );
    save(&directory, "main.hcl", &hcl("orders", "max_lag = \"20s\""));
    bench.wait_for("orders", Phase::Ready).await;
}

/// A volume as kubelet writes it: files are links into `..data`, itself a link that is swapped at
/// once.
fn publish(volume: &Path, version: &str, text: &str) {
    let folder = volume.join(version);
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("main.hcl"), text).expect("writes");
    symlink(version, volume.join("..data_tmp")).expect("a link");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("the swap");
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_links_are_followed() {
    let mut bench = Bench::new();
    let volume = bench.folder().join("volume");
    fs::create_dir(&volume).expect("a folder");
    publish(&volume, "..2026_01", &hcl("orders", "max_lag = \"10s\""));
    symlink("..data/main.hcl", volume.join("main.hcl")).expect("a link");
    bench.watch = Some(volume.clone());
    bench.start(None).await;
    appears(&bench, "orders", Phase::Ready).await;
    publish(&volume, "..2026_02", &hcl("orders", "max_lag = \"20s\""));
    fs::remove_dir_all(volume.join("..2026_01")).expect("the old one goes");
    bench
        .wait_until("orders", "the swap", |one| one.spec.cutover.max_lag.to_string() == "20s")
        .await;
    bench.stop().await;

    // git-sync swaps the directory itself.
    let (first, second) = (bench.folder().join("one"), bench.folder().join("two"));
    for (folder, lag) in [(&first, "30s"), (&second, "40s")] {
        fs::create_dir(folder).expect("a folder");
        fs::write(folder.join("main.hcl"), hcl("orders", &format!("max_lag = \"{lag}\"")))
            .expect("writes");
    }
    let current = bench.folder().join("current");
    symlink(&first, &current).expect("a link");
    bench.watch = Some(current.clone());
    bench.start(None).await;
    bench
        .wait_until("orders", "the other directory", |one| {
            one.spec.cutover.max_lag.to_string() == "30s"
        })
        .await;
    symlink(&second, bench.folder().join("next")).expect("a link");
    fs::rename(bench.folder().join("next"), &current).expect("the swap");
    bench
        .wait_until("orders", "the swapped directory", |one| {
            one.spec.cutover.max_lag.to_string() == "40s"
        })
        .await;
    fs::write(second.join("main.hcl"), hcl("orders", "max_lag = \"50s\"")).expect("writes");
    bench
        .wait_until("orders", "an edit after the swap", |one| {
            one.spec.cutover.max_lag.to_string() == "50s"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_takes_nothing_with_it_and_is_followed_when_it_is_back() {
    let (bench, directory) = bench_with(&hcl("orders", "max_lag = \"10s\"")).await;
    appears(&bench, "orders", Phase::Ready).await;
    fs::rename(&directory, directory.with_extension("away")).expect("renames");
    refused(&bench, "cannot be read").await;
    fs::create_dir(&directory).expect("a folder");
    refused(&bench, "there is no .hcl file").await;
    assert_eq!(bench.observed("orders").await.status.phase, Phase::Ready, "nothing is cancelled");
    // It is another directory by now, which the first one's watch does not report.
    save(&directory, "main.hcl", &hcl("orders", "max_lag = \"20s\""));
    bench
        .wait_until("orders", "the edit", |one| one.spec.cutover.max_lag.to_string() == "20s")
        .await;
    says(&bench, "the second apply", |said| said.outcome == WatchOutcome::Applied).await;
}
