//! Where a run is, in counters that readers and writers raise and the shell takes snapshots of: of
//! the run, and of each shard.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::spec::VerifyMode;
use schemas::status::{CopyProgress, IndexProgress, OptimeGap, TailProgress};

use super::copy::autoscale::Widths;
use super::source::Times;
use crate::engine::{EngineProgress, ShardProgress};

/// Speeds are taken over this long: shorter jumps with every batch, longer lags behind what
/// happens.
const SPEED_WINDOW: Duration = Duration::from_secs(10);

/// Looks at a source that are kept: those of a quarter of an hour.
const MOST_LOOKS: usize = 2_000;

/// When a source was looked at, and its newest operation then.
///
/// A source that is idle writes one operation every ten seconds. Until that is applied, the two
/// times are ten seconds apart, and yet nothing waits for longer than since the look before: what
/// that has not found has come after it.
#[derive(Debug, Default)]
struct Looks {
    seen: VecDeque<(Instant, ClusterTime)>,
}

impl Looks {
    fn note(&mut self, asked_at: Instant, newest: ClusterTime, applied: Option<ClusterTime>) {
        self.seen.push_back((asked_at, newest));
        // Of those that are applied whole the last one counts.
        while self.seen.get(1).is_some_and(|(_, second)| Some(*second) <= applied) {
            self.seen.pop_front();
        }
        if self.seen.len() > MOST_LOOKS {
            let mut place = 0;
            self.seen.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
    }

    /// How long at most something waits to be applied; `None`: no look found everything applied.
    fn waiting(&self, applied: ClusterTime) -> Option<Duration> {
        self.seen.iter().rev().find(|(_, newest)| *newest <= applied).map(|(at, _)| at.elapsed())
    }
}

/// A count over the last seconds.
#[derive(Debug, Default)]
struct Speed {
    samples: VecDeque<(Instant, u64)>,
}

impl Speed {
    fn note(&mut self, count: u64) {
        let now = Instant::now();
        // Ten samples a second are plenty.
        if self
            .samples
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) > Duration::from_millis(100))
        {
            self.samples.push_back((now, count));
        }
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > SPEED_WINDOW) {
            self.samples.pop_front();
        }
    }

    /// A second's worth, over the window; 0 where nothing was noted lately.
    fn per_second(&self, count: u64) -> f64 {
        let Some((first_at, first)) =
            self.samples.iter().find(|(at, _)| at.elapsed() <= SPEED_WINDOW)
        else {
            return 0.0;
        };
        let seconds = first_at.elapsed().as_secs_f64();
        if seconds < 0.2 { 0.0 } else { count.saturating_sub(*first) as f64 / seconds }
    }
}

#[derive(Debug, Default)]
struct OfShard {
    copy: CopyProgress,
    copy_speed: Speed,
    events: u64,
    event_speed: Speed,
    source_optime: Option<ClusterTime>,
    looks: Looks,
    applied: Option<ClusterTime>,
    oplog_window_seconds: Option<u64>,
    error: Option<Fault>,
    brake: Option<String>,
    workers: Option<Widths>,
}

/// The counters of one shard.
#[derive(Debug)]
pub struct ShardCounters {
    name: ShardName,
    counters: Mutex<OfShard>,
}

#[derive(Debug, Default)]
struct OfRun {
    /// Collections in the copy and copied whole: one that lies on several shards is one.
    collections: (u64, u64),
    indexes: IndexProgress,
    applied: Option<ClusterTime>,
    last_change: Option<ClusterTime>,
    created: BTreeSet<Namespace>,
    deferred: BTreeSet<String>,
    error: Option<Fault>,
}

/// The counters of one run.
#[derive(Debug)]
pub struct Progress {
    verify: VerifyMode,
    run: Mutex<OfRun>,
    shards: Mutex<Vec<Arc<ShardCounters>>>,
}

