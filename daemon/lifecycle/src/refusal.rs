//! Acts that do not fit a run's state: typed, and told to the one who asked.

use schemas::fault::{Fault, FaultCode};
use schemas::id::RunId;
use schemas::phase::Phase;
use schemas::time::UtcTime;

/// An act that was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} does not fit run {run}, which is {phase}: {guard}")]
pub struct Refusal {
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub phase: Phase,
    /// What was asked for.
    pub event: &'static str,
    /// What did not hold.
    pub guard: Guard,
}

/// A condition that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Guard {
    /// The token is another one's.
    #[error("the token is not this run's")]
    WrongToken,
    /// The token has been used.
    #[error("the token has been used already")]
    UsedToken,
    /// Something that a cutover needs is missing.
    #[error("it is not ready: {}", .0.join("; "))]
    NotReady(Vec<String>),
    /// The window is over.
    #[error("its window closed at {at}")]
    WindowExpired {
        /// When.
        at: UtcTime,
    },
    /// A cutover is on its way.
    #[error("it is cutting over")]
    CuttingOver,
    /// The destination may have taken writes.
    #[error(
        "its destination is opened, or is about to be: writes that it took would be lost on the \
         source"
    )]
    DestinationOpened,
    /// The source may have taken writes.
    #[error("its source is opened: the destination would miss the writes that it takes")]
    SourceOpened,
    /// There is no cutover that waits for anything.
    #[error("it is not finalizing, so that neither side is kept closed by it")]
    NotFinalizing,
    /// It has cut over.
    #[error("it has cut over")]
    CutOver,
    /// It was stopped for good.
    #[error("it was cancelled; raise `generation` to run again")]
    Cancelled,
    /// It was stopped by an error.
    #[error("it failed; `cutover resume` tries again")]
    Failed,
    /// It is held.
    #[error("it is paused")]
    Paused,
    /// There is nothing to go on with.
    #[error("it has not moved any data yet")]
    NotSyncing,
    /// It still has work that must not be forgotten.
    #[error("it has to be cancelled or completed first")]
    StillRunning,
    /// It is being removed.
    #[error("it is being forgotten")]
    Forgetting,
}

impl Refusal {
    /// The refusal as an operator sees it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match &self.guard {
            Guard::WrongToken | Guard::UsedToken => FaultCode::WrongToken,
            Guard::NotReady(_) => FaultCode::NotReady,
            Guard::WindowExpired { .. } => FaultCode::WindowExpired,
            Guard::CuttingOver
            | Guard::DestinationOpened
            | Guard::SourceOpened
            | Guard::NotFinalizing
            | Guard::CutOver
            | Guard::Cancelled
            | Guard::Failed
            | Guard::Paused
            | Guard::NotSyncing
            | Guard::StillRunning
            | Guard::Forgetting => FaultCode::WrongState,
        };
        let fault = Fault::new(code, self.to_string());
        match self.guard {
            Guard::Cancelled => fault.with_remedy("raise `generation` to run again from scratch"),
            Guard::CuttingOver if self.phase == Phase::Finalizing => fault.with_remedy(
                "wait until it has completed; where it cannot (`cutover status` says why), \
                 `cutover cancel NAME --open-source` or `--open-destination` ends it",
            ),
            Guard::CuttingOver => {
                fault.with_remedy("wait until it has completed, or is ready again")
            }
            Guard::DestinationOpened => fault.with_remedy(
                "let it go on; a source that is to take writes all the same is opened on the \
                 server itself",
            ),
            Guard::NotFinalizing => {
                fault.with_remedy("`cutover cancel NAME` alone stops it for good")
            }
            Guard::WrongToken
            | Guard::UsedToken
            | Guard::NotReady(_)
            | Guard::WindowExpired { .. }
            | Guard::SourceOpened
            | Guard::CutOver
            | Guard::Failed
            | Guard::Paused
            | Guard::NotSyncing
            | Guard::StillRunning
            | Guard::Forgetting => fault,
        }
    }
}
