//! Collections that get another shard key while their changes are followed: what they hold arrives,
//! whatever the streams report, and a sharded destination does not stay under the old key
//! unnoticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context as _, Result};
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::fault::FaultCode;
use schemas::spec::{MigrationSpec, SourceWrites, VerifyMode};

use super::copy::{fill, spec};
use super::harness::Driven;

/// Gives a collection another shard key, of a text, and two shards to lie on: what is below `"3"`
/// on the first.
async fn reshard(source: &ShardedCluster, namespace: &str, field: &str) -> Result<()> {
    // It waits five minutes otherwise, for the sake of other clients.
    let quick = doc! { "setParameter": 1, "reshardingMinimumOperationDurationMillis": 0 };
    source.config().client().await?.database("admin").run_command(quick).await?;
    let at = |value: Bson| doc! { field: value };
    let bounds = [Bson::MinKey, Bson::from("3"), Bson::MaxKey];
    let chunks: Vec<Document> = (0..2)
        .map(|n| {
            let (min, max) = (at(bounds[n].clone()), at(bounds[n + 1].clone()));
            doc! { "recipientShardId": source.shards()[n].name(), "min": min, "max": max }
        })
        .collect();
    source
        .admin(doc! {
            "reshardCollection": namespace, "key": { field: 1 }, "_presetReshardedChunks": chunks,
        })
        .await?;
    Ok(())
}

/// Writes to every shard until it is dropped. Counts what was written: while a collection is
/// resharded, writes to it fail for a moment.
async fn write(client: Client, written: Arc<AtomicI32>) -> Result<()> {
    let ranged = client.database("shop").collection::<Document>("ranged");
    for n in 1.. {
        let tries = [
            ranged.insert_one(doc! { "_id": 300_000 + n, "a": n % 600, "b": "new" }).await.is_ok(),
            ranged
                .update_one(doc! { "_id": n % 500 }, doc! { "$set": { "seen": n } })
                .await
                .is_ok(),
            ranged.delete_one(doc! { "_id": 500 + n % 100 }).await.is_ok(),
        ];
        if tries == [true; 3] {
            written.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(())
}

/// Waits until so many more rounds were written.
async fn more(written: &AtomicI32) {
    let until = written.load(Ordering::Acquire) + 20;
    while written.load(Ordering::Acquire) < until {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn whole(source: &ShardedCluster, destination: String) -> MigrationSpec {
    let mut spec = spec(source, destination);
    spec.verify.mode = VerifyMode::Full;
    spec.cutover.source_writes = SourceWrites::Block;
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_resharded_loses_nothing() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let client = source.client().await?;
    let db = client.database("shop");
    let mut run = Driven::start(whole(&source, destination.uri())).await?;
    run.ready().await?;
    let written = Arc::new(AtomicI32::new(0));
    let writer = tokio::spawn(write(client.clone(), Arc::clone(&written)));
    more(&written).await;
    reshard(&source, "shop.ranged", "b").await?;
    more(&written).await;
    writer.abort();

    // Made, resharded, dropped and made again; and the same of one that was renamed between.
    let fresh = |kind: &str| {
        (0..40).map(|n| doc! { "_id": n, "b": format!("{n}"), "kind": kind }).collect::<Vec<_>>()
    };
    for name in ["late", "later"] {
        source.shard_collection("shop.late", doc! { "_id": "hashed" }, Some(6)).await?;
        db.collection("late").insert_many(fresh("old")).await?;
        db.run_command(
            doc! { "createIndexes": "late", "indexes": [{ "key": { "b": 1 }, "name": "b_1" }] },
        )
        .await?;
        let namespace = format!("shop.{name}");
        if name == "later" {
            source.admin(doc! { "renameCollection": "shop.late", "to": &namespace }).await?;
        }
        reshard(&source, &namespace, "b").await?;
        db.collection(name).insert_one(doc! { "_id": "resharded", "b": "5" }).await?;
        db.collection::<Document>(name).drop().await?;
        db.collection(name).insert_many(fresh("new").into_iter().take(7)).await?;
        if name == "late" {
            db.collection::<Document>(name).drop().await?;
        }
    }
    run.cut_over().await?;
    let theirs = destination.client().await?;
    let report = compare(&client, &theirs, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    assert_eq!(
        theirs.database("shop").collection::<Document>("later").count_documents(doc! {}).await?,
        7
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sharded_destination_does_not_stay_under_the_old_key_unnoticed() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ShardedCluster::start(ClusterOptions::shards(2))
    )?;
    fill(&source).await?;
    let client = source.client().await?;
    let mut run = Driven::start(whole(&source, destination.uri())).await?;
    run.ready().await?;
    // No stream of 6.0.5 reports either, and the documents arrive all the same.
    let finer = doc! { "a": 1, "b": 1, "_id": 1 };
    let index = doc! { "key": &finer, "name": "finer" };
    client
        .database("shop")
        .run_command(doc! { "createIndexes": "ranged", "indexes": [index] })
        .await?;
    source.admin(doc! { "refineCollectionShardKey": "shop.ranged", "key": &finer }).await?;
    let collections =
        destination.client().await?.database("config").collection::<Document>("collections");
    let wanted = doc! { "_id": "shop.ranged", "key": &finer };
    run.ready_with("the key on the destination", async || {
        Ok(collections.find_one(wanted.clone()).await?.is_some())
    })
    .await?;
    let ranged = client.database("shop").collection::<Document>("ranged");
    for n in 0..40 {
        ranged.insert_one(doc! { "_id": 400_000 + n, "a": n * 10, "b": "finer" }).await?;
        ranged.update_one(doc! { "_id": n }, doc! { "$set": { "seen": n } }).await?;
        ranged.delete_one(doc! { "_id": 100 + n }).await?;
    }
    run.caught_up(&source).await?;
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    reshard(&source, "shop.ranged", "b").await?;
    client
        .database("shop")
        .collection("ranged")
        .insert_one(doc! { "_id": -1, "a": 7, "b": "late" })
        .await?;
    run.blocked_by(
        "CUT0070: shop.ranged is sharded by {b: 1} by now, and on the destination by \
         {a: 1, b: 1, _id: 1}",
    )
    .await?;
    let fault = run.engine.prepare_cutover().await.err().context("it is noticed")?;
    assert_eq!(fault.code, FaultCode::ShardKeyUnfit, "{fault}");
    Ok(())
}
