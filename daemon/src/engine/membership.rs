//! What has changed around a run that reads from a sharded cluster: shards that came or went, and a balancer that is on.

use std::collections::BTreeSet;
use std::path::Path;

use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::observed::{Finding, FindingKind};
use serde_json::{Value, json};

use super::balancer;
use super::topology::Cluster;
use crate::mongo::Deployment;

/// Where a run keeps the shards that it began with.
const FILE: &str = "shards.json";

async fn names(router: &Deployment) -> Result<BTreeSet<ShardName>, Fault> {
    Ok(Cluster::shards_behind(router).await?.into_iter().map(|shard| shard.name).collect())
}

/// Keeps the shards of a sharded source for a run, where it has none yet: a run that is started again began with the first ones.
pub async fn keep(source: &Deployment, run_dir: &Path) -> Result<(), Fault> {
    let path = run_dir.join(FILE);
    if !source.is_sharded() || path.exists() {
        return Ok(());
    }
    let aside = path.with_extension("tmp");
    std::fs::write(&aside, schemas::wire::to_json(&names(source).await?))
        .and_then(|()| std::fs::rename(&aside, &path))
        .map_err(|error| Fault::new(FaultCode::StateDirUnusable, format!("failed to write {}: {error}", path.display())))
}

fn kept(run_dir: &Path) -> Option<BTreeSet<ShardName>> {
    serde_json::from_str(&std::fs::read_to_string(run_dir.join(FILE)).ok()?).ok()
}

/// What is otherwise than when the run began; what cannot be seen now is left out.
pub async fn look(source: &Deployment, run_dir: &Path) -> Vec<Finding> {
    if !source.is_sharded() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if let Ok(balancer) = balancer::look(source).await
        && !balancer.is_still()
    {
        let words = balancer.in_words();
        findings.push(Finding {
            kind: FindingKind::BalancerOn,
            path: "source.balancer".to_owned(),
            expected: json!("off"),
            actual: json!(words),
            message: format!(
                "the source's balancer is {words}: a chunk that it moves while documents are copied ends the run; stop it with \
                 sh.stopBalancer()"
            ),
        });
    }
    if let (Some(before), Ok(now)) = (kept(run_dir), names(source).await) {
        findings.extend(changes(&before, &now));
    }
    findings
}

fn changes(before: &BTreeSet<ShardName>, now: &BTreeSet<ShardName>) -> Vec<Finding> {
    let finding = |kind, shard: &ShardName, expected: Value, actual: Value, message: String| Finding {
        kind,
        path: format!("source.shards.{shard}"),
        expected,
        actual,
        message,
    };
    let added = now.difference(before).map(|shard| {
        let message = format!(
            "shard {shard} was added to the source since the run began, which does not follow it; raise `generation` before data moves there"
        );
        finding(FindingKind::ShardAdded, shard, Value::Null, json!(shard), message)
    });
    let removed = before.difference(now).map(|shard| {
        let message =
            format!("shard {shard} was removed from the source since the run began; raise `generation` to run again without it");
        finding(FindingKind::ShardRemoved, shard, json!(shard), Value::Null, message)
    });
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::id::ShardName;
    use schemas::observed::FindingKind;

    use super::changes;

    #[test]
    fn shards_that_came_and_went_are_named() {
        let shards = |names: &[&str]| names.iter().map(|name| ShardName((*name).to_owned())).collect::<BTreeSet<_>>();
        let found = changes(&shards(&["a", "b"]), &shards(&["b", "c"]));
        let told: Vec<(FindingKind, &str)> = found.iter().map(|one| (one.kind, one.path.as_str())).collect();
        assert_eq!(told, [(FindingKind::ShardAdded, "source.shards.c"), (FindingKind::ShardRemoved, "source.shards.a")]);
        assert!(changes(&shards(&["a"]), &shards(&["a"])).is_empty());
    }
}
