//! What the registry's thread holds, and how it steps, journals and gives orders.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lifecycle::{Effect, Event, Note, Run, Step, ahead_of_journal, check, duties, step};
use schemas::fault::{Fault, FaultCode};
use schemas::history::EntryKind;
use schemas::id::{MigrationName, RunId, Serial, Workspace};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::report::Report;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Command, Orders, Origin, Parts, Registry, View, stopped};
use crate::crash_point::Place;
use crate::journal::{Change, Key, Record};

/// Entries that one read of the journal brings.
const PAGE: u32 = 500;

/// How often the clock's mark and the created namespaces are stored when nothing else is.
const MARK_EVERY: Duration = Duration::from_secs(5);

/// How often the journal is tried while it cannot be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How often time is let pass for every run: well below the second, in which deadlines are told.
const TICK: Duration = Duration::from_millis(250);

/// A migration, and how its supervisor is reached.
pub(super) struct Held {
    pub(super) record: Record,
    orders: Option<watch::Sender<Orders>>,
    /// Set while the record is ahead of the journal, which cannot be written.
    ahead: Option<Ahead>,
    /// Whether the run has yet to be taken up since the daemon has started.
    is_to_start: bool,
}

/// How far a record is ahead of the journal.
struct Ahead {
    /// The run as the journal has it.
    journaled: Box<Run>,
    /// What the journal is still to be told.
    notes: Vec<Note>,
}

impl Held {
    fn journaled(&self) -> &Run {
        self.ahead.as_ref().map_or(&self.record.run, |ahead| &ahead.journaled)
    }
}

/// A change that is ready to be journaled, with what follows from it.
pub(super) struct Staged {
    pub(super) change: Change,
    pub(super) orders: Option<Vec<Effect>>,
}

pub(super) struct Book {
    pub(super) parts: Parts,
    pub(super) held: BTreeMap<Key, Held>,
    registry: Registry,
    last_entry: watch::Sender<u64>,
    marked_at: Instant,
    /// Why the journal cannot be written, since it could not be the last time.
    journal_fault: Option<Fault>,
    /// Set at a crash point of a test: nothing is done any more.
    dead: bool,
}

impl Book {
    pub(super) fn new(
        parts: Parts,
        records: Vec<Record>,
        registry: Registry,
        last_entry: watch::Sender<u64>,
    ) -> Self {
        Self {
            parts,
            held: records
                .into_iter()
                .map(|record| {
                    (
                        record.key.clone(),
                        Held { record, orders: None, ahead: None, is_to_start: true },
                    )
                })
                .collect(),
            registry,
            last_entry,
            marked_at: Instant::now(),
            journal_fault: None,
            dead: false,
        }
    }

