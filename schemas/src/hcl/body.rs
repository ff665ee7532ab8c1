//! A parsed block against its schema: names, counts, labels, types. What comes out holds checked
//! values with their places.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block, Body, Structure};

use super::check::{Checked, Circumstances, check};
use super::diagnostic::{Diagnostic, Place, Report};
use super::eval::{Bound, Evaluator, Failure, Names, span_of};
use super::for_each::{self, Each, part_span};
use super::schema::{BlockSchema, Kind, Times};
use super::source::{SourceFile, quoted};
use super::suggest::did_you_mean;
use super::value::Value;

/// A block whose values are checked.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) schema: &'static BlockSchema,
    pub(crate) label: Option<(String, Place)>,
    /// Its header.
    pub(crate) place: Place,
    pub(crate) attributes: BTreeMap<&'static str, Setting>,
    /// Attributes that are written out with a value that did not pass: nothing follows from their
    /// absence.
    pub(crate) failed: Vec<&'static str>,
    pub(crate) blocks: Vec<Filled>,
}

/// An attribute's value.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) value: Checked,
    pub(crate) place: Place,
    /// Whether it must not be shown.
    pub(crate) sensitive: bool,
}

impl Filled {
    /// Whether an attribute is written out, with a value that passed or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name) || self.failed.contains(&name)
    }

    /// The block of this name in it, where it stands once.
    pub(crate) fn block(&self, name: &str) -> Option<&Self> {
        self.blocks.iter().find(|block| block.schema.name == name)
    }
}

/// Goes through the blocks of one file.
pub(crate) struct Walker<'a> {
    pub(crate) file: &'a SourceFile,
    pub(crate) names: &'a Names,
    pub(crate) dir: &'a Path,
    pub(crate) report: &'a mut Report,
    /// Whether expressions can refer to anything.
    pub(crate) constant: bool,
    /// Which of a `for_each` block's migrations this is.
    pub(crate) each: Option<&'a Each>,
}

/// Where a block stands.
#[derive(Debug, Clone, Default)]
struct Around {
    /// For messages: `migration "orders", block cutover`.
    words: String,
}

impl Around {
    fn enter(&self, schema: &BlockSchema, label: Option<&str>) -> Self {
        let label = label.map(|label| format!(" {}", quoted(label))).unwrap_or_default();
        if self.words.is_empty() {
            return Self { words: format!("{}{label}", schema.name) };
        }
        Self { words: format!("{}, block {}{label}", self.words, schema.name) }
    }
}

