//! Asks the daemon for what a plan is made from.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use schemas::fault::Fault;
use schemas::id::{MigrationName, Workspace};
use schemas::observed::{Inspection, Observed};
use schemas::spec::MigrationSpec;

use crate::daemon_client::DaemonClient;
use crate::plan::starts;

/// Migrations that the daemon inspects at once.
pub(crate) const INSPECTED_AT_ONCE: usize = 8;

/// The migrations of a workspace, or one of them, each with what a look at both sides finds.
pub async fn migrations(
    client: &DaemonClient,
    workspace: &Workspace,
    only: Option<&MigrationName>,
) -> Result<Vec<Observed>, Fault> {
    // All of them, then one: a name that does not exist yet is no error here.
    let mut observed = client.observe(Some(workspace), None).await?;
    if let Some(name) = only {
        observed.retain(|one| one.status.name == *name);
    }
    if !observed.is_empty() {
        let mut found = client.look(workspace).await?;
        for one in &mut observed {
            one.findings = found.remove(&one.status.name).unwrap_or_default();
        }
    }
    Ok(observed)
}

/// What the daemon finds about each declared migration that would start a copy.
pub async fn inspections(
    client: &DaemonClient,
    workspace: &Workspace,
    declared: impl Iterator<Item = &MigrationSpec>,
    observed: &[Observed],
) -> Result<BTreeMap<MigrationName, Inspection>, Fault> {
    let inspections = declared.filter(|spec| starts(spec, observed)).map(
        |spec| -> BoxFuture<'_, Result<_, Fault>> {
            Box::pin(async move { Ok((spec.name.clone(), client.inspect(workspace, spec).await?)) })
        },
    );
    // What they measure the daemon measures one after the other.
    stream::iter(inspections.collect::<Vec<_>>())
        .buffer_unordered(INSPECTED_AT_ONCE)
        .try_collect()
        .await
}
