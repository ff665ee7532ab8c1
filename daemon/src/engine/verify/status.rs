//! Says where a verification stands: its progress, what it has found, and what keeps the run from
//! being ready.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::fault::Fault;
use schemas::observed::{ForeignWrite, ForeignWrites, Mismatch};
use schemas::report::Proof;
use schemas::spec::VerifyMode;
use schemas::status::VerificationProgress;

use super::store::tally::Tally;
use super::{Stage, Verifier};

/// Shorter than this a comparison's speed says nothing about its end.
const SPEED_AFTER: Duration = Duration::from_secs(2);

impl Verifier {
    /// What it has done so far.
    #[must_use]
    pub fn proof(&self) -> Proof {
        let tallies = *self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let compared = self.documents_verified.load(Ordering::Relaxed);
        let began = self.is_tracking();
        Proof {
            documents_compared: compared,
            documents_compared_again: tallies.count(Tally::ComparedAgain),
            generations: u64::from(began) + tallies.count(Tally::Generations),
            mismatches_found: tallies.count(Tally::MismatchesFound),
            mismatches_open: self.open_count(),
            foreign_writes: tallies.count(Tally::ForeignWrites),
            compared_after_block: tallies.count(Tally::AfterBlock),
            duration_seconds: Duration::from_millis(tallies.count(Tally::ScanMs)).as_secs_f64(),
            ..Proof::none(self.mode)
        }
    }

    /// What others have written to the destination.
    #[must_use]
    pub fn foreign_writes(&self) -> ForeignWrites {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The foreign writes that are named, newest first.
    pub async fn named_foreign_writes(&self, most: usize) -> Result<Vec<ForeignWrite>, Fault> {
        self.store.named_foreign_writes(most).await
    }

    /// Seconds that the comparison of whole collections has left at the speed so far.
    fn seconds_left(&self) -> Option<f64> {
        let (since, then) = (*self.scanning.lock().unwrap_or_else(PoisonError::into_inner))?;
        let verified = self.documents_verified.load(Ordering::Relaxed);
        let total = self.documents_total.load(Ordering::Relaxed);
        let seconds = since.elapsed().as_secs_f64();
        let done = verified.saturating_sub(then);
        (since.elapsed() >= SPEED_AFTER && done > 0)
            .then(|| total.saturating_sub(verified) as f64 * seconds / done as f64)
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
                VerifyMode::Full => {
                    self.documents_total.load(Ordering::Relaxed).max(documents_total).max(verified)
                }
            },
            // Compared is not equal: what differs is not proved.
            documents_verified: verified.saturating_sub(self.unequal.load(Ordering::Relaxed)),
            mismatches,
            pending_rechecks: self.pending.load(Ordering::Relaxed),
        }
    }

    pub(super) fn open_count(&self) -> u64 {
        let definitions =
            self.definitions.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        self.mismatches.load(Ordering::Relaxed) + definitions
    }

    /// What keeps the run from being ready, in words.
    #[must_use]
    pub fn blockers(&self) -> Vec<String> {
        let mut blockers = Vec::new();
        match *self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Off | Stage::Rechecking => {}
            Stage::Waiting => blockers.push("the copy has not been compared yet".to_owned()),
            Stage::Comparing => blockers.push(self.comparing()),
        }
        match self.open_count() {
            0 => {}
            1 => blockers.push("1 mismatch is open: `cutover verify` shows it".to_owned()),
            some => {
                blockers.push(format!("{some} mismatches are open: `cutover verify` lists them"))
            }
        }
        let foreign = self.foreign_writes();
        if foreign.open > 0 && self.mode == VerifyMode::Full {
            let newest = foreign
                .named
                .first()
                .map(|one| format!(", the newest in {}", one.namespace))
                .unwrap_or_default();
            let (count, are) = if foreign.open == 1 {
                ("1 write".to_owned(), "is")
            } else {
                (format!("{} writes", foreign.open), "are")
            };
            blockers.push(format!(
                "{count} of somebody else to the destination {are} not found equal yet{newest}: \
                 `cutover verify` names them"
            ));
        }
        blockers
    }

    /// How far the comparison of whole collections is, in words.
    fn comparing(&self) -> String {
        let verified = self.documents_verified.load(Ordering::Relaxed);
        let total = self.documents_total.load(Ordering::Relaxed).max(verified);
        if total == 0 {
            return "the copy is being compared".to_owned();
        }
        let left = match self.seconds_left() {
            Some(seconds) if seconds >= 90.0 => format!(", about {:.0} min left", seconds / 60.0),
            Some(seconds) => format!(", about {:.0} s left", seconds.ceil()),
            None => String::new(),
        };
        format!("the copy is being compared: {verified} of {total} documents{left}")
    }

    /// The open mismatches, at most `most`.
    pub async fn mismatches(&self, most: usize) -> Result<Vec<Mismatch>, Fault> {
        let mut open = self.definitions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.extend(self.store.mismatches(most).await?);
        open.truncate(most);
        Ok(open)
    }
}
