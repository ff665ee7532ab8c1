//! The command line as a process: runs it and keeps its exit code and what it printed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cutoverd::Cutoverd;
use crate::programs::programs;
use crate::terminal::Terminal;

/// How the command line is run.
#[derive(Debug, Clone)]
pub struct Cutover {
    folder: PathBuf,
    environment: Vec<(OsString, OsString)>,
    timeout: Duration,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// What it printed as its result.
    pub stdout: String,
    /// What it printed as diagnostics.
    pub stderr: String,
}

impl Cutover {
    /// The command line, run in a folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), environment: Vec::new(), timeout: Duration::from_secs(120) }
    }

    /// Talks to a daemon, by `CUTOVER_ENDPOINT`.
    #[must_use]
    pub fn daemon(self, daemon: &Cutoverd) -> Self {
        self.env("CUTOVER_ENDPOINT", daemon.endpoint())
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets how long a command may take; 120 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The folder it runs in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command without a terminal and with nothing on its standard input.
    ///
    /// # Errors
    /// When the programs cannot be built, or the command does not end in time; it is killed then.
    pub async fn run(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Output> {
        let program = &tokio::task::spawn_blocking(programs).await??.cutover;
        let arguments: Vec<OsString> =
            arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let mut command = tokio::process::Command::new(program);
        command
            .args(&arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child =
            command.spawn().with_context(|| format!("failed to start {}", program.display()))?;
        let output =
            tokio::time::timeout(self.timeout, child.wait_with_output()).await.with_context(
                || format!("cutover {arguments:?} did not end in {} s", self.timeout.as_secs()),
            )??;
        Ok(Output {
            code: output.status.code().context("cutover was ended by a signal")?,
            stdout: String::from_utf8(output.stdout)
                .context("cutover printed what is not UTF-8")?,
            stderr: String::from_utf8(output.stderr)
                .context("cutover printed what is not UTF-8")?,
        })
    }

    /// Starts a command on a terminal of 100 columns.
    ///
    /// # Errors
    /// When the programs cannot be built, or the command cannot be started.
    pub async fn on_terminal(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Terminal> {
        let mut command =
            std::process::Command::new(&tokio::task::spawn_blocking(programs).await??.cutover);
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder);
        Terminal::start(command, 100)
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
        ensure!(output.code == 0, "cutover failed: {output}");
        Ok(output)
    }

    /// The status of one migration, as `cutover status NAME --json` gives it.
    ///
    /// # Errors
    /// When the command fails or knows no such migration.
    pub async fn status(&self, name: &str) -> Result<serde_json::Value> {
        let document = self.succeed(["status", name, "--json"]).await?.json()?;
        let listed = document["migrations"].as_array().context("the status lists no migrations")?;
        let found = listed.iter().find(|migration| migration["name"] == name).cloned();
        found.with_context(|| format!("the status lists no migration {name}"))
    }

    /// Asks for the status again and again until a migration is in a phase, and gives that status.
    ///
    /// # Errors
    /// When it fails on the way, or is not there after `patience`.
    pub async fn wait_for_phase(
        &self,
        name: &str,
        phase: &str,
        patience: Duration,
    ) -> Result<serde_json::Value> {
        let start = std::time::Instant::now();
        loop {
            let status = self.status(name).await?;
            if status["phase"] == phase {
                return Ok(status);
            }
            ensure!(status["phase"] != "failed", "{name} failed on its way to {phase}: {status:#}");
            ensure!(
                start.elapsed() < patience,
                "{name} is not {phase} after {} s: {status:#}",
                patience.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Output {
    /// Standard output as one JSON document.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON document: {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {}\nstdout:\n{}\nstderr:\n{}",
            self.code,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}
