//! Indexes: relaxed while the run goes on, given back when it ends.
//!
//! During the sync unique indexes are plain (a replayed event can hold a value twice for a moment),
//! and TTL indexes expire nothing (the source's own expiry arrives as deletes). Both keep their
//! entries, so that giving them back rebuilds nothing: `collMod` with `prepareUnique` and then
//! `unique`, and with `expireAfterSeconds`. Before 6.0 unique indexes are built anew.

mod definition;
pub mod per_shard;
mod restore;

use std::time::{Duration, Instant};

use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use placement::ShardKey;

use super::catalog;
use super::destination::shard_collection;
use crate::mongo::{Deployment, append, command, error, server_code};
use definition::{has, specification};

pub(super) use definition::waits_for_end;
pub use definition::{
    asks_of_values, deferred, identity, is_same_build, is_same_meanwhile, is_same_restored,
    is_unique, mended_expiry, name,
};
pub use restore::{
    check_restored, check_restored_as, finish_unique, restore, restore_as, try_unique,
};

/// The server's codes for an index that is there under another name or with other options.
const INDEX_CONFLICTS: [i32; 3] = [
    server_code::CANNOT_CREATE_INDEX,
    server_code::INDEX_OPTIONS_CONFLICT,
    server_code::INDEX_KEY_SPECS_CONFLICT,
];
/// The server's name for an index build that was ended from outside.
const BUILD_ABORTED: &str = "IndexBuildAborted";
/// The server's codes up to here have names; above are places in its sources, and few codes of old.
const LAST_NAMED_CODE: i32 = 9_999;

/// How long that is waited for: making an index unique reads all of it. And between two tries.
const LONGEST_OTHER: Duration = Duration::from_secs(20);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// The index, and its field beside the shard key, that stands in while another is replaced.
const MEANWHILE: &str = "cutover_meanwhile";

/// Builds indexes as they are during the sync. One that clashes with another once it is relaxed is
/// left for the end, and so is one that clashes with what was built before a crash. One that
/// documents do not fit was made or dropped after they were read, and that is further on in the
/// stream.
pub async fn build(
    destination: &Deployment,
    namespace: &Namespace,
    specs: &[RawDocumentBuf],
    collated: bool,
) -> Result<(), Fault> {
    let mut taken = Vec::new();
    // Plain ones first: of two that clash the unique one waits.
    let mut ordered: Vec<&RawDocumentBuf> = specs.iter().collect();
    ordered.sort_by_key(|spec| is_unique(spec));
    let mut indexes = RawArrayBuf::new();
    for spec in &ordered {
        let identity = identity(spec);
        if !taken.contains(&identity) {
            taken.push(identity);
            indexes.push(&*specification(spec, collated, true));
        }
    }
    if indexes.is_empty() {
        return Ok(());
    }
    match run_create(destination, namespace, &indexes).await {
        Ok(()) => Ok(()),
        Err(e) if is_of_documents(&e) || is_conflict(&e) => {
            build_fitting(destination, namespace, &indexes).await
        }
        Err(e) => Err(destination.fault(&format!("building the indexes of {namespace}"), &e)),
    }
}

/// Builds indexes as they are during the sync, but unique: what a collection needs to be sharded
/// with `unique: true`.
pub async fn build_unique<'a>(
    destination: &Deployment,
    namespace: &Namespace,
    specs: impl Iterator<Item = &'a RawDocumentBuf>,
    collated: bool,
) -> Result<(), Fault> {
    let there = catalog::indexes(destination, namespace).await?;
    for spec in specs {
        match there.iter().find(|there| name(there) == name(spec)) {
            Some(there) if is_unique(there) => continue,
            Some(_) => drop_one(destination, namespace, name(spec)).await?,
            None => {}
        }
        let mut unique = specification(spec, collated, true);
        append(&mut unique, "unique", true);
        let mut indexes = RawArrayBuf::new();
        indexes.push(&*unique);
        run_create(destination, namespace, &indexes).await.map_err(|e| {
            let fault = destination
                .fault(&format!("building the unique index {} of {namespace}", name(spec)), &e);
            // What is unique on the source is so here once the tail has come to it.
            Fault {
                retryable: fault.retryable || error::code(&e) == Some(server_code::DUPLICATE_KEY),
                ..fault
            }
        })?;
    }
    Ok(())
}

