//! The token that a reviewer acknowledges.

use std::fmt;

use schemas::id::RunId;
use schemas::spec::{SpecDigest, sha256_hex};
use serde::{Deserialize, Serialize};

/// Numbers the attempts to cut a run over; each acknowledgement that is taken uses one up.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The next attempt.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies one attempt to cut over one run with one spec.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

/// Hexadecimal digits of the digest that a token keeps: 160 bits are beyond guessing and still fit
/// a line of HCL.
const DIGITS: usize = 40;

impl Token {
    /// Derives the token. The attempt is part of it, so that none is of use twice.
    #[must_use]
    pub fn derive(run: &RunId, digest: &SpecDigest, attempt: Attempt) -> Self {
        // The parts cannot run into one another: a run's id has no line end, a digest is of fixed
        // length.
        let text = format!("cutover\n{run}\n{digest}\n{attempt}");
        Self(format!("cut-{}", &sha256_hex(text.as_bytes())[..DIGITS]))
    }

    /// Takes a text as somebody wrote it.
    #[must_use]
    pub fn given(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
