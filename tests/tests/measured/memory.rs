//! Memory is bounded by configuration, never by the data.

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;
use rig::{
    ClusterOptions, Options, ReplicaSet, ShardedCluster, Stage, Writer, WriterOptions, cutoverd,
};

use tokio::sync::Mutex;

use super::sized;

const DOCUMENTS: u64 = 1_000_000;
const DOCUMENT_BYTES: usize = 200;
const LIMIT_BYTES: u64 = 256 << 20;
/// The least that `--memory-mb` takes.
const LEAST_MB: u64 = 189;
/// Twice what a daemon takes that keeps nothing: 300 bytes a document would be over it with
/// 200,000.
const LIMIT_OF_FEW_BYTES: u64 = 120 << 20;

/// Side by side they would slow each other down beyond their patience on two cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_stretch_of_large_documents_behind_many_small_ones() {
    let _turn = super::beside_others().await;
    let _alone = ONE_AT_A_TIME.lock().await;
    let stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    // By their mean size thousands of documents go into a batch; of the large ones the server puts
    // into it what it can.
    fill_uniform(&source, "bulk", "data", 200_000, 100).await.unwrap();
    let large = source.database("bulk").collection::<Document>("data");
    for number in 0..300 {
        large
            .insert_one(doc! { "_id": format!("large {number}"), "text": "x".repeat(1_000_000) })
            .await
            .unwrap();
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

/// `CUTOVER_MEMORY_LARGE` sets how many of the largest documents that a server takes each worker
/// meets.
#[tokio::test]
async fn the_largest_documents_on_every_worker() {
    let _turn = super::beside_others().await;
    const WORKERS: i32 = 8;
    /// 16 MiB, less what else is in the document.
    const TEXT: usize = (16 << 20) - 64;
    let _alone = ONE_AT_A_TIME.lock().await;
    let each = i32::try_from(sized("CUTOVER_MEMORY_LARGE", 3)).unwrap();
    // The least that a daemon takes: what it does holds in any other bound as well.
    let daemon = cutoverd::Config::default().arg("--memory-mb").arg(LEAST_MB.to_string());
    // A server takes no document that is more than a part of its cache.
    let named = |name: &str| Options {
        name: name.to_owned(),
        cache_gb: 1.0,
        oplog_mb: 2048,
        ..Options::default()
    };
    let stage = Stage::set(named("rs-source"), named("rs-destination"), daemon).await.unwrap();
    let source = stage.source.client().await.unwrap();
    let insert = async |number: i32| {
        for collection in 0..WORKERS {
            let document = doc! { "_id": number, "text": "x".repeat(TEXT) };
            source
                .database("large")
                .collection::<Document>(&format!("c{collection}"))
                .insert_one(document)
                .await
                .unwrap();
        }
    };
    for number in 0..each {
        insert(number).await;
    }
    let declaration = stage.declaration().set("copy.parallelism", WORKERS);
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    let copied = stage.daemon.peak_rss_bytes().unwrap();
    // While it is held, a backlog of them gathers.
    stage.cutover.succeed(["pause", MIGRATION]).await.unwrap();
    stage.wait_for("paused").await.unwrap();
    for number in each..2 * each {
        insert(number).await;
    }
    stage.cutover.succeed(["resume", MIGRATION]).await.unwrap();
    let inserted = u64::try_from(each * WORKERS).unwrap();
    let pending = |status: &serde_json::Value| status["verification"]["pending_rechecks"].as_u64();
    let applied = |status: &serde_json::Value| status["tail"]["events_applied"].as_u64();
    let is_done = |status: &serde_json::Value| {
        applied(status) >= Some(inserted) && pending(status) == Some(0)
    };
    stage.status_where(MIGRATION, "applied and compared", is_done).await.unwrap();
    let peak = stage.daemon.peak_rss_bytes().unwrap();
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{inserted} documents of 16 MB and as many in the tail: at most {:.1} MB, then {:.1} MB",
        mb(copied),
        mb(peak)
    );
    assert!(peak < LEAST_MB << 20, "{copied} bytes, then {peak}");
}

