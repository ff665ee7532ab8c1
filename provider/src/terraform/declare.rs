//! A configuration in Terraform's values, as the values that the loader's checks take.

use std::path::{Path, PathBuf};

use schemas::hcl::Declared;
use schemas::hcl::schema::{BlockSchema, MIGRATION, Times};
use schemas::hcl::values::{BlockValues, Given, Outcome, check_block, check_migration};
use schemas::phase::Phase;
use schemas::plugin_protocol::tfplugin6::Diagnostic;
use schemas::time::Length;

use super::catalog::{TIMEOUTS, WAIT, WAIT_FOR};
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
            // Made by a `dynamic` block over what is not known yet: any number of them, perhaps none.
            (Value::Unknown, Times::Any | Times::AtMostOnce) | (Value::Null, _) => Vec::new(),
            (block, _) => vec![self::values(inner, block)],
        };
        if !blocks.is_empty() {
            values.blocks.insert(inner.name.to_owned(), blocks);
        }
    }
    values
}

/// Checks the body of a migration.
#[must_use]
pub(crate) fn migration(folder: &Path, config: &Value) -> Outcome<Declared> {
    let mut outcome = check_migration(folder, &values(&MIGRATION, config));
    // Blocks that may or may not come leave their mark only here.
    let whole = MIGRATION.names().chain(MIGRATION.label).all(|name| config.get(name).is_known());
    outcome.made = outcome.made.filter(|_| whole);
    outcome
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
        let length = |name: &str| value.get(TIMEOUTS.name).get(name).as_text().and_then(|text| text.parse().ok());
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
