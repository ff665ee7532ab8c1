//! Which run stopped the source's balancer, remembered so that it is given back whatever happens to
//! the run or the daemon.
//!
//! The record is written, and on disk, before the balancer is stopped, and removed after it was
//! started again: a crash in between repeats a stop or a start, and loses none. A balancer that was
//! off already is nobody's to give back.
//!
//! A balancer is one for the whole cluster: of several runs on it each that needs it off holds it,
//! and the last gives it back. The runs' folders lie side by side and belong to one daemon, so that
//! the others' records are the files beside one's own. A run that failed, is paused or has expired
//! goes on holding it, since it can go on only where nothing has moved; its status says so, and
//! cancelling the run gives it back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemas::durable_file;
use schemas::fault::Fault;
use schemas::spec::{Balancer as Mode, MigrationSpec};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::balancer;
use super::topology::Cluster;
use crate::mongo::Deployment;
use crate::state_fault::{self, Cause};

/// Between two looks at the balancer while a run goes on: shorter than a chunk takes to move.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The record in a run's folder.
const FILE: &str = "balancer.json";

/// One at a time over all runs: of two that end at once neither may leave the balancer to the
/// other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// That a run stopped the balancer of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The cluster's id, or its routers where it has none.
    cluster: String,
}

/// What a declaration says about the balancer: without a block it must be off.
#[must_use]
pub fn mode(spec: &MigrationSpec) -> Mode {
    spec.sharding.as_ref().map_or(Mode::RequireOff, |sharding| sharding.balancer)
}

/// Whether the run of this folder holds the source's balancer stopped.
#[must_use]
pub fn is_held(run_dir: &Path) -> bool {
    run_dir.join(FILE).exists()
}

fn unusable(path: &Path, error: &std::io::Error) -> Fault {
    state_fault::of_io(format!("the record of the balancer {}", path.display()), error)
}

fn read(path: &Path) -> Result<Option<Record>, Fault> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
            let remedy =
                "the run of this folder writes it again when it goes on: resume or cancel it";
            Cause::Damaged
                .fault(format!("the record of the balancer {}: {error}", path.display()))
                .with_remedy(remedy)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(path, &error)),
    }
}

/// The own record. One that is torn says that the run holds a balancer, and which is known again:
/// its own source's.
fn own(run_dir: &Path, present: &Record) -> Result<Option<Record>, Fault> {
    let path = run_dir.join(FILE);
    match read(&path) {
        Err(fault) if !fault.retryable => {
            tracing::warn!(%fault, "taken for that of the run's own source, and written again");
            write(run_dir, present)?;
            Ok(Some(present.clone()))
        }
        known => known,
    }
}

fn write(run_dir: &Path, record: &Record) -> Result<(), Fault> {
    let path = run_dir.join(FILE);
    durable_file::write(&path, schemas::wire::to_json(record).as_bytes())
        .map_err(|error| unusable(&path, &error))
}

fn remove(run_dir: &Path) -> Result<(), Fault> {
    let path = run_dir.join(FILE);
    durable_file::remove(&path).map_err(|error| unusable(&path, &error))
}

/// The folders of other runs that hold the balancer of this cluster.
fn other_holders(run_dir: &Path, record: &Record) -> Result<Vec<PathBuf>, Fault> {
    let Some(runs) = run_dir.parent() else { return Ok(Vec::new()) };
    let mut holders = Vec::new();
    for entry in fs::read_dir(runs).map_err(|error| unusable(runs, &error))? {
        let folder = entry.map_err(|error| unusable(runs, &error))?.path();
        if folder != run_dir && read(&folder.join(FILE))?.as_ref() == Some(record) {
            holders.push(folder);
        }
    }
    Ok(holders)
}

async fn record_of(router: &Deployment) -> Result<Record, Fault> {
    let id = Cluster::id_behind(router).await?;
    Ok(Record { cluster: id.map_or_else(|| router.hosts.clone(), |id| id.to_hex()) })
}

/// Sees that the balancer of a sharded source is still before anything is read: stops it where the
/// run may, else it must be off.
///
/// A balancer that is on all the same is the fault `BalancerOn`, which the daemon tries to get over
/// by itself.
pub async fn ensure_still(
    source: &Deployment,
    spec: &MigrationSpec,
    run_dir: &Path,
) -> Result<(), Fault> {
    if !source.is_sharded() {
        return Ok(());
    }
    let balancer = match mode(spec) {
        Mode::RequireOff => balancer::look(source).await?,
        Mode::Manage => hold(source, run_dir).await?,
    };
    match mode(spec) {
        _ if balancer.is_still() => Ok(()),
        Mode::RequireOff => {
            let mut fault = balancer::on_fault(source, balancer);
            fault.retryable = true;
            Err(fault)
        }
        Mode::Manage => {
            tracing::info!(source = source.hosts, "stopping the source's balancer for the run");
            balancer::stop(source).await
        }
    }
}

