//! How runs come to be: a first one, and one of a raised generation that takes over from an earlier
//! one.

use schemas::id::RunId;
use schemas::namespace::Namespace;
use schemas::spec::MigrationSpec;

use crate::readiness::Vitals;
use crate::refusal::{Guard, Refusal};
use crate::run::{EarlierRun, FormatVersion, Run};
use crate::settings::Settings;
use crate::state::{Resting, State, Validation};
use crate::step::Now;
use crate::token::Attempt;

/// Begins the first run of a migration.
#[must_use]
pub fn begin(id: RunId, spec: &MigrationSpec, now: Now) -> Run {
    let state = if spec.paused {
        State::Paused { from: Resting::Validating }
    } else {
        State::Validating { stage: Validation::Checking }
    };
    Run {
        format: FormatVersion::CURRENT,
        id,
        generation: spec.generation,
        digest: spec.digest(),
        settings: Settings::from(spec),
        created_at: now.utc,
        clock: now.utc,
        state,
        opened_at: None,
        extensions_by_hand: 0,
        paused_by_hand: None,
        cancelled_by_hand: false,
        forgetting: false,
        attempt: Attempt(1),
        used_tokens: Vec::new(),
        trouble: None,
        repeated: None,
        aborted: None,
        agreed_drops: Vec::new(),
        earlier: Vec::new(),
        vitals: Vitals::default(),
    }
}

/// Begins a run that takes over from an earlier one, of which `created` is on the destination.
///
/// Refused while the earlier one cuts over.
pub fn succeed(
    old: &Run,
    old_spec: &MigrationSpec,
    created: Vec<Namespace>,
    id: RunId,
    spec: &MigrationSpec,
    now: Now,
) -> Result<Run, Refusal> {
    let refuse =
        |guard| Err(Refusal { run: old.id.clone(), phase: old.phase(), event: "rerun", guard });
    if old.forgetting {
        return refuse(Guard::Forgetting);
    }
    let completed = match &old.state {
        State::Draining { .. } | State::Finalizing { .. } => return refuse(Guard::CuttingOver),
        State::Completed { .. } => true,
        State::Validating { .. }
        | State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Paused { .. }
        | State::Cancelled { .. }
        | State::Failed { .. }
        | State::Expired { .. } => false,
    };
    let retired = match &old.state {
        State::Completed { fenced, .. } => !fenced,
        State::Cancelled { cleaned } => *cleaned,
        State::Validating { .. }
        | State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Draining { .. }
        | State::Finalizing { .. }
        | State::Paused { .. }
        | State::Failed { .. }
        | State::Expired { .. } => false,
    };
    let mut run = begin(id, spec, Now { utc: now.utc.max(old.clock) });
    run.earlier = old.earlier.clone();
    run.earlier.push(EarlierRun {
        id: old.id.clone(),
        spec: Box::new(old_spec.clone()),
        created,
        fenced: old.state.may_fence(),
        completed,
        retired,
    });
    // Another destination is none of this run's business: what earlier runs created there stays.
    for earlier in &mut run.earlier {
        if earlier.spec.destination.connection.uri != spec.destination.connection.uri {
            earlier.created.clear();
        }
    }
    Ok(run)
}

impl Run {
    /// What earlier runs created on this run's destination and is still to be dropped, each once.
    #[must_use]
    pub fn replaces(&self) -> Vec<Namespace> {
        let mut namespaces: Vec<Namespace> =
            self.earlier.iter().flat_map(|earlier| earlier.created.iter().cloned()).collect();
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }
}
