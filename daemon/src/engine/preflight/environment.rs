//! Checks of what is around the data: feature compatibility, clocks, free disk, and where the
//! daemon is seen to come from.

use mongodb::bson::{DateTime, Document, doc};
use schemas::fault::{Fault, FaultCode};
use schemas::observed::Outcome;
use schemas::spec::{ConnectionSpec, MigrationSpec};

use super::Findings;
use crate::mongo::{Deployment, Side, connect};

/// Clocks further apart than this are told: TTL indexes delete by the clock of the server that they
/// are on.
const MOST_SKEW_MS: i64 = 10_000;

/// A feature compatibility version, such as 6.0.
pub(in crate::engine) type Compatibility = (u32, u32);

/// The one from which on a server of today blocks writes: with an older one it knows the command,
/// and refuses it (seen on 6.0.5).
pub(in crate::engine) const BLOCKS_WRITES: Compatibility = (6, 0);

/// Whether the destination may use every feature that the source may have used.
pub(super) async fn compatibility(
    findings: &mut Findings,
    source: &Deployment,
    destination: &Deployment,
) {
    let name = "feature_compatibility";
    match (compatibility_of(source).await, compatibility_of(destination).await) {
        (Some(from), Some(to)) if to < from => {
            let message = format!(
                "the destination's feature compatibility version is {}.{}, below the source's \
                 {}.{}",
                to.0, to.1, from.0, from.1
            );
            let remedy = format!(
                "run setFeatureCompatibilityVersion: \"{}.{}\" on the destination",
                from.0, from.1
            );
            findings.fail(
                name,
                &Fault::new(FaultCode::UnsupportedVersion, message).with_remedy(remedy),
            );
        }
        (Some(from), Some(to)) => {
            findings.note(
                name,
                Outcome::Ok,
                format!(
                    "{}.{} on the source, {}.{} on the destination",
                    from.0, from.1, to.0, to.1
                ),
            );
        }
        _ => findings.warn(
            name,
            "it may not be read on both sides (getParameter)",
            "grant clusterMonitor to the users of both sides",
        ),
    }
}

/// A deployment's feature compatibility version; `None` where it may not be read.
pub(in crate::engine) async fn compatibility_of(deployment: &Deployment) -> Option<Compatibility> {
    let answer = deployment
        .command("admin", doc! { "getParameter": 1, "featureCompatibilityVersion": 1 })
        .await
        .ok()?;
    parse_compatibility(&answer)
}

