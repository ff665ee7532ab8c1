//! What is in a deployment: databases, collections with their options, views, indexes; and how a collection is made anew.

mod entry;
mod make;

use std::collections::BTreeMap;

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, STORED_FUNCTIONS, Scope};

use super::capped::aside::is_aside;
use super::concurrent::{self, Piece};
use crate::mongo::{Deployment, ServerVersion, Side, append, command, error, number};

pub use entry::{CollectionInfo, Kind, buckets_of, options_of_owner, owner_of, unsupported};
pub use make::{create, create_command, drop, drop_empty_views};

/// The servers' own catalogues can be read from this version on.
const LIST_CATALOG: ServerVersion = ServerVersion::new(6, 0, 0);
/// Collections whose options are asked for at once.
const AT_ONCE: usize = 8;

/// Everything in a deployment that is in scope, by namespace. Of `system.` collections only stored functions are: the others are left to what owns them.
pub async fn list(deployment: &Deployment, scope: &Scope) -> Result<BTreeMap<Namespace, CollectionInfo>, Fault> {
    in_scope(deployment, scope, listings(deployment, scope).await?.into_iter().flatten()).await
}

/// The collections aside of runs, in the databases that are in scope. No list has them.
pub async fn asides(deployment: &Deployment, scope: &Scope) -> Result<Vec<Namespace>, Fault> {
    let listed = listings(deployment, scope).await?.into_iter().flatten().map(|info| info.namespace);
    Ok(listed.filter(is_aside).collect())
}

/// The same on a source, with the time-series collections that are half made: the server makes their buckets first and then their
/// face, and the change stream tells of the buckets alone, perhaps before the start point.
pub async fn list_with_half_made(deployment: &Deployment, scope: &Scope) -> Result<BTreeMap<Namespace, CollectionInfo>, Fault> {
    let mut listings = listings(deployment, scope).await?;
    for of_database in &mut listings {
        let half_made = half_made(of_database);
        of_database.extend(half_made);
    }
    in_scope(deployment, scope, listings.into_iter().flatten()).await
}

/// The time-series collections of a database of which there are only the buckets.
fn half_made(of_database: &[CollectionInfo]) -> Vec<CollectionInfo> {
    let series = |buckets: &CollectionInfo| {
        let owner = owner_of(&buckets.namespace)?;
        if of_database.iter().any(|info| info.namespace == owner) {
            return None;
        }
        let options = options_of_owner(buckets.options()?);
        let raw = rawdoc! { "name": owner.collection, "type": "timeseries", "options": options };
        CollectionInfo::new(&owner.db, raw)
    };
    of_database.iter().filter_map(series).collect()
}

/// What the databases hold that can hold something in scope, each by itself.
async fn listings(deployment: &Deployment, scope: &Scope) -> Result<Vec<Vec<CollectionInfo>>, Fault> {
    let mut listings = Vec::new();
    for db in databases(deployment, scope).await? {
        listings.push(list_database(deployment, &db).await?);
    }
    Ok(listings)
}

async fn in_scope(
    deployment: &Deployment,
    scope: &Scope,
    listed: impl Iterator<Item = CollectionInfo>,
) -> Result<BTreeMap<Namespace, CollectionInfo>, Fault> {
    let mut found = BTreeMap::new();
    for info in listed {
        let is_passed = deployment.side == Side::Destination && is_aside(&info.namespace);
        if scope.contains(&info.namespace) && !is_passed && !is_emptied(deployment, &info.namespace).await? {
            found.insert(info.namespace.clone(), info);
        }
    }
    if deployment.is_sharded() && !found.is_empty() {
        let sharded = deployment.all_sharded().await?;
        let asks = sharded.iter().filter(|(namespace, _)| found.contains_key(namespace)).map(|(namespace, _)| -> Piece<'_, _> {
            Box::pin(async move { Ok((namespace, options_where_held(deployment, namespace).await?)) })
        });
        for (namespace, held) in concurrent::all(AT_ONCE, asks.collect()).await? {
            if let (Some(info), Some(options)) = (found.get_mut(namespace), held) {
                info.set_options(&options);
            }
        }
    }
    Ok(found)
}

