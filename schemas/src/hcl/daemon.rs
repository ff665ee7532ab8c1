//! The `daemon` block: which daemon carries the migrations out, and how the two know each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::body::Filled;
use super::check::Checked;
use super::diagnostic::{Diagnostic, Report};
use crate::id::Workspace;

/// The `daemon` block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Where the daemon listens, as `unix:///absolute/path` or `tcp://host:port`; `None` where
    /// nothing is said.
    pub endpoint: Option<String>,
    /// How a daemon that listens on TCP and its caller know each other.
    pub tls: Option<DaemonTls>,
    /// The set of migrations that the directory owns on the daemon.
    pub workspace: Workspace,
}

/// The files of mutual TLS with a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonTls {
    /// The authorities that the daemon's certificate comes from, PEM.
    pub ca_file: PathBuf,
    /// The caller's certificate and its key, PEM.
    pub certificate_key_file: PathBuf,
}

impl DaemonSettings {
    /// From a block whose values have passed.
    pub(crate) fn of(block: Filled, report: &mut Report) -> Self {
        let mut settings = Self::default();
        if let Some(tls) = block.block("tls") {
            let file = |name| match &tls.attributes.get(name)?.value {
                Checked::File(path) => Some(path.clone()),
                _ => None,
            };
            settings.tls = file("ca_file")
                .zip(file("certificate_key_file"))
                .map(|(ca_file, certificate_key_file)| DaemonTls { ca_file, certificate_key_file });
            let socket = block.attributes.get("endpoint").filter(|one| is_socket(&one.value));
            if let Some(endpoint) = socket {
                let detail = "A Unix socket knows its callers by their user. Write \
                     tcp://HOST:PORT, or remove the block tls.";
                report.add(
                    Diagnostic::error("tls stands beside a Unix socket", detail)
                        .at(endpoint.place.clone()),
                );
            }
        }
        for setting in block.attributes.into_values() {
            match setting.value {
                Checked::Text(endpoint) => settings.endpoint = Some(endpoint),
                Checked::Workspace(workspace) => settings.workspace = workspace,
                _ => {}
            }
        }
        settings
    }
}

fn is_socket(value: &Checked) -> bool {
    matches!(value, Checked::Text(endpoint) if endpoint.starts_with("unix:"))
}
