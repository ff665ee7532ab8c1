//! A plan as Markdown for the comment on a pull request: the summary in sight, the diff folded
//! away.

use std::fmt::Write as _;

use schemas::hcl::{Diagnostic, Severity};
use schemas::report::Report;

use super::{clean, forecast, plan_text};
use crate::plan::{Change, Drift, Folded, Plan};

/// How long a comment may be, in bytes: GitHub takes 65,536 characters.
const LONGEST: usize = 65_000;

/// What the first effect begins with of a migration that drops nothing.
const DROPS_NOTHING: &str = "drops no data";

/// How much of each change is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Effects, forecast, and the diff folded away.
    Whole,
    /// Effects alone.
    Effects,
    /// A line.
    Line,
}

/// The whole plan, or as much of it as a comment on a pull request holds; what is left out is said.
#[must_use]
pub fn plan(plan: &Plan, folded: &Folded) -> String {
    let whole = plan_to(plan, folded, Depth::Whole);
    if whole.len() <= LONGEST {
        return whole;
    }
    let effects = plan_to(plan, folded, Depth::Effects);
    let shortened =
        if effects.len() <= LONGEST { effects } else { plan_to(plan, folded, Depth::Line) };
    cut(shortened)
}

/// What fits of a text, in whole lines.
fn cut(text: String) -> String {
    const REST: &str =
        "\n*The rest does not fit into a comment: `cutover plan` shows all of it.*\n";
    if text.len() <= LONGEST {
        return text;
    }
    let mut end = LONGEST - REST.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let end = text[..end].rfind('\n').map_or(0, |line_end| line_end + 1);
    format!("{}{REST}", &text[..end])
}

fn plan_to(plan: &Plan, folded: &Folded, depth: Depth) -> String {
    let mut out = String::new();
    let workspace = plan
        .workspace
        .as_ref()
        .map(|workspace| format!(" of workspace `{workspace}`"))
        .unwrap_or_default();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "## cutover plan{workspace}\n");
    let _ = writeln!(out, "**{}**", escape(&plan_text::summary(plan)));
    if depth != Depth::Whole {
        let what =
            if depth == Depth::Effects { "what would happen" } else { "a line for each migration" };
        let _ = writeln!(
            out,
            "\n*Too long for a comment, so that this is {what}: `cutover plan` shows all of it.*"
        );
    }
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
    if depth == Depth::Line {
        out.push('\n');
    }
    for change in plan.actions() {
        match depth {
            Depth::Line => {
                // What is lost or blocked comes first among the effects, and stays in sight.
                let first =
                    change.effects.first().filter(|effect| !effect.starts_with(DROPS_NOTHING));
                let first = first.map(|effect| format!(": {}", escape(effect))).unwrap_or_default();
                let name = escape(change.migration.as_str());
                let _ = writeln!(out, "- {name} {}{first}", plan_text::heading(change.action));
            }
            Depth::Whole | Depth::Effects => {
                out.push('\n');
                render_change(&mut out, change, folded, depth);
            }
        }
    }
    out
}

/// Drift alone, as a table.
#[must_use]
pub fn drift_alone(found: &[Drift]) -> String {
    cut(drift(found))
}

fn drift(drift: &[Drift]) -> String {
    if drift.is_empty() {
        return "**No drift.**\n".to_owned();
    }
    let mut out = String::from(
        "### Drift\n\n| migration | kind | declared | is | |\n|---|---|---|---|---|\n",
    );
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
    let about = format!(
        "workspace {}, run {}, generation {}",
        report.workspace, report.run, report.generation
    );
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

fn render_change(out: &mut String, change: &Change, folded: &Folded, depth: Depth) {
    let name = escape(change.migration.as_str());
    let _ = writeln!(out, "### {name} {}\n", plan_text::heading(change.action));
    for effect in &change.effects {
        let _ = writeln!(out, "- {}", escape(effect));
    }
    if depth != Depth::Whole {
        return;
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
    let mut lines: String = change
        .attributes
        .iter()
        .map(|attribute| {
            let (symbol, values) = plan_text::attribute_line(attribute);
            // GitHub colours `!` in a diff; `~` it does not know.
            let symbol = if symbol == "~" { "!" } else { symbol };
            format!("{symbol} {} = {values}\n", clean(&attribute.path))
        })
        .collect();
    if let Some(words) = folded.words(&change.migration) {
        let _ = writeln!(lines, "  {words}");
    }
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
            // A mention or an issue's link starts right after it; a comment in between shows
            // nothing.
            '@' => out.push_str("@<!-- -->"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use schemas::id::{MigrationName, Serial};

    use super::{LONGEST, plan};
    use crate::plan::{Action, AttributeChange, Change, Folded, Plan};

    fn many(count: usize, effects: usize) -> Plan {
        let mut plan = Plan::unmade("f".to_owned(), Vec::new());
        plan.changes = (0..count)
            .map(|n| Change {
                migration: MigrationName::new(format!("tenant-{n}")).expect("a name"),
                action: Action::Create,
                serial: Serial(0),
                attributes: vec![AttributeChange {
                    path: "source.uri".to_owned(),
                    before: serde_json::Value::Null,
                    after: "mongodb://tenant.example.net".into(),
                    sensitive: false,
                }],
                effects: (0..effects)
                    .map(|n| {
                        format!("{} {n}", if n == 0 { "drops 14 collections" } else { "reads" })
                    })
                    .collect(),
                forecast: None,
            })
            .collect();
        plan
    }

    #[test]
    fn a_comment_is_never_too_long_and_says_what_it_leaves_out() {
        let whole = plan(&many(100, 3), &Folded::default());
        assert!(whole.contains("<details>") && !whole.contains("Too long"), "{whole}");
        let effects = plan(&many(500, 4), &Folded::default());
        assert!(
            effects.len() <= LONGEST
                && effects.contains("what would happen")
                && effects.contains("- reads 3"),
            "{effects}"
        );
        let lines = plan(&many(500, 40), &Folded::default());
        assert!(lines.len() <= LONGEST && lines.contains("a line for each"), "{lines}");
        assert!(lines.contains("- tenant-499 will be created: drops 14 collections"), "{lines}");
        let cut = plan(&many(5_000, 4), &Folded::default());
        assert!(
            cut.len() <= LONGEST
                && cut.contains("5000 to create")
                && cut.ends_with("shows all of it.*\n"),
            "{cut}"
        );
    }
}
