//! Where the watch says what it has made of its directory, and the API reads it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemas::directory_watch::{WatchOutcome, Watching};
use schemas::hcl::Diagnostic;

use crate::clock::Clock;

/// What the watch says; nothing where no directory is watched.
#[derive(Clone)]
pub struct Board {
    clock: Arc<Clock>,
    said: Arc<Mutex<Option<Watching>>>,
}

impl Board {
    /// An empty one, that dates what it is reported.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { clock, said: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Watching>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said now.
    #[must_use]
    pub fn get(&self) -> Option<Watching> {
        self.lock().clone()
    }

    /// Says that a directory will be looked at.
    pub(super) fn begin(&self, directory: PathBuf) {
        let since = self.clock.now().utc;
        let watching = Watching {
            directory,
            outcome: WatchOutcome::Waiting,
            fingerprint: String::new(),
            since,
            diagnostics: Vec::new(),
        };
        *self.lock() = Some(watching);
    }

    /// Whether the directory was not looked at yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.lock().as_ref().is_some_and(|watching| watching.outcome == WatchOutcome::Waiting)
    }

    /// Says what became of the directory.
    pub(super) fn put(
        &self,
        outcome: WatchOutcome,
        fingerprint: String,
        diagnostics: Vec<Diagnostic>,
    ) {
        let since = self.clock.now().utc;
        if let Some(watching) = self.lock().as_mut() {
            *watching = Watching {
                outcome,
                fingerprint,
                since,
                diagnostics,
                directory: watching.directory.clone(),
            };
        }
    }
}
