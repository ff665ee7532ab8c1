//! Definitions that several shards report, each applied once.
//!
//! A collection's definition changes on every shard that holds it, at times of their own, and each
//! shard's stream reports it. The server's coordinator lets no other definition of the collection
//! come between the first and the last. So the first to tell is the one that counts, and the n-th
//! time that a shard reports the same is the n-th time that it happened.
//!
//! That a collection was dropped counts each time, like a database: while one shard has dropped it
//! another still takes writes, a transaction's that it had prepared for one, and by them it is made
//! anew on the destination.
//!
//! A rename over a collection is told as one by the shards that have some of what is renamed. Those
//! that have only some of what it replaces report that this one was dropped, before or after the
//! others report the rename: by its name it would be the wrong one that is dropped. Which
//! collection has a name by now is known by its UUID.
//!
//! Where one stream reports all shards, as a router's does, it does not say which shard reports.
//! But what a coordinator keeps together is told together: the same as what was told last of a
//! collection is a repetition, and anything else is not. Where no UUID says of which collection,
//! whatever is reported counts, and is reported twice at worst: it is such that twice is as once,
//! but for a rename.
//!
//! What a transaction had prepared on one shard may be committed there while another has reported
//! already that its collection was renamed, or that another one was renamed over it. So what a
//! shard reports a document belongs to the name that its collection, known by its UUID, has by
//! what was told; and where another collection has the name that is told, nobody can tell.
//!
//! That a database was dropped counts each time: nothing is made in it before the last shard has
//! reported so, and a shard that had none of it reports nothing.

use std::collections::{HashMap, HashSet};

use schemas::namespace::Namespace;

use super::merge::ShardIndex;
use crate::engine::change_event::Definition;

/// How often each definition was reported, by each shard, and applied.
#[derive(Debug, Default)]
pub struct Told {
    counts: HashMap<Vec<u8>, Count>,
    changed: HashSet<(Vec<u8>, ShardIndex)>,
    /// Of collections that were made or renamed: which one has the name.
    identities: HashMap<Namespace, Vec<u8>>,
    /// The same, by the collections.
    names: HashMap<Vec<u8>, Namespace>,
    /// Where one stream reports all shards: how many definitions were reported, which is the number
    /// of the last one.
    in_one: Option<u64>,
}

/// Which collection a change belongs to that is reported under some name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// The one that has the name, as far as it is known.
    Named,
    /// One that has another name by now.
    Renamed(Namespace),
    /// One that is not known, while another one has the name.
    Another,
}

/// What the entry begins with that counts for a collection in one stream, and not for a definition;
/// those begin with the name of a field.
const LAST_OF: u8 = 0xff;

#[derive(Debug, Default)]
struct Count {
    applied: u64,
    by_shard_index: HashMap<ShardIndex, u64>,
}

impl Told {
    /// Goes on from what was stored: which definition, by which shard, how often; and which
    /// collections have which names.
    #[must_use]
    pub fn stored(
        rows: impl IntoIterator<Item = (Vec<u8>, ShardIndex, u64)>,
        identities: impl IntoIterator<Item = (Namespace, Vec<u8>)>,
    ) -> Self {
        let mut told = Self { identities: identities.into_iter().collect(), ..Self::default() };
        told.names = told
            .identities
            .iter()
            .map(|(namespace, uuid)| (uuid.clone(), namespace.clone()))
            .collect();
        for (definition, shard_index, times) in rows {
            let count = told.counts.entry(definition).or_default();
            count.applied = count.applied.max(times);
            count.by_shard_index.insert(shard_index, times);
        }
        told
    }

    /// The same, of a stream that reports all shards as one: every definition, and every
    /// collection's last one, has its number.
    #[must_use]
    pub fn in_one_stream(mut self) -> Self {
        self.in_one = Some(self.counts.values().map(|count| count.applied).max().unwrap_or(0));
        self
    }

    fn set(&mut self, entry: Vec<u8>, number: u64) {
        let count = self.counts.entry(entry.clone()).or_default();
        count.applied = number;
        count.by_shard_index.insert(0, number);
        self.changed.insert((entry, 0));
    }

    /// Whether a definition is not the last one again that was reported of its collection.
    fn is_first_in_one(
        &mut self,
        last: u64,
        kind: &[u8],
        definition: &Definition,
        uuid: Option<&[u8]>,
    ) -> bool {
        let of_collection = [&[LAST_OF], uuid.unwrap_or_default()].concat();
        let number = |entry: &[u8]| self.counts.get(entry).map_or(0, |count| count.applied);
        let is_again = number(kind) > 0 && number(kind) == number(&of_collection);
        self.in_one = Some(last + 1);
        self.set(kind.to_vec(), last + 1);
        self.set(of_collection, last + 1);
        !is_again || (uuid.is_none() && !matches!(definition, Definition::Rename(..)))
    }

