//! The keys that an index on plain paths takes from a document, exactly as the server takes them.
//!
//! An aggregation reads paths otherwise than an index does where arrays lie along them, and so
//! finds documents that only seem to have the same key. What decides is this: each array along the
//! paths, or at their end, is taken apart once; what is not there is null; the key of an empty
//! array is `undefined`; an array within an array is a value as it is at the end of a path, and
//! nothing within one (`BtreeKeyGenerator::_getKeysWithArray`, tried on 6.0.5 and 6.0.27).

use std::cmp::Ordering;

use mongodb::bson::{RawDocument, RawDocumentBuf};
use placement::element::{ARRAY, DOCUMENT, Element, Writer, elements};
use placement::order;

const NULL: Element<'static> = Element { kind: 0x0a, name: b"", value: &[] };
const UNDEFINED: Element<'static> = Element { kind: 0x06, name: b"", value: &[] };

/// One key: a value of each path.
pub(super) type Key<'a> = Vec<Element<'a>>;

/// A path on its way through a document.
#[derive(Debug, Clone, Copy)]
struct Path<'a> {
    /// What is left of it; empty: its value is found.
    rest: &'a str,
    value: Element<'a>,
}

/// The keys of a document in an index on these paths; `None` where it holds none: arrays side by
/// side. A sparse index has none of a document that has none of the paths.
pub(super) fn of<'a>(
    document: &'a RawDocument,
    paths: &[&'a str],
    is_sparse: bool,
) -> Option<Vec<Key<'a>>> {
    let mut keys = Vec::new();
    let paths: Vec<Path<'a>> = paths.iter().map(|rest| Path { rest, value: NULL }).collect();
    take(Some(document), paths, 0, is_sparse, &mut keys)?;
    Some(keys)
}

/// Whether two documents have a key in common.
pub(super) fn meet(one: &[Key<'_>], other: &[Key<'_>]) -> bool {
    let are_equal = |a: &Key<'_>, b: &Key<'_>| {
        a.iter().zip(b).all(|(a, b)| order::compare(a, b) == Ordering::Equal)
    };
    one.iter().any(|a| other.iter().any(|b| are_equal(a, b)))
}

/// Keys as a list of lists, which an expression takes for values. Its bytes are those of a BSON
/// array.
pub(super) fn as_lists(keys: &[Key<'_>]) -> RawDocumentBuf {
    let mut lists = Writer::default();
    for (place, key) in keys.iter().enumerate() {
        let mut list = Writer::default();
        for (place, value) in key.iter().enumerate() {
            list.push(value.kind, place.to_string().as_bytes(), value.value);
        }
        lists.push(ARRAY, place.to_string().as_bytes(), list.finish().as_bytes());
    }
    lists.finish()
}

fn take<'a>(
    document: Option<&'a RawDocument>,
    mut paths: Vec<Path<'a>>,
    mut missing: usize,
    is_sparse: bool,
    keys: &mut Vec<Key<'a>>,
) -> Option<()> {
    let mut array: Option<Element<'a>> = None;
    let mut along = Vec::new();
    for (place, path) in paths.iter_mut().enumerate().filter(|(_, path)| !path.rest.is_empty()) {
        let Some((value, rest)) = document.and_then(|document| follow(document, path.rest)) else {
            *path = Path { rest: "", value: NULL };
            missing += 1;
            continue;
        };
        *path = Path { rest, value };
        if value.kind == ARRAY {
            if array.is_some_and(|array| !std::ptr::eq(array.value, value.value)) {
                return None;
            }
            array = Some(value);
            along.push(place);
        }
    }
    let Some(array) = array else {
        if !is_sparse || missing < paths.len() {
            keys.push(paths.into_iter().map(|path| path.value).collect());
        }
        return Some(());
    };
    let inner: Vec<Element<'a>> =
        array.document().map(|array| elements(array).collect()).unwrap_or_default();
    for element in if inner.is_empty() { vec![UNDEFINED] } else { inner } {
        let mut paths = paths.clone();
        for place in &along {
            if paths[*place].rest.is_empty() {
                paths[*place].value = element;
            }
        }
        let within = if element.kind == DOCUMENT { element.document() } else { None };
        take(within, paths, missing, is_sparse, keys)?;
    }
    Some(())
}

/// Follows a path to its end or to the first array on it, with what is left of it there.
fn follow<'a>(document: &'a RawDocument, path: &'a str) -> Option<(Element<'a>, &'a str)> {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let found = elements(document).find(|element| element.name == name.as_bytes())?;
    match found.kind {
        ARRAY => Some((found, rest)),
        _ if rest.is_empty() => Some((found, rest)),
        DOCUMENT => follow(found.document()?, rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{meet, of};
    use mongodb::bson::{Bson, RawDocumentBuf, bson};

    fn document(value: Bson) -> RawDocumentBuf {
        RawDocumentBuf::try_from(value.as_document().expect("a document")).expect("BSON")
    }

    /// The keys in words, as `returnKey` of the server shows them.
    fn keys(paths: &[&str], is_sparse: bool, value: Bson) -> Vec<String> {
        let document = document(value);
        let keys = of(&document, paths, is_sparse).expect("no arrays side by side");
        let word = |element: &placement::element::Element<'_>| match element.kind {
            0x06 => "undefined".to_owned(),
            0x0a => "null".to_owned(),
            0x10 => i32::from_le_bytes(element.value.try_into().expect("four bytes")).to_string(),
            0x04 => "array".to_owned(),
            kind => format!("kind {kind}"),
        };
        keys.iter().map(|key| key.iter().map(word).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn keys_are_those_of_the_server() {
        for (value, wanted) in [
            (bson!({ "s": { "x": null } }), vec!["null"]),
            (bson!({ "s": { "x": [[1]] } }), vec!["array"]),
            (bson!({ "s": {} }), vec!["null"]),
            (bson!({}), vec!["null"]),
            (bson!({ "s": 1 }), vec!["null"]),
            (bson!({ "s": [] }), vec!["null"]),
            (bson!({ "s": [1] }), vec!["null"]),
            (bson!({ "s": [[{ "x": 5 }]] }), vec!["null"]),
            (bson!({ "s": [{ "x": 1 }, { "x": [2, 3] }, {}] }), vec!["1", "2", "3", "null"]),
            (bson!({ "s": [{ "x": [] }] }), vec!["undefined"]),
            (bson!({ "s": { "x": [] } }), vec!["undefined"]),
        ] {
            assert_eq!(keys(&["s.x"], false, value.clone()), wanted, "{value}");
        }
        assert_eq!(keys(&["s"], false, bson!({ "s": [[1]] })), ["array"]);
        assert_eq!(
            keys(&["s.x", "s.y", "t"], false, bson!({ "s": [{ "x": 1, "y": 2 }, { "y": 3 }] })),
            ["1 2 null", "null 3 null"]
        );
        assert_eq!(keys(&["s", "t"], true, bson!({ "a": 1 })), Vec::<String>::new());
        assert_eq!(keys(&["s", "t"], true, bson!({ "t": 1 })), ["null 1"]);
        assert_eq!(of(&document(bson!({ "s": [1], "t": [2] })), &["s", "t"], false), None);
    }

    #[test]
    fn numbers_that_are_equal_are_one_key() {
        let (one, other) = (document(bson!({ "a": [1, 2] })), document(bson!({ "a": 2.0 })));
        let (one, other) =
            (of(&one, &["a"], false).expect("keys"), of(&other, &["a"], false).expect("keys"));
        assert!(meet(&one, &other));
        assert!(!meet(&one, &[]));
    }
}
