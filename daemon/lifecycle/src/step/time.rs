//! What time alone does: it closes windows, ends drains that took too long, and lets reports go
//! stale.

use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::spec::SourceWrites;
use schemas::time::UtcTime;

use super::Walk;
use crate::effect::Effect;
use crate::readiness::{UNWELL_GRACE, Vitals};
use crate::run::Run;
use crate::state::{AfterUndo, DrainStage, State};

/// How long an acknowledged cutover waits for readiness to be shown again after a restart of the
/// daemon: a sync that resumes needs seconds. Longer than this and whoever acknowledged should look
/// again.
const READINESS_PATIENCE: Duration = Duration::from_secs(30);

impl Run {
    /// When a cutover on its way is given up for having taken too long.
    #[must_use]
    pub fn give_up_at(&self) -> Option<UtcTime> {
        let State::Draining { cutover, stage } = &self.state else { return None };
        let since = match stage {
            // Writers are not kept out yet. What the source's load decides need not end by itself,
            // and is bounded all the same.
            DrainStage::Preparing { doing, .. } => doing.as_ref()?.waiting_since?,
            DrainStage::Blocking { since } => *since,
            DrainStage::Applying { since } => match cutover.mode {
                SourceWrites::Block => *since,
                SourceWrites::Observe => cutover.at,
            },
            // Their owners began to stop writers with the acknowledgement.
            DrainStage::Watching => cutover.at,
            DrainStage::Undoing { .. } => return None,
        };
        Some(since.plus(self.settings.max_downtime.get()))
    }
}

