//! What an index is: its definition as a source lists it, and as it is given to a destination
//! during the sync and at its end.

use std::collections::BTreeMap;

use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use schemas::namespace::Namespace;

use crate::engine::catalog::canonical;
use crate::engine::element::{Element, Writer, elements, shown};

/// What a TTL index expires after during the sync, in seconds: the server's own largest, 68 years.
const TTL_HELD_OFF: i32 = i32::MAX;

/// The name of an index.
#[must_use]
pub fn name(spec: &RawDocument) -> &str {
    spec.get_str("name").unwrap_or_default()
}

pub(super) fn has(spec: &RawDocument, option: &str) -> bool {
    spec.get_bool(option).unwrap_or(false)
}

/// Whether it is unique.
#[must_use]
pub fn is_unique(spec: &RawDocument) -> bool {
    has(spec, "unique")
}

/// An index's expiry, as a server takes it. Old servers keep values that none takes any more, and
/// work by them:
///
/// * One that is not a number counts as the longest. Given to `collMod` as it is, it would be none
///   at all, and the server would delete every document (seen on 6.0.5).
/// * With one below zero, which 5.0 takes by `collMod`, documents expire at once: a server up to
///   6.0 deletes them like with zero (seen on 5.0.32, 6.0.5 and 6.0.27), by so many seconds earlier
///   than with zero, and never later.
/// * `collMod` itself makes the longest of one that is longer than that.
pub(super) fn ttl(spec: &RawDocument) -> Option<RawBsonRef<'_>> {
    let value = spec.get("expireAfterSeconds").ok().flatten()?;
    let seconds = match value {
        RawBsonRef::Int32(seconds) => f64::from(seconds),
        // As large as it may be, it is compared with the bounds alone.
        RawBsonRef::Int64(seconds) => seconds as f64,
        RawBsonRef::Double(seconds) => seconds,
        RawBsonRef::Decimal128(seconds) => seconds.to_string().parse().unwrap_or(f64::NAN),
        // The server skips an index with another type.
        _ => f64::NAN,
    };
    Some(if seconds.is_nan() || seconds > f64::from(TTL_HELD_OFF) {
        RawBsonRef::Int32(TTL_HELD_OFF)
    } else if seconds < 0.0 {
        RawBsonRef::Int32(0)
    } else {
        value
    })
}

/// An expiry that the source has and no server gives an index any more: it, and what the
/// destination's index gets.
#[must_use]
pub fn mended_expiry(spec: &RawDocument) -> Option<(String, String)> {
    let words = |value: RawBsonRef<'_>| {
        mongodb::bson::Bson::try_from(value).map_or_else(|_| "?".to_owned(), |v| v.to_string())
    };
    let (there, taken) = (spec.get("expireAfterSeconds").ok().flatten()?, ttl(spec)?);
    (there != taken).then(|| (words(there), words(taken)))
}

/// The type of a number of 32 bits, as BSON writes it.
const INT32: u8 = 0x10;

/// Whether what a key pattern says of a field is what servers of today take: a number but 0, or the
/// name of a kind of index.
fn is_direction(field: &Element<'_>) -> bool {
    let mut alone = Writer::default();
    alone.push(field.kind, b"v", field.value);
    match alone.finish().get("v").ok().flatten() {
        Some(RawBsonRef::Int32(n)) => n != 0,
        Some(RawBsonRef::Int64(n)) => n != 0,
        Some(RawBsonRef::Double(n)) => n != 0.0 && !n.is_nan(),
        Some(RawBsonRef::Decimal128(n)) => {
            !matches!(n.to_string().parse::<f64>(), Ok(n) if n == 0.0 || n.is_nan())
        }
        Some(RawBsonRef::String(plugin)) => !plugin.is_empty(),
        Some(_) | None => false,
    }
}

