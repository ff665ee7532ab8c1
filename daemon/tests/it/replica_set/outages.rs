//! What a server refuses, or waits for, at a cutover and before it: reported by name while the
//! source takes writes, and never a dead end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};
use rig::replica_set::Options;
use schemas::fault::{Fault, FaultCode};
use schemas::observed::{FindingKind, Outcome};

use super::harness::{Pair, Run, insert, run, update};

async fn writes(pair: &Pair, id: &str) -> Result<()> {
    run(&pair.from, "app", doc! { "insert": "c", "documents": [{ "_id": id }] }).await.map(drop)
}

fn refused(ended: Result<(), Fault>, code: FaultCode, words: &[&str]) -> Result<()> {
    let fault = ended.err().with_context(|| format!("it was not refused with {code}"))?;
    ensure!(
        fault.code == code && words.iter().all(|word| fault.message.contains(word)),
        "{fault:?}"
    );
    Ok(())
}

/// The check of this name of a preflight.
async fn check(pair: &Pair, name: &str) -> Result<(Outcome, String)> {
    let findings =
        daemon::engine::preflight::check(&pair.spec(), &daemon::engine::Ours::default(), None)
            .await;
    let found = findings
        .checks
        .iter()
        .find(|check| check.name == name)
        .with_context(|| format!("no check {name}"))?;
    Ok((found.outcome, found.message.clone()))
}

/// A transaction that stays open, and a feature compatibility version that was lowered: each keeps
/// a block from being put up, is reported before one is asked for, and leaves the source as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_the_source_from_being_blocked_is_told_and_blocks_nothing() -> Result<()> {
    let pair = Pair::start().await?;
    writes(&pair, "first").await?;
    let mut spec = pair.spec();
    spec.cutover.max_downtime = "6s".parse()?;
    let tuning = Tuning { open_transactions: Duration::from_millis(1_500), ..Tuning::default() };
    let mut sync = Run::start_with(&pair, spec, tuning).await?;
    sync.caught_up().await?;

    let mut session = pair.from.start_session().await?;
    session.start_transaction().await?;
    pair.from
        .database("app")
        .collection::<Document>("c")
        .insert_one(doc! { "_id": "open" })
        .session(&mut session)
        .await?;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (outcome, message) = check(&pair, "open_transactions").await?;
    ensure!(outcome == Outcome::Warn && message.contains("1 transaction is open"), "{message}");
    refused(
        sync.engine().prepare_cutover().await,
        FaultCode::WritesContinued,
        &["1 transaction is open", "session"],
    )?;
    // Asked for all the same, as where one is opened at the last moment: readers wait for a part of
    // it alone.
    let began = Instant::now();
    let (ended, longest) = tokio::join!(sync.engine().block_source(), async {
        let mut longest = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(5) {
            let asked = Instant::now();
            run(&pair.from, "app", doc! { "find": "c", "limit": 1 }).await?;
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(longest)
    });
    let longest = longest?;
    refused(ended, FaultCode::WritesContinued, &["1 transaction is open"])?;
    ensure!(longest < Duration::from_secs(5), "a read waited for {longest:?}");
    sync.engine().unblock_source().await?;
    session.abort_transaction().await?;
    writes(&pair, "second").await?;

    run(&pair.from, "admin", doc! { "setFeatureCompatibilityVersion": "5.0" }).await?;
    refused(
        sync.engine().prepare_cutover().await,
        FaultCode::WriteBlockUnavailable,
        &["feature compatibility version", "5.0"],
    )?;
    // What a cutover that met it later would be left with.
    let blocked = sync.engine().block_source().await;
    ensure!(blocked.is_err(), "it was blocked with 5.0");
    sync.engine().unblock_source().await.context("undoing what was never done")?;
    let found = sync.engine().look(&daemon::engine::drift::Fresh::default()).await;
    let lowered = found
        .iter()
        .find(|one| one.kind == FindingKind::Version)
        .context("no drift of the version")?;
    ensure!(lowered.path == "source.feature_compatibility_version", "{lowered:?}");
    run(&pair.from, "admin", doc! { "setFeatureCompatibilityVersion": "6.0" }).await?;
    writes(&pair, "third").await?;
    sync.prove(&pair).await?;
    Ok(())
}

