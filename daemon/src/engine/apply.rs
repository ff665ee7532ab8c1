//! Applies folded writes to the destination: deletions, insertions, replacements, deltas, each as
//! unordered commands.
//!
//! Deltas are handed to the server's own stage for them, which gives the same bytes that
//! replication gives: field order, dotted and `$`-prefixed names, arrays; those that only set plain
//! fields are a `$set` instead. What the server refuses, and what ought to be there and is not, is
//! read again from the source.
//!
//! In a sharded collection whose key is more than `_id` ([`PlacedBy`]) a document may be on another
//! shard than its new content belongs to. There every whole content is put anew, after its `_id`
//! was deleted on every shard, and a delta that changes the shard key is read again; other deltas
//! find their document by its `_id` on whichever shard it is.
//!
//! A router hands the server's stage on unread: the server's own test of it
//! (`jstests/change_streams/show_raw_update_description.js`) applies raw descriptions so, and is
//! among those that its suite `change_streams_mongos_passthrough` runs against a `mongos`. That is
//! no promise: where a router refuses the command, the documents are read again and written whole,
//! by commands that every router takes.

pub mod coalesce;
pub mod ddl;
pub mod definitions;
pub mod delta;
pub mod route;

use std::collections::HashSet;
use std::iter::Peekable;
use std::ops::Deref;

use futures_util::StreamExt as _;
use mongodb::bson::{RawArray, RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use self::coalesce::{Content, Deletion, Write};
use super::destination::write::{self, Existing, Outcome, Refused, Verb, Why};
use super::index::{self, per_shard};
use super::tail::Tail;
use super::tuning::Tuning;
use super::{document_key, element};
use crate::mongo::shard_keys::PlacedBy;
use crate::mongo::{append, cluster_time, command};

/// A statement larger than this does not fit into a command beside what else is in it; the server
/// takes 16 MiB + 16 KiB in all.
const STATEMENT_BYTES: usize = (16 << 20) + (12 << 10);

/// Applies one worker's writes.
#[derive(Debug)]
pub struct Applier<'a> {
    /// Both sides, and what is known of them.
    pub tail: &'a Tail,
    /// Not before this is read again: the newest event of the round.
    pub as_of: Timestamp,
    /// Whether a changed document must be there: not so for what changed while the copy ran, which
    /// may be gone by now.
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

    fn push(&mut self, write: &'a Write, statement: &RawDocument) {
        self.bytes += statement.as_bytes().len();
        self.statements.push(statement);
        self.writes.push(write);
    }

    /// The writes of these statements.
    fn of<'b>(&'b self, refused: &'b [Refused]) -> impl Iterator<Item = (&'a Write, Why)> + 'b {
        refused.iter().filter_map(|refused| Some((*self.writes.get(refused.index)?, refused.why)))
    }
}

type Statements<'i, 'a, S> = Box<dyn Iterator<Item = (&'a Write, S)> + Send + 'i>;

/// Batches of commands, each made when it is asked for: all at once would be held once more.
struct Batches<'i, 'a, S> {
    statements: Peekable<Statements<'i, 'a, S>>,
    tuning: &'i Tuning,
}

impl<'a, S: Deref<Target = RawDocument>> Iterator for Batches<'_, 'a, S> {
    type Item = Batch<'a>;

    fn next(&mut self) -> Option<Batch<'a>> {
        let tuning = self.tuning;
        let mut batch = Batch::new();
        let fits = |batch: &Batch<'_>, statement: &S| {
            let bytes = batch.bytes + statement.as_bytes().len();
            batch.writes.is_empty()
                || (bytes <= tuning.command_bytes && batch.writes.len() < tuning.command_statements)
        };
        while let Some((write, statement)) =
            self.statements.next_if(|(_, statement)| fits(&batch, statement))
        {
            batch.push(write, &statement);
        }
        (!batch.writes.is_empty()).then_some(batch)
    }
}

fn update_of(
    write: &Write,
    update: impl mongodb::bson::raw::BindRawBsonRef,
    upsert: bool,
) -> RawDocumentBuf {
    let mut statement = RawDocumentBuf::new();
    append(&mut statement, "q", &*element::by_id(&write.id));
    append(&mut statement, "u", update);
    if upsert {
        append(&mut statement, "upsert", true);
    }
    statement
}

