//! Each transition alone: what it demands, and what it refuses.

use std::time::Duration;

use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::history::{Actor, EntryKind};
use schemas::id::{Generation, RunId, ShardName};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::spec::{ExistingData, MigrationSpec, SourceAfter, SourceWrites};
use schemas::time::{Length, UtcTime};

use super::{Now, Step, step};
use crate::{
    Attempt, By, Effect, EffectKind, Event, Guard, Opened, Refusal, Run, Settings, State, Token,
    begin, duties, succeed,
};

const SPEC: &str = r#"{"name":"orders","generation":1,"paused":false,
    "source":{"uri":"mongodb://a:1","username":null,"password":null,"tls":null},
    "destination":{"uri":"mongodb://b:1","username":null,"password":null,"tls":null,
    "existing_data":"refuse","block_writes":null},
    "namespaces":{"include":[],"exclude":[],"include_users":false},
    "copy":{"parallelism":null,"indexes":"after_copy","rate_limit":null}, "sharding":null,
    "verify":{"mode":"full"},
    "cutover":{"window":"120h","extensions":0,"max_lag":"10s","max_downtime":"5m",
    "source_writes":"block",
    "source_after":"blocked","acknowledge":null}}"#;

fn spec() -> MigrationSpec {
    serde_json::from_str(SPEC).expect("a spec")
}

/// A run and a clock that a test moves.
struct Life {
    run: Run,
    now: i64,
}

const BLOCK: Attempt = Attempt(1);
const FINAL_TIME: ClusterTime = ClusterTime { t: 9, i: 2 };

impl Life {
    fn of(spec: &MigrationSpec) -> Self {
        let now = 1_000_000;
        Self {
            run: begin(
                RunId::new(&spec.name, spec.generation, 1),
                spec,
                Now { utc: UtcTime::from_millis(now) },
            ),
            now,
        }
    }

    fn new() -> Self {
        Self::of(&spec())
    }

    fn copying() -> Self {
        let mut life = Self::new();
        life.feed(Event::Validated);
        life
    }

    fn catching_up(spec: &MigrationSpec) -> Self {
        let mut life = Self::of(spec);
        life.feed(Event::Validated);
        life.feed(Event::CopyFinished);
        life.feed(Event::IndexesBuilt);
        life
    }

    fn ready_by(spec: &MigrationSpec) -> Self {
        let mut life = Self::catching_up(spec);
        life.healthy();
        life.wait(2_000);
        life.healthy();
        assert_eq!(life.run.phase(), Phase::Ready);
        life
    }

    fn ready() -> Self {
        Self::ready_by(&spec())
    }

    /// Acknowledged, with the source blocked and everything left to drain.
    fn applying() -> Self {
        let mut life = Self::ready();
        life.acknowledge().expect("ready");
        life.feed(Event::CutoverPrepared { attempt: BLOCK });
        life.feed(Event::SourceBlocked { attempt: BLOCK });
        life
    }

    fn completed_by(spec: &MigrationSpec) -> Self {
        let mut life = Self::ready_by(spec);
        life.acknowledge().expect("ready");
        for event in [
            Event::CutoverPrepared { attempt: BLOCK },
            Event::SourceBlocked { attempt: BLOCK },
            Event::Drained { attempt: BLOCK, final_time: FINAL_TIME },
            Event::SettingsRestored,
            Event::DestinationOpened,
            Event::SourceUnblocked { attempt: BLOCK },
            Event::CleanedUp,
        ] {
            life.feed(event);
        }
        assert_eq!(life.run.phase(), Phase::Completed);
        life
    }

    fn wait(&mut self, millis: i64) {
        self.now += millis;
    }

    fn try_feed(&mut self, event: Event) -> Result<Step, Refusal> {
        let before = self.run.clone();
        let step = step(&before, event.clone(), Now { utc: UtcTime::from_millis(self.now) })?;
        crate::check(&before, &event, &step.run).expect("the rules hold");
        self.run = step.run.clone();
        Ok(step)
    }

    fn feed(&mut self, event: Event) -> Step {
        self.try_feed(event).expect("it fits")
    }

    fn healthy(&mut self) -> Step {
        self.feed(Event::Health {
            lag: Some(Duration::from_millis(300)),
            caught_up: true,
            blockers: Vec::new(),
        })
    }

    fn acknowledge(&mut self) -> Result<Step, Refusal> {
        let token = self.run.next_token();
        self.try_feed(Event::Acknowledge { token, actor: ada() })
    }

    fn due(&self) -> Vec<EffectKind> {
        duties(&self.run).iter().map(Effect::kind).collect()
    }
}

fn ada() -> Actor {
    Actor {
        uid: Some(7),
        certificate: None,
        name: Some("ada".to_owned()),
        revision: Some("abc".to_owned()),
    }
}

fn passing() -> Fault {
    Fault::new(FaultCode::Unreachable, "gone")
}

