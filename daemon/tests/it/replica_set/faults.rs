//! Servers and networks that fail while an application keeps writing, each once during the copy and
//! once in the tail: slow and cut connections, members that lag, writes that are rolled back, a
//! full disk, write concerns that time out, replies that are lost, an oplog that rolls over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::Client;
use mongodb::bson::{Document, Timestamp, doc};
use mongodb::options::WriteConcern;
use rig::fault_proxy::Faults;
use rig::replica_set::{Options, ReplicaSet};
use rig::workload::{FillOptions, Writer, WriterOptions, fill};
use schemas::fault::FaultCode;

use super::harness::{Pair, Run, run};

const PATIENCE: Duration = Duration::from_secs(60);
const DOCUMENTS: u64 = 2_000;

/// What the run is doing meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum During {
    Copy,
    Tail,
}

fn members(name: &str, members: usize) -> Options {
    Options {
        name: name.to_owned(),
        members,
        election_timeout: Duration::from_secs(2),
        ..Options::default()
    }
}

/// Tries again until it passes: servers are failing.
async fn insist<T>(work: impl AsyncFn() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match work().await {
            Err(_) if began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            done => return done,
        }
    }
}

async fn fail(client: &Client, mode: &str, data: Document) -> Result<()> {
    insist(async || {
        run(
            client,
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data.clone() },
        )
        .await
        .map(drop)
    })
    .await
}

/// The daemon's insertions take long, so that the copy lasts.
fn slowly() -> Document {
    doc! {
        "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 150,
        "appName": "cutover",
    }
}

