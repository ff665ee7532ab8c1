//! `for_each` on a migration: one block that stands for several migrations, named LABEL-KEY.
//!
//! Terraform's address `orders["eu"]` is no name that a command line or a path takes without
//! quoting, so that the migration is `orders-eu`. Names that come up twice that way are refused
//! where all migrations are put together.

use std::ops::Range;

use hcl_edit::expr::{Expression, ObjectKey, TraversalOperator};
use hcl_edit::structure::Block;
use hcl_edit::{Decorated, Span as _};

use super::check::{NAME_RULE, Part};
use super::diagnostic::{Diagnostic, Report};
use super::eval::{Evaluator, Failure, Names, span_of, wrong};
use super::schema::{BlockSchema, MIGRATION};
use super::source::quoted;
use super::suggest::did_you_mean;
use super::syntax::Parsed;
use super::value::Value;
use crate::id::MigrationName;

const ARGUMENT: &str = "for_each";

/// What `each` has.
const MEMBERS: [&str; 2] = ["key", "value"];

/// One of the migrations that a block stands for.
#[derive(Debug)]
pub(crate) struct Each {
    key: String,
    /// What `each` is: its key and its value.
    value: Value,
}

impl Each {
    fn new(key: String, value: Value) -> Self {
        let members =
            MEMBERS.map(str::to_owned).into_iter().zip([Value::from(key.as_str()), value]);
        Self { key, value: Value::Map(members.collect()) }
    }

    /// The migration's name.
    pub(crate) fn name(&self, label: &str) -> String {
        format!("{label}-{}", self.key)
    }

    /// What the name `each` stands for in its expressions.
    pub(crate) const fn value(&self) -> &Value {
        &self.value
    }
}

/// What a migration's block stands for.
pub(crate) enum Expansion {
    /// Itself: it has no `for_each`.
    One,
    /// One migration for each of these.
    Each(Vec<Each>),
    /// Nothing that could be found out; that is reported.
    Broken,
}

/// Whether an attribute of a block is the `for_each` that is looked at here.
pub(crate) fn is_argument(schema: &BlockSchema, name: &str) -> bool {
    argument(schema) == Some(name)
}

/// The name of `for_each`, in a block that takes it.
pub(crate) fn argument(schema: &BlockSchema) -> Option<&'static str> {
    (schema.name == MIGRATION.name).then_some(ARGUMENT)
}

/// Checks what is taken from a bound `each`: its members are the same everywhere, and no secret, so
/// that they are named even where messages quote nothing.
pub(crate) fn check_member(
    name: &str,
    operators: &[Decorated<TraversalOperator>],
    whole: &Range<usize>,
) -> Result<(), Failure> {
    let Some(TraversalOperator::GetAttr(member)) =
        operators.first().map(|operator| operator.value())
    else {
        return Ok(());
    };
    if name != "each" || MEMBERS.contains(&member.as_str()) {
        return Ok(());
    }
    let detail =
        format!("There are each.key and each.value.{}", did_you_mean(member.as_str(), MEMBERS));
    wrong(member.span().unwrap_or_else(|| whole.clone()), "each has no such member", detail)
}

/// Finds out what a migration's block stands for.
pub(crate) fn expand(
    parsed: &Parsed,
    block: &Block,
    names: &Names,
    report: &mut Report,
) -> Expansion {
    let Some(argument) = block.body.get_attribute(ARGUMENT) else { return Expansion::One };
    let label = block.labels.first().map_or("", |label| label.as_str());
    let context = format!("migration {}", quoted(label));
    let span = span_of(&argument.value);
    let mut add = |diagnostic: Diagnostic, span| {
        report.add(diagnostic.at(parsed.file.place(span)).within(&context))
    };
    let evaluator = Evaluator::new(names, &parsed.file.text);
    let value = match evaluator.value(&argument.value) {
        Ok(value) => value,
        Err(Failure::At(wrong)) => {
            add(Diagnostic::error(wrong.summary, wrong.detail), wrong.span);
            return Expansion::Broken;
        }
        Err(Failure::Reported) => return Expansion::Broken,
    };
    if evaluator.is_sensitive() {
        let detail = "Its keys become names of migrations, which are shown everywhere.";
        add(Diagnostic::error("for_each takes no sensitive value", detail), span);
        return Expansion::Broken;
    }
    let expected = "Expected an object, or a list of strings of which none stands twice.";
    let pairs: Vec<(String, Value, Part)> = match value {
        Value::Map(entries) => {
            entries.into_iter().map(|(key, value)| (key.clone(), value, Part::Key(key))).collect()
        }
        Value::List(items) => {
            let mut pairs: Vec<(String, Value, Part)> = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                let part = Part::Element(index);
                let Value::String(key) = &item else {
                    let summary =
                        format!("for_each takes a list of strings; it has {}", item.kind());
                    add(Diagnostic::error(summary, expected), part_span(&argument.value, &part));
                    return Expansion::Broken;
                };
                if pairs.iter().any(|(known, ..)| known == key) {
                    let summary = format!("{} stands twice in for_each", quoted(key));
                    let detail = "Each key names a migration. toset(...) takes doubles out.";
                    add(Diagnostic::error(summary, detail), part_span(&argument.value, &part));
                    return Expansion::Broken;
                }
                pairs.push((key.clone(), item, part));
            }
            pairs
        }
        other => {
            add(
                Diagnostic::error(
                    format!("for_each takes an object or a list, not {}", other.kind()),
                    expected,
                ),
                span,
            );
            return Expansion::Broken;
        }
    };
    let mut all = Vec::with_capacity(pairs.len());
    let mut broken = false;
    for (key, value, part) in pairs {
        let each = Each::new(key, value);
        // A label that is wrong in itself is told once, by the block.
        let wrong_by_key =
            MigrationName::new(each.name(label)).is_err() && MigrationName::new(label).is_ok();
        if wrong_by_key {
            let summary = format!("the key {} makes no name for a migration", quoted(&each.key));
            let detail =
                format!("The migration would be {}. {NAME_RULE}", quoted(&each.name(label)));
            add(Diagnostic::error(summary, detail), part_span(&argument.value, &part));
            broken = true;
        } else {
            all.push(each);
        }
    }
    if broken && all.is_empty() { Expansion::Broken } else { Expansion::Each(all) }
}

/// The span of the part of an expression that is wrong, where it is written out.
pub(crate) fn part_span(expr: &Expression, part: &Part) -> Range<usize> {
    let found = match (part, expr) {
        (Part::Element(index), Expression::Array(array)) => {
            array.get(*index).and_then(|item| item.span())
        }
        (Part::Key(name), Expression::Object(object)) => object
            .iter()
            .find(|(key, _)| match key {
                ObjectKey::Ident(ident) => ident.as_str() == name,
                ObjectKey::Expression(expr) => expr.as_str() == Some(name),
            })
            .and_then(|(key, _)| key.span()),
        _ => None,
    };
    found.unwrap_or_else(|| span_of(expr))
}
