//! What the checkpoints' rows say.

use mongodb::bson::RawDocumentBuf;
use schemas::cluster_time::ClusterTime;
use schemas::id::ShardName;
use schemas::namespace::Namespace;

/// How far a collection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In the catalogue.
    Listed,
    /// Created on the destination and split into parts.
    Split,
    /// Every part is written.
    Copied,
    /// Its indexes are built.
    Indexed,
}

impl Stage {
    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Listed => 0,
            Self::Split => 1,
            Self::Copied => 2,
            Self::Indexed => 3,
        }
    }

    pub(super) const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Listed),
            1 => Some(Self::Split),
            2 => Some(Self::Copied),
            3 => Some(Self::Indexed),
            _ => None,
        }
    }
}

/// A collection of the run's catalogue.
#[derive(Debug, Clone)]
pub struct CollectionRow {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its entry of `listCollections`.
    pub info: RawDocumentBuf,
    /// Documents, as the source estimated.
    pub documents: u64,
    /// Bytes of documents, as the source estimated.
    pub bytes: u64,
    /// How far it has come.
    pub stage: Stage,
}

/// A stretch of a collection in natural order.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its place in the collection, from 0.
    pub number: u32,
    /// It starts behind this record; `None`: at the collection's start.
    pub after: Option<i64>,
    /// It ends with this record; `None`: at the collection's end.
    pub until: Option<i64>,
    /// A document `{_id: …}` with that record's `_id`.
    pub until_id: Option<RawDocumentBuf>,
}

/// Where a shard's tail stands.
#[derive(Debug, Clone)]
pub struct ShardRow {
    /// Taken before the first document was read.
    pub start: ClusterTime,
    /// Every document of the copy was read at or before this time; `None` while the copy runs.
    pub copied: Option<ClusterTime>,
    /// Everything up to this token is applied.
    pub token: Option<RawDocumentBuf>,
    /// The cluster time of that.
    pub applied: Option<ClusterTime>,
    /// Events applied so far.
    pub events: u64,
}

/// How far a shard's stream is applied.
#[derive(Debug, Clone)]
pub struct ShardStreamRow {
    /// The shard.
    pub shard: ShardName,
    /// Everything up to this token is applied.
    pub token: RawDocumentBuf,
    /// The cluster time of that.
    pub applied: ClusterTime,
    /// Events applied so far.
    pub events: u64,
}

/// How often a shard has reported a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldRow {
    /// The definition, as bytes that are the same on every shard.
    pub kind: Vec<u8>,
    /// The shard.
    pub shard: ShardName,
    /// How often.
    pub times: u64,
}

/// A namespace that was copied again by itself, since a rename brought it in while its data was
/// being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recopied {
    /// Whether the source still had it; if not, what made it go is further on in the stream.
    pub whole: bool,
    /// It was read at or before this time.
    pub time: ClusterTime,
}