    pub(super) fn run(&mut self, inbox: &mpsc::Receiver<Command>) {
        let keys: Vec<Key> = self.held.keys().cloned().collect();
        for key in keys {
            // What a daemon that was down has missed, a closed window first of all, comes before
            // anything else.
            self.feed_now(&key, Event::DaemonStarted);
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
            Command::Records { reply } => {
                let _ =
                    reply.send(Ok(self.held.values().map(|held| held.record.clone()).collect()));
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
            Command::Report { workspace, name, reply } => {
                let _ = reply.send(self.report(workspace.as_ref(), &name));
            }
            Command::Stop { .. } => {}
        }
    }

    fn tick(&mut self) {
        self.catch_up();
        let keys: Vec<Key> = self.held.keys().cloned().collect();
        for key in keys {
            let is_to_start = self.held.get(&key).is_some_and(|held| held.is_to_start);
            self.feed_now(&key, if is_to_start { Event::DaemonStarted } else { Event::Tick });
            if self.dead {
                return;
            }
        }
        // The mark is what reports that the journal can be written again, too.
        let mark_every = if self.journal_fault.is_some() { TRY_AGAIN } else { MARK_EVERY };
        if self.marked_at.elapsed() >= mark_every {
            self.marked_at = Instant::now();
            match self.parts.journal.write_mark(&self.parts.clock.mark()) {
                // A small write may find room where what waits does not.
                Ok(())
                    if self.held.values().any(|held| held.ahead.is_some() || held.is_to_start) => {}
                Ok(()) => self.journal_works(),
                Err(error) => self.journal_fails(error.fault()),
            }
            self.remember_created();
        }
    }

    /// Writes what went ahead of the journal, as soon as it can be written, and gives the orders
    /// that waited for it.
    fn catch_up(&mut self) {
        let ahead = |held: &Held| {
            held.ahead.as_ref().map(|ahead| Change {
                key: held.record.key.clone(),
                run: held.record.run.id.clone(),
                record: Some(held.record.clone()),
                notes: ahead.notes.clone(),
            })
        };
        let changes: Vec<Change> = self.held.values().filter_map(ahead).collect();
        if changes.is_empty() || self.write(&changes).is_err() {
            return;
        }
        for change in changes {
            let Some(record) = change.record else { continue };
            info!(migration = %change.key.name, run = %change.run, "the journal has caught up");
            let orders = Some(duties(&record.run));
            self.take(
                Staged {
                    change: Change { record: Some(record), notes: Vec::new(), ..change },
                    orders,
                },
                true,
            );
            if self.dead {
                return;
            }
        }
    }

    /// Writes changes, with what went ahead of the journal before them.
    fn write(&mut self, changes: &[Change]) -> Result<(), Fault> {
        let mark = self.parts.clock.mark();
        let reports: Vec<Report> =
            changes.iter().filter_map(|change| self.completes(change, mark.utc)).collect();
        let last = match self.parts.journal.write_with(changes, &reports, &mark) {
            Ok(last) => last,
            Err(error) => {
                let fault = error.fault();
                self.journal_fails(fault.clone());
                return Err(fault);
            }
        };
        self.marked_at = Instant::now();
        if let Some(last) = last {
            self.last_entry.send_replace(last);
        }
        for change in changes {
            if let Some(held) = self.held.get_mut(&change.key) {
                held.ahead = None;
            }
        }
        self.journal_works();
        Ok(())
    }

    fn journal_fails(&mut self, fault: Fault) {
        if self.journal_fault.as_ref() != Some(&fault) {
            error!(%fault, "the journal cannot be written: only what gives something back goes on \
                 without it");
        }
        self.journal_fault = Some(fault);
    }

    fn journal_works(&mut self) {
        if self.journal_fault.take().is_some() {
            info!("the journal can be written again");
        }
    }

    /// Remembers what runs have created, beside the engine's own checkpoints.
    fn remember_created(&mut self) {
        let runs: Vec<RunId> = self.held.values().map(|held| held.record.run.id.clone()).collect();
        for run in runs {
            let Some(progress) = self.parts.engines.progress(&run) else { continue };
            let known =
                self.parts.journal.created(&run).map(|known| known.len()).unwrap_or_default();
            if progress.created_namespaces.len() > known
                && let Err(error) =
                    self.parts.journal.add_created(&run, &progress.created_namespaces)
            {
                warn!(%run, error = %error.fault(), "what the run created could not be stored");
            }
        }
    }

    /// What a run has created, as its engine and the journal know it.
    pub(super) fn created(&self, run: &RunId) -> Vec<Namespace> {
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
        if held.record.run.id != origin.run || (origin.orders.is_some() && origin.orders != orders)
        {
            return Ok(());
        }
        let staged = self.stage(&held.record, event)?;
        self.commit_or_go_ahead(staged)
    }

    /// Feeds an event of the daemon's own; what goes wrong is logged, and comes again with the next
    /// tick.
    fn feed_now(&mut self, key: &Key, event: Event) {
        let Some(held) = self.held.get(key) else { return };
        let name = event.name();
        let is_start = matches!(event, Event::DaemonStarted);
        let started = is_start && !held.record.run.phase().is_final();
        let result = self.stage(&held.record, event).and_then(|mut staged| {
            if started {
                staged.change.notes.insert(0, daemon_note("the daemon has started"));
            }
            self.commit_or_go_ahead(staged)
        });
        match result {
            Ok(()) => {
                if let (true, Some(held)) = (is_start, self.held.get_mut(key)) {
                    held.is_to_start = false;
                }
            }
            // A journal that cannot be written is reported once.
            Err(fault) if self.dead || fault.code == FaultCode::StateDirUnusable => {}
            Err(fault) => {
                error!(migration = %key.name, event = name, %fault, "the daemon cannot go on with \
                     it")
            }
        }
    }

    /// Steps a run.
    pub(super) fn stage(&self, record: &Record, event: Event) -> Result<Staged, Fault> {
        let now = self.parts.clock.now();
        let taken = advance(&record.run, event, now)?;
        Ok(Staged {
            orders: taken.orders,
            change: Change {
                key: record.key.clone(),
                run: record.run.id.clone(),
                record: (!taken.forget).then(|| Record { run: taken.run, ..record.clone() }),
                notes: taken.notes,
            },
        })
    }

    /// Journals a change of the daemon's own. Where the journal cannot be written, what may go
    /// ahead of it does.
    fn commit_or_go_ahead(&mut self, staged: Staged) -> Result<(), Fault> {
        let (key, notes) = (staged.change.key.clone(), staged.change.notes.clone());
        let after = staged.change.record.clone();
        let orders = staged.orders.clone();
        let refused = match self.commit(vec![staged]) {
            Err(fault) if fault.code == FaultCode::StateDirUnusable && !self.dead => fault,
            committed => return committed,
        };
        let (Some(record), Some(held)) = (after, self.held.get_mut(&key)) else {
            return Err(refused);
        };
        let journaled = held.journaled().clone();
        let Some(allowed) = ahead_of_journal(&journaled, &held.record.run, &record.run) else {
            return Err(refused);
        };
        let run = record.run.id.clone();
        let ahead = held
            .ahead
            .get_or_insert_with(|| Ahead { journaled: Box::new(journaled), notes: Vec::new() });
        ahead.notes.extend(notes.iter().cloned());
        let change = Change { key, run, record: Some(record), notes };
        self.take(Staged { change, orders: orders.map(|_| allowed) }, false);
        Ok(())
    }

    /// Journals changes in one transaction, and gives the orders that follow.
    pub(super) fn commit(&mut self, staged: Vec<Staged>) -> Result<(), Fault> {
        let durable: Vec<bool> =
            staged.iter().map(|staged| self.is_durable(&staged.change)).collect();
        if durable.contains(&true) {
            // What is only heard stays out of the transaction.
            let (changes, rest): (Vec<_>, Vec<_>) =
                staged.into_iter().zip(durable).partition(|(_, durable)| *durable);
            let changes: Vec<Staged> = changes.into_iter().map(|(staged, _)| staged).collect();
            let (mut changes, orders): (Vec<Change>, Vec<_>) =
                changes.into_iter().map(|staged| (staged.change, staged.orders)).unzip();
            let mut caught_up = Vec::new();
            for change in &mut changes {
                let ahead = self.held.get(&change.key).and_then(|held| held.ahead.as_ref());
                caught_up.push(ahead.is_some());
                // What was told already when it happened is told to the journal only.
                if let Some(ahead) = ahead {
                    change.notes.splice(0..0, ahead.notes.iter().cloned());
                }
            }
            self.write(&changes)?;
            for ((change, orders), caught_up) in changes.into_iter().zip(orders).zip(caught_up) {
                // Orders that waited for the journal are given with it.
                let demanded = || change.record.as_ref().map(|record| duties(&record.run));
                let orders = if caught_up { orders.or_else(demanded) } else { orders };
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
        let before =
            self.held.get(&key).map(|held| (held.record.run.id.clone(), held.record.run.phase()));
        let now = (record.run.id.clone(), record.run.phase());
        if journaled
            && before.as_ref() != Some(&now)
            && self.parts.crash_point.reach(Place::Journaled(now.1))
        {
            self.dead = true;
            return;
        }
        let held = self.held.entry(key.clone()).or_insert_with(|| Held {
            record: record.clone(),
            orders: None,
            ahead: None,
            is_to_start: false,
        });
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

    fn observe(
        &self,
        workspace: Option<&Workspace>,
        name: Option<&MigrationName>,
    ) -> Result<Vec<View>, Fault> {
        let now = self.parts.clock.now();
        let chosen = self.held.iter().filter(|(key, _)| {
            workspace.is_none_or(|w| *w == key.workspace) && name.is_none_or(|n| *n == key.name)
        });
        chosen
            .map(|(_, held)| {
                Ok(View {
                    record: held.record.clone(),
                    created: self
                        .parts
                        .journal
                        .created(&held.record.run.id)
                        .map_err(|e| e.fault())?,
                    journal_fault: self.journal_fault.clone(),
                    now,
                })
            })
            .collect()
    }

    fn resolve(&self, workspace: Option<&Workspace>, name: &MigrationName) -> Result<Key, Fault> {
        let mut workspaces: Vec<Workspace> = self
            .held
            .keys()
            .filter(|key| key.name == *name)
            .map(|key| key.workspace.clone())
            .collect();
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
                notes: vec![daemon_note("the daemon has stopped")],
            })
            .collect();
        if let Err(error) = self.parts.journal.write(&changes, &mark) {
            warn!(error = %error.fault(), "the stop could not be journaled");
        }
    }
}

fn daemon_note(message: &str) -> Note {
    Note { kind: EntryKind::Daemon, from: None, to: None, actor: None, message: message.to_owned() }
}

/// Steps a run, and refuses a step that breaks a rule.
pub(super) fn advance(run: &Run, event: Event, now: lifecycle::Now) -> Result<Step, Fault> {
    let taken = step(run, event.clone(), now).map_err(|refusal| refusal.fault())?;
    check(run, &event, &taken.run)
        .map_err(|violation| Fault::new(FaultCode::Internal, violation.to_string()))?;
    Ok(taken)
}

/// The one workspace that is meant.
pub(super) fn pick(
    workspace: Option<&Workspace>,
    name: &MigrationName,
    workspaces: Vec<Workspace>,
) -> Result<Key, Fault> {
    let mut candidates: Vec<Workspace> =
        workspaces.into_iter().filter(|w| workspace.is_none_or(|wanted| wanted == w)).collect();
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
            Err(Fault::new(
                FaultCode::UnknownMigration,
                format!("there is no migration {name}{place}"),
            ))
        }
    }
}

/// Logs what the journal's readers get.
fn tell(key: &Key, run: &RunId, note: &Note) {
    let (from, to) = (note.from.map(Phase::as_str), note.to.map(Phase::as_str));
    let actor = note.actor.as_ref().map(ToString::to_string);
    match note.kind {
        EntryKind::Fault => warn!(migration = %key.name, %run, "{}", note.message),
        EntryKind::Applied
        | EntryKind::ByHand
        | EntryKind::Transition
        | EntryKind::Step
        | EntryKind::Daemon => {
            info!(migration = %key.name, %run, from, to, actor, "{}", note.message);
        }
    }
}

/// The serial of a migration that does not exist yet.
pub(super) const NO_SERIAL: Serial = Serial(0);
