//! The documents that are copied: three shapes, made fast, of content that compresses as ordinary
//! text does.

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mongodb::Client;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, RawArrayBuf, RawDocumentBuf, cstr, doc};

/// The database of what is copied.
pub(crate) const DB: &str = "shapes";
/// Insertions at once.
const WRITERS: usize = 2;
/// Bytes of one insertion.
const WEIGHT: usize = 1 << 20;

/// One shape's share in a GB: how many documents, and how large.
struct Shape {
    name: &'static str,
    documents: f64,
    bytes: usize,
    binary: bool,
}

/// As 2,000,000 of 200 B, 300,000 of 2 KB and 8,000 of 64 KB are in 1.5 GB.
const SHAPES: [Shape; 3] = [
    Shape { name: "small", documents: 2_000_000.0 / 1.5, bytes: 200, binary: false },
    Shape { name: "medium", documents: 300_000.0 / 1.5, bytes: 2_000, binary: false },
    Shape { name: "large", documents: 8_000.0 / 1.5, bytes: 64_000, binary: true },
];

/// Repeatable numbers, fast.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Words of a few letters.
    pub(crate) fn text(&mut self, bytes: usize) -> String {
        const SYLLABLES: [&str; 16] = [
            "ba", "cu", "di", "fo", "ga", "he", "ji", "ko", "lu", "me", "no", "pa", "ri", "su",
            "te ", "vo ",
        ];
        let mut text = String::with_capacity(bytes + 3);
        while text.len() < bytes {
            let mut bits = self.next();
            for _ in 0..16 {
                text.push_str(SYLLABLES[(bits & 15) as usize]);
                bits >>= 4;
            }
        }
        text.truncate(bytes);
        text
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

/// A document of the tail's collections.
pub(crate) fn small(id: i64, numbers: &mut Numbers) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), id);
    document.append(cstr!("n"), 0_i32);
    document.append(cstr!("customer"), numbers.below(50_000) as i64);
    document.append(cstr!("text"), numbers.text(140));
    document
}

fn document(shape: &Shape, id: i64, numbers: &mut Numbers) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), id);
    document.append(cstr!("customer"), numbers.below(50_000) as i64);
    document.append(
        cstr!("at"),
        DateTime::from_millis(1_700_000_000_000 + numbers.below(100_000_000_000) as i64),
    );
    document
        .append(cstr!("status"), ["open", "paid", "sent", "done"][(numbers.next() & 3) as usize]);
    let room = shape.bytes.saturating_sub(document.as_bytes().len() + 16);
    if shape.binary {
        document.append(
            cstr!("data"),
            Binary { subtype: BinarySubtype::Generic, bytes: numbers.bytes(room) },
        );
    } else {
        document.append(cstr!("text"), numbers.text(room));
    }
    document
}

/// Fills the three shapes, with three secondary indexes on the medium one. Gives the bytes of all
/// documents.
pub(crate) async fn fill_shapes(client: &Client, gigabytes: f64) -> Result<u64> {
    let mut bytes = 0;
    for shape in &SHAPES {
        let count = (shape.documents * gigabytes).round() as i64;
        let batch = i64::try_from(WEIGHT / shape.bytes)?;
        bytes += insert(client, DB, shape.name, count, batch, |id, numbers| {
            document(shape, id, numbers)
        })
        .await?;
    }
    let indexes: Vec<Document> = ["customer", "at", "status"]
        .into_iter()
        .map(|name| doc! { "key": { name: 1 }, "name": name })
        .collect();
    client.database(DB).run_command(doc! { "createIndexes": "medium", "indexes": indexes }).await?;
    Ok(bytes)
}

/// Fills many collections of a few documents, every tenth with an index.
pub(crate) async fn fill_many(client: &Client, collections: u64) -> Result<()> {
    stream::iter(0..collections)
        .map(|number| async move {
            let name = format!("c{number}");
            insert(client, DB, &name, 10, 10, small).await?;
            if number.is_multiple_of(10) {
                let indexes = vec![doc! { "key": { "customer": 1 }, "name": "customer" }];
                client
                    .database(DB)
                    .run_command(doc! { "createIndexes": &name, "indexes": indexes })
                    .await?;
            }
            anyhow::Ok(())
        })
        .buffer_unordered(4)
        .try_collect()
        .await
}

/// Inserts documents numbered from 0; gives their bytes.
pub(crate) async fn insert(
    client: &Client,
    db: &str,
    name: &str,
    count: i64,
    batch: i64,
    make: impl Fn(i64, &mut Numbers) -> RawDocumentBuf,
) -> Result<u64> {
    let starts = (0..count).step_by(usize::try_from(batch)?);
    let make = &make;
    stream::iter(starts)
        .map(|start| async move {
            let mut numbers = Numbers::new(start as u64 + 1);
            let mut documents = RawArrayBuf::new();
            let mut bytes = 0;
            for id in start..count.min(start + batch) {
                let document = make(id, &mut numbers);
                bytes += document.as_bytes().len() as u64;
                documents.push(&*document);
            }
            let mut command = RawDocumentBuf::new();
            command.append(cstr!("insert"), name);
            command.append(cstr!("ordered"), false);
            command.append(cstr!("documents"), documents);
            command.append(cstr!("writeConcern"), mongodb::bson::rawdoc! { "w": 1 });
            let reply = client.database(db).run_raw_command(command).await?;
            ensure!(!reply.contains_key("writeErrors"), "filling failed: {reply}");
            anyhow::Ok(bytes)
        })
        .buffer_unordered(WRITERS)
        .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
        .await
}

/// A hash of the documents of every collection of a database, by the server's own count.
pub(crate) async fn hash(client: &Client, db: &str) -> Result<Document> {
    let reply = client.database(db).run_command(doc! { "dbHash": 1 }).await?;
    let mut hashes = reply.get_document("collections")?.clone();
    hashes.remove(crate::backlog::DONE);
    // In one order, whatever order they were made in.
    let mut sorted: Vec<_> = hashes.into_iter().collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(sorted.into_iter().collect())
}

/// Fails where the destination does not hold what the source holds.
pub(crate) async fn ensure_equal(
    source: &Client,
    destination: &Client,
    db: &str,
    who: &str,
) -> Result<()> {
    let (there, here) = tokio::try_join!(hash(source, db), hash(destination, db))?;
    ensure!(!there.is_empty() && there == here, "{who} left other documents than the source has");
    Ok(())
}
