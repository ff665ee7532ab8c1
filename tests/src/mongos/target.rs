//! Which shards a filter can concern: one where it fixes the whole shard key, else all that own
//! anything.

use mongodb::bson::{RawDocument, RawDocumentBuf};
use placement::element::{self, Element};

use super::table::Route;

/// The shards of a filter.
pub(super) fn of_filter(route: &Route, filter: &RawDocument, has_collation: bool) -> Vec<String> {
    match owner(route, filter, has_collation) {
        Some(shard) => vec![shard],
        None => route.shards(),
    }
}

/// The one shard of a filter; `None` where it does not fix the shard key.
pub(super) fn owner(route: &Route, filter: &RawDocument, has_collation: bool) -> Option<String> {
    let Some(map) = &route.map else { return Some(route.database.primary.clone()) };
    let key = key_of_filter(map.key(), filter, has_collation)?;
    Some(map.chunk_of(&key).shard.clone())
}

/// The shard that owns a document.
pub(super) fn of_document(route: &Route, document: &RawDocument) -> Option<String> {
    match &route.map {
        None => Some(route.database.primary.clone()),
        Some(map) => map.owner(document).ok().map(str::to_owned),
    }
}

/// Whether a filter wants a field to be equal to one value, that nothing else is equal to.
pub(super) fn fixes(filter: &RawDocument, name: &str, is_collated: bool) -> bool {
    equal_to(filter, name).is_some_and(|value| !(is_collated && matches!(value.kind, 0x02..=0x04)))
}

fn key_of_filter(
    key: &placement::ShardKey,
    filter: &RawDocument,
    has_collation: bool,
) -> Option<RawDocumentBuf> {
    let values: Vec<Element<'_>> =
        key.fields().map(|(name, _)| equal_to(filter, name)).collect::<Option<_>>()?;
    // Under a collation other texts are equal too, and may lie elsewhere.
    if has_collation && values.iter().any(|value| matches!(value.kind, 0x02..=0x04)) {
        return None;
    }
    key.of_values(&values)
}

/// What a filter wants a field to be equal to: `{a: 1}` or `{a: {$eq: 1}}`.
fn equal_to<'a>(filter: &'a RawDocument, name: &str) -> Option<Element<'a>> {
    let wanted = element::field(filter, name)?;
    match wanted.kind {
        element::DOCUMENT => {
            let mut operators = element::elements(wanted.document()?);
            match operators.next() {
                Some(first) if first.name == b"$eq" && operators.next().is_none() => Some(first),
                Some(first) if first.name.starts_with(b"$") => None,
                _ => Some(wanted),
            }
        }
        // A regular expression matches more than itself, an array its elements too.
        0x0b | element::ARRAY => None,
        _ => Some(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::key_of_filter;
    use mongodb::bson::{RawDocumentBuf, rawdoc};
    use placement::ShardKey;

    fn key(filter: &RawDocumentBuf, has_collation: bool) -> Option<RawDocumentBuf> {
        let key = ShardKey::new(&rawdoc! { "a": 1, "b.c": 1 }).unwrap();
        key_of_filter(&key, filter, has_collation)
    }

    #[test]
    fn a_filter_that_fixes_every_field_has_a_key() {
        assert_eq!(
            key(&rawdoc! { "b.c": { "$eq": "x" }, "a": 1, "d": 2 }, false),
            Some(rawdoc! { "a": 1, "b.c": "x" })
        );
        assert_eq!(key(&rawdoc! { "b.c": "x", "a": 1 }, true), None);
        assert_eq!(key(&rawdoc! { "a": 1 }, false), None);
        assert_eq!(key(&rawdoc! { "a": 1, "b.c": { "$gt": 1 } }, false), None);
        assert_eq!(key(&rawdoc! { "a": [1], "b.c": 1 }, false), None);
    }
}
