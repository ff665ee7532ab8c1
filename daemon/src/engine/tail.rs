//! Follows the source's changes: reads the stream ahead, applies it in rounds, stores how far it
//! has come.
//!
//! ```text
//! change stream --batches--> reader --bounded--> merge --> rounds --key--> workers --> checkpoint
//! change stream --batches--> reader --bounded--/       \-- a definition: alone, between rounds
//! ```
//!
//! Each shard of a cluster has a stream; a replica set has one. They are merged by cluster time. A
//! shard that is idle does not tell how far it has come, and holds the others up: a note in its
//! oplog makes it tell.
//!
//! A round is whatever has arrived, up to a bound: it grows with the backlog, and shrinks to one
//! event where there is none. Events of one key go to one worker, in their order. The checkpoint is
//! stored when a whole round is applied by every worker, so that it never passes an event that is
//! not. Before and after a definition it is synced to disk: a rename must not meet again what came
//! before it.

pub(super) mod atomic_apply_ops;
mod collection_identity;
mod distributed_transaction;
mod idle_shard;
pub mod merge;
pub mod oplog_rollover;
mod read_ahead;
mod resume_point;
pub mod shard_ddl;
mod shard_drop;
mod shard_key_delete;
pub(super) mod stream;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::try_join_all;
use mongodb::bson::RawDocumentBuf;
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, Scope};
use schemas::spec::{RateLimit, ShardingSpec};
use tokio::sync::{Notify, RwLock, mpsc};
use tokio_util::sync::CancellationToken;

use self::distributed_transaction::Moments;
use self::idle_shard::Idle;
use self::merge::{Merge, Passed, ShardIndex};
use self::read_ahead::Held;
use self::resume_point::Position;
use self::shard_ddl::Told;
use self::shard_drop::Dropped;
use self::shard_key_delete::Keys;
use super::apply::coalesce;
use super::apply::definitions::{Mends, Tried};
use super::apply::route::{self, Group};
use super::apply::{Applier, Order};
use super::capped::keeper::Keeper;
use super::capped::sequence::Sequence;
use super::catalog::{self, CollectionInfo, Kind};
use super::change_event::{Change, Definition, Event, Op, What};
use super::checkpoint::{Checkpoints, Recopied, ShardRow, ToldRow};
use super::concurrent::{self, Piece};
use super::destination::duplicate_fields::DuplicateFields;
use super::progress::Progress;
use super::source::Source;
use super::tuning::Tuning;
use super::verify::Verifier;
use super::{document_key, element};
use crate::memory::Share;
use crate::mongo::{Deployment, timestamp};
use stream::Batch;

/// Replies read ahead of what is being applied.
const READ_AHEAD: usize = 2;
/// The same where there are several streams, each of which has another reply waiting to be let out.
const READ_AHEAD_OF_SEVERAL: usize = 1;

/// What a name stands for on the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nature {
    /// A collection, or nothing yet.
    #[default]
    Plain,
    /// A view.
    View,
    /// Measurements, whose buckets are changed under a name of their own.
    TimeSeries,
}

/// What the tail must know of a collection to route its events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traits {
    /// What it is.
    pub nature: Nature,
    /// Strings compare by a collation.
    pub collated: bool,
    /// Documents have an order to keep.
    pub capped: bool,
}

impl Traits {
    /// The traits of what is listed so.
    #[must_use]
    pub fn of(info: &CollectionInfo) -> Self {
        let nature = match info.kind {
            Kind::Collection => Nature::Plain,
            Kind::View => Nature::View,
            Kind::TimeSeries => Nature::TimeSeries,
        };
        Self { nature, collated: info.has_collation(), capped: info.is_capped() }
    }
}

