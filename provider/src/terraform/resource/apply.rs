//! Carries a plan out, and tells how it went. What the daemon has taken is in the state, whatever
//! happens afterwards.

use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Serial};
use schemas::phase::Phase;
use schemas::plugin_protocol::tfplugin6::Diagnostic;
use schemas::time::Length;
use schemas::wire::{self, v1};

use super::note::Note;
use super::plan::{carried, is_to_go};
use super::{check_workspace, name_of, problems};
use crate::plan::Action;
use crate::progress::Lines;
use crate::terraform::declare::Waiting;
use crate::terraform::diagnostic::Problems;
use crate::terraform::log::{self, Level};
use crate::terraform::session::{Connected, Session, in_terraforms_terms};
use crate::terraform::value::Value;
use crate::terraform::{catalog, declare, diagnostic, state};
use crate::{actor, wait};

/// A cancelled run stops its workers and frees the destination: seconds, unless a server is away.
const DELETE_LIMIT: Length = Length::from_secs(300);

/// A change to carry out.
#[derive(Debug)]
pub(crate) struct Change {
    /// The state before.
    pub(crate) prior: Value,
    /// The state that was planned; null where it is to go.
    pub(crate) planned: Value,
    /// The configuration.
    pub(crate) config: Value,
    /// What the plan left.
    pub(crate) note: Note,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The state now.
    pub(crate) state: Value,
    /// Errors and warnings.
    pub(crate) diagnostics: Problems,
}

/// Carries a change out.
pub(crate) async fn apply(session: &Session, change: Change) -> Applied {
    let prior = change.prior.clone();
    let outcome = if change.planned.is_null() {
        remove(session, change).await
    } else {
        declare(session, change).await
    };
    // What was not taken leaves everything as it was.
    outcome.unwrap_or_else(|diagnostics| Applied { state: prior, diagnostics })
}

