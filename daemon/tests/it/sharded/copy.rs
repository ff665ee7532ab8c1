//! The copy of a sharded cluster into a replica set, shard by shard: no orphan arrives, and what
//! moves meanwhile is noticed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use daemon::engine::checkpoint::Checkpoints;
use daemon::engine::progress::Progress;
use daemon::engine::run::identity::Identity;
use daemon::engine::source::Source;
use daemon::engine::sync::{Milestone, Sync};
use daemon::engine::tuning::Tuning;
use daemon::engine::verify::Verifier;
use daemon::memory::Memory;
use daemon::mongo::{Side, connect};
use mongodb::bson::{Bson, Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, RunId, ShardName};
use schemas::spec::*;
use tokio::sync::mpsc;

pub(crate) const DOCUMENTS: i32 = 600;

pub(crate) fn spec(source: &ShardedCluster, destination: String) -> MigrationSpec {
    let spec = MigrationSpec::between(
        MigrationName::new("orders").expect("a name"),
        source.uri(),
        destination,
    );
    MigrationSpec { verify: VerifySpec { mode: VerifyMode::Off }, ..spec }
}

/// What a test copies with, and where it is reported how far that has come.
struct Copy {
    sync: Sync,
    milestones: mpsc::UnboundedReceiver<Milestone>,
}

impl Copy {
    async fn open(source: &ShardedCluster, destination: &ReplicaSet, dir: &Path) -> Result<Self> {
        let spec = Arc::new(spec(source, destination.uri()));
        let (sender, milestones) = mpsc::unbounded_channel();
        let source = Arc::new(
            Source::connect(&spec.source.connection, "orders-1-7", &Memory::default(), None)
                .await?,
        );
        let destination = Arc::new(
            connect(Side::Destination, &spec.destination.connection, None, "orders-1-7").await?,
        );
        let checkpoints = Checkpoints::open(dir, false)?;
        let identity = Identity {
            source: Arc::clone(&source),
            destination: Arc::clone(&destination),
            writer: Arc::clone(&destination),
            spec: Arc::clone(&spec),
            checkpoints: checkpoints.clone(),
            run: RunId::new(&spec.name, spec.generation, 7),
        };
        let sync = Sync {
            source,
            destination,
            checkpoints,
            identity: Arc::new(identity),
            progress: Arc::new(Progress::new(VerifyMode::Off)),
            tail_lock: Arc::default(),
            verifier: Arc::new(Verifier::open(VerifyMode::Off, dir)?),
            keeper: Arc::default(),
            mends: Arc::default(),
            stop: Default::default(),
            // Several parts of each collection, so that orphans lie at their bounds, too.
            tuning: Tuning { part_bytes: 8 << 10, ..Tuning::default() },
            milestones: sender,
            restarts: Arc::default(),
            spec,
        };
        Ok(Self { sync, milestones })
    }

    /// Runs until the documents are copied and the indexes built.
    async fn run(&mut self) -> Result<(), Fault> {
        let milestones = &mut self.milestones;
        let sync = self.sync.clone();
        tokio::select! {
            ended = sync.run() => match ended {
                Ok(()) => panic!("it follows the source, without an end"),
                Err(fault) => Err(fault),
            },
            () = async { while milestones.recv().await != Some(Milestone::Indexed) {} } => Ok(()),
        }
    }

    fn copied(&self) -> Vec<u64> {
        self.sync
            .progress
            .snapshot()
            .shards
            .iter()
            .map(|shard| shard.copy.documents_copied)
            .collect()
    }
}

/// Sharded collections on every shard, one that is not sharded, a view; orphans of a move, and
/// planted ones.
pub(crate) async fn fill(source: &ShardedCluster) -> Result<()> {
    source.create_database("shop", 2).await?;
    source.shard_collection("shop.hashed", doc! { "_id": "hashed" }, Some(6)).await?;
    source.shard_collection("shop.ranged", doc! { "a": 1, "b": 1 }, None).await?;
    let at = |a: i32| doc! { "a": a, "b": Bson::MinKey };
    source.deal_out("shop.ranged", &[at(100), at(200), at(300), at(400)]).await?;
    let client = source.client().await?;
    let db = client.database("shop");
    for name in ["hashed", "ranged", "plain"] {
        let documents = (0..DOCUMENTS)
            .map(|n| doc! { "_id": n, "a": n, "b": format!("{n}"), "text": "x".repeat(100) });
        db.collection(name).insert_many(documents).await?;
    }
    db.run_command(
        doc! { "createIndexes": "hashed", "indexes": [{ "key": { "a": 1 }, "name": "a_1" }] },
    )
    .await?;
    db.run_command(doc! {
        "create": "seen", "viewOn": "ranged",
        "pipeline": [{ "$match": { "a": { "$lt": 50 } } }],
    })
    .await?;
    source.move_range("shop.ranged", at(100), 0).await?;
    for shard in 0..3 {
        let orphan = |n: i32| {
            doc! {
                "_id": 10_000 * (shard + 1) + n, "a": (n * 100 + 50) % 500, "b": "orphan",
            }
        };
        let place = usize::try_from(shard)?;
        // Who owns a = 50, 150, 250, 350 and 450.
        let foreign = [0, 0, 2, 0, 1]
            .into_iter()
            .zip(0..)
            .filter(|(owner, _)| *owner != shard)
            .map(|(_, n)| orphan(n));
        let foreign: Vec<Document> = foreign.collect();
        source.plant(place, "shop.ranged", &foreign).await?;
    }
    Ok(())
}

