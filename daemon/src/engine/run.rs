//! The engine behind the daemon's shell: opens runs, starts and stops their sync, and does what a cutover asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::observed::{Finding, ForeignWrite, Inspection, Mismatch};
use schemas::principal::Principal;
use schemas::spec::{MigrationSpec, SourceWrites, VerifyMode};
use tokio::sync::{RwLock, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::catalog::{self, CollectionInfo};
use super::checkpoint::Checkpoints;
use super::concurrent::{self, Piece};
use super::doubled::Doubled;
use super::outlook::{self, Versions};
use super::progress::Progress;
use super::rehearsal::Rehearsal;
use super::reporter::Reporter;
use super::sharded::Restarts;
use super::source::behind_router::Manner;
use super::source::{self, Source, Times};
use super::survey::Survey;
use super::sync::{Milestone, Sync};
use super::tuning::Tuning;
use super::verify::{Sides, Until, Verifier};
use super::{
    DropWhat, Ending, Engine, EngineContext, EngineProgress, Ours, RunEngine, SyncReport, balancing, capped, fence, guard, held,
    index, membership, preflight, reconcile, rekeyed, uneven, users,
};
use crate::memory::Memory;
use crate::mongo::{Deployment, Side, connect, connection_files, timestamp};

/// Between two looks at how far the tail has come, while a cutover waits for it.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// Slices of the queue that are rechecked before the source is blocked, at most, and what is few enough to be left for then.
const RECHECK_PASSES: u32 = 200;
const RECHECK_FEW: usize = 100;
/// Collections whose settings are given back at once.
const RESTORES: usize = 8;
/// Indexes made unique at once behind its users' backs: each reads a whole index while they work.
const FINISHES: usize = 2;

/// Moves data between real deployments.
#[derive(Debug, Default)]
pub struct MongoEngine {
    /// The bounds that its runs work within.
    pub tuning: Tuning,
    /// The large buffers of all its runs.
    pub memory: Memory,
}

impl Engine for MongoEngine {
    fn inspect<'a>(&'a self, spec: &'a MigrationSpec, ours: &'a Ours) -> BoxFuture<'a, Inspection> {
        Box::pin(preflight::inspect(spec, ours, &self.memory))
    }

    fn open(&self, context: EngineContext) -> Result<Arc<dyn RunEngine>, Fault> {
        let checkpoints = Checkpoints::open(&context.run_dir)?;
        let progress = Arc::new(Progress::new(context.spec.verify.mode));
        checkpoints.restore(&progress)?;
        let verifier = Arc::new(Verifier::open(context.spec.verify.mode, &context.run_dir)?);
        Ok(Arc::new(MongoRun {
            checkpoints,
            progress,
            verifier,
            gate: Arc::default(),
            source: tokio::sync::Mutex::default(),
            destination: tokio::sync::Mutex::default(),
            writer: tokio::sync::Mutex::default(),
            files: Mutex::new(connection_files::digest(&context.spec)),
            running: Mutex::new(None),
            tuning: self.tuning.clone(),
            memory: self.memory.clone(),
            context,
        }))
    }
}

/// Both sides of a migration, connected.
#[derive(Debug, Clone)]
struct Pair {
    source: Arc<Source>,
    destination: Arc<Deployment>,
}

/// A sync that runs on its own.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    reports: Arc<Mutex<mpsc::Sender<SyncReport>>>,
    /// What it has reached, for a shell that comes later.
    reached: Arc<Mutex<Vec<Milestone>>>,
    /// Takes the word that a shard's copy is to begin again.
    restarts: Arc<Restarts>,
}

/// One run.
#[derive(Debug)]
pub struct MongoRun {
    context: EngineContext,
    checkpoints: Checkpoints,
    progress: Arc<Progress>,
    verifier: Arc<Verifier>,
    gate: Arc<RwLock<()>>,
    source: tokio::sync::Mutex<Option<Arc<Source>>>,
    /// As the declared user.
    destination: tokio::sync::Mutex<Option<Arc<Deployment>>>,
    /// As the run's own user, where it has one.
    writer: tokio::sync::Mutex<Option<Arc<Deployment>>>,
    /// The digest of the files that the connections were made with.
    files: Mutex<Option<String>>,
    running: Mutex<Option<Running>>,
    tuning: Tuning,
    memory: Memory,
}

