//! The engine on real replica sets: copy, tail and cutover under a writer, compared document by
//! document.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use daemon::engine::run::MongoEngine;
use daemon::engine::{DropWhat, Ending, Engine as _, EngineContext, RunEngine, SyncReport};
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::replica_set::{Auth, Options, ReplicaSet, User};
use rig::workload::{FillOptions, Writer, WriterOptions, fill};
use schemas::fault::FaultCode;
use schemas::id::{MigrationName, RunId, Workspace};
use schemas::namespace::Namespace;
use schemas::spec::*;
use tokio::sync::mpsc;

fn spec(source: &ReplicaSet, destination: &ReplicaSet) -> MigrationSpec {
    MigrationSpec::between(
        MigrationName::new("orders").expect("a name"),
        source.uri(),
        destination.uri(),
    )
}

fn open(spec: MigrationSpec, dir: &std::path::Path) -> Result<Arc<dyn RunEngine>> {
    let run = RunId::new(&spec.name, spec.generation, 7);
    let context = EngineContext {
        run,
        workspace: Workspace::default(),
        spec: Arc::new(spec),
        run_dir: dir.to_owned(),
        has_begun: false,
        replaces: Arc::from([]),
    };
    Ok(MongoEngine::default().open(context)?)
}

async fn until_caught_up(
    reports: &mut mpsc::Receiver<SyncReport>,
    engine: &dyn RunEngine,
) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(120) {
        match tokio::time::timeout(Duration::from_secs(10), reports.recv())
            .await
            .context("no report")?
            .context("closed")?
        {
            SyncReport::Health { caught_up: true, lag: Some(lag), blockers }
                if lag < Duration::from_secs(2) && blockers.is_empty() =>
            {
                return Ok(());
            }
            SyncReport::Failed(fault) => bail!("failed: {fault}"),
            _ => {}
        }
    }
    let progress = engine.progress();
    bail!(
        "not caught up: {:?} {:?} {:?} {:?} {:?}",
        engine.mismatches(20).await,
        progress.verification,
        progress.lag_seconds,
        progress.tail,
        progress.shards.first().map(|shard| (&shard.error, shard.optime_gap))
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_differences_are_found_and_named() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ReplicaSet::start(Options::default()),
        ReplicaSet::start(Options::default())
    )?;
    let client = source.client().await?;
    fill(&client, &FillOptions { documents: 3_000, ..FillOptions::default() }).await?;
    let numbers = client.database("planted").collection::<mongodb::bson::Document>("numbers");
    numbers
        .insert_many((0..3_000).map(
            |n| doc! { "_id": n, "a": n, "b": { "c": 1, "d": [1, 2] }, "pad": "x".repeat(200) },
        ))
        .await?;
    numbers.create_index(mongodb::IndexModel::builder().keys(doc! { "a": 1 }).build()).await?;
    let dir = tempfile::tempdir()?;
    let engine = open(spec(&source, &destination), dir.path())?;
    let (sender, mut reports) = mpsc::channel(100);
    engine.start_sync(sender).await?;
    until_caught_up(&mut reports, &*engine).await?;
    assert_eq!(engine.mismatches(10).await?, []);
    assert_eq!(engine.progress().verification.phase, "clean");
    engine.stop_sync().await;
    drop(engine);

    // A stranger at work on the destination, before anything was compared: a run from the same
    // checkpoints compares anew.
    std::fs::remove_file(dir.path().join("verification.db"))?;
    let theirs = destination.client().await?;
    let copy = theirs.database("planted").collection::<mongodb::bson::Document>("numbers");
    copy.delete_one(doc! { "_id": 7 }).await?;
    copy.insert_one(doc! { "_id": 99_999, "stranger": true }).await?;
    copy.update_one(doc! { "_id": 11 }, doc! { "$set": { "a": 11_i64 } }).await?;
    copy.replace_one(
        doc! { "_id": 13 },
        doc! { "a": 13, "pad": "x".repeat(200), "b": { "c": 1, "d": [1, 2] } },
    )
    .await?;
    copy.update_one(doc! { "_id": 17 }, doc! { "$set": { "b.d.1": 3 } }).await?;
    copy.drop_index("a_1").await?;
    theirs
        .database("planted")
        .run_command(doc! { "collMod": "numbers", "validator": { "a": { "$exists": true } } })
        .await?;

    let engine = open(spec(&source, &destination), dir.path())?;
    let (sender, mut reports) = mpsc::channel(100);
    engine.start_sync(sender).await?;
    let wanted = [
        ("indexes", None, vec!["a_1"]),
        ("options", None, vec!["validator"]),
        ("different", Some("11"), vec!["a"]),
        ("different", Some("13"), vec!["(field order)"]),
        ("different", Some("17"), vec!["b.d"]),
        ("extra", Some("99999"), vec![]),
        ("missing", Some("7"), vec![]),
    ];
    let began = Instant::now();
    let found = loop {
        while reports.try_recv().is_ok() {}
        let found = engine.mismatches(100).await?;
        if found.len() >= wanted.len() || began.elapsed() > Duration::from_secs(60) {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut named: Vec<_> = found
        .iter()
        .map(|one| {
            (
                one.kind.as_str(),
                one.id.as_deref(),
                one.paths.iter().map(String::as_str).collect::<Vec<_>>(),
            )
        })
        .collect();
    named.sort();
    let mut wanted = wanted.to_vec();
    wanted.sort();
    assert_eq!(named, wanted);
    assert!(found.iter().all(|one| one.namespace.to_string() == "planted.numbers"));
    assert_eq!(engine.progress().verification.mismatches, 7);
    let progress = engine.progress();
    assert_eq!(
        progress.verification.documents_verified + 4,
        progress.proof.documents_compared,
        "what differs is not equal"
    );
    let blocked = loop {
        if let Some(SyncReport::Health { blockers, .. }) = reports.recv().await {
            break blockers;
        }
    };
    assert!(blocked.iter().any(|why| why.contains("mismatches")), "{blocked:?}");

    // What the source changes next brings the two together again, and is noticed.
    numbers.update_one(doc! { "_id": 7 }, doc! { "$set": { "a": -7 } }).await?;
    let began = Instant::now();
    while engine.mismatches(100).await?.iter().any(|one| one.id.as_deref() == Some("7")) {
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(30),
            "the mended document stays a mismatch"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.stop_sync().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_with_access_control_is_guarded() -> Result<()> {
    let users = vec![
        User::new("mover", "moving", &["root"]),
        User::new("other", "othering", &["readWriteAnyDatabase"]),
    ];
    let locked = Options { auth: Some(Auth { users: users.clone() }), ..Options::default() };
    let (source, destination) =
        tokio::try_join!(ReplicaSet::start(Options::default()), ReplicaSet::start(locked))?;
    let client = source.client().await?;
    fill(&client, &FillOptions { documents: 2_000, ..FillOptions::default() }).await?;
    let dir = tempfile::tempdir()?;
    let password = dir.path().join("password");
    std::fs::write(&password, "moving\n")?;
    let mut spec = spec(&source, &destination);
    spec.destination.connection.username = Some("mover".to_owned());
    spec.destination.connection.password = Some(SecretRef::File(password));
    spec.destination.block_writes = Some(true);
    let engine = open(spec, &dir.path().join("run"))?;
    let (root, other) = (destination.client().await?, destination.client_as(&users[1]).await?);
    let own = "cutover_orders-1-0000000000000007";
    let user = async || {
        root.database("admin")
            .run_command(doc! { "usersInfo": own, "showAuthenticationRestrictions": true })
            .await
    };
    let customers = other.database("shop").collection::<Document>("customers");

    // What somebody writes between the first look and the block is found, and the run does not
    // begin.
    let late = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 1 },
        "data": {
            "failCommands": ["setUserWriteBlockMode"], "blockConnection": true,
            "blockTimeMS": 2_000, "appName": "cutover",
        },
    };
    let entered = root.database("admin").run_command(late).await?.get_i32("count")?;
    let (validated, written) = tokio::join!(engine.validate(), async {
        let entered = doc! {
            "waitForFailPoint": "failCommand", "timesEntered": entered + 1, "maxTimeMS": 60_000,
        };
        root.database("admin").run_command(entered).await?;
        customers.insert_one(doc! { "_id": "just before" }).await
    });
    written?;
    let refused = validated.err().context("the run begins over what somebody has written")?;
    assert!(
        refused.code == FaultCode::DestinationNotEmpty
            && refused.message.contains("shop.customers"),
        "{refused:?}"
    );
    customers.drop().await.context("others are kept out by a run that did not begin")?;
    assert!(user().await?.get_array("users")?.is_empty());
    assert!(!root.list_database_names().await?.contains(&"cutover_internal".to_owned()));

    // The block comes before anything is dropped or copied, and what is dropped then is dropped in
    // spite of it.
    customers.insert_one(doc! { "_id": "agreed" }).await?;
    assert!(engine.validate().await.is_err());
    customers.drop().await?;
    engine.validate().await?;
    let refused = customers.insert_one(doc! { "_id": "foreign" }).await;
    assert!(format!("{refused:?}").contains("code: 371"), "{refused:?}");
    engine.drop_namespaces(DropWhat::Listed(vec![Namespace::new("shop", "customers")])).await?;

    let (sender, mut reports) = mpsc::channel(100);
    engine.start_sync(sender).await?;
    until_caught_up(&mut reports, &*engine).await?;
    let info = user().await?;
    let info = info
        .get_array("users")?
        .first()
        .and_then(|user| user.as_document())
        .context("the run has no user of its own")?
        .clone();
    assert!(format!("{info}").contains("127.0.0.1"), "{info}");
    let refused = customers.insert_one(doc! { "_id": "foreign" }).await;
    assert!(format!("{refused:?}").contains("code: 371"), "{refused:?}");
    let marker = other
        .database("cutover_internal")
        .collection::<mongodb::bson::Document>("marker")
        .find_one(doc! {})
        .await?
        .context("no marker")?;
    assert_eq!(marker.get_str("migration")?, "orders");

    engine.prepare_cutover().await?;
    let told: Vec<SyncReport> = std::iter::from_fn(|| reports.try_recv().ok()).collect();
    let is_told = |report: &SyncReport| {
        matches!(
            report, SyncReport::Preparing { what, .. } if what.contains("unique indexes"),
        )
    };
    assert!(told.iter().any(is_told), "what the checks before the block are at is told: {told:?}");
    engine.block_source().await?;
    engine.drain().await?;
    engine.stop_sync().await;
    engine.restore_settings().await?;
    engine.open_destination().await?;
    other.database("after").collection("cutover").insert_one(doc! { "_id": "written" }).await?;
    engine.clean_up(Ending::Completed).await?;
    assert!(user().await?.get_array("users")?.is_empty());
    assert!(!root.list_database_names().await?.contains(&"cutover_internal".to_owned()));
    root.database("after").drop().await?;
    engine.unblock_source().await?;
    let report = compare(&client, &root, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_and_restarts_lose_nothing() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ReplicaSet::start(Options::default()),
        ReplicaSet::start(Options::default())
    )?;
    let client = source.client().await?;
    fill(&client, &FillOptions { documents: 60_000, ..FillOptions::default() }).await?;
    let writer =
        Writer::start(&client, WriterOptions { rate: 400, ddl: true, ..WriterOptions::default() })
            .await?;
    let dir = tempfile::tempdir()?;
    for pause in [30, 150, 400, 900, 1500, 700, 1100] {
        let engine = open(spec(&source, &destination), dir.path())?;
        let (sender, mut reports) = mpsc::channel(100);
        engine.start_sync(sender).await?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        while let Ok(report) = reports.try_recv() {
            if let SyncReport::Failed(fault) = report {
                bail!("failed: {fault}");
            }
        }
        println!("{:?}", engine.progress().copy);
        engine.stop_sync().await;
    }
    let engine = open(spec(&source, &destination), dir.path())?;
    let (sender, mut reports) = mpsc::channel(100);
    engine.start_sync(sender).await?;
    until_caught_up(&mut reports, &*engine).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    until_caught_up(&mut reports, &*engine).await?;
    engine.prepare_cutover().await?;
    engine.block_source().await?;
    engine.drain().await?;
    engine.stop_sync().await;
    engine.restore_settings().await?;
    engine.open_destination().await?;
    engine.clean_up(Ending::Completed).await?;
    let stats = writer.stop().await?;
    println!("{} operations, {:?}", stats.operations, stats.by_kind);
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    println!("{report}");
    assert!(report.is_equal(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_replica_set_arrives_byte_for_byte() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ReplicaSet::start(Options::default()),
        ReplicaSet::start(Options::default())
    )?;
    let client = source.client().await?;
    let began = Instant::now();
    let filled =
        fill(&client, &FillOptions { documents: 20_000, ..FillOptions::default() }).await?;
    println!("filled {filled:?} in {:?}", began.elapsed());
    let writer = Writer::start(&client, WriterOptions::default()).await?;
    let dir = tempfile::tempdir()?;
    let engine = open(spec(&source, &destination), dir.path())?;
    engine.validate().await?;
    let (sender, mut reports) = mpsc::channel(100);
    let began = Instant::now();
    engine.start_sync(sender).await?;
    until_caught_up(&mut reports, &*engine).await?;
    println!("caught up in {:?}: {:?}", began.elapsed(), engine.progress());
    tokio::time::sleep(Duration::from_secs(5)).await;
    engine.prepare_cutover().await?;
    engine.block_source().await?;
    let began = Instant::now();
    engine.drain().await?;
    println!("drained in {:?}", began.elapsed());
    engine.stop_sync().await;
    engine.restore_settings().await?;
    println!("restored in {:?}", began.elapsed());
    engine.open_destination().await?;
    println!("opened in {:?}", began.elapsed());
    engine.clean_up(Ending::Completed).await?;
    let stats = writer.stop().await?;
    println!("{stats:?}");
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    println!("{report}");
    assert!(report.is_equal(), "{report}");
    Ok(())
}
