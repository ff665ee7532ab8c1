//! The source's balancer: whether it may move chunks, stopped for a run and given back after it.
//!
//! A router stops it for the whole cluster and waits until its round has ended. What moves chunks by another's hand is not kept
//! from doing so: that is noticed by their versions ([`super::topology::Cluster::changes_since`]).

use mongodb::bson::doc;
use schemas::fault::{Fault, FaultCode};

use crate::mongo::Deployment;

/// How long a round that is under way may take to end: one migration of a chunk.
const ROUND_MS: i64 = 300_000;

/// What a balancer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balancer {
    /// It may start rounds, at once or when its window opens.
    pub is_on: bool,
    /// A round is under way.
    pub is_in_round: bool,
}

impl Balancer {
    /// Whether no chunk is moved by it, now and later.
    #[must_use]
    pub const fn is_still(self) -> bool {
        !self.is_on && !self.is_in_round
    }
}

/// What the cluster's balancer is doing.
pub async fn look(router: &Deployment) -> Result<Balancer, Fault> {
    let reply = router
        .command("admin", doc! { "balancerStatus": 1 })
        .await
        .map_err(|e| router.fault("reading the balancer's state", &e))?;
    let mode = reply.get_str("mode").map_err(|_| {
        Fault::new(FaultCode::SourceReadFailed, format!("the router at {} does not tell its balancer's mode", router.hosts))
    })?;
    // `autoMergeOnly`, from 7.0 on, merges chunks and moves none.
    Ok(Balancer { is_on: mode == "full", is_in_round: reply.get_bool("inBalancerRound").unwrap_or(false) })
}

/// Stops the balancer, and waits until it moves nothing any more. Stopping a stopped one is a success.
pub async fn stop(router: &Deployment) -> Result<(), Fault> {
    let stop = doc! { "balancerStop": 1, "maxTimeMS": ROUND_MS };
    router.command("admin", stop).await.map_err(|e| router.fault("stopping the balancer", &e))?;
    let balancer = look(router).await?;
    if balancer.is_still() {
        return Ok(());
    }
    let mut fault = Fault::new(
        FaultCode::SourceReadFailed,
        format!("the balancer at {} was stopped, and is {balancer:?} all the same", router.hosts),
    );
    fault.retryable = true;
    Err(fault)
}

/// Lets the balancer run again: for a run that stopped it, and for nobody else.
pub async fn start(router: &Deployment) -> Result<(), Fault> {
    router.command("admin", doc! { "balancerStart": 1 }).await.map_err(|e| router.fault("starting the balancer", &e)).map(drop)
}
