//! The engine behind the daemon's shell: opens runs, starts and stops their sync, and does what a
//! cutover asks for.

mod connections;
pub mod holder;
pub mod identity;
pub mod lost;
mod sync_task;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::observed::{Finding, FindingKind, ForeignWrite, Inspection, Mismatch};
use schemas::principal::Principal;
use schemas::spec::{MigrationSpec, SourceWrites};
use tokio::sync::{RwLock, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::holder::{Hold, StartId};
use self::identity::Identity;
use super::apply::definitions::Mends;
use super::capped::aside;
use super::capped::keeper::Keeper;
use super::catalog;
use super::checkpoint::Checkpoints;
use super::copy::Restarts;
use super::cutover::{fence, give_back};
use super::destination::{guard, users};
use super::drift::shards;
use super::drift::{self, Versions};
use super::progress::Progress;
use super::source::balancer_hold;
use super::source::{self, Source};
use super::sync::Milestone;
use super::tail::oplog_rollover;
use super::tuning::Tuning;
use super::verify::{Sides, Verifier};
use super::{
    DropWhat, Ending, Engine, EngineContext, EngineProgress, Ours, Relief, RunEngine, SyncReport,
    preflight,
};
use crate::memory::Memory;
use crate::mongo::{Deployment, Side, connection_files};

/// Moves data between real deployments.
#[derive(Debug, Default)]
pub struct MongoEngine {
    /// The bounds that its runs work within.
    pub tuning: Tuning,
    /// The large buffers of all its runs.
    pub memory: Memory,
    /// Tells it from every other start.
    pub start: StartId,
}

impl Engine for MongoEngine {
    fn inspect<'a>(&'a self, spec: &'a MigrationSpec, ours: &'a Ours) -> BoxFuture<'a, Inspection> {
        Box::pin(preflight::inspect(spec, ours, &self.memory))
    }

    fn open(&self, context: EngineContext) -> Result<Arc<dyn RunEngine>, Fault> {
        let checkpoints = Checkpoints::open(&context.run_dir, context.has_begun)?;
        let progress = Arc::new(Progress::new(context.spec.verify.mode));
        checkpoints.restore(&progress)?;
        let hold =
            Arc::new(Hold::new(context.run.clone(), self.start.clone(), checkpoints.clone()));
        let verifier = Arc::new(Verifier::open(context.spec.verify.mode, &context.run_dir)?);
        Ok(Arc::new(MongoRun {
            checkpoints,
            hold,
            progress,
            verifier,
            keeper: Arc::default(),
            mends: Arc::default(),
            tail_lock: Arc::default(),
            source: tokio::sync::Mutex::default(),
            destination: tokio::sync::Mutex::default(),
            writer: tokio::sync::Mutex::default(),
            files: Mutex::new(connection_files::digest(&context.spec)),
            running: Mutex::new(None),
            kept_closed: AtomicBool::new(false),
            tuning: self.tuning.clone(),
            memory: self.memory.clone(),
            context,
        }))
    }

    fn relief(&self, context: EngineContext) -> Arc<dyn Relief> {
        Arc::new(give_back::Bare { context, memory: self.memory.clone() })
    }
}

/// Both sides of a migration, connected.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) source: Arc<Source>,
    pub(super) destination: Arc<Deployment>,
}

/// A sync that runs on its own.
#[derive(Debug)]
pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub(super) reports: Arc<Mutex<mpsc::Sender<SyncReport>>>,
    /// What it has reached, for a shell that comes later.
    reached: Arc<Mutex<Vec<Milestone>>>,
    /// Takes the word that a shard's copy is to begin again.
    restarts: Arc<Restarts>,
    /// Knows whether both sides are what they were.
    identity: Arc<Identity>,
}

/// One run.
#[derive(Debug)]
pub struct MongoRun {
    pub(super) context: EngineContext,
    pub(super) checkpoints: Checkpoints,
    pub(super) hold: Arc<Hold>,
    pub(super) progress: Arc<Progress>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) mends: Arc<Mends>,
    pub(super) tail_lock: Arc<RwLock<()>>,
    source: tokio::sync::Mutex<Option<Arc<Source>>>,
    /// As the declared user.
    destination: tokio::sync::Mutex<Option<Arc<Deployment>>>,
    /// As the run's own user, where it has one.
    writer: tokio::sync::Mutex<Option<Arc<Deployment>>>,
    /// The digest of the files that the connections were made with.
    files: Mutex<Option<String>>,
    pub(super) running: Mutex<Option<Running>>,
    /// Whether it was seen that no process has handed the destination over, and this one has not
    /// since.
    pub(super) kept_closed: AtomicBool,
    pub(super) tuning: Tuning,
    memory: Memory,
}

