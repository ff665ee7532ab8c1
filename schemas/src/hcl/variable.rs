//! Variables: their declarations, and the values given from outside.
//!
//! From the weakest to the strongest: the default, `CUTOVER_VAR_name` in the environment,
//! `*.auto.hclvars` in the order of their names, `--var-file`, `--var`.

use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::parser::parse_expr;
use hcl_edit::structure::{Block, Structure};

use super::body::{Walker, header_span};
use super::check::Checked;
use super::diagnostic::{Diagnostic, Place, Report};
use super::eval::{DEEPEST, Evaluator, Failure, Known, Names, span_of};
use super::schema::VARIABLE;
use super::source::{SourceFile, quoted};
use super::suggest::did_you_mean;
use super::syntax::Parsed;
use super::type_constraint::Type;
use super::value::Value;

/// The start of the environment variables that give values.
pub const ENVIRONMENT_PREFIX: &str = "CUTOVER_VAR_";

/// A declared variable.
pub(crate) struct Variable<'a> {
    of: Type,
    default: Option<Value>,
    sensitive: bool,
    nullable: bool,
    place: Place,
    file: &'a SourceFile,
    block: &'a Block,
    /// Whether its declaration has a mistake.
    broken: bool,
}

/// A value from outside.
struct Given {
    /// `None`: it is wrong, which is reported.
    value: Option<Value>,
    /// Where it comes from, for messages.
    origin: String,
    place: Option<Place>,
}

/// Reads a `variable` block.
pub(crate) fn declare<'a>(
    parsed: &'a Parsed,
    block: &'a Block,
    names: &Names,
    known: &mut BTreeMap<String, Variable<'a>>,
    report: &mut Report,
) {
    let errors = report.errors();
    let file = &parsed.file;
    let dir = names.dir.clone();
    let filled =
        Walker { file, names, dir: &dir, report: &mut *report, constant: true, each: None }
            .top_block(&VARIABLE, block);
    let Some((name, label)) = filled.label else { return };
    let context = format!("variable {}", quoted(&name));
    let evaluator = Evaluator::new(names, &file.text).constant();
    let of = match block.body.get_attribute("type") {
        None => Type::Any,
        Some(attribute) => Type::read(&attribute.value, &evaluator).unwrap_or_else(|failure| {
            add(report, failure, file, &context);
            Type::Any
        }),
    };
    if !is_identifier(&name) {
        let detail =
            "A variable's name has letters, digits, - and _, and starts with a letter or _.";
        report.add(
            Diagnostic::error(format!("{} is not a name for a variable", quoted(&name)), detail)
                .at(label.clone()),
        );
    }
    let flag = |attribute: &str, default| match filled
        .attributes
        .get(attribute)
        .map(|setting| &setting.value)
    {
        Some(Checked::Flag(flag)) => *flag,
        _ => default,
    };
    let nullable = flag("nullable", true);
    let default = match filled.attributes.get("default") {
        Some(setting) => match &setting.value {
            Checked::Value(Value::Null) if !nullable => {
                let detail = "It says nullable = false.";
                report.add(
                    Diagnostic::error("the default is null", detail)
                        .at(setting.place.clone())
                        .within(&context),
                );
                None
            }
            Checked::Value(value) => match of.convert(value.clone()) {
                Ok(value) => Some(value),
                Err(problem) => {
                    let detail = format!("It is wrong: {problem}.");
                    let diagnostic = Diagnostic::error("the default does not fit the type", detail);
                    report.add(diagnostic.at(setting.place.clone()).within(&context));
                    None
                }
            },
            _ => None,
        },
        None => None,
    };
    let sensitive = flag("sensitive", false);
    let broken = report.errors() > errors;
    let place = filled.place;
    if let Some(first) = known.get(&name) {
        let diagnostic = Diagnostic::error(
            format!("the variable {} is declared twice", quoted(&name)),
            "Remove one of them.",
        );
        report.add(diagnostic.at(place).related_to("the first one", first.place.clone()));
        return;
    }
    known.insert(name, Variable { of, default, sensitive, nullable, place, file, block, broken });
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

fn add(report: &mut Report, failure: Failure, file: &SourceFile, context: &str) {
    if let Failure::At(wrong) = failure {
        report.add(
            Diagnostic::error(wrong.summary, wrong.detail)
                .at(file.place(wrong.span))
                .within(context),
        );
    }
}

/// Gathers what is given for the declared variables.
pub(crate) struct Assignments<'a> {
    variables: &'a BTreeMap<String, Variable<'a>>,
    names: &'a Names,
    given: BTreeMap<String, Given>,
}

