//! What was relaxed is given back: for good at the cutover, or for a trial before it.

use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::definition::{
    has, identity, is_same_build, is_same_restored, is_unique, name, specification, ttl,
};
use super::{create_indexes, drop_one, index_change, modify, modify_alone, run_create};
use crate::engine::catalog;
use crate::engine::destination::shard_collection;
use crate::mongo::{Deployment, ServerVersion, append, command, error, server_code};

/// The first version whose `collMod` makes an index unique.
const UNIQUE_BY_COLLMOD: ServerVersion = ServerVersion::new(6, 0, 0);

/// Gives a collection's indexes the form that they have on the source, as far as its users rely on
/// it from their first write on.
///
/// Returns the names of those that refuse duplicates from now on and are still to be made unique,
/// by [`finish_unique`]: that reads the whole index, which nobody should have to wait for.
///
/// What cannot be given back keeps nothing else from being so: the names come with the first fault.
pub async fn restore(
    source: &Deployment,
    destination: &Deployment,
    namespace: &Namespace,
    collated: bool,
) -> (Vec<String>, Result<(), Fault>) {
    match catalog::indexes(source, namespace).await {
        Ok(wanted) => restore_as(&wanted, destination, namespace, collated).await,
        Err(fault) => (Vec::new(), Err(fault)),
    }
}

/// As [`restore`], to these.
pub async fn restore_as(
    wanted: &[RawDocumentBuf],
    destination: &Deployment,
    namespace: &Namespace,
    collated: bool,
) -> (Vec<String>, Result<(), Fault>) {
    let mut unfinished = Vec::new();
    let restored = restore_all(wanted, destination, namespace, collated, &mut unfinished).await;
    (unfinished, restored)
}

async fn restore_all(
    wanted: &[RawDocumentBuf],
    destination: &Deployment,
    namespace: &Namespace,
    collated: bool,
    unfinished: &mut Vec<String>,
) -> Result<(), Fault> {
    let mut first_fault = Ok(());
    let mut keep = |ended: Result<(), Fault>| {
        if first_fault.is_ok() {
            first_fault = ended;
        }
    };
    let found = catalog::indexes(destination, namespace).await?;
    let on_destination =
        |wanted: &RawDocument| found.iter().find(|spec| name(spec) == name(wanted));
    for spec in &found {
        if !wanted.iter().any(|wanted| name(wanted) == name(spec))
            && !shard_collection::is_servers_own(destination, namespace, spec, wanted)
        {
            keep(drop_one(destination, namespace, name(spec)).await);
        }
    }
    let mut missing = Vec::new();
    for spec in wanted {
        match on_destination(spec) {
            None => missing.push(spec),
            Some(there) if !is_same_build(spec, there) => {
                keep(drop_one(destination, namespace, name(spec)).await);
                missing.push(spec);
            }
            Some(there) => {
                if is_unique(spec) && !is_unique(there) {
                    let refuses = refuse_duplicates(destination, namespace, spec, collated).await;
                    if refuses.is_ok() {
                        unfinished.push(name(spec).to_owned());
                    }
                    keep(refuses);
                }
                for option in ["expireAfterSeconds", "hidden"] {
                    keep(give_back(destination, namespace, spec, there, option, collated).await);
                }
            }
        }
    }
    // What clashed with a relaxed one can be built once unique tells them apart: being prepared for
    // it does not.
    for spec in missing {
        let twins = wanted
            .iter()
            .filter(|twin| name(twin) != name(spec) && identity(twin) == identity(spec))
            .map(|twin| name(twin));
        for twin in twins {
            if let Some(place) = unfinished.iter().position(|unfinished| unfinished == twin) {
                let finished = finish_unique(destination, namespace, twin).await;
                if finished.is_ok() {
                    unfinished.remove(place);
                }
                keep(finished);
            }
        }
        let mut indexes = RawArrayBuf::new();
        indexes.push(&*specification(spec, collated, false));
        let made = run_create(destination, namespace, &indexes).await;
        keep(made.map_err(|e| unique_fault(destination, namespace, spec, &e)));
    }
    for spec in wanted.iter().filter(|spec| has(spec, "prepareUnique")) {
        let prepared =
            modify(destination, namespace, index_change(name(spec), "prepareUnique", true)).await;
        keep(prepared.map_err(|e| {
            destination.fault(&format!("preparing index {} of {namespace}", name(spec)), &e)
        }));
    }
    first_fault
}

/// Sees that the indexes of a collection's source are on the destination, the same to the last
/// option, after [`restore`].
///
/// # Errors
/// Names those that are not.
pub async fn check_restored(
    source: &Deployment,
    destination: &Deployment,
    namespace: &Namespace,
) -> Result<(), Fault> {
    check_restored_as(&catalog::indexes(source, namespace).await?, destination, namespace).await
}

