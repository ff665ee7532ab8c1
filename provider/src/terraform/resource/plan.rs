//! What applying a configuration would do: the planner's answer, in the form that Terraform asks
//! for.

use std::collections::BTreeMap;

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::Declared;
use schemas::id::MigrationName;
use schemas::observed::Observed;
use schemas::plugin_protocol::tfplugin6::Diagnostic;
use schemas::spec::ExistingData;
use schemas::wire::v1;

use super::note::Note;
use super::{check_workspace, name_of, problems};
use crate::clock;
use crate::declaration::{Declaration, Reach};
use crate::plan::{self as planner, Action};
use crate::terraform::diagnostic::Problems;
use crate::terraform::session::{Ask, Connected, Session};
use crate::terraform::value::Value;
use crate::terraform::{catalog, declare, diagnostic, state};

/// What is planned.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The state afterwards.
    pub(crate) state: Value,
    /// The attributes because of which it is destroyed and created again.
    pub(crate) replaced_for: Vec<&'static str>,
    /// For the apply.
    pub(crate) note: Note,
    /// Warnings.
    pub(crate) diagnostics: Problems,
}

impl Planned {
    fn of(state: Value) -> Self {
        Self { state, replaced_for: Vec::new(), note: Note::default(), diagnostics: Vec::new() }
    }

    fn replaced_for(self, attribute: &'static str) -> Self {
        Self { replaced_for: vec![attribute], ..self }
    }
}

/// Plans what one resource asks for. `before` is what the plan before has left, where Terraform
/// plans a replacement.
///
/// One name is one migration, so that each resource has its own. Terraform does not say which
/// resource it plans: two are told from one by what they ask.
pub(crate) async fn plan(
    session: &Session,
    prior: &Value,
    config: &Value,
    before: &Note,
) -> Result<Planned, Problems> {
    let wanted =
        |of: &Value| of.get("name").as_text().and_then(|name| MigrationName::new(name).ok());
    let (had, named) = (wanted(prior), wanted(config));
    let asks = match (&had, &named) {
        (Some(had), None) if config.is_null() => Some((had, Ask::Remove)),
        (Some(had), Some(named)) if had == named => Some((named, Ask::Update)),
        // The second half of a replacement goes on with what the first has asked.
        (None, Some(named)) if prior.is_null() && before.of.is_none() => Some((named, Ask::Create)),
        _ => None,
    };
    if let Some((_, Ask::Remove)) = asks
        && !removes(session, prior).await?
    {
        return carried(session, prior, config).await;
    }
    if let Some((name, ask)) = asks
        && !session.ask(name, ask)
    {
        return Err(problems(named_twice(name)));
    }
    let mut planned = carried(session, prior, config).await?;
    planned.note.of = prior.get("run").as_text().map(str::to_owned);
    Ok(planned)
}

fn named_twice(name: &MigrationName) -> Fault {
    Fault::new(
        FaultCode::InvalidConfiguration,
        format!("two resources have the name {:?}, and one name is one migration", name.as_str()),
    )
    .with_remedy(
        "give each resource a name of its own; where a resource has another address now, write a \
         `moved` block; one that is in the state twice is taken out of it with `terraform state rm \
         ADDRESS`, which leaves its run alone",
    )
}

/// Whether destroying what the state holds would remove the migration that is there.
async fn removes(session: &Session, prior: &Value) -> Result<bool, Problems> {
    let Some(daemon) = session.connect().await.map_err(problems)? else { return Ok(false) };
    let existing = daemon.observe(&name_of(prior)?).await.map_err(problems)?;
    Ok(existing.is_some_and(|existing| is_to_go(session, prior, &existing)))
}

/// Plans a migration that is to be as `config` has it. `prior` is null where the state has none,
/// and `config` where it is to go.
pub(super) async fn carried(
    session: &Session,
    prior: &Value,
    config: &Value,
) -> Result<Planned, Problems> {
    if config.is_null() {
        return removal(session, prior).await;
    }
    let folder = declare::working_folder();
    let asked = state::of_config(&catalog::migration(), config, prior);
    let daemon = session.connect().await.map_err(problems)?;
    let checked = declare::migration(&folder, config, daemon.as_ref().map(|daemon| &daemon.store));
    // Its warnings were reported by the validation that goes before every plan.
    let mut mistakes: Problems = checked.diagnostics.iter().map(diagnostic::checked).collect();
    mistakes.extend(declare::waiting(&folder, config));
    mistakes.extend(declare::check_secrets(config, true));
    if diagnostic::has_errors(&mistakes) {
        return Err(mistakes);
    }
    if !prior.is_null()
        && let Some(daemon) = &daemon
    {
        check_workspace(prior, daemon.workspace())?;
    }
    let unsettled = || Planned::of(state::with_unknown_status(&asked, false));
    if !prior.is_null() && asked.get("name").is_known() && asked.get("name") != prior.get("name") {
        let gone = removal(session, prior).await?;
        return Ok(Planned { diagnostics: gone.diagnostics, ..unsettled().replaced_for("name") });
    }
    let raised = !prior.is_null()
        && asked.get("generation").is_known()
        && asked.get("generation").as_u64() > prior.get("generation").as_u64();
    let replaced =
        |planned: Planned| if raised { planned.replaced_for("generation") } else { planned };
    let (Some(wanted), Some(daemon)) = (checked.made, daemon) else {
        // What is not known yet is checked when it is: Terraform plans again before it applies.
        return Ok(replaced(Planned::of(state::with_unknown_status(
            &asked,
            !prior.is_null() && !raised,
        ))));
    };
    let planned = known(session, &daemon, wanted, asked, prior, declare::secrets(config)).await?;
    if raised {
        // Terraform plans once more, for the new one alone; but the warnings that it shows are
        // these.
        return Ok(Planned {
            state: state::with_unknown_status(&planned.state, false),
            ..replaced(planned)
        });
    }
    Ok(planned)
}

