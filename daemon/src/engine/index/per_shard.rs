//! Indexes that not all shards of a collection have alike.
//!
//! A router builds an index on every shard that owns some of a collection. What fails on one of
//! them, where a document does not fit, stays on the others; and indexes can be built shard by
//! shard, by hand. A router then reports the indexes of one shard only, so that what the source
//! has is a matter of whom one asks: a destination may be unable to build an index that the router
//! tells of, or never be told of one. Both would show when the settings are given back, with the
//! source blocked.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;

use crate::engine::catalog;
use crate::engine::concurrent::{self, Piece};
use crate::engine::element::{Writer, elements};
use crate::engine::index;
use crate::engine::source::ShardSource;
use crate::engine::source::topology::Cluster;
use crate::mongo::{Deployment, append, command};

/// Listings at once.
const AT_ONCE: usize = 8;
/// Fields of an index that say nothing of what it holds.
const ASIDE: [&str; 3] = ["v", "ns", "background"];

/// An index that not all shards of its collection have alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnSomeShards {
    /// The collection.
    pub namespace: Namespace,
    /// The index's name.
    pub index: String,
    /// The shards that have it.
    pub having: Vec<ShardName>,
    /// The shards with some of the collection that do not.
    pub lacking: Vec<ShardName>,
    /// Those that have it do not have the same under that name.
    pub differs: bool,
}

impl std::fmt::Display for OnSomeShards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |shards: &[ShardName]| {
            shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        write!(f, "index {} of {}", self.index, self.namespace)?;
        if self.differs {
            write!(f, " is not the same on the shards {}", names(&self.having))?;
        } else {
            write!(f, " is on {}", names(&self.having))?;
        }
        if self.lacking.is_empty() {
            Ok(())
        } else {
            write!(f, ", and not on {}", names(&self.lacking))
        }
    }
}

/// What is said of such indexes where they are in the way of a cutover.
#[must_use]
pub fn fault(found: &[OnSomeShards]) -> Fault {
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    Fault::new(FaultCode::IndexUneven, told.join("; "))
}

/// The indexes of a collection on every shard that has some of it, as the shards tell them through
/// their router.
async fn listed_through(
    router: &Deployment,
    cluster: &Cluster,
    namespace: &Namespace,
) -> Result<Vec<(ShardName, Vec<RawDocumentBuf>)>, Fault> {
    let mut ask = command("aggregate", &namespace.collection);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$indexStats": {} });
    append(&mut ask, "pipeline", &*pipeline);
    append(&mut ask, "cursor", &*rawdoc! {});
    let told = router.collect(&namespace.db, ask).await;
    let told = told.map_err(|e| {
        router.fault(&format!("reading the indexes of {namespace} on its shards"), &e)
    })?;
    let mut of_shards: BTreeMap<String, Vec<RawDocumentBuf>> = BTreeMap::new();
    for entry in told {
        let (Ok(shard), Ok(spec)) = (entry.get_str("shard"), entry.get_document("spec")) else {
            let message = format!(
                "an index of {namespace} is told through {} without its shard or what it is",
                router.hosts
            );
            return Err(Fault::new(FaultCode::Internal, message));
        };
        if let Some(odd) = catalog::odd_index(namespace, spec) {
            return Err(catalog::odd_indexes(router, &[odd]));
        }
        of_shards.entry(shard.to_owned()).or_default().push(spec.to_owned());
    }
    let holders = cluster.holders(namespace);
    if let Some(silent) = holders.iter().find(|holder| !of_shards.contains_key(&holder.0)) {
        // Every shard that has some of it has the index on `_id`, unless the collection is
        // clustered by that.
        if !catalog::find(router, namespace).await?.is_some_and(|info| info.is_clustered()) {
            let message = format!(
                "shard {silent} does not tell its indexes of {namespace} through the router at {}",
                router.hosts
            );
            let mut fault = Fault::new(FaultCode::SourceReadFailed, message);
            fault.retryable = true;
            return Err(fault);
        }
    }
    let mut of_shard = |holder: &ShardName| of_shards.remove(&holder.0).unwrap_or_default();
    Ok(holders.into_iter().map(|holder| (holder.clone(), of_shard(&holder))).collect())
}

