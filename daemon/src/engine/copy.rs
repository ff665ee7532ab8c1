//! The initial copy of one part: raw batches in natural order, written as they came.
//!
//! A reply's batch goes into the insert command as the bytes that it is; no document is decoded. A part that was begun before is
//! read again whole: what it had written already is met as a duplicate `_id` and left, an older state of the document that the tail
//! brings up to date. Reads are at majority and not before the start point, so that nothing copied can be rolled back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use mongodb::bson::{Document, RawArray, RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use mongodb::raw_batch_cursor::RawBatch;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::checkpoint::Part;
use super::partition;
use super::progress::Progress;
use crate::mongo::{Deployment, append, command, error};

/// What the batches of all readers should weigh together. Each is held about six times: being read, read, in its command, in the
/// command that is sent, as what is sent, and as what the allocator has not given back.
const BATCHES_BYTES: u64 = 16 << 20;

/// What one batch should weigh: large enough that a command's fixed cost is small beside it, and no larger than pays.
const BATCH_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=2 << 20;

/// A reply is as large as this where a stretch of large documents follows on many small ones, up to the server's 16 MB. It is then
/// written in pieces, and the next one is not read meanwhile.
const LARGE_BYTES: usize = 8 << 20;

/// Documents in one insert command at most: the server's `maxWriteBatchSize`.
const BATCH_DOCUMENTS: u64 = 100_000;

/// The server's code for a record to resume after that is gone.
const KEY_NOT_FOUND: i32 = 211;
/// The server's code for a duplicate key.
const DUPLICATE_KEY: i32 = 11000;

/// What a part held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Documents read.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies parts from one deployment to another.
#[derive(Debug)]
pub struct Copier<'a> {
    /// Read from.
    pub source: &'a Deployment,
    /// Written to.
    pub destination: &'a Deployment,
    /// Where progress is counted.
    pub progress: &'a Progress,
    /// No document is read as of before this.
    pub start: Timestamp,
}

/// How many documents a batch asks for, of documents of this mean size, where so many readers share the memory.
#[must_use]
pub fn batch_size(documents: u64, bytes: u64, readers: usize) -> u32 {
    let mean = bytes.checked_div(documents).unwrap_or(1024).max(16);
    let weight = (BATCHES_BYTES / (readers as u64).max(1)).clamp(*BATCH_BYTES.start(), *BATCH_BYTES.end());
    u32::try_from((weight / mean).clamp(1, BATCH_DOCUMENTS)).expect("bounded by BATCH_DOCUMENTS")
}

