//! What cannot be carried is named before anything moves, each by its namespace, and nothing of it
//! is lost without a word.

use anyhow::{Context as _, Result, ensure};
use daemon::engine::catalog::{self, CollectionInfo};
use daemon::engine::tuning::Tuning;
use daemon::engine::{Ending, Engine as _, Ours, run::MongoEngine};
use daemon::mongo::ServerVersion;
use mongodb::bson::{Bson, doc, rawdoc};
use schemas::fault::FaultCode;
use schemas::id::MigrationName;
use schemas::observed::Outcome;
use schemas::spec::MigrationSpec;
use tokio::sync::mpsc;

use super::harness::{Pair, Run, at_rest, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_carried_is_named_before_anything_moves() -> Result<()> {
    let pair = Pair::start().await?;
    let dir = tempfile::tempdir()?;
    // With fields that clients encrypt; and what a server leaves of two clients that make one name
    // at once.
    let fields = doc! {
        "fields": [{ "path": "ssn", "bsonType": "string", "keyId": mongodb::bson::Uuid::new() }]
    };
    run(&pair.from, "shop", doc! { "create": "encrypted", "encryptedFields": fields }).await?;
    run(&pair.from, "shop", doc! { "create": "odd" }).await?;
    let series = doc! { "timeField": "t", "granularity": "seconds", "bucketMaxSpanSeconds": 3_600 };
    run(
        &pair.from,
        "shop",
        doc! { "create": "system.buckets.odd", "clusteredIndex": true, "timeseries": series },
    )
    .await?;
    run(&pair.from, "shop", doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await?;

    let named = ["shop.encrypted", "Queryable Encryption", "shop.odd", "shop.system.buckets.odd"];
    let inspection = MongoEngine::default().inspect(&pair.spec(), &Ours::default()).await;
    let check =
        inspection.checks.iter().find(|check| check.name == "namespaces").context("not checked")?;
    ensure!(
        check.outcome == Outcome::Fail && check.code == Some(FaultCode::UnsupportedNamespace),
        "{check:?}"
    );
    ensure!(
        named.iter().all(|name| check.message.contains(name))
            && !check.message.contains("shop.orders"),
        "{check:?}"
    );
    let fault = at_rest(&pair.spec(), &Tuning::default(), dir.path())?
        .validate()
        .await
        .err()
        .context("it starts")?;
    ensure!(
        fault.code == FaultCode::UnsupportedNamespace && fault.message.contains("shop.odd"),
        "{fault}"
    );

    // Without them it goes its way.
    let mut spec = pair.spec();
    spec.namespaces.scope.exclude =
        vec!["shop.en*".parse().expect("a pattern"), "shop.odd".parse().expect("a pattern")];
    let checked = at_rest(&spec, &Tuning::default(), &dir.path().join("less"))?;
    checked.validate().await?;
    // Its marker is not to keep the run of another folder out.
    checked.clean_up(Ending::Cancelled).await?;
    let mut sync = Run::start_with(&pair, spec, Tuning::default()).await?;
    sync.caught_up().await?;
    // In the tail the same is an error that names it, and no loss.
    let fields = doc! {
        "fields": [{ "path": "ssn", "bsonType": "string", "keyId": mongodb::bson::Uuid::new() }]
    };
    run(&pair.from, "crm", doc! { "create": "late", "encryptedFields": fields }).await?;
    let fault = sync.end().await?;
    ensure!(
        fault.code == FaultCode::UnsupportedNamespace && fault.message.contains("crm.late"),
        "{fault}"
    );
    Ok(())
}

/// Servers before 6.0 report no changes of buckets and stored functions.
#[test]
fn what_an_older_source_does_not_tell_of_is_refused() {
    let series = rawdoc! {
        "name": "weather", "type": "timeseries", "options": { "timeseries": { "timeField": "t" } },
    };
    let functions = rawdoc! { "name": "system.js", "type": "collection", "options": {} };
    let plain = rawdoc! { "name": "orders", "type": "collection", "options": {} };
    for (raw, refused) in [(series, true), (functions, true), (plain, false)] {
        let info = CollectionInfo::new("shop", raw).expect("an entry");
        let older = catalog::unsupported(&info, ServerVersion::new(5, 0, 31));
        assert_eq!(
            older.as_ref().map(|fault| fault.code),
            refused.then_some(FaultCode::UnsupportedNamespace)
        );
        assert!(older.is_none_or(|fault| fault.message.starts_with(&info.namespace.to_string())));
        assert!(catalog::unsupported(&info, ServerVersion::new(6, 0, 0)).is_none());
    }
}

/// Two daemons whose runs have come through their checks at the same time do not meet in the same
/// collections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_gives_way_to_one_that_writes_to_the_same_namespaces() -> Result<()> {
    let pair = Pair::start().await?;
    run(&pair.from, "shop", doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await?;
    let mut first = Run::start(&pair).await?;
    first.caught_up().await?;

    let dir = tempfile::tempdir()?;
    let spec_of = |name: &str, include: &str| -> Result<MigrationSpec> {
        let mut spec = pair.spec();
        spec.name = MigrationName::new(name)?;
        spec.namespaces.scope.include = vec![include.parse()?];
        Ok(spec)
    };
    // The first carries everything, so that what the patterns say is enough.
    let second =
        at_rest(&spec_of("second", "shop.ord*")?, &Tuning::default(), &dir.path().join("second"))?;
    let fault = second
        .start_sync(mpsc::channel(10).0)
        .await
        .err()
        .context("it writes where the first does")?;
    ensure!(
        fault.code == FaultCode::DestinationInUse
            && fault.retryable
            && fault.message.contains("carry-1-"),
        "{fault}"
    );
    let markers = async || -> Result<Vec<String>> {
        let found = run(&pair.to, "cutover_internal", doc! { "find": "marker" }).await?;
        let found = found
            .get_document("cursor")?
            .get_array("firstBatch")?
            .iter()
            .filter_map(Bson::as_document);
        found.map(|marker| Ok(marker.get_str("_id")?.to_owned())).collect()
    };
    let left = markers().await?;
    ensure!(left.len() == 1 && left[0].starts_with("carry-1-"), "{left:?}");
    first.prove(&pair).await?;
    ensure!(markers().await?.is_empty());
    pair.clear().await?;

    // Patterns that only what is on the source shows to meet; and some that do not.
    run(&pair.from, "shop", doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await?;
    let mut first = Run::start_with(&pair, spec_of("first", "shop.o*")?, Tuning::default()).await?;
    first.caught_up().await?;
    let fault = second
        .start_sync(mpsc::channel(10).0)
        .await
        .err()
        .context("it writes where the first does")?;
    ensure!(
        fault.code == FaultCode::DestinationInUse
            && fault.remedy.contains("deleteOne({_id: \"first-1-"),
        "{fault}"
    );
    let third =
        at_rest(&spec_of("third", "shop.users")?, &Tuning::default(), &dir.path().join("third"))?;
    third.start_sync(mpsc::channel(10).0).await?;
    ensure!(markers().await?.len() == 2);
    third.stop_sync().await;
    Ok(())
}
