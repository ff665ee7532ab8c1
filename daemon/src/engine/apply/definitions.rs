//! Gives the destination definitions that no event reported.
//!
//! A source before 6.0 reports no `create`, `createIndexes`, `dropIndexes` and `collMod`, nor of a
//! view. What it made, changed or dropped so is found by holding the catalogues of both sides
//! against each other: again and again while the run goes on, when the first document of a
//! collection comes that nobody told of, and once more when the source takes no more writes,
//! whatever it reports. What differs is mended here, by the tail and between two of its rounds,
//! since it alone changes definitions during the sync: options by `collMod`, indexes by a new
//! build. What a collection has from its making (a collation, storage options, that it is capped)
//! it gets by a new copy of it.
//!
//! What differs after that all the same is not tried again, and is a mismatch: it keeps a run from
//! its cutover, by its name.

use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;

use mongodb::bson::{RawDocument, RawDocumentBuf};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::cutover::reconcile;
use crate::engine::destination::shard_collection;
use crate::engine::index;
use crate::engine::tail::{Nature, Tail, Traits};
use crate::engine::verify::definitions::options_that_differ;

/// Options that `collMod` gives: the others a collection has from its making.
const BY_COLLMOD: [&str; 8] = [
    "validator",
    "validationLevel",
    "validationAction",
    "changeStreamPreAndPostImages",
    "size",
    "max",
    // Its granularity; what else it has, a new copy would not change.
    "timeseries",
    "expireAfterSeconds",
];

/// Asks of those who compare definitions, for the tail.
#[derive(Debug)]
pub struct Mends {
    asks: mpsc::Sender<Ask>,
    asked: Mutex<mpsc::Receiver<Ask>>,
}

/// Namespaces whose definitions differ.
#[derive(Debug)]
pub(in crate::engine) struct Ask {
    namespaces: BTreeSet<Namespace>,
    done: oneshot::Sender<Result<(), Fault>>,
}

/// What was tried for a namespace, and did not make it the same: its definition on the source.
pub type Tried = HashSet<(Namespace, Vec<u8>)>;

impl Default for Mends {
    fn default() -> Self {
        let (asks, asked) = mpsc::channel(1);
        Self { asks, asked: Mutex::new(asked) }
    }
}

impl Mends {
    /// Has the tail mend the definitions of these namespaces; ends when it has. A tail that does
    /// not run is waited for.
    ///
    /// # Errors
    /// When a server fails meanwhile. What could not be mended is none, and differs still.
    pub async fn ask(&self, namespaces: BTreeSet<Namespace>) -> Result<(), Fault> {
        let (done, answered) = oneshot::channel();
        let stopped = || {
            let mut fault = Fault::new(
                FaultCode::Internal,
                "the tail stopped while it gave the destination definitions",
            );
            fault.retryable = true;
            fault
        };
        self.asks.send(Ask { namespaces, done }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Takes the asks, as the one tail that runs.
    pub(in crate::engine) async fn take(&self) -> tokio::sync::MutexGuard<'_, mpsc::Receiver<Ask>> {
        self.asked.lock().await
    }
}

/// The options that only a new copy gives a collection and that differ.
fn made_otherwise(wanted: &CollectionInfo, there: &CollectionInfo) -> Vec<String> {
    let mut differing = options_that_differ(wanted.options(), there.options());
    // A view is made of them all.
    if wanted.kind != Kind::View {
        differing.retain(|option| !BY_COLLMOD.contains(&option.as_str()));
    }
    differing
}

impl Tail {
    /// Mends what was asked for, and says so. A failure is the tail's own: what is done by half is
    /// done when it starts again.
    pub(in crate::engine) async fn answer(&self, ask: Ask) -> Result<(), Fault> {
        for namespace in &ask.namespaces {
            if let Err(fault) = self.mend(namespace).await {
                let _ = ask.done.send(Err(fault.clone()));
                return Err(fault);
            }
        }
        // Who has asked may be gone by now.
        let _ = ask.done.send(Ok(()));
        Ok(())
    }

