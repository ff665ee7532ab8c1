//! A run's sync: begun, stopped, and one shard of it begun again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{MongoRun, Running};
use crate::engine::copy::Restarts;
use crate::engine::cutover::blockers::BlockerWatch;
use crate::engine::destination::guard;
use crate::engine::drift::Versions;
use crate::engine::drift::shards;
use crate::engine::source::balancer_hold;
use crate::engine::sync::Sync;
use crate::engine::sync::report::Reporter;
use crate::engine::{Ours, SyncReport, preflight};
use crate::mongo::{Deployment, connection_files};

/// How long a sync that stops waits for both sides to say what they are.
const LAST_LOOK: Duration = Duration::from_secs(3);

impl MongoRun {
    /// Starts the sync, or tells whom it is to report to from now on.
    pub(super) async fn start(&self, reports: mpsc::Sender<SyncReport>) -> Result<(), Fault> {
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
        // Before anything is written, the marker too: it is a witness.
        let identity = self.identity(&pair).await?;
        identity.hold_reachable().await?;
        Versions::of(&pair.source.entry, &pair.destination).keep(&self.context.run_dir)?;
        if pair.source.tells_shards_apart() {
            let read = self.progress.shards().iter().map(|shard| shard.name().clone()).collect();
            shards::keep(&pair.source.entry, &self.context.run_dir, &read).await?;
        }
        balancer_hold::ensure_still(&pair.source.entry, &self.context.spec, &self.context.run_dir)
            .await?;
        self.guard_destination(&pair.source.entry, &pair.destination).await?;
        identity.beat().await?;
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
            tail_lock: Arc::clone(&self.tail_lock),
            identity: Arc::clone(&identity),
            verifier: Arc::clone(&self.verifier),
            keeper: Arc::clone(&self.keeper),
            mends: Arc::clone(&self.mends),
            stop: stop.clone(),
            tuning: self.tuning.clone(),
            milestones,
            restarts: Arc::clone(&restarts),
        };
        let reporter = Reporter {
            source: pair.source,
            blocker_watch: BlockerWatch::of(
                Arc::clone(&sync.source),
                Arc::clone(&sync.destination),
                Arc::clone(&sync.spec),
                Arc::clone(&sync.tail_lock),
            ),
            progress: Arc::clone(&self.progress),
            checkpoints: self.checkpoints.clone(),
            verifier: Arc::clone(&self.verifier),
            keeper: Arc::clone(&self.keeper),
            reports: Arc::clone(&reports),
            reached: Arc::clone(&reached),
        };
        let (spec, stopping) = (Arc::clone(&self.context.spec), stop.clone());
        let (hold, destination) = (Arc::clone(&self.hold), Arc::clone(&sync.destination));
        let task = tokio::spawn(async move {
            let mut sync = std::pin::pin!(sync.run());
            let ended = tokio::select! {
                ended = &mut sync => ended,
                () = reporter.watch(arriving) => Ok(()),
                fault = hold.lost(&destination) => {
                    // At once: whatever is still on its way here is not this run's any more.
                    stopping.cancel();
                    Err(fault)
                }
                fault = connection_files::changed(&spec, files) => {
                    stopping.cancel();
                    // It ends with its checkpoints written; whatever else has gone wrong shows
                    // again once it is started anew.
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
            Some(Running { stop, task, reports, reached, restarts, identity });
        Ok(())
    }

    /// Stops the sync with its checkpoints written, and waits until nothing of it is under way on
    /// the destination.
    pub(super) async fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return };
        running.stop.cancel();
        if let Err(error) = running.task.await
            && error.is_panic()
        {
            tracing::error!("the sync panicked");
        }
        // Where it stops is what it has to find again. Who starts it looks in any case, from the
        // last time that this was stored.
        let last = async {
            running.identity.hold().await?;
            running.identity.beat().await
        };
        match tokio::time::timeout(LAST_LOOK, last).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::warn!(error = %fault, "whether the deployments are the same cannot be \
                     seen")
            }
            Err(_) => tracing::warn!("whether the deployments are the same is not answered"),
        }
        // What it was trying to get over is nobody's trouble while it does not run.
        if self.progress.error().is_some_and(|fault| fault.retryable) {
            self.progress.set_error(None);
        }
        // What it left under way ends before anybody goes on; where that cannot be seen, the next
        // start looks again.
        let writer = self.writer.lock().await.clone();
        if let Some(writer) = writer
            && let Err(fault) = writer.wait_for_writes(&format!("{}:", writer.tag)).await
        {
            tracing::warn!(error = %fault, "cannot see whether writes are under way");
        }
    }

    /// Begins a shard's copy again.
    pub(super) async fn restart(&self, shard: &ShardName) -> Result<(), Fault> {
        let refuse = |why: String| Err(Fault::new(FaultCode::WrongState, why));
        let shards = self.progress.shards();
        let Some(counters) = shards.iter().find(|known| known.name() == shard) else {
            let names: Vec<&str> = shards.iter().map(|known| known.name().0.as_str()).collect();
            return refuse(format!(
                "the run's source has no shard {shard}; it has {}",
                names.join(", ")
            ));
        };
        if self.checkpoints.shard(&shard.0).await?.is_some_and(|row| row.copied.is_some()) {
            return refuse(format!(
                "the documents of shard {shard} are copied already; what follows is of all shards \
                 together"
            ));
        }
        let restarts = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running
                .as_ref()
                .filter(|running| !running.task.is_finished())
                .map(|running| Arc::clone(&running.restarts))
        };
        match (restarts, counters.error()) {
            (None, _) => refuse(format!(
                "the run does not copy now, so that shard {shard} cannot be begun again by itself"
            )),
            (Some(_), None) => {
                refuse(format!("shard {shard} is being copied, and nothing is wrong with it"))
            }
            (Some(restarts), Some(_)) => {
                restarts.ask(shard);
                Ok(())
            }
        }
    }

    pub(in crate::engine) fn is_running(&self) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    /// Makes sure that no other run is at work in the same namespaces, blocks others' writes on the
    /// destination and says so there.
    pub(super) async fn guard_destination(
        &self,
        source: &Deployment,
        writer: &Deployment,
    ) -> Result<(), Fault> {
        let blocks_writes = self.blocks_destination(&*self.destination().await?).await?;
        self.hold.take(writer, &self.marker(blocks_writes)).await?;
        // After the own one is there: of two that come at once at least one sees the other.
        if let Some(rival) = preflight::rival(
            source,
            writer,
            &self.context.spec,
            &BTreeSet::from([self.context.run.clone()]),
        )
        .await?
        {
            self.hold.let_go(false).await?;
            guard::remove_marker(writer, &self.context.run).await?;
            // The other one may be giving way just now.
            return Err(Fault { retryable: true, ..rival.fault(writer) });
        }
        if blocks_writes {
            guard::set_write_block(writer, true)
                .await
                .map_err(|e| writer.fault("blocking others' writes", &e))?;
        }
        Ok(())
    }

    /// Keeps others from writing to the destination, and then looks again whether it is empty: what
    /// they wrote after the first look would be dropped as agreed data, or lie among what is
    /// copied.
    pub(super) async fn enclose(&self, ours: &Ours) -> Result<(), Fault> {
        let (source, destination) = (self.entry().await?, self.destination().await?);
        self.guard_destination(&source, &*self.writer().await?).await?;
        preflight::check_emptiness(
            &source,
            &destination,
            &self.context.spec,
            ours,
            &self.context.run,
        )
        .await
    }

    /// Gives the destination back as it was before [`Self::enclose`].
    pub(super) async fn withdraw(&self) -> Result<(), Fault> {
        let (destination, run) = (self.destination().await?, &self.context.run);
        self.hold.check_holder(&destination).await?;
        if guard::says_that_it_blocks(&destination, run).await? {
            self.open().await?;
        }
        self.hold.let_go(false).await?;
        guard::remove_marker(&destination, run).await?;
        if destination.is_authenticated {
            guard::drop_user(&destination, run).await?;
        }
        *self.writer.lock().await = None;
        Ok(())
    }
}
