//! The workload runs without errors, and the comparer finds every kind of difference and no other.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, cstr, doc};
use rig::compare::{Kind, Report, Scope, compare};
use rig::workload::{Filled, fill_uniform};
use rig::{FillOptions, Options, ReplicaSet, Writer, WriterOptions, fill};

async fn two_clients(sets: &(ReplicaSet, ReplicaSet)) -> (Client, Client) {
    (sets.0.client().await.unwrap(), sets.1.client().await.unwrap())
}

async fn two_sets() -> (ReplicaSet, ReplicaSet) {
    tokio::try_join!(ReplicaSet::start(Options::default()), ReplicaSet::start(Options::default()))
        .unwrap()
}

fn everything(documents: u64) -> FillOptions {
    FillOptions { documents, clustered: true, time_series: true, ..FillOptions::default() }
}

async fn filled_twice(documents: u64) -> ((ReplicaSet, ReplicaSet), Client, Client, Filled) {
    let sets = two_sets().await;
    let (source, destination) = two_clients(&sets).await;
    let options = everything(documents);
    let (filled, again) =
        tokio::try_join!(fill(&source, &options), fill(&destination, &options)).unwrap();
    assert_eq!(filled, again);
    (sets, source, destination, filled)
}

async fn differences(source: &Client, destination: &Client) -> Report {
    compare(source, destination, &Scope::default()).await.unwrap()
}

fn has(report: &Report, namespace: &str, kind: Kind) -> bool {
    report
        .differences
        .iter()
        .any(|difference| difference.namespace == namespace && difference.kind == kind)
}

#[tokio::test]
async fn one_seed_lays_the_same_data_twice() {
    let (_sets, source, destination, filled) = filled_twice(3_000).await;
    let report = differences(&source, &destination).await;
    assert!(report.is_equal(), "{report}");
    // A time-series collection lists no index on `_id`, but one that the server makes on the
    // metadata and the time.
    assert_eq!(report.equal_documents, filled.documents, "{report}");
    assert!(filled.documents >= 3_000);
    assert_eq!(report.collections, filled.collections + 2, "{report}");
}

#[tokio::test]
async fn planted_differences_are_found() {
    let (_sets, source, destination, _) = filled_twice(500).await;
    let shop = destination.database("shop");
    let customers = shop.collection::<Document>("customers");
    let mixed = destination.database("mixed").collection::<RawDocumentBuf>("planted");
    let mixed_source = source.database("mixed").collection::<RawDocumentBuf>("planted");

    // Documents: missing, extra, one byte, the order of fields, the type of a number, also in an
    // `_id`, and a doubled field.
    customers.delete_one(doc! { "_id": 3_i64 }).await.unwrap();
    customers.insert_one(doc! { "_id": 1_000_000_i64, "email": "extra" }).await.unwrap();
    customers
        .update_one(doc! { "_id": 5_i64 }, doc! { "$set": { "name": "changed" } })
        .await
        .unwrap();
    let raw = |document: Document| RawDocumentBuf::try_from(&document).unwrap();
    let mut doubled = raw(doc! { "_id": "doubled", "a": 1 });
    doubled.append(cstr!("a"), 2);
    let ours = [
        raw(doc! { "_id": "order", "a": 1, "b": 2 }),
        raw(doc! { "_id": "type", "n": 1 }),
        raw(doc! { "_id": 7 }),
        raw(doc! { "_id": "zero", "n": 0.0 }),
        doubled,
        raw(doc! { "_id": "same" }),
    ];
    let theirs = [
        raw(doc! { "_id": "order", "b": 2, "a": 1 }),
        raw(doc! { "_id": "type", "n": 1_i64 }),
        raw(doc! { "_id": 7_i64 }),
        raw(doc! { "_id": "zero", "n": -0.0 }),
        raw(doc! { "_id": "doubled", "a": 1 }),
        raw(doc! { "_id": "same" }),
    ];
    mixed_source.insert_many(ours).await.unwrap();
    mixed.insert_many(theirs).await.unwrap();

    // Indexes: missing, extra, another option.
    let indexes = |indexes: Vec<Document>| doc! { "createIndexes": "orders", "indexes": indexes };
    shop.run_command(doc! { "dropIndexes": "orders", "index": "skus" }).await.unwrap();
    shop.run_command(indexes(vec![doc! { "key": { "total": 1 }, "name": "extra" }])).await.unwrap();
    shop.run_command(
        doc! { "collMod": "sessions", "index": { "name": "expiry", "expireAfterSeconds": 7_200 } },
    )
    .await
    .unwrap();
    shop.run_command(
        doc! { "collMod": "customers", "index": { "name": "name_hidden", "hidden": false } },
    )
    .await
    .unwrap();

    // Collections: an option, a view's pipeline, missing, extra, capped or not, and the order
    // within a capped one.
    destination
        .database("crm")
        .run_command(doc! { "collMod": "contacts", "validationLevel": "strict" })
        .await
        .unwrap();
    let view = doc! {
        "collMod": "open_orders", "viewOn": "orders",
        "pipeline": [{ "$match": { "status": "paid" } }],
    };
    shop.run_command(view).await.unwrap();
    shop.collection::<Document>("empty").drop().await.unwrap();
    shop.run_command(doc! { "create": "not_on_the_source" }).await.unwrap();
    destination.database("catalog").collection::<Document>("clustered").drop().await.unwrap();
    destination
        .database("catalog")
        .run_command(doc! { "create": "clustered", "capped": true, "size": 4_096 })
        .await
        .unwrap();
    let log = destination.database("telemetry").collection::<Document>("log");
    log.drop().await.unwrap();
    let capped = doc! { "create": "log", "capped": true, "size": 1 << 20, "max": 4_000 };
    destination.database("telemetry").run_command(capped).await.unwrap();
    let lines: Vec<Document> =
        (0..500_i64).rev().map(|line| doc! { "_id": -line, "line": line, "text": "log" }).collect();
    log.insert_many(lines).await.unwrap();

    let report = differences(&source, &destination).await;
    eprintln!("{report}");
    let expected = [
        ("shop.customers", Kind::MissingDocument),
        ("shop.customers", Kind::ExtraDocument),
        ("shop.customers", Kind::Document),
        ("shop.customers", Kind::Index),
        ("shop.orders", Kind::MissingIndex),
        ("shop.orders", Kind::ExtraIndex),
        ("shop.sessions", Kind::Index),
        ("crm.contacts", Kind::Option),
        ("shop.open_orders", Kind::Option),
        ("shop.empty", Kind::MissingCollection),
        ("shop.not_on_the_source", Kind::ExtraCollection),
        ("catalog.clustered", Kind::Shape),
        ("telemetry.log", Kind::Order),
        ("telemetry.log", Kind::MissingIndex),
        ("mixed.planted", Kind::MissingDocument),
        ("mixed.planted", Kind::ExtraDocument),
    ];
    for (namespace, kind) in expected {
        assert!(has(&report, namespace, kind), "{namespace}: {kind} was not found");
    }
    let of_planted =
        report.differences.iter().filter(|difference| difference.namespace == "mixed.planted");
    assert_eq!(of_planted.filter(|difference| difference.kind == Kind::Document).count(), 4);
    let untouched = [
        "mixed.awkward",
        "mixed.ids",
        "blobs.files",
        "telemetry.weather",
        "catalog.products",
        "crm.notes",
    ];
    for difference in &report.differences {
        assert!(!untouched.contains(&difference.namespace.as_str()), "{difference}");
    }

    let scope = Scope { include: vec!["shop.*".into()], exclude: vec!["*.orders".into()] };
    let report = compare(&source, &destination, &scope).await.unwrap();
    assert!(report.differences.iter().all(|difference| difference.namespace.starts_with("shop.")
        && !difference.namespace.ends_with(".orders")));
    assert!(
        compare(&source, &destination, &Scope::only(&["mixed.ids", "mixed.awkward"]))
            .await
            .unwrap()
            .is_equal()
    );
}

