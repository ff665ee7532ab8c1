//! Looks again and again at what of a sharded source no stream reports, once the run follows its
//! changes: what is in the way of a cutover shows before anybody asks for one.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemas::fault::{Fault, FaultCode};
use schemas::spec::MigrationSpec;
use tokio::sync::{Notify, RwLock};

use super::index_trial::Rehearsal;
use crate::engine::catalog::{self, CollectionInfo};
use crate::engine::destination::shard_key_change;
use crate::engine::index::per_shard;
use crate::engine::source::Source;
use crate::engine::source::topology::Cluster;
use crate::mongo::Deployment;

/// Between two looks at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A look takes this part of the time at most: of a source with many collections it is many
/// commands.
const SHARE: u32 = 20;

/// What looks.
#[derive(Debug)]
pub(in crate::engine) struct BlockerWatch {
    source: Arc<Source>,
    destination: Arc<Deployment>,
    spec: Arc<MigrationSpec>,
    tail_lock: Arc<RwLock<()>>,
    begun: Notify,
    /// What was found, in words; `None` before the first look.
    found: Mutex<Option<Vec<String>>>,
}

impl BlockerWatch {
    /// Makes one that has not begun. `tail_lock` stops the tail between two rounds.
    pub(in crate::engine) fn of(
        source: Arc<Source>,
        destination: Arc<Deployment>,
        spec: Arc<MigrationSpec>,
        tail_lock: Arc<RwLock<()>>,
    ) -> Self {
        Self { source, destination, spec, tail_lock, begun: Notify::new(), found: Mutex::default() }
    }

    /// Lets it look from now on: all is copied, and the indexes are built.
    pub(in crate::engine) fn begin(&self) {
        self.begun.notify_one();
    }

    /// Looks until it is dropped.
    pub(in crate::engine) async fn watch(&self) -> Infallible {
        self.begun.notified().await;
        if !self.source.is_sharded() {
            return std::future::pending().await;
        }
        loop {
            let began = Instant::now();
            let found = match self.look().await {
                Ok(found) => found,
                // What could not be looked at is not taken for good.
                Err(fault) => vec![fault],
            };
            let words = found.iter().map(ToString::to_string).collect();
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
            tokio::time::sleep(LOOK_EVERY.max(began.elapsed() * SHARE)).await;
        }
    }

    /// What keeps the run from being ready, in words.
    pub(in crate::engine) fn blockers(&self) -> Vec<String> {
        if !self.source.is_sharded() {
            return Vec::new();
        }
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.clone().unwrap_or_else(|| {
            vec!["the source's shards have not been held against each other yet".to_owned()]
        })
    }

    async fn look(&self) -> Result<Vec<Fault>, Fault> {
        let listed = catalog::list(&self.source.entry, &self.spec.namespaces.scope).await?;
        let collections = listed.into_values().filter(CollectionInfo::has_documents).collect();
        let uneven =
            Rehearsal::of(&self.source, &self.destination, collections).await?.uneven().await?;
        let mut found: Vec<Fault> = Cluster::shards_behind(&self.source.entry)
            .await?
            .into_iter()
            .filter(|shard| shard.is_draining)
            .map(|shard| {
                let message =
                    format!("the source's shard {} is being drained, to be removed", shard.name);
                let remedy =
                    "keep the shard until the cutover, or raise `generation` once it is gone";
                Fault::new(FaultCode::ChunksMoved, message).with_remedy(remedy)
            })
            .collect();
        if !uneven.is_empty() {
            found.push(per_shard::fault(&uneven));
        }
        let (sharding, scope) = (self.spec.sharding.as_ref(), &self.spec.namespaces.scope);
        shard_key_change::refine(
            &self.source.entry,
            &self.destination,
            sharding,
            scope,
            &self.tail_lock,
        )
        .await?;
        found.extend(
            shard_key_change::look(&self.source.entry, &self.destination, sharding, scope).await?,
        );
        Ok(found)
    }
}
