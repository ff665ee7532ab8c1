//! The states of a run. Each variant owns exactly the data that is valid in it.

use std::time::Duration;

use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::history::Actor;
use schemas::phase::Phase;
use schemas::spec::SourceWrites;
use schemas::time::UtcTime;
use serde::{Deserialize, Serialize};

use crate::token::{Attempt, Token};

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum State {
    /// Live checks run; no data of this run has moved.
    Validating {
        /// How far it is.
        stage: Validation,
    },
    /// The initial copy runs.
    Copying {
        /// Whether the indexes are built already.
        indexes_built: bool,
    },
    /// The copy is done; the tail follows.
    CatchingUp {
        /// Whether the indexes are built.
        indexes_built: bool,
    },
    /// A cutover may be acknowledged.
    Ready,
    /// The source's writes are stopped, and what is left is applied.
    Draining {
        /// The acknowledgement.
        cutover: Cutover,
        /// How far it is.
        stage: DrainStage,
    },
    /// The destination is handed over. There is no way back: what is restored here ends the sync's
    /// ability to go on.
    Finalizing {
        /// The acknowledgement.
        cutover: Cutover,
        /// The source's last operation, which has been applied.
        final_time: ClusterTime,
        /// Since when writers are kept out.
        down_since: UtcTime,
        /// Whether the run holds a block on the source.
        fenced: bool,
        /// How far it is.
        stage: FinalStage,
    },
    /// Cut over.
    Completed {
        /// The acknowledgement.
        cutover: Cutover,
        /// The source's last operation, which has been applied.
        final_time: ClusterTime,
        /// When the destination became writable.
        writable_at: UtcTime,
        /// How long writers were kept out, in milliseconds.
        downtime_ms: u64,
        /// Whether the run holds a block on the source.
        fenced: bool,
    },
    /// Held by a person.
    Paused {
        /// Where it goes on.
        from: Resting,
    },
    /// Stopped for good by a person.
    Cancelled {
        /// Whether the destination was given back and cleaned up.
        cleaned: bool,
    },
    /// Stopped by an error that trying again does not mend.
    Failed {
        /// Where it goes on once a person resumes it.
        from: Resting,
        /// The error.
        fault: Fault,
    },
    /// The window closed.
    Expired {
        /// When.
        at: UtcTime,
        /// Whether the destination was given back.
        freed: bool,
        /// Where it goes on after an extension.
        from: Resting,
        /// Whether an extension was granted, and only the resume point is still to be looked for.
        extended: bool,
    },
}

/// How far the validation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// The live checks run.
    Checking,
    /// What earlier runs created is dropped.
    DroppingEarlier,
    /// Data that was there is dropped, as declared.
    DroppingExisting,
}

/// Where a stopped run goes on. `Ready` is none of them: readiness must be shown anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Resting {
    /// With the live checks.
    Validating,
    /// With the initial copy.
    Copying {
        /// Whether the indexes are built already.
        indexes_built: bool,
    },
    /// With the tail.
    CatchingUp {
        /// Whether the indexes are built.
        indexes_built: bool,
    },
}

impl Resting {
    /// The state in which the run goes on.
    #[must_use]
    pub const fn state(self) -> State {
        match self {
            Self::Validating => State::Validating { stage: Validation::Checking },
            Self::Copying { indexes_built } => State::Copying { indexes_built },
            Self::CatchingUp { indexes_built } => State::CatchingUp { indexes_built },
        }
    }
}

/// An acknowledgement that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cutover {
    /// Its number.
    pub attempt: Attempt,
    /// Its token.
    pub token: Token,
    /// Who gave it.
    pub by: Actor,
    /// When it was taken.
    pub at: UtcTime,
    /// How the source's writes are stopped; a later change of the setting does not reach a cutover
    /// on its way.
    pub mode: SourceWrites,
}

