//! The router of a cluster: `mongos`, or the stand-in, as a process on its leash.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::child_process::{Launch, Leashed};
use crate::fault_proxy::FaultProxy;
use crate::ports::ReservedPort;
use crate::programs;
use crate::replica_set::TlsMode;
use crate::tls::TlsFiles;

/// How long a router may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What is started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    hides_shards: bool,
}

/// By which the router and the servers know each other.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) key: Option<PathBuf>,
    pub(super) tls: Option<(TlsMode, TlsFiles)>,
}

/// A running router.
#[derive(Debug)]
pub(super) struct RouterProcess {
    program: Program,
    config: String,
    access: Access,
    port: ReservedPort,
    proxy: Option<FaultProxy>,
    /// Dropped before the folder, which it still writes its log to.
    server: Leashed,
    folder: TempDir,
}

impl RouterProcess {
    /// What stands in for the router here; the rig's own is built where there is no `mongos`, or
    /// where it has to hide the shards.
    pub(super) async fn program(hides_shards: bool) -> Result<Program> {
        if hides_shards {
            return Self::stand_in(true).await;
        }
        if let Some(named) = std::env::var_os("CUTOVER_MONGOS").filter(|value| !value.is_empty()) {
            return Ok(Program { path: named.into(), hides_shards });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(found) = std::env::split_paths(&path)
            .map(|folder| folder.join("mongos"))
            .find(|path| path.is_file())
        {
            return Ok(Program { path: found, hides_shards });
        }
        Self::stand_in(hides_shards).await
    }

    async fn stand_in(hides_shards: bool) -> Result<Program> {
        let built = tokio::task::spawn_blocking(programs::programs).await??;
        Ok(Program { path: built.router.clone(), hides_shards })
    }

    pub(super) async fn start(
        program: Program,
        config: &str,
        access: Access,
        proxied: bool,
    ) -> Result<Self> {
        loop {
            let folder = tempfile::Builder::new()
                .prefix("cutover-router-")
                .tempdir()
                .context("failed to create a folder")?;
            let port = ReservedPort::take()?;
            let server = launch(&program, config, &access, folder.path(), port.number())?;
            let mut router = Self {
                program: program.clone(),
                config: config.to_owned(),
                access: access.clone(),
                port,
                proxy: None,
                server,
                folder,
            };
            if router.listens().await? {
                if proxied {
                    let target = format!("127.0.0.1:{}", router.port.number())
                        .parse()
                        .context("an address")?;
                    router.proxy = Some(FaultProxy::start(target)?);
                }
                return Ok(router);
            }
        }
    }

    pub(super) fn host(&self) -> String {
        let port = self.proxy.as_ref().map_or(self.port.number(), |proxy| proxy.address().port());
        format!("127.0.0.1:{port}")
    }

    pub(super) fn proxy(&self) -> Option<&FaultProxy> {
        self.proxy.as_ref()
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        self.server.kill9().await.map(drop)
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        ensure!(!self.server.is_running(), "the router runs already");
        let server = launch(
            &self.program,
            &self.config,
            &self.access,
            self.folder.path(),
            self.port.number(),
        )?;
        std::mem::replace(&mut self.server, server).spare_files();
        ensure!(self.listens().await?, "the router's port is taken");
        Ok(())
    }

    /// Waits until it takes connections; `false`: its port was taken.
    async fn listens(&mut self) -> Result<bool> {
        let start = Instant::now();
        loop {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port.number())).await.is_ok() {
                return Ok(true);
            }
            if !self.server.is_running() {
                if self.server.wait(PATIENCE).await? == crate::mongos::EXIT_ADDRESS_IN_USE {
                    return Ok(false);
                }
                bail!("the router ended: {}", self.log());
            }
            ensure!(start.elapsed() < PATIENCE, "the router does not listen: {}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("router.log")).unwrap_or_default()
    }
}

fn launch(
    program: &Program,
    config: &str,
    access: &Access,
    folder: &Path,
    port: u16,
) -> Result<Leashed> {
    let launch = Launch::new(&program.path, folder.join("router.log"))
        .remove_afterwards(folder)
        .args(["--configdb", config, "--bind_ip", "127.0.0.1", "--port", &port.to_string()]);
    let launch = if program.hides_shards { launch.args(["--hideShards"]) } else { launch };
    let launch = match &access.key {
        Some(key) => launch.args(["--keyFile"]).args([key]),
        None => launch,
    };
    let launch = match &access.tls {
        Some((mode, files)) => launch.args(files.arguments(*mode)),
        None => launch,
    };
    Leashed::start(launch)
}
