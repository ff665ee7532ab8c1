//! Where runs stand: a compact block a migration, and one line of progress.

use std::fmt::Write as _;

use schemas::observed::Observed;
use schemas::phase::Phase;
use schemas::status::{CopyProgress, MigrationStatus, Retries, ShardStatus};

use super::clean;
use super::paint::Paint;
use crate::units;

/// A migration's block.
#[must_use]
pub fn block(observed: &Observed, paint: Paint) -> String {
    let status = &observed.status;
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let held = if status.paused && status.phase != Phase::Paused { " (paused)" } else { "" };
    let _ = writeln!(
        out,
        "{}  {}{held}  {}",
        paint.bold(&status.name),
        phase(status.phase, paint),
        paint.faint(format!(
            "workspace {}, run {}, serial {}",
            status.workspace, status.run, status.serial
        ))
    );
    for (label, text) in rows(status) {
        let _ = writeln!(out, "  {label:12} {text}");
    }
    if observed.balancer_held {
        let _ = writeln!(
            out,
            "  {:12} the source's, stopped by this run; given back once it is completed or \
             cancelled",
            "balancer"
        );
    }
    if let Some(fault) = &status.error {
        let again = match &status.retries {
            Some(Retries { count, since }) if fault.retryable => {
                format!(" (the daemon tries again; it came {count} times since {since})")
            }
            None | Some(_) if fault.retryable => " (the daemon tries again)".to_owned(),
            None | Some(_) => String::new(),
        };
        let _ =
            writeln!(out, "  {} {}{again}", paint.bad("error       "), clean(&fault.to_string()));
        let _ = writeln!(out, "  {:12} remedy: {}", "", clean(&fault.remedy));
    }
    for shard in &status.shards {
        let _ = writeln!(out, "  {:12} {}", "shard", self::shard(shard, paint));
    }
    out
}

fn rows(status: &MigrationStatus) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let copies =
        matches!(status.phase, Phase::Validating | Phase::Copying | Phase::Paused | Phase::Failed);
    if copies || status.copy.documents_copied > 0 {
        rows.push(("copy", copy(&status.copy)));
    }
    if status.indexes.total > 0 {
        rows.push((
            "indexes",
            format!("{} of {} built", status.indexes.built, status.indexes.total),
        ));
    }
    let tail = &status.tail;
    if tail.events_applied > 0 || status.lag_seconds.is_some() {
        let mut text = lag(status.lag_seconds);
        let _ = write!(
            text,
            ", {} applied, {:.0} a second",
            units::counted(tail.events_applied, "event"),
            tail.events_per_second
        );
        if let Some(eta) = tail.catch_up_eta_seconds {
            let _ = write!(text, ", caught up in {}", units::seconds(eta));
        }
        rows.push(("tail", text));
    }
    let proof = &status.verification;
    if proof.documents_total > 0 || proof.mismatches > 0 {
        let text = format!(
            "{}: {} of {} equal, {} to compare again, {}",
            clean(&proof.phase),
            units::count(proof.documents_verified),
            units::counted(proof.documents_total, "document"),
            units::count(proof.pending_rechecks),
            units::counted_mismatches(proof.mismatches)
        );
        rows.push(("verification", text));
    }
    if let Some(expires) = status.window.expires_at.filter(|_| !status.phase.is_final()) {
        let left = match status.window.remaining_seconds {
            Some(seconds) if seconds > 0.0 => format!("closes in {}", units::seconds(seconds)),
            Some(_) => "closed".to_owned(),
            None => "closes".to_owned(),
        };
        let extensions = match status.window.extensions {
            0 => String::new(),
            n => format!(", {}", units::counted(u64::from(n), "extension")),
        };
        rows.push(("window", format!("{left} ({expires}{extensions})")));
    }
    if !status.ready.value && !status.phase.is_final() {
        rows.extend(status.ready.reasons.iter().map(|reason| ("not ready", clean(reason))));
    }
    if let Some(token) = &status.acknowledge_token {
        rows.push(("acknowledge", clean(token)));
    }
    let cutover = &status.cutover;
    if let Some(started) = cutover.started_at {
        let mut text = format!("acknowledged {started}");
        if let Some(who) = &cutover.acknowledged_by {
            let _ = write!(text, " by {}", clean(who));
        }
        if let Some(seconds) = cutover.downtime_seconds {
            let _ = write!(text, ", downtime {}", units::seconds(seconds));
        }
        rows.push(("cutover", text));
    }
    if status.destination_writable {
        rows.push(("destination", "writable".to_owned()));
    }
    rows
}

