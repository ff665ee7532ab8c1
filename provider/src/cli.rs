//! The command line: what can be written, in clap's terms. What it does is in [`crate::command`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use schemas::id::{MigrationName, Workspace};
use schemas::phase::Phase;
use schemas::time::Length;

/// MongoDB live migration as code.
///
/// Declare migrations in HCL; `plan` shows what differs between the declaration and the migrations
/// as they are, and `apply` makes it so. A local daemon, cutoverd, does the work.
///
/// Exit codes: 0 done, or no difference; 1 an error; 2 a difference or drift, where asked for; 3
/// the daemon cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, max_term_width = 100)]
pub struct Cli {
    /// Where the daemon listens: unix:///PATH or tcp://HOST:PORT [env: CUTOVER_ENDPOINT, then the
    /// `daemon` block]
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the HCL, without a daemon
    Validate {
        /// The declaration.
        #[command(flatten)]
        declared: Declared,
    },
    /// Run the live checks on source and destination: ok, warn or fail, with cause and remedy
    Preflight {
        /// The declaration.
        #[command(flatten)]
        declared: Declared,
        /// Only this migration
        name: Option<MigrationName>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show what differs between the declaration and the migrations as they are
    Plan {
        /// The declaration.
        #[command(flatten)]
        declared: Declared,
        /// How it prints.
        #[command(flatten)]
        format: Format,
        /// Exit with 2 where there is a difference or drift
        #[arg(long)]
        detailed_exitcode: bool,
        /// Only this migration
        #[arg(long, value_name = "NAME")]
        target: Option<MigrationName>,
        /// Save the plan, to apply exactly it later
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show the plan, ask for `yes`, and carry it out
    Apply(Apply),
    /// Show a saved plan
    Show {
        /// The file that `plan --out` made
        file: PathBuf,
        /// How it prints.
        #[command(flatten)]
        format: Format,
    },
    /// Show where reality has moved away from the declaration; exit with 2 where it has
    Drift {
        /// The declaration.
        #[command(flatten)]
        declared: Declared,
        /// How it prints.
        #[command(flatten)]
        format: Format,
    },
    /// Lay out the HCL as everybody does: indents, spaces, columns; prints the files that change
    Fmt {
        /// The directory with the HCL
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Change nothing; exit with 1 where a file would change
        #[arg(long)]
        check: bool,
    },
    /// Show where each run stands
    Status {
        /// Only this migration
        name: Option<MigrationName>,
        /// Only this workspace
        #[arg(long)]
        workspace: Option<Workspace>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        /// Go on until the runs are over, with a progress bar a shard on a terminal
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// Show a migration's journal: who did what, when, and every transition
    Events {
        /// The migration.
        #[command(flatten)]
        migration: Named,
        /// Print one JSON document; with --follow, one a line
        #[arg(long)]
        json: bool,
        /// Go on with what is added
        #[arg(long)]
        follow: bool,
    },
    /// List the open mismatches, where source and destination differ, and what others wrote to the
    /// destination
    Verify {
        /// The migration.
        #[command(flatten)]
        migration: Named,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show what a completed migration was, what proved it, and how long it took
    Report {
        /// The migration.
        #[command(flatten)]
        migration: Named,
        /// How it prints.
        #[command(flatten)]
        format: Format,
    },
    /// Lengthen the cutover window by hand
    Extend {
        /// The migration.
        #[command(flatten)]
        migration: Named,
        /// By how much, in whole days: 24h, 48h ...
        #[arg(long, value_name = "DURATION", value_parser = days)]
        by: u32,
    },
    /// Hold a run by hand
    Pause(Named),
    /// Let a run go on by hand
    Resume(Named),
    /// Stop a run for good by hand; the data stays
    Cancel {
        /// The migration.
        #[command(flatten)]
        migration: Named,
        /// A cutover that stays in finalizing: the source takes writes again, and the run is
        /// cancelled
        #[arg(long, conflicts_with = "open_destination")]
        open_source: bool,
        /// A cutover that stays in finalizing: the destination takes writes with the settings that
        /// it has
        #[arg(long)]
        open_destination: bool,
    },
    /// Begin one shard again by hand, while the others go on
    RestartShard {
        /// The migration.
        #[command(flatten)]
        migration: Named,
        /// The shard, as `cutover status` names it
        #[arg(value_name = "SHARD")]
        shard: String,
    },
}

/// Where the declaration is, and what its variables get.
#[derive(Debug, Args)]
pub struct Declared {
    /// The directory with the HCL
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// What the variables get.
    #[command(flatten)]
    pub variables: Variables,
}

/// What the HCL's variables get.
#[derive(Debug, Args)]
pub struct Variables {
    /// Give a variable its value
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub assignments: Vec<String>,
    /// Read variables' values from a file
    #[arg(long = "var-file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// How a plan prints.
#[derive(Debug, Clone, Copy, Args)]
pub struct Format {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Print Markdown, for the comment on a pull request
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

/// `cutover apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The directory with the HCL, or a plan that `plan --out` saved
    #[arg(default_value = ".", value_name = "DIR or PLANFILE")]
    pub from: PathBuf,
    /// What the variables get.
    #[command(flatten)]
    pub variables: Variables,
    /// Only this migration
    #[arg(long, value_name = "NAME")]
    pub target: Option<MigrationName>,
    /// Do not ask
    #[arg(long)]
    pub auto_approve: bool,
    /// Wait until the migrations have reached this phase
    #[arg(long, value_name = "PHASE")]
    pub wait: Option<Phase>,
    /// Give up waiting after this long
    #[arg(long, value_name = "DURATION", requires = "wait")]
    pub timeout: Option<Length>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// A migration by its name.
#[derive(Debug, Args)]
pub struct Named {
    /// The migration
    pub name: MigrationName,
    /// Its workspace, where several have a migration of this name
    #[arg(long)]
    pub workspace: Option<Workspace>,
}

/// Reads a length of whole days as a number of extensions.
fn days(text: &str) -> Result<u32, String> {
    const DAY_MS: u128 = 24 * 3600 * 1000;
    let length: Length =
        text.parse().map_err(|error: schemas::time::InvalidLength| error.to_string())?;
    let ms = length.get().as_millis();
    match u32::try_from(ms / DAY_MS) {
        Ok(days) if days > 0 && ms.is_multiple_of(DAY_MS) => Ok(days),
        _ => Err("a window is extended by whole days: 24h, 48h, 72h ...".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn windows_are_extended_by_whole_days() {
        assert_eq!(super::days("48h"), Ok(2));
        assert_eq!(super::days("1d"), Ok(1));
        for text in ["0s", "12h", "36h", "x"] {
            assert!(super::days(text).is_err(), "{text}");
        }
    }
}
