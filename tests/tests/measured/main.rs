//! What holds bounds of time and memory: each test runs alone.

mod downtime;
mod memory;
mod verification_cost;