impl MongoRun {
    /// What the verification works on.
    pub(super) fn sides(&self, pair: &Pair) -> Sides {
        Sides {
            source: Arc::clone(&pair.source),
            destination: Arc::clone(&pair.destination),
            spec: Arc::clone(&self.context.spec),
            progress: Arc::clone(&self.progress),
            tail_lock: Arc::clone(&self.tail_lock),
            mends: Arc::clone(&self.mends),
        }
    }

    /// Whether others are kept from writing to the destination.
    async fn blocks_destination(&self, destination: &Deployment) -> Result<bool, Fault> {
        give_back::blocks_destination(&self.context, destination).await
    }

    /// What a person with a shell is told on the destination.
    fn marker(&self, blocks_writes: bool) -> guard::Marker<'_> {
        give_back::marker(&self.context, blocks_writes)
    }

    /// Gives the destination the source's users and roles, where that is asked for. The declared
    /// user does it: the run's own has no say over users.
    pub(super) async fn carry_users(&self, source: &Deployment) -> Result<(), Fault> {
        let namespaces = &self.context.spec.namespaces;
        if !namespaces.include_users {
            return Ok(());
        }
        let destination = self.destination().await?;
        users::carry(source, &destination, &namespaces.scope, &self.checkpoints, &self.progress)
            .await
    }

    async fn created(&self) -> Result<BTreeSet<Namespace>, Fault> {
        Ok(self.checkpoints.created().await?.into_iter().collect())
    }
}

