//! Shards collections of a sharded destination while they are empty, and spreads them over its
//! shards.
//!
//! A collection is sharded by the key that is declared for it, else by the one that it has on a
//! sharded source, else not at all. What a server does not shard stays as it is: views, capped and
//! time-series collections, stored functions. A key that begins with a hashed field is spread by
//! the server itself. For any other one range for each shard is cut, by the source's own chunks
//! where it has the same key, else by a sample of its documents, and moved there: an empty range
//! costs nothing to move. Where the destination's owner has set zones, they say where ranges
//! belong, and nothing is cut.
//!
//! The destination's balancer may be on or off, and stays so: everything is read and written
//! through the router, which follows a chunk that moves, and what has been spread gives it little
//! to do.
//!
//! All of it may be done twice: a crash can come anywhere between.

use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc};
use placement::shard_key::{KeyError, Part};
use placement::{ChunkMap, ShardKey, order};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, STORED_FUNCTIONS};
use schemas::spec::ShardingSpec;

use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::index;
use crate::engine::source::topology;
use crate::engine::source::topology::Cluster;
use crate::mongo::shard_keys::PlacedBy;
use crate::mongo::{Deployment, ServerVersion, append, command, error, server_code};

/// Documents that are drawn for each range: enough that the largest is rarely a fifth over the
/// mean.
const SAMPLES_PER_RANGE: usize = 200;
/// The first version that moves a range by its lower bound, and shards a collection of a database
/// that was not enabled for it.
const MOVE_RANGE: ServerVersion = ServerVersion::new(6, 0, 0);
/// The server's codes for something else that moves chunks there just now.
const BUSY: [i32; 4] = [
    server_code::LOCK_BUSY,
    server_code::OPERATION_FAILED,
    server_code::CONFLICTING_OPERATION_IN_PROGRESS,
    server_code::STALE_CONFIG,
];
/// What a server answers, with [`server_code::OPERATION_FAILED`], whose shard has documents still
/// of a range that it gave away before: it takes that range again once they are deleted, for which
/// it leaves their readers a quarter of an hour (6.0.5).
const NOT_DELETED_YET: &str = "Failed to delete orphaned";
/// How often the chunks are looked at anew where they have changed under a request to cut or move
/// one.
const LOOKS: u32 = 5;

/// The key that is declared for a collection.
#[must_use]
pub fn declared(sharding: Option<&ShardingSpec>, namespace: &Namespace) -> Option<ShardKey> {
    let declared =
        sharding?.collections.iter().find(|collection| collection.namespace == *namespace)?;
    let mut pattern = RawDocumentBuf::new();
    for (field, is_hashed) in declared.fields() {
        match is_hashed {
            true => append(&mut pattern, field, "hashed"),
            false => append(&mut pattern, field, 1),
        }
    }
    ShardKey::new(&pattern).ok()
}

/// How a collection is to be sharded on the destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its key.
    pub key: ShardKey,
    /// Whether it is sharded with `unique: true`, as it is on the source.
    pub is_unique: bool,
}

/// The key that a collection is to have on the destination. One that is declared is unique where it
/// is that of the source, and that is.
pub async fn wanted(
    source: &Deployment,
    destination: &Deployment,
    sharding: Option<&ShardingSpec>,
    namespace: &Namespace,
) -> Result<Option<Wanted>, Fault> {
    if !destination.is_sharded() {
        return Ok(None);
    }
    let of_source = if source.is_sharded() { source.sharded_by(namespace).await? } else { None };
    let of_source = of_source.map(|placed| Wanted { key: placed.key, is_unique: placed.is_unique });
    Ok(match declared(sharding, namespace) {
        Some(key) => {
            let is_unique = of_source.is_some_and(|own| own.is_unique && is_same(&own.key, &key));
            Some(Wanted { key, is_unique })
        }
        None => of_source,
    })
}

/// Whether a server shards such a collection.
#[must_use]
pub fn can_be_sharded(info: &CollectionInfo) -> bool {
    info.kind == Kind::Collection
        && !info.is_capped()
        && info.namespace.collection != STORED_FUNCTIONS
}