fn lasting() -> Fault {
    Fault::new(FaultCode::MissingPrivileges, "denied")
}

#[test]
fn a_run_begins_with_its_checks_and_drops_only_what_was_declared() {
    let mut life = Life::new();
    assert_eq!(life.due(), [EffectKind::Validate]);
    let step = life.feed(Event::Validated);
    assert_eq!(step.orders, Some(vec![Effect::StartSync]));
    assert_eq!(step.notes[0].to, Some(Phase::Copying));

    let mut drops = spec();
    drops.destination.existing_data = ExistingData::Drop;
    let mut life = Life::of(&drops);
    life.feed(Event::Validated);
    assert_eq!(life.due(), [EffectKind::DropExisting]);
    life.feed(Event::ExistingDropped);
    assert_eq!(life.due(), [EffectKind::StartSync]);
    // An outcome that is not waited for, however it got here.
    assert_eq!(life.feed(Event::ExistingDropped).orders, None);
}

#[test]
fn readiness_needs_the_copy_the_indexes_and_a_lag_that_settles() {
    let mut life = Life::copying();
    life.healthy();
    assert_eq!(life.run.phase(), Phase::Copying);
    life.feed(Event::CopyFinished);
    life.healthy();
    life.wait(3_000);
    life.healthy();
    assert_eq!(life.run.phase(), Phase::CatchingUp, "indexes are missing");
    assert!(life.run.unready_reasons(UtcTime::from_millis(life.now))[0].contains("index"));
    life.feed(Event::IndexesBuilt);
    life.healthy();
    life.wait(1_000);
    life.feed(Event::Health {
        lag: Some(Duration::from_secs(10)),
        caught_up: true,
        blockers: Vec::new(),
    });
    life.wait(1_500);
    life.healthy();
    assert_eq!(life.run.phase(), Phase::CatchingUp, "the lag was at its bound in between");
    life.wait(2_000);
    life.healthy();
    assert_eq!(life.run.phase(), Phase::Ready);
    assert_eq!(life.run.opened_at, Some(UtcTime::from_millis(life.now)));
    assert!(life.run.offered_token().is_some());
}

#[test]
fn each_thing_that_readiness_lacks_is_named() {
    let life = Life::ready();
    let mut run = life.run;
    let at = UtcTime::from_millis(life.now);
    run.vitals.lag = Some(Duration::from_millis(41_200));
    run.vitals.caught_up = false;
    run.vitals.blockers = vec!["3 mismatches are open".to_owned()];
    assert_eq!(
        run.unready_reasons(at),
        [
            "changes from the time of the copy are still being applied",
            "lag 41.2 s is over max_lag 10 s",
            "3 mismatches are open"
        ]
    );
    run.vitals.lag = None;
    assert!(run.unready_reasons(at)[1].contains("not known"));
    assert!(
        run.unready_reasons(at.plus(Duration::from_secs(6)))[0].contains("not reported for 6 s")
    );
}

#[test]
fn a_hiccup_keeps_the_token_but_nothing_is_acknowledged_in_it() {
    let mut life = Life::ready();
    let token = life.run.offered_token();
    life.feed(Event::Health {
        lag: Some(Duration::from_secs(11)),
        caught_up: true,
        blockers: Vec::new(),
    });
    assert_eq!(life.run.offered_token(), token);
    assert_eq!(
        life.run.shown_phase(UtcTime::from_millis(life.now)),
        Phase::CatchingUp,
        "what is shown as ready is ready"
    );
    assert!(matches!(life.acknowledge().expect_err("not now").guard, Guard::NotReady(_)));
    life.wait(1_000);
    life.healthy();
    life.acknowledge().expect("it was a hiccup");
}

#[test]
fn a_run_that_falls_behind_or_silent_keeps_its_window() {
    for silent in [false, true] {
        let mut life = Life::ready();
        let opened_at = life.run.opened_at;
        if !silent {
            life.feed(Event::Health { lag: None, caught_up: true, blockers: Vec::new() });
        }
        life.wait(5_000);
        life.feed(Event::Tick);
        life.wait(2_000);
        life.feed(Event::Tick);
        assert_eq!(life.run.phase(), Phase::CatchingUp);
        life.healthy();
        life.wait(2_000);
        life.healthy();
        assert_eq!((life.run.phase(), life.run.opened_at), (Phase::Ready, opened_at));
    }
}

