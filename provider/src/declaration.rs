//! What a directory of HCL declares, in the form that the planner takes.

use std::collections::BTreeMap;

use schemas::hcl::{Declared, Diagnostic};
use schemas::id::{MigrationName, Workspace};
use schemas::spec::MigrationSpec;

/// The migrations of one directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// The workspace that owns them.
    pub workspace: Workspace,
    /// The daemon's endpoint, where a `daemon` block names one.
    pub endpoint: Option<String>,
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
