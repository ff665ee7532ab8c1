//! Local values: evaluated in the order of their references.

use std::collections::{BTreeMap, BTreeSet};

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, Traversal, TraversalOperator};
use hcl_edit::structure::{Block, Structure};
use hcl_edit::visit::{Visit, visit_traversal};

use super::body::header_span;
use super::diagnostic::{Diagnostic, Place, Report};
use super::eval::{DEEPEST, Evaluator, Failure, Known, Names, span_of};
use super::source::{SourceFile, quoted};
use super::syntax::Parsed;

/// A declared local value.
pub(crate) struct Local<'a> {
    expr: &'a Expression,
    file: &'a SourceFile,
    place: Place,
}

/// Reads a `locals` block.
pub(crate) fn declare<'a>(
    parsed: &'a Parsed,
    block: &'a Block,
    known: &mut BTreeMap<String, Local<'a>>,
    report: &mut Report,
) {
    let file = &parsed.file;
    if let Some(label) = block.labels.first() {
        let diagnostic = Diagnostic::error(
            "too many labels on the block locals",
            "It takes none: locals { ... }.",
        );
        report.add(diagnostic.at(file.place(label.span().unwrap_or_default())));
    }
    for structure in block.body.iter() {
        let attribute = match structure {
            Structure::Attribute(attribute) => attribute,
            Structure::Block(block) => {
                let summary = format!("unknown block {}", quoted(block.ident.as_str()));
                let detail = "A locals block has only NAME = VALUE.";
                report.add(
                    Diagnostic::error(summary, detail)
                        .at(file.place(header_span(block)))
                        .within("locals"),
                );
                continue;
            }
        };
        let name = attribute.key.as_str().to_owned();
        let place = file.place(attribute.key.span().unwrap_or_default());
        if let Some(first) = known.get(&name) {
            let diagnostic = Diagnostic::error(
                format!("the local value {} is declared twice", quoted(&name)),
                "Remove one of them.",
            );
            report.add(diagnostic.at(place).related_to("the first one", first.place.clone()));
            continue;
        }
        known.insert(name, Local { expr: &attribute.value, file, place });
    }
}

/// Evaluates all of them into `names`.
pub(crate) fn resolve(
    locals: &BTreeMap<String, Local<'_>>,
    names: &mut Names,
    report: &mut Report,
) {
    let mut waits_for: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut needed_by: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, local) in locals {
        let mut references = References(BTreeSet::new());
        references.visit_expr(local.expr);
        let wanted: BTreeSet<String> =
            references.0.into_iter().filter(|wanted| locals.contains_key(wanted)).collect();
        for wanted in &wanted {
            needed_by.entry(wanted.clone()).or_default().push(name);
        }
        waits_for.insert(name, wanted);
    }
    let mut ready: Vec<&str> =
        waits_for.iter().filter(|(_, wanted)| wanted.is_empty()).map(|(name, _)| *name).collect();
    while let Some(name) = ready.pop() {
        waits_for.remove(name);
        let known = evaluate(&locals[name], names, report);
        names.locals.insert(name.to_owned(), known);
        for dependent in needed_by.remove(name).unwrap_or_default() {
            if let Some(wanted) = waits_for.get_mut(dependent) {
                wanted.remove(name);
                if wanted.is_empty() {
                    ready.push(dependent);
                }
            }
        }
    }
    // What is left waits for itself, or for one that does: one message names a whole circle.
    let mut told: BTreeSet<&str> = BTreeSet::new();
    for start in waits_for.keys() {
        if !told.contains(start)
            && let Some(circle) = circle_from(start, &waits_for)
            && circle.iter().all(|name| told.insert(name))
        {
            let words: Vec<String> =
                circle.iter().chain([&circle[0]]).map(|name| format!("local.{name}")).collect();
            let detail = format!("{}.", words.join(" refers to "));
            let diagnostic =
                Diagnostic::error("local values refer to each other in a circle", detail);
            report.add(diagnostic.at(locals[circle[0]].place.clone()));
        }
    }
    for name in waits_for.keys() {
        names.locals.insert((*name).to_owned(), Known::Broken);
    }
}

fn evaluate(local: &Local<'_>, names: &Names, report: &mut Report) -> Known {
    let evaluator = Evaluator::new(names, &local.file.text);
    match evaluator.value(local.expr) {
        Ok(value) if value.depth() > DEEPEST => {
            let detail = format!("A value has at most {DEEPEST} levels of lists and objects.");
            let diagnostic = Diagnostic::error("the value is nested too deeply", detail);
            report.add(diagnostic.at(local.file.place(span_of(local.expr))).within("locals"));
            Known::Broken
        }
        Ok(value) => Known::Value { value, sensitive: evaluator.is_sensitive() },
        Err(Failure::At(wrong)) => {
            let place = local.file.place(wrong.span);
            report.add(Diagnostic::error(wrong.summary, wrong.detail).at(place).within("locals"));
            Known::Broken
        }
        Err(Failure::Reported) => Known::Broken,
    }
}

/// The names on a circle that is reached from `start`.
fn circle_from<'a>(
    start: &'a str,
    waits_for: &'a BTreeMap<&'a str, BTreeSet<String>>,
) -> Option<Vec<&'a str>> {
    let mut path: Vec<&str> = Vec::new();
    let mut at = start;
    loop {
        if let Some(first) = path.iter().position(|name| *name == at) {
            return Some(path.split_off(first));
        }
        path.push(at);
        at = waits_for.get(at)?.iter().next()?;
    }
}

/// Collects the names after `local.`.
struct References(BTreeSet<String>);

impl Visit for References {
    fn visit_traversal(&mut self, traversal: &Traversal) {
        if let Expression::Variable(head) = &traversal.expr
            && head.as_str() == "local"
            && let Some(TraversalOperator::GetAttr(name)) =
                traversal.operators.first().map(|operator| operator.value())
        {
            self.0.insert(name.as_str().to_owned());
        }
        visit_traversal(self, traversal);
    }
}
