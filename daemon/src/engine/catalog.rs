//! What is in a deployment: databases, collections with their options, views, indexes; and how a
//! collection is made anew.

pub mod canonical;
mod databases;
mod entry;
mod make;

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, STORED_FUNCTIONS, Scope};

use super::capped::aside::is_aside;
use super::concurrent::{self, Piece};
use super::element::{self, Writer, elements};
use crate::mongo::{Deployment, ServerVersion, Side, append, command, error, number, server_code};

pub use entry::{CollectionInfo, Kind, buckets_of, options_of_owner, owner_of, unsupported};
pub use make::{create, create_command, drop, drop_emptied, drop_empty_views};

/// The servers' own catalogues can be read from this version on.
const LIST_CATALOG: ServerVersion = ServerVersion::new(6, 0, 0);
/// Things named in one message at most.
const MOST_NAMED: usize = 5;
/// Collections whose options are asked for at once.
const AT_ONCE: usize = 8;

/// Everything in a deployment that is in scope, by namespace. Of `system.` collections only stored
/// functions are: the others are left to what owns them.
pub async fn list(
    deployment: &Deployment,
    scope: &Scope,
) -> Result<BTreeMap<Namespace, CollectionInfo>, Fault> {
    in_scope(deployment, scope, listings(deployment, scope).await?.into_iter().flatten()).await
}

/// The collections aside of runs, in the databases that are in scope. No list has them.
pub async fn asides(deployment: &Deployment, scope: &Scope) -> Result<Vec<Namespace>, Fault> {
    let listed =
        listings(deployment, scope).await?.into_iter().flatten().map(|info| info.namespace);
    Ok(listed.filter(is_aside).collect())
}

/// The same on a source, with the time-series collections that are half made: the server makes
/// their buckets first and then their face, and the change stream reports the buckets alone,
/// perhaps before the start point.
pub async fn list_with_half_made(
    deployment: &Deployment,
    scope: &Scope,
) -> Result<BTreeMap<Namespace, CollectionInfo>, Fault> {
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
            .map(|info| CollectionInfo { is_named_oddly: buckets.is_named_oddly, ..info })
    };
    of_database.iter().filter_map(series).collect()
}

/// What the databases hold that can hold something in scope, each by itself.
async fn listings(
    deployment: &Deployment,
    scope: &Scope,
) -> Result<Vec<Vec<CollectionInfo>>, Fault> {
    let mut listings = Vec::new();
    for db in databases::list(deployment, scope).await? {
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
    let (odd, listed): (Vec<_>, Vec<_>) =
        listed.filter(|info| scope.contains(&info.namespace)).partition(|info| info.is_named_oddly);
    if !odd.is_empty() {
        return Err(odd_names(
            deployment,
            "collections",
            &odd.iter().map(|info| info.namespace.to_string()).collect::<Vec<_>>(),
        ));
    }
    for info in listed {
        let is_passed = deployment.side == Side::Destination && is_aside(&info.namespace);
        if !is_passed && !is_emptied(deployment, &info.namespace).await? {
            found.insert(info.namespace.clone(), info);
        }
    }
    if deployment.is_sharded() && !found.is_empty() {
        let sharded = deployment.all_sharded().await?;
        let asks = sharded.iter().filter(|(namespace, _)| found.contains_key(namespace)).map(
            |(namespace, _)| -> Piece<'_, _> {
                Box::pin(async move {
                    Ok((namespace, options_where_held(deployment, namespace).await?))
                })
            },
        );
        for (namespace, held) in concurrent::all(AT_ONCE, asks.collect()).await? {
            if let (Some(info), Some(options)) = (found.get_mut(namespace), held) {
                info.set_options(&options);
            }
        }
    }
    Ok(found)
}

/// The options of a sharded collection on the shards that hold it, which are those that are in
/// force.
///
/// A router lists collections as the database's primary shard has them. `collMod` goes to the
/// shards with chunks alone (tried on 6.0.5): a primary shard without any keeps telling what was
/// before. `None`: the servers do not report, or it is gone.
async fn options_where_held(
    deployment: &Deployment,
    namespace: &Namespace,
) -> Result<Option<RawDocumentBuf>, Fault> {
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
            return Err(
                deployment.fault(&format!("reading the options of {namespace} on its shards"), &e)
            );
        }
        Err(e) => {
            let error = error::words(&e);
            tracing::warn!(%namespace, error, "its options are taken as the router lists them: \
                 its shards do not tell theirs");
            return Ok(None);
        }
    };
    let first =
        told.iter().min_by_key(|entry| entry.get_str("shard").unwrap_or_default().to_owned());
    let Some(of_shard) =
        first.and_then(|entry| entry.get_document("md").ok()?.get_document("options").ok())
    else {
        return Ok(None);
    };
    let mut options = Writer::default();
    elements(of_shard).filter(|field| field.name != b"uuid").for_each(|field| options.copy(&field));
    Ok(Some(options.finish()))
}

