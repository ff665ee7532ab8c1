//! The one file that reads the clock.
//!
//! The daemon's trusted time is the wall clock's, but it never goes back: within one boot of the
//! machine it is at least what was trusted before and the time that has elapsed since, suspension
//! included; across boots, at least what was stored. Setting the wall clock back so never lengthens
//! a window. Setting it forward shortens one, for good.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lifecycle::Now;
use rustix::time::{ClockId, clock_gettime};
use schemas::time::UtcTime;
use tracing::warn;

/// For tests: names a file with seconds to add to the wall clock, read at each reading.
pub const OFFSET_FILE_VARIABLE: &str = "CUTOVERD_TEST_CLOCK_OFFSET_FILE";

/// A trusted time, and what it takes to go on from there after a restart of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The trusted time.
    pub utc: UtcTime,
    /// Since the machine's boot, suspension included.
    pub since_boot: Duration,
    /// Which boot.
    pub boot: String,
}

/// One reading of the machine's clocks.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: UtcTime,
    since_boot: Duration,
}

/// The daemon's trusted time.
#[derive(Debug)]
pub struct Clock {
    offset_file: Option<PathBuf>,
    boot: String,
    last: Mutex<Reading>,
}

impl Clock {
    /// Goes on from what was stored, if anything was.
    #[must_use]
    pub fn resume(mark: Option<&Mark>, offset_file: Option<PathBuf>) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default();
        let reading = read(offset_file.as_ref());
        let last = match mark {
            // The same boot: what has elapsed since counts, whatever the wall clock says.
            Some(mark) if mark.boot == boot && !boot.is_empty() => {
                advance(Reading { wall: mark.utc, since_boot: mark.since_boot }, reading)
            }
            // Another boot: only the wall clock knows how long the machine was down.
            Some(mark) => {
                Reading { wall: reading.wall.max(mark.utc), since_boot: reading.since_boot }
            }
            None => reading,
        };
        if last.wall > reading.wall.plus(Duration::from_secs(60)) {
            warn!(wall = %reading.wall, trusted = %last.wall, "the wall clock is behind what it \
                 was; the trusted time does not follow it back");
        }
        Self { offset_file, boot, last: Mutex::new(last) }
    }

    /// The trusted time.
    pub fn now(&self) -> Now {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = advance(*last, read(self.offset_file.as_ref()));
        Now { utc: last.wall }
    }

    /// What to store, so that a later start does not fall behind the present trusted time.
    pub fn mark(&self) -> Mark {
        let utc = self.now().utc;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Mark { utc, since_boot: last.since_boot, boot: self.boot.clone() }
    }
}

/// The next trusted reading: the wall clock, but not behind the last one and what has elapsed
/// since.
fn advance(last: Reading, reading: Reading) -> Reading {
    let elapsed = reading.since_boot.saturating_sub(last.since_boot);
    Reading {
        wall: reading.wall.max(last.wall.plus(elapsed)),
        since_boot: reading.since_boot.max(last.since_boot),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one file that reads the clock")]
fn read(offset_file: Option<&PathBuf>) -> Reading {
    // A wall clock before 1970 is as good as none: the trusted time then goes on by what elapses.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    let boot = clock_gettime(ClockId::Boottime);
    let since_boot = Duration::new(
        u64::try_from(boot.tv_sec).unwrap_or(0),
        u32::try_from(boot.tv_nsec).unwrap_or(0),
    );
    let offset = offset_file
        .and_then(|path| std::fs::read_to_string(path).ok())
        .and_then(|text| text.trim().parse::<i64>().ok())
        .unwrap_or(0);
    Reading {
        wall: UtcTime::from_millis(wall.saturating_add(offset.saturating_mul(1_000))),
        since_boot,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schemas::time::UtcTime;

    use super::{Clock, Mark, Reading, advance};

    fn reading(wall_s: i64, since_boot_s: u64) -> Reading {
        Reading {
            wall: UtcTime::from_millis(wall_s * 1_000),
            since_boot: Duration::from_secs(since_boot_s),
        }
    }

    #[test]
    fn a_wall_clock_set_back_does_not_stop_time() {
        let last = advance(reading(1_000, 10), reading(400, 15));
        assert_eq!(last.wall, UtcTime::from_millis(1_005_000));
        let last = advance(last, reading(405, 20));
        assert_eq!(last.wall, UtcTime::from_millis(1_010_000));
    }

    #[test]
    fn a_wall_clock_set_forward_counts_and_stays() {
        let last = advance(reading(1_000, 10), reading(9_000, 11));
        assert_eq!(last.wall, UtcTime::from_millis(9_000_000));
        assert_eq!(advance(last, reading(1_002, 12)).wall, UtcTime::from_millis(9_001_000));
    }

    #[test]
    fn a_suspended_machine_counts() {
        // CLOCK_BOOTTIME includes the time asleep, whatever the wall clock says on waking.
        assert_eq!(
            advance(reading(1_000, 10), reading(1_001, 3_610)).wall,
            UtcTime::from_millis(4_600_000)
        );
    }

    #[test]
    fn a_start_goes_on_from_the_stored_mark() {
        let clock = Clock::resume(None, None);
        let mut mark = clock.mark();
        mark.utc = mark.utc.plus(Duration::from_hours(5));
        let again = Clock::resume(Some(&mark), None);
        assert!(again.now().utc >= mark.utc, "the same boot");
        let other_boot = Mark { boot: "another".to_owned(), ..mark.clone() };
        assert!(Clock::resume(Some(&other_boot), None).now().utc >= mark.utc, "another boot");
    }

    #[test]
    fn the_test_offset_shifts_the_wall_clock() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("offset");
        std::fs::write(&file, "0").expect("writes");
        let clock = Clock::resume(None, Some(file.clone()));
        let before = clock.now().utc;
        std::fs::write(&file, "3600\n").expect("writes");
        assert!(clock.now().utc.since(before) >= Duration::from_hours(1));
        std::fs::write(&file, "-3600").expect("writes");
        assert!(clock.now().utc.since(before) >= Duration::from_hours(1), "it never goes back");
    }
}
