//! The cases: each sets up its servers, lets its contenders run in turn, and gives a row for each
//! of them.

pub(crate) mod copy;
pub(crate) mod drain;
pub(crate) mod load;

use std::time::Duration;

use anyhow::{Context as _, Result};
use rig::fault_proxy::Faults;
use rig::{Options as ServerOptions, ReplicaSet};

use crate::measured::{Measured, Row};
use crate::options::Options;

/// Who runs in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Floor,
    Ours,
    /// The same, held to as many readers and writers as it begins with.
    Fixed,
    /// The same, with every document compared meanwhile.
    Verified,
    Dump,
    Pcsm,
}

impl Contender {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours => "cutover",
            Self::Fixed => "cutover, 4 writers",
            Self::Verified => "cutover, verified",
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

    /// The contenders in the order of a round: every second one is turned around, so that none
    /// always comes first.
    pub(crate) fn order(&self, round: usize) -> Vec<Contender> {
        let mut order = self.contenders.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        order
    }

    pub(crate) fn add(&mut self, contender: Contender, measured: Measured) {
        let more: String =
            measured.more.iter().map(|(name, value)| format!(", {name} {value:.3}")).collect();
        eprintln!(
            "    {:24} {:7.2} s, own CPU {:6.2} s, peak {:4.0} MB, CPU of the source {:6.2} s, of \
             the destination {:6.2} s{more}",
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
    ReplicaSet::start(of(name, options)).await
}

/// Starts a server that is reached over a way on which every 64 KB of a connection take so long,
/// there and back.
pub(crate) async fn far_server(
    name: &str,
    delay: Duration,
    options: &Options,
) -> Result<ReplicaSet> {
    let server = ReplicaSet::start(ServerOptions { proxied: true, ..of(name, options) }).await?;
    let proxy = server.proxy(0).context("the server has no proxy")?;
    proxy.set(Faults { delay, ..Faults::default() });
    Ok(server)
}

fn of(name: &str, options: &Options) -> ServerOptions {
    ServerOptions {
        name: name.to_owned(),
        oplog_mb: 4096,
        cache_gb: options.cache_gb,
        // Thousands of collections are thousands of files.
        ..ServerOptions::default()
    }
}
