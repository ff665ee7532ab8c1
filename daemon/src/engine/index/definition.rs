//! What an index is: its definition as a source lists it, and as it is given to a destination during the sync and at its end.

use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use schemas::namespace::Namespace;

use crate::mongo::append;

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

/// An index's expiry. One that is no number is what a server takes it for: the longest. Given to `collMod` as it is, it would be
/// none at all, and the server would delete every document (seen on 6.0.5).
pub(super) fn ttl(spec: &RawDocument) -> Option<RawBsonRef<'_>> {
    match spec.get("expireAfterSeconds").ok().flatten()? {
        RawBsonRef::Double(seconds) if seconds.is_nan() => Some(RawBsonRef::Int32(TTL_HELD_OFF)),
        RawBsonRef::Decimal128(seconds) if seconds.to_string().ends_with("NaN") => Some(RawBsonRef::Int32(TTL_HELD_OFF)),
        seconds => Some(seconds),
    }
}

/// A key pattern as servers of today take it. Old ones took any value for ascending, and kept it.
fn key(spec: &RawDocument) -> RawDocumentBuf {
    let mut key = RawDocumentBuf::new();
    // A text index is listed with a key of the server's own making. Only one with an expiry, which takes a single field, is not
    // made of that again.
    let text = ttl(spec).and_then(|_| spec.get_document("weights").ok());
    for (name, value) in spec.get_document("key").into_iter().flatten().flatten() {
        let is_direction = match value {
            RawBsonRef::Int32(n) => n != 0,
            RawBsonRef::Int64(n) => n != 0,
            RawBsonRef::Double(n) => n != 0.0 && !n.is_nan(),
            RawBsonRef::Decimal128(n) => !matches!(n.to_string().parse::<f64>(), Ok(n) if n == 0.0 || n.is_nan()),
            RawBsonRef::String(plugin) => !plugin.is_empty(),
            _ => false,
        };
        match (name.as_str(), text) {
            ("_fts", Some(weights)) => weights.iter().flatten().for_each(|(field, _)| append(&mut key, field.as_str(), "text")),
            ("_ftsx", Some(_)) => {}
            (name, _) if is_direction => append(&mut key, name, value),
            (name, _) => append(&mut key, name, 1),
        }
    }
    key
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

/// An index's specification for `createIndexes`, whole, or as it is during the sync.
pub(super) fn specification(spec: &RawDocument, collated: bool, relaxed: bool) -> RawDocumentBuf {
    let mut made = RawDocumentBuf::new();
    for (key, value) in spec.iter().flatten() {
        match key.as_str() {
            // Which namespace it is on is the command's to say.
            "ns" => {}
            // A build cannot be prepared; `collMod` sets it.
            "prepareUnique" => {}
            "unique" if relaxed => {}
            "expireAfterSeconds" if relaxed => append(&mut made, "expireAfterSeconds", TTL_HELD_OFF),
            "expireAfterSeconds" => append(&mut made, "expireAfterSeconds", ttl(spec).unwrap_or(value)),
            "key" => append(&mut made, "key", &*self::key(spec)),
            key => append(&mut made, key, value),
        }
    }
    // On a collection with a collation an index without one has the simple collation, and says so only if it is written out.
    if collated && !matches!(spec.get("collation"), Ok(Some(_))) {
        append(&mut made, "collation", &*rawdoc! { "locale": "simple" });
    }
    made
}

/// What tells two indexes of a collection apart for the server, once neither is unique.
#[must_use]
pub fn identity(spec: &RawDocument) -> Vec<u8> {
    let mut identity = Vec::new();
    identity.extend_from_slice(key(spec).as_bytes());
    for field in ["collation", "partialFilterExpression"] {
        if let Ok(document) = spec.get_document(field) {
            identity.extend_from_slice(document.as_bytes());
        }
        identity.push(0xff);
    }
    identity.push(u8::from(has(spec, "sparse")));
    identity
}

/// Whether there are documents that an index cannot hold, were it not unique: one of a single field, in order, takes any value.
#[must_use]
pub fn asks_of_values(spec: &RawDocument) -> bool {
    let key = spec.get_document("key").ok();
    key.is_none_or(|key| key.iter().count() > 1 || key.iter().flatten().any(|(_, kind)| kind.as_str().is_some()))
}

#[cfg(test)]
mod tests {
    use super::{deferred, key, specification};
    use mongodb::bson::rawdoc;

    #[test]
    fn unique_and_ttl_wait_for_the_end() {
        let spec = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "unique": true, "expireAfterSeconds": 60, "hidden": true };
        let relaxed = specification(&spec, false, true);
        assert_eq!(relaxed, rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "expireAfterSeconds": i32::MAX, "hidden": true });
        assert_eq!(specification(&spec, false, false), spec);
        let namespace = "shop.orders".parse().expect("a namespace");
        assert_eq!(deferred(&namespace, &spec), ["unique on shop.orders index a_1", "expiry (TTL) on shop.orders index a_1"]);
    }

    #[test]
    fn an_expiry_that_is_no_number_is_the_longest() {
        let spec = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "expireAfterSeconds": f64::NAN };
        assert!(specification(&spec, false, false).get_i32("expireAfterSeconds").is_ok_and(|seconds| seconds == i32::MAX));
    }

    #[test]
    fn old_values_in_a_key_are_ascending() {
        let spec = rawdoc! { "key": { "a": true, "b": 0, "c": "", "d": -0.5, "e": "2d", "f": {}, "g": 7_i64 } };
        let text = rawdoc! { "key": { "_fts": "text", "_ftsx": 1 }, "weights": { "a": 1 }, "expireAfterSeconds": 5 };
        assert_eq!(key(&text), rawdoc! { "a": "text" });
        assert_eq!(key(&spec), rawdoc! { "a": 1, "b": 1, "c": 1, "d": -0.5, "e": "2d", "f": 1, "g": 7_i64 });
    }

    #[test]
    fn a_simple_index_on_a_collated_collection_says_so() {
        let spec = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1" };
        assert_eq!(
            specification(&spec, true, true),
            rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1", "collation": { "locale": "simple" } }
        );
    }
}
