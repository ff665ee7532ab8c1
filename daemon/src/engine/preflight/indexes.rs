//! What the destination will make of the source's indexes: whether it can build them, and whether
//! the data breaks unique ones.
//!
//! A unique index over data that breaks it is found out late otherwise: during the sync it is
//! relaxed, and given back at the end. A server can have one: an index that lost entries, and what
//! older versions and restored files left. The documents are read for it, not the index. That costs
//! a scan each, so that the time and the memory of it are bounded; what does not fit in is named,
//! and tried on the destination before the source is blocked. An aggregation finds documents that
//! seem to have the same key; only where the keys that an index takes of them ([`index_keys`]) say
//! so as well is a migration refused.

use std::time::{Duration, Instant};

use mongodb::bson::{
    Bson, Document, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc,
};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;
use schemas::observed::Outcome;

use super::{Findings, index_keys};
use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::concurrent::{self, Piece};
use crate::engine::element::{elements, shown};
use crate::engine::{element, index};
use crate::mongo::{Deployment, append, command, error, server_code};

/// How long all unique indexes together are looked at: somebody waits for the answer.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
/// What is left of that time is not worth a scan.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);
/// Collections whose indexes are listed at once.
const LISTED_AT_ONCE: usize = 8;
/// Indexes of a collection that a server takes, with the one on `_id` (63 besides it, on 6.0.5).
const MOST_INDEXES: usize = 64;
/// The kinds of index that servers of today build; the numbers of ordered keys are none of them.
const KINDS: [&str; 4] = ["2d", "2dsphere", "hashed", "text"];
/// DuplicateFields keys that are named of an index, and all that are named of what is found.
const KEYS_NAMED: i64 = 3;
const MOST_NAMED: usize = 12;

/// A collection with its indexes, less the one on `_id`.
type Indexed<'a> = (&'a CollectionInfo, Vec<RawDocumentBuf>);

/// Looks at the indexes of all collections in scope.
pub(super) async fn check(findings: &mut Findings, source: &Deployment) {
    let catalogue = std::mem::take(&mut findings.catalogue);
    let ordinary = catalogue.iter().filter(|info| info.kind == Kind::Collection);
    let listings = ordinary.map(|info| -> Piece<'_, Indexed<'_>> {
        Box::pin(async move { Ok((info, catalog::indexes(source, &info.namespace).await?)) })
    });
    match concurrent::all(LISTED_AT_ONCE, listings.collect()).await {
        Ok(mut listed) => {
            listed.sort_by(|(a, _), (b, _)| a.namespace.cmp(&b.namespace));
            limits(findings, &listed);
            expiry(findings, &listed);
            unique(findings, source, &listed).await;
        }
        Err(fault) => findings.fail("index_limits", &fault),
    }
    findings.catalogue = catalogue;
}

