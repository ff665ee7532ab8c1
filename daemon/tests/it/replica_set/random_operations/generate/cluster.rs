//! Draws plans for sharded clusters: collections of several keys on several shards, and what a
//! router takes.
//!
//! `h1`, `h2` and the plain ones are sharded by `_id` or not at all: whatever is done to replica
//! sets is done to them. The documents of `k1` and `k2` lie by other fields, which change. There an
//! `_id` is unique only within a shard, and nothing but their writers keeps it unique over all: so
//! a client puts only `_id`s of its own there, and takes away what has that `_id` in the same
//! transaction.

use mongodb::bson::{Bson, Document, doc};
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{Event, Hand, Operation, Plan, Series};

/// Collections that any operation is done to.
const FREE: [&str; 5] = ["h1", "h2", "p1", "p2", "p.3"];
/// Collections whose key is not their `_id`, and the keys that they have at first.
pub(crate) const KEYED: [(&str, &[(&str, bool)]); 2] =
    [("k1", &[("a", false), ("b", false)]), ("k2", &[("n.x", true)])];
/// The databases, each with its primary shard.
const HOMES: [(&str, &str); 3] = [("one", "shard-0"), ("two", "shard-1"), ("three", "shard-2")];

/// What a source and a destination are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Three shards to a replica set.
    ClusterToSet,
    /// Three shards to two.
    ClusterToCluster,
    /// A replica set to three shards.
    SetToCluster,
}

impl Shape {
    pub(crate) const ALL: [Self; 3] =
        [Self::ClusterToSet, Self::ClusterToCluster, Self::SetToCluster];

    /// The names of what happens to its deployments, and to the run between them.
    pub(crate) fn events(self) -> Vec<&'static str> {
        let mut events =
            vec![Event::Restart, Event::Kill, Event::SourceStepsDown, Event::DestinationStepsDown];
        if self.has_cluster_source() {
            events.push(Event::SourceConfigStepsDown);
        }
        if self.has_cluster_destination() {
            events.extend([Event::DestinationConfigStepsDown, Event::DestinationChunkMoves]);
        }
        let faults = [true, false].map(|on_source| Event::Faults {
            on_source,
            times: 1,
            data: Document::new(),
        });
        events.iter().chain(&faults).map(Event::name).collect()
    }

    pub(crate) fn has_cluster_source(self) -> bool {
        self != Self::SetToCluster
    }

    pub(crate) fn has_cluster_destination(self) -> bool {
        self != Self::ClusterToSet
    }
}

/// A key as a server has it.
fn key_of(fields: &[(&str, bool)]) -> Document {
    fields
        .iter()
        .map(|(name, is_hashed)| {
            ((*name).to_owned(), if *is_hashed { "hashed".into() } else { Bson::from(1) })
        })
        .collect()
}

/// The longer key that `k1` can get.
fn refined() -> Document {
    doc! { "a": 1, "b": 1, "_id": 1 }
}

fn admin(command: Document) -> Operation {
    Operation::Command { db: "admin".to_owned(), command }
}

/// The keyed collection and the `_id` of the one document that a command changes there.
pub(crate) fn changed_by_key(command: &Document) -> Option<(&str, &Bson)> {
    let name = command
        .get_str("update")
        .ok()
        .filter(|name| KEYED.iter().any(|(keyed, _)| keyed == name))?;
    let [update] = command.get_array("updates").ok()?.as_slice() else { return None };
    Some((name, update.as_document()?.get_document("q").ok()?.get("_id")?))
}

/// Has such a command name the shard key that its document has: a router changes it for nobody who
/// does not.
pub(crate) fn name_key(command: &mut Document, document: &Document) {
    let Some((_, key)) =
        KEYED.iter().find(|(name, _)| command.get_str("update").ok() == Some(name))
    else {
        return;
    };
    let update = command
        .get_array_mut("updates")
        .ok()
        .and_then(|updates| updates.first_mut()?.as_document_mut());
    let Some(filter) = update.and_then(|update| update.get_document_mut("q").ok()) else { return };
    for (path, _) in *key {
        let value = path.split('.').try_fold(Bson::from(document.clone()), |at, name| {
            at.as_document()?.get(name).cloned()
        });
        filter.insert(*path, doc! { "$eq": value.unwrap_or(Bson::Null) });
    }
}