    /// Notes that a shard reports a definition, with its bytes and the UUID of its collection;
    /// whether it is to be applied.
    pub fn is_new(
        &mut self,
        shard_index: ShardIndex,
        kind: &[u8],
        definition: &Definition,
        uuid: Option<&[u8]>,
    ) -> bool {
        let is_first = match self.in_one {
            None => self.is_first(shard_index, kind),
            Some(last) => self.is_first_in_one(last, kind, definition, uuid),
        };
        is_first || matches!(definition, Definition::DropDatabase(_) | Definition::Drop(_))
    }

    /// The UUID of the collection that has a name since it was made or renamed.
    #[must_use]
    pub fn identity(&self, namespace: &Namespace) -> Option<&[u8]> {
        self.identities.get(namespace).map(Vec::as_slice)
    }

    /// Which collection a change belongs to that a shard reports.
    #[must_use]
    pub fn whose(&self, namespace: &Namespace, uuid: &[u8]) -> Whose {
        match (self.names.get(uuid), self.identities.get(namespace)) {
            (Some(name), _) if name == namespace => Whose::Named,
            (Some(name), _) => Whose::Renamed(name.clone()),
            (None, Some(_)) => Whose::Another,
            (None, None) => Whose::Named,
        }
    }

    /// Forgets which collection has a name.
    pub fn forget_identity(&mut self, namespace: &Namespace) {
        if let Some(uuid) = self.identities.remove(namespace) {
            self.names.remove(&uuid);
        }
    }

    /// Notes that a definition that was new could not be applied: the next shard that reports it
    /// is the first one then.
    pub fn take_back(&mut self, kind: &[u8]) {
        if self.in_one.is_some() {
            // No number: it is the last one of no collection.
            self.set(kind.to_vec(), 0);
        } else if let Some(count) = self.counts.get_mut(kind) {
            count.applied = count.applied.saturating_sub(1);
        }
    }

    /// Notes which collection has which name after a definition was applied. Gives what has
    /// changed, to be stored.
    pub fn note(
        &mut self,
        definition: &Definition,
        uuid: Option<Vec<u8>>,
    ) -> Vec<(Namespace, Option<Vec<u8>>)> {
        let changed = match definition {
            // One that is sharded by another key is another one from then on.
            Definition::Drop(namespace) | Definition::Shard(namespace) => {
                vec![(namespace.clone(), None)]
            }
            Definition::Create(namespace, _) => vec![(namespace.clone(), uuid)],
            Definition::Rename(from, to) => vec![(from.clone(), None), (to.clone(), uuid)],
            Definition::DropDatabase(db) => self
                .identities
                .keys()
                .filter(|namespace| namespace.db == *db)
                .map(|namespace| (namespace.clone(), None))
                .collect(),
            Definition::CreateIndexes(..)
            | Definition::DropIndexes(..)
            | Definition::Modify(..) => Vec::new(),
        };
        for (namespace, uuid) in &changed {
            self.forget_identity(namespace);
            if let Some(uuid) = uuid {
                self.identities.insert(namespace.clone(), uuid.clone());
                self.names.insert(uuid.clone(), namespace.clone());
            }
        }
        changed
    }

    /// Notes that a shard reports a definition, given as bytes that are the same on every shard
    /// (kind, UUID, description); whether it is the first to, and the definition so to be applied.
    fn is_first(&mut self, shard_index: ShardIndex, definition: &[u8]) -> bool {
        let count = self.counts.entry(definition.to_vec()).or_default();
        let told = count.by_shard_index.entry(shard_index).or_default();
        *told += 1;
        let is_first = *told > count.applied;
        count.applied = count.applied.max(*told);
        self.changed.insert((definition.to_vec(), shard_index));
        is_first
    }