/// Plans what is known in full.
async fn known(
    session: &Session,
    daemon: &Connected,
    wanted: Declared,
    asked: Value,
    prior: &Value,
    secrets: Vec<v1::Secret>,
) -> Result<Planned, Problems> {
    let folder = declare::working_folder();
    let spec = wanted.spec.clone();
    let existing = daemon.observe(&spec.name).await.map_err(problems)?;
    if prior.is_null() {
        if let Some(existing) = &existing {
            refuse_foreign(session, existing, &wanted)?;
        }
    } else {
        refuse_outdated(existing.as_ref(), prior)?;
    }
    let observed: Vec<Observed> = existing.into_iter().collect();
    let mut inspections = BTreeMap::new();
    if planner::starts(&spec, &observed) {
        let inspection = tokio::select! {
            inspected = session.inspect(daemon, &spec, secrets) => inspected.map_err(problems)?,
            () = session.stopped() => return Err(
                vec![diagnostic::error("the plan was interrupted", "Nothing was changed.")]
            ),
        };
        inspections.insert(spec.name.clone(), inspection);
    }
    let declaration = Declaration {
        workspace: daemon.workspace().clone(),
        reach: Reach::default(),
        migrations: BTreeMap::from([(spec.name.clone(), wanted)]),
        fingerprint: String::new(),
        warnings: Vec::new(),
    };
    let plan = planner::plan(&declaration, &observed, &inspections, clock::now());
    let mut diagnostics: Problems = plan.diagnostics.iter().map(diagnostic::checked).collect();
    diagnostics.extend(plan.drift.iter().map(drift));
    if plan.has_errors() {
        return Err(diagnostics);
    }
    let change = plan.changes.first().ok_or_else(|| problems(unplanned()))?;
    let existing = observed.first();
    let mut note =
        Note { action: Some(change.action), serial: change.serial, takes_over: None, of: None };
    if let Some(existing) = existing.filter(|_| prior.is_null()) {
        note.takes_over = Some(existing.status.run.clone());
        if change.action == Action::NoOp {
            diagnostics.push(adopted(existing));
        }
    }
    let drops =
        change.action != Action::Create || spec.destination.existing_data == ExistingData::Drop;
    diagnostics.extend(effects(change).filter(|_| drops));
    let state = if prior.is_null() {
        // What the earlier run created goes with it, and may grow until then: the list is of
        // everything else.
        let created =
            existing.map(|existing| existing.created_namespaces.as_slice()).unwrap_or_default();
        let found =
            inspections.get(&spec.name).map(|found| found.drops.as_slice()).unwrap_or_default();
        let mut drops: Vec<String> =
            found.iter().filter(|one| !created.contains(one)).map(ToString::to_string).collect();
        drops.sort_unstable();
        state::dropping(&asked, drops)
    } else {
        let reworded = state::in_prior_words(&asked, prior, &spec, &folder, &daemon.store);
        if change.action == Action::NoOp
            && state::asks_the_same(&catalog::migration(), &reworded, prior)
        {
            reworded
        } else {
            state::with_unknown_status(&reworded, true)
        }
    };
    Ok(Planned { note, diagnostics, ..Planned::of(state) })
}

