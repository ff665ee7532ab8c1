//! What is stored of a migration: the configuration as it was written, as long as it means what is,
//! and where the run stands.
//!
//! A duration, a relative file or a left-out default is compared by its meaning. So a refresh shows
//! what somebody changed and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use schemas::hcl::schema::{BlockSchema, MIGRATION, Times};
use schemas::observed::Observed;
use schemas::spec::MigrationSpec;
use serde_json::Value as Json;

use super::catalog::{self, is_fixed, settled_status, spec_json, status_values};
use super::declare::{self, Store};
use super::schema::{Block, Presence};
use super::value::Value;

/// What is there, as a state. `prior`: the state before, or null at an import.
#[must_use]
pub(crate) fn of_observed(
    prior: &Value,
    observed: &Observed,
    folder: &Path,
    store: &Store,
) -> Value {
    let mut actual = observed.spec.clone();
    // A hold by hand is undone by the next apply, so that it shows as a change. Extensions by hand
    // are not: they stay in force, and show in `window`.
    actual.paused = observed.by_hand.paused.unwrap_or(actual.paused);
    let actual = spec_json(&actual);
    // What the state means. One that does not pass the checks any more means nothing: then all is
    // as it really is.
    let known = declare::migration(folder, prior, Some(store))
        .made
        .map(|declared| spec_json(&declared.spec));
    let schema = catalog::migration();
    let mut entries = as_object(merge(
        &schema,
        &MIGRATION,
        prior,
        known.as_ref(),
        &actual,
        &defaults(&observed.spec),
    ));
    // Where nothing has happened but that time has passed, what was measured stays as it was: a
    // refresh that finds other figures each time would have Terraform tell a change each time.
    let status: BTreeMap<&str, Value> = status_values(observed).into_iter().collect();
    let now = settled_status(|name| status.get(name).cloned().unwrap_or(Value::Null));
    let is_as_before = !prior.is_null() && settled_status(|name| prior.get(name).clone()) == now;
    for (name, value) in status {
        entries.insert(name.to_owned(), if is_as_before { prior.get(name).clone() } else { value });
    }
    // How to wait is the configuration's alone, and what was dropped was settled by the plan.
    for name in [catalog::WAIT_FOR, catalog::TIMEOUTS.name, catalog::DROPS] {
        entries.insert(name.to_owned(), prior.get(name).clone());
    }
    schema.take(&Value::Object(entries))
}

/// The spec that says nothing but what must be said.
fn defaults(spec: &MigrationSpec) -> Json {
    let mut plain = spec_json(spec);
    for inner in MIGRATION.blocks.iter().filter(|inner| inner.times != Times::Once) {
        for attribute in inner.attributes {
            let default = attribute
                .default
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or(Json::Null);
            if plain[inner.name].is_object() {
                plain[inner.name][attribute.name] = default;
            }
        }
    }
    plain["verify"]["mode"] =
        serde_json::to_value(schemas::hcl::DEFAULT_VERIFY_MODE).expect("a text");
    plain["sharding"] = Json::Null;
    plain
}

fn as_object(value: Value) -> BTreeMap<String, Value> {
    match value {
        Value::Object(entries) => entries,
        _ => BTreeMap::new(),
    }
}

/// `actual` in the words of `prior` wherever those mean the same.
fn merge(
    schema: &Block,
    table: &BlockSchema,
    prior: &Value,
    known: Option<&Json>,
    actual: &Json,
    defaults: &Json,
) -> Value {
    let mut entries = BTreeMap::new();
    if let Some(label) = table.label {
        entries.insert(label.to_owned(), Value::from(actual[label].clone()));
    }
    for attribute in table.attributes {
        let name = attribute.name;
        let same = known.is_some_and(|known| known[name] == actual[name]) && !prior.is_null();
        let value = if same { prior.get(name).clone() } else { Value::from(actual[name].clone()) };
        entries.insert(name.to_owned(), value);
    }
    // What is the configuration's alone.
    let added = schema.attributes.iter().filter(|one| {
        matches!(one.presence, Presence::Optional) && table.attribute(one.name).is_none()
    });
    for attribute in added {
        entries.insert(attribute.name.to_owned(), prior.get(attribute.name).clone());
    }
    for inner in table.blocks {
        let name = inner.name;
        let before = prior.get(name);
        let Some(nested) = schema.blocks.iter().find(|one| one.name == name) else { continue };
        let known = known.map(|known| &known[name]);
        // What must be written has no default.
        let defaults = if inner.times == Times::Once { &Json::Null } else { &defaults[name] };
        let actual = &actual[name];
        let value = if known == Some(actual) && !prior.is_null() {
            before.clone()
        } else if inner.times == Times::Any {
            let items = actual.as_array().map(Vec::as_slice).unwrap_or_default();
            Value::List(
                items
                    .iter()
                    .map(|one| merge(&nested.block, inner, &Value::Null, None, one, &Json::Null))
                    .collect(),
            )
        } else if actual.is_null()
            || (prior.is_null() && inner.times != Times::Once && actual == defaults)
        {
            // An import cannot know whether a block with nothing but defaults is written out.
            Value::Null
        } else {
            merge(&nested.block, inner, before, known, actual, defaults)
        };
        entries.insert(name.to_owned(), value);
    }
    Value::Object(entries)
}