/// The fault for things whose names are no UTF-8, as they are shown: nothing is copied while such a
/// one is in scope.
pub(super) fn odd_names(deployment: &Deployment, things: &str, shown: &[String]) -> Fault {
    let some = shown.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if shown.len() > MOST_NAMED {
        format!(" and {} more", shown.len() - MOST_NAMED)
    } else {
        String::new()
    };
    let first = shown.first().map_or("", String::as_str);
    let message =
        format!("the {} has {things} whose names are no UTF-8: {some}{more}", deployment.side);
    let remedy = format!(
        "give them other names, or leave them out with namespaces.exclude, in which each such byte \
         is written as here (in HCL \"{}\") or stands behind a `*`",
        first.replace('\\', "\\\\")
    );
    Fault::new(FaultCode::UnsupportedNamespace, message).with_remedy(remedy)
}

/// The databases of a deployment whose names differ from one of these by case alone, each with
/// that.
pub async fn like_but_for_case(
    deployment: &Deployment,
    names: &BTreeSet<String>,
) -> Result<Vec<(String, String)>, Fault> {
    let reply = deployment
        .command(
            "admin",
            doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": false },
        )
        .await
        .map_err(|e| deployment.fault("listing the databases", &e))?;
    let listed = reply.get_array("databases").into_iter().flatten();
    let there = listed.filter_map(|database| database.as_document()?.get_str("name").ok());
    // The server, too, folds the letters of ASCII alone.
    let like = |there: &str| {
        names.iter().find(|name| *name != there && name.eq_ignore_ascii_case(there)).cloned()
    };
    Ok(there.filter_map(|there| Some((there.to_owned(), like(there)?))).collect())
}

/// Whether these are stored functions and there are none: the server drops their collection with
/// its database only, so that an empty one counts as none.
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
    found
        .map(|found| !found.is_empty())
        .map_err(|e| deployment.fault(&format!("reading {namespace}"), &e))
}

/// Every collection and view of a database.
pub async fn list_database(
    deployment: &Deployment,
    db: &str,
) -> Result<Vec<CollectionInfo>, Fault> {
    let entries = deployment
        .collect(db, rawdoc! { "listCollections": 1, "cursor": { "batchSize": 10_000 } })
        .await
        .map_err(|e| deployment.fault(&format!("listing the collections of {db}"), &e))?;
    let nameless = || {
        Fault::new(
            FaultCode::Internal,
            format!("{} lists a collection of {db} without a name", deployment.hosts),
        )
    };
    entries.into_iter().map(|raw| CollectionInfo::new(db, raw).ok_or_else(nameless)).collect()
}

/// One namespace, where it exists.
pub async fn find(
    deployment: &Deployment,
    namespace: &Namespace,
) -> Result<Option<CollectionInfo>, Fault> {
    let list =
        rawdoc! { "listCollections": 1, "filter": { "name": namespace.collection.as_str() } };
    let entries = deployment
        .collect(&namespace.db, list)
        .await
        .map_err(|e| deployment.fault(&format!("looking for {namespace}"), &e))?;
    let Some(mut info) =
        entries.into_iter().find_map(|raw| CollectionInfo::new(&namespace.db, raw))
    else {
        return Ok(None);
    };
    if deployment.is_sharded()
        && deployment.sharded_by(namespace).await?.is_some()
        && let Some(options) = options_where_held(deployment, namespace).await?
    {
        info.set_options(&options);
    }
    Ok(Some(info))
}

/// The indexes of a collection, less the one by which the server finds an `_id`; empty where the
/// collection does not exist.
pub async fn indexes(
    deployment: &Deployment,
    namespace: &Namespace,
) -> Result<Vec<RawDocumentBuf>, Fault> {
    let mut list = command("listIndexes", &namespace.collection);
    append(&mut list, "cursor", &*rawdoc! { "batchSize": 1_000 });
    match deployment.collect(&namespace.db, list).await {
        Ok(specs) => {
            let odd: Vec<String> =
                specs.iter().filter_map(|spec| odd_index(namespace, spec)).collect();
            if odd.is_empty() {
                Ok(specs.into_iter().filter(|spec| !is_on_id(spec)).collect())
            } else {
                Err(odd_indexes(deployment, &odd))
            }
        }
        Err(e) if is_no_collection(&e) => Ok(Vec::new()),
        Err(e) => Err(deployment.fault(&format!("listing the indexes of {namespace}"), &e)),
    }
}

/// The name of the index on `_id`.
const ID_INDEX: &str = "_id_";

/// An index whose name is no UTF-8, as it is shown.
#[must_use]
pub fn odd_index(namespace: &Namespace, spec: &RawDocument) -> Option<String> {
    let name = element::text(spec, "name")?;
    std::str::from_utf8(name).is_err().then(|| format!("{} of {namespace}", element::shown(name)))
}

