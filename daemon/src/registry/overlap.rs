//! Two runs must not write to the same namespaces of one destination.

use lifecycle::State;
use schemas::fault::{Fault, FaultCode};
use schemas::spec::MigrationSpec;

use super::thread::Staged;
use crate::journal::Record;

/// Refuses staged runs that would write where another run is at work.
pub(super) fn refuse_overlap<'a>(
    held: impl Iterator<Item = &'a Record>,
    staged: &'a [Staged],
) -> Result<(), Fault> {
    let held: Vec<&Record> = held.collect();
    for new in staged
        .iter()
        .filter_map(|staged| staged.change.record.as_ref())
        .filter(|record| is_at_work(record))
    {
        let is_new_run = !held.iter().any(|known| known.run.id == new.run.id);
        if !is_new_run {
            continue;
        }
        let others = held
            .iter()
            .copied()
            .filter(|known| !staged.iter().any(|staged| staged.change.key == known.key))
            .chain(staged.iter().filter_map(|staged| staged.change.record.as_ref()));
        for other in others.filter(|other| other.key != new.key && is_at_work(other)) {
            if share_destination(&new.spec, &other.spec)
                && new.spec.namespaces.scope.shares_with(&other.spec.namespaces.scope)
            {
                return Err(Fault::new(
                    FaultCode::DestinationInUse,
                    format!(
                        "migration {} would write to the destination namespaces of migration {} \
                         (workspace {})",
                        new.key.name, other.key.name, other.key.workspace
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn is_at_work(record: &Record) -> bool {
    match &record.run.state {
        State::Completed { .. } | State::Cancelled { .. } => false,
        State::Validating { .. }
        | State::Copying { .. }
        | State::CatchingUp { .. }
        | State::Ready
        | State::Draining { .. }
        | State::Finalizing { .. }
        | State::Paused { .. }
        | State::Failed { .. }
        | State::Expired { .. } => true,
    }
}

/// Whether both name one deployment. Different spellings of one are found by the live checks.
fn share_destination(a: &MigrationSpec, b: &MigrationSpec) -> bool {
    hosts(&a.destination.connection.uri) == hosts(&b.destination.connection.uri)
}

/// Whether both read from one deployment. Different spellings of one are taken for two.
pub(crate) fn share_source(a: &MigrationSpec, b: &MigrationSpec) -> bool {
    hosts(&a.source.connection.uri) == hosts(&b.source.connection.uri)
}

/// The hosts of a connection string, in order and in lower case.
fn hosts(uri: &str) -> Vec<String> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let list = authority.rsplit_once('@').map_or(authority, |(_, list)| list);
    let mut hosts: Vec<String> = list.split(',').map(str::to_lowercase).collect();
    hosts.sort();
    hosts
}

#[cfg(test)]
mod tests {
    use super::hosts;

    #[test]
    fn hosts_are_told_apart_from_the_rest_of_a_uri() {
        assert_eq!(hosts("mongodb://u@B:2,a:1/db?replicaSet=x"), ["a:1", "b:2"]);
        assert_eq!(hosts("mongodb+srv://Orders.example.net"), ["orders.example.net"]);
        assert_eq!(hosts("mongodb://a:1?tls=true"), ["a:1"]);
    }
}
