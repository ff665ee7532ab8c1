//! Tries before the source is blocked what finalizing will do to the destination's indexes: what
//! cannot be given back is to show while the source still takes writes.
//!
//! What finalizing does is in [`index::restore`]; each of its steps that can fail for good has its
//! trial here. Indexes that are not there are built; unique ones are tried; those that a sharded
//! destination cannot keep unique, and those of which the source's shards do not have the same, are
//! named. What depends on no document (expiry, hidden) is tried on a collection of the run's own
//! that has the same definitions and is empty: a server can have what none makes any more.

use std::collections::HashSet;

use mongodb::bson::RawDocumentBuf;
use schemas::fault::Fault;
use schemas::namespace::Namespace;
use tokio::sync::RwLock;

use super::reconcile;
use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::concurrent::{self, Piece};
use crate::engine::destination::shard_collection;
use crate::engine::index::per_shard::{self, OnSomeShards};
use crate::engine::source::Source;
use crate::engine::source::topology::Cluster;
use crate::engine::{capped, index};
use crate::mongo::Deployment;

/// Collections whose indexes are listed at once.
const AT_ONCE: usize = 8;

/// The indexes of the source's collections, and the destination that is to have them.
#[derive(Debug)]
pub(super) struct Rehearsal<'a> {
    source: &'a Source,
    destination: &'a Deployment,
    collections: Vec<(CollectionInfo, Vec<RawDocumentBuf>)>,
}

/// Those that the source lists and the destination has neither by their name nor as another one
/// that must be the only one of its kind until then.
fn missing<'a>(wanted: &'a [RawDocumentBuf], there: &[RawDocumentBuf]) -> Vec<&'a RawDocumentBuf> {
    let is_there = |spec: &RawDocumentBuf| {
        there.iter().any(|other| {
            index::name(other) == index::name(spec) && index::is_same_build(other, spec)
        })
    };
    wanted.iter().filter(|spec| !is_there(spec) && !has_twin(wanted, spec)).collect()
}

/// Whether another index is the same once neither is unique.
fn has_twin(specs: &[RawDocumentBuf], spec: &RawDocumentBuf) -> bool {
    specs.iter().any(|other| {
        index::name(other) != index::name(spec) && index::identity(other) == index::identity(spec)
    })
}

impl<'a> Rehearsal<'a> {
    /// Lists the indexes of these collections of the source.
    pub(super) async fn of(
        source: &'a Source,
        destination: &'a Deployment,
        collections: Vec<CollectionInfo>,
    ) -> Result<Self, Fault> {
        let listings = collections.into_iter().map(
            |info| -> Piece<'_, (CollectionInfo, Vec<RawDocumentBuf>)> {
                Box::pin(async move {
                    let specs = catalog::indexes(&source.entry, &info.namespace).await?;
                    Ok((info, specs))
                })
            },
        );
        let collections = concurrent::all(AT_ONCE, listings.collect()).await?;
        Ok(Self { source, destination, collections })
    }

    fn unique(&self) -> impl Iterator<Item = (&Namespace, &RawDocumentBuf)> {
        let all = self
            .collections
            .iter()
            .flat_map(|(info, specs)| specs.iter().map(|spec| (&info.namespace, spec)));
        all.filter(|(_, spec)| index::is_unique(spec))
    }

    /// Sees that the shard keys of the destination let unique indexes be unique.
    pub(super) fn fit_shard_keys(&self) -> Result<(), Fault> {
        for (namespace, spec) in self.unique() {
            if let Some(placed) = self.destination.shard_key(namespace) {
                let names: Vec<&str> =
                    shard_collection::unfit_unique(&placed.key, std::slice::from_ref(spec))
                        .collect();
                if !names.is_empty() {
                    return Err(shard_collection::unique_fault(namespace, &placed.key, &names));
                }
            }
        }
        Ok(())
    }

    /// Finds the indexes of which the source's shards do not have the same, as far as that is in
    /// the way: one that the router reports and that the destination has can be given back,
    /// whichever shards lack it.
    pub(super) async fn uneven(&self) -> Result<Vec<OnSomeShards>, Fault> {
        if !self.source.is_sharded() {
            return Ok(Vec::new());
        }
        let cluster = Cluster::discover(&self.source.entry).await?;
        let shards: Vec<_> =
            self.source.shards.iter().map(|shard| (&shard.name, &*shard.deployment)).collect();
        let namespaces = self.collections.iter().map(|(info, _)| &info.namespace);
        let mut found = Vec::new();
        for uneven in per_shard::look(&cluster, &shards, namespaces).await? {
            let is_listed = self.collections.iter().any(|(info, specs)| {
                info.namespace == uneven.namespace
                    && specs.iter().any(|spec| index::name(spec) == uneven.index)
            });
            let there = catalog::indexes(self.destination, &uneven.namespace).await?;
            let is_there = there.iter().any(|spec| index::name(spec) == uneven.index);
            if uneven.differs || !is_listed || !is_there {
                found.push(uneven);
            }
        }
        Ok(found)
    }

    async fn missing_now(&self) -> Result<Vec<(&CollectionInfo, RawDocumentBuf)>, Fault> {
        let looks = self.collections.iter().map(
            |(info, specs)| -> Piece<'_, Vec<(&CollectionInfo, RawDocumentBuf)>> {
                Box::pin(async move {
                    let there = catalog::indexes(self.destination, &info.namespace).await?;
                    Ok(missing(specs, &there)
                        .into_iter()
                        .map(|spec| (info, spec.clone()))
                        .collect())
                })
            },
        );
        Ok(concurrent::all(AT_ONCE, looks.collect()).await?.into_iter().flatten().collect())
    }

    /// Builds the indexes that are not on the destination. `caught_up` ends once all is applied
    /// that the source holds when it begins: what the source lists now may not have been told
    /// before. The tail may build the same index meanwhile, which is as well; but what is dropped
    /// is dropped while it stands still, at `tail_lock`: the server would end a build that is under
    /// way with it.
    pub(super) async fn build_missing(
        &self,
        tail_lock: &RwLock<()>,
        caught_up: impl Future<Output = Result<(), Fault>>,
    ) -> Result<(), Fault> {
        if self.missing_now().await?.is_empty() {
            return Ok(());
        }
        caught_up.await?;
        for (info, spec) in self.missing_now().await? {
            let (namespace, name) = (&info.namespace, index::name(&spec));
            tracing::info!(%namespace, index = name, "not on the destination yet; built before \
                 the source is blocked");
            {
                let _standing_still = tail_lock.write().await;
                let there = catalog::indexes(self.destination, namespace).await?;
                if there
                    .iter()
                    .any(|there| index::name(there) == name && !index::is_same_build(there, &spec))
                {
                    // Another one of that name is what finalizing would drop.
                    index::drop_one(self.destination, namespace, name).await?;
                }
            }
            let Err(fault) =
                index::build_one(self.destination, namespace, &spec, info.has_collation()).await
            else {
                continue;
            };
            let still_there = catalog::indexes(&self.source.entry, namespace).await?;
            if still_there.iter().any(|there| index::name(there) == name) {
                return Err(unbuildable(fault, namespace, name));
            }
        }
        Ok(())
    }

    /// Tries whether every unique index can be made so. Between two rounds of the tail, which
    /// `tail_lock` stops, the destination is what the source was at one moment, so that what is
    /// unique there is unique here. The tail goes on between two indexes, so that it does not fall
    /// behind by the time that all of them take.
    pub(super) async fn try_unique(&self, tail_lock: &RwLock<()>) -> Result<(), Fault> {
        for (namespace, spec) in self.unique() {
            let _standing_still = tail_lock.write().await;
            index::try_unique(self.destination, namespace, spec).await?;
        }
        Ok(())
    }
}

