//! One way to write a small file so that a crash or a power cut leaves the old content or the new
//! one, and nothing between.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Two writers of one file in this process must not share the file that they write aside.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Replaces a file's content, for its owner only: written aside, synced, renamed over the file, and
/// the folder synced.
///
/// # Errors
/// As the system reports. The file then has its old content, and nothing lies aside; where only the
/// sync of the folder failed it may have the new one.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = aside(path)?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, path));
    match written {
        Ok(()) => settle(path),
        Err(error) => {
            // Nothing is left behind; where that fails too, the first error says why.
            let _ = fs::remove_file(&aside);
            Err(error)
        }
    }
}

/// Removes a file for good. One that is not there is a success.
///
/// # Errors
/// As the system reports.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => settle(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes what was done to a file's name last: its folder is synced.
///
/// # Errors
/// As the system reports.
pub fn settle(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{remove, write};

    #[test]
    fn a_file_is_replaced_whole_for_its_owner_and_nothing_lies_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.json");
        write(&path, b"a longer one").expect("written");
        write(&path, b"short").expect("written");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"short");
        assert_eq!(
            std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1);
        remove(&path).expect("removed");
        remove(&path).expect("it is gone already");
    }

    #[test]
    fn where_it_cannot_be_written_the_old_content_stays_and_nothing_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("d");
        std::fs::create_dir_all(path.join("in the way")).expect("made");
        write(&path, b"x").expect_err("a folder is in the way");
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1);
        assert!(write(&folder.path().join("no/such/folder"), b"x").is_err());
    }
}
