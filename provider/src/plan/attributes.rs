//! A spec as a flat list of attributes, and what differs between two.

use schemas::hcl::Declared;
use schemas::spec::MigrationSpec;
use schemas::spec::attribute::{Attribute, attributes};
use serde_json::Value;

use super::AttributeChange;
use crate::units;

/// Every attribute of a spec by its path, in the order of the block; `null` where it has no value.
pub(super) fn flatten(spec: &MigrationSpec) -> Vec<(String, Value)> {
    let shown = |one: Attribute| match one.value.as_str().filter(|_| one.is_uri) {
        Some(uri) => (one.path, Value::String(units::redacted(uri))),
        None => (one.path, one.value),
    };
    attributes(spec).into_iter().map(shown).collect()
}

/// Whether an attribute says anything.
pub(super) fn is_set(value: &Value) -> bool {
    !value.is_null() && *value != Value::Array(Vec::new())
}

/// The attributes of a new migration; those without a value are left out.
pub(super) fn of_new(wanted: &Declared) -> Vec<AttributeChange> {
    flatten(&wanted.spec)
        .into_iter()
        .filter(|(_, after)| is_set(after))
        .map(|(path, after)| masked(change(path, Value::Null, after), wanted))
        .collect()
}

/// The attributes that differ, in the order of the block; those that only the old one has come
/// where they were.
pub(super) fn between(before: &MigrationSpec, wanted: &Declared) -> Vec<AttributeChange> {
    let after = &wanted.spec;
    let (old, new) = (flatten(before), flatten(after));
    let mut changes: Vec<AttributeChange> = new
        .iter()
        .filter_map(|(path, after)| {
            let before = old
                .iter()
                .find(|(other, _)| other == path)
                .map_or(Value::Null, |(_, before)| before.clone());
            (before != *after).then(|| change(path.clone(), before, after.clone()))
        })
        .collect();
    let gone = old
        .iter()
        .filter(|(path, before)| !before.is_null() && !new.iter().any(|(other, _)| other == path));
    changes.extend(gone.map(|(path, before)| change(path.clone(), before.clone(), Value::Null)));
    let position = |path: &str| {
        let at = |flat: &[(String, Value)]| flat.iter().position(|(other, _)| other == path);
        at(&old).or_else(|| at(&new)).unwrap_or(usize::MAX)
    };
    changes.sort_by_key(|change| position(&change.path));
    // Two URIs that differ in what is redacted only would print alike and yet not be equal.
    for (side, before, after) in [
        ("source", &before.source.connection, &after.source.connection),
        ("destination", &before.destination.connection, &after.destination.connection),
    ] {
        let path = format!("{side}.uri");
        if before.uri != after.uri && !changes.iter().any(|change| change.path == path) {
            changes.insert(
                0,
                AttributeChange { path, before: Value::Null, after: Value::Null, sensitive: true },
            );
        }
    }
    changes.into_iter().map(|change| masked(change, wanted)).collect()
}

/// What comes from a sensitive variable is not shown: neither its value now nor the one before,
/// which may be as secret.
fn masked(change: AttributeChange, wanted: &Declared) -> AttributeChange {
    if wanted.sensitive.contains(&change.path) {
        AttributeChange { before: Value::Null, after: Value::Null, sensitive: true, ..change }
    } else {
        change
    }
}

pub(super) fn change(path: impl Into<String>, before: Value, after: Value) -> AttributeChange {
    AttributeChange { path: path.into(), before, after, sensitive: false }
}
