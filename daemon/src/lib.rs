//! The daemon: holds every migration's run, its journal and its timers, and moves the data.
//!
//! ```text
//!   api --> registry (lifecycle::step, journal) --orders--> supervisor --> engine --> MongoDB
//!              ^                                                |            |
//!              +------------ outcomes, reports of the sync -----+------------+
//! ```

pub mod api;
pub mod clock;
pub mod config;
pub mod connections;
pub mod crash_point;
pub mod daemon;
pub mod directory_watch;
pub mod engine;
mod http;
pub mod journal;
pub mod memory;
pub mod mongo;
pub mod open_runs;
pub mod registry;
pub mod secret_store;
pub mod sqlite;
pub mod state_dir;
pub mod state_fault;
pub mod status;
pub mod supervisor;
pub mod unblock;
