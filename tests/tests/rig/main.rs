//! Tests of the rig itself: its servers, its stand-in for mongos, its workloads and its comparer.

mod mongos;
mod programs;
mod replica_set;
mod sharded_cluster;
mod workload_and_compare;
