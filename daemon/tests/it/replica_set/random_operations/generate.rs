//! Draws a plan from a seed: what is there before, what each client does, and what goes wrong
//! meanwhile.

pub(crate) mod cluster;
mod settings;

use std::fmt;

use self::settings::Declared;
use daemon::engine::tuning::Tuning;
use mongodb::bson::{Bson, DateTime, Decimal128, Document, Timestamp, doc, oid::ObjectId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// One thing that a client does.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// A command on a database.
    Command { db: String, command: Document },
    /// Commands in one transaction.
    Transaction { commands: Vec<(String, Document)>, commits: bool },
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The engine's next commands of some kinds fail so, on the replica set or on a shard.
    Faults {
        on_source: bool,
        times: i32,
        data: Document,
    },
    Restart,
    Kill,
    /// A replica set, or a shard.
    SourceStepsDown,
    DestinationStepsDown,
    /// A cluster's config server.
    SourceConfigStepsDown,
    DestinationConfigStepsDown,
    /// Somebody moves a chunk of the destination to another of its shards.
    DestinationChunkMoves,
}

/// A run of the test.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) tuning: Tuning,
    pub(crate) declared: Declared,
    /// How long the destination's first insertions take.
    pub(crate) slow_copy: Option<i32>,
    pub(crate) before: Vec<Operation>,
    /// What each client does, each operation after a pause: a share of the longest.
    pub(crate) clients: Vec<Vec<(f64, Operation)>>,
    /// What goes wrong, each so many milliseconds after the one before.
    pub(crate) events: Vec<(u64, Event)>,
}

impl Event {
    /// What it is, in words.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Faults { on_source: true, .. } => "source fails",
            Self::Faults { on_source: false, .. } => "destination fails",
            Self::Restart => "restart",
            Self::Kill => "kill",
            Self::SourceStepsDown => "source steps down",
            Self::DestinationStepsDown => "destination steps down",
            Self::SourceConfigStepsDown => "source's config server steps down",
            Self::DestinationConfigStepsDown => "destination's config server steps down",
            Self::DestinationChunkMoves => "destination's chunk moves",
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events =
            self.events.iter().map(|(_, event)| event.name()).collect::<Vec<_>>().join(", ");
        write!(
            f,
            "{} operations before, {} of {} clients; {}; {events}",
            self.before.len(),
            self.operations() - self.before.len(),
            self.clients.len(),
            self.ways()
        )
    }
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut hand = Hand {
            rng: StdRng::seed_from_u64(seed),
            series: Series::default(),
            collections: &COLLECTIONS,
        };
        let before = (0..40).map(|_| hand.operation()).collect();
        let clients = (0..hand.rng.random_range(2..=4))
            .map(|client| {
                hand.series = Series { name: format!("series{client}"), made: false };
                (0..hand.rng.random_range(40..90))
                    .map(|_| (hand.rng.random(), hand.operation()))
                    .collect()
            })
            .collect();
        let events = hand.events(Hand::event);
        let slow_copy = hand.one_in(2).then(|| hand.rng.random_range(5..40));
        Self {
            tuning: hand.tuning(),
            declared: hand.declared(),
            slow_copy,
            before,
            clients,
            events,
        }
    }

    pub(crate) fn operations(&self) -> usize {
        self.before.len() + self.clients.iter().map(Vec::len).sum::<usize>()
    }

    /// Without one of so many parts of its operations.
    pub(crate) fn without(&self, part: usize, parts: usize) -> Self {
        let (operations, mut place) = (self.operations(), 0);
        let mut is_kept = move || {
            let at = place * parts / operations.max(1);
            place += 1;
            at != part
        };
        let mut plan = self.clone();
        plan.before.retain(|_| is_kept());
        plan.clients.iter_mut().for_each(|operations| operations.retain(|_| is_kept()));
        plan
    }
}

/// The last is that of the clients' time-series collections.
pub(super) const DATABASES: [&str; 4] = ["one", "two", "three", SERIES];
const COLLECTIONS: [&str; 6] = ["a", "b", "c", "d", "e.f", "g"];
const FIELDS: [&str; 9] =
    ["a", "b", "c", "list", "nested", "nested.x", "nested.list", "list.1", "list.0.k"];
