//! The daemon's socket: made for its owner only, without a moment in which others could connect.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use schemas::fault::{Fault, FaultCode};
use tokio::net::UnixListener;

/// A socket that is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Which file it is: another daemon may have put its own in this one's place.
    identity: (u64, u64),
}

impl Socket {
    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Nothing is lost by a socket file that stays: the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on a path. A socket file that nobody accepts on is replaced.
pub fn listen(path: &Path) -> Result<(UnixListener, Socket), Fault> {
    let failed = |error: io::Error| {
        Fault::new(
            FaultCode::StateDirUnusable,
            format!("failed to listen on {}: {error}", path.display()),
        )
        .with_remedy(
            "give --listen a path whose folder is writable for the user that runs cutoverd",
        )
    };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(Fault::new(
                    FaultCode::StateDirInUse,
                    format!("another program listens on {}", path.display()),
                )
                .with_remedy("stop the other cutoverd, or give this one another --listen"));
            }
        }
        Ok(_) => {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is in the way",
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    // Bound where nobody else can look, closed to others, and only then moved into its place.
    let private = folder.join(format!(".c{}", std::process::id()));
    let bound = bind_privately(&private, path);
    // Empty by now, unless binding failed; then it is in nobody's way.
    let _ = std::fs::remove_file(private.join("s"));
    let _ = std::fs::remove_dir(&private);
    let listener = bound.map_err(failed)?;
    let identity = identity(path).map_err(failed)?;
    Ok((listener, Socket { path: path.to_owned(), identity }))
}

fn bind_privately(private: &Path, path: &Path) -> io::Result<UnixListener> {
    match DirBuilder::new().mode(0o700).create(private) {
        Ok(()) => {}
        // From a daemon of the same pid that was killed here.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let _ = std::fs::remove_file(private.join("s"));
            std::fs::set_permissions(private, Permissions::from_mode(0o700))?;
        }
        Err(error) => return Err(error),
    }
    let socket = private.join("s");
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    std::fs::rename(&socket, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use schemas::fault::FaultCode;

    use super::listen;

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/c.sock");
        let (listener, socket) = listen(&path).expect("the path is free");
        assert_eq!(
            std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(listen(&path).expect_err("it is in use").code, FaultCode::StateDirInUse);
        drop(listener);
        std::mem::forget(socket);
        let (_listener, socket) = listen(&path).expect("nobody accepts on it any more");
        assert_eq!(
            std::fs::read_dir(path.parent().expect("a folder")).expect("readable").count(),
            1,
            "nothing else is left"
        );
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_plain_file_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "mine").expect("writes");
        listen(&path).expect_err("it is no socket");
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "mine");
    }
}