/// What must have happened before a busy machine's patience ends.
async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(60), work).await.context("it does not come so far")?
}

fn is_copied(progress: &Progress, shard: usize) -> bool {
    let shards = progress.snapshot().shards;
    let copy = shards.get(shard).map(|shard| &shard.copy);
    copy.is_some_and(|copy| {
        copy.collections_total > 0 && copy.collections_copied == copy.collections_total
    })
}

#[tokio::test]
async fn every_shard_is_copied_without_its_orphans() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let mut copy = Copy::open(&source, &destination, folder.path()).await?;
    copy.run().await?;
    let theirs = destination.client().await?;
    let report = compare(&source.client().await?, &theirs, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    let orphans = theirs
        .database("shop")
        .collection::<Document>("ranged")
        .count_documents(doc! { "b": "orphan" })
        .await?;
    assert_eq!(orphans, 0);
    // Each shard brought its own. Parts overlap where the document at their bound is an orphan,
    // which is not read.
    let copied = copy.copied();
    assert!(copied.iter().sum::<u64>() >= u64::try_from(DOCUMENTS)? * 3, "{copied:?}");
    assert!(copied.iter().all(|documents| *documents > 0), "{copied:?}");
    let seen = copy.sync.progress.snapshot();
    assert_eq!(
        (seen.copy.collections_total, seen.copy.collections_copied),
        (3, 3),
        "each counts once"
    );
    // The index of each shard key is one, too.
    assert_eq!((seen.indexes.total, seen.indexes.built), (3, 3));
    Ok(())
}

/// Keeps a shard's part of `shop.ranged` from being read; what is read of the shard itself, to know
/// it again, passes.
async fn hold_up(source: &ShardedCluster, shard: usize) -> Result<()> {
    let data = doc! {
        "failCommands": ["find"], "namespace": "shop.ranged", "errorCode": 11_600,
        "appName": "cutover",
    };
    let admin = source.shards()[shard].client().await?.database("admin");
    admin
        .run_command(doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data })
        .await?;
    Ok(())
}

async fn let_go(source: &ShardedCluster, shard: usize) -> Result<()> {
    let admin = source.shards()[shard].client().await?.database("admin");
    admin.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    Ok(())
}

/// What changes where the data of `shop.ranged` lies: another shard has a range, then it has
/// another key.
async fn shift(source: &ShardedCluster) -> Result<()> {
    source.move_range("shop.ranged", doc! { "a": 200, "b": Bson::MinKey }, 1).await?;
    let client = source.client().await?;
    let index = doc! { "key": { "a": 1, "b": 1, "_id": 1 }, "name": "finer" };
    client
        .database("shop")
        .run_command(doc! { "createIndexes": "ranged", "indexes": [index] })
        .await?;
    let finer = doc! { "a": 1, "b": 1, "_id": 1 };
    client
        .database("admin")
        .run_command(doc! { "refineCollectionShardKey": "shop.ranged", "key": finer })
        .await?;
    Ok(())
}

