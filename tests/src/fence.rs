//! Whether a deployment keeps its users from writing, as the server itself tells.

use anyhow::{Context as _, Result};
use mongodb::Client;
use mongodb::bson::doc;

/// What `repl.userWriteBlockMode` of `serverStatus` is while writes are blocked.
const BLOCKED: i32 = 2;

/// Whether the primary refuses its users' writes.
///
/// # Errors
/// When it does not answer.
pub async fn is_blocked(client: &Client) -> Result<bool> {
    let look = doc! { "serverStatus": 1, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0, "locks": 0 };
    let status = client.database("admin").run_command(look).await.context("failed to read the server's status")?;
    let mode = status.get_document("repl").and_then(|repl| repl.get_i32("userWriteBlockMode"));
    Ok(mode.context("the server does not tell whether it blocks writes")? == BLOCKED)
}

/// Blocks the writes of a deployment's users, or takes them again, as a person with a shell would.
///
/// # Errors
/// When the server refuses.
pub async fn set(client: &Client, on: bool) -> Result<()> {
    let command = doc! { "setUserWriteBlockMode": 1, "global": on };
    client.database("admin").run_command(command).await.context("failed to change the write block")?;
    Ok(())
}