#[tokio::test]
async fn uniform_documents_have_the_size_that_was_asked_for() {
    let set = ReplicaSet::start(Options::default()).await.unwrap();
    let client = set.client().await.unwrap();
    fill_uniform(&client, "plain", "documents", 2_500, 200).await.unwrap();
    let stats =
        client.database("plain").run_command(doc! { "collStats": "documents" }).await.unwrap();
    assert_eq!((stats.get_i32("count").unwrap(), stats.get_i32("size").unwrap()), (2_500, 500_000));
}

#[tokio::test]
async fn a_hundred_thousand_documents_are_compared_in_seconds() {
    let start = Instant::now();
    let (_sets, source, destination, filled) = filled_twice(100_000).await;
    eprintln!("filled twice in {:?}", start.elapsed());
    let start = Instant::now();
    let report = differences(&source, &destination).await;
    eprintln!("compared in {:?}", start.elapsed());
    assert_eq!(report.equal_documents, filled.documents, "{report}");
}

#[tokio::test]
async fn the_writer_does_every_kind_of_operation_until_it_is_locked_out() {
    let sets = two_sets().await;
    let (source, destination) = two_clients(&sets).await;
    fill(&source, &FillOptions { documents: 3_000, ..FillOptions::default() }).await.unwrap();
    let options = WriterOptions {
        rate: 1_000,
        ddl: true,
        then: Some(destination.clone()),
        ..WriterOptions::default()
    };
    let writer = Writer::start(&source, options).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    source
        .database("admin")
        .run_command(doc! { "setUserWriteBlockMode": 1, "global": true })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(writer.is_blocked());
    assert_eq!(writer.failure(), None);
    let stats = writer.stop().await.unwrap();
    eprintln!(
        "{} operations: {:?}, {} conflicts",
        stats.operations, stats.by_kind, stats.conflicts
    );
    assert!(stats.operations > 2_000, "{}", stats.operations);
    for kind in [
        "insert",
        "update",
        "pipeline",
        "replace",
        "delete",
        "upsert",
        "insert_many",
        "many",
        "id_type",
        "log",
        "swap",
        "transaction",
        "note",
        "ddl",
    ] {
        assert!(stats.by_kind.contains_key(kind), "no {kind}");
    }
    assert!(stats.conflicts * 10 < stats.operations, "{} conflicts", stats.conflicts);
    assert!(stats.downtime().unwrap() < Duration::from_secs(1));
    let missing_from_source = stats.missing_from(&source).await.unwrap().len();
    let missing_from_destination = stats.missing_from(&destination).await.unwrap().len();
    assert!(missing_from_source > 0 && missing_from_destination > 0);
    assert_eq!(missing_from_source + missing_from_destination, stats.ledger.len());
}
