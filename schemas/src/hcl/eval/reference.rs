//! Names and what is taken from them: `var.x`, `local.ports[0]`, `local.hosts.*.name`, and what a
//! `for` binds.

use std::collections::BTreeMap;
use std::ops::Range;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, Traversal, TraversalOperator};

use super::super::for_each;
use super::super::source::quoted;
use super::super::suggest::did_you_mean;
use super::super::value::Value;
use super::{Bound, Evaluator, Failure, Known, Outcome, Sight, span_of, wrong};

impl<'a> Evaluator<'a> {
    pub(super) fn bare_name(
        &self,
        name: &str,
        span: &Range<usize>,
        bound: Option<&Bound<'_>>,
    ) -> Outcome {
        if let Some(value) = bound.and_then(|bound| bound.find(name)) {
            self.charge(value.weight(), span)?;
            return Ok(value.clone());
        }
        self.unknown_name(name, span, bound)
    }

    fn unknown_name<T>(
        &self,
        name: &str,
        span: &Range<usize>,
        bound: Option<&Bound<'_>>,
    ) -> Result<T, Failure> {
        if name == "each" && self.sight == Sight::All {
            let detail = "each.key and each.value are known in a migration that has for_each, and \
                 nowhere else.";
            return wrong(span.clone(), "each is not known here", detail);
        }
        if self.is_quiet() {
            return wrong(
                span.clone(),
                "unknown name",
                "This name means nothing here. Texts are written in quotes.",
            );
        }
        let summary = format!("unknown name {}", quoted(name));
        let mut detail = match name {
            "var" if self.sight == Sight::All => {
                "A variable is referred to by its name, as in var.window.".to_owned()
            }
            "local" | "locals" if self.sight == Sight::All => {
                "A local value is referred to by its name, as in local.hosts.".to_owned()
            }
            _ if self.sight == Sight::Constant => {
                "This value cannot refer to anything. Texts are written in quotes.".to_owned()
            }
            _ if self.sight == Sight::Template => {
                "A template file sees only what the second argument of templatefile gives it."
                    .to_owned()
            }
            _ => "Variables are written var.NAME, local values local.NAME, and texts in quotes."
                .to_owned(),
        };
        let mut candidates = bound.map(Bound::names).unwrap_or_default();
        if self.sight == Sight::All {
            candidates.extend(["var", "local", "path"]);
        }
        candidates.retain(|candidate| !candidate.is_empty());
        if !candidates.contains(&name) {
            if self.names.variables.contains_key(name) && self.sight == Sight::All {
                detail.push_str(&format!(" Did you mean var.{name}?"));
            } else if self.names.locals.contains_key(name) && self.sight == Sight::All {
                detail.push_str(&format!(" Did you mean local.{name}?"));
            } else {
                detail.push_str(&did_you_mean(name, candidates));
            }
        }
        wrong(span.clone(), summary, detail)
    }

    pub(super) fn traversal(&self, traversal: &Traversal, bound: Option<&Bound<'_>>) -> Outcome {
        let span = span_of(traversal);
        let mut operators = traversal.operators.as_slice();
        let owned;
        let head: &Value = match &traversal.expr {
            Expression::Variable(name)
                if bound.and_then(|bound| bound.find(name.as_str())).is_none() =>
            {
                let name = name.as_str();
                let (attribute, rest) = match operators.split_first() {
                    Some((operator, rest)) => match operator.value() {
                        TraversalOperator::GetAttr(attribute) => (attribute, rest),
                        _ => return self.unknown_name(name, &span_of(&traversal.expr), bound),
                    },
                    None => return self.unknown_name(name, &span_of(&traversal.expr), bound),
                };
                operators = rest;
                let attribute_span = attribute.span().unwrap_or_else(|| span.clone());
                match name {
                    "var" if self.sight == Sight::All => self.known(
                        "variable",
                        &self.names.variables,
                        attribute.as_str(),
                        &attribute_span,
                    )?,
                    "local" if self.sight == Sight::All => self.known(
                        "local value",
                        &self.names.locals,
                        attribute.as_str(),
                        &attribute_span,
                    )?,
                    "path"
                        if self.sight == Sight::All
                            && ["module", "root"].contains(&attribute.as_str()) =>
                    {
                        owned = Value::String(self.names.dir.to_string_lossy().into_owned());
                        &owned
                    }
                    "path" if self.sight == Sight::All => {
                        let detail =
                            "There are path.module and path.root: the folder of the files.";
                        return wrong(
                            attribute_span,
                            format!("unknown path {}", quoted(attribute.as_str())),
                            detail,
                        );
                    }
                    _ => return self.unknown_name(name, &span_of(&traversal.expr), bound),
                }
            }
            Expression::Variable(name) => {
                for_each::check_member(name.as_str(), operators, &span)?;
                bound
                    .and_then(|bound| bound.find(name.as_str()))
                    .expect("the arm above took names that are not bound")
            }
            expr => {
                owned = self.eval(expr, bound)?;
                &owned
            }
        };
        self.walk(head, operators, &span, bound)
    }

