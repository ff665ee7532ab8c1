//! Definitions that several shards tell of, each applied once.
//!
//! A collection's definition changes on every shard that holds it, at times of their own, and each shard's stream tells of it. The
//! server's coordinator lets no other definition of the collection come between the first and the last. So the first to tell is the
//! one that counts, and the n-th time that a shard tells the same is the n-th time that it happened.
//!
//! That a collection was dropped counts each time, like a database: while one shard has dropped it another still takes writes, a
//! transaction's that it had prepared for one, and by them it is made anew on the destination. The database's primary shard drops it
//! last, so that a collection which takes its name is told of after all of them.
//!
//! A rename over a collection is told as one by the shards that have some of what is renamed. Those that have only some of what it
//! replaces tell that this one was dropped, before or after the others tell of the rename: by its name it would be the wrong one that
//! is dropped. Which collection has a name by now is known by its UUID.
//!
//! That a database was dropped counts each time: nothing is made in it before the last shard has told so, and a shard that had none of
//! it tells nothing.

use std::collections::{HashMap, HashSet};

use schemas::namespace::Namespace;

use super::event::Definition;
use super::merge::Lane;

/// How often each definition was told, by each shard, and applied.
#[derive(Debug, Default)]
pub struct Told {
    counts: HashMap<Vec<u8>, Count>,
    changed: HashSet<(Vec<u8>, Lane)>,
    /// Of collections that were renamed: which one has the name.
    identities: HashMap<Namespace, Vec<u8>>,
}

#[derive(Debug, Default)]
struct Count {
    applied: u64,
    by_lane: HashMap<Lane, u64>,
}

impl Told {
    /// Goes on from what was stored: which definition, by which shard, how often; and which collections have which names.
    #[must_use]
    pub fn stored(
        rows: impl IntoIterator<Item = (Vec<u8>, Lane, u64)>,
        identities: impl IntoIterator<Item = (Namespace, Vec<u8>)>,
    ) -> Self {
        let mut told = Self { identities: identities.into_iter().collect(), ..Self::default() };
        for (definition, lane, times) in rows {
            let count = told.counts.entry(definition).or_default();
            count.applied = count.applied.max(times);
            count.by_lane.insert(lane, times);
        }
        told
    }

    /// Notes that a shard tells a definition, with its bytes; whether it is to be applied.
    pub fn is_new(&mut self, lane: Lane, kind: &[u8], definition: &Definition) -> bool {
        self.is_first(lane, kind) || matches!(definition, Definition::Drop(_) | Definition::DropDatabase(_))
    }

    /// The UUID of the collection that has a name since a rename.
    #[must_use]
    pub fn identity(&self, namespace: &Namespace) -> Option<&[u8]> {
        self.identities.get(namespace).map(Vec::as_slice)
    }

    /// Notes that a definition that was new could not be applied: the next shard that tells of it is the first one then.
    pub fn take_back(&mut self, kind: &[u8]) {
        if let Some(count) = self.counts.get_mut(kind) {
            count.applied = count.applied.saturating_sub(1);
        }
    }

    /// Notes which collection has which name after a definition was applied. Gives what has changed, to be stored.
    pub fn note(&mut self, definition: &Definition, uuid: Option<Vec<u8>>) -> Vec<(Namespace, Option<Vec<u8>>)> {
        let changed = match definition {
            // One that is sharded by another key is another one from then on.
            Definition::Create(namespace, _) | Definition::Drop(namespace) | Definition::Shard(namespace) => {
                vec![(namespace.clone(), None)]
            }
            Definition::Rename(from, to) => vec![(from.clone(), None), (to.clone(), uuid)],
            Definition::DropDatabase(db) => self
                .identities
                .keys()
                .filter(|namespace| namespace.db == *db)
                .map(|namespace| (namespace.clone(), None))
                .collect(),
            Definition::CreateIndexes(..) | Definition::DropIndexes(..) | Definition::Modify(..) => Vec::new(),
        };
        for (namespace, uuid) in &changed {
            match uuid {
                Some(uuid) => self.identities.insert(namespace.clone(), uuid.clone()),
                None => self.identities.remove(namespace),
            };
        }
        changed
    }

    /// Notes that a shard tells a definition, given as bytes that are the same on every shard (kind, UUID, description); whether it is
    /// the first to, and the definition so to be applied.
    fn is_first(&mut self, lane: Lane, definition: &[u8]) -> bool {
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
    use crate::engine::event::Definition;
    use schemas::namespace::Namespace;

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
    fn which_collection_a_rename_gave_a_name_is_known_until_it_is_another() {
        let (old, new) = (Namespace::new("shop", "old"), Namespace::new("shop", "new"));
        let rename = Definition::Rename(new.clone(), old.clone());
        let mut told = Told::default();
        assert!(told.is_new(0, b"rename", &rename));
        let stored = told.note(&rename, Some(b"2".to_vec()));
        assert_eq!(stored, [(new, None), (old.clone(), Some(b"2".to_vec()))]);
        let stored = stored.into_iter().filter_map(|(namespace, uuid)| Some((namespace, uuid?)));
        for ends in
            [Definition::Drop(old.clone()), Definition::Create(old.clone(), Default::default()), Definition::Shard(old.clone())]
        {
            let mut again = Told::stored([], stored.clone());
            assert_eq!(again.identity(&old), Some(b"2".as_slice()));
            assert_eq!(again.note(&ends, Some(b"3".to_vec())), [(old.clone(), None)]);
            assert_eq!(again.identity(&old), None);
        }
    }

    #[test]
    fn that_a_database_or_a_collection_was_dropped_counts_each_time() {
        for drop in [Definition::DropDatabase("shop".to_owned()), Definition::Drop(Namespace::new("shop", "a"))] {
            let mut told = Told::default();
            assert!(told.is_new(0, b"drop", &drop) && told.is_new(1, b"drop", &drop));
        }
    }

    #[test]
    fn what_could_not_be_applied_is_new_once_more() {
        let mut told = Told::default();
        assert!(told.is_first(0, b"index a"));
        told.take_back(b"index a");
        assert!(told.is_first(1, b"index a"));
        assert!(!told.is_first(2, b"index a"));
    }

    #[test]
    fn what_was_told_is_known_after_a_restart() {
        let mut told = Told::default();
        assert!(told.is_first(0, b"drop a"));
        assert!(told.is_first(0, b"drop a"));
        let stored = told.take_changed();
        assert_eq!(stored, [(b"drop a".to_vec(), 0, 2)]);
        assert_eq!(told.take_changed(), []);
        let mut again = Told::stored(stored, []);
        assert!(!again.is_first(1, b"drop a"));
        assert!(!again.is_first(1, b"drop a"));
        assert!(again.is_first(1, b"drop a"));
    }
}