impl MongoRun {
    /// Lets go of connections that were made with files that have changed since. Gives the files' digest.
    async fn renew_connections(&self) -> Option<String> {
        let now = connection_files::digest(&self.context.spec);
        let before = std::mem::replace(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        if before != now {
            *self.writer.lock().await = None;
            *self.destination.lock().await = None;
            *self.source.lock().await = None;
        }
        now
    }

    async fn source(&self) -> Result<Arc<Source>, Fault> {
        let mut kept = self.source.lock().await;
        if kept.is_none() {
            let (spec, tag) = (&self.context.spec, self.context.run.as_str());
            let manner = self.manner()?;
            let source = Source::connect(&spec.source.connection, tag, &self.memory, manner.clone()).await?;
            if source.is_sharded() && manner.is_none() {
                if let Manner::ThroughRouter { unreached } = &source.manner {
                    for (shard, why) in unreached {
                        tracing::warn!(%shard, why, "not reached; the run reads all shards through the router");
                    }
                }
                source.manner.keep(&self.context.run_dir)?;
            }
            *kept = Some(Arc::new(source));
        }
        kept.clone().ok_or_else(|| Fault::new(FaultCode::Internal, "a connection that was just made is gone"))
    }

    /// How the run reads a sharded source; `None`: it has not chosen.
    fn manner(&self) -> Result<Option<Manner>, Fault> {
        let kept = Manner::kept(&self.context.run_dir)?;
        // A run of a version that knew of no other.
        let has_begun = || !self.progress.shards().is_empty();
        Ok(kept.or_else(|| has_begun().then_some(Manner::Direct)))
    }

    /// What answers for the whole source, also while a shard behind it does not.
    async fn entry(&self) -> Result<Arc<Deployment>, Fault> {
        // Whoever holds it may wait for a shard.
        if let Some(source) = self.source.try_lock().ok().and_then(|kept| kept.clone()) {
            return Ok(Arc::clone(&source.entry));
        }
        let (spec, tag) = (&self.context.spec, self.context.run.as_str());
        connect(Side::Source, &spec.source.connection, None, tag).await.map(Arc::new)
    }

    async fn destination(&self) -> Result<Arc<Deployment>, Fault> {
        let mut kept = self.destination.lock().await;
        if kept.is_none() {
            let (spec, tag) = (&self.context.spec, self.context.run.as_str());
            let destination = connect(Side::Destination, &spec.destination.connection, None, tag).await?;
            *kept = Some(Arc::new(destination.within(&self.memory)));
        }
        kept.clone().ok_or_else(|| Fault::new(FaultCode::Internal, "a connection that was just made is gone"))
    }

    /// The destination for whatever a run writes there, until it is cleaned up: as the run's own user where it can have one.
    async fn writer(&self) -> Result<Arc<Deployment>, Fault> {
        let destination = self.destination().await?;
        let mut kept = self.writer.lock().await;
        if kept.is_none() {
            let login =
                if destination.is_authenticated { guard::make_user(&destination, &self.context.run).await? } else { None };
            let writer = match login {
                None => destination,
                Some(login) => {
                    let (spec, tag) = (&self.context.spec, self.context.run.as_str());
                    tracing::info!(user = login.username, "the run writes as a user of its own");
                    let writer = connect(Side::Destination, &spec.destination.connection, Some(&login), tag).await?;
                    Arc::new(writer.within(&self.memory))
                }
            };
            *kept = Some(Arc::new(Deployment { observer: Some(self.verifier.observer()), ..(*writer).clone() }));
        }
        kept.clone().ok_or_else(|| Fault::new(FaultCode::Internal, "a connection that was just made is gone"))
    }

    /// Both sides, for what a run does until it is cleaned up.
    async fn pair(&self) -> Result<Pair, Fault> {
        Ok(Pair { source: self.source().await?, destination: self.writer().await? })
    }

    /// What the verification works on.
    fn sides(&self, pair: &Pair) -> Sides {
        Sides {
            source: Arc::clone(&pair.source),
            destination: Arc::clone(&pair.destination),
            spec: Arc::clone(&self.context.spec),
            progress: Arc::clone(&self.progress),
            gate: Arc::clone(&self.gate),
        }
    }

    /// Whether others are kept from writing to the destination.
    async fn blocks_destination(&self, destination: &Deployment) -> Result<bool, Fault> {
        let wanted = self.context.spec.destination.block_writes.unwrap_or(true);
        let able = destination.is_authenticated && destination.version >= guard::WRITE_BLOCK;
        Ok(wanted && able && guard::may_block(destination).await?)
    }

    /// What a person with a shell is told on the destination.
    fn marker(&self, blocks_writes: bool) -> guard::Marker<'_> {
        guard::Marker {
            run: &self.context.run,
            migration: &self.context.spec.name,
            workspace: &self.context.workspace,
            scope: &self.context.spec.namespaces.scope,
            blocks_writes,
        }
    }

