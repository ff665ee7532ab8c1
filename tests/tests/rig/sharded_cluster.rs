//! The rig's sharded cluster does what one does: documents lie where their shards say, moves leave
//! orphans, transactions span shards.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::UpdateModifications;
use mongodb::{Client, Collection};
use rig::{ClusterOptions, ShardedCluster};

const DOCUMENTS: i32 = 300;

async fn ids(collection: &Collection<Document>) -> Result<Vec<i32>> {
    let found: Vec<Document> = collection.find(doc! {}).await?.try_collect().await?;
    found.iter().map(|document| document.get_i32("_id").context("an _id")).collect()
}

/// The documents that a shard calls its own, by its own filter: read with the version that the
/// config server holds.
async fn owned(cluster: &ShardedCluster, shard: usize, namespace: &str) -> Result<BTreeSet<i32>> {
    let config = cluster.config().client().await?.database("config");
    let entry = config
        .collection::<Document>("collections")
        .find_one(doc! { "_id": namespace })
        .await?
        .context("sharded")?;
    let of_shard =
        doc! { "uuid": entry.get("uuid").cloned(), "shard": cluster.shards()[shard].name() };
    let chunks: Vec<Document> =
        config.collection("chunks").find(of_shard).await?.try_collect().await?;
    let newest = chunks.iter().filter_map(|chunk| chunk.get_timestamp("lastmod").ok()).max();
    let newest = newest.unwrap_or(mongodb::bson::Timestamp { time: 0, increment: 0 });
    let version = doc! {
        "e": entry.get_object_id("lastmodEpoch")?, "t": entry.get_timestamp("timestamp")?,
        "v": newest,
    };
    let (db, collection) = namespace.split_once('.').context("a namespace")?;
    let find = doc! { "find": collection, "batchSize": 100_000, "shardVersion": version };
    let client = cluster.shards()[shard].client().await?;
    let reply = client.database(db).run_command(find).await?;
    let batch = reply.get_document("cursor")?.get_array("firstBatch")?;
    Ok(batch.iter().filter_map(|document| document.as_document()?.get_i32("_id").ok()).collect())
}

async fn on_disk(cluster: &ShardedCluster, shard: usize, namespace: &str) -> Result<BTreeSet<i32>> {
    let (db, collection) = namespace.split_once('.').context("a namespace")?;
    let client = cluster.shards()[shard].client().await?;
    Ok(ids(&client.database(db).collection(collection)).await?.into_iter().collect())
}

async fn check_owners(
    cluster: &ShardedCluster,
    namespace: &str,
    expected: &BTreeSet<i32>,
) -> Result<()> {
    let mut all = BTreeSet::new();
    for shard in 0..cluster.shards().len() {
        let owned = owned(cluster, shard, namespace).await?;
        ensure!(!owned.is_empty(), "shard {shard} owns nothing of {namespace}");
        for id in owned {
            ensure!(all.insert(id), "{id} of {namespace} is owned twice");
        }
    }
    ensure!(
        all == *expected,
        "the shards own {} documents of {namespace}, not {}",
        all.len(),
        expected.len()
    );
    Ok(())
}

fn documents() -> Vec<Document> {
    (0..DOCUMENTS)
        .map(|n| doc! { "_id": n, "a": n, "b": { "c": format!("{:03}", n * 7 % 100) } })
        .collect()
}

