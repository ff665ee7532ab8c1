//! The copy of all shards: each is a source of its own, with its own start point, parts,
//! checkpoint, progress and error.
//!
//! ```text
//! router --> topology (shards, chunk maps, versions) ------ compared again: what moved is an error
//! shard 0 --> start point --> definitions --> documents -\
//! shard 1 --> start point --> definitions --> documents --+--> indexes --> merged streams --> tail
//! shard 2 --> start point --> definitions --> documents -/
//! ```
//!
//! A replica set is the same with one shard and no router.
//!
//! **Order.** Every shard's start point is stored before a document of any is read: a document
//! whose shard key changes meanwhile leaves one shard and comes to another, and only the streams
//! report. The cluster is looked at after the start points. Definitions are made one shard after
//! another, since each reports the same collections; documents are copied side by side. A
//! collection's indexes are built once every shard's documents of it are there; before any of them
//! where that is declared.
//!
//! **Failure.** A shard that fails keeps its error to itself while the others go on to their end;
//! it is begun again by itself where the fault may pass, and by the operator's word ([`Restarts`]).
//! Where no shard gets anywhere the run has failed.
//!
//! **Ownership.** Reads carry the versions of that look at the cluster ([`Placement`]): a shard
//! then leaves out its orphans, and answers `StaleConfig` once a chunk has moved. A scan that is
//! open goes on with what the shard owned when it began. So as long as every scan of a collection
//! began under one state of it, each document was read from one shard, or a stream reports it;
//! that it was one state is checked when all are done, and, by what was stored of it, when the copy
//! goes on after the daemon was down.
//!
//! **Rounds.** A collection that lies otherwise by then, or was dropped and sharded anew, or has
//! another key, is dropped on the destination and copied again, alone, from another look at the
//! cluster. The start points stay: nothing of the streams is applied before all is copied, so that
//! it is as if the collection had been read late. What moves again and again is an error, and so is
//! what concerns more than a collection: shards that come or go, `movePrimary`.
//!
//! **Streams.** [`super::tail::merge`] lets events out in the order of cluster time over all
//! shards. What is applied is one stream, then.

pub mod autoscale;
pub mod part;
pub mod partition;
pub mod rate_limit;
pub mod resizable_semaphore;
pub mod shard;
pub mod source_pressure;
pub mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::spec::IndexBuild;
use tokio::sync::{Notify, mpsc};

use self::shard::{Refused, ShardCopy, Work};
use super::capped::bound;
use super::catalog::{self, CollectionInfo};
use super::checkpoint::Stage;
use super::concurrent::{self, Piece};
use super::index;
use super::index::per_shard;
use super::source::topology::{Change, Cluster, Placement};
use super::sync::{Milestone, SMALL_COMMANDS, Sync};

/// Index builds at once: each uses the destination's cores itself.
const INDEX_BUILDS: usize = 2;
/// How often collections are copied again since their chunks have moved: once is an accident, and
/// this often somebody moves them.
const ROUNDS: u32 = 10;
/// How long after its patience has ended a shard's copy is begun again by itself, where its fault
/// may pass.
const LATER: Duration = Duration::from_secs(30);

/// Shards whose copy somebody wants to be begun again.
#[derive(Debug, Default)]
pub struct Restarts {
    asked: Mutex<BTreeSet<ShardName>>,
    changed: Notify,
}

impl Restarts {
    /// Asks for a shard.
    pub fn ask(&self, shard: &ShardName) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(shard.clone());
        self.changed.notify_one();
    }

    /// Waits until one of these is asked for.
    async fn wait(&self, of: &[ShardName]) -> ShardName {
        loop {
            let changed = self.changed.notified();
            {
                let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(found) = of.iter().find(|shard| asked.contains(shard)) {
                    asked.remove(found);
                    return found.clone();
                }
            }
            changed.await;
        }
    }
}

