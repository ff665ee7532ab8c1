//! The rig: real `mongod`s, the real programs, a workload and an independent comparer, for the
//! tests and the demo.
//!
//! ```text
//! mongod (the binary) --> replica_set --> workload::fill, workload::Writer --> compare
//!                             \-> sharded_cluster (config server, shards, mongos or its stand-in)
//! programs (cutover, cutoverd) --> cutoverd, cutover --> stage (all of it, with a declaration)
//! ```
//!
//! Every process hangs on a [`child_process`]: it dies with the process that started it, however
//! that one ends.

pub mod child_process;
pub mod compare;
pub mod cutover;
pub mod cutoverd;
pub mod declaration;
pub mod fault_proxy;
pub mod json_schema;
pub mod mongod;
pub mod mongos;
pub mod ports;
pub mod programs;
pub mod replica_set;
pub mod scenario;
pub mod sharded_cluster;
pub mod syscall_shim;
pub mod terminal;
pub mod terraform;
pub mod tls;
pub mod workload;
pub mod write_block;

pub use crate::scenario::Stage;
pub use cutover::{Cutover, Output};
pub use cutoverd::Cutoverd;
pub use declaration::Declaration;
pub use json_schema::JsonSchema;
pub use replica_set::{Auth, Options, ReplicaSet, TlsMode, User};
pub use sharded_cluster::{ClusterOptions, ShardedCluster};
pub use terminal::Terminal;
pub use terraform::Terraform;
pub use workload::{FillOptions, Writer, WriterOptions, fill};
