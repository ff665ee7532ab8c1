//! One run's work from its start points to its tail: catalogue, copy, indexes, changes. Begins
//! wherever the checkpoints say.

pub(super) mod report;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::spec::MigrationSpec;
use tokio::sync::{RwLock, mpsc};
use tokio_util::sync::CancellationToken;

use super::apply::definitions::Mends;
use super::capped::aside;
use super::capped::bound::{self, Bound};
use super::capped::keeper::Keeper;
use super::catalog;
use super::checkpoint::{Checkpoints, ShardRow};
use super::copy::Restarts;
use super::destination::duplicate_fields::DuplicateFields;
use super::progress::Progress;
use super::run::identity::Identity;
use super::source::{Source, Times};
use super::tail::{Tail, Traits};
use super::tuning::Tuning;
use super::verify::{Sides, Verifier};
use crate::mongo::Deployment;

/// Collections created, listed or sized at once: small commands, each mostly a wait.
pub(super) const SMALL_COMMANDS: usize = 8;
/// Readers, each with its writer, that a copy begins with unless the declaration says otherwise:
/// two for each core, since a pair mostly waits for its servers, between bounds that fit the memory
/// bound. How many there are then is found by trying.
const WORKERS: std::ops::RangeInclusive<usize> = 4..=8;

/// How long errors that may pass are waited out before the run is said to have failed: longer than
/// an election.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between tries double from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The list of shards is compared this often.
const SHARDS_EVERY: Duration = Duration::from_secs(5);

/// What a sync needs.
#[derive(Debug, Clone)]
pub struct Sync {
    /// Read from.
    pub source: Arc<Source>,
    /// Written to.
    pub destination: Arc<Deployment>,
    /// What was declared.
    pub spec: Arc<MigrationSpec>,
    /// How far it has come.
    pub checkpoints: Checkpoints,
    /// Where progress is counted.
    pub progress: Arc<Progress>,
    /// Held for writing, it stops the tail between two rounds.
    pub tail_lock: Arc<RwLock<()>>,
    /// Knows whether both are what they were.
    pub identity: Arc<Identity>,
    /// Proves the copy.
    pub verifier: Arc<Verifier>,
    /// Looks after the order of capped collections.
    pub keeper: Arc<Keeper>,
    /// Asks the tail for definitions that no event reported.
    pub mends: Arc<Mends>,
    /// Ends it.
    pub stop: CancellationToken,
    /// Its bounds.
    pub tuning: Tuning,
    /// Is told what it has reached.
    pub milestones: mpsc::UnboundedSender<Milestone>,
    /// Shards whose copy somebody wants to be begun again.
    pub restarts: Arc<Restarts>,
}

/// What a sync reports on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Milestone {
    /// All documents in scope were copied once.
    Copied,
    /// All indexes that do not wait for the cutover are built.
    Indexed,
    /// The copy of one shard of several stopped; the others go on.
    ShardStopped(ShardName, Fault),
}

impl Sync {
    /// Works until it is stopped, or fails for good.
    pub async fn run(&self) -> Result<(), Fault> {
        let ended = tokio::select! {
            ended = self.work() => ended,
            other = self.identity.watch() => Err(other),
        };
        unless_stopped(ended, &self.stop)
    }

    async fn work(&self) -> Result<(), Fault> {
        let shards: BTreeSet<_> = self.source.names().cloned().collect();
        if let Some(gone) =
            self.progress.shards().iter().find(|shard| !shards.contains(shard.name()))
        {
            let message = format!(
                "the shard {} is no longer there, and the run has read from it",
                gone.name()
            );
            return Err(Fault::new(FaultCode::ChunksMoved, message));
        }
        for name in &shards {
            self.progress.shard(name);
        }
        let copied = tokio::select! {
            () = self.stop.cancelled() => {
                return Ok(());
            }
            copied = self.until_copied() => copied?,
        };
        let tail = self.patiently(|| Box::pin(self.tail(&copied)));
        let verify =
            self.patiently(|| Box::pin(async { self.verifier.run(&self.sides(), &copied).await }));
        let order =
            self.patiently(|| Box::pin(async { self.keeper.watch(&self.sides(), &copied).await }));
        tokio::select! {
            ended = tail => ended,
            ended = verify => ended,
            ended = order => ended,
            fault = self.watch_shards() => Err(fault),
        }
    }