    /// Makes sure that no other run is at work in the same namespaces, blocks others' writes on the destination and says so there.
    async fn guard_destination(&self, source: &Deployment, writer: &Deployment) -> Result<(), Fault> {
        let blocks_writes = self.blocks_destination(&*self.destination().await?).await?;
        guard::put_marker(writer, &self.marker(blocks_writes)).await?;
        // After the own one is there: of two that come at once at least one sees the other.
        if let Some(rival) =
            preflight::rival(source, writer, &self.context.spec, &BTreeSet::from([self.context.run.clone()])).await?
        {
            guard::remove_marker(writer, &self.context.run).await?;
            // The other one may be giving way just now.
            return Err(Fault { retryable: true, ..rival.fault(writer) });
        }
        if blocks_writes {
            guard::set_write_block(writer, true).await.map_err(|e| writer.fault("blocking others' writes", &e))?;
        }
        Ok(())
    }

    /// Gives the destination the source's users and roles, where that is asked for. The declared user does it: the run's own has no
    /// say over users.
    async fn carry_users(&self, source: &Deployment) -> Result<(), Fault> {
        let namespaces = &self.context.spec.namespaces;
        if !namespaces.include_users {
            return Ok(());
        }
        let destination = self.destination().await?;
        users::carry(source, &destination, &namespaces.scope, &self.checkpoints, &self.progress).await
    }

    fn is_running(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    /// Waits until of every shard everything up to its time is applied.
    async fn applied_through(&self, times: &Times) -> Result<(), Fault> {
        while !self.progress.has_applied(times) {
            if !self.is_running() {
                let mut fault = Fault::new(FaultCode::Internal, "the tail stopped before everything was applied");
                fault.retryable = true;
                return Err(fault);
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
        Ok(())
    }

    /// Sees that what is sharded on both sides is so by the same key.
    async fn check_shard_keys(&self, pair: &Pair) -> Result<(), Fault> {
        let (sharding, scope) = (self.context.spec.sharding.as_ref(), &self.context.spec.namespaces.scope);
        let found = rekeyed::look(&pair.source.entry, &pair.destination, sharding, scope).await?;
        found.into_iter().next().map_or(Ok(()), Err)
    }

    async fn created(&self) -> Result<BTreeSet<Namespace>, Fault> {
        Ok(self.checkpoints.created().await?.into_iter().collect())
    }

    /// Makes the indexes unique that only refuse duplicates so far, behind the back of the destination's users.
    async fn finish_indexes(&self) -> Result<(), Fault> {
        let unfinished = self.checkpoints.unfinished_unique().await?;
        if unfinished.is_empty() {
            return Ok(());
        }
        let writer = &*self.writer().await?;
        // On a sharded cluster one index of a collection is modified at a time.
        let mut of_collections: BTreeMap<Namespace, Vec<String>> = BTreeMap::new();
        for (namespace, index) in unfinished {
            of_collections.entry(namespace).or_default().push(index);
        }
        let finishes = of_collections.into_iter().map(|(namespace, indexes)| -> Piece<'_, ()> {
            Box::pin(async move {
                for index in indexes {
                    index::finish_unique(writer, &namespace, &index).await?;
                    self.checkpoints.store_finished_unique(&namespace, &index).await?;
                }
                Ok(())
            })
        });
        concurrent::all(FINISHES, finishes.collect()).await.map(drop)
    }

    /// The collections of the source in scope.
    async fn collections(&self, pair: &Pair) -> Result<Vec<CollectionInfo>, Fault> {
        let listed = catalog::list(&pair.source.entry, &self.context.spec.namespaces.scope).await?;
        Ok(listed.into_values().filter(CollectionInfo::has_documents).collect())
    }
}

impl RunEngine for MongoRun {
    fn validate(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let mut ours = self.created().await?;
            ours.extend(self.context.replaces.iter().cloned());
            let ours = Ours { namespaces: ours, runs: BTreeSet::from([self.context.run.clone()]), ..Ours::default() };
            preflight::check(&self.context.spec, &ours, Some(&self.context.run)).await.first_failure()
        })
    }

