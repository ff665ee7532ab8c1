//! Proves the copy: every document of both sides is compared byte for byte, and again whenever it
//! has changed.
//!
//! ```text
//! scan (once, in parts by _id) --unequal--> queue <--changed-- tail
//!                                             |
//!                                    recheck, exact --unequal twice--> open mismatches
//! ```
//!
//! The scan reads both sides in the order of `_id` while the tail goes on, so that what it finds
//! unequal may only be in motion: it goes to the queue. A recheck is exact. It stops the tail
//! between two rounds, when the destination is what the source was at one cluster time, and reads
//! the source as of that time. What the tail changes joins the queue before its checkpoint passes
//! it, so that after the drain only the queue is left to compare. What others write to the
//! destination joins it as well: see [`foreign_writes`]. All of it is on disk, and survives a
//! restart.

pub mod definitions;
pub mod difference;
mod foreign_writes;
pub mod own_writes;
mod reader;
mod recheck;
pub mod scan;
mod status;
pub mod store;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::RawDocumentBuf;
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::namespace::Namespace;
use schemas::observed::{ForeignWrites, Mismatch};
use schemas::spec::{MigrationSpec, VerifyMode};
use tokio::sync::{RwLock, watch as watch_channel};

use self::foreign_writes::Watch;
use self::own_writes::OwnWrites;
use super::apply::definitions::Mends;
use super::catalog::buckets_of;
use super::progress::Progress;
use super::source::{Source, Times};
use crate::mongo::Deployment;
use definitions::Views;
use store::Store;
use store::tally::{Tallies, Tally};

/// Above this lag comparing waits, and for how long before it looks again: the tail goes first.
const YIELD_AT: Duration = Duration::from_secs(3);
const YIELD_FOR: Duration = Duration::from_millis(200);
/// Pause before the next look at an empty queue.
const IDLE: Duration = Duration::from_millis(100);
/// Between two notes to shards that are waited for.
const WAKE_EVERY: Duration = Duration::from_millis(500);
/// Open mismatches are compared again this often: somebody may have mended them.
const REVISIT: Duration = Duration::from_secs(5);
/// Options and indexes are compared again this often while the run waits.
const DEFINITIONS_EVERY: Duration = Duration::from_secs(15);
/// Where it stands is counted anew at most this often: a queue of hundreds of thousands takes its
/// time to count.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// What the verification does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Off,
    Waiting,
    Comparing,
    Rechecking,
}

/// Proves one run's copy.
#[derive(Debug)]
pub struct Verifier {
    mode: VerifyMode,
    store: Store,
    /// Changes are queued from when this is set: what changed before is met by the scan.
    tracking: AtomicBool,
    stage: Mutex<Stage>,
    documents_total: AtomicU64,
    documents_verified: AtomicU64,
    /// Documents among them that are open mismatches.
    unequal: AtomicU64,
    mismatches: AtomicU64,
    pending: AtomicU64,
    definitions: Mutex<Vec<Mismatch>>,
    /// A namespace was copied again, and is to be scanned again.
    rescan: AtomicBool,
    /// Somebody else has changed a definition.
    look_at_definitions: AtomicBool,
    tallies: Mutex<Tallies>,
    foreign: Mutex<ForeignWrites>,
    counted: Mutex<Option<Instant>>,
    /// Since when whole collections are compared, and how many documents stood compared then.
    scanning: Mutex<Option<(Instant, u64)>>,
    /// The source takes no more writes.
    is_source_stopped: AtomicBool,
    /// Up to when the time spent on that is stored.
    spent_until: Mutex<Instant>,
    /// What this process writes to the destination.
    own: Arc<OwnWrites>,
    /// How far the destination's own stream was read.
    watched: watch_channel::Sender<Option<ClusterTime>>,
}

/// How much of the queue is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// A slice of it, while the source goes on.
    Slice,
    /// All of it, once the source takes no more writes.
    Empty,
}

/// What a verification works on.
#[derive(Debug, Clone)]
pub struct Sides {
    /// Compared with.
    pub source: Arc<Source>,
    /// Compared.
    pub destination: Arc<Deployment>,
    /// What was declared.
    pub spec: Arc<MigrationSpec>,
    /// How far the tail has come.
    pub progress: Arc<Progress>,
    /// Held for writing, it stops the tail between two rounds.
    pub tail_lock: Arc<RwLock<()>>,
    /// Asks the tail for definitions that no event reported.
    pub mends: Arc<Mends>,
}

