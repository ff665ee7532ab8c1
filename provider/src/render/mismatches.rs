//! What a verification has found: the open mismatches, and what others wrote, a line each.

use schemas::id::MigrationName;
use schemas::spec::VerifyMode;

use super::clean;
use super::paint::Paint;
use crate::daemon_client::Findings;
use crate::units;

/// What was found, or that there is nothing, and how far that can be said.
#[must_use]
pub fn text(migration: &MigrationName, findings: &Findings, paint: Paint) -> String {
    let Findings { verification: progress, mismatches, foreign_writes } = findings;
    let mut text = String::new();
    for one in foreign_writes {
        let id = one.id.as_ref().map(|id| format!("  _id {}", clean(id))).unwrap_or_default();
        let state = if one.open { "not found equal yet" } else { "found equal since" };
        let kind = paint.notable(format!("{:18}", "foreign write"));
        text.push_str(&format!(
            "{kind} {}{id}  {} at {}, {state}\n",
            clean(&one.namespace.to_string()),
            clean(&one.operation),
            one.time
        ));
    }
    for one in mismatches {
        let id = one.id.as_ref().map(|id| format!("  _id {}", clean(id))).unwrap_or_default();
        let paths = if one.paths.is_empty() {
            String::new()
        } else {
            format!("  {}", clean(&one.paths.join(", ")))
        };
        let kind = paint.bad(format!("{:18}", one.kind.as_str()));
        text.push_str(&format!("{kind} {}{id}{paths}\n", clean(&one.namespace.to_string())));
    }
    let more = progress.mismatches.saturating_sub(mismatches.len() as u64);
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    let state = match progress.mode {
        VerifyMode::Off => "verification is off: nothing was compared".to_owned(),
        VerifyMode::Full => format!(
            "{} open; {} of {} documents equal, {} wait to be compared again ({})",
            match progress.mismatches {
                0 => "no mismatch is".to_owned(),
                1 => "1 mismatch is".to_owned(),
                some => format!("{some} mismatches are"),
            },
            units::count(progress.documents_verified),
            units::count(progress.documents_total),
            units::count(progress.pending_rechecks),
            progress.phase
        ),
    };
    text.push_str(&format!("{migration}: {state}\n"));
    text
}
