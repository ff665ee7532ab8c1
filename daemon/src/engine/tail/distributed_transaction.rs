//! What a shard reports one document more than once at one cluster time, as part of a transaction
//! over shards.
//!
//! Everything that such a transaction did has the time of its commit, on every shard, and which
//! shard's part came first is not reported. A document that was changed on one shard and then went
//! to another is deleted on the one and inserted on the other; if the insertion is let out first,
//! the change meets it, and the deletion misses it or meets what the change has made of it. So
//! where a shard reports a deletion after it has reported a change of the same document at the same
//! time, what became of the document is read from the source.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use schemas::cluster_time::ClusterTime;

use super::merge::ShardIndex;
use crate::engine::change_event::{Change, Op, token_time};
use crate::engine::checkpoint::ShardRow;

/// Documents remembered of one transaction on one shard at most: a mebibyte of them or so. Of a
/// larger one every deletion counts.
const MOST: usize = 1 << 16;

/// The newest time that each shard has reported, with the documents that it has changed then.
#[derive(Debug)]
pub(super) struct Moments {
    shard_indexes: Vec<Moment>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Moment {
    time: Option<ClusterTime>,
    /// By their hashes: one too many costs a look at the source. `None`: not all of them are known.
    changed: Option<HashSet<u64>>,
}

impl Moments {
    /// Where the shards' tails stand. What came before that at the same time is not known.
    pub(super) fn at(from: &[ShardRow]) -> Self {
        let shard_index = |row: &ShardRow| Moment {
            time: row.token.as_deref().and_then(token_time),
            changed: None,
        };
        Self { shard_indexes: from.iter().map(shard_index).collect(), hasher: RandomState::new() }
    }

    /// Notes a change that a shard reports; whether it is a deletion of what the same shard may
    /// have changed at the same time.
    pub(super) fn deletes_changed(
        &mut self,
        shard_index: ShardIndex,
        time: ClusterTime,
        change: &Change,
    ) -> bool {
        let moment = &mut self.shard_indexes[shard_index];
        if moment.time != Some(time) {
            (moment.time, moment.changed) = (Some(time), Some(HashSet::new()));
        }
        let document = || self.hasher.hash_one((&change.namespace, change.id.as_bytes()));
        match &change.op {
            Op::DeleteKeyed(_) => {
                moment.changed.as_ref().is_none_or(|changed| changed.contains(&document()))
            }
            // Its shard key is its `_id`: it is nowhere else.
            Op::Delete => false,
            Op::Insert(_) | Op::Replace(_) | Op::Diff(_) | Op::Reread => {
                if let Some(changed) = &mut moment.changed {
                    changed.insert(document());
                    if changed.len() > MOST {
                        moment.changed = None;
                    }
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Moments;
    use crate::engine::change_event::{Change, Op};
    use crate::engine::checkpoint::ShardRow;
    use mongodb::bson::{RawDocumentBuf, rawdoc};
    use schemas::cluster_time::ClusterTime;
    use schemas::namespace::Namespace;

    fn row(token: Option<RawDocumentBuf>) -> ShardRow {
        ShardRow {
            start: ClusterTime { t: 1, i: 1 },
            copied: None,
            token,
            applied: None,
            events: 0,
        }
    }

    fn change(id: i32, op: Op) -> Change {
        Change { namespace: Namespace::new("shop", "a"), id: rawdoc! { "_id": id }, op }
    }

    fn insert(id: i32) -> Change {
        change(id, Op::Insert(rawdoc! { "_id": id, "k": 1 }))
    }

    fn delete(id: i32) -> Change {
        change(id, Op::DeleteKeyed(rawdoc! { "k": 1, "_id": id }))
    }

    #[test]
    fn a_deletion_after_a_change_of_the_same_document_at_the_same_time_is_found() {
        let [first, second] = [5, 6].map(|t| ClusterTime { t, i: 1 });
        let mut moments = Moments::at(&[row(None), row(None)]);
        assert!(!moments.deletes_changed(0, first, &insert(1)));
        assert!(!moments.deletes_changed(1, first, &delete(1)), "told by another shard");
        assert!(!moments.deletes_changed(0, first, &delete(2)));
        assert!(moments.deletes_changed(0, first, &delete(1)));
        assert!(!moments.deletes_changed(0, second, &delete(1)), "at another time");
    }

    #[test]
    fn what_came_before_a_restart_in_the_middle_is_not_known() {
        let mut moments = Moments::at(&[row(Some(rawdoc! { "_data": "82000000050000000100" }))]);
        assert!(moments.deletes_changed(0, ClusterTime { t: 5, i: 1 }, &delete(1)));
        assert!(!moments.deletes_changed(0, ClusterTime { t: 6, i: 1 }, &delete(1)));
    }
}
