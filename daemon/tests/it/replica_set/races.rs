//! The source changes between two looks that the engine takes at it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::bson::{Bson, DateTime, Document, doc};

use super::harness::{Pair, Run, run};

/// Documents that no such index takes are read, then they are mended and the index is made, and
/// then the copy lists the indexes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_made_between_the_documents_and_the_indexes_is_built_in_the_end() -> Result<()> {
    let pair = Pair::start().await?;
    let odd = [
        doc! { "_id": "geo", "geo": "nowhere" },
        doc! { "_id": "parallel", "a": [1, 2], "b": [3, 4] },
        doc! { "_id": "hashed", "h": [1] },
        doc! { "_id": "flat", "flat": [500, 500] },
        doc! { "_id": "text", "text": "words", "language": "no such language" },
    ];
    run(&pair.from, "races", doc! { "insert": "c", "documents": odd.to_vec() }).await?;
    run(
        &pair.from,
        "races",
        doc! { "createIndexes": "c", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
    )
    .await?;
    let look = doc! {
        "failCommands": ["listIndexes"], "appName": "cutover", "blockConnection": true,
        "blockTimeMS": 3_000,
    };
    run(
        &pair.from,
        "admin",
        doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": look },
    )
    .await?;
    let mut sync = Run::start_with(&pair, pair.spec(), Tuning::default()).await?;
    let began = Instant::now();
    while sync.engine().progress().copy.documents_copied < odd.len() as u64 {
        sync.look()?;
        ensure!(began.elapsed() < Duration::from_secs(30), "nothing is copied");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run(
        &pair.from,
        "races",
        doc! { "delete": "c", "deletes": [{ "q": { "_id": { "$ne": "geo" } }, "limit": 0 }] },
    )
    .await?;
    let mended = doc! { "$set": { "geo": { "type": "Point", "coordinates": [1, 2] } } };
    run(&pair.from, "races", doc! { "update": "c", "updates": [{ "q": {}, "u": mended }] }).await?;
    let indexes = vec![
        doc! { "key": { "geo": "2dsphere" }, "name": "geo" },
        doc! { "key": { "a": 1, "b": 1 }, "name": "parallel" },
        doc! { "key": { "h": "hashed" }, "name": "hashed" },
        doc! { "key": { "flat": "2d" }, "name": "flat" },
        doc! { "key": { "text": "text" }, "name": "text" },
    ];
    run(&pair.from, "races", doc! { "createIndexes": "c", "indexes": indexes }).await?;
    let copied: Document = run(&pair.to, "races", doc! { "listIndexes": "c" }).await?;
    ensure!(
        copied.get_document("cursor")?.get_array("firstBatch")?.len() == 1,
        "the indexes were built too early to tell: {copied}"
    );
    run(&pair.from, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    let report = sync.prove(&pair).await?;
    ensure!(report.indexes == 7, "{report}");
    Ok(())
}

/// Whatever took it away: a bound that the destination has lost is given back before the cutover,
/// with the source's order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capped_collection_that_has_lost_its_bound_is_made_again_in_the_end() -> Result<()> {
    let pair = Pair::start().await?;
    run(
        &pair.from,
        "races",
        doc! { "create": "capped", "capped": true, "size": 64 << 10, "max": 3 },
    )
    .await?;
    let documents: Vec<Document> = (0..5).map(|n| doc! { "_id": 5 - n }).collect();
    run(&pair.from, "races", doc! { "insert": "capped", "documents": documents.clone() }).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    run(&pair.to, "races", doc! { "drop": "capped" }).await?;
    run(&pair.to, "races", doc! { "insert": "capped", "documents": documents }).await?;
    let report = sync.prove(&pair).await?;
    ensure!(report.equal_documents == 3, "{report}");
    Ok(())
}

/// A time-series collection is made of its buckets and then of its face, and the stream reports
/// the buckets alone. A start point and a look at what there is can come between the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_series_collection_that_is_half_made_at_the_first_look_is_carried() -> Result<()> {
    let pair = Pair::start().await?;
    let half = doc! {
        "configureFailPoint": "failTimeseriesViewCreation", "mode": "alwaysOn",
        "data": { "ns": "races.half" },
    };
    run(&pair.from, "admin", half).await?;
    let create = doc! {
        "create": "half", "timeseries": { "timeField": "t", "metaField": "m" },
        "expireAfterSeconds": 1_000_000_000,
    };
    ensure!(run(&pair.from, "races", create.clone()).await.is_err(), "its face is made, too");
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    run(
        &pair.from,
        "admin",
        doc! { "configureFailPoint": "failTimeseriesViewCreation", "mode": "off" },
    )
    .await?;
    run(&pair.from, "races", create).await?;
    run(
        &pair.from,
        "races",
        doc! { "insert": "half", "documents": [{ "t": DateTime::now(), "m": 1 }] },
    )
    .await?;
    let report = sync.prove(&pair).await?;
    ensure!(report.equal_documents == 1, "{report}");
    Ok(())
}

/// The same on the destination: a creation that ends between the two is made whole by the next try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_series_collection_that_is_half_made_on_the_destination_is_made_whole() -> Result<()>
{
    let pair = Pair::start().await?;
    let half = doc! {
        "configureFailPoint": "failTimeseriesViewCreation", "mode": { "times": 1 },
        "data": { "ns": "races.half" },
    };
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    run(&pair.to, "admin", half).await?;
    for granularity in ["minutes", "hours"] {
        let series = doc! { "timeField": "t", "metaField": "m", "granularity": granularity };
        run(&pair.from, "races", doc! { "create": "half", "timeseries": series }).await?;
        run(
            &pair.from,
            "races",
            doc! { "insert": "half", "documents": [{ "t": DateTime::now(), "m": 1 }] },
        )
        .await?;
        if granularity == "minutes" {
            run(&pair.from, "races", doc! { "drop": "half" }).await?;
            let fault = sync.end().await?;
            ensure!(fault.message.contains("creating races.half"), "{fault}");
            sync.kill().await?;
        }
    }
    let report = sync.prove(&pair).await?;
    ensure!(report.equal_documents == 1, "{report}");
    Ok(())
}

/// A collection that is to be copied again goes first, and then the destination fails: whoever goes
/// on must not take what it does not find for what is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_to_be_copied_again_is_copied_though_that_failed_at_first() -> Result<()> {
    let pair = Pair::start().await?;
    let documents: Vec<Document> = (0..50).map(|n| doc! { "_id": n }).collect();
    run(&pair.from, "races", doc! { "insert": "capped", "documents": documents }).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    // The server makes another collection and renames it over this one.
    let fails = doc! {
        "failCommands": ["create"], "appName": "cutover", "namespace": "races.capped",
        "errorCode": 50,
    };
    run(
        &pair.to,
        "admin",
        doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": fails },
    )
    .await?;
    run(&pair.from, "races", doc! { "convertToCapped": "capped", "size": 1 << 20 }).await?;
    sync.caught_up().await?;
    let failed =
        run(&pair.to, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    ensure!(
        failed.get("count").and_then(Bson::as_i64).or(failed.get_i32("count").ok().map(i64::from))
            > Some(0),
        "nothing failed: {failed}"
    );
    let report = sync.prove(&pair).await?;
    ensure!(report.equal_documents == 50, "{report}");
    Ok(())
}
