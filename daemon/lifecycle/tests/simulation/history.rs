//! What can happen in a history, and how often.

use std::path::PathBuf;

use lifecycle::Opened;
use proptest::prelude::*;
use schemas::id::{Generation, MigrationName};
use schemas::spec::{
    ConnectionSpec, CopySpec, CutoverSpec, DestinationSpec, ExistingData, MigrationSpec,
    NamespacesSpec, SecretRef, SourceAfter, SourceSpec, SourceWrites, VerifyMode, VerifySpec,
};
use schemas::time::Length;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// What would happen next if nothing went wrong.
    Progress,
    /// The first effect of the queue meets a fate.
    Effect(Fate),
    /// The daemon dies; whatever it was doing is gone.
    Crash,
    /// The daemon dies at its next step.
    CrashAtNextStep {
        /// After the step was journaled, or before.
        journaled: bool,
    },
    /// The daemon starts, where it is down.
    Start,
    /// The disk of the journal fills, or has room again.
    Disk {
        full: bool,
    },
    /// Time passes, also for a daemon that is down.
    Wait {
        millis: i64,
    },
    /// The wall clock is set.
    SetClock {
        millis: i64,
    },
    Tick,
    CopyFinished,
    IndexesBuilt,
    Health {
        lag_millis: Option<u64>,
        caught_up: bool,
        blocked: bool,
    },
    SyncFailed {
        retryable: bool,
    },
    /// An outcome arrives once more, late.
    OldOutcome(prop::sample::Index),
    AcknowledgeOffered,
    AcknowledgeOld(prop::sample::Index),
    AcknowledgeForeign,
    Pause,
    Resume,
    Cancel,
    Open(Opened),
    Extend(u32),
    Declare(Box<MigrationSpec>),
    RestartSync,
    Forget,
    Rerun(Box<MigrationSpec>),
}

/// What becomes of an effect.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// Done, and reported.
    Done,
    /// Done twice, and reported twice.
    Doubled,
    /// Done, but the daemon dies before it is reported.
    DoneThenCrash,
    /// The daemon dies before it is done.
    CrashBefore,
    /// It fails, after or before it took hold.
    Failed { took_hold: bool, retryable: bool },
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Done),
        2 => Just(Fate::Doubled),
        2 => Just(Fate::DoneThenCrash),
        1 => Just(Fate::CrashBefore),
        2 => (any::<bool>(), any::<bool>()).prop_map(
            |(took_hold, retryable)| Fate::Failed { took_hold, retryable }
        ),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    const HOUR: i64 = 3_600_000;
    prop_oneof![
        50 => Just(Action::Progress),
        12 => fates().prop_map(Action::Effect),
        2 => Just(Action::Crash),
        3 => any::<bool>().prop_map(|journaled| Action::CrashAtNextStep { journaled }),
        6 => Just(Action::Start),
        1 => Just(Action::Disk { full: true }),
        6 => Just(Action::Disk { full: false }),
        5 => (0..4_000_i64).prop_map(|millis| Action::Wait { millis }),
        1 => (0..80 * HOUR).prop_map(|millis| Action::Wait { millis }),
        2 => (-60 * HOUR..30 * HOUR).prop_map(|millis| Action::SetClock { millis }),
        3 => Just(Action::Tick),
        1 => Just(Action::CopyFinished),
        1 => Just(Action::IndexesBuilt),
        3 => (prop::option::of(0..20_000_u64), prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(
                |(lag_millis, caught_up, blocked)| Action::Health { lag_millis, caught_up, blocked }
            ),
        1 => prop::bool::weighted(0.7).prop_map(|retryable| Action::SyncFailed { retryable }),
        2 => any::<prop::sample::Index>().prop_map(Action::OldOutcome),
        9 => Just(Action::AcknowledgeOffered),
        2 => any::<prop::sample::Index>().prop_map(Action::AcknowledgeOld),
        1 => Just(Action::AcknowledgeForeign),
        1 => Just(Action::Pause),
        3 => Just(Action::Resume),
        1 => prop::bool::weighted(0.3).prop_map(
            |cancel| if cancel { Action::Cancel } else { Action::Tick }
        ),
        7 => any::<bool>().prop_map(
            |source| Action::Open(if source { Opened::Source } else { Opened::Destination })
        ),
        2 => (1..3_u32).prop_map(Action::Extend),
        2 => specs().prop_map(|spec| Action::Declare(Box::new(spec))),
        1 => Just(Action::RestartSync),
        2 => Just(Action::Forget),
        1 => specs().prop_map(|spec| Action::Rerun(Box::new(spec))),
    ]
}

pub(crate) fn actions(length: usize) -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(action(), 1..length)
}

pub(crate) fn plain_spec() -> MigrationSpec {
    let connection = |port: u16| ConnectionSpec {
        uri: format!("mongodb://127.0.0.1:{port}"),
        username: Some("migrator".to_owned()),
        password: Some(SecretRef::File(PathBuf::from("/run/secrets/orders"))),
        tls: None,
    };
    MigrationSpec {
        name: MigrationName::new("orders").expect("a name"),
        generation: Generation(1),
        paused: false,
        source: SourceSpec { connection: connection(1) },
        destination: DestinationSpec {
            connection: connection(2),
            existing_data: ExistingData::Refuse,
            block_writes: None,
        },
        namespaces: NamespacesSpec::default(),
        copy: CopySpec::default(),
        sharding: None,
        verify: VerifySpec { mode: VerifyMode::Full },
        cutover: CutoverSpec {
            max_downtime: Length::from_secs(60),
            window: Length::from_hours(48),
            ..CutoverSpec::default()
        },
    }
}

pub(crate) fn specs() -> impl Strategy<Value = MigrationSpec> {
    (
        prop::bool::weighted(0.7),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop_oneof![Just(1_u64), Just(24), Just(120)],
        0..2_u32,
        prop_oneof![Just(5_u64), Just(60)],
    )
        .prop_map(|(block, open, drop, paused, hours, extensions, max_downtime)| {
            let mut spec = plain_spec();
            spec.paused = paused;
            spec.destination.existing_data =
                if drop { ExistingData::Drop } else { ExistingData::Refuse };
            spec.cutover.source_writes =
                if block { SourceWrites::Block } else { SourceWrites::Observe };
            spec.cutover.source_after = if open { SourceAfter::Open } else { SourceAfter::Blocked };
            spec.cutover.window = Length::from_hours(hours);
            spec.cutover.extensions = extensions;
            spec.cutover.max_downtime = Length::from_secs(max_downtime);
            spec
        })
}
