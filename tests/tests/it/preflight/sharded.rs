//! The checks of sharded clusters, each failing for its own reason; and parts of one that are given
//! as if they were whole.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, Timestamp, Uuid, doc};
use mongodb::options::{DatabaseOptions, WriteConcern};
use rig::scenario::MIGRATION;
use rig::{ClusterOptions, Declaration, Options, ReplicaSet, ShardedCluster, Stage, cutoverd};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// One check of `cutover preflight --json`.
#[derive(Debug)]
struct Check {
    name: String,
    outcome: String,
    message: String,
    remedy: String,
    code: Option<String>,
}

/// A cluster as the source, and a replica set.
struct Scene(Stage<ShardedCluster, ReplicaSet>);

impl Deref for Scene {
    type Target = Stage<ShardedCluster, ReplicaSet>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Scene {
    async fn set() -> Self {
        let other = Options { name: "other".to_owned(), ..Options::default() };
        let (source, other) =
            (ShardedCluster::start(ClusterOptions::shards(2)), ReplicaSet::start(other));
        Self(Stage::between(source, other, cutoverd::Config::default()).await.unwrap())
    }

    async fn checks(&self, declaration: &Declaration) -> Vec<Check> {
        declaration.write(self.cutover.folder()).unwrap();
        let document = self.cutover.run(["preflight", "--json"]).await.unwrap().json().unwrap();
        let checks = document["preflight"][0]["checks"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let check = |one: &Value| Check {
            name: text(&one["name"]),
            outcome: text(&one["outcome"]),
            message: text(&one["message"]),
            remedy: text(&one["remedy"]),
            code: one["code"].as_str().map(str::to_owned),
        };
        checks.iter().map(check).collect()
    }

    /// Exactly this check fails, in these words.
    async fn fails(&self, declaration: &Declaration, name: &str, code: &str, words: &[&str]) {
        let all = self.checks(declaration).await;
        let failed: Vec<&Check> = all.iter().filter(|check| check.outcome == "fail").collect();
        assert!(
            failed.len() == 1 && failed[0].name == name && failed[0].code.as_deref() == Some(code),
            "{name}: {all:#?}"
        );
        for word in words {
            assert!(
                format!("{} {}", failed[0].message, failed[0].remedy).contains(word),
                "{word}: {:?}",
                failed[0]
            );
        }
    }
}

#[tokio::test]
async fn each_check_of_sharded_clusters_fails_for_its_own_reason() {
    let mut scene = Scene::set().await;
    a_part_of_a_cluster_is_not_taken_for_a_deployment(&scene).await;
    a_cluster_that_is_blocked_in_part_is_no_destination(&scene).await;
    each_check_of_a_sharded_source_fails_for_its_own_reason(&mut scene).await;
}

async fn a_part_of_a_cluster_is_not_taken_for_a_deployment(scene: &Scene) {
    let (other, shard) = (scene.destination.uri(), scene.source.shards()[1].uri());
    let by = |source: &str, destination: &str| Declaration::new(MIGRATION, source, destination);
    scene
        .fails(
            &by(&shard, &other),
            "source_whole",
            "CUT0062",
            &["shard shard-1", "orphans", "mongos"],
        )
        .await;
    // The plan lets nothing of it through.
    let refused = scene.cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("CUT0062"), "{refused}");
    scene
        .fails(&by(&other, &shard), "destination_whole", "CUT0062", &["shard shard-1", "no chunk"])
        .await;
    let config = scene.source.config().uri();
    scene
        .fails(
            &by(&config, &other),
            "source_whole",
            "CUT0062",
            &["the config server of a sharded cluster"],
        )
        .await;
}

/// A block that has come to one shard only: the config server has written down that it comes, and
/// not that it is there.
async fn a_cluster_that_is_blocked_in_part_is_no_destination(scene: &Scene) {
    let declaration = Declaration::new(MIGRATION, &scene.destination.uri(), &scene.source.uri());
    let name = "destination_write_block";
    let is_blocked = |check: &Check| check.name == name && check.code.as_deref() == Some("CUT0028");
    assert!(!scene.checks(&declaration).await.iter().any(is_blocked));
    let (shards, router) = (scene.source.shards(), scene.source.client().await.unwrap());
    let slow = shards[1].client().await.unwrap();
    // The second command of a block is the one that has a shard refuse writes.
    let held = |mode: Bson| {
        let data = doc! {
            "failCommands": ["_shardsvrSetUserWriteBlockMode"], "failInternalCommands": true,
            "errorCode": 91,
        };
        doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data }
    };
    slow.database("admin").run_command(held(doc! { "skip": 1 }.into())).await.unwrap();
    let block = tokio::spawn(async move {
        router
            .database("admin")
            .run_command(doc! { "setUserWriteBlockMode": 1, "global": true })
            .await
    });
    let start = Instant::now();
    while !rig::write_block::is_blocked(&shards[0].client().await.unwrap()).await.unwrap() {
        assert!(start.elapsed() < PATIENCE, "the first shard is not blocked");
        tokio::time::sleep(POLL).await;
    }
    assert!(
        !rig::write_block::is_blocked(&slow).await.unwrap(),
        "the second shard is blocked as well"
    );
    let all = scene.checks(&declaration).await;
    assert!(all.iter().any(is_blocked), "{all:#?}");

