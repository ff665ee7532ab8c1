//! The rig: real `mongod`s, the real programs, a workload and an independent comparer, for the tests and the demo.
//!
//! ```text
//! mongod (the binary) --> replica_set --> workload::fill, workload::Writer --> compare
//!                             \-> sharded_cluster (a config server, shards, and mongos or its stand-in: router)
//! programs (cutover, cutoverd) --> cutoverd, cutover --> stage (all of it, with a declaration)
//! ```
//!
//! Every process hangs on a [`leash`]: it dies with the process that started it, however that one ends.

pub mod compare;
pub mod cutover;
pub mod cutoverd;
pub mod deceit;
pub mod declaration;
pub mod fault_proxy;
pub mod fence;
pub mod leash;
pub mod mongod;
pub mod ports;
pub mod programs;
pub mod replica_set;
pub mod router;
pub mod sharded_cluster;
pub mod stage;
pub mod terminal;
pub mod terraform;
pub mod tls;
pub mod workload;

pub use cutover::{Cutover, Output};
pub use cutoverd::Cutoverd;
pub use declaration::Declaration;
pub use replica_set::{Auth, Options, ReplicaSet, TlsMode, User};
pub use sharded_cluster::{ClusterOptions, ShardedCluster};
pub use stage::Stage;
pub use terminal::Terminal;
pub use terraform::Terraform;
pub use workload::{FillOptions, Writer, WriterOptions, fill};
