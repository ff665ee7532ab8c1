//! A collection that is not sharded and lies on another shard than its database's primary, as
//! `moveCollection` of 8.0 leaves it: the cluster lists it with one chunk (`unsplittable`).

use anyhow::{Context as _, Result, ensure};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, Timestamp, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, ReplicaSet, ShardedCluster};
use schemas::spec::{SourceWrites, VerifyMode};

use super::copy::spec;
use super::harness::Driven;

/// Makes a capped collection with documents on a shard, and has the cluster list it there.
async fn lay(cluster: &ShardedCluster, shard: usize) -> Result<()> {
    let create = doc! { "create": "log", "capped": true, "size": 1 << 20 };
    // The primary shard has one without documents, which a router of before 8.0 lists.
    cluster.shards()[1 - shard]
        .client()
        .await?
        .database("shop")
        .run_command(create.clone())
        .await?;
    let holder = cluster.shards()[shard].client().await?.database("shop");
    holder.run_command(create).await?;
    let documents: Vec<Document> = (0..200).map(|n| doc! { "_id": (n * 7) % 200 }).collect();
    holder.run_command(doc! { "insert": "log", "documents": documents }).await?;
    let listed =
        holder.run_command(doc! { "listCollections": 1, "filter": { "name": "log" } }).await?;
    let listed = listed
        .get_document("cursor")?
        .get_array("firstBatch")?
        .first()
        .and_then(Bson::as_document)
        .cloned();
    let uuid = listed
        .context("the collection")?
        .get_document("info")?
        .get("uuid")
        .context("its uuid")?
        .clone();
    let config = cluster.config().client().await?.database("config");
    let at = |increment| Timestamp { time: 1_700_000_000, increment };
    let (epoch, version) = (ObjectId::new(), Timestamp { time: 1, increment: 0 });
    let collection = doc! {
        "_id": "shop.log", "lastmodEpoch": epoch, "lastmod": mongodb::bson::DateTime::now(),
        "timestamp": at(1), "uuid": uuid.clone(),
        "key": { "_id": 1 }, "unique": false, "unsplittable": true,
    };
    let chunk = doc! {
        "_id": ObjectId::new(), "uuid": uuid, "min": { "_id": Bson::MinKey },
        "max": { "_id": Bson::MaxKey },
        "shard": cluster.shards()[shard].name(), "lastmod": version,
        "history": [{ "validAfter": at(1), "shard": cluster.shards()[shard].name() }],
    };
    config.collection::<Document>("chunks").insert_one(chunk).await?;
    config.collection::<Document>("collections").insert_one(collection).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capped_collection_on_another_shard_is_carried_in_its_order() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(2)),
        ReplicaSet::start(rig::replica_set::Options::default())
    )?;
    source.create_database("shop", 0).await?;
    lay(&source, 1).await?;
    let mut spec = spec(&source, destination.uri());
    spec.verify.mode = VerifyMode::Full;
    spec.cutover.source_writes = SourceWrites::Block;
    let mut run = Driven::start(spec).await?;
    run.ready().await?;
    run.cut_over().await?;
    // A router of before 8.0 does not know the layout: the shard itself is compared with.
    let (from, to) = (source.shards()[1].client().await?, destination.client().await?);
    let scope = Scope::default();
    let report = compare(&from, &to, &scope).await?;
    ensure!(report.is_equal() && report.equal_documents == 200, "{report}");
    Ok(())
}
