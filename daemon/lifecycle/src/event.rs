//! What happens to a run.

use std::time::Duration;

use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::history::Actor;
use schemas::id::{RunId, ShardName};
use schemas::spec::SpecDigest;

use crate::effect::Effect;
use crate::settings::Settings;
use crate::token::Attempt;
use crate::token::Token;

/// Through what somebody acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A change of the declaration.
    Declaration,
    /// A command by hand.
    Hand,
}

/// The side that a cutover is ended with by hand, while finalizing cannot end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The source takes writes again, and the run is cancelled. Only while the destination was
    /// never opened.
    Source,
    /// The destination takes writes with the settings that it has by then.
    Destination,
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The daemon has come up with this run in its journal. Nothing of before runs any more.
    DaemonStarted,
    /// Time has passed.
    Tick,

    /// The declaration's settings changed.
    Declare {
        /// The new ones.
        settings: Settings,
        /// The new spec's digest.
        digest: SpecDigest,
        /// Whether the engine has to start again to work by them.
        resync: bool,
        /// What has changed, in words.
        what: String,
        /// Who declared it.
        actor: Actor,
    },
    /// Hold the run.
    Pause {
        /// Through what.
        by: By,
        /// Who.
        actor: Actor,
    },
    /// Let it go on; also tries a failed run again.
    Resume {
        /// Through what.
        by: By,
        /// Who.
        actor: Actor,
    },
    /// Stop it for good.
    Cancel {
        /// Through what.
        by: By,
        /// Who.
        actor: Actor,
    },
    /// End a cutover by hand that finalizing cannot end.
    Open {
        /// With which side.
        side: Opened,
        /// Who.
        actor: Actor,
    },
    /// Add 24 h to the window, each.
    Extend {
        /// How many times.
        extensions: u32,
        /// Who.
        actor: Actor,
    },
    /// Cut over.
    Acknowledge {
        /// The token.
        token: Token,
        /// Who.
        actor: Actor,
    },
    /// Begin one shard again: the engine has done so while documents are copied, and else the whole
    /// sync is stopped and started.
    RestartSync {
        /// The shard for whose sake.
        shard: ShardName,
        /// Who.
        actor: Actor,
    },
    /// Hold it no longer, once nothing of it is left to give back.
    Forget {
        /// Who.
        actor: Actor,
    },

    /// All documents in scope were copied once.
    CopyFinished,
    /// All indexes that do not wait for the cutover are built.
    IndexesBuilt,
    /// How the sync is.
    Health {
        /// Between the newest operation on the source and the newest one applied.
        lag: Option<Duration>,
        /// Whether the tail has nothing left of what came during the copy.
        caught_up: bool,
        /// What else keeps it from being ready.
        blockers: Vec<String>,
    },
    /// The copy of one shard has stopped by itself; the others go on.
    ShardStopped {
        /// The shard.
        shard: ShardName,
        /// Why.
        fault: Fault,
    },
    /// The sync has stopped by itself.
    SyncFailed {
        /// Why.
        fault: Fault,
    },

    /// [`Effect::RetireEarlier`] is done.
    EarlierRetired {
        /// The earlier run.
        run: RunId,
    },
    /// [`Effect::Validate`] is done, and everything held.
    Validated,
    /// [`Effect::DropEarlier`] is done.
    EarlierDropped,
    /// [`Effect::DropExisting`] is done.
    ExistingDropped,
    /// [`Effect::StartSync`] is done.
    SyncStarted,
    /// [`Effect::StopSync`] is done.
    SyncStopped,
    /// [`Effect::CheckResumePoint`] is done.
    ResumePoint {
        /// Whether the source still holds it.
        held: bool,
    },
    /// [`Effect::PrepareCutover`] is at something.
    CutoverPreparing {
        /// At what, in words.
        what: String,
        /// Whether it waits for what the source's load decides, and need not come to an end.
        waits: bool,
    },
    /// [`Effect::PrepareCutover`] is done, and everything held.
    CutoverPrepared {
        /// The cutover.
        attempt: Attempt,
    },
    /// [`Effect::BlockSource`] is done.
    SourceBlocked {
        /// The cutover.
        attempt: Attempt,
    },
    /// [`Effect::WatchSource`] is done.
    SourceQuiet {
        /// The cutover.
        attempt: Attempt,
    },
    /// [`Effect::Drain`] is done.
    Drained {
        /// The cutover.
        attempt: Attempt,
        /// The source's last operation.
        final_time: ClusterTime,
    },
    /// [`Effect::UnblockSource`] is done.
    SourceUnblocked {
        /// The cutover.
        attempt: Attempt,
    },
    /// [`Effect::RestoreSettings`] is done.
    SettingsRestored,
    /// [`Effect::OpenDestination`] is done.
    DestinationOpened,
    /// [`Effect::FreeDestination`] is done.
    DestinationFreed,
    /// [`Effect::CleanUp`] is done.
    CleanedUp,
    /// An effect failed; it may have had a part of its work done.
    EffectFailed {
        /// Which.
        effect: Effect,
        /// Why.
        fault: Fault,
    },
}

impl Event {
    /// The event's name, for refusals and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DaemonStarted => "daemon_started",
            Self::Tick => "tick",
            Self::Declare { .. } => "declare",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Cancel { .. } => "cancel",
            Self::Open { side: Opened::Source, .. } => "open_source",
            Self::Open { side: Opened::Destination, .. } => "open_destination",
            Self::Extend { .. } => "extend",
            Self::Acknowledge { .. } => "acknowledge",
            Self::RestartSync { .. } => "restart",
            Self::Forget { .. } => "forget",
            Self::CopyFinished => "copy_finished",
            Self::IndexesBuilt => "indexes_built",
            Self::Health { .. } => "health",
            Self::ShardStopped { .. } => "shard_stopped",
            Self::SyncFailed { .. } => "sync_failed",
            Self::EarlierRetired { .. } => "earlier_retired",
            Self::Validated => "validated",
            Self::EarlierDropped => "earlier_dropped",
            Self::ExistingDropped => "existing_dropped",
            Self::SyncStarted => "sync_started",
            Self::SyncStopped => "sync_stopped",
            Self::ResumePoint { .. } => "resume_point",
            Self::CutoverPreparing { .. } => "cutover_preparing",
            Self::CutoverPrepared { .. } => "cutover_prepared",
            Self::SourceBlocked { .. } => "source_blocked",
            Self::SourceQuiet { .. } => "source_quiet",
            Self::Drained { .. } => "drained",
            Self::SourceUnblocked { .. } => "source_unblocked",
            Self::SettingsRestored => "settings_restored",
            Self::DestinationOpened => "destination_opened",
            Self::DestinationFreed => "destination_freed",
            Self::CleanedUp => "cleaned_up",
            Self::EffectFailed { .. } => "effect_failed",
        }
    }
}
