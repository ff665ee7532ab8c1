//! What the daemon tells a planner: each migration as it really is, and what it found out about a
//! declared one.

use serde::{Deserialize, Serialize};

use crate::cluster_time::ClusterTime;
use crate::id::ShardName;
use crate::namespace::Namespace;
use crate::spec::MigrationSpec;
use crate::status::MigrationStatus;

/// One migration as the daemon has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// What was last applied.
    pub spec: MigrationSpec,
    /// Whether its block is still declared: false once it was removed, and the run cancelled with
    /// it.
    pub declared: bool,
    /// Where it stands.
    pub status: MigrationStatus,
    /// What people did by hand since the last apply.
    pub by_hand: ByHand,
    /// The token that this run was cut over with, once it was.
    pub acknowledged_token: Option<String>,
    /// Namespaces on the destination that this run created: what a new generation drops.
    pub created_namespaces: Vec<Namespace>,
    /// Unique, TTL and capped settings that finalizing gives back, in words.
    pub deferred_settings: Vec<String>,
    /// The daemon's expectation of a cutover's downtime now, in seconds.
    pub expected_downtime_seconds: Option<f64>,
    /// Whether the run holds the source's balancer stopped, to be given back at its end.
    #[serde(default)]
    pub balancer_held: bool,
    /// Whether the source still holds the place from which an expired run would go on; `None` where
    /// that was not looked at, or cannot be seen.
    #[serde(default)]
    pub resume_point_held: Option<bool>,
    /// What a look at both sides found, where somebody asked for one.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What others have written to the destination.
    #[serde(default)]
    pub foreign_writes: ForeignWrites,
}

/// Writes of others to the destination, found in its own change stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignWrites {
    /// All that were found since the comparison began.
    pub found: u64,
    /// Those of which the documents are not compared yet, or differ.
    pub open: u64,
    /// The newest of the open ones.
    pub named: Vec<ForeignWrite>,
}

/// One write of somebody else to the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignWrite {
    /// Where.
    pub namespace: Namespace,
    /// The document's `_id` as text; `null` for a change of a definition.
    #[serde(rename = "_id")]
    pub id: Option<String>,
    /// What was done, in the change stream's words: `insert`, `update`, `delete`, `drop` ...
    pub operation: String,
    /// When, in the destination's own time.
    pub time: ClusterTime,
    /// Whether its document is not compared yet, or differs.
    pub open: bool,
}

/// Something around a run that is not as it was when the run began, as a look at both sides shows
/// it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// What it is about, as in `source.version`.
    pub path: String,
    /// How it was, or should be.
    pub expected: serde_json::Value,
    /// How it is.
    pub actual: serde_json::Value,
    /// The same in words.
    pub message: String,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The version of a side's servers.
    Version,
    /// Options or indexes on the destination.
    Definitions,
    /// A side no longer lets the daemon in.
    Credentials,
    /// The balancer of a sharded source runs.
    BalancerOn,
    /// A shard has joined the source.
    ShardAdded,
    /// A shard has left the source.
    ShardRemoved,
}

/// What people did by hand: the drift that the daemon itself knows of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// Paused or resumed against the declaration.
    pub paused: Option<bool>,
    /// Extensions over the declared ones.
    pub extensions: u32,
    /// Cancelled.
    pub cancelled: bool,
}

/// What the daemon found when it looked at a declared migration's two sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The live checks, in order.
    pub checks: Vec<Check>,
    /// How large it is and how long it will take; `None` where the source could not be read.
    pub forecast: Option<Forecast>,
    /// Namespaces on the destination that will be dropped (`existing_data = "drop"`).
    pub drops: Vec<Namespace>,
    /// Whether the destination has access control; `None` where that could not be seen.
    pub destination_access_control: Option<bool>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Ok,
    /// It does not stop the migration.
    Warn,
    /// It stops the migration.
    Fail,
}

/// One live check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, such as `source_reachable`.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub message: String,
    /// The error's code, of a failed one.
    pub code: Option<crate::fault::FaultCode>,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

/// How large a migration is and how long it will take.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Bytes of documents in scope.
    pub bytes: u64,
    /// Documents in scope.
    pub documents: u64,
    /// Collections in scope.
    pub collections: u64,
    /// Estimated copy time from a measured sample; `None` where nothing could be measured.
    pub copy_seconds: Option<f64>,
    /// Each shard's oplog against that time.
    pub shards: Vec<ShardForecast>,
}

/// One shard's oplog against the copy time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardForecast {
    /// The shard.
    pub name: ShardName,
    /// Seconds of writes that its oplog holds; of one that is not full yet, what it will at the
    /// same rate.
    pub oplog_window_seconds: Option<u64>,
    /// Whether the copy is expected to end well before the oplog rolls over (within half of it);
    /// `None` where unknown.
    pub fits: Option<bool>,
}

/// In what way the two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MismatchKind {
    /// A document that only the source has.
    Missing,
    /// A document that only the destination has.
    Extra,
    /// A document that both have, with other bytes.
    Different,
    /// A collection that only the source has.
    MissingCollection,
    /// A collection in scope that only the destination has.
    ExtraCollection,
    /// Options of a collection.
    Options,
    /// Indexes of a collection.
    Indexes,
}

impl MismatchKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Missing,
        Self::Extra,
        Self::Different,
        Self::MissingCollection,
        Self::ExtraCollection,
        Self::Options,
        Self::Indexes,
    ];

    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
            Self::MissingCollection => "missing_collection",
            Self::ExtraCollection => "extra_collection",
            Self::Options => "options",
            Self::Indexes => "indexes",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One difference of the two sides that stood in repeated comparisons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Where.
    pub namespace: Namespace,
    /// The document's `_id` as text; `null` for what is not a document.
    #[serde(rename = "_id")]
    pub id: Option<String>,
    /// In what way.
    pub kind: MismatchKind,
    /// The field paths, options or indexes that differ; never values.
    pub paths: Vec<String>,
}