    /// Copies again what a tail that ended had begun to.
    pub(in crate::engine) async fn finish_copies(&self) -> Result<(), Fault> {
        let begun: Vec<Namespace> = {
            let recopied = self.recopied.lock().unwrap_or_else(PoisonError::into_inner);
            recopied
                .iter()
                .filter(|(_, recopied)| !recopied.whole)
                .map(|(namespace, _)| namespace.clone())
                .collect()
        };
        for namespace in begun {
            if self.scope.contains(&namespace)
                && catalog::find(&self.source.entry, &namespace)
                    .await?
                    .is_some_and(|info| info.has_documents())
            {
                tracing::info!(%namespace, "it was to be copied again, and is not whole");
                self.copy_anew(&namespace).await?;
            }
        }
        Ok(())
    }

    /// Whether somebody told of a collection, or its first document has come.
    fn is_known(&self, namespace: &Namespace) -> bool {
        self.traits.lock().unwrap_or_else(PoisonError::into_inner).contains_key(namespace)
    }

    /// Makes a collection whose first document comes and whose making was not reported, as the
    /// source has it by now. That may be a later one of its name: then it is mended when that is
    /// seen.
    async fn meet(&self, namespace: &Namespace) -> Result<(), Fault> {
        let found = catalog::find(&self.source.entry, namespace).await?;
        let made = found.filter(|info| {
            info.kind == Kind::Collection
                && catalog::unsupported(info, self.source.entry.version).is_none()
        });
        self.note_created(vec![namespace.clone()]).await?;
        if let Some(info) = made
            && catalog::create(&self.destination, &namespace.db, info.create_command()).await?
        {
            shard_collection::shard(
                &self.source.entry,
                &self.destination,
                self.sharding.as_ref(),
                &info,
            )
            .await?;
        }
        let there = catalog::find(&self.destination, namespace).await?;
        // By now it is one without options, unless it is there: so the first document makes it.
        self.set_traits(namespace, Some(there.as_ref().map(Traits::of).unwrap_or_default()));
        Ok(())
    }

    /// Whether what differs is to be tried: not where that did not help the last time.
    fn is_to_be_tried(&self, key: &(Namespace, Vec<u8>)) -> bool {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone())
    }

