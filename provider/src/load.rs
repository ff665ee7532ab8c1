//! Reads a directory of HCL.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use schemas::fault::{Fault, FaultCode};
use schemas::hcl;
use schemas::spec::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::cli::Variables;
use crate::declaration::{Declaration, Reach};
use crate::exit_code::Failure;

/// The endings of the files that a declaration is read from.
const ENDINGS: [&str; 2] = ["hcl", "hclvars"];

/// More than any file of a declaration is.
const LARGEST_BYTES: u64 = 16 << 20;

/// The files of a directory, each with the SHA-256 of its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// Reads a directory's files.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for path in self::files(directory)? {
            let mut content = Vec::new();
            fs::File::open(&path)?.take(LARGEST_BYTES + 1).read_to_end(&mut content)?;
            let name = path.file_name().unwrap_or_default();
            files.insert(name.to_string_lossy().into_owned(), sha256_hex(&content));
        }
        Ok(Self(files))
    }

    /// One digest of all of them.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        sha256_hex(schemas::wire::to_json(&self.0).as_bytes())
    }

    /// What is different in `now`, in words, by file.
    #[must_use]
    pub fn changed(&self, now: &Self) -> Vec<String> {
        let mut changed: Vec<String> = self
            .0
            .iter()
            .filter_map(|(name, digest)| match now.0.get(name) {
                None => Some(format!("{name} is gone")),
                Some(other) if other != digest => Some(format!("{name} was edited")),
                Some(_) => None,
            })
            .collect();
        changed.extend(
            now.0
                .keys()
                .filter(|name| !self.0.contains_key(*name))
                .map(|name| format!("{name} is new")),
        );
        changed
    }
}

/// The files of a directory that a declaration can be in, in the order of their names.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        // As with loading: editors leave hidden files of the same ending while one is open.
        let is_hidden = name.to_string_lossy().starts_with(['.', '#']);
        let path =
            if directory == Path::new(".") { PathBuf::from(name) } else { directory.join(name) };
        let is_input =
            path.extension().is_some_and(|ending| ENDINGS.iter().any(|one| ending == *one));
        if is_input && !is_hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A directory's declaration and the files that it is in.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is declared.
    pub declaration: Declaration,
    /// Its files.
    pub inputs: Inputs,
}

/// No values from the command line: what the environment and the directory's own files give holds.
pub const NO_VARIABLES: Variables = Variables { assignments: Vec::new(), files: Vec::new() };

/// Whether a directory has any HCL.
#[must_use]
pub fn has_declaration(directory: &Path) -> bool {
    Inputs::read(directory).is_ok_and(|inputs| inputs.0.keys().any(|name| name.ends_with(".hcl")))
}

/// The daemon that a directory's `daemon` block names.
pub fn reach(directory: &Path) -> Result<Reach, Failure> {
    let variables = Variables { assignments: Vec::new(), files: Vec::new() };
    Ok(self::directory(directory, &variables)?.declaration.reach)
}

/// Reads and checks a directory's declaration, with the digests of its files.
pub fn directory(directory: &Path, variables: &Variables) -> Result<Loaded, Failure> {
    let given = hcl::Inputs {
        vars: variables
            .assignments
            .iter()
            .map(|text| assignment(text))
            .collect::<Result<_, _>>()?,
        var_files: variables.files.clone(),
        env: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    // The digests first: a file that changes in between makes a saved plan outdated, never the
    // other way round.
    let inputs = Inputs::read(directory).unwrap_or_default();
    let loaded = hcl::load(directory, &given)
        .map_err(|all| Failure::Diagnostics(all.into_iter().collect()))?;
    let declaration = Declaration {
        workspace: loaded.daemon.workspace,
        reach: Reach { endpoint: loaded.daemon.endpoint, tls: loaded.daemon.tls },
        migrations: loaded.migrations,
        fingerprint: inputs.fingerprint(),
        warnings: loaded.warnings.into_iter().collect(),
    };
    Ok(Loaded { declaration, inputs })
}

fn assignment(text: &str) -> Result<(String, String), Fault> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err(Fault::new(
            FaultCode::InvalidConfiguration,
            format!("--var {text:?} gives no variable a value"),
        )
        .with_remedy("write it like --var window=72h")),
    }
}
