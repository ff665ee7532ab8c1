//! The top level of a document by its bytes alone: sizes are followed, and nothing is decoded.
//!
//! The server keeps texts that are no UTF-8, also as an `_id` and as the name of a field. What
//! carries keys and documents from one server to another must not stumble over them.

use mongodb::bson::{RawDocument, RawDocumentBuf};

/// The type of a text, as BSON writes it.
const TEXT: u8 = 0x02;
/// The type of a document, as BSON writes it.
pub const DOCUMENT: u8 = 0x03;
/// The type of an array.
pub const ARRAY: u8 = 0x04;
/// The type of a timestamp.
const TIMESTAMP: u8 = 0x11;

/// One field of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// Its type, as BSON writes it.
    pub kind: u8,
    /// Its name, without the NUL.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    /// The value as a document, or an array as one.
    #[must_use]
    pub fn document(&self) -> Option<&'a RawDocument> {
        if matches!(self.kind, DOCUMENT | ARRAY) {
            RawDocument::from_bytes(self.value).ok()
        } else {
            None
        }
    }

    /// The value as a text, which need be no UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&'a [u8]> {
        let text = if self.kind == TEXT { self.value.get(4..) } else { None };
        text?.split_last().map(|(_, text)| text)
    }
}

/// The fields of a document, in their order. It ends where the bytes are no BSON, which a server
/// does not send.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

/// The fields of a document.
#[must_use]
pub fn elements(document: &RawDocument) -> Elements<'_> {
    Elements { rest: document.as_bytes().get(4..).unwrap_or_default() }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (&kind, rest) = self.rest.split_first().filter(|(kind, _)| **kind != 0)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let length = value_length(kind, rest)?;
        let value = rest.get(..length)?;
        self.rest = &rest[length..];
        Some(Element { kind, name, value })
    }
}

fn length_prefix(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.get(..4)?.try_into().ok()?;
    usize::try_from(i32::from_le_bytes(prefix)).ok()
}

/// How many bytes a value of this type has at the start of `rest` (the BSON specification, version
/// 1.1).
fn value_length(kind: u8, rest: &[u8]) -> Option<usize> {
    let texts = |count: usize| {
        let mut ends =
            rest.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
        ends.nth(count - 1)
    };
    Some(match kind {
        0x01 | 0x09 | 0x11 | 0x12 => 8,
        0x02 | 0x0d | 0x0e => 4 + length_prefix(rest)?,
        0x03 | 0x04 | 0x0f => length_prefix(rest)?,
        0x05 => 5 + length_prefix(rest)?,
        0x06 | 0x0a | 0x7f | 0xff => 0,
        0x07 => 12,
        0x08 => 1,
        0x0b => texts(2)?,
        0x0c => 16 + length_prefix(rest)?,
        0x10 => 4,
        0x13 => 16,
        _ => return None,
    })
}

/// A field of a document; the first, where several have the name.
#[must_use]
pub fn field<'a>(document: &'a RawDocument, name: &str) -> Option<Element<'a>> {
    elements(document).find(|element| element.name == name.as_bytes())
}

/// A field's text, as its bytes; `None` where it is not there, or no text.
#[must_use]
pub fn text<'a>(document: &'a RawDocument, name: &str) -> Option<&'a [u8]> {
    field(document, name)?.text()
}

/// A name or a text as people read it: bytes that are no UTF-8 are written out, as in
/// `gr\xf6\xdfe`.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    shown
}

/// Makes a document of fields given as bytes.
#[derive(Debug, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: vec![0; 4] }
    }
}

impl Writer {
    /// Adds a field.
    pub fn push(&mut self, kind: u8, name: &[u8], value: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
    }

    /// Adds a field as it is in another document.
    pub fn copy(&mut self, element: &Element<'_>) {
        self.push(element.kind, element.name, element.value);
    }

    /// Adds a text.
    pub fn push_text(&mut self, name: &[u8], text: &[u8]) {
        let length = i32::try_from(text.len() + 1).expect("a text of ours is far below 2 GiB");
        let mut value = length.to_le_bytes().to_vec();
        value.extend_from_slice(text);
        value.push(0);
        self.push(TEXT, name, &value);
    }

    /// Adds a document.
    pub fn push_document(&mut self, name: &[u8], document: &RawDocument) {
        self.push(DOCUMENT, name, document.as_bytes());
    }

    /// The document.
    #[must_use]
    pub fn finish(mut self) -> RawDocumentBuf {
        self.bytes.push(0);
        let length =
            i32::try_from(self.bytes.len()).expect("a document of ours is far below 2 GiB");
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        RawDocumentBuf::from_bytes(self.bytes).expect("its length and its end were just written")
    }
}

