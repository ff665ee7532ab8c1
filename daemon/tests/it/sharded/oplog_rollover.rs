//! One shard's oplog that no longer holds what comes next.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mongodb::Client;
use mongodb::bson::{Document, Timestamp, doc};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::fault::FaultCode;

use super::copy::{fill, spec};
use super::harness::Driven;

/// How long a busy machine may take to write an oplog full.
const PATIENCE: Duration = Duration::from_secs(90);

async fn oldest(shard: &Client) -> Result<Timestamp> {
    let oplog = shard.database("local").collection::<Document>("oplog.rs");
    let first =
        oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await?.context("an empty oplog")?;
    Ok(first.get_timestamp("ts")?)
}

/// Writes through the router to the shard that has the database until its oplog has nothing of what
/// it had.
async fn roll_over(router: &Client, shard: &Client) -> Result<()> {
    let note = doc! { "appendOplogNote": 1, "data": { "msg": "now" } };
    let now = shard.database("admin").run_command(note).await?.get_timestamp("operationTime")?;
    let filler = router.database("elsewhere").collection::<Document>("filler");
    let text = "x".repeat(100_000);
    let began = Instant::now();
    while oldest(shard).await? <= now {
        ensure!(began.elapsed() < PATIENCE, "the oplog does not roll over");
        filler.insert_many((0..20).map(|_| doc! { "text": &text })).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_has_lost_its_place_is_named_and_the_others_are_shown() -> Result<()> {
    // A small oplog, and checkpoints often: what comes after the last one is kept.
    let shard = Options {
        oplog_mb: 8,
        arguments: vec!["--syncdelay".into(), "1".into()],
        ..Options::default()
    };
    let options = ClusterOptions { shard, ..ClusterOptions::shards(3) };
    let (source, destination) =
        tokio::try_join!(ShardedCluster::start(options), ReplicaSet::start(Options::default()))?;
    fill(&source).await?;
    source.create_database("elsewhere", 1).await?;
    let mut spec = spec(&source, destination.uri());
    spec.namespaces.scope.include = vec!["shop.*".parse()?];
    let mut run = Driven::start(spec).await?;
    run.ready().await?;
    run.stop().await;
    ensure!(run.engine.resume_point_held().await? == Some(true), "it is held");
    roll_over(&source.client().await?, &source.shards()[1].client().await?).await?;
    ensure!(run.engine.resume_point_held().await? == Some(false), "it is held no more");
    run.start_again().await?;
    let fault = run.end().await?;
    assert_eq!((fault.code, fault.retryable), (FaultCode::ResumePointLost, false), "{fault}");
    assert!(fault.message.contains("the oplog of shard-1 no longer holds"), "{fault}");
    assert!(!fault.message.contains("shard-0") && !fault.message.contains("shard-2"), "{fault}");
    assert!(
        fault.remedy.contains("`generation`") && fault.remedy.contains("on shard-1"),
        "{}",
        fault.remedy
    );
    let shards = run.engine.progress().shards;
    let told: Vec<_> =
        shards.iter().map(|shard| shard.error.as_ref().map(|fault| fault.code)).collect();
    assert_eq!(told, [None, Some(FaultCode::ResumePointLost), None]);
    assert!(
        shards
            .iter()
            .all(|shard| shard.optime_gap.applied.is_some() && shard.copy.documents_copied > 0),
        "{shards:?}"
    );
    Ok(())
}