/// Plans that a migration goes.
async fn removal(session: &Session, prior: &Value) -> Result<Planned, Problems> {
    let nothing = || Planned::of(Value::Null);
    let Some(daemon) = session.connect().await.map_err(problems)? else { return Ok(nothing()) };
    check_workspace(prior, daemon.workspace())?;
    let existing = daemon.observe(&name_of(prior)?).await.map_err(problems)?;
    let Some(existing) = existing.filter(|existing| is_to_go(session, prior, existing)) else {
        return Ok(nothing());
    };
    let declaration = Declaration {
        workspace: daemon.workspace().clone(),
        reach: Reach::default(),
        migrations: BTreeMap::new(),
        fingerprint: String::new(),
        warnings: Vec::new(),
    };
    let plan = planner::plan(&declaration, &[existing], &BTreeMap::new(), clock::now());
    let mut diagnostics: Problems = plan.diagnostics.iter().map(diagnostic::checked).collect();
    if plan.has_errors() {
        return Err(diagnostics);
    }
    let mut note = Note::default();
    if let Some(change) = plan.changes.first() {
        diagnostics.extend(effects(change));
        note =
            Note { action: Some(change.action), serial: change.serial, takes_over: None, of: None };
    }
    Ok(Planned { note, diagnostics, ..nothing() })
}

/// Whether destroying what `prior` holds removes what is there: not where a later generation, or
/// another object of the same configuration, has it by now.
pub(super) fn is_to_go(session: &Session, prior: &Value, existing: &Observed) -> bool {
    let generation = prior.get("generation").as_u64().unwrap_or(u64::MAX);
    let run = prior.get("run").as_text().unwrap_or_default();
    existing.declared
        && u64::from(existing.status.generation.0) <= generation
        && !session.has_adopted(run)
}

/// A migration of this name is there, and the state does not have it.
///
/// One that is declared just so may be another state's: only a resource that the state has, to be
/// replaced, keeps its run.
fn refuse_foreign(
    session: &Session,
    existing: &Observed,
    wanted: &Declared,
) -> Result<(), Problems> {
    let status = &existing.status;
    let as_declared = existing.spec == wanted.spec
        && existing.by_hand.paused.is_none()
        && !existing.by_hand.cancelled;
    let same = as_declared && session.owns(&status.run);
    if !existing.declared || wanted.spec.generation != status.generation || same {
        return Ok(());
    }
    let (workspace, name) = (&status.workspace, &status.name);
    let fault = Fault::new(
        FaultCode::WrongState,
        format!(
            "{workspace} has a migration {name} already (run {}), which {}",
            status.run,
            if as_declared { "the state does not have" } else { "is declared otherwise" }
        ),
    );
    Err(problems(fault.with_remedy(format!(
        "take it into the state with `terraform import ADDRESS {workspace}/{name}`; where an apply \
         was cut short, `terraform untaint ADDRESS` keeps it"
    ))))
}

/// Reality has moved on since the state was refreshed, which is when the plan was made.
fn refuse_outdated(existing: Option<&Observed>, prior: &Value) -> Result<(), Problems> {
    let name = prior.get("name").as_text().unwrap_or_default();
    let planned_on = prior.get("serial").as_u64();
    let message = match existing {
        None => format!("migration {name} is gone since the plan was made"),
        // An apply that could not read the status afterwards left no serial.
        Some(existing) if planned_on.is_none_or(|serial| serial == existing.status.serial.0) => {
            return Ok(());
        }
        Some(existing) => format!(
            "migration {name} has serial {}, and the plan was made on {}",
            existing.status.serial,
            planned_on.unwrap_or_default()
        ),
    };
    Err(problems(
        Fault::new(FaultCode::PlanOutdated, message)
            .with_remedy("run `terraform plan` again and review it"),
    ))
}

fn unplanned() -> Fault {
    Fault::new(FaultCode::Internal, "the planner said nothing of the migration")
}

fn drift(drift: &planner::Drift) -> Diagnostic {
    diagnostic::warning(
        drift.message.clone(),
        format!("{}: declared {}, is {}.", drift.path, drift.declared, drift.actual),
    )
}

fn adopted(existing: &Observed) -> Diagnostic {
    let status = &existing.status;
    diagnostic::warning(
        format!("{} exists already, declared just so", status.name),
        format!(
            "Run {} is taken into the state as it is. It goes on; nothing is dropped, stopped or \
             copied again.",
            status.run
        ),
    )
}

/// What a change does to data, as a warning: Terraform has no other place for it.
fn effects(change: &planner::Change) -> Option<Diagnostic> {
    let name = &change.migration;
    let summary = match change.action {
        Action::NoOp => return None,
        Action::Create => format!("{name} will be created"),
        Action::Update => format!("{name} will be changed"),
        Action::Rerun => format!("{name} will run again from scratch"),
        Action::Pause => format!("{name} will be held"),
        Action::Resume => format!("{name} will go on"),
        Action::Extend => format!("the window of {name} will be extended"),
        Action::CutOver => format!("{name} will cut over"),
        Action::Cancel => format!("{name} will be cancelled"),
        Action::Forget => format!("{name} will be forgotten"),
    };
    let effects: Vec<String> = change.effects.iter().map(|effect| format!("* {effect}")).collect();
    Some(diagnostic::warning(summary, effects.join("\n")))
}
