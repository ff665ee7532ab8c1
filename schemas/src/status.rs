//! Where a run stands, as `cutover status --json` prints it. Absent values are `null`, never left
//! out.

use serde::{Deserialize, Serialize};

use crate::cluster_time::ClusterTime;
use crate::fault::Fault;
use crate::id::{Generation, MigrationName, RunId, Serial, ShardName, Workspace};
use crate::phase::Phase;
use crate::spec::VerifyMode;
use crate::time::UtcTime;

/// One migration's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationStatus {
    /// The migration's label.
    pub name: MigrationName,
    /// The workspace that owns it.
    pub workspace: Workspace,
    /// The run's generation.
    pub generation: Generation,
    /// The run.
    pub run: RunId,
    /// Rises with each change of the declared state.
    pub serial: Serial,
    /// Where the run stands.
    pub phase: Phase,
    /// Whether somebody holds it.
    pub paused: bool,
    /// Whether the destination may be written to by its users.
    pub destination_writable: bool,
    /// Seconds between the newest majority-committed operation on the source and the newest one
    /// applied; `null` before it is known.
    pub lag_seconds: Option<f64>,
    /// The initial copy, all shards together.
    pub copy: CopyProgress,
    /// The tail, all shards together.
    pub tail: TailProgress,
    /// The destination's indexes.
    pub indexes: IndexProgress,
    /// The proof of the copy.
    pub verification: VerificationProgress,
    /// Each shard by its name; a replica set is one shard.
    pub shards: Vec<ShardStatus>,
    /// The cutover window.
    pub window: WindowStatus,
    /// Whether a cutover may be acknowledged, and if not, why.
    pub ready: Readiness,
    /// What a reviewer acknowledges; only while `ready`.
    pub acknowledge_token: Option<String>,
    /// The cutover itself.
    pub cutover: CutoverStatus,
    /// What is wrong, if anything.
    pub error: Option<Fault>,
    /// How often a server has answered with the error, where that is tried again; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
}

/// Tries that have failed with one error, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// How many.
    pub count: u32,
    /// When the first failed.
    pub since: UtcTime,
}

/// Progress of the initial copy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyProgress {
    /// Bytes of documents to copy, as the source estimates them.
    pub bytes_total: u64,
    /// Bytes of documents copied.
    pub bytes_copied: u64,
    /// Documents to copy, as the source estimates them.
    pub documents_total: u64,
    /// Documents copied.
    pub documents_copied: u64,
    /// Collections to copy.
    pub collections_total: u64,
    /// Collections copied whole.
    pub collections_copied: u64,
    /// Seconds to the end of the copy at its present speed.
    pub eta_seconds: Option<f64>,
}

/// Progress of the tail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TailProgress {
    /// Events applied since the run began.
    pub events_applied: u64,
    /// Events applied a second, over the last seconds.
    pub events_per_second: f64,
    /// Seconds until the lag is gone at the present speeds.
    pub catch_up_eta_seconds: Option<f64>,
}

/// Progress of the index builds on the destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexProgress {
    /// Indexes to build, less those on `_id`.
    pub total: u64,
    /// Indexes built.
    pub built: u64,
}

/// Progress of the verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationProgress {
    /// How much is compared.
    pub mode: VerifyMode,
    /// What it does now: `off`, `waiting`, `comparing`, `rechecking`, `clean` or `mismatch`.
    pub phase: String,
    /// Documents to compare.
    pub documents_total: u64,
    /// Documents compared and found equal.
    pub documents_verified: u64,
    /// Mismatches open.
    pub mismatches: u64,
    /// Documents that wait to be compared again.
    pub pending_rechecks: u64,
}

/// One shard's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard's name.
    pub name: ShardName,
    /// Where this shard stands: the run's phase, but `failed` where only this shard is.
    pub phase: Phase,
    /// Its part of the copy.
    pub copy: CopyProgress,
    /// Its part of the tail.
    pub tail: TailProgress,
    /// Its lag.
    pub lag_seconds: Option<f64>,
    /// The lag as two cluster times.
    pub optime_gap: OptimeGap,
    /// Seconds between the oldest and the newest entry of its oplog; `null` before it is known.
    pub oplog_window_seconds: Option<u64>,
    /// What is wrong with this shard.
    pub error: Option<Fault>,
}

/// The newest operation on the source and the newest one applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptimeGap {
    /// Newest majority-committed operation on the source.
    pub source: Option<ClusterTime>,
    /// Newest operation applied.
    pub applied: Option<ClusterTime>,
}

/// The cutover window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowStatus {
    /// When the run first became ready.
    pub opened_at: Option<UtcTime>,
    /// When it closes.
    pub expires_at: Option<UtcTime>,
    /// Extensions in force, declared and by hand; each is 24 h.
    pub extensions: u32,
    /// Seconds left.
    pub remaining_seconds: Option<f64>,
}

/// Whether a cutover may be acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether it may.
    pub value: bool,
    /// Why not, each in words.
    pub reasons: Vec<String>,
}

/// The cutover itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CutoverStatus {
    /// When the acknowledgement was taken.
    pub started_at: Option<UtcTime>,
    /// Seconds from the block of the source to the destination's first writable moment.
    pub downtime_seconds: Option<f64>,
    /// Who acknowledged.
    pub acknowledged_by: Option<String>,
}
