//! Collections that have got another shard key on the source than they have on the destination.
//!
//! Servers from 6.0.14 on report that a collection has another shard key, and it is copied again
//! under that. Older ones do not: its data arrives all the same, and lies by the old key on a
//! sharded destination. Where fields were added to the key (`refineCollectionShardKey`) they are
//! added there, too. Where it was resharded somebody has to decide what is to become of it.

use std::collections::BTreeMap;

use mongodb::bson::{RawDocumentBuf, rawdoc};
use placement::ShardKey;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, Scope};
use schemas::spec::ShardingSpec;
use tokio::sync::RwLock;

use super::shard_collection;
use crate::engine::{catalog, index};
use crate::mongo::Deployment;

/// A collection that is sharded on both sides, and not by the same key.
#[derive(Debug)]
struct Rekeyed {
    namespace: Namespace,
    wanted: ShardKey,
    there: ShardKey,
}

impl Rekeyed {
    /// Whether fields were added to the key alone.
    fn is_refined(&self) -> bool {
        let mut wanted = self.wanted.fields();
        self.there.fields().all(|field| wanted.next() == Some(field)) && wanted.next().is_some()
    }

    fn fault(&self) -> Fault {
        let (wanted, there) =
            (shard_collection::in_words(&self.wanted), shard_collection::in_words(&self.there));
        let message = format!(
            "{} is sharded by {wanted} by now, and on the destination by {there}",
            self.namespace
        );
        Fault::new(FaultCode::ShardKeyUnfit, message)
            .with_remedy("raise `generation` to run again with the new key")
    }

    /// Adds the fields to the key on the destination, once there is the index that the server asks
    /// for.
    async fn refine(&self, source: &Deployment, destination: &Deployment) -> Result<(), Fault> {
        let Self { namespace, wanted, .. } = self;
        tracing::info!(%namespace, key = shard_collection::in_words(wanted), "fields were added \
             to its shard key");
        let Some(info) = catalog::find(destination, namespace).await? else { return Ok(()) };
        let specs = catalog::indexes(source, namespace).await?;
        let own: Vec<RawDocumentBuf> = specs
            .into_iter()
            .filter(|spec| shard_collection::is_of_shard_key(spec, wanted))
            .collect();
        let is_unique =
            destination.sharded_by(namespace).await?.is_some_and(|placed| placed.is_unique);
        if is_unique {
            shard_collection::build_unique(
                destination,
                namespace,
                wanted,
                &own,
                info.has_collation(),
            )
            .await?;
        } else {
            index::build(destination, namespace, &own, info.has_collation()).await?;
        }
        let refine = rawdoc! {
            "refineCollectionShardKey": namespace.to_string(), "key": wanted.pattern().to_owned(),
            "writeConcern": { "w": "majority" },
        };
        destination.raw_command("admin", refine).await.map_err(|e| {
            destination.fault(&format!("adding fields to the shard key of {namespace}"), &e)
        })?;
        if let Some(keys) = &destination.shard_keys {
            keys.set(namespace, destination.sharded_by(namespace).await?);
        }
        if is_unique { index::let_duplicates_in(destination, namespace).await } else { Ok(()) }
    }
}

async fn find(
    source: &Deployment,
    destination: &Deployment,
    sharding: Option<&ShardingSpec>,
    scope: &Scope,
) -> Result<Vec<Rekeyed>, Fault> {
    if !source.is_sharded() || !destination.is_sharded() {
        return Ok(Vec::new());
    }
    let (wanted, there) = tokio::try_join!(source.all_sharded(), destination.all_sharded())?;
    let there: BTreeMap<Namespace, _> = there.into_iter().collect();
    let in_scope = wanted.into_iter().filter(|(namespace, _)| scope.contains(namespace));
    Ok(in_scope
        .filter_map(|(namespace, wanted)| {
            let wanted = shard_collection::declared(sharding, &namespace).unwrap_or(wanted.key);
            let there = there.get(&namespace)?.key.clone();
            (!shard_collection::is_same(&wanted, &there)).then_some(Rekeyed {
                namespace,
                wanted,
                there,
            })
        })
        .collect())
}

/// Says which collections are sharded on both sides, and not by the same key.
pub async fn look(
    source: &Deployment,
    destination: &Deployment,
    sharding: Option<&ShardingSpec>,
    scope: &Scope,
) -> Result<Vec<Fault>, Fault> {
    Ok(find(source, destination, sharding, scope).await?.iter().map(Rekeyed::fault).collect())
}

/// Adds fields to shard keys on the destination where the source has more. `tail_lock` stops the
/// tail between two rounds meanwhile, which names documents by their keys.
pub async fn refine(
    source: &Deployment,
    destination: &Deployment,
    sharding: Option<&ShardingSpec>,
    scope: &Scope,
    tail_lock: &RwLock<()>,
) -> Result<(), Fault> {
    for rekeyed in find(source, destination, sharding, scope)
        .await?
        .iter()
        .filter(|rekeyed| rekeyed.is_refined())
    {
        let _standing_still = tail_lock.write().await;
        rekeyed.refine(source, destination).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Rekeyed;
    use mongodb::bson::{RawDocumentBuf, rawdoc};
    use placement::ShardKey;
    use schemas::namespace::Namespace;

    #[test]
    fn only_fields_that_are_added_behind_refine_a_key() {
        let is_refined = |there: RawDocumentBuf, wanted: RawDocumentBuf| {
            let key = |pattern: &RawDocumentBuf| ShardKey::new(pattern).expect("a key");
            Rekeyed {
                namespace: Namespace::new("shop", "a"),
                wanted: key(&wanted),
                there: key(&there),
            }
            .is_refined()
        };
        assert!(is_refined(rawdoc! { "a": 1 }, rawdoc! { "a": 1, "b": "hashed" }));
        assert!(!is_refined(rawdoc! { "a": 1 }, rawdoc! { "a": 1 }));
        assert!(!is_refined(rawdoc! { "a": 1, "b": 1 }, rawdoc! { "a": 1 }));
        assert!(!is_refined(rawdoc! { "a": 1 }, rawdoc! { "b": 1, "a": 1 }));
        assert!(!is_refined(rawdoc! { "a": 1 }, rawdoc! { "a": "hashed", "b": 1 }));
    }
}