    /// Waits until the source has another shard than it had: nobody follows that one.
    async fn watch_shards(&self) -> Fault {
        loop {
            tokio::time::sleep(SHARDS_EVERY).await;
            match self.source.check_shards().await {
                Err(fault) if !fault.retryable => return fault,
                // Whether the router answers is watched elsewhere; before the end it is asked once
                // more.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// What the verification works on.
    fn sides(&self) -> Sides {
        Sides {
            source: Arc::clone(&self.source),
            destination: Arc::clone(&self.destination),
            spec: Arc::clone(&self.spec),
            progress: Arc::clone(&self.progress),
            tail_lock: Arc::clone(&self.tail_lock),
            mends: Arc::clone(&self.mends),
        }
    }

    /// Copies what is not copied yet. Gives the times by which the documents of each shard had been
    /// read.
    async fn until_copied(&self) -> Result<Times, Fault> {
        self.patiently(|| {
            Box::pin(async {
                self.identity.hold_reachable().await?;
                // Writes of a process that died, or of a try that was given up, must have ended.
                self.destination.wait_for_writes(&format!("{}:", self.destination.tag)).await?;
                self.destination.read_shard_keys().await?;
                self.copy().await
            })
        })
        .await?;
        let rows = self.rows().await?;
        let copied = self.source.names().zip(rows).map(|(name, row)| {
            let copied = row.copied.ok_or_else(|| {
                Fault::new(FaultCode::Internal, "a copy ended and its end was not stored")
            });
            Ok((name.clone(), copied?))
        });
        copied.collect()
    }

    /// Where the shards' tails stand, in the order of the shards.
    async fn rows(&self) -> Result<Vec<ShardRow>, Fault> {
        let mut rows = Vec::with_capacity(self.source.shards.len());
        for name in self.source.names() {
            let row = self.checkpoints.shard(&name.0).await?;
            rows.push(row.ok_or_else(|| {
                Fault::new(FaultCode::Internal, format!("{name} has no start point"))
            })?);
        }
        Ok(rows)
    }

    /// Tries again what may pass, for as long as there is patience; time in which it went well
    /// gives patience back.
    async fn patiently<'a, T>(
        &self,
        work: impl Fn() -> BoxFuture<'a, Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.patiently_with(&|fault| self.progress.set_error(fault), work).await
    }

    /// The same, telling `show` of what is wrong meanwhile, and when it is no more.
    pub(super) async fn patiently_with<'a, T>(
        &self,
        show: &(dyn Fn(Option<Fault>) + Send + std::marker::Sync),
        work: impl Fn() -> BoxFuture<'a, Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let mut pause = PAUSES.0;
        let mut failing_since: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let fault = match work().await {
                Ok(done) => {
                    show(None);
                    return Ok(done);
                }
                Err(fault) => fault,
            };
            if began.elapsed() > PATIENCE {
                (failing_since, pause) = (None, PAUSES.0);
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if !fault.retryable || since.elapsed() > PATIENCE || self.stop.is_cancelled() {
                return Err(fault);
            }
            tracing::warn!(code = %fault.code, error = %fault.message, "trying again");
            show(Some(fault));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Readers and writers that a copy begins with, of all shards together.
    pub(super) fn workers(&self) -> usize {
        match self.spec.copy.parallelism {
            Some(parallelism) => usize::from(parallelism),
            None => {
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                (cores * 2).clamp(*WORKERS.start(), *WORKERS.end())
            }
        }
    }

    async fn tail(&self, copied: &Times) -> Result<(), Fault> {
        self.identity.hold().await?;
        self.destination.wait_for_writes(&format!("{}:", self.destination.tag)).await?;
        self.destination.read_shard_keys().await?;
        let listed = catalog::list(&self.destination, &self.spec.namespaces.scope).await?;
        let created = self.progress.created();
        aside::drop_left(&self.destination, &self.spec.namespaces.scope, created.iter().cloned())
            .await?;
        for info in listed.values().filter(|info| created.contains(&info.namespace)) {
            if let Some(bound) = info.options().and_then(Bound::of) {
                // Made before a crash that came before this, or bounded by somebody since.
                bound::lift(&self.destination, &info.namespace, bound).await?;
            }
        }
        let traits: HashMap<_, _> =
            listed.into_iter().map(|(namespace, info)| (namespace, Traits::of(&info))).collect();
        let recopied = self.checkpoints.recopied().await?.into_iter().collect();
        let copied = copied.values().copied().max();
        let tail = Tail {
            source: Arc::clone(&self.source),
            destination: Arc::clone(&self.destination),
            checkpoints: self.checkpoints.clone(),
            progress: Arc::clone(&self.progress),
            scope: self.spec.namespaces.scope.clone(),
            copied: copied
                .ok_or_else(|| Fault::new(FaultCode::Internal, "the source has no shard"))?,
            traits: Mutex::new(traits),
            recopied: Mutex::new(recopied),
            records: Mutex::default(),
            keeper: Arc::clone(&self.keeper),
            duplicate_fields: DuplicateFields::load(&self.checkpoints).await?,
            tail_lock: Arc::clone(&self.tail_lock),
            verifier: Arc::clone(&self.verifier),
            mends: Arc::clone(&self.mends),
            tried: Mutex::default(),
            stop: self.stop.clone(),
            rate_limit: self.spec.copy.rate_limit,
            sharding: self.spec.sharding.clone(),
            tuning: self.tuning.clone(),
        };
        tail.follow(&self.rows().await?).await
    }
}

/// How a sync ended that may have been told to stop: what went wrong meanwhile and may pass is met
/// again when it starts.
fn unless_stopped(ended: Result<(), Fault>, stop: &CancellationToken) -> Result<(), Fault> {
    match ended {
        Err(fault) if fault.retryable && stop.is_cancelled() => {
            tracing::info!(
                code = %fault.code, error = %fault.message, "stopped while trying again",
            );
            Ok(())
        }
        ended => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::unless_stopped;
    use schemas::fault::{Fault, FaultCode};
    use tokio_util::sync::CancellationToken;

    #[test]
    fn what_may_pass_is_no_failure_of_a_sync_that_was_stopped() {
        let stop = CancellationToken::new();
        let fault = |retryable| {
            let mut fault = Fault::new(FaultCode::SourceReadFailed, "listing the indexes");
            fault.retryable = retryable;
            Err(fault)
        };
        assert!(unless_stopped(fault(true), &stop).is_err());
        stop.cancel();
        assert_eq!(unless_stopped(fault(true), &stop), Ok(()));
        assert!(unless_stopped(fault(false), &stop).is_err());
        assert_eq!(unless_stopped(Ok(()), &stop), Ok(()));
    }
}
