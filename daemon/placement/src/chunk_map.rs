//! Which shard owns which range of a collection's shard key, and at which version.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{RawDocument, RawDocumentBuf, Timestamp, rawdoc};

use crate::order;
use crate::shard_key::{KeyError, ShardKey};

/// A range of a shard key, from `min` up to and without `max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Its lowest key.
    pub min: RawDocumentBuf,
    /// The first key behind it.
    pub max: RawDocumentBuf,
    /// Who owns it.
    pub shard: String,
    /// When it last changed: major and minor version.
    pub version: Timestamp,
}

/// The version of a collection's placement: equal only where no chunk was moved, split or merged
/// between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementVersion {
    /// Changes when the collection is dropped, or its key is.
    pub epoch: ObjectId,
    /// Likewise, since 5.0.
    pub timestamp: Timestamp,
    /// The highest version of its chunks.
    pub chunks: Timestamp,
}

impl PlacementVersion {
    /// As a command carries it to a shard (`shardVersion`).
    #[must_use]
    pub fn to_shard_version(self) -> RawDocumentBuf {
        rawdoc! { "e": self.epoch, "t": self.timestamp, "v": self.chunks }
    }

    /// Whether a chunk may have moved between this version and another: splits and merges alone
    /// keep the major number.
    #[must_use]
    pub fn moved_since(self, earlier: Self) -> bool {
        (self.epoch, self.timestamp, self.chunks.time)
            != (earlier.epoch, earlier.timestamp, earlier.chunks.time)
    }
}

/// Why chunks make no map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A document of the catalogue lacks a field.
    #[error("an entry of the cluster's catalogue has no usable {0}")]
    Field(&'static str),
    /// The chunks leave a gap, or overlap: they were read while they changed.
    #[error("the chunks do not cover the shard key once: they changed while they were read")]
    Torn,
    /// The shard key is not understood.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Chunk {
    /// Reads an entry of `config.chunks`.
    pub fn read(entry: &RawDocument) -> Result<Self, MapError> {
        let bound = |name| {
            entry.get_document(name).map(ToOwned::to_owned).map_err(|_| MapError::Field(name))
        };
        Ok(Self {
            min: bound("min")?,
            max: bound("max")?,
            shard: entry.get_str("shard").map_err(|_| MapError::Field("shard"))?.to_owned(),
            version: entry.get_timestamp("lastmod").map_err(|_| MapError::Field("lastmod"))?,
        })
    }
}

/// Where each document of a sharded collection belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkMap {
    key: ShardKey,
    epoch: ObjectId,
    timestamp: Timestamp,
    /// In the order of their ranges; together they cover every key once.
    chunks: Vec<Chunk>,
    versions: BTreeMap<String, Timestamp>,
}

impl ChunkMap {
    /// Makes a map of a collection's entry of `config.collections` and of its chunks, in any order.
    pub fn new(collection: &RawDocument, mut chunks: Vec<Chunk>) -> Result<Self, MapError> {
        let key =
            ShardKey::new(collection.get_document("key").map_err(|_| MapError::Field("key"))?)?;
        let epoch = collection
            .get_object_id("lastmodEpoch")
            .map_err(|_| MapError::Field("lastmodEpoch"))?;
        let timestamp =
            collection.get_timestamp("timestamp").map_err(|_| MapError::Field("timestamp"))?;
        chunks.sort_by(|a, b| order::compare_documents(&a.min, &b.min));
        let fits = chunks
            .windows(2)
            .all(|pair| order::compare_documents(&pair[0].max, &pair[1].min).is_eq());
        let whole = chunks.first().is_some_and(|first| all_of(&first.min, 0xff))
            && chunks.last().is_some_and(|last| all_of(&last.max, 0x7f));
        if !fits || !whole {
            return Err(MapError::Torn);
        }
        let mut versions: BTreeMap<String, Timestamp> = BTreeMap::new();
        for chunk in &chunks {
            let version = versions.entry(chunk.shard.clone()).or_insert(chunk.version);
            *version = (*version).max(chunk.version);
        }
        Ok(Self { key, epoch, timestamp, chunks, versions })
    }

    /// The collection's shard key.
    #[must_use]
    pub const fn key(&self) -> &ShardKey {
        &self.key
    }

    /// The chunks, in the order of their ranges.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The shards that own anything of it.
    #[must_use]
    pub fn shards(&self) -> BTreeSet<&str> {
        self.versions.keys().map(String::as_str).collect()
    }

    /// The version of the whole map.
    #[must_use]
    pub fn version(&self) -> PlacementVersion {
        let chunks = self.versions.values().max().copied().unwrap_or(NEVER);
        PlacementVersion { epoch: self.epoch, timestamp: self.timestamp, chunks }
    }

