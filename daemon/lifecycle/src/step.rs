//! The transitions, all of them: `step` takes a run, what happens to it and the time, and says what
//! becomes of it.

mod acknowledge;
mod cutover;
mod operator;
mod sync;
mod time;

use schemas::fault::Fault;
use schemas::history::{Actor, EntryKind};
use schemas::phase::Phase;
use schemas::time::UtcTime;

use crate::duties::duties;
use crate::effect::Effect;
use crate::event::Event;
use crate::refusal::{Guard, Refusal};
use crate::run::Run;
use crate::state::State;

/// The daemon's trusted time. It should never go back; a run does not follow it back where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// In UTC.
    pub utc: UtcTime,
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The run as it is now; to be journaled with the notes before anything is done.
    pub run: Run,
    /// What is to be done from now on, instead of what was to be done before; `None`: that goes on.
    pub orders: Option<Vec<Effect>>,
    /// What is to be told.
    pub notes: Vec<Note>,
    /// Whether nothing is left of the run, so that it is to be removed instead of kept.
    pub forget: bool,
}

/// One thing for the journal's readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What kind of thing.
    pub kind: EntryKind,
    /// The phase before, of a transition.
    pub from: Option<Phase>,
    /// The phase after, of a transition.
    pub to: Option<Phase>,
    /// Who asked for it; `None`: the daemon itself.
    pub actor: Option<Actor>,
    /// What happened, in words.
    pub message: String,
}

/// Tells what becomes of a run. Pure: the same arguments, the same answer.
pub fn step(run: &Run, event: Event, now: Now) -> Result<Step, Refusal> {
    let mut walk = Walk {
        before: run,
        run: run.clone(),
        now: now.utc.max(run.clock),
        notes: Vec::new(),
        again: false,
        restart: false,
    };
    walk.run.clock = walk.now;
    // Time comes first: what arrives at or after a deadline finds it passed.
    walk.pass_time();
    walk.take(event)?;
    // And last: a changed setting may have moved a deadline into the past.
    walk.pass_time();
    Ok(walk.finish())
}

/// A step on its way.
struct Walk<'a> {
    before: &'a Run,
    run: Run,
    now: UtcTime,
    notes: Vec<Note>,
    /// Whether the state's duties are to be done again although they are the same.
    again: bool,
    /// Whether a sync that runs is to be stopped first.
    restart: bool,
}

impl Walk<'_> {
    fn take(&mut self, event: Event) -> Result<(), Refusal> {
        let name = event.name();
        match event {
            Event::DaemonStarted => self.daemon_started(),
            Event::Tick => self.look_at_vitals(),

            Event::Declare { settings, digest, resync, what, actor } => {
                self.declare(settings, digest, resync, what, actor, name)?
            }
            Event::Pause { by, actor } => self.pause(by, actor, name)?,
            Event::Resume { by, actor } => self.resume(by, actor, name)?,
            Event::Cancel { by, actor } => self.cancel(by, actor, name)?,
            Event::Open { side, actor } => self.open(side, actor, name)?,
            Event::Extend { extensions, actor } => self.extend(extensions, actor, name)?,
            Event::Acknowledge { token, actor } => self.acknowledge(token, actor, name)?,
            Event::RestartSync { shard, actor } => self.restart_sync(&shard, actor, name)?,
            Event::Forget { actor } => self.forget(actor, name)?,

            Event::CopyFinished => self.copy_finished(),
            Event::IndexesBuilt => self.indexes_built(),
            Event::ShardStopped { shard, fault } => self.shard_stopped(&shard, &fault),
            Event::Health { lag, caught_up, blockers } => self.health(lag, caught_up, blockers),
            Event::SyncFailed { fault } => self.sync_failed(fault),

            Event::EarlierRetired { run } => self.earlier_retired(&run),
            Event::Validated => self.validated(),
            Event::EarlierDropped => self.earlier_dropped(),
            Event::ExistingDropped => self.existing_dropped(),
            // Neither changes what is durable: after a crash nothing runs, whatever had been
            // started or stopped.
            Event::SyncStarted | Event::SyncStopped => {}
            Event::ResumePoint { held } => self.resume_point(held),
            Event::CutoverPreparing { what, waits } => self.cutover_preparing(what, waits),
            Event::CutoverPrepared { attempt } => self.cutover_prepared(attempt),
            Event::SourceBlocked { attempt } => self.source_blocked(attempt),
            Event::SourceQuiet { attempt } => self.source_quiet(attempt),
            Event::Drained { attempt, final_time } => self.drained(attempt, final_time),
            Event::SourceUnblocked { attempt } => self.source_unblocked(attempt),
            Event::SettingsRestored => self.settings_restored(),
            Event::DestinationOpened => self.destination_opened(),
            Event::DestinationFreed => self.destination_freed(),
            Event::CleanedUp => self.cleaned_up(),
            Event::EffectFailed { effect, fault } => self.effect_failed(&effect, fault),
        }
        Ok(())
    }

    fn finish(self) -> Step {
        let mut now_due = duties(&self.run);
        let changed = self.again || self.restart || now_due != duties(self.before);
        if self.restart {
            now_due.insert(0, Effect::StopSync);
        }
        let orders = changed.then_some(now_due);
        let nothing_held = self.run.earlier.iter().all(|earlier| earlier.retired);
        let forget = self.run.forgetting
            && nothing_held
            && match &self.run.state {
                State::Completed { fenced, .. } => !fenced,
                State::Cancelled { cleaned } => *cleaned,
                State::Validating { .. }
                | State::Copying { .. }
                | State::CatchingUp { .. }
                | State::Ready
                | State::Draining { .. }
                | State::Finalizing { .. }
                | State::Paused { .. }
                | State::Failed { .. }
                | State::Expired { .. } => false,
            };
        Step { run: self.run, orders, notes: self.notes, forget }
    }

    /// Whether an effect is being waited for: an outcome that is not comes from before a crash or a
    /// change of mind.
    fn awaits(&self, effect: &Effect) -> bool {
        duties(&self.run).contains(effect)
    }

    /// Goes into a state, and reports it.
    fn go(&mut self, state: State, message: impl Into<String>, actor: Option<Actor>) {
        let (from, to) = (self.run.state.phase(), state.phase());
        self.run.state = state;
        let note = if from == to {
            Note { kind: EntryKind::Step, from: None, to: None, actor, message: message.into() }
        } else {
            // What was heard of the sync says nothing about the time after a stop.
            if to != Phase::Ready && to != Phase::Draining {
                self.run.vitals.well_since = None;
            }
            self.run.vitals.unwell_since = None;
            Note {
                kind: EntryKind::Transition,
                from: Some(from),
                to: Some(to),
                actor,
                message: message.into(),
            }
        };
        self.notes.push(note);
    }

    /// Tells of something that is no transition.
    fn note(&mut self, kind: EntryKind, message: impl Into<String>, actor: Option<Actor>) {
        self.notes.push(Note { kind, from: None, to: None, actor, message: message.into() });
    }

    /// Shows an error that is being retried. The same one is told once.
    fn trouble(&mut self, fault: Fault) {
        let known = self.run.trouble.as_ref().is_some_and(|known| known.code == fault.code);
        if !known {
            self.note(EntryKind::Fault, fault.to_string(), None);
            self.run.trouble = Some(fault);
        }
    }

    /// Takes back an error that was being retried.
    fn recovered(&mut self) {
        self.run.trouble = None;
    }

    fn refuse(&self, event: &'static str, guard: Guard) -> Refusal {
        Refusal { run: self.run.id.clone(), phase: self.run.phase(), event, guard }
    }
}

#[cfg(test)]
mod tests;
