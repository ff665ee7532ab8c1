//! The copy of a sharded cluster into a replica set, shard by shard: no orphan arrives, and what moves meanwhile is noticed.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use daemon::engine::checkpoint::Checkpoints;
use daemon::engine::progress::Progress;
use daemon::engine::sharded::{Outcomes, ShardedCopy};
use daemon::engine::sync::Sync;
use daemon::engine::tuning::Tuning;
use daemon::engine::verify::Verifier;
use daemon::mongo::{Side, connect};
use mongodb::bson::{Bson, Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::fault::FaultCode;
use schemas::id::{Generation, MigrationName};
use schemas::spec::*;
use tokio::sync::mpsc;

const DOCUMENTS: i32 = 600;

fn spec(source: &ShardedCluster, destination: &ReplicaSet) -> MigrationSpec {
    let connection = |uri: String| ConnectionSpec { uri, username: None, password: None, tls: None };
    MigrationSpec {
        name: MigrationName::new("orders").expect("a name"),
        generation: Generation(1),
        paused: false,
        source: SourceSpec { connection: connection(source.uri()) },
        destination: DestinationSpec {
            connection: connection(destination.uri()),
            existing_data: ExistingData::Refuse,
            block_writes: None,
        },
        namespaces: NamespacesSpec::default(),
        copy: CopySpec::default(),
        sharding: None,
        verify: VerifySpec { mode: VerifyMode::Off },
        cutover: CutoverSpec::default(),
    }
}

async fn sync(source: &ShardedCluster, destination: &ReplicaSet, dir: &Path) -> Result<Sync> {
    let spec = Arc::new(spec(source, destination));
    let (milestones, _) = mpsc::unbounded_channel();
    Ok(Sync {
        source: Arc::new(connect(Side::Source, &spec.source.connection, None, "orders-1-7").await?),
        destination: Arc::new(connect(Side::Destination, &spec.destination.connection, None, "orders-1-7").await?),
        checkpoints: Checkpoints::open(dir)?,
        progress: Arc::new(Progress::new(VerifyMode::Off)),
        gate: Arc::default(),
        verifier: Arc::new(Verifier::open(VerifyMode::Off, dir)?),
        stop: Default::default(),
        tuning: Tuning::default(),
        milestones,
        placement: None,
        spec,
    })
}

/// Sharded collections on every shard, one that is not sharded, a view; orphans of a move, and planted ones.
async fn fill(source: &ShardedCluster) -> Result<()> {
    source.create_database("shop", 2).await?;
    source.shard_collection("shop.hashed", doc! { "_id": "hashed" }, Some(6)).await?;
    source.shard_collection("shop.ranged", doc! { "a": 1, "b": 1 }, None).await?;
    let at = |a: i32| doc! { "a": a, "b": Bson::MinKey };
    source.deal_out("shop.ranged", &[at(100), at(200), at(300), at(400)]).await?;
    let client = source.client().await?;
    let db = client.database("shop");
    for name in ["hashed", "ranged", "plain"] {
        let documents = (0..DOCUMENTS).map(|n| doc! { "_id": n, "a": n, "b": format!("{n}"), "text": "x".repeat(100) });
        db.collection(name).insert_many(documents).await?;
    }
    db.run_command(doc! { "createIndexes": "hashed", "indexes": [{ "key": { "a": 1 }, "name": "a_1" }] }).await?;
    db.run_command(doc! { "create": "seen", "viewOn": "ranged", "pipeline": [{ "$match": { "a": { "$lt": 50 } } }] }).await?;
    source.move_range("shop.ranged", at(100), 0).await?;
    for shard in 0..3 {
        let orphan = |n: i32| doc! { "_id": 10_000 * (shard + 1) + n, "a": (n * 100 + 50) % 500, "b": "orphan" };
        let place = usize::try_from(shard)?;
        // Who owns a = 50, 150, 250, 350 and 450.
        let foreign = [0, 0, 2, 0, 1].into_iter().zip(0..).filter(|(owner, _)| *owner != shard).map(|(_, n)| orphan(n));
        let foreign: Vec<Document> = foreign.collect();
        source.plant(place, "shop.ranged", &foreign).await?;
    }
    Ok(())
}

fn failed(outcomes: &Outcomes) -> Vec<(&str, FaultCode)> {
    outcomes.iter().filter_map(|(name, outcome)| Some((name.0.as_str(), outcome.as_ref().err()?.code))).collect()
}

#[tokio::test]
async fn every_shard_is_copied_without_its_orphans() -> Result<()> {
    let (source, destination) =
        tokio::try_join!(ShardedCluster::start(ClusterOptions::shards(3)), ReplicaSet::start(Options::default()))?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let copy = ShardedCopy::open(&sync(&source, &destination, folder.path()).await?).await?;
    let outcomes = copy.copy().await?;
    assert_eq!(failed(&outcomes), []);
    copy.finish().await?;
    let theirs = destination.client().await?;
    let report = compare(&source.client().await?, &theirs, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    let orphans = theirs.database("shop").collection::<Document>("ranged").count_documents(doc! { "b": "orphan" }).await?;
    assert_eq!(orphans, 0);
    // Each shard brought its own.
    let copied: Vec<u64> = copy.shards().iter().map(|shard| shard.sync.progress.snapshot().copy.documents_copied).collect();
    assert_eq!(copied.iter().sum::<u64>(), u64::try_from(DOCUMENTS)? * 3, "{copied:?}");
    assert!(copied.iter().all(|documents| *documents > 0), "{copied:?}");
    Ok(())
}

#[tokio::test]
async fn a_chunk_that_moves_during_the_copy_is_an_error() -> Result<()> {
    let (source, destination) =
        tokio::try_join!(ShardedCluster::start(ClusterOptions::shards(3)), ReplicaSet::start(Options::default()))?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let copy = ShardedCopy::open(&sync(&source, &destination, folder.path()).await?).await?;
    source.move_range("shop.ranged", doc! { "a": 200, "b": Bson::MinKey }, 1).await?;
    let outcomes = copy.copy().await?;
    // Both shards of the move notice it; the one that has nothing to do with it goes on.
    assert_eq!(failed(&outcomes), [("shard-1", FaultCode::ChunksMoved), ("shard-2", FaultCode::ChunksMoved)]);
    let fault = copy.finish().await.err().context("a fault")?;
    assert!(fault.message.contains("chunks of shop.ranged moved"), "{fault}");
    // As does a daemon that was down meanwhile, by what it has stored.
    let again = ShardedCopy::open(&sync(&source, &destination, folder.path()).await?).await.err().context("a fault")?;
    assert_eq!(again.code, FaultCode::ChunksMoved);
    assert!(again.message.ends_with(": collection shop.ranged"), "{again}");
    Ok(())
}

#[tokio::test]
async fn a_shard_that_fails_is_copied_again_alone() -> Result<()> {
    let (mut source, destination) =
        tokio::try_join!(ShardedCluster::start(ClusterOptions::shards(3)), ReplicaSet::start(Options::default()))?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let base = sync(&source, &destination, folder.path()).await?;
    let copy = ShardedCopy::open(&base).await?;
    let fail =
        doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": { "failCommands": ["find"], "errorCode": 1 } };
    let shard = source.shard_mut(1).client().await?.database("admin");
    shard.run_command(fail).await?;
    let outcomes = copy.copy().await;
    shard.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    let outcomes = outcomes?;
    assert_eq!(failed(&outcomes), [("shard-1", FaultCode::SourceReadFailed)]);
    assert!(copy.shards()[1].sync.progress.snapshot().shards.iter().any(|shard| shard.error.is_some()));
    copy.copy_shard(&copy.shards()[1].shard.name).await?;
    copy.finish().await?;
    let report = compare(&source.client().await?, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    Ok(())
}
