//! What holds for every step, whatever happens. The daemon refuses to journal a step that breaks
//! one; the simulation looks for such.

use schemas::spec::{SourceAfter, SourceWrites};

use crate::event::{Event, Opened};
use crate::run::Run;
use crate::state::{DrainStage, FinalStage, State};
use crate::token::Token;

/// A rule that a step would break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the step of {event} from {from} to {to} breaks a rule: {rule}")]
pub struct Violation {
    /// What happened.
    pub event: &'static str,
    /// The state before.
    pub from: schemas::phase::Phase,
    /// The state after.
    pub to: schemas::phase::Phase,
    /// The rule.
    pub rule: &'static str,
}

/// Checks the step from `before` to `after` by `event`.
pub fn check(before: &Run, event: &Event, after: &Run) -> Result<(), Violation> {
    let breaks = |rule| {
        Err(Violation { event: event.name(), from: before.phase(), to: after.phase(), rule })
    };
    if after.id != before.id || after.generation != before.generation {
        return breaks("a run stays itself");
    }
    if after.clock < before.clock {
        return breaks("time does not go back");
    }
    if after.attempt < before.attempt {
        return breaks("attempts only rise");
    }
    if before.used_tokens.iter().any(|token| !after.used_tokens.contains(token)) {
        return breaks("a used token stays used");
    }
    if after.used_tokens.contains(&after.next_token()) {
        return breaks("a used token is never offered again");
    }
    if before.opened_at.is_some() && after.opened_at != before.opened_at {
        return breaks("the window opens once");
    }
    let grants = matches!(event, Event::Declare { .. } | Event::Extend { .. });
    if !grants && before.opened_at.is_some() && after.deadline() > before.deadline() {
        return breaks("only an extension lengthens the window");
    }
    if matches!(after.state, State::Ready) && after.is_past_deadline(after.clock) {
        return breaks("no run is ready after its deadline");
    }
    if let (State::Draining { cutover, .. }, false) =
        (&after.state, matches!(before.state, State::Draining { .. }))
    {
        let acknowledged =
            matches!(event, Event::Acknowledge { token, .. } if *token == cutover.token);
        let fresh = !before.used_tokens.contains(&cutover.token)
            && cutover.token == Token::derive(&before.id, &before.digest, before.attempt);
        if !(acknowledged && fresh && matches!(before.state, State::Ready)) {
            return breaks("only a ready run's own unused token cuts over");
        }
    }
    let fence_left = before.state.may_fence() && !after.state.may_fence();
    if fence_left && !matches!(event, Event::SourceUnblocked { .. }) {
        return breaks("a block that may be up is given back before it is forgotten");
    }
    if let State::Finalizing { stage, fenced, .. } = &before.state {
        match &after.state {
            State::Completed { .. } => {}
            State::Finalizing { stage: then, .. } => {
                let is_opened = matches!(stage, FinalStage::Opening | FinalStage::Cleaning { .. });
                if is_opened && !matches!(then, FinalStage::Opening | FinalStage::Cleaning { .. }) {
                    return breaks("what is opened for its users stays so");
                }
                if matches!(stage, FinalStage::Returning) && !matches!(then, FinalStage::Returning)
                {
                    return breaks("a destination is not opened once its source is");
                }
            }
            State::Cancelled { .. } => {
                // Whoever has it so; the source comes before anything else is done.
                let is_returned = match stage {
                    FinalStage::Returning => true,
                    FinalStage::Restoring => {
                        !fenced && matches!(event, Event::Open { side: Opened::Source, .. })
                    }
                    FinalStage::Opening | FinalStage::Cleaning { .. } => false,
                };
                if !is_returned {
                    return breaks(
                        "finalizing ends in a cancelled run only by the word that opens the source",
                    );
                }
            }
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Draining { .. }
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {
                return breaks("there is no way back from finalizing to a sync");
            }
        }
    }
    if let State::Completed { .. } = &before.state
        && !matches!(after.state, State::Completed { .. })
    {
        return breaks("completed is the end");
    }
    if let State::Completed { .. } = &after.state
        && before.state.writable_at().is_none()
    {
        return breaks("completed only after the destination is writable");
    }
    if let (State::Finalizing { .. }, State::Draining { cutover, stage }) =
        (&after.state, &before.state)
    {
        let stopped = matches!(stage, DrainStage::Applying { .. });
        let drained = matches!(event, Event::Drained { .. });
        let in_time = before.give_up_at().is_none_or(|at| after.clock < at);
        if !(stopped && drained && in_time) {
            return breaks("only a drain within max_downtime is finalized");
        }
        if cutover.mode == SourceWrites::Block && !after.state.may_fence() {
            return breaks("a block that is up is remembered");
        }
    }
    if let (State::Completed { fenced: true, .. }, false) =
        (&after.state, matches!(before.state, State::Completed { .. }))
        && after.settings.source_after == SourceAfter::Open
    {
        return breaks("completed with an open source only once it is open");
    }
    Ok(())
}
