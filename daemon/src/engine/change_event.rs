//! Change events, read from their raw BSON: what changed, where, and the token to go on from.

use mongodb::bson::{RawDocument, RawDocumentBuf};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::element;
use crate::mongo::cluster_time;

/// What happened to one document.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// It came to be, with this content.
    Insert(RawDocumentBuf),
    /// Its content is now this.
    Replace(RawDocumentBuf),
    /// The server's own description of a change (`{$v: 2, diff: …}`), which the server applies.
    Diff(RawDocumentBuf),
    /// It changed in a way that is not told exactly: its content is read again from the source.
    Reread,
    /// It is gone.
    Delete,
    /// It is gone, where it still has this key: its `_id` and the shard key. Where its shard key
    /// changed, the document is deleted on one shard and inserted on another, and which comes first
    /// is not known.
    DeleteKeyed(RawDocumentBuf),
}

impl Op {
    /// What it brings.
    #[must_use]
    pub fn content(&self) -> Option<&RawDocument> {
        match self {
            Self::Insert(content) | Self::Replace(content) | Self::Diff(content) => Some(content),
            Self::Reread | Self::Delete | Self::DeleteKeyed(_) => None,
        }
    }
}

/// What happened to one document of one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Where.
    pub namespace: Namespace,
    /// A document `{_id: …}`.
    pub id: RawDocumentBuf,
    /// What.
    pub op: Op,
}

/// What happened to a collection or its indexes.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    /// It was made, with these options.
    Create(Namespace, RawDocumentBuf),
    /// It was dropped.
    Drop(Namespace),
    /// It has another name now; one that had that name is gone.
    Rename(Namespace, Namespace),
    /// The database is gone; its collections were dropped by events of their own.
    DropDatabase(String),
    /// Indexes were built.
    CreateIndexes(Namespace, Vec<RawDocumentBuf>),
    /// Indexes of these names were dropped.
    DropIndexes(Namespace, Vec<String>),
    /// `collMod`, with what it changed.
    Modify(Namespace, RawDocumentBuf),
    /// It was sharded, or is sharded by another key.
    Shard(Namespace),
}

/// What an event says.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A document changed.
    Change(Change),
    /// A definition changed.
    Definition(Definition),
    /// Nothing that a destination has to follow.
    Nothing,
    /// It is of something whose name is no UTF-8: as it is shown, of what kind the event is, and
    /// what is to be followed of it where that name is out of scope.
    Odd(Namespace, String, Option<Definition>),
    /// A kind that this version does not know, of this namespace where it has one.
    Unknown(String, Option<Namespace>),
}

/// One event of a change stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it was committed.
    pub time: ClusterTime,
    /// To go on behind it.
    pub token: RawDocumentBuf,
    /// What it says.
    pub what: What,
    /// Its size, in bytes.
    pub bytes: usize,
    /// Of a definition: the bytes that are the same on every shard that reports it.
    pub kind: Vec<u8>,
    /// Of a definition, and of whatever a shard reports: the collection's UUID, where the server
    /// reports it.
    pub uuid: Option<Vec<u8>>,
}

/// Events of newer servers about work that is under way, and about where shards keep what they
/// have: the data stays the same.
const WITHOUT_CHANGE: [&str; 9] = [
    "startIndexBuild",
    "abortIndexBuild",
    "commitIndexBuild",
    "endOfTransaction",
    // Where the chunk goes is reported there; that no shard is followed that has just joined is
    // seen to apart.
    "migrateChunkToNewShard",
    "migrateLastChunkFromShard",
    // Steps of resharding, moveCollection and unshardCollection (SERVER-50636, SERVER-98981); their
    // end is told as reshardCollection.
    "reshardBegin",
    "reshardBlockingWrites",
    "reshardDoneCatchUp",
];

fn malformed(what: &str) -> Fault {
    Fault::new(FaultCode::Internal, format!("a change event has no {what}"))
}

fn namespace(event: &RawDocument, field: &str) -> Result<Namespace, Fault> {
    let ns = event.get_document(field).map_err(|_| malformed(field))?;
    Ok(Namespace::new(
        ns.get_str("db").map_err(|_| malformed("ns.db"))?,
        ns.get_str("coll").map_err(|_| malformed("ns.coll"))?,
    ))
}

/// A rename from a name that is no UTF-8, or to one, as it is shown.
fn renamed(event: &RawDocument) -> Option<Definition> {
    let of = |field: &str| {
        let ns = event.get_document(field).ok()?;
        Some(Namespace::new(
            element::shown(element::text(ns, "db")?),
            element::shown(element::text(ns, "coll")?),
        ))
    };
    Some(Definition::Rename(of("ns")?, of("to")?))
}

/// The namespace in an event that is no UTF-8, as it is shown; of a rename, the one of the two that
/// is.
fn odd_namespace(event: &RawDocument) -> Option<Namespace> {
    ["ns", "to"].into_iter().find_map(|field| {
        let ns = event.get_document(field).ok()?;
        let (db, collection) =
            (element::text(ns, "db")?, element::text(ns, "coll").unwrap_or_default());
        let is_odd = [db, collection].iter().any(|name| std::str::from_utf8(name).is_err());
        is_odd.then(|| Namespace::new(element::shown(db), element::shown(collection)))
    })
}

