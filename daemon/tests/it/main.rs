//! The engine and the daemon's service, in process, on real deployments.
//!
//! * [`replica_set`]: every kind of document, collection, index and event between replica sets;
//! * [`sharded`]: sharded clusters on either side;
//! * [`verify`]: what the verification finds;
//! * [`service`]: the daemon over its real socket and journal, on deployments in memory.

mod replica_set;
mod service;
mod sharded;
mod verify;