impl<'a> Assignments<'a> {
    pub(crate) fn new(variables: &'a BTreeMap<String, Variable<'a>>, names: &'a Names) -> Self {
        Self { variables, names, given: BTreeMap::new() }
    }

    /// Takes `CUTOVER_VAR_name`; what names no variable is left alone.
    pub(crate) fn take_environment(
        &mut self,
        environment: &BTreeMap<String, String>,
        report: &mut Report,
    ) {
        for (name, text) in environment {
            if let Some(name) = name.strip_prefix(ENVIRONMENT_PREFIX)
                && self.variables.contains_key(name)
            {
                self.take_text(
                    name,
                    text,
                    format!("the environment variable {ENVIRONMENT_PREFIX}{name}"),
                    report,
                );
            }
        }
    }

    /// Takes a file of assignments.
    pub(crate) fn take_file(&mut self, parsed: &Parsed, report: &mut Report) {
        let file = &parsed.file;
        for structure in parsed.body.iter() {
            let attribute = match structure {
                Structure::Attribute(attribute) => attribute,
                Structure::Block(block) => {
                    let detail = "A file of values has only NAME = VALUE; blocks belong into the \
                         .hcl files.";
                    report.add(
                        Diagnostic::error("a block in a file of values", detail)
                            .at(file.place(header_span(block))),
                    );
                    continue;
                }
            };
            let name = attribute.key.as_str();
            let span = span_of(&attribute.value);
            if !self.variables.contains_key(name) {
                if self.names.complete {
                    let detail = format!(
                        "The value is not used: no variable block declares it.{}",
                        did_you_mean(name, self.variables.keys().map(String::as_str))
                    );
                    let diagnostic = Diagnostic::warning(
                        format!("there is no variable {}", quoted(name)),
                        detail,
                    );
                    report.add(diagnostic.at(file.place(attribute.key.span().unwrap_or_default())));
                }
                continue;
            }
            match Evaluator::new(self.names, &file.text)
                .constant()
                .quiet(true)
                .value(&attribute.value)
            {
                Ok(value) => {
                    self.take(name, Some(value), &file.name, Some(file.place(span)));
                }
                Err(failure) => {
                    add(report, failure, file, "");
                    self.take(name, None, &file.name, None);
                }
            }
        }
    }

    fn take(&mut self, name: &str, value: Option<Value>, origin: &str, place: Option<Place>) {
        self.given.insert(name.to_owned(), Given { value, origin: origin.to_owned(), place });
    }

    /// Takes `--var name=text`.
    pub(crate) fn take_flag(&mut self, name: &str, text: &str, report: &mut Report) {
        if self.variables.contains_key(name) {
            self.take_text(name, text, "--var".to_owned(), report);
        } else if self.names.complete {
            let detail = format!(
                "No variable block declares it.{}",
                did_you_mean(name, self.variables.keys().map(String::as_str))
            );
            report.add(Diagnostic::error(
                format!("--var names an unknown variable {}", quoted(name)),
                detail,
            ));
        }
    }

    fn take_text(&mut self, name: &str, text: &str, origin: String, report: &mut Report) {
        let Some(variable) = self.variables.get(name) else { return };
        let value = if variable.of.takes_plain_text() {
            Ok(Value::from(text))
        } else {
            match parse_expr(text) {
                Ok(expr) => Evaluator::new(self.names, text).constant().quiet(true).value(&expr),
                Err(_) => {
                    let detail = format!(
                        "It comes from {origin}, and the variable's type asks for a list or an \
                         object, as in [\"a\", \"b\"]."
                    );
                    let summary =
                        format!("the value of the variable {} does not parse", quoted(name));
                    report.add(Diagnostic::error(summary, detail).at(variable.place.clone()));
                    return self.take(name, None, &origin, None);
                }
            }
        };
        match value {
            Ok(value) => self.take(name, Some(value), &origin, None),
            Err(failure) => {
                if let Failure::At(wrong) = failure {
                    let detail = format!("{} It comes from {origin}.", wrong.detail);
                    let summary = format!(
                        "the value of the variable {} is wrong: {}",
                        quoted(name),
                        wrong.summary
                    );
                    report.add(Diagnostic::error(summary, detail).at(variable.place.clone()));
                }
                self.take(name, None, &origin, None);
            }
        }
    }

