//! The one thread that holds every migration and writes the journal: it steps runs, journals, and only then gives orders.
//!
//! ```text
//!   api, supervisors, timer --Command--> registry --journal--> orders (a watch per migration) --> supervisor --> engine
//! ```
//!
//! SQLite blocks, so that this is a thread and not a task; being one, it makes `Apply` atomic without locks.

mod act;
mod apply;
mod overlap;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lifecycle::{Effect, Event, Note, Run, Step, check, step};
use schemas::fault::{Fault, FaultCode};
use schemas::history::{Actor, Entry, EntryKind};
use schemas::id::{MigrationName, RunId, Serial, Workspace};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::spec::MigrationSpec;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::crash_point::{CrashPoint, Place};
use crate::engines::Engines;
use crate::journal::{Change, Journal, Key, Record};

pub use act::ByHandAct;
pub use apply::{Applied, DeclaredChange};

/// How often time is let pass for every run: well below the second, in which deadlines are told.
const TICK: Duration = Duration::from_millis(250);

/// How often the clock's mark and the created namespaces are stored when nothing else is.
const MARK_EVERY: Duration = Duration::from_secs(5);

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
    Feed { origin: Origin, event: Box<Event>, reply: Reply<()> },
    Apply { workspace: Workspace, changes: Vec<DeclaredChange>, actor: Actor, reply: Reply<Vec<Applied>> },
    Act { workspace: Option<Workspace>, name: MigrationName, act: ByHandAct, actor: Actor, reply: Reply<String> },
    Observe { workspace: Option<Workspace>, name: Option<MigrationName>, reply: Reply<Vec<View>> },
    Resolve { workspace: Option<Workspace>, name: MigrationName, reply: Reply<Key> },
    Entries { key: Key, after: u64, reply: Reply<Vec<Entry>> },
    Stop { reply: oneshot::Sender<()> },
}

