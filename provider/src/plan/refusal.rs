//! Why a declared change cannot be carried out, each as an error at its attribute's place.

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::{Declared, Diagnostic, Place, Severity};
use schemas::id::MigrationName;
use schemas::observed::{Check, Observed, Outcome};
use schemas::phase::Phase;
use schemas::spec::attribute::{Mutability, differing};

use super::AttributeChange;

/// Whether a run in this phase is cutting over, so that it takes no other change until it is done.
pub(super) const fn cuts_over(phase: Phase) -> bool {
    matches!(phase, Phase::Draining | Phase::Finalizing)
}

fn about(migration: &MigrationName, fault: &Fault, place: Option<Place>) -> Diagnostic {
    Diagnostic::from_fault(fault, place).within(&format!("migration \"{migration}\""))
}

fn refuse(wanted: &Declared, path: &str, fault: Fault) -> Diagnostic {
    about(&wanted.spec.name, &fault, Some(wanted.place_of(path).clone()))
}

/// The changes of attributes that a run is built on.
pub(super) fn fixed_attributes(
    wanted: &Declared,
    existing: &Observed,
    changes: &[AttributeChange],
) -> Vec<Diagnostic> {
    let next = existing.status.generation.0.saturating_add(1);
    let differing = differing(&existing.spec, &wanted.spec);
    let is_fixed = |path: &str| {
        differing
            .iter()
            .any(|one| one.path == path && one.mutability == Mutability::NeedsNewGeneration)
    };
    changes
        .iter()
        .filter(|change| is_fixed(&change.path))
        .map(|change| {
            let message = if change.sensitive {
                format!(
                    "{} cannot be changed on a run that exists ({})",
                    change.path, existing.status.run
                )
            } else {
                format!(
                    "{} cannot be changed from {} to {} on a run that exists ({})",
                    change.path, change.before, change.after, existing.status.run
                )
            };
            let fault = Fault::new(FaultCode::ImmutableAttribute, message).with_remedy(format!(
                "write generation = {next} to run again from scratch with it, or take the change \
                 back"
            ));
            refuse(wanted, &change.path, fault)
        })
        .collect()
}

/// A generation below the one that runs.
pub(super) fn lower_generation(wanted: &Declared, existing: &Observed) -> Diagnostic {
    let (declared, actual) = (wanted.spec.generation, existing.status.generation);
    let fault = Fault::new(
        FaultCode::ImmutableAttribute,
        format!(
            "generation cannot be lowered from {actual} to {declared}: generation {actual} \
             has run already"
        ),
    )
    .with_remedy(format!(
        "write generation = {actual} to keep the run, or {} to run again from scratch",
        actual.0.saturating_add(1)
    ));
    refuse(wanted, "generation", fault)
}

/// A change of a run that is cancelled, by hand or since its block was removed.
pub(super) fn cancelled(wanted: &Declared, existing: &Observed) -> Diagnostic {
    let status = &existing.status;
    let why = if existing.declared {
        "was cancelled"
    } else {
        "was cancelled when its block was removed"
    };
    let fault = Fault::new(
        FaultCode::WrongState,
        format!(
            "{} {why} (run {}, generation {}), and a cancelled run does not start again",
            status.name, status.run, status.generation
        ),
    )
    .with_remedy(format!(
        "write generation = {} to run again from scratch",
        status.generation.0.saturating_add(1)
    ));
    refuse(wanted, "generation", fault)
}

/// A removed block that comes back while its completed run is being forgotten.
pub(super) fn being_forgotten(wanted: &Declared, existing: &Observed) -> Diagnostic {
    let status = &existing.status;
    let message = format!(
        "{} was removed before, and its run {} is still being forgotten",
        status.name, status.run
    );
    let fault = Fault::new(FaultCode::WrongState, message)
        .with_remedy("plan again when `cutover status` lists it no more");
    about(&wanted.spec.name, &fault, Some(wanted.place.clone()))
}

/// Holding a run that neither goes on nor is held.
pub(super) fn cannot_be_held(wanted: &Declared, existing: &Observed) -> Diagnostic {
    let status = &existing.status;
    let fault = Fault::new(
        FaultCode::WrongState,
        format!("run {} is {} and cannot be paused", status.run, status.phase),
    )
    .with_remedy("write paused = false");
    refuse(wanted, "paused", fault)
}

/// A change of a run that is cutting over.
pub(super) fn while_cutting_over(wanted: &Declared, existing: &Observed, path: &str) -> Diagnostic {
    let status = &existing.status;
    let fault = Fault::new(
        FaultCode::WrongState,
        format!("{path} cannot be changed while run {} is {}", status.run, status.phase),
    )
    .with_remedy("wait until the cutover is over; `cutover status` shows where it stands");
    refuse(wanted, path, fault)
}