/// Finds them among these collections, where they are sharded. Shards that are not given are left
/// out; of a router all are asked.
pub async fn look(
    cluster: &Cluster,
    shards: &[(&ShardName, &Deployment)],
    namespaces: impl Iterator<Item = &Namespace>,
) -> Result<Vec<OnSomeShards>, Fault> {
    let sharded = namespaces.filter(|namespace| cluster.collections.contains_key(*namespace));
    if let Some((_, router)) = shards.iter().find(|(_, deployment)| deployment.is_sharded()) {
        let listings = sharded.map(|namespace| -> Piece<'_, Vec<OnSomeShards>> {
            Box::pin(async move {
                Ok(uneven(namespace, listed_through(router, cluster, namespace).await?))
            })
        });
        return Ok(concurrent::all(AT_ONCE, listings.collect())
            .await?
            .into_iter()
            .flatten()
            .collect());
    }
    let mut listings: Vec<Piece<'_, (&Namespace, ShardName, Vec<RawDocumentBuf>)>> = Vec::new();
    for namespace in sharded {
        for holder in cluster.holders(namespace) {
            let Some((_, deployment)) = shards.iter().find(|(name, _)| **name == holder) else {
                continue;
            };
            listings.push(Box::pin(async move {
                let specs = catalog::indexes(deployment, namespace).await?;
                Ok((namespace, holder, specs))
            }));
        }
    }
    let mut of_collections: BTreeMap<&Namespace, Vec<(ShardName, Vec<RawDocumentBuf>)>> =
        BTreeMap::new();
    for (namespace, shard, specs) in concurrent::all(AT_ONCE, listings).await? {
        of_collections.entry(namespace).or_default().push((shard, specs));
    }
    Ok(of_collections
        .into_iter()
        .flat_map(|(namespace, of_shards)| uneven(namespace, of_shards))
        .collect())
}

/// Drops the indexes of the destination that may refuse what the source holds: those that it no
/// longer has, and those that not all of its shards have. What the shards have alike by the time of
/// the cutover is built again before it.
pub async fn drop_in_the_way(
    entry: &Deployment,
    shards: &[ShardSource],
    destination: &Deployment,
    namespace: &Namespace,
) -> Result<(), Fault> {
    index::drop_gone(entry, destination, namespace).await?;
    let uneven = of_one(entry, shards, namespace).await?;
    let there = if uneven.is_empty() {
        Vec::new()
    } else {
        catalog::indexes(destination, namespace).await?
    };
    for uneven in uneven {
        if there.iter().any(|spec| index::name(spec) == uneven.index && index::asks_of_values(spec))
        {
            tracing::info!(%uneven, "not held on the destination meanwhile");
            index::drop_one(destination, namespace, &uneven.index).await?;
        }
    }
    Ok(())
}

/// Those of one collection of a source, whose shards these are.
async fn of_one(
    entry: &Deployment,
    shards: &[ShardSource],
    namespace: &Namespace,
) -> Result<Vec<OnSomeShards>, Fault> {
    if !entry.is_sharded() {
        return Ok(Vec::new());
    }
    let cluster = Cluster::discover(entry).await?;
    let shards: Vec<_> = shards.iter().map(|shard| (&shard.name, &*shard.deployment)).collect();
    look(&cluster, &shards, std::iter::once(namespace)).await
}