/// Follows the changes of a source.
#[derive(Debug)]
pub struct Tail {
    /// Where the streams are.
    pub source: Arc<Source>,
    /// Where it is applied.
    pub destination: Arc<Deployment>,
    /// Where it is stored how far it has come.
    pub checkpoints: Checkpoints,
    /// Where progress is counted.
    pub progress: Arc<Progress>,
    /// What is carried.
    pub scope: Scope,
    /// Every document of the copy was read at or before this time.
    pub copied: ClusterTime,
    /// What is known of the collections.
    pub traits: Mutex<HashMap<Namespace, Traits>>,
    /// Namespaces that were copied again by themselves.
    pub recopied: Mutex<HashMap<Namespace, Recopied>>,
    /// The record of the source that was inserted last, of capped collections.
    pub records: Mutex<HashMap<Namespace, i64>>,
    /// Tells of capped collections that are to be copied again.
    pub keeper: Arc<Keeper>,
    /// Namespaces whose documents no delta is applied to.
    pub duplicate_fields: DuplicateFields,
    /// Held for reading while a round is applied: a writer stops the tail between two rounds.
    pub tail_lock: Arc<RwLock<()>>,
    /// Is told of what was changed.
    pub verifier: Arc<Verifier>,
    /// Definitions that somebody found to differ.
    pub mends: Arc<Mends>,
    /// Those that were mended, and differ all the same.
    pub tried: Mutex<Tried>,
    /// Ends it between two rounds.
    pub stop: CancellationToken,
    /// Holds for collections that are copied again, too.
    pub rate_limit: Option<RateLimit>,
    /// By what collections are sharded on the destination.
    pub sharding: Option<ShardingSpec>,
    /// Its bounds.
    pub tuning: Tuning,
}

/// What is applied at once.
#[derive(Debug, Default)]
struct Round {
    events: Vec<(ShardIndex, Event)>,
    bytes: usize,
    /// Of replies whose last event is in it.
    shares: Vec<Share>,
}

