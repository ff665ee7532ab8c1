//! Collections of every kind and indexes of every kind: laid once before the copy and once in the
//! tail, changed in the tail, and compared with all their settings once the run has finalized.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::Client;
use mongodb::bson::{Bson, DateTime, Decimal128, Document, Timestamp, doc};
use schemas::spec::IndexBuild;

use super::harness::{Pair, Run, run, tiny, with_indexes};

/// The server's code for a disk without room.
const OUT_OF_DISK_SPACE: i32 = 14_031;

/// Collections by the `create` command that makes each.
fn collections() -> Vec<Document> {
    let schema = doc! {
        "$jsonSchema": { "required": ["name"], "properties": { "n": { "bsonType": "int" } } }
    };
    vec![
        doc! { "create": "plain" },
        doc! { "create": "name.with.dots" },
        doc! { "create": "n\u{e4}me with 'quotes' and spaces" },
        doc! { "create": "strict", "validator": schema.clone() },
        doc! {
            "create": "moderate", "validator": schema.clone(), "validationLevel": "moderate",
            "validationAction": "error",
        },
        doc! { "create": "warns", "validator": schema.clone(), "validationAction": "warn" },
        doc! { "create": "off", "validator": schema, "validationLevel": "off" },
        doc! {
            "create": "collated",
            "collation": { "locale": "de", "strength": 2, "numericOrdering": true },
        },
        doc! { "create": "simple", "collation": { "locale": "simple" } },
        doc! { "create": "capped", "capped": true, "size": 1 << 16, "max": 40 },
        doc! { "create": "capped_small", "capped": true, "size": 4096 },
        doc! { "create": "images", "changeStreamPreAndPostImages": { "enabled": true } },
        doc! {
            "create": "stored",
            "storageEngine": { "wiredTiger": { "configString": "block_compressor=zlib" } },
        },
        doc! {
            "create": "index_defaults",
            "indexOptionDefaults": {
                "storageEngine": { "wiredTiger": { "configString": "prefix_compression=false" } }
            },
        },
        doc! { "create": "commented", "comment": "made with a comment" },
        doc! { "create": "old_id", "idIndex": { "v": 1, "key": { "_id": 1 }, "name": "_id_" } },
        doc! { "create": "auto_id", "autoIndexId": true },
        doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } },
        doc! {
            "create": "clustered_named",
            "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "by id" },
            "expireAfterSeconds": 1_000_000_000,
        },
        doc! {
            "create": "clustered_collated",
            "clusteredIndex": { "key": { "_id": 1 }, "unique": true },
            "collation": { "locale": "en", "strength": 1 },
        },
        doc! {
            "create": "weather",
            "timeseries": { "timeField": "at", "metaField": "station", "granularity": "minutes" },
            "expireAfterSeconds": 1_000_000_000,
        },
        doc! { "create": "clock", "timeseries": { "timeField": "t" } },
        doc! {
            "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "n": { "$gt": 3 } } }],
        },
        doc! {
            "create": "view_of_view", "viewOn": "view", "pipeline": [{ "$project": { "name": 1 } }],
        },
        doc! {
            "create": "view_collated", "viewOn": "collated", "pipeline": [],
            "collation": { "locale": "de", "strength": 2, "numericOrdering": true },
        },
        doc! {
            "create": "view_of_nothing", "viewOn": "not there",
            "pipeline": [
                {
                    "$lookup": {
                        "from": "plain", "localField": "a", "foreignField": "b", "as": "c",
                    },
                }
            ],
        },
        doc! {
            "create": "view_of_weather", "viewOn": "weather",
            "pipeline": [{ "$match": { "celsius": { "$gt": 20 } } }],
        },
    ]
}

