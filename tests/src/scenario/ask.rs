//! What a test asks the programs on a stage, again and again where it waits for something.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Deployed, Stage};

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

impl<S: Deployed, D: Deployed> Stage<S, D> {
    /// The plan of what the folder declares, with its exit code under `--detailed-exitcode`.
    ///
    /// # Errors
    /// When it prints no JSON document.
    pub async fn plan(&self) -> Result<(i32, Value)> {
        let output = self.cutover.run(["plan", "--detailed-exitcode", "--json"]).await?;
        Ok((output.code, output.json()?))
    }

    /// The journal of one migration, as `cutover events NAME --json` gives it.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn events(&self, name: &str) -> Result<Vec<Value>> {
        let document = self.cutover.succeed(["events", name, "--json"]).await?.json()?;
        Ok(document["events"].as_array().context("the journal lists no events")?.clone())
    }

    /// Asks for the status of one migration until something holds, and gives that status.
    ///
    /// # Errors
    /// When it does not hold in time; with the end of the daemon's log.
    pub async fn status_where(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let start = Instant::now();
        loop {
            let status = self.cutover.status(name).await?;
            if holds(&status) {
                return Ok(status);
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{name} is not {what} in time: {status:#}\n{}",
                self.daemon.log_end()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Removes a migration's block, applies that, and waits until the daemon holds nothing of it
    /// any more.
    ///
    /// # Errors
    /// When `apply` fails, or something of it is left after a while.
    pub async fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.folder().join(format!("{name}.hcl")))
            .context("failed to remove the block")?;
        // A folder without a file is no declaration.
        fs::write(self.folder().join("others.hcl"), "# nothing else\n")
            .context("failed to write a file")?;
        self.cutover.succeed(["apply", "--auto-approve"]).await?;
        let start = Instant::now();
        while self.cutover.run(["status", name]).await?.code == 0 {
            ensure!(
                start.elapsed() < PATIENCE,
                "{name} is not forgotten in time\n{}",
                self.daemon.log_end()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}
