//! Says where two documents differ, by field paths and never by values.

use mongodb::bson::{Bson, RawBsonRef, RawDocument};

/// Paths named of one document at most.
const MOST_PATHS: usize = 20;
/// How deep paths are followed: a document may nest 100 levels.
const DEEPEST: usize = 8;

/// The paths at which two documents differ. `(field order)` where they hold the same fields in another order, `(bytes)` where only
/// their encoding differs.
#[must_use]
pub fn paths(ours: &RawDocument, theirs: &RawDocument) -> Vec<String> {
    let mut found = Vec::new();
    walk("", ours, theirs, 0, &mut found);
    if found.is_empty() {
        let names =
            |document: &RawDocument| document.iter().flatten().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>();
        found.push(if names(ours) == names(theirs) { "(bytes)" } else { "(field order)" }.to_owned());
    }
    found.truncate(MOST_PATHS);
    found
}

fn walk(prefix: &str, ours: &RawDocument, theirs: &RawDocument, depth: usize, found: &mut Vec<String>) {
    let path = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    for (name, mine) in ours.iter().flatten() {
        if found.len() >= MOST_PATHS {
            return;
        }
        match theirs.get(name.as_str()).ok().flatten() {
            Some(other) if mine == other => {}
            Some(RawBsonRef::Document(other)) if depth < DEEPEST => match mine {
                RawBsonRef::Document(mine) => {
                    let before = found.len();
                    walk(&path(name.as_str()), mine, other, depth + 1, found);
                    if found.len() == before {
                        found.push(path(name.as_str()));
                    }
                }
                _ => found.push(path(name.as_str())),
            },
            Some(_) | None => found.push(path(name.as_str())),
        }
    }
    for (name, _) in theirs.iter().flatten() {
        if found.len() < MOST_PATHS && matches!(ours.get(name.as_str()), Ok(None)) {
            found.push(path(name.as_str()));
        }
    }
}

/// An `_id` as people read it.
#[must_use]
pub fn id_text(id: &RawDocument) -> String {
    match id.get("_id") {
        Ok(Some(value)) => Bson::try_from(value).map_or_else(|_| "(unreadable)".to_owned(), |value| value.to_string()),
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
        assert_eq!(paths(&rawdoc! { "_id": 1, "a": 1, "b": 2 }, &rawdoc! { "_id": 1, "b": 2, "a": 1 }), ["(field order)"]);
    }
}
