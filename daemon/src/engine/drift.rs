//! What has changed around a run since it began: its credentials, the servers' versions, the
//! destination's definitions.
//!
//! Looked at when somebody asks for drift, over connections of its own: those of the run were made
//! when everything was well, and go on working where a new one would not be let in.

pub mod shards;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemas::durable_file;
use schemas::fault::{Fault, FaultCode};
use schemas::observed::{Finding, FindingKind, Mismatch, MismatchKind};
use schemas::spec::ConnectionSpec;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OnceCell;

use super::verify::definitions::Views;
use super::verify::{Sides, definitions};
use crate::mongo::{Deployment, Side};
use crate::state_fault;

/// A definition that differs now and not after this long was on its way through the tail.
const ON_ITS_WAY: Duration = Duration::from_millis(1_500);

/// Where a run keeps the versions that it began with.
const VERSIONS_FILE: &str = "versions.json";

/// The versions that a run began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    source: String,
    destination: String,
}

impl Versions {
    /// Those of two deployments.
    #[must_use]
    pub fn of(source: &Deployment, destination: &Deployment) -> Self {
        Self { source: source.version.to_string(), destination: destination.version.to_string() }
    }

    /// Keeps them for a run, where it has none yet: a run that is started again began with the
    /// first ones. Those that cannot be read any more are replaced.
    pub fn keep(&self, run_dir: &Path) -> Result<(), Fault> {
        let path = run_dir.join(VERSIONS_FILE);
        match Self::kept(run_dir) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(why, "the versions of now are kept as those that the run began with")
            }
        }
        durable_file::write(&path, schemas::wire::to_json(self).as_bytes()).map_err(|error| {
            state_fault::of_io(format!("failed to write {}", path.display()), &error)
        })
    }

    /// Those that a run has kept; `None`: it has not begun.
    ///
    /// # Errors
    /// Where they cannot be read, why.
    pub fn kept(run_dir: &Path) -> Result<Option<Self>, String> {
        let path = run_dir.join(VERSIONS_FILE);
        let unreadable = |why: &dyn std::fmt::Display| {
            format!("the versions in {} cannot be read: {why}", path.display())
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| unreadable(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&error)),
        }
    }

    fn of_side(&self, side: Side) -> &str {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }
}

/// That what a run began with cannot be read any more: what has changed since is then not seen, and
/// that is reported.
#[must_use]
pub fn unreadable(kind: FindingKind, path: &str, why: String) -> Finding {
    let message = format!(
        "{why}; what has changed since the run began is not seen; a run that goes on keeps it anew"
    );
    Finding {
        kind,
        path: path.to_owned(),
        expected: json!("readable"),
        actual: json!("unreadable"),
        message,
    }
}

/// How one side was reached, once somebody has tried.
type Reached = Arc<OnceCell<Result<Arc<Deployment>, Fault>>>;

/// Connections made anew for one look around: many migrations of one deployment make one.
#[derive(Debug, Default)]
pub struct Fresh {
    made: Mutex<BTreeMap<String, Reached>>,
}

impl Fresh {
    async fn connect(&self, side: Side, spec: &ConnectionSpec) -> Result<Arc<Deployment>, Fault> {
        let way = format!("{side} {}", schemas::wire::to_json(spec));
        let cell = Arc::clone(
            self.made.lock().unwrap_or_else(PoisonError::into_inner).entry(way).or_default(),
        );
        let connected = cell
            .get_or_init(|| async {
                crate::mongo::connect(side, spec, None, "cutover-look").await.map(Arc::new)
            })
            .await;
        connected.clone()
    }
}

/// Connects anew to one side, and says what has changed there.
pub async fn side(
    connections: &Fresh,
    side: Side,
    spec: &ConnectionSpec,
    versions: Option<&Versions>,
) -> (Vec<Finding>, Option<Arc<Deployment>>) {
    match connections.connect(side, spec).await {
        Ok(deployment) => {
            let now = deployment.version.to_string();
            let changed =
                versions.map(|versions| versions.of_side(side)).filter(|began| *began != now);
            let finding = changed.map(|began| Finding {
                kind: FindingKind::Version,
                path: format!("{side}.version"),
                expected: json!(began),
                actual: json!(now),
                message: format!(
                    "the {side} is of version {now} now, and was {began} when the run began"
                ),
            });
            (finding.into_iter().collect(), Some(deployment))
        }
        Err(fault) if is_refusal(fault.code) => {
            let finding = Finding {
                kind: FindingKind::Credentials,
                path: side.to_string(),
                expected: json!("accepted"),
                actual: json!(fault.code),
                message: format!(
                    "a new connection to the {side} is refused: {fault}; {}",
                    fault.remedy
                ),
            };
            (vec![finding], None)
        }
        // A server that is away is the run's own trouble, and told as such.
        Err(_) => (Vec::new(), None),
    }
}

/// A source that cannot block its writes any more, for this reason.
#[must_use]
pub fn cannot_block(why: &str) -> Finding {
    Finding {
        kind: FindingKind::Version,
        path: "source.feature_compatibility_version".to_owned(),
        expected: json!("6.0"),
        actual: json!("lower"),
        message: format!(
            "{why}: no cutover can begin; raise it again (setFeatureCompatibilityVersion), or set \
             cutover.source_writes = \"observe\""
        ),
    }
}

fn is_refusal(code: FaultCode) -> bool {
    matches!(
        code,
        FaultCode::AuthenticationFailed
            | FaultCode::SecretUnavailable
            | FaultCode::TlsFailed
            | FaultCode::MissingPrivileges
    )
}

/// Collections whose options or indexes somebody has changed on the destination.
pub async fn definitions(sides: &Sides) -> Vec<Finding> {
    let is_definition =
        |one: &Mismatch| matches!(one.kind, MismatchKind::Options | MismatchKind::Indexes);
    let Ok(first) = definitions::compare(sides, Views::Aside).await else { return Vec::new() };
    if !first.iter().any(is_definition) {
        return Vec::new();
    }
    tokio::time::sleep(ON_ITS_WAY).await;
    let Ok(again) = definitions::compare(sides, Views::Aside).await else { return Vec::new() };
    again
        .into_iter()
        .filter(|one| is_definition(one) && first.contains(one))
        .map(|one| {
            let (namespace, what) = (&one.namespace, one.kind.as_str());
            let names = one.paths.join(", ");
            Finding {
                kind: FindingKind::Definitions,
                path: format!("destination.{namespace}.{what}"),
                expected: json!("as on the source"),
                actual: json!(one.paths),
                message: format!(
                    "{what} of {namespace} on the destination are not as on the source: {names}"
                ),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Versions;

    /// As a power cut leaves a file that was not synced.
    #[test]
    fn torn_versions_are_an_error_by_their_name_and_are_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let versions = Versions { source: "5.0.32".to_owned(), destination: "6.0.5".to_owned() };
        for torn in ["", "{\"source\":\"5", "[]"] {
            std::fs::write(folder.path().join(super::VERSIONS_FILE), torn).expect("written");
            let why = Versions::kept(folder.path()).expect_err(torn);
            assert!(why.contains("versions.json"), "{why}");
            versions.keep(folder.path()).expect("kept");
            assert_eq!(Versions::kept(folder.path()), Ok(Some(versions.clone())));
        }
    }
}
