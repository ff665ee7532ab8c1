//! Checks of sharded deployments: that they are not the same, and that every collection can be
//! sharded as is wanted.

use std::collections::BTreeSet;

use mongodb::bson::doc;
use mongodb::bson::oid::ObjectId;
use schemas::fault::{Fault, FaultCode};
use schemas::observed::Outcome;
use schemas::spec::MigrationSpec;

use super::Findings;
use crate::engine::catalog;
use crate::engine::destination::shard_collection;
use crate::engine::source::topology::Cluster;
use crate::mongo::Deployment;

/// Whether two deployments are one, or one is a shard of the other.
pub(super) async fn is_same(source: &Deployment, destination: &Deployment) -> Result<bool, Fault> {
    match (source.is_sharded(), destination.is_sharded()) {
        (false, false) => match (source.process_id, destination.process_id) {
            (Some(one), Some(other)) => Ok(one == other),
            _ => Err(Fault::new(
                FaultCode::UnsupportedVersion,
                "a server does not tell its process id, so that source and destination cannot be \
                 told apart",
            )),
        },
        (true, true) => Ok(cluster_id(source).await? == cluster_id(destination).await?),
        (true, false) => is_shard_of(destination, source).await,
        (false, true) => is_shard_of(source, destination).await,
    }
}

async fn cluster_id(router: &Deployment) -> Result<ObjectId, Fault> {
    Cluster::id_behind(router).await?.ok_or_else(|| {
        Fault::new(
            FaultCode::UnsupportedVersion,
            format!("the cluster at {} does not tell its id", router.hosts),
        )
    })
}

/// Whether a replica set is one of a cluster's shards, by the names of its members.
async fn is_shard_of(set: &Deployment, router: &Deployment) -> Result<bool, Fault> {
    let hello = set
        .command("admin", doc! { "hello": 1 })
        .await
        .map_err(|e| set.fault("reading the members", &e))?;
    let name = hello.get_str("setName").unwrap_or_default();
    let hosts = hello.get_array("hosts").into_iter().flatten();
    let members: BTreeSet<&str> = hosts.filter_map(|host| host.as_str()).collect();
    let shards = Cluster::shards_behind(router).await?;
    Ok(shards.iter().any(|shard| {
        shard.replica_set == name && shard.hosts.split(',').any(|host| members.contains(host))
    }))
}

/// Whether what is declared in `sharding` has a side that it is about, and whether unique indexes
/// fit the keys.
pub(super) async fn shard_keys(
    findings: &mut Findings,
    source: &Deployment,
    destination: &Deployment,
    spec: &MigrationSpec,
) {
    let name = "shard_keys";
    let declared = spec.sharding.as_ref().map_or(0, |sharding| sharding.collections.len());
    if let Some(fault) = misplaced(source, destination, spec, declared) {
        return findings.fail(name, &fault);
    }
    if !destination.is_sharded() {
        return;
    }
    match unfit(findings, source, destination, spec).await {
        Err(fault) => findings.fail(name, &fault),
        Ok((sharded, faults)) => match faults.first() {
            Some(first) => {
                let message = faults
                    .iter()
                    .map(|fault| fault.message.as_str())
                    .collect::<Vec<_>>()
                    .join("; ");
                findings.fail(name, &Fault { message, ..first.clone() });
            }
            None => {
                let others = findings.catalogue.len() - sharded;
                let message = format!(
                    "{sharded} collections will be sharded on the destination, and {others} will \
                     not"
                );
                findings.note(name, Outcome::Ok, message);
            }
        },
    }
}

fn misplaced(
    source: &Deployment,
    destination: &Deployment,
    spec: &MigrationSpec,
    declared: usize,
) -> Option<Fault> {
    spec.sharding.as_ref()?;
    if !source.is_sharded() && !destination.is_sharded() {
        let message = format!(
            "the block sharding is about sharded clusters, and neither the source ({}) nor the \
             destination ({}) is one",
            source.hosts, destination.hosts
        );
        return Some(
            Fault::new(FaultCode::InvalidConfiguration, message)
                .with_remedy("remove the block `sharding`"),
        );
    }
    (declared > 0 && !destination.is_sharded()).then(|| {
        let message = format!(
            "a shard key is declared, and the destination ({}) is a replica set, which shards \
             nothing",
            destination.hosts
        );
        Fault::new(FaultCode::InvalidConfiguration, message)
            .with_remedy("remove the blocks `collection` in `sharding`")
    })
}

/// How many collections will be sharded, and what is in the way of those that cannot be.
async fn unfit(
    findings: &Findings,
    source: &Deployment,
    destination: &Deployment,
    spec: &MigrationSpec,
) -> Result<(usize, Vec<Fault>), Fault> {
    let (mut sharded, mut faults) = (0, Vec::new());
    for info in &findings.catalogue {
        let namespace = &info.namespace;
        let declared = shard_collection::declared(spec.sharding.as_ref(), namespace);
        if !shard_collection::can_be_sharded(info) {
            if declared.is_some() {
                let what =
                    if info.is_capped() { "a capped collection" } else { info.kind.with_article() };
                faults.push(
                    Fault::new(
                        FaultCode::ShardKeyUnfit,
                        format!("{namespace} is {what}, which cannot be sharded"),
                    )
                    .with_remedy("remove its block `collection` in `sharding`"),
                );
            }
            continue;
        }
        let wanted =
            shard_collection::wanted(source, destination, spec.sharding.as_ref(), namespace)
                .await?;
        let Some(key) = wanted.map(|wanted| wanted.key) else { continue };
        sharded += 1;
        let specs = catalog::indexes(source, namespace).await?;
        let names: Vec<&str> = shard_collection::unfit_unique(&key, &specs).collect();
        if !names.is_empty() {
            faults.push(shard_collection::unique_fault(namespace, &key, &names));
        }
    }
    Ok((sharded, faults))
}
