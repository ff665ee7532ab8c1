//! What was last heard of the running sync, and what it says about readiness. Never stored: a start
//! has heard nothing yet.

use std::time::Duration;

use schemas::time::UtcTime;

/// Readiness must hold for this long before it counts: two reports in a row and more, so that one
/// lucky moment is not enough.
pub const WELL_SETTLE: Duration = Duration::from_secs(2);

/// A ready run that is not well for this long falls back. Shorter hiccups keep the token, but
/// nothing is acknowledged in them.
pub const UNWELL_GRACE: Duration = Duration::from_secs(2);

/// Reports come twice a second; after ten missing ones the sync's state is not known any more.
pub const VITALS_STALE_AFTER: Duration = Duration::from_secs(5);

/// What was last heard of the running sync.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// When it was heard.
    pub heard_at: Option<UtcTime>,
    /// Between the newest operation on the source and the newest one applied.
    pub lag: Option<Duration>,
    /// Whether the tail has nothing left of what came during the copy.
    pub caught_up: bool,
    /// What else keeps it from being ready.
    pub blockers: Vec<String>,
    /// Since when everything that readiness needs holds.
    pub well_since: Option<UtcTime>,
    /// Since when a ready run lacks something.
    pub unwell_since: Option<UtcTime>,
}

impl Vitals {
    /// What keeps the sync from being ready for a cutover, each in words.
    #[must_use]
    pub fn reasons(&self, max_lag: Duration, now: UtcTime) -> Vec<String> {
        let Some(heard_at) = self.heard_at else {
            return vec!["the sync has not reported yet".to_owned()];
        };
        let silent = now.since(heard_at);
        if silent >= VITALS_STALE_AFTER {
            return vec![format!("the sync has not reported for {} s", silent.as_secs())];
        }
        let mut reasons = Vec::new();
        if !self.caught_up {
            reasons.push("changes from the time of the copy are still being applied".to_owned());
        }
        match self.lag {
            None => reasons.push("the lag is not known yet".to_owned()),
            Some(lag) if lag >= max_lag => {
                reasons.push(format!(
                    "lag {} s is over max_lag {} s",
                    seconds(lag),
                    seconds(max_lag)
                ));
            }
            Some(_) => {}
        }
        reasons.extend(self.blockers.iter().cloned());
        reasons
    }
}

/// Seconds with one decimal where there is one.
fn seconds(length: Duration) -> String {
    let tenths = length.as_millis() / 100;
    if tenths.is_multiple_of(10) {
        (tenths / 10).to_string()
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}
