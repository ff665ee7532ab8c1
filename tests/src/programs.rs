//! The programs under test: builds `cutover` and `cutoverd` with cargo, once in a process, and says
//! where they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// What is built: with the demo, whose own build has these as its dependencies, the features of all
/// that they share are the same, and nothing is compiled twice.
const SELECTION: [&str; 8] =
    ["--package", "daemon", "--package", "provider", "--package", "demo", "--package", "tests"];

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The command line.
    pub cutover: PathBuf,
    /// The daemon.
    pub cutoverd: PathBuf,
    /// The Terraform provider.
    pub terraform_provider: PathBuf,
    /// The stand-in for `mongos`.
    pub router: PathBuf,
}

/// Builds the programs in this program's own profile, in silence unless that fails, and gives their
/// paths.
///
/// # Errors
/// When the build fails: the message is cargo's.
pub fn programs() -> Result<&'static Programs> {
    once(Cargo::Quiet)
}

/// As [`programs`], with cargo's progress on standard error.
///
/// # Errors
/// When the build fails.
pub fn programs_aloud() -> Result<&'static Programs> {
    once(Cargo::Aloud)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cargo {
    Quiet,
    Aloud,
}

fn once(cargo: Cargo) -> Result<&'static Programs> {
    static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build(cargo).map_err(|error| format!("{error:#}"))) {
        Ok(programs) => Ok(programs),
        Err(message) => Err(anyhow!("{message}")),
    }
}

/// The workspace's root folder.
#[must_use]
pub fn workspace_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' package lies in the workspace")
}

/// Cargo's target folder.
#[must_use]
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // A relative one is relative to where cargo was called; the workspace's root is where that
        // usually is.
        Some(folder) if !folder.is_empty() => workspace_folder().join(folder),
        _ => workspace_folder().join("target"),
    }
}

fn build(noise: Cargo) -> Result<Programs> {
    let release = !cfg!(debug_assertions);
    let target = target_folder();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .arg("build")
        .args(SELECTION)
        .arg("--bins")
        .arg("--target-dir")
        .arg(&target)
        .current_dir(workspace_folder());
    if release {
        cargo.arg("--release");
    }
    if noise == Cargo::Aloud {
        let status = cargo.stdin(Stdio::null()).status().context("failed to run cargo")?;
        ensure!(status.success(), "failed to build cutover and cutoverd");
    } else {
        let output = cargo.arg("--quiet").output().context("failed to run cargo")?;
        if !output.status.success() {
            bail!(
                "failed to build cutover and cutoverd:\n{}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
    }
    let folder = target.join(if release { "release" } else { "debug" });
    let programs = Programs {
        cutover: folder.join("cutover"),
        cutoverd: folder.join("cutoverd"),
        terraform_provider: folder.join("terraform-provider-cutover"),
        router: folder.join("router"),
    };
    for program in
        [&programs.cutover, &programs.cutoverd, &programs.terraform_provider, &programs.router]
    {
        ensure!(program.is_file(), "cargo built no {}", program.display());
    }
    Ok(programs)
}
