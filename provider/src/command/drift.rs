//! `cutover drift`: the drift alone, for scheduled jobs.

use schemas::hcl::Diagnostic;
use schemas::id::Workspace;
use serde::Serialize;

use super::Context;
use crate::cli::{Declared, Format};
use crate::exit_code::{ExitCode, Failure};
use crate::plan::{Drift, PLAN_FORMAT, find_drift};
use crate::render::{markdown, plan_text};
use crate::{clock, load, observe};

/// `cutover drift --json`: a plan's members, less those of changes.
#[derive(Serialize)]
struct Document {
    format_version: u32,
    workspace: Workspace,
    fingerprint: String,
    drift: Vec<Drift>,
    diagnostics: Vec<Diagnostic>,
}

pub(super) async fn run(
    request: &Declared,
    format: Format,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let declared = load::directory(&request.dir, &request.variables)?.declaration;
    context.tell(&declared.warnings);
    let client = context.connect(&declared.reach).await?;
    let observed = observe::migrations(&client, &declared.workspace, None).await?;
    let drift = find_drift(&declared, &observed, clock::now());
    let code = if drift.is_empty() { ExitCode::Done } else { ExitCode::Difference };
    if format.json {
        context.output.json(&Document {
            format_version: PLAN_FORMAT,
            workspace: declared.workspace,
            fingerprint: declared.fingerprint,
            drift,
            diagnostics: declared.warnings,
        })?;
    } else if format.markdown {
        context.output.result(&markdown::drift_alone(&drift))?;
    } else if drift.is_empty() {
        context.output.result("No drift: reality is as declared.\n")?;
    } else {
        context.output.result(&plan_text::drift(&drift, context.output.results))?;
    }
    Ok(code)
}
