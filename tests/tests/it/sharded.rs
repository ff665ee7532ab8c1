//! Whole migrations from and to sharded clusters, by the programs alone: what an operator meets on
//! the way.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

mod access;
mod balancer;
mod destination;
mod elections;
mod failed_shard;
mod scene;
mod source;
mod tls;
