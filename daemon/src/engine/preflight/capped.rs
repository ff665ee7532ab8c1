//! Whether capped collections hold more than their bounds, which servers keep until the next
//! insertion.

use schemas::fault::{Fault, FaultCode};

use super::Findings;
use super::environment::{self, Compatibility};
use crate::engine::capped::bound::Bound;
use crate::engine::catalog::{self, CollectionInfo};
use crate::mongo::{Deployment, ServerVersion};

/// From here on a server changes the bounds of a capped collection.
const CHANGES_BOUNDS: ServerVersion = ServerVersion::new(6, 0, 0);
/// The feature compatibility version from which on it does (seen on 6.0.5 and 6.0.27).
const COMPATIBILITY: Compatibility = (6, 0);

/// Names the collections that hold more than their bounds, with what becomes of that.
pub(super) async fn check(findings: &mut Findings, source: &Deployment, destination: &Deployment) {
    let name = "capped_bounds";
    let mut beyond = Vec::new();
    for info in findings.catalogue.clone().iter().filter(|info| info.is_capped()) {
        match catalog::size(source, &info.namespace).await {
            Ok((documents, bytes)) => {
                let bound = info.options().and_then(Bound::of);
                if bound.is_some_and(|bound| bound.is_exceeded(documents, bytes)) {
                    beyond.push(words(info));
                }
            }
            Err(fault) => return findings.fail(name, &fault),
        }
    }
    if beyond.is_empty() {
        return;
    }
    let beyond = beyond.join(", ");
    // Where the compatibility may not be read, the check of that says so.
    let is_compatible = environment::compatibility_of(destination)
        .await
        .is_none_or(|version| version >= COMPATIBILITY);
    if destination.version >= CHANGES_BOUNDS && is_compatible {
        findings.warn(
            name,
            format!(
                "more than their bounds is in {beyond}: all of it is carried, and the first \
                 insertion after the cutover evicts what is too much, as it would on the source"
            ),
            "raise cappedSize or cappedMax on the source (collMod) where that is to stay",
        );
    } else {
        let message = format!(
            "more than their bounds is in {beyond}, and the destination (MongoDB {}) would evict \
             it: only from version and feature compatibility 6.0 on servers change bounds",
            destination.version
        );
        let remedy = "bring the destination up to that, delete what is too much on the source, or \
             leave them out";
        findings
            .fail(name, &Fault::new(FaultCode::UnsupportedNamespace, message).with_remedy(remedy));
    }
}

fn words(info: &CollectionInfo) -> String {
    format!("{} (capped)", info.namespace)
}