impl Copier<'_> {
    /// Copies a part whole. What it counted in the progress is taken back where it fails.
    pub async fn copy(&self, namespace: &Namespace, part: &Part, batch_size: u32) -> Result<Copied, Fault> {
        let mut copied = Copied::default();
        let mut after = part.after;
        loop {
            match self.scan(namespace, part, after, batch_size, &mut copied).await {
                Ok(()) => return Ok(copied),
                Err(ScanError::StartGone) => {
                    self.progress.take_back(copied.documents, copied.bytes);
                    copied = Copied::default();
                    after = self.earlier_record(namespace, after).await?;
                }
                Err(ScanError::Fault(fault)) => {
                    self.progress.take_back(copied.documents, copied.bytes);
                    return Err(fault);
                }
            }
        }
    }

    /// The nearest sampled record before one that was deleted: the part then overlaps with the one before, which costs duplicates
    /// and loses nothing. `None`: the collection's start.
    async fn earlier_record(&self, namespace: &Namespace, gone: Option<i64>) -> Result<Option<i64>, Fault> {
        let samples = partition::sample(self.source, namespace, 1_000).await?;
        Ok(samples.iter().map(|sample| sample.record).rfind(|record| Some(*record) < gone))
    }

    async fn scan(
        &self,
        namespace: &Namespace,
        part: &Part,
        after: Option<i64>,
        batch_size: u32,
        copied: &mut Copied,
    ) -> Result<(), ScanError> {
        let read_fault = |e: &mongodb::error::Error| self.source.fault(&format!("reading {namespace}"), e);
        let mut find = command("find", &namespace.collection);
        append(&mut find, "hint", &*rawdoc! { "$natural": 1 });
        append(&mut find, "$_requestResumeToken", true);
        if let Some(record) = after {
            append(&mut find, "$_resumeAfter", &*rawdoc! { "$recordId": record });
        }
        append(&mut find, "batchSize", i64::from(batch_size));
        append(&mut find, "noCursorTimeout", true);
        append(&mut find, "readConcern", &*rawdoc! { "level": "majority", "afterClusterTime": self.start });
        let mut cursor = match self.source.batches(&namespace.db, find, batch_size).await {
            Ok(cursor) => cursor,
            Err(e) if error::code(&e) == Some(KEY_NOT_FOUND) => return Err(ScanError::StartGone),
            Err(e) => return Err(ScanError::Fault(read_fault(&e))),
        };
        // One batch is read while the one before is written.
        let mut writing: Option<RawBatch> = None;
        loop {
            let is_large = writing.as_ref().is_some_and(|batch| batch.as_raw_document().as_bytes().len() > LARGE_BYTES);
            let write = async |batch: Option<&RawBatch>| match batch {
                Some(batch) => self.write_batch(namespace, part, batch).await.map(Some),
                None => Ok(None),
            };
            let (next, written) = if is_large {
                let written = write(writing.take().as_ref()).await;
                let is_over = written.as_ref().map_or(true, |written| written.as_ref().is_some_and(|written| written.was_last));
                (if is_over { None } else { cursor.next().await }, written)
            } else {
                tokio::join!(cursor.next(), write(writing.as_ref()))
            };
            if let Some(written) = written? {
                copied.documents += written.documents;
                copied.bytes += written.bytes;
                if written.was_last {
                    return Ok(());
                }
            }
            match next {
                Some(Ok(batch)) => writing = Some(batch),
                Some(Err(e)) if error::code(&e) == Some(KEY_NOT_FOUND) => return Err(ScanError::StartGone),
                Some(Err(e)) => return Err(ScanError::Fault(read_fault(&e))),
                None => return Ok(()),
            }
        }
    }

    async fn write_batch(&self, namespace: &Namespace, part: &Part, batch: &RawBatch) -> Result<Written, ScanError> {
        let invalid = |e: mongodb::error::Error| ScanError::Fault(self.source.fault(&format!("reading {namespace}"), &e));
        let documents = batch.doc_slices().map_err(invalid)?;
        let was_last = part.until.is_some_and(|until| record_of(batch.as_raw_document()).is_some_and(|record| record >= until));
        let cut;
        let documents = if was_last {
            cut = cut_behind(documents, part.until_id.as_deref());
            &*cut
        } else {
            documents
        };
        let (count, bytes) = weigh(documents);
        if documents.as_bytes().len() > LARGE_BYTES {
            for piece in pieces(documents) {
                insert(self.destination, namespace, &piece, Existing::Keep).await.map_err(ScanError::Fault)?;
            }
        } else if count > 0 {
            insert(self.destination, namespace, documents, Existing::Keep).await.map_err(ScanError::Fault)?;
        }
        self.progress.add_copied(count, bytes);
        Ok(Written { documents: count, bytes, was_last })
    }
}

enum ScanError {
    /// The record to start behind was deleted meanwhile.
    StartGone,
    Fault(Fault),
}

impl From<Fault> for ScanError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

struct Written {
    documents: u64,
    bytes: u64,
    was_last: bool,
}

/// The record id of the last document of a reply.
fn record_of(reply: &RawDocument) -> Option<i64> {
    let token = reply.get_document("cursor").ok()?.get_document("postBatchResumeToken").ok()?;
    token.get_i64("$recordId").ok()
}

