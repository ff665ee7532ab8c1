//! Plans in files: what was reviewed is what is applied, or nothing is.
//!
//! A file carries what the plan was made from (the declarations, the migrations as they were, what
//! the live checks found, the digests of the directory's files), and the plan beside it for whoever
//! reads the JSON. [`SavedPlan::read`] makes the plan again from the former and refuses a file
//! whose plan is another one: what is shown is made from what is applied. Its last member is a
//! SHA-256 over every byte before it. It holds references to secrets, no secrets, and is readable
//! for its owner only.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use schemas::durable_file;
use schemas::fault::{Fault, FaultCode};
use schemas::hcl::{DaemonTls, Declared, Diagnostic};
use schemas::id::{MigrationName, Workspace};
use schemas::observed::{Inspection, Observed, Outcome};
use schemas::spec::{MigrationSpec, sha256_hex};
use schemas::time::UtcTime;
use serde::{Deserialize, Serialize};

use crate::apply::Drops;
use crate::declaration::{Declaration, Reach};
use crate::load::Inputs;
use crate::plan::{Action, Folded, Plan, plan};

/// The version of the file. Another one is refused, not read with fields dropped: format 1 had no
/// digest.
pub const SAVED_PLAN_FORMAT: u32 = 2;

const KIND: &str = "cutover-plan";

/// More than any plan is: tens of thousands of migrations fit.
const LARGEST_BYTES: u64 = 64 << 20;

/// What a document as it is printed ends with.
const END: &str = "\n}\n";

/// What stands between the bytes that the digest is of and the digest.
const BEFORE_DIGEST: &str = ",\n  \"sha256\": \"";

/// What stands after the digest.
const AFTER_DIGEST: &str = "\"\n}\n";

/// A plan as it is in a file, but for its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    /// What kind of file this is.
    kind: String,
    /// [`SAVED_PLAN_FORMAT`].
    format_version: u32,
    /// When it was made.
    created_at: UtcTime,
    /// The directory that it was made from, as it was named: relative ones are looked up from where
    /// `apply` runs.
    directory: PathBuf,
    /// The daemon that it was made against.
    endpoint: String,
    /// How one on TCP and its caller know each other: names of files, never what is in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<DaemonTls>,
    /// SHA-256 of each of the directory's files.
    inputs: Inputs,
    /// The plan that the rest gives.
    plan: Plan,
    /// The workspace that owns the migrations.
    workspace: Workspace,
    /// What is declared, by migration.
    declared: BTreeMap<MigrationName, Declared>,
    /// What was worth knowing about the declarations.
    warnings: Vec<Diagnostic>,
    /// The migrations as they were.
    observed: Vec<Observed>,
    /// What the live checks found, by migration.
    inspections: BTreeMap<MigrationName, Inspection>,
}

/// Where a plan was made: what it is made with beside the declarations and the migrations as they
/// are.
#[derive(Debug)]
pub struct Origin {
    /// The directory.
    pub directory: PathBuf,
    /// The daemon.
    pub endpoint: String,
    /// SHA-256 of each of the directory's files.
    pub inputs: Inputs,
    /// The time that the plan was made with.
    pub now: UtcTime,
}

/// Enough of a file to see what it is.
#[derive(Deserialize)]
struct Head {
    kind: String,
    format_version: u32,
}

impl SavedPlan {
    /// Makes the plan, to be saved.
    #[must_use]
    pub fn new(
        declared: Declaration,
        observed: Vec<Observed>,
        inspections: BTreeMap<MigrationName, Inspection>,
        origin: Origin,
    ) -> Self {
        let plan = plan(&declared, &observed, &inspections, origin.now);
        Self {
            kind: KIND.to_owned(),
            format_version: SAVED_PLAN_FORMAT,
            created_at: origin.now,
            directory: origin.directory,
            endpoint: origin.endpoint,
            tls: declared.reach.tls,
            inputs: origin.inputs,
            plan,
            workspace: declared.workspace,
            declared: declared.migrations,
            warnings: declared.warnings,
            observed,
            inspections,
        }
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many attributes of each migration it does not list.
    #[must_use]
    pub fn folded(&self) -> Folded {
        Folded::count(&self.plan, self.declared.values().map(|one| &one.spec))
    }

    /// The workspace that owns its migrations.
    #[must_use]
    pub const fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// What is applied, by migration.
    #[must_use]
    pub fn specs(&self) -> BTreeMap<MigrationName, MigrationSpec> {
        let acted = self.declared.iter().filter(|(name, _)| self.acts_on(name));
        acted.map(|(name, one)| (name.clone(), one.spec.clone())).collect()
    }

    /// The namespaces on the destination that it lists as dropped, by migration.
    #[must_use]
    pub fn drops(&self) -> Drops {
        let acted = self.inspections.iter().filter(|(name, _)| self.acts_on(name));
        acted.map(|(name, found)| (name.clone(), found.drops.clone())).collect()
    }

    fn acts_on(&self, name: &MigrationName) -> bool {
        self.plan.actions().any(|change| change.migration == *name && !change.action.removes())
    }

    /// The daemon that it was made against.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach { endpoint: Some(self.endpoint.clone()), tls: self.tls.clone() }
    }

