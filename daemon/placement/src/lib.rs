//! Where a document belongs in a sharded cluster: pure, by its bytes, without a server.
//!
//! ```text
//! document --shard_key--> key --chunk_map (the server's order and hash)--> shard
//! ```
//!
//! [`element`] walks documents, [`order`] compares values as the server does, [`hash`] hashes them
//! so, [`shard_key`] takes a document's key, and [`chunk_map`] knows which shard owns it.

pub mod chunk_map;
pub mod element;
pub mod hash;
pub mod order;
pub mod shard_key;

pub use chunk_map::{Chunk, ChunkMap, PlacementVersion};
pub use shard_key::ShardKey;
