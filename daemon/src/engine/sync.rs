//! One run's work from its start point to its tail: catalogue, copy, indexes, changes. Begins wherever the checkpoints say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::spec::MigrationSpec;
use tokio::sync::{RwLock, mpsc};
use tokio_util::sync::CancellationToken;

use super::brake;
use super::catalog::{self, CollectionInfo, Kind};
use super::checkpoint::{Checkpoints, CollectionRow, Part, ShardRow, Stage};
use super::concurrent::{self, Piece};
use super::copy::{Copied, Copier};
use super::distribute;
use super::doubled::Doubled;
use super::index;
use super::pace::Pace;
use super::partition::{self, Sample};
use super::progress::Progress;
use super::tail::{Tail, Traits};
use super::topology::Placement;
use super::tuning::Tuning;
use super::verify::{Sides, Verifier};
use crate::mongo::{Deployment, Topology, timestamp};

/// Collections created, listed or sized at once: small commands, each mostly a wait.
const SMALL_COMMANDS: usize = 8;
/// Index builds at once: each uses the destination's cores itself.
const INDEX_BUILDS: usize = 2;
/// Readers, each with its writer, unless the declaration says otherwise: two for each core, since a pair mostly waits for its
/// servers, between bounds that fit the memory bound.
const READERS: std::ops::RangeInclusive<usize> = 4..=8;

/// How long errors that may pass are waited out before the run is said to have failed: longer than an election.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between tries double from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What a sync needs.
#[derive(Debug, Clone)]
pub struct Sync {
    /// Read from.
    pub source: Arc<Deployment>,
    /// Written to.
    pub destination: Arc<Deployment>,
    /// What was declared.
    pub spec: Arc<MigrationSpec>,
    /// How far it has come.
    pub checkpoints: Checkpoints,
    /// Where progress is counted.
    pub progress: Arc<Progress>,
    /// Held for writing, it stops the tail between two rounds.
    pub gate: Arc<RwLock<()>>,
    /// Proves the copy.
    pub verifier: Arc<Verifier>,
    /// Ends it.
    pub stop: CancellationToken,
    /// Its bounds.
    pub tuning: Tuning,
    /// Raised when the copy is done, and with `true` when the indexes are.
    pub milestones: mpsc::UnboundedSender<Milestone>,
    /// Where the source is one shard of several: what of them it owns.
    pub placement: Option<Arc<Placement>>,
}

/// What a sync has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// All documents in scope were copied once.
    Copied,
    /// All indexes that do not wait for the cutover are built.
    Indexed,
}

/// What the copy of one source works through.
pub(super) struct Prepared {
    catalogue: Vec<Work>,
    member: Member,
}

/// A collection of the catalogue, and how many of its parts are left.
struct Work {
    row: CollectionRow,
    info: CollectionInfo,
    left: Mutex<usize>,
}

/// The source's member that documents are copied from.
struct Member {
    source: Deployment,
    name: String,
}

impl Sync {
    /// Works until it is stopped, or fails for good.
    pub async fn run(&self) -> Result<(), Fault> {
        let shard = self.shard_name()?;
        self.progress.set_shard(&shard);
        let row = tokio::select! {
            () = self.stop.cancelled() => {
                return Ok(());
            }
            row = self.until_copied(&shard) => row?,
        };
        let copied = row.copied.unwrap_or(row.start);
        let tail = self.patiently(|| {
            Box::pin(async {
                let row = self.checkpoints.shard(&shard).await?.unwrap_or_else(|| row.clone());
                self.tail(&shard, &row).await
            })
        });
        let verify = self.patiently(|| Box::pin(async { self.verifier.run(&self.sides(), copied).await }));
        let ended = tokio::select! {
            ended = tail => ended,
            ended = verify => ended,
        };
        match ended {
            // It was told to stop, and what went wrong meanwhile is met again when it starts.
            Err(fault) if fault.retryable && self.stop.is_cancelled() => {
                tracing::info!(code = %fault.code, error = %fault.message, "stopped while trying again");
                Ok(())
            }
            ended => ended,
        }
    }

    /// What the verification works on.
    fn sides(&self) -> Sides {
        Sides {
            source: Arc::clone(&self.source),
            destination: Arc::clone(&self.destination),
            spec: Arc::clone(&self.spec),
            progress: Arc::clone(&self.progress),
            gate: Arc::clone(&self.gate),
        }
    }

