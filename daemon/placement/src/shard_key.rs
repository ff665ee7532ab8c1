//! A shard key: which fields of a document, taken as they are or hashed, say where it belongs.

use mongodb::bson::{RawDocument, RawDocumentBuf};

use crate::element::{self, DOCUMENT, Element, Writer};
use crate::hash;

const ARRAY: u8 = 0x04;
/// The BSON type of null: what a missing field counts as.
pub const NULL: u8 = 0x0a;
const LONG: u8 = 0x12;

/// Why a shard key, or the key of a document, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The pattern has a value that is neither a direction nor `hashed`.
    #[error("the shard key {0} is of a kind that is not known")]
    UnknownPattern(String),
    /// A field of the key is an array, or lies in one; no server takes such a document.
    #[error("the field {0} of the shard key is an array")]
    IsArray(String),
}

/// How a field of the key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// By its value.
    Ranged,
    /// By its value's hash.
    Hashed,
}

/// A shard key.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardKey {
    pattern: RawDocumentBuf,
    fields: Vec<(String, Part)>,
}

impl ShardKey {
    /// Reads a key pattern such as `{customer: 1, _id: "hashed"}`.
    pub fn new(pattern: &RawDocument) -> Result<Self, KeyError> {
        let unknown = || KeyError::UnknownPattern(format!("{pattern:?}"));
        let mut fields = Vec::new();
        for field in element::elements(pattern) {
            let name = std::str::from_utf8(field.name).map_err(|_| unknown())?.to_owned();
            let part = match (field.kind, field.value) {
                (0x02, b"\x07\0\0\0hashed\0") => Part::Hashed,
                (0x01 | 0x10 | 0x12 | 0x13, _) => Part::Ranged,
                _ => return Err(unknown()),
            };
            fields.push((name, part));
        }
        if fields.is_empty() {
            return Err(unknown());
        }
        Ok(Self { pattern: pattern.to_owned(), fields })
    }

    /// The pattern, as it was given.
    #[must_use]
    pub fn pattern(&self) -> &RawDocument {
        &self.pattern
    }

    /// The fields, dotted, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Part)> {
        self.fields.iter().map(|(name, part)| (name.as_str(), *part))
    }

    /// The key of a document, to be looked up in a chunk map: hashed fields are hashed, what is
    /// missing is null.
    pub fn of(&self, document: &RawDocument) -> Result<RawDocumentBuf, KeyError> {
        let mut key = Writer::default();
        for (path, part) in &self.fields {
            let value = find(document, path)?;
            push(&mut key, path, *part, value);
        }
        Ok(key.finish())
    }

    /// The key of these values, one for each field in the key's order; `None` where there are not
    /// as many.
    #[must_use]
    pub fn of_values(&self, values: &[Element<'_>]) -> Option<RawDocumentBuf> {
        if values.len() != self.fields.len() {
            return None;
        }
        let mut key = Writer::default();
        for ((path, part), value) in self.fields.iter().zip(values) {
            push(&mut key, path, *part, Some(*value));
        }
        Some(key.finish())
    }

    /// The values of a document's key as the document has them; `None`: the field is missing.
    ///
    /// # Errors
    /// Where a field is an array.
    pub fn values<'k, 'a>(
        &'k self,
        document: &'a RawDocument,
    ) -> Result<Vec<(&'k str, Option<Element<'a>>)>, KeyError> {
        self.fields.iter().map(|(path, _)| Ok((path.as_str(), find(document, path)?))).collect()
    }
}

fn push(key: &mut Writer, path: &str, part: Part, value: Option<Element<'_>>) {
    let value = value.unwrap_or(Element { kind: NULL, name: b"", value: &[] });
    match part {
        Part::Ranged => key.push(value.kind, path.as_bytes(), value.value),
        Part::Hashed => key.push(LONG, path.as_bytes(), &hash::hash(&value).to_le_bytes()),
    }
}

/// The value at a dotted path; `None` where there is none.
fn find<'a>(document: &'a RawDocument, path: &str) -> Result<Option<Element<'a>>, KeyError> {
    let mut within = document;
    let mut steps = path.split('.').peekable();
    while let Some(step) = steps.next() {
        let Some(value) = element::field(within, step) else { return Ok(None) };
        if value.kind == ARRAY {
            return Err(KeyError::IsArray(path.to_owned()));
        }
        if steps.peek().is_none() {
            return Ok(Some(value));
        }
        match (value.kind, value.document()) {
            (DOCUMENT, Some(inner)) => within = inner,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{KeyError, ShardKey};
    use mongodb::bson::{RawBson, rawdoc};

    #[test]
    fn a_key_is_taken_along_dotted_paths() {
        let key = ShardKey::new(&rawdoc! { "a.b": 1, "_id": "hashed", "c": 1.0 }).expect("a key");
        let found = key.of(&rawdoc! { "_id": 1, "a": { "b": "x", "c": 2 } }).expect("its key");
        assert_eq!(
            found,
            rawdoc! { "a.b": "x", "_id": 5_902_408_780_260_971_510_i64, "c": RawBson::Null }
        );
    }

    #[test]
    fn arrays_and_unknown_patterns_are_refused() {
        let key = ShardKey::new(&rawdoc! { "a.b": 1 }).expect("a key");
        assert_eq!(
            key.of(&rawdoc! { "a": [{ "b": 1 }] }),
            Err(KeyError::IsArray("a.b".to_owned()))
        );
        assert_eq!(key.of(&rawdoc! { "a": 1 }).expect("its key"), rawdoc! { "a.b": RawBson::Null });
        assert!(ShardKey::new(&rawdoc! { "a": "text" }).is_err());
        assert!(ShardKey::new(&rawdoc! {}).is_err());
    }
}
