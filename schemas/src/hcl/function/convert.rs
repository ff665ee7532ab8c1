//! Functions between kinds of values, and JSON.

use std::collections::{BTreeMap, BTreeSet};

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::super::value::Value;
use super::{Answer, Call, Function, function, problem_with};

pub(super) const FUNCTIONS: &[Function] = &[
    function("base64decode", "base64decode(string)", 1, Some(1), base64_decode),
    function("base64encode", "base64encode(string)", 1, Some(1), |call| {
        Ok(BASE64_STANDARD.encode(call.text(0)?).into())
    }),
    function("jsondecode", "jsondecode(string)", 1, Some(1), json_decode),
    function("jsonencode", "jsonencode(value)", 1, Some(1), |call| {
        Ok(json_text(call.value(0)).into())
    }),
    function("tobool", "tobool(value)", 1, Some(1), |call| {
        converted(call, "a bool", |v| v.to_bool().map(Value::Bool))
    }),
    function("tolist", "tolist(list)", 1, Some(1), |call| {
        nullable(call, |call| Ok(of_one_kind(call.list(0)?.to_vec()).into()))
    }),
    function("tomap", "tomap(object)", 1, Some(1), |call| nullable(call, to_map)),
    function("tonumber", "tonumber(value)", 1, Some(1), |call| {
        converted(call, "a number", |v| v.to_number().map(Value::Number))
    }),
    function("toset", "toset(list)", 1, Some(1), |call| {
        nullable(call, |call| Ok(set(of_one_kind(call.list(0)?.to_vec()))))
    }),
    function("tostring", "tostring(value)", 1, Some(1), |call| {
        converted(call, "a string", |v| v.to_text().map(Value::String))
    }),
    function("type", "type(value)", 1, Some(1), |call| {
        Ok(match call.value(0) {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::List(_) => "list",
            Value::Map(_) => "object",
        }
        .into())
    }),
];

/// A value's JSON, with what Terraform escapes so that the text can stand in HTML and in
/// JavaScript.
pub(super) fn json_text(value: &Value) -> String {
    let json = serde_json::Value::from(value).to_string();
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    escapes.into_iter().fold(json, |json, (c, escape)| json.replace(c, escape))
}

/// The same values as elements of one collection: where a string is among numbers and bools, all
/// become strings.
pub(super) fn of_one_kind(values: Vec<Value>) -> Vec<Value> {
    let simple = values.iter().all(|value| {
        matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null)
    });
    if !simple || !values.iter().any(|value| matches!(value, Value::String(_))) {
        return values;
    }
    values.into_iter().map(|value| value.to_text().map_or(Value::Null, Value::String)).collect()
}

fn to_map(call: &Call<'_>) -> Answer {
    let (keys, values): (Vec<String>, Vec<Value>) = call.map(0)?.clone().into_iter().unzip();
    Ok(Value::Map(keys.into_iter().zip(of_one_kind(values)).collect()))
}

fn base64_decode(call: &Call<'_>) -> Answer {
    match BASE64_STANDARD.decode(call.text(0)?).map(String::from_utf8) {
        Ok(Ok(text)) => Ok(text.into()),
        Ok(Err(_)) => problem_with(0, "What it decodes to is not UTF-8."),
        Err(_) => problem_with(0, "It is not base64."),
    }
}

fn nullable(call: &Call<'_>, convert: fn(&Call<'_>) -> Answer) -> Answer {
    if *call.value(0) == Value::Null { Ok(Value::Null) } else { convert(call) }
}

fn converted(call: &Call<'_>, what: &str, convert: fn(&Value) -> Option<Value>) -> Answer {
    match call.value(0) {
        Value::Null => Ok(Value::Null),
        value => convert(value).map_or_else(
            || problem_with(0, format!("This {} cannot become {what}.", bare(value))),
            Ok,
        ),
    }
}

fn bare(value: &Value) -> &'static str {
    value.kind().split_once(' ').map_or("null", |(_, kind)| kind)
}

fn json_decode(call: &Call<'_>) -> Answer {
    let text = call.text(0)?;
    // A parsed document takes several times its text.
    call.room_for(text.len().saturating_mul(4))?;
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(json) => Ok(json.into()),
        Err(error) => problem_with(
            0,
            format!("It is not JSON: line {}, column {}.", error.line(), error.column()),
        ),
    }
}

/// Values without doubles, in order.
pub(crate) fn set(values: impl IntoIterator<Item = Value>) -> Value {
    let mut seen = BTreeSet::new();
    let mut ordered: BTreeMap<(u8, String), Value> = BTreeMap::new();
    for value in values {
        let text = serde_json::Value::from(&value).to_string();
        if seen.insert(text.clone()) {
            let rank = match &value {
                Value::String(_) => 0,
                _ => 1,
            };
            ordered.insert((rank, value.to_text().unwrap_or(text)), value);
        }
    }
    let mut values: Vec<Value> = ordered.into_values().collect();
    if values.iter().all(|value| matches!(value, Value::Number(_))) {
        values.sort_by(|a, b| match (a, b) {
            (Value::Number(a), Value::Number(b)) => crate::hcl::operation::compare(a, b),
            _ => std::cmp::Ordering::Equal,
        });
    }
    values.into()
}
