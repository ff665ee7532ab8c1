//! The data sources: where a migration stands, and what the live checks say of one.

use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Workspace};
use schemas::observed::Outcome;
use serde_json::json;

use super::catalog::{self, MIGRATION_TYPE, PREFLIGHT_TYPE};
use super::diagnostic::Problems;
use super::session::{Connected, Session};
use super::value::Value;
use super::{declare, diagnostic, state};

/// Reads a data source; gives its state, and warnings.
pub(crate) async fn read(
    session: &Session,
    type_name: &str,
    config: &Value,
) -> Result<(Value, Problems), Problems> {
    match type_name {
        MIGRATION_TYPE => migration(session, config).await,
        PREFLIGHT_TYPE => preflight(session, config).await,
        other => {
            Err(vec![diagnostic::error(format!("the provider has no data source {other}"), "")])
        }
    }
}

fn problems(fault: &Fault) -> Problems {
    vec![diagnostic::fault(fault)]
}

async fn migration(session: &Session, config: &Value) -> Result<(Value, Problems), Problems> {
    let mut daemon = session.must_connect().await.map_err(|fault| problems(&fault))?;
    let invalid = |error: &dyn std::error::Error| vec![diagnostic::error(error.to_string(), "")];
    let name = MigrationName::new(config.get("name").as_text().unwrap_or_default())
        .map_err(|error| invalid(&error))?;
    if let Some(workspace) = config.get("workspace").as_text() {
        daemon.store.workspace = Workspace::new(workspace).map_err(|error| invalid(&error))?;
    }
    let observed = daemon.observe(&name).await.map_err(|fault| problems(&fault))?;
    let Some(observed) = observed else {
        let message = format!("there is no migration {name} in workspace {}", daemon.workspace());
        return Err(problems(&Fault::new(FaultCode::UnknownMigration, message)));
    };
    let mut entries: std::collections::BTreeMap<String, Value> = catalog::status_values(&observed)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    entries.insert("name".to_owned(), Value::Text(name.to_string()));
    // What the configuration leaves out stays out: the id says which workspace it is.
    entries.insert("workspace".to_owned(), config.get("workspace").clone());
    entries.insert("generation".to_owned(), Value::from(json!(observed.status.generation)));
    entries.insert("paused".to_owned(), Value::Bool(observed.status.paused));
    Ok((catalog::migration_data().take(&Value::Object(entries)), Vec::new()))
}

async fn preflight(session: &Session, config: &Value) -> Result<(Value, Problems), Problems> {
    let checked = declare::migration(&declare::working_folder(), config, None);
    let Some(wanted) = checked.made else {
        return Err(checked.diagnostics.iter().map(diagnostic::checked).collect());
    };
    let daemon: Connected = session.must_connect().await.map_err(|fault| problems(&fault))?;
    let inspection = tokio::select! {
        inspected = session.inspect(
            &daemon, &wanted.spec, Vec::new(),
        ) => inspected.map_err(|fault| problems(&fault))?,
        () = session.stopped() => return Err(vec![diagnostic::error("the live checks were \
             interrupted", "Nothing was changed.")]),
    };
    let schema = catalog::preflight_data();
    let Value::Object(mut entries) = state::of_config(&schema, config, &Value::Null) else {
        return Err(problems(&Fault::new(FaultCode::Internal, "the configuration is no object")));
    };
    let passed = inspection.checks.iter().all(|check| check.outcome != Outcome::Fail);
    let mut found = serde_json::to_value(&inspection).expect("an inspection has string keys only");
    found["passed"] = json!(passed);
    for attribute in &schema.attributes {
        if let Some(value) = found.get(attribute.name) {
            entries.insert(attribute.name.to_owned(), Value::from(value.clone()));
        }
    }
    Ok((schema.take(&Value::Object(entries)), Vec::new()))
}
