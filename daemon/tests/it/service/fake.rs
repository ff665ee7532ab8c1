//! Two deployments in memory, and an engine that works on them: it keeps no secrets from a test,
//! and survives the daemon's death.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::engine::{
    DropWhat, Ending, Engine, EngineContext, EngineProgress, Ours, Relief, RunEngine,
    ShardProgress, SyncReport,
};
use futures_util::future::BoxFuture;
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::id::{RunId, ShardName};
use schemas::namespace::Namespace;
use schemas::observed::Inspection;
use schemas::spec::MigrationSpec;
use schemas::status::{CopyProgress, OptimeGap, TailProgress};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What is true of the two deployments.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) source_blocked: bool,
    pub(crate) destination_open: bool,
    pub(crate) settings_restored: bool,
    pub(crate) cleaned: Option<Ending>,
    /// The runs that keep the source's balancer stopped.
    pub(crate) balancer_held: BTreeSet<RunId>,
    pub(crate) lag: Duration,
    pub(crate) blockers: Vec<String>,
    pub(crate) resume_point_held: bool,
    /// Whether a drain ends.
    pub(crate) drains: bool,
    pub(crate) dropped: Vec<Namespace>,
    pub(crate) created: BTreeMap<RunId, Vec<Namespace>>,
    /// Why no run can be opened.
    pub(crate) state_fault: Option<Fault>,
    pub(crate) calls: Vec<String>,
    /// Faults that the next calls of a name end in.
    pub(crate) faults: BTreeMap<&'static str, VecDeque<Fault>>,
    syncs: BTreeMap<RunId, Running>,
}

#[derive(Debug)]
struct Running {
    task: JoinHandle<()>,
    reports: Arc<Mutex<mpsc::Sender<SyncReport>>>,
}

/// The world around the daemons of one test.
#[derive(Debug, Clone)]
pub(crate) struct FakeWorld(Arc<Mutex<Outside>>);

impl FakeWorld {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Outside {
            source_blocked: false,
            destination_open: true,
            settings_restored: false,
            cleaned: None,
            balancer_held: BTreeSet::new(),
            lag: Duration::from_millis(200),
            blockers: Vec::new(),
            resume_point_held: true,
            drains: true,
            dropped: Vec::new(),
            created: BTreeMap::new(),
            state_fault: None,
            calls: Vec::new(),
            faults: BTreeMap::new(),
            syncs: BTreeMap::new(),
        })))
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, Outside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The syncs that run.
    pub(crate) fn running(&self) -> BTreeSet<RunId> {
        self.look()
            .syncs
            .iter()
            .filter(|(_, running)| !running.task.is_finished())
            .map(|(run, _)| run.clone())
            .collect()
    }

    /// What dies with the daemon's process.
    pub(crate) fn kill_syncs(&self) {
        for (_, running) in std::mem::take(&mut self.look().syncs) {
            running.task.abort();
        }
    }

    /// A sync ends by itself.
    pub(crate) async fn fail_sync(&self, fault: Fault) {
        let running: Vec<Running> = std::mem::take(&mut self.look().syncs).into_values().collect();
        for running in running {
            running.task.abort();
            let sender = running.reports.lock().unwrap_or_else(PoisonError::into_inner).clone();
            sender.send(SyncReport::Failed(fault.clone())).await.expect("somebody listens");
        }
    }

    fn call(&self, name: &'static str) -> Result<MutexGuard<'_, Outside>, Fault> {
        let mut outside = self.look();
        outside.calls.push(name.to_owned());
        match outside.faults.get_mut(name).and_then(VecDeque::pop_front) {
            Some(fault) => Err(fault),
            None => Ok(outside),
        }
    }
}

impl Engine for FakeWorld {
    fn inspect<'a>(
        &'a self,
        _spec: &'a MigrationSpec,
        _ours: &'a Ours,
    ) -> BoxFuture<'a, Inspection> {
        Box::pin(std::future::ready(Inspection {
            checks: Vec::new(),
            forecast: None,
            drops: vec![Namespace::new("shop", "old")],
            destination_access_control: Some(true),
        }))
    }

    fn open(&self, context: EngineContext) -> Result<Arc<dyn RunEngine>, Fault> {
        match self.look().state_fault.clone() {
            Some(fault) => Err(fault),
            None => Ok(Arc::new(FakeRun { world: self.clone(), context })),
        }
    }

    fn relief(&self, context: EngineContext) -> Arc<dyn Relief> {
        Arc::new(FakeRun { world: self.clone(), context })
    }
}

impl Relief for FakeRun {
    fn unblock_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("relief_unblock", |outside| outside.source_blocked = false)
    }

    fn open_destination(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("relief_open", |outside| outside.destination_open = true)
    }
}

struct FakeRun {
    world: FakeWorld,
    context: EngineContext,
}

