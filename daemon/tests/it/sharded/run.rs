//! A whole run of the engine from three shards to a replica set, under load: orphans, shard keys
//! that change, definitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use daemon::engine::source::behind_router;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::spec::{SourceWrites, VerifyMode};

use super::copy::{DOCUMENTS, fill, spec};
use super::harness::Driven;

/// Changes on every shard, shard keys among them, until it is told to stop.
async fn write(client: Client, stop: Arc<AtomicBool>) -> Result<i32> {
    let db = client.database("shop");
    let mut rounds = 0;
    while !stop.load(Ordering::Acquire) {
        rounds += 1;
        let n = rounds * 31 % DOCUMENTS;
        // It goes over to another shard without a field of its key: what its old shard reports does
        // not name it whole.
        let ranged = db.collection::<Document>("ranged");
        ranged.insert_one(doc! { "_id": 200_000 + rounds, "a": rounds % 600 }).await?;
        let there = doc! { "_id": 200_000 + rounds, "a": rounds % 600, "b": null };
        ranged.update_one(there, doc! { "$set": { "a": (rounds + 200) % 600 } }).await?;
        for name in ["hashed", "ranged", "plain"] {
            let collection = db.collection::<Document>(name);
            collection
                .insert_one(doc! { "_id": 100_000 + rounds, "a": rounds % 600, "b": "new" })
                .await?;
            collection.update_one(doc! { "_id": n }, doc! { "$set": { "seen": rounds } }).await?;
            collection.delete_one(doc! { "_id": (n + 5) % DOCUMENTS }).await?;
            // The same `_id` comes back, on another shard; one that no shard keeps an orphan of.
            if rounds > 3 {
                let id = 100_000 + rounds - 3;
                collection.delete_one(doc! { "_id": id }).await?;
                collection
                    .insert_one(doc! { "_id": id, "a": (rounds * 7) % 600, "b": "back" })
                    .await?;
            }
        }
    }
    Ok(rounds)
}

/// Migrates three shards under load, their definitions changing, and compares. Gives the names of
/// what was read.
async fn carry(options: ClusterOptions) -> Result<Vec<String>> {
    let (source, destination) =
        tokio::try_join!(ShardedCluster::start(options), ReplicaSet::start(Options::default()))?;
    fill(&source).await?;
    let client = source.client().await?;
    // It has no index of its own on `_id`, and at first none at all.
    let clustered =
        doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
    client.database("shop").run_command(clustered).await?;
    source.shard_collection("shop.clustered", doc! { "_id": 1 }, None).await?;
    source.deal_out("shop.clustered", &[doc! { "_id": 100 }, doc! { "_id": 200 }]).await?;
    client
        .database("shop")
        .collection("clustered")
        .insert_many((0..300).map(|n| doc! { "_id": n, "n": n }))
        .await?;
    let mut spec = spec(&source, destination.uri());
    spec.verify.mode = VerifyMode::Full;
    spec.cutover.source_writes = SourceWrites::Block;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(client.clone(), Arc::clone(&stop)));
    let mut run = Driven::start(spec).await?;
    run.ready().await?;
    // Told by several shards, and applied once.
    let db = client.database("shop");
    let index = doc! { "key": { "b": 1 }, "name": "b_1" };
    db.run_command(doc! { "createIndexes": "hashed", "indexes": [index] }).await?;
    source.shard_collection("shop.gone", doc! { "_id": "hashed" }, Some(6)).await?;
    db.collection("gone").insert_many((0..50).map(|n| doc! { "_id": n })).await?;
    db.collection::<Document>("gone").drop().await?;
    stop.store(true, Ordering::Release);
    assert!(writer.await?? > 0);
    run.cut_over().await?;
    let names = run.engine.progress().shards.into_iter().map(|shard| shard.name.0).collect();
    let theirs = destination.client().await?;
    let report = compare(&client, &theirs, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    let orphans = theirs
        .database("shop")
        .collection::<Document>("ranged")
        .count_documents(doc! { "b": "orphan" })
        .await?;
    assert_eq!(orphans, 0);
    Ok(names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_shards_under_load_arrive_in_a_replica_set() -> Result<()> {
    assert_eq!(carry(ClusterOptions::shards(3)).await?, ["shard-0", "shard-1", "shard-2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_shards_that_nobody_reaches_arrive_through_their_router() -> Result<()> {
    let hidden = ClusterOptions { hides_shards: true, ..ClusterOptions::shards(3) };
    assert_eq!(carry(hidden).await?, [behind_router::NAME]);
    Ok(())
}
