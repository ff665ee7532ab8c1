//! Plans in files: what was reviewed is what is applied, or nothing is.
//!
//! A file carries the plan, the specs that it would apply and the digests of the files that it was made from. It holds
//! references to secrets, no secrets, and is readable for its owner only.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::DaemonTls;
use schemas::id::MigrationName;
use schemas::observed::{Inspection, Observed, Outcome};
use schemas::spec::MigrationSpec;
use schemas::time::UtcTime;
use serde::{Deserialize, Serialize};

use crate::apply::Drops;
use crate::declaration::{Declaration, Reach};
use crate::load::Inputs;
use crate::plan::{Action, Plan};

/// The version of the file. A newer one is refused, not read with fields dropped.
pub const SAVED_PLAN_FORMAT: u32 = 1;

const KIND: &str = "cutover-plan";

/// More than any plan is: tens of thousands of migrations fit.
const LARGEST_BYTES: u64 = 64 << 20;

/// A plan as it is in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    /// What kind of file this is.
    kind: String,
    /// [`SAVED_PLAN_FORMAT`].
    format_version: u32,
    /// When it was made.
    pub created_at: UtcTime,
    /// The directory that it was made from, as it was named: relative ones are looked up from where `apply` runs.
    pub directory: PathBuf,
    /// The daemon that it was made against.
    pub endpoint: String,
    /// How one on TCP and its caller know each other: names of files, never what is in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DaemonTls>,
    /// SHA-256 of each of the directory's files.
    pub inputs: Inputs,
    /// The plan.
    pub plan: Plan,
    /// What is applied, by migration.
    pub specs: BTreeMap<MigrationName, MigrationSpec>,
    /// The namespaces on the destination that were listed as dropped, by migration.
    pub drops: Drops,
}

/// Enough of a file to see what it is.
#[derive(Deserialize)]
struct Head {
    kind: String,
    format_version: u32,
}

impl SavedPlan {
    /// A plan to be saved.
    #[must_use]
    pub fn new(
        plan: Plan,
        declared: &Declaration,
        inspections: &BTreeMap<MigrationName, Inspection>,
        place: (PathBuf, String, Inputs),
        now: UtcTime,
    ) -> Self {
        let acted = |name: &MigrationName| plan.actions().any(|change| change.migration == *name && !change.action.removes());
        let specs = declared.specs().filter(|spec| acted(&spec.name)).map(|spec| (spec.name.clone(), spec.clone())).collect();
        let drops =
            inspections.iter().filter(|(name, _)| acted(name)).map(|(name, found)| (name.clone(), found.drops.clone())).collect();
        let (directory, endpoint, inputs) = place;
        Self {
            kind: KIND.to_owned(),
            format_version: SAVED_PLAN_FORMAT,
            created_at: now,
            directory,
            endpoint,
            tls: declared.reach.tls.clone(),
            inputs,
            plan,
            specs,
            drops,
        }
    }

    /// The daemon that it was made against.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach { endpoint: Some(self.endpoint.clone()), tls: self.tls.clone() }
    }

    /// Writes it, readable for its owner only; an existing file is replaced whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Fault> {
        let failed = |error: io::Error| {
            Fault::new(FaultCode::OutputFailed, format!("failed to write the plan to {}: {error}", path.display()))
        };
        let mut name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?.to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let aside = path.with_file_name(name);
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| {
                file.write_all(crate::output::pretty(self).as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&aside, path));
        written.map_err(|error| {
            // Nothing is left behind; where that fails too, the first error says why.
            let _ = fs::remove_file(&aside);
            failed(error)
        })
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let failed =
            |why: String| Fault::new(FaultCode::OutputFailed, format!("failed to read the plan {}: {why}", path.display()));
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| file.take(LARGEST_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| failed(error.to_string()))?;
        if text.len() as u64 > LARGEST_BYTES {
            return Err(failed("it is too large to be a plan".to_owned()));
        }
        let foreign = |why: String| failed(why).with_remedy("make the file with `cutover plan --out FILE`");
        let head: Head = serde_json::from_str(&text).map_err(|error| foreign(format!("it is no saved plan: {error}")))?;
        if head.kind != KIND {
            return Err(foreign(format!("it is no saved plan but {:?}", head.kind)));
        }
        if head.format_version != SAVED_PLAN_FORMAT {
            return Err(Fault::new(
                FaultCode::VersionMismatch,
                format!(
                    "{} is a plan of format {}, and this program reads format {SAVED_PLAN_FORMAT}",
                    path.display(),
                    head.format_version
                ),
            )
            .with_remedy("apply it with the version of cutover that made it, or plan again"));
        }
        serde_json::from_str(&text).map_err(|error| foreign(format!("it is damaged: {error}")))
    }

    /// Refuses it where the files that it was made from are not what they were.
    pub fn check_inputs(&self) -> Result<(), Fault> {
        let directory = self.directory.display();
        let now = Inputs::read(&self.directory).map_err(|error| {
            outdated(format!("the directory {directory} that the plan was made from cannot be read: {error}"))
                .with_remedy("run `cutover apply` where `cutover plan` was run")
        })?;
        let changed = self.inputs.changed(&now);
        if changed.is_empty() {
            return Ok(());
        }
        Err(outdated(format!("{directory} has changed since the plan was made: {}", changed.join(", "))))
    }

    /// Refuses it where a migration is not what it was.
    pub fn check_observed(&self, observed: &[Observed]) -> Result<(), Fault> {
        let mut changed = Vec::new();
        for change in self.plan.actions() {
            let name = &change.migration;
            let existing = observed.iter().find(|one| one.status.name == *name);
            match existing {
                None if change.action == Action::Create => {}
                None => changed.push(format!("{name} was there at serial {}, and is gone", change.serial)),
                Some(existing) if change.action == Action::Create => {
                    changed.push(format!("{name} did not exist, and is there at serial {} now", existing.status.serial));
                }
                Some(existing) if existing.status.serial != change.serial => {
                    changed.push(format!("{name} was at serial {}, and is at {} now", change.serial, existing.status.serial));
                }
                Some(_) => {}
            }
        }
        if changed.is_empty() { Ok(()) } else { Err(outdated(format!("the plan is outdated: {}", changed.join("; ")))) }
    }

    /// Refuses it where a live check fails now, or more would be dropped than was listed.
    pub fn check_inspections(&self, inspections: &BTreeMap<MigrationName, Inspection>) -> Result<(), Fault> {
        for (name, found) in inspections {
            if let Some(check) = found.checks.iter().find(|check| check.outcome == Outcome::Fail) {
                let fault = Fault::new(check.code.unwrap_or(FaultCode::Internal), check.message.clone());
                return Err(match &check.remedy {
                    Some(remedy) => fault.with_remedy(remedy),
                    None => fault,
                });
            }
            let listed = self.drops.get(name).map(Vec::as_slice).unwrap_or_default();
            let more: Vec<String> = found.drops.iter().filter(|one| !listed.contains(one)).map(ToString::to_string).collect();
            if !more.is_empty() {
                let message = format!("{name} would now drop collections that the plan did not list: {}", more.join(", "));
                return Err(outdated(message));
            }
        }
        Ok(())
    }
}

fn outdated(message: String) -> Fault {
    Fault::new(FaultCode::PlanOutdated, message)
}
