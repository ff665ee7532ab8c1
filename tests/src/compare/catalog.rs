//! Collections, views and indexes, as the servers list them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Database};

use super::report::{Kind, Report};
use super::{NOT_COMPARED, Scope};

/// What a collection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A plain or clustered collection.
    Collection,
    /// A collection of bounded size, in insertion order.
    Capped,
    /// A time-series collection: its documents need not have an `_id` of their own.
    TimeSeries,
    /// A view, which has no documents of its own.
    View,
}

/// A collection or view.
#[derive(Debug)]
pub(super) struct Collection {
    pub(super) db: String,
    pub(super) name: String,
    pub(super) shape: Shape,
    /// Option to its value, as canonical text.
    options: BTreeMap<String, String>,
    /// Index name to its specification, as option to canonical text.
    indexes: BTreeMap<String, BTreeMap<String, String>>,
}

/// Everything in scope, by `db.collection`.
pub(super) async fn read(client: &Client, scope: &Scope) -> Result<BTreeMap<String, Collection>> {
    let mut collections = BTreeMap::new();
    for db in client.list_database_names().await? {
        if NOT_COMPARED.contains(&db.as_str()) {
            continue;
        }
        let database = client.database(&db);
        let listed: Vec<Document> =
            database.run_cursor_command(doc! { "listCollections": 1 }).await?.try_collect().await?;
        for entry in listed {
            let name = entry.get_str("name").context("a collection without a name")?;
            // Of the server's own, stored functions are the users'; where there are none, their
            // collection may stay.
            let has_functions = name == "system.js"
                && database.collection::<Document>(name).find_one(doc! {}).await?.is_some();
            if (has_functions || !name.starts_with("system.")) && scope.contains(&db, name) {
                let namespace = format!("{db}.{name}");
                let collection = async {
                    describe(
                        &database,
                        name,
                        &entry,
                        options_of(client, &database, name, &entry).await?,
                    )
                    .await
                }
                .await
                .with_context(|| format!("failed to describe {namespace}"))?;
                collections.insert(namespace, collection);
            }
        }
    }
    Ok(collections)
}

/// The options of a collection that are in force. A router lists those of the database's primary
/// shard, which need not hold any of a sharded collection, and is then not reported what changes.
async fn options_of(
    client: &Client,
    database: &Database,
    name: &str,
    entry: &Document,
) -> Result<Document> {
    let listed = entry.get_document("options").cloned().unwrap_or_default();
    let namespace = format!("{}.{name}", database.name());
    let sharded = client.database("config").collection::<Document>("collections");
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await?;
    if !hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid")
        || sharded.find_one(doc! { "_id": &namespace }).await?.is_none()
    {
        return Ok(listed);
    }
    let told: Vec<Document> = database
        .collection::<Document>(name)
        .aggregate([doc! { "$listCatalog": {} }])
        .await?
        .try_collect()
        .await?;
    // A shard that was given chunks after it had been left out of a change has the options of
    // before, and so the servers themselves need not agree: the first of them counts.
    let first =
        told.iter().min_by_key(|entry| entry.get_str("shard").unwrap_or_default().to_owned());
    let first = first.with_context(|| format!("no shard tells of {namespace}"))?;
    Ok(first.get_document("md")?.get_document("options")?.clone())
}

async fn describe(
    database: &Database,
    name: &str,
    entry: &Document,
    options: Document,
) -> Result<Collection> {
    let shape = match entry.get_str("type").unwrap_or("collection") {
        "view" => Shape::View,
        "timeseries" => Shape::TimeSeries,
        _ if options.get_bool("capped").unwrap_or(false) => Shape::Capped,
        _ => Shape::Collection,
    };
    let mut indexes = BTreeMap::new();
    if shape != Shape::View {
        let listed: Vec<Document> =
            database.run_cursor_command(doc! { "listIndexes": name }).await?.try_collect().await?;
        for index in listed {
            indexes.insert(
                index.get_str("name").context("an index without a name")?.to_owned(),
                settings(&index, &["ns", "name"]),
            );
        }
    }
    let options = settings(&options, &["uuid"]);
    Ok(Collection {
        db: database.name().to_owned(),
        name: name.to_owned(),
        shape,
        options,
        indexes,
    })
}

/// Compares everything but the documents.
pub(super) fn compare(
    namespace: &str,
    source: &Collection,
    destination: &Collection,
    report: &mut Report,
) {
    if source.shape != destination.shape {
        report.add(
            namespace,
            Kind::Shape,
            None,
            format!("{:?} and {:?}", source.shape, destination.shape),
        );
    }
    for detail in differing(&source.options, &destination.options) {
        report.add(namespace, Kind::Option, None, detail);
    }
    for (name, index) in &source.indexes {
        match destination.indexes.get(name) {
            None => report.add(namespace, Kind::MissingIndex, Some(name.clone()), String::new()),
            Some(other) => match differing(index, other).join("; ") {
                detail if detail.is_empty() => report.indexes += 1,
                detail => report.add(namespace, Kind::Index, Some(name.clone()), detail),
            },
        }
    }
    for name in destination.indexes.keys().filter(|name| !source.indexes.contains_key(*name)) {
        report.add(namespace, Kind::ExtraIndex, Some(name.clone()), String::new());
    }
}

fn differing(
    source: &BTreeMap<String, String>,
    destination: &BTreeMap<String, String>,
) -> Vec<String> {
    let absent = "absent".to_owned();
    let names = source.keys().chain(destination.keys().filter(|name| !source.contains_key(*name)));
    names
        .map(|name| {
            (name, source.get(name).unwrap_or(&absent), destination.get(name).unwrap_or(&absent))
        })
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(name, ours, theirs)| {
            format!("{name} is {ours} on the source and {theirs} on the destination")
        })
        .collect()
}

/// Top-level settings, in any order. A setting is compared exactly, but its own number by value:
/// the server itself stores `expireAfterSeconds` as another type of number after `collMod`, and a
/// key's direction as it was written.
fn settings(document: &Document, ignored: &[&str]) -> BTreeMap<String, String> {
    document
        .iter()
        .filter(|(name, _)| !ignored.contains(&name.as_str()))
        .map(|(name, value)| {
            let text = match value {
                Bson::Document(key) if name == "key" => key
                    .iter()
                    .map(|(field, value)| format!("{field:?}: {}", by_value(value)))
                    .collect::<Vec<_>>()
                    .join(", "),
                value => by_value(value),
            };
            (name.clone(), text)
        })
        .collect()
}

fn by_value(value: &Bson) -> String {
    match value {
        Bson::Int32(number) => f64::from(*number).to_string(),
        #[expect(clippy::cast_precision_loss, reason = "no option has a number over 2^53")]
        Bson::Int64(number) => (*number as f64).to_string(),
        Bson::Double(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
