//! Where a run is, in counters that readers and writers raise and the shell takes snapshots of.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::spec::VerifyMode;
use schemas::status::{CopyProgress, IndexProgress, OptimeGap, TailProgress};

use crate::engine::{EngineProgress, ShardProgress};

/// Speeds are taken over this long: shorter jumps with every batch, longer lags behind what happens.
const SPEED_WINDOW: Duration = Duration::from_secs(10);

/// A count over the last seconds.
#[derive(Debug, Default)]
struct Speed {
    samples: VecDeque<(Instant, u64)>,
}

impl Speed {
    fn note(&mut self, count: u64) {
        let now = Instant::now();
        // Ten samples a second are plenty.
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) > Duration::from_millis(100)) {
            self.samples.push_back((now, count));
        }
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > SPEED_WINDOW) {
            self.samples.pop_front();
        }
    }

    /// A second's worth, over the window; 0 where nothing was noted lately.
    fn per_second(&self, count: u64) -> f64 {
        let Some((first_at, first)) = self.samples.iter().find(|(at, _)| at.elapsed() <= SPEED_WINDOW) else { return 0.0 };
        let seconds = first_at.elapsed().as_secs_f64();
        if seconds < 0.2 { 0.0 } else { count.saturating_sub(*first) as f64 / seconds }
    }
}

#[derive(Debug, Default)]
struct Counters {
    shard: Option<ShardName>,
    copy: CopyProgress,
    copy_speed: Speed,
    events: u64,
    event_speed: Speed,
    indexes: IndexProgress,
    source_optime: Option<ClusterTime>,
    applied: Option<ClusterTime>,
    last_change: Option<ClusterTime>,
    oplog_window_seconds: Option<u64>,
    created: BTreeSet<Namespace>,
    deferred: BTreeSet<String>,
    error: Option<Fault>,
    brake: Option<String>,
}

/// The counters of one run.
#[derive(Debug)]
pub struct Progress {
    verify: VerifyMode,
    counters: Mutex<Counters>,
}

