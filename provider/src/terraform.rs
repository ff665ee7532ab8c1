//! The Terraform and OpenTofu provider: plugin protocol 6 over the same loader's checks, planner
//! and daemon client.
//!
//! ```text
//! serve, tls (process, socket)  ->  service (calls)  ->  configuration | resource | data_source
//!                               declare -> schemas::hcl -> plan, daemon_client
//!                               state   <- Observed
//! ```

mod catalog;
mod configuration;
mod data_source;
mod declare;
mod diagnostic;
mod docs;
mod log;
mod mirror;
mod program;
mod resource;
mod schema;
mod serve;
mod service;
mod session;
mod state;
mod tls;
mod value;

pub use docs::{Page, pages};
pub use program::Program;
pub use serve::{is_plugin, serve};