impl Sides {
    /// The definitions that differ, and do so still once everything is applied that was known when
    /// they were seen first.
    pub(super) async fn differing_definitions(&self, views: Views) -> Result<Vec<Mismatch>, Fault> {
        // A definition that the tail has not reached yet is no mismatch; between two rounds only
        // the source can be ahead.
        let mut found = definitions::compare(self, views).await?;
        if !found.is_empty() {
            self.catch_up().await?;
            // What another definition has changed meanwhile is looked at the next time.
            let again = definitions::compare(self, views).await?;
            found.retain(|mismatch| again.contains(mismatch));
        }
        Ok(found)
    }

    /// Waits until all that the source holds now is applied.
    pub(super) async fn catch_up(&self) -> Result<(), Fault> {
        let now = self.source.majority_optimes().await?;
        while !self.progress.has_applied(&now) {
            tokio::time::sleep(IDLE).await;
        }
        Ok(())
    }
}

impl Verifier {
    /// Opens a run's verification where it was left.
    pub fn open(mode: VerifyMode, run_dir: &std::path::Path) -> Result<Self, Fault> {
        let store = Store::open(run_dir)?;
        let verifier = Self {
            mode,
            tracking: AtomicBool::new(store.is_tracking()?),
            store,
            stage: Mutex::new(if mode == VerifyMode::Off { Stage::Off } else { Stage::Waiting }),
            documents_total: AtomicU64::new(0),
            documents_verified: AtomicU64::new(0),
            unequal: AtomicU64::new(0),
            mismatches: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            definitions: Mutex::default(),
            rescan: AtomicBool::new(false),
            look_at_definitions: AtomicBool::new(false),
            tallies: Mutex::default(),
            foreign: Mutex::default(),
            counted: Mutex::default(),
            scanning: Mutex::default(),
            is_source_stopped: AtomicBool::new(false),
            spent_until: Mutex::new(Instant::now()),
            own: Arc::default(),
            watched: watch_channel::Sender::new(None),
        };
        verifier.count_now()?;
        Ok(verifier)
    }

    /// Whether a comparison of everything is still to come or under way. Where nothing is compared,
    /// none ever is, whatever asks for it.
    fn is_comparing(&self) -> bool {
        if self.mode == VerifyMode::Off {
            return false;
        }
        matches!(
            *self.stage.lock().unwrap_or_else(PoisonError::into_inner),
            Stage::Waiting | Stage::Comparing
        ) || self.rescan.load(Ordering::Acquire)
    }

