//! The cutover: drained and handed over, or undone; nothing between the two is left behind.

use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::history::{Actor, EntryKind};
use schemas::spec::{SourceAfter, SourceWrites};

use super::Walk;
use crate::effect::Effect;
use crate::readiness::Vitals;
use crate::state::{AfterUndo, Doing, DrainStage, FinalStage, Resting, State};
use crate::token::Attempt;

impl Walk<'_> {
    pub(super) fn cutover_preparing(&mut self, what: String, waits: bool) {
        // From an attempt that was given up: another one reports its own.
        let State::Draining { cutover, stage: DrainStage::Preparing { prepared_at: None, doing } } =
            &self.run.state
        else {
            return;
        };
        // One wait after the other is one wait.
        let so_far = doing.as_ref().and_then(|doing| doing.waiting_since);
        let failing_since = doing.as_ref().and_then(|doing| doing.failing_since);
        let waiting_since = waits.then(|| so_far.unwrap_or(self.now));
        let doing = Some(Doing { what: what.clone(), waiting_since, failing_since });
        let cutover = cutover.clone();
        self.run.state =
            State::Draining { cutover, stage: DrainStage::Preparing { prepared_at: None, doing } };
        self.note(EntryKind::Step, format!("before the source is blocked: {what}"), None);
    }

    /// Begins the checks before a cutover again, after a fault that may pass; gives up what has
    /// failed again and again for as long as a wait may take.
    pub(super) fn check_again(&mut self, fault: Fault) {
        let State::Draining { cutover, stage: DrainStage::Preparing { prepared_at: None, doing } } =
            &self.run.state
        else {
            return;
        };
        let failing_since =
            doing.as_ref().and_then(|doing| doing.failing_since).unwrap_or(self.now);
        if self.now >= failing_since.plus(self.run.settings.max_downtime.get()) {
            return self.give_up(fault, AfterUndo::Ready);
        }
        let what = format!("the checks begin again after an error: {}", fault.message);
        let doing = Some(Doing { what, waiting_since: None, failing_since: Some(failing_since) });
        let cutover = cutover.clone();
        self.run.state =
            State::Draining { cutover, stage: DrainStage::Preparing { prepared_at: None, doing } };
        self.trouble(fault);
        self.again = true;
    }

    pub(super) fn cutover_prepared(&mut self, attempt: Attempt) {
        if !self.awaits(&Effect::PrepareCutover { attempt }) {
            return;
        }
        let State::Draining { cutover, .. } = &self.run.state else { return };
        let cutover = cutover.clone();
        self.run.state = State::Draining {
            cutover,
            stage: DrainStage::Preparing { prepared_at: Some(self.now), doing: None },
        };
        self.recovered();
        self.note(EntryKind::Step, "the checks before the cutover have passed", None);
        self.look_at_vitals();
    }

    pub(super) fn source_blocked(&mut self, attempt: Attempt) {
        if !self.awaits(&Effect::BlockSource { attempt }) {
            return;
        }
        let State::Draining { cutover, stage: DrainStage::Blocking { since } } = &self.run.state
        else {
            return;
        };
        let stage = DrainStage::Applying { since: *since };
        self.run.state = State::Draining { cutover: cutover.clone(), stage };
        self.recovered();
        self.note(EntryKind::Step, "the source refuses writes", None);
    }

    pub(super) fn source_quiet(&mut self, attempt: Attempt) {
        if !self.awaits(&Effect::WatchSource { attempt }) {
            return;
        }
        let State::Draining { cutover, .. } = &self.run.state else { return };
        let stage = DrainStage::Applying { since: self.now };
        self.run.state = State::Draining { cutover: cutover.clone(), stage };
        self.recovered();
        self.note(EntryKind::Step, "the source's writes have stopped", None);
    }

    pub(super) fn drained(&mut self, attempt: Attempt, final_time: ClusterTime) {
        if !self.awaits(&Effect::Drain { attempt }) {
            return;
        }
        let State::Draining { cutover, stage: DrainStage::Applying { since } } = &self.run.state
        else {
            return;
        };
        let (cutover, down_since) = (cutover.clone(), *since);
        let fenced = cutover.mode == SourceWrites::Block;
        self.recovered();
        self.go(
            State::Finalizing {
                cutover,
                final_time,
                down_since,
                fenced,
                stage: FinalStage::Restoring,
            },
            format!("everything through {final_time} is applied"),
            None,
        );
    }

    pub(super) fn settings_restored(&mut self) {
        if !self.awaits(&Effect::RestoreSettings) {
            return;
        }
        self.finalize(FinalStage::Opening, "the destination has its settings back");
    }

    pub(super) fn destination_opened(&mut self) {
        if !self.awaits(&Effect::OpenDestination) {
            return;
        }
        let State::Finalizing { down_since, .. } = &self.run.state else { return };
        let downtime = self.now.since(*down_since);
        let message = format!(
            "the destination is writable, {:.1} s after writers were kept out",
            downtime.as_secs_f64()
        );
        self.finalize(FinalStage::Cleaning { writable_at: self.now }, &message);
    }

    fn finalize(&mut self, next: FinalStage, message: &str) {
        let State::Finalizing { stage, .. } = &mut self.run.state else { return };
        *stage = next;
        self.recovered();
        self.note(EntryKind::Step, message, None);
    }

    pub(super) fn cleaned_up(&mut self) {
        if !self.awaits(&Effect::CleanUp) {
            return;
        }
        match &self.run.state {
            State::Finalizing {
                cutover,
                final_time,
                down_since,
                fenced,
                stage: FinalStage::Cleaning { writable_at },
            } => {
                // The order of the duties was not kept: the source comes first.
                if *fenced && self.run.settings.source_after == SourceAfter::Open {
                    self.again = true;
                    return;
                }
                let downtime_ms =
                    u64::try_from(writable_at.since(*down_since).as_millis()).unwrap_or(u64::MAX);
                let state = State::Completed {
                    cutover: cutover.clone(),
                    final_time: *final_time,
                    writable_at: *writable_at,
                    downtime_ms,
                    fenced: *fenced,
                };
                let source =
                    if *fenced { "the source stays blocked" } else { "the source takes writes" };
                self.recovered();
                self.go(state, format!("cut over; {source}"), None);
            }
            State::Cancelled { .. } => {
                self.run.state = State::Cancelled { cleaned: true };
                self.recovered();
                self.note(EntryKind::Step, "the destination is given back with its data", None);
            }
            State::Finalizing {
                stage: FinalStage::Restoring | FinalStage::Returning | FinalStage::Opening,
                ..
            }
            | State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Draining { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    pub(super) fn source_unblocked(&mut self, attempt: Attempt) {
        if !self.awaits(&Effect::UnblockSource { attempt }) {
            return;
        }
        match &mut self.run.state {
            State::Draining { stage: DrainStage::Undoing { fault, then }, .. } => {
                let (fault, then) = (fault.clone(), *then);
                self.run.trouble = None;
                self.note(EntryKind::Step, "the block on the source is lifted", None);
                self.land(fault, then);
            }
            State::Finalizing { stage: FinalStage::Returning, .. } => self.cancel_returned(None),
            State::Finalizing { fenced, .. } | State::Completed { fenced, .. } => {
                *fenced = false;
                self.recovered();
                self.note(EntryKind::Step, "the block on the source is lifted", None);
            }
            State::Draining {
                stage:
                    DrainStage::Preparing { .. }
                    | DrainStage::Blocking { .. }
                    | DrainStage::Watching
                    | DrainStage::Applying { .. },
                ..
            }
            | State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    /// Ends a cutover that somebody has taken back to the source, which takes writes by now.
    pub(super) fn cancel_returned(&mut self, actor: Option<Actor>) {
        self.run.trouble = None;
        self.run.vitals = Vitals::default();
        self.go(
            State::Cancelled { cleaned: false },
            "the source takes writes; the run is cancelled, and the destination's data stays",
            actor,
        );
    }

    /// Gives the cutover up; the source's block, where it may be up, comes down before anything
    /// else.
    pub(super) fn give_up(&mut self, fault: Fault, then: AfterUndo) {
        let may_be_fenced = self.run.state.may_fence();
        let State::Draining { cutover, stage } = &mut self.run.state else { return };
        if matches!(stage, DrainStage::Undoing { .. }) {
            return;
        }
        if may_be_fenced {
            let cutover = cutover.clone();
            let message = format!("giving the cutover up: {fault}");
            self.run.state =
                State::Draining { cutover, stage: DrainStage::Undoing { fault, then } };
            self.note(EntryKind::Fault, message, None);
        } else {
            self.land(fault, then);
        }
    }

    fn land(&mut self, fault: Fault, then: AfterUndo) {
        let message = format!("the cutover was given up: {fault}");
        match then {
            AfterUndo::Ready => {
                self.run.aborted = Some(fault);
                self.go(State::Ready, message, None);
            }
            AfterUndo::Failed => {
                self.run.aborted = Some(fault.clone());
                self.go(
                    State::Failed { from: Resting::CatchingUp { indexes_built: true }, fault },
                    message,
                    None,
                );
            }
        }
    }
}