/// Indexes by collection. Each collection is made by its first index.
fn indexes() -> Vec<(&'static str, Vec<Document>)> {
    let decimal: Decimal128 = "2".parse().expect("a decimal");
    vec![
        (
            "ix_plain",
            vec![
                doc! { "key": { "a": 1 }, "name": "ascending" },
                doc! { "key": { "a": -1, "b.c": 1 }, "name": "compound" },
                doc! { "key": { "u": 1 }, "name": "unique", "unique": true },
                doc! { "key": { "s": 1 }, "name": "sparse", "sparse": true },
                doc! {
                    "key": { "us": 1 }, "name": "unique sparse", "unique": true, "sparse": true,
                },
                doc! {
                    "key": { "p": 1 }, "name": "partial",
                    "partialFilterExpression": { "n": { "$gt": 5 } },
                },
                doc! {
                    "key": { "pu": 1 }, "name": "partial unique", "unique": true,
                    "partialFilterExpression": { "pu": { "$exists": true } },
                },
                doc! { "key": { "h": 1 }, "name": "hidden", "hidden": true },
                doc! {
                    "key": { "hu": 1 }, "name": "hidden unique", "hidden": true, "unique": true,
                    "sparse": true,
                },
                doc! { "key": { "v": 1 }, "name": "version 1", "v": 1 },
                doc! { "key": { "bg": 1 }, "name": "background", "background": true },
                doc! {
                    "key": { "st": 1 }, "name": "stored",
                    "storageEngine": {
                        "wiredTiger": { "configString": "prefix_compression=false" }
                    },
                },
                doc! { "key": { "a.b c": 1, "x$": 1 }, "name": "odd 'name' with $, dots. and \
                spaces" },
            ],
        ),
        (
            "ix_expiry",
            vec![
                doc! { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 1_000_000_000 },
                doc! { "key": { "zero": 1 }, "name": "ttl zero", "expireAfterSeconds": 0 },
                doc! { "key": { "long": 1 }, "name": "ttl long", "expireAfterSeconds": 1_000_i64 },
                doc! {
                    "key": { "fraction": 1 }, "name": "ttl fraction", "expireAfterSeconds": 1_000.5,
                },
                doc! { "key": { "most": 1 }, "name": "ttl most", "expireAfterSeconds": i32::MAX },
                doc! {
                    "key": { "hidden": 1 }, "name": "ttl hidden", "expireAfterSeconds": 5,
                    "hidden": true,
                },
                doc! {
                    "key": { "unique": 1 }, "name": "ttl unique", "expireAfterSeconds": 5,
                    "unique": true, "sparse": true,
                },
                doc! {
                    "key": { "partial": 1 }, "name": "ttl partial", "expireAfterSeconds": 5,
                    "partialFilterExpression": { "x": 1 },
                },
            ],
        ),
        (
            "ix_kinds",
            vec![
                doc! {
                    "key": { "text": "text", "k": 1 }, "name": "text",
                    "weights": { "text": 3, "more": 2 }, "default_language": "german",
                    "language_override": "lang",
                },
                doc! { "key": { "flat": "2d" }, "name": "2d", "bits": 20, "min": -10, "max": 10 },
                doc! { "key": { "sphere": "2dsphere", "k": 1 }, "name": "2dsphere" },
                doc! {
                    "key": { "sphere2": "2dsphere" }, "name": "2dsphere version 2",
                    "2dsphereIndexVersion": 2,
                },
                doc! { "key": { "hash": "hashed" }, "name": "hashed" },
                doc! { "key": { "hash": "hashed", "k": 1 }, "name": "hashed compound" },
                doc! {
                    "key": { "$**": 1 }, "name": "wildcard",
                    "wildcardProjection": { "w": 1, "x.y": 1 },
                },
                doc! { "key": { "deep.$**": 1 }, "name": "wildcard path" },
                doc! { "key": { "_id": "hashed" }, "name": "hashed _id" },
                doc! { "key": { "_id": -1, "k": 1 }, "name": "_id compound" },
            ],
        ),
        (
            "ix_text_expiry",
            vec![doc! {
                "key": { "text": "text" }, "name": "text", "expireAfterSeconds": 1_000_000_000,
            }],
        ),
        ("ix_text_of_all", vec![doc! { "key": { "$**": "text" }, "name": "all" }]),
        (
            "ix_twins",
            vec![
                doc! { "key": { "a": 1 }, "name": "plain" },
                doc! { "key": { "a": 1 }, "name": "unique", "unique": true },
                doc! { "key": { "b": 1 }, "name": "unique first", "unique": true },
                doc! { "key": { "b": 1 }, "name": "sparse too", "sparse": true },
                doc! { "key": { "b": 1 }, "name": "plain too" },
                doc! {
                    "key": { "b": 1 }, "name": "partial too", "partialFilterExpression": { "n": 1 },
                },
                doc! { "key": { "b": 1 }, "name": "collated too", "collation": { "locale": "fr" } },
            ],
        ),
        (
            "ix_directions",
            vec![
                doc! { "key": { "a": -5 }, "name": "-5" },
                doc! { "key": { "a": 1.5 }, "name": "1.5" },
                doc! { "key": { "a": 7_i64 }, "name": "long" },
                doc! { "key": { "a": decimal }, "name": "decimal" },
                doc! { "key": { "a": 0.5, "b": -0.5 }, "name": "half", "v": 1 },
            ],
        ),
        (
            "ix_prepared",
            vec![
                doc! { "key": { "a": 1 }, "name": "prepared", "prepareUnique": true },
                doc! { "key": { "b": 1 }, "name": "unprepared" },
            ],
        ),
        (
            "collated",
            vec![
                doc! { "key": { "name": 1 }, "name": "inherits", "unique": true },
                doc! {
                    "key": { "name": 1 }, "name": "simple", "collation": { "locale": "simple" },
                },
                doc! {
                    "key": { "name": 1 }, "name": "another",
                    "collation": { "locale": "fr", "strength": 1 }, "unique": true,
                },
                doc! {
                    "key": { "text": "text" }, "name": "text", "collation": { "locale": "simple" },
                },
            ],
        ),
        (
            "clustered",
            vec![
                doc! { "key": { "n": 1 }, "name": "n", "unique": true },
                doc! { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 1_000_000_000 },
            ],
        ),
        (
            "weather",
            vec![
                doc! { "key": { "station": 1, "at": -1 }, "name": "station" },
                doc! { "key": { "celsius": 1 }, "name": "celsius" },
                doc! { "key": { "station.place": "2dsphere" }, "name": "place" },
            ],
        ),
    ]
}

