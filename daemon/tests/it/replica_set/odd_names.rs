//! Names are bytes: those of fields in keys, filters, validators and views are carried as they are,
//! and what cannot be called by its name (a database, a collection, an index) is reported by it
//! before anything moves, or ends the run that meets it.

use anyhow::{Context as _, Result, ensure};
use daemon::engine::element::{Writer, shown};
use daemon::engine::tuning::Tuning;
use daemon::engine::{Engine as _, Ours, run::MongoEngine};
use daemon::mongo::{Side, connect};
use mongodb::Client;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::FaultCode;
use schemas::observed::{Check, Outcome};
use schemas::spec::{ConnectionSpec, IndexBuild, MigrationSpec};

use super::harness::{Pair, Run, run, with_indexes};

/// "größe" in Latin-1.
const ODD: &[u8] = b"gr\xf6\xdfe";
const SHOWN: &str = "gr\\xf6\\xdfe";

/// A document of one odd field.
fn odd(value: i32) -> RawDocumentBuf {
    let mut document = Writer::default();
    document.push(0x10, ODD, &value.to_le_bytes());
    document.finish()
}

/// A document of some fields, and an odd one.
fn with_odd(document: &RawDocument, value: i32) -> RawDocumentBuf {
    let mut whole = Writer::default();
    daemon::engine::element::elements(document).for_each(|field| whole.copy(&field));
    whole.push(0x10, ODD, &value.to_le_bytes());
    whole.finish()
}

async fn raw(client: &Client, db: &str, command: RawDocumentBuf) -> Result<()> {
    let reply = client.database(db).run_raw_command(command).await?;
    ensure!(!reply.contains_key("writeErrors"), "{reply}");
    Ok(())
}

/// Applies operations each by itself, as an application's commands would: the driver sends no
/// command whose own argument is odd.
async fn apply(client: &Client, operations: Vec<RawDocumentBuf>) -> Result<()> {
    let mut list = RawArrayBuf::new();
    operations.iter().for_each(|operation| list.push(&**operation));
    raw(client, "admin", rawdoc! { "applyOps": list, "allowAtomic": false }).await
}

/// A command on a database, as an operation.
fn defines(db: &[u8], command: &RawDocument) -> RawDocumentBuf {
    let mut operation = Writer::default();
    operation.push_text(b"op", b"c");
    operation.push_text(b"ns", &[db, b".$cmd"].concat());
    operation.push_document(b"o", command);
    operation.finish()
}

/// A collection is made, with a document.
fn makes(db: &[u8], name: &[u8]) -> Vec<RawDocumentBuf> {
    let mut create = Writer::default();
    create.push_text(b"create", name);
    let mut insert = Writer::default();
    insert.push_text(b"op", b"i");
    insert.push_text(b"ns", &[db, b".", name].concat());
    insert.push_document(b"o", &rawdoc! { "_id": 1 });
    vec![defines(db, &create.finish()), insert.finish()]
}

/// A collection of one database gets another name.
fn renames(from: &[u8], to: &[u8]) -> RawDocumentBuf {
    let mut rename = Writer::default();
    rename.push_text(b"renameCollection", from);
    rename.push_text(b"to", to);
    defines(b"shop", &rename.finish())
}

async fn index(client: &Client, collection: &str, spec: RawDocumentBuf) -> Result<()> {
    let mut specs = RawArrayBuf::new();
    specs.push(&*spec);
    raw(client, "shop", rawdoc! { "createIndexes": collection, "indexes": specs }).await
}

/// What is defined with odd fields, and documents that have them.
async fn define(client: &Client, collection: &str) -> Result<()> {
    let not_negative = |bound: i32| -> RawDocumentBuf {
        let mut filter = Writer::default();
        filter.push_document(ODD, &rawdoc! { "$gte": bound });
        filter.finish()
    };
    raw(
        client,
        "shop",
        rawdoc! { "create": collection, "validator": not_negative(-5), "validationAction": "warn" },
    )
    .await?;
    index(client, collection, rawdoc! { "key": odd(1), "name": "odd" }).await?;
    index(
        client,
        collection,
        rawdoc! {
            "key": { "a": 1 }, "name": "partial", "partialFilterExpression": not_negative(3),
        },
    )
    .await?;
    index(
        client,
        collection,
        rawdoc! { "key": with_odd(&rawdoc! { "a": 1 }, -1), "name": "unique", "unique": true },
    )
    .await?;
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$match": not_negative(1) });
    raw(
        client,
        "shop",
        rawdoc! {
            "create": format!("{collection}_view"), "viewOn": collection, "pipeline": pipeline,
        },
    )
    .await?;
    let documents = (0..20).map(|n| with_odd(&rawdoc! { "_id": n, "a": n }, n)).collect::<Vec<_>>();
    super::harness::insert(client, "shop", collection, &documents).await
}