impl Plan {
    /// A plan for deployments of a shape.
    pub(crate) fn of_shape(seed: u64, shape: Shape) -> Self {
        let mut hand = Hand {
            rng: StdRng::seed_from_u64(seed),
            series: Series::default(),
            collections: &FREE,
        };
        let mut before = if shape.has_cluster_source() { hand.sharded() } else { hand.unsharded() };
        before.extend((0..50).map(|_| hand.cluster_operation(0, shape)));
        if shape.has_cluster_source() {
            before.extend(hand.orphans());
        }
        let clients = (1..=hand.rng.random_range(2..=4))
            .map(|client| {
                (0..hand.rng.random_range(30..70))
                    .map(|_| (hand.rng.random(), hand.cluster_operation(client, shape)))
                    .collect()
            })
            .collect();
        let events = hand.events(|hand| hand.cluster_event(shape));
        let slow_copy =
            (shape == Shape::ClusterToSet && hand.one_in(2)).then(|| hand.rng.random_range(5..40));
        Self {
            tuning: hand.tuning(),
            declared: hand.declared(),
            slow_copy,
            before,
            clients,
            events,
        }
    }
}

impl Hand {
    /// Collections sharded and dealt out.
    fn sharded(&mut self) -> Vec<Operation> {
        let mut made = Vec::new();
        for (db, primary) in HOMES {
            made.push(admin(doc! { "enableSharding": db, "primaryShard": primary }));
            made.push(admin(doc! {
                "shardCollection": format!("{db}.h1"), "key": { "_id": "hashed" },
                "numInitialChunks": 4,
            }));
            if self.one_in(2) {
                let unique = self.one_in(2);
                made.push(admin(doc! {
                    "shardCollection": format!("{db}.h2"), "key": { "_id": 1 },
                    "unique": unique,
                }));
                made.extend(Self::dealt_out(
                    &format!("{db}.h2"),
                    &[doc! { "_id": 3 }, doc! { "_id": "B" }],
                ));
            }
            for (name, key) in KEYED {
                let namespace = format!("{db}.{name}");
                made.push(admin(doc! { "shardCollection": &namespace, "key": key_of(key) }));
                if name == "k1" {
                    if self.one_in(2) {
                        made.push(Self::index_of_refined(db));
                    }
                    let at = [
                        doc! { "a": 4, "b": Bson::MinKey },
                        doc! { "a": 4, "b": 6 },
                        doc! { "a": 9, "b": Bson::MinKey },
                    ];
                    made.extend(Self::dealt_out(&namespace, &at));
                }
            }
        }
        made
    }

    fn dealt_out(namespace: &str, at: &[Document]) -> Vec<Operation> {
        let mut made: Vec<Operation> = at
            .iter()
            .map(|middle| admin(doc! { "split": namespace, "middle": middle.clone() }))
            .collect();
        made.extend(at.iter().zip(["shard-1", "shard-2", "shard-0"]).map(|(min, to)| {
            admin(doc! {
                "moveRange": namespace, "min": min.clone(), "toShard": to,
                "waitForDelete": true,
            })
        }));
        made
    }

    /// The same collections on a replica set, with the indexes that sharding them elsewhere makes.
    fn unsharded(&mut self) -> Vec<Operation> {
        let mut made = Vec::new();
        for (db, _) in HOMES {
            let index = doc! { "key": { "_id": "hashed" }, "name": "_id_hashed" };
            made.push(Operation::Command {
                db: db.to_owned(),
                command: doc! { "createIndexes": "h1", "indexes": [index] },
            });
            for (name, key) in KEYED {
                let key = key_of(key);
                let words: Vec<String> = key
                    .iter()
                    .map(|(field, kind)| {
                        format!("{field}_{}", kind.as_str().map_or("1", |_| "hashed"))
                    })
                    .collect();
                let index = doc! { "key": key, "name": words.join("_") };
                made.push(Operation::Command {
                    db: db.to_owned(),
                    command: doc! { "createIndexes": name, "indexes": [index] },
                });
            }
        }
        made
    }

    /// Ranges that move and leave their documents behind.
    fn orphans(&mut self) -> Vec<Operation> {
        let mut moves = Vec::new();
        for (db, _) in HOMES {
            if !self.one_in(3) {
                let min = doc! { "a": 4, "b": 6 };
                moves.push(admin(doc! {
                    "moveRange": format!("{db}.k1"), "min": min,
                    "toShard": self.of(&["shard-0", "shard-1"]),
                }));
            }
        }
        moves
    }