fn documents(collection: &str, round: i64) -> Vec<Document> {
    let count = 30_i64;
    (round * count..(round + 1) * count)
        .map(|n| match collection {
            "weather" => doc! {
                "at": DateTime::from_millis(
                    DateTime::now().timestamp_millis() - n * 600_000
                ), "celsius": n % 40, "_id": n,
                "station": { "number": n % 3, "place": { "type": "Point", "coordinates": [n, 1] } },
            },
            "clock" => doc! {
                "t": DateTime::from_millis(n * 1_000_000),
                "n": if n % 2 == 0 { Bson::Int64(n) } else { format!("{n}").into() },
            },
            "ix_kinds" => doc! {
                "_id": n, "text": format!("wort {n}"), "more": "mehr", "k": n,
                "flat": [n % 10, n % 7], "hash": n,
                "sphere": {
                    "type": "Point", "coordinates": [n % 90, n % 80],
                }, "sphere2": [n % 90, n % 80], "w": { "a": n }, "deep": { "x": [n, { "y": n }] },
            },
            "ix_expiry" => doc! { "_id": n, "at": DateTime::now(), "unique": n, "x": n % 2 },
            "ix_directions" => doc! { "_id": n, "a": n, "b": -n },
            _ => doc! {
                "_id": n, "n": n, "name": format!("name {n}"), "a": n, "b": n, "u": n, "us": n,
                "pu": n, "s": n, "p": n, "hu": n,
                "at": DateTime::now(), "text": "some text",
                "zero": Timestamp { time: 0, increment: 0 },
            },
        })
        .collect()
}

