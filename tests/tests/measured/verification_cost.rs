//! What comparing everything costs, against a plain read of both sides: raw batches in the order in
//! which they lie, and nothing done with them. `CUTOVER_COST_DOCUMENTS` sets the size; the bound
//! that is promised is held to at that size.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use mongodb::Client;
use mongodb::bson::{RawDocumentBuf, cstr, doc, rawdoc};
use rig::Stage;
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;

const DOCUMENT_BYTES: usize = 1_000;
/// Small enough for every run. What is measured then is a blink beside whatever else the machine
/// does, and its bound wide.
const FEW: u64 = 100_000;
const WIDE: f64 = 10.0;
/// The bound that is promised.
const BOUND: f64 = 1.3;
/// What both read at once, in documents: 2 MB.
const BATCH: u32 = 2_000;
const READS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(600);

async fn read(client: &Client, find: RawDocumentBuf) -> u64 {
    let mut cursor = client
        .database("rest")
        .run_raw_cursor_command(find)
        .batch_size(BATCH)
        .batch()
        .await
        .unwrap();
    let mut documents = 0;
    while let Some(batch) = cursor.next().await {
        documents += batch.unwrap().doc_slices().unwrap().into_iter().count() as u64;
    }
    documents
}

fn all() -> RawDocumentBuf {
    rawdoc! { "find": "data", "hint": { "$natural": 1 }, "batchSize": i64::from(BATCH) }
}

/// The first half of what lies there.
fn first(half: i64) -> RawDocumentBuf {
    let mut find = all();
    find.append(cstr!("limit"), half);
    find
}

/// What comes after the record at which the first half ends.
async fn second(client: &Client, half: i64) -> RawDocumentBuf {
    let at = doc! {
        "find": "data", "hint": { "$natural": 1 }, "skip": half - 1, "limit": 1,
        "showRecordId": true, "singleBatch": true,
    };
    let reply = client.database("rest").run_command(at).await.unwrap();
    let last = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0]
        .as_document()
        .unwrap()
        .clone();
    let mut find = all();
    find.append(cstr!("$_requestResumeToken"), true);
    find.append(
        cstr!("$_resumeAfter"),
        rawdoc! { "$recordId": last.get_i64("$recordId").unwrap() },
    );
    find
}

/// The fastest of a few reads of both sides, side by side, with one cursor a side and with two.
async fn plain_read(source: &Client, destination: &Client, documents: u64) -> Duration {
    let mut fastest = Duration::MAX;
    let half = i64::try_from(documents / 2).unwrap();
    let rest = [second(source, half).await, second(destination, half).await];
    for _ in 0..READS {
        let began = Instant::now();
        assert_eq!(
            tokio::join!(read(source, all()), read(destination, all())),
            (documents, documents)
        );
        fastest = fastest.min(began.elapsed());
        let began = Instant::now();
        let [ours, theirs] = rest.clone();
        let (a, b, c, d) = tokio::join!(
            read(source, first(half)),
            read(source, ours),
            read(destination, first(half)),
            read(destination, theirs)
        );
        assert_eq!((a + b, c + d), (documents, documents));
        fastest = fastest.min(began.elapsed());
    }
    fastest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparing_everything_costs_little_more_than_reading_it() {
    let _turn = super::alone().await;
    let asked: Option<u64> =
        std::env::var("CUTOVER_COST_DOCUMENTS").ok().map(|text| text.parse().unwrap());
    let documents = asked.unwrap_or(FEW);
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    fill_uniform(&source, "rest", "data", documents, DOCUMENT_BYTES).await.unwrap();
    let declaration = stage.declaration();
    stage.apply(&declaration).await.unwrap();
    stage.cutover.wait_for_phase(MIGRATION, "ready", PATIENCE).await.unwrap();
    stage.acknowledge(&declaration).await.unwrap();
    stage.wait_for("completed").await.unwrap();
    let report =
        stage.cutover.succeed(["report", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    assert_eq!(report["verification"]["documents_compared"].as_u64(), Some(documents));
    let verified = report["verification"]["duration_seconds"].as_f64().unwrap();
    let plain = plain_read(&source, &destination, documents).await.as_secs_f64();
    let ratio = verified / plain;
    println!(
        "{documents} documents of {DOCUMENT_BYTES} bytes: read in {plain:.2} s, compared in \
         {verified:.2} s: {ratio:.2}"
    );
    let bound = if asked.is_some() { BOUND } else { WIDE };
    assert!(ratio <= bound, "{ratio:.2} is over {bound}");
}
