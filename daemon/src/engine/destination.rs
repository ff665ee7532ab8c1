//! What the engine does to the destination: writes, the guard that keeps others out, sharding,
//! users.

pub mod duplicate_fields;
pub mod guard;
pub mod shard_collection;
pub mod shard_key_change;
pub mod users;
pub mod write;
