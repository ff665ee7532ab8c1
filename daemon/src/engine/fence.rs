//! The block on the source's writes during a cutover: put up, seen to be up, and taken down for certain.
//!
//! Taking it down is the delicate one. A request to block that a dead daemon, or a broken connection, has left behind could land
//! after the request to unblock, and keep the source closed with nobody to open it. So each such request carries the run's mark
//! and a time limit of the server's own, and what is still under way is ended before the block is lifted.

use std::future::Future;
use std::time::Duration;

use futures_util::future::try_join_all;
use mongodb::bson::{Bson, Document, doc};
use schemas::fault::{Fault, FaultCode};

use super::guard::{WRITE_BLOCK, is_granted, is_write_blocked};
use super::source::Source;
use crate::mongo::{Deployment, error};

/// The server's codes: not permitted; no such command.
const UNAUTHORIZED: i32 = 13;
const NO_SUCH_COMMAND: i32 = 59;

/// How long the server may take to put the block up: it waits for transactions that are open, and keeps other writers waiting
/// meanwhile. A cutover has its own, mostly shorter, limit (`max_downtime`).
const LONGEST_BLOCK: Duration = Duration::from_secs(60);
/// How much longer than that an answer is waited for: a connection that has died silently must not hold an undo up.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks at what is under way.
const POLL: Duration = Duration::from_millis(50);

/// The action that blocks writes.
const ACTION: &str = "setUserWriteBlockMode";

fn mark(source: &Deployment) -> String {
    format!("{};fence", source.tag)
}

fn request(source: &Deployment, on: bool, limit: Duration) -> Document {
    let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    doc! { ACTION: 1, "global": on, "comment": mark(source), "maxTimeMS": limit_ms }
}

async fn in_time<T>(source: &Deployment, limit: Duration, work: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let message = format!("the source ({}) does not answer within {} s", source.hosts, limit.as_secs());
        Fault::new(FaultCode::Unreachable, message)
    })
}

/// Looks whether the source's writes could be blocked: its version, and the user's privilege.
pub async fn check_available(source: &Deployment) -> Result<(), Fault> {
    let unavailable = |why: String| Err(Fault::new(FaultCode::WriteBlockUnavailable, why));
    if source.version < WRITE_BLOCK {
        return unavailable(format!(
            "the source is MongoDB {}, whose writes cannot be blocked: that needs {WRITE_BLOCK}",
            source.version
        ));
    }
    if source.is_authenticated && !is_granted(source, ACTION).await? {
        return unavailable(format!("the user on the source ({}) may not block its writes: it lacks {ACTION}", source.hosts));
    }
    Ok(())
}

/// Blocks the writes. `limit`: past it the server itself gives up.
pub async fn put_up(source: &Source, limit: Duration) -> Result<(), Fault> {
    let source = &*source.entry;
    let limit = limit.clamp(Duration::from_secs(1), LONGEST_BLOCK);
    in_time(source, limit + ANSWER, source.command("admin", request(source, true, limit)))
        .await?
        .map(drop)
        .map_err(|e| source.fault("blocking the writes", &e))
}

/// Makes sure that the block is still up: what came before it was lifted may not have been the last.
pub async fn check_up(source: &Source) -> Result<(), Fault> {
    // Without the privilege to look, the block that was acknowledged is taken to stand.
    if let Some(shard) = blocked(source).await?.iter().find(|shard| shard.is_blocked == Some(false)) {
        let message = format!("somebody has lifted the block of the source's writes ({}) during the cutover", shard.hosts);
        return Err(Fault::new(FaultCode::WritesContinued, message)
            .with_remedy("keep others from setUserWriteBlockMode on the source, then acknowledge again"));
    }
    Ok(())
}

/// Whether a replica set blocks its users' writes; `None` where that may not be seen.
struct Blocked<'a> {
    hosts: &'a str,
    is_blocked: Option<bool>,
}

/// Whether each shard blocks its users' writes: a router does not tell, and each keeps it by itself.
async fn blocked(source: &Source) -> Result<Vec<Blocked<'_>>, Fault> {
    try_join_all(source.shards.iter().map(|shard| async {
        let is_blocked = is_write_blocked(&shard.deployment).await?;
        Ok(Blocked { hosts: &shard.deployment.hosts, is_blocked })
    }))
    .await
}

/// The fault of writes that the block does not stop.
pub fn bypassed(source: &Deployment) -> Fault {
    let message = format!(
        "a write reached the source ({}) while its writes were blocked: a user that may bypass the block, as root may, still writes",
        source.hosts
    );
    Fault::new(FaultCode::WritesContinued, message).with_remedy(
        "stop that application, or have it log in as a user without the privilege bypassWriteBlockingMode; then acknowledge again",
    )
}

/// Lifts the block, and makes sure that it is lifted and stays so.
pub async fn lift(source: &Source) -> Result<(), Fault> {
    let entry = &*source.entry;
    if entry.version < WRITE_BLOCK {
        return Ok(());
    }
    end_requests(entry).await?;
    let lifted = in_time(entry, ANSWER, entry.command("admin", request(entry, false, ANSWER))).await?;
    let shards = in_time(entry, ANSWER, blocked(source)).await??;
    let still = shards.iter().find(|shard| shard.is_blocked == Some(true));
    let is_seen_open = shards.iter().all(|shard| shard.is_blocked == Some(false));
    match (lifted, still) {
        (Ok(_), None) => Ok(()),
        // Who may not lift it could not put it up.
        (Err(e), None) if is_seen_open && matches!(error::code(&e), Some(UNAUTHORIZED | NO_SUCH_COMMAND)) => Ok(()),
        (Err(e), _) => Err(entry.fault("unblocking the writes", &e)),
        (Ok(_), Some(still)) => {
            let mut fault =
                Fault::new(FaultCode::SourceReadFailed, format!("the source ({}) still blocks its users' writes", still.hosts));
            fault.retryable = true;
            Err(fault)
        }
    }
}

/// Ends requests of this run to block that are still under way.
async fn end_requests(source: &Deployment) -> Result<(), Fault> {
    let is_router = source.is_sharded();
    let look = || async {
        let pipeline = vec![
            // A router's own operations: what it has handed on goes to its end, and what comes later waits for that.
            doc! { "$currentOp": { "allUsers": false, "idleConnections": false, "localOps": is_router } },
            doc! { "$match": { "command.comment": mark(source), "command.global": true } },
            doc! { "$project": { "opid": 1 } },
        ];
        let reply = source.command("admin", doc! { "aggregate": 1, "pipeline": pipeline, "cursor": {} }).await;
        let reply = reply.map_err(|e| source.fault("looking for requests under way", &e))?;
        let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).cloned().unwrap_or_default();
        Ok::<_, Fault>(found.iter().filter_map(|op| op.as_document()?.get("opid").cloned()).collect::<Vec<Bson>>())
    };
    in_time(source, ANSWER, async {
        loop {
            let under_way = look().await?;
            if under_way.is_empty() {
                return Ok(());
            }
            for op in under_way {
                // One that has ended meanwhile is no error; one that goes on is seen by the next look.
                let _ = source.command("admin", doc! { "killOp": 1, "op": op }).await;
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await?
}
