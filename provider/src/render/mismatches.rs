//! The open mismatches, a line each.

use schemas::id::MigrationName;
use schemas::observed::Mismatch;
use schemas::spec::VerifyMode;
use schemas::status::VerificationProgress;

use super::clean;
use super::paint::Paint;

/// The mismatches, or that there is none, and how far that can be said.
#[must_use]
pub fn text(migration: &MigrationName, mismatches: &[Mismatch], progress: &VerificationProgress, paint: Paint) -> String {
    let mut text = String::new();
    for one in mismatches {
        let id = one.id.as_ref().map(|id| format!("  _id {}", clean(id))).unwrap_or_default();
        let paths = if one.paths.is_empty() { String::new() } else { format!("  {}", clean(&one.paths.join(", "))) };
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
            "{} open; {} of {} documents compared, {} wait to be compared again ({})",
            match progress.mismatches {
                0 => "no mismatch is".to_owned(),
                1 => "1 mismatch is".to_owned(),
                some => format!("{some} mismatches are"),
            },
            progress.documents_verified,
            progress.documents_total,
            progress.pending_rechecks,
            progress.phase
        ),
    };
    text.push_str(&format!("{migration}: {state}\n"));
    text
}
