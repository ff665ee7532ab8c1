//! `cutover apply`: shows the plan, asks, carries it out, and waits where asked to.

use std::collections::BTreeMap;

use indicatif::ProgressDrawTarget;
use schemas::fault::{Fault, FaultCode};
use schemas::id::MigrationName;
use schemas::phase::Phase;
use schemas::spec::MigrationSpec;
use schemas::status::MigrationStatus;
use serde::Serialize;

use super::{Context, narrow, plan};
use crate::apply::{Applied, Drops, apply};
use crate::cli::{Apply, Format};
use crate::daemon_client::DaemonClient;
use crate::exit_code::{ExitCode, Failure};
use crate::plan::{Action, Folded, Plan};
use crate::progress::{Bars, Lines};
use crate::saved_plan::SavedPlan;
use crate::{actor, load, observe, prepare, wait};

/// `cutover apply --json`: the plan, what the daemon took of it, and the statuses at the end.
#[derive(Serialize)]
struct Document {
    format_version: u32,
    plan: Plan,
    applied: Vec<Applied>,
    /// The phase that was waited for.
    waited_for: Option<Phase>,
    /// Where the plan's migrations stand at the end, those without a difference too.
    statuses: Vec<MigrationStatus>,
}

/// A plan that may be carried out, and with whom.
struct Prepared {
    client: DaemonClient,
    plan: Plan,
    folded: Folded,
    specs: BTreeMap<MigrationName, MigrationSpec>,
    drops: Drops,
    saved: bool,
}

pub(super) async fn run(request: &Apply, context: &Context) -> Result<ExitCode, Failure> {
    let prepared = if request.from.is_file() {
        from_file(request, context).await?
    } else {
        from_directory(request, context).await?
    };
    let Prepared { client, plan, folded, specs, drops, saved } = prepared;
    let text = Format { json: false, markdown: false };
    if plan.has_errors() {
        if request.json {
            context.output.json(&Document {
                format_version: plan.format_version,
                plan: plan.clone(),
                applied: Vec::new(),
                waited_for: request.wait,
                statuses: Vec::new(),
            })?;
        } else {
            plan::print(&plan, &folded, text, context)?;
        }
        context.tell(&plan.diagnostics);
        return Ok(ExitCode::Error);
    }
    if !request.json {
        plan::print(&plan, &folded, text, context)?;
    }
    context.tell(&plan.diagnostics);

    let mut applied = Vec::new();
    if plan.has_actions() {
        if !request.auto_approve && !saved {
            confirm(request, context)?;
        }
        applied = apply(&client, &plan, &specs, &drops, actor::from_environment()).await?;
        if !request.json {
            for one in &applied {
                context.output.result(&told(one))?;
            }
        }
    }
    let (statuses, waited) = match request.wait {
        Some(target) => waited(&client, &plan, target, request, context).await,
        None if request.json => (statuses(&client, &plan).await?, Ok(())),
        None => (Vec::new(), Ok(())),
    };
    // What was applied is reported even where the wait was in vain.
    if request.json {
        context.output.json(&Document {
            format_version: plan.format_version,
            plan,
            applied,
            waited_for: request.wait,
            statuses,
        })?;
    }
    waited?;
    Ok(ExitCode::Done)
}

async fn from_directory(request: &Apply, context: &Context) -> Result<Prepared, Failure> {
    if !request.from.exists() {
        let from = request.from.display();
        let message =
            format!("{from} is not there, neither as a directory with HCL nor as a saved plan");
        let remedy = "name a directory, or a file that `cutover plan --out` made";
        return Err(Fault::new(FaultCode::InvalidConfiguration, message)
            .with_remedy(remedy)
            .into());
    }
    let loaded = load::directory(&request.from, &request.variables)?;
    let client = context.connect(&loaded.declaration.reach).await?;
    let observed =
        observe::migrations(&client, &loaded.declaration.workspace, request.target.as_ref())
            .await?;
    let declared = narrow(loaded.declaration, &observed, request.target.as_ref())?;
    let prepare::Prepared { plan, specs, drops } =
        prepare::prepare(&client, declared, &observed).await?;
    let folded = Folded::count(&plan, specs.values());
    Ok(Prepared { client, plan, folded, specs, drops, saved: false })
}

