//! A small world around one migration: two deployments, a daemon that can die at any point, its
//! journal and its clock.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use lifecycle::{
    AfterUndo, By, DrainStage, Effect, Event, FinalStage, Now, Opened, Run, Settings, State, Step,
    Token, ahead_of_journal, begin, check, duties, step, succeed,
};
use proptest::test_runner::TestCaseError;
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::history::Actor;
use schemas::id::{Generation, RunId, ShardName};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::spec::{MigrationSpec, SourceAfter, SourceWrites};
use schemas::time::UtcTime;

use crate::history::{Action, Fate};

type Checked = Result<(), TestCaseError>;

fn ensure(holds: bool, rule: &str, world: &World) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(TestCaseError::fail(format!("{rule}: {:?} {:#?}", world.outside, world.journal)))
    }
}

/// What is true of the two deployments, whatever the daemon believes.
#[derive(Debug, Default)]
struct Outside {
    source_blocked: bool,
    destination_open: bool,
    settings_restored: bool,
    /// The run whose data is on the destination.
    copied_by: Option<RunId>,
    sync_runs: bool,
    cleaned: bool,
    /// Somebody had the destination opened with the settings that it has.
    opened_by_hand: bool,
    /// The application may have written to the destination, and has to stay there.
    handed_over: bool,
}

pub(crate) struct World {
    outside: Outside,
    /// What a start would find; `None` once the run was forgotten.
    journal: Option<Run>,
    spec: MigrationSpec,
    /// The daemon's memory; `None` while it is down.
    daemon: Option<Daemon>,
    wall: i64,
    elapsed: i64,
    /// The newest trusted time.
    trusted: i64,
    crash_at_next_step: Option<bool>,
    /// Whether the disk takes no journal.
    disk_full: bool,
    /// Whether the source may have been unblocked by a daemon that could not journal it.
    undone_ahead: bool,
    runs: u64,
    old_outcomes: Vec<Event>,
    spent: Vec<Token>,
    seen: BTreeSet<&'static str>,
}

struct Daemon {
    run: Run,
    queue: VecDeque<Effect>,
    /// Whether its run is ahead of the journal.
    is_ahead: bool,
    /// Whether it has yet to take the run up.
    is_to_start: bool,
}

impl Daemon {
    fn new(run: Run, queue: VecDeque<Effect>) -> Self {
        Self { run, queue, is_ahead: false, is_to_start: false }
    }
}

fn actor() -> Actor {
    Actor { uid: Some(1000), certificate: None, name: None, revision: None }
}

const FINAL_TIME: ClusterTime = ClusterTime { t: 7, i: 1 };

