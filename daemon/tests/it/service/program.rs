//! The program itself: its flags, its errors, its signals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use schemas::fault::FaultCode;

use super::bench::Bench;

fn program(folder: &Path) -> Command {
    program_at(folder, "s")
}

fn program_at(folder: &Path, socket: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutoverd"));
    command
        .env_clear()
        .env("CUTOVERD_STATE_DIR", folder.join("state"))
        .args(["--listen", &format!("unix:{}", folder.join(socket).display())])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A daemon that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program and waits until it says that it is ready.
fn ready(mut command: Command) -> (Running, BufReader<std::process::ChildStderr>) {
    let mut child = Running(command.spawn().expect("it starts"));
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped"));
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).expect("readable") > 0, "it ended before it was ready");
        if line.contains("ready") {
            assert!(line.contains("/s"), "the line names the socket: {line}");
            return (child, lines);
        }
    }
}

#[test]
fn a_second_daemon_is_refused_and_a_signal_ends_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut first, mut rest) = ready(program(folder.path()));
    for (path, mode) in
        [("state", 0o700), ("state/lock", 0o600), ("state/journal.db", 0o600), ("s", 0o600)]
    {
        let found =
            std::fs::metadata(folder.path().join(path)).expect(path).permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
    let second = program_at(folder.path(), "t").output().expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(
        stderr.contains("error[CUT0006]") && stderr.contains(&first.0.id().to_string()),
        "{stderr}"
    );
    assert!(stderr.contains("remedy: "), "{stderr}");

    let begun = Instant::now();
    let pid = rustix::process::Pid::from_child(&first.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    assert_eq!(first.0.wait().expect("it ends").code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(!folder.path().join("s").exists(), "its socket is gone");
    // What it has said stays readable.
    let _ = rest.read_to_string(&mut String::new());
    let (third, _lines) = ready(program(folder.path()));
    drop(third);
    assert!(folder.path().join("s").exists(), "a killed one leaves its socket");
    let (_fourth, _lines) = ready(program(folder.path()));
}

#[test]
fn mistakes_are_told_with_a_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let unknown = program(folder.path())
        .env("CUTOVERD_TEST_CRASH_AT", "before:lunch")
        .output()
        .expect("it runs");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("before:lunch"));
    let mut unix_only = Command::new(env!("CARGO_BIN_EXE_cutoverd"));
    let unix_only =
        unix_only.env_clear().args(["--listen", "tcp:127.0.0.1:1"]).output().expect("it runs");
    assert_eq!(unix_only.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unix_only.stderr).contains("write unix:PATH"));
    std::fs::write(folder.path().join("state"), "in the way").expect("writes");
    let blocked = program(folder.path()).output().expect("it runs");
    assert_eq!(blocked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&blocked.stderr).contains("error[CUT0007]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_in_the_same_place_changes_nothing() {
    let mut bench = Bench::started().await;
    let hooks = daemon::daemon::TestHooks {
        crash_point: daemon::crash_point::CrashPoint::none(),
        clock_offset_file: None,
        full_disk_file: None,
    };
    let refused = daemon::daemon::Daemon::start(
        &bench.config(),
        std::sync::Arc::new(bench.world.clone()),
        hooks,
    )
    .await;
    assert_eq!(refused.err().expect("it is held").code, FaultCode::StateDirInUse);
    bench.client().await;
    bench.stop().await;
    bench.start(None).await;
}
