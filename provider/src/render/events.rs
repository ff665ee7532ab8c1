//! The journal, a line a record: when, what, who.

use schemas::history::{Entry, EntryKind};

use super::clean;
use super::paint::Paint;

/// One record and a line end.
#[must_use]
pub fn entry(entry: &Entry, paint: Paint) -> String {
    let transition = match (entry.from, entry.to) {
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (None, Some(to)) => format!("-> {to}"),
        _ => kind(entry.kind).to_owned(),
    };
    let width = format!("{transition:26}");
    let transition = match entry.kind {
        EntryKind::Fault => paint.bad(width),
        EntryKind::ByHand | EntryKind::Applied => paint.notable(width),
        EntryKind::Transition => paint.bold(width),
        EntryKind::Step | EntryKind::Daemon => width,
    };
    let actor = entry
        .actor
        .as_ref()
        .map(|actor| format!("  [{}]", clean(&actor.to_string())))
        .unwrap_or_default();
    format!(
        "{}  {transition}  {}{}\n",
        paint.faint(entry.at),
        clean(&entry.message),
        paint.faint(actor)
    )
}

const fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Applied => "applied",
        EntryKind::ByHand => "by hand",
        EntryKind::Transition => "transition",
        EntryKind::Step => "step",
        EntryKind::Fault => "fault",
        EntryKind::Daemon => "daemon",
    }
}
