//! `cutover verify`: what the verification found that stands.

use serde::Serialize;

use super::{Context, unknown};
use crate::cli::Named;
use crate::daemon_client::Findings;
use crate::exit_code::{ExitCode, Failure};
use crate::render::mismatches;

/// `cutover verify --json`.
#[derive(Serialize)]
struct Document {
    migration: String,
    #[serde(flatten)]
    findings: Findings,
}

pub(super) async fn run(
    migration: &Named,
    json: bool,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let client = context.connect_from_here().await?;
    let workspace = migration.workspace.as_ref();
    let findings = match client.mismatches(workspace, &migration.name).await {
        Err(fault) => {
            return Err(unknown::explain(&client, workspace, &migration.name, fault).await.into());
        }
        Ok(findings) => findings,
    };
    if json {
        context.output.json(&Document { migration: migration.name.to_string(), findings })?;
    } else {
        context.output.result(&mismatches::text(
            &migration.name,
            &findings,
            context.output.results,
        ))?;
    }
    Ok(ExitCode::Done)
}
