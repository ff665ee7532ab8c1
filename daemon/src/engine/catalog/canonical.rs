//! Encodes values of definitions so that two that mean the same are the same bytes.
//!
//! Servers store the numbers of options and indexes as other types than they were given, and not
//! every version as the same: a number counts by its value, wherever it stands.

use mongodb::bson::{RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};

use crate::engine::element::{Element, Writer};
use crate::mongo::append;

/// Beyond this not every integer has a double of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A value's canonical encoding.
#[must_use]
pub fn value(value: RawBsonRef<'_>) -> Vec<u8> {
    let mut document = RawDocumentBuf::new();
    push(&mut document, "v", value);
    document.into_bytes()
}

/// A field's canonical encoding, without its name. What cannot be read as text counts as it stands.
#[must_use]
pub fn element(field: &Element<'_>) -> Vec<u8> {
    let mut alone = Writer::default();
    alone.push(field.kind, b"v", field.value);
    let alone = alone.finish();
    match alone.get("v") {
        Ok(Some(of_field)) => value(of_field),
        Ok(None) | Err(_) => alone.into_bytes(),
    }
}

/// A whole number as a 64-bit integer, whatever its type; `None`: it is none, or no exact one.
fn whole(value: RawBsonRef<'_>) -> Option<i64> {
    let whole = |n: f64| (n.fract() == 0.0 && n.abs() < EXACT).then_some(n as i64);
    match value {
        RawBsonRef::Int32(n) => Some(i64::from(n)),
        RawBsonRef::Int64(n) => Some(n),
        RawBsonRef::Double(n) => whole(n),
        RawBsonRef::Decimal128(n) => n.to_string().parse().ok().and_then(whole),
        _ => None,
    }
}

fn push(to: &mut RawDocumentBuf, name: &str, value: RawBsonRef<'_>) {
    match (whole(value), value) {
        (Some(n), _) => append(to, name, n),
        (None, RawBsonRef::Document(inner)) => append(to, name, &*document(inner)),
        (None, RawBsonRef::Array(inner)) => append(to, name, &*array(inner)),
        (None, value) => append(to, name, value),
    }
}

fn document(document: &RawDocument) -> RawDocumentBuf {
    let mut made = RawDocumentBuf::new();
    for element in document.iter() {
        match element {
            Ok((name, value)) => push(&mut made, name.as_str(), value),
            // What cannot be read as text counts as it stands.
            Err(_) => return document.to_owned(),
        }
    }
    made
}

fn array(array: &RawArray) -> RawArrayBuf {
    let mut made = RawArrayBuf::new();
    for value in array {
        let Ok(value) = value else { return array.to_owned() };
        match (whole(value), value) {
            (Some(n), _) => made.push(n),
            (None, RawBsonRef::Document(inner)) => made.push(&*document(inner)),
            (None, RawBsonRef::Array(inner)) => made.push(&*self::array(inner)),
            (None, value) => made.push(value),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::value;
    use mongodb::bson::{RawDocument, rawdoc};

    fn of(document: &RawDocument) -> Vec<u8> {
        value(mongodb::bson::RawBsonRef::Document(document))
    }

    #[test]
    fn numbers_count_by_their_value_and_nothing_else_does() {
        let one = rawdoc! { "a": 1, "b": { "c": [2.0, { "d": 3_i64 }] }, "e": "x" };
        let same = rawdoc! { "a": 1.0, "b": { "c": [2, { "d": 3.0 }] }, "e": "x" };
        assert_eq!(of(&one), of(&same));
        for other in [
            rawdoc! { "a": 1.5, "b": { "c": [2.0, { "d": 3_i64 }] }, "e": "x" },
            rawdoc! { "a": true, "b": { "c": [2.0, { "d": 3_i64 }] }, "e": "x" },
            rawdoc! { "b": { "c": [2.0, { "d": 3_i64 }] }, "a": 1, "e": "x" },
            rawdoc! { "a": 1, "b": { "c": [2.0, { "d": 4 }] }, "e": "x" },
        ] {
            assert_ne!(of(&one), of(&other));
        }
        assert_ne!(
            of(&rawdoc! { "a": 9_007_199_254_740_993_i64 }),
            of(&rawdoc! { "a": 9_007_199_254_740_992.0 })
        );
    }
}
