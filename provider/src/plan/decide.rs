//! What is to be done about one migration.

use schemas::hcl::{Declared, Diagnostic};
use schemas::id::Serial;
use schemas::observed::{Inspection, Observed};
use schemas::phase::Phase;
use schemas::time::UtcTime;
use serde_json::Value;

use super::{Action, AttributeChange, Change, attributes, drift, effects, refusal};

/// One migration's part of a plan.
pub(super) type Decided = (Change, Vec<Diagnostic>);

const ACKNOWLEDGE: &str = "cutover.acknowledge";

/// A block without a migration.
pub(super) fn create(wanted: &Declared, inspection: Option<&Inspection>) -> Decided {
    let mut diagnostics = checks(wanted, inspection);
    if wanted.spec.cutover.acknowledge.is_some() {
        diagnostics
            .push(refusal::acknowledged_before_start(wanted, "the migration has no run yet"));
    }
    let change = Change {
        migration: wanted.spec.name.clone(),
        action: Action::Create,
        serial: Serial(0),
        attributes: attributes::of_new(wanted),
        effects: effects::of_create(wanted, inspection),
        forecast: inspection.and_then(|found| found.forecast.clone()),
    };
    (change, diagnostics)
}

fn checks(wanted: &Declared, inspection: Option<&Inspection>) -> Vec<Diagnostic> {
    match inspection {
        Some(found) => {
            found.checks.iter().filter_map(|check| refusal::check(wanted, check)).collect()
        }
        None => vec![refusal::unchecked(wanted)],
    }
}

/// A migration without a block.
pub(super) fn removed(existing: &Observed) -> Option<Decided> {
    if !existing.declared {
        return None;
    }
    let phase = existing.status.phase;
    if refusal::cuts_over(phase) {
        return Some((unchanged(existing), vec![refusal::removed_while_cutting_over(existing)]));
    }
    let (action, effects) = match phase {
        Phase::Completed | Phase::Cancelled => (Action::Forget, effects::of_forget(existing)),
        Phase::Validating
        | Phase::Copying
        | Phase::CatchingUp
        | Phase::Ready
        | Phase::Draining
        | Phase::Finalizing
        | Phase::Paused
        | Phase::Failed
        | Phase::Expired => (Action::Cancel, effects::of_cancel(existing)),
    };
    Some((Change { action, effects, ..unchanged(existing) }, Vec::new()))
}

/// A block with a migration.
pub(super) fn existing(
    wanted: &Declared,
    existing: &Observed,
    inspection: Option<&Inspection>,
    now: UtcTime,
) -> Decided {
    let status = &existing.status;
    let refused = |diagnostic| (unchanged(existing), vec![diagnostic]);
    if !existing.declared && status.phase == Phase::Completed {
        return refused(refusal::being_forgotten(wanted, existing));
    }
    if wanted.spec.generation < status.generation {
        return refused(refusal::lower_generation(wanted, existing));
    }
    if wanted.spec.generation > status.generation {
        if refusal::cuts_over(status.phase) {
            return refused(refusal::while_cutting_over(wanted, existing, "generation"));
        }
        return rerun(wanted, existing, inspection);
    }
    if !existing.declared {
        return refused(refusal::cancelled(wanted, existing));
    }

    let mut changes = attributes::between(&existing.spec, wanted);
    let acknowledged = take(&mut changes, ACKNOWLEDGE);
    let held = take_pause(&mut changes, wanted, existing);
    if let Some(token) = acknowledged.as_ref().and(wanted.spec.cutover.acknowledge.as_ref())
        && existing.acknowledged_token.as_ref() != Some(token)
    {
        return cut_over(wanted, existing, token, &changes, acknowledged.as_ref(), held.as_ref());
    }
    // A token that is taken out again, or that this very run was cut over with, asks for nothing.
    let acknowledged = acknowledged.filter(|_| wanted.spec.cutover.acknowledge.is_none());

    let fixed = refusal::fixed_attributes(wanted, existing, &changes);
    if !fixed.is_empty() {
        return (
            Change { action: Action::Update, attributes: changes, ..unchanged(existing) },
            fixed,
        );
    }
    let edited: Vec<&str> =
        changes.iter().chain(&held).map(|change| change.path.as_str()).collect();
    if status.phase == Phase::Cancelled && !edited.is_empty() {
        return refused(refusal::cancelled(wanted, existing));
    }
    if refusal::cuts_over(status.phase)
        && let Some(path) =
            edited.iter().find(|path| **path == "paused" || path.starts_with("copy."))
    {
        return refused(refusal::while_cutting_over(wanted, existing, path));
    }
    if held.is_some()
        && wanted.spec.paused
        && matches!(status.phase, Phase::Failed | Phase::Expired | Phase::Completed)
    {
        return refused(refusal::cannot_be_held(wanted, existing));
    }
    if status.phase == Phase::Expired
        && existing.resume_point_held == Some(false)
        && effects::deadline(&wanted.spec, existing).is_some_and(|deadline| deadline > now)
        && let Some(path) =
            edited.iter().find(|path| matches!(**path, "cutover.extensions" | "cutover.window"))
    {
        return refused(refusal::resume_point_lost(wanted, existing, path));
    }
    (change(wanted, existing, changes, acknowledged, held, now), Vec::new())
}