/// Whether a server of today takes them: how many there are of a collection, and of which kinds.
fn limits(findings: &mut Findings, listed: &[Indexed<'_>]) {
    let name = "index_limits";
    let refused: Vec<String> = listed
        .iter()
        .flat_map(|(info, specs)| refused(&info.namespace, specs))
        .take(MOST_NAMED)
        .collect();
    if refused.is_empty() {
        let count: usize = listed.iter().map(|(_, specs)| specs.len()).sum();
        return findings.note(
            name,
            Outcome::Ok,
            format!("the destination can build the {count} indexes"),
        );
    }
    let fault = Fault::new(FaultCode::UnsupportedNamespace, refused.join("; ")).with_remedy(
        "drop the indexes on the source, or leave the collections out with namespaces.exclude",
    );
    findings.fail(name, &fault);
}

/// Expiries that servers keep and none gives an index any more: what the destination's gets instead
/// is reported.
fn expiry(findings: &mut Findings, listed: &[Indexed<'_>]) {
    let name = "index_expiry";
    let all =
        listed.iter().flat_map(|(info, specs)| specs.iter().map(|spec| (&info.namespace, spec)));
    let mended: Vec<String> = all
        .filter_map(|(namespace, spec)| {
            let (there, gets) = index::mended_expiry(spec)?;
            Some(format!(
                "index {} of {namespace} has expireAfterSeconds {there}, which no server takes any \
                 more; on the destination it gets {gets}, which is what a server makes of it",
                index::name(spec)
            ))
        })
        .take(MOST_NAMED)
        .collect();
    if !mended.is_empty() {
        let remedy = "if the documents are to expire otherwise, give the index another \
             expireAfterSeconds on the source (collMod)";
        findings.warn(name, mended.join("; "), remedy);
    }
}

fn refused(namespace: &Namespace, specs: &[RawDocumentBuf]) -> Vec<String> {
    let mut refused = Vec::new();
    if specs.len() + 1 > MOST_INDEXES {
        refused.push(format!(
            "{namespace} has {} indexes, and a server builds {MOST_INDEXES}",
            specs.len() + 1
        ));
    }
    for spec in specs {
        for field in spec.get_document("key").into_iter().flat_map(elements) {
            if let Some(kind) = field.text()
                && !kind.is_empty()
                && !KINDS.iter().any(|known| known.as_bytes() == kind)
            {
                let (index, kind, field) = (index::name(spec), shown(kind), shown(field.name));
                refused.push(format!(
                    "index {index} of {namespace} is of the kind {kind:?} on \
                     {field}, which nothing builds"
                ));
            }
        }
    }
    refused
}

/// Between two tries to read as of one moment.
const BEFORE_NEXT_TRY: Duration = Duration::from_millis(50);

/// One unique index, and how many documents a look at it reads.
struct Look<'a> {
    namespace: &'a Namespace,
    spec: &'a RawDocument,
    documents: u64,
}

/// Whether documents have the same key in a unique index, the small collections first.
async fn unique(findings: &mut Findings, source: &Deployment, listed: &[Indexed<'_>]) {
    let name = "unique_indexes";
    let mut looks = Vec::new();
    for (info, specs) in listed {
        let unique: Vec<&RawDocumentBuf> =
            specs.iter().filter(|spec| index::is_unique(spec)).collect();
        if unique.is_empty() {
            continue;
        }
        let documents = match catalog::size(source, &info.namespace).await {
            Ok((documents, _)) => documents,
            Err(fault) => return findings.fail(name, &fault),
        };
        looks.extend(unique.into_iter().map(|spec| Look {
            namespace: &info.namespace,
            spec,
            documents,
        }));
    }
    looks.sort_by_key(|look| look.documents);
    let began = Instant::now();
    let (mut broken, mut unlooked) = (Vec::new(), Vec::new());
    for look in &looks {
        let left = LONGEST_LOOK.saturating_sub(began.elapsed());
        let index = index::name(look.spec);
        match look_at(source, look, left).await {
            Ok(Found { certain, .. }) if !certain.is_empty() => broken.extend(certain),
            Ok(Found { seeming, .. }) if seeming.is_empty() => {}
            Ok(Found { seeming, .. }) => {
                unlooked.push(format!("{} index {index} ({})", look.namespace, seeming.join("; ")));
            }
            Err(why) => unlooked.push(format!(
                "{} index {index} ({} documents: {why})",
                look.namespace, look.documents
            )),
        }
    }
    if !broken.is_empty() {
        let more = broken.len().saturating_sub(MOST_NAMED);
        broken.truncate(MOST_NAMED);
        if more > 0 {
            broken.push(format!("and {more} more"));
        }
        findings.fail(name, &Fault::new(FaultCode::UniqueIndexBroken, broken.join("; ")));
    } else if unlooked.is_empty() {
        findings.note(
            name,
            Outcome::Ok,
            format!("the data keeps to the {} unique indexes", looks.len()),
        );
    } else {
        let more = unlooked.len().saturating_sub(MOST_NAMED);
        unlooked.truncate(MOST_NAMED);
        if more > 0 {
            unlooked.push(format!("{more} more"));
        }
        findings.warn(
            name,
            format!(
                "whether the data keeps to these unique indexes is not known: {}",
                unlooked.join(", ")
            ),
            "nothing has to be done: they are tried on the destination before the source is \
             blocked, and a run that fails there names the documents",
        );
    }
}

/// What a look at a unique index has found, in words.
#[derive(Debug, Default)]
struct Found {
    /// Documents with the same key.
    certain: Vec<String>,
    /// Documents that an aggregation takes for such, and an index need not.
    seeming: Vec<String>,
}

/// Looks for documents with the same key in a unique index; `Err`: why nobody could look.
async fn look_at(source: &Deployment, look: &Look<'_>, left: Duration) -> Result<Found, String> {
    let pairs = suspects(source, look, left).await?;
    if pairs.is_empty() {
        return Ok(Found::default());
    }
    let (index, namespace) = (index::name(look.spec), look.namespace);
    let mut found = Found::default();
    for (one, other) in pairs {
        let ids = format!("_id {} and _id {}", in_words(&one), in_words(&other));
        if have_a_key_in_common(source, look, &one, &other).await? {
            found
                .certain
                .push(format!("{namespace} index {index} is unique, and {ids} have the same key"));
        } else {
            found.seeming.push(format!("{ids} may have the same key"));
        }
    }
    // One that was dropped meanwhile keeps nothing out.
    let now = catalog::indexes(source, namespace).await.map_err(|fault| fault.message)?;
    let is_there = now.iter().any(|spec| index::name(spec) == index && index::is_unique(spec));
    Ok(if is_there { found } else { Found::default() })
}

fn in_words(id: &RawDocument) -> String {
    let id = id.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
    id.map_or_else(|| "(none)".to_owned(), |id| id.to_string())
}

/// Whether two documents, each given as `{_id: …}`, have a key of the index in common at one
/// moment, as the server makes keys.
async fn have_a_key_in_common(
    source: &Deployment,
    look: &Look<'_>,
    one: &RawDocument,
    other: &RawDocument,
) -> Result<bool, String> {
    let mut find = command("find", &look.namespace.collection);
    append(&mut find, "filter", &*element::by_ids([one, other]));
    // The index on `_id` can have lost them just as well.
    append(&mut find, "hint", &*rawdoc! { "$natural": 1 });
    append(&mut find, "maxTimeMS", i64::try_from(LONGEST_LOOK.as_millis()).unwrap_or(i64::MAX));
    append(&mut find, "readConcern", &*rawdoc! { "level": "snapshot" });
    append(&mut find, "comment", "cutover-preflight");
    let documents = source.collect(&look.namespace.db, find).await.map_err(|e| error::words(&e))?;
    let [one, other] = &documents[..] else { return Ok(false) };
    let paths: Vec<&str> = look
        .spec
        .get_document("key")
        .iter()
        .flat_map(|key| key.iter().flatten())
        .map(|(path, _)| path.as_str())
        .collect();
    let is_sparse = look.spec.get_bool("sparse").unwrap_or(false);
    let keys = |document| index_keys::of(document, &paths, is_sparse);
    let (Some(one), Some(other)) = (keys(one), keys(other)) else { return Ok(false) };
    match look.spec.get_document("collation") {
        _ if index_keys::meet(&one, &other) => Ok(true),
        Ok(collation) => meet_under(source, look.namespace, &one, &other, collation).await,
        Err(_) => Ok(false),
    }
}

/// Whether keys are equal under a collation, which the server itself knows best.
async fn meet_under(
    source: &Deployment,
    namespace: &Namespace,
    one: &[index_keys::Key<'_>],
    other: &[index_keys::Key<'_>],
    collation: &RawDocument,
) -> Result<bool, String> {
    let literal = |keys: &[index_keys::Key<'_>]| {
        let mut literal = element::Writer::default();
        literal.push(element::ARRAY, b"$literal", index_keys::as_lists(keys).as_bytes());
        literal.finish()
    };
    let both = rawdoc! { "$setIntersection": [literal(one), literal(other)] };
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$limit": 1 });
    pipeline.push(&*rawdoc! { "$project": { "_id": 0, "common": { "$size": both } } });
    let mut ask = command("aggregate", &namespace.collection);
    append(&mut ask, "pipeline", &*pipeline);
    append(&mut ask, "cursor", &*rawdoc! {});
    append(&mut ask, "collation", collation);
    append(&mut ask, "comment", "cutover-preflight");
    let told = source.collect(&namespace.db, ask).await.map_err(|e| error::words(&e))?;
    Ok(told.first().and_then(|told| told.get_i32("common").ok()).is_some_and(|common| common > 0))
}

/// Pairs of documents, each `{_id: …}`, that seem to have the same key; `Err`: why it was not
/// looked at.
async fn suspects(
    source: &Deployment,
    look: &Look<'_>,
    left: Duration,
) -> Result<Vec<(RawDocumentBuf, RawDocumentBuf)>, String> {
    if left < SHORTEST_LOOK {
        return Err(format!("the {} s for it were over", LONGEST_LOOK.as_secs()));
    }
    let pipeline = pipeline(look.spec).ok_or("its keys cannot be read in this way")?;
    let collation: Document = match look.spec.get_document("collation") {
        Ok(collation) => collation.try_into().map_err(|_| "its collation cannot be read")?,
        Err(_) => doc! { "locale": "simple" },
    };
    let aggregate = doc! {
        "aggregate": &look.namespace.collection,
        "pipeline": pipeline,
        "cursor": {},
        "collation": collation,
        // The documents are what the destination's index is made of; one that is missing in the
        // source's own shows only there.
        "hint": { "$natural": 1 },
        "allowDiskUse": false,
        "maxTimeMS": i64::try_from(left.as_millis()).unwrap_or(i64::MAX),
        // As of one moment: while others write, a key goes from one document to another.
        "readConcern": { "level": "snapshot" },
        "comment": "cutover-preflight",
    };
    let began = Instant::now();
    let reply = loop {
        match source.command(&look.namespace.db, aggregate.clone()).await {
            // Its definition has just changed, and the newest common moment lies before that.
            Err(e)
                if error::code(&e) == Some(server_code::SNAPSHOT_UNAVAILABLE)
                    && began.elapsed() + SHORTEST_LOOK < left =>
            {
                tokio::time::sleep(BEFORE_NEXT_TRY).await;
            }
            answer => break answer.map_err(|e| error::words(&e))?,
        }
    };
    let found = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"))
        .map_err(|e| e.to_string())?;
    let id = |group: &Document, name: &str| {
        RawDocumentBuf::try_from(&doc! { "_id": group.get(name)?.clone() }).ok()
    };
    Ok(found
        .iter()
        .filter_map(Bson::as_document)
        .filter_map(|group| Some((id(group, "one")?, id(group, "other")?)))
        .collect())
}

/// What groups documents by their keys in an index, as the index takes them: every element of an
/// array is a key, and what is not there is null. `None` where an aggregation reads a path
/// otherwise than an index does.
fn pipeline(spec: &RawDocument) -> Option<Vec<Document>> {
    let mut paths = Vec::new();
    for field in spec.get_document("key").ok()?.iter() {
        // A path that is no UTF-8 cannot be written as an expression by the driver.
        let (path, direction) = field.ok()?;
        let is_plain = |part: &str| {
            !part.is_empty() && !part.starts_with('$') && !part.bytes().all(|b| b.is_ascii_digit())
        };
        if matches!(direction, RawBsonRef::String(_)) || !path.as_str().split('.').all(is_plain) {
            return None;
        }
        paths.push(path.as_str().to_owned());
    }
    let mut stages = Vec::new();
    if let Ok(filter) = spec.get_document("partialFilterExpression") {
        stages.push(doc! { "$match": Document::try_from(filter).ok()? });
    }
    if spec.get_bool("sparse").unwrap_or(false) {
        let exists: Vec<Document> =
            paths.iter().map(|path| doc! { path: { "$exists": true } }).collect();
        stages.push(doc! { "$match": { "$or": exists } });
    }
    let (mut keys, mut group) = (doc! {}, doc! {});
    for (at, path) in paths.iter().enumerate() {
        let name = format!("k{at}");
        // Of arrays of arrays behind a dot the index takes the elements of both; those are left out
        // here.
        let elements = if path.contains('.') {
            Bson::Document(doc! {
                "$filter": { "input": "$$v", "cond": { "$not": { "$isArray": "$$this" } } }
            })
        } else {
            Bson::from("$$v")
        };
        let value = doc! { "$switch": {
            "branches": [
                // The key of an empty array is none, which is not null.
                { "case": { "$eq": ["$$v", []] }, "then": { "$literal": Bson::Undefined } },
                { "case": { "$isArray": "$$v" }, "then": { "$setUnion": [elements, []] } },
                { "case": { "$eq": [{ "$type": "$$v" }, "missing"] }, "then": null },
            ],
            "default": "$$v",
        } };
        keys.insert(&name, doc! { "$let": { "vars": { "v": format!("${path}") }, "in": value } });
        group.insert(&name, format!("${name}"));
    }
    let names: Vec<String> = group.keys().cloned().collect();
    stages.push(doc! { "$project": keys });
    stages.extend(names.iter().map(|name| {
        doc! { "$unwind": { "path": format!("${name}"), "preserveNullAndEmptyArrays": true } }
    }));
    stages.push(doc! { "$group": {
        "_id": group, "n": { "$sum": 1 }, "one": { "$first": "$_id" }, "other": { "$last": "$_id" },
    } });
    stages.push(doc! { "$match": { "n": { "$gt": 1 } } });
    stages.push(doc! { "$limit": KEYS_NAMED });
    stages.push(doc! { "$project": { "_id": 0, "one": 1, "other": 1 } });
    Some(stages)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{RawDocumentBuf, doc, rawdoc};
    use schemas::namespace::Namespace;

    use super::{pipeline, refused};

    #[test]
    fn what_no_server_builds_is_told() {
        let namespace = Namespace::new("shop", "orders");
        let of = |count: i32| -> Vec<RawDocumentBuf> {
            let made = (0..count).map(|n| doc! { "key": { format!("a{n}"): 1 }, "name": "a" });
            made.map(|spec| RawDocumentBuf::try_from(&spec).expect("BSON")).collect()
        };
        assert!(refused(&namespace, &of(63)).is_empty());
        let told = refused(&namespace, &of(64));
        assert!(told.len() == 1 && told[0].contains("shop.orders has 65 indexes"), "{told:?}");
        let kinds = [
            rawdoc! { "key": { "at": "geoHaystack", "kind": 1 }, "name": "near" },
            rawdoc! { "key": { "$**": 1 }, "name": "all" },
            rawdoc! { "key": { "at": "2dsphere" }, "name": "place" },
        ];
        let told = refused(&namespace, &kinds);
        assert!(
            told.len() == 1 && told[0].contains("near") && told[0].contains("geoHaystack"),
            "{told:?}"
        );
    }

    #[test]
    fn keys_that_an_aggregation_reads_otherwise_are_left_alone() {
        for key in [rawdoc! { "a.0": 1 }, rawdoc! { "a": "hashed" }, rawdoc! { "$**": 1 }] {
            assert_eq!(pipeline(&rawdoc! { "key": key.clone(), "name": "a" }), None, "{key:?}");
        }
        assert!(pipeline(&rawdoc! { "key": { "a": 1, "b.c": -1 }, "name": "a" }).is_some());
    }
}
