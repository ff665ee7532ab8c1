//! Waits for runs to reach a phase. Whether one still can is judged by a pure function.

use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};
use schemas::phase::Phase;
use schemas::status::MigrationStatus;
use tokio::time::Instant;

use crate::daemon_client::DaemonClient;
use crate::plan::Action;

/// How often the daemon is asked.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// How long a daemon may be away while somebody waits: a restart with its recovery fits in.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bears with a daemon that is away for a while: a restart goes on where it was.
#[derive(Debug, Default)]
pub struct Patience {
    away_since: Option<Instant>,
}

impl Patience {
    /// The daemon has answered.
    pub fn met(&mut self) {
        self.away_since = None;
    }

    /// The daemon has not: gives the fault back once it is too long, or of another kind.
    pub fn bear(&mut self, fault: Fault) -> Result<(), Fault> {
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if fault.code == FaultCode::DaemonUnreachable && since.elapsed() < PATIENCE {
            Ok(())
        } else {
            Err(fault)
        }
    }
}

/// What a status means for somebody who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet.
    Wait,
    /// The phase is reached, or passed.
    Reached,
    /// It will not be reached unless somebody acts; why.
    InVain(String),
}

/// Judges a status. `action` is what was applied to the migration before the wait.
#[must_use]
pub fn judge(target: Phase, action: Action, status: &MigrationStatus) -> Verdict {
    let phase = status.phase;
    if phase == target {
        return Verdict::Reached;
    }
    let name = &status.name;
    let because = status.error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    match phase {
        Phase::Cancelled => Verdict::InVain(format!("{name} is cancelled")),
        Phase::Expired => Verdict::InVain(format!("the window of {name} has closed")),
        // What passes by itself does not end in this phase: a run is in it until a person acts.
        Phase::Failed => Verdict::InVain(format!("{name} has failed{because}")),
        Phase::Completed if rank(target).is_some() => Verdict::Reached,
        Phase::Completed => Verdict::InVain(format!("{name} is completed")),
        Phase::Validating
        | Phase::Copying
        | Phase::CatchingUp
        | Phase::Ready
        | Phase::Draining
        | Phase::Finalizing
        | Phase::Paused => {
            // An acknowledged cutover that was given up leaves its reason; without one it has not
            // begun yet.
            let given_up = action == Action::CutOver
                && matches!(phase, Phase::Ready | Phase::CatchingUp)
                && status.error.is_some();
            match (rank(phase), rank(target)) {
                (Some(now), Some(wanted)) if now >= wanted => Verdict::Reached,
                (_, Some(wanted)) if given_up && Some(wanted) > rank(Phase::Ready) => {
                    Verdict::InVain(format!("the cutover of {name} was given up{because}"))
                }
                _ => Verdict::Wait,
            }
        }
    }
}

/// A phase's place on the way to `completed`; none for those beside it.
const fn rank(phase: Phase) -> Option<u8> {
    match phase {
        Phase::Validating => Some(0),
        Phase::Copying => Some(1),
        Phase::CatchingUp => Some(2),
        Phase::Ready => Some(3),
        Phase::Draining => Some(4),
        Phase::Finalizing => Some(5),
        Phase::Completed => Some(6),
        Phase::Paused | Phase::Cancelled | Phase::Failed | Phase::Expired => None,
    }
}