    /// What has changed since this was asked the last time: to be stored with the tokens behind it.
    pub fn take_changed(&mut self) -> Vec<(Vec<u8>, ShardIndex, u64)> {
        let changed = std::mem::take(&mut self.changed);
        let times = |definition: &[u8], shard_index| {
            self.counts.get(definition)?.by_shard_index.get(&shard_index).copied()
        };
        changed
            .into_iter()
            .filter_map(|(definition, shard_index)| {
                times(&definition, shard_index).map(|times| (definition, shard_index, times))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Told, Whose};
    use crate::engine::change_event::Definition;
    use schemas::namespace::Namespace;

    #[test]
    fn what_every_shard_tells_is_applied_once_each_time_that_it_happened() {
        let mut told = Told::default();
        assert!(told.is_first(0, b"drop a"));
        assert!(!told.is_first(1, b"drop a"));
        assert!(told.is_first(1, b"drop b"));
        assert!(!told.is_first(2, b"drop a"));
        // It happened again, and was reported by another shard first.
        assert!(told.is_first(1, b"drop a"));
        assert!(!told.is_first(0, b"drop a"));
        // A shard that got the collection later reports what it missed.
        assert!(!told.is_first(3, b"drop a"));
    }

    #[test]
    fn which_collection_a_rename_gave_a_name_is_known_until_it_is_another() {
        let (old, new) = (Namespace::new("shop", "old"), Namespace::new("shop", "new"));
        let rename = Definition::Rename(new.clone(), old.clone());
        let mut told = Told::default();
        assert!(told.is_new(0, b"rename", &rename, None));
        let stored = told.note(&rename, Some(b"2".to_vec()));
        assert_eq!(stored, [(new, None), (old.clone(), Some(b"2".to_vec()))]);
        let stored = stored.into_iter().filter_map(|(namespace, uuid)| Some((namespace, uuid?)));
        let made = Definition::Create(old.clone(), Default::default());
        let mut again = Told::stored([], stored.clone());
        again.note(&made, Some(b"3".to_vec()));
        assert_eq!(again.identity(&old), Some(b"3".as_slice()));
        for ends in [Definition::Drop(old.clone()), Definition::Shard(old.clone())] {
            let mut again = Told::stored([], stored.clone());
            assert_eq!(again.identity(&old), Some(b"2".as_slice()));
            assert_eq!(again.note(&ends, Some(b"3".to_vec())), [(old.clone(), None)]);
            assert_eq!(again.identity(&old), None);
        }
    }

    #[test]
    fn a_change_belongs_to_the_name_that_its_collection_has_by_now() {
        let (from, to) = (Namespace::new("shop", "new"), Namespace::new("shop", "old"));
        let mut told = Told::default();
        assert_eq!(told.whose(&to, b"1"), Whose::Named, "nothing was told of it");
        told.note(&Definition::Create(to.clone(), Default::default()), Some(b"1".to_vec()));
        assert_eq!(told.whose(&to, b"1"), Whose::Named);
        let rename = Definition::Rename(from.clone(), to.clone());
        let stored = told.note(&rename, Some(b"2".to_vec()));
        let stored = stored.into_iter().filter_map(|(namespace, uuid)| Some((namespace, uuid?)));
        for told in [told, Told::stored([], stored)] {
            assert_eq!(told.whose(&to, b"2"), Whose::Named);
            assert_eq!(
                told.whose(&from, b"2"),
                Whose::Renamed(to.clone()),
                "told by a shard that has yet to rename it"
            );
            assert_eq!(told.whose(&to, b"1"), Whose::Another, "of the one that was replaced");
            assert_eq!(told.whose(&from, b"3"), Whose::Named, "a new one of that name");
            let mut told = told;
            told.forget_identity(&to);
            assert_eq!(
                (told.whose(&to, b"1"), told.whose(&from, b"2")),
                (Whose::Named, Whose::Named)
            );
        }
    }

    #[test]
    fn that_something_was_dropped_counts_each_time() {
        let drop = Definition::Drop(Namespace::new("shop", "a"));
        let mut told = Told::default();
        assert!(told.is_new(0, b"drop", &drop, None) && told.is_new(1, b"drop", &drop, None));
        let drop = Definition::DropDatabase("shop".to_owned());
        assert!(told.is_new(0, b"drop", &drop, None) && told.is_new(1, b"drop", &drop, None));
    }

    #[test]
    fn in_one_stream_a_repetition_of_the_last_counts_once() {
        let (a, b) = (Namespace::new("shop", "a"), Namespace::new("shop", "b"));
        let (there, back) =
            (Definition::Rename(a.clone(), b.clone()), Definition::Rename(b, a.clone()));
        let drop = Definition::Drop(a);
        let mut told = Told::default().in_one_stream();
        assert!(told.is_new(0, b"there", &there, Some(b"1")));
        // Another collection's come between.
        assert!(told.is_new(0, b"drop 2", &drop, Some(b"2")));
        assert!(!told.is_new(0, b"there", &there, Some(b"1")));
        assert!(told.is_new(0, b"back", &back, Some(b"1")));
        assert!(!told.is_new(0, b"back", &back, Some(b"1")));
        let stored = told.take_changed();
        let mut again = Told::stored(stored, []).in_one_stream();
        assert!(!again.is_new(0, b"back", &back, Some(b"1")));
        assert!(again.is_new(0, b"drop 2", &drop, Some(b"2")), "a drop counts each time");
        // It happened again.
        assert!(again.is_new(0, b"there", &there, Some(b"1")));
        again.take_back(b"there");
        assert!(again.is_new(0, b"there", &there, Some(b"1")));
        // Of nobody knows which collection.
        assert!(again.is_new(0, b"drop", &drop, None) && again.is_new(0, b"drop", &drop, None));
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
