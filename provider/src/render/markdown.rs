//! A plan as Markdown for the comment on a pull request: the summary in sight, the diff folded away.

use std::fmt::Write as _;

use schemas::hcl::{Diagnostic, Severity};
use schemas::report::Report;

use super::{clean, forecast, plan_text};
use crate::plan::{Change, Drift, Plan};

/// The whole plan.
#[must_use]
pub fn plan(plan: &Plan) -> String {
    let mut out = String::new();
    let workspace = plan.workspace.as_ref().map(|workspace| format!(" of workspace `{workspace}`")).unwrap_or_default();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "## cutover plan{workspace}\n");
    let _ = writeln!(out, "**{}**", escape(&plan_text::summary(plan)));
    if !plan.diagnostics.is_empty() {
        out.push('\n');
        for diagnostic in &plan.diagnostics {
            render_diagnostic(&mut out, diagnostic);
        }
    }
    if !plan.drift.is_empty() {
        out.push('\n');
        out.push_str(&drift(&plan.drift));
    }
    for change in plan.actions() {
        out.push('\n');
        render_change(&mut out, change);
    }
    out
}

/// Drift alone, as a table.
#[must_use]
pub fn drift(drift: &[Drift]) -> String {
    if drift.is_empty() {
        return "**No drift.**\n".to_owned();
    }
    let mut out = String::from("### Drift\n\n| migration | kind | declared | is | |\n|---|---|---|---|---|\n");
    for one in drift {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            escape(one.migration.as_str()),
            one.kind.as_str().replace('_', " "),
            escape(&one.declared.to_string()),
            escape(&one.actual.to_string()),
            escape(&one.message)
        );
    }
    out
}

/// A completed migration's report, as a table.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut out = format!("## {} has cut over\n\n", escape(report.name.as_str()));
    let about = format!("workspace {}, run {}, generation {}", report.workspace, report.run, report.generation);
    let _ = writeln!(out, "{}\n\n| | |\n|---|---|", escape(&about));
    for (label, text) in super::report::rows(report) {
        let _ = writeln!(out, "| {label} | {} |", escape(&text));
    }
    out
}

fn render_diagnostic(out: &mut String, diagnostic: &Diagnostic) {
    let word = match diagnostic.severity {
        Severity::Error => format!("Error {}", diagnostic.code),
        Severity::Warning => "Warning".to_owned(),
    };
    let place = match &diagnostic.place {
        Some(place) => format!(" ({}:{})", escape(&place.file), place.line),
        None => String::new(),
    };
    let _ = writeln!(out, "- **{word}**{place}: {}  ", escape(&diagnostic.summary));
    let _ = writeln!(out, "  *{}*", escape(&diagnostic.detail.replace('\n', " ")));
}

fn render_change(out: &mut String, change: &Change) {
    let name = escape(change.migration.as_str());
    let _ = writeln!(out, "### {name} {}\n", plan_text::heading(change.action));
    for effect in &change.effects {
        let _ = writeln!(out, "- {}", escape(effect));
    }
    if let Some(found) = &change.forecast {
        out.push_str("\n| forecast | |\n|---|---|\n");
        for (label, text) in forecast::rows(found) {
            let _ = writeln!(out, "| {} | {} |", escape(&label), escape(&text));
        }
    }
    if change.attributes.is_empty() {
        return;
    }
    let lines: String = change
        .attributes
        .iter()
        .map(|attribute| {
            let (symbol, values) = plan_text::attribute_line(attribute);
            // GitHub colours `!` in a diff; `~` it does not know.
            let symbol = if symbol == "~" { "!" } else { symbol };
            format!("{symbol} {} = {values}\n", clean(&attribute.path))
        })
        .collect();
    let fence = "`".repeat(longest_run(&lines, '`').max(2) + 1);
    let count = crate::units::counted(change.attributes.len() as u64, "attribute");
    let _ = writeln!(out, "\n<details><summary>{count}, serial {}</summary>\n", change.serial);
    let _ = writeln!(out, "{fence}diff\n{lines}{fence}\n\n</details>");
}

fn longest_run(text: &str, of: char) -> usize {
    text.split(|c| c != of).map(str::len).max().unwrap_or(0)
}

/// Plain text in Markdown: what it would take for markup is escaped, and nobody is mentioned.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // A mention or an issue's link starts right after it; a comment in between shows nothing.
            '@' => out.push_str("@<!-- -->"),
            _ => out.push(c),
        }
    }
    out
}
