//! `cutoverd --watch DIR`: what changes in a directory of HCL is planned and applied, with the code
//! of `cutover apply`.
//!
//! Only a change of the directory acts, not time: what people do by hand stands until then, also
//! over a restart. A directory that does not load, or whose plan has errors, changes nothing; the
//! log and `cutover status` say so. The watch is a client of the daemon like any other, so that
//! what it does is checked and journaled the same way, and a cutover needs `acknowledge`.

mod file_events;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use provider::daemon_client::DaemonClient;
use provider::endpoint::Endpoint;
use provider::exit_code::Failure;
use provider::load::{self, Inputs, Loaded};
use provider::plan::Action;
use provider::prepare::{Prepared, prepare};
use provider::{apply, observe};
use schemas::directory_watch::WatchOutcome;
use schemas::durable_file;
use schemas::fault::{Fault, FaultCode};
use schemas::hcl::{Diagnostic, Severity};
use schemas::spec::sha256_hex;
use schemas::wire::v1;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::file_events::Nudges;
pub use self::status::Board;

/// A directory counts as written when nothing has happened in it for this long: editors and
/// checkouts write file by file.
const QUIET: Duration = Duration::from_millis(500);

/// It is looked at this often all the same: a network file system reports nothing, and neither
/// does a file that a template reads.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What was refused for a reason outside of the directory, a server that is away, is tried again
/// after this long.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Where the digest of what was applied last is kept, in the state directory.
const APPLIED_FILE: &str = "watched";

/// The watch of one directory.
pub struct Watch {
    directory: PathBuf,
    socket: PathBuf,
    applied_file: PathBuf,
    board: Board,
    /// The digest of what was dealt with last.
    dealt_with: Option<String>,
    /// When what was refused is tried again.
    try_again: Option<Instant>,
}

/// How a look at the directory ended.
enum Look {
    /// Everything in it is dealt with.
    Done,
    /// It changes while it is read.
    Changing,
}

impl Watch {
    /// A watch of a directory by the daemon at a socket, whose state is kept in `state_dir`.
    #[must_use]
    pub fn new(directory: PathBuf, socket: PathBuf, state_dir: &Path, board: Board) -> Self {
        let applied_file = state_dir.join(APPLIED_FILE);
        let dealt_with = std::fs::read_to_string(&applied_file).ok();
        board.begin(directory.clone());
        Self { directory, socket, applied_file, board, dealt_with, try_again: None }
    }

