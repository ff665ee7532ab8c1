//! HCL to declarations: a directory's `*.hcl` files, merged, checked, with all their mistakes at
//! once.
//!
//! ```text
//! source (texts) -> syntax (trees) -> variable, local (names) -> body (a block: check, eval)
//!   -> migration (rules over several attributes) -> Declaration, or Diagnostics
//! ```
//!
//! Nothing here touches a network, reads a clock, or resolves a secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hcl_edit::Span as _;
use hcl_edit::structure::{Block, Structure};

use crate::id::MigrationName;

mod body;
mod check;
mod daemon;
mod diagnostic;
mod eval;
pub mod external;
mod fmt;
mod for_each;
mod function;
mod local;
mod migration;
mod operation;
mod redact;
pub mod schema;
mod source;
mod suggest;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
mod type_constraint;
mod unclosed;
pub mod uri;
mod value;
mod variable;

pub use self::fmt::layout;
pub use check::tcp_endpoint;
pub use daemon::{DaemonSettings, DaemonTls};
pub use diagnostic::{Diagnostic, Diagnostics, Excerpt, Place, Related, Severity};
pub use migration::{DEFAULT_VERIFY_MODE, Declared};
pub use variable::ENVIRONMENT_PREFIX;

use body::{Filled, Walker};
use diagnostic::Report;
use eval::Names;
use for_each::{Each, Expansion};
use schema::{DAEMON, MIGRATION, TOP};
use source::{SourceFile, quoted};
use suggest::did_you_mean;
use syntax::Parsed;

/// What is given besides the directory.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// `--var name=value`, in order: a later one wins.
    pub vars: Vec<(String, String)>,
    /// `--var-file`, in order.
    pub var_files: Vec<PathBuf>,
    /// The environment; what does not start with `CUTOVER_VAR_` is left alone.
    pub env: BTreeMap<String, String>,
}

/// A file's text under the name that diagnostics give it.
#[derive(Debug, Clone)]
pub struct File {
    /// The name.
    pub name: String,
    /// The text.
    pub text: String,
}

/// What a directory declares.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// The `daemon` block.
    pub daemon: DaemonSettings,
    /// The migrations by name.
    pub migrations: BTreeMap<MigrationName, Declared>,
    /// What somebody should look at.
    pub warnings: Diagnostics,
}

/// The end of the names of files that declare.
const EXTENSION: &str = ".hcl";

/// The end of the names of files whose values are taken without being asked for.
const AUTOMATIC_VALUES: &str = ".auto.hclvars";

/// All files together may have this many bytes.
const MOST_BYTES: usize = 16 << 20;

/// Loads a directory.
pub fn load(dir: &Path, inputs: &Inputs) -> Result<Declaration, Diagnostics> {
    let mut report = Report::default();
    let mut sources = Sources::default();
    match names_in(dir) {
        Ok(names) => {
            for (name, path) in names {
                let bucket = if name.ends_with(EXTENSION) {
                    &mut sources.files
                } else {
                    &mut sources.values
                };
                sources.complete &= read_into(bucket, &path, &mut report);
            }
            if sources.files.is_empty() && report.errors() == 0 {
                let shown = dir.display();
                let detail = "A migration is declared in files that end in .hcl; folders within \
                     the directory are not read.";
                report.add(Diagnostic::error(format!("there is no .hcl file in {shown}"), detail));
            }
        }
        Err(error) => {
            let detail = format!("The system says: {error}.");
            report.add(Diagnostic::error(
                format!("the directory {} cannot be read", dir.display()),
                detail,
            ));
        }
    }
    for path in &inputs.var_files {
        sources.complete &= read_into(&mut sources.values, path, &mut report);
    }
    if sources.files.is_empty() {
        return Err(report.finish());
    }
    assemble(dir, sources, inputs, report)
}

/// Loads texts that are at hand, as if they were files of a directory. `inputs.var_files` are read
/// all the same.
pub fn load_texts(
    dir: &Path,
    texts: Vec<File>,
    inputs: &Inputs,
) -> Result<Declaration, Diagnostics> {
    let mut report = Report::default();
    let mut sources = Sources::default();
    for File { name, text } in texts {
        let bucket =
            if name.ends_with(AUTOMATIC_VALUES) { &mut sources.values } else { &mut sources.files };
        bucket.push(SourceFile::new(name, text));
    }
    for path in &inputs.var_files {
        sources.complete &= read_into(&mut sources.values, path, &mut report);
    }
    assemble(dir, sources, inputs, report)
}