/// Waits until each migration has reached `target`; `seen` is shown every status on the way.
///
/// Gives the last statuses. Fails when one cannot reach it any more, or when `timeout` runs out.
pub async fn until(
    client: &DaemonClient,
    workspace: &Workspace,
    migrations: &[(MigrationName, Action)],
    target: Phase,
    timeout: Option<Duration>,
    mut seen: impl FnMut(&[MigrationStatus]),
) -> Result<Vec<MigrationStatus>, Fault> {
    // One far beyond what the clock can hold is none.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut patience = Patience::default();
    loop {
        match client.observe(Some(workspace), None).await {
            Ok(observed) => {
                patience.met();
                let statuses: Vec<MigrationStatus> = observed
                    .into_iter()
                    .map(|one| one.status)
                    .filter(|status| migrations.iter().any(|(name, _)| *name == status.name))
                    .collect();
                seen(&statuses);
                if all_reached(migrations, target, &statuses)? {
                    return Ok(statuses);
                }
            }
            Err(fault) => patience.bear(fault)?,
        }
        if let Some(deadline) = deadline
            && Instant::now() + INTERVAL > deadline
        {
            let names: Vec<&str> = migrations.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!("{} did not reach {target} in time", names.join(", "));
            return Err(Fault::new(FaultCode::WaitTimedOut, message));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn all_reached(
    migrations: &[(MigrationName, Action)],
    target: Phase,
    statuses: &[MigrationStatus],
) -> Result<bool, Fault> {
    let mut all = true;
    for (name, action) in migrations {
        let Some(status) = statuses.iter().find(|status| status.name == *name) else {
            let message = format!("{name} is gone, so that it cannot reach {target}");
            return Err(Fault::new(FaultCode::WaitInVain, message));
        };
        match judge(target, *action, status) {
            Verdict::Reached => {}
            Verdict::Wait => all = false,
            Verdict::InVain(why) => {
                let message = format!("{why}, so that it cannot reach {target}");
                let fault = Fault::new(FaultCode::WaitInVain, message);
                return Err(match &status.error {
                    Some(cause) => fault.with_remedy(cause.remedy.clone()),
                    None => fault,
                });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use schemas::fault::{Fault, FaultCode};
    use schemas::phase::Phase;
    use schemas::status::MigrationStatus;
    use serde_json::{Value, json};

    use super::{Verdict, judge};
    use crate::plan::Action;

    fn status(phase: Phase, error: Option<FaultCode>) -> MigrationStatus {
        let base: Value =
            serde_json::from_str(include_str!("../tests/plan/base.json")).expect("JSON");
        let mut status = base["observed"]["status"].clone();
        status["phase"] = json!(phase);
        status["error"] = json!(error.map(|code| Fault::new(code, "it went wrong")));
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn what_is_passed_is_reached() {
        for (target, phase) in [
            (Phase::Copying, Phase::Copying),
            (Phase::Copying, Phase::Ready),
            (Phase::Ready, Phase::Draining),
            (Phase::Ready, Phase::Completed),
            (Phase::Paused, Phase::Paused),
        ] {
            assert_eq!(
                judge(target, Action::Create, &status(phase, None)),
                Verdict::Reached,
                "{target} {phase}"
            );
        }
    }

    #[test]
    fn what_may_still_come_is_waited_for() {
        for (target, phase) in [
            (Phase::Ready, Phase::Validating),
            (Phase::Ready, Phase::Paused),
            (Phase::Completed, Phase::Ready),
            (Phase::Expired, Phase::Ready),
        ] {
            assert_eq!(
                judge(target, Action::Create, &status(phase, None)),
                Verdict::Wait,
                "{target} {phase}"
            );
        }
        // Trouble that the daemon deals with by itself.
        let troubled = status(Phase::Copying, Some(FaultCode::Unreachable));
        assert_eq!(judge(Phase::Ready, Action::Create, &troubled), Verdict::Wait);
    }

    #[test]
    fn what_cannot_come_any_more_is_told() {
        for (target, action, phase, error) in [
            (Phase::Ready, Action::Create, Phase::Failed, Some(FaultCode::ResumePointLost)),
            (Phase::Ready, Action::Create, Phase::Cancelled, None),
            (Phase::Completed, Action::Create, Phase::Expired, None),
            (Phase::Paused, Action::Pause, Phase::Completed, None),
            (Phase::Completed, Action::CutOver, Phase::Ready, Some(FaultCode::MaxDowntimeExceeded)),
        ] {
            let verdict = judge(target, action, &status(phase, error));
            assert!(
                matches!(&verdict, Verdict::InVain(why) if why.contains("orders")),
                "{target} {phase}: {verdict:?}"
            );
        }
    }
}
