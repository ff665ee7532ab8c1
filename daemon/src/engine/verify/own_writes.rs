//! Remembers what this process writes to the destination, until the destination's own change stream
//! has reported it.
//!
//! The stream does not say who wrote. What we write we know: each command's keys, and the span of
//! the server's time in which it did its work, from the newest time known before it was sent to the
//! `operationTime` of its reply. An event of that key within that span is ours; one that a stranger
//! slips into it concerns a document that is compared again after the command anyway.
//!
//! The shards of a cluster have a clock each, of which one may lag behind the newest time that is
//! known. There the span begins where the stream has come to: what it has reported before that is
//! not ours.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mongodb::bson::RawDocument;
use schemas::cluster_time::ClusterTime;
use schemas::namespace::STORED_FUNCTIONS;

use crate::engine::document_key;
use crate::engine::element::{Element, elements, field};
use crate::mongo::write_observer::WriteObserver;

/// Keys that are remembered at most, about 60 bytes each. Past them nothing is, until a quiet
/// moment: see [`OwnWrites::is_lost`].
const MOST_KEYS: usize = 400_000;

/// When a key was written to by us.
#[derive(Debug, Clone, Copy)]
struct Span {
    after: ClusterTime,
    until: ClusterTime,
    on_its_way: u32,
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<u64, Span>,
    /// Ended commands, until the stream has passed them.
    ended: VecDeque<(ClusterTime, Vec<u64>)>,
    on_its_way: HashMap<u64, Vec<u64>>,
    next: u64,
    newest: Option<ClusterTime>,
    /// Up to where the stream has reported all shards, where there are several.
    told: Option<ClusterTime>,
    remembers: bool,
}

/// What this process writes to one destination.
#[derive(Debug, Default)]
pub struct OwnWrites {
    known: Mutex<Known>,
}

/// A change of a document, or of what a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched<'a> {
    /// A document, by its `_id`.
    Document(&'a Element<'a>),
    /// A collection, made by a command or by the first document in it.
    Made,
    /// A definition.
    Definition,
}

/// A collection's name, or that of the collection whose buckets these are.
fn owner(collection: &str) -> &str {
    collection.strip_prefix("system.buckets.").unwrap_or(collection)
}

fn key_of(db: &str, collection: &str, touched: Touched<'_>, collated: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    (db, owner(collection)).hash(&mut hasher);
    match touched {
        Touched::Document(id) => {
            (0_u8, collated, document_key::hash_value(id, collated)).hash(&mut hasher)
        }
        Touched::Made => 1_u8.hash(&mut hasher),
        Touched::Definition => 2_u8.hash(&mut hasher),
    }
    hasher.finish()
}

/// A string compares by the collation of its collection, which a command does not name.
fn may_be_collated(id: &Element<'_>) -> bool {
    matches!(id.kind, 0x02..=0x04 | 0x0e)
}

fn push_document(keys: &mut Vec<u64>, db: &str, collection: &str, id: &Element<'_>) {
    keys.push(key_of(db, collection, Touched::Document(id), false));
    if may_be_collated(id) {
        keys.push(key_of(db, collection, Touched::Document(id), true));
    }
}

fn changes_something(command: &RawDocument) -> bool {
    const COMMANDS: [&[u8]; 14] = [
        b"insert",
        b"update",
        b"delete",
        b"renameCollection",
        b"create",
        b"drop",
        b"collMod",
        b"createIndexes",
        b"dropIndexes",
        b"convertToCapped",
        b"dropDatabase",
        b"shardCollection",
        b"moveRange",
        b"moveChunk",
    ];
    elements(command).next().is_some_and(|first| COMMANDS.contains(&first.name))
}

