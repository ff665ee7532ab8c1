//! A daemon that is killed again and again loses nothing, and repeats no more than what was in
//! flight.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;
use rig::{FillOptions, Stage, Writer, WriterOptions, fill};
use serde_json::Value;

/// Large documents, so that a copy takes its time and documents stand for bytes.
const DOCUMENT_BYTES: u64 = 16_000;
const DOCUMENTS: u64 = 20_000;

/// The engine's parts are of 32 MB in the mean; between sampled bounds hardly one is twice that.
const PART_BYTES: u64 = 2 * (32 << 20);
/// Parts in flight at once.
const PARALLELISM: u64 = 2;
/// The engine's batches are of about 2 MB.
const BATCH_BYTES: u64 = 2 << 20;
/// How long each insert of the copy is held up.
const INSERT_TIME: Duration = Duration::from_millis(150);

/// What may have been copied in a time that nobody looked: each reader's batch on its way at its
/// begin, the next one, and those for which there was time.
fn copied_meanwhile(time: Duration) -> u64 {
    let batches = 2 + u64::try_from(time.as_millis().div_ceil(INSERT_TIME.as_millis())).unwrap();
    PARALLELISM * BATCH_BYTES * batches
}

const PATIENCE: Duration = Duration::from_secs(90);

/// Holds up or fails commands of the daemon, and of nobody else.
async fn fail_point(client: &Client, mut data: Document) {
    data.insert("appName", "cutover");
    let command = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data };
    client.database("admin").run_command(command).await.unwrap();
}

async fn no_fail_point(client: &Client) {
    client
        .database("admin")
        .run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" })
        .await
        .unwrap();
}

/// What a server was asked to write and has written since it started, in documents.
#[derive(Debug, Clone, Copy)]
struct Counters {
    inserts_asked: i64,
    inserted: i64,
    updated: i64,
}

impl Counters {
    async fn read(client: &Client) -> Self {
        let status =
            client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
        let number = |document: &Document, key: &str| match document.get(key) {
            Some(mongodb::bson::Bson::Int32(number)) => i64::from(*number),
            Some(mongodb::bson::Bson::Int64(number)) => *number,
            other => panic!("{key} is {other:?}"),
        };
        let written = status.get_document("metrics").unwrap().get_document("document").unwrap();
        Self {
            inserts_asked: number(status.get_document("opcounters").unwrap(), "insert"),
            inserted: number(written, "inserted"),
            updated: number(written, "updated"),
        }
    }

    const fn written(self) -> i64 {
        self.inserted + self.updated
    }
}

/// Polls until something holds.
async fn until<T>(what: &str, stage: &Stage, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = holds().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not {what} in time; {}", stage.daemon.log_end());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn status_where(what: &str, stage: &Stage, holds: impl Fn(&Value) -> bool) -> Value {
    until(what, stage, async || {
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        assert_ne!(status["phase"], "failed", "{status:#}");
        holds(&status).then_some(status)
    })
    .await
}

fn bytes_copied(status: &Value) -> u64 {
    status["copy"]["bytes_copied"].as_u64().unwrap()
}

fn events_applied(status: &Value) -> u64 {
    status["tail"]["events_applied"].as_u64().unwrap()
}

