//! Indexes: relaxed while the run goes on, given back when it ends.
//!
//! During the sync unique indexes are plain (a replayed event can hold a value twice for a moment), and TTL indexes expire nothing
//! (the source's own expiry arrives as deletes). Both keep their entries, so that giving them back rebuilds nothing: `collMod` with
//! `prepareUnique` and then `unique`, and with `expireAfterSeconds`. Before 6.0 unique indexes are built anew.

use std::time::{Duration, Instant};

use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use placement::ShardKey;

use super::catalog::{self, INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND};
use super::distribute;
use crate::mongo::{Deployment, ServerVersion, append, command, error};

/// What a TTL index expires after during the sync, in seconds: the server's own largest, 68 years.
const TTL_HELD_OFF: i32 = i32::MAX;

/// The first version whose `collMod` makes an index unique.
const UNIQUE_BY_COLLMOD: ServerVersion = ServerVersion::new(6, 0, 0);

/// The server's codes for an index that is there under another name or with other options.
const INDEX_CONFLICTS: [i32; 3] = [67, 85, 86];
/// The server's name for an index build that was ended from outside.
const BUILD_ABORTED: &str = "IndexBuildAborted";
/// The server's code for data that breaks a unique index.
const CANNOT_CONVERT_TO_UNIQUE: i32 = 359;
/// The server's code for two arrays in one compound index.
const PARALLEL_ARRAYS: i32 = 171;
/// The server's codes up to here have names; above are places in its sources, and few codes of old.
const LAST_NAMED_CODE: i32 = 9_999;
/// The server's code for a duplicate key, here found by an index build.
const DUPLICATE_KEY: i32 = 11000;

/// The server's code for another change of the same collection that is under way.
const ANOTHER_UNDER_WAY: i32 = 117;
/// How long that is waited for: making an index unique reads all of it. And between two tries.
const LONGEST_OTHER: Duration = Duration::from_secs(20);
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// The server's code for an index that is the last for its collection's shard key.
const OF_SHARD_KEY: i32 = 370;
/// The index, and its field beside the shard key, that stands in while another is replaced.
const MEANWHILE: &str = "cutover_meanwhile";

/// The name of an index.
#[must_use]
pub fn name(spec: &RawDocument) -> &str {
    spec.get_str("name").unwrap_or_default()
}

fn has(spec: &RawDocument, option: &str) -> bool {
    spec.get_bool(option).unwrap_or(false)
}

/// Whether it is unique.
#[must_use]
pub fn is_unique(spec: &RawDocument) -> bool {
    has(spec, "unique")
}

/// An index's expiry. One that is no number is what a server takes it for: the longest. Given to `collMod` as it is, it would be
/// none at all, and the server would delete every document (seen on 6.0.5).
fn ttl(spec: &RawDocument) -> Option<RawBsonRef<'_>> {
    match spec.get("expireAfterSeconds").ok().flatten()? {
        RawBsonRef::Double(seconds) if seconds.is_nan() => Some(RawBsonRef::Int32(TTL_HELD_OFF)),
        RawBsonRef::Decimal128(seconds) if seconds.to_string().ends_with("NaN") => Some(RawBsonRef::Int32(TTL_HELD_OFF)),
        seconds => Some(seconds),
    }
}

/// A key pattern as servers of today take it. Old ones took any value for ascending, and kept it.
fn key(spec: &RawDocument) -> RawDocumentBuf {
    let mut key = RawDocumentBuf::new();
    // A text index is listed with a key of the server's own making. Only one with an expiry, which takes a single field, is not
    // made of that again.
    let text = ttl(spec).and_then(|_| spec.get_document("weights").ok());
    for (name, value) in spec.get_document("key").into_iter().flatten().flatten() {
        let is_direction = match value {
            RawBsonRef::Int32(n) => n != 0,
            RawBsonRef::Int64(n) => n != 0,
            RawBsonRef::Double(n) => n != 0.0 && !n.is_nan(),
            RawBsonRef::Decimal128(n) => !matches!(n.to_string().parse::<f64>(), Ok(n) if n == 0.0 || n.is_nan()),
            RawBsonRef::String(plugin) => !plugin.is_empty(),
            _ => false,
        };
        match (name.as_str(), text) {
            ("_fts", Some(weights)) => weights.iter().flatten().for_each(|(field, _)| append(&mut key, field.as_str(), "text")),
            ("_ftsx", Some(_)) => {}
            (name, _) if is_direction => append(&mut key, name, value),
            (name, _) => append(&mut key, name, 1),
        }
    }
    key
}