/// Remembers that the run holds the balancer, where there is one to give back; and what it is doing
/// still.
async fn hold(source: &Deployment, run_dir: &Path) -> Result<balancer::Balancer, Fault> {
    let record = record_of(source).await?;
    fs::create_dir_all(run_dir).map_err(|error| unusable(run_dir, &error))?;
    let _turn = TURN.lock().await;
    let balancer = balancer::look(source).await?;
    let is_ours = own(run_dir, &record)?.as_ref() == Some(&record);
    // Off by another run's doing is on for whoever comes after both.
    if !is_ours && (balancer.is_on || !other_holders(run_dir, &record)?.is_empty()) {
        write(run_dir, &record)?;
    }
    Ok(balancer)
}

/// Gives the balancer back where the run of this folder holds it and no other run does. It connects
/// only where there is something to give back.
pub async fn give_back<F>(run_dir: &Path, connect: F) -> Result<(), Fault>
where
    F: Future<Output = Result<Arc<Deployment>, Fault>>,
{
    if !is_held(run_dir) {
        return Ok(());
    }
    let router = connect.await?;
    let present = record_of(&router).await?;
    let _turn = TURN.lock().await;
    let Some(record) = own(run_dir, &present)? else { return Ok(()) };
    let is_same = present == record;
    if other_holders(run_dir, &record)?.is_empty() {
        if is_same {
            tracing::info!(source = router.hosts, "starting the source's balancer again");
            balancer::start(&router).await?;
        } else {
            tracing::warn!(
                source = router.hosts,
                "the source is another cluster now: its balancer is not this run's to start"
            );
        }
    }
    remove(run_dir)
}

/// Looks now and then whether somebody has started the balancer while a run goes on.
#[derive(Debug, Default)]
pub struct Watch {
    looked: Option<Instant>,
    found: Option<String>,
}

impl Watch {
    /// What keeps the run from being ready, in words; nothing where the source is not sharded.
    pub async fn blocker(&mut self, source: &Deployment) -> Option<String> {
        if !source.is_sharded() {
            return None;
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.found = match balancer::look(source).await {
                Ok(balancer) if balancer.is_still() => None,
                Ok(balancer) => Some(balancer::on_fault(source, balancer).to_string()),
                Err(fault) => Some(fault.to_string()),
            };
            self.looked = Some(Instant::now());
        }
        self.found.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{Record, is_held, other_holders, own, read, remove, write};

    #[test]
    fn holders_of_one_cluster_are_told_from_those_of_another() {
        let runs = tempfile::tempdir().expect("a folder");
        let folders = ["a", "b", "c", "d"].map(|name| runs.path().join(name));
        for folder in &folders {
            std::fs::create_dir(folder).expect("made");
        }
        let [ours, theirs] = ["1", "2"].map(|cluster| Record { cluster: cluster.to_owned() });
        write(&folders[0], &ours).expect("written");
        assert_eq!(
            other_holders(&folders[0], &ours).expect("read"),
            Vec::<std::path::PathBuf>::new()
        );
        write(&folders[1], &theirs).expect("written");
        write(&folders[2], &ours).expect("written");
        assert_eq!(other_holders(&folders[0], &ours).expect("read"), [folders[2].clone()]);
        assert_eq!(other_holders(&folders[3], &theirs).expect("read"), [folders[1].clone()]);
        assert!(is_held(&folders[2]) && !is_held(&folders[3]));
        remove(&folders[2]).expect("removed");
        remove(&folders[2]).expect("removed already");
        assert_eq!(read(&folders[2].join(super::FILE)).expect("read"), None);
        assert!(other_holders(&folders[0], &ours).expect("read").is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error() {
        let runs = tempfile::tempdir().expect("a folder");
        let (one, other) = (runs.path().join("one"), runs.path().join("other"));
        for folder in [&one, &other] {
            std::fs::create_dir(folder).expect("made");
        }
        std::fs::write(other.join(super::FILE), "{").expect("written");
        let fault = other_holders(&one, &Record { cluster: "1".to_owned() })
            .expect_err("it may be a holder");
        assert_eq!(fault.code, schemas::fault::FaultCode::StateDirUnusable);
        // Its own run knows what it must have said.
        let present = Record { cluster: "2".to_owned() };
        assert_eq!(own(&other, &present), Ok(Some(present.clone())));
        assert_eq!(read(&other.join(super::FILE)), Ok(Some(present)));
    }
}