fn deltas_of(write: &Write) -> RawDocumentBuf {
    if let Some(set) = delta::as_set(&write.deltas) {
        return update_of(write, &*set, false);
    }
    let mut pipeline = RawArrayBuf::new();
    for delta in &write.deltas {
        let mut update = RawDocumentBuf::new();
        append(&mut update, "oplogUpdate", &**delta);
        pipeline.push(&*rawdoc! { "$_internalApplyOplogUpdate": update });
    }
    update_of(write, &*pipeline, false)
}

/// The statement that deletes what fits; `limit`: 0 is all of it.
fn deletion(filter: &RawDocument, limit: i32) -> RawDocumentBuf {
    let mut statement = RawDocumentBuf::new();
    append(&mut statement, "q", filter);
    append(&mut statement, "limit", limit);
    statement
}

/// Deletes a document where it still has this key.
fn keyed_deletion(key: &RawDocument, collated: bool) -> RawDocumentBuf {
    let mut statement = deletion(&element::by_values(key), 1);
    // A shard key is compared by its bytes, whatever the collection's own collation is.
    if collated {
        append(&mut statement, "collation", &*rawdoc! { "locale": "simple" });
    }
    statement
}

/// Whether the name is taken by a view. Only a state of the source from before the view was made
/// writes there; it is gone, and what made it go is further on in the stream.
fn is_over(why: Why) -> bool {
    why == Why::View
}

