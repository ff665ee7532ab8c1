//! A replica set is migrated to a sharded cluster under load: every document arrives once, on the
//! shard that its key says.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::{Client, Database};
use rig::compare::{Kind, Report, Scope, compare};
use rig::scenario::MIGRATION;
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster, Stage, cutoverd};

/// What a cutover may take, in seconds: shards without writes must not hold it up, which tell of
/// themselves every ten seconds only.
const LONGEST_DOWNTIME: f64 = 5.0;
/// Documents of each collection at first.
const DOCUMENTS: i32 = 1_500;
/// The collections whose documents are written to, each with its key on the destination.
const SHARDED: [(&str, &[&str]); 4] = [
    ("hashed", &["_id:hashed"]),
    ("ranged", &["a:1"]),
    ("compound", &["customer:1", "_id:hashed"]),
    ("late", &["b.c:1", "a:1"]),
];

/// A replica set as the source, and a cluster.
struct Play(Stage<ReplicaSet, ShardedCluster>);

impl Deref for Play {
    type Target = Stage<ReplicaSet, ShardedCluster>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Play {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Play {
    async fn set(shards: usize) -> Result<Self> {
        let source = Options { name: "rs-source".to_owned(), ..Options::default() };
        let (source, destination) =
            (ReplicaSet::start(source), ShardedCluster::start(ClusterOptions::shards(shards)));
        Ok(Self(Stage::between(source, destination, cutoverd::Config::default()).await?))
    }

    /// How many documents of a collection lie on each shard; none may lie on two.
    async fn spread(&self, db: &str, name: &str) -> Result<Vec<usize>> {
        let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut counts = Vec::new();
        for shard in self.destination.shards() {
            let collection = shard.client().await?.database(db).collection::<RawDocumentBuf>(name);
            let found: Vec<RawDocumentBuf> =
                collection.find(doc! {}).projection(doc! { "_id": 1 }).await?.try_collect().await?;
            counts.push(found.len());
            for id in found {
                ensure!(
                    seen.insert(id.clone().into_bytes()),
                    "{id:?} of {db}.{name} lies on two shards"
                );
            }
        }
        Ok(counts)
    }

    async fn keys(&self) -> Result<BTreeMap<String, Document>> {
        let config = self.destination.config().client().await?.database("config");
        let found: Vec<Document> = config
            .collection("collections")
            .find(doc! { "_id": /* not the sessions */ { "$regex": "^shop" } })
            .await?
            .try_collect()
            .await?;
        found
            .iter()
            .map(|entry| Ok((entry.get_str("_id")?.to_owned(), entry.get_document("key")?.clone())))
            .collect()
    }
}

fn document(n: i32) -> Document {
    doc! {
        "_id": n, "a": n * 7 % 1_000, "customer": format!("c{:03}", n * 13 % 300),
        "b": { "c": n % 17 }, "text": "x".repeat(200),
    }
}

async fn fill(db: &Database) -> Result<()> {
    for name in ["hashed", "ranged", "compound", "plain"] {
        db.collection(name).insert_many((0..DOCUMENTS).map(document)).await?;
    }
    let indexes =
        |name: &str, specs: Vec<Document>| doc! { "createIndexes": name, "indexes": specs };
    let unique = doc! { "key": { "a": 1, "_id": 1 }, "name": "unique_of_range", "unique": true };
    db.run_command(indexes(
        "ranged",
        vec![unique, doc! { "key": { "customer": 1 }, "name": "by_customer" }],
    ))
    .await?;
    db.run_command(indexes(
        "hashed",
        vec![doc! { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 3600 }],
    ))
    .await?;
    db.run_command(indexes(
        "plain",
        vec![doc! { "key": { "_id": 1, "a": 1 }, "name": "u", "unique": true }],
    ))
    .await?;
    db.run_command(doc! {
        "create": "seen", "viewOn": "ranged",
        "pipeline": [{ "$match": { "a": { "$lt": 50 } } }],
    })
    .await?;
    db.run_command(doc! { "create": "capped", "capped": true, "size": 100_000 }).await?;
    db.collection("capped").insert_many((0..50).map(document)).await?;
    Ok(())
}

/// Inserts, updates, changes of shard keys, replacements, deletions, until it is told to stop.
async fn write(client: Client, stop: Arc<AtomicBool>) -> Result<u64> {
    let db = client.database("shop");
    let mut rounds: i32 = 0;
    while !stop.load(Ordering::Acquire) {
        rounds += 1;
        let n = rounds * 31 % DOCUMENTS;
        for name in ["hashed", "ranged", "compound", "plain", "late"] {
            let collection = db.collection::<Document>(name);
            let by = |n: i32| doc! { "_id": n };
            collection.insert_one(document(10_000 + rounds)).await?;
            collection.update_one(by(n), doc! { "$set": { "seen": rounds } }).await?;
            // These change the shard key.
            let moved = doc! {
                "$set": { "a": rounds * 37 % 1_000, "customer": format!("c{:03}", rounds % 300) }
            };
            collection.update_one(by((n + 1) % DOCUMENTS), moved).await?;
            collection
                .update_one(by(10_000 + rounds), doc! { "$inc": { "a": 500, "b.c": 9 } })
                .await?;
            let replacement = doc! {
                "a": rounds % 1_000, "customer": format!("c{:03}", rounds * 3 % 300),
                "b": { "c": 1 },
            };
            collection.replace_one(by((n + 2) % DOCUMENTS), replacement).await?;
            collection
                .update_one(by((n + 3) % DOCUMENTS), doc! { "$unset": { "customer": 1 } })
                .await?;
            collection.delete_one(by((n + 4) % DOCUMENTS)).await?;
            // The same `_id` comes back with another shard key.
            collection.delete_one(by((n + 5) % DOCUMENTS)).await?;
            collection
                .insert_one(
                    doc! { "a": 999 - rounds % 1_000, "customer": "z", "_id": (n + 5) % DOCUMENTS },
                )
                .await?;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(rounds.unsigned_abs().into())
}

/// What differs but for the index that the server makes for a shard key.
fn unexpected(report: &Report) -> Vec<String> {
    let found = report.differences.iter();
    let own = ["_id_hashed", "b.c_1_a_1", "a_1"];
    let unexpected: Vec<String> = found
        .filter(|one| {
            one.kind != Kind::ExtraIndex || !own.contains(&one.id.as_deref().unwrap_or_default())
        })
        .map(ToString::to_string)
        .collect();
    assert!(report.differences.len() as u64 == report.total_differences, "{report}");
    unexpected
}

#[tokio::test]
async fn a_replica_set_under_load_arrives_on_three_shards() {
    let mut stage = Play::set(3).await.unwrap();
    let client = stage.source.client().await.unwrap();
    let db = client.database("shop");
    fill(&db).await.unwrap();
    what_cannot_be_sharded_is_named_before_any_data_moves(&stage).await;
    a_document_without_a_place_is_named(&stage, &client).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(client.clone(), Arc::clone(&stop)));
    let declaration = SHARDED
        .iter()
        .fold(stage.declaration_of(MIGRATION, "shop"), |declaration, (name, key)| {
            declaration.shard_key(&format!("shop.{name}"), key)
        })
        .shard_key("shop.renamed", &["a:1"]);
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("copying").await.unwrap();
    stage.daemon.kill9().await.unwrap();
    stage.daemon.restart().await.unwrap();
    stage.wait_for("ready").await.unwrap();
    // Definitions while it follows: a collection that is sharded by its new name, indexes, a drop.
    db.collection("young").insert_many((0..200).map(document)).await.unwrap();
    let rename = doc! { "renameCollection": "shop.young", "to": "shop.renamed" };
    client.database("admin").run_command(rename).await.unwrap();
    db.collection("gone").insert_many((0..20).map(document)).await.unwrap();
    db.collection::<Document>("gone").drop().await.unwrap();
    let index = doc! { "key": { "customer": 1, "_id": "hashed" }, "name": "of_the_shard_key" };
    db.run_command(doc! { "createIndexes": "compound", "indexes": [index] }).await.unwrap();
    db.collection("late").insert_one(document(-1)).await.unwrap();
    stage.daemon.kill9().await.unwrap();
    stage.daemon.restart().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Release);
    assert!(writer.await.unwrap().unwrap() > 20);
    stage.acknowledge(&declaration).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();
    let downtime = completed["cutover"]["downtime_seconds"].as_f64().unwrap();
    println!("the cutover took {downtime:.2} s");
    assert!(downtime < LONGEST_DOWNTIME, "{completed:#}");

    let theirs = stage.destination.client().await.unwrap();
    let report = compare(&client, &theirs, &Scope::only(&["shop.*"])).await.unwrap();
    assert_eq!(unexpected(&report), Vec::<String>::new());
    let keys = stage.keys().await.unwrap();
    let names: Vec<&str> = keys.keys().map(String::as_str).collect();
    assert_eq!(names, ["shop.compound", "shop.hashed", "shop.late", "shop.ranged", "shop.renamed"]);
    assert_eq!(keys["shop.compound"], doc! { "customer": 1, "_id": "hashed" });
    for name in ["hashed", "ranged", "compound", "late", "renamed", "plain", "capped"] {
        let counts = stage.spread("shop", name).await.unwrap();
        let total: usize = counts.iter().sum();
        let ours = db.collection::<Document>(name).count_documents(doc! {}).await.unwrap();
        assert_eq!(total as u64, ours, "{name}: {counts:?}");
        if ["hashed", "ranged", "compound", "renamed"].contains(&name) {
            assert!(counts.iter().all(|count| *count * 100 > total * 12), "{name}: {counts:?}");
        }
    }
    let specs: Vec<Document> = theirs
        .database("shop")
        .run_cursor_command(doc! { "listIndexes": "ranged" })
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let unique = specs
        .iter()
        .find(|spec| spec.get_str("name").is_ok_and(|name| name == "unique_of_range"))
        .unwrap();
    assert!(unique.get_bool("unique").unwrap());
}

async fn what_cannot_be_sharded_is_named_before_any_data_moves(stage: &Play) {
    let declaration = stage
        .declaration()
        .shard_key("shop.plain", &["customer:1"])
        .shard_key("shop.ranged", &["a:hashed"])
        .shard_key("shop.capped", &["a:1"])
        .shard_key("shop.seen", &["a:1"]);
    declaration.write(stage.cutover.folder()).unwrap();
    let output = stage.cutover.run(["preflight"]).await.unwrap();
    assert_eq!(output.code, 1, "{output:?}");
    for words in [
        "the unique index u of shop.plain cannot be kept",
        "the unique index unique_of_range of shop.ranged cannot be kept",
        "shop.capped is a capped collection, which cannot be sharded",
        "shop.seen is a view, which cannot be sharded",
        "CUT0070",
    ] {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
    let there = stage.destination.client().await.unwrap().list_database_names().await.unwrap();
    assert!(!there.contains(&"shop".to_owned()), "{there:?}");
    std::fs::remove_file(stage.folder().join(format!("{}.hcl", declaration.name()))).unwrap();
}

/// ... and nothing of it is lost.
async fn a_document_without_a_place_is_named(stage: &Play, client: &Client) {
    client
        .database("odd")
        .collection("compound")
        .insert_one(doc! { "_id": "odd", "customer": ["x", "y"] })
        .await
        .unwrap();
    let declaration = stage.declaration_of("odd", "odd").shard_key("odd.compound", &["customer:1"]);
    stage.apply(&declaration).await.unwrap();
    let status =
        stage.status_where("odd", "failed", |status| status["phase"] == "failed").await.unwrap();
    assert_eq!(status["error"]["code"], "CUT0070", "{status:#}");
    assert!(status["error"]["message"].as_str().unwrap().contains("_id \"odd\""), "{status:#}");
}
