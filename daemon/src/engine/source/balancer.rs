//! The source's balancer: whether it may move chunks, stopped for a run and given back after it.
//!
//! A router stops it for the whole cluster and waits until its round has ended. A router that knows
//! no such command is answered for by what is stored in the config database, as older shells did
//! it. What moves chunks by another's hand is not kept from doing so: that is noticed by their
//! versions ([`super::topology::Cluster::changes_since`]). Who stopped it is remembered in
//! [`super::balancer_hold`].

use std::time::Duration;

use mongodb::bson::{doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use tokio::time::Instant;

use super::topology;
use crate::mongo::{Deployment, error, server_code};

/// How long a round that is under way may take to end: one migration of a chunk.
const ROUND: Duration = Duration::from_mins(5);
/// Between two looks at a round that is under way.
const POLL: Duration = Duration::from_millis(500);

/// The server's codes for a command that it does not have: `CommandNotFound`,
/// `CommandNotSupported`, `NotImplemented`.
const UNKNOWN_COMMAND: [i32; 3] = [
    server_code::COMMAND_NOT_FOUND,
    server_code::COMMAND_NOT_SUPPORTED,
    server_code::NOT_IMPLEMENTED,
];

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

    /// What it is doing in words, as in "the balancer is on".
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match (self.is_on, self.is_in_round) {
            (true, _) => "on",
            (false, true) => "stopped and still moving a chunk",
            (false, false) => "off",
        }
    }
}

fn is_unknown(error: &mongodb::error::Error) -> bool {
    error::code(error).is_some_and(|code| UNKNOWN_COMMAND.contains(&code))
}

/// What the cluster's balancer is doing.
pub async fn look(router: &Deployment) -> Result<Balancer, Fault> {
    let reply = match router.command("admin", doc! { "balancerStatus": 1 }).await {
        Ok(reply) => reply,
        Err(e) if is_unknown(&e) => return look_at_settings(router).await,
        Err(e) => return Err(router.fault("reading the balancer's state", &e)),
    };
    let mode = reply.get_str("mode").map_err(|_| {
        Fault::new(
            FaultCode::SourceReadFailed,
            format!("the router at {} does not tell its balancer's mode", router.hosts),
        )
    })?;
    // `autoMergeOnly`, from 7.0 on, merges chunks and moves none.
    Ok(Balancer {
        is_on: mode == "full",
        is_in_round: reply.get_bool("inBalancerRound").unwrap_or(false),
    })
}

/// The same from what is stored: the balancer's settings, where nothing means on, and the
/// migrations under way.
async fn look_at_settings(router: &Deployment) -> Result<Balancer, Fault> {
    let settings = topology::entries(router, "settings", &rawdoc! { "_id": "balancer" }).await?;
    let is_on = settings.first().is_none_or(|settings| {
        !settings.get_bool("stopped").unwrap_or(false)
            && settings.get_str("mode").map_or(true, |mode| mode == "full")
    });
    let is_in_round = !topology::entries(router, "migrations", &rawdoc! {}).await?.is_empty();
    Ok(Balancer { is_on, is_in_round })
}

/// Writes the balancer's settings, as `sh.setBalancerState` did before there was a command for it.
async fn store_setting(router: &Deployment, on: bool) -> Result<(), mongodb::error::Error> {
    let set = doc! { "stopped": !on, "mode": if on { "full" } else { "off" } };
    let update = doc! {
        "update": "settings",
        "updates": [{ "q": { "_id": "balancer" }, "u": { "$set": set }, "upsert": true }],
        "writeConcern": { "w": "majority" },
    };
    router.command("config", update).await.map(drop)
}

/// Stops the balancer, and waits until it moves nothing any more. Stopping a stopped one is a
/// success.
pub async fn stop(router: &Deployment) -> Result<(), Fault> {
    let limit_ms = i64::try_from(ROUND.as_millis()).unwrap_or(i64::MAX);
    let stopped =
        match router.command("admin", doc! { "balancerStop": 1, "maxTimeMS": limit_ms }).await {
            Err(e) if is_unknown(&e) => store_setting(router, false).await,
            Err(e) => Err(e),
            Ok(_) => Ok(()),
        };
    stopped.map_err(|e| router.fault("stopping the balancer", &e))?;
    let began = Instant::now();
    loop {
        let balancer = look(router).await?;
        if balancer.is_still() {
            return Ok(());
        }
        if balancer.is_on || began.elapsed() > ROUND {
            let message = format!(
                "the balancer at {} was stopped, and is {} all the same",
                router.hosts,
                balancer.in_words()
            );
            let mut fault = Fault::new(FaultCode::BalancerOn, message);
            fault.retryable = true;
            return Err(fault);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Lets the balancer run again: for a run that stopped it, and for nobody else.
pub async fn start(router: &Deployment) -> Result<(), Fault> {
    let started = match router.command("admin", doc! { "balancerStart": 1 }).await {
        Err(e) if is_unknown(&e) => store_setting(router, true).await,
        Err(e) => Err(e),
        Ok(_) => Ok(()),
    };
    started.map_err(|e| router.fault("starting the balancer", &e))
}

/// The fault of a balancer that is on where it must be off.
#[must_use]
pub fn on_fault(router: &Deployment, balancer: Balancer) -> Fault {
    let words = balancer.in_words();
    Fault::new(
        FaultCode::BalancerOn,
        format!("the balancer of the sharded source at {} is {words}", router.hosts),
    )
}
