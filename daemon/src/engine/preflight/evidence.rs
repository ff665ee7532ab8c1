//! Whether a run will see what it goes by: what tells a deployment from another, and the writes
//! that no change stream reports.

use schemas::fault::{Fault, FaultCode};
use schemas::observed::Outcome;

use super::Findings;
use crate::engine::run::identity::{self, Evidence};
use crate::engine::tail::atomic_apply_ops;
use crate::mongo::Deployment;

/// Looks by what each deployment, and each shard of the source, could be told from another one that
/// comes to its address.
pub(super) async fn identities(findings: &mut Findings) {
    let sides: Vec<Deployment> =
        [&findings.source, &findings.destination].into_iter().flatten().cloned().collect();
    for deployment in &sides {
        look(
            findings,
            &format!("{}_identity", deployment.side),
            &format!("the {}", deployment.side),
            deployment,
        )
        .await;
    }
    if findings.source.as_ref().is_some_and(Deployment::is_sharded) {
        for (shard, deployment) in findings.shards.clone() {
            if !deployment.is_sharded() {
                look(findings, "source_identity", &format!("shard {shard}"), &deployment).await;
            }
        }
    }
}

async fn look(findings: &mut Findings, check: &str, name: &str, deployment: &Deployment) {
    match identity::evidence(deployment, &Evidence::new()).await {
        Ok(evidence) => match identity::known_by(&evidence) {
            Some(what) => {
                findings.note(check, Outcome::Ok, format!("{name} is known by its {what}"))
            }
            None => findings.warn(
                check,
                format!(
                    "the user may read nothing by which {name} is known: a run could not tell if \
                     another deployment came to its address"
                ),
                "grant clusterMonitor to the user",
            ),
        },
        Err(fault) => findings.fail(check, &fault),
    }
}

/// Looks whether writes by an atomic `applyOps` can be seen, which stand in the oplogs alone.
pub(super) async fn unseen_writes(findings: &mut Findings) {
    let name = "writes_by_apply_ops";
    for (shard, deployment) in findings.followed() {
        if deployment.is_sharded() {
            let message =
                "writes by an atomic applyOps on a shard itself are not seen through the router";
            findings.warn(
                name,
                message,
                "let nobody run applyOps on the shards until the cutover, such as mongorestore \
                 --oplogReplay",
            );
            continue;
        }
        match atomic_apply_ops::may_look(&deployment).await {
            Ok(true) => findings.note(
                name,
                Outcome::Ok,
                format!("the oplog of {shard} can be read for writes by an atomic applyOps"),
            ),
            // What the run cannot see it would lose in silence, and be ready all the same.
            Ok(false) => findings.fail(
                name,
                &Fault::new(
                    FaultCode::MissingPrivileges,
                    format!(
                        "the user may not read the oplog of {shard} (find on local.oplog.rs): no \
                         change stream reports what an atomic applyOps writes, such as that of \
                         mongorestore --oplogReplay, and it would be lost"
                    ),
                )
                .with_remedy("grant backup or clusterMonitor to the user on the source"),
            ),
            Err(fault) => findings.fail(name, &fault),
        }
    }
}
