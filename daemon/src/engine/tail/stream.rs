//! Reads a shard's change stream: opens it where it was left, and passes on what it reports, reply
//! by reply.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, Scope};
use tokio::sync::{Notify, mpsc};

use super::merge::Passed;
use super::{Tail, atomic_apply_ops};
use crate::engine::catalog;
use crate::engine::change_event::{Event, Op, What, token_time};
use crate::engine::checkpoint::ShardRow;
use crate::engine::source::ShardSource;
use crate::memory::Share;
use crate::mongo::{Deployment, ServerVersion, append, error, primary, server_code, timestamp};

/// Events in one reply at most where their contents are left out, and read from the source one by
/// one.
const LEAN_EVENTS: u32 = 100;
/// How long the server waits for an event before it answers with none: so often an idle stream
/// tells how far it has come, and so long at most a drained cutover waits to learn that nothing is
/// left.
const AWAIT: Duration = Duration::from_millis(100);
/// How long the oplog is searched for such a one, in milliseconds.
const SEARCH_MS: i64 = 10_000;

/// The first version whose change streams report updates as the server's own deltas, and whose
/// updates take them.
const RAW_DELTAS: ServerVersion = ServerVersion::new(6, 0, 0);
/// The first version whose change streams report definitions, and of the server's own collections.
pub(in crate::engine) const EXPANDED: ServerVersion = ServerVersion::new(6, 0, 0);

/// Why a stream broke.
enum Broken {
    Server(mongodb::error::Error),
    Fault(Fault),
}

impl From<mongodb::error::Error> for Broken {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Server(error)
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Why a stream is no longer read.
enum Ended {
    /// Nobody takes its events any more.
    Unwanted,
    /// What made the contents be left out has passed.
    Passed,
}

/// A reply of the stream.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// Everything up to this has been told.
    pub(super) told: Option<Passed>,
    /// What it holds of the memory.
    pub(super) share: Share,
}

/// The fault of a stream that the server itself breaks off, behind this time, with the change that
/// makes it do so where it is found.
async fn untold(
    source: &Deployment,
    scope: &Scope,
    from: ClusterTime,
    error: &mongodb::error::Error,
) -> Fault {
    let mut find = rawdoc! {
        "find": "oplog.rs", "limit": 1, "projection": { "ns": 1, "o2": 1 }, "maxTimeMS": SEARCH_MS,
    };
    let is_number = rawdoc! { "$type": "number" };
    let wanted = rawdoc! { "$exists": true, "$not": is_number };
    append(
        &mut find,
        "filter",
        &*rawdoc! { "ts": { "$gte": timestamp(from) }, "op": "u", "o.$v": wanted },
    );
    let found = source.collect("local", find).await;
    let culprit = found.ok().and_then(|found| found.into_iter().next());
    let fault = source.fault("following the changes", error);
    let Some(culprit) = culprit else {
        let remedy = "the source's log says more; where it tells of value.h, a document with a \
             top-level field `$v` that is no number was replaced, which no change stream of \
             MongoDB 5.0 and 6.0 passes: take the field off, then raise `generation`";
        return Fault { retryable: false, ..fault }.with_remedy(remedy);
    };
    let namespace = culprit.get_str("ns").unwrap_or_default().to_owned();
    let id = culprit.get_document("o2").ok().and_then(|key| key.get("_id").ok().flatten());
    let id = id
        .and_then(|id| mongodb::bson::Bson::try_from(id).ok())
        .map(|id| format!(" (_id {id})"))
        .unwrap_or_default();
    let message = format!(
        "the source ({}) cannot tell its own changes any further: a document of {namespace}{id} \
         with a top-level field `$v` that is no number was replaced, and no change stream of \
         MongoDB 5.0 and 6.0 passes that",
        source.hosts
    );
    let is_ours = namespace
        .split_once('.')
        .is_some_and(|(db, name)| scope.contains(&Namespace::new(db, name)));
    let what = if is_ours {
        "take the field off the documents that have it"
    } else {
        "take it off there too, though it is out of scope"
    };
    let remedy = format!(
        "{what} and keep the application from writing it, then raise `generation`; or upgrade the \
         source to a version that tells it, and `cutover resume`: the run keeps its position"
    );
    Fault::new(FaultCode::UnsupportedChange, message).with_remedy(remedy)
}

