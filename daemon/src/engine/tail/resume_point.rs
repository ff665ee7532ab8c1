//! Up to where everything is applied: of each shard, for its checkpoint, and of all together.

use std::time::Instant;

use mongodb::bson::RawDocumentBuf;
use schemas::cluster_time::ClusterTime;
use schemas::id::ShardName;

use super::Tail;
use super::merge::Lane;
use crate::engine::checkpoint::{LaneRow, ShardRow};

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
    lanes: Vec<OfLane>,
    /// Of all shards together.
    pub(super) time: ClusterTime,
    /// When it was last stored.
    pub(super) stored: Instant,
}

impl Position {
    /// Where the shards' tails stand.
    pub(super) fn at(from: &[ShardRow]) -> Self {
        let lane = |row: &ShardRow| OfLane {
            token: row.token.clone(),
            time: row.applied.unwrap_or(row.start),
            events: row.events,
            is_changed: false,
        };
        let lanes: Vec<OfLane> = from.iter().map(lane).collect();
        let time = lanes.iter().map(|lane| lane.time).min().unwrap_or(ClusterTime { t: 0, i: 0 });
        Self { lanes, time, stored: Instant::now() }
    }

    /// Passes an event of a shard, or what it has reported without one.
    pub(super) fn pass(&mut self, lane: Lane, token: RawDocumentBuf, time: ClusterTime) {
        let of = &mut self.lanes[lane];
        (of.token, of.time, of.is_changed) = (Some(token), of.time.max(time), true);
        // Events come in the order of all shards' times; what a shard has reported without one may
        // lie ahead of what another still reports.
        if self.lanes.len() == 1 {
            self.time = self.time.max(time);
        }
    }

    /// Everything of every shard up to this time is applied.
    pub(super) fn settle(&mut self, time: Option<ClusterTime>) {
        self.time = self.time.max(time.unwrap_or(self.time));
    }

    /// Counts an event that was applied.
    pub(super) fn count(&mut self, lane: Lane) {
        let of = &mut self.lanes[lane];
        of.events += 1;
        self.time = self.time.max(of.time);
    }

    /// Shows it.
    pub(super) fn show(&self, tail: &Tail) {
        for (shard, lane) in tail.source.shards.iter().zip(&self.lanes) {
            tail.progress.shard(&shard.name).set_applied(lane.time, lane.events);
        }
        tail.progress.set_applied(self.time);
    }

    /// What has changed since this was asked the last time.
    pub(super) fn take_changed(&mut self, name: impl Fn(Lane) -> ShardName) -> Vec<LaneRow> {
        let changed = self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_changed);
        changed
            .filter_map(|(place, lane)| {
                lane.is_changed = false;
                let token = lane.token.clone()?;
                Some(LaneRow { shard: name(place), token, applied: lane.time, events: lane.events })
            })
            .collect()
    }
}