/// A collection that lies on one shard or on several.
#[derive(Debug)]
struct Spread {
    info: CollectionInfo,
    is_indexed: bool,
    /// Shards whose documents of it are not all written.
    open: Mutex<BTreeSet<ShardName>>,
}

/// A shard's copy that stopped.
#[derive(Debug)]
struct Stopped {
    fault: Fault,
    again_at: Option<Instant>,
}

type Spreads = BTreeMap<Namespace, Spread>;

fn moved(changes: &[Change]) -> Fault {
    let told: Vec<String> =
        changes.iter().filter(|change| change.moves_data()).map(ToString::to_string).collect();
    Fault::new(FaultCode::ChunksMoved, format!("while the shards were read, {}", told.join("; ")))
}

impl Sync {
    /// Looks at the cluster once every stream has begun: what moves from here on is noticed.
    /// `None`: the source is no cluster, or the copy is over, and what moves does no harm any more.
    async fn cluster(&self) -> Result<Option<Arc<Cluster>>, Fault> {
        let Some(before) = &self.source.cluster else { return Ok(None) };
        let router = &self.source.entry;
        let cluster = Arc::new(Cluster::discover(router).await?);
        if self.source.is_behind_router() {
            self.keep_homes(&cluster).await?;
            return Ok(None);
        }
        if cluster.shards != before.shards {
            return Err(moved(&cluster.changes_since(before)));
        }
        if self.checkpoints.is_settled().await? {
            return Ok(Some(cluster));
        }
        if let Some(series) =
            cluster.sharded_series().find(|series| self.spec.namespaces.scope.contains(series))
        {
            let message = format!(
                "{series} is a sharded time-series collection, which this version does not migrate"
            );
            return Err(Fault::new(FaultCode::UnsupportedNamespace, message));
        }
        let stored = self.checkpoints.places().await?;
        if stored.is_empty() {
            self.checkpoints.store_places(cluster.places()).await?;
        } else {
            self.copy_moved_anew(&cluster, &stored).await?;
        }
        Ok(Some(cluster))
    }

    /// Makes sure that no database's primary shard has moved: through a router that, alone of all
    /// moves, looks like a user's doing.
    async fn keep_homes(&self, cluster: &Cluster) -> Result<(), Fault> {
        let stored = self.checkpoints.places().await?;
        if stored.is_empty() {
            return self.checkpoints.store_places(cluster.places()).await;
        }
        if self.checkpoints.is_settled().await? {
            return Ok(());
        }
        let moves = cluster.moved_from(&stored).into_iter();
        self.refuse(moves.filter(|change| matches!(change, Change::HomeMoved(_))).collect())
    }

    /// Begins the copy of those collections anew that lie otherwise than when they were listed.
    async fn copy_moved_anew(
        &self,
        cluster: &Cluster,
        stored: &BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        self.refuse(cluster.moved_from(stored))?;
        let listed = self.checkpoints.listed().await?.into_iter();
        let elsewhere: BTreeSet<Namespace> =
            listed.filter(|namespace| cluster.is_elsewhere(namespace, stored)).collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        let created: BTreeSet<Namespace> = self.checkpoints.created().await?.into_iter().collect();
        for namespace in &elsewhere {
            tracing::info!(%namespace, "it lies otherwise over the shards by now; its copy begins \
                 anew");
            if created.contains(namespace) {
                catalog::drop(&self.destination, namespace).await?;
            }
        }
        self.destination.read_shard_keys().await?;
        self.checkpoints.copy_anew(elsewhere, cluster.places()).await
    }

    /// Refuses to go on after changes that concern more than single collections.
    fn refuse(&self, mut changes: Vec<Change>) -> Result<(), Fault> {
        changes.retain(|change| change.ends_copy(&self.spec.namespaces.scope));
        if changes.is_empty() { Ok(()) } else { Err(moved(&changes)) }
    }