struct Sources {
    files: Vec<SourceFile>,
    values: Vec<SourceFile>,
    /// Whether all of them could be read.
    complete: bool,
}

impl Default for Sources {
    fn default() -> Self {
        Self { files: Vec::new(), values: Vec::new(), complete: true }
    }
}

/// The files that count, in the order of their names.
fn names_in(dir: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Editors leave hidden files of the same ending while one is open.
        let counts = !name.starts_with(['.', '#'])
            && (name.ends_with(EXTENSION) || name.ends_with(AUTOMATIC_VALUES));
        // A file that vanishes meanwhile, or a dangling link, is reported when it is read.
        if counts && !entry.path().is_dir() {
            let path = if dir == Path::new(".") { PathBuf::from(&name) } else { dir.join(&name) };
            names.push((name, path));
        }
    }
    names.sort();
    Ok(names)
}

fn read_into(bucket: &mut Vec<SourceFile>, path: &Path, report: &mut Report) -> bool {
    match SourceFile::read(path.to_string_lossy(), path) {
        Ok(file) => {
            bucket.push(file);
            true
        }
        Err(diagnostic) => {
            report.add(*diagnostic);
            false
        }
    }
}

fn assemble(
    dir: &Path,
    sources: Sources,
    inputs: &Inputs,
    mut report: Report,
) -> Result<Declaration, Diagnostics> {
    let bytes: usize =
        sources.files.iter().chain(&sources.values).map(|file| file.text.len()).sum();
    if bytes > MOST_BYTES {
        let detail = format!("All files together may have {} MiB.", MOST_BYTES >> 20);
        report.add(Diagnostic::error("the files are too large", detail));
        return Err(report.finish());
    }
    let dir = match std::path::absolute(dir) {
        Ok(dir) => dir,
        Err(error) => {
            report.add(Diagnostic::error(
                "the current directory is not known",
                format!("The system says: {error}."),
            ));
            return Err(report.finish());
        }
    };
    let mut complete = sources.complete;
    let mut parse_all = |files: Vec<SourceFile>, report: &mut Report| {
        let mut parsed = Vec::with_capacity(files.len());
        for file in files {
            match syntax::parse(file) {
                Ok(file) => parsed.push(file),
                Err(diagnostic) => {
                    complete = false;
                    report.add(*diagnostic);
                }
            }
        }
        parsed
    };
    let files = parse_all(sources.files, &mut report);
    let mut values = parse_all(sources.values, &mut report);
    let top = top_blocks(&files, &mut report);

    let mut names = Names::new(dir, complete);
    let mut variables = BTreeMap::new();
    for (parsed, block) in top.of("variable") {
        variable::declare(parsed, block, &names, &mut variables, &mut report);
    }
    hide_sensitive_values(&mut values, &variables);
    let mut assignments = variable::Assignments::new(&variables, &names);
    assignments.take_environment(&inputs.env, &mut report);
    for file in &values {
        assignments.take_file(file, &mut report);
    }
    for (name, text) in &inputs.vars {
        assignments.take_flag(name, text, &mut report);
    }
    names.variables = assignments.resolve(&mut report);

    let mut locals = BTreeMap::new();
    for (parsed, block) in top.of("locals") {
        local::declare(parsed, block, &mut locals, &mut report);
    }
    local::resolve(&locals, &mut names, &mut report);
    for (name, variable) in &variables {
        variable.validate(name, &names, &mut report);
    }

    let daemon = daemon_block(&top, &names, &mut report);
    let migrations = migrations(&top, &names, &mut report);
    let failed = report.errors() > 0;
    let diagnostics = report.finish();
    if failed {
        Err(diagnostics)
    } else {
        Ok(Declaration { daemon, migrations, warnings: diagnostics })
    }
}

/// Values of sensitive variables are not printed, wherever they come from.
fn hide_sensitive_values(
    values: &mut [Parsed],
    variables: &BTreeMap<String, variable::Variable<'_>>,
) {
    for parsed in values {
        let sensitive =
            |name: &str| variables.get(name).is_some_and(variable::Variable::is_sensitive);
        let spans: Vec<_> = parsed
            .body
            .attributes()
            .filter(|a| sensitive(a.key.as_str()))
            .filter_map(|a| a.value.span())
            .collect();
        parsed.file.hide(spans);
    }
}

/// The blocks of all files, by their kind.
struct TopBlocks<'a>(Vec<(&'a Parsed, &'a Block)>);

impl<'a> TopBlocks<'a> {
    fn of(&self, kind: &str) -> impl Iterator<Item = (&'a Parsed, &'a Block)> {
        self.0.iter().copied().filter(move |(_, block)| block.ident.as_str() == kind)
    }
}