impl World {
    pub(crate) fn new(spec: MigrationSpec) -> Self {
        let wall = 1_700_000_000_000;
        let now = Now { utc: UtcTime::from_millis(wall) };
        let run = begin(RunId::new(&spec.name, spec.generation, 0), &spec, now);
        let queue = duties(&run).into();
        Self {
            outside: Outside { destination_open: true, ..Outside::default() },
            journal: Some(run.clone()),
            spec,
            daemon: Some(Daemon::new(run, queue)),
            wall,
            elapsed: 0,
            trusted: wall,
            crash_at_next_step: None,
            disk_full: false,
            undone_ahead: false,
            runs: 1,
            old_outcomes: Vec::new(),
            spent: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    pub(crate) fn phases_seen(&self) -> &BTreeSet<&'static str> {
        &self.seen
    }

    pub(crate) fn source_is_blocked(&self) -> bool {
        self.outside.source_blocked
    }

    /// The daemon's clock: the wall, but never behind what was trusted before and has elapsed
    /// since.
    fn now(&mut self) -> Now {
        self.trusted = self.wall.max(self.trusted + self.elapsed);
        self.elapsed = 0;
        Now { utc: UtcTime::from_millis(self.trusted) }
    }

    fn wait(&mut self, millis: i64) {
        self.wall += millis;
        self.elapsed += millis;
    }

    pub(crate) fn act(&mut self, action: Action) -> Checked {
        match action {
            Action::Progress => self.progress()?,
            Action::Effect(fate) => self.effect(fate)?,
            Action::Crash => self.crash(),
            Action::CrashAtNextStep { journaled } => self.crash_at_next_step = Some(journaled),
            Action::Start => self.start()?,
            Action::Disk { full } => self.disk_full = full,
            Action::Wait { millis } => self.wait(millis),
            Action::SetClock { millis } => self.wall += millis,
            Action::Tick => self.feed(Event::Tick)?,
            Action::CopyFinished => self.report(Event::CopyFinished)?,
            Action::IndexesBuilt => self.report(Event::IndexesBuilt)?,
            Action::Health { lag_millis, caught_up, blocked } => {
                let blockers =
                    if blocked { vec!["a mismatch is open".to_owned()] } else { Vec::new() };
                self.report(Event::Health {
                    lag: lag_millis.map(Duration::from_millis),
                    caught_up,
                    blockers,
                })?;
            }
            Action::SyncFailed { retryable } => {
                if self.outside.sync_runs && self.daemon.is_some() {
                    self.outside.sync_runs = false;
                    self.feed(Event::SyncFailed { fault: fault(retryable) })?;
                }
            }
            Action::OldOutcome(index) => {
                if !self.old_outcomes.is_empty() {
                    let event = index.get(&self.old_outcomes).clone();
                    self.feed(event)?;
                }
            }
            Action::AcknowledgeOffered => {
                if let Some(token) =
                    self.daemon.as_ref().and_then(|daemon| daemon.run.offered_token())
                {
                    self.acknowledge(token)?;
                }
            }
            Action::AcknowledgeOld(index) => {
                if !self.spent.is_empty() {
                    let token = index.get(&self.spent).clone();
                    self.acknowledge(token)?;
                }
            }
            Action::AcknowledgeForeign => self.acknowledge(Token::given("cut-of-somebody-else"))?,
            Action::Pause => self.feed(Event::Pause { by: By::Hand, actor: actor() })?,
            Action::Resume => self.feed(Event::Resume { by: By::Hand, actor: actor() })?,
            Action::Cancel => self.feed(Event::Cancel { by: By::Declaration, actor: actor() })?,
            Action::Open(side) => self.open(side)?,
            Action::Extend(extensions) => {
                if self
                    .journal
                    .as_ref()
                    .is_some_and(|run| matches!(run.state, State::Expired { .. }))
                {
                    self.seen.insert("extended_after_expiry");
                }
                self.feed(Event::Extend { extensions, actor: actor() })?;
            }
            Action::Declare(mut spec) => {
                spec.generation = self.spec.generation;
                let event = Event::Declare {
                    settings: Settings::from(&*spec),
                    digest: spec.digest(),
                    resync: spec.cutover.source_writes != self.spec.cutover.source_writes,
                    what: "changed".to_owned(),
                    actor: actor(),
                };
                self.feed(event)?;
            }
            Action::RestartSync => self
                .feed(Event::RestartSync { shard: ShardName("rs0".to_owned()), actor: actor() })?,
            Action::Forget => self.feed(Event::Forget { actor: actor() })?,
            Action::Rerun(spec) => self.rerun(*spec)?,
        }
        self.check_outside()
    }

    /// What would happen next if nothing went wrong.
    fn progress(&mut self) -> Checked {
        let Some(daemon) = &self.daemon else { return self.start() };
        if !daemon.queue.is_empty() {
            return self.effect(Fate::Done);
        }
        let state = daemon.run.state.clone();
        self.wait(700);
        match &state {
            State::Copying { indexes_built: false } => self.report(Event::IndexesBuilt),
            State::Copying { indexes_built: true } => self.report(Event::CopyFinished),
            State::CatchingUp { indexes_built: false } => self.report(Event::IndexesBuilt),
            State::CatchingUp { indexes_built: true } | State::Ready | State::Draining { .. } => {
                self.report(Event::Health {
                    lag: Some(Duration::from_millis(300)),
                    caught_up: true,
                    blockers: Vec::new(),
                })
            }
            State::Validating { .. }
            | State::Finalizing { .. }
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => self.feed(Event::Tick),
        }
    }

    /// Somebody ends a cutover by hand that finalizing does not end.
    fn open(&mut self, side: Opened) -> Checked {
        let returns = |run: &Option<Run>| match run.as_ref().map(|run| &run.state) {
            Some(State::Finalizing { stage, .. }) => Some(*stage),
            _ => None,
        };
        // The journal may not have it, where it could not be written: the destination itself is
        // asked.
        if side == Opened::Source && self.outside.handed_over {
            return Ok(());
        }
        let before = returns(&self.journal);
        self.feed(Event::Open { side, actor: actor() })?;
        let after = self.journal.as_ref().map(|run| run.phase());
        match (before, side, returns(&self.journal)) {
            (Some(FinalStage::Restoring), Opened::Source, Some(FinalStage::Returning)) => {
                self.seen.insert("returned_to_source");
            }
            (Some(FinalStage::Restoring), Opened::Source, None)
                if after == Some(Phase::Cancelled) =>
            {
                self.seen.insert("returned_to_source");
            }
            (Some(FinalStage::Restoring), Opened::Destination, Some(FinalStage::Opening)) => {
                self.outside.opened_by_hand = true;
                self.seen.insert("opened_by_hand");
            }
            _ => {}
        }
        Ok(())
    }

    fn report(&mut self, event: Event) -> Checked {
        if self.outside.sync_runs { self.feed(event) } else { Ok(()) }
    }

    fn acknowledge(&mut self, token: Token) -> Checked {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let before = daemon.run.clone();
        self.feed(Event::Acknowledge { token: token.clone(), actor: actor() })?;
        let Some(after) = self.journal.clone() else { return Ok(()) };
        let taken = after.used_tokens.len() > before.used_tokens.len();
        if taken {
            ensure(!self.spent.contains(&token), "a spent token worked again", self)?;
            let now = UtcTime::from_millis(self.trusted);
            ensure(
                before.deadline().is_some_and(|deadline| now < deadline),
                "an acknowledgement was taken after the window",
                self,
            )?;
            ensure(
                before.unready_reasons(now).is_empty(),
                "an acknowledgement was taken while not ready",
                self,
            )?;
            self.spent.push(token);
        }
        Ok(())
    }

    fn crash(&mut self) {
        if self.outside.source_blocked && self.daemon.is_some() {
            self.seen.insert("crashed_while_blocked");
        }
        self.daemon = None;
        self.outside.sync_runs = false;
        self.crash_at_next_step = None;
    }

    fn start(&mut self) -> Checked {
        if self.daemon.is_some() {
            return Ok(());
        }
        let Some(run) = &self.journal else { return Ok(()) };
        // What is not stored is lost.
        let run = Run::from_json(&run.to_json())
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        self.daemon = Some(Daemon { is_to_start: true, ..Daemon::new(run, VecDeque::new()) });
        self.feed(Event::DaemonStarted)
    }

    /// What went ahead of the journal is written as soon as there is room.
    fn catch_up(&mut self) {
        if let (Some(daemon), false) = (&mut self.daemon, self.disk_full)
            && std::mem::take(&mut daemon.is_ahead)
        {
            self.journal = Some(daemon.run.clone());
            daemon.queue = duties(&daemon.run).into();
            self.seen.insert("caught_up_with_memory");
        }
    }

    /// The daemon steps: journal first, orders then; without a journal only what may go ahead of
    /// it.
    fn feed(&mut self, event: Event) -> Checked {
        self.catch_up();
        let now = self.now();
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let event = if daemon.is_to_start { Event::DaemonStarted } else { event };
        let before = daemon.run.clone();
        let Ok(step) = step(&before, event.clone(), now) else { return Ok(()) };
        check(&before, &event, &step.run).map_err(|violation| {
            TestCaseError::fail(format!("{violation}: {event:?} {before:#?}"))
        })?;
        let durable = step.run.differs_durably(&before);
        if self.disk_full && (durable || step.forget || !step.notes.is_empty()) {
            return self.go_ahead(&event, &before, step);
        }
        if !step.notes.is_empty() && !durable {
            let told_only = matches!(
                event,
                Event::Declare { .. } | Event::RestartSync { .. } | Event::Resume { .. }
            );
            ensure(told_only, "a step told of something that changed nothing", self)?;
        }
        let crash = if durable { self.crash_at_next_step.take() } else { None };
        if crash == Some(false) {
            self.crash();
            return Ok(());
        }
        if let Event::Declare { .. } = &event {
            // The declaration is journaled beside the run.
            if let Event::Declare { settings, .. } = &event {
                self.spec.cutover.source_writes = settings.source_writes;
            }
        }
        self.saw(&step.run);
        if step.forget {
            self.seen.insert("forgotten");
            ensure(!self.outside.source_blocked, "forgotten with a blocked source", self)?;
            self.journal = None;
            self.daemon = None;
            self.outside.sync_runs = false;
            return Ok(());
        }
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        if !daemon.is_ahead {
            self.journal = Some(step.run.clone());
        }
        if crash == Some(true) {
            self.crash();
            return Ok(());
        }
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        daemon.is_to_start = false;
        daemon.run = step.run;
        if let Some(orders) = step.orders {
            daemon.queue = orders.into();
        }
        Ok(())
    }

    /// A step that cannot be journaled: what a person asks for is refused, and the daemon's own
    /// goes ahead as far as it may.
    fn go_ahead(&mut self, event: &Event, before: &Run, step: Step) -> Checked {
        let is_own = match event {
            Event::Declare { .. }
            | Event::Pause { .. }
            | Event::Resume { .. }
            | Event::Cancel { .. }
            | Event::Open { .. }
            | Event::Extend { .. }
            | Event::Acknowledge { .. }
            | Event::RestartSync { .. }
            | Event::Forget { .. } => false,
            Event::DaemonStarted
            | Event::Tick
            | Event::CopyFinished
            | Event::IndexesBuilt
            | Event::Health { .. }
            | Event::ShardStopped { .. }
            | Event::SyncFailed { .. }
            | Event::EarlierRetired { .. }
            | Event::Validated
            | Event::EarlierDropped
            | Event::ExistingDropped
            | Event::SyncStarted
            | Event::SyncStopped
            | Event::ResumePoint { .. }
            | Event::CutoverPreparing { .. }
            | Event::CutoverPrepared { .. }
            | Event::SourceBlocked { .. }
            | Event::SourceQuiet { .. }
            | Event::Drained { .. }
            | Event::SourceUnblocked { .. }
            | Event::SettingsRestored
            | Event::DestinationOpened
            | Event::DestinationFreed
            | Event::CleanedUp
            | Event::EffectFailed { .. } => true,
        };
        let (Some(journaled), Some(daemon)) = (&self.journal, &mut self.daemon) else {
            return Ok(());
        };
        let allowed = if is_own && !step.forget {
            ahead_of_journal(journaled, before, &step.run)
        } else {
            None
        };
        let Some(allowed) = allowed else {
            // Whoever reported it reports again; meanwhile what is demanded is done again.
            let known = duties(journaled);
            daemon.queue = duties(&daemon.run)
                .into_iter()
                .filter(|one| known.contains(one) || one.gives_back())
                .collect();
            return Ok(());
        };
        let is_undoing = |run: &Run| {
            matches!(run.state, State::Draining { stage: DrainStage::Undoing { .. }, .. })
        };
        if is_undoing(&step.run) && !is_undoing(journaled) {
            self.undone_ahead = true;
            self.seen.insert("undone_ahead");
        }
        (daemon.is_ahead, daemon.is_to_start) = (true, false);
        daemon.run = step.run;
        if step.orders.is_some() {
            daemon.queue = allowed.into();
        }
        Ok(())
    }

    fn saw(&mut self, run: &Run) {
        self.seen.insert(run.phase().as_str());
        if let State::Draining { stage: DrainStage::Undoing { .. }, .. } = &run.state {
            self.seen.insert("undoing");
        }
    }

    fn effect(&mut self, fate: Fate) -> Checked {
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let Some(effect) = daemon.queue.front().cloned() else { return Ok(()) };
        match fate {
            Fate::CrashBefore => {
                self.crash();
                Ok(())
            }
            Fate::DoneThenCrash => {
                self.carry_out(&effect)?;
                self.crash();
                Ok(())
            }
            Fate::Failed { took_hold, retryable } => {
                if took_hold || matches!(effect, Effect::StopSync) {
                    self.carry_out(&effect)?;
                }
                if matches!(effect, Effect::StopSync) {
                    // It cannot fail.
                    return self.done(&effect);
                }
                if matches!(effect, Effect::StartSync) {
                    self.outside.sync_runs = false;
                }
                self.feed(Event::EffectFailed { effect, fault: fault(retryable) })
            }
            Fate::Done => {
                self.carry_out(&effect)?;
                self.done(&effect)
            }
            Fate::Doubled => {
                self.carry_out(&effect)?;
                self.carry_out(&effect)?;
                self.done(&effect)?;
                self.feed(outcome(&effect))
            }
        }
    }

    /// The first effect of the queue is done: it leaves the queue, unless its outcome brings other
    /// orders.
    fn done(&mut self, effect: &Effect) -> Checked {
        let event = outcome(effect);
        // The daemon takes outcomes of the present orders only; those that name what they belong to
        // are safe beyond that.
        match &event {
            Event::EarlierRetired { .. }
            | Event::CutoverPrepared { .. }
            | Event::SourceBlocked { .. }
            | Event::SourceQuiet { .. }
            | Event::Drained { .. }
            | Event::SourceUnblocked { .. } => self.old_outcomes.push(event.clone()),
            _ => {}
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.queue.pop_front();
        }
        self.feed(event)
    }

    /// Changes the outside as an effect does.
    fn carry_out(&mut self, effect: &Effect) -> Checked {
        let journaled = self
            .journal
            .clone()
            .ok_or_else(|| TestCaseError::fail("an effect of a forgotten run"))?;
        let is_ahead = self.daemon.as_ref().is_some_and(|daemon| daemon.is_ahead);
        let recorded = duties(&journaled).contains(effect)
            || matches!(effect, Effect::StopSync)
            || (is_ahead && effect.gives_back());
        ensure(recorded, &format!("{effect:?} has no journal record"), self)?;
        let own_data = self.outside.copied_by.as_ref() == Some(&journaled.id);
        match effect {
            Effect::RetireEarlier { .. } => {
                self.outside.source_blocked = false;
                self.outside.destination_open = true;
                self.outside.sync_runs = false;
            }
            Effect::Validate => {
                // Retired again after a crash, where the journal has yet to take it.
                let known = self.daemon.as_ref().map_or(&journaled, |daemon| &daemon.run);
                ensure(
                    known.earlier.iter().all(|earlier| earlier.retired),
                    "checks before an earlier run was retired",
                    self,
                )?;
            }
            Effect::DropEarlier | Effect::DropExisting => {
                ensure(!own_data, "a run's own data was dropped", self)?;
                self.outside.copied_by = None;
                self.outside.settings_restored = false;
            }
            Effect::StartSync => {
                ensure(
                    !(self.outside.settings_restored && own_data),
                    "synced into restored settings",
                    self,
                )?;
                self.outside.sync_runs = true;
                self.outside.destination_open = false;
                self.outside.cleaned = false;
                self.outside.copied_by = Some(journaled.id.clone());
                (self.outside.opened_by_hand, self.outside.handed_over) = (false, false);
            }
            Effect::StopSync => self.outside.sync_runs = false,
            Effect::CheckResumePoint
            | Effect::PrepareCutover { .. }
            | Effect::WatchSource { .. } => {}
            Effect::BlockSource { .. } => self.outside.source_blocked = true,
            Effect::Drain { .. } => {
                let observed = journaled
                    .state
                    .cutover()
                    .is_some_and(|cutover| cutover.mode == SourceWrites::Observe);
                let is_up = observed || self.outside.source_blocked || self.undone_ahead;
                ensure(is_up, "drained while the source takes writes", self)?;
                // It is put up once more before the source's last time is taken.
                self.outside.source_blocked |= !observed;
            }
            Effect::UnblockSource { .. } => self.outside.source_blocked = false,
            Effect::RestoreSettings => {
                ensure(
                    !self.outside.sync_runs,
                    "settings were restored under a running sync",
                    self,
                )?;
                self.outside.settings_restored = true;
            }
            Effect::OpenDestination => {
                let agreed = self.outside.settings_restored || self.outside.opened_by_hand;
                ensure(agreed, "opened before the settings were restored", self)?;
                ensure(!self.outside.sync_runs, "opened under a running sync", self)?;
                self.outside.destination_open = true;
                self.outside.handed_over = true;
            }
            Effect::FreeDestination => {
                ensure(!self.outside.sync_runs, "freed under a running sync", self)?;
                self.outside.destination_open = true;
            }
            Effect::CleanUp => self.outside.cleaned = true,
        }
        self.check_outside()
    }

    fn rerun(&mut self, mut spec: MigrationSpec) -> Checked {
        let now = self.now();
        let Some(daemon) = &self.daemon else { return Ok(()) };
        if self.disk_full || daemon.is_ahead {
            return Ok(());
        }
        spec.generation = Generation(daemon.run.generation.0 + 1);
        let created = if self.outside.copied_by.as_ref() == Some(&daemon.run.id) {
            vec![Namespace::new("shop", "orders")]
        } else {
            vec![]
        };
        let id = RunId::new(&spec.name, spec.generation, self.runs);
        let Ok(run) = succeed(&daemon.run, &self.spec, created, id, &spec, now) else {
            return Ok(());
        };
        self.runs += 1;
        self.seen.insert("rerun");
        self.spec = spec;
        self.old_outcomes.clear();
        self.journal = Some(run.clone());
        let queue = duties(&run).into();
        self.daemon = Some(Daemon::new(run, queue));
        Ok(())
    }

    /// What must be true of the outside at any moment, also while the daemon is down.
    fn check_outside(&self) -> Checked {
        let Some(run) = &self.journal else {
            return ensure(!self.outside.source_blocked, "forgotten with a blocked source", self);
        };
        if self.outside.source_blocked {
            let by_earlier = run.earlier.iter().any(|earlier| earlier.fenced && !earlier.retired);
            ensure(
                run.state.may_fence() || by_earlier,
                "the source is blocked where it must not be",
                self,
            )?;
        }
        if self.outside.handed_over && self.outside.copied_by.as_ref() == Some(&run.id) {
            let stays = matches!(run.state, State::Finalizing { .. } | State::Completed { .. });
            ensure(stays, "a run ended elsewhere whose destination had been handed over", self)?;
        }
        match &run.state {
            State::Completed { fenced, .. } => {
                let agreed = self.outside.settings_restored || self.outside.opened_by_hand;
                ensure(
                    self.outside.destination_open && agreed,
                    "completed without its destination",
                    self,
                )?;
                ensure(self.outside.cleaned, "completed without its clean-up", self)?;
                ensure(
                    *fenced || !self.outside.source_blocked,
                    "completed with a block that nobody remembers",
                    self,
                )
            }
            State::Cancelled { cleaned: true } => ensure(
                self.outside.destination_open,
                "cancelled without giving the destination back",
                self,
            ),
            State::Expired { freed: true, extended: false, .. } => ensure(
                self.outside.destination_open,
                "expired without giving the destination back",
                self,
            ),
            State::Ready => {
                ensure(!run.is_past_deadline(run.clock), "ready after its deadline", self)
            }
            State::Expired { .. }
            | State::Cancelled { cleaned: false }
            | State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Draining { .. }
            | State::Finalizing { .. }
            | State::Paused { .. }
            | State::Failed { .. } => Ok(()),
        }
    }

    /// The faults have stopped: every run must come to rest, and one that was cutting over must be
    /// done or undone.
    pub(crate) fn come_to_rest(&mut self) -> Checked {
        self.crash_at_next_step = None;
        self.disk_full = false;
        self.catch_up();
        if self.journal.is_none() {
            return Ok(());
        }
        self.start()?;
        let Some(before) = self.journal.clone() else { return Ok(()) };
        // Enough for every effect and report of a whole life; time passes by less than the shortest
        // max_downtime in between.
        for _ in 0..60 {
            self.progress()?;
            self.check_outside()?;
        }
        let Some(after) = self.journal.clone() else { return Ok(()) };
        let at_rest = match &after.state {
            State::Ready
            | State::Completed { .. }
            | State::Paused { .. }
            | State::Failed { .. }
            | State::Cancelled { cleaned: true }
            | State::Expired { extended: false, freed: true, .. } => true,
            State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Draining { .. }
            | State::Finalizing { .. }
            | State::Cancelled { cleaned: false }
            | State::Expired { .. } => false,
        };
        ensure(at_rest, "the run did not come to rest", self)?;
        let queue_is_empty = self.daemon.as_ref().is_none_or(|daemon| daemon.queue.is_empty());
        ensure(queue_is_empty, "something is left to do", self)?;
        let undone_or_done = match (&before.state, &after.state) {
            (State::Finalizing { stage: FinalStage::Returning, .. }, State::Cancelled { .. }) => {
                true
            }
            (State::Finalizing { stage: FinalStage::Returning, .. }, _) => false,
            (State::Finalizing { .. }, State::Completed { .. }) => true,
            (State::Finalizing { .. }, _) => false,
            (
                State::Draining {
                    stage: DrainStage::Undoing { then: AfterUndo::Failed, .. }, ..
                },
                State::Failed { .. },
            ) => true,
            (
                State::Draining { .. },
                State::Completed { .. } | State::Ready | State::Expired { .. },
            ) => true,
            (State::Draining { .. }, _) => false,
            (_, _) => true,
        };
        ensure(undone_or_done, "a cutover was left halfway", self)?;
        if self.outside.source_blocked {
            let by_declaration = matches!(after.state, State::Completed { .. })
                && after.settings.source_after == SourceAfter::Blocked
                && !after.forgetting;
            ensure(by_declaration, "the source was left blocked", self)?;
        }
        // And a ready run can still be cut over.
        if matches!(after.state, State::Ready) {
            let token = after
                .offered_token()
                .ok_or_else(|| TestCaseError::fail("ready without a token"))?;
            self.acknowledge(token)?;
            for _ in 0..30 {
                self.progress()?;
                self.check_outside()?;
            }
            let completed = self
                .journal
                .as_ref()
                .is_none_or(|run| matches!(run.state, State::Completed { .. }));
            ensure(completed, "a ready run could not be cut over", self)?;
        }
        Ok(())
    }
}

fn fault(retryable: bool) -> Fault {
    if retryable {
        Fault::new(FaultCode::Unreachable, "gone")
    } else {
        Fault::new(FaultCode::MissingPrivileges, "not allowed")
    }
}

fn outcome(effect: &Effect) -> Event {
    match effect {
        Effect::RetireEarlier { run } => Event::EarlierRetired { run: run.clone() },
        Effect::Validate => Event::Validated,
        Effect::DropEarlier => Event::EarlierDropped,
        Effect::DropExisting => Event::ExistingDropped,
        Effect::StartSync => Event::SyncStarted,
        Effect::StopSync => Event::SyncStopped,
        Effect::CheckResumePoint => Event::ResumePoint { held: true },
        Effect::PrepareCutover { attempt } => Event::CutoverPrepared { attempt: *attempt },
        Effect::BlockSource { attempt } => Event::SourceBlocked { attempt: *attempt },
        Effect::WatchSource { attempt } => Event::SourceQuiet { attempt: *attempt },
        Effect::Drain { attempt } => Event::Drained { attempt: *attempt, final_time: FINAL_TIME },
        Effect::UnblockSource { attempt } => Event::SourceUnblocked { attempt: *attempt },
        Effect::RestoreSettings => Event::SettingsRestored,
        Effect::OpenDestination => Event::DestinationOpened,
        Effect::FreeDestination => Event::DestinationFreed,
        Effect::CleanUp => Event::CleanedUp,
    }
}
