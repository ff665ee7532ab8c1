//! The daemon: holds every migration's run, its journal and its timers, and moves the data.

pub mod engine;
pub mod mongo;
