//! The types of variables: `string`, `list(number)`,
//! `object({ a = string, b = optional(bool, true) })`.

use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, FuncCall, ObjectKey};

use super::eval::{Evaluator, Failure, span_of, wrong};
use super::function;
use super::source::quoted;
use super::suggest::did_you_mean;
use super::value::Value;

/// What a variable's value must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type {
    Any,
    Bool,
    Number,
    String,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple(Vec<Type>),
    Object(BTreeMap<String, Field>),
}

/// An attribute of an object type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    of: Type,
    /// What stands for it where it is absent; `None`: it must be there.
    absent: Option<Value>,
}

const NAMES: [&str; 9] =
    ["any", "bool", "number", "string", "list", "set", "map", "tuple", "object"];

impl Type {
    /// Reads a type; defaults of optional attributes are evaluated.
    pub(crate) fn read(expr: &Expression, evaluator: &Evaluator<'_>) -> Result<Self, Failure> {
        match expr {
            Expression::Variable(name) => match name.as_str() {
                "any" => Ok(Self::Any),
                "bool" => Ok(Self::Bool),
                "number" => Ok(Self::Number),
                "string" => Ok(Self::String),
                // As Terraform once had it.
                "list" => Ok(Self::List(Box::new(Self::Any))),
                "set" => Ok(Self::Set(Box::new(Self::Any))),
                "map" => Ok(Self::Map(Box::new(Self::Any))),
                other => unknown(other, expr),
            },
            Expression::String(name) => {
                let detail = format!("Write it without quotes: type = {}.", name.as_str());
                wrong(span_of(expr), "a type is not written in quotes", detail)
            }
            Expression::FuncCall(call) => Self::read_call(call, expr, evaluator),
            other => wrong(
                span_of(other),
                "this is not a type",
                "Write one like string, number, bool, list(string) or map(any).",
            ),
        }
    }

    fn read_call(
        call: &FuncCall,
        expr: &Expression,
        evaluator: &Evaluator<'_>,
    ) -> Result<Self, Failure> {
        let name = call.name.name.as_str();
        let argument = match (call.args.len(), call.args.get(0)) {
            (1, Some(argument)) => argument,
            _ if NAMES.contains(&name) => {
                return wrong(span_of(expr), format!("{name} takes one type in its brackets"), "");
            }
            _ => return unknown(name, expr),
        };
        let inner = || Self::read(argument, evaluator).map(Box::new);
        match name {
            "list" => inner().map(Self::List),
            "set" => inner().map(Self::Set),
            "map" => inner().map(Self::Map),
            "tuple" => match argument {
                Expression::Array(types) => types
                    .iter()
                    .map(|of| Self::read(of, evaluator))
                    .collect::<Result<_, _>>()
                    .map(Self::Tuple),
                other => wrong(
                    span_of(other),
                    "tuple takes a list of types",
                    "As in tuple([string, number]).",
                ),
            },
            "object" => match argument {
                Expression::Object(object) => {
                    let mut fields = BTreeMap::new();
                    for (key, value) in object.iter() {
                        let name = match key {
                            ObjectKey::Ident(name) => name.as_str().to_owned(),
                            ObjectKey::Expression(Expression::String(name)) => name.value().clone(),
                            ObjectKey::Expression(_) => {
                                return wrong(
                                    key.span().unwrap_or_default(),
                                    "an attribute of an object type is a plain name",
                                    "",
                                );
                            }
                        };
                        fields.insert(name, Field::read(value.expr(), evaluator)?);
                    }
                    Ok(Self::Object(fields))
                }
                other => wrong(
                    span_of(other),
                    "object takes its attributes in braces",
                    "As in object({ name = string }).",
                ),
            },
            other => unknown(other, expr),
        }
    }

    /// Makes a value fit, as Terraform does: numbers and bools from strings and back, absent
    /// attributes filled in. What does not fit is named by its path within the value; the value
    /// itself is not quoted.
    pub(crate) fn convert(&self, value: Value) -> Result<Value, String> {
        self.convert_at(value, &mut String::new())
    }