/// Updates of odd fields: set, nested, unset, and by a replacement.
async fn update(client: &Client, collection: &str) -> Result<()> {
    let mut nested = Writer::default();
    nested.push_document(ODD, &odd(7));
    let nested = nested.finish();
    let changes = [
        rawdoc! { "$set": odd(100) },
        rawdoc! { "$set": { "n": nested } },
        rawdoc! { "$unset": odd(1) },
        with_odd(&rawdoc! { "a": 1_000 }, 5),
        rawdoc! { "$push": { "list": odd(1) } },
    ];
    for (n, change) in (0_i32..).zip(changes) {
        let statement = rawdoc! { "q": { "_id": n }, "u": change };
        let mut statements = RawArrayBuf::new();
        statements.push(&*statement);
        raw(client, "shop", rawdoc! { "update": collection, "updates": statements }).await?;
    }
    Ok(())
}

async fn read(
    side: Side,
    connection: &ConnectionSpec,
    command: RawDocumentBuf,
) -> Result<Vec<Vec<u8>>> {
    let deployment = connect(side, connection, None, "odd-names").await?;
    let mut found: Vec<_> = deployment
        .collect("shop", command)
        .await?
        .into_iter()
        .map(RawDocumentBuf::into_bytes)
        .collect();
    found.sort();
    Ok(found)
}

