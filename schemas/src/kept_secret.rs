//! Passwords that a client hands over for the daemon to keep: where they are, so that a declaration
//! can refer to them.
//!
//! They are files in the daemon's state directory, which only its user can enter. A declaration
//! holds the path, as it would of any other file; a new version is another path, so that a change
//! of the password is a change of the declaration.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::id::{MigrationName, Workspace};

/// The folder of a state directory in which they are.
pub const FOLDER: &str = "secrets";

/// Whose password it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The source's.
    Source,
    /// The destination's.
    Destination,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Source, Self::Destination];

    /// The name of the block.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// The side of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.as_str() == name)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The folder of one migration's passwords.
#[must_use]
pub fn folder(state_dir: &Path, workspace: &Workspace, name: &MigrationName) -> PathBuf {
    state_dir.join(FOLDER).join(workspace.as_str()).join(name.as_str())
}

/// The file of one password.
#[must_use]
pub fn file(
    state_dir: &Path,
    workspace: &Workspace,
    name: &MigrationName,
    side: Side,
    version: u32,
) -> PathBuf {
    folder(state_dir, workspace, name).join(format!("{side}-{version}"))
}