#[test]
fn only_the_runs_own_unused_token_cuts_over() {
    let mut life = Life::ready();
    let other = Token::derive(
        &RunId::new(&spec().name, Generation(1), 2),
        &life.run.digest,
        life.run.attempt,
    );
    let refused = life
        .try_feed(Event::Acknowledge { token: other, actor: ada() })
        .expect_err("another run's");
    assert_eq!(
        (refused.guard.clone(), refused.fault().code),
        (Guard::WrongToken, FaultCode::WrongToken)
    );
    assert_eq!((refused.phase, refused.event), (Phase::Ready, "acknowledge"));

    let mut early = Life::catching_up(&spec());
    let refused = early.acknowledge().expect_err("not ready");
    assert_eq!(refused.fault().code, FaultCode::NotReady);

    let token = life.run.next_token();
    let step = life.acknowledge().expect("ready");
    assert_eq!(
        step.orders,
        Some(vec![Effect::StartSync, Effect::PrepareCutover { attempt: BLOCK }])
    );
    assert_eq!(step.notes[0].actor, Some(ada()));
    // Said again while it is on its way: no change, and no error.
    assert_eq!(
        life.try_feed(Event::Acknowledge { token: token.clone(), actor: ada() })
            .expect("known")
            .notes,
        []
    );
    // Given up, and said once more: of no use.
    life.feed(Event::EffectFailed {
        effect: Effect::PrepareCutover { attempt: BLOCK },
        fault: lasting(),
    });
    assert_eq!(life.run.phase(), Phase::Ready);
    assert_eq!(life.run.aborted, Some(lasting()));
    let refused = life.try_feed(Event::Acknowledge { token, actor: ada() }).expect_err("used");
    assert_eq!(
        (refused.guard.clone(), refused.fault().code),
        (Guard::UsedToken, FaultCode::WrongToken)
    );
    life.acknowledge().expect("the next token");
}

#[test]
fn a_changed_spec_changes_the_token() {
    let mut life = Life::ready();
    let token = life.run.next_token();
    let mut spec = spec();
    spec.cutover.max_lag = Length::from_secs(20);
    let declare = |spec: &MigrationSpec| Event::Declare {
        settings: Settings::from(spec),
        digest: spec.digest(),
        resync: false,
        what: "changed".to_owned(),
        actor: ada(),
    };
    life.feed(declare(&spec));
    let refused =
        life.try_feed(Event::Acknowledge { token, actor: ada() }).expect_err("another spec's");
    assert_eq!(refused.guard, Guard::WrongToken);
}

#[test]
fn a_cutover_goes_its_way_to_the_end() {
    let mut life = Life::ready();
    life.acknowledge().expect("ready");
    life.wait(100);
    life.healthy();
    life.feed(Event::CutoverPrepared { attempt: BLOCK });
    assert_eq!(life.due(), [EffectKind::StartSync, EffectKind::BlockSource]);
    assert!(life.run.state.may_fence(), "from here on the block may be up");
    life.feed(Event::SourceBlocked { attempt: BLOCK });
    assert_eq!(life.due(), [EffectKind::StartSync, EffectKind::Drain]);
    life.wait(1_000);
    life.feed(Event::Drained { attempt: BLOCK, final_time: FINAL_TIME });
    assert_eq!(life.due(), [EffectKind::StopSync, EffectKind::RestoreSettings]);
    life.feed(Event::SettingsRestored);
    assert_eq!(life.due(), [EffectKind::StopSync, EffectKind::OpenDestination]);
    assert_eq!(life.run.state.writable_at(), None);
    life.wait(500);
    life.feed(Event::DestinationOpened);
    assert_eq!(life.run.state.downtime(), Some(Duration::from_millis(1_500)));
    assert_eq!((life.run.phase(), life.due()), (Phase::Finalizing, vec![EffectKind::CleanUp]));
    assert!(life.run.state.writable_at().is_some());
    life.wait(60_000);
    life.feed(Event::CleanedUp);
    assert_eq!((life.run.phase(), life.due()), (Phase::Completed, vec![]));
    assert_eq!(
        life.run.state.downtime(),
        Some(Duration::from_millis(1_500)),
        "the clean-up is no downtime"
    );
    assert!(life.run.state.may_fence());
}

#[test]
fn outcomes_of_another_attempt_are_not_believed() {
    let mut life = Life::applying();
    let late = Attempt(0);
    for event in [
        Event::SourceUnblocked { attempt: late },
        Event::Drained { attempt: late, final_time: FINAL_TIME },
        Event::SourceBlocked { attempt: BLOCK },
        Event::CutoverPrepared { attempt: BLOCK },
        Event::SourceUnblocked { attempt: BLOCK },
        Event::CleanedUp,
        Event::DestinationOpened,
    ] {
        let before = life.run.state.clone();
        life.feed(event);
        assert_eq!(life.run.state, before);
    }
}

#[test]
fn max_downtime_counts_from_the_block_also_while_the_daemon_is_down() {
    for down in [false, true] {
        let mut life = Life::applying();
        life.wait(300_000);
        let step = life.feed(if down { Event::DaemonStarted } else { Event::Tick });
        assert_eq!(
            step.orders,
            Some(vec![Effect::UnblockSource { attempt: BLOCK }]),
            "nothing comes before it"
        );
        assert_eq!(life.run.phase(), Phase::Draining);
        // The drain's own end, too late.
        life.feed(Event::Drained { attempt: BLOCK, final_time: FINAL_TIME });
        assert_eq!(life.run.phase(), Phase::Draining);
        life.feed(Event::EffectFailed {
            effect: Effect::UnblockSource { attempt: BLOCK },
            fault: lasting(),
        });
        assert_eq!(life.due(), [EffectKind::UnblockSource], "tried until it works");
        life.feed(Event::SourceUnblocked { attempt: BLOCK });
        assert_eq!(life.run.phase(), Phase::Ready);
        assert_eq!(
            life.run.aborted.as_ref().map(|fault| fault.code),
            Some(FaultCode::MaxDowntimeExceeded)
        );
        assert!(!life.run.state.may_fence());
    }
}

