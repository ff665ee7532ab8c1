//! `cutover preflight`: the live checks of declared migrations, without starting anything.

use std::path::Path;

use futures_util::{StreamExt as _, stream};
use schemas::fault::{Fault, FaultCode};
use schemas::id::MigrationName;
use schemas::observed::{Inspection, Outcome};
use serde::Serialize;

use super::{Context, unknown};
use crate::cli::Declared;
use crate::exit_code::{ExitCode, Failure};
use crate::load;
use crate::observe::INSPECTED_AT_ONCE;
use crate::render::checks;

/// `cutover preflight --json`.
#[derive(Serialize)]
struct Document {
    preflight: Vec<Checked>,
}

#[derive(Serialize)]
struct Checked {
    migration: MigrationName,
    #[serde(flatten)]
    inspection: Inspection,
}

pub(super) async fn run(
    request: &Declared,
    name: Option<&MigrationName>,
    json: bool,
    context: &Context,
) -> Result<ExitCode, Failure> {
    if name.is_none() && !request.dir.exists() && load::has_declaration(Path::new(".")) {
        let dir = request.dir.display();
        let remedy =
            format!("a migration's name comes behind the directory: cutover preflight . {dir}");
        let fault =
            Fault::new(FaultCode::InvalidConfiguration, format!("there is no directory {dir}"));
        return Err(fault.with_remedy(remedy).into());
    }
    let mut declared = load::directory(&request.dir, &request.variables)?.declaration;
    context.tell(&declared.warnings);
    if let Some(name) = name {
        if !declared.migrations.contains_key(name) {
            return Err(unknown::undeclared(&declared, name).into());
        }
        declared = declared.only(name);
    }
    let client = context.connect(&declared.reach).await?;
    let mut document = Document { preflight: Vec::new() };
    let inspections =
        declared.specs().map(async |spec| (spec, client.inspect(&declared.workspace, spec).await));
    // Each is printed as soon as it and those before it are there.
    let mut inspections = stream::iter(inspections).buffered(INSPECTED_AT_ONCE);
    while let Some((spec, inspection)) = inspections.next().await {
        let inspection = inspection?;
        if !json {
            context.output.result(&checks::checks(
                &spec.name,
                &inspection,
                context.output.results,
            ))?;
        }
        document.preflight.push(Checked { migration: spec.name.clone(), inspection });
    }
    if json {
        context.output.json(&document)?;
    }
    let failed = document
        .preflight
        .iter()
        .any(|one| one.inspection.checks.iter().any(|check| check.outcome == Outcome::Fail));
    Ok(if failed { ExitCode::Error } else { ExitCode::Done })
}
