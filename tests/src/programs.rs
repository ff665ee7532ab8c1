//! The programs under test: builds `cutover` and `cutoverd` with cargo, once in a process, and says where they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The command line.
    pub cutover: PathBuf,
    /// The daemon.
    pub cutoverd: PathBuf,
}

/// Builds the programs in this program's own profile and gives their paths.
///
/// # Errors
/// When the build fails: the message is cargo's.
pub fn programs() -> Result<&'static Programs> {
    static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(programs) => Ok(programs),
        Err(message) => Err(anyhow!("{message}")),
    }
}

/// The workspace's root folder.
#[must_use]
pub fn workspace_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' package lies in the workspace")
}

/// Cargo's target folder.
#[must_use]
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // A relative one is relative to where cargo was called; the workspace's root is where that usually is.
        Some(folder) if !folder.is_empty() => workspace_folder().join(folder),
        _ => workspace_folder().join("target"),
    }
}

fn build() -> Result<Programs> {
    let release = !cfg!(debug_assertions);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "daemon", "--package", "provider", "--bins"]);
    if release {
        cargo.arg("--release");
    }
    let target = target_folder();
    cargo.arg("--target-dir").arg(&target).current_dir(workspace_folder());
    let output = cargo.output().context("failed to run cargo")?;
    if !output.status.success() {
        bail!("failed to build cutover and cutoverd:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let folder = target.join(if release { "release" } else { "debug" });
    let programs = Programs { cutover: folder.join("cutover"), cutoverd: folder.join("cutoverd") };
    for program in [&programs.cutover, &programs.cutoverd] {
        ensure!(program.is_file(), "cargo built no {}", program.display());
    }
    Ok(programs)
}
