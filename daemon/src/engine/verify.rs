//! Proves the copy: every document of both sides is compared byte for byte, and again whenever it has changed.
//!
//! ```text
//! scan (once, in parts by _id) --unequal--> queue <--changed-- tail
//!                                             |
//!                                    recheck, exact --unequal twice--> open mismatches
//! ```
//!
//! The scan reads both sides in the order of `_id` while the tail goes on, so that what it finds unequal may only be in motion: it
//! goes to the queue. A recheck is exact. It stops the tail between two rounds, when the destination is what the source was at one
//! cluster time, and reads the source as of that time. What the tail changes joins the queue before its checkpoint passes it, so
//! that after the drain only the queue is left to compare. All of it is on disk, and survives a restart.

pub mod definitions;
pub mod difference;
pub mod scan;
pub mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::Fault;
use schemas::namespace::Namespace;
use schemas::observed::{Mismatch, MismatchKind};
use schemas::spec::{MigrationSpec, VerifyMode};
use schemas::status::VerificationProgress;
use tokio::sync::RwLock;

use super::concurrent::{self, Piece};
use super::progress::Progress;
use crate::mongo::{Deployment, append, command, error, timestamp};
use store::{Queued, Store};

/// Documents rechecked at once: the tail stands still for as long as it takes to read them on both sides.
const RECHECK_DOCUMENTS: usize = 1_000;
/// Above this lag comparing waits, and for how long before it looks again: the tail goes first.
const YIELD_AT: Duration = Duration::from_secs(3);
const YIELD_FOR: Duration = Duration::from_millis(200);
/// Pause before the next look at an empty queue.
const IDLE: Duration = Duration::from_millis(100);
/// Open mismatches are compared again this often: somebody may have mended them.
const REVISIT: Duration = Duration::from_secs(5);
/// Options and indexes are compared again this often while the run waits.
const DEFINITIONS_EVERY: Duration = Duration::from_secs(15);
/// The server's codes for a snapshot that a collection does not have (any more).
const SNAPSHOT_GONE: [i32; 2] = [239, 246];
/// Exact comparisons that a document fails before it is a mismatch. One can fall between two events of one transaction.
const FAILURES: u32 = 2;
/// The same where the source cannot be read as of the time that is applied, and so may only be ahead.
const INEXACT_FAILURES: u32 = 10;
/// Namespaces compared at once in a recheck.
const AT_ONCE: usize = 8;

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
    mismatches: AtomicU64,
    pending: AtomicU64,
    definitions: Mutex<Vec<Mismatch>>,
    /// A namespace was copied again, and is to be scanned again.
    rescan: AtomicBool,
}

