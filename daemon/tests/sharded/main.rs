//! The engine on real sharded clusters.

mod balancing;
mod copy;
mod driven;
mod dropped;
mod elsewhere;
mod fence;
mod identity;
mod keys;
mod moves;
mod options;
mod reshard;
mod rollover;
mod router;
mod run;
mod spread;
mod topology;
mod transactions;
mod uneven;