/// A document `{_id: …}` with the document's `_id`; `None` where it has none.
#[must_use]
pub fn id_of(document: &RawDocument) -> Option<RawDocumentBuf> {
    let id = field(document, "_id")?;
    let mut only_id = Writer::default();
    only_id.push(id.kind, id.name, id.value);
    Some(only_id.finish())
}

/// Types of an `_id` that no filter takes for an operator or a pattern.
const PLAIN: [u8; 11] = [0x01, 0x02, 0x05, 0x07, 0x08, 0x09, 0x10, TIMESTAMP, 0x12, 0x13, 0x7f];

/// Whether an `_id` means itself in every filter, in a list of them as well. `id` is a document
/// `{_id: …}`.
#[must_use]
pub fn is_plain_id(id: &RawDocument) -> bool {
    field(id, "_id").is_some_and(|id| PLAIN.contains(&id.kind))
}

/// A filter on one `_id`, whatever it holds. Most are given as they are, which the server looks up
/// without planning; documents and what else could mean something by `$eq`, which takes them as
/// values. `id` is a document `{_id: …}`.
#[must_use]
pub fn by_id(id: &RawDocument) -> RawDocumentBuf {
    let mut filter = Writer::default();
    match field(id, "_id") {
        Some(id) => push_value(&mut filter, &id),
        // Such a document does not exist: an empty value meets none.
        None => filter.push(DOCUMENT, b"_id", Writer::default().finish().as_bytes()),
    }
    filter.finish()
}

/// A filter on the values of these fields, whatever they hold: those of a document's key. A null
/// stands for a missing one too.
#[must_use]
pub fn by_values(key: &RawDocument) -> RawDocumentBuf {
    let mut filter = Writer::default();
    for field in elements(key) {
        push_value(&mut filter, &field);
    }
    filter.finish()
}

fn push_value(filter: &mut Writer, field: &Element<'_>) {
    if PLAIN.contains(&field.kind) {
        return filter.push(field.kind, field.name, field.value);
    }
    let mut equals = Writer::default();
    equals.push(field.kind, b"$eq", field.value);
    filter.push(DOCUMENT, field.name, equals.finish().as_bytes());
}

/// A filter on several `_id`s, each a document `{_id: …}`.
#[must_use]
pub fn by_ids<'a>(ids: impl IntoIterator<Item = &'a RawDocument>) -> RawDocumentBuf {
    let mut list = Writer::default();
    for (place, id) in ids.into_iter().filter_map(|id| field(id, "_id")).enumerate() {
        list.push(id.kind, place.to_string().as_bytes(), id.value);
    }
    let mut any = Writer::default();
    any.push(ARRAY, b"$in", list.finish().as_bytes());
    let mut filter = Writer::default();
    filter.push(DOCUMENT, b"_id", any.finish().as_bytes());
    filter.finish()
}

/// Whether a document has a field `Timestamp(0, 0)` at its top, besides `_id`: a server that
/// inserts such a document, or puts it in another's place, writes its own time there (server
/// manual, "Timestamps").
#[must_use]
pub fn has_zero_timestamp(document: &RawDocument) -> bool {
    // Eight zero bytes are seldom in a document, and found faster than its fields are walked.
    has_zeros(document.as_bytes())
        && elements(document)
            .any(|field| field.kind == TIMESTAMP && field.value == [0; 8] && field.name != b"_id")
}

/// Fields of one document up to which names are compared each with each: of more, a set is faster.
const FEW_FIELDS: usize = 32;

/// Whether a name occurs twice in a document, or in one within it.
#[must_use]
pub fn has_doubled_names(document: &RawDocument) -> bool {
    any_doubled(document, true)
}

fn any_doubled(document: &RawDocument, is_document: bool) -> bool {
    let mut names: [&[u8]; FEW_FIELDS] = [&[]; FEW_FIELDS];
    let mut many: Option<std::collections::HashSet<&[u8]>> = None;
    for (count, field) in elements(document).enumerate() {
        if is_document {
            if count < FEW_FIELDS {
                if names[..count].contains(&field.name) {
                    return true;
                }
                names[count] = field.name;
            } else if !many.get_or_insert_with(|| names.into_iter().collect()).insert(field.name) {
                return true;
            }
        }
        if let Some(inner) = field.document()
            && any_doubled(inner, field.kind == DOCUMENT)
        {
            return true;
        }
    }
    false
}

