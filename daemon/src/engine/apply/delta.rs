//! Deltas that say no more than `$set` does, as one `$set`: the server runs it at a fraction of
//! what its stage for deltas costs.
//!
//! A delta of the server's (`{$v: 2, diff: {u: {…}, i: {…}, …}}`) that only gives fields at the top
//! of a document, which it has, other values without parts is such a one. Everything else goes to
//! the stage, which knows fields within fields, arrays, and names with dots. New fields (`i`) do
//! so, too: where the document is of a later state already, the stage moves them to the end all the
//! same, so that all of them end in their order, and `$set` would leave them where they are.

use std::collections::HashMap;

use mongodb::bson::RawDocumentBuf;

use crate::engine::element::{DOCUMENT, Element, Writer, elements, field};

/// Types whose values `$set` stores as they are: those without parts, but for timestamps, which a
/// server may put its own time into.
const PLAIN: [u8; 11] = [0x01, 0x02, 0x05, 0x07, 0x08, 0x09, 0x0a, 0x10, 0x12, 0x13, 0x0b];

/// The update that gives the same as these deltas one after the other; `None` where only the
/// server's stage does.
#[must_use]
pub fn as_set(deltas: &[RawDocumentBuf]) -> Option<RawDocumentBuf> {
    let mut fields: Vec<Element<'_>> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for delta in deltas {
        for section in elements(field(delta, "diff")?.document()?) {
            if section.name != b"u" {
                return None;
            }
            for element in elements(section.document()?) {
                if !PLAIN.contains(&element.kind) || !is_plain_name(element.name) {
                    return None;
                }
                match places.get(element.name) {
                    Some(&place) => fields[place] = element,
                    None => {
                        places.insert(element.name, fields.len());
                        fields.push(element);
                    }
                }
            }
        }
    }
    if fields.is_empty() {
        return None;
    }
    let mut values = Writer::default();
    for element in fields {
        values.push(element.kind, element.name, element.value);
    }
    let mut set = Writer::default();
    set.push(DOCUMENT, b"$set", values.finish().as_bytes());
    Some(set.finish())
}

/// Whether `$set` takes a name for a field at the top, and for nothing else.
fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name[0] != b'$'
        && !name.contains(&b'.')
        && name != b"_id"
        && std::str::from_utf8(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::as_set;
    use mongodb::bson::{RawDocumentBuf, Timestamp, rawdoc};

    fn delta(diff: RawDocumentBuf) -> RawDocumentBuf {
        rawdoc! { "$v": 2, "diff": diff }
    }

    #[test]
    fn the_last_value_of_a_field_is_set() {
        let deltas = [
            delta(rawdoc! { "u": { "a": 1, "b": "x" } }),
            delta(rawdoc! { "u": { "c": 2.5 } }),
            delta(rawdoc! { "u": { "a": 3_i64 } }),
        ];
        assert_eq!(as_set(&deltas), Some(rawdoc! { "$set": { "a": 3_i64, "b": "x", "c": 2.5 } }));
    }

    #[test]
    fn what_set_would_read_otherwise_is_left_to_the_stage() {
        for diff in [
            rawdoc! { "u": { "a.b": 1 } },
            rawdoc! { "u": { "$a": 1 } },
            rawdoc! { "u": { "": 1 } },
            rawdoc! { "u": { "a": { "b": 1 } } },
            rawdoc! { "u": { "a": [1] } },
            rawdoc! { "u": { "at": Timestamp { time: 0, increment: 0 } } },
            rawdoc! { "i": { "a": 1 } },
            rawdoc! { "u": { "z": 1 }, "i": { "a": 1 } },
            rawdoc! { "d": { "a": false } },
            rawdoc! { "u": { "b": 1 }, "d": { "a": false } },
            rawdoc! { "sa": { "u": { "b": 1 } } },
            rawdoc! {},
        ] {
            assert_eq!(as_set(&[delta(diff.clone())]), None, "{diff:?}");
        }
    }
}
