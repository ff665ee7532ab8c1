//! Faults planted on the destination, in every kind of collection: each is found and named, and
//! nothing else is.

use anyhow::Result;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype};
use mongodb::{Collection, Database};

use super::harness::{Pair, named};

/// Bytes of the large document of each collection.
const LARGE: usize = 3 << 20;

fn large(first: u8) -> Binary {
    let mut bytes = vec![7; LARGE];
    bytes[LARGE / 2] = first;
    Binary { subtype: BinarySubtype::Generic, bytes }
}

/// Makes the collections, and fills them. Of `_id`s each has 1 to 40, in the form that `id` gives.
async fn fill(db: &Database) -> Result<()> {
    let at = DateTime::from_millis(4_000_000_000_000);
    let options = [
        ("plain", doc! {}),
        ("capped", doc! { "capped": true, "size": 16 << 20 }),
        ("ttl", doc! {}),
        ("collated", doc! { "collation": { "locale": "en", "strength": 2 } }),
        ("clustered", doc! { "clusteredIndex": { "key": { "_id": 1 }, "unique": true } }),
    ];
    for (name, options) in options {
        let mut create = doc! { "create": name };
        create.extend(options);
        db.run_command(create).await?;
        let collection: Collection<Document> = db.collection(name);
        let documents = (1..=40)
            .map(|n| doc! { "_id": id(name, n), "n": n, "at": at, "b": { "c": n, "d": [1, n] } });
        collection.insert_many(documents).await?;
        collection
            .insert_one(doc! { "_id": id(name, 100), "n": 100, "at": at, "bytes": large(0) })
            .await?;
        let index = match name {
            "ttl" => doc! { "key": { "at": 1 }, "name": "at_1", "expireAfterSeconds": 60 },
            _ => doc! { "key": { "n": 1 }, "name": "n_1" },
        };
        db.run_command(doc! { "createIndexes": name, "indexes": [index] }).await?;
    }
    db.run_command(
        doc! { "create": "series", "timeseries": { "timeField": "at", "metaField": "meta" } },
    )
    .await?;
    let series: Collection<Document> = db.collection("series");
    let measured = (0..30).map(|n| {
        doc! {
            "at": DateTime::from_millis(1_700_000_000_000 + n * 1_000), "meta": n % 6, "v": n,
        }
    });
    series.insert_many(measured).await?;
    db.run_command(doc! {
        "createIndexes": "series",
        "indexes": [{ "key": { "meta": 1, "at": 1 }, "name": "meta_at" }],
    })
    .await?;
    Ok(())
}

/// An `_id` of a collection: strings where they compare by a collation.
fn id(name: &str, n: i32) -> Bson {
    if name == "collated" { Bson::String(format!("Key{n:03}")) } else { Bson::Int32(n) }
}

/// Plants one fault of each kind. Returns how they are to be named.
async fn plant(db: &Database, name: &str) -> Result<Vec<String>> {
    let copy: Collection<Document> = db.collection(name);
    let by = |n| doc! { "_id": id(name, n) };
    let original = copy.find_one(by(13)).await?.expect("it was copied");
    copy.delete_one(by(7)).await?;
    copy.insert_one(doc! { "_id": id(name, 999), "stranger": true }).await?;
    copy.update_one(by(100), doc! { "$set": { "bytes": large(1) } }).await?;
    let other_order: Document = std::iter::once(("_id".to_owned(), id(name, 13)))
        .chain(
            original
                .into_iter()
                .filter(|(key, _)| key != "_id")
                .collect::<Vec<_>>()
                .into_iter()
                .rev(),
        )
        .collect();
    copy.replace_one(by(13), other_order).await?;
    copy.update_one(by(11), doc! { "$set": { "n": 11_i64 } }).await?;
    let index = if name == "ttl" { "at_1" } else { "n_1" };
    copy.drop_index(index).await?;
    db.run_command(doc! { "collMod": name, "validator": { "n": { "$exists": true } } }).await?;
    let text = |n| id(name, n).to_string();
    Ok(sorted([
        format!("missing {}", text(7)),
        format!("extra {}", text(999)),
        format!("different {} bytes", text(100)),
        format!("different {} (field order)", text(13)),
        format!("different {} n", text(11)),
        format!("indexes - {index}"),
        "options - validator".to_owned(),
    ]))
}

