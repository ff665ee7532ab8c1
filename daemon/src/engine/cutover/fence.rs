//! The block on the source's writes during a cutover: put up, seen to be up, and taken down for
//! certain.
//!
//! Taking it down is the delicate one. A request to block that a dead daemon, or a broken
//! connection, has left behind could land after the request to unblock, and keep the source closed
//! with nobody to open it. So each such request carries the run's mark and a time limit of the
//! server's own, and what is still under way is ended before the block is lifted.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use mongodb::bson::{Bson, Document, doc};
use schemas::fault::{Fault, FaultCode};

use super::open_transactions::{self, Found};
use crate::engine::destination::guard::{WRITE_BLOCK, is_granted, is_write_blocked};
use crate::engine::preflight::environment::{BLOCKS_WRITES, compatibility_of};
use crate::engine::source::{Reached, Source};
use crate::mongo::{Deployment, error, server_code};

/// How long the block is asked for in all. A cutover has its own, mostly shorter, limit
/// (`max_downtime`).
const LONGEST_BLOCK: Duration = Duration::from_secs(60);
/// How long the server may take at once to put the block up. It waits for whatever holds its lock,
/// such as transactions that are open, and readers and writers wait behind it for as long (seen on
/// 6.0.5, which keeps to the limit).
const AT_ONCE: Duration = Duration::from_secs(3);
/// How long they are let go on before the block is asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// How much longer than that an answer is waited for: a connection that has died silently must not
/// hold an undo up.
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

async fn in_time<T>(
    source: &Deployment,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Fault> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let message =
            format!("the source ({}) does not answer within {} s", source.hosts, limit.as_secs());
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
    if let Some(why) = too_low(source).await {
        return unavailable(format!("the source's writes cannot be blocked: {why}"));
    }
    if source.is_authenticated && !is_granted(source, ACTION).await? {
        return unavailable(format!(
            "the user on the source ({}) may not block its writes: it lacks {ACTION}",
            source.hosts
        ));
    }
    Ok(())
}

/// Why its feature compatibility version keeps a deployment from blocking writes; `None`: it does
/// not, or does not report it.
pub async fn too_low(deployment: &Deployment) -> Option<String> {
    if deployment.version < WRITE_BLOCK {
        return None;
    }
    let (major, minor) =
        compatibility_of(deployment).await.filter(|version| *version < BLOCKS_WRITES)?;
    Some(format!(
        "the feature compatibility version of the {} ({}) is {major}.{minor}, and \
         setUserWriteBlockMode needs {}.{}",
        deployment.side, deployment.hosts, BLOCKS_WRITES.0, BLOCKS_WRITES.1
    ))
}

