//! Capped collections: more than their bounds hold, in the source's order, and never less than
//! whole on the destination.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use schemas::spec::{MigrationSpec, VerifyMode, VerifySpec};

use super::harness::{Pair, Run, run, tiny};

/// How long a small change may take to show on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn verified(spec: MigrationSpec) -> MigrationSpec {
    MigrationSpec { verify: VerifySpec { mode: VerifyMode::Full }, ..spec }
}

fn numbered(from: i32, to: i32, bytes: usize) -> Vec<Document> {
    (from..to).map(|n| doc! { "_id": n, "s": "s".repeat(bytes) }).collect()
}

/// The `_id`s of a collection in natural order.
async fn ids(client: &Client, name: &str) -> Result<Vec<Bson>> {
    let find = doc! {
        "find": name, "hint": { "$natural": 1 }, "projection": { "_id": 1 }, "batchSize": 100_000,
    };
    let found = run(client, "capped", find).await?;
    let batch = found.get_document("cursor")?.get_array("firstBatch")?;
    batch
        .iter()
        .map(|document| {
            Ok(document.as_document().and_then(|found| found.get("_id")).context("an _id")?.clone())
        })
        .collect()
}

async fn grow(client: &Client, name: &str) -> Result<()> {
    let grown = doc! { "$set": { "s": "g".repeat(1_000) } };
    let reply = run(
        client,
        "capped",
        doc! { "update": name, "updates": [{ "q": {}, "u": grown, "multi": true }] },
    )
    .await?;
    ensure!(!reply.contains_key("writeErrors"), "{reply}");
    Ok(())
}

/// Waits until both sides have one order, in which the destination never has less than so many
/// documents.
async fn in_order(pair: &Pair, sync: &mut Run, name: &str, least: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        sync.look()?;
        let (ours, theirs) = tokio::try_join!(ids(&pair.from, name), ids(&pair.to, name))?;
        ensure!(theirs.len() >= least, "{} documents of {name} on the destination", theirs.len());
        if ours == theirs {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{name} is in another order: {:?}", sync.blockers()?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Documents that have grown and a `collMod` to less evict nothing on the source, and nothing may
/// go on the destination: in the copy, in the tail, in what a collection was made of while the run
/// was behind, and after the bounds are given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beyond_its_bounds_is_carried_whole() -> Result<()> {
    let pair = Pair::start().await?;
    for (name, size, max) in [
        ("grown", 64 << 10, None),
        ("grows", 64 << 10, None),
        ("shrunk", 1 << 20, None),
        ("few", 1 << 20, Some(1_000)),
    ] {
        let mut create = doc! { "create": name, "capped": true, "size": size };
        create.extend(max.map(|max| ("max".to_owned(), Bson::from(max))));
        run(&pair.from, "capped", create).await?;
        run(&pair.from, "capped", doc! { "insert": name, "documents": numbered(0, 300, 10) })
            .await?;
    }
    run(
        &pair.from,
        "capped",
        doc! { "createIndexes": "grown", "indexes": [{ "key": { "s": 1 }, "name": "s" }] },
    )
    .await?;
    grow(&pair.from, "grown").await?;
    run(&pair.from, "capped", doc! { "insert": "made", "documents": numbered(0, 300, 1_000) })
        .await?;
    let mut sync = Run::start_with(&pair, verified(pair.spec()), tiny()).await?;
    sync.caught_up().await?;
    // What the run is behind with.
    sync.stop().await?;
    grow(&pair.from, "grows").await?;
    run(&pair.from, "capped", doc! { "collMod": "shrunk", "cappedSize": 4096 }).await?;
    run(&pair.from, "capped", doc! { "collMod": "few", "cappedMax": 5 }).await?;
    run(&pair.from, "capped", doc! { "convertToCapped": "made", "size": 400_000 }).await?;
    run(
        &pair.from,
        "capped",
        doc! { "delete": "made", "deletes": [{ "q": { "_id": { "$lt": 150 } }, "limit": 0 }] },
    )
    .await?;
    run(&pair.from, "capped", doc! { "insert": "made", "documents": numbered(300, 450, 1_000) })
        .await?;
    run(&pair.from, "capped", doc! { "create": "tailed", "capped": true, "size": 8_192 }).await?;
    run(&pair.from, "capped", doc! { "insert": "tailed", "documents": numbered(0, 100, 10) })
        .await?;
    grow(&pair.from, "tailed").await?;
    sync.kill().await?;
    sync.caught_up().await?;
    let report = sync.prove(&pair).await?;
    ensure!(report.equal_documents == 5 * 300 + 100, "{report}");
    // From the first insertion on both evict alike.
    run(&pair.from, "admin", doc! { "setUserWriteBlockMode": 1, "global": false }).await?;
    for client in [&pair.from, &pair.to] {
        for name in ["grown", "shrunk", "few"] {
            run(client, "capped", doc! { "insert": name, "documents": [{ "_id": "next" }] })
                .await?;
        }
    }
    let report = pair.compare().await?;
    ensure!(report.is_equal() && ids(&pair.to, "few").await?.len() == 5, "{report}");
    Ok(())
}

/// The server gives concurrent insertions their records in another order than it reports them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_insertions_are_in_the_source_s_order_before_the_cutover() -> Result<()> {
    let pair = Pair::start().await?;
    run(&pair.from, "capped", doc! { "create": "log", "capped": true, "size": 1 << 20 }).await?;
    let mut sync = Run::start_with(&pair, verified(pair.spec()), tiny()).await?;
    sync.caught_up().await?;
    let writers = (0..8).map(|writer| {
        let client = pair.from.clone();
        async move {
            for n in 0..100 {
                let document = doc! { "_id": format!("{writer} {n}") };
                run(&client, "capped", doc! { "insert": "log", "documents": [document] }).await?;
            }
            Ok::<(), anyhow::Error>(())
        }
    });
    try_join_all(writers).await?;
    sync.caught_up().await?;
    in_order(&pair, &mut sync, "log", 800).await?;
    let report = sync.prove(&pair).await?;
    ensure!(report.equal_documents == 800, "{report}");
    Ok(())
}

