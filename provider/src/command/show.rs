//! `cutover show`: a saved plan.

use std::path::Path;

use super::{Context, plan};
use crate::cli::Format;
use crate::exit_code::{ExitCode, Failure};
use crate::saved_plan::SavedPlan;

pub(super) fn run(file: &Path, format: Format, context: &Context) -> Result<ExitCode, Failure> {
    let saved = SavedPlan::read(file)?;
    plan::print(saved.plan(), &saved.folded(), format, context)?;
    context.tell(&saved.plan().diagnostics);
    Ok(ExitCode::Done)
}