/// Whether both sides report the same bytes.
async fn same(spec: &MigrationSpec, collection: &str) -> Result<()> {
    let list = rawdoc! {
        "listCollections": 1, "filter": { "name": { "$regex": format!("^{collection}") } },
    };
    // Less the UUIDs.
    let options = async |side, connection| -> Result<Vec<Vec<u8>>> {
        let listed = read(side, connection, list.clone()).await?;
        let options = listed.into_iter().map(|raw| {
            let raw = RawDocumentBuf::from_bytes(raw)?;
            Ok(raw.get_document("options")?.as_bytes().to_vec())
        });
        options.collect()
    };
    let (ours, theirs) = (
        options(Side::Source, &spec.source.connection).await?,
        options(Side::Destination, &spec.destination.connection).await?,
    );
    ensure!(ours.len() == 2 && ours == theirs, "the options of {collection} differ");
    for command in [
        rawdoc! { "listIndexes": collection },
        rawdoc! { "find": collection },
        rawdoc! { "find": format!("{collection}_view") },
    ] {
        let ours = read(Side::Source, &spec.source.connection, command.clone()).await?;
        let theirs = read(Side::Destination, &spec.destination.connection, command.clone()).await?;
        ensure!(
            ours.len() > 3 && ours == theirs,
            "{command:?} differs: {} and {}",
            ours.len(),
            theirs.len()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_fields_are_carried_in_definitions_and_documents() -> Result<()> {
    let pair = Pair::start().await?;
    define(&pair.from, "early").await?;
    let spec = with_indexes(pair.spec(), IndexBuild::AfterCopy);
    let mut sync = Run::start_with(&pair, spec.clone(), Tuning::default()).await?;
    sync.caught_up().await?;
    define(&pair.from, "late").await?;
    update(&pair.from, "early").await?;
    sync.caught_up().await?;
    sync.kill().await?;
    update(&pair.from, "late").await?;
    let mut modify = Writer::default();
    modify.push_document(ODD, &rawdoc! { "$lt": 1_000_000 });
    raw(&pair.from, "shop", rawdoc! { "collMod": "early", "validator": modify.finish() }).await?;
    sync.cut_over().await?;
    same(&spec, "early").await?;
    same(&spec, "late").await
}

async fn checked(spec: &MigrationSpec, name: &str) -> Result<Check> {
    let inspection = MongoEngine::default().inspect(spec, &Ours::default()).await;
    inspection
        .checks
        .into_iter()
        .find(|check| check.name == name && check.outcome == Outcome::Fail)
        .context("nothing is refused")
}

fn excluding(pair: &Pair, patterns: &[&str]) -> Result<MigrationSpec> {
    let mut spec = pair.spec();
    spec.namespaces.scope.exclude =
        patterns.iter().map(|pattern| pattern.parse()).collect::<Result<_, _>>()?;
    Ok(spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_an_odd_name_is_named_before_anything_moves() -> Result<()> {
    let pair = Pair::start().await?;
    run(
        &pair.from,
        "shop",
        mongodb::bson::doc! { "insert": "orders", "documents": [{ "_id": 1 }] },
    )
    .await?;
    apply(&pair.from, makes(b"shop", ODD)).await?;
    let check = checked(&pair.spec(), "namespaces").await?;
    ensure!(check.code == Some(FaultCode::UnsupportedNamespace), "{check:?}");
    ensure!(
        check.message.contains(&format!("shop.{SHOWN}")) && !check.message.contains("orders"),
        "{check:?}"
    );

    // An index of such a name.
    let mut spec = Writer::default();
    spec.push_document(b"key", &rawdoc! { "a": 1 });
    spec.push_text(b"name", ODD);
    index(&pair.from, "orders", spec.finish()).await?;
    let left_out = excluding(&pair, &["shop.gr*"])?;
    let check = checked(&left_out, "index_limits").await;
    let check = match check {
        Ok(check) => check,
        Err(_) => {
            let inspection = MongoEngine::default().inspect(&left_out, &Ours::default()).await;
            inspection
                .checks
                .into_iter()
                .find(|check| check.outcome == Outcome::Fail)
                .context("the index is not named")?
        }
    };
    ensure!(check.message.contains(SHOWN) && check.message.contains("shop.orders"), "{check:?}");
    run(&pair.from, "shop", mongodb::bson::doc! { "dropIndexes": "orders", "index": { "a": 1 } })
        .await?;

    // What is left out goes its way, and the run its own.
    let mut sync = Run::start_with(&pair, left_out, Tuning::default()).await?;
    sync.caught_up().await?;
    apply(&pair.from, makes(b"shop", &[b"gr_".as_slice(), ODD].concat())).await?;
    apply(&pair.from, vec![renames(&[b"shop.".as_slice(), ODD].concat(), b"shop.renamed")]).await?;
    sync.caught_up().await?;
    let arrived = pair
        .to
        .database("shop")
        .collection::<mongodb::bson::Document>("renamed")
        .count_documents(rawdoc! {}.try_into()?)
        .await?;
    ensure!(arrived == 1, "{arrived} documents came with a name that is in scope");
    // In scope it ends the run by name, also after a restart.
    apply(&pair.from, makes(b"shop", &[b"in_scope_".as_slice(), ODD].concat())).await?;
    let fault = sync.end().await?;
    // In the stream, or in a list: whichever reports it first.
    let is_named =
        matches!(fault.code, FaultCode::UnsupportedChange | FaultCode::UnsupportedNamespace);
    ensure!(is_named && fault.message.contains(&format!("shop.in_scope_{SHOWN}")), "{fault}");
    let refused = sync.kill().await.err().map(|error| error.to_string());
    let refused = match refused {
        Some(refused) => refused,
        None => sync.end().await?.to_string(),
    };
    ensure!(refused.contains(SHOWN), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_an_odd_name_is_named() -> Result<()> {
    let pair = Pair::start().await?;
    run(
        &pair.from,
        "shop",
        mongodb::bson::doc! { "insert": "orders", "documents": [{ "_id": 1 }] },
    )
    .await?;
    apply(&pair.from, makes(ODD, b"c")).await?;
    let check = checked(&pair.spec(), "namespaces").await?;
    ensure!(
        check.message.contains(SHOWN) && check.code == Some(FaultCode::UnsupportedNamespace),
        "{check:?}"
    );
    ensure!(shown(ODD) == SHOWN);
    let inspection = MongoEngine::default().inspect(&pair.spec(), &Ours::default()).await;
    ensure!(
        !inspection.checks.iter().any(|check| check.message.contains("login")),
        "{:?}",
        inspection.checks
    );

    let mut sync = Run::start_with(&pair, excluding(&pair, &["gr*.*"])?, Tuning::default()).await?;
    sync.cut_over().await?;
    let arrived = pair
        .to
        .database("shop")
        .collection::<mongodb::bson::Document>("orders")
        .count_documents(mongodb::bson::doc! {})
        .await?;
    ensure!(arrived == 1, "the rest did not arrive");
    Ok(())
}
