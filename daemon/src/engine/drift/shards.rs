//! What has changed around a run that reads from a sharded cluster: shards that came or went, and a
//! balancer that is on.

use std::collections::BTreeSet;
use std::path::Path;

use schemas::durable_file;
use schemas::fault::Fault;
use schemas::id::ShardName;
use schemas::observed::{Finding, FindingKind};
use serde_json::{Value, json};

use super::unreadable;
use crate::engine::source::balancer;
use crate::engine::source::topology::Cluster;
use crate::mongo::Deployment;
use crate::state_fault;

/// Where a run keeps the shards that it began with.
const FILE: &str = "shards.json";

async fn names(router: &Deployment) -> Result<BTreeSet<ShardName>, Fault> {
    Ok(Cluster::shards_behind(router).await?.into_iter().map(|shard| shard.name).collect())
}

/// Keeps the shards of a sharded source for a run, where it has none yet: a run that is started
/// again began with the first ones.
///
/// Where they cannot be read any more, or are not there, they are those that the run has `read`
/// from, if it has begun.
pub async fn keep(
    source: &Deployment,
    run_dir: &Path,
    read: &BTreeSet<ShardName>,
) -> Result<(), Fault> {
    if !source.is_sharded() {
        return Ok(());
    }
    match kept(run_dir) {
        Ok(Some(_)) => return Ok(()),
        Ok(None) => {}
        Err(why) => tracing::warn!(why, "the shards that the run began with are kept anew"),
    }
    let path = run_dir.join(FILE);
    let shards = if read.is_empty() { names(source).await? } else { read.clone() };
    durable_file::write(&path, schemas::wire::to_json(&shards).as_bytes())
        .map_err(|error| state_fault::of_io(format!("failed to write {}", path.display()), &error))
}

/// The shards that a run has kept; `None`: it has not begun. Where they cannot be read, why.
fn kept(run_dir: &Path) -> Result<Option<BTreeSet<ShardName>>, String> {
    let path = run_dir.join(FILE);
    let unreadable = |why: &dyn std::fmt::Display| {
        format!("the shards in {} cannot be read: {why}", path.display())
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| unreadable(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&error)),
    }
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
                "the source's balancer is {words}: a chunk that it moves while documents are \
                 copied ends the run; stop it with sh.stopBalancer()"
            ),
        });
    }
    match kept(run_dir) {
        Ok(Some(before)) => {
            if let Ok(now) = names(source).await {
                findings.extend(changes(&before, &now));
            }
        }
        Ok(None) => {}
        Err(why) => findings.push(unreadable(FindingKind::ShardAdded, "source.shards", why)),
    }
    findings
}

fn changes(before: &BTreeSet<ShardName>, now: &BTreeSet<ShardName>) -> Vec<Finding> {
    let finding = |kind, shard: &ShardName, expected: Value, actual: Value, message: String| {
        Finding { kind, path: format!("source.shards.{shard}"), expected, actual, message }
    };
    let added = now.difference(before).map(|shard| {
        let message = format!(
            "shard {shard} was added to the source since the run began, which does not follow it; \
             raise `generation` before data moves there"
        );
        finding(FindingKind::ShardAdded, shard, Value::Null, json!(shard), message)
    });
    let removed = before.difference(now).map(|shard| {
        let message = format!(
            "shard {shard} was removed from the source since the run began; raise `generation` to \
             run again without it"
        );
        finding(FindingKind::ShardRemoved, shard, json!(shard), Value::Null, message)
    });
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::id::ShardName;
    use schemas::observed::FindingKind;

    use super::{changes, kept};

    #[test]
    fn shards_that_came_and_went_are_named() {
        let shards = |names: &[&str]| {
            names.iter().map(|name| ShardName((*name).to_owned())).collect::<BTreeSet<_>>()
        };
        let found = changes(&shards(&["a", "b"]), &shards(&["b", "c"]));
        let told: Vec<(FindingKind, &str)> =
            found.iter().map(|one| (one.kind, one.path.as_str())).collect();
        assert_eq!(
            told,
            [
                (FindingKind::ShardAdded, "source.shards.c"),
                (FindingKind::ShardRemoved, "source.shards.a")
            ]
        );
        assert!(changes(&shards(&["a"]), &shards(&["a"])).is_empty());
    }

    /// As a power cut leaves a file that was not synced.
    #[test]
    fn a_torn_file_is_an_error_by_its_name_and_not_an_unknown_start() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(kept(folder.path()), Ok(None));
        for torn in ["", "[\"a\"", "{}"] {
            std::fs::write(folder.path().join(super::FILE), torn).expect("written");
            let why = kept(folder.path()).expect_err(torn);
            assert!(why.contains("shards.json"), "{why}");
        }
    }
}
