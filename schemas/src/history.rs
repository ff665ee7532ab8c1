//! The journal as users read it: who did what, when, and every transition. `cutover events` prints
//! these.

use serde::{Deserialize, Serialize};

use crate::id::{MigrationName, RunId, Workspace};
use crate::phase::Phase;
use crate::time::UtcTime;

/// Who asked for something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The caller's user id, as the kernel reports it; `null` for the daemon itself and for callers
    /// from elsewhere.
    pub uid: Option<u32>,
    /// The certificate of a caller from elsewhere: its names and its SHA-256.
    #[serde(default)]
    pub certificate: Option<String>,
    /// `CUTOVER_ACTOR`, or what the CI system says.
    pub name: Option<String>,
    /// `CUTOVER_REVISION`, or the CI system's commit.
    pub revision: Option<String>,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let proof = match (self.uid, &self.certificate) {
            (Some(uid), _) => Some(format!("uid {uid}")),
            (None, Some(certificate)) => Some(format!("certificate {certificate}")),
            (None, None) => None,
        };
        match (self.name.as_deref(), proof.as_deref()) {
            (Some(name), Some(proof)) => write!(f, "{name} ({proof})")?,
            (Some(one), None) | (None, Some(one)) => f.write_str(one)?,
            (None, None) => f.write_str("cutoverd")?,
        }
        if let Some(revision) = &self.revision {
            write!(f, " at {revision}")?;
        }
        Ok(())
    }
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A declaration was taken: created, changed or removed.
    Applied,
    /// Somebody acted by hand: pause, resume, extend, cancel, restart-shard.
    ByHand,
    /// The run went from one phase to another.
    Transition,
    /// Something that the run did on the way: the source blocked, the final time taken, an index
    /// converted.
    Step,
    /// Something went wrong.
    Fault,
    /// The daemon started or stopped.
    Daemon,
}

/// One record of the journal. Absent values are `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises by one with each record of the daemon.
    pub seq: u64,
    /// When.
    pub at: UtcTime,
    /// The migration's workspace.
    pub workspace: Workspace,
    /// The migration.
    pub migration: MigrationName,
    /// The run, where one exists.
    pub run: Option<RunId>,
    /// What kind of thing happened.
    pub kind: EntryKind,
    /// The phase before, of a transition.
    pub from: Option<Phase>,
    /// The phase after, of a transition.
    pub to: Option<Phase>,
    /// Who asked for it.
    pub actor: Option<Actor>,
    /// What happened, in words.
    pub message: String,
}
