//! The initial copy of one part: raw batches in natural order, written as they came.
//!
//! A reply's batch goes into the insert command as the bytes that it is; no document is decoded. A
//! part that was begun before is read again whole: what it had written already is met as a
//! duplicate `_id` and left, an older state of the document that the tail brings up to date. Reads
//! are at majority and not before the start point, so that nothing copied can be rolled back.

use std::time::Duration;

use futures_util::StreamExt as _;
use mongodb::bson::{RawArray, RawArrayBuf, RawDocument, Timestamp, rawdoc};
use mongodb::raw_batch_cursor::RawBatch;
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::partition;
use super::rate_limit::{Amount, Pace, Turn};
use super::workers::WorkerPool;
use crate::engine::checkpoint::Part;
use crate::engine::destination::duplicate_fields::DuplicateFields;
use crate::engine::destination::write::{self, Existing, Inserted, Verb, Why};
use crate::engine::element;
use crate::engine::index::{self, per_shard};
use crate::engine::progress::ShardCounters;
use crate::engine::source::ShardSource;
use crate::engine::source::topology::Placement;
use crate::engine::tuning::Tuning;
use crate::memory::Share;
use crate::mongo::{Deployment, append, command, error, server_code};

/// The server's codes for a scan whose collection was dropped or renamed, whose cursor is gone, or
/// that the evictions of a capped collection have overtaken.
const SCAN_ENDED: [i32; 3] = [
    server_code::QUERY_PLAN_KILLED,
    server_code::CURSOR_NOT_FOUND,
    server_code::CAPPED_POSITION_LOST,
];
/// How often such a scan begins anew before its fault is shown, and how long after: what is dropped
/// again and again must not keep the rest from being copied.
const SCANS: u32 = 20;
/// How often a scan begins anew that a shard refuses by its versions: a primary that was just
/// elected reads them only once it has been asked with some.
const STALE_SCANS: u32 = 4;
const BEFORE_NEXT_SCAN: Duration = Duration::from_millis(50);

/// What a part held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Documents read.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What one reply of a scan is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Documents that are asked for.
    pub size: u32,
    /// What will come, as far as can be told.
    pub expected: Amount,
}

/// Copies parts from one deployment to another.
#[derive(Debug)]
pub struct Copier<'a> {
    /// Read from.
    pub source: &'a Deployment,
    /// Where the source's indexes are listed: it, or the router before it.
    pub entry: &'a Deployment,
    /// The shards that may not have them alike.
    pub shards: &'a [ShardSource],
    /// Written to.
    pub destination: &'a Deployment,
    /// Written to under this name, where it is another one than is read.
    pub aside: Option<&'a Namespace>,
    /// Where progress is counted.
    pub progress: &'a ShardCounters,
    /// Where documents in which a name occurs twice are noted.
    pub duplicate_fields: &'a DuplicateFields,
    /// No document is read as of before this.
    pub start: Timestamp,
    /// How fast all copiers may read.
    pub pace: &'a Pace,
    /// How many copy.
    pub worker_pool: &'a WorkerPool,
    /// The bounds on memory.
    pub tuning: &'a Tuning,
    /// Where the source is a shard: what it owns is read, and no orphan.
    pub placement: Option<&'a Placement>,
}