impl Progress {
    /// Starts at nothing.
    #[must_use]
    pub fn new(verify: VerifyMode) -> Self {
        Self { verify, counters: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        // Counters hold no invariant that a panic could break.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the source's replica set.
    pub fn set_shard(&self, name: &str) {
        self.lock().shard = Some(ShardName(name.to_owned()));
    }

    /// Sets what there is to copy.
    pub fn set_copy_totals(&self, collections: u64, documents: u64, bytes: u64) {
        let copy = &mut self.lock().copy;
        (copy.collections_total, copy.documents_total, copy.bytes_total) = (collections, documents, bytes);
    }

    /// Sets what was copied before this process.
    pub fn set_copied(&self, collections: u64, documents: u64, bytes: u64) {
        let copy = &mut self.lock().copy;
        (copy.collections_copied, copy.documents_copied, copy.bytes_copied) = (collections, documents, bytes);
    }

    /// Counts documents that were written.
    pub fn add_copied(&self, documents: u64, bytes: u64) {
        let mut counters = self.lock();
        counters.copy.documents_copied += documents;
        counters.copy.bytes_copied += bytes;
        let bytes = counters.copy.bytes_copied;
        counters.copy_speed.note(bytes);
    }

    /// Takes back what a part that starts again had counted.
    pub fn take_back(&self, documents: u64, bytes: u64) {
        let copy = &mut self.lock().copy;
        copy.documents_copied = copy.documents_copied.saturating_sub(documents);
        copy.bytes_copied = copy.bytes_copied.saturating_sub(bytes);
    }

    /// Counts a collection that is copied whole.
    pub fn add_collection(&self) {
        self.lock().copy.collections_copied += 1;
    }

    /// Counts indexes found to build.
    pub fn add_indexes(&self, total: u64, built: u64) {
        let indexes = &mut self.lock().indexes;
        indexes.total += total;
        indexes.built += built;
    }

    /// Begins the count of indexes anew.
    pub fn reset_indexes(&self) {
        self.lock().indexes = IndexProgress::default();
    }

    /// Notes settings that wait for the end, in words.
    pub fn add_deferred(&self, settings: impl IntoIterator<Item = String>) {
        self.lock().deferred.extend(settings);
    }

    /// Notes namespaces that the run is about to create.
    pub fn add_created(&self, namespaces: impl IntoIterator<Item = Namespace>) {
        self.lock().created.extend(namespaces);
    }

    /// The namespaces that the run created or is about to.
    pub fn created(&self) -> BTreeSet<Namespace> {
        self.lock().created.clone()
    }

    /// Sets where the tail stands.
    pub fn set_applied(&self, applied: ClusterTime, events: u64) {
        let mut counters = self.lock();
        counters.applied = counters.applied.max(Some(applied));
        counters.events = events;
        counters.event_speed.note(events);
    }

    /// Sets where the source stands.
    pub fn set_source(&self, optime: ClusterTime) {
        let mut counters = self.lock();
        counters.source_optime = counters.source_optime.max(Some(optime));
    }

    /// Sets the newest change of a document in scope that was met.
    pub fn set_last_change(&self, time: ClusterTime) {
        let mut counters = self.lock();
        counters.last_change = counters.last_change.max(Some(time));
    }

    /// The newest change of a document in scope that was met by this process.
    pub fn last_change(&self) -> Option<ClusterTime> {
        self.lock().last_change
    }

    /// Sets how far back the source's oplog goes.
    pub fn set_oplog_window(&self, seconds: Option<u64>) {
        self.lock().oplog_window_seconds = seconds;
    }

    /// Sets or clears what is wrong at the moment.
    pub fn set_error(&self, error: Option<Fault>) {
        self.lock().error = error;
    }

    /// The source's name, once it is known.
    pub fn shard_name(&self) -> Option<String> {
        self.lock().shard.as_ref().map(|name| name.0.clone())
    }

    /// What is wrong at the moment.
    pub fn error(&self) -> Option<Fault> {
        self.lock().error.clone()
    }

    /// Sets why the copy reads more slowly than it was declared to, in words.
    pub fn set_brake(&self, why: Option<String>) {
        self.lock().brake = why;
    }

    /// Why the copy reads more slowly than it was declared to.
    pub fn brake(&self) -> Option<String> {
        self.lock().brake.clone()
    }

    /// The newest operation applied.
    pub fn applied(&self) -> Option<ClusterTime> {
        self.lock().applied
    }

    /// The lag; `None` before both ends are known.
    pub fn lag(&self) -> Option<Duration> {
        let counters = self.lock();
        lag(&counters).map(|seconds| Duration::from_secs(u64::from(seconds)))
    }

    /// A snapshot.
    #[must_use]
    pub fn snapshot(&self) -> EngineProgress {
        let counters = self.lock();
        let mut copy = counters.copy.clone();
        // The source's figures are estimates, and it grows meanwhile: what was copied is never more than all.
        copy.documents_total = copy.documents_total.max(copy.documents_copied);
        copy.bytes_total = copy.bytes_total.max(copy.bytes_copied);
        let speed = counters.copy_speed.per_second(copy.bytes_copied);
        let left = copy.bytes_total - copy.bytes_copied;
        copy.eta_seconds = (copy.collections_copied < copy.collections_total && speed > 0.0).then(|| left as f64 / speed);
        let lag_seconds = lag(&counters).map(f64::from);
        let tail = TailProgress {
            events_applied: counters.events,
            events_per_second: counters.event_speed.per_second(counters.events),
            catch_up_eta_seconds: None,
        };
        let shards = counters
            .shard
            .iter()
            .map(|name| ShardProgress {
                name: name.clone(),
                copy: copy.clone(),
                tail: tail.clone(),
                lag_seconds,
                optime_gap: OptimeGap { source: counters.source_optime, applied: counters.applied },
                oplog_window_seconds: counters.oplog_window_seconds,
                error: counters.error.clone(),
            })
            .collect();
        EngineProgress {
            copy,
            tail,
            indexes: counters.indexes,
            lag_seconds,
            shards,
            created_namespaces: counters.created.iter().cloned().collect(),
            deferred_settings: counters.deferred.iter().cloned().collect(),
            // What is left to apply now; giving the settings back rebuilds nothing and adds little.
            expected_downtime_seconds: lag_seconds,
            ..EngineProgress::none(self.verify)
        }
    }
}

fn lag(counters: &Counters) -> Option<u32> {
    Some(counters.source_optime?.seconds_ahead_of(counters.applied?))
}
