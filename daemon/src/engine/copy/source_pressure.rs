//! The brake on what a copy does to its source: readers back off while the source is under
//! pressure, and come back when it is not.
//!
//! Pressure is what the source's own users feel: operations that queue for the storage engine,
//! writes that take long, and, should neither be told, reads of our own that do. The writes'
//! latency counts and not the reads', to which the copy's large batches belong.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use super::rate_limit::Pace;
use crate::engine::progress::ShardCounters;
use crate::engine::tuning::Tuning;
use crate::mongo::Deployment;

/// How often the source is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What a source tells of its load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Operations that wait for the storage engine.
    pub queued: u64,
    /// Writes since it was started.
    pub writes: u64,
    /// Their latencies together, in microseconds.
    pub write_micros: u64,
}

impl Load {
    /// What `serverStatus` says; what it leaves out counts as nothing.
    #[must_use]
    pub fn read(status: &Document) -> Self {
        let number = |path: &[&str]| {
            let (last, way) = path.split_last()?;
            let inner = way.iter().try_fold(status, |inner, name| inner.get_document(name).ok())?;
            let number = inner.get(last)?;
            let number = number.as_i64().or_else(|| number.as_i32().map(i64::from))?;
            u64::try_from(number).ok()
        };
        Self {
            queued: number(&["globalLock", "currentQueue", "total"]).unwrap_or(0),
            writes: number(&["opLatencies", "writes", "ops"]).unwrap_or(0),
            write_micros: number(&["opLatencies", "writes", "latency"]).unwrap_or(0),
        }
    }
}

/// How much longer than usual a write takes where it is the load that makes it so. What takes long
/// at all times, as a majority over far regions does, is no pressure.
const TIMES_USUAL: u32 = 3;

/// The mean latency of the writes between two looks; `None`: there was none.
fn write_latency(before: Load, now: Load) -> Option<Duration> {
    let micros = now.write_micros.saturating_sub(before.write_micros);
    micros.checked_div(now.writes.saturating_sub(before.writes)).map(Duration::from_micros)
}

/// What the source is pressed by, in words; `None`: it is not. `usual`: what its writes take, as it
/// was before.
#[must_use]
pub fn pressure(
    before: Load,
    now: Load,
    usual: Duration,
    slowest_read: Duration,
    tuning: &Tuning,
) -> Option<String> {
    if now.queued >= tuning.source_queue {
        return Some(format!("{} operations queue on the source", now.queued));
    }
    let bound = tuning.source_write_latency.max(usual * TIMES_USUAL);
    if let Some(mean) = write_latency(before, now).filter(|mean| *mean >= bound) {
        return Some(format!("a write on the source takes {} ms", mean.as_millis()));
    }
    (slowest_read >= tuning.source_read_latency)
        .then(|| format!("a read of the copy takes {} ms", slowest_read.as_millis()))
}

/// Watches the source and slows the readers down, until it is dropped. A source that does not let
/// itself be looked at is not braked for.
pub async fn watch(source: &Deployment, pace: &Pace, progress: &ShardCounters, tuning: &Tuning) {
    let look = doc! {
        "serverStatus": 1, "repl": 0, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0, "locks": 0,
        "transactions": 0, "storageEngine": 0,
    };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<Load> = None;
    // Over all the time since the server was started, which ends as the readers begin.
    let mut usual = Duration::ZERO;
    let mut is_slowed = false;
    loop {
        ticks.tick().await;
        let Ok(status) = source.command("admin", look.clone()).await else { continue };
        let now = Load::read(&status);
        if before.is_none() {
            usual = write_latency(Load::default(), now).unwrap_or_default();
        }
        let pressed = before
            .replace(now)
            .and_then(|before| pressure(before, now, usual, pace.take_slowest(), tuning));
        let was_slowed = is_slowed;
        if pressed.is_some() || is_slowed {
            is_slowed = pace.step(pressed.is_some());
        }
        match (&pressed, was_slowed, is_slowed) {
            (Some(why), false, true) => tracing::info!(why, "the copy reads more slowly"),
            (_, true, false) => tracing::info!("the copy reads at its full speed again"),
            _ => {}
        }
        progress.set_brake(is_slowed.then(|| words(pace, pressed.as_deref())));
    }
}

fn words(pace: &Pace, pressed: Option<&str>) -> String {
    let (readers, pause) = pace.now();
    let how = match (readers, pause.is_zero()) {
        (1, false) => format!("one reader, and {} ms between its reads", pause.as_millis()),
        (1, true) => "one reader".to_owned(),
        (readers, _) => format!("{readers} readers"),
    };
    let why = pressed.unwrap_or("the source was under pressure until now");
    format!("the copy has backed off to {how}: {why}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Load, pressure};
    use crate::engine::tuning::Tuning;
    use mongodb::bson::doc;

    #[test]
    fn a_servers_words_are_read() {
        let status = doc! {
            "globalLock": { "currentQueue": { "total": 3, "readers": 1, "writers": 2 } },
            "opLatencies": { "writes": { "latency": 5_000_i64, "ops": 10_i64 } },
        };
        assert_eq!(Load::read(&status), Load { queued: 3, writes: 10, write_micros: 5_000 });
        assert_eq!(Load::read(&doc! {}), Load::default());
    }

    #[test]
    fn queues_and_latencies_over_their_bounds_are_pressure() {
        let tuning = Tuning::default();
        let before = Load { queued: 0, writes: 100, write_micros: 1_000_000 };
        let calm = Load { writes: 200, write_micros: 1_100_000, ..before };
        let (short, usual) = (Duration::from_millis(20), Duration::from_millis(5));
        assert_eq!(pressure(before, calm, usual, short, &tuning), None);
        // Without a write there is no latency, whatever it was before.
        assert_eq!(pressure(before, before, usual, short, &tuning), None);
        let queued = Load { queued: tuning.source_queue, ..calm };
        assert!(
            pressure(before, queued, usual, short, &tuning)
                .is_some_and(|why| why.contains("queue"))
        );
        let slow = Load { write_micros: 1_000_000 + 100 * 250_000, ..calm };
        assert!(
            pressure(before, slow, usual, short, &tuning).is_some_and(|why| why.contains("250 ms"))
        );
        // Where they always take so long it is no load that makes them.
        assert_eq!(pressure(before, slow, Duration::from_millis(200), short, &tuning), None);
        assert!(pressure(before, calm, usual, tuning.source_read_latency, &tuning).is_some());
        // A server that was started again counts from zero.
        assert_eq!(
            pressure(calm, Load { writes: 5, write_micros: 10, queued: 0 }, usual, short, &tuning),
            None
        );
    }
}