const INDEXES: [&str; 6] = ["i0", "i1", "i2", "i3", "i4", "i5"];

/// A client's own time-series collection. Where one is made while another client's insertion makes
/// a plain collection of that name, 6.0.5 leaves buckets beside the plain one, and takes one for
/// the other from then on.
#[derive(Debug, Default)]
struct Series {
    name: String,
    made: bool,
}

/// The database of the clients' time-series collections.
pub(super) const SERIES: &str = "four";

struct Hand {
    rng: StdRng,
    series: Series,
    collections: &'static [&'static str],
}

impl Hand {
    fn one_in(&mut self, many: u32) -> bool {
        self.rng.random_range(0..many) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.rng).expect("choices")
    }

    /// What goes wrong in a plan: some of what `event` draws, many commands that fail, or some of
    /// both.
    fn events(&mut self, event: impl Fn(&mut Self) -> Event) -> Vec<(u64, Event)> {
        match self.rng.random_range(0..3) {
            0 => (0..self.rng.random_range(0..=3))
                .map(|_| (self.rng.random_range(50..700), event(self)))
                .collect(),
            1 => (0..self.rng.random_range(4..16))
                .map(|_| (self.rng.random_range(10..200), self.faults()))
                .collect(),
            _ => (0..self.rng.random_range(2..8))
                .map(|_| {
                    (
                        self.rng.random_range(10..400),
                        if self.one_in(3) { event(self) } else { self.faults() },
                    )
                })
                .collect(),
        }
    }

    fn event(&mut self) -> Event {
        match self.rng.random_range(0..10) {
            0..3 => Event::Restart,
            3..7 => Event::Kill,
            7 => Event::SourceStepsDown,
            _ => Event::DestinationStepsDown,
        }
    }

    fn faults(&mut self) -> Event {
        let on_source = self.one_in(3);
        let commands: &[&str] = if on_source {
            self.of(&[
                &["find", "getMore"][..],
                &["aggregate", "getMore"],
                &["listCollections", "listIndexes", "listDatabases"],
                &["appendOplogNote", "hello"],
            ])
        } else {
            self.of(&[
                &["insert", "update", "delete"][..],
                &["create", "drop", "renameCollection"],
                &["createIndexes", "dropIndexes", "collMod"],
                &["find", "aggregate", "listCollections"],
            ])
        };
        let commands: Vec<Bson> = commands.iter().map(|command| Bson::from(*command)).collect();
        let mut data = doc! { "failCommands": commands, "appName": "cutover" };
        match self.rng.random_range(0..4) {
            0 => data.insert("closeConnection", true),
            // Elections, shutdowns, lost connections within the cluster, write conflicts, a full
            // disk.
            1 | 2 => {
                data.insert("errorCode", self.of(&[11_602, 189, 91, 10_107, 6, 89, 112, 14_031]))
            }
            // Done, and not known to a majority in time.
            _ => data.insert(
                "writeConcernError",
                doc! { "code": self.of(&[64, 91, 189]), "errmsg": "as the failpoint says" },
            ),
        };
        Event::Faults { on_source, times: self.rng.random_range(1..5), data }
    }

    fn db(&mut self) -> String {
        self.of(&DATABASES[..3]).to_owned()
    }

    fn collection(&mut self) -> String {
        self.of(self.collections).to_owned()
    }

    /// Few keys, and many forms of each.
    fn id(&mut self) -> Bson {
        let n = self.rng.random_range(0..8_i32);
        let decimal =
            |text: String| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"));
        match self.rng.random_range(0..16) {
            0..4 => n.into(),
            4 => i64::from(n).into(),
            5 => f64::from(n).into(),
            6 => decimal(n.to_string()),
            7 => decimal(format!("{n}.0")),
            8 => self.of(&["a", "A", "b", "B", "\u{e4}", "NaN", "a\0b"]).into(),
            9 => doc! { "k": n % 3 }.into(),
            10 => doc! { "k": f64::from(n % 5) / 2.0 }.into(),
            11 => self.of(&[f64::NAN, -0.0, 0.5, f64::INFINITY]).into(),
            12 => Bson::Null,
            // A clustered collection reports in other words that these are there already.
            13 => self.of(&[1.5, -2.5, 1e300, -1e300, 5e-324]).into(),
            14 => decimal(
                self.of(&["0.5", "1.50", "-0.1", "1E+300", "1E-6000", "NaN", "-Infinity"])
                    .to_owned(),
            ),
            _ => ObjectId::from_bytes([u8::try_from(n).expect("small"); 12]).into(),
        }
    }

    fn value(&mut self, depth: u32) -> Bson {
        let n = self.rng.random_range(-3..40_i32);
        match self.rng.random_range(0..if depth > 2 { 8 } else { 13 }) {
            0..3 => n.into(),
            3 => i64::from(n).into(),
            4 => (f64::from(n) / 2.0).into(),
            5 => self.of(&["x", "y", "long text ".repeat(8).leak(), ""]).into(),
            6 => Bson::Null,
            7 => {
                self.of(&[Bson::Boolean(true).as_bool(), None]).map_or(Bson::MinKey, Bson::Boolean)
            }
            8 => DateTime::from_millis(i64::from(n) * 1_000_000).into(),
            9 => Timestamp { time: 0, increment: u32::from(n > 20) }.into(),
            10 => self.list(depth).into(),
            _ => self.fields(depth + 1).into(),
        }
    }

    fn list(&mut self, depth: u32) -> Vec<Bson> {
        (0..self.rng.random_range(0..6)).map(|_| self.value(depth + 1)).collect()
    }

    fn fields(&mut self, depth: u32) -> Document {
        let mut document = Document::new();
        for _ in 0..self.rng.random_range(0..5) {
            let name = self.of(&["a", "b", "c", "list", "nested", "x", "k", "0", "$d", "a.b", ""]);
            let value = if name == "list" { self.list(depth).into() } else { self.value(depth) };
            document.insert(name, value);
        }
        document
    }

    fn document(&mut self) -> Document {
        let mut document = doc! { "_id": self.id() };
        document.extend(self.fields(0));
        document
    }

    fn filter(&mut self) -> Document {
        match self.rng.random_range(0..6) {
            0..4 => doc! { "_id": { "$eq": self.id() } },
            4 => doc! { "a": { "$gt": self.rng.random_range(-3..40) } },
            _ => doc! {},
        }
    }

    fn operators(&mut self) -> Document {
        let mut update = Document::new();
        for _ in 0..self.rng.random_range(1..4) {
            let field = self.of(&FIELDS);
            let (operator, value): (_, Bson) = match self.rng.random_range(0..14) {
                // A document that outgrows the bound of a capped collection.
                0 if self.one_in(4) => ("$set", "large".repeat(600).into()),
                0..4 => ("$set", self.value(1)),
                4 => ("$unset", 1.into()),
                5 => ("$inc", self.rng.random_range(-2..5).into()),
                6 => ("$rename", self.of(&["a", "b", "nested.y", "moved"]).into()),
                7 => ("$push", self.value(1)),
                8 => (
                    "$push",
                    doc! {
                        "$each": self.list(1), "$slice": self.rng.random_range(-3..4),
                        "$sort": self.of(&[1, -1]),
                    }
                    .into(),
                ),
                9 => (
                    "$push",
                    doc! { "$each": self.list(1), "$position": self.rng.random_range(0..3) }.into(),
                ),
                10 => ("$pop", self.of(&[1, -1]).into()),
                11 => ("$addToSet", self.value(1)),
                12 => ("$pull", self.value(1)),
                _ => ("$max", self.value(1)),
            };
            let entry = update.entry(operator.to_owned()).or_insert_with(|| Document::new().into());
            if let Bson::Document(entry) = entry {
                entry.insert(field, value);
            }
        }
        update
    }

    fn stages(&mut self) -> Vec<Bson> {
        (0..self.rng.random_range(1..3))
            .map(|_| match self.rng.random_range(0..7) {
                0 => doc! {
                    "$set": {
                        "list": {
                            "$concatArrays": [
                                {
                                    "$slice": [
                                        { "$cond": [{ "$isArray": "$list" }, "$list", []] },
                                        self.rng.random_range(1..3),
                                    ]
                                },
                                self.list(2),
                            ]
                        }
                    }
                },
                1 => doc! { "$unset": ["a", "nested.x"] },
                2 => doc! {
                    "$replaceWith": {
                        "$setField": {
                            "field": { "$literal": self.of(&["a.b", "$d", "0"]) },
                            "input": "$$ROOT", "value": { "$literal": self.value(1) },
                        }
                    }
                },
                3 => doc! {
                    "$replaceWith": {
                        "$mergeObjects": [{ "$literal": self.fields(1) }, { "_id": "$_id" }]
                    }
                },
                4 => doc! {
                    "$set": { "nested": { "a": "$a", "b": { "$literal": self.value(1) } } }
                },
                5 => doc! { "$set": { "a": { "b": { "$literal": self.value(1) } } } },
                _ => doc! {
                    "$set": { self.of(&["a", "b", "c", "nested.x"]): { "$literal": self.value(1) } }
                },
            })
            .map(Bson::Document)
            .collect()
    }

    fn update(&mut self) -> Bson {
        match self.rng.random_range(0..10) {
            0..6 => self.operators().into(),
            6..8 => self.stages().into(),
            _ => {
                let mut replacement = self.fields(0);
                replacement.retain_plain();
                replacement.into()
            }
        }
    }

    fn data(&mut self) -> Document {
        let name = self.collection();
        match self.rng.random_range(0..20) {
            0..6 => {
                let documents: Vec<Document> =
                    (0..self.rng.random_range(1..6)).map(|_| self.document()).collect();
                doc! {
                    "insert": name, "documents": documents, "ordered": self.rng.random::<bool>(),
                    "bypassDocumentValidation": true,
                }
            }
            6..13 => {
                let updates: Vec<Document> = (0..self.rng.random_range(1..4))
                    .map(|_| {
                        let (filter, update) = (self.filter(), self.update());
                        let is_replacement = update
                            .as_document()
                            .is_some_and(|update| !update.keys().any(|key| key.starts_with('$')));
                        doc! {
                            "q": filter, "u": update, "upsert": self.one_in(3),
                            "multi": !is_replacement && self.one_in(3),
                        }
                    })
                    .collect();
                doc! {
                    "update": name, "updates": updates, "ordered": false,
                    "bypassDocumentValidation": true,
                }
            }
            13..16 => {
                doc! {
                    "delete": name,
                    "deletes": [
                        { "q": self.filter(), "limit": self.of(&[0, 1, 1]) },
                        { "q": self.filter(), "limit": 1 },
                    ],
                }
            }
            16..18 => {
                doc! {
                    "findAndModify": name, "query": self.filter(), "update": self.update(),
                    "upsert": self.one_in(3), "bypassDocumentValidation": true,
                }
            }
            _ => doc! { "findAndModify": name, "query": self.filter(), "remove": true },
        }
    }

    fn index(&mut self) -> Document {
        let mut index = match self.rng.random_range(0..9) {
            0..4 => doc! { "key": { self.of(&["a", "b", "nested.x", "list"]): self.of(&[1, -1]) } },
            4 => doc! { "key": { "a": 1, "b": -1 } },
            5 => doc! { "key": { self.of(&["a", "c"]): "hashed" } },
            6 => doc! { "key": { "b": "text" } },
            7 => doc! { "key": { "$**": 1 } },
            _ => doc! { "key": { "nested": "2dsphere" } },
        };
        // 6.0.5 gives a wildcard index an expiry when it is told to, and then ends itself: no such
        // name is ever told to.
        let is_wildcard = index.get_document("key").is_ok_and(|key| key.contains_key("$**"));
        index.insert("name", if is_wildcard { "wildcard" } else { self.of(&INDEXES) });
        match self.rng.random_range(0..9) {
            0..2 => index.insert("unique", true),
            2 => index.insert("sparse", true),
            3 => index.insert("partialFilterExpression", doc! { "a": { "$gt": 5 } }),
            4 => index.insert("expireAfterSeconds", 2_000_000_000),
            5 => index.insert("hidden", true),
            6 => index.insert("collation", doc! { "locale": "fr", "strength": 1 }),
            _ => None,
        };
        index
    }

    fn definition(&mut self) -> (String, Document) {
        let (db, name) = (self.db(), self.collection());
        let full = |db: &str, name: &str| format!("{db}.{name}");
        let command = match self.rng.random_range(0..34) {
            0 if self.one_in(2) => doc! { "create": name },
            0 => doc! { "create": name, "clusteredIndex": { "key": { "_id": 1 }, "unique": true } },
            30 => {
                doc! {
                    "create": name, "capped": true, "size": 4096,
                    "max": self.rng.random_range(2..9),
                }
            }
            31 => doc! { "collMod": name, "cappedSize": self.of(&[1_000, 4_096, 100_000]) },
            32 => doc! { "collMod": name, "cappedMax": self.rng.random_range(1..9) },
            33 => doc! { "convertToCapped": name, "size": self.of(&[1_000, 4_096]) },
            1 => doc! { "create": name, "capped": true, "size": self.of(&[4096, 100_000]) },
            2 => {
                doc! {
                    "create": name, "collation": { "locale": "en", "strength": self.of(&[1, 2]) },
                }
            }
            3 => {
                doc! {
                    "create": name, "clusteredIndex": { "key": { "_id": 1 }, "unique": true },
                    "expireAfterSeconds": 1_700_000_000,
                }
            }
            4..6 => {
                doc! {
                    "create": name, "viewOn": self.collection(),
                    "pipeline": [{ "$match": { "a": self.rng.random_range(0..9) } }],
                }
            }
            6 => {
                doc! {
                    "create": name, "validator": { "a": { "$type": "int" } },
                    "changeStreamPreAndPostImages": { "enabled": true },
                }
            }
            7..11 => doc! { "drop": name },
            11..13 => doc! { "createIndexes": name, "indexes": [self.index()] },
            13..16 => doc! { "createIndexes": name, "indexes": [self.index(), self.index()] },
            16..18 => doc! { "dropIndexes": name, "index": self.of(&INDEXES) },
            18 => doc! { "dropIndexes": name, "index": "*" },
            19 => {
                doc! {
                    "collMod": name,
                    "validator": self.of(&[Some(5), None]).map_or_else(
                        || doc! {}, |n| doc! { "a": { "$ne": n } },
                    ),
                    "validationLevel": self.of(&["off", "strict", "moderate"]),
                }
            }
            20 => {
                doc! {
                    "collMod": name,
                    "index": { "name": self.of(&INDEXES), "hidden": self.rng.random::<bool>() },
                }
            }
            21 => {
                doc! {
                    "collMod": name,
                    "index": {
                        "name": self.of(&INDEXES),
                        "expireAfterSeconds": self.rng.random_range(1_000_000_000..2_000_000_000),
                    },
                }
            }
            22 => {
                doc! {
                    "collMod": name,
                    "index": {
                        "name": self.of(&INDEXES), "prepareUnique": self.rng.random::<bool>(),
                    },
                }
            }
            23 => doc! { "convertToCapped": name, "size": 50_000 },
            24..28 => {
                let to =
                    full(&if self.one_in(4) { self.db() } else { db.clone() }, &self.collection());
                return (
                    "admin".to_owned(),
                    doc! {
                        "renameCollection": full(&db, &name), "to": to,
                        "dropTarget": !self.one_in(3),
                    },
                );
            }
            28 => {
                doc! {
                    "aggregate": name,
                    "pipeline": [{ "$out": { "db": self.db(), "coll": self.collection() } }],
                    "cursor": {},
                }
            }
            _ if self.one_in(3) => doc! { "dropDatabase": 1 },
            _ => {
                doc! {
                    "aggregate": name,
                    "pipeline": [
                        { "$merge": { "into": { "db": self.db(), "coll": self.collection() } } }
                    ],
                    "cursor": {},
                }
            }
        };
        (db, command)
    }

    /// Makes, fills, changes or drops the client's time-series collection.
    fn measure(&mut self) -> Document {
        let name = self.series.name.clone();
        if !self.series.made {
            self.series.made = true;
            return doc! {
                "create": name,
                "timeseries": {
                    "timeField": "t", "metaField": "a",
                    "granularity": self.of(&["seconds", "minutes"]),
                },
            };
        }
        match self.rng.random_range(0..12) {
            0 => {
                self.series.made = false;
                doc! { "drop": name }
            }
            1 => {
                doc! {
                    "delete": name,
                    "deletes": [{ "q": { "a": self.rng.random_range(0..3) }, "limit": 0 }],
                }
            }
            2 => {
                let meta = doc! { "$set": { "a": self.rng.random_range(0..3) } };
                doc! {
                    "update": name,
                    "updates": [
                        { "q": { "a": self.rng.random_range(0..3) }, "u": meta, "multi": true }
                    ],
                }
            }
            3 => {
                doc! {
                    "createIndexes": name,
                    "indexes": [{ "key": { "a": 1, "t": -1 }, "name": self.of(&INDEXES) }],
                }
            }
            4 => doc! { "dropIndexes": name, "index": self.of(&INDEXES) },
            5 => {
                doc! {
                    "collMod": name,
                    "expireAfterSeconds": self.rng.random_range(1_000_000_000..2_000_000_000_i64),
                }
            }
            6 => {
                doc! {
                    "collMod": name,
                    "timeseries": { "granularity": self.of(&["minutes", "hours"]) },
                }
            }
            _ => {
                let documents: Vec<Document> = (0..self.rng.random_range(1..8))
                    .map(|_| {
                        let mut document = self.document();
                        document.insert(
                            "t",
                            DateTime::from_millis(
                                1_700_000_000_000 + self.rng.random_range(0..100_000_000_i64),
                            ),
                        );
                        document.insert("a", self.rng.random_range(0..3));
                        document
                    })
                    .collect();
                doc! { "insert": name, "documents": documents, "ordered": false }
            }
        }
    }

    /// Several writes as one entry of the oplog, which no change stream reports.
    fn apply_ops(&mut self) -> Document {
        let operations: Vec<Document> = (0..self.rng.random_range(1..5))
            .map(|_| {
                let (ns, id, n) = (
                    format!("{}.{}", self.db(), self.collection()),
                    self.id(),
                    self.rng.random_range(0..40_i32),
                );
                match self.rng.random_range(0..4) {
                    0 => doc! { "op": "i", "ns": ns, "o": { "_id": id, "o": n } },
                    1 => doc! {
                        "op": "u", "ns": ns, "o2": { "_id": id },
                        "o": { "$v": 2, "diff": { "u": { "o": n } } },
                    },
                    2 => doc! {
                        "op": "u", "ns": ns, "o2": { "_id": id.clone() },
                        "o": { "_id": id, "o": n, "whole": true },
                    },
                    _ => doc! { "op": "d", "ns": ns, "o": { "_id": id } },
                }
            })
            .collect();
        doc! { "applyOps": operations }
    }

    fn operation(&mut self) -> Operation {
        if !self.series.name.is_empty() && self.one_in(10) {
            return Operation::Command { db: SERIES.to_owned(), command: self.measure() };
        }
        if self.one_in(12) {
            return Operation::Command { db: "admin".to_owned(), command: self.apply_ops() };
        }
        match self.rng.random_range(0..20) {
            0..4 => {
                let (db, command) = self.definition();
                Operation::Command { db, command }
            }
            4..6 => {
                let commands =
                    (0..self.rng.random_range(2..6)).map(|_| (self.db(), self.data())).collect();
                Operation::Transaction { commands, commits: !self.one_in(4) }
            }
            _ => Operation::Command { db: self.db(), command: self.data() },
        }
    }
}

/// A replacement has no name that an operator has.
trait RetainPlain {
    fn retain_plain(&mut self);
}

impl RetainPlain for Document {
    fn retain_plain(&mut self) {
        let odd: Vec<String> = self.keys().filter(|key| key.starts_with('$')).cloned().collect();
        for key in odd {
            self.remove(key);
        }
    }
}
