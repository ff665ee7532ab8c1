//! Memory is bounded by configuration, never by the data.

use std::time::Instant;

use rig::compare::{Scope, compare};
use rig::stage::MIGRATION;
use rig::workload::fill_uniform;
use rig::{Stage, Writer, WriterOptions};

const DOCUMENTS: u64 = 1_000_000;
const DOCUMENT_BYTES: usize = 200;
const LIMIT_BYTES: u64 = 256 << 20;

#[tokio::test]
async fn a_million_documents_pass_through_little_memory() {
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
