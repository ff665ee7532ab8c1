//! How fast the copy's readers may read, all together: the declared rate, and less while the source
//! is under pressure.
//!
//! The rate is held by reservation: a read takes its place on a time line that is as long as what
//! it is expected to bring, waits until that place has come, and corrects the line by what it did
//! bring. Readers that come at once so wait one behind the other, time in which nobody reads is not
//! made up for, and over any length of time no more is read than the rate allows, plus one batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::spec::RateLimit;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Batches that a second of a declared rate is divided into at least: fewer would read in bursts.
const BATCHES_PER_SECOND: u64 = 4;
/// The longest that a pressed source makes one reader pause between two batches: the copy goes on,
/// if only just.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The pause of the first step beyond one reader at a time; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(125);

/// What one read brings, or is expected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Documents.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The time line of a rate, and the places of those who read by it. It reads no clock.
#[derive(Debug)]
struct Line {
    /// Readers there are: no more read at once.
    readers: usize,
    /// When the next read may begin, by the rate.
    next: Instant,
    /// Reads that have begun and not ended.
    reading: usize,
    /// Reads at once, at most: fewer than there are readers while the source is spared.
    width: usize,
    /// Between two reads, while only one may go on.
    pause: Duration,
    last_began: Instant,
}

impl Line {
    const fn new(now: Instant, width: usize) -> Self {
        Self {
            readers: width,
            next: now,
            reading: 0,
            width,
            pause: Duration::ZERO,
            last_began: now,
        }
    }

    /// Takes a place among the readers, if there is one.
    const fn enter(&mut self) -> bool {
        let has_room = self.reading < self.width;
        if has_room {
            self.reading += 1;
        }
        has_room
    }

    /// Takes a place on the time line, this long; gives when it begins.
    fn reserve(&mut self, now: Instant, length: Duration) -> Instant {
        let place = self.next.max(now);
        self.next = place + length;
        let at = place.max(self.last_began + self.pause);
        self.last_began = at;
        at
    }

    /// Makes a place as long as it should have been.
    fn correct(&mut self, reserved: Duration, actual: Duration) {
        self.next = if actual > reserved {
            self.next + (actual - reserved)
        } else {
            self.next - (reserved - actual)
        };
    }

    const fn is_slowed(&self) -> bool {
        self.width < self.readers || !self.pause.is_zero()
    }

    fn set_readers(&mut self, readers: usize) {
        self.width = if self.is_slowed() { self.width.min(readers) } else { readers };
        self.readers = readers;
    }

