//! How a collection or view is made anew, and dropped.

use std::collections::BTreeSet;

use mongodb::bson::{RawDocument, RawDocumentBuf, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, OWN_DATABASE, STORED_FUNCTIONS};

use super::{CollectionInfo, find};
use crate::engine::capped::bound::{self, Bound};
use crate::engine::element::{Element, Writer, elements};
use crate::mongo::{Deployment, append, error, server_code};

/// Options that `listCollections` or an event shows and `create` does not take, or not during the
/// sync: expiry is held off.
const NOT_CREATABLE: [&str; 5] = ["uuid", "idIndex", "temp", "flags", "expireAfterSeconds"];

/// Where a database keeps the definitions of its views.
const VIEWS: &str = "system.views";

/// The `create` command for these options.
#[must_use]
pub fn create_command(
    name: &str,
    options: Option<&RawDocument>,
    id_index: Option<&RawDocument>,
) -> RawDocumentBuf {
    let mut create = Writer::default();
    create.push_text(b"create", name.as_bytes());
    let is_creatable =
        |option: &Element<'_>| !NOT_CREATABLE.iter().any(|other| other.as_bytes() == option.name);
    options
        .into_iter()
        .flat_map(elements)
        .filter(is_creatable)
        .for_each(|option| create.copy(&option));
    // A clustered collection has no index on _id of its own. The server wants its namespace left
    // out of the specification. Neither have views and measurements, and of an old `autoIndexId`
    // the server takes no specification.
    let without = ["clusteredIndex", "viewOn", "timeseries", "autoIndexId"];
    let has_own = options.is_some_and(|options| {
        without.iter().any(|option| matches!(options.get(option), Ok(Some(_))))
    });
    if let Some(index) = id_index
        && !has_own
    {
        let mut copy = Writer::default();
        elements(index).filter(|field| field.name != b"ns").for_each(|field| copy.copy(&field));
        create.push_document(b"idIndex", &copy.finish());
    }
    create.finish()
}

/// Makes a collection or view on a destination; one that is there already is left as it is and
/// reported by `false`. The bound of a capped one is lifted until the run finalizes.
pub async fn create(
    deployment: &Deployment,
    db: &str,
    create: RawDocumentBuf,
) -> Result<bool, Fault> {
    let name = create.get_str("create").unwrap_or_default().to_owned();
    let namespace = Namespace::new(db, &name);
    let bound = Bound::of(&create);
    let (mut create, capped) = apart(create);
    append(&mut create, "writeConcern", &*rawdoc! { "w": "majority" });
    let mut made = deployment.raw_command(db, create.clone()).await;
    if made.as_ref().is_err_and(|e| error::code(e) == Some(server_code::DATABASE_DIFFER_CASE))
        && make_way_for(deployment, db).await?
    {
        made = deployment.raw_command(db, create).await;
    }
    match made {
        Ok(_) => {
            convert(deployment, &namespace, capped).await?;
            if let Some(bound) = bound {
                bound::lift(deployment, &namespace, bound).await?;
            }
            Ok(true)
        }
        Err(e) if error::code(&e) == Some(server_code::NAMESPACE_EXISTS) => {
            // A crash can have come between the two.
            convert(deployment, &namespace, capped).await?;
            let there = if bound.is_some() { find(deployment, &namespace).await? } else { None };
            if let Some(bound) =
                there.as_ref().and_then(CollectionInfo::options).and_then(Bound::of)
            {
                bound::lift(deployment, &namespace, bound).await?;
            }
            Ok(false)
        }
        Err(e) => Err(deployment.fault(&format!("creating {namespace}"), &e)),
    }
}

/// A clustered collection is capped by a conversion alone: `create` refuses the options that the
/// server then lists. The command without them, and the conversion.
fn apart(create: RawDocumentBuf) -> (RawDocumentBuf, Option<RawDocumentBuf>) {
    let has = |option: &str| matches!(create.get(option), Ok(Some(_)));
    if !has("clusteredIndex") || !has("size") {
        return (create, None);
    }
    let mut plain = Writer::default();
    let mut convert = RawDocumentBuf::new();
    append(&mut convert, "convertToCapped", create.get_str("create").unwrap_or_default());
    if let Ok(Some(size)) = create.get("size") {
        append(&mut convert, "size", size);
    }
    let is_plain = |option: &Element<'_>| !matches!(option.name, b"capped" | b"max" | b"size");
    elements(&create).filter(is_plain).for_each(|option| plain.copy(&option));
    append(&mut convert, "writeConcern", &*rawdoc! { "w": "majority" });
    (plain.finish(), Some(convert))
}

/// Converts a clustered collection that is to be capped and is not yet.
async fn convert(
    deployment: &Deployment,
    namespace: &Namespace,
    conversion: Option<RawDocumentBuf>,
) -> Result<(), Fault> {
    let Some(conversion) = conversion else { return Ok(()) };
    if find(deployment, namespace)
        .await?
        .is_some_and(|info| info.is_clustered() && !info.is_capped())
    {
        deployment
            .raw_command(&namespace.db, conversion)
            .await
            .map_err(|e| deployment.fault(&format!("making {namespace} capped"), &e))?;
    }
    Ok(())
}

