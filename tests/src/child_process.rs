//! A child process that cannot outlive the process that started it.
//!
//! A small shell stands between: it starts the program, then reads its own standard input, a pipe
//! whose other end only this process holds. When this process ends, even by `kill -9`, the kernel
//! closes the pipe; the shell kills the program and removes what it left on disk. The shell has a
//! process group of its own, so that Ctrl-C on a terminal reaches this process alone.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// `$1`: what to remove at the end, or empty. `$2`: the program's log. The rest: the program and
/// its arguments.
///
/// Lines on stdin: `status` prints the exit code of a program that has ended, `spare` forgets what
/// was to be removed.
const WATCHDOG: &str = r#"
cleanup=$1 log=$2
shift 2
"$@" </dev/null >>"$log" 2>&1 &
pid=$!
echo "$pid"
while read -r line; do
    case $line in
    status) wait "$pid"; echo "$?" ;;
    spare) cleanup= ;;
    esac
done
kill -9 "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
if [ -n "$cleanup" ]; then
    # Another program may still be writing there, until its own watchdog has killed it.
    rm -rf -- "$cleanup" 2>/dev/null || { sleep 0.2; rm -rf -- "$cleanup"; }
fi
exit 0
"#;

/// What to start.
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    log: PathBuf,
    cleanup: Option<PathBuf>,
}

impl Launch {
    /// A program whose standard output and error are appended to `log`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            log: log.into(),
            cleanup: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets variables of its environment, over those it inherits.
    #[must_use]
    pub fn envs(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        self.environment
            .extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Sets its working folder.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Names a folder to be removed when the program is killed by its leash.
    #[must_use]
    pub fn remove_afterwards(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cleanup = Some(folder.into());
        self
    }
}

/// A running program on its leash. Dropping it kills the program and removes what
/// [`Launch::remove_afterwards`] named.
#[derive(Debug)]
pub struct Leashed {
    watchdog: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pid: Pid,
    exit_code: Option<i32>,
}

impl Leashed {
    /// Starts a program.
    ///
    /// # Errors
    /// When the shell cannot be started. A program that cannot be executed ends with exit code 126
    /// or 127, as in any shell.
    pub fn start(launch: Launch) -> Result<Self> {
        let cleanup = launch.cleanup.as_deref().map_or(OsStr::new(""), Path::as_os_str);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", WATCHDOG, "leash"])
            .arg(cleanup)
            .arg(&launch.log)
            .arg(&launch.program)
            .args(&launch.arguments);
        command
            .envs(launch.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some(folder) = &launch.folder {
            command.current_dir(folder);
        }
        let mut watchdog = command
            .spawn()
            .with_context(|| format!("failed to start {}", launch.program.display()))?;
        let commands = watchdog.stdin.take();
        let mut answers =
            BufReader::new(watchdog.stdout.take().context("the shell was started without a pipe")?);
        let pid = read_number(&mut answers)
            .with_context(|| format!("failed to start {}", launch.program.display()))?;
        let pid = Pid::from_raw(pid).context("the shell reported process id 0")?;
        Ok(Self { watchdog, commands, answers, pid, exit_code: None })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether the program has not ended yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit_code.is_none() && is_running(self.pid())
    }

    /// Sends a signal; nothing happens when the program has ended.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        match kill_process(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("failed to signal process {}", self.pid()))
            }
        }
    }

    /// Waits until the program has ended, and gives its exit code (128 + the signal's number when a
    /// signal ended it).
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Result<i32> {
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > patience {
                bail!("process {} still runs after {} s", self.pid(), patience.as_secs_f32());
            }
            tokio::time::sleep(POLL).await;
        }
        self.exit_code()
    }

    /// Kills the program with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill9(&mut self) -> Result<i32> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(20)).await
    }

    /// Keeps what [`Launch::remove_afterwards`] named.
    pub fn spare_files(&mut self) {
        self.tell("spare\n");
    }

    fn exit_code(&mut self) -> Result<i32> {
        if let Some(code) = self.exit_code {
            return Ok(code);
        }
        self.tell("status\n");
        let code = read_number(&mut self.answers).context("failed to learn an exit code")?;
        self.exit_code = Some(code);
        Ok(code)
    }

    fn tell(&mut self, line: &str) {
        if let Some(commands) = &mut self.commands {
            // A shell that is gone was killed from outside; there is nobody left to tell.
            let _ = commands.write_all(line.as_bytes());
        }
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.watchdog.wait();
    }
}

/// Whether a process exists and is not merely waiting to be reaped.
#[must_use]
pub fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        // The state follows the command's name, which is in parentheses and may itself hold any
        // character.
        .is_ok_and(|stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
}

fn read_number(answers: &mut BufReader<ChildStdout>) -> Result<i32> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    line.trim().parse().with_context(|| format!("the shell answered {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::{Launch, Leashed, is_running};
    use std::time::Duration;

    #[tokio::test]
    async fn exit_codes_and_output_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let launch = Launch::new("/bin/sh", &log)
            .args(["-c", "echo $WORD; exit 7"])
            .envs([("WORD", "hello")]);
        let mut child = Leashed::start(launch).unwrap();
        assert_eq!(child.wait(Duration::from_secs(5)).await.unwrap(), 7);
        assert_eq!(child.wait(Duration::from_secs(5)).await.unwrap(), 7);
        assert_eq!(std::fs::read_to_string(log).unwrap(), "hello\n");
    }

    #[tokio::test]
    async fn dropping_the_leash_kills_and_removes() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let launch = Launch::new("/bin/sleep", folder.path().join("log"))
            .args(["1000"])
            .remove_afterwards(&data);
        let child = Leashed::start(launch).unwrap();
        let pid = child.pid();
        assert!(child.is_running());
        drop(child);
        assert!(!is_running(pid));
        assert!(!data.exists());
    }

    #[tokio::test]
    async fn a_killed_program_leaves_its_files_until_the_leash_goes() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let launch = Launch::new("/bin/sleep", folder.path().join("log"))
            .args(["1000"])
            .remove_afterwards(&data);
        let mut child = Leashed::start(launch).unwrap();
        assert_eq!(child.kill9().await.unwrap(), 128 + 9);
        std::thread::sleep(Duration::from_millis(50));
        assert!(data.exists());
        child.spare_files();
        drop(child);
        assert!(data.exists());
    }
}