#[tokio::test]
async fn three_kills_in_the_copy_and_three_in_the_tail_lose_nothing() {
    let mut stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    fill(&source, &FillOptions { documents: 2_000, ..FillOptions::default() }).await.unwrap();
    fill_uniform(&source, "bulk", "data", DOCUMENTS, DOCUMENT_BYTES as usize).await.unwrap();
    let writer =
        Writer::start(&source, WriterOptions { rate: 200, ddl: true, ..WriterOptions::default() })
            .await
            .unwrap();

    // The copy, slowed so that it lasts.
    let insert_ms = i64::try_from(INSERT_TIME.as_millis()).unwrap();
    let slow =
        doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": insert_ms };
    fail_point(&destination, slow).await;
    let before = Counters::read(&destination).await;
    let declaration = stage.declaration().set("copy.parallelism", PARALLELISM);
    stage.apply(&declaration).await.unwrap();
    let total = DOCUMENTS * DOCUMENT_BYTES;
    let mut repeated_at_most = 0;
    for quarter in 1..=3 {
        let status = status_where("far enough copied", &stage, |status| {
            bytes_copied(status) > total * quarter / 4
        })
        .await;
        assert_eq!(status["phase"], "copying", "{status:#}");
        if quarter == 1 {
            // The tail must wait until the inserts of the copy are counted.
            fail_point(&source, doc! { "failCommands": ["aggregate"], "errorCode": 112 }).await;
        }
        let looked = Instant::now();
        let killed_at = bytes_copied(&stage.cutover.status(MIGRATION).await.unwrap());
        stage.daemon.kill9().await.unwrap();
        repeated_at_most += copied_meanwhile(looked.elapsed());
        stage.daemon.restart().await.unwrap();
        // By itself: nobody has asked the daemon anything.
        let started = Counters::read(&destination).await;
        let mut looked = Instant::now();
        until("gone on with the copy", &stage, async || {
            let looking = Instant::now();
            let goes_on = Counters::read(&destination).await.inserts_asked > started.inserts_asked;
            if !goes_on {
                looked = looking;
            }
            goes_on.then_some(())
        })
        .await;
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        repeated_at_most += copied_meanwhile(looked.elapsed());
        assert_eq!(status["phase"], "copying", "{status:#}");
        let lost = killed_at.saturating_sub(bytes_copied(&status));
        println!("killed with {killed_at} bytes copied, went on with {}", bytes_copied(&status));
        assert!(lost <= PARALLELISM * PART_BYTES, "{lost} bytes are copied again");
        repeated_at_most += lost;
    }
    no_fail_point(&destination).await;
    status_where("copied", &stage, |status| status["phase"] == "catching_up").await;
    let copied = Counters::read(&destination).await;
    // A document that is there already is asked for and not inserted.
    let inserted = copied.inserted - before.inserted;
    let repeated = u64::try_from(copied.inserts_asked - before.inserts_asked - inserted).unwrap();
    println!(
        "{inserted} documents copied, {} bytes of them again, {repeated_at_most} at most",
        repeated * DOCUMENT_BYTES
    );
    assert!(u64::try_from(inserted).unwrap() >= DOCUMENTS);
    assert!(
        repeated * DOCUMENT_BYTES <= repeated_at_most,
        "{repeated} documents were copied again"
    );

    // The tail, slowed so that rounds are in flight.
    let slow = doc! {
        "failCommands": ["insert", "update", "delete"], "blockConnection": true, "blockTimeMS": 10,
    };
    fail_point(&destination, slow).await;
    no_fail_point(&source).await;
    let mut applied = 0;
    for _ in 0..3 {
        let status =
            status_where("some events on", &stage, |status| events_applied(status) > applied + 250)
                .await;
        assert_eq!(writer.failure(), None);
        stage.daemon.kill9().await.unwrap();
        stage.daemon.restart().await.unwrap();
        let started = Counters::read(&destination).await;
        until("gone on with the tail", &stage, async || {
            (Counters::read(&destination).await.written() > started.written()).then_some(())
        })
        .await;
        let again = stage.cutover.status(MIGRATION).await.unwrap();
        println!(
            "killed with {} events applied, went on with {}",
            events_applied(&status),
            events_applied(&again)
        );
        assert!(matches!(again["phase"].as_str(), Some("catching_up" | "ready")), "{again:#}");
        applied = events_applied(&status);
    }
    no_fail_point(&destination).await;

    stage.acknowledge(&declaration).await.unwrap();
    stage.wait_for("completed").await.unwrap();
    let stats = writer.stop().await.unwrap();
    let report = compare(&source, &destination, &Scope::default()).await.unwrap();
    assert!(report.is_equal(), "{report}");
    assert!(report.equal_documents > DOCUMENTS);
    assert_eq!(stats.missing_from(&destination).await.unwrap(), []);
    println!("{report}");
}
