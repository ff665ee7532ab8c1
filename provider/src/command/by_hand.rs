//! `cutover extend`, `pause`, `resume`, `cancel` and `restart-shard`: for emergencies. What then
//! differs from the declaration the next plan reports as drift; a shard that was begun again
//! differs in nothing.

use schemas::wire::v1;
use schemas::wire::v1::act_request::Act;
use schemas::wire::v1::open::{Destination, Side, Source};

use super::{Context, unknown};
use crate::actor;
use crate::cli::Named;
use crate::exit_code::{ExitCode, Failure};
use crate::render::clean;

/// What `cancel` asks for: a side to open is an act of its own, which a daemon that does not know
/// it refuses.
pub(super) fn cancel(open_source: bool, open_destination: bool) -> Act {
    let side = match (open_source, open_destination) {
        (true, _) => Side::Source(Source {}),
        (false, true) => Side::Destination(Destination {}),
        (false, false) => return Act::Cancel(v1::Cancel {}),
    };
    Act::Open(v1::Open { side: Some(side) })
}

pub(super) async fn run(
    migration: &Named,
    act: Act,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let client = context.connect_from_here().await?;
    let workspace = migration.workspace.as_ref();
    let message = match client.act(workspace, &migration.name, act, actor::from_environment()).await
    {
        Err(fault) => {
            return Err(unknown::explain(&client, workspace, &migration.name, fault).await.into());
        }
        Ok(message) => message,
    };
    context.output.result(&format!("{}\n", clean(&message)))?;
    Ok(ExitCode::Done)
}
