//! A run: everything durable about one execution of a migration, and the form in which it is
//! stored.

use std::fmt;
use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::id::{Generation, RunId};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::spec::{MigrationSpec, SpecDigest};
use schemas::time::UtcTime;
use serde::{Deserialize, Serialize};

use crate::readiness::Vitals;
use crate::settings::Settings;
use crate::state::{DrainStage, State};
use crate::token::{Attempt, Token};

/// The version of a stored run. A newer one is refused, not read with fields dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormatVersion(pub u32);

impl FormatVersion {
    /// What this version of the program writes.
    pub const CURRENT: Self = Self(1);
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One execution of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The version of this form.
    pub format: FormatVersion,
    /// The run's id.
    pub id: RunId,
    /// Its generation.
    pub generation: Generation,
    /// The digest of the spec that it runs by.
    pub digest: SpecDigest,
    /// What it needs of that spec.
    pub settings: Settings,
    /// When it was declared.
    pub created_at: UtcTime,
    /// The newest time that it has seen; time never goes back for it.
    pub clock: UtcTime,
    /// Where it stands.
    pub state: State,
    /// When it first became ready, which opened its window. Set once.
    pub opened_at: Option<UtcTime>,
    /// Extensions granted by hand, over the declared ones.
    pub extensions_by_hand: u32,
    /// Held or let go by hand, against the declaration.
    pub paused_by_hand: Option<bool>,
    /// Cancelled by hand, against the declaration.
    pub cancelled_by_hand: bool,
    /// Removed from what the daemon holds, as soon as nothing of it is left to give back.
    pub forgetting: bool,
    /// The attempt that the present token is for.
    pub attempt: Attempt,
    /// Tokens that were taken; none of them works again.
    pub used_tokens: Vec<Token>,
    /// The error that is being retried.
    pub trouble: Option<Fault>,
    /// How often a server has answered with the same error, one try after the other.
    #[serde(default)]
    pub repeated: Option<Repeated>,
    /// Why the last cutover was given up; until the next one.
    pub aborted: Option<Fault>,
    /// Namespaces on the destination that the plan listed as dropped (`existing_data = "drop"`): no
    /// other is.
    #[serde(default)]
    pub agreed_drops: Vec<Namespace>,
    /// Earlier runs of the migration of which something may be left.
    pub earlier: Vec<EarlierRun>,
    /// What was last heard of the sync.
    #[serde(skip)]
    pub vitals: Vitals,
}

/// An error that a server answers with again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// Its code.
    pub code: FaultCode,
    /// When it came first.
    pub since: UtcTime,
    /// When it came last.
    pub last: UtcTime,
    /// How often it came.
    pub count: u32,
}

impl Repeated {
    /// What goes well for so long between two errors was no try that failed as the one before.
    const APART: Duration = Duration::from_secs(10 * 60);
    /// How long an error that is no outage is repeated, before somebody has to look.
    pub const BOUND: Duration = Duration::from_secs(60 * 60);

    /// What is known once an error has come; `None`: it is an outage, which lasts as long as it
    /// lasts.
    #[must_use]
    pub fn after(before: Option<Self>, code: FaultCode, now: UtcTime) -> Option<Self> {
        if !matches!(code, FaultCode::SourceReadFailed | FaultCode::DestinationWriteFailed) {
            return None;
        }
        let same = before.filter(|one| one.code == code && now.since(one.last) < Self::APART);
        Some(match same {
            Some(one) => Self { last: now, count: one.count.saturating_add(1), ..one },
            None => Self { code, since: now, last: now, count: 1 },
        })
    }
}

/// An earlier run of the same migration, of which something may be left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierRun {
    /// The run.
    pub id: RunId,
    /// What it was declared with: how to reach what it left.
    pub spec: Box<MigrationSpec>,
    /// What it created on the destination, to be dropped. Empty where this run goes to another
    /// destination.
    pub created: Vec<Namespace>,
    /// Whether it may hold a block on its source.
    pub fenced: bool,
    /// Whether it was cut over.
    pub completed: bool,
    /// Whether its sync has stopped and it was cleaned up; only `created` is then left.
    pub retired: bool,
}

/// A stored run that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableRun {
    /// It was written by a newer program.
    #[error(
        "it has format {found}, and this program reads formats up to {}",
        FormatVersion::CURRENT
    )]
    Newer {
        /// Its version.
        found: FormatVersion,
    },
    /// It does not parse.
    #[error("it does not parse")]
    Malformed(#[source] serde_json::Error),
}

