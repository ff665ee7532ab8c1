//! Counts what has happened in the runs of random plans: a test of transactions over shards in
//! which none was ever committed would pass as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Bson, Document, Timestamp, doc};

use super::generate::cluster::Shape;
use super::generate::{DATABASES, Operation};

/// Commands that change definitions, or where documents lie.
const DEFINING: [&str; 10] = [
    "create",
    "drop",
    "dropDatabase",
    "renameCollection",
    "collMod",
    "createIndexes",
    "dropIndexes",
    "shardCollection",
    "refineCollectionShardKey",
    "moveRange",
];
/// An update of a field that says on which shard its document lies.
const KEY_CHANGE: &str = "shard key changed";
/// A transaction that several shards took part in.
const OVER_SHARDS: &str = "transaction over shards";
/// A document that one shard lost and another got, in one transaction.
const CHANGED_SHARD: &str = "document that changed its shard";
/// A range whose documents stayed behind.
const ORPHANS: &str = "range of orphans";

/// The kind of an operation, where it is one that must occur.
pub(super) fn kind(operation: &Operation) -> Option<&'static str> {
    match operation {
        Operation::Command { command, .. } => {
            let name = command.keys().next()?;
            DEFINING.into_iter().find(|kind| kind == name)
        }
        Operation::Transaction { commands, commits: true } => match commands.as_slice() {
            [(_, command)] => changes_key(command).then_some(KEY_CHANGE),
            _ => None,
        },
        Operation::Transaction { .. } => None,
    }
}

fn changes_key(command: &Document) -> bool {
    let fields: &[&str] = match command.get_str("update") {
        Ok("k1") => &["a", "b"],
        Ok("k2") => &["n.x"],
        _ => return false,
    };
    let updates = command
        .get_array("updates")
        .into_iter()
        .flatten()
        .filter_map(|update| update.as_document());
    let changed = updates.filter_map(|update| update.get_document("u").ok());
    changed
        .flat_map(|update| {
            ["$set", "$unset"].into_iter().filter_map(|operator| update.get_document(operator).ok())
        })
        .any(|changed| fields.iter().any(|field| changed.contains_key(field)))
}

/// What happened, and how often.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Mutex<BTreeMap<String, u64>>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let words: Vec<String> =
            counts.iter().map(|(what, times)| format!("{what}: {times}")).collect();
        f.write_str(&words.join(", "))
    }
}

impl Tally {
    pub(super) fn add(&self, what: impl Into<String>, times: u64) {
        if times > 0 {
            *self
                .counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(what.into())
                .or_default() += times;
        }
    }

