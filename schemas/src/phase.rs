//! The states of a run, as users see them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Preflight checks run; no data has moved.
    Validating,
    /// The initial copy of all documents in scope runs.
    Copying,
    /// The copy is done; the tail follows the source and is not yet ready.
    CatchingUp,
    /// Everything holds that a cutover needs; it waits for the acknowledgement, inside the window.
    Ready,
    /// The source's writes are blocked, or watched; the tail applies what is left.
    Draining,
    /// The destination gets its settings back and is handed over.
    Finalizing,
    /// Cut over; nothing is left to do.
    Completed,
    /// Held by a person, in one of the first four phases.
    Paused,
    /// Stopped for good by a person; the data stays.
    Cancelled,
    /// Stopped by an error.
    Failed,
    /// The window closed before an acknowledgement.
    Expired,
}

impl Phase {
    /// Every phase, in the order of a run's life.
    pub const ALL: [Self; 11] = [
        Self::Validating,
        Self::Copying,
        Self::CatchingUp,
        Self::Ready,
        Self::Draining,
        Self::Finalizing,
        Self::Completed,
        Self::Paused,
        Self::Cancelled,
        Self::Failed,
        Self::Expired,
    ];

    /// The phase's name in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Copying => "copying",
            Self::CatchingUp => "catching_up",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing more happens in it unless somebody acts.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a phase; the phases are validating, copying, catching_up, ready, draining, \
     finalizing, completed, paused, cancelled, failed and expired"
)]
pub struct UnknownPhase(String);

impl FromStr for Phase {
    type Err = UnknownPhase;
    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}