async fn lay(client: &Client, db: &str, round: i64) -> Result<()> {
    if round == 0 {
        for create in collections() {
            run(client, db, create).await?;
        }
        for (collection, specs) in indexes() {
            run(client, db, doc! { "createIndexes": collection, "indexes": specs }).await?;
        }
    }
    let named = collections().into_iter().filter(|create| !create.contains_key("viewOn"));
    let mut names: Vec<String> = named
        .map(|create| create.get_str("create").map(str::to_owned))
        .collect::<Result<_, _>>()?;
    names.extend(indexes().into_iter().map(|(name, _)| name.to_owned()));
    names.sort();
    names.dedup();
    for name in names {
        let insert = doc! {
            "insert": &name, "documents": documents(&name, round), "bypassDocumentValidation": true,
        };
        let reply = run(client, db, insert).await?;
        ensure!(!reply.contains_key("writeErrors"), "{name}: {reply}");
    }
    Ok(())
}

/// Changes of every setting that `collMod` has.
async fn modify(client: &Client, db: &str) -> Result<()> {
    let changes = [
        doc! {
            "collMod": "plain", "validator": { "n": { "$gte": 0 } }, "validationLevel": "moderate",
            "validationAction": "warn",
        },
        doc! { "collMod": "strict", "validator": {} },
        doc! { "collMod": "warns", "validationAction": "error", "validationLevel": "off" },
        doc! { "collMod": "images", "changeStreamPreAndPostImages": { "enabled": false } },
        doc! { "collMod": "off", "changeStreamPreAndPostImages": { "enabled": true } },
        doc! { "collMod": "capped", "cappedSize": 1 << 17, "cappedMax": 100 },
        doc! { "collMod": "clustered", "expireAfterSeconds": 2_000_000 },
        doc! { "collMod": "clustered_named", "expireAfterSeconds": "off" },
        doc! {
            "collMod": "weather", "expireAfterSeconds": 1_000_000,
            "timeseries": { "granularity": "hours" },
        },
        doc! { "collMod": "clock", "expireAfterSeconds": 1_700_000_000 },
        doc! {
            "collMod": "view", "viewOn": "plain", "pipeline": [{ "$match": { "n": { "$lt": 3 } } }],
        },
        doc! { "collMod": "view_of_view", "viewOn": "strict", "pipeline": [] },
        doc! { "collMod": "ix_plain", "index": { "name": "hidden", "hidden": false } },
        doc! { "collMod": "ix_plain", "index": { "name": "ascending", "hidden": true } },
        doc! { "collMod": "ix_plain", "index": { "name": "sparse", "prepareUnique": true } },
        doc! {
            "collMod": "ix_plain",
            "index": { "keyPattern": { "a": -1, "b.c": 1 }, "prepareUnique": true },
        },
        doc! { "collMod": "ix_plain", "index": { "name": "compound", "unique": true } },
        doc! {
            "collMod": "ix_expiry", "index": { "name": "ttl", "expireAfterSeconds": 7_000_000 },
        },
        doc! {
            "collMod": "ix_expiry",
            "index": { "name": "ttl most", "expireAfterSeconds": 8_000_000, "hidden": true },
        },
        doc! {
            "collMod": "ix_twins", "index": { "name": "plain", "expireAfterSeconds": 9_000_000 },
        },
        doc! { "collMod": "ix_prepared", "index": { "name": "prepared", "prepareUnique": false } },
        doc! { "collMod": "ix_prepared", "index": { "name": "unprepared", "prepareUnique": true } },
        doc! { "dropIndexes": "ix_kinds", "index": ["wildcard", "hashed"] },
        doc! {
            "createIndexes": "ix_kinds",
            "indexes": [{ "key": { "hash": 1 }, "name": "hashed", "unique": true }],
        },
        doc! { "dropIndexes": "collated", "index": "simple" },
        doc! {
            "createIndexes": "collated",
            "indexes": [
                { "key": { "n": 1 }, "name": "simple n", "collation": { "locale": "simple" } },
                { "key": { "n": 1 }, "name": "n" },
            ],
        },
        doc! { "dropIndexes": "ix_text_of_all", "index": "*" },
        doc! { "dropIndexes": "weather", "index": "celsius" },
        doc! {
            "createIndexes": "weather",
            "indexes": [{ "key": { "celsius": -1, "station.number": 1 }, "name": "celsius" }],
        },
    ];
    for change in changes {
        run(client, db, change.clone()).await.with_context(|| change.to_string())?;
    }
    let changes = [
        doc! { "delete": "weather", "deletes": [{ "q": { "station.number": 1 }, "limit": 0 }] },
        doc! {
            "update": "weather",
            "updates": [
                {
                    "q": { "station.number": 2 }, "u": { "$set": { "station.number": 7 } },
                    "multi": true,
                }
            ],
        },
        doc! {
            "update": "clustered",
            "updates": [
                { "q": { "n": { "$lt": 9 } }, "u": { "$set": { "changed": true } }, "multi": true }
            ],
        },
        doc! {
            "delete": "clustered_named", "deletes": [{ "q": { "n": { "$lt": 5 } }, "limit": 0 }],
        },
        doc! { "update": "capped", "updates": [{ "q": { "n": 5 }, "u": { "$inc": { "n": 1 } } }] },
    ];
    for change in changes {
        let reply = run(client, db, change.clone()).await?;
        ensure!(!reply.contains_key("writeErrors"), "{change}: {reply}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_collection_and_index_is_carried() -> Result<()> {
    let pair = Pair::start().await?;
    for (tuning, indexes) in
        [(Tuning::default(), IndexBuild::AfterCopy), (tiny(), IndexBuild::BeforeCopy)]
    {
        lay(&pair.from, "copied", 0).await?;
        lay(&pair.from, "changed", 0).await?;
        let mut run = Run::start_with(&pair, with_indexes(pair.spec(), indexes), tuning).await?;
        run.caught_up().await?;
        lay(&pair.from, "tailed", 0).await?;
        for db in ["copied", "changed", "tailed"] {
            lay(&pair.from, db, 1).await?;
        }
        modify(&pair.from, "changed").await?;
        lay(&pair.from, "changed", 2).await?;
        modify(&pair.from, "tailed").await?;
        let report = run.prove(&pair).await?;
        ensure!(report.collections > 90 && report.indexes > 200, "{report}");
        pair.clear().await?;
    }
    Ok(())
}

/// Built before the copy, an index is whole and relaxed before the first document comes, and
/// outlives the daemon's end in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_come_before_the_documents_where_that_is_declared() -> Result<()> {
    let pair = Pair::start().await?;
    let documents: Vec<Document> = (0..200).map(|n| doc! { "_id": n, "n": n, "gone": n }).collect();
    run(&pair.from, "shop", doc! { "insert": "orders", "documents": documents }).await?;
    let specs = [
        doc! { "key": { "n": 1 }, "name": "n", "unique": true },
        doc! { "key": { "gone": 1 }, "name": "gone" },
    ];
    run(&pair.from, "shop", doc! { "createIndexes": "orders", "indexes": specs.to_vec() }).await?;
    // As long as the disk is full no document comes.
    let full = doc! {
        "failCommands": ["insert"], "namespace": "shop.orders", "errorCode": OUT_OF_DISK_SPACE,
    };
    run(
        &pair.to,
        "admin",
        doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": full },
    )
    .await?;

    let spec = with_indexes(pair.spec(), IndexBuild::BeforeCopy);
    let mut sync =
        Run::start_with(&pair, spec, Tuning { batch_documents: 50, ..Tuning::default() }).await?;
    let refused = run(
        &pair.to,
        "admin",
        doc! { "waitForFailPoint": "failCommand", "timesEntered": 1, "maxTimeMS": 60_000 },
    );
    refused.await.context("no document was about to come")?;
    let on_destination = async || -> Result<Vec<(String, bool)>> {
        let listed = run(&pair.to, "shop", doc! { "listIndexes": "orders" }).await?;
        let specs = listed
            .get_document("cursor")?
            .get_array("firstBatch")?
            .iter()
            .filter_map(Bson::as_document);
        specs
            .map(|spec| {
                Ok((spec.get_str("name")?.to_owned(), spec.get_bool("unique").unwrap_or(false)))
            })
            .collect()
    };
    let names =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), false)).collect::<Vec<_>>();
    ensure!(
        on_destination().await? == names(&["_id_", "gone", "n"]),
        "{:?}",
        on_destination().await?
    );
    let progress = sync.engine().progress();
    ensure!(
        progress.copy.documents_copied == 0
            && (progress.indexes.built, progress.indexes.total) == (2, 2),
        "{progress:?}"
    );

    // What the source drops while nobody looks is gone when the copy goes on, and so may hold what
    // the index did not take.
    run(&pair.from, "shop", doc! { "dropIndexes": "orders", "index": "gone" }).await?;
    run(&pair.to, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    sync.kill().await?;
    sync.caught_up().await?;
    ensure!(on_destination().await? == names(&["_id_", "n"]), "{:?}", on_destination().await?);
    sync.prove(&pair).await?;
    ensure!(
        on_destination().await?.contains(&("n".to_owned(), true)),
        "{:?}",
        on_destination().await?
    );
    Ok(())
}

