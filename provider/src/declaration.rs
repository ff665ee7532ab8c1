//! What a directory of HCL declares, in the form that the planner takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::{DaemonTls, Declared, Diagnostic};
use schemas::id::{MigrationName, Workspace};
use schemas::spec::MigrationSpec;
use schemas::wire::{TLS_CA_VARIABLE, TLS_CERTIFICATE_KEY_VARIABLE};

/// How a daemon is reached, as far as somebody has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Where it listens.
    pub endpoint: Option<String>,
    /// How one that listens on TCP and its caller know each other.
    pub tls: Option<DaemonTls>,
}

impl Reach {
    /// The files of mutual TLS that the environment names: both, or it is an error.
    pub fn tls_of_environment() -> Result<Option<DaemonTls>, Fault> {
        let file = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        match (file(TLS_CA_VARIABLE), file(TLS_CERTIFICATE_KEY_VARIABLE)) {
            (Some(ca_file), Some(certificate_key_file)) => {
                Ok(Some(DaemonTls { ca_file, certificate_key_file }))
            }
            (None, None) => Ok(None),
            (ca_file, _) => {
                let (set, missing) = if ca_file.is_some() {
                    (TLS_CA_VARIABLE, TLS_CERTIFICATE_KEY_VARIABLE)
                } else {
                    (TLS_CERTIFICATE_KEY_VARIABLE, TLS_CA_VARIABLE)
                };
                Err(Fault::new(
                    FaultCode::InvalidConfiguration,
                    format!("{set} is set, and {missing} is not"),
                )
                .with_remedy("set both, or neither: each side of mutual TLS needs its own file"))
            }
        }
    }
}

/// The migrations of one directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// The workspace that owns them.
    pub workspace: Workspace,
    /// The daemon, as far as a `daemon` block says.
    pub reach: Reach,
    /// The migrations by name, each with its places in the files.
    pub migrations: BTreeMap<MigrationName, Declared>,
    /// SHA-256 of the directory's files, in hexadecimal.
    pub fingerprint: String,
    /// What is worth knowing about them.
    pub warnings: Vec<Diagnostic>,
}

impl Declaration {
    /// The same, narrowed to one migration.
    #[must_use]
    pub fn only(mut self, name: &MigrationName) -> Self {
        self.migrations.retain(|one, _| one == name);
        self
    }

    /// The specs alone, by name.
    pub fn specs(&self) -> impl Iterator<Item = &MigrationSpec> {
        self.migrations.values().map(|one| &one.spec)
    }
}
