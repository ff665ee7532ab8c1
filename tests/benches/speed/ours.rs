//! The daemon as a contender: declared, started, timed by its own journal.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rig::programs::programs;
use rig::scenario::MIGRATION;
use rig::{Cutover, Cutoverd, Declaration, ReplicaSet, cutoverd};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::cost;

/// Between two looks at the status: little beside what is measured.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A daemon with one migration.
pub(crate) struct Ours {
    daemon: Cutoverd,
    cutover: Cutover,
    declaration: Declaration,
}

/// A record of the journal.
pub(crate) struct Entry {
    /// Milliseconds since 1970.
    pub(crate) at: i64,
    message: String,
    to: Option<String>,
}

impl Ours {
    /// Starts a daemon for a migration that is not declared yet. `verify`: the mode.
    pub(crate) async fn start(
        source: &ReplicaSet,
        destination: &ReplicaSet,
        verify: &str,
    ) -> Result<Self> {
        let daemon = Cutoverd::start(cutoverd::Config::default()).await?;
        let folder = daemon.folder().join("hcl");
        std::fs::create_dir(&folder)?;
        let cutover = Cutover::new(folder).daemon(&daemon);
        let declaration = Declaration::new(MIGRATION, &source.uri(), &destination.uri())
            .text("verify.mode", verify);
        Ok(Self { daemon, cutover, declaration })
    }

    /// The same with one more setting declared.
    pub(crate) fn declare(self, path: &str, expression: impl std::fmt::Display) -> Self {
        Self { declaration: self.declaration.set(path, expression), ..self }
    }

    /// Declares the migration; it begins.
    pub(crate) async fn apply(&self) -> Result<()> {
        self.declaration.write(self.cutover.folder())?;
        self.cutover.succeed(["apply", "--auto-approve"]).await?;
        Ok(())
    }

    pub(crate) async fn pause(&self) -> Result<()> {
        self.cutover.succeed(["pause", MIGRATION]).await?;
        self.cutover.wait_for_phase(MIGRATION, "paused", Duration::from_secs(60)).await?;
        Ok(())
    }

    pub(crate) async fn resume(&self) -> Result<()> {
        self.cutover.succeed(["resume", MIGRATION]).await?;
        Ok(())
    }

    pub(crate) async fn ready(&self) -> Result<()> {
        self.until(|entry| entry.to.as_deref() == Some("ready")).await.map(drop)
    }

    /// Waits until the copy is done and the indexes are built; gives the milliseconds from the
    /// declaration on.
    pub(crate) async fn copied(&self) -> Result<i64> {
        let entries = self.until(|entry| entry.message == "the indexes are built").await?;
        span(&entries)
    }

    /// Waits until everything was compared after that. Gives the seconds that it took, and those
    /// until the run was ready: a run must have been well for a while before it is.
    pub(crate) async fn verified(&self) -> Result<(f64, f64)> {
        let began = Instant::now();
        self.compared().await?;
        let compared = began.elapsed().as_secs_f64();
        self.ready().await?;
        Ok((compared, began.elapsed().as_secs_f64()))
    }

    /// Waits until nothing is left to be compared.
    pub(crate) async fn compared(&self) -> Result<()> {
        loop {
            let status = self.cutover.status(MIGRATION).await?;
            let verification = &status["verification"];
            let is_compared = verification["phase"] == "clean" || status["phase"] == "ready";
            if is_compared && verification["pending_rechecks"] == 0 {
                return Ok(());
            }
            ensure!(
                status["phase"] != "failed",
                "the run failed: {status:#}\n{}",
                self.daemon.log_end()
            );
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Processor time and peak memory so far.
    pub(crate) fn cost(&self) -> Result<(Duration, u64)> {
        Ok((cost::cpu(self.daemon.pid())?, cost::peak(self.daemon.pid())?))
    }

    /// Follows the journal until a record fits; gives all of them.
    async fn until(&self, fits: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>> {
        let mut command = tokio::process::Command::new(&programs()?.cutover);
        command
            .args(["events", MIGRATION, "--follow", "--json"])
            .env("CUTOVER_ENDPOINT", self.daemon.endpoint());
        command
            .current_dir(self.cutover.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("failed to follow the journal")?;
        let mut lines =
            BufReader::new(child.stdout.take().context("the journal has no pipe")?).lines();
        let mut entries = Vec::new();
        while let Some(line) = lines.next_line().await? {
            let value: Value = serde_json::from_str(&line)?;
            let at: jiff::Timestamp =
                value["at"].as_str().context("a record has no time")?.parse()?;
            let entry = Entry {
                at: at.as_millisecond(),
                message: value["message"].as_str().unwrap_or_default().to_owned(),
                to: value["to"].as_str().map(str::to_owned),
            };
            ensure!(
                entry.to.as_deref() != Some("failed"),
                "the run failed: {}\n{}",
                entry.message,
                self.daemon.log_end()
            );
            let found = fits(&entry);
            entries.push(entry);
            if found {
                return Ok(entries);
            }
        }
        bail!("the journal ended\n{}", self.daemon.log_end())
    }
}

fn span(entries: &[Entry]) -> Result<i64> {
    let (first, last) =
        (entries.first().context("an empty journal")?, entries.last().context("an empty journal")?);
    Ok(last.at - first.at)
}