    fn has_helped(&self, key: &(Namespace, Vec<u8>)) {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Gives one namespace the source's definitions, where they differ.
    async fn mend(&self, namespace: &Namespace) -> Result<(), Fault> {
        let (wanted, there) = tokio::try_join!(
            catalog::find(&self.source.entry, namespace),
            catalog::find(&self.destination, namespace)
        )?;
        let is_ours = self.progress.created().contains(namespace);
        let Some(wanted) = wanted else {
            // That a collection was dropped is reported by every source; that a view was, is not.
            if is_ours && there.is_some_and(|there| there.kind == Kind::View) {
                tracing::info!(%namespace, "a view that the source has no more");
                catalog::drop(&self.destination, namespace).await?;
                self.set_traits(namespace, None);
            }
            return Ok(());
        };
        if catalog::unsupported(&wanted, self.source.entry.version).is_some()
            || there.is_some() && !is_ours
        {
            return Ok(());
        }
        let Some(there) = there else {
            tracing::info!(%namespace, "not on the destination; copied as it is");
            return self.copy_anew(namespace).await;
        };
        let differing = made_otherwise(&wanted, &there);
        if wanted.kind != there.kind || !differing.is_empty() {
            let key = (namespace.clone(), wanted.raw.as_bytes().to_vec());
            if !self.is_to_be_tried(&key) {
                return Ok(());
            }
            tracing::warn!(%namespace, options = differing.join(", "), "made otherwise on the \
                 source; copied again");
            self.copy_anew(namespace).await?;
            let there = catalog::find(&self.destination, namespace).await?;
            if there.is_some_and(|there| {
                there.kind == wanted.kind && made_otherwise(&wanted, &there).is_empty()
            }) {
                self.has_helped(&key);
            }
            return Ok(());
        }
        if let Some(change) = reconcile::change_of_options(&wanted, &there) {
            tracing::info!(%namespace, "its options are others on the source");
            reconcile::modify(&self.destination, namespace, "giving the source's options", change)
                .await?;
        }
        match wanted.kind {
            Kind::Collection | Kind::TimeSeries => self.mend_indexes(&wanted).await,
            Kind::View => Ok(()),
        }
    }

    async fn mend_indexes(&self, wanted: &CollectionInfo) -> Result<(), Fault> {
        let namespace = &wanted.namespace;
        let (ours, theirs) = tokio::try_join!(
            catalog::indexes(&self.source.entry, namespace),
            catalog::indexes(&self.destination, namespace)
        )?;
        let of_name = |specs: &[RawDocumentBuf], name: &str| {
            specs.iter().find(|spec| index::name(spec) == name).cloned()
        };
        for there in &theirs {
            let is_gone = of_name(&ours, index::name(there)).is_none();
            // From 6.3 on the server makes one of a time-series collection by itself.
            if is_gone
                && wanted.kind != Kind::TimeSeries
                && !shard_collection::is_servers_own(&self.destination, namespace, there, &ours)
            {
                index::drop_one(&self.destination, namespace, index::name(there)).await?;
            }
        }
        for spec in &ours {
            let name = index::name(spec);
            match of_name(&theirs, name) {
                Some(there) if index::is_same_build(spec, &there) => {
                    if index::is_hidden(spec) != index::is_hidden(&there) {
                        index::hide(&self.destination, namespace, name, index::is_hidden(spec))
                            .await?;
                    }
                    continue;
                }
                Some(_) | None => {}
            }
            let key = (namespace.clone(), spec.as_bytes().to_vec());
            if !self.is_to_be_tried(&key) {
                continue;
            }
            tracing::info!(%namespace, index = name, "not so on the destination; built");
            let is_built =
                self.build_again(namespace, spec, of_name(&theirs, name).is_some()).await?;
            let there = of_name(&catalog::indexes(&self.destination, namespace).await?, name);
            if !is_built || there.is_some_and(|there| index::is_same_meanwhile(spec, &there)) {
                self.has_helped(&key);
            }
        }
        Ok(())
    }

    /// Builds an index as it is during the sync; whether that could be done. `replaces`: another
    /// one has its name.
    async fn build_again(
        &self,
        namespace: &Namespace,
        spec: &RawDocument,
        replaces: bool,
    ) -> Result<bool, Fault> {
        if replaces {
            index::drop_one(&self.destination, namespace, index::name(spec)).await?;
        }
        let now = ClusterTime { t: u32::MAX, i: u32::MAX };
        match self.create_indexes(namespace, namespace, &[spec.to_owned()], now).await {
            // Documents that it does not fit are of another state than the one in which the source
            // made it; it stays a difference.
            Err(fault) if !fault.retryable => {
                tracing::warn!(%namespace, index = index::name(spec), error = %fault.message, "it \
                     cannot be built");
                Ok(false)
            }
            built => built.map(|()| true),
        }
    }

    /// Sees before changes of a collection are applied that it is what it is on the source, where
    /// that reports no definitions.
    pub(in crate::engine) async fn see(&self, namespace: &Namespace) -> Result<(), Fault> {
        if self.source.tells_definitions() || !self.scope.contains(namespace) {
            return Ok(());
        }
        if !self.is_known(namespace) {
            return self.meet(namespace).await;
        }
        // Documents come to a collection: the view of that name was dropped.
        if self.traits_of(namespace).nature == Nature::View {
            self.mend(namespace).await
        } else {
            Ok(())
        }
    }
}
