//! A completed migration's report, for people.

use schemas::report::Report;
use schemas::spec::VerifyMode;

use super::clean;
use super::paint::Paint;
use crate::units;

/// The report as a compact block.
#[must_use]
pub fn text(report: &Report, paint: Paint) -> String {
    let about = format!(
        "workspace {}, run {}, generation {}",
        report.workspace, report.run, report.generation
    );
    let mut out = format!(
        "{}  {}  {}\n",
        paint.bold(&report.name),
        paint.good("completed"),
        paint.faint(about)
    );
    for (label, text) in rows(report) {
        out.push_str(&format!("  {label:14} {text}\n"));
    }
    out
}

/// What there is to say, by what it is about.
#[must_use]
pub fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let took = report.completed_at.since(report.declared_at).as_secs_f64();
    let migrated = &report.migrated;
    let mut rows = vec![
        (
            "migrated",
            format!(
                "{} in {}, {}, {}, {} followed",
                units::counted(migrated.documents, "document"),
                units::counted(migrated.collections, "collection"),
                units::bytes(migrated.bytes),
                units::counted_indexes(migrated.indexes),
                units::counted(migrated.events_applied, "change")
            ),
        ),
        (
            "took",
            format!("{} ({} to {})", units::seconds(took), report.declared_at, report.completed_at),
        ),
    ];
    if !report.phases.is_empty() {
        let phases: Vec<String> = report
            .phases
            .iter()
            .map(|spent| format!("{} {}", spent.phase, units::seconds(spent.seconds)))
            .collect();
        rows.push(("phases", phases.join(", ")));
    }
    rows.extend(proof(report).into_iter().map(|text| ("verification", text)));
    rows.push((
        "acknowledged",
        format!("{} by {}", report.acknowledged.at, clean(&report.acknowledged.by.to_string())),
    ));
    rows.push(("downtime", units::seconds(report.downtime_seconds)));
    rows
}

fn proof(report: &Report) -> Vec<String> {
    let proof = &report.verification;
    match proof.mode {
        VerifyMode::Off => vec!["off: nothing was compared".to_owned()],
        VerifyMode::Full => {
            let found = match proof.mismatches_found {
                0 => "no mismatch was found".to_owned(),
                some => format!(
                    "{} found, {} open",
                    units::counted_mismatches(some),
                    units::count(proof.mismatches_open)
                ),
            };
            let mut texts = vec![
                format!(
                    "{} compared in {}, {} of single documents again, {}; {found}",
                    units::counted(proof.documents_compared, "document"),
                    units::seconds(proof.duration_seconds),
                    units::counted(proof.documents_compared_again, "comparison"),
                    units::counted(proof.generations, "generation")
                ),
                format!(
                    "{} last compared after the source was blocked",
                    units::counted(proof.compared_after_block, "document")
                ),
            ];
            if proof.foreign_writes > 0 {
                texts.push(format!(
                    "{} of others to the destination found, and compared",
                    units::counted(proof.foreign_writes, "write")
                ));
            }
            texts
        }
    }
}