async fn copies(sync: &mut Run) -> Result<()> {
    let began = Instant::now();
    while sync.engine().progress().copy.documents_copied == 0 {
        sync.look()?;
        ensure!(began.elapsed() < PATIENCE, "nothing is copied");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Runs a migration under an application's writes, with a disturbance during its copy and one in
/// its tail.
async fn through(
    pair: &mut Pair,
    disturb: impl AsyncFn(&mut Pair, During) -> Result<()>,
) -> Result<()> {
    fill(&pair.from, &FillOptions { documents: DOCUMENTS, ..FillOptions::default() }).await?;
    let writer = Writer::start(
        &pair.from,
        WriterOptions { rate: 60, ddl: true, ..WriterOptions::default() },
    )
    .await?;
    fail(&pair.to, "alwaysOn", slowly()).await?;
    let tuning = Tuning { batch_documents: 50, part_bytes: 100_000, ..Tuning::default() };
    let mut sync = Run::start_with(pair, pair.spec(), tuning).await?;
    copies(&mut sync).await?;
    let copy = sync.engine().progress().copy;
    ensure!(copy.collections_copied < copy.collections_total, "the copy is over: {copy:?}");
    disturb(pair, During::Copy).await.context("during the copy")?;
    fail(&pair.to, "off", doc! {}).await?;
    sync.caught_up().await?;
    disturb(pair, During::Tail).await.context("in the tail")?;
    sync.caught_up().await?;
    let stats = writer.stop().await?;
    let report = sync.prove(pair).await?;
    ensure!(report.source_documents > DOCUMENTS && stats.operations > 50, "{report} {stats:?}");
    ensure!(stats.missing_from(&pair.to).await?.is_empty(), "acknowledged writes are missing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_slow_held_cut_and_refused() -> Result<()> {
    let proxied = Options { proxied: true, ..Options::default() };
    let mut pair = Pair::start_with(proxied.clone(), proxied).await?;
    through(&mut pair, async |pair, _| {
        let (source, destination) = (
            pair.source.proxy(0).context("no proxy")?,
            pair.destination.proxy(0).context("no proxy")?,
        );
        let slow = Faults { delay: Duration::from_millis(30), ..Faults::default() };
        for proxy in [source, destination] {
            proxy.set(slow);
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        for proxy in [source, destination] {
            proxy.set(Faults { hold: true, ..slow });
            tokio::time::sleep(Duration::from_millis(700)).await;
            proxy.cut();
            proxy.set(slow);
            tokio::time::sleep(Duration::from_millis(300)).await;
            proxy.partition();
            tokio::time::sleep(Duration::from_millis(700)).await;
            proxy.heal();
        }
        Ok(())
    })
    .await
}

/// Stops or starts a member's replication.
async fn replicates(set: &ReplicaSet, member: usize, on: bool) -> Result<()> {
    let mode = if on { "off" } else { "alwaysOn" };
    let client = set.member_client(member).await?;
    run(&client, "admin", doc! { "configureFailPoint": "stopReplProducer", "mode": mode }).await?;
    Ok(())
}

/// With its only other member behind, nothing is committed by a majority: what the source has
/// written meanwhile is not to be taken, and what the destination has written is not to be relied
/// on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_lag() -> Result<()> {
    let mut pair = Pair::start_with(members("rs-source", 2), members("rs-destination", 2)).await?;
    through(&mut pair, async |pair, during| {
        for set in [&pair.source, &pair.destination] {
            replicates(set, 1 - set.primary().await?, false).await?;
        }
        let alone = doc! {
            "insert": "alone", "documents": [{ "_id": format!("{during:?}") }],
            "writeConcern": { "w": 1 },
        };
        run(&pair.from, "lag", alone).await?;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let arrived = pair.to.database("lag").collection::<Document>("alone");
        let early = arrived.find_one(doc! { "_id": format!("{during:?}") }).await?;
        ensure!(early.is_none(), "what no majority has was taken");
        for set in [&pair.source, &pair.destination] {
            replicates(set, 1 - set.primary().await?, true).await?;
        }
        Ok(())
    })
    .await
}

/// The primary writes what its members do not get, and dies; when it comes back, it takes its
/// writes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_source_rolls_back_does_not_arrive() -> Result<()> {
    let mut pair = Pair::start_with(members("rs-source", 3), Options::default()).await?;
    let kept = (0..200)
        .map(|n| doc! { "_id": n, "kept": true, "text": "x".repeat(500) })
        .collect::<Vec<_>>();
    run(&pair.from, "rollback", doc! { "insert": "c", "documents": kept }).await?;
    through(&mut pair, async |pair, during| {
        let first = pair.source.primary().await?;
        let others: Vec<usize> = (0..3).filter(|member| *member != first).collect();
        for member in &others {
            replicates(&pair.source, *member, false).await?;
        }
        let one = WriteConcern::builder().w(mongodb::options::Acknowledgment::Nodes(1)).build();
        let options = mongodb::options::CollectionOptions::builder().write_concern(one).build();
        let lost = pair.from.database("rollback").collection_with_options::<Document>("c", options);
        lost.insert_many((0..20).map(|n| doc! { "_id": format!("{during:?} {n}"), "lost": true }))
            .await?;
        lost.update_many(doc! { "_id": { "$lt": 100 } }, doc! { "$set": { "kept": false } })
            .await?;
        lost.delete_many(doc! { "_id": { "$gte": 150 } }).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        pair.source.kill_member(first).await?;
        for member in &others {
            replicates(&pair.source, *member, true).await?;
        }
        pair.source.primary().await?;
        pair.source.restart_member(first).await
    })
    .await?;
    let all = pair
        .to
        .database("rollback")
        .collection::<Document>("c")
        .count_documents(doc! { "kept": true })
        .await?;
    ensure!(all == 200, "{all} documents are as they were");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_destinations_disk_is_full_and_its_write_concerns_time_out() -> Result<()> {
    let mut pair = Pair::start().await?;
    let writes = [
        "insert",
        "update",
        "delete",
        "create",
        "createIndexes",
        "drop",
        "renameCollection",
        "collMod",
        "dropIndexes",
    ];
    through(&mut pair, async |pair, _| {
        let full = doc! {
            "failCommands": writes.to_vec(), "errorCode": 14_031, "appName": "cutover",
        };
        fail(&pair.to, "alwaysOn", full).await?;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let late = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
        let late = doc! {
            "failCommands": writes.to_vec(), "writeConcernError": late, "appName": "cutover",
        };
        fail(&pair.to, "alwaysOn", late).await?;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        fail(&pair.to, "off", doc! {}).await
    })
    .await
}

/// A disk that stays full is said to be, and not waited for in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stays_full_is_named_and_gone_on_from() -> Result<()> {
    let pair = Pair::start().await?;
    fill(&pair.from, &FillOptions { documents: DOCUMENTS, ..FillOptions::default() }).await?;
    fail(
        &pair.to,
        "alwaysOn",
        doc! { "failCommands": ["insert"], "errorCode": 14_031, "appName": "cutover" },
    )
    .await?;
    let mut sync = Run::start(&pair).await?;
    let began = Instant::now();
    let fault = loop {
        sync.look()?;
        if let Some(fault) =
            sync.engine().progress().shards.first().and_then(|shard| shard.error.clone())
        {
            break fault;
        }
        ensure!(began.elapsed() < PATIENCE, "nothing is said of the full disk");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(fault.code == FaultCode::DestinationWriteFailed && fault.retryable, "{fault:?}");
    ensure!(fault.message.contains("OutOfDiskSpace"), "{fault}");
    fail(&pair.to, "off", doc! {}).await?;
    sync.prove(&pair).await?;
    Ok(())
}

/// Writes of the application that were done and whose replies were lost are sent again by its
/// driver, and happen once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retried_writes_arrive_once() -> Result<()> {
    let mut pair = Pair::start().await?;
    through(&mut pair, async |pair, during| {
        let collection = pair.from.database("retried").collection::<Document>("c");
        let id = |name: &str| format!("{during:?} {name}");
        let reply_lost =
            async || {
                // No code of an election: the driver would look for the primary each time.
                let lost = doc! { "code": 262, "errmsg": "the reply was lost" };
                let fail = doc! {
                    "failCommands": ["insert", "update", "delete", "findAndModify"],
                    "writeConcernError": lost, "errorLabels": ["RetryableWriteError"],
                };
                run(
                &pair.from, "admin",
                doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": fail },
            ).await
            };
        for name in ["a", "b", "c"] {
            reply_lost().await?;
            collection.insert_one(doc! { "_id": id(name), "n": 0, "list": [1, 2, 3] }).await?;
        }
        for _ in 0..5 {
            reply_lost().await?;
            collection
                .update_one(
                    doc! { "_id": id("a") },
                    doc! { "$inc": { "n": 1 }, "$push": { "list": 4 } },
                )
                .await?;
            reply_lost().await?;
            collection
                .find_one_and_update(doc! { "_id": id("b") }, doc! { "$inc": { "n": 1 } })
                .await?;
            reply_lost().await?;
            collection.replace_one(doc! { "_id": id("u") }, doc! { "n": 1 }).upsert(true).await?;
        }
        reply_lost().await?;
        collection.find_one_and_delete(doc! { "_id": id("c") }).await?;
        reply_lost().await?;
        collection
            .insert_many([doc! { "_id": id("c"), "again": true }, doc! { "_id": id("d") }])
            .await?;
        reply_lost().await?;
        collection.delete_one(doc! { "_id": id("d") }).await?;
        let counted = collection.find_one(doc! { "_id": id("a") }).await?.context("gone")?;
        ensure!(counted.get_i32("n")? == 5, "the source itself did them twice: {counted}");
        Ok(())
    })
    .await
}

async fn oldest(client: &Client) -> Result<Timestamp> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let first =
        oplog.find_one(doc! {}).sort(doc! { "$natural": 1 }).await?.context("an empty oplog")?;
    Ok(first.get_timestamp("ts")?)
}

/// Writes until the oplog no longer holds what it held.
async fn roll_over(client: &Client) -> Result<()> {
    let now = run(client, "admin", doc! { "appendOplogNote": 1, "data": { "msg": "now" } })
        .await?
        .get_timestamp("operationTime")?;
    let filler = client.database("elsewhere").collection::<Document>("filler");
    let text = "x".repeat(100_000);
    let began = Instant::now();
    while oldest(client).await? <= now {
        ensure!(began.elapsed() < PATIENCE, "the oplog does not roll over");
        filler.insert_many((0..20).map(|_| doc! { "text": &text })).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oplog_that_has_rolled_over_is_one_clear_error() -> Result<()> {
    // A small oplog, and checkpoints often: what comes after the last one is kept.
    let source = Options {
        oplog_mb: 8,
        arguments: vec!["--syncdelay".into(), "1".into()],
        ..Options::default()
    };
    let pair = Pair::start_with(source, Options::default()).await?;
    let mut spec = pair.spec();
    spec.namespaces.scope.include = vec!["shop.*".parse().expect("a pattern")];
    for during in [During::Copy, During::Tail] {
        let documents: Vec<Document> =
            (0..500).map(|n| doc! { "_id": n, "text": "x".repeat(1_000) }).collect();
        run(&pair.from, "shop", doc! { "insert": "orders", "documents": documents }).await?;
        fail(&pair.to, "alwaysOn", slowly()).await?;
        let tuning = Tuning { batch_documents: 20, ..Tuning::default() };
        let mut sync = Run::start_with(&pair, spec.clone(), tuning).await?;
        match during {
            During::Copy => copies(&mut sync).await?,
            During::Tail => {
                fail(&pair.to, "off", doc! {}).await?;
                sync.caught_up().await?;
            }
        }
        sync.stop().await?;
        ensure!(sync.resume_point_held().await? == Some(true), "{during:?}: it was held");
        roll_over(&pair.from).await?;
        fail(&pair.to, "off", doc! {}).await?;
        ensure!(sync.resume_point_held().await? == Some(false), "{during:?}: it is held no more");
        sync.kill().await?;
        let fault = sync.end().await?;
        ensure!(
            fault.code == FaultCode::ResumePointLost && !fault.retryable,
            "{during:?}: {fault:?}"
        );
        ensure!(
            fault.remedy.contains("generation") && fault.message.contains("oplog"),
            "{during:?}: {fault:?}"
        );
        drop(sync);
        pair.clear().await?;
    }
    Ok(())
}