    fn set_stage(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn count_now(&self) -> Result<(), Fault> {
        let counts = self.store.counts()?;
        self.documents_verified.store(counts.verified, Ordering::Relaxed);
        self.pending.store(counts.pending, Ordering::Relaxed);
        self.mismatches.store(counts.mismatches, Ordering::Relaxed);
        self.unequal.store(counts.unequal, Ordering::Relaxed);
        *self.tallies.lock().unwrap_or_else(PoisonError::into_inner) = counts.tallies;
        *self.foreign.lock().unwrap_or_else(PoisonError::into_inner) =
            self.store.foreign_writes()?;
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// What is to be told of the commands that change the destination.
    #[must_use]
    pub fn observer(&self) -> Arc<OwnWrites> {
        Arc::clone(&self.own)
    }

    async fn count_now_and_then(self: &Arc<Self>) -> Result<(), Fault> {
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.is_some_and(|at| at.elapsed() < COUNT_EVERY) {
            Ok(())
        } else {
            self.count().await
        }
    }

    async fn count(self: &Arc<Self>) -> Result<(), Fault> {
        let verifier = Arc::clone(self);
        store::blocking(move || verifier.count_now()).await
    }

    /// How many documents wait to be compared again.
    pub async fn left_to_compare(self: &Arc<Self>) -> Result<u64, Fault> {
        self.count().await?;
        Ok(self.pending.load(Ordering::Relaxed))
    }

    /// Whether the tail must tell of what it changes.
    #[must_use]
    pub fn is_tracking(&self) -> bool {
        self.tracking.load(Ordering::Acquire)
    }

    /// Queues documents that the tail has changed. Before the checkpoint passes them.
    pub async fn changed(&self, documents: Vec<(Namespace, RawDocumentBuf)>) -> Result<(), Fault> {
        if documents.is_empty() {
            return Ok(());
        }
        self.pending.fetch_add(documents.len() as u64, Ordering::Relaxed);
        self.store.queue(documents).await
    }

    /// Queues documents that the comparison of whole collections found unequal.
    async fn queue_unequal(
        &self,
        namespace: &Namespace,
        documents: Vec<RawDocumentBuf>,
    ) -> Result<(), Fault> {
        self.changed(documents.into_iter().map(|id| (namespace.clone(), id)).collect()).await
    }

    /// Forgets what is queued and open of a namespace that is gone, and of its buckets where it had
    /// any.
    pub async fn gone(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.store.forget(buckets_of(namespace)).await?;
        self.store.forget(namespace.clone()).await
    }

    /// Takes what is queued of a namespace along to its new name.
    pub async fn renamed(&self, from: &Namespace, to: &Namespace) -> Result<(), Fault> {
        self.store.forget(to.clone()).await?;
        self.store.rename(from.clone(), to.clone()).await
    }

    /// Compares a namespace anew that was copied again.
    pub async fn copied_again(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.store.forget(namespace.clone()).await?;
        self.rescan.store(true, Ordering::Release);
        Ok(())
    }

    /// Compares everything anew: what stands compared may have been changed since.
    async fn compare_anew(&self) -> Result<(), Fault> {
        self.store.forget_parts().await?;
        self.rescan.store(true, Ordering::Release);
        Ok(())
    }

    /// Compares the definitions as soon as may be.
    fn look_at_definitions(&self) {
        self.look_at_definitions.store(true, Ordering::Release);
    }

    /// Compares what is left once the source takes no more writes and everything is applied. An
    /// open mismatch is the fault.
    pub async fn finish(
        self: &Arc<Self>,
        sides: &Sides,
        mark: Option<ClusterTime>,
    ) -> Result<(), Fault> {
        // A daemon that has just started looks first at what stands compared.
        while self.is_comparing() {
            tokio::time::sleep(IDLE).await;
        }
        // What is open may have been mended since it was looked at the last time.
        self.store.requeue_mismatches().await?;
        self.recheck(sides, Until::Empty).await?;
        if let Some(mark) = mark {
            // What others wrote until now is known once the destination's own stream has reported
            // our mark.
            let mut watched = self.watched.subscribe();
            let told = tokio::select! {
                told = watched.wait_for(|watched| *watched >= Some(mark)) => told.map(drop),
                never = wake(&sides.destination) => match never {},
            };
            told.map_err(|_| {
                Fault::new(
                    schemas::fault::FaultCode::Internal,
                    "nobody follows the destination's changes",
                )
            })?;
            self.recheck(sides, Until::Empty).await?;
        }
        // What differed when they were looked at may have been on its way.
        let is_wanted = self.look_at_definitions.swap(false, Ordering::AcqRel)
            || self.has_differing_definitions();
        if is_wanted || self.foreign_writes().open > 0 {
            self.compare_definitions(sides).await?;
        }
        self.count().await?;
        match self.mismatches(3).await?.as_slice() {
            [] => match self.blockers().as_slice() {
                [] => Ok(()),
                some => Err(Fault::new(
                    schemas::fault::FaultCode::VerificationMismatch,
                    some.join("; "),
                )),
            },
            some => {
                let named: Vec<String> = some
                    .iter()
                    .map(|one| match &one.id {
                        Some(id) => format!("{} _id {id} ({})", one.namespace, one.kind.as_str()),
                        None => format!("{} ({})", one.namespace, one.kind.as_str()),
                    })
                    .collect();
                Err(Fault::new(
                    schemas::fault::FaultCode::VerificationMismatch,
                    format!(
                        "{} mismatches are open, among them {}",
                        self.open_count(),
                        named.join("; ")
                    ),
                ))
            }
        }
    }

    /// Counts documents that were compared as a whole, in their order, after the source took no
    /// more writes.
    pub async fn compared_after_block(&self, documents: u64) -> Result<(), Fault> {
        self.store.add(Tally::AfterBlock, i64::try_from(documents).unwrap_or(i64::MAX)).await
    }

    /// A cutover begins: what is compared after its block is counted anew.
    pub async fn cutover_begins(&self) -> Result<(), Fault> {
        self.set_source_stopped(false);
        self.store.reset(Tally::AfterBlock).await
    }

    /// Notes whether the source takes no more writes: what is found equal from then on is so for
    /// the last time.
    pub fn set_source_stopped(&self, stopped: bool) {
        self.is_source_stopped.store(stopped, Ordering::Release);
    }

    /// Compares everything, then what changes, until the future is dropped or something fails.
    /// Begins when the tail has applied what came during the copy.
    pub async fn run(self: &Arc<Self>, sides: &Sides, copied: &Times) -> Result<(), Fault> {
        if self.mode == VerifyMode::Off {
            return std::future::pending().await;
        }
        while !sides.progress.has_applied(copied) || is_behind(sides) {
            tokio::time::sleep(IDLE).await;
        }
        if !self.is_tracking() {
            // From here on changes are queued; what changed before is on the destination already,
            // or comes with the tail.
            let _standing_still = sides.tail_lock.write().await;
            self.store.set_tracking().await?;
            self.tracking.store(true, Ordering::Release);
        }
        self.set_stage(Stage::Comparing);
        let watch = Watch::begin(self, sides).await?;
        // What changes meanwhile is compared meanwhile, so that the queue does not grow with the
        // scan.
        let compare = async {
            tokio::select! {
                scanned = async {
                    self.compare_definitions(sides).await?;
                    self.scan(sides).await
                } => scanned?,
                stopped = self.keep_rechecking(sides, None) => return stopped,
            }
            // What the scan found unequal is compared exactly before anything is said of it.
            let scanned = self.store.last_place().await?;
            self.keep_rechecking(sides, Some(scanned)).await
        };
        tokio::select! {
            ended = compare => ended,
            ended = watch.follow() => ended,
        }
    }

    /// Compares whole collections, where they do not stand compared.
    async fn scan(self: &Arc<Self>, sides: &Sides) -> Result<(), Fault> {
        let began = Instant::now();
        let verified = self.documents_verified.load(Ordering::Relaxed);
        *self.scanning.lock().unwrap_or_else(PoisonError::into_inner) = Some((began, verified));
        *self.spent_until.lock().unwrap_or_else(PoisonError::into_inner) = began;
        scan::all(self, sides).await?;
        *self.scanning.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.count().await
    }

    /// The time spent on comparing whole collections since this was asked the last time.
    fn spent_scanning(&self) -> Duration {
        let now = Instant::now();
        let mut until = self.spent_until.lock().unwrap_or_else(PoisonError::into_inner);
        now.duration_since(std::mem::replace(&mut until, now))
    }

    /// Works the queue off, for ever. `scanned`: the last place of it that came from the scan.
    async fn keep_rechecking(
        self: &Arc<Self>,
        sides: &Sides,
        mut scanned: Option<i64>,
    ) -> Result<(), Fault> {
        let mut definitions_at = Instant::now();
        let mut revisited = Instant::now();
        loop {
            if scanned.is_some() && self.rescan.swap(false, Ordering::AcqRel) {
                self.set_stage(Stage::Comparing);
                self.scan(sides).await?;
                scanned = Some(self.store.last_place().await?);
            }
            if let Some(scanned) = scanned
                && self.store.next(1).await?.first().is_none_or(|oldest| oldest.seq > scanned)
            {
                self.set_stage(Stage::Rechecking);
            }
            while is_behind(sides) {
                tokio::time::sleep(YIELD_FOR).await;
            }
            let left = self.recheck(sides, Until::Slice).await?;
            if left == 0 {
                if revisited.elapsed() >= REVISIT {
                    self.store.requeue_mismatches().await?;
                    revisited = Instant::now();
                }
                tokio::time::sleep(IDLE).await;
            }
            let is_wanted = self.look_at_definitions.swap(false, Ordering::AcqRel);
            let every = if self.has_differing_definitions() { REVISIT } else { DEFINITIONS_EVERY };
            if is_wanted || scanned.is_some() && definitions_at.elapsed() >= every {
                self.compare_definitions(sides).await?;
                definitions_at = Instant::now();
            }
        }
    }

    fn has_differing_definitions(&self) -> bool {
        !self.definitions.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    async fn compare_definitions(self: &Arc<Self>, sides: &Sides) -> Result<(), Fault> {
        let tells = sides.source.tells_definitions();
        let views = if tells { Views::Aside } else { Views::Compared };
        let mut found = sides.differing_definitions(views).await?;
        // Where every change is reported, what differs is not the source's doing, and is for a
        // person to know.
        if !tells && !self.is_source_stopped.load(Ordering::Acquire) {
            let strange = self.store.foreign_definitions().await?;
            let ours = found
                .iter()
                .map(|mismatch| &mismatch.namespace)
                .filter(|namespace| !strange.contains(namespace));
            let ours: BTreeSet<Namespace> = ours.cloned().collect();
            if !ours.is_empty() {
                sides.mends.ask(ours).await?;
                found = sides.differing_definitions(views).await?;
            }
        }
        let differing = found.iter().map(|mismatch| mismatch.namespace.clone()).collect();
        *self.definitions.lock().unwrap_or_else(PoisonError::into_inner) = found;
        if !self.look_at_definitions.load(Ordering::Acquire) && !self.rescan.load(Ordering::Acquire)
        {
            self.store.settle_definitions(differing).await?;
            self.count().await?;
        }
        Ok(())
    }
}

/// Has every shard of a cluster tell how far it is, again and again: one without writes would do so
/// every ten seconds only. Where that may not be done, those are waited for.
async fn wake(destination: &Deployment) -> std::convert::Infallible {
    while destination.is_sharded() {
        if let Err(fault) = destination.oplog_note("cutover: waking idle shards").await {
            tracing::debug!(error = %fault, "idle shards are not woken");
        }
        tokio::time::sleep(WAKE_EVERY).await;
    }
    std::future::pending().await
}

/// Whether the tail has so much to do that comparing waits.
pub(super) fn is_behind(sides: &Sides) -> bool {
    sides.progress.lag().is_some_and(|lag| lag > YIELD_AT)
}