/// The state that a configuration asks for. What the provider fills in is taken from `prior` where
/// there is one, and else is unknown.
#[must_use]
pub(crate) fn of_config(schema: &Block, config: &Value, prior: &Value) -> Value {
    let mut entries = BTreeMap::new();
    for attribute in &schema.attributes {
        let given = config.get(attribute.name);
        let value = match &attribute.presence {
            Presence::Computed if prior.is_null() => Value::Unknown,
            Presence::Computed => prior.get(attribute.name).clone(),
            Presence::WriteOnly => Value::Null,
            Presence::Default(default) if given.is_null() => Value::from(default.clone()),
            Presence::Default(_) | Presence::Required | Presence::Optional => given.clone(),
        };
        entries.insert(attribute.name.to_owned(), value);
    }
    for inner in &schema.blocks {
        let value = match config.get(inner.name) {
            Value::List(items) => Value::List(
                items.iter().map(|one| of_config(&inner.block, one, &Value::Null)).collect(),
            ),
            block @ Value::Object(_) => of_config(&inner.block, block, &Value::Null),
            other => other.clone(),
        };
        entries.insert(inner.name.to_owned(), value);
    }
    schema.take(&Value::Object(entries))
}

/// Keeps the words of `prior` in `planned` wherever both mean the same, so that nothing is planned
/// where nothing differs.
#[must_use]
pub(crate) fn in_prior_words(
    planned: &Value,
    prior: &Value,
    wanted: &MigrationSpec,
    folder: &Path,
    store: &Store,
) -> Value {
    let Some(known) = declare::migration(folder, prior, Some(store)).made else {
        return planned.clone();
    };
    Value::Object(reword(&MIGRATION, planned, prior, &spec_json(&known.spec), &spec_json(wanted)))
}

fn reword(
    table: &BlockSchema,
    planned: &Value,
    prior: &Value,
    known: &Json,
    wanted: &Json,
) -> BTreeMap<String, Value> {
    let mut entries = as_object(planned.clone());
    for attribute in table.attributes {
        let (now, before) = (planned.get(attribute.name), prior.get(attribute.name));
        // Terraform takes an old value for a new one only where both are given.
        if !now.is_null() && !before.is_null() && known[attribute.name] == wanted[attribute.name] {
            entries.insert(attribute.name.to_owned(), before.clone());
        }
    }
    for inner in table.blocks {
        let (now, before) = (planned.get(inner.name), prior.get(inner.name));
        if matches!((now, before), (Value::Object(_), Value::Object(_))) {
            let reworded = reword(inner, now, before, &known[inner.name], &wanted[inner.name]);
            entries.insert(inner.name.to_owned(), Value::Object(reworded));
        }
    }
    entries
}

/// Marks what the provider fills in as unknown: a change may move all of it, but for what a run
/// keeps.
#[must_use]
pub(crate) fn with_unknown_status(planned: &Value, keeps_run: bool) -> Value {
    let mut entries = as_object(planned.clone());
    for attribute in &catalog::migration().attributes {
        if attribute.presence == Presence::Computed && !(keeps_run && is_fixed(attribute.name)) {
            entries.insert(attribute.name.to_owned(), Value::Unknown);
        }
    }
    Value::Object(entries)
}

/// The planned state with the list of what the new run drops.
pub(crate) fn dropping(planned: &Value, namespaces: Vec<String>) -> Value {
    let mut entries = as_object(planned.clone());
    entries.insert(
        catalog::DROPS.to_owned(),
        Value::List(namespaces.into_iter().map(Value::Text).collect()),
    );
    Value::Object(entries)
}

/// The planned state with what was unknown filled in from what is there; null where nothing is
/// known of it.
#[must_use]
pub(crate) fn settled(planned: &Value, observed: Option<&Observed>) -> Value {
    let mut entries = as_object(planned.clone());
    let status: BTreeMap<&str, Value> = observed.map(status_values).into_iter().flatten().collect();
    for (name, value) in &mut entries {
        if !value.is_known() {
            *value = status.get(name.as_str()).cloned().unwrap_or(Value::Null);
        }
    }
    Value::Object(entries)
}

/// Whether two states ask for the same.
#[must_use]
pub(crate) fn asks_the_same(schema: &Block, one: &Value, other: &Value) -> bool {
    let asked = schema
        .attributes
        .iter()
        .filter(|attribute| attribute.presence != Presence::Computed)
        .map(|one| one.name);
    asked
        .chain(schema.blocks.iter().map(|one| one.name))
        .all(|name| one.get(name) == other.get(name))
}
