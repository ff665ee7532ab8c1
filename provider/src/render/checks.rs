//! The live checks, one line each.

use std::fmt::Write as _;

use schemas::id::MigrationName;
use schemas::observed::{Inspection, Outcome};

use super::paint::Paint;
use super::{clean, forecast};

/// One migration's checks and forecast.
#[must_use]
pub fn checks(name: &MigrationName, found: &Inspection, paint: Paint) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "{}", paint.bold(format!("migration \"{name}\"")));
    let width = found.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in &found.checks {
        let outcome = match check.outcome {
            Outcome::Ok => paint.good("ok  "),
            Outcome::Warn => paint.notable("warn"),
            Outcome::Fail => paint.bad("fail"),
        };
        let code = check.code.map(|code| format!("[{code}] ")).unwrap_or_default();
        let _ = writeln!(
            out,
            "  {outcome}  {:width$}  {code}{}",
            clean(&check.name),
            clean(&check.message)
        );
        let remedy = check.remedy.as_deref().or_else(|| check.code.map(|code| code.remedy()));
        if let Some(remedy) = remedy.filter(|_| check.outcome != Outcome::Ok) {
            let _ = writeln!(out, "        {:width$}  remedy: {}", "", clean(remedy));
        }
    }
    if let Some(forecast) = &found.forecast {
        let rows = forecast::rows(forecast);
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, text) in rows {
            let _ = writeln!(out, "  {label:width$}  {text}");
        }
    }
    out
}
