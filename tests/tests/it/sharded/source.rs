//! A sharded cluster under load is migrated to a replica set, by the command line alone: every
//! shard's documents, and no orphan.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster, Stage, cutoverd};

const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// What a cutover may take, in seconds: shards without writes must not hold it up, which tell of
/// themselves every ten seconds only.
const LONGEST_DOWNTIME: f64 = 5.0;
/// Documents of each collection at first.
const DOCUMENTS: i32 = 900;

/// A cluster as the source, and a replica set.
struct Play(Stage<ShardedCluster, ReplicaSet>);

impl Deref for Play {
    type Target = Stage<ShardedCluster, ReplicaSet>;
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
    /// Three shards with data and orphans, a replica set, and a daemon.
    async fn set() -> Result<Self> {
        Self::of(ClusterOptions::shards(3)).await
    }

    async fn of(source: ClusterOptions) -> Result<Self> {
        let destination = Options { name: "rs-destination".to_owned(), ..Options::default() };
        let (source, destination) = (ShardedCluster::start(source), ReplicaSet::start(destination));
        let play = Self(Stage::between(source, destination, cutoverd::Config::default()).await?);
        play.fill().await?;
        Ok(play)
    }

    async fn fill(&self) -> Result<()> {
        let source = &self.source;
        source.create_database("shop", 2).await?;
        source.shard_collection("shop.hashed", doc! { "_id": "hashed" }, Some(6)).await?;
        source.shard_collection("shop.ranged", doc! { "a": 1, "b": 1 }, None).await?;
        let at = |a: i32| doc! { "a": a, "b": Bson::MinKey };
        source.deal_out("shop.ranged", &[at(200), at(400), at(600), at(800)]).await?;
        let db = source.client().await?.database("shop");
        for name in ["hashed", "ranged", "plain"] {
            db.collection(name).insert_many((0..DOCUMENTS).map(document)).await?;
        }
        db.run_command(
            doc! { "createIndexes": "hashed", "indexes": [{ "key": { "a": 1 }, "name": "by_a" }] },
        )
        .await?;
        let unique = doc! { "key": { "a": 1, "b": 1, "c": 1 }, "name": "unique", "unique": true };
        db.run_command(doc! { "createIndexes": "ranged", "indexes": [unique] }).await?;
        db.run_command(doc! {
            "create": "seen", "viewOn": "ranged",
            "pipeline": [{ "$match": { "a": { "$lt": 50 } } }],
        })
        .await?;
        db.run_command(doc! { "create": "capped", "capped": true, "size": 100_000 }).await?;
        db.collection("capped").insert_many((0..50).map(document)).await?;
        // Each shard keeps what is not its own: what a moved range left behind, and what was
        // written behind the router's back.
        source.move_range("shop.ranged", at(200), 0).await?;
        for (shard, owners) in [[0, 0, 2, 0, 1]; 3].into_iter().enumerate() {
            let orphan = |n: usize| {
                doc! {
                    "_id": format!("orphan {shard} {n}"),
                    "a": i32::try_from(n).unwrap_or(0) * 200 + 100, "b": "orphan",
                }
            };
            let foreign: Vec<Document> =
                (0..5).filter(|n| owners[*n] != shard).map(orphan).collect();
            source.plant(shard, "shop.ranged", &foreign).await?;
        }
        Ok(())
    }

    async fn prove(&self) -> Result<()> {
        let theirs = self.destination.client().await?;
        let report =
            compare(&self.source.client().await?, &theirs, &Scope::only(&["shop.*"])).await?;
        ensure!(report.is_equal(), "{report}\n{}", self.daemon.log_end());
        Ok(())
    }

    async fn prove_without_orphans(&self) -> Result<()> {
        self.prove().await?;
        let theirs = self.destination.client().await?;
        let ranged = theirs.database("shop").collection::<Document>("ranged");
        ensure!(ranged.count_documents(doc! { "b": "orphan" }).await? == 0, "orphans have arrived");
        Ok(())
    }
}

fn document(n: i32) -> Document {
    doc! { "_id": n, "a": n * 7 % 1_000, "b": n * 13 % 300, "c": n, "text": "x".repeat(200) }
}

