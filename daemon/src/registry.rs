//! The one thread that holds every migration and writes the journal: it steps runs, journals, and
//! only then gives orders.
//!
//! ```text
//!   api, supervisors, timer --Command--> registry --journal--> orders (one watch a migration)
//!   orders --> supervisor --> engine
//! ```
//!
//! SQLite blocks, so that this is a thread and not a task; being one, it makes `Apply` atomic
//! without locks.

mod apply;
mod by_hand;
mod overlap;
mod report;
mod thread;

use std::sync::{Arc, mpsc};

use lifecycle::{Effect, Event, Run};
use schemas::fault::{Fault, FaultCode};
use schemas::history::{Actor, Entry};
use schemas::id::{MigrationName, RunId, Workspace};
use schemas::namespace::Namespace;
use schemas::report::Report;
use schemas::spec::MigrationSpec;
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::crash_point::CrashPoint;
use crate::journal::{Journal, Key, Record};
use crate::open_runs::Engines;

use self::thread::Book;

pub use self::by_hand::{ByHandAct, check_shard};
pub use apply::{Applied, DeclaredChange};
pub(crate) use overlap::share_source;

/// What a migration's supervisor is to do from now on.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Numbers the orders of one migration; an outcome names the orders that it belongs to.
    pub number: u64,
    /// The run.
    pub run: Arc<Run>,
    /// What it was declared with.
    pub spec: Arc<MigrationSpec>,
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// Whether the migration was forgotten: nothing is to be done any more.
    pub forgotten: bool,
}

/// A migration as a reader sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// The migration.
    pub record: Record,
    /// What the journal knows its run to have created.
    pub created: Vec<Namespace>,
    /// Why the journal cannot be written; meanwhile nobody may rely on what the run says.
    pub journal_fault: Option<Fault>,
    /// The trusted time of the view.
    pub now: lifecycle::Now,
}

/// Which run an event is for; an event for another is from the past.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The migration.
    pub key: Key,
    /// The run.
    pub run: RunId,
    /// The orders that the event is an outcome of; `None` for reports of the sync.
    pub orders: Option<u64>,
}

type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// What the registry can be asked for.
enum Command {
    Feed {
        origin: Origin,
        event: Box<Event>,
        reply: Reply<()>,
    },
    Apply {
        workspace: Workspace,
        changes: Vec<DeclaredChange>,
        actor: Actor,
        reply: Reply<Vec<Applied>>,
    },
    Act {
        workspace: Option<Workspace>,
        name: MigrationName,
        act: ByHandAct,
        actor: Actor,
        reply: Reply<String>,
    },
    Records {
        reply: Reply<Vec<Record>>,
    },
    Observe {
        workspace: Option<Workspace>,
        name: Option<MigrationName>,
        reply: Reply<Vec<View>>,
    },
    Resolve {
        workspace: Option<Workspace>,
        name: MigrationName,
        reply: Reply<Key>,
    },
    Entries {
        key: Key,
        after: u64,
        reply: Reply<Vec<Entry>>,
    },
    Report {
        workspace: Option<Workspace>,
        name: MigrationName,
        reply: Reply<Report>,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// Reaches the registry from tasks.
#[derive(Debug, Clone)]
pub struct Registry {
    commands: mpsc::Sender<Command>,
    last_entry: watch::Receiver<u64>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

fn stopped() -> Fault {
    Fault::new(FaultCode::DaemonUnreachable, "the daemon is stopping")
}

impl Registry {
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Tells of something that happened to a run. What is from the past is dropped.
    pub async fn feed(&self, origin: Origin, event: Event) -> Result<(), Fault> {
        self.ask(|reply| Command::Feed { origin, event: Box::new(event), reply }).await
    }

    /// Takes declared changes: all of them or none.
    pub async fn apply(
        &self,
        workspace: Workspace,
        changes: Vec<DeclaredChange>,
        actor: Actor,
    ) -> Result<Vec<Applied>, Fault> {
        self.ask(|reply| Command::Apply { workspace, changes, actor, reply }).await
    }

    /// Acts by hand. Returns what was done, in words.
    pub async fn act(
        &self,
        workspace: Option<Workspace>,
        name: MigrationName,
        act: ByHandAct,
        actor: Actor,
    ) -> Result<String, Fault> {
        self.ask(|reply| Command::Act { workspace, name, act, actor, reply }).await
    }

    /// Every migration, without a look into the journal: for what must not wait for it.
    pub async fn records(&self) -> Result<Vec<Record>, Fault> {
        self.ask(|reply| Command::Records { reply }).await
    }

    /// The migrations of a workspace, or of all, by name.
    pub async fn observe(
        &self,
        workspace: Option<Workspace>,
        name: Option<MigrationName>,
    ) -> Result<Vec<View>, Fault> {
        self.ask(|reply| Command::Observe { workspace, name, reply }).await
    }

    /// Finds the only migration of a name, also one that has left nothing but records.
    pub async fn resolve(
        &self,
        workspace: Option<Workspace>,
        name: MigrationName,
    ) -> Result<Key, Fault> {
        self.ask(|reply| Command::Resolve { workspace, name, reply }).await
    }

    /// The next page of a migration's records.
    pub async fn entries(&self, key: Key, after: u64) -> Result<Vec<Entry>, Fault> {
        self.ask(|reply| Command::Entries { key, after, reply }).await
    }

    /// The report of a completed migration.
    pub async fn report(
        &self,
        workspace: Option<Workspace>,
        name: MigrationName,
    ) -> Result<Report, Fault> {
        self.ask(|reply| Command::Report { workspace, name, reply }).await
    }

    /// Changes whenever a record is added.
    #[must_use]
    pub fn last_entry(&self) -> watch::Receiver<u64> {
        self.last_entry.clone()
    }

    /// Ends the registry once everything before was written.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stop { reply }).is_ok() {
            // It has ended as well when it went away without an answer.
            let _ = answer.await;
        }
    }
}

/// Starts a supervisor for a migration.
pub type Supervise = Box<dyn Fn(Key, watch::Receiver<Orders>, Registry) + Send>;

/// What a registry is made of.
pub struct Parts {
    /// The open journal.
    pub journal: Journal,
    /// The daemon's clock, gone on from the journal's mark.
    pub clock: Arc<Clock>,
    /// The open runs.
    pub engines: Arc<Engines>,
    /// Where to die, for tests.
    pub crash_point: Arc<CrashPoint>,
    /// What starts a supervisor.
    pub supervise: Supervise,
}

/// Takes up everything in the journal, and starts the registry's thread.
pub fn start(parts: Parts) -> Result<Registry, Fault> {
    let records = parts.journal.records()?;
    let (commands, inbox) = mpsc::channel();
    let (last_entry_sender, last_entry) = watch::channel(0);
    let registry = Registry { commands, last_entry };
    let mut book = Book::new(parts, records, registry.clone(), last_entry_sender);
    std::thread::Builder::new()
        .name("registry".to_owned())
        .spawn(move || book.run(&inbox))
        .map_err(|error| {
            Fault::new(FaultCode::Internal, format!("failed to start a thread: {error}"))
        })?;
    Ok(registry)
}
