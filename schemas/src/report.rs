//! What a completed migration was, what proved it, and how long it took, as `cutover report --json`
//! prints it.

use serde::{Deserialize, Serialize};

use crate::history::Actor;
use crate::id::{Generation, MigrationName, RunId, Workspace};
use crate::phase::Phase;
use crate::spec::VerifyMode;
use crate::time::UtcTime;

/// The version of this document. A newer one is refused, not read with fields dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReportVersion(pub u32);

impl ReportVersion {
    /// What this version of the program writes.
    pub const CURRENT: Self = Self(1);
}

/// The account of one run that was cut over. Absent values are `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this document.
    pub format_version: ReportVersion,
    /// The migration's label.
    pub name: MigrationName,
    /// The workspace that owns it.
    pub workspace: Workspace,
    /// The run's generation.
    pub generation: Generation,
    /// The run.
    pub run: RunId,
    /// When it was declared.
    pub declared_at: UtcTime,
    /// When it had cut over and left nothing behind.
    pub completed_at: UtcTime,
    /// How long it was in each phase, in the order in which it first came there.
    pub phases: Vec<PhaseTime>,
    /// Who let it cut over.
    pub acknowledged: Acknowledged,
    /// Seconds from the block of the source to the destination's first writable moment.
    pub downtime_seconds: f64,
    /// What was carried.
    pub migrated: Migrated,
    /// What proved it.
    pub verification: Proof,
}

/// How long a run was in a phase, over all of its visits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub phase: Phase,
    /// Seconds in it.
    pub seconds: f64,
}

/// An acknowledgement that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Who gave it, and the revision that carried it.
    pub by: Actor,
    /// When it was taken.
    pub at: UtcTime,
}

/// What a run carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// Collections that were copied.
    pub collections: u64,
    /// Documents that were copied.
    pub documents: u64,
    /// Bytes of those documents.
    pub bytes: u64,
    /// Indexes that were built.
    pub indexes: u64,
    /// Changes that were applied after the start of the copy.
    pub events_applied: u64,
}

/// What a verification has done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// How much was compared.
    pub mode: VerifyMode,
    /// Documents that the comparison of whole collections has met.
    pub documents_compared: u64,
    /// Comparisons of single documents since: of what was changed or found unequal.
    pub documents_compared_again: u64,
    /// The comparison of everything, and the rounds of comparing again what the one before had
    /// left.
    pub generations: u64,
    /// Mismatches that stood in repeated comparisons, whether or not they were mended since.
    pub mismatches_found: u64,
    /// Mismatches that are open.
    pub mismatches_open: u64,
    /// Writes of others to the destination that were found.
    pub foreign_writes: u64,
    /// Documents whose last comparison was after the source took no more writes.
    pub compared_after_block: u64,
    /// Seconds that the comparison of whole collections took.
    pub duration_seconds: f64,
}

impl Proof {
    /// The proof of a run that has compared nothing yet.
    #[must_use]
    pub const fn none(mode: VerifyMode) -> Self {
        Self {
            mode,
            documents_compared: 0,
            documents_compared_again: 0,
            generations: 0,
            mismatches_found: 0,
            mismatches_open: 0,
            foreign_writes: 0,
            compared_after_block: 0,
            duration_seconds: 0.0,
        }
    }
}
