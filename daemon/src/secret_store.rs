//! Keeps passwords that clients hand over, each in a file for the daemon's user only, and throws
//! away those that nobody needs.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use schemas::durable_file;
use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};
use schemas::kept_secret::{FOLDER, Side, file, folder};
use schemas::spec::{MigrationSpec, SecretRef};
use schemas::wire::v1;
use tempfile::TempDir;
use tracing::warn;

use crate::state_fault;

/// Longer than any password that a server takes.
const LONGEST_BYTES: usize = 64 << 10;

/// The folders of passwords that are only tried; one that a crash left is thrown away with the next
/// start.
const TRIAL_PREFIX: &str = ".trial-";

/// The store of one state directory.
#[derive(Debug, Clone)]
pub struct SecretStore {
    state_dir: PathBuf,
}

/// A password with what it is for, checked.
struct Given<'a> {
    side: Side,
    version: u32,
    secret: &'a str,
}

impl SecretStore {
    /// The store of an absolute state directory.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self { state_dir }
    }

    /// Keeps passwords; one of the same version is replaced. Of the others of this migration, those
    /// stay that its declaration refers to.
    pub fn keep(
        &self,
        workspace: &Workspace,
        name: &MigrationName,
        secrets: &[v1::Secret],
        declared: Option<&MigrationSpec>,
    ) -> Result<(), Fault> {
        let mut kept = Vec::new();
        for given in secrets {
            let Given { side, version, secret } = checked(given)?;
            let path = file(&self.state_dir, workspace, name, side, version);
            create_folder(&folder(&self.state_dir, workspace, name))
                .and_then(|()| write(&path, secret))
                .map_err(|error| unusable(&path, &error))?;
            kept.push(path);
        }
        let folder = folder(&self.state_dir, workspace, name);
        let needed: Vec<&Path> = kept
            .iter()
            .map(PathBuf::as_path)
            .chain(declared.into_iter().flat_map(referred_to))
            .collect();
        prune(&folder, &needed).map_err(|error| unusable(&folder, &error))
    }

    /// Puts passwords where a declaration refers to them, for as long as what is given back is
    /// there.
    pub fn try_out(
        &self,
        spec: &mut MigrationSpec,
        secrets: &[v1::Secret],
    ) -> Result<Option<TempDir>, Fault> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let parent = self.state_dir.join(FOLDER);
        let trial = create_folder(&parent).and_then(|()| {
            tempfile::Builder::new()
                .prefix(TRIAL_PREFIX)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(&parent)
        });
        let trial = trial.map_err(|error| unusable(&parent, &error))?;
        for given in secrets {
            let Given { side, secret, .. } = checked(given)?;
            let path = trial.path().join(side.as_str());
            write(&path, secret).map_err(|error| unusable(&path, &error))?;
            let connection = match side {
                Side::Source => &mut spec.source.connection,
                Side::Destination => &mut spec.destination.connection,
            };
            connection.password = Some(SecretRef::File(path));
        }
        Ok(Some(trial))
    }

    /// Throws away what no declaration refers to. Only while nothing is being declared: what was
    /// just kept is not referred to yet.
    pub fn prune<'a>(&self, declared: impl Iterator<Item = &'a MigrationSpec>) {
        let needed: Vec<&Path> = declared.flat_map(referred_to).collect();
        if let Err(error) = prune(&self.state_dir.join(FOLDER), &needed) {
            warn!(%error, "failed to throw away passwords that nobody needs");
        }
    }
}

/// The files that a declaration refers to.
fn referred_to(spec: &MigrationSpec) -> impl Iterator<Item = &Path> {
    [&spec.source.connection, &spec.destination.connection].into_iter().filter_map(|connection| {
        match &connection.password {
            Some(SecretRef::File(path)) => Some(path.as_path()),
            Some(SecretRef::Env(_)) | None => None,
        }
    })
}

/// Removes files that are not needed, and folders that are empty then.
fn prune(folder: &Path, needed: &[&Path]) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            prune(&path, needed)?;
            // One that is not empty stays.
            let _ = fs::remove_dir(&path);
        } else if !needed.contains(&path.as_path()) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn checked(given: &v1::Secret) -> Result<Given<'_>, Fault> {
    let invalid = |why: String| Fault::new(FaultCode::InvalidConfiguration, why);
    let side = Side::from_name(&given.side)
        .ok_or_else(|| invalid(format!("{:?} is no side of a migration", given.side)))?;
    if given.secret.is_empty() || given.secret.len() > LONGEST_BYTES {
        return Err(invalid(format!(
            "the {side}'s password is empty, or longer than {LONGEST_BYTES} bytes"
        )));
    }
    Ok(Given { side, version: given.version, secret: &given.secret })
}

fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write(path: &Path, secret: &str) -> io::Result<()> {
    // Line ends at a file's end are no part of the secret.
    durable_file::write(path, format!("{secret}\n").as_bytes())
}

fn unusable(path: &Path, error: &io::Error) -> Fault {
    state_fault::of_io(format!("failed to keep a password in {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use schemas::id::{MigrationName, Workspace};
    use schemas::kept_secret::{Side, file};
    use schemas::spec::SecretRef;
    use schemas::wire::v1;

    use super::SecretStore;
    use crate::mongo::connect::resolve_secret;

    #[test]
    fn passwords_are_kept_for_the_owner_until_nobody_needs_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SecretStore::new(folder.path().to_owned());
        let (workspace, name) = (
            Workspace::new("shop").expect("a name"),
            MigrationName::new("orders").expect("a name"),
        );
        let secret = |side: &str, secret: &str| v1::Secret {
            side: side.to_owned(),
            version: 3,
            secret: secret.to_owned(),
        };
        store
            .keep(&workspace, &name, &[secret("source", "a\n"), secret("destination", "b")], None)
            .expect("it keeps them");
        let path = file(folder.path(), &workspace, &name, Side::Source, 3);
        assert_eq!(
            std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            resolve_secret(&SecretRef::File(path.clone())).expect("it resolves"),
            "a",
            "no password ends in a line end"
        );
        assert!(store.keep(&workspace, &name, &[secret("sauce", "x")], None).is_err());
        assert!(store.keep(&workspace, &name, &[secret("source", "")], None).is_err());
        store.prune(std::iter::empty());
        assert!(
            !path.exists()
                && std::fs::read_dir(folder.path().join("secrets"))
                    .expect("it is there")
                    .next()
                    .is_none()
        );
    }
}
