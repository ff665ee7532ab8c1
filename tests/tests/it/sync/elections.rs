//! Members that step down, die and lose their connections, in the copy and in the tail: the run
//! goes on and nothing is lost.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;
use rig::{Declaration, FillOptions, Options, Stage, Writer, WriterOptions, cutoverd, fill};
use serde_json::Value;

/// Enough for several parts, whose bounds another member does not know.
const DOCUMENTS: u64 = 8_000;
const DOCUMENT_BYTES: usize = 16_000;
const PATIENCE: Duration = Duration::from_secs(120);

fn members(name: &str, members: usize) -> Options {
    Options {
        name: name.to_owned(),
        members,
        proxied: true,
        election_timeout: Duration::from_secs(2),
        ..Options::default()
    }
}

/// Holds up the daemon's inserts, so that the copy lasts.
async fn slow_inserts(client: &Client, slow: bool) {
    let data = doc! {
        "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 200,
        "appName": "cutover",
    };
    let mode = if slow { "alwaysOn" } else { "off" };
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    let start = Instant::now();
    // The connections that were cut are this client's too.
    while let Err(error) = client.database("admin").run_command(command.clone()).await {
        assert!(start.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn status_where(stage: &Stage, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        if holds(&status) {
            return status;
        }
        assert!(
            start.elapsed() < PATIENCE && status["phase"] != "failed",
            "{what}: {status:#}\n{}",
            stage.daemon.log_end()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn copied(stage: &Stage, documents: u64) -> Value {
    let enough = |status: &Value| status["copy"]["documents_copied"].as_u64() > Some(documents);
    let status = status_where(stage, "copied", enough).await;
    assert_eq!(status["phase"], "copying", "{status:#}");
    status
}

struct Play {
    stage: Stage,
    source: Client,
    destination: Client,
    declaration: Declaration,
    writer: Writer,
}

/// A copy under way, with an application that keeps writing.
async fn begin(ddl: bool) -> Play {
    let sets = (members("rs-source", 3), members("rs-destination", 1));
    let stage = Stage::set(sets.0, sets.1, cutoverd::Config::default()).await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    fill(&source, &FillOptions { documents: 1_000, ..FillOptions::default() }).await.unwrap();
    fill_uniform(&source, "bulk", "data", DOCUMENTS, DOCUMENT_BYTES).await.unwrap();
    let writer =
        Writer::start(&source, WriterOptions { rate: 100, ddl, ..WriterOptions::default() })
            .await
            .unwrap();
    slow_inserts(&destination, true).await;
    let declaration = stage.declaration().set("copy.parallelism", 2);
    stage.apply(&declaration).await.unwrap();
    Play { stage, source, destination, declaration, writer }
}

impl Play {
    /// Cuts over, and compares.
    async fn end(self) {
        let Self { stage, source, destination, declaration, writer } = self;
        stage.acknowledge(&declaration).await.unwrap();
        let completed = stage.wait_for("completed").await.unwrap();
        let stats = writer.stop().await.unwrap();
        let report = compare(&source, &destination, &Scope::default()).await.unwrap();
        assert!(report.is_equal() && report.equal_documents > DOCUMENTS, "{report}");
        assert_eq!(stats.missing_from(&destination).await.unwrap(), []);
        assert!(completed["error"].is_null(), "{completed:#}");
    }
}

#[tokio::test]
async fn the_member_that_is_copied_from_dies() {
    let mut play = begin(false).await;
    copied(&play.stage, DOCUMENTS / 2).await;
    let stage = &mut play.stage;
    let first = stage.source.primary().await.unwrap();
    stage.source.kill_member(first).await.unwrap();
    assert_ne!(stage.source.primary().await.unwrap(), first);
    slow_inserts(&play.destination, false).await;
    // The others hold the same documents in another order: what is copied by record ids begins
    // anew.
    stage.wait_for("ready").await.unwrap();
    assert!(stage.daemon.log().contains("its copy begins anew"), "{}", stage.daemon.log_end());
    play.end().await;
}

#[tokio::test]
async fn members_step_down_and_connections_break() {
    let play = begin(true).await;
    let (source, destination) = (&play.stage.source, &play.stage.destination);
    copied(&play.stage, DOCUMENTS / 8).await;
    destination.step_down(1).await.unwrap();
    copied(&play.stage, DOCUMENTS / 4).await;
    source.step_down(5).await.unwrap();
    copied(&play.stage, DOCUMENTS / 2).await;
    for member in 0..3 {
        source.proxy(member).unwrap().cut();
    }
    destination.proxy(0).unwrap().cut();
    slow_inserts(&play.destination, false).await;
    play.stage.wait_for("ready").await.unwrap();

    // The same again in the tail, each time until it goes on.
    for round in 0..3 {
        match round {
            0 => source.step_down(5).await.unwrap(),
            1 => destination.step_down(1).await.unwrap(),
            _ => {
                (0..3).for_each(|member| source.proxy(member).unwrap().cut());
                destination.proxy(0).unwrap().cut();
            }
        }
        let mark = play.source.database("app").collection::<Document>("marks");
        let noted = Instant::now();
        while let Err(error) = mark.insert_one(doc! { "_id": round }).await {
            assert!(noted.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let arrived = play.destination.database("app").collection::<Document>("marks");
        while !matches!(arrived.find_one(doc! { "_id": round }).await, Ok(Some(_))) {
            assert!(
                noted.elapsed() < PATIENCE,
                "round {round} does not go on: {}",
                play.stage.daemon.log_end()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(play.writer.failure(), None);
    }
    play.end().await;
}