/// Drops a collection or view; one that is not there is a success. Stored functions are deleted:
/// their collection cannot be dropped.
pub async fn drop(deployment: &Deployment, namespace: &Namespace) -> Result<(), Fault> {
    let drop = match namespace.collection.as_str() {
        STORED_FUNCTIONS => {
            doc! {
                "delete": STORED_FUNCTIONS, "deletes": [{ "q": {}, "limit": 0 }],
                "writeConcern": { "w": "majority" },
            }
        }
        name => doc! { "drop": name, "writeConcern": { "w": "majority" } },
    };
    match deployment.command(&namespace.db, drop).await {
        Ok(_) => {}
        Err(e) if error::code(&e) == Some(server_code::NAMESPACE_NOT_FOUND) => {}
        Err(e) => return Err(deployment.fault(&format!("dropping {namespace}"), &e)),
    }
    if let Some(keys) = &deployment.shard_keys {
        keys.set(namespace, None);
    }
    drop_emptied(deployment, &namespace.db).await
}

/// Drops a database of a replica set in which nothing is left. A server keeps its name in mind
/// until then, and makes no database whose name differs by case alone (code 13297, seen on 6.0.5).
/// On a cluster a database has a place that its owner may have chosen.
pub async fn drop_emptied(deployment: &Deployment, db: &str) -> Result<(), Fault> {
    if deployment.is_sharded() || db == OWN_DATABASE {
        return Ok(());
    }
    if !is_emptied(deployment, db).await? {
        return Ok(());
    }
    let drop = doc! { "dropDatabase": 1, "writeConcern": { "w": "majority" } };
    match deployment.command(db, drop).await {
        Ok(_) => Ok(()),
        // It is empty all the same; whether its name is in the way of another is seen when that is
        // made.
        Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => Ok(()),
        Err(e) => Err(deployment.fault(&format!("dropping the database {db}, which is empty"), &e)),
    }
}

/// Whether nothing is in a database but what the server keeps there until the database goes.
async fn is_emptied(deployment: &Deployment, db: &str) -> Result<bool, Fault> {
    let listed = deployment
        .collect(
            db,
            rawdoc! { "listCollections": 1, "nameOnly": true, "cursor": { "batchSize": 10_000 } },
        )
        .await
        .map_err(|e| deployment.fault(&format!("listing the collections of {db}"), &e))?;
    for entry in listed {
        let is_nothing = match entry.get_str("name") {
            // The server's own list of the views that there were.
            Ok("system.views") => true,
            Ok(STORED_FUNCTIONS) => {
                !super::has_documents(deployment, &Namespace::new(db, STORED_FUNCTIONS)).await?
            }
            // Whatever it is called, and if its name cannot be read.
            Ok(_) | Err(_) => false,
        };
        if !is_nothing {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Drops what of a cluster is nothing but the name of an empty database, where it differs from
/// another by case alone. Gives whether there was one.
async fn make_way_for(deployment: &Deployment, db: &str) -> Result<bool, Fault> {
    let like = super::like_but_for_case(deployment, &BTreeSet::from([db.to_owned()])).await?;
    // No server has two that are alike.
    let Some((name, _)) = like.into_iter().next() else { return Ok(false) };
    if is_emptied(deployment, &name).await? {
        tracing::info!(
            database = name,
            "an empty database, in the way of one whose name differs by case alone; dropped"
        );
        let drop = doc! { "dropDatabase": 1, "writeConcern": { "w": "majority" } };
        let dropped = deployment.command(&name, drop).await;
        dropped
            .map_err(|e| deployment.fault(&format!("dropping the empty database {name}"), &e))?;
        return Ok(true);
    }
    let message = format!(
        "the {} ({}) has the database {name}, and no server takes {db} beside it: the names \
         differ by case alone",
        deployment.side, deployment.hosts
    );
    let remedy = format!("drop {name} there, or move what is in it elsewhere");
    Err(Fault::new(FaultCode::DestinationNotEmpty, message).with_remedy(remedy))
}

/// Drops what a server leaves of a database whose views and time-series collections were dropped
/// one by one: the collection of their definitions, empty. It stays where one of them is there.
pub async fn drop_empty_views(deployment: &Deployment, db: &str) -> Result<(), Fault> {
    let listed = deployment
        .collect(
            db,
            rawdoc! { "listCollections": 1, "nameOnly": true, "cursor": { "batchSize": 10_000 } },
        )
        .await
        .map_err(|e| deployment.fault(&format!("listing the collections of {db}"), &e))?;
    let is_there = listed.iter().any(|entry| matches!(entry.get_str("name"), Ok(VIEWS)));
    let has_views =
        listed.iter().any(|entry| matches!(entry.get_str("type"), Ok("view" | "timeseries")));
    if !is_there || has_views {
        return Ok(());
    }
    match deployment.command(db, doc! { "drop": VIEWS, "writeConcern": { "w": "majority" } }).await
    {
        Ok(_) => Ok(()),
        Err(e) if error::code(&e) == Some(server_code::NAMESPACE_NOT_FOUND) => Ok(()),
        Err(e) if error::is_transient(&e) => {
            Err(deployment.fault(&format!("dropping {db}.{VIEWS}"), &e))
        }
        // It is of no use to anybody, and in nobody's way.
        Err(e) => {
            tracing::info!(db, error = %e, "an empty collection of view definitions stays");
            Ok(())
        }
    }
}