impl Copier<'_> {
    /// What a batch of a collection of this size asks for, where so many readers are at work.
    #[must_use]
    pub fn batch(&self, documents: u64, bytes: u64, readers: usize) -> Batch {
        let mean = bytes.checked_div(documents).unwrap_or(1024);
        let size = self.pace.batch_size(self.tuning.batch_size(documents, bytes, readers), mean);
        let documents = u64::from(size).min(documents);
        Batch { size, expected: Amount { documents, bytes: documents * mean } }
    }

    /// Copies a part whole. What it counted in the progress is taken back where it fails.
    pub async fn copy(
        &self,
        namespace: &Namespace,
        part: &Part,
        batch: Batch,
    ) -> Result<Copied, Fault> {
        let _place = self.worker_pool.begin_part().await;
        let mut copied = Copied::default();
        let mut after = part.after;
        let mut scans = 0;
        loop {
            scans += 1;
            match self.scan(namespace, part, after, batch, &mut copied).await {
                Ok(()) => return Ok(copied),
                Err(ScanError::StartGone) => {
                    self.progress.take_back(copied.documents, copied.bytes);
                    copied = Copied::default();
                    after = self.earlier_record(namespace, after).await?;
                }
                Err(ScanError::Ended(_)) if scans < SCANS => {
                    self.progress.take_back(copied.documents, copied.bytes);
                    copied = Copied::default();
                    tokio::time::sleep(BEFORE_NEXT_SCAN).await;
                }
                Err(ScanError::Stale(_)) if scans < STALE_SCANS => {
                    self.progress.take_back(copied.documents, copied.bytes);
                    copied = Copied::default();
                    tokio::time::sleep(BEFORE_NEXT_SCAN).await;
                }
                Err(
                    ScanError::Ended(fault) | ScanError::Stale(fault) | ScanError::Fault(fault),
                ) => {
                    self.progress.take_back(copied.documents, copied.bytes);
                    return Err(fault);
                }
            }
        }
    }

    /// The nearest sampled record before one that was deleted: the part then overlaps with the one
    /// before, which costs duplicates and loses nothing. `None`: the collection's start.
    async fn earlier_record(
        &self,
        namespace: &Namespace,
        gone: Option<i64>,
    ) -> Result<Option<i64>, Fault> {
        let samples = partition::sample(self.source, namespace, 1_000, self.placement).await?;
        Ok(samples.iter().map(|sample| sample.record).rfind(|record| Some(*record) < gone))
    }

    async fn scan(
        &self,
        namespace: &Namespace,
        part: &Part,
        after: Option<i64>,
        batch: Batch,
        copied: &mut Copied,
    ) -> Result<(), ScanError> {
        let broken = |e: mongodb::error::Error| {
            if let Some(fault) = self.placement.and_then(|placement| placement.fault(namespace, &e))
            {
                return ScanError::Stale(fault);
            }
            let fault = self.source.fault(&format!("reading {namespace}"), &e);
            match error::code(&e) {
                Some(server_code::KEY_NOT_FOUND) => ScanError::StartGone,
                Some(code) if SCAN_ENDED.contains(&code) => ScanError::Ended(fault),
                _ => ScanError::Fault(fault),
            }
        };
        let mut find = command("find", &namespace.collection);
        append(&mut find, "hint", &*rawdoc! { "$natural": 1 });
        if !self.source.is_sharded() {
            // No router takes it.
            append(&mut find, "$_requestResumeToken", true);
        }
        if let Some(record) = after {
            append(&mut find, "$_resumeAfter", &*rawdoc! { "$recordId": record });
        }
        append(&mut find, "batchSize", i64::from(batch.size));
        append(&mut find, "noCursorTimeout", true);
        append(
            &mut find,
            "readConcern",
            &*rawdoc! { "level": "majority", "afterClusterTime": self.start },
        );
        if let Some(placement) = self.placement {
            placement.append_versions(&mut find, namespace);
        }
        // What opens the cursor brings the first batch.
        let first = self.begin(batch.expected).await;
        let mut cursor =
            self.source.batches(&namespace.db, find, batch.size).await.map_err(broken)?;
        let mut turn = Some(first);
        let mut is_whole = false;
        // One batch is read while the one before is written, which gives its share back whether or
        // not the read has one yet.
        let mut writing: Option<(RawBatch, Share)> = None;
        loop {
            let write = async |batch: Option<(RawBatch, Share)>| match batch {
                Some((batch, _share)) => self.write_batch(namespace, part, &batch).await.map(Some),
                None => Ok(None),
            };
            let mut read = async || {
                if is_whole {
                    return None;
                }
                let (turn, mut share) = match turn.take() {
                    Some(begun) => begun,
                    None => self.begin(batch.expected).await,
                };
                let next = cursor.next().await?;
                Some(next.map(|next| {
                    is_whole = is_exhausted(next.as_raw_document());
                    turn.end(self.amount_of(&next));
                    // The last batch of a part is cut, which takes a copy of it.
                    let copies = if part.until.is_some() { 2 } else { 1 };
                    share.shrink(copies * next.as_raw_document().as_bytes().len());
                    (next, share)
                }))
            };
            let (next, written) = tokio::join!(read(), write(writing.take()));
            if let Some(written) = written? {
                copied.documents += written.documents;
                copied.bytes += written.bytes;
                if written.was_last {
                    return Ok(());
                }
            }
            match next {
                Some(Ok(batch)) => writing = Some(batch),
                Some(Err(e)) => return Err(broken(e)),
                None => return Ok(()),
            }
        }
    }

    /// Waits until a reply may be read, by the pace and by the memory.
    async fn begin(&self, expected: Amount) -> (Turn<'_>, Share) {
        let mut turn = self.pace.begin(expected).await;
        let share = self.source.memory.reply().await;
        turn.restart();
        (turn, share)
    }

    /// What a batch has brought, as far as a rate is to be held.
    fn amount_of(&self, batch: &RawBatch) -> Amount {
        match batch.doc_slices() {
            Ok(documents) if self.pace.has_rate() => {
                let (documents, bytes) = weigh(documents);
                Amount { documents, bytes }
            }
            _ => Amount::default(),
        }
    }

    async fn write_batch(
        &self,
        namespace: &Namespace,
        part: &Part,
        batch: &RawBatch,
    ) -> Result<Written, ScanError> {
        let invalid = |e: mongodb::error::Error| {
            ScanError::Fault(self.source.fault(&format!("reading {namespace}"), &e))
        };
        let documents = batch.doc_slices().map_err(invalid)?;
        let was_last = part.until.is_some_and(|until| {
            record_of(batch.as_raw_document()).is_some_and(|record| record >= until)
        });
        let cut;
        let documents = if was_last {
            cut = cut_behind(documents, part.until_id.as_deref());
            &*cut
        } else {
            documents
        };
        let (count, bytes) = weigh(documents);
        if count > 0 {
            if !self.duplicate_fields.contains(namespace) && has_doubled(documents) {
                self.duplicate_fields.add(namespace).await?;
            }
            let writing = self.worker_pool.begin_write().await;
            if count > 1 && documents.as_bytes().len() > self.tuning.large_batch_bytes {
                for piece in pieces(documents, self.tuning.batch_bytes) {
                    self.insert(namespace, &piece).await?;
                }
            } else {
                self.insert(namespace, documents).await?;
            }
            writing.end(count, bytes);
            self.progress.add_copied(count, bytes);
        }
        Ok(Written { documents: count, bytes, was_last })
    }

    async fn insert(&self, namespace: &Namespace, documents: &RawArray) -> Result<(), ScanError> {
        let written = self.aside.unwrap_or(namespace);
        let mut inserted =
            write::insert(self.destination, written, documents, Existing::Keep).await?;
        let why = |inserted: &Inserted| inserted.refused.first().map(|refused| refused.why);
        let is_unfit = |inserted: &Inserted| {
            matches!(
                why(inserted), Some(Why::Code(c)) if index::tells_of_unfit_document(c),
            )
        };
        if is_unfit(&inserted) || why(&inserted) == Some(Why::NoPlace) {
            // Indexes that were built before the copy: the source may have dropped one since, or
            // never had it on each shard.
            per_shard::drop_in_the_way(self.entry, self.shards, self.destination, namespace)
                .await?;
            inserted = write::insert(self.destination, written, documents, Existing::Keep).await?;
        }
        match inserted.refused.first() {
            None => Ok(()),
            Some(refused) => {
                let document = documents
                    .into_iter()
                    .flatten()
                    .nth(refused.index)
                    .and_then(|value| value.as_document());
                let id = document.and_then(element::id_of);
                let mut fault = write::refusal(
                    self.destination,
                    namespace,
                    Verb::Insert,
                    refused.why,
                    id.as_deref(),
                );
                // It may have made the index again, too: what it holds by now fits.
                fault.retryable |= is_unfit(&inserted);
                Err(fault.into())
            }
        }
    }
}