/// Waits for the next reply of a shard that is wanted; `None`: there is no more of it.
async fn next(
    arrived: &mut [mpsc::Receiver<Batch>],
    merge: &Merge<Event>,
) -> (ShardIndex, Option<Batch>) {
    std::future::poll_fn(|context| {
        for shard_index in merge.wanted() {
            if let std::task::Poll::Ready(batch) = arrived[shard_index].poll_recv(context) {
                return std::task::Poll::Ready((shard_index, batch));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

impl Tail {
    /// Follows the streams until it is stopped, or fails. What was applied is in the checkpoints
    /// then. `from`: where each shard's tail stands, in the order of the shards.
    pub async fn follow(&self, from: &[ShardRow]) -> Result<(), Fault> {
        self.finish_copies().await?;
        let ahead = if from.len() > 1 { READ_AHEAD_OF_SEVERAL } else { READ_AHEAD };
        let (senders, mut arrived): (Vec<_>, Vec<_>) =
            from.iter().map(|_| mpsc::channel(ahead)).unzip();
        let missing: Vec<Notify> = from.iter().map(|_| Notify::new()).collect();
        let shard_indexes = self.source.shards.iter().zip(from).zip(senders).zip(&missing);
        let read =
            try_join_all(shard_indexes.map(|(((shard, from), batches), missing)| {
                self.read(shard, from, batches, missing)
            }));
        let apply = self.apply(from, &mut arrived, &missing);
        // The one ends when the other fails.
        tokio::pin!(read, apply);
        let ended = tokio::select! {
            ended = &mut read => ended.map(drop),
            ended = &mut apply => return ended,
        };
        // The readers are gone, and their channels end. What arrived before is applied all the
        // same.
        read.set(try_join_all(Vec::new()));
        apply.await?;
        match ended {
            _ if self.stop.is_cancelled() => Ok(()),
            // The first shard to tell so need not be the only one.
            Err(fault) if fault.code == FaultCode::ResumePointLost && self.source.is_sharded() => {
                let found =
                    oplog_rollover::look(&self.source, &self.checkpoints, &self.progress).await?;
                Err(found.fault().unwrap_or(fault))
            }
            ended => ended,
        }
    }

    /// `missing`: is told for each shard that it holds up all others.
    async fn apply(
        &self,
        from: &[ShardRow],
        arrived: &mut [mpsc::Receiver<Batch>],
        missing: &[Notify],
    ) -> Result<(), Fault> {
        let mut held = Held::nothing(from.len());
        let mut merge = Merge::new(from.iter().map(|row| row.applied.unwrap_or(row.start)));
        let mut position = Position::at(from);
        position.show(self);
        let mut told = self.told().await?;
        let mut idle = Idle::default();
        let mut keys = Keys::default();
        let mut moments = Moments::at(from);
        let mut asked = self.mends.take().await;
        let mut is_over = false;
        while !is_over {
            while let Some(namespace) = self.keeper.wanted() {
                let _round = self.tail_lock.read().await;
                self.copy_aside(&namespace).await?;
                self.keeper.done(&namespace);
            }
            idle.look(&self.source, merge.holds_up());
            merge.wanted().for_each(|shard_index| missing[shard_index].notify_one());
            let (shard_index, batch) = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ask) = asked.recv() => {
                    // What is copied again must not meet again what came before it.
                    self.store(&mut position, &mut told, true).await?;
                    let _round = self.tail_lock.read().await;
                    self.answer(ask).await?;
                    continue;
                }
                arrived = next(arrived, &merge) => arrived,
                () = self.keeper.asked() => continue,
                written = idle.written() => {
                    written?;
                    continue;
                }
            };
            match batch {
                Some(batch) => {
                    held.push(shard_index, batch.events.len(), batch.share);
                    merge.push(shard_index, batch.events, batch.told);
                }
                None => is_over = true,
            }
            // All that can be applied of what has arrived.
            loop {
                let Round { events, bytes, shares } =
                    self.take_round(&mut merge, &mut held, arrived);
                let is_last =
                    events.len() < self.tuning.round_events && bytes < self.tuning.round_bytes;
                let passed: Vec<(ShardIndex, Passed)> = (0..from.len())
                    .filter_map(|shard_index| Some((shard_index, merge.take_told(shard_index)?)))
                    .collect();
                let _round = self.tail_lock.read().await;
                self.apply_events(events, &mut position, &mut told, &mut keys, &mut moments)
                    .await?;
                drop(shares);
                for (shard_index, passed) in passed {
                    position.pass(shard_index, passed.token, passed.time);
                }
                position.settle(merge.settled());
                position.show(self);
                // Only now both sides have shown that they work.
                self.progress.set_error(None);
                if position.stored.elapsed() >= self.tuning.checkpoint_every {
                    self.store(&mut position, &mut told, false).await?;
                }
                if is_last {
                    break;
                }
            }
        }
        self.store(&mut position, &mut told, false).await
    }

    /// Takes what can be applied now, up to the bounds of a round.
    fn take_round(
        &self,
        merge: &mut Merge<Event>,
        held: &mut Held,
        arrived: &mut [mpsc::Receiver<Batch>],
    ) -> Round {
        let mut round = Round::default();
        let is_full = |round: &Round| {
            round.events.len() >= self.tuning.round_events || round.bytes >= self.tuning.round_bytes
        };
        loop {
            while !is_full(&round)
                && let Some((shard_index, event)) = merge.pop()
            {
                round.bytes += event.bytes;
                round.events.push((shard_index, event));
                round.shares.extend(held.pop(shard_index));
            }
            if is_full(&round) {
                return round;
            }
            let wanted: Vec<ShardIndex> = merge.wanted().collect();
            let mut more = false;
            for shard_index in wanted {
                if let Ok(batch) = arrived[shard_index].try_recv() {
                    more = true;
                    held.push(shard_index, batch.events.len(), batch.share);
                    merge.push(shard_index, batch.events, batch.told);
                }
            }
            if !more {
                return round;
            }
        }
    }

    /// Which definitions were reported by which shard; nothing where there is one shard alone,
    /// whose every word counts.
    async fn told(&self) -> Result<Told, Fault> {
        let rows = self.checkpoints.told().await?;
        let shard_index = |name| self.source.names().position(|shard| shard == name);
        let told = rows
            .iter()
            .filter_map(|row| Some((row.kind.clone(), shard_index(&row.shard)?, row.times)));
        let told = Told::stored(told, self.checkpoints.identities().await?);
        Ok(if self.source.is_behind_router() { told.in_one_stream() } else { told })
    }

    async fn store(
        &self,
        position: &mut Position,
        told: &mut Told,
        durable: bool,
    ) -> Result<(), Fault> {
        let name = |shard_index: ShardIndex| self.source.shards[shard_index].name.clone();
        let shard_indexes = position.take_changed(name);
        if shard_indexes.is_empty() {
            return Ok(());
        }
        let changed = told.take_changed().into_iter();
        let told = changed
            .map(|(kind, shard_index, times)| ToldRow { kind, shard: name(shard_index), times })
            .collect();
        self.checkpoints.store_tail(shard_indexes, told, durable).await?;
        position.stored = Instant::now();
        Ok(())
    }

    async fn apply_events(
        &self,
        events: Vec<(ShardIndex, Event)>,
        position: &mut Position,
        told: &mut Told,
        keys: &mut Keys,
        moments: &mut Moments,
    ) -> Result<(), Fault> {
        let mut changes = Vec::new();
        let newest = events.iter().map(|(_, event)| event.time).max().unwrap_or(position.time);
        for (shard_index, event) in events {
            match self.unless_odd(event.what)? {
                What::Change(change) => {
                    let (change, is_named) = match event.uuid.as_deref() {
                        Some(uuid) if self.source.is_sharded() => {
                            self.named(change, uuid, told, &mut keys.strangers).await?
                        }
                        Some(_) | None => (change, true),
                    };
                    let is_alone = !self.source.is_sharded()
                        || !moments.deletes_changed(shard_index, event.time, &change)
                            && is_named
                            && keys
                                .names_document(
                                    &self.source,
                                    &change,
                                    event.uuid.as_deref(),
                                    newest,
                                )
                                .await?;
                    if is_alone {
                        changes.push(change);
                    } else {
                        let Change { namespace, id, .. } = change;
                        changes.push(Change {
                            namespace: namespace.clone(),
                            id: id.clone(),
                            op: Op::Delete,
                        });
                        changes.push(Change { namespace, id, op: Op::Reread });
                    }
                    position.pass(shard_index, event.token, event.time);
                    position.count(shard_index);
                }
                What::Definition(definition) => {
                    self.apply_changes(std::mem::take(&mut changes), position.time).await?;
                    keys.forget();
                    if self.source.is_sharded()
                        && !told.is_new(
                            shard_index,
                            &event.kind,
                            &definition,
                            event.uuid.as_deref(),
                        )
                    {
                        position.pass(shard_index, event.token, event.time);
                        position.count(shard_index);
                        continue;
                    }
                    self.store(position, told, true).await?;
                    let judged = match &definition {
                        Definition::Drop(namespace) if self.source.is_sharded() => {
                            self.dropped(
                                shard_index,
                                namespace,
                                event.uuid.as_deref(),
                                told.identity(namespace),
                            )
                            .await?
                        }
                        _ => Dropped::Gone,
                    };
                    let defined = match (judged, &definition) {
                        (Dropped::Replaced, _) => {
                            position.pass(shard_index, event.token, event.time);
                            position.count(shard_index);
                            continue;
                        }
                        (Dropped::Doubtful, Definition::Drop(namespace)) => {
                            self.copy_anew(namespace).await
                        }
                        (Dropped::Gone | Dropped::Doubtful, definition) => {
                            self.define(definition, event.time).await
                        }
                    };
                    match defined {
                        // Documents of a shard that has yet to tell of the index, or that could not
                        // build it, need not fit it.
                        Err(fault)
                            if self.source.is_sharded()
                                && !fault.retryable
                                && matches!(definition, Definition::CreateIndexes(..)) =>
                        {
                            tracing::warn!(
                                shard = %self.source.shards[shard_index].name,
                                error = %fault.message,
                                "left to the next shard that tells of it",
                            );
                            told.take_back(&event.kind);
                        }
                        defined => defined?,
                    }
                    if self.source.is_sharded() {
                        for (namespace, uuid) in told.note(&definition, event.uuid) {
                            self.checkpoints.store_identity(&namespace, uuid).await?;
                        }
                    }
                    position.pass(shard_index, event.token, event.time);
                    position.count(shard_index);
                    self.store(position, told, true).await?;
                }
                What::Nothing | What::Odd(..) => {
                    position.pass(shard_index, event.token, event.time)
                }
                What::Unknown(kind, namespace) => {
                    let concerned =
                        namespace.as_ref().is_none_or(|namespace| self.concerns(namespace));
                    if !concerned {
                        tracing::info!(
                            kind,
                            ?namespace,
                            "a change of a kind that is not known, of what is not carried"
                        );
                        position.pass(shard_index, event.token, event.time);
                        continue;
                    }
                    // What came before it is applied, and where the run stands is kept: who knows
                    // it can go on from there.
                    self.apply_changes(std::mem::take(&mut changes), position.time).await?;
                    let of =
                        namespace.map(|namespace| format!(" of {namespace}")).unwrap_or_default();
                    let message = format!(
                        "the source's change stream tells of a {kind}{of}, which this version \
                         cannot carry"
                    );
                    let remedy = "install a version of cutoverd that knows it, which goes on from \
                         here while the source's oplog lasts; or \
                                  raise `generation` to run again from scratch";
                    let fault =
                        Fault::new(FaultCode::UnsupportedChange, message).with_remedy(remedy);
                    return Err(Fault { retryable: true, ..fault });
                }
            }
        }
        self.apply_changes(changes, position.time).await
    }

    /// Sees that an event is of nothing in scope whose name is no UTF-8: that can be called by no
    /// name, and must not be left out.
    fn unless_odd(&self, what: What) -> Result<What, Fault> {
        let What::Odd(namespace, kind, otherwise) = what else { return Ok(what) };
        // One that goes was never carried.
        let goes = matches!(kind.as_str(), "drop" | "dropDatabase" | "dropIndexes");
        let is_in_scope = self.scope.contains(&namespace)
            || catalog::owner_of(&namespace).is_some_and(|it| self.scope.contains(&it));
        if is_in_scope && !goes {
            let message = format!(
                "the source has {namespace}, whose name is no UTF-8 (seen in its change stream: \
                 {kind})"
            );
            return Err(Fault::new(FaultCode::UnsupportedChange, message).with_remedy(
                "give it another name on the source, or leave it out with namespaces.exclude, and \
                 raise `generation` to run again from scratch",
            ));
        }
        Ok(otherwise.map_or(What::Nothing, What::Definition))
    }

    /// Whether a namespace, or that of which it holds the buckets, is in scope.
    fn concerns(&self, namespace: &Namespace) -> bool {
        self.scope.contains(&catalog::owner_of(namespace).unwrap_or_else(|| namespace.clone()))
    }

    /// Applies changes without a definition among them: workers side by side, each key's in order.
    async fn apply_changes(&self, changes: Vec<Change>, newest: ClusterTime) -> Result<(), Fault> {
        let mut groups: HashMap<Namespace, Group> = HashMap::new();
        let mut seen: HashMap<Namespace, Option<Traits>> = HashMap::new();
        let mut touched = Vec::new();
        let tracking = self.verifier.is_tracking();
        let mut changed: HashMap<Namespace, HashSet<Vec<u8>>> = HashMap::new();
        let namespaces: HashSet<&Namespace> =
            changes.iter().map(|change| &change.namespace).collect();
        for namespace in namespaces {
            self.see(namespace).await?;
        }
        for change in changes {
            let traits = match seen.get(&change.namespace) {
                Some(traits) => *traits,
                None => {
                    let carried = self.carried(&change.namespace);
                    touched.extend(carried.as_ref().map(|(owner, _)| owner.clone()));
                    let traits = carried.map(|(_, traits)| traits);
                    seen.insert(change.namespace.clone(), traits);
                    traits
                }
            };
            let Some(traits) = traits else { continue };
            if change.op.content().is_some_and(element::has_doubled_names) {
                self.duplicate_fields.add(&change.namespace).await?;
            }
            if tracking {
                changed
                    .entry(change.namespace.clone())
                    .or_default()
                    .insert(change.id.as_bytes().to_vec());
            }
            let hash = document_key::hash(&change.id, traits.collated);
            let group = match groups.get_mut(&change.namespace) {
                Some(group) => group,
                None => groups.entry(change.namespace.clone()).or_default(),
            };
            group.is_ordered = traits.capped;
            group.changes.push((hash, change));
        }
        if touched.is_empty() {
            return Ok(());
        }
        self.progress.set_last_change(newest);
        self.note_created(touched).await?;
        let applier =
            Applier { tail: self, as_of: timestamp(newest), expect_present: newest > self.copied };
        let applier = &applier;
        let worker_queues = route::worker_queues(groups, &self.tuning).into_iter().map(
            |worker_queue| -> Piece<'_, ()> {
                Box::pin(async move {
                    let is_capped = self.traits_of(&worker_queue.namespace).capped;
                    let order = if is_capped { Order::Kept } else { Order::Free };
                    let mut sequence = match is_capped {
                        true => {
                            self.sequence(
                                &worker_queue.namespace,
                                &worker_queue.changes,
                                applier.as_of,
                            )
                            .await?
                        }
                        false => Sequence::default(),
                    };
                    for mut round in coalesce::fold(worker_queue.changes, &self.tuning) {
                        sequence.arrange(&mut round);
                        applier.apply(&worker_queue.namespace, &round, order).await?;
                    }
                    Ok(())
                })
            },
        );
        let changed = changed.into_iter().flat_map(|(namespace, ids)| {
            ids.into_iter().filter_map(move |id| {
                Some((namespace.clone(), RawDocumentBuf::from_bytes(id).ok()?))
            })
        });
        // Side by side: what is queued is compared only once the tail's lock is free, and the round
        // is over.
        let queued = self.verifier.changed(changed.collect());
        tokio::try_join!(concurrent::all(self.tuning.workers, worker_queues.collect()), queued)
            .map(drop)
    }

    /// What a change of this namespace belongs to, if it is carried: a collection in scope, or one
    /// whose buckets these are. What the name no longer stands for on the destination is a state of
    /// the source that was over before the copy read it.
    pub(super) fn carried(&self, namespace: &Namespace) -> Option<(Namespace, Traits)> {
        let owner = catalog::owner_of(namespace);
        let is_bucket = owner.is_some();
        let owner = owner.unwrap_or_else(|| namespace.clone());
        if !self.scope.contains(&owner) {
            return None;
        }
        let traits = self.traits_of(&owner);
        let fits = match traits.nature {
            Nature::Plain => !is_bucket,
            Nature::TimeSeries => is_bucket,
            Nature::View => false,
        };
        fits.then_some((owner, traits))
    }

    /// A first change makes the collection where there is none: the run is then its maker.
    pub(super) async fn note_created(&self, namespaces: Vec<Namespace>) -> Result<(), Fault> {
        let known = self.progress.created();
        let new: Vec<Namespace> =
            namespaces.into_iter().filter(|namespace| !known.contains(namespace)).collect();
        if !new.is_empty() {
            self.checkpoints.store_created(new.clone()).await?;
            self.progress.add_created(new);
        }
        Ok(())
    }

    /// What is known of a collection.
    pub(super) fn traits_of(&self, namespace: &Namespace) -> Traits {
        self.traits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .copied()
            .unwrap_or_default()
    }

    /// Notes what is known of a collection; `None`: it is gone.
    pub(super) fn set_traits(&self, namespace: &Namespace, traits: Option<Traits>) {
        let mut known = self.traits.lock().unwrap_or_else(PoisonError::into_inner);
        match traits {
            Some(traits) => known.insert(namespace.clone(), traits),
            None => known.remove(namespace),
        };
        // Its records are another collection's, or another order's.
        self.records.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    /// Notes that documents of a namespace were read again. Should it have had another name by
    /// then, a rename that is further on in the stream would carry what was not read, or what
    /// belongs to another collection of that name: it then copies again.
    pub(super) async fn note_reread(&self, namespace: &Namespace) -> Result<(), Fault> {
        let time = self.source.newest_optime().await?;
        let known =
            self.recopied.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).copied();
        match known {
            Some(known) if known.time >= time => Ok(()),
            Some(known) => self.set_recopied(namespace, Some(Recopied { time, ..known })).await,
            None => self.set_recopied(namespace, Some(Recopied { whole: true, time })).await,
        }
    }

    /// Whether a namespace's data on the destination may be from after this time.
    pub(super) fn was_read_after(&self, namespace: &Namespace, time: ClusterTime) -> bool {
        let recopied = self.recopied.lock().unwrap_or_else(PoisonError::into_inner);
        time <= self.copied
            || recopied
                .get(namespace)
                .is_some_and(|recopied| !recopied.whole || time <= recopied.time)
    }
}
