//! What a plan leaves for its apply: Terraform carries it, and shows it to nobody.

use schemas::id::{RunId, Serial};
use serde::{Deserialize, Serialize};

use crate::plan::Action;

/// What was planned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// What is done; `None` where that is not known yet.
    pub(crate) action: Option<Action>,
    /// The serial that it is based on.
    pub(crate) serial: Serial,
    /// The run that is there already and that this takes over: destroying it first would destroy
    /// what is to be kept.
    pub(crate) takes_over: Option<RunId>,
    /// The run of the state that it is planned for: where Terraform replaces that, it plans once
    /// more, and hands this note in.
    #[serde(default)]
    pub(crate) of: Option<String>,
}

impl Note {
    /// The note as Terraform carries it.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a note has string keys only")
    }

    /// Reads a note; what is none says nothing.
    #[must_use]
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}