/// A saved plan is checked against everything that it was made from, and then is what it is.
async fn from_file(request: &Apply, context: &Context) -> Result<Prepared, Failure> {
    let refused = |what: &str| {
        Fault::new(
            FaultCode::InvalidConfiguration,
            format!("{what} cannot be given with a saved plan: it is part of the plan"),
        )
        .with_remedy("leave it out, or plan again with it")
    };
    if request.target.is_some() {
        return Err(refused("--target").into());
    }
    if !request.variables.assignments.is_empty() || !request.variables.files.is_empty() {
        return Err(refused("a variable's value").into());
    }
    let saved = SavedPlan::read(&request.from)?;
    saved.check_inputs()?;
    let client = context.connect(&saved.reach()).await?;
    let (workspace, specs) = (saved.workspace(), saved.specs());
    let observed = observe::migrations(&client, workspace, None).await?;
    saved.check_observed(&observed)?;
    let inspections = observe::inspections(&client, workspace, specs.values(), &observed).await?;
    saved.check_inspections(&inspections)?;
    Ok(Prepared {
        client,
        plan: saved.plan().clone(),
        folded: saved.folded(),
        specs,
        drops: saved.drops(),
        saved: true,
    })
}

fn confirm(request: &Apply, context: &Context) -> Result<(), Failure> {
    let refused =
        |why: &str| Fault::new(FaultCode::NotConfirmed, format!("nothing was applied: {why}"));
    if request.json {
        return Err(refused("--json leaves nowhere to ask")
            .with_remedy("pass --auto-approve, or apply a saved plan")
            .into());
    }
    context
        .output
        .result("\nDo you want to perform these actions? Only \"yes\" will be accepted: ")?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if !context.output.to_terminal || !answer.ends_with('\n') {
        context.output.result("\n")?;
    }
    match read {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        Ok(0) => Err(refused("there was no answer").into()),
        Ok(_) => Err(refused("the answer was not \"yes\"").into()),
        Err(error) => Err(refused(&format!("the answer could not be read: {error}")).into()),
    }
}

fn told(applied: &Applied) -> String {
    let done = match applied.action {
        Action::Create => "created",
        Action::Update => "changed",
        Action::Rerun => "started again from scratch",
        Action::Pause => "paused",
        Action::Resume => "resumed",
        Action::Extend => "extended",
        Action::CutOver => "cutting over",
        Action::Cancel => "cancelled",
        Action::Forget => "forgotten",
        Action::NoOp => "unchanged",
    };
    let run = applied.run.as_ref().map(|run| format!(", run {run}")).unwrap_or_default();
    format!("{}: {done} (serial {}{run})\n", applied.migration, applied.serial)
}

/// The migrations of a plan that are there after it.
fn remaining(plan: &Plan) -> Vec<(MigrationName, Action)> {
    let stays = |action| action != Action::Forget && action != Action::Cancel;
    plan.changes
        .iter()
        .filter(|c| stays(c.action))
        .map(|c| (c.migration.clone(), c.action))
        .collect()
}

async fn statuses(client: &DaemonClient, plan: &Plan) -> Result<Vec<MigrationStatus>, Fault> {
    let observed = client.observe(plan.workspace.as_ref(), None).await?;
    let statuses = observed.into_iter().map(|one| one.status);
    Ok(statuses
        .filter(|status| plan.changes.iter().any(|change| change.migration == status.name))
        .collect())
}

async fn waited(
    client: &DaemonClient,
    plan: &Plan,
    target: Phase,
    request: &Apply,
    context: &Context,
) -> (Vec<MigrationStatus>, Result<(), Fault>) {
    let Some(workspace) = &plan.workspace else { return (Vec::new(), Ok(())) };
    let mut migrations = remaining(plan);
    if target == Phase::Cancelled {
        migrations = plan
            .changes
            .iter()
            .filter(|c| c.action == Action::Cancel)
            .map(|c| (c.migration.clone(), c.action))
            .collect();
    }
    if migrations.is_empty() {
        return (Vec::new(), Ok(()));
    }
    let mut bars =
        context.output.messages_to_terminal.then(|| Bars::new(ProgressDrawTarget::stderr()));
    let mut lines = Lines::default();
    let mut last = Vec::new();
    let timeout = request.timeout.map(schemas::time::Length::get);
    let result = wait::until(client, workspace, &migrations, target, timeout, |statuses| {
        match &mut bars {
            Some(bars) => bars.show(statuses),
            None => lines
                .news(statuses)
                .iter()
                .for_each(|line| context.output.message(&format!("{line}\n"))),
        }
        last = statuses.to_vec();
    })
    .await;
    if let Some(bars) = bars {
        bars.finish();
    }
    (last, result.map(drop))
}