/// Builds those that the documents and the other indexes fit. Which of several it is that does not,
/// the server says but in words.
async fn build_fitting(
    destination: &Deployment,
    namespace: &Namespace,
    indexes: &RawArrayBuf,
) -> Result<(), Fault> {
    for spec in indexes.into_iter().flatten().filter_map(RawBsonRef::as_document) {
        let mut one = RawArrayBuf::new();
        one.push(spec);
        match run_create(destination, namespace, &one).await {
            Ok(()) => {}
            Err(e) if is_of_documents(&e) => {
                tracing::info!(%namespace, index = name(spec), error = %e, "an index that earlier \
                     documents do not fit");
            }
            Err(e) if is_conflict(&e) => {
                tracing::info!(%namespace, index = name(spec), error = %e, "an index clashes with \
                     one that is there");
            }
            Err(e) => {
                return Err(
                    destination.fault(&format!("building index {} of {namespace}", name(spec)), &e)
                );
            }
        }
    }
    Ok(())
}

/// Whether an index build failed for what a document holds.
fn is_of_documents(error: &mongodb::error::Error) -> bool {
    error::code(error).is_some_and(tells_of_unfit_document) && !error::is_transient(error)
}

/// Whether the server says with this code that an index cannot hold a document: it has one for two
/// arrays in one compound index, one for an array beside a text, and none but a place in its
/// sources, above all its codes, for what else the kinds of index ask of values.
#[must_use]
pub fn tells_of_unfit_document(code: i32) -> bool {
    matches!(code, server_code::CANNOT_INDEX_PARALLEL_ARRAYS | server_code::CANNOT_BUILD_INDEX_KEYS)
        || (code > LAST_NAMED_CODE
            && code != server_code::DUPLICATE_KEY
            && !error::is_transient_code(code))
}

fn is_conflict(error: &mongodb::error::Error) -> bool {
    error::code(error).is_some_and(|code| INDEX_CONFLICTS.contains(&code))
}

/// Builds one index as it is during the sync; one that clashes with what is there is left for the
/// end.
pub async fn build_one(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
    collated: bool,
) -> Result<(), Fault> {
    let mut indexes = RawArrayBuf::new();
    indexes.push(&*specification(spec, collated, true));
    match run_create(destination, namespace, &indexes).await {
        Ok(()) => Ok(()),
        Err(e) if is_conflict(&e) => {
            tracing::info!(%namespace, index = name(spec), "an index clashes while unique is \
                 relaxed; it is built at the end");
            Ok(())
        }
        Err(e) => {
            let fault =
                destination.fault(&format!("building index {} of {namespace}", name(spec)), &e);
            // Somebody dropped it, or its collection, while it was built.
            Err(Fault {
                retryable: fault.retryable || error::name(&e) == Some(BUILD_ABORTED),
                ..fault
            })
        }
    }
}

async fn run_create(
    destination: &Deployment,
    namespace: &Namespace,
    indexes: &RawArrayBuf,
) -> Result<(), mongodb::error::Error> {
    let mut create = command("createIndexes", &namespace.collection);
    append(&mut create, "indexes", &**indexes);
    // The primary's own vote: with the default the server waits a tenth of a second for its
    // members' even where there is one, which a source that makes indexes all day would turn into
    // lag. The write concern waits for the majority all the same.
    append(&mut create, "commitQuorum", 1);
    append(&mut create, "writeConcern", &*rawdoc! { "w": "majority" });
    destination.raw_command(&namespace.db, create).await.map(drop)
}

async fn create_indexes(
    destination: &Deployment,
    namespace: &Namespace,
    indexes: &RawArrayBuf,
) -> Result<(), Fault> {
    run_create(destination, namespace, indexes)
        .await
        .map_err(|e| destination.fault(&format!("building the indexes of {namespace}"), &e))
}

/// Puts an index, as it is during the sync, in the place of one that the server needs for the shard
/// key, of which there must be one at any time.
pub async fn swap(
    destination: &Deployment,
    namespace: &Namespace,
    key: &ShardKey,
    old: &str,
    spec: &RawDocument,
) -> Result<(), Fault> {
    let mut meanwhile = key.pattern().to_owned();
    append(&mut meanwhile, MEANWHILE, 1);
    // A shard key compares texts by their bytes.
    let meanwhile = rawdoc! { "key": meanwhile, "name": MEANWHILE };
    for (spec, drops) in [(&*meanwhile, old), (spec, MEANWHILE)] {
        let mut indexes = RawArrayBuf::new();
        indexes.push(&*specification(spec, true, true));
        create_indexes(destination, namespace, &indexes).await?;
        drop_one(destination, namespace, drops).await?;
    }
    Ok(())
}