impl Tail {
    fn uses_raw_deltas(&self, source: &Deployment) -> bool {
        // A delta of a newer server may hold what an older one does not know.
        self.tuning.raw_deltas
            && source.version >= RAW_DELTAS
            && (self.destination.version.major, self.destination.version.minor)
                >= (source.version.major, source.version.minor)
    }

    pub(super) async fn read(
        &self,
        shard: &ShardSource,
        from: &ShardRow,
        batches: mpsc::Sender<Batch>,
        missing: &Notify,
    ) -> Result<(), Fault> {
        let source = &shard.deployment;
        let mut behind = from.token.clone();
        let mut lean = self.tuning.lean_stream;
        loop {
            let fault = match self
                .read_stream(source, from, &mut behind, lean, &batches, missing)
                .await
            {
                Ok(Ended::Unwanted) => return Ok(()),
                Ok(Ended::Passed) => {
                    lean = self.tuning.lean_stream;
                    continue;
                }
                Err(Broken::Server(e))
                    if error::code(&e) == Some(server_code::BSON_OBJECT_TOO_LARGE) && !lean =>
                {
                    tracing::info!(
                        "an event is too large to be told whole; its documents are read from the \
                         source"
                    );
                    lean = true;
                    continue;
                }
                Err(Broken::Server(e)) if error::code(&e) == Some(server_code::UNKNOWN_ERROR) => {
                    let from = behind.as_deref().and_then(token_time).unwrap_or(from.start);
                    untold(source, &self.scope, from, &e).await
                }
                Err(Broken::Server(e)) => source.fault("following the changes", &e),
                Err(Broken::Fault(fault)) => fault,
            };
            if !self.source.tells_shards_apart() {
                return Err(fault);
            }
            let fault =
                Fault { message: format!("shard {}: {}", shard.name, fault.message), ..fault };
            self.progress.shard(&shard.name).set_error(Some(fault.clone()));
            return Err(fault);
        }
    }

