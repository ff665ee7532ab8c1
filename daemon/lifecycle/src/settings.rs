//! What the lifecycle needs of a declaration.

use schemas::spec::{ExistingData, MigrationSpec, SourceAfter, SourceWrites};
use schemas::time::Length;
use serde::{Deserialize, Serialize};

/// The declared settings that decide about transitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How long a cutover may be acknowledged from the first `ready` on.
    pub window: Length,
    /// Declared extensions; each adds 24 h.
    pub extensions: u32,
    /// Readiness needs a lag below this.
    pub max_lag: Length,
    /// Past this a cutover is given up.
    pub max_downtime: Length,
    /// How the source's writes are stopped.
    pub source_writes: SourceWrites,
    /// What becomes of the source once completed.
    pub source_after: SourceAfter,
    /// What happens to data that is on the destination already.
    pub existing_data: ExistingData,
    /// Whether the run is to be held.
    pub paused: bool,
}

impl From<&MigrationSpec> for Settings {
    fn from(spec: &MigrationSpec) -> Self {
        Self {
            window: spec.cutover.window,
            extensions: spec.cutover.extensions,
            max_lag: spec.cutover.max_lag,
            max_downtime: spec.cutover.max_downtime,
            source_writes: spec.cutover.source_writes,
            source_after: spec.cutover.source_after,
            existing_data: spec.destination.existing_data,
            paused: spec.paused,
        }
    }
}
