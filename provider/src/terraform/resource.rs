//! The resource `cutover_migration`: Terraform's steps, each a few calls of the planner and the
//! daemon.

mod apply;
mod note;
mod plan;

use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};
use schemas::plugin_protocol::tfplugin6::Diagnostic;

pub(crate) use apply::{Change, apply};
pub(crate) use note::Note;
pub(crate) use plan::plan;

use super::diagnostic::Problems;
use super::session::Session;
use super::value::Value;
use super::{catalog, declare, diagnostic, state};

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self(diagnostic::fault(&fault))
    }
}

/// One diagnostic that ends a call.
struct Problem(Diagnostic);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        vec![problem.0]
    }
}

fn problems(fault: Fault) -> Problems {
    Problem::from(fault).into()
}

/// The migration that a state is about.
fn name_of(state: &Value) -> Result<MigrationName, Problems> {
    let name = state.get("name").as_text().unwrap_or_default();
    MigrationName::new(name).map_err(|error| {
        vec![diagnostic::error(format!("the state is damaged: {error}"), "Import it again.")]
    })
}

/// Refuses a state of another workspace than the provider's.
fn check_workspace(state: &Value, workspace: &Workspace) -> Result<(), Problems> {
    match state.get("workspace").as_text() {
        Some(stored) if stored != workspace.as_str() => {
            let fault = Fault::new(
                FaultCode::InvalidConfiguration,
                format!(
                    "the migration belongs to workspace {stored}, and the provider is configured \
                     for {workspace}"
                ),
            );
            Err(problems(fault.with_remedy(format!(
                "configure the provider with workspace = {stored:?}; to give the migration up \
                 here, use `terraform state rm`"
            ))))
        }
        _ => Ok(()),
    }
}

/// Where a migration stands; null where it is gone, or its block was removed elsewhere.
pub(crate) async fn read(session: &Session, current: &Value) -> Result<Value, Problems> {
    if current.is_null() {
        return Ok(Value::Null);
    }
    let Some(daemon) = session.connect().await.map_err(problems)? else {
        return Ok(current.clone());
    };
    check_workspace(current, daemon.workspace())?;
    session.own(current.get("run").as_text().unwrap_or_default());
    let observed = daemon.observe(&name_of(current)?).await.map_err(problems)?;
    Ok(match observed.filter(|one| one.declared) {
        Some(observed) => {
            state::of_observed(current, &observed, &declare::working_folder(), &daemon.store)
        }
        None => Value::Null,
    })
}

/// Takes a migration that is there into an empty state. The id is `WORKSPACE/NAME`, or the name
/// alone.
pub(crate) async fn import(session: &Session, id: &str) -> Result<Value, Problems> {
    let daemon = session.must_connect().await.map_err(problems)?;
    let (stored, name) = id.split_once('/').unwrap_or((daemon.workspace().as_str(), id));
    let wrong = |error: &dyn std::error::Error| {
        vec![diagnostic::error(
            format!("{id:?} is not the id of a migration: {error}"),
            "Write it as WORKSPACE/NAME.",
        )]
    };
    let name = MigrationName::new(name).map_err(|error| wrong(&error))?;
    let of = Workspace::new(stored).map_err(|error| wrong(&error))?;
    check_workspace(
        &Value::Object([("workspace".to_owned(), Value::Text(of.to_string()))].into()),
        daemon.workspace(),
    )?;
    let observed = daemon.observe(&name).await.map_err(problems)?;
    let Some(observed) = observed else {
        let message = format!("there is no migration {name} in workspace {of}");
        return Err(problems(Fault::new(FaultCode::UnknownMigration, message)));
    };
    if !observed.declared {
        let message = format!("{name} was removed, and its run {} with it", observed.status.run);
        let remedy = format!(
            "declare it with generation = {}",
            observed.status.generation.0.saturating_add(1)
        );
        return Err(problems(Fault::new(FaultCode::WrongState, message).with_remedy(remedy)));
    }
    Ok(catalog::migration().take(&state::of_observed(
        &Value::Null,
        &observed,
        &declare::working_folder(),
        &daemon.store,
    )))
}