    /// Opens the stream and passes on what it reports. `lean`: without the documents' contents, and
    /// until an event was reported so.
    async fn read_stream(
        &self,
        source: &Deployment,
        from: &ShardRow,
        behind: &mut Option<RawDocumentBuf>,
        lean: bool,
        batches: &mpsc::Sender<Batch>,
        missing: &Notify,
    ) -> Result<Ended, Broken> {
        let mut options = rawdoc! { "allChangesForCluster": true };
        if source.version >= EXPANDED {
            append(&mut options, "showExpandedEvents", true);
            // Buckets of time-series collections, and stored functions.
            append(&mut options, "showSystemEvents", true);
        }
        if self.uses_raw_deltas(source) {
            append(&mut options, "showRawUpdateDescription", true);
        }
        match behind {
            Some(token) => append(&mut options, "resumeAfter", &**token),
            None => append(&mut options, "startAtOperationTime", timestamp(from.start)),
        }
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(&*rawdoc! { "$changeStream": options });
        if lean {
            pipeline.push(&*rawdoc! {
                "$project": {
                    "fullDocument": 0, "rawUpdateDescription": 0, "updateDescription": 0,
                }
            });
        }
        let mut open = rawdoc! { "aggregate": 1 };
        append(&mut open, "pipeline", &*pipeline);
        // A stream that begins tells where it stands before it tells anything else.
        append(
            &mut open,
            "cursor",
            &*if behind.is_some() {
                rawdoc! {}
            } else {
                rawdoc! { "batchSize": 0 }
            },
        );
        append(&mut open, "readConcern", &*rawdoc! { "level": "majority" });
        let mut seen = behind.as_deref().and_then(token_time).unwrap_or(from.start);
        // What opens the stream brings its first reply.
        let mut last = 0;
        let mut first = Some(self.share(source, last, missing).await);
        let mut cursor = source
            .client
            .database("admin")
            .run_raw_cursor_command(open)
            .selection_criteria(primary())
            .batch_size(if lean { LEAN_EVENTS } else { self.tuning.reply_events })
            .max_time(AWAIT)
            .batch()
            .await?;
        loop {
            let mut share = match first.take() {
                Some(share) => share,
                None => self.share(source, last, missing).await,
            };
            let Some(reply) = cursor.next().await else { break };
            let reply = reply?;
            last = reply.as_raw_document().as_bytes().len() as u64;
            let mut events = Vec::new();
            for value in reply.doc_slices()? {
                let Some(event) = value.ok().and_then(|value| value.as_document()) else {
                    let message = format!(
                        "the change stream of {} tells of something that is no event",
                        source.hosts
                    );
                    return Err(Fault::new(FaultCode::SourceReadFailed, message).into());
                };
                let of_shard = self.source.is_sharded();
                events.push(if of_shard {
                    Event::read_of_shard(event)?
                } else {
                    Event::read(event)?
                });
            }
            let token = reply
                .as_raw_document()
                .get_document("cursor")
                .ok()
                .and_then(|cursor| cursor.get_document("postBatchResumeToken").ok())
                .map(RawDocument::to_owned)
                .or_else(|| events.last().map(|event| event.token.clone()));
            let tells = !events.is_empty();
            let through = token
                .as_deref()
                .and_then(token_time)
                .or_else(|| events.last().map(|event| event.time));
            if let Some(through) = through.filter(|through| *through > seen) {
                events = self.with_untold(source, events, behind.as_ref(), (seen, through)).await?;
                seen = through;
            }
            if token.is_some() {
                behind.clone_from(&token);
            }
            let told =
                token.and_then(|token| token_time(&token).map(|time| Passed { token, time }));
            let bytes: usize = events.iter().map(|event| event.bytes).sum();
            drop(reply);
            // As events, and once more in the statements that are made of them.
            share.shrink(2 * bytes);
            share.grow(&source.memory, 2 * bytes);
            if batches.send(Batch { events, told, share }).await.is_err() {
                return Ok(Ended::Unwanted);
            }
            if lean && tells {
                return Ok(Ended::Passed);
            }
        }
        // A stream over a whole deployment has no end of its own.
        let mut fault = Fault::new(
            FaultCode::SourceReadFailed,
            format!("the change stream of {} ended", source.hosts),
        );
        fault.retryable = true;
        Err(fault.into())
    }

    /// A reply's events, with what its stream does not tell from one time to another.
    async fn with_untold(
        &self,
        source: &Deployment,
        events: Vec<Event>,
        before: Option<&RawDocumentBuf>,
        (after, through): (ClusterTime, ClusterTime),
    ) -> Result<Vec<Event>, Fault> {
        if self.source.is_behind_router() {
            return Ok(events);
        }
        let untold = atomic_apply_ops::between(source, after, through).await?;
        self.recopy_capped(source, &untold).await?;
        atomic_apply_ops::among(events, untold, before)
    }

    /// Has capped collections copied again that an atomic `applyOps` inserted into: what was
    /// evicted for it stands neither in the stream nor in the oplog (seen on 6.0.5).
    async fn recopy_capped(&self, source: &Deployment, untold: &[Event]) -> Result<(), Fault> {
        let mut touched = BTreeSet::new();
        for event in untold {
            if let What::Change(change) = &event.what
                && change.op != Op::Delete
                && self.scope.contains(&change.namespace)
            {
                touched.insert(&change.namespace);
            }
        }
        for namespace in touched {
            if catalog::find(source, namespace).await?.is_some_and(|info| info.is_capped()) {
                self.keeper.ask(namespace);
            }
        }
        Ok(())
    }

    /// A share for the stream's next reply. Where the others' events wait for this one's it does
    /// not wait: they are given back only once they are applied.
    async fn share(&self, source: &Deployment, last: u64, missing: &Notify) -> Share {
        tokio::select! {
            biased;
            share = source.memory.ahead(last) => share,
            () = missing.notified(), if self.source.shards.len() > 1 => {
                tracing::debug!(hosts = source.hosts, "the other shards' events wait for this \
                     one's; it reads beyond the memory bound");
                source.memory.overdraw()
            }
        }
    }
}
