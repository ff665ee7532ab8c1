//! Puts a migration's status together from its run and the engine's snapshot.

use std::time::Duration;

use lifecycle::{Run, State};
use schemas::fault::Fault;
use schemas::id::ShardName;
use schemas::observed::{ByHand, Observed};
use schemas::phase::Phase;
use schemas::spec::VerifyMode;
use schemas::status::{
    CutoverStatus, MigrationStatus, Readiness, Retries, ShardStatus, WindowStatus,
};

use crate::engine::{EngineProgress, ShardProgress};
use crate::journal::Record;
use crate::registry::View;

/// What a verification is in that has found everything equal.
const CLEAN: &str = "clean";

/// What the daemon tells of a migration. `progress` is the open engine's; `None` where it is not
/// open.
#[must_use]
pub fn observed(view: View, progress: Option<EngineProgress>) -> Observed {
    let View { record, created, journal_fault, now } = view;
    let run = &record.run;
    let progress = progress.unwrap_or_else(|| EngineProgress::none(record.spec.verify.mode));
    let now = now.utc.max(run.clock);
    let mut reasons = run.unready_reasons(now);
    if let Some(fault) = &journal_fault {
        // Nobody may rely on a run of which nothing can be noted down.
        reasons.push(fault.to_string());
    }
    let offered = if journal_fault.is_some() { None } else { run.offered_token() };
    let waits = journal_fault
        .filter(|_| !run.phase().is_final() && !matches!(run.state, State::Failed { .. }));
    let error = waits.or_else(|| error(run)).or_else(|| syncing_error(&record, &progress));
    let phase = match run.shown_phase(now) {
        Phase::Ready if offered.is_none() => Phase::CatchingUp,
        phase => phase,
    };
    let is_one_of_several = progress.shards.len() > 1;
    let mut created_namespaces = created;
    created_namespaces.extend(progress.created_namespaces);
    // What earlier runs created and this one has not dropped yet is there as well.
    created_namespaces.extend(run.replaces());
    created_namespaces.sort();
    created_namespaces.dedup();
    let cutover = run.state.cutover();
    let mut verification = progress.verification;
    if phase == Phase::Completed
        && verification.mode == VerifyMode::Full
        && verification.mismatches == 0
    {
        // It has completed because nothing differed. An engine that is opened after that, to read,
        // has compared nothing itself.
        CLEAN.clone_into(&mut verification.phase);
    }
    let status = MigrationStatus {
        name: record.key.name.clone(),
        workspace: record.key.workspace.clone(),
        generation: run.generation,
        run: run.id.clone(),
        serial: record.serial,
        phase,
        paused: phase == Phase::Paused,
        destination_writable: run.state.writable_at().is_some(),
        lag_seconds: match &run.state {
            // Everything is applied, which was proved; the last word of the sync was before that.
            State::Finalizing { .. } | State::Completed { .. } => progress.lag_seconds,
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Draining { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => {
                run.vitals.lag.map(|lag| lag.as_secs_f64()).or(progress.lag_seconds)
            }
        },
        copy: progress.copy,
        tail: progress.tail,
        indexes: progress.indexes,
        verification,
        shards: progress
            .shards
            .into_iter()
            .map(|shard| ShardStatus {
                name: shard.name.clone(),
                phase: if shard.error.as_ref().is_some_and(|fault| !fault.retryable) {
                    Phase::Failed
                } else {
                    phase
                },
                copy: shard.copy,
                tail: shard.tail,
                lag_seconds: shard.lag_seconds,
                optime_gap: shard.optime_gap,
                oplog_window_seconds: shard.oplog_window_seconds,
                error: shard.error.map(|fault| {
                    if is_one_of_several {
                        to_begin_again(&record, &shard.name, fault)
                    } else {
                        fault
                    }
                }),
            })
            .collect(),
        window: window(run, now),
        ready: Readiness { value: phase == Phase::Ready, reasons },
        acknowledge_token: offered
            .filter(|_| phase == Phase::Ready)
            .map(|token| token.as_str().to_owned()),
        cutover: CutoverStatus {
            started_at: cutover.map(|cutover| cutover.at),
            downtime_seconds: run.state.downtime().map(|downtime| downtime.as_secs_f64()),
            acknowledged_by: cutover.map(|cutover| cutover.by.to_string()),
        },
        retries: run.repeated.map(|one| Retries { count: one.count, since: one.since }),
        error,
    };
    Observed {
        spec: (*record.spec).clone(),
        declared: record.declared,
        by_hand: ByHand {
            paused: run.paused_by_hand,
            extensions: run.extensions_by_hand,
            cancelled: run.cancelled_by_hand,
        },
        acknowledged_token: cutover.map(|cutover| cutover.token.as_str().to_owned()),
        created_namespaces,
        deferred_settings: progress.deferred_settings,
        expected_downtime_seconds: progress.expected_downtime_seconds,
        balancer_held: progress.balancer_held,
        resume_point_held: None,
        findings: Vec::new(),
        foreign_writes: progress.foreign_writes,
        status,
    }
}

fn window(run: &Run, now: schemas::time::UtcTime) -> WindowStatus {
    let expires_at = run.deadline();
    let runs_down = match &run.state {
        State::Validating { .. }
        | State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Paused { .. }
        | State::Failed { .. }
        | State::Draining { .. } => true,
        State::Finalizing { .. } | State::Completed { .. } | State::Cancelled { .. } => false,
        State::Expired { extended, .. } => *extended,
    };
    let remaining = match (&run.state, expires_at) {
        (State::Expired { extended: false, .. }, Some(_)) => Some(Duration::ZERO),
        (_, Some(at)) if runs_down => Some(at.since(now)),
        (_, _) => None,
    };
    WindowStatus {
        opened_at: run.opened_at,
        expires_at,
        extensions: run.extensions(),
        remaining_seconds: remaining.map(|remaining| remaining.as_secs_f64()),
    }
}

/// What a running sync is trying to get over by itself: a server that is away, most often.
fn syncing_error(record: &Record, progress: &EngineProgress) -> Option<Fault> {
    let of_one = |shard: &ShardProgress| {
        let fault = shard.error.clone()?;
        if progress.shards.len() == 1 {
            return Some(fault);
        }
        let fault = to_begin_again(record, &shard.name, fault);
        Some(Fault { message: format!("shard {}: {}", shard.name, fault.message), ..fault })
    };
    match &record.run.state {
        State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Draining { .. } => {
            progress.error.clone().or_else(|| progress.shards.iter().find_map(of_one))
        }
        State::Validating { .. }
        | State::Finalizing { .. }
        | State::Completed { .. }
        | State::Paused { .. }
        | State::Cancelled { .. }
        | State::Failed { .. }
        | State::Expired { .. } => None,
    }
}

/// A fault with which the copy of one shard of several has stopped for good, and what lets it go on
/// once its cause is mended.
fn to_begin_again(record: &Record, shard: &ShardName, fault: Fault) -> Fault {
    let is_stopped = matches!(record.run.state, State::Copying { .. }) && !fault.retryable;
    if !is_stopped {
        return fault;
    }
    let remedy =
        format!("{}; then `cutover restart-shard {} {shard}`", fault.remedy, record.key.name);
    fault.with_remedy(remedy)
}

/// What is wrong: what stopped it, or what is being retried, or why the last cutover was given up.
fn error(run: &Run) -> Option<Fault> {
    match &run.state {
        State::Failed { fault, .. } => Some(fault.clone()),
        State::Expired { at, .. } => run.trouble.clone().or_else(|| {
            Some(Fault::new(
                schemas::fault::FaultCode::WindowExpired,
                format!("the cutover window closed at {at}"),
            ))
        }),
        State::Completed { .. } | State::Cancelled { .. } => run.trouble.clone(),
        State::Validating { .. }
        | State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Draining { .. }
        | State::Finalizing { .. }
        | State::Paused { .. } => run.trouble.clone().or_else(|| run.aborted.clone()),
    }
}
