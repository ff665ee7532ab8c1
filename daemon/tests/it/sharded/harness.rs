//! A run of the engine, driven through its steps as the daemon's shell drives it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use daemon::engine::run::MongoEngine;
use daemon::engine::{Ending, Engine as _, EngineContext, RunEngine, SyncReport};
use mongodb::bson::doc;
use rig::ShardedCluster;
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::id::{RunId, Workspace};
use schemas::spec::MigrationSpec;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long a busy machine may take to come from one step to the next.
const PATIENCE: Duration = Duration::from_secs(90);

/// A run that syncs.
pub(crate) struct Driven {
    pub(crate) engine: Arc<dyn RunEngine>,
    reports: mpsc::Receiver<SyncReport>,
    _folder: TempDir,
}

impl Driven {
    /// Opens a run and starts its sync.
    pub(crate) async fn start(spec: MigrationSpec) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let context = EngineContext {
            run: RunId::new(&spec.name, spec.generation, 7),
            workspace: Workspace::default(),
            spec: Arc::new(spec),
            run_dir: folder.path().to_owned(),
            has_begun: false,
            replaces: Arc::from([]),
        };
        let engine = MongoEngine::default().open(context)?;
        let (sender, reports) = mpsc::channel(1_000);
        engine.start_sync(sender).await?;
        Ok(Self { engine, reports, _folder: folder })
    }

    /// Stops the sync; what it holds is shown all the same.
    pub(crate) async fn stop(&self) {
        self.engine.stop_sync().await;
    }

    /// Starts the sync again.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        let (sender, reports) = mpsc::channel(1_000);
        self.reports = reports;
        Ok(self.engine.start_sync(sender).await?)
    }

    /// Waits for the fault that the sync ends with.
    pub(crate) async fn end(&mut self) -> Result<Fault> {
        let end = async {
            loop {
                if let SyncReport::Failed(fault) = self.reports.recv().await.context("no report")? {
                    return Ok(fault);
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.context("the sync goes on")?
    }

    /// Waits until nothing is in the way of a cutover.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let ready = async {
            loop {
                match self.reports.recv().await.context("no report")? {
                    SyncReport::Health { caught_up: true, lag: Some(_), blockers }
                        if blockers.is_empty() =>
                    {
                        return Ok(());
                    }
                    SyncReport::Failed(fault) => bail!("failed: {fault}"),
                    SyncReport::Health { .. }
                    | SyncReport::ShardStopped { .. }
                    | SyncReport::CopyFinished
                    | SyncReport::IndexesBuilt
                    | SyncReport::Preparing { .. } => {}
                }
            }
        };
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(ready) => ready,
            Err(_) => bail!(
                "not ready: {:?} {:?}",
                self.engine.progress(),
                self.engine.mismatches(5).await
            ),
        }
    }

    /// Waits until something holds, and nothing is in the way of a cutover then.
    pub(crate) async fn ready_with(
        &mut self,
        what: &str,
        holds: impl AsyncFn() -> Result<bool>,
    ) -> Result<()> {
        let holding = async {
            while !holds().await? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, anyhow::Error>(())
        };
        tokio::time::timeout(PATIENCE, holding)
            .await
            .with_context(|| format!("{what} does not come to be so"))??;
        self.ready().await
    }

    /// Waits until all that the source's shards hold now is applied.
    pub(crate) async fn caught_up(&self, source: &ShardedCluster) -> Result<()> {
        let mut now = Vec::new();
        for shard in source.shards() {
            let note = doc! { "appendOplogNote": 1, "data": { "msg": "now" } };
            let time = shard
                .client()
                .await?
                .database("admin")
                .run_command(note)
                .await?
                .get_timestamp("operationTime")?;
            now.push((
                shard.name().to_owned(),
                Some(ClusterTime { t: time.time, i: time.increment }),
            ));
        }
        let applied = async {
            loop {
                let shards = self.engine.progress().shards;
                let is_applied = |(name, now): &(String, Option<ClusterTime>)| {
                    shards
                        .iter()
                        .any(|shard| shard.name.0 == *name && shard.optime_gap.applied >= *now)
                };
                if now.iter().all(is_applied) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, applied).await.context("it does not catch up")
    }

    /// Waits until something that is in the way of a cutover is reported in these words.
    pub(crate) async fn blocked_by(&mut self, words: &str) -> Result<()> {
        let mut told = Vec::new();
        let blocked = async {
            loop {
                match self.reports.recv().await.context("no report")? {
                    SyncReport::Health { blockers, .. }
                        if blockers.iter().any(|blocker| blocker.contains(words)) =>
                    {
                        return Ok(());
                    }
                    SyncReport::Health { blockers, .. } => told = blockers,
                    SyncReport::Failed(fault) => bail!("failed: {fault}"),
                    SyncReport::ShardStopped { .. }
                    | SyncReport::CopyFinished
                    | SyncReport::IndexesBuilt
                    | SyncReport::Preparing { .. } => {}
                }
            }
        };
        match tokio::time::timeout(PATIENCE, blocked).await {
            Ok(blocked) => blocked,
            Err(_) => bail!("it is not in the way: {told:?}"),
        }
    }

    /// Cuts over, and cleans up.
    pub(crate) async fn cut_over(&mut self) -> Result<()> {
        let engine = &self.engine;
        let cut_over = async {
            engine.prepare_cutover().await?;
            engine.block_source().await?;
            engine.drain().await?;
            engine.stop_sync().await;
            engine.restore_settings().await?;
            engine.open_destination().await?;
            engine.clean_up(Ending::Completed).await?;
            engine.unblock_source().await
        };
        if let Err(fault) =
            tokio::time::timeout(PATIENCE, cut_over).await.context("it does not cut over")?
        {
            while let Ok(report) = self.reports.try_recv() {
                if let SyncReport::Failed(why) = report {
                    bail!("{fault}, since {why}");
                }
            }
            bail!("{fault}; {:?}", self.engine.mismatches(5).await);
        }
        Ok(())
    }
}