    slow.database("admin").run_command(held("off".into())).await.unwrap();
    block.await.unwrap().unwrap();
    assert!(rig::write_block::is_blocked(&slow).await.unwrap());
    scene.source.admin(doc! { "setUserWriteBlockMode": 1, "global": false }).await.unwrap();
    assert!(!scene.checks(&declaration).await.iter().any(is_blocked));
}

async fn each_check_of_a_sharded_source_fails_for_its_own_reason(scene: &mut Scene) {
    let declaration = scene.declaration();
    scene.source.create_database("shop", 0).await.unwrap();
    scene.source.shard_collection("shop.orders", doc! { "_id": "hashed" }, Some(4)).await.unwrap();
    let client = scene.source.client().await.unwrap();
    client
        .database("shop")
        .collection("orders")
        .insert_many((0..50).map(|n| doc! { "_id": n }))
        .await
        .unwrap();
    // As the config server itself writes; and what is not held by a majority is not read.
    let majority = DatabaseOptions::builder().write_concern(WriteConcern::majority()).build();
    let config =
        scene.source.config().client().await.unwrap().database_with_options("config", majority);

    let all = scene.checks(&declaration).await;
    for (name, words) in [
        ("source_shards", "shard shard-0 at"),
        ("source_shards", "shard shard-1 at"),
        ("oplog_window", "shard-0"),
        ("oplog_window", "shard-1"),
        ("balancer", "is off"),
        ("moving_chunks", "no chunk"),
        ("feature_compatibility", "6.0 on the shards, 6.0 on the destination"),
        ("different_deployments", "are different"),
        ("sharded_time_series", "no time-series"),
        ("destination_whole", "no part"),
    ] {
        let found = |check: &Check| {
            check.name == name && check.outcome == "ok" && check.message.contains(words)
        };
        assert!(all.iter().any(found), "{name} {words}: {all:#?}");
    }
    assert!(all.iter().all(|check| check.outcome != "fail"), "{all:#?}");

    scene.source.admin(doc! { "balancerStart": 1 }).await.unwrap();
    scene.fails(&declaration, "balancer", "CUT0061", &["is on", "sh.stopBalancer()"]).await;
    scene.source.admin(doc! { "balancerStop": 1 }).await.unwrap();

    // Two shards may hold one `_id` each; only the comparison would tell.
    let unproved = scene.declaration().text("verify.mode", "off");
    assert!(
        scene
            .checks(&unproved)
            .await
            .iter()
            .all(|check| check.name != "one_document_per_id" || check.outcome == "ok")
    );
    scene.source.shard_collection("shop.places", doc! { "town": 1, "_id": 1 }, None).await.unwrap();
    scene
        .fails(
            &unproved,
            "one_document_per_id",
            "CUT0021",
            &["shop.places", "verify { mode = \"full\" }"],
        )
        .await;

    // As the config server has it while a chunk moves.
    let migrations = config.collection::<Document>("migrations");
    migrations
        .insert_one(doc! { "ns": "shop.orders", "fromShard": "shard-0", "toShard": "shard-1" })
        .await
        .unwrap();
    scene
        .fails(
            &declaration,
            "moving_chunks",
            "CUT0061",
            &["shop.orders from shard-0 to shard-1", "wait"],
        )
        .await;
    migrations.delete_many(doc! {}).await.unwrap();

    let collections = config.collection::<Document>("collections");
    // As the config server has a sharded time-series collection.
    let uuid = Uuid::new();
    let buckets = doc! {
        "_id": "shop.system.buckets.measured", "uuid": uuid, "lastmodEpoch": ObjectId::new(),
        "timestamp": Timestamp { time: 1, increment: 1 },
        "key": { "meta": 1 }, "unique": false, "timeseriesFields": { "timeField": "t" },
    };
    let chunk = doc! {
        "_id": ObjectId::new(), "uuid": uuid, "min": { "meta": Bson::MinKey },
        "max": { "meta": Bson::MaxKey }, "shard": "shard-0",
        "lastmod": Timestamp { time: 1, increment: 0 },
    };
    let chunks = config.collection::<Document>("chunks");
    chunks.insert_one(chunk).await.unwrap();
    collections.insert_one(buckets).await.unwrap();
    scene.fails(&declaration, "sharded_time_series", "CUT0021", &["shop.measured"]).await;
    let elsewhere = scene.declaration().set("namespaces.exclude", "[\"shop.measured\"]");
    assert!(
        scene
            .checks(&elsewhere)
            .await
            .iter()
            .all(|check| check.name != "sharded_time_series" || check.outcome == "ok")
    );
    collections.delete_one(doc! { "_id": "shop.system.buckets.measured" }).await.unwrap();
    chunks.delete_one(doc! { "uuid": uuid }).await.unwrap();

    let shards = config.collection::<Document>("shards");
    let draining = |on: bool| doc! { "$set": { "draining": on } };
    shards.update_one(doc! { "_id": "shard-1" }, draining(true)).await.unwrap();
    let all = scene.checks(&declaration).await;
    assert!(
        all.iter().any(|check| check.outcome == "warn" && check.message.contains("being drained")),
        "{all:#?}"
    );
    shards.update_one(doc! { "_id": "shard-1" }, draining(false)).await.unwrap();

    let same = Declaration::new(
        MIGRATION,
        &scene.source.uri(),
        &scene.source.uri().replace("127.0.0.1", "localhost"),
    );
    let all = scene.checks(&same).await;
    let is_same = |check: &Check| {
        check.name == "different_deployments" && check.code.as_deref() == Some("CUT0019")
    };
    assert!(all.iter().any(is_same), "{all:#?}");

    // With nothing in scope no router waits for its documents.
    scene.source.shard_mut(1).kill_member(0).await.unwrap();
    let all = scene.checks(&declaration.set("namespaces.include", "[\"elsewhere.*\"]")).await;
    let lost =
        all.iter().find(|check| check.name == "source_shards" && check.outcome == "fail").unwrap();
    assert!(
        lost.code.as_deref() == Some("CUT0012") && lost.message.contains("shard shard-1:"),
        "{lost:?}"
    );
    assert!(lost.remedy.contains("every shard is read directly"), "{lost:?}");
    assert!(
        all.iter().any(|check| check.outcome == "ok" && check.message.contains("shard shard-0 at")),
        "{all:#?}"
    );
}