/// As [`check_restored`], of these.
pub async fn check_restored_as(
    wanted: &[RawDocumentBuf],
    destination: &Deployment,
    namespace: &Namespace,
) -> Result<(), Fault> {
    let found = catalog::indexes(destination, namespace).await?;
    let is_there = |spec: &RawDocument| {
        found.iter().any(|there| name(there) == name(spec) && is_same_restored(spec, there))
    };
    let names: Vec<&str> =
        wanted.iter().filter(|spec| !is_there(spec)).map(|spec| name(spec)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!("indexes of {namespace} are not as on the source: {}", names.join(", "));
    Err(Fault::new(FaultCode::VerificationMismatch, message))
}

async fn give_back(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
    there: &RawDocument,
    option: &str,
    collated: bool,
) -> Result<(), Fault> {
    let value = |spec| {
        if option == "expireAfterSeconds" { ttl(spec) } else { spec.get(option).ok().flatten() }
    };
    let value = match (value(spec), value(there)) {
        (wanted, found) if wanted == found => return Ok(()),
        (Some(wanted), _) => wanted,
        (None, Some(RawBsonRef::Boolean(_))) => RawBsonRef::Boolean(false),
        // The source's index has lost its expiry, which only a new index can.
        (None, _) => {
            drop_one(destination, namespace, name(spec)).await?;
            let mut indexes = RawArrayBuf::new();
            indexes.push(&*specification(spec, collated, false));
            return create_indexes(destination, namespace, &indexes).await;
        }
    };
    modify(destination, namespace, index_change(name(spec), option, value)).await.map_err(|e| {
        destination
            .fault(&format!("giving {option} back to index {} of {namespace}", name(spec)), &e)
    })
}

/// Has an index refuse duplicates. From 6.0 on it is only prepared, which takes no time; before, it
/// is built anew.
async fn refuse_duplicates(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
    collated: bool,
) -> Result<(), Fault> {
    let fault = |e: mongodb::error::Error| unique_fault(destination, namespace, spec, &e);
    if destination.version >= UNIQUE_BY_COLLMOD {
        modify(destination, namespace, index_change(name(spec), "prepareUnique", true))
            .await
            .map_err(fault)
    } else {
        drop_one(destination, namespace, name(spec)).await?;
        let mut indexes = RawArrayBuf::new();
        indexes.push(&*specification(spec, collated, false));
        run_create(destination, namespace, &indexes).await.map_err(fault)
    }
}

/// Makes an index unique that refuses duplicates already. One that its users have dropped meanwhile
/// is theirs to drop.
pub async fn finish_unique(
    destination: &Deployment,
    namespace: &Namespace,
    index: &str,
) -> Result<(), Fault> {
    if destination.version < UNIQUE_BY_COLLMOD {
        return Ok(());
    }
    match modify(destination, namespace, index_change(index, "unique", true)).await {
        Ok(()) => Ok(()),
        Err(e)
            if matches!(
                error::code(&e),
                Some(server_code::INDEX_NOT_FOUND | server_code::NAMESPACE_NOT_FOUND)
            ) =>
        {
            Ok(())
        }
        Err(e) => Err(unique_fault(destination, namespace, &rawdoc! { "name": index }, &e)),
    }
}

/// Tries whether an index could be made unique, and leaves it as it is. The tail must stand still
/// meanwhile: for as long as the trial takes the server refuses duplicates.
pub async fn try_unique(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
) -> Result<(), Fault> {
    if destination.version < UNIQUE_BY_COLLMOD {
        return Ok(());
    }
    // One that waits for the end because a plain one has its keys is tried on that one.
    let found = catalog::indexes(destination, namespace).await?;
    let Some(tried) = found
        .iter()
        .find(|there| name(there) == name(spec))
        .or_else(|| found.iter().find(|there| identity(there) == identity(spec)))
    else {
        return Ok(());
    };
    let prepare =
        |on: bool| modify(destination, namespace, index_change(name(tried), "prepareUnique", on));
    prepare(true).await.map_err(|e| unique_fault(destination, namespace, spec, &e))?;
    let mut dry = command("collMod", &namespace.collection);
    append(&mut dry, "index", &*index_change(name(tried), "unique", true));
    append(&mut dry, "dryRun", true);
    let tried = modify_alone(destination, namespace, dry).await;
    prepare(false).await.map_err(|e| unique_fault(destination, namespace, spec, &e))?;
    tried.map_err(|e| unique_fault(destination, namespace, spec, &e))
}

fn unique_fault(
    destination: &Deployment,
    namespace: &Namespace,
    spec: &RawDocument,
    error: &mongodb::error::Error,
) -> Fault {
    let index = name(spec);
    match error::code(error) {
        Some(server_code::CANNOT_CONVERT_INDEX_TO_UNIQUE | server_code::DUPLICATE_KEY) => {
            let ids = violations(error);
            let ids = if ids.is_empty() {
                String::new()
            } else {
                format!(": documents with _id {}", ids.join("; "))
            };
            Fault::new(
                FaultCode::UniqueIndexBroken,
                format!(
                    "index {index} of {namespace} cannot be made unique on the destination{ids}"
                ),
            )
        }
        _ => destination.fault(&format!("making index {index} of {namespace} unique"), error),
    }
}

/// The `_id`s that the server names as duplicates of each other, at most ten groups.
fn violations(error: &mongodb::error::Error) -> Vec<String> {
    let Some(reply) = error.server_response() else { return Vec::new() };
    let Ok(groups) = reply.get_array("violations") else { return Vec::new() };
    groups
        .into_iter()
        .flatten()
        .filter_map(|group| group.as_document().and_then(|group| group.get_array("ids").ok()))
        .take(10)
        .map(|ids| {
            ids.into_iter()
                .flatten()
                .filter_map(|id| mongodb::bson::Bson::try_from(id).ok())
                .map(|id| id.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        })
        .collect()
}