async fn placed(cluster: &ShardedCluster, client: &Client) -> Result<()> {
    cluster.create_database("shop", 1).await?;
    cluster.shard_collection("shop.hashed", doc! { "_id": "hashed" }, Some(6)).await?;
    cluster.shard_collection("shop.ranged", doc! { "a": 1 }, None).await?;
    cluster
        .deal_out("shop.ranged", &[doc! { "a": 50 }, doc! { "a": 120 }, doc! { "a": 200.5 }])
        .await?;
    cluster.shard_collection("shop.compound", doc! { "b.c": 1, "_id": "hashed" }, None).await?;
    let at = |text: &str| doc! { "b.c": text, "_id": Bson::MinKey };
    cluster
        .deal_out("shop.compound", &[at("020"), doc! { "b.c": "050", "_id": 0_i64 }, at("080")])
        .await?;
    cluster.zone("shop.ranged", "south", 0, doc! { "a": 0 }, doc! { "a": 10 }).await?;
    let all: BTreeSet<i32> = (0..DOCUMENTS).collect();
    for name in ["hashed", "ranged", "compound", "unsharded"] {
        let collection = client.database("shop").collection(name);
        collection.insert_many(documents()).await?;
        ensure!(
            ids(&collection).await?.into_iter().collect::<BTreeSet<_>>() == all,
            "{name} is not whole through the router"
        );
        if name != "unsharded" {
            check_owners(cluster, &format!("shop.{name}"), &all).await?;
        }
    }
    ensure!(
        on_disk(cluster, 1, "shop.unsharded").await? == all,
        "an unsharded collection lies on its database's primary shard"
    );
    ensure!(client.list_database_names().await?.contains(&"shop".to_owned()));
    let mut names = client.database("shop").list_collection_names().await?;
    names.sort_unstable();
    ensure!(names == ["compound", "hashed", "ranged", "unsharded"], "{names:?}");
    Ok(())
}

async fn merged(client: &Client) -> Result<()> {
    let hashed: Collection<Document> = client.database("shop").collection("hashed");
    let sorted: Vec<Document> = hashed
        .find(doc! {})
        .sort(doc! { "b.c": -1, "_id": 1 })
        .skip(10)
        .limit(200)
        .batch_size(7)
        .await?
        .try_collect()
        .await?;
    let mut expected = documents();
    expected.sort_by_key(|document| {
        let text = format!("{:03}", document.get_i32("a").unwrap_or_default() * 7 % 100);
        (std::cmp::Reverse(text), document.get_i32("_id").unwrap_or_default())
    });
    assert_eq!(sorted, expected[10..210]);
    assert_eq!(hashed.count_documents(doc! { "_id": { "$gte": 100 } }).await?, 200);
    assert_eq!(hashed.estimated_document_count().await?, 300);
    let pipeline = [
        doc! { "$match": { "_id": { "$lt": 50 } } },
        doc! { "$sort": { "_id": -1 } },
        doc! { "$limit": 3 },
    ];
    let top: Vec<Document> = hashed.aggregate(pipeline).await?.try_collect().await?;
    assert_eq!(
        top.iter().flat_map(|document| document.get_i32("_id")).collect::<Vec<_>>(),
        [49, 48, 47]
    );
    let refused = hashed
        .aggregate([doc! { "$facet": { "x": [] } }])
        .await
        .err()
        .context("a refusal")?
        .to_string();
    assert!(refused.contains("the stand-in for mongos does not support $facet"), "{refused}");
    Ok(())
}

async fn moved(cluster: &ShardedCluster, client: &Client) -> Result<()> {
    let ranged: Collection<Document> = client.database("shop").collection("ranged");
    let before = on_disk(cluster, 1, "shop.ranged").await?;
    cluster.move_range("shop.ranged", doc! { "a": 50 }, 2).await?;
    assert_eq!(
        on_disk(cluster, 1, "shop.ranged").await?,
        before,
        "what was moved away stays as orphans"
    );
    cluster
        .plant(
            1,
            "shop.ranged",
            &[doc! { "_id": 250, "a": 250, "orphan": true }, doc! { "_id": 9_000, "a": 90 }],
        )
        .await?;
    assert_eq!(ids(&ranged).await?.len(), 300);
    assert_eq!(ranged.count_documents(doc! { "orphan": true }).await?, 0);
    // Writes find their shard, also where the router's map was stale.
    ranged.insert_one(doc! { "_id": 300, "a": 60 }).await?;
    assert_eq!(
        ranged.update_one(doc! { "a": 70 }, doc! { "$set": { "x": 1 } }).await?.modified_count,
        1
    );
    assert_eq!(ranged.update_many(doc! {}, doc! { "$set": { "y": 1 } }).await?.modified_count, 301);
    assert_eq!(ranged.delete_one(doc! { "_id": 300 }).await?.deleted_count, 1);
    assert!(!owned(cluster, 2, "shop.ranged").await?.contains(&300));
    Ok(())
}