#[test]
fn what_waits_before_the_block_is_bounded_and_told() {
    let mut life = Life::ready();
    life.acknowledge().expect("ready");
    let preparing = |what: &str, waits| Event::CutoverPreparing { what: what.to_owned(), waits };
    let told = |life: &Life| life.run.unready_reasons(UtcTime::from_millis(life.now));
    assert_eq!(told(&life), ["it is cutting over: the checks before the source is blocked run"]);
    // What the data decides may take as long as it takes.
    let orders = life.feed(preparing("unique indexes are tried on the destination", false)).orders;
    assert_eq!(orders, None, "what prepares goes on");
    life.wait(3_600_000);
    life.healthy();
    assert_eq!(life.run.phase(), Phase::Draining);
    assert_eq!(told(&life), ["it is cutting over: unique indexes are tried on the destination"]);
    // What the source's load decides is one wait, by whatever words.
    life.feed(preparing("changes are applied", true));
    life.wait(200_000);
    life.feed(preparing("documents are compared, 70000 are left", true));
    life.wait(99_999);
    life.feed(Event::Tick);
    assert_eq!(life.run.phase(), Phase::Draining);
    life.run = Run::from_json(&life.run.to_json()).expect("what is stored comes back");
    life.wait(1);
    life.feed(Event::Tick);
    assert_eq!(life.run.phase(), Phase::Ready, "nothing was blocked");
    let aborted = life.run.aborted.clone().expect("a reason");
    assert_eq!(aborted.code, FaultCode::NotReady);
    assert!(
        aborted.message.contains("after 5m") && aborted.message.contains("70000 are left"),
        "{aborted}"
    );
    // A word of the attempt that was given up is nothing to the next one, which has not blocked
    // either.
    life.feed(preparing("late", true));
    assert_eq!(life.run.phase(), Phase::Ready);
}

#[test]
fn checks_before_the_block_that_meet_an_outage_begin_again_within_the_bound() {
    let mut life = Life::ready();
    life.acknowledge().expect("ready");
    let outage = || Fault::new(FaultCode::Unreachable, "connection reset by peer");
    let failed = || Event::EffectFailed {
        effect: Effect::PrepareCutover { attempt: BLOCK },
        fault: outage(),
    };
    life.feed(failed());
    assert_eq!(life.run.phase(), Phase::Draining, "nothing is blocked, and it may pass");
    assert!(life.due().contains(&EffectKind::PrepareCutover), "{:?}", life.due());
    assert_eq!(life.run.trouble.as_ref().map(|fault| fault.code), Some(FaultCode::Unreachable));
    // A build between two outages may take as long as it takes; what fails for ever does not.
    life.feed(Event::CutoverPreparing { what: "indexes are built".to_owned(), waits: false });
    life.wait(299_999);
    life.feed(failed());
    assert_eq!(life.run.phase(), Phase::Draining);
    life.wait(1);
    life.feed(failed());
    assert_eq!(life.run.phase(), Phase::Ready);
    assert_eq!(life.run.aborted.as_ref().map(|fault| fault.code), Some(FaultCode::Unreachable));
}

#[test]
fn an_error_that_a_server_repeats_has_a_bound_and_an_outage_has_none() {
    let failed = |code| Event::SyncFailed { fault: Fault::new(code, "code 462: what is this") };
    let mut life = Life::ready();
    life.feed(failed(FaultCode::SourceReadFailed));
    assert_eq!(life.run.phase(), Phase::CatchingUp);
    for _ in 0..29 {
        life.wait(120_000);
        life.feed(failed(FaultCode::SourceReadFailed));
    }
    assert_eq!(life.run.phase(), Phase::CatchingUp);
    assert_eq!(life.run.repeated.map(|one| one.count), Some(30));
    life.run = Run::from_json(&life.run.to_json()).expect("what is stored comes back");
    life.wait(120_000);
    life.feed(failed(FaultCode::SourceReadFailed));
    assert_eq!(life.run.phase(), Phase::Failed);
    let State::Failed { fault, .. } = &life.run.state else { panic!("{:?}", life.run.state) };
    assert!(fault.message.contains("462") && fault.message.contains("31 times"), "{fault}");
    assert!(fault.remedy.contains("cutover resume"), "{fault:?}");

    // What goes well in between is another one.
    let mut life = Life::ready();
    for _ in 0..40 {
        life.feed(failed(FaultCode::DestinationWriteFailed));
        life.wait(700_000);
    }
    assert_eq!(life.run.phase(), Phase::CatchingUp);
    // A server that is away may be away for days.
    for _ in 0..100 {
        life.feed(failed(FaultCode::Unreachable));
        life.wait(120_000);
    }
    assert_eq!((life.run.phase(), life.run.repeated), (Phase::CatchingUp, None));
}