/// The unique indexes that cannot be, by name: they do not begin with the whole shard key, or a
/// field of it is hashed.
pub fn unfit_unique<'a>(
    key: &ShardKey,
    specs: &'a [RawDocumentBuf],
) -> impl Iterator<Item = &'a str> {
    let unfit = |spec: &&RawDocumentBuf| {
        index::is_unique(spec) && (has_hashed(key) || !begins_with(spec, key))
    };
    specs.iter().filter(unfit).map(|spec| index::name(spec))
}

/// Whether a collection of the destination is sharded by a key with a hashed field.
#[must_use]
pub fn is_hashed(destination: &Deployment, namespace: &Namespace) -> bool {
    destination.shard_key(namespace).is_some_and(|placed| has_hashed(&placed.key))
}

fn has_hashed(key: &ShardKey) -> bool {
    key.fields().any(|(_, part)| part == Part::Hashed)
}

/// What is said of such indexes.
#[must_use]
pub fn unique_fault(namespace: &Namespace, key: &ShardKey, names: &[&str]) -> Fault {
    let (what, them) =
        if names.len() == 1 { ("the unique index", "it") } else { ("the unique indexes", "they") };
    let message = format!(
        "{what} {} of {namespace} cannot be kept on the destination: {them} would have to begin \
         with the whole shard key {}, unhashed",
        names.join(", "),
        in_words(key)
    );
    Fault::new(FaultCode::ShardKeyUnfit, message)
}

