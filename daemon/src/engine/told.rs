//! Definitions that several shards tell of, each applied once.
//!
//! A collection's definition changes on every shard that holds it, at times of their own, and each shard's stream tells of it. The
//! server's coordinator lets nothing else happen to the collection between the first and the last. So the first to tell is the one
//! that counts, and the n-th time that a shard tells the same is the n-th time that it happened.

use std::collections::HashMap;

use super::merge::Lane;

/// How often each definition was told, by each shard, and applied.
#[derive(Debug, Default)]
pub struct Told {
    counts: HashMap<Vec<u8>, Count>,
}

#[derive(Debug, Default)]
struct Count {
    applied: u64,
    by_lane: HashMap<Lane, u64>,
}

impl Told {
    /// Notes that a shard tells a definition, given as bytes that are the same on every shard (kind, UUID, description); whether it is
    /// the first to, and the definition so to be applied.
    pub fn is_first(&mut self, lane: Lane, definition: &[u8]) -> bool {
        let count = self.counts.entry(definition.to_vec()).or_default();
        let told = count.by_lane.entry(lane).or_default();
        *told += 1;
        let is_first = *told > count.applied;
        count.applied = count.applied.max(*told);
        is_first
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
}