async fn across_shards(cluster: &ShardedCluster, client: &Client) -> Result<()> {
    let ranged: Collection<Document> = client.database("shop").collection("ranged");
    // From the first shard to the third.
    let change = UpdateModifications::Document(doc! { "$set": { "a": 150 } });
    assert_eq!(ranged.update_one(doc! { "a": 3 }, change).await?.modified_count, 1);
    assert_eq!(ranged.find_one(doc! { "_id": 3 }).await?.context("moved")?.get_i32("a")?, 150);
    assert!(!owned(cluster, 0, "shop.ranged").await?.contains(&3));
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    for (id, a) in [(400, 5), (401, 60), (402, 150)] {
        ranged.insert_one(doc! { "_id": id, "a": a }).session(&mut session).await?;
    }
    assert_eq!(
        ranged.find_one(doc! { "_id": 401 }).await?,
        None,
        "what is not committed is not seen"
    );
    session.commit_transaction().await?;
    session.start_transaction().await?;
    ranged.delete_many(doc! {}).session(&mut session).await?;
    session.abort_transaction().await?;
    assert_eq!(ranged.count_documents(doc! { "_id": { "$gte": 400 } }).await?, 3);
    Ok(())
}

async fn defined(client: &Client) -> Result<()> {
    let db = client.database("shop");
    db.run_command(
        doc! { "createIndexes": "hashed", "indexes": [{ "key": { "a": 1 }, "name": "a_1" }] },
    )
    .await?;
    let mut names = db.collection::<Document>("hashed").list_index_names().await?;
    names.sort_unstable();
    assert_eq!(names, ["_id_", "_id_hashed", "a_1"]);
    db.run_command(doc! { "collMod": "hashed", "validationLevel": "off" }).await?;
    let capped = db.run_command(doc! { "convertToCapped": "hashed", "size": 100_000 }).await;
    assert!(capped.is_err_and(|error| error.to_string().contains("sharded")));
    let rename = doc! { "renameCollection": "shop.hashed", "to": "shop.renamed" };
    client.database("admin").run_command(rename).await?;
    assert_eq!(db.collection::<Document>("renamed").count_documents(doc! {}).await?, 300);
    assert_eq!(db.collection::<Document>("hashed").count_documents(doc! {}).await?, 0);
    db.collection::<Document>("renamed").drop().await?;
    assert_eq!(db.collection::<Document>("renamed").count_documents(doc! {}).await?, 0);
    db.drop().await?;
    assert!(!client.list_database_names().await?.contains(&"shop".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_sharded_cluster_is_one() -> Result<()> {
    let cluster = ShardedCluster::start(ClusterOptions::shards(3)).await?;
    let client = cluster.client().await?;
    placed(&cluster, &client).await?;
    merged(&client).await?;
    moved(&cluster, &client).await?;
    across_shards(&cluster, &client).await?;
    defined(&client).await
}

#[tokio::test]
async fn it_outlives_elections_and_its_router() -> Result<()> {
    let mut cluster =
        ShardedCluster::start(ClusterOptions { proxied: true, ..ClusterOptions::shards(2) })
            .await?;
    let client = cluster.client().await?;
    cluster.shard_collection("shop.h", doc! { "_id": "hashed" }, Some(4)).await?;
    let collection: Collection<Document> = client.database("shop").collection("h");
    collection.insert_many((0..100).map(|n| doc! { "_id": n })).await?;
    cluster.shards()[0].step_down(1).await?;
    cluster.config().step_down(1).await?;
    collection.insert_many((100..200).map(|n| doc! { "_id": n })).await?;
    cluster.kill_router().await?;
    cluster.restart_router().await?;
    assert_eq!(collection.count_documents(doc! {}).await?, 200);
    cluster.shard_mut(1).kill_member(0).await?;
    cluster.shard_mut(1).restart_member(0).await?;
    assert_eq!(collection.count_documents(doc! {}).await?, 200);
    cluster.proxy().context("a proxy")?.partition();
    let unanswered = tokio::time::timeout(
        std::time::Duration::from_millis(300),
        collection.count_documents(doc! {}),
    )
    .await;
    assert!(
        !unanswered.is_ok_and(|counted| counted.is_ok()),
        "a router that cannot be reached answers nothing"
    );
    cluster.proxy().context("a proxy")?.heal();
    assert_eq!(collection.count_documents(doc! {}).await?, 200);
    Ok(())
}