    fn convert_at(&self, value: Value, path: &mut String) -> Result<Value, String> {
        if value == Value::Null {
            return Ok(value);
        }
        let refuse = |value: &Value, path: &str| {
            let at = if path.is_empty() { String::new() } else { format!(" at {path}") };
            Err(format!("expected {}{at}, got {}", self.words(), value.kind()))
        };
        match self {
            Self::Any => Ok(value),
            Self::Bool => {
                value.to_bool().map_or_else(|| refuse(&value, path), |flag| Ok(Value::Bool(flag)))
            }
            Self::Number => value
                .to_number()
                .map_or_else(|| refuse(&value, path), |number| Ok(Value::Number(number))),
            Self::String => {
                value.to_text().map_or_else(|| refuse(&value, path), |text| Ok(Value::String(text)))
            }
            Self::List(of) | Self::Set(of) => match value {
                Value::List(items) => {
                    let mut converted = Vec::with_capacity(items.len());
                    for (index, item) in items.into_iter().enumerate() {
                        converted.push(within(path, &format!("[{index}]"), |path| {
                            of.convert_at(item, path)
                        })?);
                    }
                    Ok(if matches!(self, Self::Set(_)) {
                        function::set(converted)
                    } else {
                        Value::List(converted)
                    })
                }
                other => refuse(&other, path),
            },
            Self::Map(of) => match value {
                Value::Map(entries) => {
                    let mut converted = BTreeMap::new();
                    for (key, item) in entries {
                        let item = within(path, &format!("[{}]", quoted(&key)), |path| {
                            of.convert_at(item, path)
                        })?;
                        converted.insert(key, item);
                    }
                    Ok(Value::Map(converted))
                }
                other => refuse(&other, path),
            },
            Self::Tuple(types) => match value {
                Value::List(items) if items.len() == types.len() => {
                    let mut converted = Vec::with_capacity(items.len());
                    for (index, (of, item)) in types.iter().zip(items).enumerate() {
                        converted.push(within(path, &format!("[{index}]"), |path| {
                            of.convert_at(item, path)
                        })?);
                    }
                    Ok(Value::List(converted))
                }
                other => refuse(&other, path),
            },
            Self::Object(fields) => match value {
                Value::Map(mut entries) => {
                    let mut converted = BTreeMap::new();
                    for (name, field) in fields {
                        let item = match (entries.remove(name), &field.absent) {
                            (None | Some(Value::Null), Some(absent)) => absent.clone(),
                            (Some(item), _) => within(path, &format!(".{name}"), |path| {
                                field.of.convert_at(item, path)
                            })?,
                            (None, None) => {
                                let at = if path.is_empty() {
                                    String::new()
                                } else {
                                    format!(" at {path}")
                                };
                                return Err(format!("the attribute {name:?}{at} is missing"));
                            }
                        };
                        converted.insert(name.clone(), item);
                    }
                    Ok(Value::Map(converted))
                }
                other => refuse(&other, path),
            },
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Any => "any value".to_owned(),
            Self::Bool => "a bool".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::String => "a string".to_owned(),
            Self::List(_) | Self::Set(_) => "a list".to_owned(),
            Self::Map(_) | Self::Object(_) => "an object".to_owned(),
            Self::Tuple(types) => format!("a list of {}", types.len()),
        }
    }

    /// Whether a value that is given as text is the text itself, and no expression.
    pub(crate) const fn takes_plain_text(&self) -> bool {
        matches!(self, Self::Any | Self::Bool | Self::Number | Self::String)
    }
}

fn within<T>(path: &mut String, step: &str, run: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    path.push_str(step);
    let result = run(path);
    path.truncate(length);
    result
}

impl Field {
    fn read(expr: &Expression, evaluator: &Evaluator<'_>) -> Result<Self, Failure> {
        let Expression::FuncCall(call) = expr else {
            return Ok(Self { of: Type::read(expr, evaluator)?, absent: None });
        };
        if call.name.name.as_str() != "optional" {
            return Ok(Self { of: Type::read(expr, evaluator)?, absent: None });
        }
        let Some(of) = call.args.get(0).filter(|_| call.args.len() <= 2) else {
            return wrong(
                span_of(expr),
                "optional takes a type and a default",
                "As in optional(string) or optional(number, 3).",
            );
        };
        let of = Type::read(of, evaluator)?;
        let absent = match call.args.get(1) {
            None => Value::Null,
            Some(default) => {
                let value = evaluator.value(default)?;
                match of.convert(value) {
                    Ok(value) => value,
                    Err(problem) => {
                        return wrong(
                            span_of(default),
                            "the default does not fit its type",
                            format!("It is wrong: {problem}."),
                        );
                    }
                }
            }
        };
        Ok(Self { of, absent: Some(absent) })
    }
}

fn unknown<T>(name: &str, expr: &Expression) -> Result<T, Failure> {
    let detail = format!(
        "There are any, bool, number, string, list, set, map, tuple and object.{}",
        did_you_mean(name, NAMES)
    );
    wrong(span_of(expr), format!("unknown type {}", quoted(name)), detail)
}
