//! What a cutover asks of a run, from the last look before the source is blocked to the indexes
//! made unique behind its users' backs.

pub(super) mod blockers;
pub mod fence;
pub mod give_back;
pub(super) mod index_trial;
pub mod open_transactions;
pub mod reconcile;

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, OWN_DATABASE};
use schemas::observed::Mismatch;
use schemas::spec::{SourceWrites, VerifyMode};

use self::index_trial::Rehearsal;
use self::open_transactions::Found;
use super::catalog::{self, CollectionInfo};
use super::concurrent::{self, Piece};
use super::destination::{guard, shard_key_change, users};
use super::index::{self, per_shard};
use super::run::holder;
use super::run::{MongoRun, Pair};
use super::source::Times;
use super::verify::Until;
use super::verify::definitions::{self, Views};
use super::{SyncReport, capped};
use crate::mongo::{Deployment, timestamp};

/// Between two looks at how far the tail has come, while a cutover waits for it.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// How often definitions that differ are mended before what is left of them is a difference.
const MENDS: u32 = 3;
/// What is few enough to be left to compare while the source is blocked: so many documents, or what
/// so long is enough for, with a source that goes on changing what was compared.
const RECHECK_FEW: usize = 100;
const RECHECK_SHORT: Duration = Duration::from_secs(1);
/// How long a word about it may take to be heard.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// Between two words of how much is left to compare.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at the transactions that are open on the source.
const TRANSACTIONS_POLL: Duration = Duration::from_millis(250);
/// Collections whose settings are given back at once.
const RESTORES: usize = 8;
/// Indexes made unique at once behind its users' backs: each reads a whole index while they work.
const FINISHES: usize = 2;

/// The indexes of a collection that are still to be made unique, and whether it has everything
/// back.
type Restored = (Vec<(Namespace, String)>, Result<(), Fault>);

impl MongoRun {
    /// Does before the source is blocked whatever can fail or take long.
    pub(super) async fn prepare(&self) -> Result<(), Fault> {
        let pair = self.pair().await?;
        self.identity(&pair).await?.hold().await?;
        if self.context.spec.cutover.source_writes == SourceWrites::Block {
            fence::check_available(&pair.source.entry).await?;
            for shard in &pair.source.shards {
                // A router does not report it.
                if let Some(why) = fence::too_low(&shard.deployment).await {
                    return Err(Fault::new(FaultCode::WriteBlockUnavailable, why));
                }
            }
        }
        // Now, too, so that what is wrong with them shows before the source is blocked.
        self.carry_users(&pair.source.entry).await?;
        let collections = self.collections(&pair).await?;
        let caught_up = async {
            self.tell("the source's changes up to now are applied", true).await;
            let notes = pair.source.notes("cutover: prepared").await?;
            self.applied_through(&notes).await?;
            self.tell("indexes that are missing on the destination are built", false).await;
            Ok(())
        };
        if self.check_shard_keys(&pair).await.is_err() {
            // The tail may be about to give it that key.
            self.tell("the source's changes of shard keys are applied", true).await;
            self.applied_through(&pair.source.notes("cutover: keys").await?).await?;
            let (sharding, scope) =
                (self.context.spec.sharding.as_ref(), &self.context.spec.namespaces.scope);
            shard_key_change::refine(
                &pair.source.entry,
                &pair.destination,
                sharding,
                scope,
                &self.tail_lock,
            )
            .await?;
            self.check_shard_keys(&pair).await?;
        }
        // What is still to be copied again for its options takes its time now.
        self.mend_definitions(&pair).await?;
        let rehearsal = Rehearsal::of(&pair.source, &pair.destination, collections).await?;
        rehearsal.fit_shard_keys()?;
        let uneven = rehearsal.uneven().await?;
        if !uneven.is_empty() {
            return Err(per_shard::fault(&uneven));
        }
        rehearsal.build_missing(&self.tail_lock, caught_up).await?;
        // What has changed lately is compared now, so that little is left to compare while the
        // source is blocked.
        self.tell("capped collections are compared with their order", false).await;
        self.keeper.begin_cutover(&self.sides(&pair)).await?;
        self.verifier.cutover_begins().await?;
        self.recheck_ahead(&pair).await?;
        self.tell("unique indexes are tried on the destination", false).await;
        rehearsal.try_unique(&self.tail_lock).await?;
        self.tell("what is given back at the end is tried on the destination", false).await;
        rehearsal.try_definitions(&self.trial()).await?;
        if self.context.spec.cutover.source_writes == SourceWrites::Block {
            // Last, since the next ones may begin at any moment.
            self.wait_for_transactions(&pair).await?;
        }
        Ok(())
    }