    /// The collections whose documents were not all read in one state of them: `refused` by a
    /// shard, or moved since the round began.
    async fn to_copy_again(
        &self,
        cluster: &Cluster,
        refused: &Refused,
    ) -> Result<BTreeSet<Namespace>, Fault> {
        if self.checkpoints.is_settled().await? {
            return Ok(BTreeSet::new());
        }
        let changes = Cluster::discover(&self.source.entry).await?.changes_since(cluster);
        let mut again =
            std::mem::take(&mut *refused.lock().unwrap_or_else(PoisonError::into_inner));
        let scope = &self.spec.namespaces.scope;
        again.extend(changes.iter().filter_map(|change| match change {
            Change::ChunksMoved(namespace) if scope.contains(namespace) => Some(namespace.clone()),
            _ => None,
        }));
        self.refuse(changes)?;
        Ok(again)
    }

    /// Stores that all is copied, once.
    async fn settle(&self) -> Result<(), Fault> {
        let mut rows = Vec::with_capacity(self.source.shards.len());
        for name in self.source.names() {
            rows.push(self.checkpoints.shard(&name.0).await?);
        }
        if rows.iter().flatten().all(|row| row.copied.is_some()) {
            return Ok(());
        }
        self.checkpoints.store_copied(self.source.notes("cutover: copied").await?).await
    }

    /// Copies what is not copied yet, and builds the indexes.
    pub(super) async fn copy(&self) -> Result<(), Fault> {
        for _ in 0..ROUNDS {
            let again = self.copy_round().await?;
            if again.is_empty() {
                let _ = self.milestones.send(Milestone::Indexed);
                return Ok(());
            }
            let names: Vec<String> = again.iter().map(ToString::to_string).collect();
            tracing::warn!(
                namespaces = names.join(", "),
                "moved while they were read; they are copied again"
            );
        }
        let message = format!(
            "something moves the source's chunks all the time: collections were copied {ROUNDS} \
             times, and moved meanwhile"
        );
        Err(Fault::new(FaultCode::ChunksMoved, message))
    }