/// What a verification works on.
#[derive(Debug, Clone)]
pub struct Sides {
    /// Compared with.
    pub source: Arc<Deployment>,
    /// Compared.
    pub destination: Arc<Deployment>,
    /// What was declared.
    pub spec: Arc<MigrationSpec>,
    /// How far the tail has come.
    pub progress: Arc<Progress>,
    /// Held for writing, it stops the tail between two rounds.
    pub gate: Arc<RwLock<()>>,
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
            mismatches: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            definitions: Mutex::default(),
            rescan: AtomicBool::new(false),
        };
        verifier.count_now()?;
        Ok(verifier)
    }

    fn set_stage(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn count_now(&self) -> Result<(), Fault> {
        let counts = self.store.counts()?;
        self.documents_verified.store(counts.verified, Ordering::Relaxed);
        self.pending.store(counts.pending, Ordering::Relaxed);
        self.mismatches.store(counts.mismatches, Ordering::Relaxed);
        Ok(())
    }

    async fn count(self: &Arc<Self>) -> Result<(), Fault> {
        let verifier = Arc::clone(self);
        store::blocking(move || verifier.count_now()).await
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

    /// Forgets what is queued and open of a namespace that is gone.
    pub async fn gone(&self, namespace: &Namespace) -> Result<(), Fault> {
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

    /// Where it stands.
    #[must_use]
    pub fn progress(&self, documents_total: u64) -> VerificationProgress {
        let mismatches = self.open_count();
        let verified = self.documents_verified.load(Ordering::Relaxed);
        let phase = match *self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Off => "off",
            _ if mismatches > 0 => "mismatch",
            Stage::Waiting => "waiting",
            Stage::Comparing => "comparing",
            Stage::Rechecking if self.pending.load(Ordering::Relaxed) > 0 => "rechecking",
            Stage::Rechecking => "clean",
        };
        VerificationProgress {
            mode: self.mode,
            phase: phase.to_owned(),
            documents_total: match self.mode {
                VerifyMode::Off => 0,
                VerifyMode::Full => self.documents_total.load(Ordering::Relaxed).max(documents_total).max(verified),
            },
            documents_verified: verified,
            mismatches,
            pending_rechecks: self.pending.load(Ordering::Relaxed),
        }
    }

    /// Compares what is left once the source takes no more writes and everything is applied. An open mismatch is the fault.
    pub async fn finish(self: &Arc<Self>, sides: &Sides) -> Result<(), Fault> {
        self.recheck(sides, true).await?;
        match self.mismatches(3).await?.as_slice() {
            [] => Ok(()),
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
                    format!("{} mismatches are open, among them {}", self.open_count(), named.join("; ")),
                ))
            }
        }
    }

    fn open_count(&self) -> u64 {
        let definitions = self.definitions.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        self.mismatches.load(Ordering::Relaxed) + definitions
    }

    /// What keeps the run from being ready, in words.
    #[must_use]
    pub fn blockers(&self) -> Vec<String> {
        let mut blockers = Vec::new();
        match *self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Off | Stage::Rechecking => {}
            Stage::Waiting => blockers.push("the copy has not been compared yet".to_owned()),
            Stage::Comparing => blockers.push("the copy is being compared".to_owned()),
        }
        match self.open_count() {
            0 => {}
            1 => blockers.push("1 mismatch is open: `cutover verify` shows it".to_owned()),
            some => blockers.push(format!("{some} mismatches are open: `cutover verify` lists them")),
        }
        blockers
    }

    /// The open mismatches, at most `most`.
    pub async fn mismatches(&self, most: usize) -> Result<Vec<Mismatch>, Fault> {
        let mut open = self.definitions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.extend(self.store.mismatches(most).await?);
        open.truncate(most);
        Ok(open)
    }

    /// Compares everything, then what changes, until the future is dropped or something fails. Begins when the tail has applied what
    /// came during the copy.
    pub async fn run(self: &Arc<Self>, sides: &Sides, copied: schemas::cluster_time::ClusterTime) -> Result<(), Fault> {
        if self.mode == VerifyMode::Off {
            return std::future::pending().await;
        }
        while sides.progress.applied() < Some(copied) || is_behind(sides) {
            tokio::time::sleep(IDLE).await;
        }
        if !self.is_tracking() {
            // From here on changes are queued; what changed before is on the destination already, or comes with the tail.
            let _standing_still = sides.gate.write().await;
            self.store.set_tracking().await?;
            self.tracking.store(true, Ordering::Release);
        }
        self.set_stage(Stage::Comparing);
        // What changes meanwhile is compared meanwhile, so that the queue does not grow with the scan.
        tokio::select! {
            scanned = async {
                self.compare_definitions(sides).await?;
                scan::all(self, sides).await
            } => scanned?,
            stopped = self.keep_rechecking(sides, None) => return stopped,
        }
        // What the scan found unequal is compared exactly before anything is said of it.
        let scanned = self.store.last_place().await?;
        self.keep_rechecking(sides, Some(scanned)).await
    }

    /// Works the queue off, for ever. `scanned`: the last place of it that came from the scan.
    async fn keep_rechecking(self: &Arc<Self>, sides: &Sides, mut scanned: Option<i64>) -> Result<(), Fault> {
        let mut definitions_at = Instant::now();
        let mut revisited = Instant::now();
        loop {
            if scanned.is_some() && self.rescan.swap(false, Ordering::AcqRel) {
                self.set_stage(Stage::Comparing);
                scan::all(self, sides).await?;
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
            let left = self.recheck(sides, false).await?;
            if left == 0 {
                if revisited.elapsed() >= REVISIT {
                    self.store.requeue_mismatches().await?;
                    revisited = Instant::now();
                }
                tokio::time::sleep(IDLE).await;
            }
            if scanned.is_some() && definitions_at.elapsed() >= DEFINITIONS_EVERY {
                self.compare_definitions(sides).await?;
                definitions_at = Instant::now();
            }
        }
    }

    async fn compare_definitions(&self, sides: &Sides) -> Result<(), Fault> {
        // A definition that the tail has not reached yet is no mismatch; between two rounds only the source can be ahead, and what
        // differs is looked at once more after everything that is known now has been applied.
        let mut found = definitions::compare(sides).await?;
        if !found.is_empty() {
            let now = sides.source.majority_optime().await?;
            while sides.progress.applied() < Some(now) {
                tokio::time::sleep(IDLE).await;
            }
            // What another definition has changed meanwhile is looked at the next time.
            let again = definitions::compare(sides).await?;
            found.retain(|mismatch| again.contains(mismatch));
        }
        *self.definitions.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// Rechecks a slice of the queue. Returns how many were in it. `all`: until the queue is empty.
    pub async fn recheck(self: &Arc<Self>, sides: &Sides, all: bool) -> Result<usize, Fault> {
        if self.mode == VerifyMode::Off {
            return Ok(0);
        }
        let mut done = 0;
        loop {
            let slice = self.store.next(RECHECK_DOCUMENTS).await?;
            if slice.is_empty() {
                self.count().await?;
                return Ok(done);
            }
            done += slice.len();
            let mut by_namespace: BTreeMap<Namespace, Vec<Queued>> = BTreeMap::new();
            for queued in slice {
                by_namespace.entry(queued.namespace.clone()).or_default().push(queued);
            }
            {
                let _standing_still = sides.gate.write().await;
                let comparisons = by_namespace.into_iter().map(|(namespace, queued)| -> Piece<'_, ()> {
                    Box::pin(async move { self.compare_exactly(sides, &namespace, queued).await })
                });
                concurrent::all(AT_ONCE, comparisons.collect()).await?;
            }
            self.count().await?;
            if !all {
                return Ok(done);
            }
        }
    }

    /// Compares documents while the tail stands still: the destination is what the source was at the time that is applied.
    async fn compare_exactly(&self, sides: &Sides, namespace: &Namespace, queued: Vec<Queued>) -> Result<(), Fault> {
        let doing = format!("comparing {namespace}");
        let theirs = async {
            let found = sides.destination.collect(&namespace.db, find_ids(namespace, &queued)).await;
            found.map_err(|e| sides.destination.fault(&doing, &e))
        };
        let ours = async {
            let mut find = find_ids(namespace, &queued);
            let Some(applied) = sides.progress.applied() else { return Ok((Vec::new(), false)) };
            append(&mut find, "readConcern", &*rawdoc! { "level": "snapshot", "atClusterTime": timestamp(applied) });
            let found = match sides.source.collect(&namespace.db, find).await {
                Ok(found) => return Ok((found, true)),
                // Capped collections have no snapshots, and one whose definition has just changed none that is old enough.
                Err(e) if error::code(&e).is_some_and(|code| SNAPSHOT_GONE.contains(&code)) => {
                    let mut find = find_ids(namespace, &queued);
                    append(&mut find, "readConcern", &*rawdoc! { "level": "majority" });
                    sides.source.collect(&namespace.db, find).await
                }
                Err(e) => Err(e),
            };
            found.map(|found| (found, false)).map_err(|e| sides.source.fault(&doing, &e))
        };
        let ((ours, exact), theirs) = tokio::try_join!(ours, theirs)?;
        let (ours, theirs) = (by_id(ours), by_id(theirs));
        let failures = if exact { FAILURES } else { INEXACT_FAILURES };
        let mut verdicts = Vec::with_capacity(queued.len());
        for one in queued {
            let (ours, theirs) = (ours.get(one.id.as_bytes()), theirs.get(one.id.as_bytes()));
            let found = match (ours, theirs) {
                (Some(ours), Some(theirs)) if ours.as_bytes() == theirs.as_bytes() => None,
                (None, None) => None,
                (Some(_), None) => Some((MismatchKind::Missing, Vec::new())),
                (None, Some(_)) => Some((MismatchKind::Extra, Vec::new())),
                (Some(ours), Some(theirs)) => Some((MismatchKind::Different, difference::paths(ours, theirs))),
            };
            let is_open = one.failures + 1 >= failures;
            verdicts.push((one, found.map(|(kind, paths)| store::Failure { kind, paths, is_open })));
        }
        self.store.judge(verdicts).await
    }
}

/// Whether the tail has so much to do that comparing waits.
pub(super) fn is_behind(sides: &Sides) -> bool {
    sides.progress.lag().is_some_and(|lag| lag > YIELD_AT)
}

fn by_id(documents: Vec<RawDocumentBuf>) -> BTreeMap<Vec<u8>, RawDocumentBuf> {
    documents.into_iter().map(|document| (only_id(&document).into_bytes(), document)).collect()
}

/// A document `{_id: …}` with this one's `_id`.
pub(super) fn only_id(document: &RawDocument) -> RawDocumentBuf {
    let mut id = RawDocumentBuf::new();
    if let Ok(Some(value)) = document.get("_id") {
        append(&mut id, "_id", value);
    }
    id
}

fn find_ids(namespace: &Namespace, queued: &[Queued]) -> RawDocumentBuf {
    let mut ids = RawArrayBuf::new();
    for one in queued {
        if let Ok(Some(id)) = one.id.get("_id") {
            ids.push(id);
        }
    }
    let mut find = command("find", &namespace.collection);
    append(&mut find, "filter", &*rawdoc! { "_id": { "$in": ids } });
    find
}
