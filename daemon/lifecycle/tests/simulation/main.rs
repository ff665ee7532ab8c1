//! The lifecycle under generated histories: events in any order, crashes between journal and
//! effect, clock jumps, lost, doubled and failing effects. The rules are checked after each step,
//! and after the faults have stopped every run must come to rest.

mod history;
mod world;

use history::{Action, actions};
use proptest::prelude::*;
use world::World;

/// At least this many histories, each of up to [`LENGTH`] actions, in every test run.
const HISTORIES: u32 = 10_000;

/// Long enough for several attempts to cut over and a rerun within one history.
const LENGTH: usize = 80;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: HISTORIES,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_keeps_the_rules_and_comes_to_rest(
        settings in history::specs(), actions in actions(LENGTH),
    ) {
        let mut world = World::new(settings);
        for action in actions {
            world.act(action)?;
        }
        world.come_to_rest()?;
    }
}

/// The simulation must reach what it is about; a history that never cuts over would keep every
/// rule.
#[test]
fn histories_reach_the_far_states() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for _ in 0..4_000 {
        let spec = history::specs().new_tree(&mut runner).expect("a spec").current();
        let list = actions(LENGTH).new_tree(&mut runner).expect("a history").current();
        let mut world = World::new(spec);
        for action in list {
            world.act(action).expect("the rules hold");
        }
        for phase in world.phases_seen() {
            *seen.entry(phase).or_default() += 1;
        }
    }
    for place in [
        "ready",
        "draining",
        "undoing",
        "finalizing",
        "completed",
        "expired",
        "failed",
        "cancelled",
        "paused",
        "crashed_while_blocked",
        "rerun",
        "forgotten",
        "extended_after_expiry",
        "caught_up_with_memory",
        "returned_to_source",
        "opened_by_hand",
    ] {
        assert!(
            seen.get(place).copied().unwrap_or(0) >= 10,
            "{place} was reached too seldom: {seen:?}"
        );
    }
}

#[test]
fn a_drain_is_undone_ahead_of_a_journal_that_cannot_be_written() {
    for dies in [false, true] {
        let mut world = World::new(history::plain_spec());
        for _ in 0..40 {
            world.act(Action::Progress).expect("the rules hold");
        }
        world.act(Action::AcknowledgeOffered).expect("the rules hold");
        while !world.source_is_blocked() {
            world.act(Action::Progress).expect("the rules hold");
        }
        world.act(Action::Disk { full: true }).expect("the rules hold");
        world.act(Action::Wait { millis: 61_000 }).expect("the rules hold");
        if dies {
            world.act(Action::Crash).expect("the rules hold");
            world.act(Action::Start).expect("the rules hold");
        }
        world.act(Action::Tick).expect("the rules hold");
        world.act(Action::Effect(history::Fate::Done)).expect("the rules hold");
        assert!(!world.source_is_blocked() && world.phases_seen().contains("undone_ahead"));
        world.act(Action::Crash).expect("the rules hold");
        world.come_to_rest().expect("the rules hold");
    }
}

#[test]
fn a_quiet_history_completes() {
    let mut world = World::new(history::plain_spec());
    for _ in 0..40 {
        world.act(Action::Progress).expect("the rules hold");
    }
    world.act(Action::AcknowledgeOffered).expect("the rules hold");
    for _ in 0..40 {
        world.act(Action::Progress).expect("the rules hold");
    }
    assert!(world.phases_seen().contains("completed"));
}
