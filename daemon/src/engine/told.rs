//! Definitions that several shards tell of, each applied once.
//!
//! A collection's definition changes on every shard that holds it, at times of their own, and each shard's stream tells of it. The
//! server's coordinator lets nothing else happen to the collection between the first and the last. So the first to tell is the one
//! that counts, and the n-th time that a shard tells the same is the n-th time that it happened.

use std::collections::{HashMap, HashSet};

use super::merge::Lane;

/// How often each definition was told, by each shard, and applied.
#[derive(Debug, Default)]
pub struct Told {
    counts: HashMap<Vec<u8>, Count>,
    changed: HashSet<(Vec<u8>, Lane)>,
}

#[derive(Debug, Default)]
struct Count {
    applied: u64,
    by_lane: HashMap<Lane, u64>,
}

impl Told {
    /// Goes on from what was stored: which definition, by which shard, how often.
    #[must_use]
    pub fn stored(rows: impl IntoIterator<Item = (Vec<u8>, Lane, u64)>) -> Self {
        let mut told = Self::default();
        for (definition, lane, times) in rows {
            let count = told.counts.entry(definition).or_default();
            count.applied = count.applied.max(times);
            count.by_lane.insert(lane, times);
        }
        told
    }

    /// Notes that a shard tells a definition, given as bytes that are the same on every shard (kind, UUID, description); whether it is
    /// the first to, and the definition so to be applied.
    pub fn is_first(&mut self, lane: Lane, definition: &[u8]) -> bool {
        let count = self.counts.entry(definition.to_vec()).or_default();
        let told = count.by_lane.entry(lane).or_default();
        *told += 1;
        let is_first = *told > count.applied;
        count.applied = count.applied.max(*told);
        self.changed.insert((definition.to_vec(), lane));
        is_first
    }

    /// What has changed since this was asked the last time: to be stored with the tokens behind it.
    pub fn take_changed(&mut self) -> Vec<(Vec<u8>, Lane, u64)> {
        let changed = std::mem::take(&mut self.changed);
        let times = |definition: &[u8], lane| self.counts.get(definition)?.by_lane.get(&lane).copied();
        changed
            .into_iter()
            .filter_map(|(definition, lane)| times(&definition, lane).map(|times| (definition, lane, times)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Told;

    #[test]
    fn what_every_shard_tells_is_applied_once_each_time_that_it_happened() {
        let mut told = Told::default();
        assert!(told.is_first(0, b"drop a"));
        assert!(!told.is_first(1, b"drop a"));
        assert!(told.is_first(1, b"drop b"));
        assert!(!told.is_first(2, b"drop a"));
        // It happened again, and was told by another shard first.
        assert!(told.is_first(1, b"drop a"));
        assert!(!told.is_first(0, b"drop a"));
        // A shard that got the collection later tells of what it missed.
        assert!(!told.is_first(3, b"drop a"));
    }

    #[test]
    fn what_was_told_is_known_after_a_restart() {
        let mut told = Told::default();
        assert!(told.is_first(0, b"drop a"));
        assert!(told.is_first(0, b"drop a"));
        let stored = told.take_changed();
        assert_eq!(stored, [(b"drop a".to_vec(), 0, 2)]);
        assert_eq!(told.take_changed(), []);
        let mut again = Told::stored(stored);
        assert!(!again.is_first(1, b"drop a"));
        assert!(!again.is_first(1, b"drop a"));
        assert!(again.is_first(1, b"drop a"));
    }
}