/// How far draining is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum DrainStage {
    /// Checks run; the source takes writes.
    Preparing {
        /// When the checks had passed: only readiness is then waited for (after a restart of the
        /// daemon).
        prepared_at: Option<UtcTime>,
        /// What they are at; `None`: they have not reported yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        doing: Option<Doing>,
    },
    /// The source's block was asked for, and may be up.
    Blocking {
        /// When it was first asked for.
        since: UtcTime,
    },
    /// The run waits for the source's writes to stop.
    Watching,
    /// No more writes come; what is left is applied.
    Applying {
        /// Since when writers are kept out.
        since: UtcTime,
    },
    /// The cutover was given up; the source's block is taken down.
    Undoing {
        /// Why.
        fault: Fault,
        /// Where it goes then.
        then: AfterUndo,
    },
}

/// What the checks before a cutover are at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// In words.
    pub what: String,
    /// Since when they wait for what the source's load decides; `None`: for work whose length the
    /// data decides.
    pub waiting_since: Option<UtcTime>,
    /// Since when the checks have failed for what may pass; they begin again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<UtcTime>,
}

/// Where a cutover that was given up goes, once the source takes writes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterUndo {
    /// It may be acknowledged again.
    Ready,
    /// The sync itself failed.
    Failed,
}

/// How far finalizing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum FinalStage {
    /// Settings are given back.
    Restoring,
    /// Somebody has the source take writes again; the destination has never been opened. Then the
    /// run is cancelled.
    Returning,
    /// The destination is opened; it may be writable by now.
    Opening,
    /// The destination is writable; what the run leaves behind is removed.
    Cleaning {
        /// When it became writable.
        writable_at: UtcTime,
    },
}