/// The settings of an index that wait for the end, in words.
#[must_use]
pub fn deferred(namespace: &Namespace, spec: &RawDocument) -> Vec<String> {
    let mut words = Vec::new();
    if is_unique(spec) {
        words.push(format!("unique on {namespace} index {}", name(spec)));
    }
    if ttl(spec).is_some() {
        words.push(format!("expiry (TTL) on {namespace} index {}", name(spec)));
    }
    words
}

/// An index's specification for `createIndexes`, whole, or as it is during the sync.
fn specification(spec: &RawDocument, collated: bool, relaxed: bool) -> RawDocumentBuf {
    let mut made = RawDocumentBuf::new();
    for (key, value) in spec.iter().flatten() {
        match key.as_str() {
            // Which namespace it is on is the command's to say.
            "ns" => {}
            // A build cannot be prepared; `collMod` sets it.
            "prepareUnique" => {}
            "unique" if relaxed => {}
            "expireAfterSeconds" if relaxed => append(&mut made, "expireAfterSeconds", TTL_HELD_OFF),
            "expireAfterSeconds" => append(&mut made, "expireAfterSeconds", ttl(spec).unwrap_or(value)),
            "key" => append(&mut made, "key", &*self::key(spec)),
            key => append(&mut made, key, value),
        }
    }
    // On a collection with a collation an index without one has the simple collation, and says so only if it is written out.
    if collated && !matches!(spec.get("collation"), Ok(Some(_))) {
        append(&mut made, "collation", &*rawdoc! { "locale": "simple" });
    }
    made
}

/// What tells two indexes of a collection apart for the server, once neither is unique.
#[must_use]
pub fn identity(spec: &RawDocument) -> Vec<u8> {
    let mut identity = Vec::new();
    identity.extend_from_slice(key(spec).as_bytes());
    for field in ["collation", "partialFilterExpression"] {
        if let Ok(document) = spec.get_document(field) {
            identity.extend_from_slice(document.as_bytes());
        }
        identity.push(0xff);
    }
    identity.push(u8::from(has(spec, "sparse")));
    identity
}

/// Builds indexes as they are during the sync. One that clashes with another once it is relaxed is left for the end, and so is one
/// that clashes with what was built before a crash. One that documents do not fit was made or dropped after they were read, and that is
/// further on in the stream.
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
        Err(e) if is_of_documents(&e) || is_conflict(&e) => build_fitting(destination, namespace, &indexes).await,
        Err(e) => Err(destination.fault(&format!("building the indexes of {namespace}"), &e)),
    }
}

/// Builds those that the documents and the other indexes fit. Which of several it is that does not, the server says but in words.
async fn build_fitting(destination: &Deployment, namespace: &Namespace, indexes: &RawArrayBuf) -> Result<(), Fault> {
    for spec in indexes.into_iter().flatten().filter_map(RawBsonRef::as_document) {
        let mut one = RawArrayBuf::new();
        one.push(spec);
        match run_create(destination, namespace, &one).await {
            Ok(()) => {}
            Err(e) if is_of_documents(&e) => {
                tracing::info!(%namespace, index = name(spec), error = %e, "an index that earlier documents do not fit");
            }
            Err(e) if is_conflict(&e) => {
                tracing::info!(%namespace, index = name(spec), error = %e, "an index clashes with one that is there");
            }
            Err(e) => return Err(destination.fault(&format!("building index {} of {namespace}", name(spec)), &e)),
        }
    }
    Ok(())
}