/// A database that is dropped, and one whose name differs from it by case alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_database_makes_way_for_one_of_another_case() -> Result<()> {
    let pair = Pair::start().await?;
    run(&pair.from, "Upper", doc! { "insert": "c", "documents": [{ "_id": 1 }] }).await?;
    run(&pair.from, "Upper", doc! { "create": "v", "viewOn": "c", "pipeline": [] }).await?;
    run(
        &pair.from,
        "Upper",
        doc! { "insert": "system.js", "documents": [{ "_id": "f", "value": 1 }] },
    )
    .await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    pair.from.database("Upper").drop().await?;
    run(&pair.from, "upper", doc! { "insert": "c", "documents": [{ "_id": 2 }] }).await?;
    sync.caught_up().await?;
    // Dropped collection by collection, with the database after them, and with a restart of the
    // daemon between.
    run(&pair.from, "upper", doc! { "drop": "c" }).await?;
    sync.restart().await?;
    pair.from.database("upper").drop().await?;
    run(&pair.from, "UPPER", doc! { "insert": "c", "documents": [{ "_id": 3 }] }).await?;
    sync.caught_up().await?;
    sync.prove(&pair).await?;

    // What is on the destination already is reported before anything moves.
    pair.clear().await?;
    run(&pair.from, "Shop", doc! { "insert": "c", "documents": [{ "_id": 1 }] }).await?;
    run(&pair.to, "shop", doc! { "insert": "other", "documents": [{ "_id": 1 }] }).await?;
    let (outcome, message) = check(&pair, "database_names").await?;
    ensure!(
        outcome == Outcome::Fail && message.contains("shop") && message.contains("Shop"),
        "{message}"
    );
    Ok(())
}

/// A replacement that no change stream of these servers passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_server_cannot_tell_is_named() -> Result<()> {
    let pair = Pair::start().await?;
    let document = |version: &str| -> RawDocumentBuf {
        rawdoc! { "_id": 7, "$v": version }
    };
    insert(&pair.from, "app", "c", &[document("inserted")]).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    update(
        &pair.from,
        "app",
        "c",
        &document(""),
        &[rawdoc! { "$replaceWith": { "$literal": document("replaced") } }],
    )
    .await?;
    let fault = sync.end().await?;
    ensure!(fault.code == FaultCode::UnsupportedChange && !fault.retryable, "{fault:?}");
    ensure!(
        ["app.c", "_id 7", "`$v`"].iter().all(|word| fault.message.contains(word)),
        "{fault:?}"
    );
    ensure!(fault.remedy.contains("generation"), "{fault:?}");
    Ok(())
}

/// What the destination refuses for good is tried before the source is blocked, on a collection of
/// the run's own that does not stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_tried_on_the_destination_before_the_block() -> Result<()> {
    let pair = Pair::start_with(Options::default(), Options::default()).await?;
    let expires = doc! { "key": { "t": 1 }, "name": "t_1", "expireAfterSeconds": 5_000 };
    run(&pair.from, "app", doc! { "createIndexes": "c", "indexes": [expires] }).await?;
    let clustered = doc! {
        "create": "k", "clusteredIndex": { "key": { "_id": 1 }, "unique": true },
        "expireAfterSeconds": 7_000,
    };
    run(&pair.from, "app", clustered).await?;
    let series =
        doc! { "create": "s", "timeseries": { "timeField": "t" }, "expireAfterSeconds": 9_000 };
    run(&pair.from, "app", series).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    let fail = |mode: &str| {
        let data = doc! { "failCommands": ["collMod"], "appName": "cutover", "errorCode": 72 };
        doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data }
    };
    run(&pair.to, "admin", fail("alwaysOn")).await?;
    refused(
        sync.engine().prepare_cutover().await,
        FaultCode::DestinationWriteFailed,
        &["app.", "cannot be given"],
    )?;
    let own = pair.to.database("cutover_internal").list_collection_names().await?;
    ensure!(!own.iter().any(|name| name.contains("trial")), "{own:?}");
    run(&pair.to, "admin", fail("off")).await?;
    sync.prove(&pair).await?;
    Ok(())
}