fn top_blocks<'a>(files: &'a [Parsed], report: &mut Report) -> TopBlocks<'a> {
    let known = || TOP.iter().map(|schema| schema.name);
    let mut blocks = Vec::new();
    for parsed in files {
        for structure in parsed.body.iter() {
            match structure {
                Structure::Block(block) if known().any(|name| name == block.ident.as_str()) => {
                    blocks.push((parsed, block))
                }
                Structure::Block(block) => {
                    let name = block.ident.as_str();
                    let summary = format!("unknown block {}", quoted(name));
                    let detail = format!(
                        "A file has the blocks {}.{}",
                        suggest::any_of(known()),
                        did_you_mean(name, known())
                    );
                    report.add(
                        Diagnostic::error(summary, detail)
                            .at(parsed.file.place(block.ident.span().unwrap_or_default())),
                    );
                }
                Structure::Attribute(attribute) => {
                    let name = attribute.key.as_str();
                    let summary =
                        format!("the attribute {} stands outside of any block", quoted(name));
                    let detail = match known().find(|known| *known == name) {
                        Some(block) => format!(
                            "{block} is a block: it is written with braces, and without the \
                             equals sign."
                        ),
                        None => "A value under a name of its own belongs into a locals block."
                            .to_owned(),
                    };
                    report.add(
                        Diagnostic::error(summary, detail)
                            .at(parsed.file.place(attribute.key.span().unwrap_or_default())),
                    );
                }
            }
        }
    }
    TopBlocks(blocks)
}

fn walk(
    parsed: &Parsed,
    block: &Block,
    schema: &'static schema::BlockSchema,
    each: Option<&Each>,
    names: &Names,
    report: &mut Report,
) -> Filled {
    Walker { file: &parsed.file, names, dir: &names.dir, report, constant: false, each }
        .top_block(schema, block)
}

fn daemon_block(top: &TopBlocks<'_>, names: &Names, report: &mut Report) -> DaemonSettings {
    let mut settings = DaemonSettings::default();
    let mut first: Option<Place> = None;
    for (parsed, block) in top.of(DAEMON.name) {
        let filled = walk(parsed, block, &DAEMON, None, names, report);
        if let Some(first) = &first {
            let diagnostic = Diagnostic::error(
                "the block daemon stands twice",
                "A directory belongs to one daemon. Remove one of them.",
            );
            report.add(diagnostic.at(filled.place).related_to("the first one", first.clone()));
            continue;
        }
        first = Some(filled.place.clone());
        settings = DaemonSettings::of(filled, report);
    }
    settings
}

fn migrations(
    top: &TopBlocks<'_>,
    names: &Names,
    report: &mut Report,
) -> BTreeMap<MigrationName, Declared> {
    let mut migrations = Migrations::default();
    for (parsed, block) in top.of(MIGRATION.name) {
        match for_each::expand(parsed, block, names, report) {
            Expansion::One => {
                migrations.take(walk(parsed, block, &MIGRATION, None, names, report), false, report)
            }
            Expansion::Each(all) => {
                for each in &all {
                    migrations.take(
                        walk(parsed, block, &MIGRATION, Some(each), names, report),
                        true,
                        report,
                    );
                }
            }
            Expansion::Broken => {}
        }
    }
    migrations.declared
}

/// The migrations as their blocks are taken, one after the other.
#[derive(Default)]
struct Migrations {
    declared: BTreeMap<MigrationName, Declared>,
    /// The block of each name, and whether it stands for several.
    first: BTreeMap<String, (Place, bool)>,
}

impl Migrations {
    fn take(&mut self, filled: Filled, is_each: bool, report: &mut Report) {
        let Some((label, _)) = &filled.label else { return };
        if let Some((first, first_is_each)) = self.first.get(label) {
            let summary = format!("there are two migrations {}", quoted(label));
            let detail = if is_each || *first_is_each {
                "A migration is named by its label, and with for_each by its label, a hyphen and \
                 its key. Rename one of them."
            } else {
                "A migration is named by its label. Rename or remove one of them."
            };
            let diagnostic = Diagnostic::error(summary, detail);
            report.add(
                diagnostic.at(filled.place.clone()).related_to("the first one", first.clone()),
            );
        } else {
            self.first.insert(label.clone(), (filled.place.clone(), is_each));
        }
        let context = format!("migration {}", quoted(label));
        if let Some((name, declared)) = migration::build(&filled, &context, report) {
            self.declared.entry(name).or_insert(declared);
        }
    }
}