/// The documents up to the one with this `_id`; all of them where none has it (deleted meanwhile): the next part then meets
/// duplicates, which it leaves.
fn cut_behind(documents: &RawArray, until_id: Option<&RawDocument>) -> RawArrayBuf {
    let wanted = until_id.map(RawDocument::as_bytes);
    let mut kept = RawArrayBuf::new();
    for value in documents.into_iter().flatten() {
        kept.push(value);
        let is_bound = value.as_document().and_then(|document| document.get("_id").ok().flatten()).is_some_and(|id| {
            let mut only_id = RawDocumentBuf::new();
            append(&mut only_id, "_id", id);
            Some(only_id.as_bytes()) == wanted
        });
        if is_bound {
            break;
        }
    }
    kept
}

/// The documents in commands of about the usual size, each made when it is asked for.
fn pieces(documents: &RawArray) -> impl Iterator<Item = RawArrayBuf> {
    let most = usize::try_from(*BATCH_BYTES.end()).unwrap_or(usize::MAX);
    let mut left = documents.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        left.peek()?;
        let mut piece = RawArrayBuf::new();
        while piece.as_bytes().len() < most
            && let Some(value) = left.next()
        {
            piece.push(value);
        }
        Some(piece)
    })
}

fn weigh(documents: &RawArray) -> (u64, u64) {
    documents.into_iter().flatten().fold((0, 0), |(count, bytes), value| {
        (count + 1, bytes + value.as_document().map_or(0, |document| document.as_bytes().len() as u64))
    })
}

/// What is done about documents that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They stay, and are no error.
    Keep,
    /// Their places in the batch are returned.
    Report,
}