    /// Copies what is not copied yet, in one state of the cluster. Gives what must be copied again
    /// since it was not one.
    async fn copy_round(&self) -> Result<BTreeSet<Namespace>, Fault> {
        let refused = Refused::default();
        let mut shards: Vec<ShardCopy<'_>> = self
            .source
            .shards
            .iter()
            .map(|shard| ShardCopy {
                sync: self,
                shard,
                progress: self.progress.shard(&shard.name),
                placement: None,
                refused: Arc::clone(&refused),
            })
            .collect();
        for shard in &shards {
            shard.start_point().await?;
        }
        let cluster = self.cluster().await?;
        for shard in &mut shards {
            let of = |cluster: &Arc<Cluster>| Placement {
                cluster: Arc::clone(cluster),
                shard: shard.shard.name.clone(),
            };
            shard.placement = cluster.as_ref().map(of);
        }
        let mut catalogues = Vec::with_capacity(shards.len());
        for shard in &shards {
            let row = shard.start_point().await?;
            let catalogue = shard.catalogue(&row).await?;
            if row.copied.is_none() {
                shard.create(&catalogue).await?;
            }
            catalogues.push(catalogue);
        }
        let spreads = self.spreads(&shards, &catalogues).await?;
        if self.spec.copy.indexes == IndexBuild::BeforeCopy {
            let builds = spreads
                .values()
                .map(|spread| -> Piece<'_, ()> { Box::pin(self.build_indexes(spread)) });
            concurrent::all(SMALL_COMMANDS, builds.collect()).await?;
        }
        let (finished, to_index) = mpsc::unbounded_channel();
        let documents = async {
            let finished = finished;
            self.copy_documents(&shards, &|shard, namespace| {
                let Some(spread) = spreads.get(namespace) else { return };
                let mut open = spread.open.lock().unwrap_or_else(PoisonError::into_inner);
                if open.remove(shard) && open.is_empty() {
                    if spread.info.has_documents() && !spread.is_indexed {
                        self.progress.add_collection();
                    }
                    let _ = finished.send(namespace.clone());
                }
            })
            .await?;
            let again = match &cluster {
                Some(cluster) => self.to_copy_again(cluster, &refused).await?,
                None => BTreeSet::new(),
            };
            if again.is_empty() {
                self.settle().await?;
                let _ = self.milestones.send(Milestone::Copied);
            }
            Ok(again)
        };
        // An index is built to its end before its collection is dropped.
        let (again, ()) = tokio::try_join!(documents, self.index_finished(&spreads, to_index))?;
        Ok(again)
    }

    /// What lies where, with the counters of the run set to what the checkpoints say.
    async fn spreads(
        &self,
        shards: &[ShardCopy<'_>],
        catalogues: &[Vec<Work>],
    ) -> Result<Spreads, Fault> {
        let mut spreads = Spreads::new();
        for (shard, catalogue) in shards.iter().zip(catalogues) {
            for work in catalogue {
                let spread = spreads.entry(work.row.namespace.clone()).or_insert_with(|| Spread {
                    info: work.info.clone(),
                    is_indexed: true,
                    open: Mutex::default(),
                });
                spread.is_indexed &= work.row.stage >= Stage::Indexed;
                spread
                    .open
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(shard.shard.name.clone());
            }
        }
        let with_documents = || spreads.values().filter(|spread| spread.info.has_documents());
        let indexed = with_documents().filter(|spread| spread.is_indexed).count();
        self.progress.set_collections(with_documents().count() as u64, indexed as u64);
        self.progress.reset_indexes();
        let counts = with_documents().map(|spread| -> Piece<'_, ()> {
            Box::pin(async move {
                let namespace = &spread.info.namespace;
                let specs = catalog::indexes(&self.source.entry, namespace).await?;
                let total = specs.len() as u64;
                self.progress.add_indexes(total, if spread.is_indexed { total } else { 0 });
                self.progress
                    .add_deferred(specs.iter().flat_map(|spec| index::deferred(namespace, spec)));
                self.progress.add_deferred(bound::deferred(&spread.info));
                Ok(())
            })
        });
        concurrent::all(SMALL_COMMANDS, counts.collect()).await?;
        Ok(spreads)
    }

    /// Copies every shard's documents side by side.
    async fn copy_documents(
        &self,
        shards: &[ShardCopy<'_>],
        whole: &(dyn Fn(&ShardName, &Namespace) + Send + std::marker::Sync),
    ) -> Result<(), Fault> {
        let mut running: FuturesUnordered<BoxFuture<'_, (usize, Result<(), Fault>)>> =
            FuturesUnordered::new();
        let begin = |place: usize| -> BoxFuture<'_, (usize, Result<(), Fault>)> {
            let shard = &shards[place];
            Box::pin(async move { (place, self.copy_shard(shard, whole).await) })
        };
        running.extend((0..shards.len()).map(begin));
        let mut stopped: BTreeMap<usize, Stopped> = BTreeMap::new();
        loop {
            let names: Vec<ShardName> =
                stopped.keys().map(|place| shards[*place].shard.name.clone()).collect();
            let next_try = stopped
                .iter()
                .filter_map(|(place, stopped)| Some((stopped.again_at?, *place)))
                .min();
            let again = tokio::select! {
                Some((place, ended)) = running.next() => {
                    if let Err(fault) = ended {
                        let shard = &shards[place];
                        tracing::warn!(
                            shard = %shard.shard.name, code = %fault.code, error = %fault.message,
                            "a shard's copy stopped",
                        );
                        shard.progress.set_error(Some(fault.clone()));
                        let _ = self.milestones.send(
                            Milestone::ShardStopped(shard.shard.name.clone(), fault.clone())
                        );
                        let again_at = fault.retryable.then(|| Instant::now() + LATER);
                        stopped.insert(place, Stopped { fault, again_at });
                    }
                    None
                }
                asked = self.restarts.wait(&names), if !names.is_empty() => {
                    shards.iter().position(|shard| shard.shard.name == asked)
                }
                () = until(next_try.map(|(at, _)| at)), if next_try.is_some() => {
                    next_try.map(|(_, place)| place)
                }
                else => return Ok(()),
            };
            if let Some(place) = again {
                tracing::info!(shard = %shards[place].shard.name, "a shard's copy begins again");
                stopped.remove(&place);
                running.push(begin(place));
            } else if running.is_empty() && stopped.len() == shards.len() {
                // None of them gets anywhere: it is no matter of one shard.
                let first = stopped.into_values().next();
                return Err(first.map_or_else(
                    || Fault::new(FaultCode::Internal, "the source has no shard"),
                    |first| first.fault,
                ));
            }
        }
    }

    async fn copy_shard(
        &self,
        shard: &ShardCopy<'_>,
        whole: &(dyn Fn(&ShardName, &Namespace) + Send + std::marker::Sync),
    ) -> Result<(), Fault> {
        let name = &shard.shard.name;
        let tell = |namespace: &Namespace| whole(name, namespace);
        let tell = &tell;
        let show = |fault| shard.progress.set_error(fault);
        let copy = || -> BoxFuture<'_, Result<(), Fault>> {
            Box::pin(async move {
                self.identity.hold_shard(shard.shard).await?;
                self.wait_for_given_up().await?;
                shard.copy(tell).await
            })
        };
        self.patiently_with(&show, copy).await
    }

