//! A plan as text, laid out as Terraform's users know it.

use std::fmt::Write as _;

use serde_json::Value;

use super::paint::Paint;
use super::{clean, forecast};
use crate::plan::{Action, AttributeChange, Change, Drift, Folded, Plan};
use crate::units;

/// The whole plan: drift, changes, and the summary as its last line. Diagnostics print apart, on
/// stderr.
#[must_use]
pub fn plan(plan: &Plan, folded: &Folded, paint: Paint) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    if !plan.drift.is_empty() {
        out.push_str(&drift(&plan.drift, paint));
        out.push('\n');
    }
    if plan.has_actions() {
        let workspace = plan
            .workspace
            .as_ref()
            .map(|workspace| format!(" in workspace {workspace}"))
            .unwrap_or_default();
        let _ = writeln!(out, "cutover will perform the following actions{workspace}:\n");
        for change in plan.actions() {
            render_change(&mut out, change, folded, paint);
        }
        let unchanged: Vec<&str> = plan
            .changes
            .iter()
            .filter(|c| c.action == Action::NoOp)
            .map(|c| c.migration.as_str())
            .collect();
        if !unchanged.is_empty() {
            let line = format!("# {} unchanged: {}", unchanged.len(), unchanged.join(", "));
            let _ = writeln!(out, "  {}\n", paint.faint(line));
        }
    }
    let _ = writeln!(out, "{}", paint.bold(summary(plan)));
    out
}

/// The last line: what is to be done, in figures.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    let errors =
        plan.diagnostics.iter().filter(|d| d.severity == schemas::hcl::Severity::Error).count();
    if errors > 0 && !plan.has_actions() {
        return format!("No plan: {}.", units::counted(errors as u64, "error"));
    }
    if !plan.has_actions() {
        return match (plan.changes.len(), plan.drift.len()) {
            (0, _) => "No differences: nothing is declared.".to_owned(),
            (1, 0) => "No differences: the migration is as declared.".to_owned(),
            (n, 0) => format!("No differences: the {n} migrations are as declared."),
            (_, drifts) => format!(
                "Nothing to apply, but reality has moved away from the declaration in {}.",
                units::counted(drifts as u64, "point")
            ),
        };
    }
    let changed = [Action::Update, Action::Pause, Action::Resume, Action::Extend]
        .map(|a| plan.count(a))
        .iter()
        .sum::<usize>();
    let mut text = format!(
        "Plan: {} to create, {changed} to change, {} to cut over, {} to cancel",
        plan.count(Action::Create),
        plan.count(Action::CutOver),
        plan.count(Action::Cancel)
    );
    for (action, words) in [(Action::Rerun, "to run again"), (Action::Forget, "to forget")] {
        if plan.count(action) > 0 {
            let _ = write!(text, ", {} {words}", plan.count(action));
        }
    }
    text.push('.');
    if errors > 0 {
        let _ = write!(text, " It cannot be applied: {}.", units::counted(errors as u64, "error"));
    }
    text
}

/// Drift, one entry after the other.
#[must_use]
pub fn drift(drift: &[Drift], paint: Paint) -> String {
    let mut out = String::from("Reality has moved away from the declaration:\n\n");
    for one in drift {
        let _ = writeln!(
            out,
            "  {} {} {}",
            paint.notable("!"),
            paint.bold(&one.migration),
            paint.notable(one.kind.as_str())
        );
        let _ = writeln!(
            out,
            "      {}: declared {}, is {}",
            clean(&one.path),
            literal(&one.declared),
            literal(&one.actual)
        );
        let _ = writeln!(out, "      {}", clean(&one.message));
    }
    out
}

/// What an action is called in a plan's headings.
#[must_use]
pub const fn heading(action: Action) -> &'static str {
    match action {
        Action::Create => "will be created",
        Action::Update => "will be changed",
        Action::Rerun => "will run again from scratch",
        Action::Pause => "will be paused",
        Action::Resume => "will be resumed",
        Action::Extend => "will have its window extended",
        Action::CutOver => "will cut over",
        Action::Cancel => "will be cancelled",
        Action::Forget => "will be forgotten",
        Action::NoOp => "is as declared",
    }
}

/// The symbol of an action, as wide as the widest.
const fn symbol(action: Action) -> &'static str {
    match action {
        Action::Create => "  +",
        Action::Update | Action::Pause | Action::Resume | Action::Extend => "  ~",
        Action::Rerun => "-/+",
        Action::CutOver => " =>",
        Action::Cancel | Action::Forget => "  -",
        Action::NoOp => "   ",
    }
}

fn tint(action: Action, paint: Paint, text: &str) -> String {
    match action {
        Action::Create => paint.good(text),
        Action::Rerun | Action::CutOver | Action::Cancel | Action::Forget => paint.bad(text),
        Action::Update | Action::Pause | Action::Resume | Action::Extend | Action::NoOp => {
            paint.notable(text)
        }
    }
}

fn render_change(out: &mut String, change: &Change, folded: &Folded, paint: Paint) {
    let serial =
        if change.serial.0 > 0 { format!(" (serial {})", change.serial) } else { String::new() };
    let title = format!("# {} {}{serial}", change.migration, heading(change.action));
    let _ = writeln!(out, "    {}", paint.bold(title));
    let _ = writeln!(
        out,
        "{} migration \"{}\"",
        tint(change.action, paint, symbol(change.action)),
        change.migration
    );
    let width =
        change.attributes.iter().map(|attribute| attribute.path.chars().count()).max().unwrap_or(0);
    for attribute in &change.attributes {
        let (symbol, values) = attribute_line(attribute);
        let symbol = match symbol {
            "+" => paint.good(symbol),
            "-" => paint.bad(symbol),
            _ => paint.notable(symbol),
        };
        let _ = writeln!(out, "      {symbol} {:width$} = {values}", clean(&attribute.path));
    }
    if let Some(words) = folded.words(&change.migration) {
        let _ = writeln!(out, "        {}", paint.faint(words));
    }
    if !change.effects.is_empty() {
        let _ = writeln!(out, "\n    {}", paint.bold("What will happen:"));
        for effect in &change.effects {
            let _ = writeln!(out, "      * {}", clean(effect));
        }
    }
    match &change.forecast {
        Some(found) => {
            let _ = writeln!(out, "\n    {}", paint.bold("Forecast:"));
            let rows = forecast::rows(found);
            let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
            for (label, text) in rows {
                let _ = writeln!(out, "      {label:width$}  {text}");
            }
        }
        None if matches!(change.action, Action::Create | Action::Rerun) => {
            let _ = writeln!(
                out,
                "\n    {} unknown: the source could not be read",
                paint.bold("Forecast:")
            );
        }
        None => {}
    }
    out.push('\n');
}

/// An attribute's symbol and its values.
#[must_use]
pub fn attribute_line(attribute: &AttributeChange) -> (&'static str, String) {
    if attribute.sensitive {
        return ("~", "(sensitive)".to_owned());
    }
    match (&attribute.before, &attribute.after) {
        (Value::Null, after) => ("+", literal(after)),
        (before, Value::Null) => ("-", format!("{} -> null", literal(before))),
        (before, after) => ("~", format!("{} -> {}", literal(before), literal(after))),
    }
}

/// A value as HCL writes it; its JSON form is the same for all that a spec holds.
fn literal(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        other => clean(&other.to_string()),
    }
}