fn phase(phase: Phase, paint: Paint) -> String {
    match phase {
        Phase::Ready | Phase::Completed => paint.good(phase),
        Phase::Failed | Phase::Expired | Phase::Cancelled => paint.bad(phase),
        Phase::Paused | Phase::Draining | Phase::Finalizing => paint.notable(phase),
        Phase::Validating | Phase::Copying | Phase::CatchingUp => paint.bold(phase),
    }
}

/// The copy's progress in words.
#[must_use]
pub fn copy(copy: &CopyProgress) -> String {
    let share = match units::percent(copy.bytes_copied, copy.bytes_total) {
        Some(percent) => format!("{percent} %, "),
        None => String::new(),
    };
    let mut text = format!(
        "{share}{} of {}, {} of {}, {} of {}",
        units::bytes(copy.bytes_copied),
        units::bytes(copy.bytes_total),
        units::count(copy.documents_copied),
        units::counted(copy.documents_total, "document"),
        copy.collections_copied,
        units::counted(copy.collections_total, "collection")
    );
    if let Some(eta) = copy.eta_seconds {
        let _ = write!(text, ", done in {}", units::seconds(eta));
    }
    text
}

fn lag(lag: Option<f64>) -> String {
    lag.map_or_else(|| "lag unknown".to_owned(), |lag| format!("lag {}", units::seconds(lag)))
}

fn shard(shard: &ShardStatus, paint: Paint) -> String {
    let mut text = format!("{}  {}", paint.bold(clean(&shard.name.0)), phase(shard.phase, paint));
    if shard.phase == Phase::Copying || shard.lag_seconds.is_none() {
        let _ = match units::percent(shard.copy.bytes_copied, shard.copy.bytes_total) {
            Some(percent) => write!(text, "  copy {percent} %"),
            None => write!(text, "  copy {}", units::bytes(shard.copy.bytes_copied)),
        };
    }
    if shard.lag_seconds.is_some() {
        let _ = write!(text, "  {}", lag(shard.lag_seconds));
    }
    if let (Some(source), Some(applied)) = (shard.optime_gap.source, shard.optime_gap.applied) {
        let _ = write!(text, "  optime {applied} of {source}");
    }
    if let Some(window) = shard.oplog_window_seconds {
        let _ = write!(text, "  oplog spans {}", units::whole_seconds(window));
    }
    if let Some(fault) = &shard.error {
        let _ = write!(text, "  {}", paint.bad(clean(&fault.to_string())));
    }
    text
}

/// A migration's progress in one line, without a line end.
#[must_use]
pub fn line(status: &MigrationStatus) -> String {
    let mut text = format!("{}: {}", status.name, status.phase);
    match status.phase {
        Phase::Validating
        | Phase::Completed
        | Phase::Cancelled
        | Phase::Failed
        | Phase::Expired => {}
        Phase::Copying | Phase::Paused => {
            let _ = write!(text, ", copy {}", copy(&status.copy));
        }
        Phase::CatchingUp | Phase::Ready | Phase::Draining | Phase::Finalizing => {
            let _ = write!(
                text,
                ", {}, {:.0} events/s",
                lag(status.lag_seconds),
                status.tail.events_per_second
            );
            let proof = &status.verification;
            if proof.pending_rechecks > 0 || proof.mismatches > 0 {
                let _ = write!(
                    text,
                    ", {} to compare again, {}",
                    units::count(proof.pending_rechecks),
                    units::counted_mismatches(proof.mismatches)
                );
            }
        }
    }
    if let Some(left) = status.window.remaining_seconds.filter(|_| status.phase == Phase::Ready) {
        let _ = write!(text, ", window closes in {}", units::seconds(left));
    }
    if let Some(seconds) =
        status.cutover.downtime_seconds.filter(|_| status.phase == Phase::Completed)
    {
        let _ = write!(text, ", downtime {}", units::seconds(seconds));
    }
    if let Some(fault) = &status.error {
        let _ = write!(text, ": {}", clean(&fault.to_string()));
    } else if status.phase == Phase::CatchingUp && !status.ready.reasons.is_empty() {
        let _ = write!(text, " ({})", clean(&status.ready.reasons.join("; ")));
    }
    text
}