    fn cluster_event(&mut self, shape: Shape) -> Event {
        let source_config = if shape.has_cluster_source() {
            Event::SourceConfigStepsDown
        } else {
            Event::SourceStepsDown
        };
        let (destination_config, chunk_moves) = match shape.has_cluster_destination() {
            true => (Event::DestinationConfigStepsDown, Event::DestinationChunkMoves),
            false => (Event::DestinationStepsDown, Event::DestinationStepsDown),
        };
        match self.rng.random_range(0..14) {
            0..2 => Event::Restart,
            2..5 => Event::Kill,
            5..7 => Event::SourceStepsDown,
            7..9 => source_config,
            9 => Event::DestinationStepsDown,
            10..12 => destination_config,
            _ => chunk_moves,
        }
    }

    /// An `_id` that only this client puts into keyed collections.
    fn own_id(&mut self, client: u32) -> Bson {
        let n = self.rng.random_range(0..4_i32);
        if client.is_multiple_of(2) {
            format!("{client}-{n}").into()
        } else {
            (i32::try_from(client).unwrap_or(0) * 100 + n).into()
        }
    }

    /// What a shard key can hold, which is no array.
    fn key_value(&mut self) -> Bson {
        let n = self.rng.random_range(0..12_i32);
        match self.rng.random_range(0..8) {
            0..4 => n.into(),
            4 => i64::from(n).into(),
            5 => (f64::from(n) / 2.0).into(),
            6 => self.of(&["x", "y", ""]).into(),
            _ => Bson::Null,
        }
    }

    fn keyed_document(&mut self, id: Bson) -> Document {
        let mut document = doc! { "_id": id };
        for field in ["a", "b"] {
            if !self.one_in(6) {
                let value = self.key_value();
                document.insert(field, value);
            }
        }
        if !self.one_in(4) {
            let x = self.key_value();
            document.insert("n", doc! { "x": x });
        }
        document.insert("text", "x".repeat(self.rng.random_range(0..60)));
        document
    }

    /// A change of any document of the collection: often of what says where it lies.
    fn keyed_change(&mut self, client: u32) -> Document {
        let of = self.rng.random_range(0..=client);
        let id = self.own_id(of);
        let field = self.of(&["a", "b", "n.x", "text", "extra"]);
        let value = self.key_value();
        let update: Bson = match self.rng.random_range(0..6) {
            0 => self.keyed_document(id.clone()).into(),
            1 => doc! { "$unset": { field: 1 } }.into(),
            2 => vec![Bson::from(doc! { "$set": { field: { "$literal": value } } })].into(),
            _ => doc! { "$set": { field: value } }.into(),
        };
        doc! { "q": { "_id": id }, "u": update }
    }

    fn keyed(&mut self, client: u32) -> Operation {
        let (db, name) = (self.db(), self.of(&["k1", "k2"]));
        let put = |hand: &mut Self, db: &str, name: &str| {
            let id = hand.own_id(client);
            let document = hand.keyed_document(id.clone());
            [
                (
                    db.to_owned(),
                    doc! { "delete": name, "deletes": [{ "q": { "_id": id }, "limit": 1 }] },
                ),
                (db.to_owned(), doc! { "insert": name, "documents": [document] }),
            ]
        };
        match self.rng.random_range(0..12) {
            0..5 => {
                Operation::Transaction { commands: put(self, &db, name).to_vec(), commits: true }
            }
            5..9 => {
                let command = doc! { "update": name, "updates": [self.keyed_change(client)] };
                // A document changes its shard only in a transaction, or with a number that lets
                // the server know it again.
                Operation::Transaction { commands: vec![(db, command)], commits: !self.one_in(8) }
            }
            9 => {
                let of = self.rng.random_range(0..=client);
                let id = self.own_id(of);
                Operation::Command {
                    db,
                    command: doc! {
                        "delete": name, "deletes": [{ "q": { "_id": id }, "limit": 1 }],
                    },
                }
            }
            10 => {
                let filter = doc! { "a": { "$gt": self.rng.random_range(0..12) } };
                let update = doc! { "q": filter, "u": { "$inc": { "count": 1 } }, "multi": true };
                Operation::Command { db, command: doc! { "update": name, "updates": [update] } }
            }
            _ => {
                let mut commands = Vec::new();
                for _ in 0..self.rng.random_range(2..4) {
                    let (db, name) = (self.db(), self.of(&["k1", "k2"]));
                    commands.extend(put(self, &db, name));
                    commands.push((self.db(), self.data()));
                }
                Operation::Transaction { commands, commits: !self.one_in(4) }
            }
        }
    }

