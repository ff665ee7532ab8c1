//! One task for each migration: carries out the registry's orders with the engine, in order, and
//! tells how they ended.
//!
//! It decides nothing. Newer orders replace older ones; what is safe to give up halfway is given up
//! for them.

mod backoff;
mod carry_out;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use lifecycle::{Effect, Event, State};
use schemas::fault::{Fault, FaultCode};
use schemas::id::RunId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::crash_point::{CrashPoint, Place};
use crate::engine::SyncReport;
use crate::journal::Key;
use crate::open_runs::Engines;
use crate::registry::{Orders, Origin, Registry};
use backoff::Backoff;

/// The longest pause between two tries while writers are kept out: there a second counts.
const URGENT_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two tries otherwise: a server that is back is taken up within half a
/// minute.
const PATIENT_PAUSE: Duration = Duration::from_secs(30);

/// Between two tries to tell the registry of an outcome that it could not journal (a full disk).
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);

/// How long an effect that must not be cut off may go on when the daemon stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Reports that may wait for the registry.
const REPORTS: usize = 64;

/// What every supervisor works with.
#[derive(Clone)]
pub struct Supervisor {
    engines: Arc<Engines>,
    crash_point: Arc<CrashPoint>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Supervisor {
    /// From its parts; `tasks` tracks what it starts, `stop` ends it.
    #[must_use]
    pub fn new(
        engines: Arc<Engines>,
        crash_point: Arc<CrashPoint>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { engines, crash_point, tasks, stop }
    }

    /// Starts the task of one migration.
    pub fn supervise(
        &self,
        key: Key,
        orders: watch::Receiver<Orders>,
        registry: Registry,
        runtime: &tokio::runtime::Handle,
    ) {
        let worker = Worker {
            supervisor: self.clone(),
            key,
            orders,
            registry,
            backoff: Arc::new(Backoff::default()),
            done: 0,
            number: 0,
        };
        self.tasks.spawn_on(worker.work(), runtime);
    }
}

/// One migration's task.
struct Worker {
    supervisor: Supervisor,
    key: Key,
    orders: watch::Receiver<Orders>,
    registry: Registry,
    backoff: Arc<Backoff>,
    /// Effects of the present orders that are done.
    done: usize,
    /// The present orders.
    number: u64,
}

/// How an effect ended for the worker.
enum Ended {
    /// It was carried out, or failed.
    With(Result<Event, Fault>),
    /// Newer orders have come.
    Overtaken,
    /// The daemon stops.
    Stopping,
}

impl Worker {
    async fn work(mut self) {
        let stop = self.supervisor.stop.clone();
        self.open_for_readers().await;
        loop {
            let orders = self.orders.borrow_and_update().clone();
            if orders.forgotten {
                self.supervisor.engines.forget(&orders.run.id).await;
                return;
            }
            if orders.number != self.number {
                (self.number, self.done) = (orders.number, 0);
            }
            let Some(effect) = orders.effects.get(self.done).cloned() else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = self.orders.changed() => match changed {
                        Ok(()) => continue,
                        // The registry has gone.
                        Err(_) => return,
                    },
                }
            };
            match self.try_effect(&orders, &effect).await {
                Ended::With(outcome) => {
                    if self.conclude(&orders, effect, outcome).await.is_none() {
                        return;
                    }
                }
                Ended::Overtaken => {}
                Ended::Stopping => return,
            }
        }
    }

    /// Opens the run, so that its progress can be read whatever state it is in.
    async fn open_for_readers(&mut self) {
        let orders = self.orders.borrow().clone();
        if let Err(fault) =
            self.supervisor.engines.of_run(&self.key.workspace, &orders.run, &orders.spec).await
        {
            warn!(migration = %self.key.name, %fault, "the run's checkpoints cannot be opened");
        }
    }

    async fn try_effect(&mut self, orders: &Orders, effect: &Effect) -> Ended {
        let kind = effect.kind();
        let stop = self.supervisor.stop.clone();
        let pause = self.backoff.pause(kind, longest_pause(&orders.run.state));
        if !pause.is_zero() {
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopping,
                _ = self.orders.changed() => return Ended::Overtaken,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if self.supervisor.crash_point.reach(Place::Before(kind)) {
            return Ended::Stopping;
        }
        debug!(migration = %self.key.name, effect = kind.as_str(), "begun");
        let work = carry_out::carry_out(
            &self.supervisor,
            &self.key,
            orders,
            effect,
            &self.registry,
            &self.backoff,
        );
        // A panic in the engine is an error of this effect, not the end of the migration.
        let work = std::panic::AssertUnwindSafe(work).catch_unwind();
        tokio::pin!(work);
        let outcome = if effect.is_interruptible() {
            tokio::select! {
                outcome = &mut work => outcome,
                () = stop.cancelled() => return Ended::Stopping,
                _ = self.orders.changed() => {
                    debug!(migration = %self.key.name, effect = kind.as_str(), "given up for \
                         newer orders");
                    return Ended::Overtaken;
                }
            }
        } else {
            tokio::select! {
                outcome = &mut work => outcome,
                () = async {
                    stop.cancelled().await; tokio::time::sleep(STOP_PATIENCE).await
                } => return Ended::Stopping,
            }
        };
        if self.supervisor.crash_point.reach(Place::After(kind)) {
            return Ended::Stopping;
        }
        Ended::With(outcome.unwrap_or_else(|_| {
            error!(migration = %self.key.name, effect = kind.as_str(), "panicked");
            Err(Fault::new(FaultCode::Internal, format!("{} panicked", kind.as_str())))
        }))
    }

    /// Tells how an effect ended, until the registry has taken it. `None`: the daemon has stopped.
    async fn conclude(
        &mut self,
        orders: &Orders,
        effect: Effect,
        outcome: Result<Event, Fault>,
    ) -> Option<()> {
        let kind = effect.kind();
        let event = match outcome {
            Ok(event) => {
                debug!(migration = %self.key.name, effect = kind.as_str(), "done");
                // What only starts something has not shown yet that it works: its own reports clear
                // it.
                if !matches!(effect, Effect::StartSync) {
                    self.backoff.clear(kind);
                }
                self.done += 1;
                event
            }
            Err(fault) => {
                info!(migration = %self.key.name, effect = kind.as_str(), %fault, "failed");
                self.backoff.failed(kind);
                Event::EffectFailed { effect, fault }
            }
        };
        let origin = Origin {
            key: self.key.clone(),
            run: orders.run.id.clone(),
            orders: Some(orders.number),
        };
        let (registry, stop) = (self.registry.clone(), self.supervisor.stop.clone());
        tokio::select! {
            told = tell(&registry, origin, event, &stop) => told,
            // What gives something back does not wait for an outcome that waits for the journal. It
            // is of the past by then.
            _ = self.orders.changed() => Some(()),
        }
    }
}

