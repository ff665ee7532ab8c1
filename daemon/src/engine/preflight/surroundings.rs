//! Checks of what is around the data: feature compatibility, clocks, free disk, and where the daemon is seen to come from.

use mongodb::bson::{DateTime, Document, doc};
use schemas::fault::{Fault, FaultCode};
use schemas::observed::Outcome;

use super::Findings;
use crate::mongo::Deployment;

/// Clocks further apart than this are told: TTL indexes delete by the clock of the server that they are on.
const MOST_SKEW_MS: i64 = 10_000;

/// A feature compatibility version, such as 6.0.
type Compatibility = (u32, u32);

/// Whether the destination may use every feature that the source may have used.
pub(super) async fn compatibility(findings: &mut Findings, source: &Deployment, destination: &Deployment) {
    let name = "feature_compatibility";
    let of = async |deployment: &Deployment| {
        let answer = deployment.command("admin", doc! { "getParameter": 1, "featureCompatibilityVersion": 1 }).await.ok()?;
        parse_compatibility(&answer)
    };
    match (of(source).await, of(destination).await) {
        (Some(from), Some(to)) if to < from => {
            let message = format!(
                "the destination's feature compatibility version is {}.{}, below the source's {}.{}",
                to.0, to.1, from.0, from.1
            );
            let remedy = format!("run setFeatureCompatibilityVersion: \"{}.{}\" on the destination", from.0, from.1);
            findings.fail(name, &Fault::new(FaultCode::UnsupportedVersion, message).with_remedy(remedy));
        }
        (Some(from), Some(to)) => {
            findings.note(
                name,
                Outcome::Ok,
                format!("{}.{} on the source, {}.{} on the destination", from.0, from.1, to.0, to.1),
            );
        }
        _ => findings.note(name, Outcome::Warn, "it may not be read on both sides (getParameter): grant clusterMonitor"),
    }
}

fn parse_compatibility(answer: &Document) -> Option<Compatibility> {
    let version = answer.get_document("featureCompatibilityVersion").ok()?.get_str("version").ok()?;
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
    let (outcome, message) = match (ours, theirs) {
        (Some(ours), Some(theirs)) => skew(ours, theirs),
        _ => (Outcome::Warn, "a side does not tell its time".to_owned()),
    };
    findings.note("clock_skew", outcome, message);
}

fn skew(source: DateTime, destination: DateTime) -> (Outcome, String) {
    let apart = destination.timestamp_millis().saturating_sub(source.timestamp_millis());
    if apart.abs() <= MOST_SKEW_MS {
        return (Outcome::Ok, "the clocks of both sides agree".to_owned());
    }
    let way = if apart > 0 { "ahead of" } else { "behind" };
    let seconds = apart.unsigned_abs() / 1000;
    (Outcome::Warn, format!("the destination's clock is {seconds} s {way} the source's: TTL indexes delete by it"))
}

/// Whether the destination has room for the data, where it tells.
pub(super) async fn disk(findings: &mut Findings, destination: &Deployment, bytes: u64) {
    let Ok(stats) = destination.command("admin", doc! { "dbStats": 1 }).await else { return };
    let number = |name: &str| stats.get_f64(name).ok().filter(|number| *number >= 0.0);
    if let (Some(total), Some(used)) = (number("fsTotalSize"), number("fsUsedSize")) {
        let (outcome, message) = room((total - used).max(0.0), bytes);
        findings.note("destination_disk", outcome, message);
    }
}

fn room(free: f64, bytes: u64) -> (Outcome, String) {
    let gigabytes = |bytes: f64| format!("{:.1} GB", bytes / 1e9);
    let (free_words, needed) = (gigabytes(free), gigabytes(bytes as f64));
    if free < bytes as f64 {
        let message = format!("the destination has {free_words} free, and the documents are {needed} before compression");
        (Outcome::Warn, message)
    } else {
        (Outcome::Ok, format!("the destination has {free_words} free for {needed} of documents"))
    }
}

/// The address from which each side sees this daemon: what a firewall must let through.
pub(super) async fn addresses(findings: &mut Findings, source: &Deployment, destination: &Deployment) {
    let of = async |deployment: &Deployment| {
        let answer = deployment.command("admin", doc! { "whatsmyuri": 1 }).await.ok()?;
        let (host, _port) = answer.get_str("you").ok()?.rsplit_once(':')?;
        Some(host.to_owned())
    };
    let (ours, theirs) = tokio::join!(of(source), of(destination));
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            let message = format!("the source sees this daemon at {ours}, the destination at {theirs}");
            findings.note("addresses", Outcome::Ok, message);
        }
        _ => findings.note("addresses", Outcome::Warn, "a side does not tell from which address it sees this daemon"),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, doc};
    use schemas::observed::Outcome;

    use super::{parse_compatibility, room, skew};

    #[test]
    fn clocks_that_are_apart_are_told_with_their_way() {
        let at = DateTime::from_millis;
        assert_eq!(skew(at(1_000_000), at(1_009_000)).0, Outcome::Ok);
        let (outcome, words) = skew(at(1_000_000), at(1_060_000));
        assert!(outcome == Outcome::Warn && words.contains("60 s ahead of"), "{words}");
        assert!(skew(at(1_060_000), at(1_000_000)).1.contains("60 s behind"));
    }

    #[test]
    fn a_disk_that_is_too_small_is_told() {
        assert_eq!(room(4e9, 3_000_000_000).0, Outcome::Ok);
        let (outcome, words) = room(2e9, 3_000_000_000);
        assert!(outcome == Outcome::Warn && words.contains("2.0 GB") && words.contains("3.0 GB"), "{words}");
    }

    #[test]
    fn versions_are_read_as_numbers() {
        let answer = |version: &str| doc! { "featureCompatibilityVersion": { "version": version } };
        assert!(parse_compatibility(&answer("10.0")) > parse_compatibility(&answer("9.1")));
        assert_eq!(parse_compatibility(&doc! {}), None);
    }
}