fn locked<T>(counters: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters hold no invariant that a panic could break.
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ShardCounters {
    /// The shard's name.
    #[must_use]
    pub const fn name(&self) -> &ShardName {
        &self.name
    }

    /// Sets what there is to copy.
    pub fn set_copy_totals(&self, collections: u64, documents: u64, bytes: u64) {
        let copy = &mut locked(&self.counters).copy;
        (copy.collections_total, copy.documents_total, copy.bytes_total) =
            (collections, documents, bytes);
    }

    /// Sets what was copied before this process.
    pub fn set_copied(&self, collections: u64, documents: u64, bytes: u64) {
        let copy = &mut locked(&self.counters).copy;
        (copy.collections_copied, copy.documents_copied, copy.bytes_copied) =
            (collections, documents, bytes);
    }

    /// Counts documents that were written.
    pub fn add_copied(&self, documents: u64, bytes: u64) {
        let mut counters = locked(&self.counters);
        counters.copy.documents_copied += documents;
        counters.copy.bytes_copied += bytes;
        let bytes = counters.copy.bytes_copied;
        counters.copy_speed.note(bytes);
    }

    /// Takes back what a part that starts again had counted.
    pub fn take_back(&self, documents: u64, bytes: u64) {
        let copy = &mut locked(&self.counters).copy;
        copy.documents_copied = copy.documents_copied.saturating_sub(documents);
        copy.bytes_copied = copy.bytes_copied.saturating_sub(bytes);
    }

    /// Counts a collection of which all that the shard holds is copied.
    pub fn add_collection(&self) {
        locked(&self.counters).copy.collections_copied += 1;
    }

    /// Sets where its tail stands.
    pub fn set_applied(&self, applied: ClusterTime, events: u64) {
        let mut counters = locked(&self.counters);
        counters.applied = counters.applied.max(Some(applied));
        counters.events = events;
        counters.event_speed.note(events);
    }

    /// Sets where the shard itself stands, as it answered who asked then.
    pub fn set_source(&self, asked_at: Instant, optime: ClusterTime) {
        let mut counters = locked(&self.counters);
        counters.source_optime = counters.source_optime.max(Some(optime));
        let applied = counters.applied;
        counters.looks.note(asked_at, optime, applied);
    }

    /// Sets how far back its oplog goes.
    pub fn set_oplog_window(&self, seconds: Option<u64>) {
        locked(&self.counters).oplog_window_seconds = seconds;
    }

    /// Sets or clears what is wrong with it at the moment.
    pub fn set_error(&self, error: Option<Fault>) {
        locked(&self.counters).error = error;
    }

    /// What is wrong with it at the moment.
    pub fn error(&self) -> Option<Fault> {
        locked(&self.counters).error.clone()
    }

    /// Sets why it is read more slowly than was declared, in words.
    pub fn set_brake(&self, why: Option<String>) {
        locked(&self.counters).brake = why;
    }

    /// Sets how many copy it; `None`: nobody does.
    pub fn set_workers(&self, workers: Option<Widths>) {
        locked(&self.counters).workers = workers;
    }

    /// The newest operation of it that is applied.
    pub fn applied(&self) -> Option<ClusterTime> {
        locked(&self.counters).applied
    }

    /// A snapshot.
    #[must_use]
    pub fn snapshot(&self) -> ShardProgress {
        let counters = locked(&self.counters);
        let mut copy = counters.copy.clone();
        // The source's figures are estimates, and it grows meanwhile: what was copied is never more
        // than all.
        copy.documents_total = copy.documents_total.max(copy.documents_copied);
        copy.bytes_total = copy.bytes_total.max(copy.bytes_copied);
        let speed = counters.copy_speed.per_second(copy.bytes_copied);
        let left = copy.bytes_total - copy.bytes_copied;
        copy.eta_seconds = (copy.collections_copied < copy.collections_total && speed > 0.0)
            .then(|| left as f64 / speed);
        ShardProgress {
            name: self.name.clone(),
            copy,
            tail: TailProgress {
                events_applied: counters.events,
                events_per_second: counters.event_speed.per_second(counters.events),
                catch_up_eta_seconds: None,
            },
            lag_seconds: lag(&counters).map(|lag| lag.as_secs_f64()),
            // The source is asked now and then, and has been as far as what was applied of it.
            optime_gap: OptimeGap {
                source: counters.source_optime.max(counters.applied),
                applied: counters.applied,
            },
            oplog_window_seconds: counters.oplog_window_seconds,
            error: counters.error.clone(),
        }
    }
}

impl Progress {
    /// Starts at nothing.
    #[must_use]
    pub fn new(verify: VerifyMode) -> Self {
        Self { verify, run: Mutex::default(), shards: Mutex::default() }
    }

    /// The counters of a shard, made where they are not there yet.
    pub fn shard(&self, name: &ShardName) -> Arc<ShardCounters> {
        let mut shards = locked(&self.shards);
        match shards.iter().find(|shard| shard.name == *name) {
            Some(found) => Arc::clone(found),
            None => {
                let made =
                    Arc::new(ShardCounters { name: name.clone(), counters: Mutex::default() });
                shards.push(Arc::clone(&made));
                shards.sort_by(|a, b| a.name.0.cmp(&b.name.0));
                made
            }
        }
    }

    /// The counters of every shard that is known, in the order of their names.
    pub fn shards(&self) -> Vec<Arc<ShardCounters>> {
        locked(&self.shards).clone()
    }

    /// Sets how many collections there are, and how many of them are copied whole.
    pub fn set_collections(&self, total: u64, copied: u64) {
        locked(&self.run).collections = (total, copied);
    }

    /// Counts a collection that is copied whole.
    pub fn add_collection(&self) {
        locked(&self.run).collections.1 += 1;
    }

    /// Counts indexes found to build.
    pub fn add_indexes(&self, total: u64, built: u64) {
        let indexes = &mut locked(&self.run).indexes;
        indexes.total += total;
        indexes.built += built;
    }

    /// Begins the count of indexes anew.
    pub fn reset_indexes(&self) {
        locked(&self.run).indexes = IndexProgress::default();
    }

    /// Notes settings that wait for the end, in words.
    pub fn add_deferred(&self, settings: impl IntoIterator<Item = String>) {
        locked(&self.run).deferred.extend(settings);
    }

    /// Notes namespaces that the run is about to create.
    pub fn add_created(&self, namespaces: impl IntoIterator<Item = Namespace>) {
        locked(&self.run).created.extend(namespaces);
    }

    /// The namespaces that the run created or is about to.
    pub fn created(&self) -> BTreeSet<Namespace> {
        locked(&self.run).created.clone()
    }

    /// Sets the time as of which the destination is what the source was, between two rounds.
    pub fn set_applied(&self, applied: ClusterTime) {
        let mut run = locked(&self.run);
        run.applied = run.applied.max(Some(applied));
    }

    /// Sets the newest change of a document in scope that was met.
    pub fn set_last_change(&self, time: ClusterTime) {
        let mut run = locked(&self.run);
        run.last_change = run.last_change.max(Some(time));
    }

    /// The newest change of a document in scope that was met by this process.
    pub fn last_change(&self) -> Option<ClusterTime> {
        locked(&self.run).last_change
    }

    /// Sets or clears what is wrong at the moment with the run as a whole. What had got over its
    /// trouble has no shard in trouble either.
    pub fn set_error(&self, error: Option<Fault>) {
        if error.is_none() {
            for shard in self.shards() {
                shard.set_error(None);
            }
        }
        locked(&self.run).error = error;
    }

    /// What is wrong at the moment with the run as a whole.
    pub fn error(&self) -> Option<Fault> {
        locked(&self.run).error.clone()
    }

    /// Why the copy reads more slowly than it was declared to, of each shard that it reads so.
    pub fn brakes(&self) -> Vec<String> {
        let shards = self.shards();
        let is_one = shards.len() == 1;
        let brakes =
            shards.iter().filter_map(|shard| Some((shard, locked(&shard.counters).brake.clone()?)));
        brakes
            .map(|(shard, why)| if is_one { why } else { format!("{}: {why}", shard.name) })
            .collect()
    }

    /// The time as of which the destination is what the source was, between two rounds.
    pub fn applied(&self) -> Option<ClusterTime> {
        locked(&self.run).applied
    }

    /// Whether of every shard everything up to its time is applied.
    pub fn has_applied(&self, times: &Times) -> bool {
        times.iter().all(|(name, time)| self.shard(name).applied() >= Some(*time))
    }

    /// The largest lag of a shard; `None` before all are known.
    pub fn lag(&self) -> Option<Duration> {
        let lags: Option<Vec<Duration>> =
            self.shards().iter().map(|shard| lag(&locked(&shard.counters))).collect();
        lags?.into_iter().max()
    }

    /// A snapshot.
    #[must_use]
    pub fn snapshot(&self) -> EngineProgress {
        let mut shards: Vec<ShardProgress> =
            self.shards().iter().map(|shard| shard.snapshot()).collect();
        let run = locked(&self.run);
        if let [only] = &mut shards[..] {
            only.error = run.error.clone().or(only.error.take());
        }
        let sum =
            |of: fn(&CopyProgress) -> u64| shards.iter().map(|shard| of(&shard.copy)).sum::<u64>();
        let (collections_total, collections_copied) = run.collections;
        let copy = CopyProgress {
            bytes_total: sum(|copy| copy.bytes_total),
            bytes_copied: sum(|copy| copy.bytes_copied),
            documents_total: sum(|copy| copy.documents_total),
            documents_copied: sum(|copy| copy.documents_copied),
            collections_total,
            collections_copied,
            // They are copied side by side: the last one ends the copy.
            eta_seconds: shards.iter().filter_map(|shard| shard.copy.eta_seconds).reduce(f64::max),
        };
        let tail = TailProgress {
            events_applied: shards.iter().map(|shard| shard.tail.events_applied).sum(),
            events_per_second: shards.iter().map(|shard| shard.tail.events_per_second).sum(),
            catch_up_eta_seconds: None,
        };
        let workers = self.shards().into_iter().filter_map(|shard| locked(&shard.counters).workers);
        let copy_workers = workers.reduce(|a, b| Widths {
            readers: a.readers + b.readers,
            writers: a.writers + b.writers,
        });
        let lags: Option<Vec<f64>> = shards.iter().map(|shard| shard.lag_seconds).collect();
        let lag_seconds = lags.and_then(|lags| lags.into_iter().reduce(f64::max));
        EngineProgress {
            copy,
            tail,
            indexes: run.indexes,
            lag_seconds,
            shards,
            error: run.error.clone(),
            created_namespaces: run.created.iter().cloned().collect(),
            deferred_settings: run.deferred.iter().cloned().collect(),
            // What is left to apply now; giving the settings back rebuilds nothing and adds little.
            expected_downtime_seconds: lag_seconds,
            copy_workers,
            ..EngineProgress::none(self.verify)
        }
    }
}

/// How far what is applied lies behind the source, by the source's own clock; no more than
/// something has waited by this one.
fn lag(counters: &OfShard) -> Option<Duration> {
    let applied = counters.applied?;
    let behind = Duration::from_secs(u64::from(counters.source_optime?.seconds_ahead_of(applied)));
    Some(counters.looks.waiting(applied).map_or(behind, |waiting| behind.min(waiting)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Progress;
    use schemas::cluster_time::ClusterTime;
    use schemas::fault::{Fault, FaultCode};
    use schemas::id::ShardName;
    use schemas::spec::VerifyMode;

    fn at(t: u32) -> ClusterTime {
        ClusterTime { t, i: 1 }
    }

    #[test]
    fn a_run_is_its_shards_together() {
        let progress = Progress::new(VerifyMode::Off);
        let [a, b] = ["a", "b"].map(|name| progress.shard(&ShardName(name.to_owned())));
        progress.set_collections(2, 0);
        a.set_copy_totals(2, 10, 100);
        b.set_copy_totals(1, 5, 50);
        a.add_copied(3, 30);
        b.add_copied(5, 50);
        a.set_source(Instant::now(), at(20));
        a.set_applied(at(18), 7);
        assert_eq!(progress.lag(), None, "of one shard it is not known");
        b.set_source(Instant::now(), at(20));
        b.set_applied(at(13), 2);
        let seen = progress.snapshot();
        assert_eq!(
            (seen.copy.collections_total, seen.copy.documents_total, seen.copy.bytes_copied),
            (2, 15, 80)
        );
        assert_eq!((seen.tail.events_applied, seen.lag_seconds), (9, Some(7.0)));
        let times = |a, b| {
            [("a", at(a)), ("b", at(b))]
                .map(|(name, time)| (ShardName(name.to_owned()), time))
                .into()
        };
        assert!(progress.has_applied(&times(18, 13)));
        assert!(!progress.has_applied(&times(18, 14)));
    }

    #[test]
    fn an_idle_source_is_not_behind_by_the_time_between_two_of_its_operations() {
        let progress = Progress::new(VerifyMode::Off);
        let shard = progress.shard(&ShardName("a".to_owned()));
        let lag = || progress.lag().expect("known").as_secs();
        let ago = |seconds| {
            Instant::now()
                .checked_sub(Duration::from_secs(seconds))
                .expect("the machine runs for longer")
        };
        // A start that is an hour behind has never seen everything applied.
        shard.set_applied(at(1_000), 0);
        shard.set_source(ago(40), at(4_600));
        assert_eq!(lag(), 3_600);
        shard.set_applied(at(4_600), 0);
        assert_eq!(lag(), 0);
        // Ten seconds later by the source's clock the next operation is there, since less than a
        // second.
        shard.set_source(ago(2), at(4_600));
        shard.set_source(ago(1), at(4_610));
        assert_eq!(lag(), 2, "no longer than since the look before it");
        // What is not applied for long is behind by as much as the source's clock tells.
        shard.set_source(ago(0), at(4_611));
        assert_eq!(lag(), 2);
        shard.set_applied(at(4_611), 0);
        shard.set_source(ago(30), at(4_611));
        shard.set_source(ago(29), at(4_625));
        assert_eq!(lag(), 14);
    }

    #[test]
    fn looks_at_a_source_that_is_far_ahead_are_thinned_out() {
        let progress = Progress::new(VerifyMode::Off);
        let shard = progress.shard(&ShardName("a".to_owned()));
        shard.set_applied(at(1), 0);
        shard.set_source(Instant::now(), at(1));
        for t in 2..10_000 {
            shard.set_source(Instant::now(), at(t));
        }
        assert!(super::locked(&shard.counters).looks.seen.len() <= super::MOST_LOOKS);
        assert!(
            progress.lag() < Some(Duration::from_secs(9_000)),
            "the look that found all applied is kept"
        );
    }

    #[test]
    fn an_error_of_one_shard_is_its_own() {
        let progress = Progress::new(VerifyMode::Off);
        let [a, b] = ["a", "b"].map(|name| progress.shard(&ShardName(name.to_owned())));
        b.set_error(Some(Fault::new(FaultCode::Unreachable, "gone")));
        let errors: Vec<bool> =
            progress.snapshot().shards.iter().map(|shard| shard.error.is_some()).collect();
        assert_eq!((errors, progress.error(), a.error()), (vec![false, true], None, None));
        progress.set_error(None);
        assert_eq!(b.error(), None);
    }
}