fn parse_compatibility(answer: &Document) -> Option<Compatibility> {
    let version =
        answer.get_document("featureCompatibilityVersion").ok()?.get_str("version").ok()?;
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether the clocks of both sides agree.
pub(super) async fn clocks(findings: &mut Findings, source: &Deployment, destination: &Deployment) {
    let of = async |deployment: &Deployment| {
        let hello = deployment.command("admin", doc! { "hello": 1 }).await.ok()?;
        hello.get_datetime("localTime").ok().copied()
    };
    let (ours, theirs) = tokio::join!(of(source), of(destination));
    let skewed = match (ours, theirs) {
        (Some(ours), Some(theirs)) => skew(ours, theirs),
        _ => Some("a side does not tell its time".to_owned()),
    };
    match skewed {
        None => findings.note("clock_skew", Outcome::Ok, "the clocks of both sides agree"),
        Some(message) => findings.warn(
            "clock_skew",
            message,
            "set the clocks of both sides by NTP before the cutover",
        ),
    }
}

/// How the clocks differ, in words; `None` where they agree.
fn skew(source: DateTime, destination: DateTime) -> Option<String> {
    let apart = destination.timestamp_millis().saturating_sub(source.timestamp_millis());
    if apart.abs() <= MOST_SKEW_MS {
        return None;
    }
    let way = if apart > 0 { "ahead of" } else { "behind" };
    let seconds = apart.unsigned_abs() / 1000;
    Some(format!(
        "the destination's clock is {seconds} s {way} the source's: TTL indexes delete by it"
    ))
}

/// Whether the destination has room for the data, where it reports.
pub(super) async fn disk(findings: &mut Findings, destination: &Deployment, bytes: u64) {
    let name = "destination_disk";
    let free = destination.command("admin", doc! { "dbStats": 1 }).await.ok().and_then(|stats| {
        let number = |name: &str| stats.get_f64(name).ok().filter(|number| *number >= 0.0);
        Some((number("fsTotalSize")? - number("fsUsedSize")?).max(0.0))
    });
    match free.map(|free| room(free, bytes)) {
        Some((true, message)) => findings.note(name, Outcome::Ok, message),
        Some((false, message)) => findings.warn(
            name,
            message,
            "enlarge the destination's disk, or migrate in parts, by `namespaces`",
        ),
        None => findings.warn(
            name,
            "the destination does not tell how much room it has (dbStats)",
            format!(
                "see to it yourself that {} fit, with their indexes; or grant clusterMonitor",
                gigabytes(bytes as f64)
            ),
        ),
    }
}

fn gigabytes(bytes: f64) -> String {
    format!("{:.1} GB", bytes / 1e9)
}

/// Whether data fits into what is free, and that in words.
fn room(free: f64, bytes: u64) -> (bool, String) {
    let (free_words, needed) = (gigabytes(free), gigabytes(bytes as f64));
    if free < bytes as f64 {
        (
            false,
            format!(
                "the destination has {free_words} free, and the documents are {needed} before \
                 compression"
            ),
        )
    } else {
        (true, format!("the destination has {free_words} free for {needed} of documents"))
    }
}

/// The addresses from which this daemon connects: what a firewall must let through. A side that
/// answers tells what it sees; of one that does not, the address that this machine would take.
pub(super) async fn addresses(
    findings: &mut Findings,
    spec: &MigrationSpec,
    source: Option<&Deployment>,
    destination: Option<&Deployment>,
) {
    let of = async |side: Side, deployment: Option<&Deployment>, connection: &ConnectionSpec| {
        match deployment {
            Some(deployment) => {
                let answer = deployment.command("admin", doc! { "whatsmyuri": 1 }).await.ok()?;
                let (host, _port) = answer.get_str("you").ok()?.rsplit_once(':')?;
                Some(format!("the {side} sees this daemon at {host}"))
            }
            None => {
                let local = connect::local_address(&connection.uri).await?;
                Some(format!(
                    "this daemon goes to the {side} from {local}, where nothing on the way \
                     translates it"
                ))
            }
        }
    };
    let (ours, theirs) = tokio::join!(
        of(Side::Source, source, &spec.source.connection),
        of(Side::Destination, destination, &spec.destination.connection)
    );
    let told: Vec<String> = [&ours, &theirs].into_iter().flatten().cloned().collect();
    if let (Some(_), Some(_)) = (&ours, &theirs) {
        return findings.note("addresses", Outcome::Ok, told.join("; "));
    }
    let mut message = "a side does not tell from which address it sees this daemon".to_owned();
    if let Some(told) = told.first() {
        message = format!("{message}; {told}");
    }
    findings.warn(
        "addresses",
        message,
        "look up the address of the daemon's machine where the firewall needs it",
    );
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, doc};

    use super::{parse_compatibility, room, skew};

    #[test]
    fn clocks_that_are_apart_are_told_with_their_way() {
        let at = DateTime::from_millis;
        assert_eq!(skew(at(1_000_000), at(1_009_000)), None);
        assert!(
            skew(at(1_000_000), at(1_060_000)).is_some_and(|words| words.contains("60 s ahead of"))
        );
        assert!(
            skew(at(1_060_000), at(1_000_000)).is_some_and(|words| words.contains("60 s behind"))
        );
    }

    #[test]
    fn a_disk_that_is_too_small_is_told() {
        assert!(room(4e9, 3_000_000_000).0);
        let (fits, words) = room(2e9, 3_000_000_000);
        assert!(!fits && words.contains("2.0 GB") && words.contains("3.0 GB"), "{words}");
    }

    #[test]
    fn versions_are_read_as_numbers() {
        let answer = |version: &str| doc! { "featureCompatibilityVersion": { "version": version } };
        assert!(parse_compatibility(&answer("10.0")) > parse_compatibility(&answer("9.1")));
        assert_eq!(parse_compatibility(&doc! {}), None);
    }
}