impl Walk<'_> {
    /// Lets the deadlines that have passed take effect.
    pub(super) fn pass_time(&mut self) {
        // A cutover that is given up may land in a window that has closed meanwhile.
        self.give_up_in_time();
        self.close_window();
    }

    fn give_up_in_time(&mut self) {
        if self.run.give_up_at().is_some_and(|at| self.now >= at) {
            let max_downtime = self.run.settings.max_downtime;
            let fault = match &self.run.state {
                State::Draining { stage: DrainStage::Preparing { doing, .. }, .. } => {
                    let what = doing.as_ref().map_or("the checks ran", |doing| &doing.what);
                    let message =
                        format!("after {max_downtime} the source could not be blocked yet: {what}");
                    Fault::new(FaultCode::NotReady, message).with_remedy(
                        "acknowledge again when the source has less to do, or raise \
                         cutover.max_downtime, which bounds this wait too",
                    )
                }
                State::Draining { stage: DrainStage::Watching, .. } => Fault::new(
                    FaultCode::WritesContinued,
                    format!(
                        "writes to the source had not stopped {max_downtime} after the \
                         acknowledgement"
                    ),
                ),
                State::Draining { .. }
                | State::Validating { .. }
                | State::Copying { .. }
                | State::CatchingUp { .. }
                | State::Ready
                | State::Finalizing { .. }
                | State::Completed { .. }
                | State::Paused { .. }
                | State::Cancelled { .. }
                | State::Failed { .. }
                | State::Expired { .. } => Fault::new(
                    FaultCode::MaxDowntimeExceeded,
                    format!("the source was not drained within max_downtime {max_downtime}"),
                ),
            };
            self.give_up(fault, AfterUndo::Ready);
        }
    }

    fn close_window(&mut self) {
        if !self.run.is_past_deadline(self.now) {
            return;
        }
        let at = self.now;
        match &self.run.state {
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Paused { .. } => {
                let from = self
                    .run
                    .state
                    .resting()
                    .expect("each of these states can be stopped and resumed");
                let opened_at =
                    self.run.opened_at.expect("a deadline that passed was derived from it");
                self.run.trouble = None;
                self.go(
                    State::Expired { at, freed: false, from, extended: false },
                    format!(
                        "the cutover window, open since {opened_at}, has closed; the data stays, \
                         and an extension lets it go on while the source holds its resume point"
                    ),
                    None,
                );
            }
            State::Expired { at, from, extended: true, freed } => {
                let state = State::Expired { at: *at, freed: *freed, from: *from, extended: false };
                self.go(state, "the extended window has closed too", None);
            }
            // A cutover that was acknowledged in time is carried out; one that failed or ended has
            // no use for the window.
            State::Expired { extended: false, .. }
            | State::Draining { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Cancelled { .. }
            | State::Failed { .. } => {}
        }
    }

    /// Takes up a run from the journal.
    pub(super) fn daemon_started(&mut self) {
        self.again = true;
        self.run.vitals = Vitals::default();
        match &self.run.state {
            // Readiness is shown, not remembered.
            State::Ready => {
                self.go(
                    State::CatchingUp { indexes_built: true },
                    "the daemon has started; readiness must be shown again",
                    None,
                );
            }
            State::Draining { cutover, stage: DrainStage::Preparing { .. } } => {
                if self.run.is_past_deadline(self.now) {
                    // Nothing was blocked yet, and the daemon was down when the window closed.
                    let fault = Fault::new(
                        FaultCode::WindowExpired,
                        "the window closed before the source was blocked",
                    );
                    self.give_up(fault, AfterUndo::Ready);
                    self.close_window();
                } else {
                    let cutover = cutover.clone();
                    self.run.state = State::Draining {
                        cutover,
                        stage: DrainStage::Preparing { prepared_at: None, doing: None },
                    };
                }
            }
            State::Draining {
                stage:
                    DrainStage::Blocking { .. }
                    | DrainStage::Watching
                    | DrainStage::Applying { .. }
                    | DrainStage::Undoing { .. },
                ..
            }
            | State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    /// Acts on what was last heard of the sync, which may have been too long ago.
    pub(super) fn look_at_vitals(&mut self) {
        let reasons = self.run.vitals.reasons(self.run.settings.max_lag.get(), self.now);
        match &self.run.state {
            State::CatchingUp { indexes_built } => {
                if reasons.is_empty() && *indexes_built {
                    let since = *self.run.vitals.well_since.get_or_insert(self.now);
                    if self.now.since(since) >= crate::readiness::WELL_SETTLE {
                        self.become_ready();
                    }
                } else {
                    self.run.vitals.well_since = None;
                }
            }
            State::Ready => {
                if reasons.is_empty() {
                    self.run.vitals.unwell_since = None;
                } else {
                    let since = *self.run.vitals.unwell_since.get_or_insert(self.now);
                    if self.now.since(since) >= UNWELL_GRACE {
                        self.go(
                            State::CatchingUp { indexes_built: true },
                            format!("not ready any more: {}", reasons.join("; ")),
                            None,
                        );
                    }
                }
            }
            State::Draining {
                stage: DrainStage::Preparing { prepared_at: Some(prepared_at), .. },
                ..
            } => {
                if reasons.is_empty() {
                    self.stop_writes();
                } else if self.now.since(*prepared_at) >= READINESS_PATIENCE {
                    let fault = Fault::new(FaultCode::NotReady, reasons.join("; "));
                    self.give_up(fault, AfterUndo::Ready);
                }
            }
            State::Draining {
                stage:
                    DrainStage::Preparing { prepared_at: None, .. }
                    | DrainStage::Blocking { .. }
                    | DrainStage::Watching
                    | DrainStage::Applying { .. }
                    | DrainStage::Undoing { .. },
                ..
            }
            | State::Validating { .. }
            | State::Copying { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {}
        }
    }

    fn become_ready(&mut self) {
        let message = match self.run.opened_at {
            Some(_) => "ready again".to_owned(),
            None => {
                self.run.opened_at = Some(self.now);
                let deadline = self.run.deadline().expect("the window has just been opened");
                format!("ready for the first time; the cutover window is open until {deadline}")
            }
        };
        self.recovered();
        self.run.repeated = None;
        self.go(State::Ready, message, None);
        debug_assert!(self.awaits(&Effect::StartSync), "a ready run follows its source");
    }
}
