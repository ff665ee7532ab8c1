//! What is to be done: values, carried out by the daemon in order, each idempotent and each ending
//! in an event.

use schemas::id::RunId;

use crate::token::Attempt;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Stop an earlier run's sync, take its block off its source, free and clean its destination.
    RetireEarlier {
        /// The earlier run.
        run: RunId,
    },
    /// Make the live checks.
    Validate,
    /// Drop what earlier runs created.
    DropEarlier,
    /// Drop data that is on the destination already, in scope.
    DropExisting,
    /// Have the copy, the index builds and the tail run.
    StartSync,
    /// Have none of them run.
    StopSync,
    /// Look whether the source still holds the point to go on from.
    CheckResumePoint,
    /// Make the checks that a cutover needs before the source is blocked.
    PrepareCutover {
        /// The cutover.
        attempt: Attempt,
    },
    /// Block the source's writes.
    BlockSource {
        /// The cutover.
        attempt: Attempt,
    },
    /// Wait until the source's writes stop.
    WatchSource {
        /// The cutover.
        attempt: Attempt,
    },
    /// Apply through the source's last operation.
    Drain {
        /// The cutover.
        attempt: Attempt,
    },
    /// Let the source take writes.
    UnblockSource {
        /// The cutover.
        attempt: Attempt,
    },
    /// Give unique, TTL, hidden and capped settings back.
    RestoreSettings,
    /// Hand the destination over: it becomes writable.
    OpenDestination,
    /// Let others write to the destination of a run that does not go on.
    FreeDestination,
    /// Remove what the run leaves behind.
    CleanUp,
}

/// The kinds of effect, for places and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectKind {
    /// [`Effect::RetireEarlier`]
    RetireEarlier,
    /// [`Effect::Validate`]
    Validate,
    /// [`Effect::DropEarlier`]
    DropEarlier,
    /// [`Effect::DropExisting`]
    DropExisting,
    /// [`Effect::StartSync`]
    StartSync,
    /// [`Effect::StopSync`]
    StopSync,
    /// [`Effect::CheckResumePoint`]
    CheckResumePoint,
    /// [`Effect::PrepareCutover`]
    PrepareCutover,
    /// [`Effect::BlockSource`]
    BlockSource,
    /// [`Effect::WatchSource`]
    WatchSource,
    /// [`Effect::Drain`]
    Drain,
    /// [`Effect::UnblockSource`]
    UnblockSource,
    /// [`Effect::RestoreSettings`]
    RestoreSettings,
    /// [`Effect::OpenDestination`]
    OpenDestination,
    /// [`Effect::FreeDestination`]
    FreeDestination,
    /// [`Effect::CleanUp`]
    CleanUp,
}

impl EffectKind {
    /// Every kind, in the order of a run's life.
    pub const ALL: [Self; 16] = [
        Self::RetireEarlier,
        Self::Validate,
        Self::DropEarlier,
        Self::DropExisting,
        Self::StartSync,
        Self::StopSync,
        Self::CheckResumePoint,
        Self::PrepareCutover,
        Self::BlockSource,
        Self::WatchSource,
        Self::Drain,
        Self::UnblockSource,
        Self::RestoreSettings,
        Self::OpenDestination,
        Self::FreeDestination,
        Self::CleanUp,
    ];

    /// The kind's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetireEarlier => "retire_earlier",
            Self::Validate => "validate",
            Self::DropEarlier => "drop_earlier",
            Self::DropExisting => "drop_existing",
            Self::StartSync => "start_sync",
            Self::StopSync => "stop_sync",
            Self::CheckResumePoint => "check_resume_point",
            Self::PrepareCutover => "prepare_cutover",
            Self::BlockSource => "block_source",
            Self::WatchSource => "watch_source",
            Self::Drain => "drain",
            Self::UnblockSource => "unblock_source",
            Self::RestoreSettings => "restore_settings",
            Self::OpenDestination => "open_destination",
            Self::FreeDestination => "free_destination",
            Self::CleanUp => "clean_up",
        }
    }
}

impl Effect {
    /// The effect's kind.
    #[must_use]
    pub const fn kind(&self) -> EffectKind {
        match self {
            Self::RetireEarlier { .. } => EffectKind::RetireEarlier,
            Self::Validate => EffectKind::Validate,
            Self::DropEarlier => EffectKind::DropEarlier,
            Self::DropExisting => EffectKind::DropExisting,
            Self::StartSync => EffectKind::StartSync,
            Self::StopSync => EffectKind::StopSync,
            Self::CheckResumePoint => EffectKind::CheckResumePoint,
            Self::PrepareCutover { .. } => EffectKind::PrepareCutover,
            Self::BlockSource { .. } => EffectKind::BlockSource,
            Self::WatchSource { .. } => EffectKind::WatchSource,
            Self::Drain { .. } => EffectKind::Drain,
            Self::UnblockSource { .. } => EffectKind::UnblockSource,
            Self::RestoreSettings => EffectKind::RestoreSettings,
            Self::OpenDestination => EffectKind::OpenDestination,
            Self::FreeDestination => EffectKind::FreeDestination,
            Self::CleanUp => EffectKind::CleanUp,
        }
    }

    /// Whether it may be given up halfway for something that has become more urgent.
    ///
    /// What changes the outside in one request must end first: a request still on its way could
    /// land after its opposite.
    #[must_use]
    pub const fn is_interruptible(&self) -> bool {
        match self {
            Self::Validate
            | Self::StartSync
            | Self::CheckResumePoint
            | Self::PrepareCutover { .. }
            | Self::WatchSource { .. }
            | Self::Drain { .. } => true,
            Self::RetireEarlier { .. }
            | Self::DropEarlier
            | Self::DropExisting
            | Self::StopSync
            | Self::BlockSource { .. }
            | Self::UnblockSource { .. }
            | Self::RestoreSettings
            | Self::OpenDestination
            | Self::FreeDestination
            | Self::CleanUp => false,
        }
    }
}
