//! What comparing everything costs, against a plain read of both sides: raw batches in the order in which they lie, and nothing done
//! with them. `CUTOVER_COST_DOCUMENTS` sets the size; the bound that is promised is held to at that size.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use mongodb::Client;
use mongodb::bson::rawdoc;
use rig::Stage;
use rig::stage::MIGRATION;
use rig::workload::fill_uniform;

const DOCUMENT_BYTES: usize = 1_000;
/// Small enough for every run. What is measured then is short, and its bound wide.
const FEW: u64 = 100_000;
const WIDE: f64 = 4.0;
/// The bound that is promised.
const BOUND: f64 = 1.3;
/// What both read at once, in documents: 2 MB.
const BATCH: u32 = 2_000;
const READS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(600);

async fn read(client: &Client) -> u64 {
    let find = rawdoc! { "find": "data", "hint": { "$natural": 1 }, "batchSize": i64::from(BATCH) };
    let mut cursor = client.database("rest").run_raw_cursor_command(find).batch_size(BATCH).batch().await.unwrap();
    let mut documents = 0;
    while let Some(batch) = cursor.next().await {
        documents += batch.unwrap().doc_slices().unwrap().into_iter().count() as u64;
    }
    documents
}

/// The fastest of a few reads of both sides, side by side.
async fn plain_read(source: &Client, destination: &Client, documents: u64) -> Duration {
    let mut fastest = Duration::MAX;
    for _ in 0..READS {
        let began = Instant::now();
        assert_eq!(tokio::join!(read(source), read(destination)), (documents, documents));
        fastest = fastest.min(began.elapsed());
    }
    fastest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparing_everything_costs_little_more_than_reading_it() {
    let asked: Option<u64> = std::env::var("CUTOVER_COST_DOCUMENTS").ok().map(|text| text.parse().unwrap());
    let documents = asked.unwrap_or(FEW);
    let stage = Stage::plain().await.unwrap();
    let (source, destination) = (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    fill_uniform(&source, "rest", "data", documents, DOCUMENT_BYTES).await.unwrap();
    let declaration = stage.declaration();
    stage.apply(&declaration).await.unwrap();
    stage.cutover.wait_for_phase(MIGRATION, "ready", PATIENCE).await.unwrap();
    stage.acknowledge(&declaration).await.unwrap();
    stage.wait_for("completed").await.unwrap();
    let report = stage.cutover.succeed(["report", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    assert_eq!(report["verification"]["documents_compared"].as_u64(), Some(documents));
    let verified = report["verification"]["duration_seconds"].as_f64().unwrap();
    let plain = plain_read(&source, &destination, documents).await.as_secs_f64();
    let ratio = verified / plain;
    println!("{documents} documents of {DOCUMENT_BYTES} bytes: read in {plain:.2} s, compared in {verified:.2} s: {ratio:.2}");
    let bound = if asked.is_some() { BOUND } else { WIDE };
    assert!(ratio <= bound, "{ratio:.2} is over {bound}");
}