/// A key pattern as servers of today take it. Old ones took any value for ascending, and kept it.
fn key(spec: &RawDocument) -> RawDocumentBuf {
    let mut key = Writer::default();
    // A text index is listed with a key of the server's own making. Only one with an expiry, which
    // takes a single field, is not made of that again.
    let text = ttl(spec).and_then(|_| spec.get_document("weights").ok());
    for field in spec.get_document("key").into_iter().flat_map(elements) {
        match (field.name, text) {
            (b"_fts", Some(weights)) => {
                elements(weights).for_each(|field| key.push_text(field.name, b"text"))
            }
            (b"_ftsx", Some(_)) => {}
            _ if is_direction(&field) => key.copy(&field),
            (name, _) => key.push(INT32, name, &1_i32.to_le_bytes()),
        }
    }
    key.finish()
}

/// The settings of an index that wait for the end, in words.
#[must_use]
pub fn deferred(namespace: &Namespace, spec: &RawDocument) -> Vec<String> {
    let mut words = Vec::new();
    if is_unique(spec) {
        words.push(format!("unique on {namespace} index {}", name(spec)));
    }
    if ttl(spec).is_some() {
        words.push(format!("expiry (TTL) on {namespace} index {}", name(spec)));
    }
    words
}

/// Whether finalizing gives an index something that depends on no document and that a server may
/// refuse all the same.
pub(in crate::engine) fn waits_for_end(spec: &RawDocument) -> bool {
    ttl(spec).is_some() || has(spec, "prepareUnique") || has(spec, "hidden")
}

/// An index's specification for `createIndexes`, whole, or as it is during the sync.
pub(super) fn specification(spec: &RawDocument, collated: bool, relaxed: bool) -> RawDocumentBuf {
    let mut made = Writer::default();
    for field in elements(spec) {
        match field.name {
            // Which namespace it is on is the command's to say.
            b"ns" => {}
            // A build cannot be prepared; `collMod` sets it.
            b"prepareUnique" => {}
            b"unique" if relaxed => {}
            b"expireAfterSeconds" if relaxed => {
                made.push(INT32, field.name, &TTL_HELD_OFF.to_le_bytes())
            }
            b"expireAfterSeconds" => match ttl(spec) {
                Some(RawBsonRef::Int32(seconds)) => {
                    made.push(INT32, field.name, &seconds.to_le_bytes())
                }
                Some(_) | None => made.copy(&field),
            },
            b"key" => made.push_document(b"key", &self::key(spec)),
            _ => made.copy(&field),
        }
    }
    // On a collection with a collation an index without one has the simple collation, and says so
    // only if it is written out.
    if collated && !matches!(spec.get("collation"), Ok(Some(_))) {
        made.push_document(b"collation", &rawdoc! { "locale": "simple" });
    }
    made.finish()
}

/// Options that are given back at the end, or by `collMod` alone.
const CHANGEABLE: [&str; 4] = ["unique", "prepareUnique", "expireAfterSeconds", "hidden"];
/// What a listing tells that is nothing of the index, or is compared by itself.
const ASIDE: [&str; 4] = ["name", "ns", "background", "dropDups"];
/// Options that are on or off: `false` is as good as none.
const SWITCHES: [&str; 1] = ["sparse"];

/// All that only building an index anew can change, in a form that can be compared: its keys and
/// every option, whatever the kind.
fn build(spec: &RawDocument) -> BTreeMap<String, Vec<u8>> {
    let mut options = BTreeMap::new();
    for field in elements(spec) {
        let option = shown(field.name);
        match option.as_str() {
            option if CHANGEABLE.contains(&option) || ASIDE.contains(&option) => {}
            option if SWITCHES.contains(&option) => {
                if spec.get(option).ok().flatten().is_some_and(is_on) {
                    options.insert(option.to_owned(), Vec::new());
                }
            }
            // Old servers kept what they were given.
            "key" => {
                options
                    .insert(option.to_owned(), canonical::value(RawBsonRef::Document(&key(spec))));
            }
            option => {
                options.insert(option.to_owned(), canonical::element(&field));
            }
        }
    }
    options
}

