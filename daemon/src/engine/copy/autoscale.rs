//! How many readers and writers a copy has: more where that makes it faster, fewer where it does
//! not make it slower. Found by trying.
//!
//! A pure function of what was measured: it reads no clock and starts nobody. The copy tells it of
//! one stretch of its work after the other, and it says with how many to go on:
//!
//! ```text
//! looking --two stretches alike--> trying more of what it waits for --faster--> kept, more again
//!                                       \--not faster--> back, and a rest
//! resting --over--> trying fewer --as fast--> kept, fewer again
//! resting --other speed--> looking
//!                       \--slower--> back, a longer rest, then looking
//! ```
//!
//! What the copy waits for is reported by how much of their time its workers spend at it: readers
//! that wait for replies all the time are too few, or have a source that gives no more; which of
//! the two it is shows where there are more of them.

use std::time::Duration;

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// That wait for a reply of the source at once, at most.
    pub readers: usize,
    /// That wait for the destination to insert at once, at most.
    pub writers: usize,
}

/// What the copy waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// The source's replies.
    Source,
    /// The destination's insertions.
    Destination,
    /// Both about as long.
    Both,
}

impl Slow {
    /// In words, for a log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Source => "the source's replies",
            Self::Destination => "the destination's inserts",
            Self::Both => "both servers",
        }
    }
}

/// A stretch of a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stretch {
    /// How long it was.
    pub elapsed: Duration,
    /// What was written in it: bytes, and something for each document.
    pub work: u64,
    /// What all readers together waited for replies.
    pub reading: Duration,
    /// What all writers together waited for insertions.
    pub writing: Duration,
}

/// The share of their time that workers spend at something where the copy waits for it.
const BUSY: f64 = 0.75;
/// What more workers must gain to be kept, in a step of a half: where each waits for itself alone
/// it is nearly that half.
const GAIN: f64 = 0.10;
/// What fewer may lose: less is not told from noise.
const LOSS: f64 = 0.03;
/// What two stretches may differ by to be alike.
const ALIKE: f64 = 0.15;
/// A speed that is no longer the one that was tried with: the documents are others by now, or the
/// servers are.
const ANOTHER: f64 = 0.35;
/// Rests between two trials, in stretches: duplicate_fields by each that was for nothing.
const RESTS: std::ops::RangeInclusive<u32> = 5..=60;
/// Fewer than this are never tried: with one nothing is read while it writes.
const FEWEST: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Doing {
    /// Measures how fast it is now.
    Looking { before: Option<f64> },
    /// Measures how fast it is with others: first they must have come, or gone.
    Trying { from: Widths, base: f64, is_more: bool, has_settled: bool },
    /// Leaves it as it is.
    Resting { left: u32, base: f64 },
}

/// Finds how many there should be.
#[derive(Debug, Clone)]
pub struct Climber {
    now: Widths,
    most: Widths,
    doing: Doing,
    rest: u32,
    /// Whether the next trial after a rest is of fewer.
    is_fewer_next: bool,
}

/// What a stretch led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on as it is.
    Same,
    /// More or fewer are tried.
    Try(Slow),
    /// Those that were tried stay.
    Kept,
    /// Those before are better.
    Back,
}

impl Climber {
    /// Begins with so many, and never has more than `most` of each.
    #[must_use]
    pub fn new(start: Widths, most: Widths) -> Self {
        let most = Widths { readers: most.readers.max(1), writers: most.writers.max(1) };
        Self {
            now: Widths {
                readers: start.readers.clamp(1, most.readers),
                writers: start.writers.clamp(1, most.writers),
            },
            most,
            doing: Doing::Looking { before: None },
            rest: *RESTS.start(),
            is_fewer_next: false,
        }
    }

    /// How many there should be now.
    #[must_use]
    pub const fn now(&self) -> Widths {
        self.now
    }

    /// Takes note of a stretch in which something else held the copy back: what was measured says
    /// nothing.
    pub fn pass_over(&mut self) -> Step {
        match std::mem::replace(&mut self.doing, Doing::Looking { before: None }) {
            Doing::Trying { from, .. } => {
                self.now = from;
                Step::Back
            }
            Doing::Looking { .. } | Doing::Resting { .. } => Step::Same,
        }
    }

