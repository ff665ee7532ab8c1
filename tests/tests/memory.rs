//! Memory is bounded by configuration, never by the data.

use std::time::Instant;

use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::stage::MIGRATION;
use rig::workload::fill_uniform;
use rig::{Stage, Writer, WriterOptions};
use tokio::sync::Mutex;

const DOCUMENTS: u64 = 1_000_000;
const DOCUMENT_BYTES: usize = 200;
const LIMIT_BYTES: u64 = 256 << 20;

/// Side by side they would slow each other down beyond their patience on two cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_stretch_of_large_documents_behind_many_small_ones() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    // By their mean size thousands of documents go into a batch; of the large ones the server puts into it what it can.
    fill_uniform(&source, "bulk", "data", 200_000, 100).await.unwrap();
    let large = source.database("bulk").collection::<Document>("data");
    for number in 0..300 {
        large.insert_one(doc! { "_id": format!("large {number}"), "text": "x".repeat(1_000_000) }).await.unwrap();
    }
    stage.apply(&stage.declaration()).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    let peak = stage.daemon.peak_rss_bytes().unwrap();
    println!("the daemon's resident memory was at most {:.1} MB", peak as f64 / f64::from(1 << 20));
    assert!(peak < LIMIT_BYTES, "{peak} bytes");
    let destination = stage.destination.client().await.unwrap();
    let report = compare(&source, &destination, &Scope::default()).await.unwrap();
    assert!(report.is_equal() && report.equal_bytes > 300_000_000, "{report}");
}

#[tokio::test]
async fn a_million_documents_pass_through_little_memory() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stage = Stage::plain().await.unwrap();
    let (source, destination) = (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let start = Instant::now();
    fill_uniform(&source, "bulk", "data", DOCUMENTS, DOCUMENT_BYTES).await.unwrap();
    println!("filled after {:.1} s", start.elapsed().as_secs_f64());
    let writer = Writer::start(&source, WriterOptions { rate: 100, ..WriterOptions::default() }).await.unwrap();
    let declaration = stage.declaration();
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    println!("ready after {:.1} s", start.elapsed().as_secs_f64());
    stage.acknowledge(&declaration).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();
    // The kernel keeps the highest figure of the whole time.
    let peak = stage.daemon.peak_rss_bytes().unwrap();
    println!("the daemon's resident memory was at most {:.1} MB", peak as f64 / f64::from(1 << 20));
    assert!(peak < LIMIT_BYTES, "{peak} bytes");
    let stats = writer.stop().await.unwrap();
    assert!(completed["copy"]["documents_copied"].as_u64() >= Some(DOCUMENTS), "{MIGRATION}: {completed:#}");
    let report = compare(&source, &destination, &Scope::default()).await.unwrap();
    assert!(report.is_equal() && report.equal_documents >= DOCUMENTS, "{report}");
    assert_eq!(stats.missing_from(&destination).await.unwrap(), []);
    println!("compared after {:.1} s", start.elapsed().as_secs_f64());
}
