//! How long to wait before something that has failed is tried again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lifecycle::EffectKind;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Failures in a row, by what has failed.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<BTreeMap<EffectKind, u32>>);

impl Backoff {
    pub(super) fn failed(&self, effect: EffectKind) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(effect).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn clear(&self, effect: EffectKind) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&effect);
    }

    /// How long to wait before the next try; zero where the last one did not fail.
    pub(super) fn pause(&self, effect: EffectKind, longest: Duration) -> Duration {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&effect) {
            None => Duration::ZERO,
            Some(count) => {
                let factor = 2_u32.saturating_pow(count.saturating_sub(1).min(16));
                FIRST_PAUSE.saturating_mul(factor).min(longest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lifecycle::EffectKind;

    use super::Backoff;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew() {
        let backoff = Backoff::default();
        let longest = Duration::from_secs(30);
        assert_eq!(backoff.pause(EffectKind::Validate, longest), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            backoff.failed(EffectKind::Validate);
            pauses.push(backoff.pause(EffectKind::Validate, longest).as_millis());
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.pause(EffectKind::Drain, longest), Duration::ZERO);
        backoff.clear(EffectKind::Validate);
        assert_eq!(backoff.pause(EffectKind::Validate, longest), Duration::ZERO);
    }
}