/// Whether eight zero bytes follow each other. Of eight bytes one lies at each multiple of eight
/// from wherever one begins.
fn has_zeros(bytes: &[u8]) -> bool {
    let mut at = 7;
    while let Some(&byte) = bytes.get(at) {
        if byte == 0 {
            let start = bytes[..at].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let run = bytes[start..].iter().take_while(|&&byte| byte == 0).count();
            if run >= 8 {
                return true;
            }
            at = start + run + 7;
        } else {
            at += 8;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{
        Writer, by_id, by_ids, elements, field, has_doubled_names, has_zero_timestamp, has_zeros,
        id_of,
    };
    use mongodb::bson::spec::BinarySubtype;
    use mongodb::bson::{
        Binary, Bson, DateTime, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp, cstr,
        doc, oid::ObjectId, rawdoc,
    };

    #[test]
    fn every_type_is_stepped_over() {
        let decimal: mongodb::bson::Decimal128 = "1.5".parse().expect("a decimal");
        let document = doc! {
            "a": 1.0, "b": "text", "c": { "x": 1 }, "d": [1, 2], "e": Binary {
                subtype: BinarySubtype::BinaryOld, bytes: vec![1, 2],
            },
            "f": Bson::Undefined, "g": ObjectId::new(), "h": true, "i": DateTime::from_millis(1),
            "j": Bson::Null,
            "k": Regex { pattern: cstr!("a.*").to_owned(), options: cstr!("i").to_owned() },
            "m": Bson::JavaScriptCode("x".into()), "n": Bson::Symbol("s".into()),
            "o": JavaScriptCodeWithScope {
                code: "x".into(), scope: doc! { "y": 1 },
            }, "p": 1, "q": Timestamp { time: 0, increment: 0 },
            "r": 1_i64, "s": decimal, "t": Bson::MinKey, "u": Bson::MaxKey,
        };
        let raw = RawDocumentBuf::try_from(&document).expect("a document");
        let mut with_pointer = Writer::default();
        with_pointer.push(0x0c, b"pointer", b"\x02\0\0\0a\0............");
        elements(&raw)
            .for_each(|element| with_pointer.push(element.kind, element.name, element.value));
        let raw = with_pointer.finish();
        let names: Vec<_> = elements(&raw).skip(1).map(|element| element.name.to_vec()).collect();
        assert_eq!(names, document.keys().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>());
        let mut again = Writer::default();
        elements(&raw).for_each(|element| again.push(element.kind, element.name, element.value));
        assert_eq!(again.finish(), raw);
        assert!(has_zero_timestamp(&raw));
    }

    #[test]
    fn ids_that_are_no_text_are_carried() {
        let mut document = Writer::default();
        document.push(0x02, b"\xff", b"\x02\0\0\0\xff\0");
        document.push(0x02, b"_id", b"\x02\0\0\0\xfe\0");
        let document = document.finish();
        let id = id_of(&document).expect("an _id");
        assert_eq!(field(&id, "_id").expect("an _id").value, b"\x02\0\0\0\xfe\0");
        let filter = by_id(&id);
        assert_eq!(field(&filter, "_id").expect("a value").value, b"\x02\0\0\0\xfe\0");
        assert_eq!(
            by_id(&rawdoc! { "_id": { "$gt": 1 } }),
            rawdoc! { "_id": { "$eq": { "$gt": 1 } } }
        );
        assert_eq!(by_id(&rawdoc! { "_id": 1.5 }), rawdoc! { "_id": 1.5 });
        assert_eq!(
            by_ids([&*rawdoc! { "_id": 1 }, &*rawdoc! { "_id": "a" }]),
            rawdoc! { "_id": { "$in": [1, "a"] } }
        );
    }

    #[test]
    fn names_that_occur_twice_are_found_at_every_depth() {
        let twice = |names: &[String]| {
            let mut document = Writer::default();
            names.iter().for_each(|name| document.push(0x0a, name.as_bytes(), &[]));
            document.finish()
        };
        let many: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
        assert!(!has_doubled_names(&twice(&many)));
        for place in [0, 20, 31, 32, 50, 98] {
            let mut names = many.clone();
            names[99].clone_from(&many[place]);
            assert!(has_doubled_names(&twice(&names)), "{place}");
            assert!(has_doubled_names(&rawdoc! { "a": [1, { "b": twice(&names) }] }));
        }
        assert!(!has_doubled_names(&rawdoc! { "a": { "a": 1 }, "b": [{ "a": 1 }, { "a": 1 }] }));
    }

    #[test]
    fn a_zero_timestamp_is_found_at_the_top_alone() {
        let zero = Timestamp { time: 0, increment: 0 };
        assert!(has_zero_timestamp(&rawdoc! { "_id": 1, "at": zero }));
        assert!(!has_zero_timestamp(
            &rawdoc! { "_id": zero, "n": { "at": zero }, "zero": 0.0, "long": 0_i64 }
        ));
        assert!(!has_zero_timestamp(
            &rawdoc! { "_id": 1, "at": Timestamp { time: 0, increment: 1 } }
        ));
    }

    #[test]
    fn runs_of_zeros_are_found_wherever_they_begin() {
        for before in 0..20 {
            for run in 0..12 {
                let mut bytes = vec![1_u8; before];
                bytes.extend(std::iter::repeat_n(0, run));
                bytes.extend([1; 9]);
                assert_eq!(has_zeros(&bytes), run >= 8, "{before} {run}");
            }
        }
    }
}
