//! Which worker a document's events go to: a hash of its `_id` that is equal wherever the server's
//! comparison is equal.
//!
//! `1`, `1.0`, `NumberLong(1)` and `NumberDecimal("1.00")` are one key to a unique index, and so
//! are strings that a collation calls equal. Deleting the one and inserting the other must keep its
//! order, and so must meet in one worker.

use std::hash::{DefaultHasher, Hasher as _};

use mongodb::bson::{Decimal128, RawDocument};

use super::element::{Element, elements, field};

/// The hash of an `_id`, given as a document `{_id: …}`. `collated`: strings compare by a
/// collation, which is not computed here: all strings then share a worker.
#[must_use]
pub fn hash(id: &RawDocument, collated: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Some(id) = field(id, "_id") {
        feed(&mut hasher, &id, collated);
    }
    hasher.finish()
}

/// The same of the `_id`'s value alone.
#[must_use]
pub fn hash_value(id: &Element<'_>, collated: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    feed(&mut hasher, id, collated);
    hasher.finish()
}

/// Numbers that are equal have the same nearest double: the conversions from integers and from
/// decimal text round correctly.
fn feed_number(hasher: &mut DefaultHasher, number: f64) {
    hasher.write_u8(10);
    let canonical = if number.is_nan() {
        f64::NAN
    } else if number == 0.0 {
        0.0
    } else {
        number
    };
    hasher.write_u64(canonical.to_bits());
}

fn feed_document(
    hasher: &mut DefaultHasher,
    value: &Element<'_>,
    with_names: bool,
    collated: bool,
) {
    for inner in value.document().into_iter().flat_map(elements) {
        if with_names {
            hasher.write(inner.name);
            hasher.write_u8(0);
        }
        feed(hasher, &inner, collated);
    }
    hasher.write_u8(0xff);
}

fn fixed<const N: usize>(value: &Element<'_>) -> [u8; N] {
    value.value.try_into().unwrap_or([0; N])
}

fn feed(hasher: &mut DefaultHasher, value: &Element<'_>, collated: bool) {
    match value.kind {
        0x01 => feed_number(hasher, f64::from_le_bytes(fixed(value))),
        0x10 => feed_number(hasher, f64::from(i32::from_le_bytes(fixed(value)))),
        0x12 => feed_number(hasher, i64::from_le_bytes(fixed(value)) as f64),
        0x13 => feed_number(
            hasher,
            Decimal128::from_bytes(fixed(value)).to_string().parse().unwrap_or(f64::NAN),
        ),
        // The server compares strings and symbols as one type.
        0x02 | 0x0e => {
            hasher.write_u8(15);
            if !collated {
                hasher.write(value.value);
            }
        }
        0x03 => {
            hasher.write_u8(20);
            feed_document(hasher, value, true, collated);
        }
        0x04 => {
            hasher.write_u8(25);
            feed_document(hasher, value, false, collated);
        }
        // Rare as an `_id`, or not allowed: one worker for each kind is in order and fast enough.
        kind @ (0x06 | 0x0a | 0x0b | 0x0c | 0x0d | 0x0f | 0x7f | 0xff) => hasher.write_u8(kind),
        // What is left is equal where its bytes are.
        kind => {
            hasher.write_u8(kind);
            hasher.write(value.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::hash;
    use mongodb::bson::{Decimal128, RawDocumentBuf, rawdoc};

    fn of(document: &RawDocumentBuf, collated: bool) -> u64 {
        hash(document, collated)
    }

    #[test]
    fn equal_numbers_share_a_worker() {
        let decimal: Decimal128 = "1.00".parse().expect("a decimal");
        let one = of(&rawdoc! { "_id": 1 }, false);
        for other in [rawdoc! { "_id": 1_i64 }, rawdoc! { "_id": 1.0 }, rawdoc! { "_id": decimal }]
        {
            assert_eq!(of(&other, false), one);
        }
        let nan: Decimal128 = "NaN".parse().expect("a decimal");
        assert_eq!(of(&rawdoc! { "_id": f64::NAN }, false), of(&rawdoc! { "_id": nan }, false));
        assert_eq!(of(&rawdoc! { "_id": 0.0 }, false), of(&rawdoc! { "_id": -0.0 }, false));
        assert_eq!(
            of(&rawdoc! { "_id": { "a": 1 } }, false),
            of(&rawdoc! { "_id": { "a": 1.0 } }, false)
        );
        let huge: Decimal128 = "9007199254740993".parse().expect("a decimal");
        assert_eq!(
            of(&rawdoc! { "_id": 9_007_199_254_740_993_i64 }, false),
            of(&rawdoc! { "_id": huge }, false)
        );
    }

    #[test]
    fn strings_share_a_worker_only_under_a_collation() {
        assert_ne!(of(&rawdoc! { "_id": "a" }, false), of(&rawdoc! { "_id": "A" }, false));
        assert_eq!(of(&rawdoc! { "_id": "a" }, true), of(&rawdoc! { "_id": "A" }, true));
        assert_ne!(of(&rawdoc! { "_id": "1" }, false), of(&rawdoc! { "_id": 1 }, false));
    }
}