/// How often a write is tried again before its fault is shown, with pauses that double from [`FIRST_PAUSE`]: about 25 s in all,
/// longer than an election takes.
const TRIES: u32 = 8;
/// The pause before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Tells the writes of this process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Runs a write command until it passes, as long as its errors may pass. It is never under way twice.
pub async fn write_command(
    destination: &Deployment,
    namespace: &Namespace,
    doing: &str,
    command: RawDocumentBuf,
) -> Result<Document, Fault> {
    let mark = format!("{}:{}:{};", destination.tag, std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let mut command = command;
    append(&mut command, "comment", mark.as_str());
    let mut pause = FIRST_PAUSE;
    let mut tried = 1;
    let mut may_be_under_way = false;
    loop {
        let sent = if may_be_under_way {
            // What the first try may have left under way must end before the second begins.
            destination.wait_for_writes(&mark).await
        } else {
            Ok(())
        };
        let fault = match sent {
            Ok(()) => {
                may_be_under_way = true;
                match send(destination, namespace, doing, &command).await {
                    Ok(reply) => return Ok(reply),
                    Err(fault) => fault,
                }
            }
            Err(fault) => fault,
        };
        if tried == TRIES || !fault.retryable {
            return Err(fault);
        }
        tried += 1;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn send(destination: &Deployment, namespace: &Namespace, doing: &str, command: &RawDocumentBuf) -> Result<Document, Fault> {
    match destination.raw_command(&namespace.db, command.clone()).await {
        Ok(reply) => match concern_error(&reply) {
            None => Ok(reply),
            Some((code, message)) => {
                let mut fault = Fault::new(
                    FaultCode::DestinationWriteFailed,
                    format!("{doing} {namespace} on the destination ({}): {message} (code {code})", destination.hosts),
                );
                fault.retryable = error::is_transient_code(code);
                Err(fault)
            }
        },
        Err(e) => {
            let mut fault = destination.fault(&format!("{doing} {namespace}"), &e);
            fault.retryable = error::is_transient(&e);
            Err(fault)
        }
    }
}

fn concern_error(reply: &Document) -> Option<(i32, String)> {
    let error = reply.get_document("writeConcernError").ok()?;
    Some((error.get_i32("code").unwrap_or(0), error.get_str("errmsg").unwrap_or("write concern").to_owned()))
}

/// One statement of a write command that the server refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Its place in the command.
    pub index: usize,
    /// The server's code.
    pub code: i32,
    /// The server's words.
    pub message: String,
}

/// The statements of a write command that the server refused.
#[must_use]
pub fn refused(reply: &Document) -> Vec<Refused> {
    reply
        .get_array("writeErrors")
        .into_iter()
        .flatten()
        .filter_map(|error| error.as_document())
        .map(|error| Refused {
            index: error.get_i32("index").ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            code: error.get_i32("code").unwrap_or(0),
            message: error.get_str("errmsg").unwrap_or_default().to_owned(),
        })
        .collect()
}

/// Makes a fault of a refused statement. The server's words can quote a document's values, and so are left out but for its code.
#[must_use]
pub fn refusal(destination: &Deployment, namespace: &Namespace, doing: &str, refused: &Refused) -> Fault {
    let mut fault = Fault::new(
        FaultCode::DestinationWriteFailed,
        format!(
            "{doing} {namespace} on the destination ({}): the server refused it with code {}",
            destination.hosts, refused.code
        ),
    );
    fault.retryable = error::is_transient_code(refused.code);
    fault
}

/// Inserts documents, unordered and past validation: what the source holds is right by definition. Returns the places of those that
/// were there already, where that is asked for.
pub async fn insert(
    destination: &Deployment,
    namespace: &Namespace,
    documents: &RawArray,
    existing: Existing,
) -> Result<Vec<usize>, Fault> {
    let mut insert = command("insert", &namespace.collection);
    append(&mut insert, "ordered", false);
    append(&mut insert, "bypassDocumentValidation", true);
    append(&mut insert, "writeConcern", &*rawdoc! { "w": "majority" });
    append(&mut insert, "documents", documents);
    let reply = write_command(destination, namespace, "inserting into", insert).await?;
    let mut there = Vec::new();
    for refused in refused(&reply) {
        if refused.code != DUPLICATE_KEY {
            return Err(refusal(destination, namespace, "inserting into", &refused));
        }
        there.push(refused.index);
    }
    match existing {
        Existing::Keep => Ok(Vec::new()),
        Existing::Report => Ok(there),
    }
}

#[cfg(test)]
mod tests {
    use super::{batch_size, cut_behind, pieces, weigh};
    use mongodb::bson::{RawArrayBuf, rawdoc};

    #[test]
    fn batches_weigh_a_few_megabytes() {
        assert_eq!(batch_size(0, 0, 4), 2048);
        assert_eq!(batch_size(1, 16 << 20, 4), 1);
        assert_eq!(batch_size(1_000_000, 16_000_000, 1), 100_000);
        for readers in [8, 16, 64] {
            assert_eq!(u64::from(batch_size(1, 1024, readers)) * 1024 * readers as u64, 16 << 20);
        }
    }

    #[test]
    fn a_large_batch_is_written_in_pieces_with_every_document() {
        let mut documents = RawArrayBuf::new();
        for n in 0..25 {
            documents.push(&*rawdoc! { "_id": n, "text": "x".repeat(1 << 20) });
        }
        let pieces: Vec<RawArrayBuf> = pieces(&documents).collect();
        assert_eq!(pieces.iter().map(|piece| weigh(piece).0).collect::<Vec<_>>(), [vec![2; 12], vec![1]].concat());
        assert_eq!(pieces.iter().map(|piece| weigh(piece).1).sum::<u64>(), weigh(&documents).1);
    }

    #[test]
    fn a_batch_is_cut_behind_its_bound() {
        let mut documents = RawArrayBuf::new();
        for n in 0..5 {
            documents.push(&*rawdoc! { "x": 1, "_id": n });
        }
        assert_eq!(weigh(&cut_behind(&documents, Some(&rawdoc! { "_id": 2 }))).0, 3);
        assert_eq!(weigh(&cut_behind(&documents, Some(&rawdoc! { "_id": 2_i64 }))).0, 5);
        assert_eq!(weigh(&cut_behind(&documents, None)).0, 5);
    }
}
