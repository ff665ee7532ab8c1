//! The copy of what one shard holds: listed, made on the destination, split into parts, read.
//! Begins wherever the checkpoints say.
//!
//! A replica set that is no part of a cluster is the one shard of its source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;
use schemas::spec::RateLimit;

use super::autoscale::Widths;
use super::part::{Copied, Copier};
use super::partition::{self, Sample};
use super::rate_limit::Pace;
use super::source_pressure;
use super::workers::WorkerPool;
use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::checkpoint::{CollectionRow, Part, ShardRow, Stage};
use crate::engine::concurrent::{self, Piece};
use crate::engine::destination::duplicate_fields::DuplicateFields;
use crate::engine::destination::shard_collection;
use crate::engine::progress::ShardCounters;
use crate::engine::source::ShardSource;
use crate::engine::source::topology::{self, Placement};
use crate::engine::sync::{SMALL_COMMANDS, Sync};
use crate::mongo::{Deployment, timestamp};

/// The copy of one shard.
#[derive(Debug)]
pub struct ShardCopy<'a> {
    /// What it is part of.
    pub(super) sync: &'a Sync,
    /// Where it reads.
    pub(super) shard: &'a ShardSource,
    /// Where it is counted.
    pub(super) progress: Arc<ShardCounters>,
    /// Where the shard is one of several: what of them it owns.
    pub(super) placement: Option<Placement>,
    /// Collections that a shard has refused to read in that state of them, of all shards together.
    pub(super) refused: Refused,
}

/// Collections that must be looked at anew.
pub(super) type Refused = Arc<Mutex<BTreeSet<Namespace>>>;

/// A collection of the catalogue, and how many of its parts are left.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) row: CollectionRow,
    pub(super) info: CollectionInfo,
    left: Mutex<usize>,
}

/// The shard's member that documents are copied from.
#[derive(Debug)]
struct Member {
    source: Deployment,
    name: String,
}

/// Is told of each collection of which all that the shard holds is written.
pub(super) type Whole<'a> = &'a (dyn Fn(&Namespace) + Send + std::marker::Sync);