    /// Waits until no transaction has been open on the source for long, and says meanwhile what it
    /// waits for. Nothing is blocked yet. Those that stay put the cutover off, by name; what may
    /// not be seen is left to the block's own time limit.
    async fn wait_for_transactions(&self, pair: &Pair) -> Result<(), Fault> {
        let began = Instant::now();
        let mut told: Option<Instant> = None;
        loop {
            let open = match open_transactions::of(&pair.source).await? {
                Found::Open(open) => open,
                Found::Hidden(why) => {
                    tracing::warn!(why, "open transactions cannot be looked for");
                    return Ok(());
                }
            };
            if open.is_empty() {
                return Ok(());
            }
            if began.elapsed() >= self.tuning.open_transactions {
                return Err(open_transactions::fault(&open));
            }
            if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                self.tell(
                    &format!("nothing is blocked yet: {}", open_transactions::words(&open)),
                    true,
                )
                .await;
                told = Some(Instant::now());
            }
            tokio::time::sleep(TRANSACTIONS_POLL).await;
        }
    }

    /// Compares what the source changes until that keeps up with it. Where it does not, the
    /// lifecycle ends the wait.
    async fn recheck_ahead(&self, pair: &Pair) -> Result<(), Fault> {
        let sides = self.sides(pair);
        let mut told: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let compared = self.verifier.recheck(&sides, Until::Slice).await?;
            if compared < RECHECK_FEW {
                return Ok(());
            }
            let left = self.verifier.left_to_compare().await?;
            let per_document = began.elapsed().as_secs_f64() / compared as f64;
            if left as f64 * per_document <= RECHECK_SHORT.as_secs_f64() {
                return Ok(());
            }
            if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
                self.tell(
                    &format!("documents that the source has changed are compared, {left} are left"),
                    true,
                )
                .await;
                told = Some(Instant::now());
            }
        }
    }

    /// Tells what the checks before a cutover are at.
    async fn tell(&self, what: &str, waits: bool) {
        let sender = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.as_ref().map(|running| {
                running.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
            })
        };
        if let Some(sender) = sender {
            // A shell that does not listen must not hold up the work.
            let sent = sender.send(SyncReport::Preparing { what: what.to_owned(), waits });
            let _ = tokio::time::timeout(TOLD_WITHIN, sent).await;
        }
    }

    /// The run's own collection for trials on the destination.
    pub(super) fn trial(&self) -> Namespace {
        Namespace::new(OWN_DATABASE, format!("trial_{}", self.context.run))
    }

    /// Applies and compares what is left once the source takes no more writes. Gives the time of
    /// its last one.
    pub(super) async fn drain_source(&self) -> Result<ClusterTime, Fault> {
        let pair = self.pair().await?;
        self.hold.check(&pair.destination).await?;
        if self.context.spec.cutover.source_writes == SourceWrites::Block {
            // Once more: a failover to a member restored from a backup, or a person, can have
            // lifted it since.
            fence::put_up(&pair.source, self.context.spec.cutover.max_downtime.get()).await?;
        }
        pair.source.check_shards().await?;
        let last = pair.source.notes("cutover: final").await?;
        self.verifier.set_source_stopped(true);
        self.applied_through(&last).await?;
        let seen = self.progress.last_change();
        let scope = &self.context.spec.namespaces.scope;
        self.check_shard_keys(&pair).await?;
        let identity = self.identity(&pair).await?;
        identity.hold().await?;
        let left = self.mend_definitions(&pair).await?;
        let uncapped = reconcile::catalogues(
            &pair.source.entry,
            &pair.destination,
            scope,
            &self.checkpoints,
            &self.progress,
        )
        .await?;
        if !left.is_empty() {
            self.check_definitions(&pair, &uncapped).await?;
        }
        let sides = self.sides(&pair);
        let collections = self.collections(&pair).await?;
        for info in collections.iter().filter(|info| info.is_capped()) {
            let shard = pair.source.home_of(&info.namespace).await?;
            let as_of = timestamp(last[&shard.name]);
            let settle = self.keeper.settle(
                &sides,
                &info.namespace,
                as_of,
                uncapped.contains(&info.namespace),
            );
            let compared = tokio::select! {
                settled = settle => settled?,
                fault = self.until_stopped() => return Err(fault),
            };
            self.verifier.compared_after_block(compared).await?;
        }
        let mark = match self.context.spec.verify.mode {
            VerifyMode::Full => {
                Some(guard::touch_marker(&pair.destination, &self.context.run).await?)
            }
            VerifyMode::Off => None,
        };
        self.verifier.finish(&sides, mark).await?;
        self.checkpoints.store_counts(counts(&pair.destination, &collections).await?).await?;
        self.carry_users(&pair.source.entry).await?;
        // Whatever came since is applied as well; but who has written since may go on, when nothing
        // is applied any more.
        let after = pair.source.notes("cutover: after the final").await?;
        self.applied_through(&after).await?;
        if self.context.spec.namespaces.include_users {
            users::compare(&pair.source.entry, &*self.destination().await?, scope).await?;
        }
        identity.hold().await?;
        match self.context.spec.cutover.source_writes {
            SourceWrites::Block => {
                fence::check_up(&pair.source).await?;
                if self.progress.last_change() > seen {
                    return Err(fence::bypassed(&pair.source.entry));
                }
            }
            SourceWrites::Observe if self.progress.last_change() > seen => {
                return Err(Fault::new(
                    FaultCode::WritesContinued,
                    format!(
                        "a write reached the source ({}) after it was quiet",
                        pair.source.entry.hosts
                    ),
                ));
            }
            SourceWrites::Observe => {}
        }
        let newest = last.into_values().max();
        newest.ok_or_else(|| Fault::new(FaultCode::Internal, "the source has no shard"))
    }

    /// Has the tail give the destination the definitions that differ, whatever was reported of
    /// them. Gives what differs after that.
    async fn mend_definitions(&self, pair: &Pair) -> Result<Vec<Mismatch>, Fault> {
        let sides = self.sides(pair);
        let mut found = definitions::compare(&sides, Views::Compared).await?;
        for _ in 0..MENDS {
            if found.is_empty() {
                break;
            }
            // What is on its way through the tail is no difference.
            self.applied_through(&pair.source.notes("cutover: definitions").await?).await?;
            let again = definitions::compare(&sides, Views::Compared).await?;
            found.retain(|mismatch| again.contains(mismatch));
            if !found.is_empty() {
                // Of another deployment than it was nothing is copied again.
                self.identity(pair).await?.hold().await?;
                let namespaces = found.iter().map(|mismatch| mismatch.namespace.clone()).collect();
                tokio::select! {
                    mended = self.mends.ask(namespaces) => mended?,
                    fault = self.until_stopped() => return Err(fault),
                }
            }
            found = definitions::compare(&sides, Views::Compared).await?;
        }
        Ok(found)
    }

    /// Sees that the definitions of both sides are the same, but for those that are `still` to be
    /// copied again.
    async fn check_definitions(&self, pair: &Pair, still: &[Namespace]) -> Result<(), Fault> {
        let mut left = definitions::compare(&self.sides(pair), Views::Compared).await?;
        left.retain(|mismatch| !still.contains(&mismatch.namespace));
        if left.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = left.iter().map(definitions::in_words).collect();
        let message =
            format!("after everything was applied the definitions differ: {}", named.join("; "));
        Err(Fault::new(FaultCode::VerificationMismatch, message))
    }

    /// Waits until the sync stops, for the fault that this is.
    async fn until_stopped(&self) -> Fault {
        while self.is_running() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let mut fault =
            Fault::new(FaultCode::Internal, "the tail stopped before everything was applied");
        fault.retryable = true;
        fault
    }

    /// Waits until no change has come for so long.
    pub(super) async fn watch_quiet(&self, quiet_for: Duration) -> Result<(), Fault> {
        let source = self.source().await?;
        let mut quiet_since = tokio::time::Instant::now();
        let mut last_change = self.progress.last_change();
        loop {
            let notes = source.notes("cutover: watching for writes").await?;
            self.applied_through(&notes).await?;
            let newest = self.progress.last_change();
            if newest != last_change {
                (last_change, quiet_since) = (newest, tokio::time::Instant::now());
            }
            if quiet_since.elapsed() >= quiet_for {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Gives back what was held off during the sync: of indexes, expiry, and the bounds of capped
    /// collections.
    pub(super) async fn restore(&self) -> Result<(), Fault> {
        let pair = self.pair().await?;
        self.hold.check(&pair.destination).await?;
        if holder::restored(&pair.destination, &self.context.run).await?.is_some() {
            // The destination may be in use since.
            return Ok(());
        }
        self.kept_closed.store(true, Ordering::Release);
        if self.hold.is_new() && self.context.spec.cutover.source_writes == SourceWrites::Block {
            // An earlier start has seen that the source takes no writes; so it must be still.
            fence::check_up(&pair.source).await?;
        }
        // What the source does not have is taken for made away with.
        self.identity(&pair).await?.hold().await?;
        let collections = self.collections(&pair).await?;
        // What one of them cannot be given back keeps the others from nothing: somebody may have
        // the destination opened without it.
        let restores = collections.clone().into_iter().map(|info| -> Piece<'_, Restored> {
            let pair = pair.clone();
            Box::pin(async move {
                let (unfinished, restored) = index::restore(
                    &pair.source.entry,
                    &pair.destination,
                    &info.namespace,
                    info.has_collation(),
                )
                .await;
                let expiry = reconcile::expiry(&pair.destination, &info).await;
                let bound = capped::bound::give_back(&pair.destination, &info).await;
                let checked =
                    index::check_restored(&pair.source.entry, &pair.destination, &info.namespace)
                        .await;
                let unfinished =
                    unfinished.into_iter().map(|index| (info.namespace.clone(), index)).collect();
                Ok((unfinished, restored.and(expiry).and(bound).and(checked)))
            })
        });
        let restored = concurrent::all(RESTORES, restores.collect()).await?;
        let (unfinished, ended): (Vec<_>, Vec<_>) = restored.into_iter().unzip();
        let unfinished: Vec<(Namespace, String)> = unfinished.into_iter().flatten().collect();
        let named: Vec<_> = unfinished
            .iter()
            .map(|(namespace, index)| (namespace.to_string(), index.clone()))
            .collect();
        match self.checkpoints.store_unfinished_unique(unfinished).await {
            // The marker says it as well, and the destination's users do not wait for a disk.
            Err(fault) if fault.code == FaultCode::StateDirUnusable => {
                tracing::warn!(%fault, "what is to be made unique is on the destination only");
            }
            stored => stored?,
        }
        ended.into_iter().collect::<Result<(), Fault>>()?;
        self.hold_counts(&pair, &collections).await?;
        self.kept_closed.store(false, Ordering::Release);
        holder::note_restored(&pair.destination, &self.context.run, &named).await
    }

    /// Lets the destination's users write.
    pub(super) async fn open(&self) -> Result<(), Fault> {
        self.kept_closed.store(false, Ordering::Release);
        let destination = self.destination().await?;
        self.hold.check_holder(&destination).await?;
        give_back::open(&self.context, &destination, self.writer()).await
    }

    /// Sees that no collection has fewer documents than were verified before its settings were
    /// given back.
    async fn hold_counts(&self, pair: &Pair, collections: &[CollectionInfo]) -> Result<(), Fault> {
        let verified = self.checkpoints.counts().await?;
        for (namespace, now) in counts(&pair.destination, collections).await? {
            if verified.get(&namespace.to_string()).is_none_or(|verified| now >= *verified) {
                continue;
            }
            // What servers count by the way is not exact after a crash.
            let (ours, theirs) = tokio::try_join!(
                catalog::count(&pair.source.entry, &namespace),
                catalog::count(&pair.destination, &namespace)
            )?;
            if theirs < ours {
                let message = format!(
                    "{namespace} has {theirs} documents on the destination, and {ours} were \
                     verified"
                );
                return Err(Fault::new(FaultCode::VerificationMismatch, message));
            }
        }
        Ok(())
    }

    /// Waits until of every shard everything up to its time is applied.
    pub(super) async fn applied_through(&self, times: &Times) -> Result<(), Fault> {
        let applied = async {
            while !self.progress.has_applied(times) {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::select! {
            biased;
            () = applied => Ok(()),
            fault = self.until_stopped() => Err(fault),
        }
    }

    /// Sees that what is sharded on both sides is so by the same key.
    pub(super) async fn check_shard_keys(&self, pair: &Pair) -> Result<(), Fault> {
        let (sharding, scope) =
            (self.context.spec.sharding.as_ref(), &self.context.spec.namespaces.scope);
        let found =
            shard_key_change::look(&pair.source.entry, &pair.destination, sharding, scope).await?;
        found.into_iter().next().map_or(Ok(()), Err)
    }

    /// Makes the indexes unique that only refuse duplicates so far, behind the back of the
    /// destination's users.
    pub(super) async fn finish_indexes(&self) -> Result<(), Fault> {
        let mut unfinished = self.checkpoints.unfinished_unique().await?;
        if unfinished.is_empty() {
            let noted = holder::restored(&*self.destination().await?, &self.context.run)
                .await?
                .unwrap_or_default();
            unfinished = noted
                .into_iter()
                .filter_map(|(namespace, index)| Some((namespace.parse().ok()?, index)))
                .collect();
        }
        if unfinished.is_empty() {
            return Ok(());
        }
        let writer = &*self.writer().await?;
        // On a sharded cluster one index of a collection is modified at a time.
        let mut of_collections: BTreeMap<Namespace, Vec<String>> = BTreeMap::new();
        for (namespace, index) in unfinished {
            of_collections.entry(namespace).or_default().push(index);
        }
        let finishes = of_collections.into_iter().map(|(namespace, indexes)| -> Piece<'_, ()> {
            Box::pin(async move {
                for index in indexes {
                    index::finish_unique(writer, &namespace, &index).await?;
                    self.checkpoints.store_finished_unique(&namespace, &index).await?;
                }
                Ok(())
            })
        });
        concurrent::all(FINISHES, finishes.collect()).await.map(drop)
    }

    /// The collections of the source in scope.
    pub(super) async fn collections(&self, pair: &Pair) -> Result<Vec<CollectionInfo>, Fault> {
        let listed = catalog::list(&pair.source.entry, &self.context.spec.namespaces.scope).await?;
        Ok(listed.into_values().filter(CollectionInfo::has_documents).collect())
    }
}

/// Documents of collections on the destination, as it counts them by the way.
async fn counts(
    destination: &Deployment,
    collections: &[CollectionInfo],
) -> Result<Vec<(Namespace, u64)>, Fault> {
    let counts = collections.iter().map(|info| -> Piece<'_, (Namespace, u64)> {
        Box::pin(async move {
            let data = info.data();
            let (documents, _) = catalog::size(destination, &data).await?;
            Ok((data, documents))
        })
    });
    concurrent::all(RESTORES, counts.collect()).await
}