    /// Every variable with its value, or broken.
    pub(crate) fn resolve(mut self, report: &mut Report) -> BTreeMap<String, Known> {
        let mut known = BTreeMap::new();
        for (name, variable) in self.variables {
            let given = self.given.remove(name);
            let value = if variable.broken { None } else { variable.resolve(name, given, report) };
            let value = value.map_or(Known::Broken, |value| Known::Value {
                value,
                sensitive: variable.sensitive,
            });
            known.insert(name.clone(), value);
        }
        known
    }
}

impl Variable<'_> {
    /// Whether its value is not shown.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.sensitive
    }

    fn resolve(&self, name: &str, given: Option<Given>, report: &mut Report) -> Option<Value> {
        let Some(Given { value, origin, place }) = given else {
            if self.default.is_none() {
                let detail = format!(
                    "It has no default. Give one with --var {name}=VALUE, with \
                     {ENVIRONMENT_PREFIX}{name} in the environment, or in a \
                     file: --var-file FILE, or NAME.auto.hclvars beside the .hcl files."
                );
                let summary = format!("the variable {} has no value", quoted(name));
                report.add(Diagnostic::error(summary, detail).at(self.place.clone()));
            }
            return self.default.clone();
        };
        let problem = match self.of.convert(value?) {
            Ok(Value::Null) if !self.nullable => "it must not be null".to_owned(),
            Ok(value) if value.depth() > DEEPEST => format!("it has more than {DEEPEST} levels"),
            Ok(value) => return Some(value),
            Err(problem) => problem,
        };
        let place = place.unwrap_or_else(|| self.place.clone());
        let summary = format!("the value of the variable {} does not fit", quoted(name));
        let detail = format!("It comes from {origin}, and is wrong: {problem}.");
        report.add(Diagnostic::error(summary, detail).at(place));
        None
    }

    /// Checks the rules of `validation` blocks, once all values are known.
    pub(crate) fn validate(&self, name: &str, names: &Names, report: &mut Report) {
        if self.broken || !matches!(names.variables.get(name), Some(Known::Value { .. })) {
            return;
        }
        let context = format!("variable {}, block validation", quoted(name));
        for rule in self.block.body.get_blocks("validation") {
            let (Some(condition), Some(message)) =
                (rule.body.get_attribute("condition"), rule.body.get_attribute("error_message"))
            else {
                continue;
            };
            let evaluator = Evaluator::new(names, &self.file.text).quiet(self.sensitive);
            let held = match evaluator.value(&condition.value) {
                Ok(value) => value,
                Err(failure) => {
                    add(report, failure, self.file, &context);
                    continue;
                }
            };
            let place = self.file.place(span_of(&condition.value));
            match held.to_bool() {
                Some(true) => {}
                Some(false) => self.broken_rule(name, &message.value, names, place, report),
                None => {
                    let summary = format!("a condition must be true or false, not {}", held.kind());
                    report.add(
                        Diagnostic::error(summary, "It decides whether the value is taken.")
                            .at(place)
                            .within(&context),
                    );
                }
            }
        }
    }

    fn broken_rule(
        &self,
        name: &str,
        message: &Expression,
        names: &Names,
        place: Place,
        report: &mut Report,
    ) {
        let evaluator = Evaluator::new(names, &self.file.text).quiet(self.sensitive);
        let text = match evaluator.value(message) {
            Ok(_) if evaluator.is_sensitive() => {
                "The message would show a sensitive value, and is left out.".to_owned()
            }
            Ok(value) => value.to_text().unwrap_or_else(|| "The message is not a text.".to_owned()),
            Err(failure) => {
                return add(
                    report,
                    failure,
                    self.file,
                    &format!("variable {}, block validation", quoted(name)),
                );
            }
        };
        let clean: String =
            text.chars().filter(|c| !c.is_control() || *c == '\n').take(2_000).collect();
        let diagnostic = Diagnostic::error(
            format!("the value of the variable {} breaks its rule", quoted(name)),
            clean,
        );
        report.add(diagnostic.at(self.place.clone()).related_to("the rule", place));
    }
}
