//! `cutover events`: a migration's journal.

use schemas::history::Entry;
use serde::Serialize;

use super::{Context, unknown};
use crate::cli::Named;
use crate::exit_code::{ExitCode, Failure};
use crate::render::events;

/// `cutover events --json`.
#[derive(Serialize)]
struct Document {
    events: Vec<Entry>,
}

pub(super) async fn run(
    migration: &Named,
    json: bool,
    follow: bool,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let client = context.connect_from_here().await?;
    let workspace = migration.workspace.as_ref();
    let mut stream = match client.events(workspace, &migration.name, follow).await {
        Err(fault) => {
            return Err(unknown::explain(&client, workspace, &migration.name, fault).await.into());
        }
        Ok(stream) => stream,
    };
    let mut all = Vec::new();
    while let Some(entry) = stream.next().await? {
        match (json, follow) {
            (true, true) => context.output.json_line(&entry)?,
            (true, false) => all.push(entry),
            (false, _) => context.output.result(&events::entry(&entry, context.output.results))?,
        }
    }
    if json && !follow {
        context.output.json(&Document { events: all })?;
    }
    Ok(ExitCode::Done)
}