/// Their events are merged, so that each shard's next one is held until the others' have come.
#[tokio::test]
async fn the_largest_documents_on_every_shard() {
    let _turn = super::beside_others().await;
    const SHARDS: usize = 3;
    const TEXT: usize = (16 << 20) - 64;
    let _alone = ONE_AT_A_TIME.lock().await;
    let shard = Options { cache_gb: 1.0, oplog_mb: 1024, ..Options::default() };
    let source = ShardedCluster::start(ClusterOptions {
        shard: shard.clone(),
        ..ClusterOptions::shards(SHARDS)
    });
    let destination = ReplicaSet::start(Options { name: "rs-destination".to_owned(), ..shard });
    let stage = Stage::between(source, destination, cutoverd::Config::default()).await.unwrap();
    stage.source.create_database("large", 0).await.unwrap();
    stage.source.shard_collection("large.data", doc! { "_id": "hashed" }, Some(6)).await.unwrap();
    let source = stage.source.client().await.unwrap();
    let data = source.database("large").collection::<Document>("data");
    let insert = async |numbers: std::ops::Range<i32>| {
        for number in numbers {
            data.insert_one(doc! { "_id": number, "text": "x".repeat(TEXT) }).await.unwrap();
        }
    };
    insert(0..16).await;
    stage.apply(&stage.declaration()).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    let copied = stage.daemon.peak_rss_bytes().unwrap();
    stage.cutover.succeed(["pause", MIGRATION]).await.unwrap();
    stage.wait_for("paused").await.unwrap();
    insert(16..32).await;
    for shard in stage.source.shards() {
        let of_shard =
            shard.client().await.unwrap().database("large").collection::<Document>("data");
        assert!(of_shard.estimated_document_count().await.unwrap() > 3, "every shard has some");
    }
    stage.cutover.succeed(["resume", MIGRATION]).await.unwrap();
    let pending = |status: &serde_json::Value| status["verification"]["pending_rechecks"].as_u64();
    let applied = |status: &serde_json::Value| status["tail"]["events_applied"].as_u64();
    let is_done =
        |status: &serde_json::Value| applied(status) >= Some(16) && pending(status) == Some(0);
    stage.status_where(MIGRATION, "applied and compared", is_done).await.unwrap();
    let peak = stage.daemon.peak_rss_bytes().unwrap();
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "documents of 16 MB on {SHARDS} shards: at most {:.1} MB, then {:.1} MB",
        mb(copied),
        mb(peak)
    );
    assert!(peak < LIMIT_BYTES, "{copied} bytes, then {peak}");
}

/// `CUTOVER_MEMORY_DOCUMENTS` and `CUTOVER_MEMORY_RECHECKS` set the sizes: promised are 5,000,000
/// and 500,000.
#[tokio::test]
async fn a_long_queue_of_documents_to_compare_again_is_on_disk() {
    let _turn = super::beside_others().await;
    let _alone = ONE_AT_A_TIME.lock().await;
    let documents = sized("CUTOVER_MEMORY_DOCUMENTS", 200_000);
    let rechecks = sized("CUTOVER_MEMORY_RECHECKS", 60_000);
    let stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    fill_uniform(&source, "bulk", "data", documents, 100).await.unwrap();
    stage.apply(&stage.declaration()).await.unwrap();
    stage.cutover.wait_for_phase(MIGRATION, "ready", Duration::from_secs(900)).await.unwrap();
    let copied = stage.daemon.peak_rss_bytes().unwrap();

    // Each slice of the queue waits for its documents; what changes meanwhile piles up.
    let fail_point = |mode: &str| {
        let data = doc! {
            "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 400,
            "appName": "cutover",
        };
        doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data }
    };
    source.database("admin").run_command(fail_point("alwaysOn")).await.unwrap();
    let data = source.database("bulk").collection::<Document>("data");
    let changed = i64::try_from(rechecks).unwrap();
    data.update_many(doc! { "_id": { "$lt": changed } }, doc! { "$set": { "changed": true } })
        .await
        .unwrap();
    let pending =
        |status: &serde_json::Value| status["verification"]["pending_rechecks"].as_u64().unwrap();
    let applied = |status: &serde_json::Value| status["tail"]["events_applied"].as_u64().unwrap();
    let piled_up = stage
        .status_where(MIGRATION, "applied", |status| applied(status) >= rechecks)
        .await
        .unwrap();
    source.database("admin").run_command(fail_point("off")).await.unwrap();
    stage.status_where(MIGRATION, "compared again", |status| pending(status) == 0).await.unwrap();
    let peak = stage.daemon.peak_rss_bytes().unwrap();
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{documents} documents: at most {:.1} MB; with {} to compare again: at most {:.1} MB",
        mb(copied),
        pending(&piled_up),
        mb(peak)
    );
    assert!(pending(&piled_up) >= rechecks * 8 / 10, "{piled_up:#}");
    // Few documents would fit into the promised bound even if all were kept.
    let limit = if documents < DOCUMENTS { LIMIT_OF_FEW_BYTES } else { LIMIT_BYTES };
    assert!(peak < limit, "{peak} bytes");
}

#[tokio::test]
async fn a_million_documents_pass_through_little_memory() {
    let _turn = super::beside_others().await;
    let _alone = ONE_AT_A_TIME.lock().await;
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let start = Instant::now();
    fill_uniform(&source, "bulk", "data", DOCUMENTS, DOCUMENT_BYTES).await.unwrap();
    println!("filled after {:.1} s", start.elapsed().as_secs_f64());
    let writer = Writer::start(&source, WriterOptions { rate: 100, ..WriterOptions::default() })
        .await
        .unwrap();
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
    assert!(
        completed["copy"]["documents_copied"].as_u64() >= Some(DOCUMENTS),
        "{MIGRATION}: {completed:#}"
    );
    let report = compare(&source, &destination, &Scope::default()).await.unwrap();
    assert!(report.is_equal() && report.equal_documents >= DOCUMENTS, "{report}");
    assert_eq!(stats.missing_from(&destination).await.unwrap(), []);
    println!("compared after {:.1} s", start.elapsed().as_secs_f64());
}