/// Builds a collection's indexes on the destination. What it cannot have of those that not all
/// shards of the source have is left out, and is in the way of the cutover until it is mended
/// there: a run that fails would not notice that.
pub async fn build(
    entry: &Deployment,
    shards: &[ShardSource],
    destination: &Deployment,
    namespace: &Namespace,
    specs: &[RawDocumentBuf],
    collated: bool,
) -> Result<(), Fault> {
    let fault = match index::build(destination, namespace, specs, collated).await {
        Err(fault) if !fault.retryable => fault,
        built => return built,
    };
    let uneven = of_one(entry, shards, namespace).await?;
    let is_even =
        |spec: &&RawDocumentBuf| !uneven.iter().any(|uneven| uneven.index == index::name(spec));
    let even: Vec<RawDocumentBuf> = specs.iter().filter(is_even).cloned().collect();
    if even.len() == specs.len() {
        return Err(fault);
    }
    tracing::warn!(%namespace, error = %fault.message, "built without the indexes that not all \
         shards have");
    index::build(destination, namespace, &even, collated).await
}

fn uneven(
    namespace: &Namespace,
    mut of_shards: Vec<(ShardName, Vec<RawDocumentBuf>)>,
) -> Vec<OnSomeShards> {
    of_shards.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0));
    let names: BTreeSet<&str> = of_shards
        .iter()
        .flat_map(|(_, specs)| specs.iter().map(|spec| index::name(spec)))
        .collect();
    let mut found = Vec::new();
    for name in names {
        let (mut having, mut lacking, mut forms) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (shard, specs) in &of_shards {
            match specs.iter().find(|spec| index::name(spec) == name) {
                Some(spec) => {
                    having.push(shard.clone());
                    forms.insert(form(spec));
                }
                None => lacking.push(shard.clone()),
            }
        }
        let differs = forms.len() > 1;
        if differs || !lacking.is_empty() {
            found.push(OnSomeShards {
                namespace: namespace.clone(),
                index: name.to_owned(),
                having,
                lacking,
                differs,
            });
        }
    }
    found
}

/// What an index is, whatever the order in which it was said.
fn form(spec: &RawDocument) -> Vec<u8> {
    let fields: BTreeMap<&[u8], RawDocumentBuf> = elements(spec)
        .filter(|field| !ASIDE.iter().any(|aside| aside.as_bytes() == field.name))
        .map(|field| {
            let mut alone = Writer::default();
            alone.copy(&field);
            (field.name, alone.finish())
        })
        .collect();
    fields.into_values().flat_map(RawDocumentBuf::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::uneven;
    use mongodb::bson::rawdoc;
    use schemas::id::ShardName;
    use schemas::namespace::Namespace;

    #[test]
    fn what_one_shard_lacks_or_has_otherwise_is_found() {
        let namespace = Namespace::new("shop", "orders");
        let plain = rawdoc! { "v": 2, "key": { "a": 1 }, "name": "a_1" };
        let hashed = rawdoc! { "v": 2, "key": { "b": "hashed" }, "name": "b" };
        let otherwise = rawdoc! { "name": "a_1", "key": { "a": 1 }, "v": 2, "unique": true };
        let turned = rawdoc! { "name": "a_1", "key": { "a": 1 }, "v": 1 };
        let of = |lists: Vec<Vec<mongodb::bson::RawDocumentBuf>>| {
            let shards = lists.into_iter().enumerate().rev();
            uneven(
                &namespace,
                shards.map(|(place, specs)| (ShardName(format!("s{place}")), specs)).collect(),
            )
        };
        assert_eq!(of(vec![vec![plain.clone()], vec![turned], vec![plain.clone()]]), []);
        let told: Vec<String> =
            of(vec![vec![plain.clone(), hashed.clone()], vec![otherwise], vec![hashed, plain]])
                .iter()
                .map(ToString::to_string)
                .collect();
        assert_eq!(
            told,
            [
                "index a_1 of shop.orders is not the same on the shards s0, s1, s2",
                "index b of shop.orders is on s0, s2, and not on s1",
            ]
        );
    }
}
