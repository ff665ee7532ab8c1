//! What is measured, at which sizes, and where the results go.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures copies and tails against bare floors and against other tools.
#[derive(Debug, Parser)]
#[command(name = "speed")]
pub(crate) struct Options {
    /// Given by `cargo bench`; without it nothing is measured.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    /// About a minute: small sizes, one round, the first cases.
    #[arg(long)]
    pub(crate) quick: bool,
    /// The cases to run; all of them where none is named.
    #[arg(long = "case", value_enum)]
    pub(crate) cases: Vec<CaseName>,
    /// Data of the copy, in GB.
    #[arg(long, default_value_t = 1.5)]
    pub(crate) gigabytes: f64,
    /// Data of the smallest copy of the case `growth`, in GB.
    #[arg(long, default_value_t = 0.25)]
    pub(crate) growth_gigabytes: f64,
    /// Data of the copy of the case `far`, in GB.
    #[arg(long, default_value_t = 0.4)]
    pub(crate) far_gigabytes: f64,
    /// Events of each backlog.
    #[arg(long, default_value_t = 400_000)]
    pub(crate) events: u64,
    /// Collections of the case `many`.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) collections: u64,
    /// Seconds of each load that goes on while it is followed.
    #[arg(long, default_value_t = 20)]
    pub(crate) load_seconds: u64,
    /// Rounds; in each every contender runs once, in turn.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// The backlogs of the case `drain`; all of them where none is named.
    #[arg(long = "backlog", value_enum)]
    pub(crate) backlogs: Vec<Backlog>,
    /// The storage engine's cache of each server, in GB.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) cache_gb: f32,
    /// Where the results are written as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Where the pictures are written, as SVG.
    #[arg(long)]
    pub(crate) pictures: Option<PathBuf>,
    /// What this process is started again as.
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// A floor, run as a process of its own so that its costs can be told from the benchmark's.
#[derive(Debug, Clone, Subcommand)]
#[expect(
    clippy::enum_variant_names,
    reason = "they are the names of hidden commands, which stand alone"
)]
pub(crate) enum Role {
    /// Copies everything in the least that a copy takes.
    #[command(hide = true)]
    FloorCopy {
        /// Read from.
        source: String,
        /// Written to.
        destination: String,
    },
    /// Follows the changes in the least that it takes.
    #[command(hide = true)]
    FloorTail {
        /// Followed.
        source: String,
        /// Written to.
        destination: String,
        /// Seconds of the cluster time to begin at.
        time: u32,
        /// Ordinal of the cluster time to begin at.
        increment: u32,
    },
    /// Reads everything on both sides and compares nothing.
    #[command(hide = true)]
    FloorRead {
        /// Read.
        source: String,
        /// Read as well.
        destination: String,
    },
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaseName {
    /// A copy of three shapes of documents, indexes included.
    Copy,
    /// A backlog is applied.
    Drain,
    /// The source is written to as fast as it takes it.
    Saturated,
    /// The source is written to at a fixed rate.
    Steady,
    /// Both sides are compared.
    Verify,
    /// Many small collections.
    Many,
    /// The copy at 1, 4 and 16 times a size.
    Growth,
    /// The copy to a destination that is far away.
    Far,
}

/// What a backlog is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backlog {
    /// New documents.
    Inserts,
    /// A field of documents all over.
    Updates,
    /// Documents that go.
    Deletes,
    /// All three in turn.
    Mixed,
    /// All three, over a hundred collections.
    Spread,
    /// A field of ten documents, again and again.
    Hot,
}

impl Options {
    /// The options with what `--quick` makes of them.
    pub(crate) fn settled(mut self) -> Self {
        if self.quick {
            self.gigabytes = self.gigabytes.min(0.15);
            self.events = self.events.min(40_000);
            self.collections = self.collections.min(200);
            self.load_seconds = self.load_seconds.min(4);
            self.far_gigabytes = self.far_gigabytes.min(0.06);
            self.growth_gigabytes = self.growth_gigabytes.min(0.01);
            self.rounds = 1;
            if self.backlogs.is_empty() {
                self.backlogs = vec![Backlog::Mixed, Backlog::Hot];
            }
        }
        if self.cases.is_empty() {
            self.cases = CaseName::value_variants().to_vec();
        }
        if self.backlogs.is_empty() {
            self.backlogs = Backlog::value_variants().to_vec();
        }
        self
    }
}
