//! The daemon's folder: for its owner only, and for one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use schemas::fault::{Fault, FaultCode};
use schemas::id::RunId;

use crate::state_fault;

/// How often and with what pause the lock of a daemon that may be ending is tried again: two
/// seconds in all.
const ENDING_TRIES: u32 = 20;
const ENDING_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// A state directory that this process holds.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl StateDir {
    /// Creates the folder where it is missing, and takes hold of it.
    pub fn take(path: &Path) -> Result<Self, Fault> {
        let unusable = |what: &str, error: &std::io::Error| {
            state_fault::of_io(format!("{what} {}", path.display()), error)
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| unusable("failed to create", &error))?;
        let metadata =
            std::fs::metadata(path).map_err(|error| unusable("failed to read", &error))?;
        if metadata.mode() & 0o077 != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(0o700))
                .map_err(|error| unusable("failed to close to others", &error))?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| unusable("failed to open the lock in", &error))?;
        // A predecessor that was killed can be still ending: its lock goes with its last thread,
        // which may sit in a write.
        let mut tries = 0;
        while tries < ENDING_TRIES && matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            tries += 1;
            std::thread::sleep(ENDING_PAUSE);
        }
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; the refusal stands without.
                let _ = lock.read_to_string(&mut holder);
                let holder = holder.trim();
                let holder =
                    if holder.is_empty() { String::new() } else { format!(" with pid {holder}") };
                return Err(Fault::new(
                    FaultCode::StateDirInUse,
                    format!("another cutoverd{holder} uses the state directory {}", path.display()),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(unusable("failed to lock", &error)),
        }
        let pid = std::process::id();
        let written =
            lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{pid}"));
        if let Err(error) = written {
            // Held is held: a daemon that may have a source to unblock starts on a full disk as
            // well.
            tracing::warn!(%error, "the lock does not say who holds it");
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The runs that have a folder with checkpoints, by name.
    pub fn runs(&self) -> Result<Vec<String>, Fault> {
        let folder = self.path.join("runs");
        let unreadable = |error: std::io::Error| {
            state_fault::of_io(format!("failed to read {}", folder.display()), &error)
        };
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(unreadable)?,
        };
        let mut runs = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            if entry.path().join("checkpoints.db").exists() {
                runs.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        runs.sort();
        Ok(runs)
    }

    /// The journal's file.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.db")
    }
}

/// A run's own folder under a state directory.
#[must_use]
pub fn run_dir(state_dir: &Path, run: &RunId) -> PathBuf {
    state_dir.join("runs").join(run.as_str())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use schemas::fault::FaultCode;

    use super::StateDir;

    #[test]
    fn one_daemon_at_a_time_and_nobody_else_looks_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/state");
        let held = StateDir::take(&path).expect("it is free");
        assert_eq!(
            std::fs::metadata(&path).expect("it exists").permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(
            std::fs::metadata(path.join("lock")).expect("it exists").permissions().mode() & 0o777,
            0o600
        );
        let refused = StateDir::take(&path).expect_err("it is held");
        assert_eq!(refused.code, FaultCode::StateDirInUse);
        assert!(refused.message.contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        StateDir::take(&path).expect("it is free again");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("writes");
        assert_eq!(
            StateDir::take(&file.join("state")).expect_err("a file is in the way").code,
            FaultCode::StateDirUnusable
        );
    }
}
