//! Whether a delete that a shard reports names the whole shard key of its document.
//!
//! A document whose shard key changes is deleted on one shard and inserted on another, in no sure
//! order. So a delete removes what still has the key that it names. But a document need not have
//! the fields of the key, and the server then leaves them out of what it reports: such a delete
//! would meet the document that was inserted elsewhere, too. What becomes of it is read from the
//! source.
//!
//! No stream of older servers reports that fields were added to a key. So what is known of a
//! collection holds for what was committed before it was asked for, and is asked for again for each
//! round in which a document of it is deleted.

use std::collections::HashMap;

use mongodb::bson::{RawDocument, rawdoc};
use placement::ShardKey;
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::collection_identity::Strangers;
use crate::engine::change_event::{Change, Op};
use crate::engine::element;
use crate::engine::source::Source;
use crate::engine::source::topology;

/// By what the source's collections are sharded, as far as it was asked for since the last
/// definition.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: Option<Known>,
    /// What was found of collections that do not have the name under which they are reported.
    pub(super) strangers: Strangers,
}

/// The paths of the keys, by the collections' UUIDs and by their names.
#[derive(Debug, Default)]
struct Known {
    by_uuid: HashMap<Vec<u8>, Vec<String>>,
    by_name: HashMap<Namespace, Vec<String>>,
    /// Everything is known of what was committed until then, and of single collections for longer.
    through: ClusterTime,
    of_one: HashMap<Namespace, ClusterTime>,
}

impl Keys {
    /// Forgets what is known: a definition is met in the streams.
    pub(super) fn forget(&mut self) {
        self.known = None;
        self.strangers.forget();
    }

    /// Whether a change is reported such that it can be applied alone. `newest`: when the newest
    /// was committed of all that was reported so far.
    pub(super) async fn names_document(
        &mut self,
        source: &Source,
        change: &Change,
        uuid: Option<&[u8]>,
        newest: ClusterTime,
    ) -> Result<bool, Fault> {
        let empty = rawdoc! {};
        let told: &RawDocument = match &change.op {
            Op::Delete => &empty,
            Op::DeleteKeyed(key) => key,
            Op::Insert(_) | Op::Replace(_) | Op::Diff(_) | Op::Reread => return Ok(true),
        };
        let known = match &mut self.known {
            Some(known) => {
                if !known.is_of(&change.namespace, newest) {
                    known.read_one(source, &change.namespace, uuid, newest).await?;
                }
                known
            }
            unknown => unknown.insert(Known::read(source, newest).await?),
        };
        Ok(known.names_whole_key(told, &change.namespace, uuid))
    }
}

impl Known {
    /// Whether what is known of a collection was asked for after this was committed. That one is
    /// sharded is reported.
    fn is_of(&self, namespace: &Namespace, newest: ClusterTime) -> bool {
        let through = self.of_one.get(namespace).copied().unwrap_or(self.through);
        through >= newest || !self.by_name.contains_key(namespace)
    }

    async fn read_one(
        &mut self,
        source: &Source,
        namespace: &Namespace,
        uuid: Option<&[u8]>,
        newest: ClusterTime,
    ) -> Result<(), Fault> {
        let found = topology::entries(
            &source.entry,
            "collections",
            &rawdoc! { "_id": namespace.to_string() },
        )
        .await?;
        // By what it was sharded that is not there any more nobody knows.
        self.by_name.insert(namespace.clone(), Vec::new());
        if let Some(uuid) = uuid {
            self.by_uuid.remove(uuid);
        }
        for entry in found {
            self.add_entry(&entry);
        }
        self.of_one.insert(namespace.clone(), newest);
        Ok(())
    }

    async fn read(source: &Source, newest: ClusterTime) -> Result<Self, Fault> {
        let mut known = Self { through: newest, ..Self::default() };
        for entry in topology::entries(&source.entry, "collections", &rawdoc! {}).await? {
            known.add_entry(&entry);
        }
        Ok(known)
    }

    fn add_entry(&mut self, entry: &RawDocument) {
        if let Some(key) = entry.get_document("key").ok().and_then(|key| ShardKey::new(key).ok()) {
            self.add(entry, key.fields().map(|(path, _)| path.to_owned()).collect());
        }
    }

    fn add(&mut self, entry: &RawDocument, paths: Vec<String>) {
        if let Some(uuid) = element::field(entry, "uuid") {
            self.by_uuid.insert(uuid.value.to_vec(), paths.clone());
        }
        if let Some(Ok(namespace)) =
            element::text(entry, "_id").map(|name| element::shown(name).parse())
        {
            self.by_name.insert(namespace, paths);
        }
    }

    /// What is not known is not sharded, or gone, and what made it go is further on in the streams.
    fn names_whole_key(
        &self,
        told: &RawDocument,
        namespace: &Namespace,
        uuid: Option<&[u8]>,
    ) -> bool {
        let is_told = |path: &String| path == "_id" || element::field(told, path).is_some();
        let by_name = self.by_name.get(namespace);
        match uuid.map(|uuid| self.by_uuid.get(uuid)) {
            Some(Some(paths)) => paths.iter().all(is_told),
            // Of one that had the name before: by what that was sharded is not known any more.
            Some(None) => by_name.is_none(),
            None => by_name.is_none_or(|paths| paths.iter().all(is_told)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Known;
    use mongodb::bson::rawdoc;
    use mongodb::bson::spec::BinarySubtype;
    use schemas::cluster_time::ClusterTime;
    use schemas::namespace::Namespace;

    #[test]
    fn a_delete_must_name_every_field_of_the_key() {
        let mut known = Known::default();
        let uuid = || mongodb::bson::Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] };
        known.add(
            &rawdoc! { "_id": "shop.a", "uuid": uuid() },
            vec!["n.x".to_owned(), "_id".to_owned()],
        );
        known.add(&rawdoc! { "_id": "shop.b" }, vec!["_id".to_owned()]);
        let [a, b, plain, renamed] =
            ["a", "b", "plain", "renamed"].map(|name| Namespace::new("shop", name));
        assert!(known.names_whole_key(&rawdoc! { "n.x": 1, "_id": 1 }, &a, None));
        assert!(!known.names_whole_key(&rawdoc! {}, &a, None));
        assert!(known.names_whole_key(&rawdoc! {}, &b, None));
        assert!(known.names_whole_key(&rawdoc! {}, &plain, None));
        // Of the collection that it was before it was resharded.
        assert!(!known.names_whole_key(&rawdoc! { "n.x": 1, "_id": 1 }, &a, Some(b"before")));
        assert!(known.names_whole_key(&rawdoc! {}, &plain, Some(b"any")));
        assert!(
            known.is_of(&plain, ClusterTime { t: 9, i: 0 }),
            "it is not sharded, or is told to be"
        );
        known.through = ClusterTime { t: 8, i: 0 };
        assert!(
            known.is_of(&a, ClusterTime { t: 8, i: 0 })
                && !known.is_of(&a, ClusterTime { t: 9, i: 0 })
        );
        known.of_one.insert(a.clone(), ClusterTime { t: 9, i: 0 });
        assert!(
            known.is_of(&a, ClusterTime { t: 9, i: 0 })
                && !known.is_of(&b, ClusterTime { t: 9, i: 0 })
        );
        // By the name that it had then.
        let entry = rawdoc! { "uuid": uuid() };
        let uuid = crate::engine::element::field(&entry, "uuid").map(|field| field.value);
        assert!(!known.names_whole_key(&rawdoc! { "_id": 1 }, &renamed, uuid));
    }
}
