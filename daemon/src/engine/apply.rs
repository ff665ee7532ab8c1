//! Applies folded writes to the destination: deletions, insertions, replacements, deltas, each as unordered commands.
//!
//! Deltas are handed to the server's own stage for them, which gives the same bytes that replication gives: field order, dotted and
//! `$`-prefixed names, arrays. What the server refuses, and what ought to be there and is not, is read again from the source.

use mongodb::bson::{RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::copy::{Existing, insert, refusal, refused, write_command};
use super::fold::{Content, Write};
use crate::mongo::{Deployment, append, command, number};

/// Bytes of statements in one command: under the 16 MiB that a command may have, with a document of 16 MiB alone in its own.
const COMMAND_BYTES: usize = 12 << 20;
/// Statements in one command at most: the server's `maxWriteBatchSize`.
const COMMAND_STATEMENTS: usize = 100_000;
/// Documents read again at once: their sizes are not known, and a reply's batch holds at least one.
const REREAD_DOCUMENTS: usize = 1_000;

/// Applies one worker's writes.
#[derive(Debug)]
pub struct Applier<'a> {
    /// Where documents are read again.
    pub source: &'a Deployment,
    /// Written to.
    pub destination: &'a Deployment,
    /// Not before this is read again: the newest event of the round.
    pub as_of: Timestamp,
    /// Whether a changed document must be there: not so for what changed while the copy ran, which may be gone by now.
    pub expect_present: bool,
}

/// Whether a collection's documents have an order to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// None.
    Free,
    /// That of their insertion (capped): what is there already stays where it is.
    Kept,
}

/// Statements of one command, which is sent where the next would be too much.
struct Batch<'a> {
    statements: RawArrayBuf,
    /// The write of each statement.
    writes: Vec<&'a Write>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new() -> Self {
        Self { statements: RawArrayBuf::new(), writes: Vec::new(), bytes: 0 }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.writes.is_empty() || (self.bytes + bytes <= COMMAND_BYTES && self.writes.len() < COMMAND_STATEMENTS)
    }

    fn push(&mut self, write: &'a Write, statement: &RawDocument) {
        self.bytes += statement.as_bytes().len();
        self.statements.push(statement);
        self.writes.push(write);
    }
}

/// Sorts statements into batches of commands.
fn batches<'a>(statements: impl Iterator<Item = (&'a Write, RawDocumentBuf)>) -> Vec<Batch<'a>> {
    let mut batches = Vec::new();
    let mut batch = Batch::new();
    for (write, statement) in statements {
        if !batch.has_room(statement.as_bytes().len()) {
            batches.push(std::mem::replace(&mut batch, Batch::new()));
        }
        batch.push(write, &statement);
    }
    if !batch.writes.is_empty() {
        batches.push(batch);
    }
    batches
}

/// A filter on one `_id`, whatever it holds: `$eq` takes documents, and only it takes them as values.
fn by_id(write: &Write) -> RawDocumentBuf {
    let mut filter = RawDocumentBuf::new();
    let mut equals = RawDocumentBuf::new();
    append(&mut equals, "$eq", id_value(&write.id));
    append(&mut filter, "_id", &*equals);
    filter
}

fn id_value(id: &RawDocument) -> RawBsonRef<'_> {
    id.get("_id").ok().flatten().unwrap_or(RawBsonRef::Null)
}

fn update_of(write: &Write, update: impl mongodb::bson::raw::BindRawBsonRef, upsert: bool) -> RawDocumentBuf {
    let mut statement = RawDocumentBuf::new();
    append(&mut statement, "q", &*by_id(write));
    append(&mut statement, "u", update);
    append(&mut statement, "upsert", upsert);
    statement
}

fn deltas_of(write: &Write) -> RawDocumentBuf {
    let mut pipeline = RawArrayBuf::new();
    for delta in &write.deltas {
        pipeline.push(&*rawdoc! { "$_internalApplyOplogUpdate": { "oplogUpdate": delta.clone() } });
    }
    update_of(write, &*pipeline, false)
}

