//! `cutover verify`: what the verification found that stands.

use schemas::observed::Mismatch;
use schemas::status::VerificationProgress;
use serde::Serialize;

use super::Context;
use crate::cli::Named;
use crate::exit_code::{ExitCode, Failure};
use crate::render::mismatches;

/// `cutover verify --json`.
#[derive(Serialize)]
struct Document {
    migration: String,
    verification: VerificationProgress,
    mismatches: Vec<Mismatch>,
}

pub(super) async fn run(migration: &Named, json: bool, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.connect_from_here().await?;
    let (found, verification) = client.mismatches(migration.workspace.as_ref(), &migration.name).await?;
    if json {
        context.output.json(&Document { migration: migration.name.to_string(), verification, mismatches: found })?;
    } else {
        context.output.result(&mismatches::text(&migration.name, &found, &verification, context.output.results))?;
    }
    Ok(ExitCode::Done)
}
