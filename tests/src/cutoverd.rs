//! The daemon as a process: started on a state folder of its own, killed, stopped, started again.

use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::child_process::{Launch, Leashed};
use crate::programs::programs;
use crate::tls::TlsFiles;

/// How long the daemon may take to listen, or to stop when asked.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// What to start the daemon with.
#[derive(Debug, Clone, Default)]
pub struct Config {
    environment: Vec<(OsString, OsString)>,
    arguments: Vec<OsString>,
    state_folder: Option<PathBuf>,
    descriptors: Option<u64>,
}

impl Config {
    /// Lets it have so many descriptors and no more.
    #[must_use]
    pub fn descriptors(mut self, most: u64) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// Sets a variable of the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds an argument, after `--state-dir` and `--listen`.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Lets it listen on TCP as well, on a port of 127.0.0.1, with the servers' certificate and for
    /// the clients of an authority.
    #[must_use]
    pub fn listen_tls(self, port: u16, files: &TlsFiles) -> Self {
        self.arg("--listen-tls")
            .arg(format!("127.0.0.1:{port}"))
            .arg("--tls-certificate-key-file")
            .arg(&files.server_file)
            .arg("--tls-client-ca-file")
            .arg(&files.ca_file)
    }

    /// Keeps the state in a folder that outlives the daemon, instead of one that is removed with
    /// it.
    #[must_use]
    pub fn state_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_folder = Some(folder.into());
        self
    }
}

/// A daemon. Dropping it kills it and removes its state.
#[derive(Debug)]
pub struct Cutoverd {
    config: Config,
    process: Leashed,
    folder: TempDir,
}

impl Cutoverd {
    /// Builds the programs if need be, starts a daemon, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not build or start: the message holds the end of its log.
    pub async fn start(config: Config) -> Result<Self> {
        tokio::task::spawn_blocking(programs).await??;
        // A socket's path has room for 107 bytes; `TMPDIR` may be long.
        let folder = tempfile::Builder::new()
            .prefix("cutover-")
            .tempdir_in("/tmp")
            .context("failed to create a folder")?;
        let process = launch(&config, folder.path())?;
        let mut daemon = Self { config, process, folder };
        daemon.wait_until_listening().await?;
        Ok(daemon)
    }

    /// The endpoint for `--endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("d.sock")
    }

    /// A folder that is removed with the daemon, also when this process is killed: its socket and
    /// log are there.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its state.
    #[must_use]
    pub fn state_folder(&self) -> PathBuf {
        state_folder(&self.config, self.folder.path())
    }

    /// What it has written to standard output and error, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("cutoverd.log")).unwrap_or_default()
    }

    /// The last lines of [`Self::log`], for an error.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "the end of cutoverd's log:\n{}",
            lines[lines.len().saturating_sub(30)..].join("\n")
        )
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill9(&mut self) -> Result<()> {
        self.process.kill9().await?;
        Ok(())
    }

    /// Asks it to stop with SIGTERM, waits, and gives its exit code.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn terminate(&mut self) -> Result<i32> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(PATIENCE).await
    }

    /// Waits until it has ended by itself, and gives its exit code.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Result<i32> {
        self.process.wait(patience).await
    }

    /// Starts it again on the same state and socket, and waits until it takes connections.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_with(self.config.clone()).await
    }

    /// Starts it again with other arguments and environment, on the same state and socket.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub async fn restart_with(&mut self, config: Config) -> Result<()> {
        ensure!(!self.process.is_running(), "the daemon runs already");
        self.config = config;
        let process = launch(&self.config, self.folder.path())?;
        std::mem::replace(&mut self.process, process).spare_files();
        self.wait_until_listening().await
    }

    /// The memory it has resident, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn rss_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory it has had resident since this start, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .context("the daemon does not run")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .context("the daemon has ended")?;
        let kilobytes: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .with_context(|| format!("{field} {line}"))?;
        Ok(kilobytes * 1024)
    }

    async fn wait_until_listening(&mut self) -> Result<()> {
        let start = Instant::now();
        // A daemon that was killed leaves its socket's file, on which nobody listens.
        while UnixStream::connect(self.socket()).is_err() {
            if !self.process.is_running() {
                let code = self.process.wait(PATIENCE).await?;
                bail!("cutoverd ended with exit code {code}:\n{}", self.log());
            }
            ensure!(start.elapsed() < PATIENCE, "cutoverd does not listen:\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

fn state_folder(config: &Config, folder: &Path) -> PathBuf {
    config.state_folder.clone().unwrap_or_else(|| folder.join("state"))
}

fn launch(config: &Config, folder: &Path) -> Result<Leashed> {
    let socket = folder.join("d.sock");
    let mut listen = OsString::from("unix:");
    listen.push(socket);
    let program = &programs()?.cutoverd;
    let launch = match config.descriptors {
        None => Launch::new(program, folder.join("cutoverd.log")),
        Some(most) => Launch::new("/bin/sh", folder.join("cutoverd.log")).args([
            OsString::from("-c"),
            format!("ulimit -n {most} && exec \"$0\" \"$@\"").into(),
            program.into(),
        ]),
    };
    let launch = launch
        .remove_afterwards(folder)
        .args([
            OsString::from("--state-dir"),
            state_folder(config, folder).into(),
            "--listen".into(),
            listen,
        ])
        .args(&config.arguments)
        .envs(config.environment.iter().cloned());
    Leashed::start(launch)
}
