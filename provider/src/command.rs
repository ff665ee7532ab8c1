//! The commands: each loads, asks the daemon, and prints; what it decides is elsewhere.

mod apply;
mod by_hand;
mod drift;
mod events;
mod fmt;
mod plan;
mod preflight;
mod report;
mod show;
mod status;
mod unknown;
mod validate;
mod verify;

use std::path::Path;

use schemas::fault::Fault;
use schemas::hcl::Diagnostic;
use schemas::id::MigrationName;
use schemas::observed::Observed;
use schemas::wire::v1::act_request::Act;
use schemas::wire::{DEFAULT_ENDPOINT, ENDPOINT_VARIABLE, v1};

use crate::cli::{Cli, Command};
use crate::daemon_client::DaemonClient;
use crate::declaration::{Declaration, Reach};
use crate::endpoint::Endpoint;
use crate::exit_code::{ExitCode, Failure};
use crate::load;
use crate::output::Output;
use crate::render::diagnostics;

/// Runs a command; failures are reported on stderr.
pub async fn run(cli: Cli, output: Output) -> ExitCode {
    let context = Context { endpoint: cli.endpoint, output };
    match dispatch(cli.command, &context).await {
        Ok(code) => code,
        Err(failure) => {
            match &failure {
                Failure::Fault(fault) => {
                    output.message(&diagnostics::fault(fault, output.messages))
                }
                Failure::Diagnostics(all) => {
                    output.message(&diagnostics::all(all, output.messages))
                }
                Failure::OutputClosed => {}
            }
            failure.exit_code()
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    match command {
        Command::Validate { declared } => validate::run(&declared, context),
        Command::Preflight { declared, name, json } => {
            preflight::run(&declared, name.as_ref(), json, context).await
        }
        Command::Plan { declared, format, detailed_exitcode, target, out } => {
            let request = plan::Request { declared, format, detailed_exitcode, target, out };
            plan::run(&request, context).await
        }
        Command::Apply(request) => apply::run(&request, context).await,
        Command::Show { file, format } => show::run(&file, format, context),
        Command::Drift { declared, format } => drift::run(&declared, format, context).await,
        Command::Fmt { dir, check } => fmt::run(&dir, check, context),
        Command::Status { name, workspace, json, watch } => {
            status::run(&status::Request { name, workspace, json, watch }, context).await
        }
        Command::Verify { migration, json } => verify::run(&migration, json, context).await,
        Command::Report { migration, format } => report::run(&migration, format, context).await,
        Command::Events { migration, json, follow } => {
            events::run(&migration, json, follow, context).await
        }
        Command::Extend { migration, by } => {
            by_hand::run(&migration, Act::Extend(v1::Extend { extensions: by }), context).await
        }
        Command::Pause(migration) => {
            by_hand::run(&migration, Act::Pause(v1::Pause {}), context).await
        }
        Command::Resume(migration) => {
            by_hand::run(&migration, Act::Resume(v1::Resume {}), context).await
        }
        Command::Cancel { migration, open_source, open_destination } => {
            by_hand::run(&migration, by_hand::cancel(open_source, open_destination), context).await
        }
        Command::RestartShard { migration, shard } => {
            by_hand::run(&migration, Act::RestartShard(v1::RestartShard { shard }), context).await
        }
    }
}

/// What every command has.
struct Context {
    /// `--endpoint`.
    endpoint: Option<String>,
    output: Output,
}

impl Context {
    /// Connects to the daemon: `--endpoint`, else the environment, else what is declared, else the
    /// usual place.
    async fn connect(&self, declared: &Reach) -> Result<DaemonClient, Fault> {
        let tls = Reach::tls_of_environment()?.or_else(|| declared.tls.clone());
        DaemonClient::connect(&self.named_endpoint(declared.endpoint.as_deref())?, tls.as_ref())
            .await
    }

    fn named_endpoint(&self, declared: Option<&str>) -> Result<Endpoint, Fault> {
        let variable = endpoint_variable();
        self.endpoint
            .as_deref()
            .or(variable.as_deref())
            .or(declared)
            .unwrap_or(DEFAULT_ENDPOINT)
            .parse()
    }

    /// Connects for a command that needs no HCL; where the current directory has some, its `daemon`
    /// block counts.
    async fn connect_from_here(&self) -> Result<DaemonClient, Failure> {
        if self.endpoint.is_some()
            || endpoint_variable().is_some()
            || !load::has_declaration(Path::new("."))
        {
            return Ok(self.connect(&Reach::default()).await?);
        }
        // Guessing a daemon where the HCL cannot be read could act on another one's migration.
        let declared = load::reach(Path::new("."))?;
        Ok(self.connect(&declared).await?)
    }

    /// Tells diagnostics on stderr.
    fn tell(&self, diagnostics: &[Diagnostic]) {
        self.output.message(&diagnostics::all(diagnostics, self.output.messages));
    }
}

fn endpoint_variable() -> Option<String> {
    std::env::var(ENDPOINT_VARIABLE).ok().filter(|value| !value.is_empty())
}

/// Narrows a declaration to one migration, which must be declared or there.
fn narrow(
    declared: Declaration,
    observed: &[Observed],
    target: Option<&MigrationName>,
) -> Result<Declaration, Fault> {
    let Some(name) = target else { return Ok(declared) };
    let known = declared.migrations.contains_key(name)
        || observed.iter().any(|one| one.declared && one.status.name == *name);
    if known { Ok(declared.only(name)) } else { Err(unknown::undeclared(&declared, name)) }
}