/// Whether an index build failed for what a document holds.
fn is_of_documents(error: &mongodb::error::Error) -> bool {
    error::code(error).is_some_and(tells_of_unfit_document) && !error::is_transient(error)
}

/// Whether the server says with this code that an index cannot hold a document: it has one for two arrays in one compound index, and
/// none but a place in its sources, above all its codes, for what the kinds of index ask of values.
#[must_use]
pub fn tells_of_unfit_document(code: i32) -> bool {
    code == PARALLEL_ARRAYS || (code > LAST_NAMED_CODE && code != DUPLICATE_KEY && !error::is_transient_code(code))
}

/// Whether there are documents that an index cannot hold, were it not unique: one of a single field, in order, takes any value.
#[must_use]
pub fn asks_of_values(spec: &RawDocument) -> bool {
    let key = spec.get_document("key").ok();
    key.is_none_or(|key| key.iter().count() > 1 || key.iter().flatten().any(|(_, kind)| kind.as_str().is_some()))
}

fn is_conflict(error: &mongodb::error::Error) -> bool {
    error::code(error).is_some_and(|code| INDEX_CONFLICTS.contains(&code))
}

/// Builds one index as it is during the sync; one that clashes with what is there is left for the end.
pub async fn build_one(destination: &Deployment, namespace: &Namespace, spec: &RawDocument, collated: bool) -> Result<(), Fault> {
    let mut indexes = RawArrayBuf::new();
    indexes.push(&*specification(spec, collated, true));
    match run_create(destination, namespace, &indexes).await {
        Ok(()) => Ok(()),
        Err(e) if is_conflict(&e) => {
            tracing::info!(%namespace, index = name(spec), "an index clashes while unique is relaxed; it is built at the end");
            Ok(())
        }
        Err(e) => {
            let fault = destination.fault(&format!("building index {} of {namespace}", name(spec)), &e);
            // Somebody dropped it, or its collection, while it was built.
            Err(Fault { retryable: fault.retryable || error::name(&e) == Some(BUILD_ABORTED), ..fault })
        }
    }
}

async fn run_create(destination: &Deployment, namespace: &Namespace, indexes: &RawArrayBuf) -> Result<(), mongodb::error::Error> {
    let mut create = command("createIndexes", &namespace.collection);
    append(&mut create, "indexes", &**indexes);
    // The primary's own vote: with the default the server waits a tenth of a second for its members' even where there is one, which
    // a source that makes indexes all day would turn into lag. The write concern waits for the majority all the same.
    append(&mut create, "commitQuorum", 1);
    append(&mut create, "writeConcern", &*rawdoc! { "w": "majority" });
    destination.raw_command(&namespace.db, create).await.map(drop)
}

async fn create_indexes(destination: &Deployment, namespace: &Namespace, indexes: &RawArrayBuf) -> Result<(), Fault> {
    run_create(destination, namespace, indexes)
        .await
        .map_err(|e| destination.fault(&format!("building the indexes of {namespace}"), &e))
}

/// Puts an index, as it is during the sync, in the place of one that the server needs for the shard key, of which there must be one
/// at any time.
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
pub async fn drop_one(destination: &Deployment, namespace: &Namespace, name: &str) -> Result<(), Fault> {
    let drop = doc! { "dropIndexes": &namespace.collection, "index": name, "writeConcern": { "w": "majority" } };
    match destination.command(&namespace.db, drop).await {
        Ok(_) => Ok(()),
        Err(e) if matches!(error::code(&e), Some(INDEX_NOT_FOUND | NAMESPACE_NOT_FOUND)) => Ok(()),
        // It stays in the source's absence of one: a sharded collection has none without.
        Err(e) if error::code(&e) == Some(OF_SHARD_KEY) => Ok(()),
        Err(e) => Err(destination.fault(&format!("dropping index {name} of {namespace}"), &e)),
    }
}