    /// Waits until the writes of a try that was given up have ended. Those of several shards cannot
    /// be told apart, and need not end: what a copy inserts late is there already, until the tail
    /// begins, which waits for all of them.
    async fn wait_for_given_up(&self) -> Result<(), Fault> {
        if self.source.shards.len() > 1 {
            return Ok(());
        }
        self.destination.wait_for_writes(&format!("{}:", self.destination.tag)).await
    }

    /// Builds the indexes of collections as they come, until no more will.
    async fn index_finished(
        &self,
        spreads: &Spreads,
        mut to_index: mpsc::UnboundedReceiver<Namespace>,
    ) -> Result<(), Fault> {
        let mut building = FuturesUnordered::new();
        let mut more = true;
        loop {
            tokio::select! {
                namespace = to_index.recv(), if more && building.len() < INDEX_BUILDS => {
                    match namespace.map(|name| spreads.get(&name)) {
                        Some(Some(spread)) => building.push(self.index(spread)),
                        Some(None) => {}
                        None => more = false,
                    }
                }
                Some(built) = building.next() => built?,
                else => return Ok(()),
            }
        }
    }

    /// Does what is left for a collection whose documents are there.
    async fn index(&self, spread: &Spread) -> Result<(), Fault> {
        if !spread.info.has_documents() || spread.is_indexed {
            return Ok(());
        }
        match self.spec.copy.indexes {
            IndexBuild::AfterCopy => self.build_indexes(spread).await?,
            // What became of the source's indexes since is in its stream.
            IndexBuild::BeforeCopy => {}
        }
        self.checkpoints.store_indexed(&spread.info.namespace).await
    }

    async fn build_indexes(&self, spread: &Spread) -> Result<(), Fault> {
        if !spread.info.has_documents() || spread.is_indexed {
            return Ok(());
        }
        let namespace = &spread.info.namespace;
        if self.spec.copy.indexes == IndexBuild::BeforeCopy {
            // Those that were built before a restart.
            index::drop_gone(&self.source.entry, &self.destination, namespace).await?;
        }
        let specs = catalog::indexes(&self.source.entry, namespace).await?;
        let (entry, shards, collated) =
            (&self.source.entry, &self.source.shards, spread.info.has_collation());
        per_shard::build(entry, shards, &self.destination, namespace, &specs, collated).await?;
        self.progress.add_indexes(0, specs.len() as u64);
        Ok(())
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
