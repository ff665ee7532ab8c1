//! What moves between the source's shards, and shards that come and go, while changes are followed:
//! nothing is lost, or it is an error.

use anyhow::Result;
use mongodb::bson::{Bson, Document, doc};
use rig::compare::{Scope, compare};
use rig::replica_set::Role;
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::fault::FaultCode;
use schemas::spec::{SourceWrites, VerifyMode};

use super::copy::{fill, spec};
use super::harness::Driven;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_new_may_get_another_primary_shard() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let client = source.client().await?;
    let mut spec = spec(&source, destination.uri());
    spec.verify.mode = VerifyMode::Full;
    spec.cutover.source_writes = SourceWrites::Block;
    let mut run = Driven::start(spec).await?;
    run.ready().await?;
    source.create_database("fresh", 0).await?;
    let db = client.database("fresh");
    let documents =
        |from: i32| (from..from + 50).map(|n| doc! { "_id": n, "text": format!("{n}") });
    db.collection("plain").insert_many(documents(0)).await?;
    db.run_command(
        doc! { "createIndexes": "plain", "indexes": [{ "key": { "text": 1 }, "name": "text_1" }] },
    )
    .await?;
    source.shard_collection("fresh.spread", doc! { "_id": "hashed" }, Some(6)).await?;
    db.collection("spread").insert_many(documents(0)).await?;
    source.admin(doc! { "movePrimary": "fresh", "to": "shard-2" }).await?;
    for name in ["plain", "spread"] {
        db.collection(name).insert_many(documents(100)).await?;
        db.collection::<Document>(name).delete_many(doc! { "_id": { "$lt": 10 } }).await?;
        db.collection::<Document>(name)
            .update_many(doc! { "_id": { "$gt": 120 } }, doc! { "$set": { "moved": true } })
            .await?;
    }
    run.cut_over().await?;
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_joins_ends_the_run() -> Result<()> {
    let more = Options { name: "shard-new".to_owned(), role: Role::Shard, ..Options::default() };
    let (source, more, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(more),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let mut run = Driven::start(spec(&source, destination.uri())).await?;
    run.ready().await?;
    let add = doc! {
        "_configsvrAddShard": more.seed(), "name": more.name(), "writeConcern": { "w": "majority" },
    };
    source.config().client().await?.database("admin").run_command(add).await?;
    let to = doc! {
        "moveRange": "shop.ranged", "min": { "a": 400, "b": Bson::MinKey }, "toShard": more.name(),
    };
    source.admin(to).await?;
    source
        .client()
        .await?
        .database("shop")
        .collection("ranged")
        .insert_one(doc! { "_id": -5, "a": 450, "b": "there" })
        .await?;
    let fault = run.end().await?;
    assert_eq!((fault.code, fault.retryable), (FaultCode::ChunksMoved, false), "{fault}");
    assert!(fault.message.contains("the shard shard-new was added to"), "{fault}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_leaves_ends_the_run() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    // The first shard keeps the databases, and what goes to it was never there.
    source.create_database("shop", 0).await?;
    source.shard_collection("shop.ranged", doc! { "a": 1 }, None).await?;
    source.deal_out("shop.ranged", &[doc! { "a": 100 }, doc! { "a": 200 }]).await?;
    let client = source.client().await?;
    let ranged = client.database("shop").collection::<Document>("ranged");
    ranged.insert_many((0..300).map(|n| doc! { "_id": n, "a": n })).await?;
    let mut run = Driven::start(spec(&source, destination.uri())).await?;
    run.ready().await?;
    let remove = doc! { "_configsvrRemoveShard": "shard-2", "writeConcern": { "w": "majority" } };
    let admin = source.config().client().await?.database("admin");
    admin.run_command(remove.clone()).await?;
    run.blocked_by("the source's shard shard-2 is being drained").await?;
    source
        .admin(doc! {
            "moveRange": "shop.ranged", "min": { "a": 200 }, "toShard": "shard-0",
            "waitForDelete": true,
        })
        .await?;
    ranged.update_many(doc! { "a": { "$gt": 150 } }, doc! { "$set": { "moved": true } }).await?;
    let removed = admin.run_command(remove).await?;
    assert_eq!(removed.get_str("state")?, "completed", "{removed}");
    let fault = run.end().await?;
    assert_eq!((fault.code, fault.retryable), (FaultCode::ChunksMoved, false), "{fault}");
    assert!(fault.message.contains("the shard shard-2 was removed from"), "{fault}");
    Ok(())
}