    fn drop_namespaces(&self, what: DropWhat) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let destination = self.destination().await?;
            destination.wait_for_writes(&format!("{}-", self.context.spec.name)).await?;
            let ours = self.created().await?;
            let namespaces = match what {
                DropWhat::Listed(mut listed) => {
                    // What the run has made since, after a crash between its start and here, is not what was listed.
                    let is_in_scope = |namespace: &Namespace| match Principal::of(namespace) {
                        Some(principal) => preflight::carries(&self.context.spec, &principal),
                        None => self.context.spec.namespaces.scope.contains(namespace),
                    };
                    listed.retain(|namespace| is_in_scope(namespace) && !ours.contains(namespace));
                    listed
                }
                DropWhat::Created(namespaces) => namespaces,
            };
            for namespace in namespaces {
                match Principal::of(&namespace) {
                    Some(principal) => users::drop_one(&destination, &principal).await?,
                    None => catalog::drop(&destination, &namespace).await?,
                }
            }
            Ok(())
        })
    }

    fn start_sync(&self, reports: mpsc::Sender<SyncReport>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let already = {
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.as_ref().filter(|running| !running.task.is_finished()).map(|running| {
                    *running.reports.lock().unwrap_or_else(PoisonError::into_inner) = reports.clone();
                    running.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
                })
            };
            if let Some(reached) = already {
                for milestone in reached {
                    // A shell that has gone again asks again.
                    let _ = reports.send(milestone.report()).await;
                }
                return Ok(());
            }
            let files = self.renew_connections().await;
            let pair = self.pair().await?;
            Versions::of(&pair.source.entry, &pair.destination).keep(&self.context.run_dir)?;
            if pair.source.tells_shards_apart() {
                membership::keep(&pair.source.entry, &self.context.run_dir).await?;
            }
            balancing::ensure_still(&pair.source.entry, &self.context.spec, &self.context.run_dir).await?;
            self.guard_destination(&pair.source.entry, &pair.destination).await?;
            self.carry_users(&pair.source.entry).await?;
            let reports = Arc::new(Mutex::new(reports));
            let stop = CancellationToken::new();
            let (milestones, arriving) = mpsc::unbounded_channel();
            let reached = Arc::new(Mutex::new(Vec::new()));
            let restarts = Arc::new(Restarts::default());
            let sync = Sync {
                source: Arc::clone(&pair.source),
                destination: pair.destination,
                spec: Arc::clone(&self.context.spec),
                checkpoints: self.checkpoints.clone(),
                progress: Arc::clone(&self.progress),
                gate: Arc::clone(&self.gate),
                verifier: Arc::clone(&self.verifier),
                stop: stop.clone(),
                tuning: self.tuning.clone(),
                milestones,
                restarts: Arc::clone(&restarts),
            };
            let reporter = Reporter {
                source: pair.source,
                survey: Survey::of(
                    Arc::clone(&sync.source),
                    Arc::clone(&sync.destination),
                    Arc::clone(&sync.spec),
                    Arc::clone(&sync.gate),
                ),
                progress: Arc::clone(&self.progress),
                checkpoints: self.checkpoints.clone(),
                verifier: Arc::clone(&self.verifier),
                reports: Arc::clone(&reports),
                reached: Arc::clone(&reached),
            };
            let (spec, stopping) = (Arc::clone(&self.context.spec), stop.clone());
            let task = tokio::spawn(async move {
                let mut sync = std::pin::pin!(sync.run());
                let ended = tokio::select! {
                    ended = &mut sync => ended,
                    () = reporter.watch(arriving) => Ok(()),
                    fault = connection_files::changed(&spec, files) => {
                        stopping.cancel();
                        // It ends with its checkpoints written; whatever else has gone wrong shows again once it is started anew.
                        let _ = sync.await;
                        Err(fault)
                    }
                };
                if let Err(fault) = ended {
                    tracing::warn!(code = %fault.code, error = %fault.message, "the sync stopped");
                    reporter.progress.set_error(Some(fault.clone()));
                    reporter.send(SyncReport::Failed(fault)).await;
                }
            });
            *self.running.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Running { stop, task, reports, reached, restarts });
            Ok(())
        })
    }

    fn stop_sync(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(running) = running else { return };
            running.stop.cancel();
            if let Err(error) = running.task.await
                && error.is_panic()
            {
                tracing::error!("the sync panicked");
            }
            // What it was trying to get over is nobody's trouble while it does not run.
            if self.progress.error().is_some_and(|fault| fault.retryable) {
                self.progress.set_error(None);
            }
            // What it left under way ends before anybody goes on; where that cannot be seen, the next start looks again.
            let writer = self.writer.lock().await.clone();
            if let Some(writer) = writer
                && let Err(fault) = writer.wait_for_writes(&format!("{}:", writer.tag)).await
            {
                tracing::warn!(error = %fault, "cannot see whether writes are under way");
            }
        })
    }

    fn restart_shard<'a>(&'a self, shard: &'a ShardName) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let refuse = |why: String| Err(Fault::new(FaultCode::WrongState, why));
            let shards = self.progress.shards();
            let Some(counters) = shards.iter().find(|known| known.name() == shard) else {
                let names: Vec<&str> = shards.iter().map(|known| known.name().0.as_str()).collect();
                return refuse(format!("the run's source has no shard {shard}; it has {}", names.join(", ")));
            };
            if self.checkpoints.shard(&shard.0).await?.is_some_and(|row| row.copied.is_some()) {
                return refuse(format!(
                    "the documents of shard {shard} are copied already; what follows is of all shards together"
                ));
            }
            let restarts = {
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.as_ref().filter(|running| !running.task.is_finished()).map(|running| Arc::clone(&running.restarts))
            };
            match (restarts, counters.error()) {
                (None, _) => refuse(format!("the run does not copy now, so that shard {shard} cannot be begun again by itself")),
                (Some(_), None) => refuse(format!("shard {shard} is being copied, and nothing is wrong with it")),
                (Some(restarts), Some(_)) => {
                    restarts.ask(shard);
                    Ok(())
                }
            }
        })
    }

    fn look<'a>(&'a self, connections: &'a outlook::Fresh) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(async move {
            let (spec, versions) = (&self.context.spec, Versions::kept(&self.context.run_dir));
            let ((mut findings, source), (more, destination)) = tokio::join!(
                outlook::side(connections, Side::Source, &spec.source.connection, versions.as_ref()),
                outlook::side(connections, Side::Destination, &spec.destination.connection, versions.as_ref())
            );
            findings.extend(more);
            if let Some(source) = &source {
                findings.extend(membership::look(source, &self.context.run_dir).await);
            }
            let progress = self.progress();
            // Before, what differs is what is still to be made.
            let is_made = progress.copy.collections_total > 0
                && progress.copy.collections_copied == progress.copy.collections_total
                && progress.indexes.built == progress.indexes.total;
            if let (Some(source), Some(destination), true) = (source, destination, is_made)
                && let Ok(manner) = self.manner()
                && let Ok(source) = Source::behind(source, &spec.source.connection, manner).await.map(Arc::new)
            {
                findings.extend(outlook::definitions(&self.sides(&Pair { source, destination })).await);
            }
            findings
        })
    }

    fn resume_point_held(&self) -> BoxFuture<'_, Result<Option<bool>, Fault>> {
        Box::pin(async move {
            let found = held::look(&*self.source().await?, &self.checkpoints, &self.progress).await?;
            Ok(match found {
                held::Found { lost, .. } if !lost.is_empty() => Some(false),
                held::Found { is_unknown: true, .. } => None,
                held::Found { .. } => Some(true),
            })
        })
    }

    fn prepare_cutover(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let pair = self.pair().await?;
            if self.context.spec.cutover.source_writes == SourceWrites::Block {
                fence::check_available(&pair.source.entry).await?;
            }
            // Now, too, so that what is wrong with them shows before the source is blocked.
            self.carry_users(&pair.source.entry).await?;
            let collections = self.collections(&pair).await?;
            let caught_up = async { self.applied_through(&pair.source.notes("cutover: prepared").await?).await };
            if self.check_shard_keys(&pair).await.is_err() {
                // The tail may be about to give it that key.
                self.applied_through(&pair.source.notes("cutover: keys").await?).await?;
                let (sharding, scope) = (self.context.spec.sharding.as_ref(), &self.context.spec.namespaces.scope);
                rekeyed::refine(&pair.source.entry, &pair.destination, sharding, scope, &self.gate).await?;
                self.check_shard_keys(&pair).await?;
            }
            let rehearsal = Rehearsal::of(&pair.source, &pair.destination, collections).await?;
            rehearsal.fit_shard_keys()?;
            let uneven = rehearsal.uneven().await?;
            if !uneven.is_empty() {
                return Err(uneven::fault(&uneven));
            }
            rehearsal.build_missing(caught_up).await?;
            // What has changed lately is compared now, so that little is left to compare while the source is blocked.
            let sides = self.sides(&pair);
            self.verifier.cutover_begins().await?;
            for _ in 0..RECHECK_PASSES {
                if self.verifier.recheck(&sides, Until::Slice).await? < RECHECK_FEW {
                    break;
                }
            }
            rehearsal.try_unique(&self.gate).await
        })
    }

    fn block_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { fence::put_up(&*self.source().await?, self.context.spec.cutover.max_downtime.get()).await })
    }

    fn unblock_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.verifier.set_source_stopped(false);
            // Whatever is declared by now: the lifecycle asks only where a block may be up.
            let entry = self.entry().await?;
            fence::lift(&entry, source::holders(&entry, &self.context.spec.source.connection, self.manner()?)).await
        })
    }

    fn watch_source_quiet(&self, quiet_for: Duration) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let source = self.source().await?;
            let mut quiet_since = tokio::time::Instant::now();
            let mut last_change = self.progress.last_change();
            loop {
                let notes = source.notes("cutover: watching for writes").await?;
                self.applied_through(&notes).await?;
                let newest = self.progress.last_change();
                if newest != last_change {
                    (last_change, quiet_since) = (newest, tokio::time::Instant::now());
                }
                if quiet_since.elapsed() >= quiet_for {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    }

    fn drain(&self) -> BoxFuture<'_, Result<ClusterTime, Fault>> {
        Box::pin(async move {
            let pair = self.pair().await?;
            if self.context.spec.cutover.source_writes == SourceWrites::Block {
                // Once more: a failover to a member restored from a backup, or a person, can have lifted it since.
                fence::put_up(&pair.source, self.context.spec.cutover.max_downtime.get()).await?;
            }
            pair.source.check_shards().await?;
            let last = pair.source.notes("cutover: final").await?;
            self.verifier.set_source_stopped(true);
            self.applied_through(&last).await?;
            let seen = self.progress.last_change();
            let scope = &self.context.spec.namespaces.scope;
            self.check_shard_keys(&pair).await?;
            reconcile::catalogues(&pair.source.entry, &pair.destination, scope, &self.checkpoints, &self.progress).await?;
            let doubled = Doubled::load(&self.checkpoints).await?;
            for info in self.collections(&pair).await?.iter().filter(|info| info.is_capped()) {
                let shard = pair.source.home_of(&info.namespace).await?;
                let (counters, as_of) = (self.progress.shard(&shard.name), timestamp(last[&shard.name]));
                let compared =
                    capped::mend(&shard.deployment, &pair.destination, &counters, &doubled, info, as_of, &self.tuning).await?;
                self.verifier.compared_after_block(compared).await?;
            }
            let mark = match self.context.spec.verify.mode {
                VerifyMode::Full => Some(guard::touch_marker(&pair.destination, &self.context.run).await?),
                VerifyMode::Off => None,
            };
            self.verifier.finish(&self.sides(&pair), mark).await?;
            self.carry_users(&pair.source.entry).await?;
            // Whatever came since is applied as well; but who has written since may go on, when nothing is applied any more.
            let after = pair.source.notes("cutover: after the final").await?;
            self.applied_through(&after).await?;
            if self.context.spec.namespaces.include_users {
                users::compare(&pair.source.entry, &*self.destination().await?, scope).await?;
            }
            match self.context.spec.cutover.source_writes {
                SourceWrites::Block => {
                    fence::check_up(&pair.source).await?;
                    if self.progress.last_change() > seen {
                        return Err(fence::bypassed(&pair.source.entry));
                    }
                }
                SourceWrites::Observe if self.progress.last_change() > seen => {
                    return Err(Fault::new(
                        FaultCode::WritesContinued,
                        format!("a write reached the source ({}) after it was quiet", pair.source.entry.hosts),
                    ));
                }
                SourceWrites::Observe => {}
            }
            let newest = last.into_values().max();
            newest.ok_or_else(|| Fault::new(FaultCode::Internal, "the source has no shard"))
        })
    }

    fn restore_settings(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let pair = self.pair().await?;
            let collections = self.collections(&pair).await?;
            let restores = collections.into_iter().map(|info| -> Piece<'_, Vec<(Namespace, String)>> {
                let pair = pair.clone();
                Box::pin(async move {
                    let unfinished =
                        index::restore(&pair.source.entry, &pair.destination, &info.namespace, info.has_collation()).await?;
                    reconcile::expiry(&pair.destination, &info).await?;
                    Ok(unfinished.into_iter().map(|index| (info.namespace.clone(), index)).collect())
                })
            });
            let unfinished = concurrent::all(RESTORES, restores.collect()).await?;
            self.checkpoints.store_unfinished_unique(unfinished.into_iter().flatten().collect()).await
        })
    }

    fn open_destination(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            // The declared user may have been made for this; the run's own has it among its few privileges.
            let destination = self.destination().await?;
            let blocked = guard::is_write_blocked(&destination).await?;
            // Lifting it twice does no harm, taking it for lifted does: where this run says that it blocks, what is seen does not count.
            // Where it does not and the destination is open there is nothing to do, and no user to be made for it.
            let is_ours = guard::says_that_it_blocks(&destination, &self.context.run).await?;
            if is_ours || (blocked != Some(false) && self.blocks_destination(&destination).await?) {
                let writer = self.writer().await?;
                guard::set_write_block(&writer, false).await.map_err(|e| writer.fault("letting others write", &e))?;
                // A run whose window has closed leaves it behind, and must not be taken for one that keeps others out.
                guard::put_marker(&writer, &self.marker(false)).await?;
            }
            // Without the privilege to look, the writes that were applied are the proof.
            if guard::is_write_blocked(&destination).await? == Some(true) {
                let message =
                    format!("the destination ({}) blocks its users' writes, which this run did not do", destination.hosts);
                return Err(Fault::new(FaultCode::DestinationWriteFailed, message)
                    .with_remedy("lift it with setUserWriteBlockMode { global: false }"));
            }
            Ok(())
        })
    }

    fn clean_up(&self, ending: Ending) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            match ending {
                Ending::Completed => self.finish_indexes().await?,
                // The data stays as it is, to be tested on.
                Ending::Cancelled => {}
            }
            let destination = self.destination().await?;
            guard::remove_marker(&destination, &self.context.run).await?;
            if destination.is_authenticated {
                guard::drop_user(&destination, &self.context.run).await?;
            }
            *self.writer.lock().await = None;
            *self.destination.lock().await = None;
            *self.source.lock().await = None;
            Ok(())
        })
    }

    fn release_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(balancing::give_back(&self.context.run_dir, self.entry()))
    }

    fn progress(&self) -> EngineProgress {
        let mut progress = self.progress.snapshot();
        progress.verification = self.verifier.progress(progress.copy.documents_total);
        progress.proof = self.verifier.proof();
        progress.foreign_writes = self.verifier.foreign_writes();
        progress.balancer_held = balancing::is_held(&self.context.run_dir);
        progress
    }

    fn mismatches(&self, most: usize) -> BoxFuture<'_, Result<Vec<Mismatch>, Fault>> {
        Box::pin(self.verifier.mismatches(most))
    }

    fn foreign_writes(&self, most: usize) -> BoxFuture<'_, Result<Vec<ForeignWrite>, Fault>> {
        Box::pin(self.verifier.named_foreign_writes(most))
    }
}
