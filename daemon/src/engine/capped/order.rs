//! Holds the natural order of both sides of a capped collection against each other, while the tail
//! goes on or once nothing changes.
//!
//! Both sides are read side by side by `_id`. What is on one side only is told nothing of by that:
//! the source may be ahead. What is on both must be in one order. A comparison that finds it so
//! leaves a mark behind its last pair, from which the next one goes on: what lies before it stays
//! in its order for as long as both members number their records as they did, since documents come
//! in at the end alone.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use futures_util::StreamExt as _;
use mongodb::bson::{RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use crate::engine::element;
use crate::mongo::{Deployment, append, command, error, number, server_code};

/// Documents of one reply at most.
const BATCH_DOCUMENTS: u32 = 10_000;
/// Documents without a partner that are remembered; with more than that the sides are too far
/// apart.
const UNPAIRED: usize = 200_000;
/// The server's codes for a record to go on from that is gone, and for a scan that evictions have
/// overtaken.
const GONE: [i32; 2] = [server_code::KEY_NOT_FOUND, server_code::CAPPED_POSITION_LOST];
/// The server's codes for a scan whose collection was dropped or renamed.
const ENDED: [i32; 2] = [server_code::QUERY_PLAN_KILLED, server_code::CURSOR_NOT_FOUND];

/// A document by a hash of its `_id`.
type Hashed = u64;

/// A record of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
struct At {
    member: String,
    record: i64,
}

/// How far both sides are known to be in one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    ours: At,
    theirs: At,
    /// What was on one side only before it.
    alone: [Vec<Hashed>; 2],
}

/// How two capped collections compare.
#[derive(Debug)]
pub(super) enum Order {
    /// What is on both sides is in one order, as far as it was read.
    Same {
        /// From where the next comparison can go on; `None`: from the beginning.
        mark: Option<Mark>,
        /// How many documents were paired.
        documents: u64,
    },
    /// It is in another order.
    Other,
    /// The sides are too far apart, or change too fast, for that to be told.
    Unclear,
}

/// What a comparison expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// The source may be ahead.
    SameOrder,
    /// Both hold the same documents, as of this time of the source.
    SameDocuments(Timestamp),
}

/// Pairs documents as they come, by their places on both sides.
#[derive(Debug, Default)]
struct Pairing {
    alone: [HashMap<Hashed, u64>; 2],
    places: [u64; 2],
    last: [u64; 2],
    pairs: u64,
}

/// What a document does to a pairing.
#[derive(Debug, PartialEq, Eq)]
enum Paired {
    No,
    /// It is the last one on both sides so far.
    InOrder,
    OutOfOrder,
}

impl Pairing {
    fn after(mark: Option<&Mark>) -> Self {
        let alone = |side: usize| {
            mark.into_iter()
                .flat_map(|mark| mark.alone[side].iter().map(|&hash| (hash, 0)))
                .collect()
        };
        Self { alone: [alone(0), alone(1)], ..Self::default() }
    }

    fn put(&mut self, side: usize, document: Hashed) -> Paired {
        self.places[side] += 1;
        let place = self.places[side];
        let Some(partner) = self.alone[1 - side].remove(&document) else {
            self.alone[side].insert(document, place);
            return Paired::No;
        };
        let mut pair = [0; 2];
        (pair[side], pair[1 - side]) = (place, partner);
        // What waited for its partner behind another pair was overtaken.
        if pair[0] <= self.last[0] || pair[1] <= self.last[1] {
            return Paired::OutOfOrder;
        }
        (self.last, self.pairs) = (pair, self.pairs + 1);
        Paired::InOrder
    }

    fn unpaired(&self) -> usize {
        self.alone[0].len() + self.alone[1].len()
    }

    /// Whether all that was read has found its partner.
    fn is_complete(&self) -> bool {
        self.alone.iter().all(|alone| alone.values().all(|&place| place == 0))
    }

    /// What is on one side only before the last pair.
    fn before_last(self) -> [Vec<Hashed>; 2] {
        let mut side = 0;
        self.alone.map(|alone| {
            let last = self.last[side];
            side += 1;
            alone.into_iter().filter(|&(_, place)| place <= last).map(|(hash, _)| hash).collect()
        })
    }
}