/// Inserts, updates, changes of shard keys over the shards, replacements, deletions, until it is
/// told to stop.
async fn write(client: Client, stop: Arc<AtomicBool>) -> Result<u64> {
    let db = client.database("shop");
    let mut rounds: i32 = 0;
    while !stop.load(Ordering::Acquire) {
        rounds += 1;
        let n = rounds * 31 % DOCUMENTS;
        for name in ["hashed", "ranged", "plain"] {
            let collection = db.collection::<Document>(name);
            let by = |n: i32| doc! { "_id": n };
            collection.insert_one(document(10_000 + rounds)).await?;
            collection.update_one(by(n), doc! { "$set": { "seen": rounds } }).await?;
            collection.delete_one(by((n + 4) % DOCUMENTS)).await?;
            // The same `_id` comes back on another shard.
            collection.delete_one(by((n + 5) % DOCUMENTS)).await?;
            let back = doc! {
                "_id": (n + 5) % DOCUMENTS, "a": 999 - rounds % 1_000, "b": rounds, "c": rounds,
            };
            match collection.insert_one(back).await.map_err(|error| (is_duplicate(&error), error)) {
                // What a moved range left behind has its `_id` still: it then stays deleted.
                Ok(_) | Err((true, _)) => {}
                Err((false, error)) => return Err(error.into()),
            }
        }
        // A document that goes over to another shard, by its shard key.
        let key = doc! {
            "_id": 10_000 + rounds, "a": (10_000 + rounds) * 7 % 1_000,
            "b": (10_000 + rounds) * 13 % 300,
        };
        let moved = doc! { "$set": { "a": (rounds * 377 + 333) % 1_000, "moved": true } };
        move_over(&client, key, moved).await?;
        db.collection::<Document>("capped").insert_one(document(20_000 + rounds)).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(rounds.unsigned_abs().into())
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    use mongodb::error::{ErrorKind, WriteFailure};
    matches!(
        *error.kind, ErrorKind::Write(WriteFailure::WriteError(ref error)) if error.code == 11_000,
    )
}

/// Changes a document's shard key, as a router does: by a retryable write, or in a transaction.
async fn move_over(client: &Client, key: Document, change: Document) -> Result<()> {
    client.database("shop").collection::<Document>("ranged").update_one(key, change).await?;
    Ok(())
}

/// Migrates three shards under load through definitions and the daemon's death. `names`: what is
/// read.
async fn carry(mut stage: Play, names: &[&str]) {
    let client = stage.source.client().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(client.clone(), Arc::clone(&stop)));
    let declaration = stage.declaration();
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("copying").await.unwrap();
    stage.daemon.kill9().await.unwrap();
    stage.daemon.restart().await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();
    let told: Vec<&str> = ready["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["name"].as_str().unwrap())
        .collect();
    assert_eq!(told, names, "{ready:#}");
    assert!(
        ready["shards"]
            .as_array()
            .unwrap()
            .iter()
            .all(|shard| shard["copy"]["documents_copied"].as_u64() > Some(0)),
        "{ready:#}"
    );
    // Definitions while it follows: of a sharded collection, reported by several shards, and of one
    // that is not.
    let db = client.database("shop");
    let index = doc! { "key": { "c": 1 }, "name": "by_c" };
    db.run_command(doc! { "createIndexes": "ranged", "indexes": [index] }).await.unwrap();
    db.collection("young").insert_many((0..100).map(document)).await.unwrap();
    let rename = doc! { "renameCollection": "shop.young", "to": "shop.renamed" };
    client.database("admin").run_command(rename).await.unwrap();
    stage.source.shard_collection("shop.late", doc! { "c": 1 }, None).await.unwrap();
    db.collection("late").insert_many((0..100).map(document)).await.unwrap();
    stage.source.shard_collection("shop.gone", doc! { "_id": "hashed" }, Some(6)).await.unwrap();
    db.collection("gone").insert_many((0..100).map(document)).await.unwrap();
    db.collection::<Document>("gone").drop().await.unwrap();
    stage.daemon.kill9().await.unwrap();
    stage.daemon.restart().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Release);
    assert!(writer.await.unwrap().unwrap() > 10);
    stage.acknowledge(&declaration).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();
    let downtime = completed["cutover"]["downtime_seconds"].as_f64().unwrap();
    println!("the cutover took {downtime:.2} s");
    assert!(downtime < LONGEST_DOWNTIME, "{completed:#}");
    stage.prove_without_orphans().await.unwrap();
}

