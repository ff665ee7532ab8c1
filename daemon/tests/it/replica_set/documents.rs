//! Documents arrive byte for byte, whatever they hold: by the copy, and by each kind of event that
//! reports one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use daemon::engine::element::{self, Writer};
use daemon::engine::tuning::Tuning;
use mongodb::bson::{Bson, Decimal128, Document, RawDocumentBuf, doc, rawdoc};
use schemas::spec::{MigrationSpec, VerifyMode, VerifySpec};

use super::harness::{Pair, Run, classic_update, delete, insert, put, run, tiny, update};
use rig::replica_set::Options;

/// A document with these fields behind its `_id`.
fn document(id: &str, fields: &[(u8, &[u8], Vec<u8>)]) -> RawDocumentBuf {
    let mut made = Writer::default();
    made.push(0x02, b"_id", &text(id.as_bytes()));
    for (kind, name, value) in fields {
        made.push(*kind, name, value);
    }
    made.finish()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len() + 1).expect("a short text");
    [&length.to_le_bytes()[..], bytes, &[0]].concat()
}

fn binary(subtype: u8, bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).expect("a short binary");
    [&length.to_le_bytes()[..], &[subtype], bytes].concat()
}

fn nested(fields: &[(u8, &[u8], Vec<u8>)]) -> Vec<u8> {
    let mut made = Writer::default();
    fields.iter().for_each(|(kind, name, value)| made.push(*kind, name, value));
    made.finish().into_bytes()
}

fn decimal(text: &str) -> Vec<u8> {
    text.parse::<Decimal128>().expect("a decimal").bytes().to_vec()
}