/// The fault for such indexes.
#[must_use]
pub fn odd_indexes(deployment: &Deployment, shown: &[String]) -> Fault {
    let message = format!(
        "the {} has indexes whose names are no UTF-8: {}",
        deployment.side,
        shown.join(", ")
    );
    Fault::new(FaultCode::UnsupportedNamespace, message).with_remedy(
        "build them again under other names, or leave their collections out with \
         namespaces.exclude",
    )
}

/// Whether the name is nothing's by now, or a view's.
fn is_no_collection(error: &mongodb::error::Error) -> bool {
    matches!(
        error::code(error),
        Some(server_code::NAMESPACE_NOT_FOUND | server_code::COMMAND_NOT_SUPPORTED_ON_VIEW)
    )
}

/// Whether it is the index by which the server finds an `_id`, which comes with a collection. Any
/// other on `_id` was made by somebody: the server takes any direction but 1 and -1 for another one
/// (`IndexDescriptor::isIdIndexPattern`), and gives its own the name that no other may have.
fn is_on_id(spec: &RawDocument) -> bool {
    spec.get_bool("clustered").is_ok_and(|set| set)
        || spec.get_str("name").is_ok_and(|name| name == ID_INDEX)
}

/// Documents and bytes of a collection, as the server estimates them; zeros where it does not
/// exist.
pub async fn size(deployment: &Deployment, namespace: &Namespace) -> Result<(u64, u64), Fault> {
    let mut stats = command("aggregate", &namespace.collection);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$collStats": { "storageStats": {} } });
    // The rest has the indexes' names as names of fields.
    pipeline.push(&*rawdoc! {
        "$project": {
            "storageStats.count": 1, "storageStats.size": 1,
            "storageStats.timeseries.bucketCount": 1,
        }
    });
    append(&mut stats, "pipeline", &*pipeline);
    append(&mut stats, "cursor", &*rawdoc! {});
    match deployment.collect(&namespace.db, stats).await {
        Ok(of_shards) => {
            // A router reports each shard.
            let (mut documents, mut bytes) = (0, 0);
            for entry in &of_shards {
                let Ok(stats) = entry.get_document("storageStats") else { continue };
                let read =
                    |of: &RawDocument, key| number(of, key).and_then(|n| u64::try_from(n).ok());
                let buckets = || read(stats.get_document("timeseries").ok()?, "bucketCount");
                documents += read(stats, "count").or_else(buckets).unwrap_or(0);
                bytes += read(stats, "size").unwrap_or(0);
            }
            Ok((documents, bytes))
        }
        Err(e) if is_no_collection(&e) => Ok((0, 0)),
        Err(e) => {
            let fault = deployment.fault(&format!("reading the size of {namespace}"), &e);
            // A shard that has yet to look up what it owns of it.
            let is_unsure = error::code(&e) == Some(server_code::STALE_CONFIG);
            Err(if is_unsure {
                Fault { code: FaultCode::ChunksMoved, retryable: true, ..fault }
            } else {
                fault
            })
        }
    }
}

/// Documents of a collection, counted one by one.
pub async fn count(deployment: &Deployment, namespace: &Namespace) -> Result<u64, Fault> {
    let count =
        doc! { "aggregate": &namespace.collection, "pipeline": [{ "$count": "n" }], "cursor": {} };
    let reply = deployment
        .command(&namespace.db, count)
        .await
        .map_err(|e| deployment.fault(&format!("counting the documents of {namespace}"), &e))?;
    let batch = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"))
        .cloned()
        .unwrap_or_default();
    let counted =
        batch.first().and_then(|first| first.as_document()).map(|first| match first.get("n") {
            Some(mongodb::bson::Bson::Int64(n)) => u64::try_from(*n).ok(),
            Some(mongodb::bson::Bson::Int32(n)) => u64::try_from(*n).ok(),
            _ => None,
        });
    match counted {
        None => Ok(0),
        Some(Some(counted)) => Ok(counted),
        Some(None) => Err(Fault::new(
            FaultCode::Internal,
            format!("the documents of {namespace} were not counted"),
        )),
    }
}

/// Names in scope beside which there are buckets, but which are no time-series collections: the
/// server (seen on 6.0.5) leaves them where one is made while an insertion makes a plain collection
/// of its name, and takes one for the other from then on.
pub async fn stray_buckets(deployment: &Deployment, scope: &Scope) -> Result<Vec<Fault>, Fault> {
    let mut stray = Vec::new();
    for found in listings(deployment, scope).await? {
        let is_series = |name: &Namespace| {
            found.iter().any(|info| info.namespace == *name && info.kind == Kind::TimeSeries)
        };
        let owners = found.iter().filter_map(|info| owner_of(&info.namespace));
        stray.extend(owners.filter(|owner| scope.contains(owner) && !is_series(owner)).map(
            |owner| {
                let message = format!(
                    "{owner} is no time-series collection, and has buckets of one beside it ({})",
                    buckets_of(&owner)
                );
                Fault::new(FaultCode::UnsupportedNamespace, message)
                    .with_remedy("drop the buckets, or leave the namespace out")
            },
        ));
    }
    Ok(stray)
}