fn id_of(document: &RawDocument) -> Result<RawDocumentBuf, Fault> {
    element::id_of(document).ok_or_else(|| malformed("_id"))
}

fn description(event: &RawDocument) -> RawDocumentBuf {
    event.get_document("operationDescription").map(RawDocument::to_owned).unwrap_or_default()
}

fn uuid(event: &RawDocument) -> Option<Vec<u8>> {
    element::field(event, "collectionUUID").map(|uuid| uuid.value.to_vec())
}

impl Event {
    /// Reads an event that one of several shards reports: of which collection a change is counts
    /// then, too.
    pub fn read_of_shard(event: &RawDocument) -> Result<Self, Fault> {
        Ok(Self { uuid: uuid(event), ..Self::read(event)? })
    }

    /// Reads an event.
    pub fn read(event: &RawDocument) -> Result<Self, Fault> {
        let token = event.get_document("_id").map_err(|_| malformed("_id"))?.to_owned();
        let time = event
            .get_timestamp("clusterTime")
            .map(cluster_time)
            .map_err(|_| malformed("clusterTime"))?;
        let operation = event.get_str("operationType").map_err(|_| malformed("operationType"))?;
        let change = |op: Op| -> Result<What, Fault> {
            let key = event.get_document("documentKey").map_err(|_| malformed("documentKey"))?;
            Ok(What::Change(Change { namespace: namespace(event, "ns")?, id: id_of(key)?, op }))
        };
        // The content is left out of events that are too large with it.
        let full = |op: fn(RawDocumentBuf) -> Op| {
            event.get_document("fullDocument").map_or(Op::Reread, |full| op(full.to_owned()))
        };
        let what = match operation {
            kind if let Some(odd) = odd_namespace(event) => {
                What::Odd(odd, kind.to_owned(), renamed(event))
            }
            "insert" => change(full(Op::Insert))?,
            "replace" => change(full(Op::Replace))?,
            "delete" => {
                let key =
                    event.get_document("documentKey").map_err(|_| malformed("documentKey"))?;
                let has_more = element::elements(key).nth(1).is_some();
                change(if has_more { Op::DeleteKeyed(key.to_owned()) } else { Op::Delete })?
            }
            "update" => change(match event.get_document("rawUpdateDescription") {
                Ok(raw) if is_delta(raw) => Op::Diff(raw.to_owned()),
                _ => Op::Reread,
            })?,
            "create" => {
                What::Definition(Definition::Create(namespace(event, "ns")?, description(event)))
            }
            "drop" => What::Definition(Definition::Drop(namespace(event, "ns")?)),
            "rename" => What::Definition(Definition::Rename(
                namespace(event, "ns")?,
                namespace(event, "to")?,
            )),
            "dropDatabase" => {
                let ns = event.get_document("ns").map_err(|_| malformed("ns"))?;
                What::Definition(Definition::DropDatabase(
                    ns.get_str("db").map_err(|_| malformed("ns.db"))?.to_owned(),
                ))
            }
            "createIndexes" => What::Definition(Definition::CreateIndexes(
                namespace(event, "ns")?,
                indexes(&description(event))?,
            )),
            "dropIndexes" => {
                // One whose name is no UTF-8 was never made.
                let is_odd = |name: &[u8]| std::str::from_utf8(name).is_err();
                let specs = indexes(&description(event))?;
                let names = specs.iter().map(|spec| {
                    element::text(spec, "name").ok_or_else(|| malformed("name of an index"))
                });
                let names: Vec<&[u8]> = names.collect::<Result<_, _>>()?;
                let names =
                    names.into_iter().filter(|name| !is_odd(name)).map(element::shown).collect();
                What::Definition(Definition::DropIndexes(namespace(event, "ns")?, names))
            }
            kind if WITHOUT_CHANGE.contains(&kind) => What::Nothing,
            "modify" => {
                What::Definition(Definition::Modify(namespace(event, "ns")?, description(event)))
            }
            "shardCollection" | "refineCollectionShardKey" | "reshardCollection" => {
                What::Definition(Definition::Shard(namespace(event, "ns")?))
            }
            other => What::Unknown(other.to_owned(), namespace(event, "ns").ok()),
        };
        let (kind, uuid) = match &what {
            What::Definition(_) | What::Odd(_, _, Some(_)) => (kind_of(event), uuid(event)),
            What::Change(_) | What::Nothing | What::Odd(_, _, None) | What::Unknown(..) => {
                (Vec::new(), None)
            }
        };
        Ok(Self { time, token, what, bytes: event.as_bytes().len(), kind, uuid })
    }
}

