//! Those who copy: as many at once as [`super::autoscale`] finds to be best, each reading a part's
//! batches and writing them.
//!
//! A part has a place in the copy while it is copied, and takes one among the readers
//! ([`super::rate_limit`]) or the writers for each batch. What they wait for is measured here.
//! While the source is spared (the brake) or a rate is declared it is not they who decide how fast
//! it is, and nothing is tried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::autoscale::{Climber, Step, Stretch, Widths};
use super::rate_limit::Pace;
use super::resizable_semaphore::{Place, ResizableSemaphore};
use crate::engine::progress::ShardCounters;

/// What a document costs beside its bytes, in bytes: the server's work is as much for each document
/// as for so many bytes, and how fast a copy is should not look different where the documents are
/// smaller.
const A_DOCUMENT: u64 = 1_000;
/// Batches of each writer that a stretch has at least: fewer are a matter of when it ended.
const BATCHES: u64 = 5;
/// A stretch ends after so many times its length all the same.
const LONGEST: u32 = 10;

/// What has been done so far.
#[derive(Debug, Clone, Copy)]
struct Done {
    at: Instant,
    work: u64,
    batches: u64,
    reading: Duration,
    writing: Duration,
}

/// Those who copy.
#[derive(Debug)]
pub struct WorkerPool {
    parts: ResizableSemaphore,
    writers: ResizableSemaphore,
    start: Widths,
    most: Widths,
    work: AtomicU64,
    batches: AtomicU64,
    writing_micros: AtomicU64,
}

impl WorkerPool {
    /// So many to begin with, of at most so many.
    #[must_use]
    pub fn new(start: Widths, most: Widths) -> Self {
        let start = Climber::new(start, most).now();
        Self {
            parts: ResizableSemaphore::new(start.readers.max(start.writers)),
            writers: ResizableSemaphore::new(start.writers),
            start,
            most,
            work: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            writing_micros: AtomicU64::new(0),
        }
    }

    /// One, for a collection that is copied by itself.
    #[must_use]
    pub fn of_one() -> Self {
        let one = Widths { readers: 1, writers: 1 };
        Self::new(one, one)
    }

    /// Parts at once, at most.
    #[must_use]
    pub fn most_parts(&self) -> usize {
        self.most.readers.max(self.most.writers)
    }

    /// Waits for a part's place.
    pub async fn begin_part(&self) -> Place<'_> {
        self.parts.enter().await
    }

    /// Waits for a place among the writers.
    pub async fn begin_write(&self) -> Writing<'_> {
        Writing { worker_pool: self, _place: self.writers.enter().await, began: Instant::now() }
    }

    fn done(&self, pace: &Pace) -> Done {
        Done {
            at: Instant::now(),
            work: self.work.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            reading: pace.reading(),
            writing: Duration::from_micros(self.writing_micros.load(Ordering::Relaxed)),
        }
    }

    /// Finds how many there should be, until it is dropped. `every`: how long a stretch is.
    pub async fn adapt(&self, pace: &Pace, progress: &ShardCounters, every: Duration) {
        let mut climber = Climber::new(self.start, self.most);
        progress.set_workers(Some(climber.now()));
        let mut before = self.done(pace);
        loop {
            tokio::time::sleep(every).await;
            let now = self.done(pace);
            let widths = climber.now();
            let batches = now.batches - before.batches;
            if batches < BATCHES * widths.writers as u64 && now.at - before.at < every * LONGEST {
                continue;
            }
            let stretch = Stretch {
                elapsed: now.at - before.at,
                work: now.work - before.work,
                reading: now.reading.saturating_sub(before.reading),
                writing: now.writing - before.writing,
            };
            before = now;
            let is_held_back = pace.has_rate() || pace.is_slowed();
            let step = if is_held_back { climber.pass_over() } else { climber.step(&stretch) };
            if climber.now() != widths {
                let Widths { readers, writers } = climber.now();
                pace.set_readers(readers);
                self.writers.resize(writers);
                self.parts.resize(readers.max(writers));
                progress.set_workers(Some(climber.now()));
            }
            tell(progress, step, climber.now());
        }
    }
}

fn tell(progress: &ShardCounters, step: Step, now: Widths) {
    let Widths { readers, writers } = now;
    let shard = progress.name();
    match step {
        Step::Same => {}
        Step::Try(slow) => {
            tracing::info!(%shard, readers, writers, waits_for = slow.words(), "the copy tries \
                 how it is with these")
        }
        Step::Kept => {
            tracing::info!(%shard, readers, writers, "the copy was better with what it tried, and \
                 goes on from there")
        }
        Step::Back => {
            tracing::info!(%shard, readers, writers, "the copy was better with these, and goes \
                 back to them")
        }
    }
}

/// A write that has begun.
#[derive(Debug)]
pub struct Writing<'a> {
    worker_pool: &'a WorkerPool,
    _place: Place<'a>,
    began: Instant,
}

impl Writing<'_> {
    /// It has written this.
    pub fn end(self, documents: u64, bytes: u64) {
        self.worker_pool.work.fetch_add(bytes + documents * A_DOCUMENT, Ordering::Relaxed);
        self.worker_pool.batches.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.worker_pool.writing_micros.fetch_add(took, Ordering::Relaxed);
    }
}