/// Compares, from a mark on where there is one that still holds.
pub(super) async fn compare(
    source: &Deployment,
    destination: &Deployment,
    namespace: &Namespace,
    mark: Option<&Mark>,
    expect: Expect,
) -> Result<Order, Fault> {
    if let Some(mark) = mark {
        match compare_from(source, destination, namespace, Some(mark), expect).await? {
            Order::Unclear => {}
            told => return Ok(told),
        }
    }
    compare_from(source, destination, namespace, None, expect).await
}

async fn compare_from(
    source: &Deployment,
    destination: &Deployment,
    namespace: &Namespace,
    mark: Option<&Mark>,
    expect: Expect,
) -> Result<Order, Fault> {
    // Held by turns they could keep each other from their next replies.
    let _share = source.memory.pair().await;
    let ((source, our_member), (destination, their_member)) =
        tokio::try_join!(source.pinned(), destination.pinned())?;
    if mark.is_some_and(|mark| mark.ours.member != our_member || mark.theirs.member != their_member)
    {
        return Ok(Order::Unclear);
    }
    let as_of = match expect {
        Expect::SameOrder => None,
        Expect::SameDocuments(time) => Some(time),
    };
    let opened = tokio::try_join!(
        Scan::open(&source, namespace, mark.map(|mark| mark.ours.record), as_of),
        Scan::open(&destination, namespace, mark.map(|mark| mark.theirs.record), None)
    );
    let (ours, theirs) = match opened {
        Ok(opened) => opened,
        Err(broken) => return broken.verdict(namespace),
    };
    let mut pairing = Pairing::after(mark);
    let mut scans = [ours, theirs];
    let mut records: [Option<i64>; 2] =
        mark.map_or([None, None], |mark| [Some(mark.ours.record), Some(mark.theirs.record)]);
    // The record of each document that waits is the one that its pair leaves behind.
    let mut waiting: [HashMap<u64, Option<i64>>; 2] = Default::default();
    loop {
        let mut is_over = true;
        for (side, scan) in scans.iter_mut().enumerate() {
            let next = match scan.next().await {
                Ok(next) => next,
                Err(broken) => return broken.verdict(namespace),
            };
            let Some((document, record)) = next else { continue };
            is_over = false;
            match pairing.put(side, document) {
                Paired::No => {
                    waiting[side].insert(document, record);
                }
                Paired::InOrder => {
                    records[side] = record;
                    records[1 - side] = waiting[1 - side].remove(&document).flatten();
                }
                Paired::OutOfOrder => return Ok(Order::Other),
            }
        }
        if is_over {
            break;
        }
        if pairing.unpaired() > UNPAIRED {
            return Ok(Order::Unclear);
        }
    }
    if matches!(expect, Expect::SameDocuments(_)) && !pairing.is_complete() {
        return Ok(Order::Other);
    }
    let documents = pairing.pairs;
    let mark = match records {
        [Some(ours), Some(theirs)] => Some(Mark {
            ours: At { member: our_member, record: ours },
            theirs: At { member: their_member, record: theirs },
            alone: pairing.before_last(),
        }),
        _ => None,
    };
    Ok(Order::Same { mark, documents })
}

/// Why a scan ended before its end.
enum Broken {
    /// What it was to go on from is gone, or it was overtaken by evictions, or the collection is
    /// another one by now.
    Gone,
    Fault(Fault),
}

impl Broken {
    fn verdict(self, namespace: &Namespace) -> Result<Order, Fault> {
        match self {
            Self::Gone => {
                tracing::debug!(%namespace, "changes faster than its order can be compared");
                Ok(Order::Unclear)
            }
            Self::Fault(fault) => Err(fault),
        }
    }
}

/// Documents in natural order, one after the other.
struct Scan<'a> {
    deployment: &'a Deployment,
    namespace: &'a Namespace,
    cursor: RawBatchCursor,
    batch: Vec<(Hashed, Option<i64>)>,
}

