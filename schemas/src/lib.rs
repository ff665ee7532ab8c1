//! The vocabulary that the daemon, the command line and the Terraform plugin share. No sockets, no
//! clock.
//!
//! ```text
//! *.hcl --hcl--> spec::MigrationSpec --wire--> daemon --wire--> MigrationStatus, history::Entry
//! ```

pub mod cluster_time;
pub mod directory_watch;
pub mod durable_file;
pub mod fault;
pub mod hcl;
pub mod history;
pub mod id;
pub mod kept_secret;
pub mod namespace;
pub mod observed;
pub mod phase;
pub mod plugin_protocol;
pub mod principal;
pub mod report;
pub mod spec;
pub mod status;
pub mod time;
pub mod wire;
