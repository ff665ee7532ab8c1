//! The cutover window: opened once, closed by the daemon's own time, and never longer than somebody
//! said.

use std::time::Duration;

use schemas::time::UtcTime;

use crate::run::Run;

/// What one extension adds.
const EXTENSION: Duration = Duration::from_hours(24);

impl Run {
    /// Extensions in force, declared and by hand.
    #[must_use]
    pub fn extensions(&self) -> u32 {
        self.settings.extensions.saturating_add(self.extensions_by_hand)
    }

    /// When the window closes; `None` before it opened.
    #[must_use]
    pub fn deadline(&self) -> Option<UtcTime> {
        let extra = EXTENSION.saturating_mul(self.extensions());
        self.opened_at.map(|opened_at| opened_at.plus(self.settings.window.get()).plus(extra))
    }

    /// Whether the window has closed by `now`.
    #[must_use]
    pub fn is_past_deadline(&self, now: UtcTime) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }
}
