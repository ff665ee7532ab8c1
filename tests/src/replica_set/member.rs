//! One `mongod`: its arguments, its port and its data.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::options::{Options, Role};
use super::{PATIENCE, POLL};
use crate::child_process::{Launch, Leashed};
use crate::fault_proxy::FaultProxy;
use crate::ports::ReservedPort;
use crate::tls::TlsFiles;

/// The exit code of a mongod that found its port taken.
const EXIT_ADDRESS_IN_USE: i32 = 48;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) port: ReservedPort,
    folder: PathBuf,
    /// Held also while the server is down: it removes the data should the test die then.
    pub(super) server: Leashed,
    pub(super) proxy: Option<FaultProxy>,
}

impl Member {
    pub(super) async fn start(
        options: &Options,
        tls: Option<&TlsFiles>,
        set_folder: &Path,
        index: usize,
    ) -> Result<Self> {
        let folder = set_folder.join(format!("member-{index}"));
        fs::create_dir(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        loop {
            let port = ReservedPort::take()?;
            let server = launch(options, tls, &folder, port.number())?;
            let mut member = Self { port, folder: folder.clone(), server, proxy: None };
            match member.wait_until_listening().await {
                Ok(()) => {
                    if options.proxied {
                        let target = format!("127.0.0.1:{}", member.port.number())
                            .parse()
                            .context("an address")?;
                        member.proxy = Some(FaultProxy::start(target)?);
                    }
                    return Ok(member);
                }
                Err(StartFailure::AddressInUse) => member.server.spare_files(),
                Err(StartFailure::Other(error)) => return Err(error),
            }
        }
    }

    /// Starts it again on its port and its data, and waits until it listens.
    pub(super) async fn restart(
        &mut self,
        options: &Options,
        tls: Option<&TlsFiles>,
    ) -> Result<()> {
        ensure!(!self.server.is_running(), "the member runs already");
        let server = launch(options, tls, &self.folder, self.port.number())?;
        std::mem::replace(&mut self.server, server).spare_files();
        Ok(self.wait_until_listening().await?)
    }

    /// Where its data is.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The last lines of its log, for an error.
    pub(super) fn log_end(&self) -> String {
        let log = fs::read_to_string(self.folder.join("mongod.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the end of its log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }

    async fn wait_until_listening(&mut self) -> Result<(), StartFailure> {
        let start = Instant::now();
        let port = self.port.number();
        loop {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(());
            }
            if !self.server.is_running() {
                if self.server.wait(PATIENCE).await? == EXIT_ADDRESS_IN_USE {
                    return Err(StartFailure::AddressInUse);
                }
                return Err(
                    anyhow!("mongod did not start on port {port}: {}", self.log_end()).into()
                );
            }
            if start.elapsed() > PATIENCE {
                return Err(
                    anyhow!("mongod does not listen on port {port}: {}", self.log_end()).into()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Why a server is not there.
#[derive(Debug)]
enum StartFailure {
    AddressInUse,
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartFailure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<StartFailure> for anyhow::Error {
    fn from(failure: StartFailure) -> Self {
        match failure {
            StartFailure::AddressInUse => anyhow!("the server's port is taken"),
            StartFailure::Other(error) => error,
        }
    }
}

fn launch(options: &Options, tls: Option<&TlsFiles>, folder: &Path, port: u16) -> Result<Leashed> {
    let set_folder = folder.parent().context("a member's folder lies in its set's")?;
    let data = folder.join("data");
    fs::create_dir_all(&data).with_context(|| format!("failed to create {}", data.display()))?;
    let mut launch = Launch::new(options.program()?, folder.join("mongod.log"))
        .remove_afterwards(set_folder)
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--nounixsocket", "--dbpath"])
        .args([&data])
        .args(["--wiredTigerCacheSizeGB", &options.cache_gb.to_string()])
        .args([
            "--setParameter",
            "enableTestCommands=1",
            "--setParameter",
            "diagnosticDataCollectionEnabled=false",
        ])
        // A primary told to stop would otherwise wait 15 s for others to take over.
        .args(["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]);
    if !options.standalone {
        launch =
            launch.args(["--replSet", &options.name, "--oplogSize", &options.oplog_mb.to_string()]);
    }
    launch = match options.role {
        Role::Alone => launch,
        Role::ConfigServer => launch.args(["--configsvr"]),
        Role::Shard => launch.args(["--shardsvr"]),
    };
    if let Some(seconds) = options.noop_interval_seconds {
        let interval = format!("periodicNoopIntervalSecs={seconds}");
        launch =
            launch.args(["--setParameter", "writePeriodicNoops=true", "--setParameter", &interval]);
    }
    if options.auth.is_some() {
        launch = if options.standalone {
            launch.args(["--auth"])
        } else {
            launch.args(["--keyFile"]).args([set_folder.join("key")])
        };
    }
    if let (Some(mode), Some(files)) = (options.tls, tls) {
        launch = launch.args(files.arguments(mode));
    }
    Leashed::start(launch.args(&options.arguments).envs(options.environment.iter().cloned()))
}
