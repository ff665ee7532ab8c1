//! The server's hash of a value, as hashed shard keys and hashed indexes use it
//! (`BSONElementHasher::hash64`, seed 0).

use md5::{Digest as _, Md5};
use mongodb::bson::Decimal128;

use crate::element::{Element, elements};
use crate::order::{self, canonical_type};

/// The seed of hashed indexes; another has never been set by a server.
const SEED: i32 = 0;

/// The hash of a value: equal for numbers that are equal once they are made whole, whatever type
/// holds them.
#[must_use]
pub fn hash(value: &Element<'_>) -> i64 {
    let mut digest = Md5::new();
    digest.update(SEED.to_le_bytes());
    feed(&mut digest, value, false);
    let sum = digest.finalize();
    i64::from_le_bytes(std::array::from_fn(|at| sum[at]))
}

fn feed(digest: &mut Md5, value: &Element<'_>, with_name: bool) {
    digest.update(canonical_type(value.kind).to_le_bytes());
    if with_name {
        digest.update(value.name);
        digest.update([0]);
    }
    match value.kind {
        0x01 => {
            digest.update(whole_double(f64::from_le_bytes(order::fixed(value.value))).to_le_bytes())
        }
        0x10 => {
            digest.update(i64::from(i32::from_le_bytes(order::fixed(value.value))).to_le_bytes())
        }
        0x13 => digest
            .update(whole_decimal(Decimal128::from_bytes(order::fixed(value.value))).to_le_bytes()),
        0x03 | 0x04 => feed_fields(digest, value),
        0x0f => {
            let (code, scope) = order::code_with_scope(value.value);
            // The text's length counts its NUL; the server hashes both.
            digest.update(code);
            if let Some(scope) = scope {
                for inner in elements(scope) {
                    feed(digest, &inner, true);
                }
            }
            feed_end(digest);
        }
        _ => digest.update(value.value),
    }
}

fn feed_fields(digest: &mut Md5, value: &Element<'_>) {
    for inner in value.document().into_iter().flat_map(elements) {
        feed(digest, &inner, true);
    }
    feed_end(digest);
}

/// The end of a document counts as an element of type 0 without a name.
fn feed_end(digest: &mut Md5) {
    digest.update(0_i32.to_le_bytes());
}

/// A double as the server makes it whole for a hash (`safeNumberLongForHash`): cut off, no number
/// is 0, and what is too large is the nearest that fits, but for 2^63, which was once converted
/// without a check and keeps that hash.
fn whole_double(value: f64) -> i64 {
    /// 2^63, the first double above every `i64`.
    const TOO_LARGE_BY_ONE: f64 = 9_223_372_036_854_775_808.0;
    // `as` does the rest since Rust 1.45.
    if value == TOO_LARGE_BY_ONE { i64::MIN } else { value as i64 }
}

/// A decimal, likewise, but rounded to the nearest, halves to the even.
fn whole_decimal(value: Decimal128) -> i64 {
    order::Number::of_decimal(value).rounded()
}

#[cfg(test)]
mod tests {
    use super::hash;
    use crate::element::field;
    use mongodb::bson::rawdoc;

    #[test]
    fn the_hash_is_the_servers() {
        // From a server: `db.adminCommand({_hashBSONElement: 1, seed: 0})`.
        for document in [
            rawdoc! { "a": 1 },
            rawdoc! { "a": 1_i64 },
            rawdoc! { "a": 1.0 },
            rawdoc! { "a": 1.75 },
        ] {
            assert_eq!(hash(&field(&document, "a").expect("a field")), 5_902_408_780_260_971_510);
        }
    }

    #[test]
    fn numbers_are_made_whole_as_the_server_does() {
        use mongodb::bson::{Decimal128, RawDocumentBuf};
        let of = |document: &RawDocumentBuf| hash(&field(document, "a").expect("a field"));
        let whole = |number: i64| of(&rawdoc! { "a": number });
        let decimal =
            |text: &str| of(&rawdoc! { "a": text.parse::<Decimal128>().expect("a decimal") });
        // Each pair tried on a server.
        for (text, number) in [
            ("-3.999", -4),
            ("3.5", 4),
            ("2.5", 2),
            ("-2.5", -2),
            ("0.5", 0),
            ("1E-6000", 0),
            ("NaN", 0),
            ("-Infinity", i64::MIN),
            ("1E+6000", i64::MAX),
            ("9223372036854775807.9", i64::MAX),
            ("-9223372036854775809", i64::MIN),
            ("12E+1", 120),
        ] {
            assert_eq!(decimal(text), whole(number), "{text}");
        }
        for (double, number) in [
            (-3.999, -3),
            (2.5, 2),
            (f64::NAN, 0),
            (1e300, i64::MAX),
            (9_223_372_036_854_775_808.0, i64::MIN),
        ] {
            assert_eq!(of(&rawdoc! { "a": double }), whole(number), "{double}");
        }
    }
}
