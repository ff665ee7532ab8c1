//! What a plan is: the changes that would make reality what is declared, the drift, and what stands
//! in the way.
//!
//! [`plan`] is pure: the same inputs give the same bytes. It neither asks the daemon nor reads a
//! clock.

#![deny(clippy::wildcard_enum_match_arm)]

mod attributes;
mod decide;
mod drift;
mod effects;
mod folded;
mod refusal;

use std::collections::BTreeMap;

use schemas::hcl::{Diagnostic, Severity};
use schemas::id::{MigrationName, Serial, Workspace};
use schemas::observed::{Forecast, Inspection, Observed};
use schemas::spec::MigrationSpec;
use schemas::time::UtcTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::folded::Folded;
use crate::declaration::Declaration;

/// The version of the plan's JSON.
pub const PLAN_FORMAT: u32 = 1;

/// What differs between a declaration and the migrations as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format_version: u32,
    /// The workspace; `null` where the HCL does not load, so that it is not known.
    pub workspace: Option<Workspace>,
    /// SHA-256 of the directory's files, in hexadecimal.
    pub fingerprint: String,
    /// One entry per migration, ordered by name; `no_op` where nothing differs.
    pub changes: Vec<Change>,
    /// Where reality has moved away from the declaration.
    pub drift: Vec<Drift>,
    /// What stands in the way, and what is worth knowing.
    pub diagnostics: Vec<Diagnostic>,
}

/// What would be done about one migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The migration.
    pub migration: MigrationName,
    /// What would be done.
    pub action: Action,
    /// The serial that this is based on; 0 where the migration does not exist yet.
    pub serial: Serial,
    /// The attributes that differ.
    pub attributes: Vec<AttributeChange>,
    /// What will happen to data, in words.
    pub effects: Vec<String>,
    /// How large it is and how long it takes; of a copy that is to start.
    pub forecast: Option<Forecast>,
}

/// What is done about a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Starts it.
    Create,
    /// Changes settings of a run.
    Update,
    /// Starts it again from scratch, in a new generation.
    Rerun,
    /// Holds it.
    Pause,
    /// Lets it go on.
    Resume,
    /// Lengthens its window.
    Extend,
    /// Cuts over.
    CutOver,
    /// Stops it for good.
    Cancel,
    /// Drops the record of a run that is over.
    Forget,
    /// Nothing.
    NoOp,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Update,
        Self::Rerun,
        Self::Pause,
        Self::Resume,
        Self::Extend,
        Self::CutOver,
        Self::Cancel,
        Self::Forget,
        Self::NoOp,
    ];

    /// The action's name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Rerun => "rerun",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Extend => "extend",
            Self::CutOver => "cut_over",
            Self::Cancel => "cancel",
            Self::Forget => "forget",
            Self::NoOp => "no_op",
        }
    }

    /// Whether the migration's block is gone, so that a client sends no spec.
    #[must_use]
    pub const fn removes(self) -> bool {
        matches!(self, Self::Cancel | Self::Forget)
    }
}

/// One attribute that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttributeChange {
    /// Where it is, as in `cutover.window`.
    pub path: String,
    /// Its value now; `null` where it has none.
    pub before: Value,
    /// Its value afterwards; `null` where it has none.
    pub after: Value,
    /// Whether the values are masked when printed. References to secrets are not secret.
    pub sensitive: bool,
}

/// One way in which reality has moved away from the declaration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// The migration.
    pub migration: MigrationName,
    /// What kind.
    pub kind: DriftKind,
    /// The attribute or the part of the status that it is about.
    pub path: String,
    /// What is declared.
    pub declared: Value,
    /// What is.
    pub actual: Value,
    /// What it means and what to do.
    pub message: String,
}

/// The kinds of drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// Held by hand.
    Paused,
    /// Let go by hand.
    Resumed,
    /// Window lengthened by hand.
    Extended,
    /// Stopped by hand.
    Cancelled,
    /// The window closed.
    Expired,
    /// Stopped by an error, or unable to go on.
    Failed,
    /// An acknowledged cutover was given up.
    Aborted,
    /// Was ready and has fallen behind.
    Lag,
    /// Little of the window is left.
    WindowClosing,
    /// A side's servers are of another version than when the run began.
    VersionChanged,
    /// Options or indexes on the destination are not as on the source.
    DefinitionsChanged,
    /// A side no longer lets the daemon in.
    CredentialsInvalid,
    /// Somebody else writes to the destination.
    ForeignWrites,
    /// The balancer of a sharded source runs.
    BalancerOn,
    /// A shard has joined the source.
    ShardAdded,
    /// A shard has left the source.
    ShardRemoved,
}