    /// Takes note of a stretch.
    pub fn step(&mut self, stretch: &Stretch) -> Step {
        let seconds = stretch.elapsed.as_secs_f64();
        if seconds <= 0.0 || stretch.work == 0 {
            return self.pass_over();
        }
        let speed = stretch.work as f64 / seconds;
        match self.doing {
            Doing::Looking { before } => {
                let Some(slow) = self.slow(stretch) else { return self.pass_over() };
                match before {
                    Some(before) if (speed - before).abs() <= ALIKE * before.max(speed) => {
                        self.try_others(slow, f64::midpoint(before, speed), true)
                    }
                    _ => {
                        self.doing = Doing::Looking { before: Some(speed) };
                        Step::Same
                    }
                }
            }
            Doing::Trying { from, base, is_more, has_settled: false } => {
                self.doing = Doing::Trying { from, base, is_more, has_settled: true };
                Step::Same
            }
            Doing::Trying { from, base, is_more, .. } => {
                self.judge(stretch, speed, from, base, is_more)
            }
            Doing::Resting { base, .. } if (speed - base).abs() > ANOTHER * base => {
                (self.doing, self.rest) = (Doing::Looking { before: Some(speed) }, *RESTS.start());
                Step::Same
            }
            Doing::Resting { left, base } if left > 1 => {
                self.doing = Doing::Resting { left: left - 1, base };
                Step::Same
            }
            Doing::Resting { base, .. } => {
                let is_more = !std::mem::replace(&mut self.is_fewer_next, false);
                match self.slow(stretch) {
                    // What it was by now, with what it was before: others are compared with both.
                    Some(slow) if !is_more => {
                        self.try_others(slow, f64::midpoint(base, speed), false)
                    }
                    _ => {
                        self.doing = Doing::Looking { before: Some(speed) };
                        Step::Same
                    }
                }
            }
        }
    }

    fn judge(
        &mut self,
        stretch: &Stretch,
        speed: f64,
        from: Widths,
        base: f64,
        is_more: bool,
    ) -> Step {
        let is_better =
            if is_more { speed >= base * (1.0 + GAIN) } else { speed >= base * (1.0 - LOSS) };
        if !is_better {
            self.now = from;
            self.rest(base);
            // What more did not help with fewer may do as well.
            self.is_fewer_next = is_more;
            return Step::Back;
        }
        self.rest = *RESTS.start();
        // Fewer are compared with what it was before the first of them went, so that small losses
        // do not add up.
        let base = if is_more { speed } else { base };
        match self.slow(stretch).map(|slow| self.try_others(slow, base, is_more)) {
            None | Some(Step::Same) => self.rest(base),
            Some(Step::Try(_) | Step::Kept | Step::Back) => {}
        }
        Step::Kept
    }

    fn rest(&mut self, base: f64) {
        self.doing = Doing::Resting { left: self.rest, base };
        self.rest = (self.rest * 2).min(*RESTS.end());
    }

    fn try_others(&mut self, slow: Slow, base: f64, is_more: bool) -> Step {
        let other = |now: usize, most: usize| {
            if is_more {
                (now + now.div_ceil(2)).min(most)
            } else {
                (now - now / 3).max(FEWEST.min(now))
            }
        };
        let (readers, writers) = (
            other(self.now.readers, self.most.readers),
            other(self.now.writers, self.most.writers),
        );
        let next = match slow {
            Slow::Source => Widths { readers, ..self.now },
            Slow::Destination => Widths { writers, ..self.now },
            Slow::Both => Widths { readers, writers },
        };
        if next == self.now {
            self.rest(base);
            self.is_fewer_next = is_more;
            return Step::Same;
        }
        self.doing = Doing::Trying { from: self.now, base, is_more, has_settled: false };
        self.now = next;
        Step::Try(slow)
    }

    /// What the copy waits for; `None`: for something else, as a rate, the memory, or more to do.
    fn slow(&self, stretch: &Stretch) -> Option<Slow> {
        let busy = |time: Duration, width: usize| {
            time.as_secs_f64() / stretch.elapsed.as_secs_f64() / width as f64
        };
        let source = busy(stretch.reading, self.now.readers) >= BUSY;
        let destination = busy(stretch.writing, self.now.writers) >= BUSY;
        match (source, destination) {
            (true, true) => Some(Slow::Both),
            (true, false) => Some(Slow::Source),
            (false, true) => Some(Slow::Destination),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests;
