//! A declaration against a daemon: looked at, planned, and with everything at hand that applying
//! the plan needs.

use std::collections::BTreeMap;

use schemas::fault::Fault;
use schemas::id::MigrationName;
use schemas::observed::Observed;
use schemas::spec::MigrationSpec;

use crate::apply::Drops;
use crate::daemon_client::DaemonClient;
use crate::declaration::Declaration;
use crate::plan::{Plan, plan};
use crate::{clock, observe};

/// A plan, and what is handed to the daemon with it.
#[derive(Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// What is declared, by name.
    pub specs: BTreeMap<MigrationName, MigrationSpec>,
    /// What the plan lists as dropped.
    pub drops: Drops,
}

/// Plans a declaration against the migrations as they are; the daemon looks at both sides of those
/// that would start.
pub async fn prepare(
    client: &DaemonClient,
    declared: Declaration,
    observed: &[Observed],
) -> Result<Prepared, Fault> {
    let inspections =
        observe::inspections(client, &declared.workspace, declared.specs(), observed).await?;
    let plan = plan(&declared, observed, &inspections, clock::now());
    let specs = declared.migrations.into_iter().map(|(name, one)| (name, one.spec)).collect();
    let drops = inspections.into_iter().map(|(name, found)| (name, found.drops)).collect();
    Ok(Prepared { plan, specs, drops })
}