/// An expiry that 5.0 takes and no newer server makes: the documents expire at once on the source,
/// and on the destination.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_below_zero_does_not_keep_a_cutover_from_its_end() -> Result<()> {
    let pair = Pair::start_from(Some("5.0.32")).await?;
    let made = doc! {
        "createIndexes": "c",
        "indexes": [{ "key": { "t": 1 }, "name": "t_1", "expireAfterSeconds": 5 }],
    };
    run(&pair.from, "app", made).await?;
    run(
        &pair.from,
        "app",
        doc! { "collMod": "c", "index": { "name": "t_1", "expireAfterSeconds": -1 } },
    )
    .await?;
    let (outcome, message) = check(&pair, "index_expiry").await?;
    ensure!(
        outcome == Outcome::Warn
            && message.contains("expireAfterSeconds -1")
            && message.contains("gets 0"),
        "{message}"
    );
    let mut spec = pair.spec();
    spec.cutover.source_writes = schemas::spec::SourceWrites::Observe;
    let mut sync = Run::start_with(&pair, spec, Tuning::default()).await?;
    sync.cut_over().await?;
    let listed = run(&pair.to, "app", doc! { "listIndexes": "c" }).await?;
    let indexes = listed.get_document("cursor")?.get_array("firstBatch")?;
    let expiry = indexes
        .iter()
        .filter_map(|one| one.as_document()?.get("expireAfterSeconds").cloned())
        .next();
    ensure!(expiry.as_ref().and_then(mongodb::bson::Bson::as_i32) == Some(0), "{indexes:?}");
    Ok(())
}

/// Buckets that fixed servers refuse until they are reported them, in the copy and in the tail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_of_mixed_schema_are_carried_to_a_server_that_asks_to_be_told() -> Result<()> {
    let of = |version: &str| Options { version: Some(version.to_owned()), ..Options::default() };
    let pair = Pair::start_with(of("6.0.5"), of("6.0.27")).await?;
    run(&pair.from, "app", doc! { "create": "s", "timeseries": { "timeField": "t" } }).await?;
    let bucket = |id: u8| {
        let (id, at) = (
            mongodb::bson::oid::ObjectId::from_bytes([
                0x65, 0x92, 0, 0x80, id, 0, 0, 0, 0, 0, 0, 0,
            ]),
            at(1_704_067_200),
        );
        let control = doc! {
            "version": 1, "min": { "_id": id, "t": at, "a": 1 },
            "max": { "_id": id, "t": at, "a": "x" },
        };
        let data = doc! {
            "t": { "0": at, "1": at }, "a": { "0": 1, "1": "x" }, "_id": { "0": id, "1": id },
        };
        doc! { "_id": id, "control": control, "data": data }
    };
    let insert = |id: u8| doc! { "insert": "system.buckets.s", "documents": [bucket(id)] };
    run(&pair.from, "app", insert(1)).await?;
    let mut spec = pair.spec();
    spec.verify.mode = schemas::spec::VerifyMode::Full;
    let mut sync = Run::start_with(&pair, spec, Tuning::default()).await?;
    sync.caught_up().await?;
    run(&pair.from, "app", insert(2)).await?;
    sync.caught_up().await?;
    sync.cut_over().await?;
    let count =
        pair.to.database("app").collection::<Document>("s").count_documents(doc! {}).await?;
    ensure!(count == 4, "{count} measurements");
    Ok(())
}

fn at(seconds: i64) -> mongodb::bson::DateTime {
    mongodb::bson::DateTime::from_millis(seconds * 1_000)
}
