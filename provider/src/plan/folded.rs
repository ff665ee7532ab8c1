//! How many attributes a plan does not list, since they stay as they are. It is counted where a
//! plan prints: the plan's JSON lists what differs, and nothing else.

use std::collections::BTreeMap;

use schemas::id::MigrationName;
use schemas::spec::MigrationSpec;

use super::{Plan, attributes};

/// The attributes of each migration that are folded away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded(BTreeMap<MigrationName, u64>);

impl Folded {
    /// Counts, for each change of a plan, what these specs set beside what it lists.
    pub fn count<'a>(plan: &Plan, specs: impl IntoIterator<Item = &'a MigrationSpec>) -> Self {
        let mut folded = BTreeMap::new();
        for spec in specs {
            let Some(change) = plan
                .actions()
                .find(|change| change.migration == spec.name && !change.action.removes())
            else {
                continue;
            };
            let set = attributes::flatten(spec)
                .into_iter()
                .filter(|(_, value)| attributes::is_set(value));
            let unlisted = set
                .filter(|(path, _)| !change.attributes.iter().any(|listed| listed.path == *path));
            folded.insert(spec.name.clone(), unlisted.count() as u64);
        }
        Self(folded)
    }

    /// How many a migration has.
    #[must_use]
    pub fn of(&self, migration: &MigrationName) -> u64 {
        self.0.get(migration).copied().unwrap_or(0)
    }

    /// What is said of a migration's; `None` where there are none.
    #[must_use]
    pub fn words(&self, migration: &MigrationName) -> Option<String> {
        match self.of(migration) {
            0 => None,
            1 => Some("# (1 unchanged attribute hidden)".to_owned()),
            more => Some(format!("# ({more} unchanged attributes hidden)")),
        }
    }
}
