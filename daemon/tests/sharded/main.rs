//! The engine on real sharded clusters.

mod balancing;
mod copy;
mod fence;
mod run;
mod topology;
