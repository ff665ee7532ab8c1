//! Tells about a sync while it runs: what it has reached, and how it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mongodb::bson::doc;
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use tokio::sync::mpsc;

use super::Milestone;
use crate::engine::SyncReport;
use crate::engine::capped::keeper::Keeper;
use crate::engine::checkpoint::Checkpoints;
use crate::engine::cutover::blockers::BlockerWatch;
use crate::engine::progress::Progress;
use crate::engine::source::balancer_hold;
use crate::engine::source::{Source, Times};
use crate::engine::verify::Verifier;

/// Between two reports of a running sync's health.
const HEALTH_EVERY: Duration = Duration::from_millis(500);
/// Health reports between two looks at the oplogs' ends: they move slowly.
const OPLOG_EVERY: u32 = 60;

/// Tells about a sync while it runs.
#[derive(Debug)]
pub(in crate::engine) struct Reporter {
    pub(in crate::engine) source: Arc<Source>,
    pub(in crate::engine) blocker_watch: BlockerWatch,
    pub(in crate::engine) progress: Arc<Progress>,
    pub(in crate::engine) checkpoints: Checkpoints,
    pub(in crate::engine) verifier: Arc<Verifier>,
    pub(in crate::engine) keeper: Arc<Keeper>,
    pub(in crate::engine) reports: Arc<Mutex<mpsc::Sender<SyncReport>>>,
    pub(in crate::engine) reached: Arc<Mutex<Vec<Milestone>>>,
}

impl Milestone {
    pub(in crate::engine) fn report(self) -> SyncReport {
        match self {
            Self::Copied => SyncReport::CopyFinished,
            Self::Indexed => SyncReport::IndexesBuilt,
            Self::ShardStopped(shard, fault) => SyncReport::ShardStopped { shard, fault },
        }
    }
}

impl Reporter {
    pub(in crate::engine) async fn send(&self, report: SyncReport) {
        let sender = self.reports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The shell that listened has gone; a new one will ask again.
        let _ = sender.send(report).await;
    }

    /// Reports milestones and health until it is dropped.
    pub(in crate::engine) async fn watch(
        &self,
        mut milestones: mpsc::UnboundedReceiver<Milestone>,
    ) {
        let mut ticks = tokio::time::interval(HEALTH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut copied, mut indexed, mut count) = (None, false, 0_u32);
        let mut balancer = balancer_hold::Watch::default();
        let mut noted = None;
        let mut blocker_watch = std::pin::pin!(self.blocker_watch.watch());
        loop {
            tokio::select! {
                never = &mut blocker_watch => match never {},
                Some(milestone) = milestones.recv() => {
                    let is_lasting = match milestone {
                        Milestone::Copied => {
                            copied = self.copied().await.ok().flatten();
                            true
                        }
                        Milestone::Indexed => {
                            indexed = true;
                            self.blocker_watch.begin();
                            true
                        }
                        Milestone::ShardStopped(..) => false,
                    };
                    if is_lasting {
                        let mut reached =
                            self.reached.lock().unwrap_or_else(PoisonError::into_inner);
                        reached.push(milestone.clone());
                        drop(reached);
                    }
                    self.send(milestone.report()).await;
                },
                _ = ticks.tick() => {
                    if count.is_multiple_of(OPLOG_EVERY) {
                        self.look_at_oplogs().await;
                    }
                    count = count.wrapping_add(1);
                    let mut blockers = self.verifier.blockers();
                    let lag = match self.look_at_optimes(&mut noted).await.as_slice() {
                        [] => self.progress.lag(),
                        silent => {
                            blockers.extend(silent.iter().cloned());
                            None
                        }
                    };
                    blockers.extend(self.progress.brakes());
                    blockers.extend(self.blocker_watch.blockers());
                    blockers.extend(self.keeper.blockers());
                    blockers.extend(balancer.blocker(&self.source.entry).await);
                    blockers.extend(self.progress.error().map(|fault| fault.to_string()));
                    let of_shards = self.progress.shards();
                    let errors = of_shards.iter().filter_map(
                        |shard| Some(format!("shard {}: {}", shard.name(), shard.error()?))
                    );
                    blockers.extend(errors);
                    let caught_up = indexed && copied.as_ref().is_some_and(
                        |copied| self.progress.has_applied(copied)
                    );
                    self.send(SyncReport::Health { lag, caught_up, blockers }).await;
                }
            }
        }
    }

    /// The times by which each shard's documents had been read.
    async fn copied(&self) -> Result<Option<Times>, Fault> {
        let mut copied = Times::new();
        for name in self.source.names() {
            match self.checkpoints.shard(&name.0).await?.and_then(|row| row.copied) {
                Some(time) => copied.insert(name.clone(), time),
                None => return Ok(None),
            };
        }
        Ok(Some(copied))
    }

    async fn look_at_oplogs(&self) {
        let looks = self.source.shards.iter().map(|shard| async {
            self.progress
                .shard(&shard.name)
                .set_oplog_window(shard.deployment.oplog_window_seconds().await);
        });
        join_all(looks).await;
    }

    /// Asks every server that the run needs where it stands. Gives what does not answer, in words.
    ///
    /// Through a router that is a note on every shard, whose stream passes it once the next one is
    /// written: what is shown is the time of the one `before`.
    async fn look_at_optimes(&self, before: &mut Option<(Instant, ClusterTime)>) -> Vec<String> {
        let asked_at = Instant::now();
        if self.source.is_behind_router() {
            let name = self.source.names().next().cloned();
            return match (name, self.source.entry.oplog_note("cutover: how far").await) {
                (Some(name), Ok(newest)) => {
                    let now = (asked_at, newest);
                    let (asked_at, newest) = before.replace(now).unwrap_or(now);
                    self.progress.shard(&name).set_source(asked_at, newest);
                    Vec::new()
                }
                (_, Err(fault)) => vec![format!(
                    "the source does not answer through its router: {}",
                    fault.message
                )],
                (None, Ok(_)) => vec!["the source has no shard".to_owned()],
            };
        }
        let looks = self.source.shards.iter().map(|shard| async {
            match shard.deployment.majority_optime().await {
                Ok(optime) => {
                    self.progress.shard(&shard.name).set_source(asked_at, optime);
                    None
                }
                Err(fault) if self.source.is_sharded() => Some(format!(
                    "the source's shard {} does not answer: {}",
                    shard.name, fault.message
                )),
                Err(fault) => Some(format!("the source does not answer: {}", fault.message)),
            }
        });
        let mut silent: Vec<String> = join_all(looks).await.into_iter().flatten().collect();
        if self.source.is_sharded()
            && let Err(e) = self.source.entry.command("admin", doc! { "ping": 1 }).await
        {
            silent.push(format!(
                "the source's router does not answer: {}",
                self.source.entry.fault("asking", &e).message
            ));
        }
        silent
    }
}