    fn slow_down(&mut self) {
        if self.width > 1 {
            self.width /= 2;
        } else {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    fn speed_up(&mut self) {
        if self.pause > FIRST_PAUSE {
            self.pause /= 2;
        } else if self.pause > Duration::ZERO {
            self.pause = Duration::ZERO;
        } else {
            self.width = (self.width + 1).min(self.readers);
        }
    }
}

/// The pace of a copy's readers.
#[derive(Debug)]
pub struct Pace {
    rate: Option<RateLimit>,
    line: Mutex<Line>,
    changed: Notify,
    /// The longest that a read has taken since this was last asked, in microseconds.
    slowest: AtomicU64,
    /// How long all reads together have taken, in microseconds.
    reading: AtomicU64,
}

impl Pace {
    /// A pace for so many readers.
    #[must_use]
    pub fn new(rate: Option<RateLimit>, readers: usize) -> Self {
        let line = Mutex::new(Line::new(Instant::now(), readers.max(1)));
        Self {
            rate,
            line,
            changed: Notify::new(),
            slowest: AtomicU64::new(0),
            reading: AtomicU64::new(0),
        }
    }

    /// Whether a rate was declared.
    #[must_use]
    pub const fn has_rate(&self) -> bool {
        self.rate.is_some()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Numbers hold no invariant that a panic could break.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many documents of this mean size a batch asks for, so that the rate is held without
    /// bursts.
    #[must_use]
    pub fn batch_size(&self, wanted: u32, mean_bytes: u64) -> u32 {
        let most = match self.rate {
            None => return wanted,
            Some(RateLimit::Documents(documents)) => documents / BATCHES_PER_SECOND,
            Some(RateLimit::Bytes(bytes)) => bytes / BATCHES_PER_SECOND / mean_bytes.max(1),
        };
        wanted.min(u32::try_from(most.max(1)).unwrap_or(u32::MAX))
    }

    /// How long the rate gives an amount.
    fn length(&self, amount: Amount) -> Duration {
        match self.rate {
            None => Duration::ZERO,
            Some(RateLimit::Documents(documents)) => {
                Duration::from_secs_f64(amount.documents as f64 / documents as f64)
            }
            Some(RateLimit::Bytes(bytes)) => {
                Duration::from_secs_f64(amount.bytes as f64 / bytes as f64)
            }
        }
    }

    /// Waits until a read that is expected to bring this much may begin.
    pub async fn begin(&self, expected: Amount) -> Turn<'_> {
        // First a place among the readers: one that waits for the source's sake takes no time of
        // the rate.
        let mut turn = loop {
            let changed = self.changed.notified();
            if self.line().enter() {
                break Turn { pace: self, expected, began: Instant::now() };
            }
            changed.await;
        };
        let now = Instant::now();
        let at = self.line().reserve(now, self.length(expected));
        if at > now {
            tokio::time::sleep_until(at).await;
        }
        turn.began = Instant::now();
        turn
    }

    /// Slows down (`true`) or speeds up by one step: fewer readers at once, then longer pauses; and
    /// back. Tells whether it is now slower than declared.
    pub fn step(&self, slower: bool) -> bool {
        let mut line = self.line();
        if slower {
            line.slow_down();
        } else {
            line.speed_up();
        }
        let is_slowed = line.is_slowed();
        drop(line);
        self.changed.notify_waiters();
        is_slowed
    }

    /// Sets how many readers there are. A source that is spared is read by no more than before.
    pub fn set_readers(&self, readers: usize) {
        self.line().set_readers(readers.max(1));
        self.changed.notify_waiters();
    }

    /// Whether it is slower than declared, for the source's sake.
    #[must_use]
    pub fn is_slowed(&self) -> bool {
        self.line().is_slowed()
    }

    /// How long all reads together have taken.
    #[must_use]
    pub fn reading(&self) -> Duration {
        Duration::from_micros(self.reading.load(Ordering::Relaxed))
    }

    /// Readers at once, at most, and the pause between two reads.
    #[must_use]
    pub fn now(&self) -> (usize, Duration) {
        let line = self.line();
        (line.width, line.pause)
    }

    /// The longest read since this was last asked.
    pub fn take_slowest(&self) -> Duration {
        Duration::from_micros(self.slowest.swap(0, Ordering::Relaxed))
    }
}

/// A read that has begun; dropping it lets the next reader in.
#[derive(Debug)]
pub struct Turn<'a> {
    pace: &'a Pace,
    expected: Amount,
    began: Instant,
}

impl Turn<'_> {
    /// The read begins only now: what it waited for was not the source.
    pub fn restart(&mut self) {
        self.began = Instant::now();
    }

    /// The read has brought this.
    pub fn end(self, brought: Amount) {
        let took = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.pace.slowest.fetch_max(took, Ordering::Relaxed);
        self.pace.reading.fetch_add(took, Ordering::Relaxed);
        let (expected, actual) = (self.pace.length(self.expected), self.pace.length(brought));
        self.pace.line().correct(expected, actual);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pace.line().reading -= 1;
        self.pace.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Amount, Line, Pace};
    use futures_util::FutureExt as _;
    use schemas::spec::RateLimit;
    use tokio::time::Instant;

    const ONE: Amount = Amount { documents: 1, bytes: 1 };

    /// Readers that read `each` times, each read taking `took`; gives when the last one begins.
    fn last_of(
        pace: &Pace,
        readers: usize,
        each: usize,
        expected: u64,
        brought: u64,
        took: Duration,
    ) -> Duration {
        let began = Instant::now();
        let mut line = Line::new(began, readers);
        let length = |bytes| pace.length(Amount { documents: 1, bytes });
        let mut free = vec![(began, each); readers];
        let mut last = began;
        while let Some(reader) = free.iter_mut().filter(|(_, left)| *left > 0).min() {
            last = line.reserve(reader.0, length(expected));
            line.correct(length(expected), length(brought));
            *reader = (last + took, reader.1 - 1);
        }
        last - began
    }

    fn seconds(length: Duration) -> f64 {
        (length.as_secs_f64() * 1e3).round() / 1e3
    }