/// Another order is found before the source is blocked, and mended aside: whatever is given up or
/// killed meanwhile, the destination has the collection whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_order_is_mended_aside() -> Result<()> {
    let pair = Pair::start().await?;
    run(&pair.from, "capped", doc! { "create": "log", "capped": true, "size": 1 << 20 }).await?;
    run(
        &pair.from,
        "capped",
        doc! { "createIndexes": "log", "indexes": [{ "key": { "s": 1 }, "name": "s" }] },
    )
    .await?;
    run(&pair.from, "capped", doc! { "insert": "log", "documents": numbered(0, 500, 100) }).await?;
    let disturb = async |name: &str| {
        run(
            &pair.to,
            "capped",
            doc! { "delete": name, "deletes": [{ "q": { "_id": 7 }, "limit": 1 }] },
        )
        .await?;
        run(&pair.to, "capped", doc! { "insert": name, "documents": numbered(7, 8, 100) }).await
    };
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    in_order(&pair, &mut sync, "log", 500).await?;

    // As after an election, with a kill in the middle of the mending.
    sync.stop().await?;
    disturb("log").await?;
    let slow = doc! {
        "failCommands": ["renameCollection"], "appName": "cutover", "blockConnection": true,
        "blockTimeMS": 3_000,
    };
    let slow = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": slow };
    run(&pair.to, "admin", slow.clone()).await?;
    sync.kill().await?;
    let asides = async || {
        let names = pair.to.database("capped").list_collection_names().await?;
        Ok::<_, anyhow::Error>(
            names.into_iter().filter(|name| name.starts_with("cutover.")).count(),
        )
    };
    let began = Instant::now();
    while asides().await? == 0 {
        sync.look()?;
        ensure!(began.elapsed() < PATIENCE, "nothing is mended before the cutover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(ids(&pair.to, "log").await?.len() == 500);
    sync.kill().await?;
    ensure!(ids(&pair.to, "log").await?.len() == 500);
    run(&pair.to, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    in_order(&pair, &mut sync, "log", 500).await?;

    // What is disturbed behind the last look is mended behind the block, and that may be given up.
    tokio::time::sleep(Duration::from_secs(2)).await;
    disturb("log").await?;
    run(&pair.to, "admin", slow).await?;
    let engine = sync.engine();
    engine.block_source().await?;
    ensure!(
        tokio::time::timeout(Duration::from_secs(2), engine.drain()).await.is_err(),
        "it was not mended"
    );
    engine.unblock_source().await?;
    ensure!(ids(&pair.to, "log").await?.len() == 500);
    run(&pair.to, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    let report = sync.prove(&pair).await?;
    ensure!(report.equal_documents == 500 && report.indexes == 2, "{report}");
    Ok(())
}

/// Finalizing drops nothing that no event told to be gone, and ends with no less than was verified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finalizing_drops_nothing_and_ends_with_no_less_than_was_verified() -> Result<()> {
    let pair = Pair::start().await?;
    run(&pair.from, "capped", doc! { "insert": "kept", "documents": numbered(0, 10, 10) }).await?;
    run(&pair.from, "capped", doc! { "insert": "gone", "documents": numbered(0, 10, 10) }).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    run(&pair.from, "capped", doc! { "drop": "gone" }).await?;
    sync.caught_up().await?;
    // The run has made one of that name, and no event reports that this one is gone.
    run(&pair.to, "capped", doc! { "insert": "gone", "documents": numbered(0, 10, 10) }).await?;
    let fault = sync.cut_over().await.err().context("it was dropped")?;
    ensure!(format!("{fault:#}").contains("capped.gone"), "{fault:#}");
    ensure!(ids(&pair.to, "gone").await?.len() == 10);
    run(&pair.to, "capped", doc! { "drop": "gone" }).await?;

    let engine = sync.engine();
    engine.drain().await?;
    engine.stop_sync().await;
    run(
        &pair.to,
        "capped",
        doc! { "delete": "kept", "deletes": [{ "q": { "_id": 3 }, "limit": 1 }] },
    )
    .await?;
    let fault = engine.restore_settings().await.err().context("a document is gone")?;
    ensure!(
        fault.message.contains("capped.kept has 9 documents")
            && fault.message.contains("10 were verified"),
        "{fault}"
    );
    run(&pair.to, "capped", doc! { "insert": "kept", "documents": numbered(3, 4, 10) }).await?;
    engine.restore_settings().await?;
    Ok(())
}