#[tokio::test]
async fn three_shards_under_load_arrive_in_one_replica_set() {
    carry(Play::set().await.unwrap(), &["shard-0", "shard-1", "shard-2"]).await;
}

#[tokio::test]
async fn shards_that_cannot_be_reached_are_read_through_their_router_and_that_is_said() {
    const NAME: &str = "all shards, through the router";
    let hidden = ClusterOptions { hides_shards: true, ..ClusterOptions::shards(3) };
    let stage = Play::of(hidden).await.unwrap();
    stage.declaration().write(stage.cutover.folder()).unwrap();
    let checks = stage.cutover.run(["preflight"]).await.unwrap();
    for name in ["shard-0", "shard-1", "shard-2"] {
        let is_told = |line: &str| {
            line.contains(&format!("shard {name}: cannot connect"))
                && line.contains("through the router")
        };
        assert!(checks.stdout.lines().any(is_told), "{checks}");
    }
    let plan = stage.cutover.run(["plan"]).await.unwrap();
    assert!(
        plan.stderr.contains("shard shard-1: cannot connect")
            && plan.stderr.contains("oplogs cannot be read"),
        "{plan}"
    );
    assert!(plan.stdout.contains(NAME), "{plan}");
    carry(stage, &[NAME]).await;
}

#[tokio::test]
async fn a_chunk_that_moves_once_all_is_copied_loses_nothing_and_documents_of_one_id_are_told() {
    let stage = Play::set().await.unwrap();
    let client = stage.source.client().await.unwrap();
    // Two documents of one `_id` on two shards, in a migration of their own.
    stage.source.create_database("doubled", 0).await.unwrap();
    stage.source.shard_collection("doubled.places", doc! { "a": 1, "b": 1 }, None).await.unwrap();
    stage.source.deal_out("doubled.places", &[doc! { "a": 500, "b": Bson::MinKey }]).await.unwrap();
    let places = client.database("doubled").collection::<Document>("places");
    places.insert_one(doc! { "_id": "twin", "a": 50, "b": 1 }).await.unwrap();
    places.insert_one(doc! { "_id": "twin", "a": 950, "b": 1 }).await.unwrap();
    stage.apply(&stage.declaration_of("doubled", "doubled")).await.unwrap();

    let declaration = stage.declaration_of(MIGRATION, "shop");
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    // What was an orphan there would be one of the collection's documents once the range is the
    // shard's.
    let shard = stage.source.shards()[1].client().await.unwrap();
    shard
        .database("shop")
        .collection::<Document>("ranged")
        .delete_one(doc! { "_id": "orphan 1 2" })
        .await
        .unwrap();
    stage.source.move_range("shop.ranged", doc! { "a": 400, "b": Bson::MinKey }, 1).await.unwrap();
    let ranged = client.database("shop").collection::<Document>("ranged");
    ranged.update_many(doc! {}, doc! { "$set": { "after": "the move" } }).await.unwrap();
    ranged.delete_many(doc! { "a": { "$gte": 400, "$lt": 450 } }).await.unwrap();

    let start = Instant::now();
    let told = loop {
        let told = stage.cutover.run(["verify", "doubled", "--json"]).await.unwrap();
        if told.stdout.contains("twin") {
            break told.stdout;
        }
        assert!(start.elapsed() < PATIENCE, "{}", stage.daemon.log_end());
        tokio::time::sleep(POLL).await;
    };
    assert!(told.contains("doubled.places"), "{told}");
    let status = stage.cutover.status("doubled").await.unwrap();
    assert!(status["phase"] == "catching_up" && status["ready"]["value"] == false, "{status:#}");

    stage.acknowledge(&declaration).await.unwrap();
    stage.wait_for("completed").await.unwrap();
    stage.prove().await.unwrap();
}
