//! Compares what is not documents: which collections and views there are, their options, their
//! indexes, in the form that they will have after the cutover.

use std::collections::BTreeMap;

use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf};
use schemas::fault::Fault;
use schemas::namespace::Namespace;
use schemas::observed::{Mismatch, MismatchKind};

use super::Sides;
use crate::engine::capped::bound;
use crate::engine::catalog::canonical;
use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::concurrent::{self, Piece};
use crate::engine::destination::shard_collection;
use crate::engine::element::{elements, shown};
use crate::engine::index;

/// Collections whose indexes are listed at once.
const AT_ONCE: usize = 8;

/// Options that are held off during the sync, and given back at the end.
const HELD_OFF: [&str; 1] = ["expireAfterSeconds"];
/// What differs where one is a view and the other a collection.
const KIND: &str = "type";
/// Options that say nothing of the collection, or differ by design. Of old servers there are some
/// that no command takes.
const ASIDE: [&str; 4] = ["uuid", "idIndex", "flags", "temp"];

/// How a listing says that a time-series collection may have buckets of mixed schema (seen on
/// 6.0.27).
const MIXED_SCHEMA: &str = "app_metadata=(timeseriesBucketsMayHaveMixedSchemaData=true)";

fn mismatch(namespace: &Namespace, kind: MismatchKind, paths: Vec<String>) -> Mismatch {
    Mismatch { namespace: namespace.clone(), id: None, kind, paths }
}

/// A difference in words.
pub fn in_words(mismatch: &Mismatch) -> String {
    let (namespace, kind) = (&mismatch.namespace, mismatch.kind.as_str());
    if mismatch.paths.is_empty() {
        format!("{namespace} ({kind})")
    } else {
        format!("{namespace} ({kind}: {})", mismatch.paths.join(", "))
    }
}

/// Whether views are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// Not yet: they come to the destination at the cutover as they are then.
    Aside,
    /// As everything else.
    Compared,
}

/// The differences of definitions.
pub async fn compare(sides: &Sides, views: Views) -> Result<Vec<Mismatch>, Fault> {
    let counts = |info: &CollectionInfo| views == Views::Compared || info.kind != Kind::View;
    let scope = &sides.spec.namespaces.scope;
    let (wanted, found) = tokio::try_join!(
        catalog::list(&sides.source.entry, scope),
        catalog::list(&sides.destination, scope)
    )?;
    let mut mismatches = Vec::new();
    let mut both: Vec<(&CollectionInfo, &CollectionInfo)> = Vec::new();
    for (namespace, info) in wanted.iter().filter(|(_, info)| counts(info)) {
        match found.get(namespace) {
            None => {
                mismatches.push(mismatch(namespace, MismatchKind::MissingCollection, Vec::new()))
            }
            Some(there) => both.push((info, there)),
        }
    }
    for (namespace, _) in found.iter().filter(|(_, info)| counts(info)) {
        if !wanted.contains_key(namespace) {
            mismatches.push(mismatch(namespace, MismatchKind::ExtraCollection, Vec::new()));
        }
    }
    for (info, there) in &both {
        let mut paths = options_that_differ(info.options(), there.options());
        if info.kind != there.kind {
            paths.push(KIND.to_owned());
        }
        if !paths.is_empty() {
            mismatches.push(mismatch(&info.namespace, MismatchKind::Options, paths));
        }
    }
    if sides.destination.is_sharded() {
        for (info, _) in both.iter().filter(|(info, _)| shard_collection::can_be_sharded(info)) {
            let sharding = sides.spec.sharding.as_ref();
            let wanted = shard_collection::wanted(
                &sides.source.entry,
                &sides.destination,
                sharding,
                &info.namespace,
            )
            .await?;
            let there = sides.destination.sharded_by(&info.namespace).await?;
            let differs = match (&wanted, &there) {
                (Some(wanted), Some(there))
                    if !shard_collection::is_same(&wanted.key, &there.key) =>
                {
                    Some("shard key")
                }
                (Some(wanted), Some(there)) => {
                    (wanted.is_unique != there.is_unique).then_some("unique of the shard key")
                }
                (None, None) => None,
                (Some(_), None) | (None, Some(_)) => Some("shard key"),
            };
            if let Some(what) = differs {
                mismatches.push(mismatch(
                    &info.namespace,
                    MismatchKind::Options,
                    vec![what.to_owned()],
                ));
            }
        }
    }
    let with_indexes =
        both.into_iter().filter(|(info, there)| info.has_documents() && there.has_documents());
    let indexes = with_indexes.map(|(info, _)| -> Piece<'_, Option<Mismatch>> {
        Box::pin(async move {
            let (ours, mut theirs) = tokio::try_join!(
                catalog::indexes(&sides.source.entry, &info.namespace),
                catalog::indexes(&sides.destination, &info.namespace)
            )?;
            if info.kind == Kind::TimeSeries {
                // From 6.3 on the server makes one by itself, of the metadata and the time.
                theirs.retain(|spec| ours.iter().any(|own| index::name(own) == index::name(spec)));
            }
            theirs.retain(|spec| {
                !shard_collection::is_servers_own(&sides.destination, &info.namespace, spec, &ours)
            });
            let names = indexes_that_differ(&ours, &theirs);
            Ok((!names.is_empty()).then(|| mismatch(&info.namespace, MismatchKind::Indexes, names)))
        })
    });
    mismatches.extend(concurrent::all(AT_ONCE, indexes.collect()).await?.into_iter().flatten());
    mismatches
        .sort_by(|a, b| (&a.namespace, a.kind.as_str()).cmp(&(&b.namespace, b.kind.as_str())));
    Ok(mismatches)
}