/// The keys that a command may touch; `None`: it cannot be read.
fn touched_by(db: &str, command: &RawDocument) -> Option<Vec<u64>> {
    let first = elements(command).next()?;
    let text = |element: &Element<'_>| {
        let bytes = element.value.get(4..)?.strip_suffix(b"\0")?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    };
    let (list, is_statement) = match first.name {
        b"insert" => ("documents", false),
        b"update" => ("updates", true),
        b"delete" => ("deletes", true),
        b"renameCollection" => {
            let to = field(command, "to").and_then(|to| text(&to));
            let names = [text(&first), to].into_iter().flatten();
            return Some(
                names
                    .filter_map(|name| {
                        let (db, collection) = name.split_once('.')?;
                        Some(key_of(db, collection, Touched::Definition, false))
                    })
                    .collect(),
            );
        }
        b"create" | b"drop" | b"collMod" | b"createIndexes" | b"dropIndexes"
        | b"convertToCapped" => {
            return Some(vec![key_of(db, &text(&first)?, Touched::Definition, false)]);
        }
        // Each makes the collection, or its indexes, on shards that did not have them.
        b"shardCollection" | b"moveRange" | b"moveChunk" => {
            let name = text(&first)?;
            let (db, collection) = name.split_once('.')?;
            return Some(vec![key_of(db, collection, Touched::Definition, false)]);
        }
        // Stored functions go with their database alone, and are reported.
        b"dropDatabase" => {
            return Some(
                ["", STORED_FUNCTIONS]
                    .map(|name| key_of(db, name, Touched::Definition, false))
                    .to_vec(),
            );
        }
        _ => return None,
    };
    let collection = text(&first)?;
    let mut keys = vec![key_of(db, &collection, Touched::Made, false)];
    for statement in field(command, list)?.document().into_iter().flat_map(elements) {
        let Some(statement) = statement.document() else { continue };
        if !is_statement {
            if let Some(id) = field(statement, "_id") {
                push_document(&mut keys, db, &collection, &id);
            }
            continue;
        }
        let id = field(statement, "q").and_then(|filter| field(filter.document()?, "_id"));
        let Some(id) = id else { continue };
        let of = |operator| id.document().and_then(|inner| field(inner, operator));
        match (of("$eq"), of("$in")) {
            (Some(one), _) => push_document(&mut keys, db, &collection, &one),
            (None, Some(list)) => {
                for one in list.document().into_iter().flat_map(elements) {
                    push_document(&mut keys, db, &collection, &one);
                }
            }
            (None, None) => push_document(&mut keys, db, &collection, &id),
        }
    }
    Some(keys)
}

impl WriteObserver for OwnWrites {
    fn began(&self, db: &str, command: &RawDocument) -> Option<u64> {
        if !changes_something(command) {
            return None;
        }
        {
            // A copy of millions is not to be hashed for nobody.
            let mut known = self.lock();
            if !known.remembers {
                return Some(known.ticket(Vec::new()));
            }
        }
        let mut keys = touched_by(db, command).unwrap_or_default();
        let mut known = self.lock();
        let known = &mut *known;
        if known.remembers && known.keys.len() + keys.len() > MOST_KEYS {
            known.forget();
        }
        match (known.remembers, known.told.or(known.newest)) {
            (true, Some(newest)) => {
                for key in &keys {
                    let span = known.keys.entry(*key).or_insert(Span {
                        after: newest,
                        until: newest,
                        on_its_way: 0,
                    });
                    span.on_its_way += 1;
                }
            }
            _ => keys.clear(),
        }
        Some(known.ticket(keys))
    }

    fn ended(&self, ticket: u64, time: Option<ClusterTime>) {
        let mut known = self.lock();
        let known = &mut *known;
        let keys = known.on_its_way.remove(&ticket).unwrap_or_default();
        known.newest = known.newest.max(time);
        if !known.remembers {
            return;
        }
        let Some(time) = time else {
            // Whether it was done, and when, nobody can tell.
            known.forget();
            return;
        };
        for key in &keys {
            if let Some(span) = known.keys.get_mut(key) {
                span.on_its_way = span.on_its_way.saturating_sub(1);
                span.until = span.until.max(time);
            }
        }
        known.ended.push_back((time, keys));
    }
}

impl Known {
    fn ticket(&mut self, keys: Vec<u64>) -> u64 {
        self.next += 1;
        self.on_its_way.insert(self.next, keys);
        self.next
    }

