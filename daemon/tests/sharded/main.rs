//! The engine on real sharded clusters.

mod balancing;
mod copy;
mod driven;
mod dropped;
mod fence;
mod keys;
mod reshard;
mod run;
mod topology;
mod transactions;
mod uneven;
