//! Where reality has moved away from the declaration by itself or by hand, apart from pending
//! edits.

use schemas::fault::FaultCode;
use schemas::observed::{FindingKind, Observed};
use schemas::phase::Phase;
use schemas::spec::MigrationSpec;
use schemas::time::UtcTime;
use serde_json::{Value, json};

use super::{Drift, DriftKind};
use crate::units;

/// Below this, in seconds, a window counts as closing: a working day is left to get an
/// acknowledgement reviewed.
const CLOSING_SECONDS: f64 = 24.0 * 3600.0;

/// ... and below this share of its own length, so that a window of minutes is not closing from the
/// start.
const CLOSING_SHARE: f64 = 0.2;

/// Whether a person holds the run, as it is now.
pub(super) fn is_held(existing: &Observed) -> bool {
    existing.by_hand.paused.unwrap_or(existing.spec.paused)
}

/// The drift of one migration. What the declaration agrees with by now is none, nor is what a new
/// generation replaces.
pub(super) fn find(wanted: &MigrationSpec, existing: &Observed, now: UtcTime) -> Vec<Drift> {
    let status = &existing.status;
    if !existing.declared
        || wanted.generation != status.generation
        || status.phase == Phase::Completed
    {
        return Vec::new();
    }
    let mut drift = Vec::new();
    let mut add = |kind, path: &str, declared: Value, actual: Value, message: String| {
        drift.push(Drift {
            migration: status.name.clone(),
            kind,
            path: path.to_owned(),
            declared,
            actual,
            message,
        });
    };
    let name = &status.name;
    let as_declared = || json!(if wanted.paused { "paused" } else { "running" });

    if status.phase == Phase::Cancelled {
        let message = format!(
            "{name} was cancelled by hand and does not go on; raise `generation` to run again, or \
             remove the block"
        );
        add(DriftKind::Cancelled, "phase", as_declared(), json!(status.phase), message);
        return drift;
    }
    match existing.by_hand.paused {
        Some(true) if !wanted.paused => {
            let message = format!(
                "{name} was paused by hand; `cutover apply` lets it go on, `paused = true` keeps \
                 it held"
            );
            add(DriftKind::Paused, "paused", json!(false), json!(true), message);
        }
        Some(false) if wanted.paused => {
            let message = format!(
                "{name} was resumed by hand; `cutover apply` holds it again, `paused = false` \
                 lets it run"
            );
            add(DriftKind::Resumed, "paused", json!(true), json!(false), message);
        }
        _ => {}
    }
    let in_force = existing.spec.cutover.extensions.saturating_add(existing.by_hand.extensions);
    if existing.by_hand.extensions > 0 && wanted.cutover.extensions < in_force {
        let message = format!(
            "the window of {name} was extended by hand by {} h; write cutover.extensions = \
             {in_force} to declare it",
            u64::from(existing.by_hand.extensions) * 24
        );
        add(
            DriftKind::Extended,
            "cutover.extensions",
            json!(wanted.cutover.extensions),
            json!(in_force),
            message,
        );
    }
    let token_used = wanted.cutover.acknowledge.is_some()
        && wanted.cutover.acknowledge == existing.spec.cutover.acknowledge;
    let error = status.error.as_ref();
    match status.phase {
        Phase::Expired => {
            let closed = status.window.expires_at.map(|at| format!(" at {at}")).unwrap_or_default();
            let way_on = match existing.resume_point_held {
                Some(false) => {
                    "the source's oplog no longer holds the place to go on from, so that only a \
                     raised `generation` helps"
                }
                Some(true) | None => "raise cutover.extensions or `generation`",
            };
            let message = format!(
                "the window of {name} closed{closed} without an acknowledgement; {way_on}{}",
                held(existing)
            );
            add(DriftKind::Expired, "phase", json!(Phase::Ready), json!(Phase::Expired), message);
        }
        Phase::Failed => {
            let message = match error {
                // What only a new generation mends is not tried again.
                Some(fault)
                    if matches!(
                        fault.code,
                        FaultCode::ResumePointLost | FaultCode::UnsupportedChange
                    ) =>
                {
                    format!("{name} has failed: {fault}; {}", fault.remedy)
                }
                Some(fault) => {
                    format!(
                        "{name} has failed: {fault}; {}; once that is done, `cutover resume \
                         {name}` tries again",
                        fault.remedy
                    )
                }
                None => format!("{name} has failed; `cutover events {name}` shows why"),
            };
            let message = message + held(existing);
            add(DriftKind::Failed, "phase", as_declared(), json!(Phase::Failed), message);
        }
        Phase::Ready | Phase::CatchingUp | Phase::Copying if token_used => {
            let cause =
                error.map(|fault| format!(": {fault}; {}", fault.remedy)).unwrap_or_default();
            let message = format!(
                "the acknowledged cutover of {name} was given up{cause}; acknowledge again with \
                 the new token"
            );
            add(
                DriftKind::Aborted,
                "cutover.acknowledge",
                json!(Phase::Completed),
                json!(status.phase),
                message,
            );
        }
        // A run that follows its source keeps the reason why an earlier cutover was given up, and
        // is well otherwise: what it cannot mend would have stopped it.
        Phase::Ready | Phase::CatchingUp => {}
        // What the daemon goes on trying by itself is not drift; what it cannot mend is. That of
        // one shard is reported with the shard.
        Phase::Validating
        | Phase::Copying
        | Phase::Draining
        | Phase::Finalizing
        | Phase::Completed
        | Phase::Paused
        | Phase::Cancelled => {
            let is_of_shard = status.shards.iter().any(|shard| shard.phase == Phase::Failed);
            if let Some(fault) = error.filter(|fault| !fault.retryable && !is_of_shard) {
                let message = format!("{name} is in trouble: {fault}; {}", fault.remedy);
                add(DriftKind::Failed, "error", Value::Null, json!(fault.code), message);
            }
        }
    }
    for shard in status
        .shards
        .iter()
        .filter(|shard| shard.phase == Phase::Failed && status.phase != Phase::Failed)
    {
        let message = match &shard.error {
            Some(fault) => {
                format!("shard {} of {name} has failed: {fault}; {}", shard.name, fault.remedy)
            }
            None => format!("shard {} of {name} has failed", shard.name),
        };
        add(
            DriftKind::Failed,
            &format!("shards.{}", shard.name),
            as_declared(),
            json!(Phase::Failed),
            message,
        );
    }

    let foreign = &existing.foreign_writes;
    if foreign.open > 0 {
        let newest = foreign.named.first().map(|one| {
            let id = one.id.as_ref().map(|id| format!(" _id {id}")).unwrap_or_default();
            format!(", the newest: {} of {}{id}", one.operation, one.namespace)
        });
        let message = format!(
            "somebody else writes to the destination of {name}: {} not found equal to the source \
             yet{}; stop the writer, and see `cutover verify {name}`",
            units::counted(foreign.open, "write"),
            newest.unwrap_or_default()
        );
        add(DriftKind::ForeignWrites, "destination", json!(0), json!(foreign.open), message);
    }

    // Before the first `ready` lag is the work itself. The bound is the one in force: an edit of it
    // is pending, not drift.
    let max_lag = existing.spec.cutover.max_lag;
    let waits = matches!(status.phase, Phase::Ready | Phase::CatchingUp);
    if let Some(lag) = status.lag_seconds.filter(|lag| *lag > max_lag.get().as_secs_f64())
        && status.window.opened_at.is_some()
        && waits
    {
        let message = format!(
            "{name} was ready and has fallen behind: its lag of {} is over max_lag {max_lag}",
            units::seconds(lag)
        );
        add(DriftKind::Lag, "lag_seconds", json!(max_lag), json!(lag), message);
    }
    if let Some(remaining) = remaining_seconds(existing, now)
        && (waits || status.phase == Phase::Paused)
    {
        let length = existing.spec.cutover.window.get().as_secs_f64()
            + f64::from(in_force) * CLOSING_SECONDS;
        if remaining < CLOSING_SECONDS && remaining < length * CLOSING_SHARE {
            let message = format!(
                "the window of {name} closes in {}; acknowledge, or raise cutover.extensions",
                units::seconds(remaining)
            );
            add(
                DriftKind::WindowClosing,
                "window.remaining_seconds",
                json!(length.round()),
                json!(remaining.round()),
                message,
            );
        }
    }
    for finding in &existing.findings {
        let kind = match finding.kind {
            FindingKind::Version => DriftKind::VersionChanged,
            FindingKind::Definitions => DriftKind::DefinitionsChanged,
            FindingKind::Credentials => DriftKind::CredentialsInvalid,
            FindingKind::BalancerOn => DriftKind::BalancerOn,
            FindingKind::ShardAdded => DriftKind::ShardAdded,
            FindingKind::ShardRemoved => DriftKind::ShardRemoved,
        };
        let message = format!("{name}: {}", finding.message);
        add(kind, &finding.path, finding.expected.clone(), finding.actual.clone(), message);
    }
    drift
}

/// What a run that has stopped still keeps from the source.
const fn held(existing: &Observed) -> &'static str {
    if existing.balancer_held {
        "; the run keeps the source's balancer stopped until it is completed or cancelled"
    } else {
        ""
    }
}

/// What is left of an open window: as the daemon's own timer says, and else by `now`.
fn remaining_seconds(existing: &Observed, now: UtcTime) -> Option<f64> {
    let window = &existing.status.window;
    window.remaining_seconds.or_else(|| window.expires_at.map(|at| at.since(now).as_secs_f64()))
}
