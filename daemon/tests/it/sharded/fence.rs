//! The block on a sharded source's writes is lifted also while a shard is down: on the others at
//! once, on that one when it is back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use daemon::engine::run::MongoEngine;
use daemon::engine::{Engine as _, EngineContext, RunEngine};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::id::{RunId, Workspace};

use super::copy::spec;

const PATIENCE: Duration = Duration::from_secs(90);

/// A collection on each of two shards.
async fn fill(source: &ShardedCluster) -> Result<()> {
    source.create_database("left", 0).await?;
    source.create_database("right", 1).await?;
    let client = source.client().await?;
    for db in ["left", "right"] {
        client.database(db).collection("some").insert_one(doc! { "_id": 1 }).await?;
    }
    Ok(())
}

async fn write(client: &Client, db: &str) -> Result<()> {
    client.database(db).collection::<Document>("some").insert_one(doc! {}).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_down_keeps_no_other_blocked() -> Result<()> {
    let (mut source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(2)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let spec = spec(&source, destination.uri());
    let context = EngineContext {
        run: RunId::new(&spec.name, spec.generation, 7),
        workspace: Workspace::default(),
        spec: Arc::new(spec),
        run_dir: folder.path().to_owned(),
        has_begun: false,
        replaces: Arc::from([]),
    };
    let open =
        || -> Result<Arc<dyn RunEngine>> { Ok(MongoEngine::default().open(context.clone())?) };
    let client = source.client().await?;
    open()?.block_source().await?;
    for db in ["left", "right"] {
        write(&client, db).await.err().context("writes are blocked")?;
    }
    source.shard_mut(1).kill_member(0).await?;
    // As a daemon that was started again would.
    let engine = open()?;
    let fault = engine.unblock_source().await.err().context("a shard is down")?;
    assert!(fault.retryable, "{fault}");
    assert!(fault.message.contains("shard-1") && !fault.message.contains("shard-0"), "{fault}");
    write(&client, "left").await?;
    source.shard_mut(1).restart_member(0).await?;
    source.shards()[1].primary().await?;
    let lifting = async {
        while let Err(fault) = engine.unblock_source().await {
            anyhow::ensure!(fault.retryable, "{fault}");
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, lifting).await.context("it stays blocked")??;
    write(&client, "right").await?;
    Ok(())
}
