//! Follows the destination's own change stream for what others write there.
//!
//! Each event is one of three: ours (see [`super::own_writes`]), a stranger's, or unclear, where it
//! is not known what we have written at that time: what came before this process began to remember,
//! and around a command whose reply was lost. A stranger's is named, and its document compared
//! again; an unclear one's document is compared again, and so judged by its content. What was found
//! is stored with the stream's token, so that a restart goes on where this was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::own_writes::Touched;
use super::store::foreign_writes::{Foreign, Told};
use super::{IDLE, Sides, Verifier};
use crate::engine::capped::aside::is_aside;
use crate::engine::capped::bound::Bound;
use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::change_event::token_time;
use crate::engine::element::{field, id_of};
use crate::mongo::{append, cluster_time, error, primary, server_code, timestamp};

/// How long the server waits for an event before it answers with none: so long at most a cutover
/// waits to learn that there is none.
const AWAIT: Duration = Duration::from_millis(100);
/// Events in one reply at most.
const REPLY_EVENTS: u32 = 5_000;
/// How far it has come is stored this often, where nothing was found.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// The server's codes for a stream whose resume point is gone.
const HISTORY_LOST: [i32; 2] =
    [server_code::CHANGE_STREAM_HISTORY_LOST, server_code::CHANGE_STREAM_FATAL_ERROR];

/// What is known of a collection on the destination.
#[derive(Debug, Clone, Copy, Default)]
struct Traits {
    collated: bool,
    /// Capped, with a bound that the server holds.
    evicts: bool,
    view: bool,
}

impl Traits {
    fn of(info: &CollectionInfo) -> Self {
        let bound = info.options().and_then(Bound::of);
        let evicts = bound.is_some_and(|bound| !bound.is_lifted());
        Self { collated: info.has_collation(), evicts, view: info.kind == Kind::View }
    }
}

/// One event, as far as it matters here.
#[derive(Debug)]
struct Seen {
    operation: String,
    db: String,
    collection: String,
    id: Option<RawDocumentBuf>,
    time: ClusterTime,
}

impl Seen {
    fn read(event: &RawDocument) -> Option<Self> {
        let text =
            |document: &RawDocument, name: &str| document.get_str(name).ok().map(str::to_owned);
        let ns = event.get_document("ns").ok();
        Some(Self {
            operation: text(event, "operationType")?,
            db: ns.and_then(|ns| text(ns, "db")).unwrap_or_default(),
            collection: ns.and_then(|ns| text(ns, "coll")).unwrap_or_default(),
            id: event.get_document("documentKey").ok().and_then(id_of),
            time: cluster_time(event.get_timestamp("clusterTime").ok()?),
        })
    }
}

/// What a destination's stream is followed with.
pub(super) struct Watch<'a> {
    verifier: &'a Arc<Verifier>,
    sides: &'a Sides,
    known: HashMap<Namespace, Traits>,
    /// Until then it is not known what we have written.
    unclear_until: ClusterTime,
    stored: Instant,
}

impl<'a> Watch<'a> {
    /// Begins to remember what we write. What comes after this is told from what others write.
    pub(super) async fn begin(
        verifier: &'a Arc<Verifier>,
        sides: &'a Sides,
    ) -> Result<Self, Fault> {
        let unclear_until = remember(verifier, sides).await?;
        if verifier.store.watched_to().await?.is_none() {
            verifier.store.watch_from(unclear_until).await?;
        }
        Ok(Self { verifier, sides, known: HashMap::new(), unclear_until, stored: Instant::now() })
    }

