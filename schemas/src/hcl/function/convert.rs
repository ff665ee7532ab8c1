//! Functions between kinds of values, and JSON.

use std::collections::{BTreeMap, BTreeSet};

use super::super::value::Value;
use super::{Answer, Call, Function, function, problem_with};

pub(super) const FUNCTIONS: &[Function] = &[
    function("jsondecode", "jsondecode(string)", 1, Some(1), json_decode),
    function("jsonencode", "jsonencode(value)", 1, Some(1), |call| {
        // Terraform escapes these, so that the text can stand in HTML.
        let json = serde_json::Value::from(call.value(0)).to_string();
        Ok(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").into())
    }),
    function("tobool", "tobool(value)", 1, Some(1), |call| converted(call, "a bool", |v| v.to_bool().map(Value::Bool))),
    function("tolist", "tolist(list)", 1, Some(1), |call| nullable(call, |call| Ok(call.list(0)?.to_vec().into()))),
    function("tomap", "tomap(object)", 1, Some(1), |call| nullable(call, |call| Ok(Value::Map(call.map(0)?.clone())))),
    function("tonumber", "tonumber(value)", 1, Some(1), |call| converted(call, "a number", |v| v.to_number().map(Value::Number))),
    function("toset", "toset(list)", 1, Some(1), |call| nullable(call, |call| Ok(set(call.list(0)?.iter().cloned())))),
    function("tostring", "tostring(value)", 1, Some(1), |call| converted(call, "a string", |v| v.to_text().map(Value::String))),
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

fn nullable(call: &Call<'_>, convert: fn(&Call<'_>) -> Answer) -> Answer {
    if *call.value(0) == Value::Null { Ok(Value::Null) } else { convert(call) }
}

fn converted(call: &Call<'_>, what: &str, convert: fn(&Value) -> Option<Value>) -> Answer {
    match call.value(0) {
        Value::Null => Ok(Value::Null),
        value => convert(value).map_or_else(|| problem_with(0, format!("This {} cannot become {what}.", bare(value))), Ok),
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
        Err(error) => problem_with(0, format!("It is not JSON: line {}, column {}.", error.line(), error.column())),
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
            (Value::Number(a), Value::Number(b)) => super::super::operation::compare(a, b),
            _ => std::cmp::Ordering::Equal,
        });
    }
    values.into()
}