/// A change of settings, under the name that says most.
fn change(
    wanted: &Declared,
    existing: &Observed,
    changes: Vec<AttributeChange>,
    acknowledged: Option<AttributeChange>,
    held: Option<AttributeChange>,
    now: UtcTime,
) -> Change {
    let mut effects = effects::of_update(&wanted.spec, existing, &changes, now);
    // Declared is what somebody did by hand already: nothing moves.
    let moves = drift::is_held(existing) != wanted.spec.paused;
    if held.is_some() && moves {
        effects.extend(if wanted.spec.paused {
            effects::of_pause(existing)
        } else {
            effects::of_resume(existing)
        });
    }
    let raises = wanted.spec.cutover.extensions > existing.spec.cutover.extensions;
    let action = match (changes.as_slice(), &held) {
        ([], None) if acknowledged.is_none() => Action::NoOp,
        ([], Some(_)) if moves && wanted.spec.paused => Action::Pause,
        ([], Some(_)) if moves => Action::Resume,
        ([only], None) if only.path == "cutover.extensions" && raises => Action::Extend,
        _ => Action::Update,
    };
    if action == Action::Update && effects.is_empty() {
        effects.push("changes no data".to_owned());
    }
    let mut attributes: Vec<AttributeChange> = held.into_iter().chain(changes).collect();
    attributes.extend(acknowledged);
    Change { action, attributes, effects, ..unchanged(existing) }
}

fn cut_over(
    wanted: &Declared,
    existing: &Observed,
    token: &str,
    others: &[AttributeChange],
    acknowledged: Option<&AttributeChange>,
    held: Option<&AttributeChange>,
) -> Decided {
    let status = &existing.status;
    let refused = |diagnostic| (unchanged(existing), vec![diagnostic]);
    // Which token fits is known also while the run is ready and, for a moment, not fit to cut over.
    let offered = status.acknowledge_token.as_ref().filter(|_| status.phase == Phase::Ready);
    if offered.is_some_and(|offered| offered != token) {
        return refused(refusal::wrong_token(wanted, existing));
    }
    if offered.is_none() || !status.ready.value {
        return refused(refusal::not_ready(wanted, existing));
    }
    let with_it: Vec<AttributeChange> = others.iter().chain(held).cloned().collect();
    if !with_it.is_empty() {
        return refused(refusal::acknowledged_with_edits(wanted, &with_it));
    }
    let change = Change {
        action: Action::CutOver,
        attributes: acknowledged.into_iter().cloned().collect(),
        effects: effects::of_cut_over(wanted, existing),
        ..unchanged(existing)
    };
    (change, Vec::new())
}

fn rerun(wanted: &Declared, existing: &Observed, inspection: Option<&Inspection>) -> Decided {
    let mut diagnostics = checks(wanted, inspection);
    if wanted.spec.cutover.acknowledge.is_some() {
        let why = format!("generation {} has no run yet", wanted.spec.generation);
        diagnostics.push(refusal::acknowledged_before_start(wanted, &why));
    }
    let change = Change {
        action: Action::Rerun,
        attributes: attributes::between(&existing.spec, wanted),
        effects: effects::of_rerun(wanted, existing, inspection),
        forecast: inspection.and_then(|found| found.forecast.clone()),
        ..unchanged(existing)
    };
    (change, diagnostics)
}

/// Nothing to do.
fn unchanged(existing: &Observed) -> Change {
    Change {
        migration: existing.status.name.clone(),
        action: Action::NoOp,
        serial: existing.status.serial,
        attributes: Vec::new(),
        effects: Vec::new(),
        forecast: None,
    }
}

fn take(changes: &mut Vec<AttributeChange>, path: &str) -> Option<AttributeChange> {
    let at = changes.iter().position(|change| change.path == path)?;
    Some(changes.remove(at))
}

/// The change of `paused`, against what is and not against what was declared last: a pause by hand
/// is undone by an apply.
fn take_pause(
    changes: &mut Vec<AttributeChange>,
    wanted: &Declared,
    existing: &Observed,
) -> Option<AttributeChange> {
    let edited = take(changes, "paused");
    let phase = existing.status.phase;
    let held = drift::is_held(existing);
    if wanted.spec.paused != held {
        // A run that is over, or that an error stopped, neither holds nor goes on; only an edit of
        // it is worth a change.
        let can_act = matches!(
            phase,
            Phase::Validating | Phase::Copying | Phase::CatchingUp | Phase::Ready | Phase::Paused
        );
        (can_act || edited.is_some()).then(|| {
            attributes::change("paused", Value::Bool(held), Value::Bool(wanted.spec.paused))
        })
    } else {
        // Declared what somebody did by hand: the declaration is still to be stored.
        edited
    }
}