/// A TTL index whose expiry is no number (old servers took it) must not become one that deletes
/// everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_that_is_no_number_deletes_nothing() -> Result<()> {
    let pair = Pair::start().await?;
    let skip = doc! {
        "configureFailPoint": "skipTTLIndexNaNExpireAfterSecondsValidation", "mode": "alwaysOn",
    };
    run(&pair.from, "admin", skip).await?;
    for name in ["copied", "tailed"] {
        run(&pair.from, "ttl", doc! { "create": name }).await?;
        run(
            &pair.from,
            "ttl",
            doc! { "insert": name, "documents": [{ "_id": 1, "at": DateTime::from_millis(0) }] },
        )
        .await?;
    }
    let nan = doc! { "key": { "at": 1 }, "name": "at", "expireAfterSeconds": f64::NAN };
    run(&pair.from, "ttl", doc! { "createIndexes": "copied", "indexes": [nan.clone()] }).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    run(&pair.from, "ttl", doc! { "createIndexes": "tailed", "indexes": [nan] }).await?;
    sync.cut_over().await?;
    for name in ["copied", "tailed"] {
        let listed = run(&pair.to, "ttl", doc! { "listIndexes": name }).await?;
        let specs = listed.get_document("cursor")?.get_array("firstBatch")?;
        let at = specs
            .iter()
            .filter_map(Bson::as_document)
            .find(|spec| spec.get_str("name").is_ok_and(|name| name == "at"))
            .context("no index")?;
        ensure!(at.get_i32("expireAfterSeconds")? == i32::MAX, "{at}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_collections_arrive() -> Result<()> {
    // A server makes but a hundred collections a second: 5,000 of them are for a run of their own.
    let count: u64 = match std::env::var("CUTOVER_COLLECTIONS") {
        Ok(count) => count.parse()?,
        Err(_) => 600,
    };
    let pair = Pair::start().await?;
    for at in (0..count).step_by(50) {
        let creations = (at..count.min(at + 50)).map(|n| {
            let client = pair.from.clone();
            async move {
                let insert = doc! {
                    "insert": format!("c{n}"),
                    "documents": [{ "_id": i64::try_from(n)? }, { "_id": "x" }],
                };
                run(&client, &format!("many{}", n % 10), insert).await
            }
        });
        futures_util::future::try_join_all(creations).await?;
    }
    let began = Instant::now();
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    println!("{count} collections copied in {:?}", began.elapsed());
    let began = Instant::now();
    sync.cut_over().await?;
    println!("and cut over in {:?}", began.elapsed());
    let report = pair.compare().await?;
    ensure!(report.is_equal() && report.collections == count, "{report}");
    Ok(())
}
