//! Lays the data: several databases, collections of many shapes and settings, every common kind of
//! index.

use anyhow::{Context as _, Result};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mongodb::bson::{Bson, DateTime, Document, RawDocumentBuf, cstr, doc};
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};

use super::awkward;
use super::shapes::{Shape, signed};

/// How much is laid.
#[derive(Debug, Clone)]
pub struct FillOptions {
    /// The seed of everything random.
    pub seed: u64,
    /// About how many documents, in all collections together; at least this many are laid.
    pub documents: u64,
    /// Documents and `_id`s that tools are known to lose or change.
    pub awkward: bool,
    /// A clustered collection.
    pub clustered: bool,
    /// A time-series collection.
    pub time_series: bool,
    /// A view, and a view of it.
    pub views: bool,
    /// A capped collection.
    pub capped: bool,
}

impl Default for FillOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            documents: 10_000,
            awkward: true,
            clustered: false,
            time_series: false,
            views: true,
            capped: true,
        }
    }
}

/// What was laid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Documents.
    pub documents: u64,
    /// Collections, without views.
    pub collections: u64,
    /// Indexes, without those on `_id`.
    pub indexes: u64,
}

/// How the documents are shared out: collection, shape, parts of a thousand.
const SHARES: [(&str, &str, Shape, u64); 8] = [
    ("shop", "customers", Shape::Customer, 200),
    ("shop", "orders", Shape::Order, 300),
    ("shop", "sessions", Shape::Session, 200),
    ("telemetry", "readings", Shape::Reading, 170),
    ("crm", "contacts", Shape::Contact, 85),
    ("crm", "notes", Shape::Note, 30),
    ("catalog", "products", Shape::Product, 14),
    ("blobs", "files", Shape::File, 1),
];

/// Documents a batch; of 64 KB files far fewer.
const BATCH: u64 = 1_000;
const BATCH_OF_FILES: u64 = 50;
/// Batches on the way at once.
const AT_ONCE: usize = 4;