    /// The source's name in status and checkpoints.
    fn shard_name(&self) -> Result<String, Fault> {
        match &self.source.topology {
            Topology::ReplicaSet(name) => Ok(name.clone()),
            Topology::Standalone => Err(Fault::new(
                FaultCode::StandaloneSource,
                format!("the source at {} is a standalone server", self.source.hosts),
            )),
            Topology::Sharded => Err(Fault::new(FaultCode::NotSupportedYet, "sharded sources are not supported yet")),
        }
    }

    async fn until_copied(&self, shard: &str) -> Result<ShardRow, Fault> {
        self.patiently(|| {
            Box::pin(async {
                // Writes of a process that died, or of a try that was given up, must have ended.
                self.destination.wait_for_writes(&format!("{}:", self.destination.tag)).await?;
                self.destination.read_shard_keys().await?;
                let row = self.start_point(shard).await?;
                self.copy(shard, &row).await
            })
        })
        .await
    }

    /// Tries again what may pass, for as long as there is patience; time in which it went well gives patience back.
    pub(super) async fn patiently<'a, T>(&self, work: impl Fn() -> BoxFuture<'a, Result<T, Fault>>) -> Result<T, Fault> {
        let mut pause = PAUSES.0;
        let mut failing_since: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let fault = match work().await {
                Ok(done) => {
                    self.progress.set_error(None);
                    return Ok(done);
                }
                Err(fault) => fault,
            };
            if began.elapsed() > PATIENCE {
                (failing_since, pause) = (None, PAUSES.0);
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if !fault.retryable || since.elapsed() > PATIENCE || self.stop.is_cancelled() {
                return Err(fault);
            }
            tracing::warn!(code = %fault.code, error = %fault.message, "trying again");
            self.progress.set_error(Some(fault));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    pub(super) async fn start_point(&self, shard: &str) -> Result<ShardRow, Fault> {
        if let Some(row) = self.checkpoints.shard(shard).await? {
            return Ok(row);
        }
        let start = self.source.oplog_note("cutover: start point").await?;
        self.checkpoints.store_start(shard, start).await?;
        tracing::info!(shard, %start, "start point stored");
        self.checkpoints
            .shard(shard)
            .await?
            .ok_or_else(|| Fault::new(FaultCode::StateDirUnusable, "the start point that was just stored is not there"))
    }

    async fn listed(&self, info: CollectionInfo) -> Result<CollectionRow, Fault> {
        if let Some(fault) = catalog::unsupported(&info, self.source.version) {
            return Err(fault);
        }
        let (documents, bytes) = match info.kind {
            Kind::View => (0, 0),
            Kind::Collection | Kind::TimeSeries => catalog::size(&self.source, &info.data()).await?,
        };
        Ok(CollectionRow { namespace: info.namespace, info: info.raw, documents, bytes, stage: Stage::Listed })
    }

    async fn catalogue(&self, shard: &str) -> Result<Vec<Work>, Fault> {
        let mut rows = self.checkpoints.collections(shard).await?;
        if rows.is_empty() {
            let mut found = catalog::list(&self.source, &self.spec.namespaces.scope).await?;
            if let Some(placement) = &self.placement {
                // A shard keeps collections that it owns nothing of any more.
                found.retain(|namespace, _| placement.holds(namespace));
            }
            let sizes = found.into_values().map(|info| -> Piece<'_, CollectionRow> { Box::pin(self.listed(info)) });
            let sized = concurrent::all(SMALL_COMMANDS, sizes.collect()).await?;
            self.checkpoints.store_collections(shard, sized).await?;
            rows = self.checkpoints.collections(shard).await?;
        }
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let info = CollectionInfo::new(&row.namespace.db, row.info.clone())?;
                Some(Work { row, info, left: Mutex::new(0) })
            })
            .collect())
    }

    /// Lists what there is, makes it on the destination and splits it into parts, as far as that is not done yet.
    pub(super) async fn prepare(&self, shard: &str, row: &ShardRow) -> Result<Prepared, Fault> {
        let catalogue = self.catalogue(shard).await?;
        let member = self.source.pinned().await.map(|(source, name)| Member { source, name })?;
        self.split_anew(shard, &member, &catalogue).await?;
        self.count(shard, &catalogue).await?;
        self.create(shard, &member, &catalogue, row.copied.is_some()).await?;
        Ok(Prepared { catalogue, member })
    }

    /// Copies the documents alone; the indexes wait until every shard's are there.
    pub(super) async fn copy_documents(&self, shard: &str, row: &ShardRow, prepared: &Prepared) -> Result<ClusterTime, Fault> {
        let (finished, _) = mpsc::unbounded_channel();
        self.copy_parts(shard, row, &prepared.member.source, &prepared.catalogue, finished).await
    }

    /// Builds the indexes of every collection.
    pub(super) async fn build_all_indexes(&self, shard: &str) -> Result<(), Fault> {
        let catalogue = self.catalogue(shard).await?;
        let (finished, to_index) = mpsc::unbounded_channel();
        for place in 0..catalogue.len() {
            let _ = finished.send(place);
        }
        drop(finished);
        self.index_finished(shard, &catalogue, to_index).await
    }

    async fn copy(&self, shard: &str, row: &ShardRow) -> Result<ShardRow, Fault> {
        let Prepared { catalogue, member } = self.prepare(shard, row).await?;
        let (finished, to_index) = mpsc::unbounded_channel();
        let (copied, ()) = tokio::try_join!(
            self.copy_parts(shard, row, &member.source, &catalogue, finished),
            self.index_finished(shard, &catalogue, to_index)
        )?;
        let _ = self.milestones.send(Milestone::Indexed);
        Ok(ShardRow { copied: Some(copied), ..row.clone() })
    }

    /// Copies every part that is not written yet, and tells of each collection that is whole by its place in the catalogue. Returns
    /// the time by which everything was read.
    async fn copy_parts(
        &self,
        shard: &str,
        row: &ShardRow,
        source: &Deployment,
        catalogue: &[Work],
        finished: mpsc::UnboundedSender<usize>,
    ) -> Result<ClusterTime, Fault> {
        let doubled = Doubled::load(&self.checkpoints).await?;
        let pace = Pace::new(self.spec.copy.rate_limit, self.readers());
        let copier = Copier {
            source,
            destination: &self.destination,
            progress: &self.progress,
            doubled: &doubled,
            start: timestamp(row.start),
            pace: &pace,
            tuning: &self.tuning,
            placement: self.placement.as_deref(),
        };
        let mut parts: Vec<Piece<'_, ()>> = Vec::new();
        for (place, work) in catalogue.iter().enumerate() {
            if !work.info.has_documents() || work.row.stage >= Stage::Copied {
                let _ = finished.send(place);
                continue;
            }
            let open = self.checkpoints.open_parts(shard, &work.row.namespace).await?;
            *work.left.lock().unwrap_or_else(PoisonError::into_inner) = open.len();
            if open.is_empty() {
                self.collection_copied(shard, work).await?;
                let _ = finished.send(place);
            }
            for part in open {
                let (copier, finished) = (&copier, &finished);
                parts.push(Box::pin(async move {
                    if self.copy_part(shard, copier, work, &part).await? {
                        let _ = finished.send(place);
                    }
                    Ok(())
                }));
            }
        }
        let copied = tokio::select! {
            copied = concurrent::all(self.readers(), parts) => copied,
            () = brake::watch(source, &pace, &self.progress, &self.tuning) => Ok(Vec::new()),
        };
        self.progress.set_brake(None);
        copied?;
        let copied = match row.copied {
            Some(copied) => copied,
            None => {
                let copied = self.source.oplog_note("cutover: copied").await?;
                self.checkpoints.store_copied(shard, copied).await?;
                copied
            }
        };
        let _ = self.milestones.send(Milestone::Copied);
        Ok(copied)
    }

    /// Copies one part; `true`: it was its collection's last.
    async fn copy_part(&self, shard: &str, copier: &Copier<'_>, work: &Work, part: &Part) -> Result<bool, Fault> {
        let namespace = &work.row.namespace;
        let batch = copier.batch(work.row.documents, work.row.bytes, self.readers());
        let copied = match copier.copy(&work.info.data(), part, batch).await {
            Err(fault) if !fault.retryable && self.is_another_now(&work.info).await? => {
                tracing::info!(%namespace, error = %fault.message, "no longer what it was listed as; the tail tells what it is");
                Copied::default()
            }
            copied => copied?,
        };
        self.checkpoints.store_part_done(shard, namespace, part.number, copied.documents, copied.bytes).await?;
        let is_last = {
            let mut left = work.left.lock().unwrap_or_else(PoisonError::into_inner);
            *left -= 1;
            *left == 0
        };
        if is_last {
            self.collection_copied(shard, work).await?;
        }
        Ok(is_last)
    }

    /// Whether the source has something else under the name by now, or nothing.
    async fn is_another_now(&self, info: &CollectionInfo) -> Result<bool, Fault> {
        Ok(catalog::find(&self.source, &info.namespace).await?.is_none_or(|now| now.kind != info.kind))
    }

    /// Builds the indexes of collections as they come, until no more will.
    async fn index_finished(
        &self,
        shard: &str,
        catalogue: &[Work],
        mut to_index: mpsc::UnboundedReceiver<usize>,
    ) -> Result<(), Fault> {
        let mut building = FuturesUnordered::new();
        let mut more = true;
        loop {
            tokio::select! {
                place = to_index.recv(), if more && building.len() < INDEX_BUILDS => match place {
                    Some(place) => building.push(self.build_indexes(shard, &catalogue[place])),
                    None => more = false,
                },
                Some(built) = building.next() => built?,
                else => return Ok(()),
            }
        }
    }

    fn readers(&self) -> usize {
        match self.spec.copy.parallelism {
            Some(parallelism) => usize::from(parallelism),
            None => {
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                (cores * 2).clamp(*READERS.start(), *READERS.end())
            }
        }
    }

    async fn collection_copied(&self, shard: &str, work: &Work) -> Result<(), Fault> {
        self.checkpoints.store_stage(shard, &work.row.namespace, Stage::Copied).await?;
        self.progress.add_collection();
        Ok(())
    }

    /// Sets the counters to what the checkpoints say.
    async fn count(&self, shard: &str, catalogue: &[Work]) -> Result<(), Fault> {
        let collections: Vec<&Work> = catalogue.iter().filter(|work| work.info.has_documents()).collect();
        let sum = |of: fn(&CollectionRow) -> u64| collections.iter().map(|work| of(&work.row)).sum::<u64>();
        self.progress.set_copy_totals(collections.len() as u64, sum(|row| row.documents), sum(|row| row.bytes));
        let done = collections.iter().filter(|work| work.row.stage >= Stage::Copied).count();
        let (documents, bytes) = self.checkpoints.copied(shard).await?;
        self.progress.set_copied(done as u64, documents, bytes);
        self.progress.reset_indexes();
        let counts = collections.into_iter().map(|work| -> Piece<'_, ()> {
            Box::pin(async move {
                let namespace = &work.row.namespace;
                let specs = catalog::indexes(&self.source, namespace).await?;
                let (total, is_built) = (specs.len() as u64, work.row.stage >= Stage::Indexed);
                self.progress.add_indexes(total, if is_built { total } else { 0 });
                self.progress.add_deferred(specs.iter().flat_map(|spec| index::deferred(namespace, spec)));
                Ok(())
            })
        });
        concurrent::all(SMALL_COMMANDS, counts.collect()).await.map(drop)
    }

    /// Makes every collection, and splits it; makes the views. What exists already and is not this run's is an error.
    async fn create(&self, shard: &str, member: &Member, catalogue: &[Work], copied: bool) -> Result<(), Fault> {
        let known = self.checkpoints.created().await?;
        self.progress.add_created(known.iter().cloned());
        let new: Vec<_> = catalogue.iter().filter(|work| work.row.stage == Stage::Listed).collect();
        if new.is_empty() || copied {
            return Ok(());
        }
        let there = catalog::list(&self.destination, &self.spec.namespaces.scope).await?;
        let ours: std::collections::BTreeSet<_> = known.into_iter().collect();
        if let Some(foreign) = new
            .iter()
            .map(|work| &work.row.namespace)
            .find(|namespace| there.contains_key(namespace) && !ours.contains(namespace))
        {
            return Err(Fault::new(
                FaultCode::DestinationNotEmpty,
                format!("{foreign} has appeared on the destination, and this run did not make it"),
            ));
        }
        let namespaces: Vec<_> = new.iter().map(|work| work.row.namespace.clone()).collect();
        self.checkpoints.store_created(namespaces.clone()).await?;
        self.progress.add_created(namespaces);
        let creations = new.into_iter().map(|work| -> Piece<'_, ()> { Box::pin(self.create_one(shard, member, work)) });
        concurrent::all(SMALL_COMMANDS, creations.collect()).await.map(drop)
    }

    async fn create_one(&self, shard: &str, member: &Member, work: &Work) -> Result<(), Fault> {
        let namespace = &work.row.namespace;
        catalog::create(&self.destination, &namespace.db, work.info.create_command()).await?;
        distribute::shard(&self.source, &self.destination, self.spec.sharding.as_ref(), &work.info).await?;
        match work.info.kind {
            Kind::Collection | Kind::TimeSeries => self.split(shard, member, work).await,
            Kind::View => self.checkpoints.store_stage(shard, namespace, Stage::Indexed).await,
        }
    }

    async fn split(&self, shard: &str, member: &Member, work: &Work) -> Result<(), Fault> {
        let parts = match partition::split(&member.source, &work.info, work.row.bytes, &self.tuning).await {
            Err(fault) if !fault.retryable && self.is_another_now(&work.info).await? => {
                tracing::info!(namespace = %work.row.namespace, error = %fault.message, "no longer what it was listed as");
                Vec::new()
            }
            parts => parts?,
        };
        self.checkpoints.store_parts(shard, &work.row.namespace, &member.name, parts).await
    }

    /// Splits what was split on another member, since an election, or before the member was synced anew. Those collections are read
    /// again whole: which of their documents the finished parts held cannot be told by other record ids.
    async fn split_anew(&self, shard: &str, member: &Member, catalogue: &[Work]) -> Result<(), Fault> {
        for work in catalogue.iter().filter(|work| work.info.kind == Kind::Collection && work.row.stage == Stage::Split) {
            let namespace = &work.row.namespace;
            let bounds = self.checkpoints.bounds(shard, namespace).await?;
            if bounds.is_empty() {
                continue;
            }
            let bounds: Vec<Sample> = bounds.into_iter().map(|(record, id)| Sample { record, id }).collect();
            let same_member = self.checkpoints.split_on(shard, namespace).await?.as_ref() == Some(&member.name);
            if !same_member || !partition::hold(&member.source, namespace, &bounds).await? {
                tracing::info!(%namespace, member = member.name, "read from another member than before; its copy begins anew");
                self.split(shard, member, work).await?;
            }
        }
        Ok(())
    }

    async fn build_indexes(&self, shard: &str, work: &Work) -> Result<(), Fault> {
        let namespace = &work.row.namespace;
        if !work.info.has_documents() || work.row.stage >= Stage::Indexed {
            return Ok(());
        }
        let specs = catalog::indexes(&self.source, namespace).await?;
        index::build(&self.destination, namespace, &specs, work.info.has_collation()).await?;
        self.progress.add_indexes(0, specs.len() as u64);
        self.checkpoints.store_stage(shard, namespace, Stage::Indexed).await
    }

    async fn tail(&self, shard: &str, row: &ShardRow) -> Result<(), Fault> {
        self.destination.wait_for_writes(&format!("{}:", self.destination.tag)).await?;
        self.destination.read_shard_keys().await?;
        let copied =
            row.copied.ok_or_else(|| Fault::new(FaultCode::Internal, "the tail was started before the copy's end was stored"))?;
        let traits: HashMap<_, _> = catalog::list(&self.destination, &self.spec.namespaces.scope)
            .await?
            .into_iter()
            .map(|(namespace, info)| (namespace, Traits::of(&info)))
            .collect();
        let recopied = self.checkpoints.recopied().await?.into_iter().collect();
        let tail = Tail {
            source: Arc::clone(&self.source),
            destination: Arc::clone(&self.destination),
            checkpoints: self.checkpoints.clone(),
            progress: Arc::clone(&self.progress),
            shard: shard.to_owned(),
            scope: self.spec.namespaces.scope.clone(),
            copied,
            traits: Mutex::new(traits),
            recopied: Mutex::new(recopied),
            doubled: Doubled::load(&self.checkpoints).await?,
            gate: Arc::clone(&self.gate),
            verifier: Arc::clone(&self.verifier),
            stop: self.stop.clone(),
            rate_limit: self.spec.copy.rate_limit,
            sharding: self.spec.sharding.clone(),
            tuning: self.tuning.clone(),
        };
        tail.follow(row).await
    }
}
