//! Primaries of shards and of config servers that step down and die, and routers that die: while documents are copied, while the source
//! is followed, while it is drained. The run goes on, and nothing is lost.

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::{ClusterOptions, Options, cutoverd};

use crate::scene::{Destination, Load, PATIENCE, POLL, Scene, fail_point};

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
        assert!(start.elapsed() < PATIENCE, "{mark}: it does not go on: {}", scene.daemon.log_end());
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn shards_config_servers_and_routers_come_and_go() {
    let shard = Options { election_timeout: Duration::from_secs(2), ..Options::default() };
    let source = ClusterOptions { first_members: 3, shard, ..ClusterOptions::shards(2) };
    let mut scene = Scene::set(source, Destination::cluster(ClusterOptions::shards(2)), cutoverd::Config::default()).await;
    scene.fill(DOCUMENTS, DOCUMENT_BYTES).await;
    let load = Load::start(&scene.source).await;
    let (source, destination) = (scene.source.client().await.unwrap(), scene.destination.client().await);
    scene.slow_inserts(true).await;
    let declaration = scene.declaration().set("copy.parallelism", 2);
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
    let (well, ill) = load.stop().await;
    assert!(well > 100, "{well} writes went well, {ill} did not");

    // While it drains, which is held up where it asks for the final times.
    let data = doc! { "failCommands": ["appendOplogNote"], "blockConnection": true, "blockTimeMS": 1_500, "appName": "cutover" };
    scene.acknowledge(&declaration).await;
    fail_point(&scene.source.shards()[0].client().await.unwrap(), "alwaysOn", data).await;
    let status = scene.status_where("draining", |status| status["phase"] == "draining" || status["phase"] == "completed").await;
    assert_eq!(status["phase"], "draining", "{status:#}");
    scene.source.shards()[0].step_down(5).await.unwrap();
    scene.source.config().step_down(1).await.unwrap();
    scene.destination.holders()[0].step_down(1).await.unwrap();
    scene.source.kill_router().await.unwrap();
    scene.source.restart_router().await.unwrap();
    scene.wait_for("completed").await;
    scene.prove().await;
}