/// Lays the data on a deployment that has none of these databases yet.
///
/// # Errors
/// When the server refuses something.
pub async fn fill(client: &Client, options: &FillOptions) -> Result<Filled> {
    let mut filled = Filled::default();
    create_collections(client, options).await?;
    for (db, name, shape, share) in SHARES {
        // Rounded up, so that a small data set has every shape.
        let count = (options.documents * share).div_ceil(1_000);
        let collection = quick(client, db, name);
        let batch = if shape == Shape::File { BATCH_OF_FILES } else { BATCH };
        stream::iter((0..count).step_by(usize::try_from(batch)?))
            .map(|start| {
                let documents = (start..count.min(start + batch))
                    .map(|number| shape.document(options.seed, number));
                let documents: Vec<Document> = documents.collect();
                let collection = &collection;
                async move { collection.insert_many(documents).ordered(false).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await
            .with_context(|| format!("failed to fill {db}.{name}"))?;
        filled.documents += count;
        filled.collections += 1;
    }
    add_awkward(client, options, &mut filled).await?;
    add_settings_and_indexes(client, options, &mut filled).await?;
    Ok(filled)
}

/// Lays `count` documents of exactly `bytes` each in one collection, with `_id`s that count up from
/// 0.
///
/// # Errors
/// When the server refuses, or `bytes` has no room for an `_id`.
pub async fn fill_uniform(
    client: &Client,
    db: &str,
    name: &str,
    count: u64,
    bytes: usize,
) -> Result<()> {
    let mut bare = RawDocumentBuf::new();
    bare.append(cstr!("_id"), 0_i64);
    bare.append(cstr!("text"), "");
    let room = bytes
        .checked_sub(bare.as_bytes().len())
        .with_context(|| format!("{bytes} bytes are too few for a document"))?;
    let collection = &quick::<RawDocumentBuf>(client, db, name);
    stream::iter((0..count).step_by(usize::try_from(BATCH)?))
        .map(async |start| {
            let documents = (start..count.min(start + BATCH)).map(|number| {
                let text: String = format!("{number} ").chars().cycle().take(room).collect();
                let mut document = RawDocumentBuf::new();
                document.append(cstr!("_id"), signed(number));
                document.append(cstr!("text"), text);
                document
            });
            collection.insert_many(documents.collect::<Vec<_>>()).ordered(false).await
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await
        .with_context(|| format!("failed to fill {db}.{name}"))
}

/// Lays one small database with something of everything that waits for a cutover: a unique, a TTL
/// and a hidden index, a capped collection; and a view. Four namespaces with `notes`, which
/// [`super::Notes`] makes.
///
/// # Errors
/// When the server refuses something.
pub async fn fill_small(client: &Client, db: &str) -> Result<()> {
    let database = client.database(db);
    let items = (0..300_i64)
        .map(|n| doc! { "_id": n, "sku": format!("sku-{n}"), "at": DateTime::now(), "n": n });
    quick(client, db, "items")
        .insert_many(items.collect::<Vec<Document>>())
        .await
        .with_context(|| format!("failed to fill {db}"))?;
    let indexes = vec![
        doc! { "key": { "sku": 1 }, "name": "sku", "unique": true },
        doc! { "key": { "at": 1 }, "name": "expiry", "expireAfterSeconds": 86_400 },
        doc! { "key": { "n": 1 }, "name": "hidden", "hidden": true },
    ];
    let first = [
        doc! { "createIndexes": "items", "indexes": indexes },
        doc! { "create": "log", "capped": true, "size": 1 << 20, "max": 50 },
        doc! {
            "create": "low", "viewOn": "items", "pipeline": [{ "$match": { "n": { "$lt": 5 } } }],
        },
    ];
    for command in first {
        database
            .run_command(command.clone())
            .await
            .with_context(|| format!("failed to run {command} on {db}"))?;
    }
    let lines = (0..80_i64).map(|n| doc! { "_id": -n, "line": n });
    quick(client, db, "log")
        .insert_many(lines.collect::<Vec<Document>>())
        .await
        .with_context(|| format!("failed to fill {db}"))?;
    Ok(())
}

fn quick<T: Send + Sync>(client: &Client, db: &str, name: &str) -> Collection<T> {
    let options = mongodb::options::CollectionOptions::builder()
        .write_concern(WriteConcern::nodes(1))
        .build();
    client.database(db).collection_with_options(name, options)
}

async fn create_collections(client: &Client, options: &FillOptions) -> Result<()> {
    let mut create = vec![
        ("catalog", doc! { "create": "products", "collation": { "locale": "en", "strength": 2 } }),
        ("crm", doc! { "create": "notes", "changeStreamPreAndPostImages": { "enabled": true } }),
        ("shop", doc! { "create": "empty" }),
    ];
    if options.capped {
        create.push((
            "telemetry",
            doc! { "create": "log", "capped": true, "size": 1 << 20, "max": 4_000 },
        ));
    }
    if options.clustered {
        create.push((
            "catalog",
            doc! {
                "create": "clustered",
                "clusteredIndex": { "key": { "_id": 1 }, "unique": true },
            },
        ));
    }
    if options.time_series {
        create.push((
            "telemetry",
            doc! {
                "create": "weather",
                "timeseries": { "timeField": "at", "metaField": "station" },
            },
        ));
    }
    if options.views {
        let open = doc! {
            "create": "open_orders", "viewOn": "orders",
            "pipeline": [{ "$match": { "status": "open" } }],
        };
        let totals = doc! {
            "create": "a_view_of_a_view", "viewOn": "open_orders",
            "pipeline": [{ "$project": { "total": 1 } }],
        };
        create.extend([("shop", open), ("shop", totals)]);
    }
    for (db, command) in create {
        client
            .database(db)
            .run_command(command.clone())
            .await
            .with_context(|| format!("failed to run {command} on {db}"))?;
    }
    Ok(())
}

async fn add_awkward(client: &Client, options: &FillOptions, filled: &mut Filled) -> Result<()> {
    if options.capped {
        let lines: Vec<Document> =
            (0..500_i64).map(|line| doc! { "_id": -line, "line": line, "text": "log" }).collect();
        insert(client, "telemetry", "log", lines, filled).await?;
    }
    if options.clustered {
        insert(
            client,
            "catalog",
            "clustered",
            (0..300).map(|id| doc! { "_id": id, "square": id * id }).collect(),
            filled,
        )
        .await?;
    }
    if options.time_series {
        let reading = |minute: i64| {
            doc! {
                "_id": minute, "at": DateTime::from_millis(minute * 60_000), "station": minute % 3,
                "celsius": 20.5,
            }
        };
        insert(client, "telemetry", "weather", (0..300).map(reading).collect(), filled).await?;
    }
    if options.awkward {
        let ids: Vec<Document> = (0_i64..)
            .zip(awkward::ids())
            .map(|(number, id)| doc! { "_id": id, "number": number })
            .collect();
        insert(client, "mixed", "ids", ids, filled).await?;
        let decimal_nan = Bson::Decimal128("NaN".parse().context("a decimal")?);
        insert(
            client,
            "mixed",
            "decimal_nan",
            vec![doc! { "_id": decimal_nan, "kept": true }],
            filled,
        )
        .await?;
        let raw = awkward::documents();
        filled.documents += raw.len() as u64;
        filled.collections += 1;
        quick::<RawDocumentBuf>(client, "mixed", "awkward")
            .insert_many(raw)
            .await
            .context("failed to fill mixed.awkward")?;
    }
    Ok(())
}

async fn insert(
    client: &Client,
    db: &str,
    name: &str,
    documents: Vec<Document>,
    filled: &mut Filled,
) -> Result<()> {
    filled.documents += documents.len() as u64;
    filled.collections += 1;
    quick(client, db, name)
        .insert_many(documents)
        .await
        .with_context(|| format!("failed to fill {db}.{name}"))?;
    Ok(())
}

async fn add_settings_and_indexes(
    client: &Client,
    options: &FillOptions,
    filled: &mut Filled,
) -> Result<()> {
    filled.collections += 1;
    // Some of the documents there break it: it came later than they.
    let schema = doc! {
        "$jsonSchema": {
            "required": ["name", "phone"],
            "properties": { "age": { "bsonType": "int", "minimum": 21 } },
        }
    };
    let strict = doc! {
        "collMod": "contacts", "validator": schema, "validationLevel": "moderate",
        "validationAction": "error",
    };
    client
        .database("crm")
        .run_command(strict)
        .await
        .context("failed to set a validator on crm.contacts")?;
    let warn = doc! {
        "collMod": "notes", "validator": { "text": { "$type": "string" } },
        "validationAction": "warn",
    };
    client
        .database("crm")
        .run_command(warn)
        .await
        .context("failed to set a validator on crm.notes")?;
    for (db, collection, indexes) in indexes(options) {
        filled.indexes += indexes.len() as u64;
        let command = doc! { "createIndexes": collection, "indexes": indexes };
        client
            .database(db)
            .run_command(command)
            .await
            .with_context(|| format!("failed to index {db}.{collection}"))?;
    }
    Ok(())
}

fn indexes(options: &FillOptions) -> Vec<(&'static str, &'static str, Vec<Document>)> {
    let mut indexes = vec![
        (
            "shop",
            "customers",
            vec![
                doc! { "key": { "email": 1 }, "name": "email_unique", "unique": true },
                doc! { "key": { "country": 1, "visits": -1 }, "name": "country_visits" },
                doc! { "key": { "referrer": 1 }, "name": "referrer_sparse", "sparse": true },
                doc! { "key": { "name": 1 }, "name": "name_hidden", "hidden": true },
                doc! {
                    "key": { "address.city": 1 }, "name": "city_ignoring_case",
                    "collation": { "locale": "de", "strength": 1 },
                },
            ],
        ),
        (
            "shop",
            "orders",
            vec![
                doc! { "key": { "customer": 1, "placed_at": -1 }, "name": "customer_placed_at" },
                doc! {
                    "key": { "status": 1 }, "name": "open_partial",
                    "partialFilterExpression": { "status": "open" },
                },
                doc! { "key": { "items.sku": 1 }, "name": "skus" },
                doc! { "key": { "customer": "hashed" }, "name": "customer_hashed" },
            ],
        ),
        (
            "shop",
            "sessions",
            vec![
                doc! { "key": { "expires_at": 1 }, "name": "expiry", "expireAfterSeconds": 3_600 },
                doc! { "key": { "token": 1 }, "name": "token_unique", "unique": true },
            ],
        ),
        (
            "telemetry",
            "readings",
            vec![doc! { "key": { "sensor": 1, "at": 1 }, "name": "sensor_at" }],
        ),
        (
            "crm",
            "contacts",
            vec![
                doc! { "key": { "phone": 1 }, "name": "phone" },
                doc! { "key": { "tags": 1, "age": -1 }, "name": "tags_age" },
            ],
        ),
        (
            "crm",
            "notes",
            vec![doc! { "key": { "text": "text" }, "name": "words", "default_language": "none" }],
        ),
        (
            "catalog",
            "products",
            vec![
                doc! { "key": { "title": 1 }, "name": "title" },
                doc! {
                    "key": { "title": -1 }, "name": "title_exact",
                    "collation": { "locale": "simple" },
                },
                doc! { "key": { "location": "2dsphere" }, "name": "where" },
                doc! { "key": { "attributes.$**": 1 }, "name": "attributes" },
            ],
        ),
        ("shop", "empty", vec![doc! { "key": { "nothing": 1 }, "name": "of_nothing" }]),
    ];
    if options.capped {
        indexes.push(("telemetry", "log", vec![doc! { "key": { "line": 1 }, "name": "line" }]));
    }
    indexes
}