    #[test]
    fn readers_share_one_rate() {
        let pace = Pace::new(Some(RateLimit::Bytes(5_000_000)), 8);
        for readers in [1, 3, 8] {
            // At 5 MB/s the last of 240 MB begins after 239.
            let last = last_of(
                &pace,
                readers,
                240 / readers,
                1_000_000,
                1_000_000,
                Duration::from_millis(40),
            );
            assert_eq!(seconds(last), 47.8, "{readers}");
        }
        // Who is slower than the rate is not slowed.
        assert_eq!(
            seconds(last_of(&pace, 1, 11, 1_000_000, 1_000_000, Duration::from_secs(1))),
            10.0
        );
    }

    #[test]
    fn what_was_expected_is_put_right_by_what_came() {
        let pace = Pace::new(Some(RateLimit::Bytes(1_000_000)), 1);
        for expected in [0, 100_000, 1_000_000, 4_000_000] {
            assert_eq!(
                seconds(last_of(&pace, 1, 20, expected, 1_000_000, Duration::ZERO)),
                19.0,
                "{expected}"
            );
        }
    }

    #[test]
    fn time_in_which_nobody_reads_is_not_made_up_for() {
        let began = Instant::now();
        let mut line = Line::new(began, 2);
        let later = began + Duration::from_secs(100);
        let second = Duration::from_secs(1);
        assert_eq!(line.reserve(later, second), later);
        assert_eq!(line.reserve(later, second), later + second);
    }

    #[test]
    fn documents_are_counted_where_they_are_declared() {
        let pace = Pace::new(Some(RateLimit::Documents(1_000)), 4);
        assert_eq!(
            pace.length(Amount { documents: 250, bytes: 99_999 }),
            Duration::from_millis(250)
        );
        assert_eq!(Pace::new(None, 4).length(ONE), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_pressed_source_is_read_by_fewer_and_then_more_slowly() {
        let pace = Pace::new(None, 8);
        let at_once = || {
            let turns: Vec<_> = std::iter::from_fn(|| pace.begin(ONE).now_or_never()).collect();
            turns.len()
        };
        assert_eq!(at_once(), 8);
        assert!(pace.step(true));
        assert_eq!(at_once(), 4);
        for _ in 0..20 {
            assert!(pace.step(true));
        }
        assert_eq!(pace.now(), (1, Duration::from_secs(2)));
        let steps = (1..).find(|_| !pace.step(false));
        assert_eq!((steps, pace.now()), (Some(12), (8, Duration::ZERO)));
        assert_eq!(at_once(), 8);
    }

    #[tokio::test]
    async fn who_comes_while_the_source_is_spared_waits_until_it_is_not() {
        let pace = Pace::new(None, 4);
        pace.set_readers(6);
        assert_eq!(pace.now().0, 6);
        assert!(pace.step(true));
        pace.set_readers(9);
        assert_eq!((pace.now().0, pace.is_slowed()), (3, true));
        while pace.step(false) {}
        assert_eq!(pace.now().0, 9);
        pace.step(true);
        pace.set_readers(2);
        assert_eq!((pace.now().0, pace.is_slowed()), (2, false));
    }

    #[test]
    fn pauses_lie_between_the_reads_of_all() {
        let began = Instant::now();
        let mut line = Line::new(began, 1);
        line.slow_down();
        let first = line.reserve(began, Duration::ZERO);
        assert_eq!(line.reserve(first, Duration::ZERO) - first, line.pause);
    }

    #[tokio::test]
    async fn a_reader_that_gives_up_leaves_its_place() {
        let pace = Pace::new(None, 1);
        let turn = pace.begin(ONE).await;
        assert!(pace.begin(ONE).now_or_never().is_none());
        drop(turn);
        pace.begin(ONE).await.end(ONE);
    }

    #[test]
    fn batches_are_a_part_of_a_seconds_rate() {
        assert_eq!(Pace::new(None, 4).batch_size(1_000, 200), 1_000);
        assert_eq!(Pace::new(Some(RateLimit::Documents(1_000)), 4).batch_size(1_000, 200), 250);
        assert_eq!(Pace::new(Some(RateLimit::Bytes(1_000_000)), 4).batch_size(10_000, 250), 1_000);
        assert_eq!(Pace::new(Some(RateLimit::Bytes(1)), 4).batch_size(10_000, 250), 1);
    }
}
