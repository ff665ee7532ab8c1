//! `cutover validate`: the HCL alone, without a daemon.

use super::Context;
use crate::cli::Declared;
use crate::exit_code::{ExitCode, Failure};
use crate::load;
use crate::units;

pub(super) fn run(request: &Declared, context: &Context) -> Result<ExitCode, Failure> {
    let loaded = load::directory(&request.dir, &request.variables)?;
    context.tell(&loaded.declaration.warnings);
    let count = units::counted(loaded.declaration.migrations.len() as u64, "migration");
    let verb = if loaded.declaration.migrations.len() == 1 { "is" } else { "are" };
    context.output.result(&format!(
        "{count} of workspace {} {verb} valid.\n",
        loaded.declaration.workspace
    ))?;
    Ok(ExitCode::Done)
}
