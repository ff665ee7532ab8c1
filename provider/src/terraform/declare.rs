//! A configuration in Terraform's values, as the values that the loader's checks take.

use std::path::{Path, PathBuf};

use schemas::hcl::Declared;
use schemas::hcl::external::{BlockValues, Given, Outcome, check_block, check_migration};
use schemas::hcl::schema::{BlockSchema, MIGRATION, Times};
use schemas::id::{MigrationName, Workspace};
use schemas::kept_secret::{self, Side};
use schemas::phase::Phase;
use schemas::plugin_protocol::tfplugin6::Diagnostic;
use schemas::time::Length;
use schemas::wire::v1;
use serde_json::json;

use super::catalog::{PASSWORD, PASSWORD_VERSION, TIMEOUTS, WAIT, WAIT_FOR};
use super::diagnostic;
use super::value::Value;

/// Where relative files and sockets start: Terraform's working folder, which is the root module's.
#[must_use]
pub(crate) fn working_folder() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

/// A block's values by its table.
#[must_use]
pub(crate) fn values(table: &BlockSchema, value: &Value) -> BlockValues {
    let mut values = BlockValues {
        label: table.label.and_then(|name| value.get(name).as_text().map(str::to_owned)),
        ..BlockValues::default()
    };
    for attribute in table.attributes {
        match value.get(attribute.name) {
            Value::Null => {}
            known => {
                let given = known.to_json().map_or(Given::Unknown, Given::Known);
                values.attributes.insert(attribute.name.to_owned(), given);
            }
        }
    }
    for inner in table.blocks {
        let blocks: Vec<BlockValues> = match (value.get(inner.name), inner.times) {
            (Value::List(items), _) => items.iter().map(|item| self::values(inner, item)).collect(),
            // Made by a `dynamic` block over what is not known yet: any number of them, perhaps
            // none.
            (Value::Unknown, Times::Any | Times::AtMostOnce) | (Value::Null, _) => Vec::new(),
            (block, _) => vec![self::values(inner, block)],
        };
        if !blocks.is_empty() {
            values.blocks.insert(inner.name.to_owned(), blocks);
        }
    }
    values
}

/// Where the daemon keeps passwords.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// Its state directory.
    pub(crate) state_dir: PathBuf,
    /// The workspace.
    pub(crate) workspace: Workspace,
}

/// Checks the body of a migration. Without a `store`, a password that the daemon keeps is not
/// known.
#[must_use]
pub(crate) fn migration(folder: &Path, config: &Value, store: Option<&Store>) -> Outcome<Declared> {
    let mut values = values(&MIGRATION, config);
    for side in Side::ALL {
        let given = kept_password(config, side, store);
        let block = values.blocks.get_mut(side.as_str()).and_then(|blocks| blocks.first_mut());
        if let (Some(given), Some(block)) = (given, block) {
            block.attributes.entry("password".to_owned()).or_insert(given);
        }
    }
    let mut outcome = check_migration(folder, &values);
    // Blocks that may or may not come leave their mark only here.
    let whole = MIGRATION.names().chain(MIGRATION.label).all(|name| config.get(name).is_known());
    outcome.made = outcome.made.filter(|_| whole);
    outcome
}

/// The reference to a password that the daemon keeps.
fn kept_password(config: &Value, side: Side, store: Option<&Store>) -> Option<Given> {
    let version = config.get(side.as_str()).get(PASSWORD_VERSION);
    if version.is_null() {
        return None;
    }
    let name = config.get("name").as_text().and_then(|name| MigrationName::new(name).ok());
    let version = version.as_u64().and_then(|version| u32::try_from(version).ok());
    let (Some(store), Some(name), Some(version)) = (store, name, version) else {
        return Some(Given::Unknown);
    };
    let path = kept_secret::file(&store.state_dir, &store.workspace, &name, side, version);
    Some(Given::Known(json!({ "file": path })))
}

