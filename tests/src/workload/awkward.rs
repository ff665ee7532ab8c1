//! Documents that migration tools are known to lose or change: odd `_id`s, odd types, bytes that do
//! not decode.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp,
    cstr, doc,
};

/// `_id`s of every type that the server takes, and values that sort or compare oddly.
pub(super) fn ids() -> Vec<Bson> {
    let decimal =
        |text: &str| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal written here"));
    let mut ids = vec![
        Bson::MinKey,
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Double(f64::INFINITY),
        // Equal to no other number here: the server's index holds one of 0 and -0.0.
        Bson::Double(-0.0),
        Bson::Double(0.5),
        Bson::Double(1e300),
        Bson::Int32(i32::MIN),
        Bson::Int64(i64::MAX),
        decimal("1.10"),
        decimal("1E+6000"),
        "NaN".into(),
        "has NaN inside".into(),
        "".into(),
        "\u{0}zero\u{0}".into(),
        "Zürich 東京 🚢".into(),
        doc! {}.into(),
        doc! { "a": 1, "b": { "c": [1, 2] } }.into(),
        doc! { "b": 1, "a": 1 }.into(),
        Binary { subtype: BinarySubtype::Generic, bytes: Vec::new() }.into(),
        Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] }.into(),
        ObjectId::from_bytes([0; 12]).into(),
        ObjectId::from_bytes([255; 12]).into(),
        false.into(),
        true.into(),
        DateTime::from_millis(-1).into(),
        DateTime::from_millis(0).into(),
        Timestamp { time: 1, increment: 1 }.into(),
        Bson::JavaScriptCode("function () {}".into()),
        Bson::Symbol("symbol".into()),
        Bson::MaxKey,
    ];
    // Enough of each of the common types that a split collection has borders between types and
    // within them.
    for number in 1..60_i32 {
        ids.push(Bson::Int32(number * 4));
        ids.push(Bson::Int64(i64::from(number) * 4 + 1));
        ids.push(Bson::Double(f64::from(number) * 4.0 + 2.0));
        ids.push(decimal(&(number * 4 + 3).to_string()));
        ids.push(format!("text {number}").into());
        ids.push(doc! { "k": number }.into());
        ids.push(ObjectId::from_bytes([u8::try_from(number).expect("below 60"); 12]).into());
    }
    ids
}

/// Documents whose bytes must arrive as they are.
pub(super) fn documents() -> Vec<RawDocumentBuf> {
    let mut documents =
        vec![twice_the_same_field(), text_that_is_not_utf8(), dotted_and_dollared()];
    let plain = [
        doc! { "_id": "zeros", "negative": -0.0, "positive": 0.0, "int": 0, "long": 0_i64 },
        doc! { "_id": "numbers", "int": 1, "long": 1_i64, "double": 1.0,
            "decimal": "1.0".parse::<Decimal128>().expect("a decimal"),
        "nan": f64::NAN, "decimal_nan": "NaN".parse::<Decimal128>().expect("a decimal") },
        doc! { "_id": "old types", "symbol": Bson::Symbol("s".into()), "undefined": Bson::Undefined,
            "code": Bson::JavaScriptCode("1".into()),
        "scoped": JavaScriptCodeWithScope {
            code: "x".into(), scope: doc! { "x": 1 },
        }, "min": Bson::MinKey, "max": Bson::MaxKey },
        doc! {
            "_id": "regex",
            "regex": Regex {
                pattern: cstr!("^a.*b$").to_owned(), options: cstr!("imsx").to_owned(),
            },
        },
        doc! {
            "_id": "timestamps", "nested": { "zero": Timestamp { time: 0, increment: 0 } },
            "plain": Timestamp { time: 5, increment: 6 },
        },
        doc! { "_id": "empty", "": 1, "nothing": {}, "none": [], "null": Bson::Null },
        doc! {
            "_id": "arrays", "numeric": { "0": "a", "1": "b" }, "deep": [[[[1]]], { "0": [1] }],
            "holes": [Bson::Null, Bson::Undefined],
        },
        doc! { "_id": "order 1", "b": 1, "a": 2, "c": { "z": 1, "y": 2 } },
        doc! { "_id": "order 2", "a": 2, "b": 1, "c": { "y": 2, "z": 1 } },
    ];
    documents.extend(
        plain
            .into_iter()
            .map(|document| RawDocumentBuf::try_from(&document).expect("a document written here")),
    );
    documents
}

fn twice_the_same_field() -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), "twice the same field");
    document.append(cstr!("field"), 1_i32);
    document.append(cstr!("field"), "again");
    document
}

fn text_that_is_not_utf8() -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), "text that is not UTF-8");
    document.append(cstr!("text"), "bytes: ~~");
    let bytes = document
        .into_bytes()
        .into_iter()
        .map(|byte| if byte == b'~' { 0xFF } else { byte })
        .collect();
    RawDocumentBuf::from_bytes(bytes).expect("its length is unchanged")
}

fn dotted_and_dollared() -> RawDocumentBuf {
    let mut inner = RawDocumentBuf::new();
    inner.append(cstr!("$inner"), 1_i32);
    inner.append(cstr!("x.y"), 2_i32);
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), "dotted and dollared");
    document.append(cstr!("a.b"), 1_i32);
    document.append(cstr!("a"), inner);
    document
}