/// A key in the words of a shell.
#[must_use]
pub fn in_words(key: &ShardKey) -> String {
    let fields = key.fields().map(|(path, part)| {
        format!("{path}: {}", if part == Part::Hashed { "hashed" } else { "1" })
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

/// Whether two keys place documents alike, however their numbers are written.
#[must_use]
pub fn is_same(one: &ShardKey, other: &ShardKey) -> bool {
    one.fields().eq(other.fields())
}

/// Whether an index's key begins with all of a shard key.
fn begins_with(spec: &RawDocument, key: &ShardKey) -> bool {
    let Ok(pattern) = spec.get_document("key") else { return false };
    let mut fields = pattern.iter();
    key.fields().all(|(path, part)| {
        // A name that is no UTF-8 is none of a shard key's.
        fields.next().is_some_and(|field| {
            let Ok((name, value)) = field else { return false };
            let fits = match (value, part) {
                (RawBsonRef::String(kind), Part::Hashed) => kind == "hashed",
                (RawBsonRef::Int32(n), Part::Ranged) => n > 0,
                (RawBsonRef::Int64(n), Part::Ranged) => n > 0,
                (RawBsonRef::Double(n), Part::Ranged) => n > 0.0,
                _ => false,
            };
            fits && name.as_str() == path
        })
    })
}

/// Whether the server finds the documents of a range by this index: it needs one, and makes one
/// where there is none.
#[must_use]
pub fn is_of_shard_key(spec: &RawDocument, key: &ShardKey) -> bool {
    let lacks = |option: &str| matches!(spec.get(option), Ok(None));
    begins_with(spec, key)
        && ["partialFilterExpression", "collation"].into_iter().all(lacks)
        && !["sparse", "hidden"].into_iter().any(|option| spec.get_bool(option).unwrap_or(false))
}

/// Whether an index of the destination that the source lacks is there for the shard key alone: no
/// other would do.
#[must_use]
pub fn is_servers_own(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
    of_source: &[RawDocumentBuf],
) -> bool {
    destination.shard_key(namespace).is_some_and(|placed| {
        is_of_shard_key(spec, &placed.key)
            && !of_source.iter().any(|own| is_of_shard_key(own, &placed.key))
    })
}

/// Gives the place of the index that the server made for the shard key to one of the source with
/// the same key and another name. `true`: it was so, and is done.
pub async fn take_place(
    source: &Deployment,
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
) -> Result<bool, Fault> {
    let Some(placed) =
        destination.shard_key(namespace).filter(|placed| is_of_shard_key(spec, &placed.key))
    else {
        return Ok(false);
    };
    let of_source = catalog::indexes(source, namespace).await?;
    let found = catalog::indexes(destination, namespace).await?;
    let twin = found.iter().find(|there| {
        let is_twin = index::name(there) != index::name(spec)
            && index::identity(there) == index::identity(spec);
        is_twin && !of_source.iter().any(|own| index::name(own) == index::name(there))
    });
    match twin {
        None => Ok(false),
        Some(twin) => index::swap(destination, namespace, &placed.key, index::name(twin), spec)
            .await
            .map(|()| true),
    }
}

/// Shards a collection of the destination as is wanted, and spreads it, where that is not done yet.
pub async fn shard(
    source: &Deployment,
    destination: &Deployment,
    sharding: Option<&ShardingSpec>,
    info: &CollectionInfo,
) -> Result<(), Fault> {
    let namespace = &info.namespace;
    let Some(keys) = &destination.shard_keys else { return Ok(()) };
    if !can_be_sharded(info) {
        return Ok(());
    }
    let Some(Wanted { key, is_unique }) = wanted(source, destination, sharding, namespace).await?
    else {
        return Ok(());
    };
    let there = destination.sharded_by(namespace).await?;
    let is_new = there.is_none();
    let placed = match there {
        Some(there) => there,
        None => {
            // Under the source's own name, where it has one: the server would make another.
            let specs = catalog::indexes(source, namespace).await?;
            let own: Vec<RawDocumentBuf> =
                specs.into_iter().filter(|spec| is_of_shard_key(spec, &key)).collect();
            if is_unique {
                build_unique(destination, namespace, &key, &own, info.has_collation()).await?;
            } else {
                index::build(destination, namespace, &own, info.has_collation()).await?;
            }
            if shard_by(destination, namespace, &key, is_unique).await? {
                tracing::info!(%namespace, key = in_words(&key), is_unique, "sharded on the \
                     destination");
                PlacedBy::new(key.clone(), is_unique, info.has_collation())
            } else {
                // What a daemon that died had asked for has been done since.
                destination.sharded_by(namespace).await?.ok_or_else(|| {
                    let message = format!(
                        "{namespace} is sharded by somebody else on the destination ({})",
                        destination.hosts
                    );
                    Fault {
                        retryable: true,
                        ..Fault::new(FaultCode::DestinationWriteFailed, message)
                    }
                })?
            }
        }
    };
    if !is_same(&placed.key, &key) {
        let (there, now) = (in_words(&placed.key), in_words(&key));
        if declared(sharding, namespace).is_some() {
            let message = format!(
                "{namespace} is sharded by {there} on the destination, and is to be by {now}"
            );
            return Err(Fault::new(FaultCode::ShardKeyUnfit, message));
        }
        // The source's key as it is now: that of another collection, which has taken the name since
        // this one was made. What made it so is reported further on.
        tracing::info!(%namespace, key = there, now, "sharded by another key on the source by now");
        keys.set(namespace, Some(placed));
        return Ok(());
    }
    let key = placed.key.clone();
    keys.set(namespace, Some(placed));
    if is_unique {
        // The server wanted the index unique; during the sync none is. Finalizing gives it back.
        index::let_duplicates_in(destination, namespace).await?;
    }
    let is_spread_by_server = key.fields().next().is_some_and(|(_, part)| part == Part::Hashed);
    if is_spread_by_server {
        Ok(())
    } else {
        spread(source, destination, &key, namespace, is_new).await
    }
}

/// Builds, of the source's indexes for a shard key, what a server asks for before it makes that key
/// a unique one: a unique index on exactly its fields. With another one on these it refuses;
/// without any, where there are no documents, it makes one.
pub async fn build_unique(
    destination: &Deployment,
    namespace: &Namespace,
    key: &ShardKey,
    own: &[RawDocumentBuf],
    collated: bool,
) -> Result<(), Fault> {
    let exact =
        own.iter().filter(|spec| index::is_unique(spec) && has_fields(spec, key.fields().count()));
    index::build_unique(destination, namespace, exact, collated).await
}

/// Whether an index is on so many fields.
fn has_fields(spec: &RawDocument, count: usize) -> bool {
    spec.get_document("key").is_ok_and(|key| key.iter().count() == count)
}

/// `false`: it is sharded already, by another key.
async fn shard_by(
    destination: &Deployment,
    namespace: &Namespace,
    key: &ShardKey,
    is_unique: bool,
) -> Result<bool, Fault> {
    if destination.version < MOVE_RANGE {
        let enable = doc! { "enableSharding": &namespace.db };
        destination.command("admin", enable).await.map_err(|e| {
            destination.fault(&format!("enabling the database {} for sharding", namespace.db), &e)
        })?;
    }
    let mut shard = command("shardCollection", &namespace.to_string());
    append(&mut shard, "key", key.pattern());
    append(&mut shard, "unique", is_unique);
    // A shard key compares texts by their bytes, whatever its collection does; one with a collation
    // wants that said.
    append(&mut shard, "collation", &*rawdoc! { "locale": "simple" });
    match destination.raw_command("admin", shard).await {
        Ok(_) => Ok(true),
        Err(e) if error::code(&e) == Some(server_code::ALREADY_INITIALIZED) => Ok(false),
        Err(e) => {
            let mut fault =
                destination.fault(&format!("sharding {namespace} by {}", in_words(key)), &e);
            fault.retryable |= error::code(&e).is_some_and(|code| BUSY.contains(&code));
            Err(fault)
        }
    }
}

/// Cuts a collection into one range for each shard, and moves each to its own. What was sharded
/// before and holds documents on several shards has been spread, and where its chunks lie by now is
/// the balancer's, or its owner's.
async fn spread(
    source: &Deployment,
    destination: &Deployment,
    key: &ShardKey,
    namespace: &Namespace,
    is_new: bool,
) -> Result<(), Fault> {
    // A shard takes or gives one chunk at a time.
    let Some(keys) = &destination.shard_keys else { return Ok(()) };
    let _one_at_a_time = keys.moving.lock().await;
    let shards: Vec<String> = Cluster::shards_behind(destination)
        .await?
        .into_iter()
        .filter(|shard| !shard.is_draining)
        .map(|shard| shard.name.0)
        .collect();
    let Some(mut map) = topology::map_of(destination, namespace).await? else { return Ok(()) };
    if shards.len() < 2 || has_zones(destination, namespace).await? {
        return Ok(());
    }
    let is_on_several = map.chunks().windows(2).any(|pair| pair[0].shard != pair[1].shard);
    if !is_new && is_on_several && catalog::has_documents(destination, namespace).await? {
        return Ok(());
    }
    for _ in 1..LOOKS {
        let Err(fault) =
            spread_over(source, destination, key, namespace, &shards, map.clone()).await
        else {
            return Ok(());
        };
        // A request of a daemon that died, or the balancer, may have cut or moved it meanwhile.
        let Some(now) = topology::map_of(destination, namespace).await? else { return Ok(()) };
        if now.chunks() == map.chunks() {
            return Err(fault);
        }
        map = now;
    }
    spread_over(source, destination, key, namespace, &shards, map).await
}

/// The same, as the chunks are.
async fn spread_over(
    source: &Deployment,
    destination: &Deployment,
    key: &ShardKey,
    namespace: &Namespace,
    shards: &[String],
    mut map: ChunkMap,
) -> Result<(), Fault> {
    let points = if map.chunks().len() == 1 {
        points(source, namespace, key, shards.len()).await?
    } else {
        Vec::new()
    };
    if !points.is_empty() {
        for point in &points {
            let mut split = command("split", &namespace.to_string());
            append(&mut split, "middle", &**point);
            destination
                .raw_command("admin", split)
                .await
                .map_err(|e| busy(destination, "splitting", namespace, &e))?;
        }
        match topology::map_of(destination, namespace).await? {
            Some(now) => map = now,
            None => return Ok(()),
        }
    }
    let chunks = map.chunks();
    for (place, chunk) in chunks.iter().enumerate() {
        let shard = &shards[place * shards.len() / chunks.len()];
        if chunk.shard == *shard {
            continue;
        }
        let mut move_chunk;
        if destination.version >= MOVE_RANGE {
            move_chunk = command("moveRange", &namespace.to_string());
            append(&mut move_chunk, "toShard", shard.as_str());
            append(&mut move_chunk, "min", &*chunk.min);
            append(&mut move_chunk, "max", &*chunk.max);
            append(&mut move_chunk, "waitForDelete", true);
        } else {
            move_chunk = command("moveChunk", &namespace.to_string());
            let mut bounds = RawArrayBuf::new();
            bounds.push(&*chunk.min);
            bounds.push(&*chunk.max);
            append(&mut move_chunk, "bounds", &*bounds);
            append(&mut move_chunk, "to", shard.as_str());
            append(&mut move_chunk, "_waitForDelete", true);
        }
        match destination.raw_command("admin", move_chunk).await {
            Ok(_) => {}
            Err(e)
                if error::code(&e) == Some(server_code::OPERATION_FAILED)
                    && e.to_string().contains(NOT_DELETED_YET) =>
            {
                tracing::warn!(%namespace, shard, "a range stays where it is: the shard has yet \
                     to delete what it gave away of it");
            }
            Err(e) => return Err(busy(destination, "spreading", namespace, &e)),
        }
    }
    Ok(())
}

fn busy(
    destination: &Deployment,
    doing: &str,
    namespace: &Namespace,
    error: &mongodb::error::Error,
) -> Fault {
    let mut fault = destination.fault(&format!("{doing} {namespace} over the shards"), error);
    fault.retryable |= error::code(error).is_some_and(|code| BUSY.contains(&code));
    fault
}

async fn has_zones(destination: &Deployment, namespace: &Namespace) -> Result<bool, Fault> {
    let find = rawdoc! { "find": "tags", "filter": { "ns": namespace.to_string() }, "limit": 1 };
    let found = destination
        .collect("config", find)
        .await
        .map_err(|e| destination.fault("reading the zones (config.tags)", &e))?;
    Ok(!found.is_empty())
}

/// Where to cut a collection into so many ranges; fewer where it has too few keys.
async fn points(
    source: &Deployment,
    namespace: &Namespace,
    key: &ShardKey,
    ranges: usize,
) -> Result<Vec<RawDocumentBuf>, Fault> {
    if source.is_sharded()
        && let Some(map) = topology::map_of(source, namespace).await?
        && is_same(map.key(), key)
        && map.chunks().len() >= ranges
    {
        return Ok(cuts(map.chunks().iter().map(|chunk| chunk.min.clone()).collect(), ranges));
    }
    let mut projection = RawDocumentBuf::new();
    for (path, _) in key.fields() {
        append(&mut projection, path, 1);
    }
    let mut pipeline = RawArrayBuf::new();
    let size = i64::try_from(SAMPLES_PER_RANGE * ranges).unwrap_or(i64::MAX);
    pipeline.push(&*rawdoc! { "$sample": { "size": size } });
    pipeline.push(&*rawdoc! { "$project": projection });
    let mut draw = command("aggregate", &namespace.collection);
    append(&mut draw, "pipeline", &*pipeline);
    append(&mut draw, "cursor", &*rawdoc! {});
    let drawn = source
        .collect(&namespace.db, draw)
        .await
        .map_err(|e| source.fault(&format!("sampling shard keys of {namespace}"), &e))?;
    let keys = drawn.iter().map(|document| {
        key.of(document).map_err(|fault| {
            let id = document
                .get("_id")
                .ok()
                .flatten()
                .and_then(|id| mongodb::bson::Bson::try_from(id).ok());
            let id = id.map_or_else(String::new, |id| format!(" with _id {id}"));
            let why = match fault {
                KeyError::IsArray(path) => format!("an array in the field {path} of the shard key"),
                KeyError::UnknownPattern(pattern) => format!("no usable shard key {pattern}"),
            };
            Fault::new(FaultCode::ShardKeyUnfit, format!("a document{id} of {namespace} has {why}"))
        })
    });
    let mut keys: Vec<RawDocumentBuf> = keys.collect::<Result<_, Fault>>()?;
    keys.sort_by(|a, b| order::compare_documents(a, b));
    Ok(cuts(keys, ranges))
}

/// The bounds between so many ranges of about as many of these keys each, which are in order.
fn cuts(keys: Vec<RawDocumentBuf>, ranges: usize) -> Vec<RawDocumentBuf> {
    let mut cuts: Vec<RawDocumentBuf> =
        (1..ranges).filter_map(|cut| keys.get(cut * keys.len() / ranges).cloned()).collect();
    cuts.dedup_by(|a, b| order::compare_documents(a, b).is_eq());
    // Nothing lies below the lowest key there is.
    cuts.retain(|cut| !placement::element::elements(cut).all(|field| field.kind == 0xff));
    cuts
}

#[cfg(test)]
mod tests {
    use super::{begins_with, cuts, declared, in_words, is_of_shard_key, unfit_unique};
    use mongodb::bson::{RawBson, RawDocumentBuf, rawdoc};
    use placement::ShardKey;
    use schemas::spec::{Balancer, ShardKeySpec, ShardingSpec};

    fn key(pattern: RawDocumentBuf) -> ShardKey {
        ShardKey::new(&pattern).expect("a key")
    }

    #[test]
    fn a_declared_key_is_that_of_its_collection() {
        let namespace: schemas::namespace::Namespace = "shop.orders".parse().expect("a namespace");
        let keys = vec!["customer:1".to_owned(), "_id:hashed".to_owned()];
        let collections = vec![ShardKeySpec { namespace: namespace.clone(), key: keys }];
        let sharding = ShardingSpec { balancer: Balancer::RequireOff, collections };
        let found = declared(Some(&sharding), &namespace).expect("a key");
        assert_eq!(found.pattern(), &*rawdoc! { "customer": 1, "_id": "hashed" });
        assert_eq!(in_words(&found), "{customer: 1, _id: hashed}");
        assert!(declared(Some(&sharding), &"shop.other".parse().expect("a namespace")).is_none());
    }

    #[test]
    fn unique_indexes_begin_with_the_whole_key_or_cannot_be() {
        let unique =
            |name: &str, key: RawDocumentBuf| rawdoc! { "name": name, "key": key, "unique": true };
        let specs = [
            unique("fits", rawdoc! { "a": 1.0, "b": 1, "c": -1 }),
            unique("short", rawdoc! { "a": 1 }),
            unique("turned", rawdoc! { "b": 1, "a": 1 }),
            rawdoc! { "name": "plain", "key": { "c": 1 } },
        ];
        assert_eq!(
            unfit_unique(&key(rawdoc! { "a": 1, "b": 1 }), &specs).collect::<Vec<_>>(),
            ["short", "turned"]
        );
        assert_eq!(unfit_unique(&key(rawdoc! { "a": "hashed" }), &specs).count(), 3);
    }

    #[test]
    fn an_index_that_leaves_documents_out_is_none_of_a_shard_key() {
        let key = key(rawdoc! { "a": 1, "_id": "hashed" });
        let spec = |extra: RawDocumentBuf| {
            let mut spec = rawdoc! { "name": "x", "key": { "a": 1_i64, "_id": "hashed", "b": 1 } };
            for (name, value) in extra.iter().flatten() {
                crate::mongo::append(&mut spec, name.as_str(), value);
            }
            spec
        };
        assert!(is_of_shard_key(&spec(rawdoc! { "sparse": false }), &key));
        for extra in [
            rawdoc! { "sparse": true },
            rawdoc! { "hidden": true },
            rawdoc! { "collation": { "locale": "de" } },
            rawdoc! { "partialFilterExpression": { "a": 1 } },
        ] {
            assert!(!is_of_shard_key(&spec(extra.clone()), &key), "{extra:?}");
        }
        assert!(!begins_with(&rawdoc! { "key": { "a": -1, "_id": "hashed" } }, &key));
    }

    #[test]
    fn ranges_hold_about_as_many_keys_each() {
        let keys: Vec<RawDocumentBuf> = (0..90).map(|n| rawdoc! { "a": n }).collect();
        assert_eq!(cuts(keys, 3), [rawdoc! { "a": 30 }, rawdoc! { "a": 60 }]);
        assert_eq!(cuts(vec![rawdoc! { "a": 1 }; 50], 3), [rawdoc! { "a": 1 }]);
        assert_eq!(cuts(Vec::new(), 3), Vec::<RawDocumentBuf>::new());
        // A source's own chunks, of which the first begins below everything.
        let chunks = vec![rawdoc! { "a": RawBson::MinKey }, rawdoc! { "a": 5 }, rawdoc! { "a": 9 }];
        assert_eq!(cuts(chunks.clone(), 3), [rawdoc! { "a": 5 }, rawdoc! { "a": 9 }]);
        assert_eq!(cuts(chunks, 2), [rawdoc! { "a": 5 }]);
    }
}
