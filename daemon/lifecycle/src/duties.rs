//! What each state demands: the one list of effects from which both a transition and a start after
//! a crash work.

use schemas::spec::{ExistingData, SourceAfter};

use crate::effect::Effect;
use crate::run::Run;
use crate::state::{DrainStage, FinalStage, State, Validation};

/// Names what is to be done in a run's state, in order. Everything in it is idempotent.
#[must_use]
pub fn duties(run: &Run) -> Vec<Effect> {
    // What an earlier run may still hold comes first, wherever this one stands: its source may be
    // blocked.
    let mut effects: Vec<Effect> = run
        .earlier
        .iter()
        .filter(|earlier| !earlier.retired)
        .map(|earlier| Effect::RetireEarlier { run: earlier.id.clone() })
        .collect();
    match &run.state {
        State::Validating { stage } => effects.push(match stage {
            Validation::Checking => Effect::Validate,
            Validation::DroppingEarlier => Effect::DropEarlier,
            Validation::DroppingExisting => Effect::DropExisting,
        }),
        State::Copying { .. } | State::CatchingUp { .. } | State::Ready => {
            effects.push(Effect::StartSync)
        }
        State::Draining { cutover, stage } => {
            let attempt = cutover.attempt;
            match stage {
                DrainStage::Preparing { prepared_at: None, .. } => {
                    effects.extend([Effect::StartSync, Effect::PrepareCutover { attempt }]);
                }
                DrainStage::Preparing { prepared_at: Some(_), .. } => {
                    effects.push(Effect::StartSync)
                }
                DrainStage::Blocking { .. } => {
                    effects.extend([Effect::StartSync, Effect::BlockSource { attempt }])
                }
                DrainStage::Watching => {
                    effects.extend([Effect::StartSync, Effect::WatchSource { attempt }])
                }
                DrainStage::Applying { .. } => {
                    effects.extend([Effect::StartSync, Effect::Drain { attempt }])
                }
                // First of all, and without the sync: nothing may keep the source from taking
                // writes again.
                DrainStage::Undoing { .. } => effects.push(Effect::UnblockSource { attempt }),
            }
        }
        State::Finalizing { cutover, fenced, stage, .. } => match stage {
            FinalStage::Restoring => effects.extend([Effect::StopSync, Effect::RestoreSettings]),
            // The source first: nothing may keep it from taking writes again.
            FinalStage::Returning => {
                effects.push(Effect::UnblockSource { attempt: cutover.attempt })
            }
            // Somebody may have had it opened before the sync had stopped.
            FinalStage::Opening => effects.extend([Effect::StopSync, Effect::OpenDestination]),
            FinalStage::Cleaning { .. } => {
                if *fenced && run.settings.source_after == SourceAfter::Open {
                    effects.push(Effect::UnblockSource { attempt: cutover.attempt });
                }
                effects.push(Effect::CleanUp);
            }
        },
        State::Completed { cutover, fenced, .. } => {
            if *fenced && (run.forgetting || run.settings.source_after == SourceAfter::Open) {
                effects.push(Effect::UnblockSource { attempt: cutover.attempt });
            }
        }
        State::Paused { .. } | State::Failed { .. } => effects.push(Effect::StopSync),
        State::Cancelled { cleaned: false } => {
            effects.extend([Effect::StopSync, Effect::FreeDestination, Effect::CleanUp]);
        }
        State::Cancelled { cleaned: true } => {}
        State::Expired { extended: true, .. } => {
            effects.extend([Effect::StopSync, Effect::CheckResumePoint])
        }
        State::Expired { extended: false, freed: false, .. } => {
            effects.extend([Effect::StopSync, Effect::FreeDestination])
        }
        State::Expired { extended: false, freed: true, .. } => {}
    }
    effects
}

impl Run {
    /// Whether data that is on the destination already is to be dropped before the copy.
    pub(crate) fn drops_existing(&self) -> bool {
        self.settings.existing_data == ExistingData::Drop
    }
}
