//! `terraform validate`: what is wrong with a configuration, without a daemon.

use schemas::hcl::external::check_daemon;
use schemas::hcl::schema::DAEMON;
use schemas::id::{MigrationName, Workspace};
use schemas::plugin_protocol::tfplugin6::Diagnostic;

use super::catalog::{MIGRATION_TYPE, PREFLIGHT_TYPE};
use super::value::Value;
use super::{declare, diagnostic};

/// What is wrong with the provider's block.
#[must_use]
pub(crate) fn of_provider(config: &Value) -> Vec<Diagnostic> {
    let found =
        check_daemon(&declare::working_folder(), &declare::values(&DAEMON, config)).diagnostics;
    found.iter().map(diagnostic::checked).collect()
}

/// What is wrong with a migration's block.
#[must_use]
pub(crate) fn of_migration(config: &Value, write_only: bool) -> Vec<Diagnostic> {
    let folder = declare::working_folder();
    let mut found: Vec<Diagnostic> = declare::migration(&folder, config, None)
        .diagnostics
        .iter()
        .map(diagnostic::checked)
        .collect();
    found.extend(declare::waiting(&folder, config));
    found.extend(declare::check_secrets(config, write_only));
    found
}

/// What is wrong with a data source's block.
#[must_use]
pub(crate) fn of_data_source(type_name: &str, config: &Value) -> Vec<Diagnostic> {
    match type_name {
        MIGRATION_TYPE => {
            let name = config.get("name").as_text().and_then(|name| MigrationName::new(name).err());
            let workspace =
                config.get("workspace").as_text().and_then(|name| Workspace::new(name).err());
            let wrong = |path: &str, error: &dyn std::error::Error| Diagnostic {
                attribute: Some(diagnostic::attribute_path(path)),
                ..diagnostic::error(error.to_string(), "")
            };
            let name = name.iter().map(|error| wrong("name", error));
            name.chain(workspace.iter().map(|error| wrong("workspace", error))).collect()
        }
        PREFLIGHT_TYPE => declare::migration(&declare::working_folder(), config, None)
            .diagnostics
            .iter()
            .map(diagnostic::checked)
            .collect(),
        other => vec![diagnostic::error(format!("the provider has no data source {other}"), "")],
    }
}
