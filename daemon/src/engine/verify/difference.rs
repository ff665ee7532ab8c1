//! Says where two documents differ, by field paths and never by values.

use mongodb::bson::{Bson, RawDocument};

use crate::engine::element::{DOCUMENT, Element, elements, shown};

/// Paths named of one document at most.
const MOST_PATHS: usize = 20;
/// How deep paths are followed: a document may nest 100 levels.
const DEEPEST: usize = 8;

/// The paths at which two documents differ. `(field order)` where they hold the same fields in
/// another order, `(bytes)` where only their encoding differs.
#[must_use]
pub fn paths(ours: &RawDocument, theirs: &RawDocument) -> Vec<String> {
    let mut found = Vec::new();
    walk("", ours, theirs, 0, &mut found);
    if found.is_empty() {
        let names = |document| elements(document).map(|field| field.name).collect::<Vec<_>>();
        found.push(
            if names(ours) == names(theirs) { "(bytes)" } else { "(field order)" }.to_owned(),
        );
    }
    found.truncate(MOST_PATHS);
    found
}

/// What a field holds that is a document.
fn inner<'a>(field: &Element<'a>) -> Option<&'a RawDocument> {
    if field.kind == DOCUMENT { field.document() } else { None }
}

fn walk(
    prefix: &str,
    ours: &RawDocument,
    theirs: &RawDocument,
    depth: usize,
    found: &mut Vec<String>,
) {
    let path = |name: &[u8]| {
        if prefix.is_empty() { shown(name) } else { format!("{prefix}.{}", shown(name)) }
    };
    let of = |document, name: &[u8]| elements(document).find(|field| field.name == name);
    for mine in elements(ours) {
        if found.len() >= MOST_PATHS {
            return;
        }
        let other = of(theirs, mine.name);
        if other == Some(mine) {
            continue;
        }
        let before = found.len();
        if let (Some(inner_mine), Some(inner_other)) =
            (inner(&mine), other.as_ref().and_then(inner))
            && depth < DEEPEST
        {
            walk(&path(mine.name), inner_mine, inner_other, depth + 1, found);
        }
        if found.len() == before {
            found.push(path(mine.name));
        }
    }
    for other in elements(theirs) {
        if found.len() < MOST_PATHS && of(ours, other.name).is_none() {
            found.push(path(other.name));
        }
    }
}

/// An `_id` as people read it.
#[must_use]
pub fn id_text(id: &RawDocument) -> String {
    match id.get("_id") {
        Ok(Some(value)) => Bson::try_from(value)
            .map_or_else(|_| "(unreadable)".to_owned(), |value| value.to_string()),
        _ => "(none)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::paths;
    use mongodb::bson::rawdoc;

    #[test]
    fn paths_name_what_differs() {
        let ours = rawdoc! { "_id": 1, "a": 1, "b": { "c": 1, "d": 2 }, "e": [1, 2], "gone": 1 };
        let theirs = rawdoc! { "_id": 1, "a": 1_i64, "b": { "c": 1, "d": 3 }, "e": [1], "new": 1 };
        assert_eq!(paths(&ours, &theirs), ["a", "b.d", "e", "gone", "new"]);
    }

    #[test]
    fn order_alone_is_named() {
        assert_eq!(
            paths(&rawdoc! { "_id": 1, "a": 1, "b": 2 }, &rawdoc! { "_id": 1, "b": 2, "a": 1 }),
            ["(field order)"]
        );
    }
}