/// The options of a sharded collection on the shards that hold it, which are those that are in force.
///
/// A router lists collections as the database's primary shard has them. `collMod` goes to the shards with chunks alone (tried on
/// 6.0.5): a primary shard without any keeps telling what was before. `None`: the servers do not tell, or it is gone.
async fn options_where_held(deployment: &Deployment, namespace: &Namespace) -> Result<Option<RawDocumentBuf>, Fault> {
    if deployment.version < LIST_CATALOG {
        return Ok(None);
    }
    let mut ask = command("aggregate", &namespace.collection);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$listCatalog": {} });
    append(&mut ask, "pipeline", &*pipeline);
    append(&mut ask, "cursor", &*rawdoc! {});
    let told = match deployment.collect(&namespace.db, ask).await {
        Ok(told) => told,
        Err(e) if is_no_collection(&e) => return Ok(None),
        Err(e) if error::is_transient(&e) => {
            return Err(deployment.fault(&format!("reading the options of {namespace} on its shards"), &e));
        }
        Err(e) => {
            let error = error::words(&e);
            tracing::warn!(%namespace, error, "its options are taken as the router lists them: its shards do not tell theirs");
            return Ok(None);
        }
    };
    let first = told.iter().min_by_key(|entry| entry.get_str("shard").unwrap_or_default().to_owned());
    let Some(of_shard) = first.and_then(|entry| entry.get_document("md").ok()?.get_document("options").ok()) else {
        return Ok(None);
    };
    let mut options = RawDocumentBuf::new();
    for (name, value) in of_shard.iter().flatten().filter(|(name, _)| name.as_str() != "uuid") {
        append(&mut options, name.as_str(), value);
    }
    Ok(Some(options))
}

/// The databases that can hold what is in scope.
async fn databases(deployment: &Deployment, scope: &Scope) -> Result<Vec<String>, Fault> {
    // The server goes through all of its databases for a list: with hundreds of migrations, each of one database, that is most of what
    // a look around them costs.
    if let Some(named) = scope.named_databases() {
        return Ok(named.into_iter().map(str::to_owned).collect());
    }
    let reply = deployment
        .command("admin", doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": false })
        .await
        .map_err(|e| deployment.fault("listing the databases", &e))?;
    let listed = reply.get_array("databases").into_iter().flatten();
    let names = listed.filter_map(|database| database.as_document()?.get_str("name").ok());
    Ok(names.filter(|name| scope.has_database(name)).map(str::to_owned).collect())
}

/// Whether these are stored functions and there are none: the server drops their collection with its database only, so that an empty
/// one counts as none.
async fn is_emptied(deployment: &Deployment, namespace: &Namespace) -> Result<bool, Fault> {
    if namespace.collection != STORED_FUNCTIONS {
        return Ok(false);
    }
    has_documents(deployment, namespace).await.map(|has| !has)
}

/// Whether there is any document in a collection.
pub async fn has_documents(deployment: &Deployment, namespace: &Namespace) -> Result<bool, Fault> {
    let mut find = command("find", &namespace.collection);
    append(&mut find, "limit", 1);
    append(&mut find, "projection", &*rawdoc! { "_id": 1 });
    let found = deployment.collect(&namespace.db, find).await;
    found.map(|found| !found.is_empty()).map_err(|e| deployment.fault(&format!("reading {namespace}"), &e))
}

/// Every collection and view of a database.
pub async fn list_database(deployment: &Deployment, db: &str) -> Result<Vec<CollectionInfo>, Fault> {
    let entries = deployment
        .collect(db, rawdoc! { "listCollections": 1, "cursor": { "batchSize": 10_000 } })
        .await
        .map_err(|e| deployment.fault(&format!("listing the collections of {db}"), &e))?;
    Ok(entries.into_iter().filter_map(|raw| CollectionInfo::new(db, raw)).collect())
}

/// One namespace, where it exists.
pub async fn find(deployment: &Deployment, namespace: &Namespace) -> Result<Option<CollectionInfo>, Fault> {
    let list = rawdoc! { "listCollections": 1, "filter": { "name": namespace.collection.as_str() } };
    let entries =
        deployment.collect(&namespace.db, list).await.map_err(|e| deployment.fault(&format!("looking for {namespace}"), &e))?;
    let Some(mut info) = entries.into_iter().find_map(|raw| CollectionInfo::new(&namespace.db, raw)) else { return Ok(None) };
    if deployment.is_sharded()
        && deployment.sharded_by(namespace).await?.is_some()
        && let Some(options) = options_where_held(deployment, namespace).await?
    {
        info.set_options(&options);
    }
    Ok(Some(info))
}

/// The indexes of a collection, less the one by which the server finds an `_id`; empty where the collection does not exist.
pub async fn indexes(deployment: &Deployment, namespace: &Namespace) -> Result<Vec<RawDocumentBuf>, Fault> {
    let mut list = command("listIndexes", &namespace.collection);
    append(&mut list, "cursor", &*rawdoc! { "batchSize": 1_000 });
    match deployment.collect(&namespace.db, list).await {
        Ok(specs) => Ok(specs.into_iter().filter(|spec| !is_on_id(spec)).collect()),
        Err(e) if is_no_collection(&e) => Ok(Vec::new()),
        Err(e) => Err(deployment.fault(&format!("listing the indexes of {namespace}"), &e)),
    }
}

/// The name of the index on `_id`.
const ID_INDEX: &str = "_id_";

/// The server's code for a namespace that does not exist.
pub const NAMESPACE_NOT_FOUND: i32 = 26;
/// The server's code for what a shard does not know of its chunks.
const STALE_CONFIG: i32 = 13388;
/// The server's code for what a view does not take.
const ON_VIEW: i32 = 166;
/// The server's code for a namespace that exists already.
pub const NAMESPACE_EXISTS: i32 = 48;
/// The server's code for an index that does not exist.
pub const INDEX_NOT_FOUND: i32 = 27;

/// Whether the name is nothing's by now, or a view's.
fn is_no_collection(error: &mongodb::error::Error) -> bool {
    matches!(error::code(error), Some(NAMESPACE_NOT_FOUND | ON_VIEW))
}

/// Whether it is the index by which the server finds an `_id`, which comes with a collection. Any other on `_id` was made by somebody:
/// the server takes any direction but 1 and -1 for another one (`IndexDescriptor::isIdIndexPattern`), and gives its own the name
/// that no other may have.
fn is_on_id(spec: &RawDocument) -> bool {
    spec.get_bool("clustered").is_ok_and(|set| set) || spec.get_str("name").is_ok_and(|name| name == ID_INDEX)
}

/// Documents and bytes of a collection, as the server estimates them; zeros where it does not exist.
pub async fn size(deployment: &Deployment, namespace: &Namespace) -> Result<(u64, u64), Fault> {
    let stats = doc! {
        "aggregate": &namespace.collection,
        "pipeline": [{ "$collStats": { "storageStats": {} } }],
        "cursor": {},
    };
    match deployment.command(&namespace.db, stats).await {
        Ok(reply) => {
            // A router tells of each shard.
            let of_shards = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).into_iter().flatten();
            let (mut documents, mut bytes) = (0, 0);
            for entry in of_shards {
                let stats = entry.as_document().and_then(|entry| entry.get_document("storageStats").ok());
                let Some(stats) = stats.and_then(|stats| RawDocumentBuf::try_from(stats).ok()) else { continue };
                let read = |of: &RawDocument, key| number(of, key).and_then(|n| u64::try_from(n).ok());
                let buckets = || read(stats.get_document("timeseries").ok()?, "bucketCount");
                documents += read(&stats, "count").or_else(buckets).unwrap_or(0);
                bytes += read(&stats, "size").unwrap_or(0);
            }
            Ok((documents, bytes))
        }
        Err(e) if is_no_collection(&e) => Ok((0, 0)),
        Err(e) => {
            let fault = deployment.fault(&format!("reading the size of {namespace}"), &e);
            // A shard that has yet to look up what it owns of it.
            let is_unsure = error::code(&e) == Some(STALE_CONFIG);
            Err(if is_unsure { Fault { code: FaultCode::ChunksMoved, retryable: true, ..fault } } else { fault })
        }
    }
}