/// Drops an index; one that is not there is a success.
pub async fn drop_one(
    destination: &Deployment,
    namespace: &Namespace,
    name: &str,
) -> Result<(), Fault> {
    let drop = doc! {
        "dropIndexes": &namespace.collection, "index": name, "writeConcern": { "w": "majority" },
    };
    match destination.command(&namespace.db, drop).await {
        Ok(_) => Ok(()),
        Err(e)
            if matches!(
                error::code(&e),
                Some(server_code::INDEX_NOT_FOUND | server_code::NAMESPACE_NOT_FOUND)
            ) =>
        {
            Ok(())
        }
        // It stays in the source's absence of one: a sharded collection has none without.
        Err(e) if error::code(&e) == Some(server_code::CANNOT_DROP_SHARD_KEY_INDEX) => Ok(()),
        Err(e) => Err(destination.fault(&format!("dropping index {name} of {namespace}"), &e)),
    }
}

/// Lets values in that a unique index would refuse: only what a trial or a restoration that a crash
/// cut short has left is unique during the sync.
pub async fn let_duplicates_in(
    destination: &Deployment,
    namespace: &Namespace,
) -> Result<(), Fault> {
    let placed = destination.shard_key(namespace);
    for spec in catalog::indexes(destination, namespace).await? {
        if is_unique(&spec) {
            match &placed {
                Some(placed) if shard_collection::is_of_shard_key(&spec, &placed.key) => {
                    swap(destination, namespace, &placed.key, name(&spec), &spec).await?;
                }
                _ => drop_one(destination, namespace, name(&spec)).await?,
            }
        } else if has(&spec, "prepareUnique") {
            modify(destination, namespace, index_change(name(&spec), "prepareUnique", false))
                .await
                .map_err(|e| {
                    destination.fault(&format!("relaxing index {} of {namespace}", name(&spec)), &e)
                })?;
        }
    }
    Ok(())
}

/// Drops the indexes that the source no longer has.
pub async fn drop_gone(
    source: &Deployment,
    destination: &Deployment,
    namespace: &Namespace,
) -> Result<(), Fault> {
    let wanted = catalog::indexes(source, namespace).await?;
    for spec in catalog::indexes(destination, namespace).await? {
        let is_known =
            |wanted: &RawDocumentBuf| name(wanted) == name(&spec) && is_same_build(wanted, &spec);
        if !wanted.iter().any(is_known)
            && !shard_collection::is_servers_own(destination, namespace, &spec, &wanted)
        {
            drop_one(destination, namespace, name(&spec)).await?;
        }
    }
    Ok(())
}

/// Hides an index from the planner, or shows it.
pub async fn hide(
    destination: &Deployment,
    namespace: &Namespace,
    name: &str,
    hidden: bool,
) -> Result<(), Fault> {
    modify(destination, namespace, index_change(name, "hidden", hidden)).await.map_err(|e| {
        destination.fault(&format!("hiding or showing index {name} of {namespace}"), &e)
    })
}

/// Whether an index is hidden from the planner.
#[must_use]
pub fn is_hidden(spec: &RawDocument) -> bool {
    has(spec, "hidden")
}

async fn modify(
    destination: &Deployment,
    namespace: &Namespace,
    change: RawDocumentBuf,
) -> Result<(), mongodb::error::Error> {
    let mut modify = command("collMod", &namespace.collection);
    append(&mut modify, "index", &*change);
    append(&mut modify, "writeConcern", &*rawdoc! { "w": "majority" });
    modify_alone(destination, namespace, modify).await
}

/// Runs a `collMod`, again where an election has ended it: what is prepared for a trial must not
/// stay so. On a sharded cluster another one of the collection, such as a daemon that died had
/// asked for, is waited for.
async fn modify_alone(
    destination: &Deployment,
    namespace: &Namespace,
    modify: RawDocumentBuf,
) -> Result<(), mongodb::error::Error> {
    let began = Instant::now();
    loop {
        match destination.raw_command(&namespace.db, modify.clone()).await {
            Err(e)
                if (error::code(&e) == Some(server_code::CONFLICTING_OPERATION_IN_PROGRESS)
                    || error::is_transient(&e))
                    && began.elapsed() < LONGEST_OTHER =>
            {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            ended => return ended.map(drop),
        }
    }
}

fn index_change(
    name: &str,
    option: &str,
    value: impl mongodb::bson::raw::BindRawBsonRef,
) -> RawDocumentBuf {
    let mut change = RawDocumentBuf::new();
    append(&mut change, "name", name);
    append(&mut change, option, value);
    change
}