impl RunEngine for MongoRun {
    fn validate(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let mut ours = self.created().await?;
            ours.extend(self.context.replaces.iter().cloned());
            let ours = Ours {
                namespaces: ours,
                runs: BTreeSet::from([self.context.run.clone()]),
                ..Ours::default()
            };
            let checked = preflight::check(&self.context.spec, &ours, Some(&self.context.run))
                .await
                .first_failure();
            let is_sound = checked.is_ok();
            let checked = match checked {
                Ok(()) => self.enclose(&ours).await,
                failed => failed,
            };
            match checked {
                // Whoever has the run has what is there as well.
                Err(fault) if !fault.retryable && fault.code != FaultCode::RunHeldElsewhere => {
                    match self.withdraw().await {
                        // All of it is tried again: a run that does not begin keeps nobody out.
                        Err(kept) if is_sound => Err(Fault { retryable: true, ..kept }),
                        // What an attempt that a crash cut short has left; the checks tell already
                        // what is wrong there.
                        Err(kept) => {
                            tracing::warn!(error = %kept.message, "cannot see whether this run \
                                 keeps others from the destination");
                            Err(fault)
                        }
                        Ok(()) => Err(fault),
                    }
                }
                checked => checked,
            }
        })
    }

    fn drop_namespaces(&self, what: DropWhat) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let destination = self.destination().await?;
            self.hold.check(&destination).await?;
            destination.wait_for_writes(&format!("{}-", self.context.spec.name)).await?;
            let ours = self.created().await?;
            let namespaces = match what {
                DropWhat::Listed(mut listed) => {
                    // What the run has made since, after a crash between its start and here, is not
                    // what was listed.
                    let is_in_scope = |namespace: &Namespace| match Principal::of(namespace) {
                        Some(principal) => preflight::carries(&self.context.spec, &principal),
                        None => self.context.spec.namespaces.scope.contains(namespace),
                    };
                    listed.retain(|namespace| is_in_scope(namespace) && !ours.contains(namespace));
                    listed
                }
                DropWhat::Created(namespaces) => namespaces,
            };
            let mut databases = BTreeSet::new();
            for namespace in namespaces {
                match Principal::of(&namespace) {
                    Some(principal) => users::drop_one(&destination, &principal).await?,
                    // Others' writes are blocked by now, those of the declared user perhaps among
                    // them.
                    None => {
                        catalog::drop(&*self.writer().await?, &namespace).await?;
                        databases.insert(namespace.db);
                    }
                }
            }
            for db in databases {
                catalog::drop_empty_views(&*self.writer().await?, &db).await?;
            }
            Ok(())
        })
    }

    fn start_sync(&self, reports: mpsc::Sender<SyncReport>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.start(reports))
    }

    fn stop_sync(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop())
    }

    fn restart_shard<'a>(&'a self, shard: &'a ShardName) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.restart(shard))
    }

    fn look<'a>(&'a self, connections: &'a drift::Fresh) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(async move {
            let (spec, kept) = (&self.context.spec, Versions::kept(&self.context.run_dir));
            let (versions, lost) = match kept {
                Ok(versions) => (versions, None),
                Err(why) => (None, Some(drift::unreadable(FindingKind::Version, "versions", why))),
            };
            let ((mut findings, source), (more, destination)) = tokio::join!(
                drift::side(connections, Side::Source, &spec.source.connection, versions.as_ref()),
                drift::side(
                    connections,
                    Side::Destination,
                    &spec.destination.connection,
                    versions.as_ref()
                )
            );
            findings.extend(more);
            findings.extend(lost);
            if let Some(source) = &source {
                findings.extend(shards::look(source, &self.context.run_dir).await);
                if spec.cutover.source_writes == SourceWrites::Block
                    && let Some(why) = fence::too_low(source).await
                {
                    findings.push(drift::cannot_block(&why));
                }
            }
            let progress = self.progress();
            // Before, what differs is what is still to be made.
            let is_made = progress.copy.collections_total > 0
                && progress.copy.collections_copied == progress.copy.collections_total
                && progress.indexes.built == progress.indexes.total;
            if let (Some(source), Some(destination), true) = (source, destination, is_made)
                && let Ok(manner) = self.manner()
                && let Ok(source) =
                    Source::behind(source, &spec.source.connection, manner).await.map(Arc::new)
            {
                findings
                    .extend(drift::definitions(&self.sides(&Pair { source, destination })).await);
            }
            findings
        })
    }

    fn resume_point_held(&self) -> BoxFuture<'_, Result<Option<bool>, Fault>> {
        Box::pin(async move {
            let source = self.source().await?;
            identity::hold_source(&source, &self.context.spec.source.connection, &self.checkpoints)
                .await?;
            let found = oplog_rollover::look(&source, &self.checkpoints, &self.progress).await?;
            Ok(match found {
                oplog_rollover::Found { lost, .. } if !lost.is_empty() => Some(false),
                oplog_rollover::Found { is_unknown: true, .. } => None,
                oplog_rollover::Found { .. } => Some(true),
            })
        })
    }

    fn prepare_cutover(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.prepare())
    }

    fn block_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let source = self.source().await?;
            identity::hold_source(&source, &self.context.spec.source.connection, &self.checkpoints)
                .await?;
            self.hold.check(&*self.destination().await?).await?;
            fence::put_up(&source, self.context.spec.cutover.max_downtime.get()).await
        })
    }

    fn unblock_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.verifier.set_source_stopped(false);
            // A run that another daemon has gone on with is not this one's to undo.
            self.hold.check_briefly(self.destination()).await?;
            // Whatever is declared by now: the lifecycle asks only where a block may be up.
            let entry = self.entry().await?;
            fence::lift(
                &entry,
                source::holders(&entry, &self.context.spec.source.connection, self.manner()?),
            )
            .await
        })
    }

    fn watch_source_quiet(&self, quiet_for: Duration) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.watch_quiet(quiet_for))
    }

    fn drain(&self) -> BoxFuture<'_, Result<ClusterTime, Fault>> {
        Box::pin(self.drain_source())
    }

    fn restore_settings(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.restore())
    }

    fn handed_over(&self) -> BoxFuture<'_, Result<bool, Fault>> {
        Box::pin(async move {
            if self.kept_closed.load(Ordering::Acquire) {
                return Ok(false);
            }
            holder::restored(&*self.destination().await?, &self.context.run)
                .await
                .map(|noted| noted.is_some())
        })
    }

    fn open_destination(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.open())
    }

    fn clean_up(&self, ending: Ending) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.hold.check_holder(&*self.destination().await?).await?;
            match ending {
                Ending::Completed => self.finish_indexes().await?,
                // The data stays as it is, to be tested on.
                Ending::Cancelled => {}
            }
            let destination = self.destination().await?;
            aside::drop_left(
                &destination,
                &self.context.spec.namespaces.scope,
                self.created().await?,
            )
            .await?;
            self.hold.let_go(true).await?;
            // What a trial has left that was cut short.
            catalog::drop(&destination, &self.trial()).await?;
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
        Box::pin(balancer_hold::give_back(&self.context.run_dir, self.entry()))
    }

    fn progress(&self) -> EngineProgress {
        let mut progress = self.progress.snapshot();
        progress.expected_downtime_seconds =
            progress.expected_downtime_seconds.map(|lag| lag + self.keeper.seconds_left());
        progress.verification = self.verifier.progress(progress.copy.documents_total);
        progress.proof = self.verifier.proof();
        progress.foreign_writes = self.verifier.foreign_writes();
        progress.balancer_held = balancer_hold::is_held(&self.context.run_dir);
        progress
    }

    fn mismatches(&self, most: usize) -> BoxFuture<'_, Result<Vec<Mismatch>, Fault>> {
        Box::pin(self.verifier.mismatches(most))
    }

    fn foreign_writes(&self, most: usize) -> BoxFuture<'_, Result<Vec<ForeignWrite>, Fault>> {
        Box::pin(self.verifier.named_foreign_writes(most))
    }
}
