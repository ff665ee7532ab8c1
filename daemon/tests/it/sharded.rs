//! The engine on real sharded clusters.

mod balancing;
mod chunk_moves;
mod copy;
mod fence;
mod harness;
mod identity;
mod oplog_rollover;
mod options;
mod presplit;
mod reshard;
mod router;
mod run;
mod shard_drop;
mod shard_indexes;
mod shard_key_changes;
mod topology;
mod transactions;
mod unsplittable;
