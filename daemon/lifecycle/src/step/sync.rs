//! The way to `ready`: live checks, drops, the copy, the indexes, the tail; and what stops it.

use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::history::EntryKind;
use schemas::id::{RunId, ShardName};

use super::Walk;
use crate::effect::Effect;
use crate::run::Repeated;
use crate::state::{AfterUndo, DrainStage, State, Validation};

impl Walk<'_> {
    pub(super) fn earlier_retired(&mut self, run: &RunId) {
        let Some(earlier) =
            self.run.earlier.iter_mut().find(|earlier| earlier.id == *run && !earlier.retired)
        else {
            return;
        };
        earlier.retired = true;
        earlier.fenced = false;
        self.recovered();
        self.note(
            EntryKind::Step,
            format!("run {run} has stopped and gave back what it held"),
            None,
        );
    }

    pub(super) fn validated(&mut self) {
        // Its checks count only once nothing of an earlier run works any more.
        if !self.awaits(&Effect::Validate)
            || self.run.earlier.iter().any(|earlier| !earlier.retired)
        {
            return;
        }
        self.recovered();
        let replaced = self.run.replaces();
        if replaced.is_empty() {
            self.run.earlier.clear();
            self.drop_or_copy("the live checks have passed");
        } else {
            let state = State::Validating { stage: Validation::DroppingEarlier };
            self.go(
                state,
                format!(
                    "the live checks have passed; dropping {} created by earlier runs",
                    collections(replaced.len())
                ),
                None,
            );
        }
    }

    pub(super) fn earlier_dropped(&mut self) {
        if !self.awaits(&Effect::DropEarlier) {
            return;
        }
        self.recovered();
        self.run.earlier.clear();
        self.drop_or_copy("what earlier runs created is dropped");
    }

    pub(super) fn existing_dropped(&mut self) {
        if !self.awaits(&Effect::DropExisting) {
            return;
        }
        self.recovered();
        self.go(
            State::Copying { indexes_built: false },
            "the destination's data in scope is dropped; the copy begins",
            None,
        );
    }

    fn drop_or_copy(&mut self, so_far: &str) {
        if self.run.drops_existing() {
            let state = State::Validating { stage: Validation::DroppingExisting };
            self.go(state, format!("{so_far}; dropping the destination's data in scope"), None);
        } else {
            self.go(
                State::Copying { indexes_built: false },
                format!("{so_far}; the copy begins"),
                None,
            );
        }
    }

    pub(super) fn copy_finished(&mut self) {
        match self.run.state {
            State::Copying { indexes_built } => {
                self.recovered();
                self.go(State::CatchingUp { indexes_built }, "all documents were copied", None);
            }
            // Told again by a sync that was started again.
            State::CatchingUp { .. } | State::Ready | State::Draining { .. } => {}
            // From a sync that has been stopped meanwhile; it reports again when it is started
            // again.
            State::Validating { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    pub(super) fn indexes_built(&mut self) {
        match &mut self.run.state {
            State::Copying { indexes_built } | State::CatchingUp { indexes_built } => {
                if !*indexes_built {
                    *indexes_built = true;
                    self.note(EntryKind::Step, "the indexes are built", None);
                }
            }
            State::Ready
            | State::Draining { .. }
            | State::Validating { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    /// It is reported; where the run stands does not change by it.
    pub(super) fn shard_stopped(&mut self, shard: &ShardName, fault: &Fault) {
        match &self.run.state {
            State::Copying { .. } => {
                let again = if fault.retryable { "; it is tried again" } else { "" };
                let message = format!("the copy of shard {shard} stopped: {fault}{again}");
                self.note(EntryKind::Fault, message, None);
            }
            // From a sync that has been stopped meanwhile.
            State::CatchingUp { .. }
            | State::Ready
            | State::Draining { .. }
            | State::Validating { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    pub(super) fn health(&mut self, lag: Option<Duration>, caught_up: bool, blockers: Vec<String>) {
        match &self.run.state {
            State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Draining { .. } => {
                let vitals = &mut self.run.vitals;
                vitals.heard_at = Some(self.now);
                vitals.lag = lag;
                vitals.caught_up = caught_up;
                vitals.blockers = blockers;
                // A sync that reports works again, unless it is another effect that has failed.
                if !matches!(self.run.state, State::Draining { .. }) {
                    self.recovered();
                }
                self.look_at_vitals();
            }
            // From a sync that has been stopped meanwhile.
            State::Validating { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    pub(super) fn sync_failed(&mut self, fault: Fault) {
        match &self.run.state {
            State::Copying { .. } | State::CatchingUp { .. } | State::Ready => {
                self.sync_stopped_by(fault)
            }
            State::Draining { stage, .. } => {
                self.run.vitals = crate::readiness::Vitals::default();
                match stage {
                    // Nothing is blocked yet: what was acknowledged does not hold any more.
                    DrainStage::Preparing { .. } => {
                        self.give_up(fault.clone(), AfterUndo::Ready);
                        self.sync_stopped_by(fault);
                    }
                    DrainStage::Blocking { .. }
                    | DrainStage::Watching
                    | DrainStage::Applying { .. } => {
                        if fault.retryable {
                            self.trouble(fault);
                            self.again = true;
                        } else {
                            self.give_up(fault, AfterUndo::Failed);
                        }
                    }
                    DrainStage::Undoing { .. } => {
                        if !fault.retryable
                            && let State::Draining {
                                stage: DrainStage::Undoing { then, fault: reason },
                                ..
                            } = &mut self.run.state
                        {
                            *then = AfterUndo::Failed;
                            *reason = fault;
                        }
                    }
                }
            }
            State::Validating { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    /// Deals with an error that has stopped the sync, or the checks before it.
    fn sync_stopped_by(&mut self, fault: Fault) {
        let Some(from) = self.run.state.resting() else { return };
        self.run.vitals = crate::readiness::Vitals::default();
        self.run.repeated = Repeated::after(self.run.repeated, fault.code, self.now);
        let fault = match self.run.repeated {
            Some(one) if fault.retryable && self.now.since(one.since) >= Repeated::BOUND => {
                let message = format!(
                    "{}; it came {} times since {}, and is not repeated any more",
                    fault.message, one.count, one.since
                );
                Fault { message, retryable: false, ..fault }.with_remedy(
                    "find its cause by the server's own message; then `cutover resume NAME` goes \
                     on where the run stands",
                )
            }
            _ => fault,
        };
        if fault.retryable {
            if matches!(self.run.state, State::Ready) {
                self.go(
                    State::CatchingUp { indexes_built: true },
                    format!("not ready any more: {fault}"),
                    None,
                );
            }
            self.trouble(fault);
            self.again = true;
        } else {
            self.run.trouble = None;
            self.run.repeated = None;
            let message = fault.to_string();
            self.go(State::Failed { from, fault }, message, None);
        }
    }

    pub(super) fn resume_point(&mut self, held: bool) {
        if !self.awaits(&Effect::CheckResumePoint) {
            return;
        }
        let State::Expired { from, .. } = &self.run.state else { return };
        let from = *from;
        self.recovered();
        if held {
            self.go(from.state(), "extended; the source still holds the resume point", None);
        } else {
            let fault = Fault::new(
                FaultCode::ResumePointLost,
                "the source's oplog no longer holds the point at which the run stood when its \
                 window closed",
            );
            let message = fault.to_string();
            self.go(State::Failed { from, fault }, message, None);
        }
    }

    pub(super) fn destination_freed(&mut self) {
        if !self.awaits(&Effect::FreeDestination) {
            return;
        }
        if let State::Expired { freed, .. } = &mut self.run.state {
            *freed = true;
            self.recovered();
            self.note(EntryKind::Step, "others may write to the destination", None);
        }
    }

    pub(super) fn effect_failed(&mut self, effect: &Effect, fault: Fault) {
        if !self.awaits(effect) {
            return;
        }
        // What gives something back is tried until it works, wherever the run stands.
        if matches!(effect, Effect::RetireEarlier { .. }) {
            self.trouble(fault);
            self.again = true;
            return;
        }
        match &self.run.state {
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready => self.sync_stopped_by(fault),
            State::Draining { stage, .. } => match stage {
                // Nothing is blocked, and what the checks met may pass within the bound of their
                // waits.
                DrainStage::Preparing { .. } if fault.code == FaultCode::Unreachable => {
                    self.check_again(fault)
                }
                DrainStage::Preparing { .. } => self.give_up(fault, AfterUndo::Ready),
                DrainStage::Blocking { .. }
                | DrainStage::Watching
                | DrainStage::Applying { .. } => {
                    if fault.retryable {
                        self.trouble(fault);
                        self.again = true;
                    } else {
                        self.give_up(fault, AfterUndo::Ready);
                    }
                }
                DrainStage::Undoing { .. } => {
                    self.trouble(fault);
                    self.again = true;
                }
            },
            State::Expired { from, extended: true, .. } => {
                if fault.retryable {
                    self.trouble(fault);
                    self.again = true;
                } else {
                    let from = *from;
                    let message = fault.to_string();
                    self.go(State::Failed { from, fault }, message, None);
                }
            }
            State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { extended: false, .. } => {
                self.trouble(fault);
                self.again = true;
            }
        }
    }
}

fn collections(number: usize) -> String {
    if number == 1 { "1 collection".to_owned() } else { format!("{number} collections") }
}
