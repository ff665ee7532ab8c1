//! Other tools as contenders, where they are on the `PATH`: mongodump into mongorestore, and
//! Percona ClusterSync (`pcsm`).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rig::ReplicaSet;
use rig::child_process::{Launch, Leashed};
use tempfile::TempDir;

use crate::cost;
use crate::measured::Measured;

const PATIENCE: Duration = Duration::from_secs(600);

/// Where a program is, if it is on the `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Copies with mongodump into mongorestore, four collections and four inserters.
pub(crate) async fn dump(source: &ReplicaSet, destination: &ReplicaSet) -> Result<Measured> {
    let began = Instant::now();
    let mut dump = tokio::process::Command::new("mongodump");
    dump.args(["--quiet", "--archive", "--numParallelCollections=4", "--uri", &source.uri()]);
    let mut dump = dump.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let pipe: Stdio = dump.stdout.take().context("mongodump has no pipe")?.try_into()?;
    let mut restore = tokio::process::Command::new("mongorestore");
    restore.args([
        "--quiet",
        "--archive",
        "--numParallelCollections=4",
        "--numInsertionWorkersPerCollection=4",
        "--uri",
    ]);
    let mut restore = restore.arg(destination.uri()).stdin(pipe).kill_on_drop(true).spawn()?;
    let (dumped, restored) = tokio::try_join!(ended(&mut dump), ended(&mut restore))?;
    Ok(Measured {
        seconds: began.elapsed().as_secs_f64(),
        own_cpu: (dumped.0 + restored.0).as_secs_f64(),
        own_peak: dumped.1 + restored.1,
        ..Measured::default()
    })
}

/// Waits for a process; gives what it had cost when it was last looked at.
async fn ended(child: &mut tokio::process::Child) -> Result<(Duration, u64)> {
    let pid = i32::try_from(child.id().context("the process has ended already")?)?;
    let mut last = (Duration::ZERO, 0);
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "the tool ended with {status}");
            return Ok(last);
        }
        last = (cost::cpu(pid).unwrap_or(last.0), cost::peak(pid).unwrap_or(last.1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A running `pcsm`.
pub(crate) struct Pcsm {
    process: Leashed,
    port: String,
    _folder: TempDir,
}

impl Pcsm {
    pub(crate) async fn start(source: &ReplicaSet, destination: &ReplicaSet) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cutover-pcsm-").tempdir()?;
        let port = rig::ports::ReservedPort::take()?.number().to_string();
        let launch = Launch::new(
            find("pcsm").context("pcsm is not on the PATH")?,
            folder.path().join("pcsm.log"),
        )
        .args([
            "--source",
            &source.uri(),
            "--target",
            &destination.uri(),
            "--port",
            &port,
            "--reset-state",
        ]);
        let pcsm = Self { process: Leashed::start(launch)?, port, _folder: folder };
        let began = Instant::now();
        while pcsm.tell("status").await.is_err() {
            ensure!(began.elapsed() < Duration::from_secs(30), "pcsm does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(pcsm)
    }

    /// Runs one of its commands; gives its answer.
    pub(crate) async fn tell(&self, command: &str) -> Result<serde_json::Value> {
        let output = tokio::process::Command::new("pcsm")
            .args([command, "--port", &self.port])
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "pcsm {command} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until its initial synchronisation is complete.
    pub(crate) async fn synced(&self) -> Result<()> {
        let began = Instant::now();
        while self.tell("status").await?["initialSync"]["completed"] != true {
            ensure!(began.elapsed() < PATIENCE, "pcsm does not complete its copy");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Processor time and peak memory so far.
    pub(crate) fn cost(&self) -> Result<(Duration, u64)> {
        Ok((cost::cpu(self.process.pid())?, cost::peak(self.process.pid())?))
    }
}