impl Walker<'_> {
    /// Checks a block of the top level.
    pub(crate) fn top_block(&mut self, schema: &'static BlockSchema, block: &Block) -> Filled {
        self.block(schema, block, &Around::default())
    }

    fn place(&self, span: Range<usize>) -> Place {
        self.file.place(span)
    }

    fn add(&mut self, around: &Around, diagnostic: Diagnostic, span: Range<usize>) {
        let place = self.place(span);
        self.report.add(diagnostic.at(place).within(&around.words));
    }

    fn block(&mut self, schema: &'static BlockSchema, block: &Block, outside: &Around) -> Filled {
        let header = header_span(block);
        let label = self.label(schema, block, outside);
        let around = outside.enter(schema, label.as_ref().map(|(label, _)| label.as_str()));
        let mut filled = Filled {
            schema,
            label,
            place: self.place(header.clone()),
            attributes: BTreeMap::new(),
            failed: Vec::new(),
            blocks: Vec::new(),
        };
        self.body(schema, &block.body, &around, &mut filled);
        for attribute in schema.attributes.iter().filter(|attribute| attribute.required) {
            if !block.body.has_attribute(attribute.name) {
                let summary = format!("the attribute {:?} is missing", attribute.name);
                self.add(
                    &around,
                    Diagnostic::error(summary, attribute.description),
                    header.clone(),
                );
            }
        }
        for inner in schema.blocks.iter().filter(|inner| inner.times == Times::Once) {
            if !block.body.has_blocks(inner.name) && !block.body.has_attribute(inner.name) {
                let summary = format!("the block {:?} is missing", inner.name);
                let detail =
                    format!("{} It is written {} {{ ... }}.", inner.description, inner.name);
                self.add(&around, Diagnostic::error(summary, detail), header.clone());
            }
        }
        filled
    }

    fn label(
        &mut self,
        schema: &BlockSchema,
        block: &Block,
        outside: &Around,
    ) -> Option<(String, Place)> {
        let wanted = usize::from(schema.label.is_some());
        if let Some(extra) = block.labels.get(wanted) {
            let summary = format!("too many labels on the block {}", schema.name);
            let detail = match schema.label {
                Some(label) => {
                    format!("It takes one, its {label}: {} \"...\" {{ ... }}.", schema.name)
                }
                None => format!("It takes none: {} {{ ... }}.", schema.name),
            };
            self.add(outside, Diagnostic::error(summary, detail), extra.span().unwrap_or_default());
        }
        let what = schema.label?;
        match block.labels.first() {
            Some(label) => {
                let text = match self.each {
                    Some(each) if outside.words.is_empty() => each.name(label.as_str()),
                    _ => label.as_str().to_owned(),
                };
                Some((text, self.place(label.span().unwrap_or_default())))
            }
            None => {
                let summary = format!("the block {} has no label", schema.name);
                let detail = format!("Its {what} is missing: {} \"...\" {{ ... }}.", schema.name);
                self.add(outside, Diagnostic::error(summary, detail), header_span(block));
                None
            }
        }
    }

    fn body(
        &mut self,
        schema: &'static BlockSchema,
        body: &Body,
        around: &Around,
        filled: &mut Filled,
    ) {
        for structure in body.iter() {
            match structure {
                Structure::Attribute(attribute) => {
                    self.attribute(schema, attribute, around, filled)
                }
                Structure::Block(block) => {
                    let name = block.ident.as_str();
                    let Some(inner) = schema.block(name) else {
                        self.unknown_block(schema, block, around);
                        continue;
                    };
                    if let Some(first) = filled.block(name)
                        && inner.times != Times::Any
                    {
                        let first = first.place.clone();
                        let diagnostic = Diagnostic::error(
                            format!("the block {name} stands twice"),
                            format!(
                                "A {} block has {}.",
                                schema.name,
                                if inner.times == Times::Once {
                                    "exactly one"
                                } else {
                                    "at most one"
                                }
                            ),
                        );
                        self.add(
                            around,
                            diagnostic.related_to("the first one", first),
                            header_span(block),
                        );
                        // Its own mistakes are still looked for; its values are not taken.
                        self.block(inner, block, around);
                        continue;
                    }
                    let inner = self.block(inner, block, around);
                    filled.blocks.push(inner);
                }
            }
        }
    }

    fn attribute(
        &mut self,
        schema: &'static BlockSchema,
        attribute: &Attribute,
        around: &Around,
        filled: &mut Filled,
    ) {
        let name = attribute.key.as_str();
        if for_each::is_argument(schema, name) {
            // It is looked at before the block is.
            return;
        }
        let Some(known) = schema.attribute(name) else {
            return self.unknown_attribute(schema, attribute, around);
        };
        let span = span_of(&attribute.value);
        let Some((value, sensitive)) = self.evaluate(known.kind, &attribute.value, around) else {
            filled.failed.push(known.name);
            return;
        };
        if value == Value::Null && !matches!(known.kind, Kind::Any | Kind::Type | Kind::Expression)
        {
            if known.required {
                let summary = format!("the attribute {name:?} must not be null");
                self.add(around, Diagnostic::error(summary, known.description), span);
            }
            return;
        }
        let here = Circumstances {
            name,
            dir: self.dir,
            hidden: sensitive,
            computed: !matches!(
                attribute.value,
                Expression::String(_) | Expression::Number(_) | Expression::Bool(_)
            ),
        };
        let value = match check(known.kind, &value, &here) {
            Ok(value) => value,
            Err(refusals) => {
                filled.failed.push(known.name);
                for refusal in refusals {
                    let place = part_span(&attribute.value, &refusal.part);
                    let diagnostic =
                        Diagnostic::error(refusal.summary, refusal.detail).with_code(refusal.code);
                    self.add(around, diagnostic, place);
                }
                return;
            }
        };
        let place = self.place(span);
        filled.attributes.insert(known.name, Setting { value, place, sensitive });
    }

    /// The value, and whether it must not be shown; `None` where there is none, which is reported.
    fn evaluate(
        &mut self,
        kind: Kind,
        expr: &Expression,
        around: &Around,
    ) -> Option<(Value, bool)> {
        if matches!(kind, Kind::Type | Kind::Expression) {
            return Some((Value::Null, false));
        }
        // What stands where a secret is expected may be one, and must not come up in a message.
        let evaluator = Evaluator::new(self.names, &self.file.text)
            .quiet(matches!(kind, Kind::Secret | Kind::Uri));
        let evaluator = if self.constant { evaluator.constant() } else { evaluator };
        let plain_secret = kind == Kind::Secret && matches!(expr, Expression::Variable(_));
        let outcome = if plain_secret {
            Ok(Value::from(""))
        } else {
            let each = self.each.map(|each| Bound::one("each", each.value(), None));
            evaluator.eval(expr, each.as_ref())
        };
        match outcome {
            Ok(value) => Some((value, evaluator.is_sensitive())),
            Err(failure) => {
                self.fail(failure, around);
                None
            }
        }
    }

    fn fail(&mut self, failure: Failure, around: &Around) {
        match failure {
            Failure::At(wrong) => {
                self.add(around, Diagnostic::error(wrong.summary, wrong.detail), wrong.span)
            }
            // Without a value nothing is loaded: there is an error about it already.
            Failure::Reported => {}
        }
    }

    fn unknown_attribute(
        &mut self,
        schema: &'static BlockSchema,
        attribute: &Attribute,
        around: &Around,
    ) {
        let name = attribute.key.as_str();
        let key = attribute.key.span().unwrap_or_default();
        let summary = format!("unknown attribute {}", quoted(name));
        let detail = match schema.block(name) {
            Some(_) => {
                format!("{name} is a block: write {name} {{ ... }}, without the equals sign.")
            }
            None => {
                let names = schema.names().chain(for_each::argument(schema));
                format!(
                    "A {} block has no attribute of this name.{}",
                    schema.name,
                    did_you_mean(name, names)
                )
            }
        };
        self.add(around, Diagnostic::error(summary, detail), key);
    }

    fn unknown_block(&mut self, schema: &'static BlockSchema, block: &Block, around: &Around) {
        let name = block.ident.as_str();
        let summary = format!("unknown block {}", quoted(name));
        let detail = match schema.attribute(name) {
            Some(_) => format!("{name} is an attribute: write {name} = ..."),
            None => format!(
                "A {} block has no block of this name.{}",
                schema.name,
                did_you_mean(name, schema.names())
            ),
        };
        self.add(
            around,
            Diagnostic::error(summary, detail),
            block.ident.span().unwrap_or_default(),
        );
    }
}

/// The span of a block's name and labels.
pub(crate) fn header_span(block: &Block) -> Range<usize> {
    let start = block.ident.span().unwrap_or_default();
    let end =
        block.labels.last().and_then(|label| label.span()).map_or(start.end, |label| label.end);
    start.start..end
}