    /// Writes it, readable for its owner only; an existing file is replaced whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Fault> {
        let failed = |error: io::Error| {
            Fault::new(
                FaultCode::OutputFailed,
                format!("failed to write the plan to {}: {error}", path.display()),
            )
        };
        durable_file::write(path, self.to_bytes().as_bytes()).map_err(failed)
    }

    /// The file's text: the document, and as its last member the digest of every byte before it.
    fn to_bytes(&self) -> String {
        let document = crate::output::pretty(self);
        let bound = document.strip_suffix(END).expect("a document with members ends so");
        format!("{bound}{BEFORE_DIGEST}{}{AFTER_DIGEST}", sha256_hex(bound.as_bytes()))
    }

    /// Reads one, and makes its plan again from what it would apply.
    ///
    /// # Errors
    ///
    /// [`FaultCode::OutputFailed`] where the file cannot be read, is no saved plan, has any other
    /// byte than it was written with, or shows another plan than what is in it gives;
    /// [`FaultCode::VersionMismatch`] for one of another format.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let failed = |why: String| {
            Fault::new(
                FaultCode::OutputFailed,
                format!("failed to read the plan {}: {why}", path.display()),
            )
        };
        let foreign =
            |why: String| failed(why).with_remedy("make the file with `cutover plan --out FILE`");
        let mut bytes = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(LARGEST_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > LARGEST_BYTES {
            return Err(failed("it is too large to be a plan".to_owned()));
        }
        let head = serde_json::from_slice::<Head>(&bytes);
        if let Ok(Head { kind, format_version }) = &head
            && kind == KIND
            && *format_version != SAVED_PLAN_FORMAT
        {
            let message = format!(
                "{} is a plan of format {format_version}, and this program reads format \
                 {SAVED_PLAN_FORMAT}",
                path.display()
            );
            let remedy = if *format_version < SAVED_PLAN_FORMAT {
                "plan again: nothing binds what a file of that format shows to what it applies"
            } else {
                "apply it with the version of cutover that made it, or plan again"
            };
            return Err(Fault::new(FaultCode::VersionMismatch, message).with_remedy(remedy));
        }
        let Some(bound) = bound(&bytes) else {
            return Err(match head {
                Ok(head) if head.kind != KIND => {
                    foreign(format!("it is no saved plan but {:?}", head.kind))
                }
                Err(error) if !bytes.starts_with(b"{") || !error.is_syntax() => {
                    foreign(format!("it is no saved plan: {error}"))
                }
                Ok(_) | Err(_) => {
                    foreign("it is damaged: it has other bytes than were saved".to_owned())
                }
            });
        };
        let saved: Self = serde_json::from_str(&format!("{bound}{END}"))
            .map_err(|error| foreign(format!("it is no saved plan: {error}")))?;
        if saved.kind != KIND {
            return Err(foreign(format!("it is no saved plan but {:?}", saved.kind)));
        }
        match saved.contradiction() {
            None => Ok(saved),
            Some(what) => Err(foreign(format!("it contradicts itself: {what}"))),
        }
    }

    /// What the file says of itself that is not so.
    fn contradiction(&self) -> Option<String> {
        if let Some((name, one)) = self.declared.iter().find(|(name, one)| **name != one.spec.name)
        {
            return Some(format!("what it declares as {name} is {}", one.spec.name));
        }
        let declaration = Declaration {
            workspace: self.workspace.clone(),
            reach: self.reach(),
            migrations: self.declared.clone(),
            fingerprint: self.inputs.fingerprint(),
            warnings: self.warnings.clone(),
        };
        let given = plan(&declaration, &self.observed, &self.inspections, self.created_at);
        if given == self.plan {
            return None;
        }
        let differs = given.changes.iter().find(|change| !self.plan.changes.contains(change));
        let what = differs.map(|change| format!(" for {}", change.migration)).unwrap_or_default();
        Some(format!("the plan in it is not what its declarations give{what}"))
    }

    /// Refuses it where the files that it was made from are not what they were.
    pub fn check_inputs(&self) -> Result<(), Fault> {
        let directory = self.directory.display();
        let now = Inputs::read(&self.directory).map_err(|error| {
            outdated(format!(
                "the directory {directory} that the plan was made from cannot be read: {error}"
            ))
            .with_remedy("run `cutover apply` where `cutover plan` was run")
        })?;
        let changed = self.inputs.changed(&now);
        if changed.is_empty() {
            return Ok(());
        }
        Err(outdated(format!(
            "{directory} has changed since the plan was made: {}",
            changed.join(", ")
        )))
    }

    /// Refuses it where a migration is not what it was.
    pub fn check_observed(&self, observed: &[Observed]) -> Result<(), Fault> {
        let mut changed = Vec::new();
        for change in self.plan.actions() {
            let name = &change.migration;
            let existing = observed.iter().find(|one| one.status.name == *name);
            match existing {
                None if change.action == Action::Create => {}
                None => changed
                    .push(format!("{name} was there at serial {}, and is gone", change.serial)),
                Some(existing) if change.action == Action::Create => {
                    changed.push(format!(
                        "{name} did not exist, and is there at serial {} now",
                        existing.status.serial
                    ));
                }
                Some(existing) if existing.status.serial != change.serial => {
                    changed.push(format!(
                        "{name} was at serial {}, and is at {} now",
                        change.serial, existing.status.serial
                    ));
                }
                // What it reports as the values before is what it was made on.
                Some(existing) if self.was(name).is_none_or(|was| was.spec != existing.spec) => {
                    changed.push(format!(
                        "{name} is not declared as the plan tells, at the same serial {}",
                        change.serial
                    ));
                }
                Some(_) => {}
            }
        }
        if changed.is_empty() {
            Ok(())
        } else {
            Err(outdated(format!("the plan is outdated: {}", changed.join("; "))))
        }
    }

    fn was(&self, name: &MigrationName) -> Option<&Observed> {
        self.observed.iter().find(|one| one.status.name == *name)
    }

    /// Refuses it where a live check fails now, or more would be dropped than was listed.
    pub fn check_inspections(
        &self,
        inspections: &BTreeMap<MigrationName, Inspection>,
    ) -> Result<(), Fault> {
        for (name, found) in inspections {
            if let Some(check) = found.checks.iter().find(|check| check.outcome == Outcome::Fail) {
                let fault =
                    Fault::new(check.code.unwrap_or(FaultCode::Internal), check.message.clone());
                return Err(match &check.remedy {
                    Some(remedy) => fault.with_remedy(remedy),
                    None => fault,
                });
            }
            let listed = self
                .inspections
                .get(name)
                .map(|listed| listed.drops.as_slice())
                .unwrap_or_default();
            let more: Vec<String> = found
                .drops
                .iter()
                .filter(|one| !listed.contains(one))
                .map(ToString::to_string)
                .collect();
            if !more.is_empty() {
                let message = format!(
                    "{name} would now drop collections that the plan did not list: {}",
                    more.join(", ")
                );
                return Err(outdated(message));
            }
        }
        Ok(())
    }
}

/// The bytes that a file's digest is of, where it is theirs.
fn bound(bytes: &[u8]) -> Option<&str> {
    let (bound, digest) =
        std::str::from_utf8(bytes).ok()?.strip_suffix(AFTER_DIGEST)?.rsplit_once(BEFORE_DIGEST)?;
    (sha256_hex(bound.as_bytes()) == digest).then_some(bound)
}

fn outdated(message: String) -> Fault {
    Fault::new(FaultCode::PlanOutdated, message)
}
