//! Whether a run will see what it goes by: what tells a deployment from another, and the writes that no change stream tells of.

use schemas::observed::Outcome;

use super::Findings;
use crate::engine::tail::untold;

/// Looks whether writes by an atomic `applyOps` can be seen, which stand in the oplogs alone.
pub(super) async fn unseen_writes(findings: &mut Findings) {
    let name = "writes_by_apply_ops";
    for (shard, deployment) in findings.followed() {
        if deployment.is_sharded() {
            let message = "writes by an atomic applyOps on a shard itself are not seen through the router";
            findings.warn(name, message, "let nobody run applyOps on the shards until the cutover, such as mongorestore --oplogReplay");
            continue;
        }
        match untold::may_look(&deployment).await {
            Ok(true) => findings.note(name, Outcome::Ok, format!("the oplog of {shard} can be read for writes by an atomic applyOps")),
            Ok(false) => findings.warn(
                name,
                format!("the oplog of {shard} may not be read: writes by an atomic applyOps are told nowhere else, and would be lost"),
                "grant backup or clusterMonitor to the user on the source, or let nobody run applyOps or mongorestore --oplogReplay there",
            ),
            Err(fault) => findings.fail(name, &fault),
        }
    }
}