#[test]
fn a_drain_that_ends_at_the_bound_is_too_late() {
    let mut life = Life::applying();
    life.wait(300_000);
    life.feed(Event::Drained { attempt: BLOCK, final_time: FINAL_TIME });
    assert_eq!(life.due(), [EffectKind::UnblockSource]);
}

#[test]
fn observed_writes_that_go_on_end_the_cutover_without_a_block() {
    let mut observed = spec();
    observed.cutover.source_writes = SourceWrites::Observe;
    let mut life = Life::ready_by(&observed);
    life.acknowledge().expect("ready");
    life.wait(1_000);
    life.feed(Event::CutoverPrepared { attempt: BLOCK });
    assert_eq!(life.due(), [EffectKind::StartSync, EffectKind::WatchSource]);
    life.wait(299_000);
    life.feed(Event::Tick);
    assert_eq!(life.run.phase(), Phase::Ready, "counted from the acknowledgement");
    assert_eq!(life.run.aborted.as_ref().map(|fault| fault.code), Some(FaultCode::WritesContinued));

    let mut life = Life::ready_by(&observed);
    life.acknowledge().expect("ready");
    life.feed(Event::CutoverPrepared { attempt: BLOCK });
    life.feed(Event::SourceQuiet { attempt: BLOCK });
    let came = Fault::new(FaultCode::WritesContinued, "one more");
    life.feed(Event::EffectFailed { effect: Effect::Drain { attempt: BLOCK }, fault: came });
    assert_eq!(life.run.phase(), Phase::Ready);
}

#[test]
fn errors_while_draining_retry_undo_or_fail() {
    let mut life = Life::applying();
    let again = life.feed(Event::SyncFailed { fault: passing() });
    assert_eq!(again.orders, Some(vec![Effect::StartSync, Effect::Drain { attempt: BLOCK }]));
    assert_eq!(life.run.trouble, Some(passing()));
    life.feed(Event::SyncFailed { fault: lasting() });
    assert_eq!(life.due(), [EffectKind::UnblockSource]);
    life.feed(Event::SourceUnblocked { attempt: BLOCK });
    assert!(matches!(&life.run.state, State::Failed { fault, .. } if *fault == lasting()));
}

#[test]
fn finalizing_never_turns_back() {
    let mut life = Life::applying();
    life.feed(Event::Drained { attempt: BLOCK, final_time: FINAL_TIME });
    for event in [
        Event::EffectFailed { effect: Effect::RestoreSettings, fault: lasting() },
        Event::SyncFailed { fault: lasting() },
        Event::DaemonStarted,
        Event::Tick,
    ] {
        life.wait(1_000_000_000);
        life.feed(event);
        assert_eq!(life.due(), [EffectKind::StopSync, EffectKind::RestoreSettings]);
    }
    for act in [
        Event::Cancel { by: By::Hand, actor: ada() },
        Event::Pause { by: By::Hand, actor: ada() },
        Event::Extend { extensions: 1, actor: ada() },
        Event::Forget { actor: ada() },
    ] {
        assert_eq!(life.try_feed(act).expect_err("it is cutting over").guard, Guard::CuttingOver);
    }
}

impl Life {
    /// Drained, with settings that cannot be given back.
    fn finalizing(mode: SourceWrites) -> Self {
        let mut spec = spec();
        spec.cutover.source_writes = mode;
        let mut life = Self::ready_by(&spec);
        life.acknowledge().expect("ready");
        life.feed(Event::CutoverPrepared { attempt: BLOCK });
        life.feed(Event::SourceBlocked { attempt: BLOCK });
        life.feed(Event::SourceQuiet { attempt: BLOCK });
        life.feed(Event::Drained { attempt: BLOCK, final_time: FINAL_TIME });
        life.feed(Event::EffectFailed { effect: Effect::RestoreSettings, fault: lasting() });
        assert_eq!(life.run.phase(), Phase::Finalizing);
        life
    }

    fn open(&mut self, side: Opened) -> Result<Step, Guard> {
        self.try_feed(Event::Open { side, actor: ada() }).map_err(|refusal| refusal.guard)
    }
}