/// Whether an option is on, by whatever an old server took for that.
fn is_on(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Boolean(on) => on,
        RawBsonRef::Int32(n) => n != 0,
        RawBsonRef::Int64(n) => n != 0,
        RawBsonRef::Double(n) => n != 0.0,
        _ => false,
    }
}

/// Whether two indexes of one name differ in nothing that only building one of them anew could
/// change.
#[must_use]
pub fn is_same_build(one: &RawDocument, other: &RawDocument) -> bool {
    build(one) == build(other)
}

/// Whether an index on the destination is, but for what is held off, what the source's of that name
/// is.
#[must_use]
pub fn is_same_meanwhile(of_source: &RawDocument, there: &RawDocument) -> bool {
    is_same_build(of_source, there) && has(of_source, "hidden") == has(there, "hidden")
}

/// Whether an index on the destination is what the source's of that name is once all was given
/// back, or will be when it is made unique, for which it is prepared.
#[must_use]
pub fn is_same_restored(of_source: &RawDocument, there: &RawDocument) -> bool {
    let refuses = |spec: &RawDocument| is_unique(spec) || has(spec, "prepareUnique");
    is_same_meanwhile(of_source, there)
        && refuses(of_source) == refuses(there)
        && expiry(of_source) == expiry(there)
}

/// After how many seconds documents expire, as a server that takes any number keeps it.
fn expiry(spec: &RawDocument) -> Option<i64> {
    let seconds = match ttl(spec)? {
        RawBsonRef::Int32(seconds) => i64::from(seconds),
        RawBsonRef::Int64(seconds) => seconds,
        RawBsonRef::Double(seconds) => seconds as i64,
        RawBsonRef::Decimal128(seconds) => {
            seconds.to_string().parse::<f64>().map_or(0, |seconds| seconds as i64)
        }
        _ => return None,
    };
    Some(seconds.min(i64::from(TTL_HELD_OFF)))
}

/// What tells two indexes of a collection apart for the server, once neither is unique: two that
/// are the same cannot both be there. Less than what an index is: see [`is_same_build`].
#[must_use]
pub fn identity(spec: &RawDocument) -> Vec<u8> {
    let mut identity = Vec::new();
    identity.extend_from_slice(key(spec).as_bytes());
    for field in ["collation", "partialFilterExpression", "wildcardProjection"] {
        if let Ok(document) = spec.get_document(field) {
            identity.extend_from_slice(document.as_bytes());
        }
        identity.push(0xff);
    }
    identity.push(u8::from(has(spec, "sparse")));
    identity
}

