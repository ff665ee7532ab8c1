//! Whether a deployment keeps its users from writing, as the server itself reports: now, or at any
//! moment of a while.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mongodb::Client;
use mongodb::bson::doc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What `repl.userWriteBlockMode` of `serverStatus` is while writes are blocked.
const BLOCKED: i32 = 2;

/// Whether the primary refuses its users' writes.
///
/// # Errors
/// When it does not answer.
pub async fn is_blocked(client: &Client) -> Result<bool> {
    let look = doc! { "serverStatus": 1, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0, "locks": 0 };
    let status = client
        .database("admin")
        .run_command(look)
        .await
        .context("failed to read the server's status")?;
    let mode = status.get_document("repl").and_then(|repl| repl.get_i32("userWriteBlockMode"));
    Ok(mode.context("the server does not tell whether it blocks writes")? == BLOCKED)
}

/// Blocks the writes of a deployment's users, or takes them again, as a person with a shell would.
///
/// # Errors
/// When the server refuses.
pub async fn set(client: &Client, on: bool) -> Result<()> {
    let command = doc! { "setUserWriteBlockMode": 1, "global": on };
    client
        .database("admin")
        .run_command(command)
        .await
        .context("failed to change the write block")?;
    Ok(())
}

/// Between two looks of a [`Watch`].
const LOOK: Duration = Duration::from_millis(5);

/// Looks all the while whether a deployment blocks its users' writes.
#[derive(Debug)]
pub struct Watch {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<bool>>,
}

impl Watch {
    /// Begins to look.
    #[must_use]
    pub fn start(client: &Client) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let client = client.clone();
        let task = tokio::spawn(async move {
            let mut seen = false;
            while !*stopped.borrow() {
                seen |= is_blocked(&client).await?;
                let _ = tokio::time::timeout(LOOK, stopped.changed()).await;
            }
            Ok(seen)
        });
        Self { stop, task }
    }

    /// Ends, and tells whether writes were blocked at any look.
    ///
    /// # Errors
    /// When a look failed.
    pub async fn was_blocked(self) -> Result<bool> {
        let _ = self.stop.send(true);
        self.task.await.context("the watch panicked")?
    }
}