impl State {
    /// The phase that users see.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Validating { .. } => Phase::Validating,
            Self::Copying { .. } => Phase::Copying,
            Self::CatchingUp { .. } => Phase::CatchingUp,
            Self::Ready => Phase::Ready,
            Self::Draining { .. } => Phase::Draining,
            Self::Finalizing { .. } => Phase::Finalizing,
            Self::Completed { .. } => Phase::Completed,
            Self::Paused { .. } => Phase::Paused,
            Self::Cancelled { .. } => Phase::Cancelled,
            Self::Failed { .. } => Phase::Failed,
            Self::Expired { .. } => Phase::Expired,
        }
    }

    /// What a cutover that is on its way is at, in words; `None`: none is.
    #[must_use]
    pub fn cutting_over(&self) -> Option<String> {
        let what = match self {
            Self::Draining { stage, .. } => match stage {
                DrainStage::Preparing { prepared_at: None, doing: None } => {
                    "the checks before the source is blocked run".to_owned()
                }
                DrainStage::Preparing { prepared_at: None, doing: Some(doing) } => {
                    doing.what.clone()
                }
                DrainStage::Preparing { prepared_at: Some(_), .. } => {
                    "waiting until the run is seen to be ready".to_owned()
                }
                DrainStage::Blocking { .. } => "the source's writes are being blocked".to_owned(),
                DrainStage::Watching => "waiting for the source's writes to stop".to_owned(),
                DrainStage::Applying { .. } => {
                    "what is left of the source's changes is applied and compared".to_owned()
                }
                DrainStage::Undoing { fault, .. } => {
                    format!("it is given up, and the source is unblocked: {fault}")
                }
            },
            Self::Finalizing { stage, .. } => match stage {
                FinalStage::Restoring => "the destination gets its settings back".to_owned(),
                FinalStage::Returning => {
                    "the source is opened by hand; the run is cancelled then".to_owned()
                }
                FinalStage::Opening => "the destination is opened for writes".to_owned(),
                FinalStage::Cleaning { .. } => {
                    "the destination takes writes; what the run leaves behind is removed".to_owned()
                }
            },
            Self::Validating { .. }
            | Self::Copying { .. }
            | Self::CatchingUp { .. }
            | Self::Ready
            | Self::Completed { .. }
            | Self::Paused { .. }
            | Self::Cancelled { .. }
            | Self::Failed { .. }
            | Self::Expired { .. } => return None,
        };
        Some(what)
    }

    /// Where the run would go on if it were stopped here; `None` where it cannot be stopped and
    /// resumed.
    #[must_use]
    pub const fn resting(&self) -> Option<Resting> {
        match self {
            Self::Validating { .. } => Some(Resting::Validating),
            Self::Copying { indexes_built } => {
                Some(Resting::Copying { indexes_built: *indexes_built })
            }
            Self::CatchingUp { indexes_built } => {
                Some(Resting::CatchingUp { indexes_built: *indexes_built })
            }
            Self::Ready => Some(Resting::CatchingUp { indexes_built: true }),
            Self::Paused { from } | Self::Failed { from, .. } | Self::Expired { from, .. } => {
                Some(*from)
            }
            Self::Draining { .. }
            | Self::Finalizing { .. }
            | Self::Completed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// Whether the run may hold a block on the source here.
    #[must_use]
    pub const fn may_fence(&self) -> bool {
        match self {
            Self::Draining { cutover, stage } => match stage {
                DrainStage::Preparing { .. } | DrainStage::Watching => false,
                DrainStage::Blocking { .. } | DrainStage::Undoing { .. } => true,
                DrainStage::Applying { .. } => matches!(cutover.mode, SourceWrites::Block),
            },
            Self::Finalizing { fenced, .. } | Self::Completed { fenced, .. } => *fenced,
            Self::Validating { .. }
            | Self::Copying { .. }
            | Self::CatchingUp { .. }
            | Self::Ready
            | Self::Paused { .. }
            | Self::Cancelled { .. }
            | Self::Failed { .. }
            | Self::Expired { .. } => false,
        }
    }

    /// The acknowledgement that is being carried out, or was.
    #[must_use]
    pub const fn cutover(&self) -> Option<&Cutover> {
        match self {
            Self::Draining { cutover, .. }
            | Self::Finalizing { cutover, .. }
            | Self::Completed { cutover, .. } => Some(cutover),
            Self::Validating { .. }
            | Self::Copying { .. }
            | Self::CatchingUp { .. }
            | Self::Ready
            | Self::Paused { .. }
            | Self::Cancelled { .. }
            | Self::Failed { .. }
            | Self::Expired { .. } => None,
        }
    }

    /// When the destination became writable for its users.
    #[must_use]
    pub const fn writable_at(&self) -> Option<UtcTime> {
        match self {
            Self::Finalizing { stage: FinalStage::Cleaning { writable_at }, .. }
            | Self::Completed { writable_at, .. } => Some(*writable_at),
            Self::Finalizing {
                stage: FinalStage::Restoring | FinalStage::Returning | FinalStage::Opening,
                ..
            }
            | Self::Validating { .. }
            | Self::Copying { .. }
            | Self::CatchingUp { .. }
            | Self::Ready
            | Self::Draining { .. }
            | Self::Paused { .. }
            | Self::Cancelled { .. }
            | Self::Failed { .. }
            | Self::Expired { .. } => None,
        }
    }

    /// How long writers were kept out, from the block to the first writable moment.
    #[must_use]
    pub fn downtime(&self) -> Option<Duration> {
        match self {
            Self::Finalizing {
                stage: FinalStage::Cleaning { writable_at }, down_since, ..
            } => Some(writable_at.since(*down_since)),
            Self::Completed { downtime_ms, .. } => Some(Duration::from_millis(*downtime_ms)),
            Self::Finalizing {
                stage: FinalStage::Restoring | FinalStage::Returning | FinalStage::Opening,
                ..
            }
            | Self::Validating { .. }
            | Self::Copying { .. }
            | Self::CatchingUp { .. }
            | Self::Ready
            | Self::Draining { .. }
            | Self::Paused { .. }
            | Self::Cancelled { .. }
            | Self::Failed { .. }
            | Self::Expired { .. } => None,
        }
    }
}