    /// Watches until the daemon stops.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut nudges = Nudges::of(&self.directory);
        info!(directory = %self.directory.display(), "watching");
        loop {
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                look = self.look() => match look {
                    Look::Done => LOOK_EVERY,
                    Look::Changing => QUIET,
                },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = nudges.wait(pause, QUIET) => {}
            }
        }
    }

    async fn look(&mut self) -> Look {
        let directory = self.directory.clone();
        let loaded = tokio::task::spawn_blocking(move || read(&directory)).await;
        let Ok(Read { fingerprint, digest, loaded }) = loaded else { return Look::Changing };
        if fingerprint.is_none() {
            return Look::Changing;
        }
        let is_due = self.try_again.is_some_and(|at| at <= Instant::now());
        if self.dealt_with.as_deref() == Some(digest.as_str()) && !is_due {
            if self.try_again.is_none() && self.board.is_waiting() {
                self.board.put(WatchOutcome::Applied, fingerprint.unwrap_or_default(), Vec::new());
            }
            return Look::Done;
        }
        let fingerprint = fingerprint.unwrap_or_default();
        self.dealt_with = Some(digest.clone());
        self.try_again = None;
        match loaded {
            Err(diagnostics) => self.refuse(fingerprint, diagnostics),
            Ok(loaded) => match self.apply(*loaded, &fingerprint).await {
                Ok(warnings) => {
                    self.board.put(WatchOutcome::Applied, fingerprint, warnings);
                    if let Err(error) = durable_file::write(&self.applied_file, digest.as_bytes()) {
                        warn!(file = %self.applied_file.display(), %error, "the next start will \
                             apply the directory again");
                    }
                }
                Err(diagnostics) => {
                    self.try_again = Some(Instant::now() + TRY_AGAIN);
                    self.refuse(fingerprint, diagnostics);
                }
            },
        }
        Look::Done
    }

    /// Plans what is declared and applies it. Gives what is worth knowing, or why nothing was
    /// applied.
    async fn apply(
        &self,
        loaded: Loaded,
        fingerprint: &str,
    ) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let refused = |fault: Fault| vec![Diagnostic::from_fault(&fault, None)];
        let client = DaemonClient::connect(&Endpoint::Unix(self.socket.clone()), None)
            .await
            .map_err(refused)?;
        let observed = observe::migrations(&client, &loaded.declaration.workspace, None)
            .await
            .map_err(refused)?;
        let Prepared { plan, specs, drops } =
            prepare(&client, loaded.declaration, &observed).await.map_err(refused)?;
        if plan.has_errors() {
            return Err(plan.diagnostics);
        }
        let actor = v1::Actor {
            name: format!("cutoverd --watch {}", self.directory.display()),
            revision: fingerprint.chars().take(12).collect(),
        };
        for one in apply::apply(&client, &plan, &specs, &drops, actor).await.map_err(refused)? {
            let action = if one.action == Action::NoOp { continue } else { one.action.as_str() };
            info!(
                directory = %self.directory.display(), migration = %one.migration, action,
                serial = one.serial.0, "applied",
            );
        }
        Ok(plan.diagnostics)
    }

    fn refuse(&self, fingerprint: String, diagnostics: Vec<Diagnostic>) {
        for one in diagnostics.iter().filter(|one| one.severity == Severity::Error) {
            let place = one
                .place
                .as_ref()
                .map(|place| format!("{}:{}:{}", place.file, place.line, place.column));
            let directory = self.directory.display();
            warn!(%directory, code = %one.code, place, summary = one.summary, "nothing of the \
                 watched directory is applied");
        }
        self.board.put(WatchOutcome::Refused, fingerprint, diagnostics);
    }
}

/// What is in the directory.
struct Read {
    /// The digest of its files; `None` where they change while they are read.
    fingerprint: Option<String>,
    /// The digest of all that matters: also of what the files refer to.
    digest: String,
    loaded: Result<Box<Loaded>, Vec<Diagnostic>>,
}

fn read(directory: &Path) -> Read {
    let loaded = match load::directory(directory, &load::NO_VARIABLES) {
        Ok(loaded) => match half_written(directory) {
            None => Ok(Box::new(loaded)),
            Some(diagnostic) => Err(vec![diagnostic]),
        },
        Err(Failure::Diagnostics(diagnostics)) => Err(diagnostics),
        Err(Failure::Fault(fault)) => Err(vec![Diagnostic::from_fault(&fault, None)]),
        Err(Failure::OutputClosed) => Err(Vec::new()),
    };
    let now = Inputs::read(directory).unwrap_or_default();
    let is_stable = loaded.as_ref().map_or(true, |loaded| loaded.inputs == now);
    let content = match &loaded {
        Ok(loaded) => {
            loaded.declaration.specs().map(schemas::wire::to_json).collect::<Vec<_>>().join("\n")
        }
        Err(diagnostics) => schemas::wire::to_json(diagnostics),
    };
    let digest =
        sha256_hex(format!("{}\n{}\n{content}", directory.display(), now.fingerprint()).as_bytes());
    Read { fingerprint: is_stable.then(|| now.fingerprint()), digest, loaded }
}

/// A file that has nothing in it would take all its migrations away: that is how one looks that is
/// about to be written.
fn half_written(directory: &Path) -> Option<Diagnostic> {
    let files = load::files(directory).ok()?;
    let empty = files
        .iter()
        .find(|file| std::fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0))?;
    let fault =
        Fault::new(FaultCode::InvalidConfiguration, format!("{} is empty", empty.display()))
            .with_remedy(
                "write what it declares, or remove the file: an empty one is taken for one that is \
                 being written",
            );
    Some(Diagnostic::from_fault(&fault, None))
}
