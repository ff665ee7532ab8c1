//! By what a sharded destination's collections are sharded: whoever writes there must know where a
//! document belongs.
//!
//! An `_id` is unique within a shard only, and a router takes an upsert only with the shard key in
//! its filter. Where `_id` itself is the key nothing of that matters. Everywhere else a whole
//! document is written by deleting its `_id` on every shard first, and a change of a field of the
//! key is a whole document.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};
use placement::element::{self, Element, Writer, elements};
use placement::shard_key::KeyError;
use placement::{ShardKey, shard_key};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::{Deployment, append, command};

/// How one collection is sharded.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedBy {
    /// Its key.
    pub key: ShardKey,
    /// Whether its collection was sharded with `unique: true`, which keeps its values unique over
    /// all shards and is not changed later.
    pub is_unique: bool,
    /// Its collection compares texts by a collation, and the shard key does not.
    is_collated: bool,
}

impl PlacedBy {
    /// A key, of a collection that compares texts by a collation or does not.
    #[must_use]
    pub const fn new(key: ShardKey, is_unique: bool, is_collated: bool) -> Self {
        Self { key, is_unique, is_collated }
    }

    /// Reads an entry of `config.collections`.
    fn read(entry: &RawDocument) -> Option<(Namespace, Self)> {
        let namespace = element::shown(element::text(entry, "_id")?).parse().ok()?;
        let key = ShardKey::new(entry.get_document("key").ok()?).ok()?;
        let is_collated = entry.get_document("defaultCollation").is_ok_and(|collation| {
            !collation.is_empty()
                && collation.get_str("locale").is_ok_and(|locale| locale != "simple")
        });
        let is_unique = entry.get_bool("unique").unwrap_or(false);
        Some((namespace, Self { key, is_unique, is_collated }))
    }

    /// Whether a filter on `_id` names the shard, so that documents are written as to a replica
    /// set.
    #[must_use]
    pub fn is_by_id(&self) -> bool {
        let mut fields = self.key.fields();
        matches!((fields.next(), fields.next()), (Some(("_id", _)), None)) && !self.is_collated
    }

    /// Whether a delta of the server's changes a field of the key, or one that it lies in.
    #[must_use]
    pub fn is_touched_by(&self, delta: &RawDocument) -> bool {
        let Some(diff) = element::field(delta, "diff").and_then(|diff| diff.document()) else {
            return true;
        };
        let first = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
        let names: Vec<String> = self.key.fields().map(|(path, _)| first(path)).collect();
        let is_of_key = |name: &[u8]| names.iter().any(|known| known.as_bytes() == name);
        elements(diff).any(|section| match section.name {
            b"u" | b"i" | b"d" => section
                .document()
                .is_none_or(|fields| elements(fields).any(|field| is_of_key(field.name))),
            // A change within a field: `s` and its name.
            [b's', name @ ..] => is_of_key(name),
            // Of a kind that is not known.
            _ => true,
        })
    }

    /// A filter that a document alone meets, with its shard key: what an upsert must have.
    ///
    /// # Errors
    /// Where a field of the key is an array, which has no place.
    pub fn filter(&self, document: &RawDocument) -> Result<RawDocumentBuf, KeyError> {
        let mut filter = Writer::default();
        for (path, value) in self.key.values(document)? {
            let null = Element { kind: shard_key::NULL, name: b"", value: &[] };
            let value = value.unwrap_or(null);
            let mut equals = Writer::default();
            equals.push(value.kind, b"$eq", value.value);
            filter.push(element::DOCUMENT, path.as_bytes(), equals.finish().as_bytes());
        }
        Ok(filter.finish())
    }
}

/// How a destination's collections are sharded, as far as is known; what is not here is not
/// sharded.
#[derive(Debug, Default)]
pub struct ShardKeys {
    known: Mutex<HashMap<Namespace, Arc<PlacedBy>>>,
    /// Held while chunks are moved: a shard takes or gives one at a time.
    pub moving: tokio::sync::Mutex<()>,
}

impl ShardKeys {
    /// How a collection is sharded.
    #[must_use]
    pub fn of(&self, namespace: &Namespace) -> Option<Arc<PlacedBy>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned()
    }

    /// Notes how a collection is sharded; `None`: not at all, or it is gone.
    pub fn set(&self, namespace: &Namespace, placed: Option<PlacedBy>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match placed {
            Some(placed) => known.insert(namespace.clone(), Arc::new(placed)),
            None => known.remove(namespace),
        };
    }
}

impl Deployment {
    /// How a collection is sharded, where the deployment is a sharded cluster and the collection is
    /// sharded at all.
    #[must_use]
    pub fn shard_key(&self, namespace: &Namespace) -> Option<Arc<PlacedBy>> {
        self.shard_keys.as_ref()?.of(namespace)
    }

