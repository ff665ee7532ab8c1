//! `cutover fmt`: the canonical layout of a directory's HCL.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::{Diagnostic, layout};

use super::Context;
use crate::exit_code::{ExitCode, Failure};
use crate::load;

/// Lays out the files of a directory, or with `check` only names those that would change.
pub(super) fn run(dir: &Path, check: bool, context: &Context) -> Result<ExitCode, Failure> {
    let files = load::files(dir).map_err(|error| {
        let remedy = "name a directory with HCL files that can be read";
        Fault::new(
            FaultCode::InvalidConfiguration,
            format!("failed to read {}: {error}", dir.display()),
        )
        .with_remedy(remedy)
    })?;
    let mut mistakes: Vec<Diagnostic> = Vec::new();
    let mut changes: Vec<(PathBuf, String)> = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|error| {
            Fault::new(FaultCode::InvalidConfiguration, format!("failed to read {name}: {error}"))
        })?;
        match layout(&name, &text) {
            Ok(laid_out) if laid_out == text => {}
            Ok(laid_out) => changes.push((path, laid_out)),
            Err(diagnostics) => mistakes.extend(diagnostics),
        }
    }
    // A file that does not parse keeps none of the others from their layout.
    let changed = !changes.is_empty();
    for (path, laid_out) in changes {
        if !check {
            replace(&path, &laid_out).map_err(|error| {
                Fault::new(
                    FaultCode::OutputFailed,
                    format!("failed to write {}: {error}", path.display()),
                )
            })?;
        }
        context.output.result(&format!("{}\n", path.display()))?;
    }
    if !mistakes.is_empty() {
        return Err(Failure::Diagnostics(mistakes));
    }
    Ok(if check && changed { ExitCode::Error } else { ExitCode::Done })
}

/// Replaces a file's content at once, where a link leads to it; its permissions stay.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
    file.persist(&path)?;
    Ok(())
}
