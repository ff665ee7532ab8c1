//! What expressions evaluate to.

use std::collections::BTreeMap;

use hcl_edit::Number;

/// A value. Maps and objects are one kind here, and so are lists, tuples and sets (a set is sorted
/// and without doubles).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// No value: an optional attribute set to it is as if left out.
    Null,
    /// True or false.
    Bool(bool),
    /// A number; whole ones are exact within 64 bits.
    Number(Number),
    /// Text.
    String(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name, in the order of their names.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// The kind of value, with its article, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }

    /// A number; `None` where it is not finite. Whole ones become exact integers.
    #[must_use]
    pub fn from_f64(number: f64) -> Option<Self> {
        /// Up to here every whole number has its own f64.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "whole and within the exact range")]
        if number.fract() == 0.0 && number.abs() <= EXACT {
            return Some(Self::Number(Number::from(number as i64)));
        }
        Number::from_f64(number).map(Self::Number)
    }

    /// The text of a string, number or bool, as templates write it; `None` for others.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::String(text) => Some(text.clone()),
            Self::Number(number) => Some(number_text(number)),
            Self::Bool(flag) => Some(flag.to_string()),
            Self::Null | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The number, also of a string that holds one; `None` for others.
    #[must_use]
    pub fn to_number(&self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(*number),
            Self::String(text) => parse_number(text),
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The bool, also of the strings `true` and `false`; `None` for others.
    #[must_use]
    pub fn to_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            Self::String(text) => text.parse().ok(),
            Self::Null | Self::Number(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        const NODE: usize = 48;
        NODE + match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => text.len(),
            Self::List(items) => items.iter().map(Self::weight).sum(),
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| key.len() + value.weight()).sum()
            }
        }
    }

    /// How many levels of lists and objects it has.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => 0,
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(entries) => 1 + entries.values().map(Self::depth).max().unwrap_or(0),
        }
    }
}

/// A number as templates write it.
pub(crate) fn number_text(number: &Number) -> String {
    // The standard library writes floats without an exponent, as Terraform does.
    match number.as_f64() {
        Some(float) if number.is_f64() => float.to_string(),
        _ => number.to_string(),
    }
}

/// A number as it is written in HCL, with an optional sign.
pub(crate) fn parse_number(text: &str) -> Option<Number> {
    if let Ok(whole) = text.parse::<i64>() {
        return (!text.starts_with('+')).then(|| Number::from(whole));
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(Number::from(whole));
    }
    let plain = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match Value::from_f64(text.parse::<f64>().ok().filter(|_| plain)?)? {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(Number::from(number))
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::List(items)
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(flag),
            Json::String(text) => Self::String(text),
            Json::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Json::Object(entries) => Self::Map(
                entries.into_iter().map(|(key, value)| (key, Self::from(value))).collect(),
            ),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => Self::Number(Number::from(whole)),
                (None, Some(whole)) => Self::Number(Number::from(whole)),
                (None, None) => number.as_f64().and_then(Self::from_f64).unwrap_or(Self::Null),
            },
        }
    }
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::from(*flag),
            Value::String(text) => Self::from(text.as_str()),
            Value::List(items) => items.iter().map(Self::from).collect(),
            Value::Map(entries) => {
                entries.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect()
            }
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => Self::from(whole),
                (None, Some(whole)) => Self::from(whole),
                (None, None) => Self::from(number.as_f64()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, parse_number};

    #[test]
    fn numbers_are_exact_where_they_can_be() {
        assert_eq!(Value::from_f64(3.0), parse_number("3").map(Value::Number));
        assert_eq!(Value::from_f64(0.5).and_then(|half| half.to_text()).as_deref(), Some("0.5"));
        assert_eq!(
            parse_number("18446744073709551615").expect("u64").to_string(),
            "18446744073709551615"
        );
        assert_eq!(parse_number("1.0").expect("whole").to_string(), "1");
        for text in ["", "x", "+1", "inf", "nan", "1 ", "infinity", "-inf"] {
            assert!(parse_number(text).is_none(), "{text}");
        }
    }

    #[test]
    fn json_goes_both_ways() {
        let json: serde_json::Value =
            serde_json::from_str(r#"{"a":[1,2.5,"x",null,true]}"#).expect("JSON");
        assert_eq!(serde_json::Value::from(&Value::from(json.clone())), json);
    }
}
