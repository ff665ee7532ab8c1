//! The one place of the client that reads a clock.

use schemas::time::UtcTime;

/// The time now. Deadlines are the daemon's; here it dates saved plans and fills in where the
/// daemon says nothing.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
pub fn now() -> UtcTime {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UtcTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
