//! Whether the source still holds what comes after what was applied.
//!
//! A shard whose oplog has rolled over beyond that ends the run, though the others could go on.
//! What was deleted there meanwhile is reported by nothing else: what that shard holds would have
//! to be read again whole, from a new start point, and held against the destination while the other
//! shards' streams go on to change the same collections. Collections that came, went, were renamed
//! or went over to that shard in between would have to be told apart by comparing catalogues, from
//! which a drop and a rename look alike, and the definitions that were reported by the other shards
//! meanwhile would already be applied. A new generation does just that, from a state that is known,
//! and it is the one remedy that is offered.

use futures_util::future::join_all;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;

use crate::engine::checkpoint::Checkpoints;
use crate::engine::progress::Progress;
use crate::engine::source::Source;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Each shard that no longer holds it, and what is said of that.
    pub lost: Vec<(ShardName, Fault)>,
    /// Some shard's oplog may not be read.
    pub is_unknown: bool,
}

impl Found {
    /// One fault for all of them; `None`: nothing is lost, as far as it can be seen.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let (_, first) = self.lost.first()?;
        let messages: Vec<&str> =
            self.lost.iter().map(|(_, fault)| fault.message.as_str()).collect();
        let names: Vec<&str> = self.lost.iter().map(|(shard, _)| shard.0.as_str()).collect();
        Some(
            Fault { message: messages.join("; "), ..first.clone() }
                .with_remedy(remedy(&names.join(", "))),
        )
    }
}

/// What to do about it.
#[must_use]
pub fn remedy(shards: &str) -> String {
    format!(
        "raise `generation` to run again from scratch, with a larger oplog on {shards} \
         (replSetResizeOplog)"
    )
}

/// Looks at every shard, and shows with each what it has lost.
pub async fn look(
    source: &Source,
    checkpoints: &Checkpoints,
    progress: &Progress,
) -> Result<Found, Fault> {
    let mut found = Found::default();
    let starts = join_all(source.shards.iter().map(|shard| shard.deployment.oplog_start())).await;
    for (shard, oldest) in source.shards.iter().zip(starts) {
        // A run that has stored no start point has nothing to lose.
        let Some(row) = checkpoints.shard(&shard.name.0).await? else { continue };
        match oldest {
            Some(oldest) if oldest <= row.applied.unwrap_or(row.start) => {}
            Some(_) => {
                let message = format!(
                    "the oplog of {} no longer holds what comes after what was applied",
                    shard.name
                );
                let fault = Fault::new(FaultCode::ResumePointLost, message)
                    .with_remedy(remedy(&shard.name.0));
                progress.shard(&shard.name).set_error(Some(fault.clone()));
                found.lost.push((shard.name.clone(), fault));
            }
            None => found.is_unknown = true,
        }
    }
    Ok(found)
}