    /// Follows the stream until the future is dropped or something fails.
    pub(super) async fn follow(mut self) -> Result<(), Fault> {
        loop {
            let broken = match self.read().await {
                Ok(()) => {
                    // A stream over a whole deployment has no end of its own.
                    let hosts = &self.sides.destination.hosts;
                    let mut fault = Fault::new(
                        FaultCode::DestinationWriteFailed,
                        format!("the change stream of {hosts} ended"),
                    );
                    fault.retryable = true;
                    return Err(fault);
                }
                Err(broken) => broken,
            };
            match broken {
                Broken::Fault(fault) => return Err(fault),
                Broken::Server(e)
                    if error::code(&e).is_some_and(|code| HISTORY_LOST.contains(&code)) =>
                {
                    tracing::warn!(
                        "the destination's oplog no longer holds what others may have written; \
                         comparing everything anew"
                    );
                    self.unclear_until = remember(self.verifier, self.sides).await?;
                    self.verifier.store.watch_from(self.unclear_until).await?;
                    self.verifier.compare_anew().await?;
                }
                Broken::Server(e) => {
                    return Err(self.sides.destination.fault("following what others write", &e));
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), Broken> {
        let destination = &self.sides.destination;
        let place = self.verifier.store.watched_to().await?;
        let mut options = rawdoc! { "allChangesForCluster": true };
        if destination.version >= crate::engine::tail::stream::EXPANDED {
            append(&mut options, "showExpandedEvents", true);
            append(&mut options, "showSystemEvents", true);
        }
        match place {
            Some(place) => match place.token {
                Some(token) => append(&mut options, "resumeAfter", &*token),
                None => append(&mut options, "startAtOperationTime", timestamp(place.since)),
            },
            None => append(&mut options, "startAtOperationTime", timestamp(self.unclear_until)),
        }
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(&*rawdoc! { "$changeStream": options });
        pipeline.push(&*rawdoc! {
            "$project": { "operationType": 1, "ns": 1, "documentKey": 1, "clusterTime": 1 }
        });
        let mut open = rawdoc! { "aggregate": 1 };
        append(&mut open, "pipeline", &*pipeline);
        append(&mut open, "cursor", &*rawdoc! {});
        append(&mut open, "readConcern", &*rawdoc! { "level": "majority" });
        // What opens the stream brings its first reply.
        let mut first = Some(destination.memory.ahead(0).await);
        let mut last = 0;
        let mut cursor = destination
            .client
            .database("admin")
            .run_raw_cursor_command(open)
            .selection_criteria(primary())
            .batch_size(REPLY_EVENTS)
            .max_time(AWAIT)
            .batch()
            .await?;
        loop {
            let mut share = match first.take() {
                Some(share) => share,
                None => destination.memory.ahead(last).await,
            };
            let Some(reply) = cursor.next().await else { return Ok(()) };
            let reply = reply?;
            let bytes = reply.as_raw_document().as_bytes().len();
            last = bytes as u64;
            // As it came, and once more as what is read of it.
            share.grow(&destination.memory, 2 * bytes);
            let mut events = Vec::new();
            for value in reply.doc_slices()? {
                events.extend(value?.as_document().and_then(Seen::read));
            }
            let of_cursor = reply.as_raw_document().get_document("cursor").ok();
            let token = of_cursor
                .and_then(|cursor| cursor.get_document("postBatchResumeToken").ok())
                .map(RawDocument::to_owned);
            drop(reply);
            share.shrink(2 * bytes);
            self.judge(events, token).await?;
        }
    }

    async fn judge(
        &mut self,
        events: Vec<Seen>,
        token: Option<RawDocumentBuf>,
    ) -> Result<(), Fault> {
        if self.verifier.own.is_lost() {
            self.unclear_until = remember(self.verifier, self.sides).await?;
        }
        let mut told = Told { token, ..Told::default() };
        let mut unclear: HashSet<(Namespace, Vec<u8>)> = HashSet::new();
        // Of one document's changes the newest of each kind.
        let mut foreign: BTreeMap<(Namespace, Option<Vec<u8>>, String), Foreign> = BTreeMap::new();
        let mut remade: HashSet<Namespace> = HashSet::new();
        for event in events {
            match event.operation.as_str() {
                "insert" | "update" | "replace" | "delete" => {
                    let Some(id) = event.id.clone() else { continue };
                    let Some((namespace, traits)) = self.carried(&event).await? else { continue };
                    // The server itself deletes the oldest of a capped collection whose bound it
                    // does not lift.
                    if traits.evicts && event.operation == "delete" {
                        continue;
                    }
                    if event.time <= self.unclear_until {
                        unclear.insert((namespace, id.as_bytes().to_vec()));
                    } else if !self.is_ours(&event, traits.collated) {
                        let key = (
                            namespace.clone(),
                            Some(id.as_bytes().to_vec()),
                            event.operation.clone(),
                        );
                        let one = Foreign {
                            namespace,
                            id: Some(id),
                            operation: event.operation,
                            time: event.time,
                        };
                        foreign.insert(key, one);
                    } else if traits.collated {
                        // Ours by a collation that is not computed here, and perhaps not ours.
                        unclear.insert((namespace, id.as_bytes().to_vec()));
                    }
                }
                "create" | "createIndexes" | "dropIndexes" | "modify" | "drop" | "rename"
                | "dropDatabase" => {
                    let namespace = Namespace::new(event.db.clone(), owner_name(&event));
                    self.known.remove(&namespace);
                    let is_in_scope = self.sides.spec.namespaces.scope.contains(&namespace);
                    if !is_in_scope || event.collection == "system.views" || is_aside(&namespace) {
                        continue;
                    }
                    let is_unclear = event.time <= self.unclear_until;
                    if is_unclear || !self.is_ours(&event, false) {
                        if matches!(event.operation.as_str(), "drop" | "rename" | "dropDatabase") {
                            remade.insert(namespace.clone());
                        }
                        self.verifier.look_at_definitions();
                    }
                    if !is_unclear && !self.is_ours(&event, false) {
                        let key = (namespace.clone(), None, event.operation.clone());
                        foreign.insert(
                            key,
                            Foreign {
                                namespace,
                                id: None,
                                operation: event.operation,
                                time: event.time,
                            },
                        );
                    }
                }
                _ => {}
            }
        }
        told.unclear = unclear
            .into_iter()
            .filter_map(|(namespace, id)| Some((namespace, RawDocumentBuf::from_bytes(id).ok()?)))
            .collect();
        told.foreign = foreign.into_values().collect();
        self.tell(told, remade).await
    }

    async fn tell(&mut self, told: Told, remade: HashSet<Namespace>) -> Result<(), Fault> {
        let mut through = told.token.as_ref().and_then(|token| token_time(token));
        if self.sides.destination.is_sharded() {
            // One shard has reported up to this time. Another, whose clock is its own, may have
            // done something at the very same.
            through = through.map(before);
        }
        let found = !told.unclear.is_empty() || !told.foreign.is_empty();
        for one in &told.foreign {
            tracing::warn!(
                namespace = %one.namespace, operation = one.operation, at = %one.time,
                "somebody else writes to the destination",
            );
        }
        for namespace in &remade {
            // What is there now is another collection: nothing of it stands compared.
            self.verifier.copied_again(namespace).await?;
            self.verifier.copied_again(&catalog::buckets_of(namespace)).await?;
        }
        if found || self.stored.elapsed() >= STORE_EVERY {
            self.stored = Instant::now();
            self.verifier.store.store_told(told).await?;
            if found {
                self.verifier.count().await?;
            }
        }
        if let Some(through) = through {
            self.verifier.own.told(through);
            self.verifier.watched.send_replace(Some(through));
        }
        Ok(())
    }

    fn is_ours(&self, event: &Seen, collated: bool) -> bool {
        let id = event.id.as_ref().and_then(|id| field(id, "_id"));
        let touched = match (&id, event.operation.as_str()) {
            (_, "create") => Touched::Made,
            (Some(id), _) => Touched::Document(id),
            (None, _) => Touched::Definition,
        };
        self.verifier.own.is_ours(&event.db, &event.collection, touched, collated, event.time)
    }

    /// The namespace of an event's document, where it is in scope.
    async fn carried(&mut self, event: &Seen) -> Result<Option<(Namespace, Traits)>, Fault> {
        let namespace = Namespace::new(event.db.clone(), event.collection.clone());
        let owner = catalog::owner_of(&namespace).unwrap_or_else(|| namespace.clone());
        if !self.sides.spec.namespaces.scope.contains(&owner) || is_aside(&owner) {
            return Ok(None);
        }
        let traits = match self.known.get(&owner) {
            Some(traits) => *traits,
            None => {
                let found = catalog::find(&self.sides.destination, &owner).await?;
                let traits = found.as_ref().map(Traits::of).unwrap_or_default();
                if found.is_some() {
                    self.known.insert(owner.clone(), traits);
                }
                traits
            }
        };
        Ok((!traits.view).then_some((namespace, traits)))
    }
}

/// The cluster time right before another.
const fn before(time: ClusterTime) -> ClusterTime {
    match time.i.checked_sub(1) {
        Some(i) => ClusterTime { t: time.t, i },
        None => ClusterTime { t: time.t.saturating_sub(1), i: u32::MAX },
    }
}

fn owner_name(event: &Seen) -> &str {
    event.collection.strip_prefix("system.buckets.").unwrap_or(&event.collection)
}

/// Waits for a moment at which nothing of ours is on its way, and remembers from there on. Returns
/// that moment.
async fn remember(verifier: &Arc<Verifier>, sides: &Sides) -> Result<ClusterTime, Fault> {
    loop {
        {
            let _standing_still = sides.tail_lock.write().await;
            sides.destination.wait_for_writes(&format!("{}:", sides.destination.tag)).await?;
            let now = sides.destination.operation_time().await?;
            let start = ClusterTime { t: 0, i: 0 };
            let told =
                sides.destination.is_sharded().then(|| verifier.watched.borrow().unwrap_or(start));
            if verifier.own.remember(now, told) {
                // What was done since the first look, and not remembered yet, is before this one.
                return sides.destination.operation_time().await;
            }
        }
        tokio::time::sleep(IDLE).await;
    }
}

/// Why the stream is no longer read.
enum Broken {
    Server(mongodb::error::Error),
    Fault(Fault),
}

impl From<mongodb::error::Error> for Broken {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Server(error)
    }
}

impl From<mongodb::bson::error::Error> for Broken {
    fn from(error: mongodb::bson::error::Error) -> Self {
        Self::Server(error.into())
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
