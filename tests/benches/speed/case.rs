//! The cases: each sets up its servers, lets its contenders run in turn, and gives a row for each of them.

pub(crate) mod copy;
pub(crate) mod drain;
pub(crate) mod load;

use anyhow::Result;
use rig::{Options as ServerOptions, ReplicaSet};

use crate::measured::{Measured, Row};
use crate::options::Options;

/// Who runs in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Floor,
    Ours,
    Dump,
    Pcsm,
}

impl Contender {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours => "cutover",
            Self::Dump => "mongodump | mongorestore",
            Self::Pcsm => "pcsm",
        }
    }
}

/// The runs of several contenders.
pub(crate) struct Runs {
    contenders: Vec<Contender>,
    runs: Vec<Vec<Measured>>,
}

impl Runs {
    pub(crate) fn new(contenders: Vec<Contender>) -> Self {
        let runs = contenders.iter().map(|_| Vec::new()).collect();
        Self { contenders, runs }
    }

    /// The contenders in the order of a round: every second one is turned around, so that none always comes first.
    pub(crate) fn order(&self, round: usize) -> Vec<Contender> {
        let mut order = self.contenders.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        order
    }

    pub(crate) fn add(&mut self, contender: Contender, measured: Measured) {
        let more: String = measured.more.iter().map(|(name, value)| format!(", {name} {value:.3}")).collect();
        eprintln!(
            "    {:24} {:7.2} s, own CPU {:6.2} s, peak {:4.0} MB, CPU of the source {:6.2} s, of the destination {:6.2} s{more}",
            contender.name(),
            measured.seconds,
            measured.own_cpu,
            measured.own_peak as f64 / f64::from(1 << 20),
            measured.source_cpu,
            measured.destination_cpu,
        );
        if let Some(at) = self.contenders.iter().position(|known| *known == contender) {
            self.runs[at].push(measured);
        }
    }

    pub(crate) fn rows(self, case: &str, gigabytes: Option<f64>) -> Vec<Row> {
        let rows = self.contenders.into_iter().zip(self.runs).map(|(contender, runs)| Row {
            case: case.to_owned(),
            contender: contender.name().to_owned(),
            gigabytes,
            runs,
        });
        rows.filter(|row| !row.runs.is_empty()).collect()
    }
}

/// Starts a server.
pub(crate) async fn server(name: &str, options: &Options) -> Result<ReplicaSet> {
    let server = ServerOptions {
        name: name.to_owned(),
        oplog_mb: 4096,
        cache_gb: options.cache_gb,
        // Thousands of collections are thousands of files.
        ..ServerOptions::default()
    };
    ReplicaSet::start(server).await
}