/// Whether there are documents that an index cannot hold, were it not unique: one of a single
/// field, in order, takes any value.
#[must_use]
pub fn asks_of_values(spec: &RawDocument) -> bool {
    let key = spec.get_document("key").ok();
    key.is_none_or(|key| {
        elements(key).count() > 1 || elements(key).any(|field| field.text().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::{
        deferred, identity, is_same_build, is_same_meanwhile, is_same_restored, key, specification,
    };
    use mongodb::bson::rawdoc;

    #[test]
    fn unique_and_ttl_wait_for_the_end() {
        let spec = rawdoc! {
            "v": 2, "key": { "a": 1 }, "name": "a_1", "unique": true, "expireAfterSeconds": 60,
            "hidden": true,
        };
        let relaxed = specification(&spec, false, true);
        assert_eq!(
            relaxed,
            rawdoc! {
                "v": 2, "key": { "a": 1 }, "name": "a_1", "expireAfterSeconds": i32::MAX,
                "hidden": true,
            }
        );
        assert_eq!(specification(&spec, false, false), spec);
        let namespace = "shop.orders".parse().expect("a namespace");
        assert_eq!(
            deferred(&namespace, &spec),
            ["unique on shop.orders index a_1", "expiry (TTL) on shop.orders index a_1"]
        );
    }

    #[test]
    fn an_expiry_that_is_no_number_is_the_longest() {
        let spec =
            rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "expireAfterSeconds": f64::NAN };
        assert!(
            specification(&spec, false, false)
                .get_i32("expireAfterSeconds")
                .is_ok_and(|seconds| seconds == i32::MAX)
        );
    }

    #[test]
    fn every_option_tells_two_builds_apart() {
        let plain = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a" };
        let with = |option: &str, value: mongodb::bson::RawBson| {
            let mut spec = plain.clone();
            crate::mongo::append(&mut spec, option, value.as_raw_bson_ref());
            spec
        };
        let options: [(&str, mongodb::bson::RawBson); 14] = [
            ("weights", rawdoc! { "a": 1 }.into()),
            ("default_language", "german".to_owned().into()),
            ("language_override", "l".to_owned().into()),
            ("textIndexVersion", 2.into()),
            ("2dsphereIndexVersion", 2.into()),
            ("bits", 20.into()),
            ("min", (-10).into()),
            ("max", 10.into()),
            ("wildcardProjection", rawdoc! { "a": 1 }.into()),
            ("partialFilterExpression", rawdoc! { "a": 1 }.into()),
            ("collation", rawdoc! { "locale": "fr" }.into()),
            ("storageEngine", rawdoc! { "wiredTiger": {} }.into()),
            ("sparse", true.into()),
            ("of a later server", 1.into()),
        ];
        for (option, value) in options {
            let other = with(option, value.clone());
            assert!(
                !is_same_build(&plain, &other) && is_same_build(&other, &with(option, value)),
                "{option}"
            );
        }
        let older = rawdoc! { "v": 1, "key": { "a": 1 }, "name": "a" };
        assert!(!is_same_build(&plain, &older));
        let as_stored = rawdoc! {
            "v": 2_i64, "key": { "a": 1.0 }, "name": "b", "ns": "c.d", "background": true,
            "sparse": false,
        };
        assert!(is_same_build(&plain, &as_stored));
        let wildcards = [
            rawdoc! { "key": { "$**": 1 } },
            rawdoc! { "key": { "$**": 1 }, "wildcardProjection": { "a": 1 } },
        ];
        assert_ne!(identity(&wildcards[0]), identity(&wildcards[1]), "the server has both");
    }

    #[test]
    fn what_is_held_off_counts_at_the_end_alone() {
        let wanted = rawdoc! {
            "v": 2, "key": { "a": 1 }, "name": "a", "unique": true, "expireAfterSeconds": 5.5,
            "hidden": true,
        };
        let relaxed = specification(&wanted, false, true);
        assert!(is_same_meanwhile(&wanted, &relaxed) && !is_same_restored(&wanted, &relaxed));
        let seen = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a", "expireAfterSeconds": 5 };
        assert!(is_same_build(&wanted, &seen) && !is_same_meanwhile(&wanted, &seen));
        let prepared = rawdoc! {
            "v": 2, "key": { "a": 1 }, "name": "a", "prepareUnique": true, "expireAfterSeconds": 5,
            "hidden": true,
        };
        assert!(is_same_restored(&wanted, &prepared));
    }

    #[test]
    fn old_values_in_a_key_are_ascending() {
        let spec = rawdoc! {
            "key": { "a": true, "b": 0, "c": "", "d": -0.5, "e": "2d", "f": {}, "g": 7_i64 }
        };
        let text = rawdoc! {
            "key": { "_fts": "text", "_ftsx": 1 }, "weights": { "a": 1 }, "expireAfterSeconds": 5,
        };
        assert_eq!(key(&text), rawdoc! { "a": "text" });
        assert_eq!(
            key(&spec),
            rawdoc! { "a": 1, "b": 1, "c": 1, "d": -0.5, "e": "2d", "f": 1, "g": 7_i64 }
        );
    }

    #[test]
    fn a_simple_index_on_a_collated_collection_says_so() {
        let spec = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1" };
        assert_eq!(
            specification(&spec, true, true),
            rawdoc! {
                "v": 2, "key": { "a": 1 }, "name": "a_1", "collation": { "locale": "simple" },
            }
        );
    }
}
