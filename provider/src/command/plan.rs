//! `cutover plan`: what differs, what has drifted, and what applying would do.

use std::path::PathBuf;

use schemas::id::MigrationName;

use super::{Context, narrow};
use crate::cli::{Declared, Format};
use crate::exit_code::{ExitCode, Failure};
use crate::load::{self, Inputs};
use crate::plan::{Folded, Plan};
use crate::render::{markdown, plan_text};
use crate::saved_plan::{Origin, SavedPlan};
use crate::{clock, observe};

pub(super) struct Request {
    pub(super) declared: Declared,
    pub(super) format: Format,
    pub(super) detailed_exitcode: bool,
    pub(super) target: Option<MigrationName>,
    pub(super) out: Option<PathBuf>,
}

pub(super) async fn run(request: &Request, context: &Context) -> Result<ExitCode, Failure> {
    let dir = &request.declared.dir;
    let loaded = match load::directory(dir, &request.declared.variables) {
        Ok(loaded) => loaded,
        Err(Failure::Diagnostics(diagnostics)) => {
            context.tell(&diagnostics);
            // A machine gets the mistakes as a plan that could not be made; a person has them on
            // stderr.
            if request.format.json || request.format.markdown {
                let fingerprint = Inputs::read(dir).unwrap_or_default().fingerprint();
                print(
                    &Plan::unmade(fingerprint, diagnostics),
                    &Folded::default(),
                    request.format,
                    context,
                )?;
            }
            return Ok(ExitCode::Error);
        }
        Err(other) => return Err(other),
    };
    let client = context.connect(&loaded.declaration.reach).await?;
    let observed =
        observe::migrations(&client, &loaded.declaration.workspace, request.target.as_ref())
            .await?;
    let declared = narrow(loaded.declaration, &observed, request.target.as_ref())?;
    let inspections =
        observe::inspections(&client, &declared.workspace, declared.specs(), &observed).await?;
    let origin = Origin {
        directory: dir.clone(),
        endpoint: client.endpoint().to_string(),
        inputs: loaded.inputs,
        now: clock::now(),
    };
    let made = SavedPlan::new(declared, observed, inspections, origin);
    let plan = made.plan();
    print(plan, &made.folded(), request.format, context)?;
    context.tell(&plan.diagnostics);
    if plan.has_errors() {
        if let Some(out) = &request.out {
            context.output.message(&format!(
                "A plan with errors cannot be applied: {} is not written.\n",
                out.display()
            ));
        }
        return Ok(ExitCode::Error);
    }
    let differs = plan.has_actions() || !plan.drift.is_empty();
    if let Some(out) = &request.out {
        made.write(out)?;
        context.output.message(&format!(
            "The plan is saved; `cutover apply {}` carries out exactly it.\n",
            out.display()
        ));
    }
    Ok(if differs && request.detailed_exitcode { ExitCode::Difference } else { ExitCode::Done })
}

/// Prints a plan's document; its diagnostics go to stderr apart, in the text form.
pub(super) fn print(
    plan: &Plan,
    folded: &Folded,
    format: Format,
    context: &Context,
) -> Result<(), Failure> {
    if format.json {
        context.output.json(plan)
    } else if format.markdown {
        context.output.result(&markdown::plan(plan, folded))
    } else {
        context.output.result(&plan_text::plan(plan, folded, context.output.results))
    }
}