impl ShardCopy<'_> {
    fn name(&self) -> &str {
        &self.shard.name.0
    }

    /// The shard's start point: taken and stored, where it is not yet.
    pub(super) async fn start_point(&self) -> Result<ShardRow, Fault> {
        let (shard, checkpoints) = (self.name(), &self.sync.checkpoints);
        if let Some(row) = checkpoints.shard(shard).await? {
            return Ok(row);
        }
        let start = self.shard.deployment.oplog_note("cutover: start point").await?;
        checkpoints.store_start(shard, start).await?;
        tracing::info!(shard, %start, "start point stored");
        checkpoints.shard(shard).await?.ok_or_else(|| {
            Fault::new(
                FaultCode::StateDirUnusable,
                "the start point that was just stored is not there",
            )
        })
    }

    async fn listed(&self, info: CollectionInfo) -> Result<CollectionRow, Fault> {
        let source = &self.shard.deployment;
        if let Some(fault) = catalog::unsupported(&info, source.version) {
            return Err(fault);
        }
        let (documents, bytes) = match info.kind {
            Kind::View => (0, 0),
            Kind::Collection | Kind::TimeSeries => {
                topology::size(source, self.placement.as_ref(), &info.data()).await?
            }
        };
        Ok(CollectionRow {
            namespace: info.namespace,
            info: info.raw,
            documents,
            bytes,
            stage: Stage::Listed,
        })
    }

    /// What there is on the shard, as it was when it was listed.
    pub(super) async fn catalogue(&self, row: &ShardRow) -> Result<Vec<Work>, Fault> {
        let (shard, checkpoints) = (self.name(), &self.sync.checkpoints);
        let mut rows = checkpoints.collections(shard).await?;
        // Once the copy is over the tail makes what is new, also where there was nothing to copy.
        let anew =
            if row.copied.is_none() { checkpoints.unlisted(shard).await? } else { Vec::new() };
        if row.copied.is_none() && (rows.is_empty() || !anew.is_empty()) {
            let mut found = match rows.is_empty() {
                true => {
                    catalog::list_with_half_made(
                        &self.shard.deployment,
                        &self.sync.spec.namespaces.scope,
                    )
                    .await?
                }
                false => self.find_all(anew).await?,
            };
            if let Some(placement) = &self.placement {
                // A shard keeps collections that it owns nothing of any more.
                found.retain(|namespace, _| placement.holds(namespace));
            }
            let sizes = found
                .into_values()
                .map(|info| -> Piece<'_, CollectionRow> { Box::pin(self.listed(info)) });
            let sized = concurrent::all(SMALL_COMMANDS, sizes.collect()).await?;
            checkpoints.store_collections(shard, sized).await?;
            rows = checkpoints.collections(shard).await?;
        }
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let info = CollectionInfo::new(&row.namespace.db, row.info.clone())?;
                Some(Work { row, info, left: Mutex::new(0) })
            })
            .collect())
    }

    /// Those of these namespaces that the shard has.
    async fn find_all(
        &self,
        namespaces: Vec<Namespace>,
    ) -> Result<BTreeMap<Namespace, CollectionInfo>, Fault> {
        let finds = namespaces.into_iter().map(|namespace| -> Piece<'_, Option<CollectionInfo>> {
            Box::pin(async move { catalog::find(&self.shard.deployment, &namespace).await })
        });
        let found = concurrent::all(SMALL_COMMANDS, finds.collect()).await?;
        Ok(found.into_iter().flatten().map(|info| (info.namespace.clone(), info)).collect())
    }

    /// Notes that a collection must be looked at anew.
    fn refuse(&self, namespace: &Namespace, fault: &Fault) {
        tracing::info!(shard = %self.shard.name, %namespace, error = %fault.message, "refused as \
             it is placed; it is looked at anew");
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone());
    }

    fn is_refused(&self, namespace: &Namespace) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }

    /// Splits what is not split yet, and copies every part that is not written yet, but for what is
    /// refused.
    pub(super) async fn copy(&self, whole: Whole<'_>) -> Result<(), Fault> {
        let row = self.start_point().await?;
        let member =
            self.shard.deployment.pinned().await.map(|(source, name)| Member { source, name })?;
        let listed = self.catalogue(&row).await?;
        if row.copied.is_none() {
            self.split_anew(&member, &listed).await?;
        }
        let catalogue = self.catalogue(&row).await?;
        self.count(&catalogue).await?;
        self.copy_parts(&row, &member.source, &catalogue, whole).await
    }

    async fn copy_parts(
        &self,
        row: &ShardRow,
        source: &Deployment,
        catalogue: &[Work],
        whole: Whole<'_>,
    ) -> Result<(), Fault> {
        let sync = self.sync;
        let duplicate_fields = DuplicateFields::load(&sync.checkpoints).await?;
        let (start, most) = (self.share(self.sync.workers()), self.most_workers(source));
        let pace = Pace::new(self.rate_limit(), start.min(most.readers));
        let worker_pool = WorkerPool::new(Widths { readers: start, writers: start }, most);
        let copier = Copier {
            source,
            entry: &sync.source.entry,
            shards: &sync.source.shards,
            destination: &sync.destination,
            aside: None,
            progress: &self.progress,
            duplicate_fields: &duplicate_fields,
            start: timestamp(row.start),
            pace: &pace,
            worker_pool: &worker_pool,
            tuning: &sync.tuning,
            placement: self.placement.as_ref(),
        };
        let mut parts: Vec<Piece<'_, ()>> = Vec::new();
        for work in catalogue {
            if !work.info.has_documents() || work.row.stage >= Stage::Copied {
                whole(&work.row.namespace);
                continue;
            }
            if self.is_refused(&work.row.namespace) {
                continue;
            }
            let open = sync.checkpoints.open_parts(self.name(), &work.row.namespace).await?;
            *work.left.lock().unwrap_or_else(PoisonError::into_inner) = open.len();
            if open.is_empty() {
                self.collection_copied(work, whole).await?;
            }
            for part in open {
                let copier = &copier;
                parts.push(Box::pin(
                    async move { self.copy_part(copier, work, &part, whole).await },
                ));
            }
        }
        let copied = tokio::select! {
            copied = concurrent::all(worker_pool.most_parts(), parts) => copied,
            () = worker_pool.adapt(&pace, &self.progress, sync.tuning.crew_stretch) => {
                Ok(Vec::new())
            }
            () = source_pressure::watch(
                source, &pace, &self.progress, &sync.tuning,
            ) => Ok(Vec::new()),
        };
        self.progress.set_brake(None);
        self.progress.set_workers(None);
        copied.map(drop)
    }

    async fn copy_part(
        &self,
        copier: &Copier<'_>,
        work: &Work,
        part: &Part,
        whole: Whole<'_>,
    ) -> Result<(), Fault> {
        let namespace = &work.row.namespace;
        if self.is_refused(namespace) {
            return Ok(());
        }
        let batch = copier.batch(work.row.documents, work.row.bytes, self.sync.workers());
        let copied = match copier.copy(&work.info.data(), part, batch).await {
            Err(fault) if fault.code == FaultCode::ChunksMoved => {
                self.refuse(namespace, &fault);
                return Ok(());
            }
            Err(fault) if !fault.retryable && self.is_another_now(&work.info).await? => {
                tracing::info!(%namespace, error = %fault.message, "no longer what it was listed \
                     as; the tail tells what it is");
                Copied::default()
            }
            copied => copied?,
        };
        let checkpoints = &self.sync.checkpoints;
        checkpoints
            .store_part_done(self.name(), namespace, part.number, copied.documents, copied.bytes)
            .await?;
        let is_last = {
            let mut left = work.left.lock().unwrap_or_else(PoisonError::into_inner);
            *left -= 1;
            *left == 0
        };
        if is_last { self.collection_copied(work, whole).await } else { Ok(()) }
    }

    /// Whether the source has something else under the name by now, or nothing.
    async fn is_another_now(&self, info: &CollectionInfo) -> Result<bool, Fault> {
        Ok(catalog::find(&self.sync.source.entry, &info.namespace)
            .await?
            .is_none_or(|now| now.kind != info.kind))
    }

    /// What this shard has of something that all shards share.
    fn share(&self, all: usize) -> usize {
        all.div_ceil(self.sync.source.shards.len().max(1))
    }

    /// How many may copy this shard: as many as are declared, or as there are connections to either
    /// side and memory for.
    fn most_workers(&self, source: &Deployment) -> Widths {
        let (tuning, memory, destination) =
            (&self.sync.tuning, &source.memory, &self.sync.destination);
        let declared = self.sync.spec.copy.parallelism.map(usize::from);
        let of_all = |by_memory: usize| {
            declared.unwrap_or_else(|| tuning.most_workers.min(by_memory).max(self.sync.workers()))
        };
        // Some are left for what is asked beside the copy.
        let connections =
            |deployment: &Deployment| (deployment.most_connections as usize * 3 / 4).max(1);
        Widths {
            readers: self.share(of_all(memory.replies_at_once())).min(connections(source)),
            writers: self.share(
                of_all(memory.commands_at_once(tuning.batch_bytes)).min(connections(destination)),
            ),
        }
    }

    /// This shard's share of the declared rate.
    fn rate_limit(&self) -> Option<RateLimit> {
        let shards = self.sync.source.shards.len().max(1) as u64;
        self.sync.spec.copy.rate_limit.map(|rate| match rate {
            RateLimit::Documents(documents) => RateLimit::Documents((documents / shards).max(1)),
            RateLimit::Bytes(bytes) => RateLimit::Bytes((bytes / shards).max(1)),
        })
    }

    async fn collection_copied(&self, work: &Work, whole: Whole<'_>) -> Result<(), Fault> {
        self.sync.checkpoints.store_stage(self.name(), &work.row.namespace, Stage::Copied).await?;
        self.progress.add_collection();
        whole(&work.row.namespace);
        Ok(())
    }

    /// Sets the shard's counters to what the checkpoints say.
    async fn count(&self, catalogue: &[Work]) -> Result<(), Fault> {
        let collections: Vec<&Work> =
            catalogue.iter().filter(|work| work.info.has_documents()).collect();
        let sum = |of: fn(&CollectionRow) -> u64| {
            collections.iter().map(|work| of(&work.row)).sum::<u64>()
        };
        self.progress.set_copy_totals(
            collections.len() as u64,
            sum(|row| row.documents),
            sum(|row| row.bytes),
        );
        let done = collections.iter().filter(|work| work.row.stage >= Stage::Copied).count();
        let (documents, bytes) = self.sync.checkpoints.copied(self.name()).await?;
        self.progress.set_copied(done as u64, documents, bytes);
        Ok(())
    }

    /// Makes every collection and view. What exists already and is not this run's is an error.
    pub(super) async fn create(&self, catalogue: &[Work]) -> Result<(), Fault> {
        let sync = self.sync;
        let known = sync.checkpoints.created().await?;
        sync.progress.add_created(known.iter().cloned());
        let new: Vec<_> = catalogue.iter().filter(|work| work.row.stage == Stage::Listed).collect();
        if new.is_empty() {
            return Ok(());
        }
        let there: BTreeMap<_, _> =
            catalog::list(&sync.destination, &sync.spec.namespaces.scope).await?;
        let ours: BTreeSet<_> = known.into_iter().collect();
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
        sync.checkpoints.store_created(namespaces.clone()).await?;
        sync.progress.add_created(namespaces);
        let creations =
            new.into_iter().map(|work| -> Piece<'_, ()> { Box::pin(self.create_one(work)) });
        concurrent::all(SMALL_COMMANDS, creations.collect()).await.map(drop)
    }

    async fn create_one(&self, work: &Work) -> Result<(), Fault> {
        let namespace = &work.row.namespace;
        let Sync { source, destination, spec, .. } = self.sync;
        catalog::create(destination, &namespace.db, work.info.create_command()).await?;
        shard_collection::shard(&source.entry, destination, spec.sharding.as_ref(), &work.info)
            .await?;
        match work.info.kind {
            Kind::Collection | Kind::TimeSeries => Ok(()),
            Kind::View => {
                self.sync.checkpoints.store_stage(self.name(), namespace, Stage::Indexed).await
            }
        }
    }

    async fn split(&self, member: &Member, work: &Work) -> Result<(), Fault> {
        let parts = match partition::split(
            &member.source,
            &work.info,
            work.row.bytes,
            self.placement.as_ref(),
            &self.sync.tuning,
        )
        .await
        {
            Err(fault) if fault.code == FaultCode::ChunksMoved => {
                self.refuse(&work.row.namespace, &fault);
                return Ok(());
            }
            Err(fault) if !fault.retryable && self.is_another_now(&work.info).await? => {
                tracing::info!(namespace = %work.row.namespace, error = %fault.message, "no \
                     longer what it was listed as");
                Vec::new()
            }
            parts => parts?,
        };
        self.sync
            .checkpoints
            .store_parts(self.name(), &work.row.namespace, &member.name, parts)
            .await
    }

    /// Splits what is not split yet, and what was split on another member, since an election, or
    /// before the member was synced anew. Those collections are read again whole: which of their
    /// documents the finished parts held cannot be told by other record ids.
    async fn split_anew(&self, member: &Member, catalogue: &[Work]) -> Result<(), Fault> {
        let (shard, checkpoints) = (self.name(), &self.sync.checkpoints);
        let new = catalogue
            .iter()
            .filter(|work| work.info.has_documents() && work.row.stage == Stage::Listed);
        let splits = new.map(|work| -> Piece<'_, ()> { Box::pin(self.split(member, work)) });
        concurrent::all(SMALL_COMMANDS, splits.collect()).await?;
        for work in catalogue
            .iter()
            .filter(|work| work.info.kind == Kind::Collection && work.row.stage == Stage::Split)
        {
            let namespace = &work.row.namespace;
            let bounds = checkpoints.bounds(shard, namespace).await?;
            if bounds.is_empty() {
                continue;
            }
            let bounds: Vec<Sample> =
                bounds.into_iter().map(|(record, id)| Sample { record, id }).collect();
            let same_member =
                checkpoints.split_on(shard, namespace).await?.as_ref() == Some(&member.name);
            if !same_member || !partition::hold(&member.source, namespace, &bounds).await? {
                tracing::info!(%namespace, member = member.name, "read from another member than \
                     before; its copy begins anew");
                self.split(member, work).await?;
            }
        }
        Ok(())
    }
}
