//! Hands a plan's changes to the daemon, with the serials that it was made on.

use std::collections::BTreeMap;

use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, RunId, Serial};
use schemas::namespace::Namespace;
use schemas::spec::MigrationSpec;
use schemas::wire::{self, v1};
use serde::Serialize;

use crate::daemon_client::DaemonClient;
use crate::plan::{Action, Plan};

/// One change that the daemon has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The migration.
    pub migration: MigrationName,
    /// What was done.
    pub action: Action,
    /// Its serial now.
    pub serial: Serial,
    /// Its run now; `null` where it has none.
    pub run: Option<RunId>,
}

/// The namespaces on the destination that a plan lists as dropped, by migration.
pub type Drops = BTreeMap<MigrationName, Vec<Namespace>>;

/// Applies a plan: all of it, or nothing. `specs` holds what is declared for each migration that
/// stays; nothing on the destination is dropped but what `drops` lists.
pub async fn apply(
    client: &DaemonClient,
    plan: &Plan,
    specs: &BTreeMap<MigrationName, MigrationSpec>,
    drops: &Drops,
    actor: v1::Actor,
) -> Result<Vec<Applied>, Fault> {
    let invariant = |message: String| Fault::new(FaultCode::Internal, message);
    let Some(workspace) = plan.workspace.as_ref().filter(|_| !plan.has_errors()) else {
        return Err(invariant("a plan with errors was to be applied".to_owned()));
    };
    let mut changes = Vec::new();
    for change in plan.actions() {
        let spec = if change.action.removes() {
            String::new()
        } else {
            let spec = specs.get(&change.migration).ok_or_else(|| {
                invariant(format!("the plan has no declaration of {}", change.migration))
            })?;
            wire::to_json(spec)
        };
        let drops =
            drops.get(&change.migration).into_iter().flatten().map(ToString::to_string).collect();
        changes.push(v1::Change {
            name: change.migration.to_string(),
            expected_serial: change.serial.0,
            spec,
            drops,
        });
    }
    let taken = client.apply(workspace, changes, actor).await?;
    plan.actions()
        .map(|change| {
            let answer = taken.iter().find(|one| one.name == change.migration.as_str());
            let answer = answer.ok_or_else(|| {
                invariant(format!("the daemon did not answer for {}", change.migration))
            })?;
            let run = (!answer.run.is_empty())
                .then(|| wire::from_json("the run's id", &wire::to_json(&answer.run)))
                .transpose()?;
            Ok(Applied {
                migration: change.migration.clone(),
                action: change.action,
                serial: Serial(answer.serial),
                run,
            })
        })
        .collect()
}