/// What names a definition on every shard alike: what was done, to which collection, how. What a
/// rename replaces is reported by the shards alone that have some of it.
fn kind_of(event: &RawDocument) -> Vec<u8> {
    let mut kind = Vec::new();
    let is_rename = event.get_str("operationType").is_ok_and(|operation| operation == "rename");
    let how = if is_rename { None } else { Some("operationDescription") };
    for name in ["operationType", "ns", "to", "collectionUUID"].into_iter().chain(how) {
        if let Some(field) = element::field(event, name) {
            kind.extend_from_slice(name.as_bytes());
            kind.extend_from_slice(field.value);
        }
    }
    kind
}

/// Whether a raw description is one that the server's own stage applies.
fn is_delta(raw: &RawDocument) -> bool {
    crate::mongo::number(raw, "$v") == Some(2) && raw.get_document("diff").is_ok()
}

fn indexes(description: &RawDocument) -> Result<Vec<RawDocumentBuf>, Fault> {
    let listed = element::field(description, "indexes").and_then(|listed| listed.document());
    let specs = listed.into_iter().flat_map(element::elements);
    specs
        .map(|spec| {
            spec.document()
                .map(RawDocument::to_owned)
                .ok_or_else(|| malformed("index that can be read"))
        })
        .collect()
}

/// The cluster time inside a resume token: its `_data` is hexadecimal, a type byte and then seconds
/// and ordinal, big-endian (the server's `resume_token.h`).
#[must_use]
pub fn token_time(token: &RawDocument) -> Option<ClusterTime> {
    let data = token.get_str("_data").ok()?;
    if !data.starts_with("82") {
        return None;
    }
    Some(ClusterTime {
        t: u32::from_str_radix(data.get(2..10)?, 16).ok()?,
        i: u32::from_str_radix(data.get(10..18)?, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Definition, Event, Op, What, token_time};
    use mongodb::bson::{Timestamp, rawdoc};
    use schemas::cluster_time::ClusterTime;
    use schemas::namespace::Namespace;

    #[test]
    fn a_token_carries_its_time() {
        let token = rawdoc! { "_data": "8265F0A1B2000000012B0229296E04" };
        assert_eq!(token_time(&token), Some(ClusterTime { t: 0x65f0_a1b2, i: 1 }));
        assert_eq!(token_time(&rawdoc! { "_data": "xx" }), None);
    }

    #[test]
    fn steps_of_a_resharding_change_nothing_and_new_kinds_keep_their_namespace() {
        let read = |operation: &str| {
            let event = rawdoc! {
                "_id": { "_data": "82" }, "operationType": operation,
                "clusterTime": Timestamp { time: 5, increment: 1 },
                "ns": { "db": "a", "coll": "b" },
            };
            Event::read(&event).expect("an event").what
        };
        for step in ["reshardBegin", "reshardBlockingWrites", "reshardDoneCatchUp"] {
            assert_eq!(read(step), What::Nothing);
        }
        assert_eq!(
            read("weave"),
            What::Unknown("weave".to_owned(), Some(Namespace::new("a", "b")))
        );
    }

    #[test]
    fn another_shard_key_is_a_definition() {
        for operation in ["shardCollection", "refineCollectionShardKey", "reshardCollection"] {
            let event = rawdoc! {
                "_id": { "_data": "82" }, "operationType": operation,
                "clusterTime": Timestamp { time: 5, increment: 1 },
                "ns": { "db": "a", "coll": "b" },
                "operationDescription": { "shardKey": { "b": 1 } },
            };
            let what = Event::read(&event).expect("an event").what;
            assert_eq!(what, What::Definition(Definition::Shard(Namespace::new("a", "b"))));
        }
    }

    #[test]
    fn an_update_without_the_servers_delta_is_read_again() {
        let event = |extra: mongodb::bson::RawDocumentBuf| {
            let mut event = rawdoc! {
                "_id": { "_data": "82" }, "operationType": "update",
                "clusterTime": Timestamp { time: 5, increment: 1 },
                "ns": { "db": "a", "coll": "b" }, "documentKey": { "_id": 1 },
            };
            for (key, value) in extra.iter().flatten() {
                event.append(key, value);
            }
            match Event::read(&event).expect("an event").what {
                What::Change(change) => change.op,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            event(rawdoc! { "updateDescription": { "updatedFields": { "a": 1 } } }),
            Op::Reread
        );
        assert_eq!(event(rawdoc! { "rawUpdateDescription": { "$v": 1 } }), Op::Reread);
        let mut large = rawdoc! {
            "_id": { "_data": "82" }, "operationType": "insert",
            "clusterTime": Timestamp { time: 5, increment: 1 },
            "ns": { "db": "a", "coll": "b" }, "documentKey": { "_id": 1 },
        };
        let op =
            |event: &mongodb::bson::RawDocument| match Event::read(event).expect("an event").what {
                What::Change(change) => change.op,
                other => panic!("{other:?}"),
            };
        assert_eq!(op(&large), Op::Reread);
        large.append(mongodb::bson::cstr!("fullDocument"), rawdoc! { "_id": 1 });
        assert_eq!(op(&large), Op::Insert(rawdoc! { "_id": 1 }));
        let delta = rawdoc! { "$v": 2, "diff": { "u": { "a": 1 } } };
        assert_eq!(event(rawdoc! { "rawUpdateDescription": delta.clone() }), Op::Diff(delta));
    }
}
