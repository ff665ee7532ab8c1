//! A completed run's report: made when it completes, stored with that step, and found again.

use lifecycle::State;
use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};
use schemas::phase::Phase;
use schemas::report::{Acknowledged, Migrated, PhaseTime, Proof, Report, ReportVersion};
use schemas::time::UtcTime;

use super::thread::{Book, pick};
use crate::journal::{Change, Record};

impl Book {
    /// The report of a run that completes with this change.
    pub(super) fn completes(&self, change: &Change, now: UtcTime) -> Option<Report> {
        let record = change.record.as_ref()?;
        let was_completed = self.held.get(&change.key).is_some_and(|held| {
            held.record.run.id == record.run.id && held.record.run.phase() == Phase::Completed
        });
        match &record.run.state {
            State::Completed { cutover, downtime_ms, .. } if !was_completed => {
                let engine = self.parts.engines.progress(&record.run.id);
                let migrated = engine.as_ref().map_or_else(Migrated::default, |engine| Migrated {
                    collections: engine.copy.collections_copied,
                    documents: engine.copy.documents_copied,
                    bytes: engine.copy.bytes_copied,
                    indexes: engine.indexes.built,
                    events_applied: engine.tail.events_applied,
                });
                let completed_at = now.max(record.run.clock);
                Some(Report {
                    format_version: ReportVersion::CURRENT,
                    name: record.key.name.clone(),
                    workspace: record.key.workspace.clone(),
                    generation: record.run.generation,
                    run: record.run.id.clone(),
                    declared_at: record.run.created_at,
                    completed_at,
                    phases: self.phases(record, completed_at),
                    acknowledged: Acknowledged { by: cutover.by.clone(), at: cutover.at },
                    downtime_seconds: seconds(*downtime_ms),
                    migrated,
                    verification: engine.map_or_else(
                        || Proof::none(record.spec.verify.mode),
                        |engine| engine.proof,
                    ),
                })
            }
            State::Completed { .. }
            | State::Validating { .. }
            | State::Copying { .. }
            | State::CatchingUp { .. }
            | State::Ready
            | State::Draining { .. }
            | State::Finalizing { .. }
            | State::Paused { .. }
            | State::Cancelled { .. }
            | State::Failed { .. }
            | State::Expired { .. } => None,
        }
    }

    /// How long the run was in each phase until now, by the journal's transitions.
    fn phases(&self, record: &Record, now: UtcTime) -> Vec<PhaseTime> {
        let transitions = match self.parts.journal.transitions(&record.run.id) {
            Ok(transitions) => transitions,
            Err(error) => {
                tracing::warn!(run = %record.run.id, error = %error.fault(), "how long its phases \
                     took cannot be read");
                return Vec::new();
            }
        };
        let mut phases: Vec<PhaseTime> = Vec::new();
        let (mut phase, mut since) = (Phase::Validating, record.run.created_at);
        let ends = transitions.into_iter().chain([(now, Phase::Completed)]);
        for (at, next) in ends {
            let spent = at.since(since).as_secs_f64();
            match phases.iter_mut().find(|known| known.phase == phase) {
                Some(known) => known.seconds += spent,
                None => phases.push(PhaseTime { phase, seconds: spent }),
            }
            (phase, since) = (next, at);
        }
        phases
    }

    /// The report of a migration's run, or of the last one of a migration that was forgotten.
    pub(super) fn report(
        &self,
        workspace: Option<&Workspace>,
        name: &MigrationName,
    ) -> Result<Report, Fault> {
        let held: Vec<Workspace> = self
            .held
            .keys()
            .filter(|key| key.name == *name)
            .map(|key| key.workspace.clone())
            .collect();
        let workspaces =
            if held.is_empty() { self.parts.journal.workspaces_with(name)? } else { held };
        let key = pick(workspace, name, workspaces)?;
        let run = self.held.get(&key).map(|held| &held.record.run);
        let stored = self.parts.journal.report(&key, run.map(|run| &run.id))?;
        stored.ok_or_else(|| match run {
            Some(run) if run.phase() == Phase::Completed => Fault::new(
                FaultCode::WrongState,
                format!("run {} was completed by a cutoverd that stored no reports", run.id),
            )
            .with_remedy("`cutover events` shows what it did"),
            Some(run) => Fault::new(
                FaultCode::WrongState,
                format!(
                    "there is no report of {} yet: run {} is {}",
                    key.name,
                    run.id,
                    run.phase()
                ),
            )
            .with_remedy(
                "there is one once it has completed; `cutover status` shows where it stands",
            ),
            None => Fault::new(
                FaultCode::WrongState,
                format!("no run of {} was ever completed", key.name),
            )
            .with_remedy("`cutover events` shows what became of it"),
        })
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}
