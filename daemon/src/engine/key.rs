//! Which worker a document's events go to: a hash of its `_id` that is equal wherever the server's comparison is equal.
//!
//! `1`, `1.0`, `NumberLong(1)` and `NumberDecimal("1.00")` are one key to a unique index, and so are strings that a collation
//! calls equal. Deleting the one and inserting the other must keep its order, and so must meet in one worker.

use std::hash::{DefaultHasher, Hasher as _};

use mongodb::bson::{RawBsonRef, RawDocument};

/// The hash of an `_id`. `collated`: strings compare by a collation, which is not computed here: all strings then share a worker.
#[must_use]
pub fn hash(id: RawBsonRef<'_>, collated: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    feed(&mut hasher, id, collated);
    hasher.finish()
}

/// Numbers that are equal have the same nearest double: the conversions from integers and from decimal text round correctly.
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

fn feed_text(hasher: &mut DefaultHasher, text: &[u8], collated: bool) {
    hasher.write_u8(15);
    if !collated {
        hasher.write(text);
    }
}

fn feed_document(hasher: &mut DefaultHasher, document: &RawDocument, collated: bool) {
    for (name, value) in document.iter().flatten() {
        hasher.write(name.as_str().as_bytes());
        hasher.write_u8(0);
        feed(hasher, value, collated);
    }
    hasher.write_u8(0xff);
}

fn feed(hasher: &mut DefaultHasher, value: RawBsonRef<'_>, collated: bool) {
    use RawBsonRef as B;
    match value {
        B::Double(number) => feed_number(hasher, number),
        B::Int32(number) => feed_number(hasher, f64::from(number)),
        B::Int64(number) => feed_number(hasher, number as f64),
        B::Decimal128(number) => feed_number(hasher, number.to_string().parse().unwrap_or(f64::NAN)),
        // The server compares strings and symbols as one type.
        B::String(text) | B::Symbol(text) => feed_text(hasher, text.as_bytes(), collated),
        B::Document(document) => {
            hasher.write_u8(20);
            feed_document(hasher, document, collated);
        }
        B::Array(array) => {
            hasher.write_u8(25);
            for value in array.into_iter().flatten() {
                feed(hasher, value, collated);
            }
            hasher.write_u8(0xff);
        }
        B::ObjectId(id) => {
            hasher.write_u8(35);
            hasher.write(&id.bytes());
        }
        B::Binary(binary) => {
            hasher.write_u8(30);
            hasher.write_u8(binary.subtype.into());
            hasher.write(binary.bytes);
        }
        B::DateTime(time) => {
            hasher.write_u8(45);
            hasher.write_i64(time.timestamp_millis());
        }
        B::Timestamp(time) => {
            hasher.write_u8(47);
            hasher.write_u32(time.time);
            hasher.write_u32(time.increment);
        }
        B::Boolean(value) => {
            hasher.write_u8(40);
            hasher.write_u8(u8::from(value));
        }
        // Rare as an `_id`, or not allowed: one worker for each kind is in order and fast enough.
        B::Null => hasher.write_u8(5),
        B::Undefined => hasher.write_u8(0),
        B::RegularExpression(_) => hasher.write_u8(50),
        B::DbPointer(_) => hasher.write_u8(55),
        B::JavaScriptCode(_) => hasher.write_u8(60),
        B::JavaScriptCodeWithScope(_) => hasher.write_u8(65),
        B::MinKey => hasher.write_u8(1),
        B::MaxKey => hasher.write_u8(127),
    }
}

#[cfg(test)]
mod tests {
    use super::hash;
    use mongodb::bson::{Decimal128, RawDocumentBuf, rawdoc};

    fn of(document: &RawDocumentBuf, collated: bool) -> u64 {
        hash(document.get("_id").expect("valid").expect("present"), collated)
    }

    #[test]
    fn equal_numbers_share_a_worker() {
        let decimal: Decimal128 = "1.00".parse().expect("a decimal");
        let one = of(&rawdoc! { "_id": 1 }, false);
        for other in [rawdoc! { "_id": 1_i64 }, rawdoc! { "_id": 1.0 }, rawdoc! { "_id": decimal }] {
            assert_eq!(of(&other, false), one);
        }
        let nan: Decimal128 = "NaN".parse().expect("a decimal");
        assert_eq!(of(&rawdoc! { "_id": f64::NAN }, false), of(&rawdoc! { "_id": nan }, false));
        assert_eq!(of(&rawdoc! { "_id": 0.0 }, false), of(&rawdoc! { "_id": -0.0 }, false));
        assert_eq!(of(&rawdoc! { "_id": { "a": 1 } }, false), of(&rawdoc! { "_id": { "a": 1.0 } }, false));
        let huge: Decimal128 = "9007199254740993".parse().expect("a decimal");
        assert_eq!(of(&rawdoc! { "_id": 9_007_199_254_740_993_i64 }, false), of(&rawdoc! { "_id": huge }, false));
    }

    #[test]
    fn strings_share_a_worker_only_under_a_collation() {
        assert_ne!(of(&rawdoc! { "_id": "a" }, false), of(&rawdoc! { "_id": "A" }, false));
        assert_eq!(of(&rawdoc! { "_id": "a" }, true), of(&rawdoc! { "_id": "A" }, true));
        assert_ne!(of(&rawdoc! { "_id": "1" }, false), of(&rawdoc! { "_id": 1 }, false));
    }
}
