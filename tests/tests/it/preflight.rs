//! The live checks before any data moves.

mod replica_set;
mod sharded;
