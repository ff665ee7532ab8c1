//! Terraform's values and their two encodings. What a value must look like is the schema's affair.

use std::collections::BTreeMap;

use schemas::plugin_protocol::tfplugin6::DynamicValue;
use serde_json::Number;

/// A value. Maps and objects are one kind here, and so are lists, sets and tuples.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// None.
    Null,
    /// Not known before something is applied.
    Unknown,
    /// True or false.
    Bool(bool),
    /// A number; whole ones are exact within 64 bits.
    Number(Number),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Object(BTreeMap<String, Value>),
}

/// A value that Terraform would not have sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Terraform sent a value that cannot be read: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl Value {
    /// Reads a value; one that is not there is null.
    pub(crate) fn decode(encoded: Option<&DynamicValue>) -> Result<Self, Malformed> {
        let Some(encoded) = encoded else { return Ok(Self::Null) };
        if !encoded.msgpack.is_empty() {
            let mut bytes = encoded.msgpack.as_slice();
            let value = rmpv::decode::read_value(&mut bytes)
                .map_err(|error| Malformed(error.to_string()))?;
            return Self::of_msgpack(value);
        }
        Self::of_json_bytes(&encoded.json)
    }

    /// Reads JSON, of a stored state; nothing at all is null.
    pub(crate) fn of_json_bytes(json: &[u8]) -> Result<Self, Malformed> {
        if json.is_empty() {
            return Ok(Self::Null);
        }
        let json: serde_json::Value =
            serde_json::from_slice(json).map_err(|error| Malformed(error.to_string()))?;
        Ok(Self::from(json))
    }

    /// Writes the value.
    #[must_use]
    pub(crate) fn encode(&self) -> DynamicValue {
        let mut msgpack = Vec::new();
        rmpv::encode::write_value(&mut msgpack, &self.to_msgpack())
            .expect("writing to a vector does not fail");
        DynamicValue { msgpack, json: Vec::new() }
    }

    fn of_msgpack(value: rmpv::Value) -> Result<Self, Malformed> {
        use rmpv::Value as Packed;
        Ok(match value {
            Packed::Nil => Self::Null,
            // Plain (0) or with bounds (12): nothing is done with the bounds.
            Packed::Ext(..) => Self::Unknown,
            Packed::Boolean(flag) => Self::Bool(flag),
            Packed::Integer(whole) => Self::Number(match (whole.as_i64(), whole.as_u64()) {
                (Some(whole), _) => whole.into(),
                (None, Some(whole)) => whole.into(),
                (None, None) => return Err(Malformed("an integer of no known size".to_owned())),
            }),
            Packed::F32(number) => Self::of_float(number.into())?,
            Packed::F64(number) => Self::of_float(number)?,
            Packed::String(text) => Self::Text(
                text.into_str().ok_or_else(|| Malformed("a text that is not UTF-8".to_owned()))?,
            ),
            Packed::Binary(_) => return Err(Malformed("bytes".to_owned())),
            Packed::Array(items) => {
                Self::List(items.into_iter().map(Self::of_msgpack).collect::<Result<_, _>>()?)
            }
            Packed::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| match key {
                    Packed::String(key) => {
                        let key = key
                            .into_str()
                            .ok_or_else(|| Malformed("a name that is not UTF-8".to_owned()))?;
                        Ok((key, Self::of_msgpack(value)?))
                    }
                    _ => Err(Malformed("a name that is no text".to_owned())),
                });
                Self::Object(entries.collect::<Result<_, _>>()?)
            }
        })
    }

    fn of_float(number: f64) -> Result<Self, Malformed> {
        /// Up to here every whole number has its own f64.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if number.fract() == 0.0 && number.abs() <= EXACT {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole and within the exact range"
            )]
            return Ok(Self::Number((number as i64).into()));
        }
        Number::from_f64(number)
            .map(Self::Number)
            .ok_or_else(|| Malformed("a number that is not finite".to_owned()))
    }

    fn to_msgpack(&self) -> rmpv::Value {
        use rmpv::Value as Packed;
        match self {
            Self::Null => Packed::Nil,
            Self::Unknown => Packed::Ext(0, vec![0]),
            Self::Bool(flag) => Packed::Boolean(*flag),
            // In digits, which is how a state file has them. Terraform 1.11 compares a refreshed
            // state with the one before down to the precision that each number was read with, and
            // reads one from an integer with less: `-refresh-only` then finds a change in every
            // resource with a number.
            Self::Number(number) => Packed::from(number.to_string()),
            Self::Text(text) => Packed::from(text.as_str()),
            Self::List(items) => Packed::Array(items.iter().map(Self::to_msgpack).collect()),
            Self::Object(entries) => Packed::Map(
                entries
                    .iter()
                    .map(|(key, value)| (Packed::from(key.as_str()), value.to_msgpack()))
                    .collect(),
            ),
        }
    }

    /// The value under a name; null where there is none.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> &Self {
        match self {
            Self::Object(entries) => entries.get(name).unwrap_or(&Self::Null),
            Self::Unknown => &Self::Unknown,
            _ => &Self::Null,
        }
    }

    /// Whether it is null.
    #[must_use]
    pub(crate) fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// Whether nothing in it is unknown.
    #[must_use]
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::List(items) => items.iter().all(Self::is_known),
            Self::Object(entries) => entries.values().all(Self::is_known),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => true,
        }
    }

    /// The text, of a text.
    #[must_use]
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, of a whole one that is not negative.
    #[must_use]
    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            // Numbers beyond 64 bits of mantissa travel as texts.
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The value as JSON; `None` where anything in it is unknown.
    #[must_use]
    pub(crate) fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match self {
            Self::Unknown => return None,
            Self::Null => Json::Null,
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Number(number) => Json::Number(number.clone()),
            Self::Text(text) => Json::String(text.clone()),
            Self::List(items) => {
                Json::Array(items.iter().map(Self::to_json).collect::<Option<_>>()?)
            }
            Self::Object(entries) => {
                let entries =
                    entries.iter().map(|(key, value)| Some((key.clone(), value.to_json()?)));
                Json::Object(entries.collect::<Option<_>>()?)
            }
        })
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(flag),
            Json::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) => Self::of_float(float).unwrap_or(Self::Null),
                None => Self::Number(number),
            },
            Json::String(text) => Self::Text(text),
            Json::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Json::Object(entries) => Self::Object(
                entries.into_iter().map(|(key, value)| (key, Self::from(value))).collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::plugin_protocol::tfplugin6::DynamicValue;
    use serde_json::json;

    use super::Value;

    #[test]
    fn values_survive_their_encoding() {
        let json = json!({"a": ["x", null, true], "b": {"c": "y"}});
        let mut value = Value::from(json.clone());
        assert_eq!(Value::decode(Some(&value.encode())), Ok(value.clone()));
        assert_eq!(value.to_json(), Some(json));
        // Numbers go out in digits; the client, which knows the schema, reads them as numbers
        // again.
        let numbers = json!([1, 2.5, -3, 18_446_744_073_709_551_615_u64, 4.0]);
        let sent = Value::decode(Some(&Value::from(numbers).encode())).expect("a value");
        assert_eq!(sent.to_json(), Some(json!(["1", "2.5", "-3", "18446744073709551615", "4"])));
        let Value::Object(entries) = &mut value else { panic!("an object") };
        entries.insert("u".to_owned(), Value::Unknown);
        assert_eq!(Value::decode(Some(&value.encode())), Ok(value.clone()));
        assert!(!value.is_known() && value.to_json().is_none());
    }

    #[test]
    fn any_extension_is_unknown_and_garbage_is_refused() {
        let of = |msgpack: &[u8]| {
            Value::decode(Some(&DynamicValue { msgpack: msgpack.to_vec(), json: Vec::new() }))
        };
        assert_eq!(of(&[0xd4, 0, 0]), Ok(Value::Unknown));
        assert_eq!(of(&[0xc7, 3, 12, 0x81, 1, 0xc2]), Ok(Value::Unknown));
        assert_eq!(Value::decode(None), Ok(Value::Null));
        for garbage in [&[0x85][..], &[0x92, 1], &[0x81, 1, 1], &[0xc4, 1, 0], &[0xa1, 0xff]] {
            assert!(of(garbage).is_err(), "{garbage:?}");
        }
    }
}
