//! Shard keys that change on the source: each document is on the destination once, as it is on the
//! source, whichever shard reports it first.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::Collation;
use mongodb::{Client, Collection};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::spec::{MigrationSpec, SourceWrites, VerifyMode};

use super::copy::spec;
use super::harness::Driven;

/// Documents of each collection.
const DOCUMENTS: i32 = 24;

/// The collections: their keys, which their documents need not have, and what one shard has of
/// each.
fn keyed() -> [(&'static str, Document); 4] {
    [
        ("plain", doc! { "a": 1 }),
        ("dotted", doc! { "b.c": 1, "a": 1 }),
        ("hashed", doc! { "b.c": "hashed" }),
        ("collated", doc! { "text": 1 }),
    ]
}

async fn make(source: &ShardedCluster) -> Result<Client> {
    source.create_database("shop", 0).await?;
    let client = source.client().await?;
    let db = client.database("shop");
    db.run_command(doc! { "create": "collated", "collation": { "locale": "en", "strength": 2 } })
        .await?;
    for (name, key) in keyed() {
        let namespace = format!("shop.{name}");
        let shard = doc! {
            "shardCollection": &namespace, "key": &key, "collation": { "locale": "simple" },
        };
        source.admin(shard).await?;
        let middle = match name {
            "plain" => doc! { "a": 500 },
            "dotted" => doc! { "b.c": 500, "a": Bson::MinKey },
            "collated" => doc! { "text": "M" },
            _ => continue,
        };
        source.deal_out(&namespace, &[middle]).await?;
    }
    Ok(client)
}

/// Collections whose key is unique over all shards, and those keys.
const UNIQUE: [(&str, &str); 2] = [("unique", "u"), ("unique_id", "_id")];

async fn make_unique(source: &ShardedCluster) -> Result<()> {
    let db = source.client().await?.database("shop");
    let index = doc! { "key": { "u": 1 }, "name": "mine", "unique": true };
    db.run_command(doc! { "createIndexes": "unique", "indexes": [index] }).await?;
    for (name, field) in UNIQUE {
        let namespace = format!("shop.{name}");
        source
            .admin(doc! { "shardCollection": &namespace, "key": { field: 1 }, "unique": true })
            .await?;
        source.deal_out(&namespace, &[doc! { field: 12 }]).await?;
        let documents = (0..DOCUMENTS).map(|n| doc! { "_id": n, "u": n });
        db.collection(name)
            .insert_many(documents)
            .await
            .with_context(|| format!("filling {name}"))?;
    }
    Ok(())
}

/// Makes sure that the keys are unique on the destination as they are on the source, to its config
/// server and to its shards.
async fn keys_are_unique(destination: &ShardedCluster) -> Result<()> {
    let client = destination.client().await?;
    for (name, _) in UNIQUE {
        let entry = client.database("config").collection::<Document>("collections");
        let entry = entry
            .find_one(doc! { "_id": format!("shop.{name}") })
            .await?
            .context("it is not sharded")?;
        ensure!(entry.get_bool("unique")?, "{entry}");
    }
    let taken = client
        .database("shop")
        .collection("unique")
        .insert_one(doc! { "_id": "other", "u": 7 })
        .await;
    ensure!(taken.is_err(), "7 is there already");
    Ok(())
}

/// A document in the lower or the upper half of every key; `n` makes its content.
fn document(id: &Bson, is_upper: bool, n: i32) -> Document {
    let at = if is_upper { 900 } else { 100 } + n;
    // Under the collation these are one text; as shard keys they are two.
    let text = format!("{}{n}", if is_upper { "x" } else { "X" });
    doc! { "_id": id.clone(), "a": at, "b": { "c": at }, "text": text, "n": n }
}

fn ids(name: &str) -> Vec<Bson> {
    (0..DOCUMENTS)
        .map(|n| if name == "collated" { Bson::from(format!("id {n}")) } else { Bson::from(n) })
        .collect()
}

/// What is changed of each document, one after the other.
async fn change(
    client: &Client,
    collection: &Collection<Document>,
    id: &Bson,
    n: i32,
) -> Result<()> {
    let by = |is_upper: bool| document(id, is_upper, n);
    let key = |document: &Document| {
        doc! {
            "_id": id.clone(), "a": document.get("a"), "b": document.get("b"),
            "text": document.get("text"),
        }
    };
    let (lower, upper) = (by(false), by(true));
    // As a router wants it where an `_id` and a shard key hold texts: both are then compared by
    // their bytes.
    let simple = || Collation::builder().locale("simple").build();
    let update = async |query: Document, change: Document| {
        collection.update_one(query, change).collation(simple()).await
    };
    let delete = async |query: Document| collection.delete_one(query).collation(simple()).await;
    // From one shard to the other, and back in a transaction by hand.
    let fields =
        |of: &Document| doc! { "a": of.get("a"), "b": of.get("b"), "text": of.get("text") };
    update(key(&lower), doc! { "$set": fields(&upper) }).await.context("there")?;
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    collection.delete_one(key(&upper)).collation(simple()).session(&mut session).await?;
    collection.insert_one(document(id, false, n)).session(&mut session).await?;
    session.commit_transaction().await.context("back")?;
    // Without any field of the key: null, which is below everything.
    delete(key(&lower)).await?;
    collection.insert_one(doc! { "_id": id.clone(), "n": "bare" }).await?;
    let bare = doc! { "_id": id.clone(), "a": Bson::Null, "b.c": Bson::Null, "text": Bson::Null };
    match n % 4 {
        // Gone, as it is.
        0 => ensure!(delete(bare).await?.deleted_count == 1, "a bare document cannot be deleted"),
        // It gets a key, and so goes to the other shard.
        1 => {
            let set = doc! { "$set": fields(&upper) };
            ensure!(
                update(bare, set).await.context("a key")?.matched_count == 1,
                "there is no bare document"
            );
        }
        // In one transaction: away from here, and there.
        2 => {
            session.start_transaction().await?;
            collection.delete_one(bare).collation(simple()).session(&mut session).await?;
            collection.insert_one(document(id, true, n)).session(&mut session).await?;
            session.commit_transaction().await.context("away")?;
        }
        // And it loses its key again.
        _ => {
            update(bare.clone(), doc! { "$set": fields(&upper) }).await.context("a key")?;
            delete(key(&upper)).await?;
            collection.insert_one(doc! { "_id": id.clone(), "n": "bare again" }).await?;
        }
    }
    Ok(())
}

fn checked(mut spec: MigrationSpec) -> MigrationSpec {
    spec.verify.mode = VerifyMode::Full;
    spec.cutover.source_writes = SourceWrites::Block;
    spec
}

/// Makes sure that no `_id` lies on two shards.
async fn each_is_there_once(destination: &ShardedCluster) -> Result<()> {
    for (name, _) in keyed() {
        let mut seen = BTreeSet::new();
        for shard in destination.shards() {
            let collection = shard.client().await?.database("shop").collection::<Document>(name);
            let found: Vec<Document> =
                collection.find(doc! {}).projection(doc! { "_id": 1 }).await?.try_collect().await?;
            for id in found {
                ensure!(seen.insert(id.to_string()), "{id} of {name} lies on two shards");
            }
        }
    }
    Ok(())
}

/// Makes each shard refuse updates whole, as a router does that does not let a stage of the
/// server's through. Gives how many were until now.
async fn set_refusals(destination: &ShardedCluster, mode: impl Into<Bson>) -> Result<i64> {
    let mode = mode.into();
    let mut refused = 0;
    for shard in destination.shards() {
        let data = doc! {
            "failCommands": ["update"], "errorCode": 5_491_300, "failInternalCommands": true,
        };
        let set = doc! { "configureFailPoint": "failCommand", "mode": mode.clone(), "data": data };
        let reply = shard.client().await?.database("admin").run_command(set).await?;
        refused += reply.get_i64("count").or_else(|_| reply.get_i32("count").map(i64::from))?;
    }
    Ok(refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_whose_shard_key_changes_is_there_once() -> Result<()> {
    let (source, cluster, set) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(2)),
        ShardedCluster::start(ClusterOptions::shards(2)),
        ReplicaSet::start(Options::default())
    )?;
    let client = make(&source).await?;
    make_unique(&source).await?;
    let db = client.database("shop");
    for (name, _) in keyed() {
        let documents = ids(name).into_iter().zip(0..).map(|(id, n)| document(&id, false, n));
        db.collection(name)
            .insert_many(documents)
            .await
            .with_context(|| format!("filling {name}"))?;
    }
    let mut to_cluster = Driven::start(checked(spec(&source, cluster.uri()))).await?;
    to_cluster.ready().await?;
    let mut to_set = Driven::start(checked(spec(&source, set.uri()))).await?;
    to_set.ready().await?;
    for (name, _) in keyed() {
        let collection = db.collection(name);
        for (id, n) in ids(name).iter().zip(0..) {
            change(&client, &collection, id, n)
                .await
                .with_context(|| format!("changing {id} of {name}"))?;
        }
    }
    // Values change places: for a moment two documents may have the same.
    let unique = db.collection("unique");
    for (id, u) in [(1, 2), (2, 1)] {
        unique.delete_one(doc! { "_id": u }).await?;
        unique.insert_one(doc! { "_id": 100 + id, "u": u }).await?;
    }
    set_refusals(&cluster, doc! { "times": 1 }).await?;
    let listed = db
        .collection::<Document>("plain")
        .update_many(doc! {}, doc! { "$push": { "list": 1 } })
        .await?;
    ensure!(listed.modified_count > 1, "{listed:?}");
    for (run, theirs) in
        [(&mut to_cluster, cluster.client().await?), (&mut to_set, set.client().await?)]
    {
        run.ready().await?;
        run.cut_over().await?;
        let report = compare(&client, &theirs, &Scope::default()).await?;
        ensure!(report.is_equal(), "{report}");
    }
    ensure!(set_refusals(&cluster, "off").await? > 0, "no delta was refused");
    each_is_there_once(&cluster).await?;
    keys_are_unique(&cluster).await
}