impl Run {
    /// Reads a stored run.
    pub fn from_json(json: &str) -> Result<Self, UnreadableRun> {
        #[derive(Deserialize)]
        struct Header {
            format: FormatVersion,
        }
        let header: Header = serde_json::from_str(json).map_err(UnreadableRun::Malformed)?;
        if header.format > FormatVersion::CURRENT {
            return Err(UnreadableRun::Newer { found: header.format });
        }
        serde_json::from_str(json).map_err(UnreadableRun::Malformed)
    }

    /// Writes the run as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a run has string keys only and no failing serializer")
    }

    /// The phase that users see.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// The phase that is shown. A run keeps its state over a trouble of a moment, but nothing is
    /// acknowledged in that: what is shown as ready is so.
    #[must_use]
    pub fn shown_phase(&self, now: UtcTime) -> Phase {
        if matches!(self.state, State::Ready) && !self.unready_reasons(now).is_empty() {
            return Phase::CatchingUp;
        }
        self.state.phase()
    }

    /// Whether a change from `before` has to be stored. The newest time seen alone need not be: the
    /// clock keeps a mark of its own.
    #[must_use]
    pub fn differs_durably(&self, before: &Self) -> bool {
        let Self {
            format,
            id,
            generation,
            digest,
            settings,
            created_at,
            clock: _,
            state,
            opened_at,
            extensions_by_hand,
            paused_by_hand,
            cancelled_by_hand,
            forgetting,
            attempt,
            used_tokens,
            trouble,
            repeated,
            aborted,
            agreed_drops,
            earlier,
            vitals: _,
        } = self;
        *format != before.format
            || *id != before.id
            || *generation != before.generation
            || *digest != before.digest
            || *settings != before.settings
            || *created_at != before.created_at
            || *state != before.state
            || *opened_at != before.opened_at
            || *extensions_by_hand != before.extensions_by_hand
            || *paused_by_hand != before.paused_by_hand
            || *cancelled_by_hand != before.cancelled_by_hand
            || *forgetting != before.forgetting
            || *attempt != before.attempt
            || *used_tokens != before.used_tokens
            || *trouble != before.trouble
            || *repeated != before.repeated
            || *aborted != before.aborted
            || *agreed_drops != before.agreed_drops
            || *earlier != before.earlier
    }

    /// The token of the next acknowledgement, whether or not one is possible now.
    #[must_use]
    pub fn next_token(&self) -> Token {
        Token::derive(&self.id, &self.digest, self.attempt)
    }

    /// The token that a reviewer may acknowledge; only while the run is ready.
    #[must_use]
    pub fn offered_token(&self) -> Option<Token> {
        matches!(self.state, State::Ready).then(|| self.next_token())
    }

    /// What keeps a cutover from being acknowledged, each in words; empty where it may be.
    #[must_use]
    pub fn unready_reasons(&self, now: UtcTime) -> Vec<String> {
        let vitals = || self.vitals.reasons(self.settings.max_lag.get(), self.clock.max(now));
        match &self.state {
            State::Validating { .. } => vec!["the live checks have not passed yet".to_owned()],
            State::Copying { .. } => {
                let mut reasons = vec!["the copy is not done".to_owned()];
                reasons.extend(self.vitals.blockers.iter().cloned());
                reasons
            }
            State::CatchingUp { indexes_built } => {
                let mut reasons = Vec::new();
                if !indexes_built {
                    reasons.push("indexes are being built".to_owned());
                }
                reasons.extend(vitals());
                if reasons.is_empty() {
                    reasons.push("it has caught up only just now".to_owned());
                }
                reasons
            }
            State::Ready => vitals(),
            State::Draining { stage, .. } => {
                let what = self.state.cutting_over().unwrap_or_default();
                let mut reasons = vec![format!("it is cutting over: {what}")];
                if matches!(stage, DrainStage::Preparing { prepared_at: Some(_), .. }) {
                    reasons.extend(vitals());
                }
                reasons
            }
            State::Finalizing { .. } => {
                vec![format!(
                    "it is cutting over: {}",
                    self.state.cutting_over().unwrap_or_default()
                )]
            }
            State::Completed { .. } => vec!["it has cut over".to_owned()],
            State::Paused { .. } => vec!["it is paused".to_owned()],
            State::Cancelled { .. } => vec!["it was cancelled".to_owned()],
            State::Failed { fault, .. } => vec![format!("it failed: {fault}")],
            State::Expired { at, .. } => vec![format!("its window closed at {at}")],
        }
    }
}
