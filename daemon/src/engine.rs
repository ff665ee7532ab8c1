//! The boundary between the daemon's shell, which decides and records, and the engine, which moves
//! data.
//!
//! The shell opens one [`RunEngine`] for each run and calls it as the lifecycle's effects say.
//! Everything here is idempotent: after a crash the shell calls again what it does not know to be
//! done. The futures of [`Engine::inspect`], [`RunEngine::validate`], [`RunEngine::start_sync`],
//! [`RunEngine::resume_point_held`], [`RunEngine::prepare_cutover`],
//! [`RunEngine::watch_source_quiet`] and [`RunEngine::drain`] may be dropped before they end; the
//! others only when the daemon stops. Whatever was dropped, [`RunEngine::stop_sync`] afterwards
//! leaves nothing running.

pub mod apply;
pub mod capped;
pub mod catalog;
pub mod change_event;
pub mod checkpoint;
pub mod concurrent;
pub mod copy;
pub mod cutover;
pub mod destination;
pub mod document_key;
pub mod drift;
pub mod index;
pub mod preflight;
pub mod progress;
pub mod run;
pub mod source;
pub mod sync;
pub mod tail;
pub mod tuning;
pub mod verify;

pub use placement::element;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::{RunId, ShardName, Workspace};
use schemas::namespace::Namespace;
use schemas::observed::{Finding, ForeignWrite, ForeignWrites, Inspection, Mismatch};
use schemas::report::Proof;
use schemas::spec::{MigrationSpec, VerifyMode};
use schemas::status::{CopyProgress, IndexProgress, OptimeGap, TailProgress, VerificationProgress};
use tokio::sync::mpsc;

/// What the engine knows of a run when it is opened.
#[derive(Debug, Clone)]
pub struct EngineContext {
    /// The run.
    pub run: RunId,
    /// The workspace that owns its migration.
    pub workspace: Workspace,
    /// What was declared. A changed setting arrives by opening the run again.
    pub spec: Arc<MigrationSpec>,
    /// The run's own folder under the state directory, for the engine's checkpoints. It may not
    /// exist yet.
    pub run_dir: PathBuf,
    /// Whether it has checkpoints: its live checks have passed, and it may go on. One that has lost
    /// them does not begin from scratch.
    pub has_begun: bool,
    /// What earlier runs of the migration created, and what the plan listed as dropped: this run
    /// drops it after its validation, which so disregards it.
    pub replaces: Arc<[Namespace]>,
}

/// What the daemon has on the destination that is no obstacle to a migration's next run, or is
/// judged elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ours {
    /// What they made.
    pub namespaces: BTreeSet<Namespace>,
    /// The runs themselves.
    pub runs: BTreeSet<RunId>,
    /// The runs of the daemon's other migrations. Whether they are in the way is judged when the
    /// plan is applied, which may cancel them.
    pub neighbours: BTreeSet<RunId>,
}

/// Looks at deployments and opens runs.
pub trait Engine: Send + Sync + 'static {
    /// Makes the live checks and the forecast of a declaration, without starting anything.
    ///
    /// What is `ours` on the destination is no obstacle.
    fn inspect<'a>(&'a self, spec: &'a MigrationSpec, ours: &'a Ours) -> BoxFuture<'a, Inspection>;

    /// Opens a run's checkpoints. Cheap, and without the network; its progress is that of the
    /// checkpoints from then on.
    fn open(&self, context: EngineContext) -> Result<Arc<dyn RunEngine>, Fault>;

    /// What gives back what a run holds without anything of the run's own folder, which may be lost
    /// or on a full disk.
    fn relief(&self, context: EngineContext) -> Arc<dyn Relief>;
}

/// Gives back what a run holds. Nothing of its sync runs.
pub trait Relief: Send + Sync + 'static {
    /// As [`RunEngine::unblock_source`].
    fn unblock_source(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// As [`RunEngine::open_destination`].
    fn open_destination(&self) -> BoxFuture<'_, Result<(), Fault>>;
}

/// What [`RunEngine::drop_namespaces`] drops on the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropWhat {
    /// User data in the run's scope that the plan listed (`existing_data = "drop"`).
    Listed(Vec<Namespace>),
    /// Exactly these, where they exist: what an earlier run created.
    Created(Vec<Namespace>),
}