/// Entries that one read of the journal brings.
const PAGE: u32 = 500;

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
    pub async fn apply(&self, workspace: Workspace, changes: Vec<DeclaredChange>, actor: Actor) -> Result<Vec<Applied>, Fault> {
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

    /// The migrations of a workspace, or of all, by name.
    pub async fn observe(&self, workspace: Option<Workspace>, name: Option<MigrationName>) -> Result<Vec<View>, Fault> {
        self.ask(|reply| Command::Observe { workspace, name, reply }).await
    }

    /// Finds the only migration of a name, also one that has left nothing but records.
    pub async fn resolve(&self, workspace: Option<Workspace>, name: MigrationName) -> Result<Key, Fault> {
        self.ask(|reply| Command::Resolve { workspace, name, reply }).await
    }

    /// The next page of a migration's records.
    pub async fn entries(&self, key: Key, after: u64) -> Result<Vec<Entry>, Fault> {
        self.ask(|reply| Command::Entries { key, after, reply }).await
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
    let mut book = Book {
        parts,
        held: records.into_iter().map(|record| (record.key.clone(), Held { record, orders: None })).collect(),
        registry: registry.clone(),
        last_entry: last_entry_sender,
        marked_at: Instant::now(),
        dead: false,
    };
    std::thread::Builder::new()
        .name("registry".to_owned())
        .spawn(move || book.run(&inbox))
        .map_err(|error| Fault::new(FaultCode::Internal, format!("failed to start a thread: {error}")))?;
    Ok(registry)
}

/// A migration, and how its supervisor is reached.
struct Held {
    record: Record,
    orders: Option<watch::Sender<Orders>>,
}

/// A change that is ready to be journaled, with what follows from it.
struct Staged {
    change: Change,
    orders: Option<Vec<Effect>>,
}

struct Book {
    parts: Parts,
    held: BTreeMap<Key, Held>,
    registry: Registry,
    last_entry: watch::Sender<u64>,
    marked_at: Instant,
    /// Set at a crash point of a test: nothing is done any more.
    dead: bool,
}

impl Book {
    fn run(&mut self, inbox: &mpsc::Receiver<Command>) {
        let keys: Vec<Key> = self.held.keys().cloned().collect();
        for key in keys {
            // What a daemon that was down has missed, a closed window first of all, comes before anything else.
            self.feed_now(&key, Event::DaemonStarted, "the daemon has started");
            if self.dead {
                return;
            }
        }
        let mut next_tick = Instant::now() + TICK;
        while !self.dead {
            let heard = inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now()));
            if self.parts.crash_point.is_dead() {
                return;
            }
            match heard {
                Ok(Command::Stop { reply }) => {
                    self.say_goodbye();
                    // Nobody may be waiting any more.
                    let _ = reply.send(());
                    return;
                }
                Ok(command) => self.obey(command),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_tick {
                self.tick();
                next_tick = Instant::now() + TICK;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // A caller that has gone away needs no answer.
        match command {
            Command::Feed { origin, event, reply } => {
                let answer = self.feed(&origin, *event);
                let _ = reply.send(answer);
            }
            Command::Apply { workspace, changes, actor, reply } => {
                let answer = self.apply(&workspace, changes, &actor);
                let _ = reply.send(answer);
            }
            Command::Act { workspace, name, act, actor, reply } => {
                let answer = self.act(workspace.as_ref(), &name, act, &actor);
                let _ = reply.send(answer);
            }
            Command::Observe { workspace, name, reply } => {
                let _ = reply.send(self.observe(workspace.as_ref(), name.as_ref()));
            }
            Command::Resolve { workspace, name, reply } => {
                let _ = reply.send(self.resolve(workspace.as_ref(), &name));
            }
            Command::Entries { key, after, reply } => {
                let _ = reply.send(self.parts.journal.entries(&key, after, PAGE));
            }
            Command::Stop { .. } => {}
        }
    }

    fn tick(&mut self) {
        let keys: Vec<Key> = self.held.keys().cloned().collect();
        for key in keys {
            self.feed_now(&key, Event::Tick, "time passes");
            if self.dead {
                return;
            }
        }
        if self.marked_at.elapsed() >= MARK_EVERY {
            self.marked_at = Instant::now();
            if let Err(error) = self.parts.journal.write_mark(&self.parts.clock.mark()) {
                warn!(error = %error.fault(), "the clock's mark could not be stored");
            }
            self.remember_created();
        }
    }

    /// Remembers what runs have created, beside the engine's own checkpoints.
    fn remember_created(&mut self) {
        let runs: Vec<RunId> = self.held.values().map(|held| held.record.run.id.clone()).collect();
        for run in runs {
            let Some(progress) = self.parts.engines.progress(&run) else { continue };
            let known = self.parts.journal.created(&run).map(|known| known.len()).unwrap_or_default();
            if progress.created_namespaces.len() > known
                && let Err(error) = self.parts.journal.add_created(&run, &progress.created_namespaces)
            {
                warn!(%run, error = %error.fault(), "what the run created could not be stored");
            }
        }
    }

    /// What a run has created, as its engine and the journal know it.
    fn created(&self, run: &RunId) -> Vec<Namespace> {
        let mut created = self.parts.journal.created(run).unwrap_or_default();
        if let Some(progress) = self.parts.engines.progress(run) {
            created.extend(progress.created_namespaces);
        }
        created.sort();
        created.dedup();
        created
    }

    fn feed(&mut self, origin: &Origin, event: Event) -> Result<(), Fault> {
        let Some(held) = self.held.get(&origin.key) else { return Ok(()) };
        let orders = held.orders.as_ref().map(|orders| orders.borrow().number);
        if held.record.run.id != origin.run || (origin.orders.is_some() && origin.orders != orders) {
            return Ok(());
        }
        let staged = self.stage(&held.record, event)?;
        match staged {
            Some(staged) => self.commit(vec![staged]),
            None => Ok(()),
        }
    }

    /// Feeds an event of the daemon's own; what goes wrong is logged, and comes again with the next tick.
    fn feed_now(&mut self, key: &Key, event: Event, what: &str) {
        let Some(held) = self.held.get(key) else { return };
        let result = self.stage(&held.record, event).and_then(|staged| staged.map_or(Ok(()), |staged| self.commit(vec![staged])));
        if let Err(fault) = result {
            error!(migration = %key.name, %fault, "{what}, but the journal cannot take what follows from it");
        }
    }

    /// Steps a run. `None` where nothing durable follows; what was heard is kept all the same.
    fn stage(&self, record: &Record, event: Event) -> Result<Option<Staged>, Fault> {
        let now = self.parts.clock.now();
        let taken = advance(&record.run, event, now)?;
        Ok(Some(Staged {
            orders: taken.orders,
            change: Change {
                key: record.key.clone(),
                run: record.run.id.clone(),
                record: (!taken.forget).then(|| Record { run: taken.run, ..record.clone() }),
                notes: taken.notes,
            },
        }))
    }

    /// Journals changes in one transaction, and gives the orders that follow.
    fn commit(&mut self, staged: Vec<Staged>) -> Result<(), Fault> {
        let durable: Vec<bool> = staged.iter().map(|staged| self.is_durable(&staged.change)).collect();
        if durable.contains(&true) {
            let mark = self.parts.clock.mark();
            // Small clones of what is to be written; what is only heard stays out of the transaction.
            let (changes, rest): (Vec<_>, Vec<_>) = staged.into_iter().zip(durable).partition(|(_, durable)| *durable);
            let changes: Vec<Staged> = changes.into_iter().map(|(staged, _)| staged).collect();
            let (changes, orders): (Vec<Change>, Vec<_>) =
                changes.into_iter().map(|staged| (staged.change, staged.orders)).unzip();
            let last = self.parts.journal.write(&changes, &mark).map_err(|error| error.fault())?;
            self.marked_at = Instant::now();
            if let Some(last) = last {
                self.last_entry.send_replace(last);
            }
            for (change, orders) in changes.into_iter().zip(orders) {
                self.take(Staged { change, orders }, true);
                if self.dead {
                    return Err(stopped());
                }
            }
            for (staged, _) in rest {
                self.take(staged, false);
            }
        } else {
            for staged in staged {
                self.take(staged, false);
            }
        }
        Ok(())
    }

    fn is_durable(&self, change: &Change) -> bool {
        let before = self.held.get(&change.key).map(|held| &held.record);
        match (before, &change.record) {
            (Some(before), Some(after)) => {
                !change.notes.is_empty()
                    || after.serial != before.serial
                    || after.declared != before.declared
                    || after.spec != before.spec
                    || after.run.differs_durably(&before.run)
            }
            (None, _) | (_, None) => true,
        }
    }

    /// Takes a change that is in the journal, and gives its orders.
    fn take(&mut self, staged: Staged, journaled: bool) {
        let Staged { change, orders } = staged;
        let key = change.key;
        for note in &change.notes {
            tell(&key, &change.run, note);
        }
        let Some(record) = change.record else {
            if let Some(held) = self.held.remove(&key)
                && let Some(orders) = held.orders
            {
                orders.send_modify(|orders| {
                    orders.number += 1;
                    orders.effects.clear();
                    orders.forgotten = true;
                });
            }
            return;
        };
        let before = self.held.get(&key).map(|held| (held.record.run.id.clone(), held.record.run.phase()));
        let now = (record.run.id.clone(), record.run.phase());
        if journaled && before.as_ref() != Some(&now) && self.parts.crash_point.reach(Place::Journaled(now.1)) {
            self.dead = true;
            return;
        }
        let held = self.held.entry(key.clone()).or_insert_with(|| Held { record: record.clone(), orders: None });
        held.record = record;
        let Some(effects) = orders else { return };
        let next = |number| Orders {
            number,
            run: Arc::new(held.record.run.clone()),
            spec: Arc::clone(&held.record.spec),
            effects,
            forgotten: false,
        };
        match &held.orders {
            Some(sender) => {
                let number = sender.borrow().number + 1;
                sender.send_replace(next(number));
            }
            None => {
                let (sender, receiver) = watch::channel(next(1));
                held.orders = Some(sender);
                (self.parts.supervise)(key, receiver, self.registry.clone());
            }
        }
    }

    fn observe(&self, workspace: Option<&Workspace>, name: Option<&MigrationName>) -> Result<Vec<View>, Fault> {
        let now = self.parts.clock.now();
        let chosen = self
            .held
            .iter()
            .filter(|(key, _)| workspace.is_none_or(|w| *w == key.workspace) && name.is_none_or(|n| *n == key.name));
        chosen
            .map(|(_, held)| {
                Ok(View {
                    record: held.record.clone(),
                    created: self.parts.journal.created(&held.record.run.id).map_err(|e| e.fault())?,
                    now,
                })
            })
            .collect()
    }

    fn resolve(&self, workspace: Option<&Workspace>, name: &MigrationName) -> Result<Key, Fault> {
        let mut workspaces: Vec<Workspace> =
            self.held.keys().filter(|key| key.name == *name).map(|key| key.workspace.clone()).collect();
        if workspaces.is_empty() {
            workspaces = self.parts.journal.workspaces_with(name)?;
        }
        pick(workspace, name, workspaces)
    }

    fn say_goodbye(&mut self) {
        let mark = self.parts.clock.mark();
        self.remember_created();
        let changes: Vec<Change> = self
            .held
            .values()
            .filter(|held| !held.record.run.phase().is_final())
            .map(|held| Change {
                key: held.record.key.clone(),
                run: held.record.run.id.clone(),
                record: Some(held.record.clone()),
                notes: vec![Note {
                    kind: EntryKind::Daemon,
                    from: None,
                    to: None,
                    actor: None,
                    message: "the daemon has stopped".to_owned(),
                }],
            })
            .collect();
        if let Err(error) = self.parts.journal.write(&changes, &mark) {
            warn!(error = %error.fault(), "the stop could not be journaled");
        }
    }
}

/// Steps a run, and refuses a step that breaks a rule.
fn advance(run: &Run, event: Event, now: lifecycle::Now) -> Result<Step, Fault> {
    let taken = step(run, event.clone(), now).map_err(|refusal| refusal.fault())?;
    check(run, &event, &taken.run).map_err(|violation| Fault::new(FaultCode::Internal, violation.to_string()))?;
    Ok(taken)
}

/// The one workspace that is meant.
fn pick(workspace: Option<&Workspace>, name: &MigrationName, workspaces: Vec<Workspace>) -> Result<Key, Fault> {
    let mut candidates: Vec<Workspace> = workspaces.into_iter().filter(|w| workspace.is_none_or(|wanted| wanted == w)).collect();
    match (candidates.pop(), candidates.len()) {
        (Some(workspace), 0) => Ok(Key { workspace, name: name.clone() }),
        (Some(last), _) => {
            candidates.push(last);
            let names: Vec<&str> = candidates.iter().map(Workspace::as_str).collect();
            Err(Fault::new(
                FaultCode::UnknownMigration,
                format!("migration {name} exists in the workspaces {}", names.join(", ")),
            )
            .with_remedy("name the workspace"))
        }
        (None, _) => {
            let place = workspace.map(|w| format!(" in workspace {w}")).unwrap_or_default();
            Err(Fault::new(FaultCode::UnknownMigration, format!("there is no migration {name}{place}")))
        }
    }
}

/// Logs what the journal's readers are told.
fn tell(key: &Key, run: &RunId, note: &Note) {
    let (from, to) = (note.from.map(Phase::as_str), note.to.map(Phase::as_str));
    let actor = note.actor.as_ref().map(ToString::to_string);
    match note.kind {
        EntryKind::Fault => warn!(migration = %key.name, %run, "{}", note.message),
        EntryKind::Applied | EntryKind::ByHand | EntryKind::Transition | EntryKind::Step | EntryKind::Daemon => {
            info!(migration = %key.name, %run, from, to, actor, "{}", note.message);
        }
    }
}

/// The serial of a migration that does not exist yet.
const NO_SERIAL: Serial = Serial(0);
