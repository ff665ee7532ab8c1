//! How the daemon is started: flags over the environment over defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use crate::unblock::Unblock;

/// Holds MongoDB migrations: moves their data, keeps their cutover windows, and cuts over when a
/// reviewed change says so.
#[derive(Debug, Clone, Parser)]
#[command(name = "cutoverd", version)]
pub struct Config {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the daemon keeps its journal and checkpoints; created if missing, for its owner only
    #[arg(
        long,
        value_name = "DIR",
        env = "CUTOVERD_STATE_DIR",
        default_value = "/var/lib/cutover"
    )]
    pub state_dir: PathBuf,
    /// Where it listens: unix:PATH
    #[arg(
        long,
        value_name = "unix:PATH",
        env = "CUTOVERD_LISTEN",
        default_value = schemas::wire::DEFAULT_ENDPOINT
    )]
    pub listen: Listen,
    /// Where it listens on TCP, with mutual TLS, besides; not at all, where absent
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "CUTOVERD_LISTEN_TLS",
        requires_all = ["tls_certificate_key_file", "tls_client_ca_file"]
    )]
    pub listen_tls: Option<SocketAddr>,
    /// PEM file with the daemon's certificate and its key, for --listen-tls
    #[arg(long, value_name = "FILE", env = "CUTOVERD_TLS_CERTIFICATE_KEY_FILE")]
    pub tls_certificate_key_file: Option<PathBuf>,
    /// PEM file with the authorities of callers: whoever has a certificate of theirs may do
    /// everything, so they must be for this daemon alone
    #[arg(long, value_name = "FILE", env = "CUTOVERD_TLS_CLIENT_CA_FILE")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// Where it answers /healthz and /metrics (Prometheus) over HTTP: a loopback address; not at
    /// all, where absent
    #[arg(long, value_name = "ADDRESS:PORT", env = "CUTOVERD_HTTP")]
    pub http: Option<SocketAddr>,
    /// A directory with HCL: what changes there is planned and applied, with variables' values from
    /// the environment
    #[arg(long, value_name = "DIR", env = "CUTOVERD_WATCH")]
    pub watch: Option<PathBuf>,
    /// The memory it may take, for all migrations together, in MiB; at least 189, however large
    /// documents are
    #[arg(
        long,
        value_name = "MIB",
        env = "CUTOVERD_MEMORY_MB",
        default_value_t = crate::memory::DEFAULT_BYTES >> 20
    )]
    pub memory_mb: u64,
    /// What it logs to stderr, such as `info` or `daemon=debug`
    #[arg(long, value_name = "FILTER", env = "CUTOVERD_LOG", default_value = "info")]
    pub log: String,
}

/// What the program does instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Shows what a run holds whose state directory is lost, and gives it back
    Unblock(Unblock),
}

/// A Unix socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The socket's absolute path.
    pub path: PathBuf,
}

/// A text that names no Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no socket to listen on; write unix:PATH with an absolute path, as in {default}",
    default = schemas::wire::DEFAULT_ENDPOINT
)]
pub struct InvalidListen(String);

impl FromStr for Listen {
    type Err = InvalidListen;
    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let invalid = || InvalidListen(text.to_owned());
        let rest = text.strip_prefix("unix:").ok_or_else(invalid)?;
        // `unix:///run/x` and `unix:/run/x` are one path; `unix://host/x` would be another
        // machine's.
        let path = match rest.strip_prefix("//") {
            Some(path) => path,
            None => rest,
        };
        if path.starts_with('/') && !path.starts_with("//") && !path.ends_with('/') {
            Ok(Self { path: PathBuf::from(path) })
        } else {
            Err(invalid())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::{Config, Listen};

    #[test]
    fn the_help_tells_the_least_memory() {
        let help = Config::command().render_long_help().to_string();
        let least = crate::memory::MIN_BYTES.div_ceil(1 << 20);
        assert!(help.contains(&format!("at least {least},")), "{help}");
    }

    #[test]
    fn both_ways_to_write_a_socket_are_read() {
        for text in ["unix:/run/c.sock", "unix:///run/c.sock"] {
            assert_eq!(text.parse::<Listen>().expect(text).path, Path::new("/run/c.sock"));
        }
        for text in [
            "",
            "/run/c.sock",
            "unix:",
            "unix:c.sock",
            "unix://host/c.sock",
            "unix:/run/",
            "tcp:127.0.0.1:1",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text:?}");
        }
    }
}