#[test]
fn what_finalizing_cannot_end_goes_back_to_the_source() {
    let mut life = Life::finalizing(SourceWrites::Block);
    life.open(Opened::Source).expect("the destination was never opened");
    assert_eq!(life.due(), [EffectKind::UnblockSource]);
    // Nothing opens the other side from here on, whatever ends late.
    assert_eq!(life.open(Opened::Destination), Err(Guard::SourceOpened));
    life.feed(Event::SettingsRestored);
    life.feed(Event::EffectFailed {
        effect: Effect::UnblockSource { attempt: BLOCK },
        fault: lasting(),
    });
    assert_eq!(
        life.feed(Event::DaemonStarted).orders,
        Some(vec![Effect::UnblockSource { attempt: BLOCK }])
    );
    life.feed(Event::SourceUnblocked { attempt: BLOCK });
    assert!(life.run.cancelled_by_hand && !life.run.state.may_fence());
    assert_eq!(
        life.due(),
        [EffectKind::StopSync, EffectKind::FreeDestination, EffectKind::CleanUp]
    );
    // A source that was only watched takes writes already.
    let mut life = Life::finalizing(SourceWrites::Observe);
    life.open(Opened::Source).expect("the destination was never opened");
    assert_eq!(life.run.phase(), Phase::Cancelled);
}

#[test]
fn what_finalizing_cannot_end_goes_on_with_the_destination() {
    let mut life = Life::finalizing(SourceWrites::Block);
    let step = life.open(Opened::Destination).expect("nothing is opened yet");
    assert!(step.notes[0].message.contains(&lasting().message), "{:?}", step.notes);
    assert_eq!(
        (life.due(), &life.run.trouble),
        (vec![EffectKind::StopSync, EffectKind::OpenDestination], &None)
    );
    assert_eq!(life.open(Opened::Source), Err(Guard::DestinationOpened));
    life.feed(Event::DestinationOpened);
    assert_eq!(life.open(Opened::Source), Err(Guard::DestinationOpened));
    life.feed(Event::CleanedUp);
    assert_eq!(life.run.phase(), Phase::Completed);
    assert_eq!(life.open(Opened::Source), Err(Guard::CutOver));
    assert_eq!(Life::ready().open(Opened::Source), Err(Guard::NotFinalizing));
    assert_eq!(Life::applying().open(Opened::Destination), Err(Guard::CuttingOver));
}

#[test]
fn the_source_is_given_back_as_declared() {
    let mut open = spec();
    open.cutover.source_after = SourceAfter::Open;
    assert!(!Life::completed_by(&open).run.state.may_fence());

    let mut life = Life::completed_by(&spec());
    assert!(life.run.state.may_fence());
    // Changed once completed.
    life.feed(Event::Declare {
        settings: Settings::from(&open),
        digest: open.digest(),
        resync: false,
        what: "changed".to_owned(),
        actor: ada(),
    });
    assert_eq!(life.due(), [EffectKind::UnblockSource]);

    let mut life = Life::completed_by(&spec());
    let step = life.feed(Event::Forget { actor: ada() });
    assert!(!step.forget);
    assert_eq!(life.due(), [EffectKind::UnblockSource]);
    // A restart in between asks for it again.
    assert_eq!(
        life.feed(Event::DaemonStarted).orders,
        Some(vec![Effect::UnblockSource { attempt: BLOCK }])
    );
    assert!(life.feed(Event::SourceUnblocked { attempt: BLOCK }).forget);
}

#[test]
fn the_window_closes_by_whatever_comes_after_its_deadline() {
    let hours = 120 * 3_600_000;
    for event in [Event::Tick, Event::DaemonStarted, Event::CopyFinished] {
        let mut life = Life::ready();
        life.wait(hours);
        life.feed(event);
        assert_eq!(life.run.phase(), Phase::Expired);
        assert_eq!(life.due(), [EffectKind::StopSync, EffectKind::FreeDestination]);
    }
    let mut life = Life::ready();
    life.wait(hours - 1);
    life.healthy();
    assert_eq!(life.run.phase(), Phase::Ready);
    life.wait(1);
    let refused = life.acknowledge().expect_err("too late");
    assert_eq!(refused.fault().code, FaultCode::WindowExpired);
    assert_eq!(refused.phase, Phase::Expired);

    let mut paused = Life::ready();
    paused.feed(Event::Pause { by: By::Hand, actor: ada() });
    paused.wait(hours);
    paused.feed(Event::Tick);
    assert_eq!(paused.run.phase(), Phase::Expired, "a pause does not stop the window");
}

#[test]
fn time_does_not_go_back_for_a_run() {
    let mut life = Life::ready();
    let at = life.run.clock;
    life.wait(-3_600_000);
    life.feed(Event::Tick);
    assert_eq!(life.run.clock, at);
}