impl Applier<'_> {
    /// Applies one round: each key occurs in it once.
    pub async fn apply(
        &self,
        namespace: &Namespace,
        writes: &[Write],
        order: Order,
    ) -> Result<(), Fault> {
        let placed = self.tail.destination.placed(namespace);
        self.delete(namespace, writes.iter().filter(|write| write.delete != Deletion::None))
            .await?;
        self.insert_new(namespace, writes, order, placed.is_some()).await?;
        let changed: Vec<&Write> = writes
            .iter()
            .filter(|write| matches!(write.content, Some(Content::Changed(_))))
            .collect();
        let stuck = self.replace(namespace, &changed).await?;
        self.settle(namespace, &stuck).await?;
        let reread: Vec<&Write> =
            writes.iter().filter(|write| write.content == Some(Content::Reread)).collect();
        self.reread_settled(namespace, &reread).await?;
        self.change(namespace, writes, placed.as_deref()).await
    }

    /// Sorts statements into batches of commands.
    fn batches<'i, 'a: 'i, S: Deref<Target = RawDocument> + 'i>(
        &'i self,
        statements: impl Iterator<Item = (&'a Write, S)> + Send + 'i,
    ) -> Batches<'i, 'a, S> {
        let statements: Statements<'i, 'a, S> = Box::new(statements);
        Batches { statements: statements.peekable(), tuning: &self.tail.tuning }
    }

    async fn run(
        &self,
        namespace: &Namespace,
        verb: Verb,
        statements: &RawArray,
    ) -> Result<Outcome, Fault> {
        write::run(&self.tail.destination, namespace, verb, statements).await
    }

    fn refusal(&self, namespace: &Namespace, verb: Verb, why: Why, write: Option<&Write>) -> Fault {
        write::refusal(&self.tail.destination, namespace, verb, why, write.map(|write| &*write.id))
    }

    /// Cuts writes into runs whose keys go into one statement.
    fn runs<'r, 'w>(&self, writes: &'r [&'w Write]) -> Vec<&'r [&'w Write]> {
        let (tuning, mut runs) = (&self.tail.tuning, Vec::new());
        let (mut from, mut bytes) = (0, 0);
        for (place, write) in writes.iter().enumerate() {
            let more = write.id.as_bytes().len();
            if place > from
                && (place - from >= tuning.delete_ids || bytes + more > tuning.command_bytes)
            {
                runs.push(&writes[from..place]);
                (from, bytes) = (place, 0);
            }
            bytes += more;
        }
        runs.push(&writes[from..]);
        runs
    }

    async fn delete<'w>(
        &self,
        namespace: &Namespace,
        writes: impl Iterator<Item = &'w Write>,
    ) -> Result<(), Fault> {
        let (keyed, whatever): (Vec<&Write>, Vec<&Write>) =
            writes.partition(|write| matches!(write.delete, Deletion::Keyed(_)));
        // A router sends what names no whole shard key to every shard, and so many keys at once as
        // well.
        let joins = !self.tail.destination.is_sharded();
        let is_joined = |write: &&Write| joins && element::is_plain_id(&write.id);
        let (joined, single): (Vec<&Write>, Vec<&Write>) =
            whatever.into_iter().partition(is_joined);
        let joined = self.runs(&joined).into_iter().filter_map(|run| {
            let first = run.first()?;
            let (filter, limit) = match run {
                [one] => (element::by_id(&one.id), 1),
                some => (element::by_ids(some.iter().map(|write| &*write.id)), 0),
            };
            Some((*first, deletion(&filter, limit)))
        });
        let single = single.iter().map(|write| (*write, deletion(&element::by_id(&write.id), 1)));
        let collated = self.tail.traits_of(namespace).collated;
        let keyed = keyed.iter().filter_map(|write| match &write.delete {
            Deletion::Keyed(key) => Some((*write, keyed_deletion(key, collated))),
            Deletion::None | Deletion::Whatever => None,
        });
        for batch in self.batches(joined.chain(single).chain(keyed)) {
            let outcome = self.run(namespace, Verb::Delete, &batch.statements).await?;
            if let Some(refused) = outcome.refused.iter().find(|refused| !is_over(refused.why)) {
                return Err(self.refusal(
                    namespace,
                    Verb::Delete,
                    refused.why,
                    batch.writes.get(refused.index).copied(),
                ));
            }
        }
        Ok(())
    }

    /// `anywhere`: one with the same `_id` may be on another shard, which the server does not
    /// notice.
    async fn insert_new(
        &self,
        namespace: &Namespace,
        writes: &[Write],
        order: Order,
        anywhere: bool,
    ) -> Result<(), Fault> {
        if anywhere {
            let undeleted = writes.iter().filter(|write| {
                write.delete != Deletion::Whatever && matches!(write.content, Some(Content::New(_)))
            });
            self.delete(namespace, undeleted).await?;
        }
        let existing = match order {
            Order::Free => Existing::Report,
            // The copy has read it already, at its place.
            Order::Kept => Existing::Keep,
        };
        let statements = writes.iter().filter_map(|write| match &write.content {
            Some(Content::New(document)) => Some((write, &**document)),
            Some(Content::Changed(_) | Content::Reread) | None => None,
        });
        for batch in self.batches(statements) {
            let inserted =
                write::insert(&self.tail.destination, namespace, &batch.statements, existing)
                    .await?;
            let there: Vec<&Write> = inserted
                .there
                .iter()
                .filter_map(|&index| batch.writes.get(index).copied())
                .collect();
            let mut stuck = self.put_anew(namespace, &there).await?;
            stuck.extend(batch.of(&inserted.refused));
            self.settle(namespace, &stuck).await?;
        }
        Ok(())
    }

    /// Deletes and inserts: what is there has the same key, perhaps with other bytes, which no
    /// replacement can change. Returns what is refused all the same.
    async fn put_anew<'w>(
        &self,
        namespace: &Namespace,
        writes: &[&'w Write],
    ) -> Result<Vec<(&'w Write, Why)>, Fault> {
        let mut stuck = Vec::new();
        if writes.is_empty() {
            return Ok(stuck);
        }
        self.delete(namespace, writes.iter().copied()).await?;
        let statements = writes.iter().filter_map(|write| match &write.content {
            Some(Content::New(document) | Content::Changed(document)) => {
                Some((*write, &**document))
            }
            Some(Content::Reread) | None => None,
        });
        for batch in self.batches(statements) {
            let inserted =
                write::insert(&self.tail.destination, namespace, &batch.statements, Existing::Keep)
                    .await?;
            stuck.extend(batch.of(&inserted.refused));
        }
        Ok(stuck)
    }

    /// Puts whole contents in place of what is there. Returns what is refused.
    async fn replace<'w>(
        &self,
        namespace: &Namespace,
        writes: &[&'w Write],
    ) -> Result<Vec<(&'w Write, Why)>, Fault> {
        let mut anew = Vec::new();
        let mut refused = Vec::new();
        let placed = self.tail.destination.placed(namespace).is_some();
        let statements = writes.iter().filter_map(|write| {
            let Some(Content::Changed(document)) = &write.content else { return None };
            let whole = || update_of(write, &**document, true);
            let fits = |statement: &RawDocumentBuf| statement.as_bytes().len() <= STATEMENT_BYTES;
            let statement =
                (!placed && !element::has_zero_timestamp(document)).then(whole).filter(fits);
            if statement.is_none() {
                anew.push(*write);
            }
            Some((*write, statement?))
        });
        for batch in self.batches(statements) {
            let outcome = self.run(namespace, Verb::Update, &batch.statements).await?;
            refused.extend(
                batch
                    .of(&outcome.refused)
                    .filter(|(_, why)| !is_over(*why))
                    .map(|(write, _)| write),
            );
        }
        anew.extend(refused);
        self.put_anew(namespace, &anew).await
    }

    async fn change(
        &self,
        namespace: &Namespace,
        writes: &[Write],
        placed: Option<&PlacedBy>,
    ) -> Result<(), Fault> {
        let moves = |write: &Write| {
            placed
                .is_some_and(|placed| write.deltas.iter().any(|delta| placed.is_touched_by(delta)))
        };
        let mut again: Vec<&Write> = Vec::new();
        let mut unfit: Vec<&Write> = Vec::new();
        let statements =
            writes.iter().filter(|write| !write.deltas.is_empty()).filter_map(|write| {
                let statement = deltas_of(write);
                if moves(write)
                    || self.tail.duplicate_fields.contains(namespace)
                    || statement.as_bytes().len() > STATEMENT_BYTES
                {
                    unfit.push(write);
                    return None;
                }
                Some((write, statement))
            });
        for batch in self.batches(statements) {
            let outcome = match self.run(namespace, Verb::Update, &batch.statements).await {
                Err(fault) if self.tail.destination.is_sharded() && !fault.retryable => {
                    tracing::debug!(%namespace, error = %fault.message, "a router that takes no \
                         deltas");
                    again.extend(&batch.writes);
                    continue;
                }
                outcome => outcome?,
            };
            let refused: Vec<&Write> = batch
                .of(&outcome.refused)
                .filter(|(_, why)| !is_over(*why))
                .map(|(write, _)| write)
                .collect();
            let expected = batch.writes.len() - outcome.refused.len();
            let matched = usize::try_from(outcome.matched).unwrap_or(usize::MAX);
            // More than one for one: of a document that changed its shard while it was copied. It
            // may hide one that is missing.
            if self.expect_present
                && (matched < expected || (placed.is_some() && matched != expected))
            {
                again.extend(self.missing(namespace, &batch.writes).await?);
            }
            again.extend(refused);
        }
        again.extend(unfit);
        if !again.is_empty() {
            tracing::debug!(%namespace, documents = again.len(), "deltas that did not apply; \
                 reading the documents again");
        }
        self.reread_settled(namespace, &again).await
    }

    /// Those writes whose documents the destination does not have.
    async fn missing<'w>(
        &self,
        namespace: &Namespace,
        writes: &[&'w Write],
    ) -> Result<Vec<&'w Write>, Fault> {
        let destination = &self.tail.destination;
        let mut missing = Vec::new();
        for slice in writes.chunks(self.tail.tuning.reread_documents) {
            let mut find = find_ids(namespace, slice);
            append(&mut find, "projection", &*rawdoc! { "_id": 1 });
            let found = destination.collect(&namespace.db, find).await.map_err(|e| {
                destination.fault(&format!("looking for documents of {namespace}"), &e)
            })?;
            let found: HashSet<Vec<u8>> =
                found.into_iter().map(RawDocumentBuf::into_bytes).collect();
            missing.extend(slice.iter().filter(|write| !found.contains(write.id.as_bytes())));
        }
        Ok(missing)
    }

    async fn reread_settled(&self, namespace: &Namespace, writes: &[&Write]) -> Result<(), Fault> {
        let stuck = self.reread(namespace, writes).await?;
        let stuck: Vec<(&Write, Why)> = stuck.iter().map(|(write, why)| (write, *why)).collect();
        self.settle(namespace, &stuck).await
    }

    /// Reads documents from the source as they are now and puts them in place; returns what is
    /// refused.
    ///
    /// One that the source no longer has is left: its deletion is further on in the stream. Not so
    /// where deletions report the shard key and meet nothing else: what is there may have an older
    /// key, and goes now. Should it come again, that is still to be told.
    async fn reread(
        &self,
        namespace: &Namespace,
        writes: &[&Write],
    ) -> Result<Vec<(Write, Why)>, Fault> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.tail.source.introduce(cluster_time(self.as_of)).await?;
        let source = &self.tail.source.entry;
        let fault = |e: &mongodb::error::Error| {
            source.fault(&format!("reading documents of {namespace} again"), e)
        };
        let mut stuck = Vec::new();
        let (collated, is_sharded) =
            (self.tail.traits_of(namespace).collated, self.tail.source.is_sharded());
        // Which of several texts a collation takes for the one that was found is not known here.
        let at_once = if is_sharded && collated { 1 } else { self.tail.tuning.reread_documents };
        for slice in writes.chunks(at_once) {
            let mut found: HashSet<u64> = HashSet::new();
            let mut find = find_ids(namespace, slice);
            append(
                &mut find,
                "readConcern",
                &*rawdoc! { "level": "majority", "afterClusterTime": self.as_of },
            );
            // What opens the cursor brings the first reply.
            let mut share = source.memory.reply().await;
            let mut cursor =
                source.batches(&namespace.db, find, 101).await.map_err(|e| fault(&e))?;
            let mut is_noted = false;
            while let Some(batch) = cursor.next().await {
                let batch = batch.map_err(|e| fault(&e))?;
                let documents = batch.doc_slices().map_err(|e| fault(&e))?;
                let fresh = documents.into_iter().map(|value| {
                    let document = value.ok().and_then(|value| value.as_document());
                    document.and_then(|document| {
                        Some(Write::whole(element::id_of(document)?, document.to_owned()))
                    })
                });
                // One that cannot be told by its `_id` would be taken for one that is gone.
                let fresh: Vec<Write> = fresh.collect::<Option<_>>().ok_or_else(|| {
                    let message = format!(
                        "{} tells of a document of {namespace} that has no _id",
                        source.hosts
                    );
                    Fault::new(FaultCode::SourceReadFailed, message)
                })?;
                found.extend(fresh.iter().map(|write| document_key::hash(&write.id, collated)));
                // As what is put in place, and once more in the statements that are made of it.
                share.shrink(2 * batch.as_raw_document().as_bytes().len());
                drop(batch);
                self.tail.note_reread(namespace).await?;
                is_noted = true;
                if fresh
                    .iter()
                    .filter_map(Write::document)
                    .any(|document| element::has_doubled_names(document))
                {
                    self.tail.duplicate_fields.add(namespace).await?;
                }
                let refused = self.replace(namespace, &fresh.iter().collect::<Vec<_>>()).await?;
                stuck.extend(refused.into_iter().map(|(write, why)| (write.clone(), why)));
                // Given back before another is waited for.
                drop((fresh, share));
                share = source.memory.reply().await;
            }
            drop(share);
            if !is_noted {
                // What is not there may have gone with a rename.
                self.tail.note_reread(namespace).await?;
            }
            if is_sharded {
                let gone = slice
                    .iter()
                    .copied()
                    .filter(|write| !found.contains(&document_key::hash(&write.id, collated)));
                self.delete(namespace, gone).await?;
            }
        }
        Ok(stuck)
    }

    /// Deals with what the server refuses whichever way it is written: an index that the source no
    /// longer has, or that one of its shards never had, cannot hold the document's present content.
    /// Such indexes are dropped, and the documents read again.
    async fn settle(&self, namespace: &Namespace, stuck: &[(&Write, Why)]) -> Result<(), Fault> {
        let stuck: Vec<(&Write, Why)> =
            stuck.iter().filter(|(_, why)| !is_over(*why)).copied().collect();
        let Some((_, why)) = stuck.first() else { return Ok(()) };
        tracing::info!(%namespace, documents = stuck.len(), ?why, "documents that an index does \
             not take");
        let source = &self.tail.source;
        per_shard::drop_in_the_way(
            &source.entry,
            &source.shards,
            &self.tail.destination,
            namespace,
        )
        .await?;
        let writes: Vec<&Write> = stuck.iter().map(|(write, _)| *write).collect();
        match self.reread(namespace, &writes).await?.iter().find(|(_, why)| !is_over(*why)) {
            None => Ok(()),
            // The source holds it, so that only another key helps.
            Some((write, why @ Why::NoPlace)) => {
                Err(self.refusal(namespace, Verb::Insert, *why, Some(write)))
            }
            Some((write, why)) => {
                // The source may have dropped the index and made it again since: the documents will
                // then be others, too. What is refused for another reason is refused again.
                let may_pass = match why {
                    Why::Code(code) => index::tells_of_unfit_document(*code),
                    Why::IdTaken | Why::KeyTaken | Why::View | Why::Unreadable => true,
                    Why::NoPlace => false,
                };
                let fault = self.refusal(namespace, Verb::Insert, *why, Some(write));
                Err(Fault { retryable: may_pass, ..fault })
            }
        }
    }
}

fn find_ids(namespace: &Namespace, writes: &[&Write]) -> RawDocumentBuf {
    let mut find = command("find", &namespace.collection);
    append(&mut find, "filter", &*element::by_ids(writes.iter().map(|write| &*write.id)));
    find
}
