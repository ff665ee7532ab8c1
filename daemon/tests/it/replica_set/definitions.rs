//! Definitions that the source does not report, as servers before 6.0 do not: changed in the tail,
//! right before a cutover, and in the last moment before the source takes no more writes. The same
//! on a source that tells them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Difference, Scope, compare};
use schemas::spec::{MigrationSpec, VerifyMode, VerifySpec};

use super::harness::{Pair, Run, run};

/// How long definitions may differ on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server that reports no definitions.
const OLD: &str = "5.0.32";

fn texts() -> Vec<Document> {
    ["a", "B", "c", "d\u{e9}"]
        .into_iter()
        .map(|id| doc! { "_id": id, "n": 1, "text": "some words", "more": "others" })
        .collect()
}

async fn all(
    client: &Client,
    db: &str,
    commands: impl IntoIterator<Item = Document>,
) -> Result<()> {
    for command in commands {
        let on = if command.contains_key("renameCollection") { "admin" } else { db };
        let reply = run(client, on, command.clone()).await.with_context(|| command.to_string())?;
        ensure!(!reply.contains_key("writeErrors"), "{command}: {reply}");
    }
    Ok(())
}

/// What is there before the copy.
async fn lay(client: &Client, db: &str) -> Result<()> {
    let insert = |name: &str| doc! { "insert": name, "documents": texts() };
    let text = doc! { "key": { "text": "text" }, "name": "words", "default_language": "german" };
    let names = ["plain", "texts", "strict", "again", "collated", "to_view", "renamed", "small"];
    all(
        client,
        db,
        [doc! { "create": "collated", "collation": { "locale": "de", "strength": 1 } }],
    )
    .await?;
    all(client, db, [doc! { "create": "small", "capped": true, "size": 1 << 16 }]).await?;
    all(client, db, names.map(insert)).await?;
    all(
        client,
        db,
        [
            doc! {
                "createIndexes": "plain",
                "indexes": [
                    { "key": { "gone": 1 }, "name": "gone" },
                    { "key": { "h": 1 }, "name": "hidden" }, { "key": { "x": 1 }, "name": "x" },
                ],
            },
            doc! { "createIndexes": "texts", "indexes": [text] },
            doc! { "createIndexes": "again", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
            doc! { "collMod": "strict", "validator": { "n": { "$gte": 0 } } },
            doc! { "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "n": 1 } }] },
            doc! { "create": "to_collection", "viewOn": "plain", "pipeline": [] },
            doc! { "create": "view_gone", "viewOn": "plain", "pipeline": [] },
        ],
    )
    .await
}

/// One change of each kind.
async fn change(client: &Client, db: &str) -> Result<()> {
    let german = doc! { "locale": "de", "strength": 2 };
    let zlib = doc! { "wiredTiger": { "configString": "block_compressor=zlib" } };
    let renamed = |from: &str, to: &str| {
        doc! {
            "renameCollection": format!("{db}.{from}"), "to": format!("{db}.{to}"),
            "dropTarget": true,
        }
    };
    let fill = |name: &str| doc! { "insert": name, "documents": texts() };
    let second_on_id = [
        doc! { "key": { "_id": 2 }, "name": "twice" },
        doc! { "key": { "_id": 0.5 }, "name": "half" },
        doc! { "key": { "_id": -2 }, "name": "down" },
        doc! { "key": { "_id": "hashed" }, "name": "hashed" },
        doc! { "key": { "_id": 2 }, "name": "sparse", "sparse": true },
    ];
    let wildcards = [
        doc! { "key": { "$**": 1 }, "name": "all" },
        doc! { "key": { "$**": 1 }, "name": "some", "wildcardProjection": { "w": 1 } },
    ];
    all(
        client,
        db,
        [
            // Made empty, and made with documents.
            doc! { "create": "empty" },
            doc! { "create": "empty_collated", "collation": german.clone() },
            doc! { "create": "empty_capped", "capped": true, "size": 8192, "max": 7 },
            doc! { "create": "new_collated", "collation": german.clone() },
            fill("new_collated"),
            doc! { "create": "new_capped", "capped": true, "size": 1 << 16 },
            fill("new_capped"),
            doc! { "create": "new_stored", "storageEngine": zlib.clone() },
            fill("new_stored"),
            doc! { "create": "new_strict", "validator": { "n": 1 }, "validationAction": "warn" },
            fill("new_strict"),
            doc! {
                "createIndexes": "new_collated",
                "indexes": [
                    { "key": { "n": 1 }, "name": "n" },
                    { "key": { "n": 1 }, "name": "simple", "collation": { "locale": "simple" } },
                ],
            },
            // Dropped, and made again with others.
            doc! { "drop": "again" },
            doc! { "create": "again", "collation": german.clone(), "storageEngine": zlib },
            doc! { "drop": "collated" },
            doc! { "create": "collated", "collation": { "locale": "fr", "strength": 3 } },
            fill("collated"),
            doc! { "drop": "small" },
            fill("small"),
            doc! { "create": "passing", "collation": german },
            fill("passing"),
            renamed("passing", "renamed"),
            // Indexes.
            doc! { "createIndexes": "plain", "indexes": second_on_id.to_vec() },
            doc! { "createIndexes": "plain", "indexes": wildcards.to_vec() },
            doc! {
                "createIndexes": "plain",
                "indexes": [
                    { "key": { "n": 1, "_id": 1 }, "name": "unique", "unique": true },
                    { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 1_000_000 },
                ],
            },
            doc! { "dropIndexes": "plain", "index": ["gone", "x"] },
            doc! {
                "createIndexes": "plain",
                "indexes": [
                    {
                        "key": { "x": 1 }, "name": "x",
                        "partialFilterExpression": { "x": { "$gt": 5 } },
                    }
                ],
            },
            doc! { "collMod": "plain", "index": { "name": "hidden", "hidden": true } },
            doc! { "dropIndexes": "texts", "index": "words" },
            doc! {
                "createIndexes": "texts",
                "indexes": [
                    {
                        "key": { "text": "text", "more": "text" }, "name": "words",
                        "weights": { "more": 7 },
                    }
                ],
            },
            // Options, and views.
            doc! {
                "collMod": "strict", "validator": { "n": { "$gte": 1 } },
                "validationLevel": "moderate", "validationAction": "warn",
            },
            doc! { "collMod": "view", "viewOn": "strict", "pipeline": [] },
            doc! { "drop": "to_collection" },
            fill("to_collection"),
            doc! { "drop": "to_view" },
            doc! {
                "create": "to_view", "viewOn": "plain", "pipeline": [{ "$project": { "n": 1 } }],
            },
            doc! { "drop": "view_gone" },
            doc! {
                "create": "view_new", "viewOn": "again", "pipeline": [],
                "collation": { "locale": "de", "strength": 2 },
            },
        ],
    )
    .await
}

/// Waits until a database is the same on both sides, but for what is given back at the end.
async fn until_mended(sync: &mut Run, pair: &Pair, db: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let report = match compare(&pair.from, &pair.to, &Scope::only(&[&format!("{db}.*")])).await
        {
            Ok(report) => report,
            // A collection was dropped or renamed on the destination between its listing and the
            // look at it.
            Err(error)
                if format!("{error:#}").contains("NamespaceNotFound")
                    && began.elapsed() < PATIENCE =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let is_held_off = |one: &Difference| {
            let is_index = one.id.as_deref().is_some_and(|name| ["unique", "ttl"].contains(&name));
            is_index || ["size is", "max is"].iter().any(|bound| one.detail.starts_with(bound))
        };
        let open: Vec<String> = report
            .differences
            .iter()
            .filter(|one| !is_held_off(one))
            .map(ToString::to_string)
            .collect();
        if open.is_empty() && !sync.blockers()?.iter().any(|why| why.contains("mismatch")) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{:?}: {}", sync.blockers()?, open.join("; "));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn carry(source: Option<&str>) -> Result<()> {
    let pair = Pair::start_from(source).await?;
    for db in ["early", "late", "last"] {
        lay(&pair.from, db).await?;
    }
    let spec = MigrationSpec { verify: VerifySpec { mode: VerifyMode::Full }, ..pair.spec() };
    let mut sync = Run::start_with(&pair, spec, Default::default()).await?;
    sync.caught_up().await?;
    change(&pair.from, "early").await?;
    if !pair.tells_definitions() {
        until_mended(&mut sync, &pair, "early").await?;
    }
    change(&pair.from, "late").await?;
    sync.cut_over_after(async || change(&pair.from, "last").await).await?;
    let report = pair.compare().await?;
    ensure!(report.is_equal() && report.indexes > 60, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_source_does_not_tell_is_seen_and_mended() -> Result<()> {
    carry(Some(OLD)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_tells_up_to_the_last_moment_is_carried() -> Result<()> {
    carry(None).await
}