    /// How a collection is sharded, where the deployment is a sharded cluster and the collection is
    /// not placed by `_id` alone.
    #[must_use]
    pub fn placed(&self, namespace: &Namespace) -> Option<Arc<PlacedBy>> {
        self.shard_key(namespace).filter(|placed| !placed.is_by_id())
    }

    /// Reads anew how the collections of a sharded cluster are sharded.
    pub async fn read_shard_keys(&self) -> Result<(), Fault> {
        let Some(keys) = &self.shard_keys else { return Ok(()) };
        let found = self.sharded_collections(&rawdoc! {}).await?;
        *keys.known.lock().unwrap_or_else(PoisonError::into_inner) =
            found.into_iter().map(|(namespace, placed)| (namespace, Arc::new(placed))).collect();
        Ok(())
    }

    /// How one collection of a sharded cluster is sharded, as its router reports now; `None`: it is
    /// not.
    pub async fn sharded_by(&self, namespace: &Namespace) -> Result<Option<PlacedBy>, Fault> {
        let found = self.sharded_collections(&rawdoc! { "_id": namespace.to_string() }).await?;
        Ok(found.into_iter().next().map(|(_, placed)| placed))
    }

    /// How the collections of a sharded cluster are sharded, as its router reports now.
    pub async fn all_sharded(&self) -> Result<Vec<(Namespace, PlacedBy)>, Fault> {
        self.sharded_collections(&rawdoc! {}).await
    }

    async fn sharded_collections(
        &self,
        filter: &RawDocument,
    ) -> Result<Vec<(Namespace, PlacedBy)>, Fault> {
        let mut find = command("find", "collections");
        append(&mut find, "filter", filter);
        append(&mut find, "readConcern", &*rawdoc! { "level": "majority" });
        let entries = self.collect("config", find).await.map_err(|e| {
            self.fault("reading by what collections are sharded (config.collections)", &e)
        })?;
        Ok(entries.iter().filter_map(|entry| PlacedBy::read(entry)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::PlacedBy;
    use mongodb::bson::{RawBson, RawDocumentBuf, rawdoc};
    use placement::ShardKey;

    fn placed(pattern: RawDocumentBuf) -> PlacedBy {
        PlacedBy::new(ShardKey::new(&pattern).expect("a key"), false, false)
    }

    #[test]
    fn only_a_key_of_id_alone_is_named_by_it() {
        assert!(placed(rawdoc! { "_id": 1 }).is_by_id());
        assert!(placed(rawdoc! { "_id": "hashed" }).is_by_id());
        assert!(!placed(rawdoc! { "_id": 1, "a": 1 }).is_by_id());
        assert!(!placed(rawdoc! { "a": "hashed" }).is_by_id());
        assert!(
            !PlacedBy::new(ShardKey::new(&rawdoc! { "_id": 1 }).expect("a key"), false, true)
                .is_by_id()
        );
    }

    #[test]
    fn deltas_that_touch_the_key_are_known() {
        let placed = placed(rawdoc! { "a.b": 1, "_id": "hashed" });
        let touches =
            |diff: RawDocumentBuf| placed.is_touched_by(&rawdoc! { "$v": 2, "diff": diff });
        for diff in [
            rawdoc! { "u": { "a": 1 } },
            rawdoc! { "i": { "x": 1, "a": { "b": 1 } } },
            rawdoc! { "d": { "a": false } },
            rawdoc! { "u": { "x": 1 }, "sa": { "u": { "c": 1 } } },
            rawdoc! { "zz": 1 },
        ] {
            assert!(touches(diff.clone()), "{diff:?}");
        }
        for diff in [
            rawdoc! { "u": { "b": 1 } },
            rawdoc! { "sab": { "u": { "a": 1 } } },
            rawdoc! { "d": { "x": false } },
        ] {
            assert!(!touches(diff.clone()), "{diff:?}");
        }
        assert!(placed.is_touched_by(&rawdoc! { "$v": 3 }));
    }

    #[test]
    fn an_upsert_has_the_shard_key_in_its_filter() {
        let placed = placed(rawdoc! { "a.b": 1, "c": "hashed" });
        let filter =
            placed.filter(&rawdoc! { "_id": 1, "a": { "b": { "$x": 1 } } }).expect("a filter");
        assert_eq!(
            filter,
            rawdoc! { "a.b": { "$eq": { "$x": 1 } }, "c": { "$eq": RawBson::Null } }
        );
        assert!(placed.filter(&rawdoc! { "a": { "b": [1] } }).is_err());
    }
}
