//! Errors and warnings as they print on stderr: code, cause, place, remedy.

use std::fmt::Write as _;

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::{Diagnostic, Severity};

use super::clean;
use super::paint::Paint;

/// A fault: its code and message, then what to do.
#[must_use]
pub fn fault(fault: &Fault, paint: Paint) -> String {
    let mut out = head(Severity::Error, Some(fault.code), &fault.message, paint);
    indented(&mut out, REMEDY, &fault.remedy);
    out
}

/// Diagnostics, each with its place in the HCL.
#[must_use]
pub fn all<'a>(diagnostics: impl IntoIterator<Item = &'a Diagnostic>, paint: Paint) -> String {
    diagnostics.into_iter().map(|diagnostic| one(diagnostic, paint)).collect()
}

fn one(diagnostic: &Diagnostic, paint: Paint) -> String {
    let code = (diagnostic.severity == Severity::Error).then_some(diagnostic.code);
    let mut out = head(diagnostic.severity, code, &diagnostic.summary, paint);
    // Writing to a String cannot fail, here and below.
    if let Some(place) = &diagnostic.place {
        let context = diagnostic
            .context
            .as_ref()
            .map(|context| format!(", in {context}"))
            .unwrap_or_default();
        let _ =
            writeln!(out, "  --> {}:{}:{}{context}", clean(&place.file), place.line, place.column);
        let number = place.line.to_string();
        let _ = writeln!(out, "  {number} | {}", clean(&place.excerpt.text));
        let indent = number.len() + 5 + place.excerpt.start;
        let carets = "^".repeat(place.excerpt.end.saturating_sub(place.excerpt.start).max(1));
        let carets = if diagnostic.severity == Severity::Error {
            paint.bad(carets)
        } else {
            paint.notable(carets)
        };
        let _ = writeln!(out, "{:indent$}{carets}", "");
    } else if let Some(context) = &diagnostic.context {
        let _ = writeln!(out, "  in {context}");
    }
    for related in &diagnostic.related {
        let place = &related.place;
        let _ = writeln!(
            out,
            "  {}: {}:{}:{}",
            clean(&related.message),
            clean(&place.file),
            place.line,
            place.column
        );
    }
    // What is wrong in a file explains itself with what to write instead; what a daemon or a server
    // says has a remedy.
    let label = if diagnostic.code == FaultCode::InvalidConfiguration { "" } else { REMEDY };
    indented(&mut out, label, &diagnostic.detail);
    out
}

fn head(severity: Severity, code: Option<FaultCode>, message: &str, paint: Paint) -> String {
    let code = code.map(|code| format!("[{code}]")).unwrap_or_default();
    let word = match severity {
        Severity::Error => paint.bad(format!("error{code}")),
        Severity::Warning => paint.notable(format!("warning{code}")),
    };
    format!("{word}: {}\n", paint.bold(clean(message)))
}

const REMEDY: &str = "remedy: ";

/// Adds a text's lines, the first after a label, the others below it.
fn indented(out: &mut String, label: &str, text: &str) {
    for (at, line) in text.lines().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "  {:width$}{}",
            if at == 0 { label } else { "" },
            clean(line),
            width = label.len()
        );
    }
}