/// The passwords that the daemon is to keep.
#[must_use]
pub(crate) fn secrets(config: &Value) -> Vec<v1::Secret> {
    let of = |side: Side| {
        let block = config.get(side.as_str());
        let secret = block.get(PASSWORD).as_text()?.to_owned();
        let version = u32::try_from(block.get(PASSWORD_VERSION).as_u64()?).ok()?;
        Some(v1::Secret { side: side.to_string(), version, secret })
    };
    Side::ALL.into_iter().filter_map(of).collect()
}

/// Checks the passwords that the daemon is to keep. `allowed`: Terraform knows of write-only
/// values.
#[must_use]
pub(crate) fn check_secrets(config: &Value, allowed: bool) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for side in Side::ALL {
        let block = config.get(side.as_str());
        let (password, version) = (block.get(PASSWORD), block.get(PASSWORD_VERSION));
        let mut refuse = |name: &str, summary: &str, detail: &str| {
            let attribute = Some(diagnostic::attribute_path(&format!("{side}.{name}")));
            found.push(Diagnostic {
                attribute,
                ..diagnostic::error(format!("{summary} [CUT0001]"), detail)
            });
        };
        if !password.is_null() && !allowed {
            let detail = "Use Terraform 1.11, OpenTofu 1.11, or newer; or write password = { env \
                 = \"NAME\" }.";
            refuse(PASSWORD, "this Terraform has no write-only attributes", detail);
        }
        if !password.is_null() && !block.get("password").is_null() {
            refuse(PASSWORD, "password and password_wo are both given", "Remove one of them.");
        }
        if password.as_text().is_some_and(str::is_empty) {
            refuse(PASSWORD, "password_wo is empty", "Leave it out where no password is needed.");
        }
        match (password.is_null(), version) {
            (false, Value::Null) => {
                refuse(
                    PASSWORD,
                    "password_wo needs password_wo_version",
                    "Write password_wo_version = 1, and raise it with each change.",
                );
            }
            (true, version) if !version.is_null() => {
                refuse(
                    PASSWORD_VERSION,
                    "password_wo_version is given without password_wo",
                    "Give the password, or remove the version.",
                );
            }
            (_, Value::Null | Value::Unknown) => {}
            (_, version) => {
                if !version
                    .as_u64()
                    .is_some_and(|version| (1..=u64::from(u32::MAX)).contains(&version))
                {
                    refuse(
                        PASSWORD_VERSION,
                        "password_wo_version is not a whole number above 0",
                        "Count from 1.",
                    );
                }
            }
        }
    }
    found
}

/// How an apply waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// For which phase.
    pub(crate) target: Option<Phase>,
    /// How long, for a new run.
    pub(crate) create: Option<Length>,
    /// How long, for a change.
    pub(crate) update: Option<Length>,
    /// How long, for a run to stop.
    pub(crate) delete: Option<Length>,
}

impl Waiting {
    /// Reads what [`waiting`] has checked; what is unknown or wrong counts as absent.
    #[must_use]
    pub(crate) fn of(value: &Value) -> Self {
        let length = |name: &str| {
            value.get(TIMEOUTS.name).get(name).as_text().and_then(|text| text.parse().ok())
        };
        Self {
            target: value.get(WAIT_FOR).as_text().and_then(|text| text.parse().ok()),
            create: length("create"),
            update: length("update"),
            delete: length("delete"),
        }
    }
}

/// Checks how an apply waits.
#[must_use]
pub(crate) fn waiting(folder: &Path, config: &Value) -> Vec<Diagnostic> {
    let timeouts = config.get(TIMEOUTS.name);
    let target = check_block(&WAIT, folder, "", &values(&WAIT, config));
    let limits = check_block(&TIMEOUTS, folder, TIMEOUTS.name, &values(&TIMEOUTS, timeouts));
    target.iter().chain(&limits).map(diagnostic::checked).collect()
}