async fn until_two_are_copied(progress: &Progress) {
    while !is_copied(progress, 0) || !is_copied(progress, 1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Which collections have another UUID on the destination than before: those that were dropped and
/// copied again.
async fn uuids(destination: &ReplicaSet) -> Result<BTreeMap<String, Bson>> {
    let reply = destination
        .client()
        .await?
        .database("shop")
        .run_command(doc! { "listCollections": 1 })
        .await?;
    let found =
        reply.get_document("cursor")?.get_array("firstBatch")?.iter().filter_map(Bson::as_document);
    let uuid = |info: &Document| {
        Some((
            info.get_str("name").ok()?.to_owned(),
            info.get_document("info").ok()?.get("uuid")?.clone(),
        ))
    };
    Ok(found.filter_map(uuid).collect())
}

async fn prove_copied_again(
    source: &ShardedCluster,
    destination: &ReplicaSet,
    before: &BTreeMap<String, Bson>,
) -> Result<()> {
    let report =
        compare(&source.client().await?, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    let after = uuids(destination).await?;
    assert_eq!(
        (&after["hashed"], &after["plain"]),
        (&before["hashed"], &before["plain"]),
        "they did not move"
    );
    assert_ne!(after["ranged"], before["ranged"], "it was copied again");
    Ok(())
}

#[tokio::test]
async fn a_collection_that_moves_during_the_copy_is_copied_again_alone() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let mut copy = Copy::open(&source, &destination, folder.path()).await?;
    // One shard is read only once the chunk has moved away from it.
    hold_up(&source, 2).await?;
    let progress = Arc::clone(&copy.sync.progress);
    let moving = async {
        until_two_are_copied(&progress).await;
        let before = uuids(&destination).await?;
        shift(&source).await?;
        let_go(&source, 2).await?;
        Ok::<_, anyhow::Error>(before)
    };
    let (copied, before) = tokio::join!(copy.run(), within(moving));
    copied?;
    prove_copied_again(&source, &destination, &before?).await
}

#[tokio::test]
async fn a_collection_that_moves_while_the_daemon_is_down_is_copied_again_alone() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let mut copy = Copy::open(&source, &destination, folder.path()).await?;
    hold_up(&source, 2).await?;
    let progress = Arc::clone(&copy.sync.progress);
    tokio::select! {
        ended = copy.run() => panic!("it cannot end: {ended:?}"),
        () = until_two_are_copied(&progress) => {}
    }
    drop(copy);
    let before = uuids(&destination).await?;
    shift(&source).await?;
    // Nothing but what is not sharded has been read of this one, and its documents go elsewhere.
    source.shard_collection("shop.plain", doc! { "_id": 1 }, None).await?;
    source.deal_out("shop.plain", &[doc! { "_id": 200 }, doc! { "_id": 400 }]).await?;
    let_go(&source, 2).await?;
    Copy::open(&source, &destination, folder.path()).await?.run().await?;
    let report =
        compare(&source.client().await?, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    assert_eq!(uuids(&destination).await?["hashed"], before["hashed"], "it did not move");
    Ok(())
}

#[tokio::test]
async fn a_primary_shard_that_moves_during_the_copy_is_an_error() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let mut copy = Copy::open(&source, &destination, folder.path()).await?;
    hold_up(&source, 2).await?;
    let progress = Arc::clone(&copy.sync.progress);
    let moving = async {
        until_two_are_copied(&progress).await;
        source.admin(doc! { "movePrimary": "shop", "to": "shard-1" }).await?;
        let_go(&source, 2).await
    };
    let (copied, moved) = tokio::join!(copy.run(), within(moving));
    moved?;
    let fault = copied.err().context("a fault")?;
    assert_eq!(fault.code, FaultCode::ChunksMoved, "{fault}");
    assert!(fault.message.contains("the database shop has another primary shard"), "{fault}");
    let again = Copy::open(&source, &destination, folder.path())
        .await?
        .run()
        .await
        .err()
        .context("a fault")?;
    assert_eq!(again.code, FaultCode::ChunksMoved);
    Ok(())
}

#[tokio::test]
async fn a_shard_that_fails_is_copied_again_alone() -> Result<()> {
    let (mut source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let folder = tempfile::tempdir()?;
    let mut copy = Copy::open(&source, &destination, folder.path()).await?;
    let fail = doc! {
        "configureFailPoint": "failCommand", "mode": "alwaysOn",
        "data": { "failCommands": ["find"], "errorCode": 1 },
    };
    let shard = source.shard_mut(1).client().await?.database("admin");
    shard.run_command(fail).await?;
    let (progress, restarts) = (Arc::clone(&copy.sync.progress), Arc::clone(&copy.sync.restarts));
    let operator = async {
        // The others have come to their end, and this one has not.
        let is_waiting = || {
            is_copied(&progress, 0)
                && is_copied(&progress, 2)
                && progress.shards()[1].error().is_some()
        };
        while !is_waiting() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(progress.error().is_none(), "it is no matter of the run");
        shard.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
        restarts.ask(&ShardName("shard-1".to_owned()));
        Ok::<_, anyhow::Error>(())
    };
    let (copied, asked) = tokio::join!(copy.run(), within(operator));
    copied?;
    asked?;
    assert!(copy.sync.progress.snapshot().shards.iter().all(|shard| shard.error.is_none()));
    let report =
        compare(&source.client().await?, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    Ok(())
}
