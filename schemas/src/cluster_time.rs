//! Cluster times: MongoDB's `Timestamp`, seconds and an ordinal within the second.

use serde::{Deserialize, Serialize};

/// A point in a cluster's logical time, as in an oplog entry's `ts`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClusterTime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub t: u32,
    /// Ordinal of the operation within that second, from 1.
    pub i: u32,
}

impl ClusterTime {
    /// Seconds by which this time is ahead of `other`; zero where it is not. Whole seconds: finer
    /// is not in a cluster time.
    #[must_use]
    pub fn seconds_ahead_of(self, other: Self) -> u32 {
        if self > other { self.t.saturating_sub(other.t) } else { 0 }
    }
}

impl std::fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.t, self.i)
    }
}