impl FakeRun {
    fn change(
        &self,
        name: &'static str,
        change: impl FnOnce(&mut Outside) + Send + 'static,
    ) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            change(&mut *self.world.call(name)?);
            Ok(())
        })
    }
}

impl RunEngine for FakeRun {
    fn validate(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("validate", |_| {})
    }

    fn drop_namespaces(&self, what: DropWhat) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("drop_namespaces", move |outside| match what {
            DropWhat::Created(namespaces) => {
                outside.dropped.extend(namespaces);
                outside.settings_restored = false;
            }
            DropWhat::Listed(namespaces) => outside.dropped.extend(namespaces),
        })
    }

    fn start_sync(&self, reports: mpsc::Sender<SyncReport>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let mut outside = self.world.call("start_sync")?;
            assert!(!outside.settings_restored, "no sync into restored settings");
            outside.destination_open = false;
            outside.balancer_held.insert(self.context.run.clone());
            outside
                .created
                .entry(self.context.run.clone())
                .or_insert_with(|| vec![Namespace::new("shop", "orders")]);
            if let Some(running) = outside.syncs.get(&self.context.run)
                && !running.task.is_finished()
            {
                *running.reports.lock().unwrap_or_else(PoisonError::into_inner) = reports;
                return Ok(());
            }
            let reports = Arc::new(Mutex::new(reports));
            let (world, sender) = (self.world.clone(), Arc::clone(&reports));
            let task = tokio::spawn(async move {
                let send = |report| {
                    let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    async move { sender.send(report).await }
                };
                // A closed channel is one that a newer sender is about to replace.
                let _ = send(SyncReport::IndexesBuilt).await;
                let _ = send(SyncReport::CopyFinished).await;
                loop {
                    let (lag, blockers) = {
                        let outside = world.look();
                        (outside.lag, outside.blockers.clone())
                    };
                    let _ = send(SyncReport::CopyFinished).await;
                    let _ = send(SyncReport::Health { lag: Some(lag), caught_up: true, blockers })
                        .await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            outside.syncs.insert(self.context.run.clone(), Running { task, reports });
            Ok(())
        })
    }

    fn stop_sync(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let running = {
                let mut outside = self.world.look();
                outside.calls.push("stop_sync".to_owned());
                outside.syncs.remove(&self.context.run)
            };
            if let Some(running) = running {
                running.task.abort();
                // It was cancelled; that is no error.
                let _ = running.task.await;
            }
        })
    }

    fn resume_point_held(&self) -> BoxFuture<'_, Result<Option<bool>, Fault>> {
        Box::pin(async move { Ok(Some(self.world.call("resume_point_held")?.resume_point_held)) })
    }

    fn prepare_cutover(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("prepare_cutover", |_| {})
    }

    fn block_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("block_source", |outside| outside.source_blocked = true)
    }

    fn unblock_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("unblock_source", |outside| outside.source_blocked = false)
    }

    fn watch_source_quiet(&self, _quiet_for: Duration) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("watch_source_quiet", |_| {})
    }

    fn drain(&self) -> BoxFuture<'_, Result<ClusterTime, Fault>> {
        Box::pin(async move {
            let drains = self.world.call("drain")?.drains;
            if !drains {
                std::future::pending::<()>().await;
            }
            assert!(self.world.running().contains(&self.context.run), "a drain needs the sync");
            Ok(ClusterTime { t: 1_700_000_000, i: 1 })
        })
    }

    fn restore_settings(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let run = self.context.run.clone();
        self.change("restore_settings", move |outside| {
            assert!(!outside.syncs.contains_key(&run), "the sync has stopped");
            outside.settings_restored = true;
        })
    }

    fn open_destination(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("open_destination", |outside| outside.destination_open = true)
    }

    fn clean_up(&self, ending: Ending) -> BoxFuture<'_, Result<(), Fault>> {
        self.change("clean_up", move |outside| outside.cleaned = Some(ending))
    }

    fn release_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let run = self.context.run.clone();
        self.change("release_source", move |outside| {
            outside.balancer_held.remove(&run);
        })
    }

    fn restart_shard<'a>(&'a self, _shard: &'a ShardName) -> BoxFuture<'a, Result<(), Fault>> {
        self.change("restart_shard", |_| {})
    }

    fn progress(&self) -> EngineProgress {
        let outside = self.world.look();
        let mut progress = EngineProgress::none(self.context.spec.verify.mode);
        progress.created_namespaces =
            outside.created.get(&self.context.run).cloned().unwrap_or_default();
        progress.shards = vec![ShardProgress {
            name: ShardName("rs0".to_owned()),
            copy: CopyProgress::default(),
            tail: TailProgress::default(),
            lag_seconds: Some(outside.lag.as_secs_f64()),
            optime_gap: OptimeGap::default(),
            oplog_window_seconds: Some(3_600),
            error: None,
        }];
        progress
    }
}
