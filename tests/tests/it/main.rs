//! The product as its users run it: the real programs on real deployments.

mod cli;
mod connect;
mod cutover;
mod daemon;
mod drift;
mod preflight;
mod pull_request;
mod sharded;
mod sync;
mod verify;