#[test]
fn an_extension_after_expiry_looks_for_the_resume_point() {
    let day = 24 * 3_600_000;
    for held in [true, false] {
        let mut life = Life::ready();
        life.wait(5 * day + 1);
        life.feed(Event::Tick);
        life.feed(Event::DestinationFreed);
        assert_eq!(life.due(), []);
        life.feed(Event::Extend { extensions: 1, actor: ada() });
        assert_eq!(life.due(), [EffectKind::StopSync, EffectKind::CheckResumePoint]);
        life.feed(Event::ResumePoint { held });
        if held {
            assert_eq!(
                (life.run.phase(), life.due()),
                (Phase::CatchingUp, vec![EffectKind::StartSync])
            );
        } else {
            assert!(matches!(
                &life.run.state,
                State::Failed { fault, .. } if fault.code == FaultCode::ResumePointLost,
            ));
        }
    }
    let mut life = Life::ready();
    life.wait(7 * day);
    life.feed(Event::Tick);
    life.feed(Event::Extend { extensions: 1, actor: ada() });
    assert_eq!(
        life.due(),
        [EffectKind::StopSync, EffectKind::FreeDestination],
        "one day does not reach"
    );
}

#[test]
fn what_was_extended_by_hand_can_be_made_official() {
    let mut life = Life::ready();
    life.feed(Event::Extend { extensions: 2, actor: ada() });
    let deadline = life.run.deadline();
    let mut declared = spec();
    declared.cutover.extensions = 1;
    life.feed(Event::Declare {
        settings: Settings::from(&declared),
        digest: declared.digest(),
        resync: false,
        what: "changed".to_owned(),
        actor: ada(),
    });
    assert_eq!((life.run.deadline(), life.run.extensions_by_hand), (deadline, 1));
}

#[test]
fn a_start_shows_readiness_anew_and_finishes_what_was_acknowledged() {
    let mut life = Life::ready();
    life.feed(Event::DaemonStarted);
    assert_eq!(life.run.phase(), Phase::CatchingUp);

    let mut life = Life::ready();
    life.acknowledge().expect("ready");
    let step = life.feed(Event::DaemonStarted);
    assert_eq!(
        step.orders,
        Some(vec![Effect::StartSync, Effect::PrepareCutover { attempt: BLOCK }])
    );
    life.feed(Event::CutoverPrepared { attempt: BLOCK });
    assert!(!life.run.state.may_fence(), "not before the sync has shown that it follows");
    life.wait(1_000);
    life.healthy();
    assert_eq!(life.due(), [EffectKind::StartSync, EffectKind::BlockSource]);

    let mut life = Life::ready();
    life.acknowledge().expect("ready");
    life.feed(Event::DaemonStarted);
    life.feed(Event::CutoverPrepared { attempt: BLOCK });
    life.wait(30_000);
    life.feed(Event::Tick);
    assert_eq!(life.run.phase(), Phase::Ready);
    assert_eq!(life.run.aborted.as_ref().map(|fault| fault.code), Some(FaultCode::NotReady));

    let mut life = Life::ready();
    life.acknowledge().expect("ready");
    life.wait(121 * 3_600_000);
    life.feed(Event::DaemonStarted);
    assert_eq!(life.run.phase(), Phase::Expired, "nothing was blocked when the window closed");
}

#[test]
fn errors_that_pass_are_retried_where_the_run_stands() {
    let mut life = Life::new();
    let step = life.feed(Event::EffectFailed { effect: Effect::Validate, fault: passing() });
    assert_eq!((life.run.phase(), step.orders), (Phase::Validating, Some(vec![Effect::Validate])));
    assert_eq!(step.notes.len(), 1);
    assert_eq!(
        life.feed(Event::EffectFailed { effect: Effect::Validate, fault: passing() }).notes,
        [],
        "told once"
    );
    life.feed(Event::EffectFailed { effect: Effect::Validate, fault: lasting() });
    assert_eq!((life.run.phase(), life.due()), (Phase::Failed, vec![EffectKind::StopSync]));
    assert_eq!(
        life.try_feed(Event::Pause { by: By::Hand, actor: ada() }).expect_err("it failed").guard,
        Guard::Failed
    );
    life.feed(Event::Resume { by: By::Hand, actor: ada() });
    assert_eq!((life.run.phase(), life.due()), (Phase::Validating, vec![EffectKind::Validate]));

    let mut life = Life::ready();
    let step = life.feed(Event::SyncFailed { fault: passing() });
    assert_eq!((life.run.phase(), step.orders), (Phase::CatchingUp, Some(vec![Effect::StartSync])));
    life.healthy();
    assert_eq!(life.run.trouble, None);
}

#[test]
fn a_pause_keeps_the_place() {
    let mut life = Life::copying();
    life.feed(Event::IndexesBuilt);
    life.feed(Event::Pause { by: By::Hand, actor: ada() });
    assert_eq!((life.run.phase(), life.due()), (Phase::Paused, vec![EffectKind::StopSync]));
    assert_eq!(life.run.paused_by_hand, Some(true));
    life.feed(Event::DaemonStarted);
    assert_eq!(life.run.phase(), Phase::Paused);
    life.feed(Event::Resume { by: By::Declaration, actor: ada() });
    assert_eq!(life.run.state, State::Copying { indexes_built: true });
    assert_eq!(life.run.paused_by_hand, None);
}

