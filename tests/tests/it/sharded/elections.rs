//! Three shards go over to two, under load on all of them. Meanwhile primaries of shards and of
//! config servers step down and die, and routers die: while documents are copied, while the source
//! is followed, while it is drained. The run goes on, and nothing is lost.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use mongodb::{Client, IndexModel};
use rig::scenario::Deployed as _;
use rig::write_block::is_blocked;
use rig::{ClusterOptions, Options, cutoverd};

use super::scene::{Destination, Load, PATIENCE, POLL, Scene, fail_point};

const DOCUMENTS: i32 = 3_000;
const DOCUMENT_BYTES: usize = 16_000;

/// Inserts a document on the source, and waits until it has arrived.
async fn goes_on(scene: &Scene, source: &Client, destination: &Client, mark: &str) {
    let start = Instant::now();
    let marks = source.database("shop").collection::<Document>("hashed");
    while let Err(error) = marks.insert_one(doc! { "_id": mark }).await {
        assert!(start.elapsed() < PATIENCE, "{mark}: {error}");
        tokio::time::sleep(POLL).await;
    }
    let arrived = destination.database("shop").collection::<Document>("hashed");
    while !matches!(arrived.find_one(doc! { "_id": mark }).await, Ok(Some(_))) {
        assert!(
            start.elapsed() < PATIENCE,
            "{mark}: it does not go on: {}",
            scene.daemon.log_end()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Indexes of both sides: those of the declared shard keys, and a unique one that begins with a
/// shard key on either side.
async fn define(source: &Client) {
    let shop = source.database("shop");
    let of_key = doc! { "key": { "a": 1 }, "name": "a_1" };
    let unique = doc! { "key": { "a": 1, "_id": 1, "n": 1 }, "name": "unique", "unique": true };
    shop.run_command(doc! { "createIndexes": "ranged", "indexes": [of_key.clone(), unique] })
        .await
        .unwrap();
    shop.run_command(doc! { "createIndexes": "plain", "indexes": [of_key] }).await.unwrap();
}

/// Definitions while it follows: of sharded collections, which several shards report, and of one
/// that is not.
async fn redefine(scene: &Scene, source: &Client) {
    let shop = source.database("shop");
    let documents = |count: i32| (0..count).map(|n| doc! { "_id": n, "a": n * 7 % 1_000 });
    let index = doc! { "key": { "seen": 1 }, "name": "by_seen" };
    // A member is dead, for whose vote it would wait.
    let build = doc! { "createIndexes": "hashed", "indexes": [index], "commitQuorum": "majority" };
    shop.run_command(build).await.unwrap();
    scene.source.shard_collection("shop.late", doc! { "a": 1, "_id": 1 }, None).await.unwrap();
    shop.collection("late").insert_many(documents(100)).await.unwrap();
    scene.source.shard_collection("shop.gone", doc! { "_id": "hashed" }, Some(6)).await.unwrap();
    shop.collection("gone").insert_many(documents(100)).await.unwrap();
    shop.collection::<Document>("gone").drop().await.unwrap();
    shop.collection("young").insert_many(documents(100)).await.unwrap();
    let rename = doc! { "renameCollection": "shop.young", "to": "shop.renamed" };
    source.database("admin").run_command(rename).await.unwrap();
}

/// What the run has taken is given back on both sides, and the destination is as declared.
async fn given_back(scene: &Scene, source: &Client, destination: &Client) {
    for cluster in [&scene.source, scene.destination.as_cluster()] {
        let balancer = cluster.admin(doc! { "balancerStatus": 1 }).await.unwrap();
        assert_eq!(balancer.get_str("mode").unwrap(), "full", "{balancer}");
        for shard in cluster.shards() {
            assert!(!is_blocked(&shard.client().await.unwrap()).await.unwrap(), "{}", shard.name());
        }
    }
    for client in [source, destination] {
        client
            .database("shop")
            .collection("plain")
            .insert_one(doc! { "_id": "afterwards" })
            .await
            .unwrap();
    }
    let cluster = scene.destination.as_cluster();
    let config = cluster.config().client().await.unwrap().database("config");
    for (name, key) in [
        ("hashed", doc! { "_id": "hashed" }),
        ("ranged", doc! { "a": 1 }),
        ("plain", doc! { "a": 1 }),
        ("late", doc! { "a": 1, "_id": 1 }),
    ] {
        let of = doc! { "_id": format!("shop.{name}") };
        let entry = config
            .collection::<Document>("collections")
            .find_one(of)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("{name}"));
        assert_eq!(entry.get_document("key").unwrap(), &key, "{name}");
    }
    for shard in cluster.shards() {
        let ranged =
            shard.client().await.unwrap().database("shop").collection::<Document>("ranged");
        assert!(
            ranged.find_one(doc! {}).await.unwrap().is_some(),
            "{} holds nothing",
            shard.name()
        );
        let unique: Vec<IndexModel> =
            ranged.list_indexes().await.unwrap().try_collect().await.unwrap();
        let is_unique = |index: &IndexModel| {
            index.options.as_ref().is_some_and(|options| options.unique == Some(true))
        };
        assert_eq!(unique.iter().filter(|index| is_unique(index)).count(), 1, "{}", shard.name());
    }
}

#[tokio::test]
async fn three_shards_go_over_to_two_while_shards_config_servers_and_routers_come_and_go() {
    // A transaction whose router has died holds nothing up for long.
    let arguments =
        ["--setParameter", "transactionLifetimeLimitSeconds=5"].map(str::to_owned).to_vec();
    let shard =
        Options { election_timeout: Duration::from_secs(2), arguments, ..Options::default() };
    let source = ClusterOptions { first_members: 3, shard, ..ClusterOptions::shards(3) };
    let mut scene = Scene::set(
        source,
        Destination::cluster(ClusterOptions::shards(2)),
        cutoverd::Config::default(),
    )
    .await;
    scene.fill(DOCUMENTS, DOCUMENT_BYTES).await;
    define(&scene.source.client().await.unwrap()).await;
    for cluster in [&scene.source, scene.destination.as_cluster()] {
        cluster.admin(doc! { "balancerStart": 1 }).await.unwrap();
    }
    let load = Load::start(&scene.source).await;
    let (source, destination) =
        (scene.source.client().await.unwrap(), scene.destination.client().await.unwrap());
    scene.slow_inserts(true).await;
    let declaration = scene
        .declaration()
        .set("copy.parallelism", 2)
        .text("sharding.balancer", "manage")
        .text("cutover.source_after", "open")
        .shard_key("shop.ranged", &["a:1"])
        .shard_key("shop.plain", &["a:1"]);
    scene.apply(&declaration).await;

    // While it copies.
    scene.copied(200).await;
    let dead = scene.source.shards()[0].primary().await.unwrap();
    scene.source.shard_mut(0).kill_member(dead).await.unwrap();
    scene.source.config().step_down(1).await.unwrap();
    scene.source.shards()[1].step_down(1).await.unwrap();
    scene.copied(400).await;
    scene.destination.holders()[0].step_down(1).await.unwrap();
    scene.source.kill_router().await.unwrap();
    scene.copied(600).await;
    scene.source.restart_router().await.unwrap();
    scene.destination.cluster_mut().kill_router().await.unwrap();
    scene.destination.cluster_mut().restart_router().await.unwrap();
    scene.slow_inserts(false).await;
    scene.status_where("ready", |status| status["ready"]["value"] == true).await;

    // While it follows.
    redefine(&scene, &source).await;
    scene.source.shards()[1].step_down(1).await.unwrap();
    goes_on(&scene, &source, &destination, "a shard's step-down").await;
    scene.source.config().step_down(1).await.unwrap();
    goes_on(&scene, &source, &destination, "the config server's step-down").await;
    scene.source.shard_mut(0).restart_member(dead).await.unwrap();
    let dead = scene.source.shards()[0].primary().await.unwrap();
    scene.source.shard_mut(0).kill_member(dead).await.unwrap();
    scene.destination.holders()[1].step_down(1).await.unwrap();
    goes_on(&scene, &source, &destination, "a shard's death").await;
    scene.source.kill_router().await.unwrap();
    scene.source.restart_router().await.unwrap();
    scene.destination.cluster_mut().kill_router().await.unwrap();
    scene.destination.cluster_mut().restart_router().await.unwrap();
    goes_on(&scene, &source, &destination, "the routers' death").await;

    // While it drains, which is held up where it asks for the final times.
    let data = doc! {
        "failCommands": ["appendOplogNote"], "blockConnection": true, "blockTimeMS": 1_500,
        "appName": "cutover",
    };
    fail_point(&scene.source.shards()[0].client().await.unwrap(), "alwaysOn", data).await;
    // What is tried on the destination before the source is blocked is tried again, and undone,
    // whatever election ends it.
    let interrupted = doc! { "failCommands": ["_shardsvrCollMod"], "errorCode": 11_602 };
    for holder in scene.destination.holders() {
        let set = doc! {
            "configureFailPoint": "failCommand", "mode": { "times": 1 },
            "data": interrupted.clone(),
        };
        holder.client().await.unwrap().database("admin").run_command(set).await.unwrap();
    }
    scene.acknowledge(&declaration).await;
    let status = scene
        .status_where("draining", |status| {
            status["phase"] == "draining" || status["phase"] == "completed"
        })
        .await;
    assert_eq!(status["phase"], "draining", "{status:#}");
    let (well, ill) = load.stop().await;
    assert!(well > 100, "{well} writes went well, {ill} did not");
    scene.source.shards()[0].step_down(5).await.unwrap();
    scene.source.config().step_down(1).await.unwrap();
    scene.destination.holders()[0].step_down(1).await.unwrap();
    scene.source.kill_router().await.unwrap();
    scene.source.restart_router().await.unwrap();
    scene.wait_for("completed").await;
    scene.prove().await;
    given_back(&scene, &source, &destination).await;
}
