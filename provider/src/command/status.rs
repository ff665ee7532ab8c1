//! `cutover status`: where runs stand, once or until they are over.

use indicatif::ProgressDrawTarget;
use schemas::directory_watch::WatchOutcome;
use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};
use schemas::observed::Observed;
use schemas::status::MigrationStatus;
use serde::Serialize;

use super::{Context, unknown};
use crate::daemon_client::DaemonClient;
use crate::exit_code::{ExitCode, Failure};
use crate::progress::{Bars, Lines};
use crate::render::status;
use crate::wait::{INTERVAL, Patience};

pub(super) struct Request {
    pub(super) name: Option<MigrationName>,
    pub(super) workspace: Option<Workspace>,
    pub(super) json: bool,
    pub(super) watch: bool,
}

/// `cutover status --json`.
#[derive(Serialize)]
struct Document {
    migrations: Vec<MigrationStatus>,
}

pub(super) async fn run(request: &Request, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.connect_from_here().await?;
    let observed = observe(&client, request).await?;
    tell_refused(&client, context).await?;
    if request.json {
        context.output.json(&Document { migrations: statuses(observed) })?;
    } else if observed.is_empty() {
        context.output.result("No migrations.\n")?;
    } else if request.watch {
        watch(&client, request, statuses(observed), context).await?;
    } else {
        let blocks: Vec<String> =
            observed.iter().map(|one| status::block(one, context.output.results)).collect();
        context.output.result(&blocks.join("\n"))?;
    }
    Ok(ExitCode::Done)
}

/// Says where the daemon watches a directory and does not apply what is there: whoever has pushed a
/// change looks here for it.
async fn tell_refused(client: &DaemonClient, context: &Context) -> Result<(), Failure> {
    if let Some(watching) =
        client.watching().await?.filter(|one| one.outcome == WatchOutcome::Refused)
    {
        let directory = watching.directory.display();
        context.output.message(&format!(
            "cutoverd watches {directory}; nothing of it is applied since {}:\n\n",
            watching.since
        ));
        context.tell(&watching.diagnostics);
    }
    Ok(())
}

async fn observe(client: &DaemonClient, request: &Request) -> Result<Vec<Observed>, Fault> {
    let observed = client.observe(request.workspace.as_ref(), request.name.as_ref()).await?;
    match &request.name {
        Some(name) if observed.is_empty() => {
            let workspace = request
                .workspace
                .as_ref()
                .map(|one| format!(" in workspace {one}"))
                .unwrap_or_default();
            let fault = Fault::new(
                FaultCode::UnknownMigration,
                format!("there is no migration {name}{workspace}"),
            );
            Err(unknown::explain(client, request.workspace.as_ref(), name, fault).await)
        }
        _ => Ok(observed),
    }
}

fn statuses(observed: Vec<Observed>) -> Vec<MigrationStatus> {
    observed.into_iter().map(|one| one.status).collect()
}

async fn watch(
    client: &DaemonClient,
    request: &Request,
    mut statuses: Vec<MigrationStatus>,
    context: &Context,
) -> Result<(), Failure> {
    let mut bars = context.output.to_terminal.then(|| Bars::new(ProgressDrawTarget::stdout()));
    let mut lines = Lines::default();
    let mut patience = Patience::default();
    loop {
        match &mut bars {
            Some(bars) => bars.show(&statuses),
            None => {
                for line in lines.news(&statuses) {
                    context.output.result(&format!("{line}\n"))?;
                }
            }
        }
        if statuses.iter().all(|one| one.phase.is_final()) {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
        match observe(client, request).await {
            Ok(newer) => {
                patience.met();
                statuses = self::statuses(newer);
            }
            Err(fault) => patience.bear(fault)?,
        }
    }
    if let Some(bars) = bars {
        bars.finish();
    }
    Ok(())
}
