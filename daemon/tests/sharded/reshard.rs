//! Collections that get another shard key while their changes are followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::spec::{SourceWrites, VerifyMode};

use crate::copy::{fill, spec};
use crate::driven::Driven;

/// Gives `shop.ranged` another shard key, with all of it on one shard.
async fn reshard(source: &ShardedCluster, key: Document, chunks: &[(Document, Document, usize)]) -> Result<()> {
    // They wait five minutes otherwise, for the sake of other clients.
    let quick = doc! { "setParameter": 1, "reshardingMinimumOperationDurationMillis": 0 };
    source.config().client().await?.database("admin").run_command(quick).await?;
    let chunks: Vec<Document> = chunks
        .iter()
        .map(|(min, max, shard)| doc! { "recipientShardId": source.shards()[*shard].name(), "min": min, "max": max })
        .collect();
    source.admin(doc! { "reshardCollection": "shop.ranged", "key": key, "_presetReshardedChunks": chunks }).await?;
    Ok(())
}

/// Writes until it is told to stop.
async fn write(client: Client, stop: Arc<AtomicBool>) -> Result<i32> {
    let ranged = client.database("shop").collection::<Document>("ranged");
    let mut rounds = 0;
    while !stop.load(Ordering::Acquire) {
        rounds += 1;
        let _ = ranged.insert_one(doc! { "_id": 300_000 + rounds, "a": rounds % 600, "b": "new" }).await;
        let _ = ranged.update_one(doc! { "_id": rounds % 500 }, doc! { "$set": { "seen": rounds } }).await;
        let _ = ranged.delete_one(doc! { "_id": 500 + rounds % 100 }).await;
    }
    Ok(rounds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_resharded_loses_nothing() -> Result<()> {
    let (source, destination) =
        tokio::try_join!(ShardedCluster::start(ClusterOptions::shards(3)), ReplicaSet::start(Options::default()))?;
    fill(&source).await?;
    let client = source.client().await?;
    let mut spec = spec(&source, destination.uri());
    spec.verify.mode = VerifyMode::Full;
    spec.cutover.source_writes = SourceWrites::Block;
    let mut run = Driven::start(spec).await?;
    run.ready().await?;
    for shard in source.shards() {
        let admin = shard.client().await?.database("admin");
        let name = shard.name().to_owned();
        let pipeline = vec![
            doc! { "$changeStream": { "allChangesForCluster": true, "showExpandedEvents": true, "showSystemEvents": true } },
        ];
        let mut events = admin.run_cursor_command(doc! { "aggregate": 1, "pipeline": pipeline, "cursor": {} }).await?;
        tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if !["insert", "update", "delete", "replace"].contains(&event.get_str("operationType").unwrap_or("?")) {
                    println!("EVENT {name} {event}");
                } else {
                    println!(
                        "EV {name} {} {:?} {:?}",
                        event.get_str("operationType")?,
                        event.get("ns"),
                        event.get("documentKey")
                    );
                }
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(client.clone(), Arc::clone(&stop)));
    let all = |value: Bson| doc! { "b": value };
    let began = std::time::Instant::now();
    let resharded = reshard(
        &source,
        doc! { "b": 1 },
        &[(all(Bson::MinKey), doc! { "b": "3" }, 0), (doc! { "b": "3" }, all(Bson::MaxKey), 1)],
    )
    .await;
    println!("RESHARDED {resharded:?} {:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Release);
    println!("{:?}", writer.await?);
    run.cut_over().await?;
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    Ok(())
}