fn sorted(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    lines
}

/// The same on the buckets of a time-series collection, whose `_id`s stand for the measurements in
/// them.
async fn plant_in_buckets(db: &Database) -> Result<Vec<String>> {
    let buckets: Collection<Document> = db.collection("system.buckets.series");
    let mut ids = Vec::new();
    for meta in 0..4 {
        let bucket = buckets.find_one(doc! { "meta": meta }).await?.expect("a bucket of each");
        ids.push(bucket.get_object_id("_id")?);
    }
    buckets.delete_one(doc! { "_id": ids[0] }).await?;
    buckets.update_one(doc! { "_id": ids[1] }, doc! { "$set": { "data.v.0": 77_i64 } }).await?;
    let control = buckets.find_one(doc! { "_id": ids[2] }).await?.expect("it is there");
    let other_order: Document = control
        .into_iter()
        .map(|(key, value)| match value {
            Bson::Document(inner) if key == "data" => (
                key,
                Bson::Document(inner.into_iter().collect::<Vec<_>>().into_iter().rev().collect()),
            ),
            value => (key, value),
        })
        .collect();
    buckets.replace_one(doc! { "_id": ids[2] }, other_order).await?;
    let stranger =
        doc! { "at": DateTime::from_millis(1_800_000_000_000), "meta": "stranger", "v": 1 };
    db.collection::<Document>("series").insert_one(stranger).await?;
    let extra = buckets
        .find_one(doc! { "meta": "stranger" })
        .await?
        .expect("its bucket")
        .get_object_id("_id")?;
    let text = |id: mongodb::bson::oid::ObjectId| Bson::ObjectId(id).to_string();
    Ok(sorted([
        format!("missing {}", text(ids[0])),
        format!("different {} data.v.0", text(ids[1])),
        format!("different {} data", text(ids[2])),
        format!("extra {}", text(extra)),
    ]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_named_in_every_kind_of_collection() -> Result<()> {
    let pair = Pair::start().await?;
    fill(&pair.from.database("planted")).await?;
    let mut run = pair.run().await?;
    run.until_clean().await?;
    assert_eq!(run.engine.mismatches(10).await?, []);
    run.stop().await;

    // Before anything was compared: a run from the same checkpoints compares anew.
    std::fs::remove_file(pair.dir.path().join("verification.db"))?;
    let theirs = pair.to.database("planted");
    let mut wanted = Vec::new();
    for name in ["plain", "capped", "ttl", "collated", "clustered"] {
        wanted.push((format!("planted.{name}"), plant(&theirs, name).await?));
    }
    wanted.push(("planted.system.buckets.series".to_owned(), plant_in_buckets(&theirs).await?));
    theirs.run_command(doc! { "dropIndexes": "series", "index": "meta_at" }).await?;
    wanted.push(("planted.series".to_owned(), vec!["indexes - meta_at".to_owned()]));
    let count = wanted.iter().map(|(_, lines)| lines.len()).sum();

    let mut run = pair.run().await?;
    let found = run.mismatches(count).await?;
    for (namespace, lines) in &wanted {
        assert_eq!(named(&found, namespace), *lines, "{namespace}");
    }
    assert_eq!(found.len(), count, "{found:?}");
    run.until("mismatches keep it from being ready", |run| {
        run.blockers.iter().any(|why| why.contains("mismatches are open"))
    })
    .await?;
    assert_eq!(run.engine.progress().verification.phase, "mismatch");
    run.stop().await;
    Ok(())
}