enum ScanError {
    /// The record to start behind was deleted meanwhile.
    StartGone,
    /// The collection was dropped or renamed, or the cursor is gone.
    Ended(Fault),
    /// The shard knows of another placement of the collection, or of none yet.
    Stale(Fault),
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

/// Whether a reply is its cursor's last.
fn is_exhausted(reply: &RawDocument) -> bool {
    reply.get_document("cursor").is_ok_and(|cursor| cursor.get_i64("id").is_ok_and(|id| id == 0))
}

/// The record id of the last document of a reply.
fn record_of(reply: &RawDocument) -> Option<i64> {
    let token = reply.get_document("cursor").ok()?.get_document("postBatchResumeToken").ok()?;
    token.get_i64("$recordId").ok()
}

/// The documents up to the one with this `_id`; all of them where none has it (deleted meanwhile):
/// the next part then meets duplicates, which it leaves.
fn cut_behind(documents: &RawArray, until_id: Option<&RawDocument>) -> RawArrayBuf {
    let wanted = until_id.map(RawDocument::as_bytes);
    let mut kept = RawArrayBuf::new();
    for value in documents.into_iter().flatten() {
        kept.push(value);
        let id = value.as_document().and_then(element::id_of);
        if wanted.is_some() && id.as_ref().map(|id| id.as_bytes()) == wanted {
            break;
        }
    }
    kept
}

/// The documents in commands of about this weight, each made when it is asked for.
fn pieces(documents: &RawArray, weight: u64) -> impl Iterator<Item = RawArrayBuf> {
    let mut left = documents.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        left.peek()?;
        let mut piece = RawArrayBuf::new();
        while (piece.as_bytes().len() as u64) < weight
            && let Some(value) = left.next()
        {
            piece.push(value);
        }
        Some(piece)
    })
}

fn has_doubled(documents: &RawArray) -> bool {
    documents
        .into_iter()
        .flatten()
        .filter_map(|value| value.as_document())
        .any(element::has_doubled_names)
}

fn weigh(documents: &RawArray) -> (u64, u64) {
    documents.into_iter().flatten().fold((0, 0), |(count, bytes), value| {
        (
            count + 1,
            bytes + value.as_document().map_or(0, |document| document.as_bytes().len() as u64),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{cut_behind, pieces, weigh};
    use mongodb::bson::{RawArrayBuf, rawdoc};

    #[test]
    fn a_large_batch_is_written_in_pieces_with_every_document() {
        let mut documents = RawArrayBuf::new();
        for n in 0..25 {
            documents.push(&*rawdoc! { "_id": n, "text": "x".repeat(1 << 10) });
        }
        let pieces: Vec<RawArrayBuf> = pieces(&documents, 2 << 10).collect();
        assert_eq!(
            pieces.iter().map(|piece| weigh(piece).0).collect::<Vec<_>>(),
            [vec![2; 12], vec![1]].concat()
        );
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