/// A removed block whose run is cutting over.
pub(super) fn removed_while_cutting_over(existing: &Observed) -> Diagnostic {
    let status = &existing.status;
    let fault = Fault::new(
        FaultCode::WrongState,
        format!(
            "the block of {} is gone, but its run {} is {} and cannot be cancelled any more",
            status.name, status.run, status.phase
        ),
    )
    .with_remedy("put the block back until the run is completed");
    about(&status.name, &fault, None)
}

/// An extension of a run that has nowhere to go on from.
pub(super) fn resume_point_lost(wanted: &Declared, existing: &Observed, path: &str) -> Diagnostic {
    let status = &existing.status;
    let fault = Fault::new(
        FaultCode::ResumePointLost,
        format!(
            "the window of {} cannot be extended any more: the source's oplog no longer holds the \
             point at which run {} stood when it closed, so that what was written since cannot be \
             applied",
            status.name, status.run
        ),
    )
    .with_remedy(format!(
        "write generation = {} to run again from scratch",
        status.generation.0.saturating_add(1)
    ));
    refuse(wanted, path, fault)
}

const ACKNOWLEDGE: &str = "cutover.acknowledge";

/// An acknowledgement of a run that does not exist yet.
pub(super) fn acknowledged_before_start(wanted: &Declared, why: &str) -> Diagnostic {
    let fault = Fault::new(
        FaultCode::WrongToken,
        format!("cutover.acknowledge carries a token, but {why}"),
    )
    .with_remedy("write acknowledge = null, and acknowledge once the new run is ready");
    refuse(wanted, ACKNOWLEDGE, fault)
}

/// An acknowledgement of a run that cannot cut over now.
pub(super) fn not_ready(wanted: &Declared, existing: &Observed) -> Diagnostic {
    let status = &existing.status;
    let mut message = if status.phase == Phase::Ready {
        // It keeps its window and its token over a short trouble, and is not cut over in it.
        format!("run {} of {} was ready and is not at the moment", status.run, status.name)
    } else {
        format!("run {} of {} is {}, not ready", status.run, status.name, status.phase)
    };
    if let Some(error) = status.error.as_ref().filter(|_| status.ready.reasons.is_empty()) {
        message = format!("{message}: {}", error.message);
    } else if !status.ready.reasons.is_empty() {
        message = format!("{message}: {}", status.ready.reasons.join("; "));
    }
    let code =
        if status.phase == Phase::Expired { FaultCode::WindowExpired } else { FaultCode::NotReady };
    refuse(wanted, ACKNOWLEDGE, Fault::new(code, message))
}

/// A token that is not the one of this run with this spec.
pub(super) fn wrong_token(wanted: &Declared, existing: &Observed) -> Diagnostic {
    let status = &existing.status;
    let fault = Fault::new(
        FaultCode::WrongToken,
        format!(
            "cutover.acknowledge is not the token of run {}: it is another run's, it was used \
             before, or the declaration has changed since it was given out",
            status.run
        ),
    )
    .with_remedy(format!(
        "take the token from `cutover status {}` while the run is ready",
        status.name
    ));
    refuse(wanted, ACKNOWLEDGE, fault)
}

/// An acknowledgement together with other edits: the token was given out for the declaration as it
/// was applied.
pub(super) fn acknowledged_with_edits(wanted: &Declared, others: &[AttributeChange]) -> Diagnostic {
    let paths: Vec<&str> = others.iter().map(|change| change.path.as_str()).collect();
    let fault = Fault::new(
        FaultCode::WrongToken,
        format!(
            "cutover.acknowledge fits the declaration as it was applied, but {} changed with it",
            paths.join(", ")
        ),
    )
    .with_remedy(
        "acknowledge in a change of its own: apply the other edits first, then take the new token",
    );
    refuse(wanted, ACKNOWLEDGE, fault)
}

/// What a live check found.
pub(super) fn check(wanted: &Declared, check: &Check) -> Option<Diagnostic> {
    let (severity, otherwise) = match check.outcome {
        Outcome::Ok => return None,
        Outcome::Warn => (Severity::Warning, FaultCode::CheckWarning),
        Outcome::Fail => (Severity::Error, FaultCode::Internal),
    };
    let mut fault = Fault::new(check.code.unwrap_or(otherwise), check.message.clone());
    if let Some(remedy) = &check.remedy {
        fault = fault.with_remedy(remedy);
    }
    Some(Diagnostic { severity, ..about(&wanted.spec.name, &fault, Some(wanted.place.clone())) })
}

/// A run that would start without its live checks.
pub(super) fn unchecked(wanted: &Declared) -> Diagnostic {
    let fault = Fault::new(
        FaultCode::Internal,
        format!("the live checks of {} have not been run", wanted.spec.name),
    );
    about(&wanted.spec.name, &fault, Some(wanted.place.clone()))
}