/// Lets values in that a unique index would refuse: only what a trial or a restoration that a crash cut short has left is unique
/// during the sync.
pub async fn let_duplicates_in(destination: &Deployment, namespace: &Namespace) -> Result<(), Fault> {
    let placed = destination.shard_key(namespace);
    for spec in catalog::indexes(destination, namespace).await? {
        if is_unique(&spec) {
            match &placed {
                Some(placed) if distribute::is_of_shard_key(&spec, &placed.key) => {
                    swap(destination, namespace, &placed.key, name(&spec), &spec).await?;
                }
                _ => drop_one(destination, namespace, name(&spec)).await?,
            }
        } else if has(&spec, "prepareUnique") {
            modify(destination, namespace, index_change(name(&spec), "prepareUnique", false))
                .await
                .map_err(|e| destination.fault(&format!("relaxing index {} of {namespace}", name(&spec)), &e))?;
        }
    }
    Ok(())
}

/// Drops the indexes that the source no longer has.
pub async fn drop_gone(source: &Deployment, destination: &Deployment, namespace: &Namespace) -> Result<(), Fault> {
    let wanted = catalog::indexes(source, namespace).await?;
    for spec in catalog::indexes(destination, namespace).await? {
        let is_known = |wanted: &RawDocumentBuf| name(wanted) == name(&spec) && identity(wanted) == identity(&spec);
        if !wanted.iter().any(is_known) && !distribute::is_servers_own(destination, namespace, &spec, &wanted) {
            drop_one(destination, namespace, name(&spec)).await?;
        }
    }
    Ok(())
}

async fn modify(destination: &Deployment, namespace: &Namespace, change: RawDocumentBuf) -> Result<(), mongodb::error::Error> {
    let mut modify = command("collMod", &namespace.collection);
    append(&mut modify, "index", &*change);
    append(&mut modify, "writeConcern", &*rawdoc! { "w": "majority" });
    modify_alone(destination, namespace, modify).await
}

