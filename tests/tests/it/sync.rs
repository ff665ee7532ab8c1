//! The copy and the tail, with daemons that die and primaries that change.

mod daemon_crash;
mod elections;
mod namespaces;