/// Documents of a collection, counted one by one.
pub async fn count(deployment: &Deployment, namespace: &Namespace) -> Result<u64, Fault> {
    let count = doc! { "aggregate": &namespace.collection, "pipeline": [{ "$count": "n" }], "cursor": {} };
    let reply = deployment
        .command(&namespace.db, count)
        .await
        .map_err(|e| deployment.fault(&format!("counting the documents of {namespace}"), &e))?;
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).cloned().unwrap_or_default();
    let counted = batch.first().and_then(|first| first.as_document()).map(|first| match first.get("n") {
        Some(mongodb::bson::Bson::Int64(n)) => u64::try_from(*n).ok(),
        Some(mongodb::bson::Bson::Int32(n)) => u64::try_from(*n).ok(),
        _ => None,
    });
    match counted {
        None => Ok(0),
        Some(Some(counted)) => Ok(counted),
        Some(None) => Err(Fault::new(FaultCode::Internal, format!("the documents of {namespace} were not counted"))),
    }
}

/// Names in scope beside which there are buckets, but which are no time-series collections: the server (seen on 6.0.5) leaves them where
/// one is made while an insertion makes a plain collection of its name, and takes one for the other from then on.
pub async fn stray_buckets(deployment: &Deployment, scope: &Scope) -> Result<Vec<Fault>, Fault> {
    let mut stray = Vec::new();
    for found in listings(deployment, scope).await? {
        let is_series = |name: &Namespace| found.iter().any(|info| info.namespace == *name && info.kind == Kind::TimeSeries);
        let owners = found.iter().filter_map(|info| owner_of(&info.namespace));
        stray.extend(owners.filter(|owner| scope.contains(owner) && !is_series(owner)).map(|owner| {
            let message =
                format!("{owner} is no time-series collection, and has buckets of one beside it ({})", buckets_of(&owner));
            Fault::new(FaultCode::UnsupportedNamespace, message).with_remedy("drop the buckets, or leave the namespace out")
        }));
    }
    Ok(stray)
}