/// Works on one run.
pub trait RunEngine: Send + Sync + 'static {
    /// Makes the live checks before any data moves. The first that fails is the fault.
    fn validate(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Drops namespaces on the destination.
    fn drop_namespaces(&self, what: DropWhat) -> BoxFuture<'_, Result<(), Fault>>;

    /// Starts the copy, the index builds and the tail from the checkpoints, and returns once they
    /// run on their own.
    ///
    /// Starting what runs already changes nothing, except that reports go to the new sender. What
    /// is done already, the copy or the indexes, is reported again. A destination that had been
    /// opened is blocked for others again (`block_writes`). After [`SyncReport::Failed`] nothing
    /// runs any more.
    fn start_sync(&self, reports: mpsc::Sender<SyncReport>) -> BoxFuture<'_, Result<(), Fault>>;

    /// Stops all of that and waits until it has stopped, with its checkpoints written.
    fn stop_sync(&self) -> BoxFuture<'_, ()>;

    /// Begins the copy of one shard again that has stopped, from its checkpoints, while the others
    /// go on.
    ///
    /// Refused with the reason where that shard is not stopped, or its documents are copied
    /// already.
    fn restart_shard<'a>(&'a self, shard: &'a ShardName) -> BoxFuture<'a, Result<(), Fault>> {
        let message = format!("shard {shard} cannot be begun again by itself");
        Box::pin(std::future::ready(Err(Fault::new(FaultCode::InvalidConfiguration, message))))
    }

    /// Tells whether the source still holds what comes after the checkpoints; `None` where that may
    /// not be seen.
    fn resume_point_held(&self) -> BoxFuture<'_, Result<Option<bool>, Fault>>;

    /// Makes the checks that a cutover needs before the source is blocked: that it can be, unique
    /// indexes tried dry.
    fn prepare_cutover(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Blocks the source's writes. Never dropped before it ends: a request still on its way could
    /// land after an unblock.
    fn block_source(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Lifts the block, and makes sure that it is lifted, also after a request to block that is
    /// still under way. A source that is not blocked, or cannot be, is a success.
    fn unblock_source(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Waits until no write in scope has reached the source for `quiet_for`; the caller drops it
    /// when it has waited enough.
    fn watch_source_quiet(&self, quiet_for: Duration) -> BoxFuture<'_, Result<(), Fault>>;

    /// Takes the final cluster time of every shard and applies through it, with the sync running;
    /// rechecks what changed.
    ///
    /// Where the source is only watched, a write in scope after the final time is the fault
    /// `WritesContinued`.
    fn drain(&self) -> BoxFuture<'_, Result<ClusterTime, Fault>>;

    /// Gives unique, TTL, hidden and capped settings back, as far as users of the destination rely
    /// on them from their first write on. What can follow behind their backs may be left to
    /// [`RunEngine::clean_up`]. The sync has stopped.
    fn restore_settings(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Lets others write to the destination.
    fn open_destination(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Whether the destination was handed over, or may have been: the journal need not have it.
    /// Asked before the source is opened in its place.
    fn handed_over(&self) -> BoxFuture<'_, Result<bool, Fault>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Removes the run's own collections and temporary user, and finishes what
    /// [`RunEngine::restore_settings`] left.
    ///
    /// Also called for a run that was cancelled, or is replaced by a new generation: settings then
    /// stay as they are.
    fn clean_up(&self, ending: Ending) -> BoxFuture<'_, Result<(), Fault>>;

    /// Gives back what the run holds of the source beside the block of its writes: a balancer that
    /// it stopped. Nothing held is a success.
    fn release_source(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The open mismatches of the verification, at most `most`.
    fn mismatches(&self, most: usize) -> BoxFuture<'_, Result<Vec<Mismatch>, Fault>> {
        let _ = most;
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// What others have written to the destination, the newest first, at most `most`.
    fn foreign_writes(&self, most: usize) -> BoxFuture<'_, Result<Vec<ForeignWrite>, Fault>> {
        let _ = most;
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Looks at both sides for what has changed around the run since it began, over connections
    /// that several runs may share; what cannot be seen now is left out.
    fn look<'a>(&'a self, connections: &'a drift::Fresh) -> BoxFuture<'a, Vec<Finding>> {
        let _ = connections;
        Box::pin(std::future::ready(Vec::new()))
    }

    /// A cheap snapshot of where the run is. `created_namespaces` names one before it is created.
    fn progress(&self) -> EngineProgress;
}

/// Why a run is cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was cut over.
    Completed,
    /// It was cancelled or replaced: the data stays as it is.
    Cancelled,
}

/// What a running sync reports.
#[derive(Debug, Clone, PartialEq)]
pub enum SyncReport {
    /// All documents in scope were copied once.
    CopyFinished,
    /// All indexes that do not wait for the cutover are built.
    IndexesBuilt,
    /// The copy of one shard of several stopped by this, and is tried again by itself where the
    /// fault is retryable; the others go on.
    ShardStopped {
        /// The shard.
        shard: ShardName,
        /// Why.
        fault: Fault,
    },
    /// How it is, about twice a second.
    Health {
        /// Between the newest operation on the source and the newest one applied; `None` where it
        /// is not known.
        lag: Option<Duration>,
        /// Whether the tail has nothing left of what came during the copy.
        caught_up: bool,
        /// What else keeps it from being ready, each in words.
        blockers: Vec<String>,
    },
    /// What [`RunEngine::prepare_cutover`] is at.
    Preparing {
        /// In words.
        what: String,
        /// Whether it waits for what the source's load decides, and need not come to an end.
        waits: bool,
    },
    /// It stopped by this. The shell starts it again where the fault is retryable.
    Failed(Fault),
}

/// A snapshot of where a run is.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineProgress {
    /// The initial copy, all shards together.
    pub copy: CopyProgress,
    /// The tail, all shards together.
    pub tail: TailProgress,
    /// The destination's indexes.
    pub indexes: IndexProgress,
    /// The proof of the copy.
    pub verification: VerificationProgress,
    /// What that proof has done so far.
    pub proof: Proof,
    /// What others have written to the destination.
    pub foreign_writes: ForeignWrites,
    /// The largest lag of a shard, in seconds; `None` before it is known.
    pub lag_seconds: Option<f64>,
    /// Each shard.
    pub shards: Vec<ShardProgress>,
    /// What is wrong with the run as a whole at the moment.
    pub error: Option<Fault>,
    /// Namespaces on the destination that the run created or is about to create.
    pub created_namespaces: Vec<Namespace>,
    /// Unique, TTL and capped settings that finalizing gives back, in words.
    pub deferred_settings: Vec<String>,
    /// How long a cutover would keep writers out now, in seconds.
    pub expected_downtime_seconds: Option<f64>,
    /// Whether the run holds the source's balancer stopped.
    pub balancer_held: bool,
    /// How many readers and writers the copy has, all shards together; `None`: nothing is copied.
    pub copy_workers: Option<crate::engine::copy::autoscale::Widths>,
}

impl EngineProgress {
    /// The progress of a run that has not begun.
    #[must_use]
    pub fn none(mode: VerifyMode) -> Self {
        let phase = match mode {
            VerifyMode::Full => "waiting",
            VerifyMode::Off => "off",
        };
        Self {
            copy: CopyProgress::default(),
            tail: TailProgress::default(),
            indexes: IndexProgress::default(),
            verification: VerificationProgress {
                mode,
                phase: phase.to_owned(),
                documents_total: 0,
                documents_verified: 0,
                mismatches: 0,
                pending_rechecks: 0,
            },
            proof: Proof::none(mode),
            foreign_writes: ForeignWrites::default(),
            lag_seconds: None,
            shards: Vec::new(),
            error: None,
            created_namespaces: Vec::new(),
            deferred_settings: Vec::new(),
            expected_downtime_seconds: None,
            balancer_held: false,
            copy_workers: None,
        }
    }
}

/// A snapshot of where one shard of a run is.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardProgress {
    /// The shard's name.
    pub name: ShardName,
    /// Its part of the copy.
    pub copy: CopyProgress,
    /// Its part of the tail.
    pub tail: TailProgress,
    /// Its lag, in seconds.
    pub lag_seconds: Option<f64>,
    /// The lag as two cluster times.
    pub optime_gap: OptimeGap,
    /// Seconds between the oldest and the newest entry of its oplog.
    pub oplog_window_seconds: Option<u64>,
    /// What is wrong with it.
    pub error: Option<Fault>,
}