impl Applier<'_> {
    /// Applies one round: each key occurs in it once.
    pub async fn apply(&self, namespace: &Namespace, writes: &[Write], order: Order) -> Result<(), Fault> {
        self.delete(namespace, writes.iter().filter(|write| write.delete)).await?;
        self.insert_new(namespace, writes, order).await?;
        self.replace(namespace, writes).await?;
        let reread: Vec<&Write> = writes.iter().filter(|write| write.content == Some(Content::Reread)).collect();
        self.reread(namespace, &reread).await?;
        self.change(namespace, writes).await
    }

    async fn delete<'w>(&self, namespace: &Namespace, writes: impl Iterator<Item = &'w Write>) -> Result<(), Fault> {
        let statements = writes.map(|write| {
            let mut statement = RawDocumentBuf::new();
            append(&mut statement, "q", &*by_id(write));
            append(&mut statement, "limit", 1);
            (write, statement)
        });
        for batch in batches(statements) {
            let mut delete = command("delete", &namespace.collection);
            append(&mut delete, "deletes", &*batch.statements);
            append(&mut delete, "ordered", false);
            append(&mut delete, "writeConcern", &*rawdoc! { "w": "majority" });
            let reply = write_command(self.destination, namespace, "deleting from", delete).await?;
            if let Some(refused) = refused(&reply).first() {
                return Err(refusal(self.destination, namespace, "deleting from", refused));
            }
        }
        Ok(())
    }

    async fn insert_new(&self, namespace: &Namespace, writes: &[Write], order: Order) -> Result<(), Fault> {
        let existing = match order {
            Order::Free => Existing::Report,
            // The copy has read it already, at its place.
            Order::Kept => Existing::Keep,
        };
        let statements = writes.iter().filter_map(|write| match &write.content {
            Some(Content::New(document)) => Some((write, document.clone())),
            Some(Content::Changed(_) | Content::Reread) | None => None,
        });
        for batch in batches(statements) {
            let there = insert(self.destination, namespace, &batch.statements, existing).await?;
            let there: Vec<&Write> = there.iter().filter_map(|&index| batch.writes.get(index).copied()).collect();
            self.put_anew(namespace, &there).await?;
        }
        Ok(())
    }

    /// Deletes and inserts: what is there has the same key, perhaps with other bytes, which no replacement can change.
    async fn put_anew(&self, namespace: &Namespace, writes: &[&Write]) -> Result<(), Fault> {
        if writes.is_empty() {
            return Ok(());
        }
        self.delete(namespace, writes.iter().copied()).await?;
        let statements = writes.iter().filter_map(|write| match &write.content {
            Some(Content::New(document) | Content::Changed(document)) => Some((*write, document.clone())),
            Some(Content::Reread) | None => None,
        });
        for batch in batches(statements) {
            insert(self.destination, namespace, &batch.statements, Existing::Keep).await?;
        }
        Ok(())
    }

    async fn replace(&self, namespace: &Namespace, writes: &[Write]) -> Result<(), Fault> {
        let statements = writes.iter().filter_map(|write| match &write.content {
            Some(Content::Changed(document)) => Some((write, update_of(write, &**document, true))),
            Some(Content::New(_) | Content::Reread) | None => None,
        });
        for batch in batches(statements) {
            let reply = self.update(namespace, &batch.statements).await?;
            let refused: Vec<&Write> =
                refused(&reply).iter().filter_map(|refused| batch.writes.get(refused.index).copied()).collect();
            self.put_anew(namespace, &refused).await?;
        }
        Ok(())
    }

    async fn change(&self, namespace: &Namespace, writes: &[Write]) -> Result<(), Fault> {
        let statements = writes.iter().filter(|write| !write.deltas.is_empty()).map(|write| (write, deltas_of(write)));
        for batch in batches(statements) {
            let reply = self.update(namespace, &batch.statements).await?;
            let refused = refused(&reply);
            let matched = RawDocumentBuf::try_from(&reply).ok().and_then(|reply| number(&reply, "n")).unwrap_or(0);
            let mut again: Vec<&Write> = refused.iter().filter_map(|refused| batch.writes.get(refused.index).copied()).collect();
            let expected = batch.writes.len() - again.len();
            if self.expect_present && usize::try_from(matched).unwrap_or(0) < expected {
                again = self.missing(namespace, &batch.writes).await?.into_iter().chain(again).collect();
            }
            if !again.is_empty() {
                tracing::debug!(%namespace, documents = again.len(), "deltas that did not apply; reading the documents again");
            }
            self.reread(namespace, &again).await?;
        }
        Ok(())
    }

    async fn update(&self, namespace: &Namespace, statements: &RawArray) -> Result<mongodb::bson::Document, Fault> {
        let mut update = command("update", &namespace.collection);
        append(&mut update, "updates", statements);
        append(&mut update, "ordered", false);
        append(&mut update, "bypassDocumentValidation", true);
        append(&mut update, "writeConcern", &*rawdoc! { "w": "majority" });
        write_command(self.destination, namespace, "updating", update).await
    }

    /// Those writes whose documents the destination does not have.
    async fn missing<'w>(&self, namespace: &Namespace, writes: &[&'w Write]) -> Result<Vec<&'w Write>, Fault> {
        let mut missing = Vec::new();
        for slice in writes.chunks(REREAD_DOCUMENTS) {
            let mut find = find_ids(namespace, slice);
            append(&mut find, "projection", &*rawdoc! { "_id": 1 });
            let found = self
                .destination
                .collect(&namespace.db, find)
                .await
                .map_err(|e| self.destination.fault(&format!("looking for documents of {namespace}"), &e))?;
            let found: std::collections::HashSet<Vec<u8>> = found.into_iter().map(RawDocumentBuf::into_bytes).collect();
            missing.extend(slice.iter().filter(|write| !found.contains(write.id.as_bytes())));
        }
        Ok(missing)
    }

    /// Reads documents from the source as they are now and puts them in place. One that the source no longer has is left: its
    /// deletion is further on in the stream.
    async fn reread(&self, namespace: &Namespace, writes: &[&Write]) -> Result<(), Fault> {
        for slice in writes.chunks(REREAD_DOCUMENTS) {
            let mut find = find_ids(namespace, slice);
            append(&mut find, "readConcern", &*rawdoc! { "level": "majority", "afterClusterTime": self.as_of });
            let mut cursor = self.source.batches(&namespace.db, find, 101).await.map_err(|e| self.read_fault(namespace, &e))?;
            use futures_util::StreamExt as _;
            while let Some(batch) = cursor.next().await {
                let batch = batch.map_err(|e| self.read_fault(namespace, &e))?;
                let documents = batch.doc_slices().map_err(|e| self.read_fault(namespace, &e))?;
                let fresh: Vec<Write> = documents
                    .into_iter()
                    .flatten()
                    .filter_map(|value| value.as_document())
                    .map(|document| {
                        let mut id = RawDocumentBuf::new();
                        append(&mut id, "_id", id_value(document));
                        Write::whole(id, document.to_owned())
                    })
                    .collect();
                Box::pin(self.replace(namespace, &fresh)).await?;
            }
        }
        Ok(())
    }

    fn read_fault(&self, namespace: &Namespace, error: &mongodb::error::Error) -> Fault {
        self.source.fault(&format!("reading documents of {namespace} again"), error)
    }
}

fn find_ids(namespace: &Namespace, writes: &[&Write]) -> RawDocumentBuf {
    let mut ids = RawArrayBuf::new();
    for write in writes {
        ids.push(id_value(&write.id));
    }
    let mut find = command("find", &namespace.collection);
    append(&mut find, "filter", &*rawdoc! { "_id": { "$in": ids } });
    find
}