async fn declare(session: &Session, change: Change) -> Result<Applied, Problems> {
    let daemon = session.must_connect().await.map_err(problems)?;
    let checked =
        declare::migration(&declare::working_folder(), &change.config, Some(&daemon.store));
    let Some(wanted) = checked.made else {
        return Err(checked.diagnostics.iter().map(diagnostic::checked).collect());
    };
    let mut note = change.note;
    if note.action.is_none() {
        note = carried(session, &change.prior, &change.config).await?.note;
    }
    let action = note.action.unwrap_or(Action::NoOp);
    let name = wanted.spec.name.clone();
    if action == Action::NoOp {
        if let Some(run) = note.takes_over {
            session.adopt(run);
        }
    } else {
        let drops = match change.planned.get(catalog::DROPS) {
            Value::List(names) if change.prior.is_null() => {
                names.iter().filter_map(Value::as_text).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        // A password of the same version stays as it is, whatever the configuration says by now.
        let mut secrets = declare::secrets(&change.config);
        secrets.retain(|secret| {
            let kept = change.prior.get(&secret.side).get(catalog::PASSWORD_VERSION).as_u64();
            change.prior.is_null() || kept != Some(u64::from(secret.version))
        });
        if !secrets.is_empty() {
            let kept = daemon.client.keep_secrets(daemon.workspace(), &name, secrets).await;
            kept.map_err(|fault| problems(in_terraforms_terms(fault)))?;
        }
        let declared = v1::Change {
            name: name.to_string(),
            expected_serial: note.serial.0,
            spec: wire::to_json(&wanted.spec),
            drops,
        };
        let taken = hand_over(&daemon, declared).await?;
        let serial = taken.serial.to_string();
        let fields = [
            ("migration", name.as_str()),
            ("action", action.as_str()),
            ("serial", &serial),
            ("run", &taken.run),
        ];
        log::line(Level::Info, "the daemon has taken the change", &fields);
    }
    // From here on the change is made: errors come with the state.
    let waiting = Waiting::of(&change.config);
    let limit = if change.prior.is_null() { waiting.create } else { waiting.update };
    let mut diagnostics = Vec::new();
    if let Some(target) = waiting.target.filter(|_| !wanted.spec.paused) {
        diagnostics.extend(wait_for(session, &daemon, &name, action, target, limit).await);
    }
    let observed = match daemon.observe(&name).await {
        Ok(observed) => observed,
        Err(fault) => {
            let detail = format!(
                "{} Its status shows with the next refresh.",
                diagnostic::sentence(&fault.remedy)
            );
            diagnostics.push(diagnostic::warning(
                format!("{name} was applied, but {} [{}]", fault.message, fault.code),
                detail,
            ));
            None
        }
    };
    Ok(Applied { state: state::settled(&change.planned, observed.as_ref()), diagnostics })
}

async fn hand_over(daemon: &Connected, change: v1::Change) -> Result<v1::Applied, Problems> {
    let name = change.name.clone();
    let taken =
        daemon.client.apply(daemon.workspace(), vec![change], actor::from_environment()).await;
    let taken = taken.map_err(|fault| problems(in_terraforms_terms(fault)))?.into_iter().next();
    taken.ok_or_else(|| {
        problems(Fault::new(FaultCode::Internal, format!("the daemon did not answer for {name}")))
    })
}

/// Waits for a phase; gives what kept it from that.
async fn wait_for(
    session: &Session,
    daemon: &Connected,
    name: &MigrationName,
    action: Action,
    target: Phase,
    limit: Option<Length>,
) -> Option<Diagnostic> {
    // Nobody can acknowledge while this apply goes on: without an acknowledgement in it, `ready` is
    // as far as it gets.
    let target =
        if target == Phase::Completed && action != Action::CutOver { Phase::Ready } else { target };
    let mut lines = Lines::default();
    let mut last = String::new();
    let migrations = [(name.clone(), action)];
    let reached = wait::until(
        &daemon.client,
        daemon.workspace(),
        &migrations,
        target,
        limit.map(Length::get),
        |statuses| {
            for line in lines.news(statuses) {
                log::line(Level::Info, &line, &[("migration", name.as_str())]);
                last = line;
            }
        },
    );
    let outcome = tokio::select! {
        reached = reached => Some(reached),
        () = session.stopped() => None,
    };
    match outcome {
        Some(Ok(_)) => None,
        Some(Err(fault)) if fault.code == FaultCode::WaitTimedOut => Some(diagnostic::fault(
            &fault.with_remedy(format!("raise the timeout; the run goes on regardless ({last})")),
        )),
        Some(Err(fault)) => Some(diagnostic::fault(&in_terraforms_terms(fault))),
        // An error would have Terraform create it again.
        None => Some(diagnostic::warning(
            format!("interrupted before {name} was {target}; its run goes on"),
            format!(
                "It stood at: {last}. The change itself is made. A refresh shows where it stands."
            ),
        )),
    }
}

async fn remove(session: &Session, change: Change) -> Result<Applied, Problems> {
    let gone = || Applied { state: Value::Null, diagnostics: Vec::new() };
    let prior = &change.prior;
    let run = prior.get("run").as_text().unwrap_or_default();
    // One half of a replacement: the daemon replaces the run itself, with the list of what it
    // created.
    if change.note.takes_over.is_some_and(|kept| kept.to_string() == run) {
        session.own(run);
        return Ok(gone());
    }
    let daemon = session.must_connect().await.map_err(problems)?;
    check_workspace(prior, daemon.workspace())?;
    let name = name_of(prior)?;
    let existing = daemon.observe(&name).await.map_err(problems)?;
    let Some(existing) = existing.filter(|existing| is_to_go(session, prior, existing)) else {
        return Ok(gone());
    };
    let serial = prior.get("serial").as_u64().map_or(existing.status.serial, Serial);
    let removed =
        v1::Change { name: name.to_string(), expected_serial: serial.0, ..v1::Change::default() };
    hand_over(&daemon, removed).await?;
    let limit = Waiting::of(prior).delete.unwrap_or(DELETE_LIMIT).get();
    let left = tokio::select! {
        left = tokio::time::timeout(limit, until_stopped(&daemon, &name)) => left.ok(),
        () = session.stopped() => None,
    };
    let diagnostics = match left {
        Some(Ok(())) => Vec::new(),
        Some(Err(fault)) => vec![after_removal(&name, &fault.message)],
        None => vec![after_removal(&name, "it has not stopped yet")],
    };
    Ok(Applied { diagnostics, ..gone() })
}

/// It is removed and will stop: this is not worth an error, which would keep it in the state.
fn after_removal(name: &MigrationName, why: &str) -> Diagnostic {
    diagnostic::warning(
        format!("{name} is removed, but {why}"),
        format!("`cutover status {name}` shows where it stands."),
    )
}

/// Waits until a removed migration is stopped, or forgotten.
async fn until_stopped(daemon: &Connected, name: &MigrationName) -> Result<(), Fault> {
    let mut patience = wait::Patience::default();
    loop {
        match daemon.observe(name).await {
            Ok(None) => return Ok(()),
            Ok(Some(existing)) if existing.status.phase == Phase::Cancelled => return Ok(()),
            Ok(Some(_)) => patience.met(),
            Err(fault) => patience.bear(fault)?,
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Most runs stop within one.
const POLL: Duration = Duration::from_millis(200);