#[test]
fn a_cancel_gives_the_destination_back_and_is_the_end() {
    let mut life = Life::ready();
    life.feed(Event::Cancel { by: By::Hand, actor: ada() });
    assert!(life.run.cancelled_by_hand);
    assert_eq!(
        life.due(),
        [EffectKind::StopSync, EffectKind::FreeDestination, EffectKind::CleanUp]
    );
    assert!(!life.feed(Event::Forget { actor: ada() }).forget);
    assert!(life.feed(Event::CleanedUp).forget);
    assert_eq!(
        life.try_feed(Event::Resume { by: By::Hand, actor: ada() }).expect_err("over").guard,
        Guard::Cancelled
    );
}

#[test]
fn a_restarted_sync_is_stopped_first() {
    let mut life = Life::ready();
    let shard = || ShardName("rs0".to_owned());
    let step = life.feed(Event::RestartSync { shard: shard(), actor: ada() });
    assert_eq!(step.orders, Some(vec![Effect::StopSync, Effect::StartSync]));
    assert_eq!(life.run.phase(), Phase::CatchingUp);
    let mut copying = Life::copying();
    let step = copying.feed(Event::RestartSync { shard: shard(), actor: ada() });
    assert!(
        step.orders.is_none() && copying.run.phase() == Phase::Copying,
        "the other shards go on"
    );
    assert!(
        step.notes.iter().any(|note| note.kind == EntryKind::ByHand && note.actor == Some(ada()))
    );
    let mut new = Life::new();
    assert_eq!(
        new.try_feed(Event::RestartSync { shard: shard(), actor: ada() })
            .expect_err("nothing runs")
            .guard,
        Guard::NotSyncing
    );
}

#[test]
fn a_new_generation_takes_back_what_the_old_one_holds_and_drops_what_it_made() {
    let old = Life::completed_by(&spec());
    let mut next = spec();
    next.generation = Generation(2);
    let made = vec![Namespace::new("shop", "b"), Namespace::new("shop", "a")];
    let id = RunId::new(&next.name, next.generation, 2);
    let now = Now { utc: UtcTime::from_millis(old.now) };
    let run =
        succeed(&old.run, &spec(), made.clone(), id.clone(), &next, now).expect("it has ended");
    let mut life = Life { run, now: old.now };
    assert_eq!(life.due(), [EffectKind::RetireEarlier, EffectKind::Validate]);
    life.feed(Event::Validated);
    assert_eq!(life.run.phase(), Phase::Validating, "not before the old one is retired");
    life.feed(Event::EffectFailed {
        effect: Effect::RetireEarlier { run: old.run.id.clone() },
        fault: lasting(),
    });
    assert_eq!(life.run.phase(), Phase::Validating, "tried until it works");
    life.feed(Event::EarlierRetired { run: old.run.id.clone() });
    life.feed(Event::Validated);
    assert_eq!((life.due(), life.run.replaces().len()), (vec![EffectKind::DropEarlier], 2));
    life.feed(Event::EarlierDropped);
    assert_eq!((life.run.phase(), life.run.earlier.len()), (Phase::Copying, 0));

    // A run that did not get to dropping leaves it to the next.
    let skipped = succeed(&old.run, &spec(), made, id, &next, now).expect("it has ended");
    let mut third = next.clone();
    third.generation = Generation(3);
    let run = succeed(
        &skipped,
        &next,
        Vec::new(),
        RunId::new(&third.name, third.generation, 3),
        &third,
        now,
    )
    .expect("it has not begun");
    assert_eq!((run.earlier.len(), run.replaces().len()), (2, 2));
    // And another destination keeps what is there.
    let mut elsewhere = third.clone();
    elsewhere.destination.connection.uri = "mongodb://c:1".to_owned();
    let run = succeed(
        &skipped,
        &next,
        Vec::new(),
        RunId::new(&third.name, third.generation, 4),
        &elsewhere,
        now,
    )
    .expect("the same");
    assert_eq!(run.replaces(), []);

    let cutting = Life::applying();
    let refused = succeed(
        &cutting.run,
        &spec(),
        Vec::new(),
        RunId::new(&next.name, next.generation, 5),
        &next,
        now,
    );
    assert_eq!(refused.expect_err("not in the midst").guard, Guard::CuttingOver);
}

#[test]
fn a_stored_run_comes_back_without_what_was_only_heard() {
    let life = Life::applying();
    let read = Run::from_json(&life.run.to_json()).expect("its own form");
    assert!(!read.differs_durably(&life.run));
    assert_eq!(read.vitals, crate::Vitals::default());
    let newer = life.run.to_json().replacen("\"format\":1", "\"format\":7", 1);
    assert!(
        matches!(Run::from_json(&newer), Err(crate::UnreadableRun::Newer { found }) if found.0 == 7)
    );
    assert!(matches!(Run::from_json("{"), Err(crate::UnreadableRun::Malformed(_))));
}
