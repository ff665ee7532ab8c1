//! Two replica sets and a run that verifies, opened and opened again from the same checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use daemon::engine::run::MongoEngine;
use daemon::engine::tuning::Tuning;
use daemon::engine::{Engine as _, EngineContext, RunEngine, SyncReport};
use mongodb::Client;
use rig::replica_set::{Options, ReplicaSet};
use schemas::id::{MigrationName, RunId, Workspace};
use schemas::observed::Mismatch;
use schemas::spec::*;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long a small run may take to get somewhere on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// Two replica sets, a client of each, and where a run keeps its checkpoints.
pub(crate) struct Pair {
    source: ReplicaSet,
    destination: ReplicaSet,
    pub(crate) from: Client,
    pub(crate) to: Client,
    pub(crate) dir: TempDir,
}

impl Pair {
    pub(crate) async fn start() -> Result<Self> {
        let (source, destination) = tokio::try_join!(
            ReplicaSet::start(Options::default()),
            ReplicaSet::start(Options::default())
        )?;
        let (from, to) = (source.client().await?, destination.client().await?);
        Ok(Self { source, destination, from, to, dir: tempfile::tempdir()? })
    }

    fn spec(&self) -> MigrationSpec {
        MigrationSpec::between(
            MigrationName::new("proved").expect("a name"),
            self.source.uri(),
            self.destination.uri(),
        )
    }

    /// Opens the run where it was left, and starts it.
    pub(crate) async fn run(&self) -> Result<Run> {
        self.run_with(Tuning::default()).await
    }

    /// The same within other bounds.
    pub(crate) async fn run_with(&self, tuning: Tuning) -> Result<Run> {
        let engine = open(self.spec(), tuning, self.dir.path())?;
        let (sender, reports) = mpsc::channel(100);
        engine.start_sync(sender).await?;
        Ok(Run { engine, reports, blockers: Vec::new() })
    }
}

fn open(spec: MigrationSpec, tuning: Tuning, dir: &Path) -> Result<Arc<dyn RunEngine>> {
    let context = EngineContext {
        run: RunId::new(&spec.name, spec.generation, 7),
        workspace: Workspace::default(),
        spec: Arc::new(spec),
        run_dir: dir.to_owned(),
        has_begun: false,
        replaces: Arc::from([]),
    };
    Ok(MongoEngine { tuning, ..MongoEngine::default() }.open(context)?)
}

/// A run, open and syncing.
pub(crate) struct Run {
    pub(crate) engine: Arc<dyn RunEngine>,
    reports: mpsc::Receiver<SyncReport>,
    pub(crate) blockers: Vec<String>,
}

impl Run {
    /// Waits for the next look at its health.
    pub(crate) async fn look(&mut self) -> Result<bool> {
        loop {
            match tokio::time::timeout(PATIENCE, self.reports.recv()).await? {
                Some(SyncReport::Health { caught_up, blockers, .. }) => {
                    self.blockers = blockers;
                    return Ok(caught_up);
                }
                Some(SyncReport::Failed(fault)) => bail!("failed: {fault}"),
                Some(
                    SyncReport::ShardStopped { .. }
                    | SyncReport::CopyFinished
                    | SyncReport::IndexesBuilt
                    | SyncReport::Preparing { .. },
                ) => {}
                None => bail!("the run is gone"),
            }
        }
    }

    /// Waits until it is caught up and nothing keeps it from being ready.
    pub(crate) async fn until_clean(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            let caught_up = self.look().await?;
            let progress = self.engine.progress();
            if caught_up && self.blockers.is_empty() && progress.verification.phase == "clean" {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "not clean: {:?}; {:?}",
                self.blockers,
                progress.verification
            );
        }
    }

    /// Waits until something holds, with the blockers of the newest look.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let began = Instant::now();
        while !holds(self) {
            self.look().await?;
            ensure!(
                began.elapsed() < PATIENCE,
                "{what}: {:?}; {:?}",
                self.blockers,
                self.engine.progress()
            );
        }
        Ok(())
    }

    /// Waits until this many mismatches are open.
    pub(crate) async fn mismatches(&mut self, count: usize) -> Result<Vec<Mismatch>> {
        let began = Instant::now();
        loop {
            while self.reports.try_recv().is_ok() {}
            let found = self.engine.mismatches(100).await?;
            if found.len() >= count || began.elapsed() > PATIENCE {
                return Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) async fn stop(self) {
        self.engine.stop_sync().await;
    }
}

/// Mismatches as a test writes them: kind, `_id`, paths; sorted.
pub(crate) fn named(found: &[Mismatch], namespace: &str) -> Vec<String> {
    let mut named: Vec<String> = found
        .iter()
        .filter(|one| one.namespace.to_string() == namespace)
        .map(|one| {
            format!(
                "{} {} {}",
                one.kind.as_str(),
                one.id.as_deref().unwrap_or("-"),
                one.paths.join(",")
            )
            .trim()
            .to_owned()
        })
        .collect();
    named.sort();
    named
}