/// Whether an option is what a collection without it has. Once set, the server lists some for good.
fn is_as_without(option: &str, value: RawBsonRef<'_>) -> bool {
    match (option, value) {
        ("validator", RawBsonRef::Document(validator)) => validator.is_empty(),
        ("validationLevel", RawBsonRef::String(level)) => level == "strict",
        ("validationAction", RawBsonRef::String(action)) => action == "error",
        ("changeStreamPreAndPostImages", RawBsonRef::Document(images)) => {
            images.get_bool("enabled").is_ok_and(|on| !on)
        }
        ("recordPreImages" | "capped", RawBsonRef::Boolean(on)) => !on,
        _ => false,
    }
}

/// The names of the options that two things of one name do not have alike.
pub fn options_that_differ(
    ours: Option<&RawDocument>,
    theirs: Option<&RawDocument>,
) -> Vec<String> {
    let fields = |options: Option<&RawDocument>| -> BTreeMap<String, Vec<u8>> {
        let mut fields = BTreeMap::new();
        for (options, option) in options
            .into_iter()
            .flat_map(|options| elements(options).map(move |option| (options, option)))
        {
            let name = shown(option.name);
            let value = || options.get(name.as_str()).ok().flatten();
            let is_aside = ASIDE.contains(&name.as_str())
                || bound::is_held_off(&name, theirs)
                || name == "storageEngine" && value().is_some_and(is_mixed_schema);
            let is_without = value().is_some_and(|value| is_as_without(&name, value));
            if !HELD_OFF.contains(&name.as_str()) && !is_aside && !is_without {
                fields.insert(name, canonical::element(&option));
            }
        }
        fields
    };
    let (ours, theirs) = (fields(ours), fields(theirs));
    let mut names: Vec<String> = ours
        .keys()
        .chain(theirs.keys())
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Whether these options say but that a time-series collection may have buckets of mixed schema,
/// which a server that does not know of that has without saying so.
fn is_mixed_schema(storage: RawBsonRef<'_>) -> bool {
    let tiger = storage.as_document().and_then(|engines| engines.get_document("wiredTiger").ok());
    tiger
        .and_then(|options| options.get_str("configString").ok())
        .is_some_and(|config| config == MIXED_SCHEMA)
}

/// The names of indexes that are on one side only, or differ beyond what is relaxed during the
/// sync. An index that waits for the end since it clashes with another once that is not unique is
/// not there yet.
fn indexes_that_differ(ours: &[RawDocumentBuf], theirs: &[RawDocumentBuf]) -> Vec<String> {
    let by_name = |specs: &[RawDocumentBuf]| -> BTreeMap<String, RawDocumentBuf> {
        specs.iter().map(|spec| (index::name(spec).to_owned(), spec.clone())).collect()
    };
    let (ours, theirs) = (by_name(ours), by_name(theirs));
    let mut names = Vec::new();
    for (name, spec) in &ours {
        match theirs.get(name) {
            None if ours.values().any(|other| {
                index::name(other) != name && index::identity(other) == index::identity(spec)
            }) => {}
            None => names.push(name.clone()),
            Some(there) if !index::is_same_meanwhile(spec, there) => names.push(name.clone()),
            Some(_) => {}
        }
    }
    names.extend(theirs.into_keys().filter(|name| !ours.contains_key(name)));
    names
}
