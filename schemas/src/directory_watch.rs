//! What a daemon that watches a directory has made of it last.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::hcl::Diagnostic;
use crate::time::UtcTime;

/// A watched directory and what became of its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watching {
    /// The directory, absolute.
    pub directory: PathBuf,
    /// What became of it.
    pub outcome: WatchOutcome,
    /// SHA-256 of the directory's files as they were looked at, in hexadecimal.
    pub fingerprint: String,
    /// Since when that holds.
    pub since: UtcTime,
    /// Why nothing of it was applied, or what is worth knowing.
    pub diagnostics: Vec<Diagnostic>,
}

/// What became of a watched directory's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchOutcome {
    /// It is not looked at yet.
    Waiting,
    /// It is applied, or was no difference.
    Applied,
    /// Nothing of it is applied.
    Refused,
}
