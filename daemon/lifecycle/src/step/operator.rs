//! What people do to a run: declare, pause, resume, cancel, extend, restart, forget.

use schemas::history::{Actor, EntryKind};
use schemas::id::ShardName;
use schemas::spec::SpecDigest;

use super::Walk;
use crate::effect::Effect;
use crate::event::{By, Opened};
use crate::readiness::Vitals;
use crate::refusal::{Guard, Refusal};
use crate::settings::Settings;
use crate::state::{FinalStage, State};

impl Walk<'_> {
    pub(super) fn declare(
        &mut self,
        settings: Settings,
        digest: SpecDigest,
        resync: bool,
        what: String,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let cutting_over = match &self.run.state {
            State::Draining { .. } => true,
            State::Finalizing { stage, .. } => match stage {
                FinalStage::Restoring | FinalStage::Returning | FinalStage::Opening => true,
                FinalStage::Cleaning { .. } => false,
            },
            State::Cancelled { .. } => return Err(self.refuse(event, Guard::Cancelled)),
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Expired { .. } => false,
        };
        if cutting_over && resync {
            return Err(self.refuse(event, Guard::CuttingOver));
        }
        let old = std::mem::replace(&mut self.run.settings, settings);
        self.run.digest = digest;
        // Declaring what was granted by hand makes it official instead of granting it twice.
        let declared_more = self.run.settings.extensions.saturating_sub(old.extensions);
        self.run.extensions_by_hand = self.run.extensions_by_hand.saturating_sub(declared_more);
        self.note(EntryKind::Applied, what, Some(actor.clone()));
        if resync {
            self.work_by_new_settings(actor);
        }
        self.go_on_if_extended();
        Ok(())
    }

    /// Has the engine take up what it works by anew.
    fn work_by_new_settings(&mut self, actor: Actor) {
        if let State::Failed { from, .. } = &self.run.state {
            // Most of what stops a run for good is mended in its declaration.
            let state = from.state();
            self.run.vitals = Vitals::default();
            self.go(state, "tried again with the changed declaration", Some(actor));
        } else if self.awaits(&Effect::StartSync) {
            self.stop_and_start("the sync starts again with the new settings");
        } else {
            self.again = true;
        }
    }

    pub(super) fn pause(
        &mut self,
        by: By,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let guard = match &self.run.state {
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready => {
                let from = self
                    .run
                    .state
                    .resting()
                    .expect("each of these states can be stopped and resumed");
                self.remember_pause(by, true);
                self.act(by, "paused", &actor);
                self.run.trouble = None;
                self.run.vitals = Vitals::default();
                self.go(State::Paused { from }, "paused", Some(actor));
                return Ok(());
            }
            State::Paused { .. } => {
                self.remember_pause(by, true);
                return Ok(());
            }
            State::Draining { .. } | State::Finalizing { .. } => Guard::CuttingOver,
            State::Completed { .. } => Guard::CutOver,
            State::Cancelled { .. } => Guard::Cancelled,
            State::Failed { .. } => Guard::Failed,
            State::Expired { at, .. } => Guard::WindowExpired { at: *at },
        };
        Err(self.refuse(event, guard))
    }

    pub(super) fn resume(
        &mut self,
        by: By,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let guard = match &self.run.state {
            State::Paused { from } => {
                let state = from.state();
                self.remember_pause(by, false);
                self.act(by, "resumed", &actor);
                self.go(state, "resumed", Some(actor));
                return Ok(());
            }
            State::Failed { from, .. } => {
                let state = from.state();
                self.act(by, "tried again", &actor);
                self.run.aborted = None;
                self.run.vitals = Vitals::default();
                self.go(state, "tried again", Some(actor));
                return Ok(());
            }
            // It goes on already.
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready => {
                self.remember_pause(by, false);
                return Ok(());
            }
            State::Draining { .. } | State::Finalizing { .. } => Guard::CuttingOver,
            State::Completed { .. } => Guard::CutOver,
            State::Cancelled { .. } => Guard::Cancelled,
            State::Expired { at, .. } => Guard::WindowExpired { at: *at },
        };
        Err(self.refuse(event, guard))
    }

    fn remember_pause(&mut self, by: By, paused: bool) {
        self.run.paused_by_hand = match by {
            By::Declaration => None,
            By::Hand => (paused != self.run.settings.paused).then_some(paused),
        };
    }

    /// Tells of an act by hand, beside the transition that it makes.
    fn act(&mut self, by: By, what: &str, actor: &Actor) {
        match by {
            By::Hand => {
                self.note(EntryKind::ByHand, format!("{what} by hand"), Some(actor.clone()))
            }
            By::Declaration => {}
        }
    }

    pub(super) fn cancel(
        &mut self,
        by: By,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let guard = match &self.run.state {
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {
                self.act(by, "cancelled", &actor);
                self.run.cancelled_by_hand = by == By::Hand;
                self.run.trouble = None;
                self.run.vitals = Vitals::default();
                self.go(
                    State::Cancelled { cleaned: false },
                    "cancelled; the data stays",
                    Some(actor),
                );
                return Ok(());
            }
            State::Cancelled { .. } => return Ok(()),
            State::Draining { .. } | State::Finalizing { .. } => Guard::CuttingOver,
            State::Completed { .. } => Guard::CutOver,
        };
        Err(self.refuse(event, guard))
    }

    /// Ends a cutover by hand that finalizing cannot end: the application goes on with one side,
    /// and never with both.
    pub(super) fn open(
        &mut self,
        side: Opened,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let guard = match (&self.run.state, side) {
            (State::Finalizing { fenced, stage: FinalStage::Restoring, .. }, Opened::Source) => {
                let fenced = *fenced;
                self.act(By::Hand, "the source is opened", &actor);
                self.run.cancelled_by_hand = true;
                self.run.trouble = None;
                if !fenced {
                    self.cancel_returned(Some(actor));
                } else if let State::Finalizing { stage, .. } = &mut self.run.state {
                    *stage = FinalStage::Returning;
                }
                return Ok(());
            }
            (State::Finalizing { stage: FinalStage::Restoring, .. }, Opened::Destination) => {
                let trouble = self.run.trouble.take();
                let left =
                    trouble.map(|fault| format!("; what it lacks: {fault}")).unwrap_or_default();
                if let State::Finalizing { stage, .. } = &mut self.run.state {
                    *stage = FinalStage::Opening;
                }
                let message = format!(
                    "the destination is opened by hand with the settings that it has{left}"
                );
                self.note(EntryKind::ByHand, message, Some(actor));
                return Ok(());
            }
            (State::Finalizing { stage: FinalStage::Returning, .. }, Opened::Source)
            | (
                State::Finalizing {
                    stage: FinalStage::Opening | FinalStage::Cleaning { .. }, ..
                },
                Opened::Destination,
            ) => {
                return Ok(());
            }
            (
                State::Finalizing {
                    stage: FinalStage::Opening | FinalStage::Cleaning { .. }, ..
                },
                Opened::Source,
            ) => Guard::DestinationOpened,
            (State::Finalizing { stage: FinalStage::Returning, .. }, Opened::Destination) => {
                Guard::SourceOpened
            }
            (State::Draining { .. }, Opened::Source | Opened::Destination) => Guard::CuttingOver,
            (State::Completed { .. }, Opened::Source | Opened::Destination) => Guard::CutOver,
            (State::Cancelled { .. }, Opened::Source | Opened::Destination) => Guard::Cancelled,
            (
                State::Validating { .. }
                | State::Copying { .. }
                | State::CatchingUp { .. }
                | State::Ready
                | State::Paused { .. }
                | State::Failed { .. }
                | State::Expired { .. },
                Opened::Source | Opened::Destination,
            ) => Guard::NotFinalizing,
        };
        Err(self.refuse(event, guard))
    }

    pub(super) fn extend(
        &mut self,
        extensions: u32,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let guard = match &self.run.state {
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {
                self.run.extensions_by_hand =
                    self.run.extensions_by_hand.saturating_add(extensions);
                let until = self
                    .run
                    .deadline()
                    .map(|deadline| format!(", until {deadline}"))
                    .unwrap_or_default();
                self.note(
                    EntryKind::ByHand,
                    format!("extended by {} h{until}", u64::from(extensions) * 24),
                    Some(actor),
                );
                self.go_on_if_extended();
                return Ok(());
            }
            State::Draining { .. } | State::Finalizing { .. } => Guard::CuttingOver,
            State::Completed { .. } => Guard::CutOver,
            State::Cancelled { .. } => Guard::Cancelled,
        };
        Err(self.refuse(event, guard))
    }

    fn go_on_if_extended(&mut self) {
        if self.run.is_past_deadline(self.now) {
            return;
        }
        if let State::Expired { extended, .. } = &mut self.run.state
            && !*extended
        {
            *extended = true;
            self.note(
                EntryKind::Step,
                "looking whether the source still holds the resume point",
                None,
            );
        }
    }

    pub(super) fn restart_sync(
        &mut self,
        shard: &ShardName,
        actor: Actor,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let guard = match &self.run.state {
            // The engine has begun it again, and the other shards go on.
            State::Copying { .. } => {
                self.note(
                    EntryKind::ByHand,
                    format!("the copy of shard {shard} was begun again by hand"),
                    Some(actor),
                );
                return Ok(());
            }
            // The shards' streams are applied as one.
            State::CatchingUp { .. } | State::Ready => {
                self.note(
                    EntryKind::ByHand,
                    format!("restarted by hand for shard {shard}"),
                    Some(actor),
                );
                self.stop_and_start("the sync starts again");
                return Ok(());
            }
            State::Failed { .. } => return self.resume(By::Hand, actor, event),
            State::Validating { .. } => Guard::NotSyncing,
            State::Paused { .. } => Guard::Paused,
            State::Draining { .. } | State::Finalizing { .. } => Guard::CuttingOver,
            State::Completed { .. } => Guard::CutOver,
            State::Cancelled { .. } => Guard::Cancelled,
            State::Expired { at, .. } => Guard::WindowExpired { at: *at },
        };
        Err(self.refuse(event, guard))
    }

    fn stop_and_start(&mut self, message: &str) {
        self.run.vitals = Vitals::default();
        self.restart = true;
        if matches!(self.run.state, State::Ready) {
            self.go(State::CatchingUp { indexes_built: true }, message, None);
        }
    }

    pub(super) fn forget(&mut self, actor: Actor, event: &'static str) -> Result<(), Refusal> {
        if self.run.forgetting {
            return Ok(());
        }
        match &self.run.state {
            State::Completed { fenced, .. } => {
                self.run.forgetting = true;
                let message = if *fenced {
                    "to be forgotten, once the source takes writes again"
                } else {
                    "forgotten"
                };
                self.note(EntryKind::Applied, message, Some(actor));
                Ok(())
            }
            State::Cancelled { cleaned } => {
                self.run.forgetting = true;
                let message = if *cleaned {
                    "forgotten"
                } else {
                    "to be forgotten, once the destination is given back"
                };
                self.note(EntryKind::Applied, message, Some(actor));
                Ok(())
            }
            State::Draining { .. } | State::Finalizing { .. } => {
                Err(self.refuse(event, Guard::CuttingOver))
            }
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Expired { .. } => Err(self.refuse(event, Guard::StillRunning)),
        }
    }
}
