//! Whether the shards of a sharded source have the same indexes.
//!
//! One that only some have is no reason to wait with the copy: it can be built or dropped
//! meanwhile, and the run looks again before it is ready. Two that differ under one name leave open
//! which of them is meant.

use schemas::observed::Outcome;

use super::Findings;
use crate::engine::index::per_shard;
use crate::engine::source::topology::Cluster;
use crate::mongo::Deployment;

/// Indexes that are named at most.
const MOST_NAMED: usize = 12;

/// Holds the shards' indexes of all collections in scope against each other.
pub(super) async fn check(findings: &mut Findings, source: &Deployment) {
    let name = "indexes_of_shards";
    if !source.is_sharded() {
        return;
    }
    let shards: Vec<_> =
        findings.shards.iter().map(|(name, deployment)| (name, deployment)).collect();
    let namespaces = findings.catalogue.iter().map(|info| &info.namespace);
    let looked = match Cluster::discover(source).await {
        Ok(cluster) => per_shard::look(&cluster, &shards, namespaces).await,
        Err(fault) => Err(fault),
    };
    let mut found = match looked {
        Ok(found) => found,
        Err(fault) => return findings.fail(name, &fault),
    };
    // What cannot go on first.
    found.sort_by_key(|uneven| !uneven.differs);
    let is_open = found.first().is_some_and(|uneven| uneven.differs);
    let more = found.len().saturating_sub(MOST_NAMED);
    found.truncate(MOST_NAMED);
    let mut fault = per_shard::fault(&found);
    if more > 0 {
        fault.message = format!("{}; and {more} more", fault.message);
    }
    if found.is_empty() {
        findings.note(name, Outcome::Ok, "every shard has the same indexes of what it has some of");
    } else if is_open {
        findings.fail(name, &fault);
    } else {
        let remedy = format!(
            "{}; until then the run is not ready where the destination cannot have it",
            fault.remedy
        );
        findings.warn(name, fault.message, remedy);
    }
}