impl<'a> Scan<'a> {
    async fn open(
        deployment: &'a Deployment,
        namespace: &'a Namespace,
        after: Option<i64>,
        as_of: Option<Timestamp>,
    ) -> Result<Self, Broken> {
        let cursor = deployment
            .batches(&namespace.db, find(deployment, namespace, after, as_of), BATCH_DOCUMENTS)
            .await
            .map_err(|e| broken(deployment, namespace, &e))?;
        Ok(Self { deployment, namespace, cursor, batch: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<(Hashed, Option<i64>)>, Broken> {
        while self.batch.is_empty() {
            let Some(batch) = self.cursor.next().await else { return Ok(None) };
            let batch: RawBatch = batch.map_err(|e| broken(self.deployment, self.namespace, &e))?;
            let documents =
                batch.doc_slices().map_err(|e| broken(self.deployment, self.namespace, &e))?;
            for value in documents.into_iter() {
                let value =
                    value.map_err(|e| broken(self.deployment, self.namespace, &e.into()))?;
                let Some(document) = value.as_document() else { continue };
                self.batch.push((hashed(document), number(document, "$recordId")));
            }
            self.batch.reverse();
        }
        Ok(self.batch.pop())
    }
}

fn broken(deployment: &Deployment, namespace: &Namespace, e: &mongodb::error::Error) -> Broken {
    match error::code(e) {
        Some(code) if GONE.contains(&code) || ENDED.contains(&code) => Broken::Gone,
        _ => Broken::Fault(deployment.fault(&format!("reading {namespace} in its order"), e)),
    }
}

/// A document by its `_id`; one without is like every other one without.
fn hashed(document: &RawDocument) -> Hashed {
    let mut hasher = DefaultHasher::new();
    element::id_of(document).map(RawDocumentBuf::into_bytes).hash(&mut hasher);
    hasher.finish()
}

/// The `find` of documents in natural order by their `_id`s and records, after a record where one
/// is given.
pub(super) fn find(
    deployment: &Deployment,
    namespace: &Namespace,
    after: Option<i64>,
    as_of: Option<Timestamp>,
) -> RawDocumentBuf {
    let mut find = command("find", &namespace.collection);
    append(&mut find, "hint", &*rawdoc! { "$natural": 1 });
    append(&mut find, "projection", &*rawdoc! { "_id": 1 });
    if !deployment.is_sharded() {
        // A router takes no record to go on from.
        append(&mut find, "showRecordId", true);
        append(&mut find, "$_requestResumeToken", true);
    }
    if let Some(record) = after {
        append(&mut find, "$_resumeAfter", &*rawdoc! { "$recordId": record });
    }
    let mut concern = rawdoc! { "level": "majority" };
    if let Some(as_of) = as_of {
        append(&mut concern, "afterClusterTime", as_of);
    }
    append(&mut find, "readConcern", &*concern);
    find
}

#[cfg(test)]
mod tests {
    use super::{At, Mark, Paired, Pairing};

    fn pair(ours: &[u64], theirs: &[u64], from: Option<&Mark>) -> (bool, Pairing) {
        let mut pairing = Pairing::after(from);
        for at in 0..ours.len().max(theirs.len()) {
            for (side, documents) in [ours, theirs].into_iter().enumerate() {
                if let Some(document) = documents.get(at)
                    && pairing.put(side, *document) == Paired::OutOfOrder
                {
                    return (false, pairing);
                }
            }
        }
        (true, pairing)
    }

    #[test]
    fn what_is_on_both_sides_is_in_one_order_or_not() {
        for (ours, theirs, is_same) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], true),
            (&[1, 2, 3], &[2, 1, 3], false),
            (&[3, 4, 5, 6], &[1, 2, 3, 4], true),
            (&[2, 5], &[1, 2, 3, 4, 5], true),
            (&[1, 2, 3, 4], &[1, 3, 4, 2], false),
            (&[], &[1, 2], true),
        ] {
            assert_eq!(pair(ours, theirs, None).0, is_same, "{ours:?} {theirs:?}");
        }
        assert!(pair(&[1, 2], &[1, 2], None).1.is_complete());
        assert!(!pair(&[1, 2, 3], &[1, 2], None).1.is_complete());
    }

    #[test]
    fn what_was_alone_before_a_mark_must_not_come_behind_it() {
        let at = |record| At { member: "a".to_owned(), record };
        let (is_same, pairing) = pair(&[1, 9, 2], &[1, 2, 3], None);
        assert!(is_same);
        let mark = Mark { ours: at(3), theirs: at(2), alone: pairing.before_last() };
        assert_eq!(mark.alone, [vec![9], vec![]]);
        assert!(!pair(&[3], &[3, 9], Some(&mark)).0, "9 was before 2 on the one side");
        let (is_same, pairing) = pair(&[3], &[3], Some(&mark));
        assert!(is_same && pairing.is_complete(), "9 is gone");
    }
}