    fn forget(&mut self) {
        self.keys = HashMap::new();
        self.ended = VecDeque::new();
        self.remembers = false;
        for keys in self.on_its_way.values_mut() {
            *keys = Vec::new();
        }
    }
}

impl OwnWrites {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // What is half noted after a panic belongs to a process that stops.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what we have written is not known: from the start, after a command without a reply,
    /// and past [`MOST_KEYS`]. What the stream reports until then can only be judged by its
    /// content.
    pub fn is_lost(&self) -> bool {
        !self.lock().remembers
    }

    /// Begins to remember, at a moment at which nothing is on its way. `false`: something is.
    /// `told`: up to where the stream has come, where it is one of several shards.
    pub fn remember(&self, now: ClusterTime, told: Option<ClusterTime>) -> bool {
        let mut known = self.lock();
        if !known.on_its_way.is_empty() {
            return false;
        }
        known.forget();
        known.newest = known.newest.max(Some(now));
        known.told = told;
        known.remembers = true;
        true
    }

    /// Whether a change at this time may be ours. `collated`: strings of the collection's `_id`
    /// compare by a collation.
    pub fn is_ours(
        &self,
        db: &str,
        collection: &str,
        touched: Touched<'_>,
        collated: bool,
        time: ClusterTime,
    ) -> bool {
        let known = self.lock();
        let within = |key: u64| {
            known.keys.get(&key).is_some_and(|span| {
                time > span.after && (span.on_its_way > 0 || time <= span.until)
            })
        };
        match touched {
            Touched::Document(id) => {
                within(key_of(db, collection, touched, collated && may_be_collated(id)))
            }
            Touched::Made => {
                within(key_of(db, collection, touched, false))
                    || within(key_of(db, collection, Touched::Definition, false))
            }
            Touched::Definition => within(key_of(db, collection, touched, false)),
        }
    }

