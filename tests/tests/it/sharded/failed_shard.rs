//! One shard of three fails while it is copied: what is seen of it, and that it goes on alone by
//! the operator's word.

use std::collections::BTreeSet;

use mongodb::bson::doc;
use rig::scenario::MIGRATION;
use rig::{ClusterOptions, Options, cutoverd};
use serde_json::Value;

use super::scene::{Destination, Scene, fail_point};

const DOCUMENTS: i32 = 1_500;
const DOCUMENT_BYTES: usize = 16_000;

fn shard<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["shards"].as_array().unwrap().iter().find(|shard| shard["name"] == name).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_shard_that_fails_is_seen_and_begun_again_alone() {
    let scene = Scene::set(
        ClusterOptions::shards(3),
        Destination::set(Options::default()),
        cutoverd::Config::default(),
    )
    .await;
    scene.fill(DOCUMENTS, DOCUMENT_BYTES).await;
    let broken = scene.source.shards()[1].client().await.unwrap();
    // Not the first batch of a scan, which preflight reads as well.
    let refused = doc! {
        "failCommands": ["getMore"], "errorCode": 13, "appName": "cutover",
        "namespace": "shop.hashed",
    };
    let declaration = scene.declaration();
    declaration.write(scene.cutover.folder()).unwrap();
    let plan = scene.cutover.run(["plan"]).await.unwrap();
    for name in ["shard-0", "shard-1", "shard-2"] {
        assert!(plan.stdout.contains(&format!("oplog of {name}")), "{plan}");
    }
    fail_point(&broken, "alwaysOn", refused.clone()).await;
    scene.apply(&declaration).await;
    let is_whole = |shard: &Value| {
        shard["copy"]["documents_copied"] == shard["copy"]["documents_total"]
            && shard["copy"]["documents_total"].as_u64() > Some(0)
    };
    let status = scene
        .status_where("one shard has failed, and the others are copied", |status| {
            status["shards"].as_array().is_some_and(|shards| shards.len() == 3)
                && !shard(status, "shard-1")["error"].is_null()
                && is_whole(shard(status, "shard-0"))
                && is_whole(shard(status, "shard-2"))
        })
        .await;
    assert_eq!(status["phase"], "copying", "{status:#}");
    for name in ["shard-0", "shard-1", "shard-2"] {
        let one = shard(&status, name);
        let expected = [
            "name",
            "phase",
            "copy",
            "tail",
            "lag_seconds",
            "optime_gap",
            "oplog_window_seconds",
            "error",
        ];
        assert_eq!(keys(one), BTreeSet::from(expected), "{one:#}");
        assert_eq!(keys(&one["optime_gap"]), BTreeSet::from(["source", "applied"]), "{one:#}");
        assert!(one["oplog_window_seconds"].is_u64(), "{one:#}");
        assert_eq!(one["phase"], if name == "shard-1" { "failed" } else { "copying" }, "{one:#}");
        assert_eq!(one["error"].is_null(), name != "shard-1", "{one:#}");
    }
    let error = &shard(&status, "shard-1")["error"];
    assert_eq!(
        keys(error),
        BTreeSet::from(["code", "message", "remedy", "retryable"]),
        "{error:#}"
    );
    assert!(error["code"] == "CUT0016" && error["retryable"] == false, "{error:#}");
    assert!(
        status["error"]["message"].as_str().unwrap().starts_with("shard shard-1: "),
        "{status:#}"
    );

    // By name everywhere.
    let again = format!("`cutover restart-shard {MIGRATION} shard-1`");
    for command in [vec!["status"], vec!["plan"], vec!["drift"], vec!["events", MIGRATION]] {
        let seen = scene.cutover.run(&command).await.unwrap();
        assert!(
            seen.stdout.contains("shard-1") && seen.stdout.contains("CUT0016"),
            "{command:?}: {seen}"
        );
        assert!(command[0] == "events" || seen.stdout.contains(&again), "{command:?}: {seen}");
    }
    let drift = scene.cutover.run(["drift", "--json"]).await.unwrap();
    let json = drift.json().unwrap();
    let paths: Vec<&Value> =
        json["drift"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
    assert!(drift.code == 2 && paths == ["shards.shard-1"], "{drift}");

    // On a terminal a bar a shard, each on a line of its own.
    let terminal = scene.cutover.on_terminal(["status", "--watch"]).await.unwrap();
    let start = std::time::Instant::now();
    let lines = loop {
        let lines = terminal.lines();
        if lines.len() >= 4 {
            break lines;
        }
        assert!(start.elapsed() < super::scene::PATIENCE, "{lines:#?}");
        tokio::time::sleep(super::scene::POLL).await;
    };
    drop(terminal);
    println!("{}", lines.join("\n"));
    assert!(
        lines[0].starts_with(&format!("{MIGRATION}: copying")) && !lines[0].contains("CUT0016"),
        "{lines:#?}"
    );
    for name in ["shard-0", "shard-1", "shard-2"] {
        let line = lines
            .iter()
            .find(|line| line.starts_with(&format!("  {name} [")))
            .unwrap_or_else(|| panic!("{name}: {lines:#?}"));
        if name == "shard-1" {
            assert!(line.contains("CUT0016"), "{lines:#?}");
        } else {
            assert!(line.contains("[==============================]"), "{lines:#?}");
        }
    }

    // Only what has stopped can be begun again.
    let copying_or_copied = ["nothing is wrong with it", "are copied already"];
    for (name, words) in [
        ("shard-9", &["its shards are: shard-0, shard-1, shard-2"][..]),
        ("shard-0", &copying_or_copied),
    ] {
        let refused = scene.cutover.run(["restart-shard", MIGRATION, name]).await.unwrap();
        assert!(
            refused.code == 1 && words.iter().any(|words| refused.stderr.contains(words)),
            "{refused}"
        );
    }
    // Its trouble is still there: it fails again, and the others are not touched.
    let failures = |events: &str| events.matches("the copy of shard shard-1 stopped").count();
    let events = async || scene.cutover.succeed(["events", MIGRATION]).await.unwrap().stdout;
    assert_eq!(failures(&events().await), 1);
    scene.cutover.succeed(["restart-shard", MIGRATION, "shard-1"]).await.unwrap();
    scene.status_where("failed again", |status| !shard(status, "shard-1")["error"].is_null()).await;
    let start = std::time::Instant::now();
    while failures(&events().await) < 2 {
        assert!(start.elapsed() < super::scene::PATIENCE, "{}", scene.daemon.log_end());
    }
    fail_point(&broken, "off", refused).await;
    let done = scene.cutover.succeed(["restart-shard", MIGRATION, "shard-1"]).await.unwrap();
    assert!(done.stdout.contains("shard-1"), "{done}");
    scene.acknowledge(&declaration).await;
    let completed = scene.wait_for("completed").await;
    assert!(
        completed["shards"].as_array().unwrap().iter().all(|shard| shard["error"].is_null()),
        "{completed:#}"
    );
    assert!(
        events().await.contains("the copy of shard shard-1 was begun again by hand"),
        "{}",
        events().await
    );
    scene.prove().await;
}
