//! The engine on real sharded clusters.

mod copy;
mod run;
mod topology;
