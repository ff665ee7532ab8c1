//! The engine on real sharded clusters.

mod balancing;
mod copy;
mod run;
mod topology;