impl Rehearsal<'_> {
    /// Gives an empty collection everything that finalizing will give each of the source's. `aside`
    /// is its name; one that a trial before has left is dropped.
    pub(super) async fn try_definitions(&self, aside: &Namespace) -> Result<(), Fault> {
        // Collections that are defined alike are tried once.
        let mut tried = HashSet::new();
        for (info, specs) in &self.collections {
            let series = info.kind == Kind::TimeSeries;
            let expires = info
                .options()
                .is_some_and(|options| matches!(options.get("expireAfterSeconds"), Ok(Some(_))));
            if !expires
                && !info.is_capped()
                && !specs.iter().any(|spec| index::waits_for_end(spec) || has_twin(specs, spec))
            {
                continue;
            }
            let mut definition =
                info.options().map(|options| options.as_bytes().to_vec()).unwrap_or_default();
            definition.push(u8::from(series));
            specs.iter().for_each(|spec| definition.extend_from_slice(spec.as_bytes()));
            if tried.insert(definition) {
                catalog::drop(self.destination, aside).await?;
                let ended = self.try_one(info, specs, aside).await;
                catalog::drop(self.destination, aside).await?;
                ended?;
            }
        }
        Ok(())
    }

    async fn try_one(
        &self,
        info: &CollectionInfo,
        specs: &[RawDocumentBuf],
        aside: &Namespace,
    ) -> Result<(), Fault> {
        let namespace = &info.namespace;
        let told = |fault: Fault| {
            let message = format!(
                "what {namespace} has on the source cannot be given to the destination: {}",
                fault.message
            );
            let remedy = format!(
                "change it on the source (collMod, or the index dropped and made again) so that \
                 the destination takes it, or leave {namespace} out; nothing is blocked"
            );
            if fault.retryable { fault } else { Fault { message, ..fault }.with_remedy(remedy) }
        };
        let there = info.named(aside);
        catalog::create(self.destination, &aside.db, there.create_command()).await.map_err(told)?;
        index::build(self.destination, aside, specs, info.has_collation()).await.map_err(told)?;
        let (unfinished, restored) =
            index::restore_as(specs, self.destination, aside, info.has_collation()).await;
        restored.map_err(told)?;
        for index in unfinished {
            index::finish_unique(self.destination, aside, &index).await.map_err(told)?;
        }
        reconcile::expiry(self.destination, &there).await.map_err(told)?;
        capped::bound::give_back(self.destination, &there).await.map_err(told)?;
        index::check_restored_as(specs, self.destination, aside).await.map_err(told)
    }
}

/// The fault of an index build, with what is to be done where that does not pass by itself.
fn unbuildable(fault: Fault, namespace: &Namespace, index: &str) -> Fault {
    if fault.retryable {
        return fault;
    }
    let remedy = format!(
        "change the documents that it does not fit, or drop index {index} of {namespace} on the \
         source"
    );
    fault.with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::missing;
    use mongodb::bson::{RawDocumentBuf, rawdoc};

    #[test]
    fn an_index_with_a_twin_waits_and_another_one_is_missing() {
        let plain = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1" };
        let unique = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "unique", "unique": true };
        let hashed = rawdoc! { "v": 2, "key": { "b": "hashed" }, "name": "b" };
        let otherwise = rawdoc! { "v": 2, "key": { "c": 1 }, "name": "b" };
        let wanted = [plain.clone(), unique, hashed.clone()];
        let names = |there: &[RawDocumentBuf]| -> Vec<String> {
            missing(&wanted, there)
                .into_iter()
                .map(|spec| spec.get_str("name").unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(names(&[plain.clone(), hashed]), Vec::<String>::new());
        assert_eq!(names(&[plain, otherwise]), ["b"]);
    }
}
