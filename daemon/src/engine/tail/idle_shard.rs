//! Makes a shard that is idle tell how far it has come, where events of others wait for that.

use std::time::Duration;

use futures_util::future::BoxFuture;
use schemas::fault::Fault;
use tokio::time::Instant;

use super::merge::ShardIndex;
use crate::engine::source::Source;

/// Between two notes at least: each is a write on the source. Others' events wait for so long at
/// most, once it is busy.
const BETWEEN: Duration = Duration::from_millis(100);

/// The note that is being written, and when the last one was.
#[derive(Default)]
pub(super) struct Idle<'a> {
    writing: Option<BoxFuture<'a, Result<(), Fault>>>,
    last: Option<Instant>,
}

impl<'a> Idle<'a> {
    /// Begins to write a note to the oplog of the shard that holds the others up, where there is
    /// one and none is being written.
    pub(super) fn look(&mut self, source: &'a Source, holds_up: Option<ShardIndex>) {
        let Some(shard) = holds_up.and_then(|shard_index| source.shards.get(shard_index)) else {
            return;
        };
        let not_before = self.last.map(|last| last + BETWEEN);
        self.writing.get_or_insert_with(|| {
            Box::pin(async move {
                if let Some(at) = not_before {
                    tokio::time::sleep_until(at).await;
                }
                source.advance(shard).await.map(drop)
            })
        });
    }

    /// Waits until the note is written, for ever where there is none.
    pub(super) async fn written(&mut self) -> Result<(), Fault> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let written = writing.await;
        (self.writing, self.last) = (None, Some(Instant::now()));
        written
    }
}