/// Blocks the writes. `limit`: past it, it is given up. The server takes [`AT_ONCE`] at most for
/// it, so that what it waits for holds readers up no longer.
pub async fn put_up(source: &Source, limit: Duration) -> Result<(), Fault> {
    let entry = &*source.entry;
    let began = Instant::now();
    let limit = limit.clamp(Duration::from_secs(1), LONGEST_BLOCK);
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let at_once = left.clamp(Duration::from_millis(100), AT_ONCE);
        let error = match in_time(
            entry,
            at_once + ANSWER,
            entry.command("admin", request(entry, true, at_once)),
        )
        .await?
        {
            Ok(_) => return Ok(()),
            Err(e) => e,
        };
        if error::code(&error) != Some(server_code::MAX_TIME_MS_EXPIRED) {
            return Err(entry.fault("blocking the writes", &error));
        }
        let in_the_way = match open_transactions::of(source).await {
            Ok(Found::Open(open)) if !open.is_empty() => Some(open),
            Ok(Found::Open(_) | Found::Hidden(_)) | Err(_) => None,
        };
        if began.elapsed() + PAUSE >= limit {
            return Err(match in_the_way {
                Some(open) => open_transactions::fault(&open),
                None => {
                    let message = format!(
                        "the source ({}) did not block its writes within {} s: an operation on it \
                         holds its lock for longer than {} s",
                        entry.hosts,
                        limit.as_secs(),
                        AT_ONCE.as_secs()
                    );
                    let remedy = "find it by db.currentOp() and let it end, or end it (killOp); \
                         then acknowledge again";
                    Fault::new(FaultCode::WritesContinued, message).with_remedy(remedy)
                }
            });
        }
        tracing::info!(
            ?in_the_way,
            "the source has not blocked its writes yet; its readers are let go on meanwhile"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// Makes sure that the block is still up: what came before it was lifted may not have been the
/// last.
pub async fn check_up(source: &Source) -> Result<(), Fault> {
    // Without the privilege to look, the block that was acknowledged is taken to stand.
    let looks = source.shards.iter().map(|shard| async {
        Ok::<_, Fault>((&shard.name, is_write_blocked(&shard.deployment).await?))
    });
    let blocked: Vec<_> = try_join_all(looks).await?;
    if let Some((shard, _)) = blocked.iter().find(|(_, is_blocked)| *is_blocked == Some(false)) {
        let message = format!(
            "somebody has lifted the block of the source's writes ({shard}) during the cutover"
        );
        return Err(Fault::new(FaultCode::WritesContinued, message).with_remedy(
            "keep others from setUserWriteBlockMode on the source, then acknowledge again",
        ));
    }
    Ok(())
}

/// Whether what holds data blocks its users' writes: a router does not report, and each shard keeps
/// it by itself. `None` where that may not be seen.
async fn look(holder: Result<Arc<Deployment>, Fault>) -> Result<Option<bool>, Fault> {
    let holder = holder?;
    in_time(&holder, ANSWER, is_write_blocked(&holder)).await?
}

/// The fault of writes that the block does not stop.
pub fn bypassed(source: &Deployment) -> Fault {
    let message = format!(
        "a write reached the source ({}) while its writes were blocked: a user that may bypass \
         the block, as root may, still writes",
        source.hosts
    );
    Fault::new(FaultCode::WritesContinued, message).with_remedy(
        "stop that application, or have it log in as a user without the privilege \
         bypassWriteBlockingMode; then acknowledge again",
    )
}

/// Lifts the block, and makes sure that it is lifted and stays so.
///
/// A shard that does not answer keeps the others from nothing: the router frees them at once, and
/// that one when it is back, which is seen when this is tried again. `holders` are reached only
/// then, since that takes its time.
pub async fn lift(
    entry: &Deployment,
    holders: impl Future<Output = Result<Reached, Fault>>,
) -> Result<(), Fault> {
    if entry.version < WRITE_BLOCK {
        return Ok(());
    }
    let ended = end_requests(entry).await;
    let lifted =
        in_time(entry, ANSWER, entry.command("admin", request(entry, false, ANSWER))).await;
    let looks =
        holders.await?.into_iter().map(|(name, holder)| async { (name, look(holder).await) });
    let mut is_seen_open = true;
    let mut faults = Vec::new();
    for (name, look) in join_all(looks).await {
        is_seen_open &= matches!(look, Ok(Some(false)));
        match look {
            Ok(Some(true)) => faults.push(format!("{name} still blocks its users' writes")),
            Ok(Some(false) | None) => {}
            Err(fault) => faults.push(format!(
                "it is not seen whether {name} still blocks its users' writes: {}",
                fault.message
            )),
        }
    }
    if !faults.is_empty() {
        let mut fault = Fault::new(
            FaultCode::SourceReadFailed,
            format!("the source ({}): {}", entry.hosts, faults.join("; ")),
        );
        fault.retryable = true;
        return Err(fault);
    }
    // A request to block that is still under way could land later.
    ended?;
    match lifted? {
        Ok(_) => Ok(()),
        // Who may not lift it could not put it up; nor can a server whose feature compatibility
        // version was lowered meanwhile, which is refused while the block is up (tried on 6.0.5).
        Err(e)
            if is_seen_open
                && matches!(
                    error::code(&e),
                    Some(
                        server_code::UNAUTHORIZED
                            | server_code::COMMAND_NOT_FOUND
                            | server_code::ILLEGAL_OPERATION
                    )
                ) =>
        {
            Ok(())
        }
        Err(e) => {
            let fault = entry.fault("unblocking the writes", &e);
            Err(match too_low(entry).await {
                Some(why) => {
                    let remedy = "raise it again (setFeatureCompatibilityVersion); the daemon \
                         then lifts the block by itself";
                    Fault { message: format!("{}: {why}", fault.message), ..fault }
                        .with_remedy(remedy)
                }
                None => fault,
            })
        }
    }
}

/// Ends requests of this run to block that are still under way.
async fn end_requests(source: &Deployment) -> Result<(), Fault> {
    let is_router = source.is_sharded();
    let look = || async {
        let pipeline = vec![
            // A router's own operations: what it has handed on goes to its end, and what comes
            // later waits for that.
            doc! {
                "$currentOp": { "allUsers": false, "idleConnections": false, "localOps": is_router }
            },
            doc! { "$match": { "command.comment": mark(source), "command.global": true } },
            doc! { "$project": { "opid": 1 } },
        ];
        let reply = source
            .command("admin", doc! { "aggregate": 1, "pipeline": pipeline, "cursor": {} })
            .await;
        let reply = reply.map_err(|e| source.fault("looking for requests under way", &e))?;
        let found = reply
            .get_document("cursor")
            .and_then(|cursor| cursor.get_array("firstBatch"))
            .cloned()
            .unwrap_or_default();
        Ok::<_, Fault>(
            found
                .iter()
                .filter_map(|op| op.as_document()?.get("opid").cloned())
                .collect::<Vec<Bson>>(),
        )
    };
    in_time(source, ANSWER, async {
        loop {
            let under_way = look().await?;
            if under_way.is_empty() {
                return Ok(());
            }
            for op in under_way {
                // One that has ended meanwhile is no error; one that goes on is seen by the next
                // look.
                let _ = source.command("admin", doc! { "killOp": 1, "op": op }).await;
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await?
}