/// Tells the registry of an event until it is journaled. `None`: the daemon has stopped.
async fn tell(
    registry: &Registry,
    origin: Origin,
    event: Event,
    stop: &CancellationToken,
) -> Option<()> {
    loop {
        match registry.feed(origin.clone(), event.clone()).await {
            Ok(()) => return Some(()),
            Err(fault) if fault.code == FaultCode::StateDirUnusable => {
                debug!(migration = %origin.key.name, event = event.name(), %fault, "an outcome \
                     waits for the journal");
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = tokio::time::sleep(JOURNAL_PAUSE) => {}
                }
            }
            Err(fault) if fault.code == FaultCode::DaemonUnreachable => return None,
            Err(fault) => {
                error!(migration = %origin.key.name, event = event.name(), %fault, "an event was \
                     refused");
                return Some(());
            }
        }
    }
}

/// Passes a sync's reports on, until it is stopped or started anew.
async fn pump(
    mut reports: mpsc::Receiver<SyncReport>,
    key: Key,
    run: RunId,
    registry: Registry,
    backoff: Arc<Backoff>,
    stop: CancellationToken,
) {
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = stop.cancelled() => return,
        };
        let Some(report) = report else { return };
        let event = match report {
            SyncReport::CopyFinished => Event::CopyFinished,
            SyncReport::IndexesBuilt => Event::IndexesBuilt,
            SyncReport::Health { lag, caught_up, blockers } => {
                backoff.clear(lifecycle::EffectKind::StartSync);
                Event::Health { lag, caught_up, blockers }
            }
            SyncReport::ShardStopped { shard, fault } => Event::ShardStopped { shard, fault },
            SyncReport::Preparing { what, waits } => Event::CutoverPreparing { what, waits },
            SyncReport::Failed(fault) => {
                backoff.failed(lifecycle::EffectKind::StartSync);
                Event::SyncFailed { fault }
            }
        };
        let origin = Origin { key: key.clone(), run: run.clone(), orders: None };
        if tell(&registry, origin, event, &stop).await.is_none() {
            return;
        }
    }
}

fn longest_pause(state: &State) -> Duration {
    match state {
        State::Draining { .. } | State::Finalizing { .. } => URGENT_PAUSE,
        State::Validating { .. }
        | State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Completed { .. }
        | State::Paused { .. }
        | State::Cancelled { .. }
        | State::Failed { .. }
        | State::Expired { .. } => PATIENT_PAUSE,
    }
}