    /// Forgets what the stream has reported up to this time.
    pub fn told(&self, through: ClusterTime) {
        let mut known = self.lock();
        let known = &mut *known;
        known.newest = known.newest.max(Some(through));
        known.told = known.told.map(|told| told.max(through));
        while known.ended.front().is_some_and(|(until, _)| *until <= through) {
            let Some((_, keys)) = known.ended.pop_front() else { return };
            for key in keys {
                if known
                    .keys
                    .get(&key)
                    .is_some_and(|span| span.on_its_way == 0 && span.until <= through)
                {
                    known.keys.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_KEYS, OwnWrites, Touched};
    use crate::engine::element::field;
    use crate::mongo::write_observer::WriteObserver as _;
    use mongodb::bson::{RawArrayBuf, RawDocumentBuf, rawdoc};
    use schemas::cluster_time::ClusterTime;

    const fn at(t: u32) -> ClusterTime {
        ClusterTime { t, i: 1 }
    }

    fn is_ours(own: &OwnWrites, id: &RawDocumentBuf, collated: bool, time: u32) -> bool {
        let id = field(id, "_id").expect("an _id");
        own.is_ours("shop", "orders", Touched::Document(&id), collated, at(time))
    }

    fn remembering() -> OwnWrites {
        let own = OwnWrites::default();
        assert!(own.is_lost());
        assert!(own.remember(at(10), None));
        own
    }

    #[test]
    fn what_a_command_wrote_is_ours_within_its_span_only() {
        let own = remembering();
        let insert = rawdoc! { "insert": "orders", "documents": [{ "a": 1, "_id": 7 }] };
        let ticket = own.began("shop", &insert).expect("a write");
        assert!(is_ours(&own, &rawdoc! { "_id": 7 }, false, 11), "on its way");
        own.ended(ticket, Some(at(20)));
        assert!(is_ours(&own, &rawdoc! { "_id": 7.0 }, false, 20), "equal to the server");
        assert!(!is_ours(&own, &rawdoc! { "_id": 7 }, false, 10), "before it");
        assert!(!is_ours(&own, &rawdoc! { "_id": 7 }, false, 21), "after it");
        assert!(!is_ours(&own, &rawdoc! { "_id": 8 }, false, 15), "another");
        assert!(own.is_ours("shop", "orders", Touched::Made, false, at(15)));
        assert!(!own.is_ours("shop", "orders", Touched::Definition, false, at(15)));
        own.told(at(20));
        assert!(!is_ours(&own, &rawdoc! { "_id": 7 }, false, 15), "told of");
    }

    #[test]
    fn of_several_shards_one_may_lag_behind_as_far_as_the_stream() {
        let own = OwnWrites::default();
        assert!(own.remember(at(10), Some(at(5))));
        let ticket = own
            .began("shop", &rawdoc! { "insert": "orders", "documents": [{ "_id": 7 }] })
            .expect("a write");
        own.ended(ticket, Some(at(12)));
        assert!(is_ours(&own, &rawdoc! { "_id": 7 }, false, 6), "on a shard whose clock is behind");
        assert!(!is_ours(&own, &rawdoc! { "_id": 7 }, false, 5), "told before");
        assert!(!is_ours(&own, &rawdoc! { "_id": 7 }, false, 13), "after it");
        own.told(at(9));
        let ticket = own
            .began("shop", &rawdoc! { "insert": "orders", "documents": [{ "_id": 8 }] })
            .expect("a write");
        own.ended(ticket, Some(at(20)));
        assert!(
            !is_ours(&own, &rawdoc! { "_id": 8 }, false, 9)
                && is_ours(&own, &rawdoc! { "_id": 8 }, false, 10)
        );
    }

    #[test]
    fn statements_are_known_by_their_filters() {
        let own = remembering();
        let update = rawdoc! {
            "update": "orders", "updates": [{ "q": { "_id": { "$eq": { "a": 1 } } }, "u": {} }],
        };
        let delete =
            rawdoc! { "delete": "orders", "deletes": [{ "q": { "_id": "Ärger" }, "limit": 1 }] };
        let several = rawdoc! {
            "delete": "orders", "deletes": [{ "q": { "_id": { "$in": [3, 4.0] } }, "limit": 0 }],
        };
        let tickets =
            [update, delete, several].map(|command| own.began("shop", &command).expect("a write"));
        for ticket in tickets {
            own.ended(ticket, Some(at(20)));
        }
        assert!(is_ours(&own, &rawdoc! { "_id": { "a": 1 } }, false, 15));
        assert!(
            is_ours(&own, &rawdoc! { "_id": 3_i64 }, false, 15)
                && is_ours(&own, &rawdoc! { "_id": 4 }, false, 15)
        );
        assert!(!is_ours(&own, &rawdoc! { "_id": 5 }, false, 15));
        assert!(is_ours(&own, &rawdoc! { "_id": "Ärger" }, false, 15));
        assert!(!is_ours(&own, &rawdoc! { "_id": "ärger" }, false, 15));
        assert!(is_ours(&own, &rawdoc! { "_id": "ärger" }, true, 15), "equal by a collation");
        assert!(own.began("shop", &rawdoc! { "find": "orders" }).is_none());
    }

    #[test]
    fn a_command_without_a_reply_makes_everything_unknown_until_a_quiet_moment() {
        let own = remembering();
        let command = rawdoc! { "collMod": "orders" };
        let first = own.began("shop", &command).expect("a write");
        let second = own.began("shop", &command).expect("a write");
        own.ended(first, None);
        assert!(own.is_lost());
        assert!(!own.remember(at(30), None), "the other is on its way");
        own.ended(second, Some(at(31)));
        assert!(own.remember(at(31), None));
        assert!(!own.is_lost());
        assert!(!own.is_ours("shop", "orders", Touched::Definition, false, at(31)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let own = remembering();
        let count = 100_000;
        for batch in 0..=MOST_KEYS / count {
            let mut documents = RawArrayBuf::new();
            for n in 0..count {
                documents.push(rawdoc! { "_id": i64::try_from(batch * count + n).expect("small") });
            }
            let ticket = own
                .began("shop", &rawdoc! { "insert": "orders", "documents": documents })
                .expect("a write");
            own.ended(ticket, Some(at(20)));
        }
        assert!(own.is_lost());
        assert!(own.lock().keys.is_empty() && own.lock().ended.is_empty());
    }
}
