//! Draws the bounds that a plan's run works within and what its declaration says: small batches and
//! rounds, slow checkpoints, few readers, and the ways that the engine falls back on (updates that
//! are not told as deltas, events without contents).

use std::time::Duration;

use daemon::engine::source::behind_router::Manner;
use daemon::engine::tuning::Tuning;
use rand::Rng as _;
use schemas::spec::{IndexBuild, MigrationSpec, RateLimit, VerifyMode};

use super::{Hand, Plan};

/// What a plan's declaration says otherwise than usual.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    parallelism: Option<u16>,
    rate_limit: Option<RateLimit>,
    verify: VerifyMode,
    indexes: IndexBuild,
    through_router: bool,
}

impl Declared {
    /// How a sharded source is read, where that is not left to whether its shards are reached.
    pub(crate) fn manner(&self) -> Option<Manner> {
        self.through_router.then(|| Manner::ThroughRouter { unreached: Vec::new() })
    }

    pub(crate) fn apply(&self, mut spec: MigrationSpec) -> MigrationSpec {
        spec.copy.parallelism = self.parallelism;
        spec.copy.rate_limit = self.rate_limit;
        spec.copy.indexes = self.indexes;
        spec.verify.mode = self.verify;
        spec
    }
}

impl Plan {
    /// What is out of the ordinary in how the engine goes about it, in words.
    pub(super) fn ways(&self) -> String {
        let ways = [
            (self.declared.verify == VerifyMode::Full, "verified"),
            (self.declared.rate_limit.is_some(), "at a rate"),
            (self.declared.through_router, "a sharded source through its router"),
            (self.slow_copy.is_some(), "slow copy"),
            (!self.tuning.raw_deltas, "no deltas"),
            (self.tuning.lean_stream, "lean stream"),
            (self.tuning.round_events < 10, "small rounds"),
        ];
        let ways: Vec<&str> =
            ways.iter().filter(|(is_so, _)| *is_so).map(|(_, way)| *way).collect();
        if ways.is_empty() { "as usual".to_owned() } else { ways.join(", ") }
    }
}

impl Hand {
    pub(super) fn tuning(&mut self) -> Tuning {
        let usual = Tuning::default();
        Tuning {
            part_bytes: self.of(&[usual.part_bytes, 500, 5_000]),
            batch_bytes: self.of(&[usual.batch_bytes, 300, 3_000]),
            batch_documents: self.of(&[usual.batch_documents, 1, 5]),
            batches_bytes: self.of(&[usual.batches_bytes, 2_000]),
            large_batch_bytes: self.of(&[usual.large_batch_bytes, 400]),
            round_bytes: self.of(&[usual.round_bytes, 1_000]),
            lane_events: self.of(&[usual.lane_events, 1, 2, 8]),
            delete_ids: self.of(&[usual.delete_ids, 1, 2]),
            round_events: self.of(&[usual.round_events, 3, 10, 100]),
            reply_events: self.of(&[usual.reply_events, 1, 4, 50]),
            workers: self.of(&[usual.workers, 1, 2, 7]),
            write_deltas: self.of(&[usual.write_deltas, 1, 3]),
            write_delta_bytes: self.of(&[usual.write_delta_bytes, 100]),
            command_bytes: self.of(&[usual.command_bytes, 200, 2_000]),
            command_statements: self.of(&[usual.command_statements, 1, 4]),
            raw_deltas: self.of(&[usual.raw_deltas, true, true, false]),
            lean_stream: self.of(&[usual.lean_stream, false, false, false, true]),
            reread_documents: self.of(&[usual.reread_documents, 1, 3]),
            checkpoint_every: self.of(&[
                usual.checkpoint_every,
                Duration::ZERO,
                Duration::from_secs(5),
            ]),
            ..usual
        }
    }

    pub(super) fn declared(&mut self) -> Declared {
        Declared {
            parallelism: self.of(&[None, Some(1), Some(3)]),
            rate_limit: self
                .one_in(6)
                .then(|| RateLimit::Documents(self.rng.random_range(100..1_000))),
            verify: self.of(&[VerifyMode::Off, VerifyMode::Full]),
            indexes: self.of(&[
                IndexBuild::AfterCopy,
                IndexBuild::AfterCopy,
                IndexBuild::BeforeCopy,
            ]),
            through_router: self.one_in(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Plan;
    use daemon::engine::tuning::Tuning;
    use schemas::spec::{IndexBuild, VerifyMode};

    type Bound = fn(&Tuning) -> u128;

    #[test]
    fn the_usual_seeds_draw_every_bound_both_ways() {
        let plans: Vec<Plan> =
            (1..=crate::replica_set::random_operations::QUICK).map(Plan::new).collect();
        let usual = Tuning::default();
        let drawn: [(&str, Bound); 19] = [
            ("part_bytes", |t| t.part_bytes.into()),
            ("batch_bytes", |t| t.batch_bytes.into()),
            ("batch_documents", |t| t.batch_documents.into()),
            ("batches_bytes", |t| t.batches_bytes.into()),
            ("large_batch_bytes", |t| t.large_batch_bytes as u128),
            ("round_bytes", |t| t.round_bytes as u128),
            ("round_events", |t| t.round_events as u128),
            ("reply_events", |t| t.reply_events.into()),
            ("workers", |t| t.workers as u128),
            ("lane_events", |t| t.lane_events as u128),
            ("delete_ids", |t| t.delete_ids as u128),
            ("write_deltas", |t| t.write_deltas as u128),
            ("write_delta_bytes", |t| t.write_delta_bytes as u128),
            ("command_bytes", |t| t.command_bytes as u128),
            ("command_statements", |t| t.command_statements as u128),
            ("reread_documents", |t| t.reread_documents as u128),
            ("raw_deltas", |t| t.raw_deltas.into()),
            ("lean_stream", |t| t.lean_stream.into()),
            ("checkpoint_every", |t| t.checkpoint_every.as_millis()),
        ];
        for (name, of) in drawn {
            let values: BTreeSet<u128> = plans.iter().map(|plan| of(&plan.tuning)).collect();
            assert!(
                values.len() > 1 && values.contains(&of(&usual)),
                "{name} is always one of {values:?}"
            );
        }
        assert!(plans.iter().any(|plan| plan.declared.verify == VerifyMode::Full));
        assert!(plans.iter().any(|plan| plan.declared.indexes == IndexBuild::BeforeCopy));
        assert!(plans.iter().any(|plan| plan.declared.rate_limit.is_some()));
        assert!(plans.iter().any(|plan| plan.slow_copy.is_some()));
        assert!(plans.iter().any(|plan| plan.declared.through_router));
    }
}