    /// The version that a command for a shard carries: of a shard that owns nothing it is zero.
    #[must_use]
    pub fn shard_version(&self, shard: &str) -> PlacementVersion {
        let chunks = self.versions.get(shard).copied().unwrap_or(NEVER);
        PlacementVersion { epoch: self.epoch, timestamp: self.timestamp, chunks }
    }

    /// The chunk that holds a key, as [`ShardKey::of`] makes it.
    #[must_use]
    pub fn chunk_of(&self, key: &RawDocument) -> &Chunk {
        let behind = self.chunks.partition_point(|chunk| {
            order::compare_documents(&chunk.min, key) != Ordering::Greater
        });
        // The first chunk starts below every key.
        &self.chunks[behind.saturating_sub(1)]
    }

    /// Who owns a document.
    pub fn owner(&self, document: &RawDocument) -> Result<&str, KeyError> {
        Ok(&self.chunk_of(&self.key.of(document)?).shard)
    }
}

/// The version of what has no chunk.
const NEVER: Timestamp = Timestamp { time: 0, increment: 0 };

fn all_of(bound: &RawDocument, kind: u8) -> bool {
    crate::element::elements(bound).all(|field| field.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::{Chunk, ChunkMap, MapError};
    use mongodb::bson::oid::ObjectId;
    use mongodb::bson::{RawBson, RawDocumentBuf, Timestamp, rawdoc};

    fn chunk(min: RawDocumentBuf, max: RawDocumentBuf, shard: &str, major: u32) -> Chunk {
        Chunk {
            min,
            max,
            shard: shard.to_owned(),
            version: Timestamp { time: major, increment: 0 },
        }
    }

    fn collection(key: RawDocumentBuf) -> RawDocumentBuf {
        rawdoc! {
            "key": key, "lastmodEpoch": ObjectId::from_bytes([1; 12]),
            "timestamp": Timestamp { time: 5, increment: 1 },
        }
    }

    fn compound() -> ChunkMap {
        let low = || rawdoc! { "a": RawBson::MinKey, "b": RawBson::MinKey };
        let chunks = vec![
            chunk(
                rawdoc! { "a": 6, "b": 5 },
                rawdoc! { "a": RawBson::MaxKey, "b": RawBson::MaxKey },
                "two",
                3,
            ),
            chunk(low(), rawdoc! { "a": 3, "b": RawBson::MinKey }, "one", 2),
            chunk(rawdoc! { "a": 3, "b": RawBson::MinKey }, rawdoc! { "a": 6, "b": 5 }, "two", 1),
        ];
        ChunkMap::new(&collection(rawdoc! { "a": 1, "b": 1 }), chunks).expect("a map")
    }

    #[test]
    fn a_document_belongs_to_the_chunk_that_begins_at_or_below_its_key() {
        let map = compound();
        let owners = [
            (rawdoc! { "_id": 1 }, "one"),
            (rawdoc! { "a": 2.5, "b": "x" }, "one"),
            (rawdoc! { "a": 3 }, "two"),
            (rawdoc! { "a": 3_i64, "b": RawBson::MinKey }, "two"),
            (rawdoc! { "a": "text", "b": 1 }, "two"),
            (rawdoc! { "a": RawBson::MaxKey, "b": RawBson::MaxKey }, "two"),
        ];
        for (document, owner) in owners {
            assert_eq!(map.owner(&document), Ok(owner), "{document:?}");
        }
    }

    #[test]
    fn versions_are_the_highest_of_a_shards_chunks() {
        let map = compound();
        assert_eq!(map.shard_version("two").chunks, Timestamp { time: 3, increment: 0 });
        assert_eq!(map.shard_version("one").chunks, Timestamp { time: 2, increment: 0 });
        assert_eq!(map.shard_version("none").chunks, Timestamp { time: 0, increment: 0 });
        assert_eq!(map.version().chunks.time, 3);
        let mut split = map.version();
        split.chunks.increment = 7;
        assert!(!split.moved_since(map.version()));
        split.chunks.time = 4;
        assert!(split.moved_since(map.version()));
    }

    #[test]
    fn chunks_that_leave_a_gap_are_no_map() {
        let mut chunks = compound().chunks().to_vec();
        chunks.remove(1);
        assert_eq!(
            ChunkMap::new(&collection(rawdoc! { "a": 1, "b": 1 }), chunks.clone()),
            Err(MapError::Torn)
        );
        chunks.pop();
        assert_eq!(
            ChunkMap::new(&collection(rawdoc! { "a": 1, "b": 1 }), chunks),
            Err(MapError::Torn)
        );
        assert_eq!(ChunkMap::new(&collection(rawdoc! { "a": 1 }), Vec::new()), Err(MapError::Torn));
    }
}
