//! `cutoverd unblock NAME`: gives back what a run holds whose state directory is lost, with the
//! declaration and the servers alone.
//!
//! A daemon without its journal knows of no run, and refuses to start where a run's folder lies
//! beside it. Meanwhile the source may refuse writes, and the destination too. This looks at both,
//! says who holds what, and opens the sides that are asked for. It changes no data.

use std::path::{Path, PathBuf};

use clap::Args;
use provider::exit_code::Failure;
use provider::load;
use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};
use schemas::spec::MigrationSpec;
use serde_json::{Value, json};

use crate::engine::run::lost::{Blocked, Lost};
use crate::memory::Memory;
use crate::state_dir::run_dir;

/// Shows what a run holds whose state directory is lost, and gives it back
///
/// Without --source and --destination it shows what is blocked, and by whom, and changes nothing.
/// It needs no daemon and no journal.
#[derive(Debug, Clone, Args)]
pub struct Unblock {
    /// The migration
    pub name: MigrationName,
    /// The directory with the declaration; variables' values come from the environment
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Lets the source take writes again
    #[arg(long)]
    pub source: bool,
    /// Lets others write to the destination, and removes the run's marker and user there; its data
    /// stays
    #[arg(long)]
    pub destination: bool,
    /// Goes on although the daemon that holds the run may be at work: it then blocks again what is
    /// opened, or cuts over with a source that takes writes
    #[arg(long)]
    pub force: bool,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

fn declared(options: &Unblock) -> Result<(MigrationSpec, Workspace), Fault> {
    let loaded = load::directory(&options.directory, &load::NO_VARIABLES).map_err(|failure| {
        let what = match failure {
            Failure::Fault(fault) => return fault,
            Failure::Diagnostics(found) => found
                .iter()
                .map(|one| format!("{}: {}", one.summary, one.detail))
                .collect::<Vec<_>>()
                .join("; "),
            Failure::OutputClosed => "it cannot be read".to_owned(),
        };
        let directory = options.directory.display();
        Fault::new(FaultCode::InvalidConfiguration, format!("{directory}: {what}"))
            .with_remedy("`cutover validate` shows the places")
    })?;
    let mut declaration = loaded.declaration;
    let declared = declaration.migrations.remove(&options.name).ok_or_else(|| {
        let directory = options.directory.display();
        let message = format!("{directory} declares no migration {:?}", options.name.as_str());
        Fault::new(FaultCode::InvalidConfiguration, message)
            .with_remedy("name it as it was when the run began, and the directory with --directory")
    })?;
    Ok((declared.spec, declaration.workspace))
}

fn word(blocked: Option<bool>) -> &'static str {
    match blocked {
        Some(true) => "refuses its users' writes",
        Some(false) => "takes writes",
        None => "may not be looked at by its user (serverStatus)",
    }
}

fn lines(held: &Blocked) -> Vec<String> {
    let mut lines = vec![
        format!("The source {}.", word(held.source_blocked)),
        format!("The destination {}.", word(held.destination_blocked)),
    ];
    if held.runs.is_empty() {
        lines.push("No run of this migration has a marker on the destination.".to_owned());
    }
    for one in &held.runs {
        let lives = if one.may_live { "it may be at work" } else { "it has ended" };
        lines.push(format!("Run {}: held by {}; {lives}.", one.run, one.by));
    }
    lines
}

fn alive(held: &Blocked) -> Option<Fault> {
    let one = held.runs.iter().find(|one| one.may_live)?;
    let message = format!("run {} may be at work: {} holds it", one.run, one.by);
    Some(Fault::new(FaultCode::RunHeldElsewhere, message).with_remedy(
        "stop that cutoverd first, or let it do this: `cutover cancel NAME`; if it is gone with \
         its machine, add --force",
    ))
}

/// Does what is asked, and gives what is to be printed.
///
/// # Errors
/// When the declaration does not load, a side cannot be reached or opened, or the run's daemon may
/// be at work. What was opened before that stays open; it may be asked for again.
pub async fn unblock(options: &Unblock, state_dir: &Path) -> Result<String, Fault> {
    let (spec, workspace) = declared(options)?;
    let lost = Lost::connect(spec, workspace, Memory::of(crate::memory::MIN_BYTES)).await?;
    let held = lost.look().await?;
    let mut done = Vec::new();
    let asked = options.source || options.destination;
    if asked {
        if let Some(fault) = alive(&held).filter(|_| !options.force) {
            return Err(fault);
        }
        if held.runs.is_empty() {
            let message = format!(
                "no run of {} has a marker on the destination: nothing there says that a run of it \
                 blocks either side",
                options.name
            );
            return Err(Fault::new(FaultCode::WrongState, message).with_remedy(
                "look at --directory and its workspace; a block that somebody else put up is \
                 lifted with db.adminCommand({setUserWriteBlockMode: 1, global: false})",
            ));
        }
        for one in &held.runs {
            let run_dir = run_dir(state_dir, &one.run);
            // The source first: nobody waits longer for a destination that cannot be opened.
            if options.source {
                lost.unblock_source(&one.run, &run_dir).await?;
                done.push(format!("The source takes writes again (run {}).", one.run));
            }
            if options.destination {
                lost.open_destination(&one.run, &run_dir).await?;
                done.push(format!(
                    "The destination takes writes; the marker and the user of run {} are removed, \
                     its data stays.",
                    one.run
                ));
            }
        }
    }
    if options.json {
        return Ok(as_json(&held, &done));
    }
    let mut text = lines(&held);
    if asked {
        text.push(String::new());
        text.extend(done);
        text.push(
            "A balancer of the source that the run had stopped stays stopped: sh.startBalancer(). \
             Decide which side the application writes to; a run of a new state directory begins \
             from scratch."
                .to_owned(),
        );
    } else {
        text.push("Nothing was changed: add --source, --destination, or both.".to_owned());
    }
    Ok(text.join("\n") + "\n")
}

fn as_json(held: &Blocked, done: &[String]) -> String {
    let runs: Vec<Value> = held
        .runs
        .iter()
        .map(|one| {
            json!({
                "run": one.run.as_str(), "held_by": one.by, "may_be_at_work": one.may_live,
                "blocks_destination": one.blocks_destination,
            })
        })
        .collect();
    let document = json!({
        "format_version": 1, "source_blocked": held.source_blocked,
        "destination_blocked": held.destination_blocked, "runs": runs, "done": done,
    });
    format!("{document:#}\n")
}
