//! Load, observe, plan, apply: what the command line and the plugin do with a declaration.
//!
//! ```text
//! *.hcl --load--> Declaration --+
//!                               +--plan--> Plan --render--> text, JSON, Markdown
//! cutoverd --observe--> Observed, Inspection   \--apply--> cutoverd
//! ```
//!
//! [`plan`] is pure. Only [`daemon_client`] talks to the daemon, only [`clock`] reads the clock,
//! and only [`output`] writes to the standard streams.

pub mod actor;
pub mod apply;
pub mod cli;
pub mod clock;
pub mod command;
pub mod daemon_client;
pub mod declaration;
pub mod endpoint;
pub mod exit_code;
pub mod load;
pub mod observe;
pub mod output;
pub mod pem;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod render;
pub mod saved_plan;
pub mod terraform;
pub mod units;
pub mod wait;
