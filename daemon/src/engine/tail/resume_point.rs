//! Up to where everything is applied: of each shard, for its checkpoint, and of all together.

use std::time::Instant;

use mongodb::bson::RawDocumentBuf;
use schemas::cluster_time::ClusterTime;
use schemas::id::ShardName;

use super::Tail;
use super::merge::ShardIndex;
use crate::engine::checkpoint::{ShardRow, ShardStreamRow};

#[derive(Debug)]
struct OfLane {
    token: Option<RawDocumentBuf>,
    time: ClusterTime,
    events: u64,
    is_changed: bool,
}

/// Up to where everything is applied.
#[derive(Debug)]
pub(super) struct Position {
    shard_indexes: Vec<OfLane>,
    /// Of all shards together.
    pub(super) time: ClusterTime,
    /// When it was last stored.
    pub(super) stored: Instant,
}

impl Position {
    /// Where the shards' tails stand.
    pub(super) fn at(from: &[ShardRow]) -> Self {
        let shard_index = |row: &ShardRow| OfLane {
            token: row.token.clone(),
            time: row.applied.unwrap_or(row.start),
            events: row.events,
            is_changed: false,
        };
        let shard_indexes: Vec<OfLane> = from.iter().map(shard_index).collect();
        let time = shard_indexes
            .iter()
            .map(|shard_index| shard_index.time)
            .min()
            .unwrap_or(ClusterTime { t: 0, i: 0 });
        Self { shard_indexes, time, stored: Instant::now() }
    }

    /// Passes an event of a shard, or what it has reported without one.
    pub(super) fn pass(
        &mut self,
        shard_index: ShardIndex,
        token: RawDocumentBuf,
        time: ClusterTime,
    ) {
        let of = &mut self.shard_indexes[shard_index];
        (of.token, of.time, of.is_changed) = (Some(token), of.time.max(time), true);
        // Events come in the order of all shards' times; what a shard has reported without one may
        // lie ahead of what another still reports.
        if self.shard_indexes.len() == 1 {
            self.time = self.time.max(time);
        }
    }

    /// Everything of every shard up to this time is applied.
    pub(super) fn settle(&mut self, time: Option<ClusterTime>) {
        self.time = self.time.max(time.unwrap_or(self.time));
    }

    /// Counts an event that was applied.
    pub(super) fn count(&mut self, shard_index: ShardIndex) {
        let of = &mut self.shard_indexes[shard_index];
        of.events += 1;
        self.time = self.time.max(of.time);
    }

    /// Shows it.
    pub(super) fn show(&self, tail: &Tail) {
        for (shard, shard_index) in tail.source.shards.iter().zip(&self.shard_indexes) {
            tail.progress.shard(&shard.name).set_applied(shard_index.time, shard_index.events);
        }
        tail.progress.set_applied(self.time);
    }

    /// What has changed since this was asked the last time.
    pub(super) fn take_changed(
        &mut self,
        name: impl Fn(ShardIndex) -> ShardName,
    ) -> Vec<ShardStreamRow> {
        let changed = self
            .shard_indexes
            .iter_mut()
            .enumerate()
            .filter(|(_, shard_index)| shard_index.is_changed);
        changed
            .filter_map(|(place, shard_index)| {
                shard_index.is_changed = false;
                let token = shard_index.token.clone()?;
                Some(ShardStreamRow {
                    shard: name(place),
                    token,
                    applied: shard_index.time,
                    events: shard_index.events,
                })
            })
            .collect()
    }
}