    fn of(&self, what: &str) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(what).copied().unwrap_or(0)
    }

    /// Notes which shards have ranges of orphans.
    pub(super) async fn look_for_orphans(
        &self,
        shards: impl Iterator<Item = &Client>,
    ) -> Result<()> {
        for shard in shards {
            let ranges = shard.database("config").collection::<Document>("rangeDeletions");
            self.add(
                ORPHANS,
                ranges.count_documents(doc! { "numOrphanDocs": { "$gt": 0 } }).await?,
            );
        }
        Ok(())
    }

    /// Notes what users wrote to each shard since these times, and what they wrote to several at
    /// once.
    pub(super) async fn look_at_writes(&self, shards: &[(Client, Timestamp)]) -> Result<()> {
        let mut transactions: BTreeMap<Vec<u8>, Prepared> = BTreeMap::new();
        for (place, (shard, since)) in shards.iter().enumerate() {
            let oplog = shard.database("local").collection::<Document>("oplog.rs");
            let entries: Vec<Document> = oplog
                .find(doc! { "ts": { "$gt": since }, "fromMigrate": { "$ne": true } })
                .await?
                .try_collect()
                .await?;
            let mut written = 0;
            for entry in &entries {
                let operations = operations_of(entry);
                written += operations.len() as u64;
                let Ok(o) = entry.get_document("o") else { continue };
                let prepared = o.get_bool("prepare").unwrap_or(false);
                if !prepared && !o.contains_key("commitTransaction") {
                    continue;
                }
                let transaction = transactions.entry(transaction_of(entry)?).or_default();
                if prepared {
                    transaction.shards.insert(place);
                    for (kind, document) in operations {
                        let places =
                            if kind == "d" { &mut transaction.left } else { &mut transaction.came };
                        if ["d", "i"].contains(&kind) {
                            places.insert((document, place));
                        }
                    }
                } else {
                    transaction.is_committed = true;
                }
            }
            self.add(format!("write on shard {place}"), written);
        }
        let committed = transactions
            .values()
            .filter(|transaction| transaction.is_committed && transaction.shards.len() > 1);
        for transaction in committed {
            self.add(OVER_SHARDS, 1);
            let went = |(document, from): &&(Vec<u8>, usize)| {
                transaction.came.iter().any(|(came, to)| came == document && to != from)
            };
            self.add(CHANGED_SHARD, transaction.left.iter().filter(went).count() as u64);
        }
        Ok(())
    }

    /// Fails where something that load on a cluster of so many shards brings has not happened: in
    /// any run, or in `many`.
    pub(super) fn check_load(&self, shards: usize, many: bool) -> Result<()> {
        for shard in 0..shards {
            ensure!(
                self.of(&format!("write on shard {shard}")) > 0,
                "nothing was written to shard {shard}: {self}"
            );
        }
        if shards > 1 {
            self.check([OVER_SHARDS])?;
        }
        if shards > 1 && many {
            self.check([CHANGED_SHARD, KEY_CHANGE, ORPHANS])?;
        }
        Ok(())
    }

    /// Fails where one kind of operation was never carried out, or one of these events never took
    /// place.
    pub(super) fn check_kinds(&self, shape: Shape) -> Result<()> {
        let occurs = |kind: &str| match kind {
            "shardCollection" | "moveRange" => shape.has_cluster_source(),
            "refineCollectionShardKey" => shape == Shape::ClusterToSet,
            _ => true,
        };
        self.check(DEFINING.into_iter().filter(|kind| occurs(kind)))?;
        self.check(shape.events())
    }

    fn check<'a>(&self, all: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let missing: Vec<&str> = all.into_iter().filter(|what| self.of(what) == 0).collect();
        ensure!(
            missing.is_empty(),
            "what should have been tested never happened: {}; there was {self}",
            missing.join(", ")
        );
        Ok(())
    }
}

/// A transaction of several shards, by which documents left and came to which of them.
#[derive(Debug, Default)]
struct Prepared {
    shards: BTreeSet<usize>,
    is_committed: bool,
    left: BTreeSet<(Vec<u8>, usize)>,
    came: BTreeSet<(Vec<u8>, usize)>,
}

/// A session and a number in it.
fn transaction_of(entry: &Document) -> Result<Vec<u8>> {
    let mut name = Document::new();
    for field in ["lsid", "txnNumber"] {
        name.insert(field, entry.get(field).cloned().unwrap_or(Bson::Null));
    }
    Ok(mongodb::bson::serialize_to_vec(&name)?)
}

/// What an entry does to documents of users: the kinds, and the namespaces and `_id`s.
fn operations_of(entry: &Document) -> Vec<(&str, Vec<u8>)> {
    let inner = entry.get_document("o").and_then(|o| o.get_array("applyOps"));
    let all: Vec<&Document> = match inner {
        Ok(inner) => inner.iter().filter_map(Bson::as_document).collect(),
        Err(_) => vec![entry],
    };
    all.into_iter().filter_map(operation_of).collect()
}

fn operation_of(operation: &Document) -> Option<(&str, Vec<u8>)> {
    let (kind, ns) = (operation.get_str("op").ok()?, operation.get_str("ns").ok()?);
    let is_users = ["i", "u", "d"].contains(&kind) && DATABASES.contains(&ns.split_once('.')?.0);
    let id = operation.get_document(if kind == "u" { "o2" } else { "o" }).ok()?.get("_id")?.clone();
    let document = mongodb::bson::serialize_to_vec(&doc! { "ns": ns, "_id": id }).ok()?;
    is_users.then_some((kind, document))
}