    fn known(
        &self,
        what: &str,
        known: &'a BTreeMap<String, Known>,
        name: &str,
        span: &Range<usize>,
    ) -> Result<&'a Value, Failure> {
        match known.get(name) {
            Some(Known::Value { value, sensitive }) => {
                if *sensitive {
                    self.set_sensitive(true);
                }
                Ok(value)
            }
            Some(Known::Broken) => Err(Failure::Reported),
            None if !self.names.complete => Err(Failure::Reported),
            None => {
                let how = match what {
                    "variable" => format!("Declare it with variable {} {{}}.", quoted(name)),
                    _ => "Declare it in a locals block.".to_owned(),
                };
                let detail =
                    format!("{how}{}", did_you_mean(name, known.keys().map(String::as_str)));
                wrong(span.clone(), format!("there is no {what} {}", quoted(name)), detail)
            }
        }
    }

    /// Follows `.name`, `[index]` and splats from a value; only what is left in the end is copied.
    fn walk(
        &self,
        head: &Value,
        operators: &[hcl_edit::Decorated<TraversalOperator>],
        span: &Range<usize>,
        bound: Option<&Bound<'_>>,
    ) -> Outcome {
        let mut value = head;
        for (at, operator) in operators.iter().enumerate() {
            let place =
                operator.span().filter(|place| !place.is_empty()).unwrap_or_else(|| span.clone());
            let index = match operator.value() {
                TraversalOperator::GetAttr(name) => Value::String(name.as_str().to_owned()),
                TraversalOperator::LegacyIndex(index) => Value::Number((*index.value()).into()),
                TraversalOperator::Index(expr) => self.eval(expr, bound)?,
                TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => {
                    let rest = &operators[at + 1..];
                    // As in Terraform, a splat takes a single value as a list of one, and null as
                    // an empty one.
                    let items = match value {
                        Value::Null => &[][..],
                        Value::List(items) => items.as_slice(),
                        single => std::slice::from_ref(single),
                    };
                    return items
                        .iter()
                        .map(|item| self.walk(item, rest, span, bound))
                        .collect::<Result<_, _>>()
                        .map(Value::List);
                }
            };
            value = self.step(value, &index, place)?;
        }
        self.charge(value.weight(), span)?;
        Ok(value.clone())
    }

    fn step<'v>(
        &self,
        value: &'v Value,
        index: &Value,
        place: Range<usize>,
    ) -> Result<&'v Value, Failure> {
        match (value, index) {
            (Value::Map(entries), index) => {
                let Some(key) = index.to_text() else {
                    return wrong(
                        place,
                        format!("an object is indexed with a string, not {}", index.kind()),
                        "",
                    );
                };
                match entries.get(&key) {
                    Some(found) => Ok(found),
                    None if self.is_quiet() => wrong(place, "the object has no such key", ""),
                    None => {
                        let detail = did_you_mean(&key, entries.keys().map(String::as_str));
                        wrong(
                            place,
                            format!("the object has no key {}", quoted(&key)),
                            detail.trim_start(),
                        )
                    }
                }
            }
            (Value::List(items), index) => {
                let Some(number) = index.to_number() else {
                    return wrong(
                        place,
                        format!("a list is indexed with a whole number, not {}", index.kind()),
                        "",
                    );
                };
                let found = number
                    .as_u64()
                    .and_then(|at| usize::try_from(at).ok())
                    .and_then(|at| items.get(at));
                match found {
                    Some(found) => Ok(found),
                    None => wrong(
                        place,
                        "the list has no such element",
                        format!("Its length is {}; elements are counted from 0.", items.len()),
                    ),
                }
            }
            (other, _) => wrong(
                place,
                format!("{} has no elements", other.kind()),
                "Only lists and objects have.",
            ),
        }
    }
}
