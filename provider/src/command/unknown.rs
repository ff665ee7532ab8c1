//! What is said of a migration that nobody knows: the name that was probably meant.

use std::collections::BTreeSet;

use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};

use crate::daemon_client::DaemonClient;
use crate::declaration::Declaration;

/// How alike a name must be, from 0 to 1, to be taken for a slip.
const ALIKE: f64 = 0.8;
/// More names than these make a message that nobody reads.
const NAMED: usize = 10;

/// The fault of a name that is neither declared nor there.
pub(super) fn undeclared(declared: &Declaration, name: &MigrationName) -> Fault {
    let names = declared.migrations.keys().map(MigrationName::as_str).collect();
    Fault::new(
        FaultCode::UnknownMigration,
        format!("no migration {name} is declared in workspace {}", declared.workspace),
    )
    .with_remedy(remedy(name, &names, "declared here", "nothing is declared here"))
}

/// Adds the names that the daemon does know to its word that it does not know this one; leaves any
/// other fault as it is.
pub(super) async fn explain(
    client: &DaemonClient,
    workspace: Option<&Workspace>,
    name: &MigrationName,
    fault: Fault,
) -> Fault {
    if fault.code != FaultCode::UnknownMigration
        || fault.remedy != FaultCode::UnknownMigration.remedy()
    {
        return fault;
    }
    // Where it does not answer now, what it has said stands.
    let Ok(observed) = client.observe(workspace, None).await else { return fault };
    let names = observed.iter().map(|one| one.status.name.as_str()).collect();
    fault.with_remedy(remedy(
        name,
        &names,
        "there are",
        "the daemon has no migration; `cutover apply` starts what is declared",
    ))
}

fn remedy(name: &MigrationName, names: &BTreeSet<&str>, these: &str, none: &str) -> String {
    let likeness = |other: &&str| strsim::jaro_winkler(other, name.as_str());
    let nearest = names.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        None => none.to_owned(),
        Some(nearest) if likeness(&nearest) > ALIKE => format!("did you mean {nearest}?"),
        Some(_) => {
            let more = names.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!(
                "{these}: {}{more}",
                names.iter().copied().take(NAMED).collect::<Vec<_>>().join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MigrationName, remedy};

    #[test]
    fn the_nearest_name_is_offered_or_some_of_all() {
        let offered = |name: &str, names: &[&str]| {
            remedy(
                &MigrationName::new(name).expect("a name"),
                &names.iter().copied().collect(),
                "there are",
                "none",
            )
        };
        assert_eq!(offered("order", &["users", "orders", "ordinals"]), "did you mean orders?");
        assert_eq!(offered("zzz", &["users", "orders"]), "there are: orders, users");
        assert_eq!(offered("zzz", &[]), "none");
        let many: Vec<String> = (0..500).map(|n| format!("tenant-{n:03}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let told = offered("zzz", &many);
        assert!(
            told.starts_with("there are: tenant-000, ")
                && told.ends_with("tenant-009 and 490 more"),
            "{told}"
        );
    }
}
