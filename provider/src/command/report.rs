//! `cutover report`: what a completed migration was, what proved it, and how long it took.

use super::{Context, unknown};
use crate::cli::{Format, Named};
use crate::exit_code::{ExitCode, Failure};
use crate::render::{markdown, report};

pub(super) async fn run(
    migration: &Named,
    format: Format,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let client = context.connect_from_here().await?;
    let workspace = migration.workspace.as_ref();
    let found = match client.report(workspace, &migration.name).await {
        Err(fault) => {
            return Err(unknown::explain(&client, workspace, &migration.name, fault).await.into());
        }
        Ok(found) => found,
    };
    if format.json {
        context.output.json(&found)?;
    } else if format.markdown {
        context.output.result(&markdown::report(&found))?;
    } else {
        context.output.result(&report::text(&found, context.output.results))?;
    }
    Ok(ExitCode::Done)
}