impl DriftKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Paused,
        Self::Resumed,
        Self::Extended,
        Self::Cancelled,
        Self::Expired,
        Self::Failed,
        Self::Aborted,
        Self::Lag,
        Self::WindowClosing,
        Self::ForeignWrites,
        Self::VersionChanged,
        Self::DefinitionsChanged,
        Self::CredentialsInvalid,
        Self::BalancerOn,
        Self::ShardAdded,
        Self::ShardRemoved,
    ];

    /// The kind's name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Extended => "extended",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Lag => "lag",
            Self::WindowClosing => "window_closing",
            Self::VersionChanged => "version_changed",
            Self::DefinitionsChanged => "definitions_changed",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::ForeignWrites => "foreign_writes",
            Self::BalancerOn => "balancer_on",
            Self::ShardAdded => "shard_added",
            Self::ShardRemoved => "shard_removed",
        }
    }
}

impl Plan {
    /// A plan that could not be made, with the reasons.
    #[must_use]
    pub fn unmade(fingerprint: String, diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            format_version: PLAN_FORMAT,
            workspace: None,
            fingerprint,
            changes: Vec::new(),
            drift: Vec::new(),
            diagnostics,
        }
    }

    /// The changes that do something.
    pub fn actions(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.action != Action::NoOp)
    }

    /// Whether there is anything to apply.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        self.actions().next().is_some()
    }

    /// Whether something forbids to apply it.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// How many changes have this action.
    #[must_use]
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }
}

/// Compares a declaration with the migrations as they are.
///
/// `observed` holds the migrations of the declaration's workspace; `inspections` what the daemon
/// found for those that [`starts`] is true of. `now` is used only where the daemon does not tell
/// the time left itself.
#[must_use]
pub fn plan(
    declared: &Declaration,
    observed: &[Observed],
    inspections: &BTreeMap<MigrationName, Inspection>,
    now: UtcTime,
) -> Plan {
    let existing: BTreeMap<&MigrationName, &Observed> =
        observed.iter().map(|one| (&one.status.name, one)).collect();
    let mut plan = Plan {
        format_version: PLAN_FORMAT,
        workspace: Some(declared.workspace.clone()),
        fingerprint: declared.fingerprint.clone(),
        changes: Vec::new(),
        drift: Vec::new(),
        diagnostics: declared.warnings.clone(),
    };
    let mut names: Vec<&MigrationName> =
        existing.keys().copied().chain(declared.migrations.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let decided = match (declared.migrations.get(name), existing.get(name)) {
            (Some(wanted), None) => Some(decide::create(wanted, inspections.get(name))),
            (Some(wanted), Some(existing)) => {
                plan.drift.extend(drift::find(&wanted.spec, existing, now));
                Some(decide::existing(wanted, existing, inspections.get(name), now))
            }
            (None, Some(existing)) => decide::removed(existing),
            (None, None) => None,
        };
        if let Some((change, diagnostics)) = decided {
            plan.changes.push(change);
            plan.diagnostics.extend(diagnostics);
        }
    }
    plan
}

/// The drift alone.
#[must_use]
pub fn find_drift(declared: &Declaration, observed: &[Observed], now: UtcTime) -> Vec<Drift> {
    declared
        .specs()
        .filter_map(|spec| {
            observed
                .iter()
                .find(|one| one.status.name == spec.name)
                .map(|existing| (spec, existing))
        })
        .flat_map(|(spec, existing)| drift::find(spec, existing, now))
        .collect()
}

/// Whether a declared migration would start a copy: then the daemon is asked to inspect it first.
#[must_use]
pub fn starts(spec: &MigrationSpec, observed: &[Observed]) -> bool {
    match observed.iter().find(|one| one.status.name == spec.name) {
        None => true,
        Some(existing) => {
            spec.generation > existing.status.generation
                && !refusal::cuts_over(existing.status.phase)
        }
    }
}