/// The valid canonical cases of the drivers' BSON corpus by their structure, and values beside
/// them: name, type, bytes.
fn values() -> Vec<(String, u8, Vec<u8>)> {
    let mut values: Vec<(String, u8, Vec<u8>)> = Vec::new();
    let mut add =
        |name: &str, kind: u8, bytes: Vec<u8>| values.push((name.to_owned(), kind, bytes));
    // Doubles, NaNs with other payloads and signs among them.
    for (name, bits) in [
        ("1.0", 1.0_f64.to_bits()),
        ("-1.0", (-1.0_f64).to_bits()),
        ("1.0001220703125", 1.000_122_070_312_5_f64.to_bits()),
        ("1.2345678921232E+18", 1.234_567_892_123_2e18_f64.to_bits()),
        ("0.0", 0),
        ("-0.0", 1 << 63),
        ("NaN", 0x7ff8_0000_0000_0000),
        ("NaN with payload", 0x7ff8_0000_0000_0012),
        ("signalling NaN", 0x7ff0_0000_0000_0001),
        ("negative NaN", 0xfff8_0000_0000_0000),
        ("inf", f64::INFINITY.to_bits()),
        ("-inf", f64::NEG_INFINITY.to_bits()),
        ("denormal", 1),
        ("0.5", 0.5_f64.to_bits()),
        ("-1.5", (-1.5_f64).to_bits()),
        ("1e300", 1e300_f64.to_bits()),
        ("largest", f64::MAX.to_bits()),
    ] {
        add(&format!("double {name}"), 0x01, bits.to_le_bytes().to_vec());
    }
    // Texts, symbols, code.
    let texts: [(&str, &[u8]); 9] = [
        ("empty", b""),
        ("single", b"b"),
        ("multi", b"abababababab"),
        ("two-byte", "\u{e9}".repeat(6).as_bytes().to_vec().leak()),
        ("three-byte", "\u{2606}".repeat(4).as_bytes().to_vec().leak()),
        ("embedded nulls", b"ab\0bab\0babab"),
        ("escapes", b"\\\"\x01\x02\x1f\x7f/\t\n"),
        ("not UTF-8", b"\xff\xfe\xc3("),
        ("surrogate", b"\xed\xa0\x80"),
    ];
    for (name, bytes) in texts {
        add(&format!("string {name}"), 0x02, text(bytes));
        add(&format!("symbol {name}"), 0x0e, text(bytes));
        add(&format!("code {name}"), 0x0d, text(bytes));
        for (scope_name, scope) in
            [("no", nested(&[])), ("a", nested(&[(0x10, b"x", vec![1, 0, 0, 0])]))]
        {
            let body = [text(bytes), scope].concat();
            let length = i32::try_from(body.len() + 4).expect("short").to_le_bytes();
            add(
                &format!("code {name} with {scope_name} scope"),
                0x0f,
                [&length[..], &body].concat(),
            );
        }
        add(&format!("pointer {name}"), 0x0c, [text(bytes), vec![7; 12]].concat());
    }
    // Documents and arrays, with names that are empty, dotted, dollared, doubled or no UTF-8.
    let one = || vec![1, 0, 0, 0];
    let names: [(&str, &[&[u8]]); 12] = [
        ("without fields", &[]),
        ("empty name", &[b""]),
        ("single-character name", &[b"x"]),
        ("dollar-prefixed", &[b"$a"]),
        ("dollar", &[b"$"]),
        ("dotted", &[b"a.b"]),
        ("dot", &[b"."]),
        ("twice the same", &[b"a", b"a"]),
        ("numeric", &[b"1", b"0"]),
        ("DBRef", &[b"$ref", b"$id", b"$db"]),
        ("names that are no UTF-8", &[b"\xff\xfe"]),
        ("like extended JSON", &[b"$numberInt", b"$oid", b"$date", b"$symbol"]),
    ];
    for (name, fields) in names {
        let fields: Vec<(u8, &[u8], Vec<u8>)> =
            fields.iter().map(|field| (0x10, *field, one())).collect();
        add(&format!("document {name}"), 0x03, nested(&fields));
        add(&format!("array of document {name}"), 0x04, nested(&[(0x03, b"0", nested(&fields))]));
    }
    for number in [1.5, f64::NAN, 1e300] {
        add(
            &format!("document of {number}"),
            0x03,
            nested(&[(0x01, b"x", number.to_le_bytes().to_vec())]),
        );
    }
    add("array empty", 0x04, nested(&[]));
    add("array single", 0x04, nested(&[(0x10, b"0", one())]));
    add(
        "array of arrays",
        0x04,
        nested(&[(0x04, b"0", nested(&[(0x04, b"0", nested(&[]))])), (0x04, b"1", nested(&[]))]),
    );
    // Binaries of every subtype that is defined, and user-defined ones.
    for subtype in [0x00, 0x01, 0x03, 0x04, 0x05, 0x07, 0x08, 0x09, 0x80, 0xff] {
        add(&format!("binary {subtype}"), 0x05, binary(subtype, &[0x73; 16]));
    }
    add("binary 0 empty", 0x05, binary(0, &[]));
    add("binary 2", 0x05, binary(2, &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
    add("binary 2 empty", 0x05, binary(2, &[0, 0, 0, 0]));
    // Whole numbers, times, decimals.
    for number in [i32::MIN, -1, 0, 1, i32::MAX] {
        add(&format!("int {number}"), 0x10, number.to_le_bytes().to_vec());
    }
    for number in [i64::MIN, -1, 0, 1, i64::MAX] {
        add(&format!("long {number}"), 0x12, number.to_le_bytes().to_vec());
        add(&format!("date {number}"), 0x09, number.to_le_bytes().to_vec());
    }
    for number in [1_356_351_330_500_i64, -284_643_869_501, 253_402_300_800_000] {
        add(&format!("date {number}"), 0x09, number.to_le_bytes().to_vec());
    }
    for (t, i) in [
        (0_u32, 0_u32),
        (0, 1),
        (1, 0),
        (123_456_789, 42),
        (4_000_000_000, 4_000_000_000),
        (u32::MAX, u32::MAX),
    ] {
        add(
            &format!("timestamp {t} {i}"),
            0x11,
            (u64::from(t) << 32 | u64::from(i)).to_le_bytes().to_vec(),
        );
    }
    for text in [
        "NaN",
        "Infinity",
        "-Infinity",
        "0",
        "-0",
        "-0E+3",
        "0E-6176",
        "0E+6111",
        "0.000001234567890123456789012345678901234",
        "1E-6176",
        "9.999999999999999999999999999999999E+6144",
        "-9.999999999999999999999999999999999E+6144",
        "1.000000000000000000000000000000000E+6144",
        "0.1",
        "0.10",
        "1E+3",
        "1.000E+3",
        "12345678901234567",
        "1234567890123456789012345678901234",
        "-1E-27",
        "5.192296858534827628530496329220095E+33",
    ] {
        add(&format!("decimal {text}"), 0x13, decimal(text));
    }
    for (name, high) in [
        ("NaN with payload", 0x7c00_0000_0000_0012_u64),
        ("negative NaN", 0xfc00_0000_0000_0000),
        ("signalling NaN", 0x7e00_0000_0000_0000),
    ] {
        add(&format!("decimal {name}"), 0x13, [7_u64.to_le_bytes(), high.to_le_bytes()].concat());
    }
    // A coefficient beyond 34 digits: not canonical, and read as zero.
    add(
        "decimal non-canonical",
        0x13,
        [u64::MAX.to_le_bytes(), 0x6c10_ffff_ffff_ffff_u64.to_le_bytes()].concat(),
    );
    // The rest.
    add("undefined", 0x06, vec![]);
    add("null", 0x0a, vec![]);
    add("min key", 0xff, vec![]);
    add("max key", 0x7f, vec![]);
    add("true", 0x08, vec![1]);
    add("false", 0x08, vec![0]);
    for id in [[0; 12], [255; 12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]] {
        add(&format!("ObjectId {}", id[0]), 0x07, id.to_vec());
    }
    let regexes: [(&[u8], &[u8]); 6] = [
        (b"", b""),
        (b"abc", b""),
        (b"abc", b"imx"),
        (b"ab/cd", b"s"),
        (b"abc$\"", b""),
        (b"\xff", b"i"),
    ];
    for (pattern, options) in regexes {
        add(
            &format!("regex {} {}", String::from_utf8_lossy(pattern), options.len()),
            0x0b,
            [pattern, b"\0", options, b"\0"].concat(),
        );
    }
    values
}

/// Documents of every kind of value, and some whose own shape is odd. None is over 16 MB together.
fn documents() -> Vec<RawDocumentBuf> {
    let values = values();
    let mut documents: Vec<RawDocumentBuf> = values
        .iter()
        .map(|(name, kind, bytes)| document(name, &[(*kind, b"value", bytes.clone())]))
        .collect();
    // All of them in one, in both orders, and in an array.
    let fields = |reverse: bool| {
        let mut fields: Vec<(u8, &[u8], Vec<u8>)> = values
            .iter()
            .map(|(name, kind, bytes)| (*kind, name.as_bytes(), bytes.clone()))
            .collect();
        if reverse {
            fields.reverse();
        }
        fields
    };
    documents.push(document("every value", &fields(false)));
    documents.push(document("every value, the other way round", &fields(true)));
    let places: Vec<Vec<u8>> =
        (0..values.len()).map(|place| place.to_string().into_bytes()).collect();
    let items: Vec<(u8, &[u8], Vec<u8>)> = values
        .iter()
        .zip(&places)
        .map(|((_, kind, bytes), place)| (*kind, place.as_slice(), bytes.clone()))
        .collect();
    documents.push(document("an array of every value", &[(0x04, b"items", nested(&items))]));
    let one = || vec![1, 0, 0, 0];
    documents.push(document(
        "odd names at the top",
        &[
            (0x10, b"", one()),
            (0x10, b"$a", one()),
            (0x10, b"a.b", one()),
            (0x03, b"a", nested(&[(0x10, b"b", one())])),
            (0x10, b"\xff", one()),
        ],
    ));
    documents.push(document(
        "a name twice",
        &[(0x10, b"a", one()), (0x02, b"a", text(b"x")), (0x10, b"a", vec![2, 0, 0, 0])],
    ));
    documents.push(document("nothing else", &[]));
    let deep = (0..150).fold(nested(&[]), |inner, _| nested(&[(0x03, b"d", inner)]));
    documents.push(document("150 deep", &[(0x03, b"d", deep)]));
    // Zero timestamps at the top, which a server fills in where a document is inserted or put in
    // another's place.
    let zero = || vec![0; 8];
    documents.push(document(
        "zero timestamps",
        &[
            (0x11, b"a", zero()),
            (0x10, b"n", one()),
            (0x11, b"b", zero()),
            (0x03, b"c", nested(&[(0x11, b"d", zero())])),
        ],
    ));
    documents
}

/// `_id`s of every type that the server takes. Left out: a DBPointer whose namespace holds a NUL,
/// which the server itself cuts there in its change events.
fn ids() -> Vec<RawDocumentBuf> {
    let not_an_id = |kind: u8, name: &str| match kind {
        0x04 | 0x06 | 0x0b => true,
        0x03 => ["dollar", "DBRef", "extended"].iter().any(|word| name.contains(word)),
        0x0c => name.contains("nulls"),
        _ => false,
    };
    let mut documents = Vec::new();
    for (name, kind, bytes) in values() {
        if not_an_id(kind, &name) {
            continue;
        }
        let mut made = Writer::default();
        made.push(kind, b"_id", &bytes);
        made.push(0x02, b"name", &text(name.as_bytes()));
        documents.push(made.finish());
    }
    documents
}

/// What stands in a document's place before.
fn stub(document: &RawDocumentBuf) -> RawDocumentBuf {
    let mut stub = daemon::engine::element::id_of(document).expect("an _id");
    stub.append(mongodb::bson::cstr!("old"), rawdoc! { "a": 1, "list": [1, 2, 3] });
    stub.append(mongodb::bson::cstr!("value"), "old");
    stub
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_every_kind_arrive_byte_for_byte() -> Result<()> {
    let pair = Pair::start().await?;
    for tuning in [Tuning::default(), tiny()] {
        let documents = documents();
        let stubs: Vec<_> = documents.iter().map(stub).collect();
        put(&pair.from, "copied", "documents", &documents).await?;
        for name in ["replaced", "changed", "again", "gone"] {
            insert(&pair.from, "tailed", name, &stubs).await?;
        }
        let mut run = Run::start_with(&pair, pair.spec(), tuning).await?;
        run.caught_up().await?;
        insert(&pair.from, "tailed", "inserted", &documents).await?;
        put(&pair.from, "tailed", "upserted", &documents).await?;
        put(&pair.from, "tailed", "replaced", &documents).await?;
        for document in &documents {
            if element::has_doubled_names(document) {
                let set =
                    rawdoc! { "$set": { "old": document.clone(), "more": [document.clone()] } };
                classic_update(&pair.from, "tailed", "changed", document, &set).await?;
                classic_update(
                    &pair.from,
                    "tailed",
                    "changed",
                    document,
                    &rawdoc! { "$unset": { "old.a": 1 }, "$set": { "n": 1 } },
                )
                .await?;
                continue;
            }
            let set = rawdoc! {
                "$set": {
                    "old": { "$literal": document.clone() },
                    "more": [{ "$literal": document.clone() }],
                }
            };
            update(&pair.from, "tailed", "changed", document, &[set]).await?;
        }
        delete(&pair.from, "tailed", "again", &stubs).await?;
        insert(&pair.from, "tailed", "again", &documents).await?;
        delete(&pair.from, "tailed", "gone", &stubs).await?;
        let report = run.prove(&pair).await?;
        ensure!(report.source_documents == 6 * documents.len() as u64, "{report}");
        pair.clear().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_every_type_are_carried() -> Result<()> {
    let pair = Pair::start().await?;
    for tuning in [Tuning::default(), tiny()] {
        let ids = ids();
        // What is equal to the server cannot be in one collection: each goes into the first that
        // takes it.
        let mut places = Vec::new();
        for id in &ids {
            let one = std::slice::from_ref(id);
            let mut place = 0;
            while insert(&pair.from, "ids", &format!("copied_{place}"), one).await.is_err() {
                place += 1;
            }
            for name in ["replaced", "again", "gone"] {
                insert(&pair.from, "ids", &format!("{name}_{place}"), &[stub(id)]).await?;
            }
            places.push((id, place));
        }
        ensure!(places.iter().any(|(_, place)| *place > 3), "many NaNs are one key");
        let mut run = Run::start_with(&pair, pair.spec(), tuning).await?;
        run.caught_up().await?;
        for (id, place) in &places {
            let one = std::slice::from_ref(*id);
            let collection = |name: &str| format!("{name}_{place}");
            insert(&pair.from, "ids", &collection("inserted"), one).await?;
            // The driver does not read the reply that reports an `_id` that is no UTF-8.
            if classic_update(&pair.from, "ids", &collection("upserted"), id, id).await.is_err() {
                let _ = insert(&pair.from, "ids", &collection("upserted"), one).await;
            }
            classic_update(&pair.from, "ids", &collection("replaced"), id, id).await?;
            classic_update(
                &pair.from,
                "ids",
                &collection("replaced"),
                id,
                &rawdoc! { "$set": { "n": 1 }, "$rename": { "name": "called" } },
            )
            .await?;
            delete(&pair.from, "ids", &collection("again"), one).await?;
            insert(&pair.from, "ids", &collection("again"), one).await?;
            delete(&pair.from, "ids", &collection("gone"), one).await?;
        }
        // One document to the server, whose form changes again and again.
        for _ in 0..3 {
            for id in &ids {
                let one = std::slice::from_ref(id);
                let _ = delete(&pair.from, "ids", "forms", one).await;
                insert(&pair.from, "ids", "forms", one).await?;
            }
        }
        run.prove(&pair).await?;
        pair.clear().await?;
    }
    Ok(())
}

/// Waits until the destination has so many documents in these collections.
async fn arrived(pair: &Pair, names: &[String], documents: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut there = 0;
        for name in names {
            there += pair
                .to
                .database("ids")
                .collection::<Document>(name)
                .count_documents(doc! {})
                .await?;
        }
        if there >= documents {
            return Ok(());
        }
        ensure!(
            began.elapsed() < Duration::from_secs(120),
            "{there} of {documents} documents arrived"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A clustered collection answers a duplicate of many an `_id` with the code of a number that it
/// fails to decode. What is written twice, after a reply that was lost or by a daemon that was
/// killed, is met there all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clustered_ids_of_every_type_are_carried_through_lost_replies_and_kills() -> Result<()> {
    let pair = Pair::start().await?;
    let ids = ids();
    // What is equal to the server cannot be in one collection: each goes into the first that takes
    // it.
    let mut places: Vec<usize> = Vec::new();
    let mut made = 0;
    for id in &ids {
        let mut place = 0;
        loop {
            if place == made {
                for name in ["copied", "inserted", "again"] {
                    let clustered = doc! { "key": { "_id": 1 }, "unique": true };
                    run(
                        &pair.from,
                        "ids",
                        doc! { "create": format!("{name}_{place}"), "clusteredIndex": clustered },
                    )
                    .await?;
                }
                made += 1;
            }
            if insert(&pair.from, "ids", &format!("copied_{place}"), std::slice::from_ref(id))
                .await
                .is_ok()
            {
                break;
            }
            place += 1;
        }
        insert(&pair.from, "ids", &format!("again_{place}"), &[stub(id)]).await?;
        places.push(place);
    }
    ensure!(made > 3, "many NaNs are one key");
    let of = |name: &str| (0..made).map(|place| format!("{name}_{place}")).collect::<Vec<_>>();
    let all = ids.len() as u64;
    let lose_replies = async |on: bool| {
        let data = doc! {
            "failCommands": ["insert"], "writeConcernError": {
                "code": 91, "errmsg": "lost",
            }, "appName": "cutover",
        };
        let mode = if on { "alwaysOn" } else { "off" };
        run(
            &pair.to,
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data },
        )
        .await
    };
    let spec = MigrationSpec { verify: VerifySpec { mode: VerifyMode::Full }, ..pair.spec() };
    lose_replies(true).await?;
    let mut sync = Run::start_with(&pair, spec, Tuning::default()).await?;
    // The first batch of each collection, which is written again and again.
    arrived(&pair, &[of("copied"), of("again")].concat(), all).await?;
    lose_replies(false).await?;
    sync.kill().await?;
    sync.caught_up().await?;
    lose_replies(true).await?;
    for (id, place) in ids.iter().zip(&places) {
        let one = std::slice::from_ref(id);
        insert(&pair.from, "ids", &format!("inserted_{place}"), one).await?;
        delete(&pair.from, "ids", &format!("again_{place}"), one).await?;
        insert(&pair.from, "ids", &format!("again_{place}"), one).await?;
    }
    arrived(&pair, &of("inserted")[..1], 1).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    lose_replies(false).await?;
    sync.kill().await?;
    let report = sync.prove(&pair).await?;
    ensure!(report.source_documents == 3 * all, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_under_a_collation_are_carried() -> Result<()> {
    let pair = Pair::start().await?;
    let collation = doc! { "locale": "en", "strength": 1 };
    let texts = ["a", "A", "\u{e1}", "\u{c1}", "b", "\u{df}", "SS", "1", "01", ""];
    let document = |id: Bson, n: i32| {
        RawDocumentBuf::try_from(&doc! { "_id": id, "n": n }).expect("a document")
    };
    for name in ["copied", "tailed"] {
        pair.from
            .database("collated")
            .run_command(doc! { "create": name, "collation": collation.clone() })
            .await?;
    }
    insert(
        &pair.from,
        "collated",
        "copied",
        &[document("a".into(), 0), document(doc! { "k": "b" }.into(), 1), document(1.into(), 2)],
    )
    .await?;
    let mut run = Run::start_with(&pair, pair.spec(), tiny()).await?;
    run.caught_up().await?;
    pair.from
        .database("collated")
        .run_command(doc! { "create": "later", "collation": collation.clone() })
        .await?;
    for round in 0..5 {
        for (place, name) in texts.iter().enumerate() {
            for collection in ["copied", "tailed", "later"] {
                for id in [Bson::from(*name), doc! { "k": *name }.into()] {
                    let one = [document(id, round * 100 + i32::try_from(place)?)];
                    let _ = delete(&pair.from, "collated", collection, &one).await;
                    insert(&pair.from, "collated", collection, &one).await?;
                }
            }
        }
    }
    run.prove(&pair).await?;
    Ok(())
}

/// A document of so many bytes.
fn of_size(id: &str, bytes: usize) -> RawDocumentBuf {
    let bare = document(id, &[(0x05, b"filler", binary(0, &[]))]).as_bytes().len();
    document(id, &[(0x05, b"filler", binary(0, &vec![0x5a; bytes - bare]))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_16_mb_are_carried() -> Result<()> {
    const MOST: usize = 16 << 20;
    // A server lets no transaction, and each update is one, fill much of its cache.
    let options = Options { cache_gb: 1.0, ..Options::default() };
    let pair = Pair::start_with(options.clone(), options).await?;
    let long_id = "i".repeat(12_000);
    insert(
        &pair.from,
        "large",
        "copied",
        &[
            of_size("whole", MOST),
            of_size(&long_id, MOST),
            of_size("nine", 9 << 20),
            of_size("shrinks", MOST),
        ],
    )
    .await?;
    put(
        &pair.from,
        "large",
        "copied",
        &[document(
            "zero",
            &[(0x11, b"at", vec![0; 8]), (0x05, b"filler", binary(0, &vec![1; MOST - 100]))],
        )],
    )
    .await?;
    let mut run = Run::start(&pair).await?;
    run.caught_up().await?;
    let large = pair.from.database("large");
    // An event of the long `_id` with the whole document is over what the server sends: it is
    // reported without the content.
    insert(
        &pair.from,
        "large",
        "tailed",
        &[
            of_size("whole", MOST),
            of_size("small", 100),
            of_size(&long_id, MOST),
            of_size("after", 200),
        ],
    )
    .await?;
    let update = async |id: &str, update: mongodb::bson::Document| {
        large
            .collection::<mongodb::bson::Document>("copied")
            .update_one(doc! { "_id": id }, update)
            .await
    };
    let bytes = |count: usize| {
        Bson::Binary(mongodb::bson::Binary {
            subtype: mongodb::bson::spec::BinarySubtype::Generic,
            bytes: vec![7; count],
        })
    };
    update("nine", doc! { "$set": { "more": bytes((7 << 20) - 200) } }).await?;
    update("nine", doc! { "$inc": { "n": 1 } }).await?;
    update("shrinks", doc! { "$unset": { "filler": 1 }, "$set": { "a": 1 } }).await?;
    update("shrinks", doc! { "$set": { "grown": bytes(MOST - 200) } }).await?;
    update(&long_id, doc! { "$unset": { "filler": 1 } }).await?;
    update(&long_id, doc! { "$set": { "filler": bytes(MOST - 13_000) } }).await?;
    // Two deltas of one document that do not fit into one command.
    update("whole", doc! { "$set": { "filler": bytes(8 << 20) } }).await?;
    update("whole", doc! { "$set": { "filler": bytes(15 << 20) } }).await?;
    update("whole", doc! { "$set": { "filler": bytes(14 << 20) } }).await?;
    put(&pair.from, "large", "copied", &[of_size("zero", MOST)]).await?;
    run.prove(&pair).await?;
    Ok(())
}
