//! Splits a round's changes into queues that may be applied side by side: those of one key share a
//! queue.
//!
//! A collection with few changes is one queue: its commands are then as full as they can be.
//! One with many is split, finer than there are workers, so that none of them ends long after the
//! others.

use std::collections::HashMap;

use schemas::namespace::Namespace;

use crate::engine::change_event::Change;
use crate::engine::tuning::Tuning;

/// A change with the hash of its key.
pub type Keyed = (u64, Change);

/// The changes of one collection, in their order.
#[derive(Debug, Default)]
pub struct Group {
    /// Its changes.
    pub changes: Vec<Keyed>,
    /// Whether the order of its documents is over all of them, so that it is not split (capped).
    pub is_ordered: bool,
}

/// Changes that are applied one after the other.
#[derive(Debug)]
pub struct WorkerQueue {
    /// The collection.
    pub namespace: Namespace,
    /// Its changes, or some keys' of them.
    pub changes: Vec<Keyed>,
}

/// The queues of a round, the longest first.
#[must_use]
pub fn worker_queues(groups: HashMap<Namespace, Group>, tuning: &Tuning) -> Vec<WorkerQueue> {
    let total: usize = groups.values().map(|group| group.changes.len()).sum();
    let length = (total / (2 * tuning.workers.max(1))).max(tuning.lane_events).max(1);
    let mut worker_queues = Vec::new();
    for (namespace, group) in groups {
        let count = if group.is_ordered { 1 } else { group.changes.len().div_ceil(length) };
        if count <= 1 {
            worker_queues.push(WorkerQueue { namespace, changes: group.changes });
            continue;
        }
        let mut split: Vec<Vec<Keyed>> = (0..count).map(|_| Vec::with_capacity(length)).collect();
        for (hash, change) in group.changes {
            let worker_queue =
                usize::try_from(hash % count as u64).expect("a remainder is below a usize");
            split[worker_queue].push((hash, change));
        }
        worker_queues.extend(
            split.into_iter().map(|changes| WorkerQueue { namespace: namespace.clone(), changes }),
        );
    }
    worker_queues.sort_by_key(|worker_queue| std::cmp::Reverse(worker_queue.changes.len()));
    worker_queues
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::{Group, WorkerQueue, worker_queues};
    use crate::engine::change_event::{Change, Op};
    use crate::engine::document_key;
    use crate::engine::tuning::Tuning;
    use mongodb::bson::rawdoc;
    use schemas::namespace::Namespace;

    fn group(namespace: &Namespace, changes: i64, is_ordered: bool) -> Group {
        let changes = (0..changes).map(|n| {
            // Each key twice, once with other bytes.
            let id = if n % 2 == 0 {
                rawdoc! { "_id": n / 2 }
            } else {
                rawdoc! { "_id": (n / 2) as f64 }
            };
            (
                document_key::hash(&id, false),
                Change { namespace: namespace.clone(), id, op: Op::Delete },
            )
        });
        Group { changes: changes.collect(), is_ordered }
    }

    fn of(changes: &[(&str, i64, bool)]) -> Vec<WorkerQueue> {
        let groups: HashMap<Namespace, Group> = changes
            .iter()
            .map(|(name, changes, is_ordered)| {
                let namespace: Namespace = name.parse().expect("a namespace");
                let group = group(&namespace, *changes, *is_ordered);
                (namespace, group)
            })
            .collect();
        worker_queues(groups, &Tuning { workers: 4, lane_events: 100, ..Tuning::default() })
    }

    #[test]
    fn one_key_is_in_one_lane_and_in_order() {
        let worker_queues = of(&[("a.b", 8_000, false)]);
        assert_eq!(worker_queues.len(), 8);
        assert_eq!(
            worker_queues.iter().map(|worker_queue| worker_queue.changes.len()).sum::<usize>(),
            8_000
        );
        let mut seen = HashSet::new();
        for worker_queue in &worker_queues {
            let here: HashSet<u64> = worker_queue.changes.iter().map(|(hash, _)| *hash).collect();
            assert!(here.iter().all(|hash| seen.insert(*hash)));
            for pair in worker_queue.changes.chunks(2) {
                assert_eq!(pair[0].0, pair[1].0);
                assert!(pair[0].1.id != pair[1].1.id);
            }
        }
    }

    #[test]
    fn small_and_ordered_collections_are_one_lane_each() {
        let worker_queues =
            of(&[("a.capped", 8_000, true), ("a.small", 90, false), ("a.smaller", 10, false)]);
        let lengths: Vec<_> =
            worker_queues.iter().map(|worker_queue| worker_queue.changes.len()).collect();
        assert_eq!(lengths, [8_000, 90, 10]);
    }
}