    /// A chunk of `k1` goes to another shard, with or without its documents being deleted where
    /// they were.
    fn chunk_move(&mut self) -> Operation {
        let namespace = format!("{}.k1", self.db());
        let min = self.of(&[(Some(4), None), (Some(4), Some(6)), (Some(9), None), (None, None)]);
        let bound = |of: Option<i32>| of.map_or(Bson::MinKey, Bson::from);
        let to = self.of(&["shard-0", "shard-1", "shard-2"]);
        let deletes = !self.one_in(4);
        let min = doc! { "a": bound(min.0), "b": bound(min.1) };
        admin(doc! { "moveRange": namespace, "min": min, "toShard": to, "waitForDelete": deletes })
    }

    /// A key gets longer by `_id`, or the index that it needs then is made.
    fn refinement(&mut self) -> Operation {
        let db = self.db();
        if self.one_in(3) {
            return Self::index_of_refined(&db);
        }
        admin(doc! { "refineCollectionShardKey": format!("{db}.k1"), "key": refined() })
    }

    fn index_of_refined(db: &str) -> Operation {
        let index = doc! { "key": refined(), "name": "refined" };
        Operation::Command {
            db: db.to_owned(),
            command: doc! { "createIndexes": "k1", "indexes": [index] },
        }
    }

    fn keyed_definition(&mut self, client: u32, shape: Shape) -> Operation {
        if shape.has_cluster_source() && self.one_in(4) {
            // A server of 6.0 tells nobody of it: a sharded destination gets the key that there is
            // when the collection is copied.
            let refines = client == 0 || !shape.has_cluster_destination();
            return if refines && self.one_in(2) { self.refinement() } else { self.chunk_move() };
        }
        let (db, (name, key)) = (self.db(), self.of(&KEYED));
        let namespace = format!("{db}.{name}");
        let command = match self.rng.random_range(0..10) {
            0 => doc! { "drop": name },
            1..4 => return admin(doc! { "shardCollection": namespace, "key": key_of(key) }),
            4 => {
                let free = format!("{db}.{}", self.of(&FREE));
                let key = if self.one_in(2) {
                    doc! { "_id": "hashed" }
                } else {
                    doc! { "_id": 1 }
                };
                return admin(doc! {
                    "shardCollection": free, "key": key, "collation": { "locale": "simple" },
                });
            }
            5 => {
                let other = if name == "k1" { "k2" } else { "k1" };
                return admin(doc! {
                    "renameCollection": namespace, "to": format!("{db}.{other}"),
                    "dropTarget": true,
                });
            }
            6 | 7 => {
                let index = doc! {
                    "key": { self.of(&["text", "count"]): 1 }, "name": self.of(&["i0", "i1"]),
                };
                doc! { "createIndexes": name, "indexes": [index] }
            }
            8 => doc! { "dropIndexes": name, "index": self.of(&["i0", "i1"]) },
            _ => {
                doc! {
                    "collMod": name, "validator": { "text": { "$type": "string" } },
                    "validationLevel": self.of(&["off", "moderate"]),
                }
            }
        };
        Operation::Command { db, command }
    }

    fn cluster_operation(&mut self, client: u32, shape: Shape) -> Operation {
        match self.rng.random_range(0..20) {
            0..9 => self.keyed(client),
            9 => self.keyed_definition(client, shape),
            10..12 => loop {
                let (db, command) = self.definition();
                // What a pipeline writes comes from one shard's view of things; the rig's router
                // does not spread it.
                if !command.contains_key("aggregate") {
                    return Operation::Command { db, command };
                }
            },
            12 => {
                let commands =
                    (0..self.rng.random_range(2..6)).map(|_| (self.db(), self.data())).collect();
                Operation::Transaction { commands, commits: !self.one_in(4) }
            }
            _ => Operation::Command { db: self.db(), command: self.data() },
        }
    }
}