/// Runs a `collMod`, again where an election has ended it: what is prepared for a trial must not stay so. On a sharded cluster another
/// one of the collection, such as a daemon that died had asked for, is waited for.
async fn modify_alone(
    destination: &Deployment,
    namespace: &Namespace,
    modify: RawDocumentBuf,
) -> Result<(), mongodb::error::Error> {
    let began = Instant::now();
    loop {
        match destination.raw_command(&namespace.db, modify.clone()).await {
            Err(e)
                if (error::code(&e) == Some(ANOTHER_UNDER_WAY) || error::is_transient(&e)) && began.elapsed() < LONGEST_OTHER =>
            {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            ended => return ended.map(drop),
        }
    }
}

fn index_change(name: &str, option: &str, value: impl mongodb::bson::raw::BindRawBsonRef) -> RawDocumentBuf {
    let mut change = RawDocumentBuf::new();
    append(&mut change, "name", name);
    append(&mut change, option, value);
    change
}

/// Gives a collection's indexes the form that they have on the source, as far as its users rely on it from their first write on.
///
/// Returns the names of those that refuse duplicates from now on and are still to be made unique, by [`finish_unique`]: that reads
/// the whole index, which nobody should have to wait for.
pub async fn restore(
    source: &Deployment,
    destination: &Deployment,
    namespace: &Namespace,
    collated: bool,
) -> Result<Vec<String>, Fault> {
    let mut unfinished = Vec::new();
    let wanted = catalog::indexes(source, namespace).await?;
    let found = catalog::indexes(destination, namespace).await?;
    let on_destination = |wanted: &RawDocument| found.iter().find(|spec| name(spec) == name(wanted));
    for spec in &found {
        if !wanted.iter().any(|wanted| name(wanted) == name(spec))
            && !distribute::is_servers_own(destination, namespace, spec, &wanted)
        {
            drop_one(destination, namespace, name(spec)).await?;
        }
    }
    let mut missing = Vec::new();
    for spec in &wanted {
        match on_destination(spec) {
            None => missing.push(spec),
            Some(there) if identity(there) != identity(spec) => {
                drop_one(destination, namespace, name(spec)).await?;
                missing.push(spec);
            }
            Some(there) => {
                if is_unique(spec) && !is_unique(there) {
                    refuse_duplicates(destination, namespace, spec, collated).await?;
                    unfinished.push(name(spec).to_owned());
                }
                for option in ["expireAfterSeconds", "hidden"] {
                    give_back(destination, namespace, spec, there, option, collated).await?;
                }
            }
        }
    }
    // What clashed with a relaxed one can be built once unique tells them apart: being prepared for it does not.
    for spec in missing {
        let twins =
            wanted.iter().filter(|twin| name(twin) != name(spec) && identity(twin) == identity(spec)).map(|twin| name(twin));
        for twin in twins {
            if let Some(place) = unfinished.iter().position(|unfinished| unfinished == twin) {
                finish_unique(destination, namespace, twin).await?;
                unfinished.remove(place);
            }
        }
        let mut indexes = RawArrayBuf::new();
        indexes.push(&*specification(spec, collated, false));
        run_create(destination, namespace, &indexes).await.map_err(|e| unique_fault(destination, namespace, spec, &e))?;
    }
    for spec in wanted.iter().filter(|spec| has(spec, "prepareUnique")) {
        modify(destination, namespace, index_change(name(spec), "prepareUnique", true))
            .await
            .map_err(|e| destination.fault(&format!("preparing index {} of {namespace}", name(spec)), &e))?;
    }
    Ok(unfinished)
}

async fn give_back(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
    there: &RawDocument,
    option: &str,
    collated: bool,
) -> Result<(), Fault> {
    let value = |spec| if option == "expireAfterSeconds" { ttl(spec) } else { spec.get(option).ok().flatten() };
    let value = match (value(spec), value(there)) {
        (wanted, found) if wanted == found => return Ok(()),
        (Some(wanted), _) => wanted,
        (None, Some(RawBsonRef::Boolean(_))) => RawBsonRef::Boolean(false),
        // The source's index has lost its expiry, which only a new index can.
        (None, _) => {
            drop_one(destination, namespace, name(spec)).await?;
            let mut indexes = RawArrayBuf::new();
            indexes.push(&*specification(spec, collated, false));
            return create_indexes(destination, namespace, &indexes).await;
        }
    };
    modify(destination, namespace, index_change(name(spec), option, value))
        .await
        .map_err(|e| destination.fault(&format!("giving {option} back to index {} of {namespace}", name(spec)), &e))
}

/// Has an index refuse duplicates. From 6.0 on it is only prepared, which takes no time; before, it is built anew.
async fn refuse_duplicates(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
    collated: bool,
) -> Result<(), Fault> {
    let fault = |e: mongodb::error::Error| unique_fault(destination, namespace, spec, &e);
    if destination.version >= UNIQUE_BY_COLLMOD {
        modify(destination, namespace, index_change(name(spec), "prepareUnique", true)).await.map_err(fault)
    } else {
        drop_one(destination, namespace, name(spec)).await?;
        let mut indexes = RawArrayBuf::new();
        indexes.push(&*specification(spec, collated, false));
        run_create(destination, namespace, &indexes).await.map_err(fault)
    }
}

/// Makes an index unique that refuses duplicates already. One that its users have dropped meanwhile is theirs to drop.
pub async fn finish_unique(destination: &Deployment, namespace: &Namespace, index: &str) -> Result<(), Fault> {
    if destination.version < UNIQUE_BY_COLLMOD {
        return Ok(());
    }
    match modify(destination, namespace, index_change(index, "unique", true)).await {
        Ok(()) => Ok(()),
        Err(e) if matches!(error::code(&e), Some(INDEX_NOT_FOUND | NAMESPACE_NOT_FOUND)) => Ok(()),
        Err(e) => Err(unique_fault(destination, namespace, &rawdoc! { "name": index }, &e)),
    }
}

/// Tries whether an index could be made unique, and leaves it as it is. The tail must stand still meanwhile: for as long as the
/// trial takes the server refuses duplicates.
pub async fn try_unique(destination: &Deployment, namespace: &Namespace, spec: &RawDocument) -> Result<(), Fault> {
    if destination.version < UNIQUE_BY_COLLMOD {
        return Ok(());
    }
    // One that waits for the end because a plain one has its keys is tried on that one.
    let found = catalog::indexes(destination, namespace).await?;
    let Some(tried) = found
        .iter()
        .find(|there| name(there) == name(spec))
        .or_else(|| found.iter().find(|there| identity(there) == identity(spec)))
    else {
        return Ok(());
    };
    let prepare = |on: bool| modify(destination, namespace, index_change(name(tried), "prepareUnique", on));
    prepare(true).await.map_err(|e| unique_fault(destination, namespace, spec, &e))?;
    let mut dry = command("collMod", &namespace.collection);
    append(&mut dry, "index", &*index_change(name(tried), "unique", true));
    append(&mut dry, "dryRun", true);
    let tried = modify_alone(destination, namespace, dry).await;
    prepare(false).await.map_err(|e| unique_fault(destination, namespace, spec, &e))?;
    tried.map_err(|e| unique_fault(destination, namespace, spec, &e))
}

fn unique_fault(destination: &Deployment, namespace: &Namespace, spec: &RawDocument, error: &mongodb::error::Error) -> Fault {
    let index = name(spec);
    match error::code(error) {
        Some(CANNOT_CONVERT_TO_UNIQUE | DUPLICATE_KEY) => {
            let ids = violations(error);
            let ids = if ids.is_empty() { String::new() } else { format!(": documents with _id {}", ids.join("; ")) };
            Fault::new(
                FaultCode::UniqueIndexBroken,
                format!("index {index} of {namespace} cannot be made unique on the destination{ids}"),
            )
        }
        _ => destination.fault(&format!("making index {index} of {namespace} unique"), error),
    }
}

/// The `_id`s that the server names as duplicates of each other, at most ten groups.
fn violations(error: &mongodb::error::Error) -> Vec<String> {
    let Some(reply) = error.server_response() else { return Vec::new() };
    let Ok(groups) = reply.get_array("violations") else { return Vec::new() };
    groups
        .into_iter()
        .flatten()
        .filter_map(|group| group.as_document().and_then(|group| group.get_array("ids").ok()))
        .take(10)
        .map(|ids| {
            ids.into_iter()
                .flatten()
                .filter_map(|id| mongodb::bson::Bson::try_from(id).ok())
                .map(|id| id.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{deferred, key, specification};
    use mongodb::bson::rawdoc;

    #[test]
    fn unique_and_ttl_wait_for_the_end() {
        let spec = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "unique": true, "expireAfterSeconds": 60, "hidden": true };
        let relaxed = specification(&spec, false, true);
        assert_eq!(relaxed, rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "expireAfterSeconds": i32::MAX, "hidden": true });
        assert_eq!(specification(&spec, false, false), spec);
        let namespace = "shop.orders".parse().expect("a namespace");
        assert_eq!(deferred(&namespace, &spec), ["unique on shop.orders index a_1", "expiry (TTL) on shop.orders index a_1"]);
    }

    #[test]
    fn an_expiry_that_is_no_number_is_the_longest() {
        let spec = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "expireAfterSeconds": f64::NAN };
        assert!(specification(&spec, false, false).get_i32("expireAfterSeconds").is_ok_and(|seconds| seconds == i32::MAX));
    }

    #[test]
    fn old_values_in_a_key_are_ascending() {
        let spec = rawdoc! { "key": { "a": true, "b": 0, "c": "", "d": -0.5, "e": "2d", "f": {}, "g": 7_i64 } };
        let text = rawdoc! { "key": { "_fts": "text", "_ftsx": 1 }, "weights": { "a": 1 }, "expireAfterSeconds": 5 };
        assert_eq!(key(&text), rawdoc! { "a": "text" });
        assert_eq!(key(&spec), rawdoc! { "a": 1, "b": 1, "c": 1, "d": -0.5, "e": "2d", "f": 1, "g": 7_i64 });
    }

    #[test]
    fn a_simple_index_on_a_collated_collection_says_so() {
        let spec = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1" };
        assert_eq!(
            specification(&spec, true, true),
            rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "collation": { "locale": "simple" } }
        );
    }
}
