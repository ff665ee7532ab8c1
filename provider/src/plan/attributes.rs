//! A spec as a flat list of attributes, and what differs between two.

use schemas::hcl::Declared;
use schemas::spec::{ConnectionSpec, MigrationSpec, SecretRef};
use serde::Serialize;
use serde_json::Value;

use super::AttributeChange;
use crate::units;

/// Every attribute of a spec by its path, in the order of the block; `null` where it has no value.
pub(super) fn flatten(spec: &MigrationSpec) -> Vec<(String, Value)> {
    let mut flat = vec![entry("generation", &spec.generation), entry("paused", &spec.paused)];
    connection(&mut flat, "source", &spec.source.connection);
    connection(&mut flat, "destination", &spec.destination.connection);
    flat.push(entry("destination.existing_data", &spec.destination.existing_data));
    flat.push(entry("destination.block_writes", &spec.destination.block_writes));
    flat.push(entry("namespaces.include", &spec.namespaces.scope.include));
    flat.push(entry("namespaces.exclude", &spec.namespaces.scope.exclude));
    flat.push(entry("namespaces.include_users", &spec.namespaces.include_users));
    flat.push(entry("copy.parallelism", &spec.copy.parallelism));
    flat.push(entry("copy.indexes", &spec.copy.indexes));
    flat.push(entry("copy.rate_limit", &spec.copy.rate_limit));
    if let Some(sharding) = &spec.sharding {
        flat.push(entry("sharding.balancer", &sharding.balancer));
        for collection in &sharding.collections {
            flat.push((
                format!("sharding.collection.{:?}.key", collection.namespace.to_string()),
                value(&collection.key),
            ));
        }
    }
    flat.push(entry("verify.mode", &spec.verify.mode));
    let cutover = &spec.cutover;
    flat.push(entry("cutover.window", &cutover.window));
    flat.push(entry("cutover.extensions", &cutover.extensions));
    flat.push(entry("cutover.max_lag", &cutover.max_lag));
    flat.push(entry("cutover.max_downtime", &cutover.max_downtime));
    flat.push(entry("cutover.source_writes", &cutover.source_writes));
    flat.push(entry("cutover.source_after", &cutover.source_after));
    flat.push(entry("cutover.acknowledge", &cutover.acknowledge));
    flat
}

fn connection(flat: &mut Vec<(String, Value)>, side: &str, spec: &ConnectionSpec) {
    flat.push((format!("{side}.uri"), value(&units::redacted(&spec.uri))));
    flat.push((format!("{side}.username"), value(&spec.username)));
    flat.push((
        format!("{side}.password"),
        value(&spec.password.as_ref().map(SecretRef::to_string)),
    ));
    if let Some(tls) = &spec.tls {
        // The block's presence alone switches TLS on.
        flat.push((format!("{side}.tls"), Value::Bool(true)));
        flat.push((format!("{side}.tls.ca_file"), value(&tls.ca_file)));
        flat.push((format!("{side}.tls.certificate_key_file"), value(&tls.certificate_key_file)));
    }
}

fn entry(path: &str, attribute: &impl Serialize) -> (String, Value) {
    (path.to_owned(), value(attribute))
}

fn value(attribute: &impl Serialize) -> Value {
    serde_json::to_value(attribute).expect("an attribute is a scalar or a list of texts")
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
