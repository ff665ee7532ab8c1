//! Documents, byte for byte, from two streams in the same order, in memory bounded by what differs.

use std::collections::HashMap;

use anyhow::Result;
use futures_util::StreamExt as _;
use mongodb::Client;
use mongodb::bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, cstr, doc};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::catalog::{Collection, Shape};
use super::report::{Kind, Report};

/// Pending documents up to this many are kept whole, to say how they differ; of more only a digest
/// is kept.
const KEPT_WHOLE: usize = 500;
/// How much of a document is shown.
const SHOWN: usize = 300;

/// One side's documents: read ahead on a task of its own.
pub(super) struct Stream {
    batches: mpsc::Receiver<Result<Vec<RawDocumentBuf>>>,
    batch: std::vec::IntoIter<RawDocumentBuf>,
}

impl Stream {
    /// Reads a collection: in the order of its `_id`s, or in natural order where that is what a
    /// collection has.
    pub(super) fn open(client: &Client, collection: &Collection) -> Self {
        // One batch is compared, one waits, one is on the way: a batch has at most 16 MB.
        let (sender, batches) = mpsc::channel(1);
        let documents =
            client.database(&collection.db).collection::<RawDocumentBuf>(&collection.name);
        let shape = collection.shape;
        let order = match shape {
            Shape::Collection => doc! { "_id": 1 },
            Shape::Capped | Shape::TimeSeries | Shape::View => doc! { "$natural": 1 },
        };
        tokio::spawn(async move {
            let mut cursor =
                match documents.find(doc! {}).sort(order).batch_size(10_000).batch().await {
                    Ok(cursor) => cursor,
                    Err(error) => return drop(sender.send(Err(error.into())).await),
                };
            while let Some(reply) = cursor.next().await {
                let batch = reply.map_err(Into::into).and_then(|reply| {
                    reply
                        .doc_slices()?
                        .into_iter()
                        .map(|value| owned(document(value?)?, shape))
                        .collect::<Result<_>>()
                });
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
        });
        Self { batches, batch: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<Option<RawDocumentBuf>> {
        loop {
            if let Some(document) = self.batch.next() {
                return Ok(Some(document));
            }
            match self.batches.recv().await {
                Some(batch) => self.batch = batch?.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

fn document(value: RawBsonRef<'_>) -> Result<&RawDocument> {
    value
        .as_document()
        .ok_or_else(|| anyhow::anyhow!("the server sent a batch of something else than documents"))
}

/// A copy of a document. The server puts a measurement together anew each time it is read, its
/// fields in any order.
fn owned(document: &RawDocument, shape: Shape) -> Result<RawDocumentBuf> {
    if shape != Shape::TimeSeries {
        return Ok(document.to_owned());
    }
    let mut fields = document.iter().collect::<Result<Vec<_>, _>>()?;
    fields.sort_by_key(|(name, _)| *name);
    Ok(fields.into_iter().collect())
}

/// Compares two streams.
///
/// Equal heads are passed. Unequal ones are put aside under their `_id`s until the other stream
/// brings the same `_id`; what is never met is missing or extra. So no order of `_id`s has to be
/// known here, and as both streams have the same one, what is put aside is never more than what
/// differs.
pub(super) async fn compare(
    mut source: Stream,
    mut destination: Stream,
    shape: Shape,
    namespace: &str,
    report: &mut Report,
) -> Result<()> {
    let mut pairing = Pairing {
        shape,
        namespace,
        report,
        ours: HashMap::new(),
        theirs: HashMap::new(),
        met_late: 0,
        unequal: 0,
    };
    loop {
        let (left, right) = tokio::try_join!(source.next(), destination.next())?;
        pairing.report.source_documents += u64::from(left.is_some());
        pairing.report.destination_documents += u64::from(right.is_some());
        match (left, right) {
            (None, None) => break,
            (Some(left), Some(right)) if left.as_bytes() == right.as_bytes() => {
                pairing.equal(left.as_bytes().len())
            }
            (left, right) => {
                if let Some(left) = left {
                    pairing.meet(left, Side::Source);
                }
                if let Some(right) = right {
                    pairing.meet(right, Side::Destination);
                }
            }
        }
    }
    pairing.finish();
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

struct Aside {
    digest: [u8; 32],
    whole: Option<RawDocumentBuf>,
}

struct Pairing<'a> {
    shape: Shape,
    namespace: &'a str,
    report: &'a mut Report,
    ours: HashMap<Vec<u8>, Vec<Aside>>,
    theirs: HashMap<Vec<u8>, Vec<Aside>>,
    met_late: u64,
    unequal: u64,
}

impl Pairing<'_> {
    fn equal(&mut self, bytes: usize) {
        self.report.equal_documents += 1;
        self.report.equal_bytes += bytes as u64;
    }

    fn meet(&mut self, document: RawDocumentBuf, side: Side) {
        let key = self.key(&document);
        let (own, other) = match side {
            Side::Source => (&mut self.ours, &mut self.theirs),
            Side::Destination => (&mut self.theirs, &mut self.ours),
        };
        let digest: [u8; 32] = Sha256::digest(document.as_bytes()).into();
        let Some(met) = other.get_mut(&key).and_then(Vec::pop) else {
            let whole = (own.len() < KEPT_WHOLE).then_some(document);
            own.entry(key).or_default().push(Aside { digest, whole });
            return;
        };
        if other.get(&key).is_some_and(Vec::is_empty) {
            other.remove(&key);
        }
        if met.digest == digest {
            self.met_late += 1;
            self.equal(document.as_bytes().len());
            return;
        }
        self.unequal += 1;
        let detail = match (&met.whole, side) {
            (None, _) => String::new(),
            (Some(theirs), Side::Source) => how_they_differ(&document, theirs),
            (Some(ours), Side::Destination) => how_they_differ(ours, &document),
        };
        self.report.add(self.namespace, Kind::Document, Some(id_text(&document)), detail);
    }

    /// What a document is known by: the bytes of its `_id`, or all of it where it has none that is
    /// its own.
    fn key(&self, document: &RawDocument) -> Vec<u8> {
        match document.get("_id") {
            Ok(Some(id)) if self.shape != Shape::TimeSeries => {
                let mut key = RawDocumentBuf::new();
                key.append(cstr!("_id"), id);
                key.into_bytes()
            }
            _ => Sha256::digest(document.as_bytes()).to_vec(),
        }
    }

    fn finish(self) {
        let Self { shape, namespace, report, ours, theirs, met_late, unequal } = self;
        let alone = ours.len() + theirs.len();
        for (side, kind) in [(ours, Kind::MissingDocument), (theirs, Kind::ExtraDocument)] {
            for (key, aside) in side
                .into_iter()
                .flat_map(|(key, asides)| asides.into_iter().map(move |aside| (key.clone(), aside)))
            {
                let id = RawDocumentBuf::from_bytes(key).map(|key| id_text(&key)).ok();
                let detail = aside.whole.as_deref().map(shown).unwrap_or_default();
                report.add(namespace, kind, id, detail);
            }
        }
        if shape == Shape::Capped && met_late > 0 && alone == 0 && unequal == 0 {
            report.add(namespace, Kind::Order, None, format!("{met_late} documents are elsewhere"));
        }
    }
}

fn how_they_differ(source: &RawDocument, destination: &RawDocument) -> String {
    format!("{} on the source, {} on the destination", shown(source), shown(destination))
}

fn shown(document: &RawDocument) -> String {
    let text = match mongodb::bson::Document::try_from(document) {
        Ok(document) => format!("{document:?}"),
        Err(error) => format!("{} bytes that do not decode ({error})", document.as_bytes().len()),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn id_text(document: &RawDocument) -> String {
    match document.get("_id") {
        Ok(Some(id)) => {
            Bson::try_from(id).map_or_else(|error| error.to_string(), |id| format!("{id:?}"))
        }
        Ok(None) => "without _id".to_owned(),
        Err(error) => error.to_string(),
    }
}
