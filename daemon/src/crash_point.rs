//! Places at which a test can have the daemon die, named by `CUTOVERD_TEST_CRASH_AT`. Inert without
//! it.

use std::sync::{Mutex, PoisonError};

use lifecycle::EffectKind;
use schemas::fault::{Fault, FaultCode};
use schemas::phase::Phase;
use tokio_util::sync::CancellationToken;

/// Names the place, once for each start of the daemon.
pub const CRASH_VARIABLE: &str = "CUTOVERD_TEST_CRASH_AT";

/// Every place: before and after each effect, and after each phase was journaled, before its
/// effects are issued.
pub const PLACES: [&str; 43] = [
    "before:retire_earlier",
    "after:retire_earlier",
    "before:validate",
    "after:validate",
    "before:drop_earlier",
    "after:drop_earlier",
    "before:drop_existing",
    "after:drop_existing",
    "before:start_sync",
    "after:start_sync",
    "before:stop_sync",
    "after:stop_sync",
    "before:check_resume_point",
    "after:check_resume_point",
    "before:prepare_cutover",
    "after:prepare_cutover",
    "before:block_source",
    "after:block_source",
    "before:watch_source",
    "after:watch_source",
    "before:drain",
    "after:drain",
    "before:unblock_source",
    "after:unblock_source",
    "before:restore_settings",
    "after:restore_settings",
    "before:open_destination",
    "after:open_destination",
    "before:free_destination",
    "after:free_destination",
    "before:clean_up",
    "after:clean_up",
    "journaled:validating",
    "journaled:copying",
    "journaled:catching_up",
    "journaled:ready",
    "journaled:draining",
    "journaled:finalizing",
    "journaled:completed",
    "journaled:paused",
    "journaled:cancelled",
    "journaled:failed",
    "journaled:expired",
];

/// A place that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Just before an effect is carried out.
    Before(EffectKind),
    /// Just after it was carried out, before its outcome is journaled.
    After(EffectKind),
    /// After a transition to this phase was journaled, before anything is done about it.
    Journaled(Phase),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Before(effect) => write!(f, "before:{}", effect.as_str()),
            Self::After(effect) => write!(f, "after:{}", effect.as_str()),
            Self::Journaled(phase) => write!(f, "journaled:{phase}"),
        }
    }
}

/// What dying means.
#[derive(Debug)]
enum Death {
    /// The process ends on the spot, as by `kill -9`.
    Abort,
    /// For tests within one process: everything is told to stop where it is.
    Stop(CancellationToken),
}

/// The place at which this daemon is to die, if any.
#[derive(Debug)]
pub struct CrashPoint {
    place: Mutex<Option<String>>,
    death: Death,
}

impl CrashPoint {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self { place: Mutex::new(None), death: Death::Abort }
    }

    /// The one that the environment names.
    pub fn from_environment() -> Result<Self, Fault> {
        match std::env::var(CRASH_VARIABLE) {
            Err(_) => Ok(Self::none()),
            Ok(place) if PLACES.contains(&place.as_str()) => {
                Ok(Self { place: Mutex::new(Some(place)), death: Death::Abort })
            }
            Ok(place) => Err(Fault::new(
                FaultCode::InvalidConfiguration,
                format!("{CRASH_VARIABLE} names no place to crash at: {place:?}"),
            )
            .with_remedy(format!("name one of {}", PLACES.join(", ")))),
        }
    }

    /// One at which everything stops where it is, within a process that goes on.
    #[must_use]
    pub fn stopping_at(place: &str, stop: CancellationToken) -> Self {
        Self { place: Mutex::new(Some(place.to_owned())), death: Death::Stop(stop) }
    }

    /// Whether everything is to stop where it is.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        match &self.death {
            Death::Abort => false,
            Death::Stop(stop) => stop.is_cancelled(),
        }
    }

    /// What ends the daemon's work; a token of its own where it dies by the process.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        match &self.death {
            Death::Abort => CancellationToken::new(),
            Death::Stop(stop) => stop.clone(),
        }
    }

    /// Dies where this is the place. Returns whether the caller is to stop at once, without another
    /// step.
    pub fn reach(&self, place: Place) -> bool {
        let mut wanted = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.as_deref() != Some(place.to_string().as_str()) {
            return false;
        }
        *wanted = None;
        match &self.death {
            Death::Abort => std::process::abort(),
            Death::Stop(stop) => {
                stop.cancel();
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::EffectKind;
    use schemas::phase::Phase;

    use super::{PLACES, Place};

    #[test]
    fn the_table_lists_every_place() {
        let mut places: Vec<String> = Vec::new();
        for effect in EffectKind::ALL {
            places.push(Place::Before(effect).to_string());
            places.push(Place::After(effect).to_string());
        }
        places.extend(Phase::ALL.into_iter().map(|phase| Place::Journaled(phase).to_string()));
        assert_eq!(places, PLACES);
    }
}
