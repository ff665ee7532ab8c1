//! Terraform as a process: the real program with the provider that was built, in a folder of its
//! own, cut off from everything else.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::cutover::Output;
use crate::programs::programs;

/// The variable that names the program, over a search of the PATH for `terraform`, then `tofu`.
pub const PROGRAM_VARIABLE: &str = "CUTOVER_TERRAFORM";

/// A root module and the Terraform that runs it. Dropping it removes the folder.
#[derive(Debug)]
pub struct Terraform {
    program: PathBuf,
    folder: TempDir,
    environment: Vec<(String, String)>,
    timeout: Duration,
}

impl Terraform {
    /// Builds the provider if need be and makes an empty module, which uses it without `init`.
    ///
    /// # Errors
    /// When there is no Terraform.
    pub async fn new() -> Result<Self> {
        let provider = &tokio::task::spawn_blocking(programs).await??.terraform_provider;
        let terraform = Self::with_configuration(&format!(
            "disable_checkpoint = true\nprovider_installation {{\n  dev_overrides {{ \
             \"cutover-dev/cutover\" = {:?} }}\n  \
             direct {{ exclude = [\"*/*\"] }}\n}}\n",
            provider.parent().context("the provider lies in a folder")?
        ))?;
        Ok(terraform)
    }

    /// Makes an empty module with Terraform's own configuration as given.
    ///
    /// # Errors
    /// When there is no Terraform.
    pub fn with_configuration(configuration: &str) -> Result<Self> {
        // The plugin's socket is in here, and its path has room for 107 bytes; `TMPDIR` may be
        // long.
        let folder = tempfile::Builder::new()
            .prefix("cutover-tf-")
            .tempdir_in("/tmp")
            .context("failed to create a folder")?;
        for name in ["home", "tmp", "module"] {
            fs::create_dir(folder.path().join(name))?;
        }
        fs::write(folder.path().join("terraformrc"), configuration)?;
        Ok(Self {
            program: find()?,
            folder,
            environment: Vec::new(),
            timeout: Duration::from_secs(120),
        })
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a variable of its environment from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// The module's folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("module")
    }

    /// The folder for temporary files, in which the plugins' sockets are.
    #[must_use]
    pub fn temporary_folder(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// Writes a file of the module.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.folder().join(name), text).with_context(|| format!("failed to write {name}"))
    }

    /// Starts a command, in a process group of its own. Its output is kept.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("-no-color").current_dir(self.folder()).env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path().join("home"))
            .env("TMPDIR", self.temporary_folder());
        command.env("CHECKPOINT_DISABLE", "1").env("TF_IN_AUTOMATION", "1").env("TF_INPUT", "0");
        command.env("TF_CLI_CONFIG_FILE", self.folder.path().join("terraformrc"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        command.spawn().with_context(|| format!("failed to start {}", self.program.display()))
    }

    /// Waits for a command's end and gives what it printed.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub async fn finish(&self, child: Child) -> Result<Output> {
        let output = tokio::time::timeout(self.timeout, child.wait_with_output())
            .await
            .with_context(|| format!("terraform did not end in {} s", self.timeout.as_secs()))??;
        Ok(Output {
            code: code(output.status)?,
            stdout: String::from_utf8(output.stdout)
                .context("terraform printed what is not UTF-8")?,
            stderr: String::from_utf8(output.stderr)
                .context("terraform printed what is not UTF-8")?,
        })
    }

    /// Runs a command.
    ///
    /// # Errors
    /// When it does not start, or does not end in time.
    pub async fn run(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Output> {
        self.finish(self.start(arguments)?).await
    }

    /// Runs a command that must end with exit code 0.
    ///
    /// # Errors
    /// As [`Self::run`], and for any other exit code.
    pub async fn succeed(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Output> {
        let output = self.run(arguments).await?;
        ensure!(output.code == 0, "terraform failed: {output}");
        Ok(output)
    }

    /// `plan -detailed-exitcode`: exit code 0 without a change, 2 with one.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn plan(&self) -> Result<Output> {
        self.run(["plan", "-detailed-exitcode", "-lock=false"]).await
    }

    /// `apply` without a question.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn apply(&self) -> Result<Output> {
        self.run(["apply", "-auto-approve"]).await
    }

    /// The attributes of a resource in the state.
    ///
    /// # Errors
    /// When the state cannot be shown, or does not have it.
    pub async fn attributes(&self, address: &str) -> Result<serde_json::Value> {
        let state = self.succeed(["show", "-json"]).await?.json()?;
        let resources =
            state["values"]["root_module"]["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.into_iter().find(|resource| resource["address"] == address);
        Ok(found.with_context(|| format!("the state has no {address}: {state}"))?["values"].take())
    }
}

fn code(status: ExitStatus) -> Result<i32> {
    status.code().context("terraform was ended by a signal")
}

/// Where Terraform or OpenTofu is.
fn find() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os(PROGRAM_VARIABLE).filter(|program| !program.is_empty())
    {
        return Ok(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let candidates = ["terraform", "tofu"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = candidates.into_iter().find(|candidate| is_executable(candidate));
    found.ok_or_else(|| {
        anyhow!(
            "there is no terraform and no tofu on the PATH; install one, or name it in \
             {PROGRAM_VARIABLE}"
        )
    })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
