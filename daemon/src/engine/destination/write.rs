//! Write commands: repeated until they pass, what the server refuses told apart, and zero
//! timestamps kept.
//!
//! A command that may still be under way is waited for before it is sent again, so that it is never
//! under way twice. A reply that quotes a key that is no UTF-8 cannot be read by the driver; its
//! command is then cut in halves until the statement is alone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, RawArray, RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::shard_collection;
use crate::engine::{catalog, element, index};
use crate::mongo::shard_keys::PlacedBy;
use crate::mongo::{Deployment, append, command, error, server_code};

/// How often a write is tried again before its fault is shown, with pauses that double from
/// [`FIRST_PAUSE`]: about 25 s in all, longer than an election takes.
const TRIES: u32 = 8;
/// The pause before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Documents that are looked for by one command, where a refusal leaves open whether they are
/// there.
const LOOKED_FOR_AT_ONCE: usize = 1_000;

/// What an exact insertion has around its document and the `_id`, at most, but for a shard key.
const EXACT_INSERTION: usize = 200;

/// Tells the writes of this process apart.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// What statements do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Each is a document to insert.
    Insert,
    /// Each is `{q, u, …}`.
    Update,
    /// Each is `{q, limit}`.
    Delete,
}

impl Verb {
    const fn command(self) -> (&'static str, &'static str) {
        match self {
            Self::Insert => ("insert", "documents"),
            Self::Update => ("update", "updates"),
            Self::Delete => ("delete", "deletes"),
        }
    }

    const fn doing(self) -> &'static str {
        match self {
            Self::Insert => "inserting into",
            Self::Update => "updating",
            Self::Delete => "deleting from",
        }
    }
}

/// Why a statement was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A document with that `_id` is there.
    IdTaken,
    /// Another unique index has the key.
    KeyTaken,
    /// The name is a view's.
    View,
    /// The document has an array where the shard key of its collection has a field.
    NoPlace,
    /// The server's words about it cannot be read: they quote a value that is no UTF-8.
    Unreadable,
    /// Another code of the server's.
    Code(i32),
}

/// A statement that the server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Its place.
    pub index: usize,
    /// Why.
    pub why: Why,
}

/// What became of statements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Those that the server refused, in no order.
    pub refused: Vec<Refused>,
    /// How many documents they met.
    pub matched: u64,
}

/// Runs statements, unordered, past validation (what the source holds is right by definition), with
/// majority.
pub async fn run(
    destination: &Deployment,
    namespace: &Namespace,
    verb: Verb,
    statements: &RawArray,
) -> Result<Outcome, Fault> {
    let mut outcome = Outcome::default();
    let mut open: Vec<(usize, RawArrayBuf)> = Vec::new();
    let mut next: Option<(usize, &RawArray)> = Some((0, statements));
    let mut taken;
    while let Some((first, statements)) = next {
        match send_one(destination, namespace, verb, statements).await? {
            Reply::Read(reply) => {
                outcome.matched += count(&reply);
                outcome.refused.extend(refused(&reply).map(|refused| Refused {
                    index: first + refused.index,
                    why: match refused.why {
                        Why::Code(server_code::HASHED_INDEX_ON_ARRAY)
                            if shard_collection::is_hashed(destination, namespace) =>
                        {
                            Why::NoPlace
                        }
                        why => why,
                    },
                }));
            }
            Reply::Unreadable => {
                let mut halves = halves(statements);
                match halves.len() {
                    0 | 1 => outcome.refused.push(Refused { index: first, why: Why::Unreadable }),
                    _ => open.extend(halves.drain(..).map(|(offset, half)| (first + offset, half))),
                }
            }
        }
        taken = open.pop();
        next = taken.as_ref().map(|(first, statements)| (*first, &**statements));
    }
    Ok(outcome)
}

fn halves(statements: &RawArray) -> Vec<(usize, RawArrayBuf)> {
    let all: Vec<_> = statements.into_iter().flatten().collect();
    if all.len() < 2 {
        return vec![(0, statements.to_owned())];
    }
    let middle = all.len() / 2;
    let part = |values: &[mongodb::bson::RawBsonRef<'_>]| {
        values.iter().fold(RawArrayBuf::new(), |mut part, value| {
            part.push(*value);
            part
        })
    };
    vec![(0, part(&all[..middle])), (middle, part(&all[middle..]))]
}

/// As [`run`], with statements that are made for each try alone: held beside their command, they
/// would weigh as much once more.
async fn run_made(
    destination: &Deployment,
    namespace: &Namespace,
    verb: Verb,
    bytes: usize,
    make: impl Fn() -> RawArrayBuf,
) -> Result<Outcome, Fault> {
    match send_made(destination, namespace, verb, bytes, |write, list| {
        append(write, list, &*make())
    })
    .await?
    {
        Reply::Read(reply) => {
            Ok(Outcome { matched: count(&reply), refused: refused(&reply).collect() })
        }
        Reply::Unreadable => run(destination, namespace, verb, &make()).await,
    }
}

async fn send_one(
    destination: &Deployment,
    namespace: &Namespace,
    verb: Verb,
    statements: &RawArray,
) -> Result<Reply, Fault> {
    let bytes = statements.as_bytes().len();
    send_made(destination, namespace, verb, bytes, |write, list| append(write, list, statements))
        .await
}

/// Sends a command of so many bytes, to which `put` adds its list of statements.
async fn send_made(
    destination: &Deployment,
    namespace: &Namespace,
    verb: Verb,
    bytes: usize,
    put: impl Fn(&mut RawDocumentBuf, &str),
) -> Result<Reply, Fault> {
    let (name, list) = verb.command();
    let _share = destination.memory.command(bytes).await;
    let mark = format!(
        "{}:{}:{};",
        destination.tag,
        std::process::id(),
        WRITES.fetch_add(1, Ordering::Relaxed)
    );
    let mut head = command(name, &namespace.collection);
    append(&mut head, "ordered", false);
    if verb != Verb::Delete {
        append(&mut head, "bypassDocumentValidation", true);
    }
    append(&mut head, "writeConcern", &*rawdoc! { "w": "majority" });
    append(&mut head, "comment", mark.as_str());
    // Made for each try: a copy that is kept for the next would be as large as all that is written,
    // for nothing.
    let write = || {
        let mut write = head.clone();
        put(&mut write, list);
        write
    };
    until_passed(destination, namespace, verb.doing(), &mark, write).await
}

/// What came back.
enum Reply {
    Read(Document),
    Unreadable,
}

/// Runs a write command until it passes, as long as its errors may pass. It is never under way
/// twice.
async fn until_passed(
    destination: &Deployment,
    namespace: &Namespace,
    doing: &str,
    mark: &str,
    command: impl Fn() -> RawDocumentBuf,
) -> Result<Reply, Fault> {
    let mut pause = FIRST_PAUSE;
    let mut tried = 1;
    let mut may_be_under_way = false;
    let mut lets_mixed_in = false;
    loop {
        let sent = if may_be_under_way {
            // What the first try may have left under way must end before the second begins.
            destination.wait_for_writes(mark).await
        } else {
            Ok(())
        };
        let fault = match sent {
            Ok(()) => {
                may_be_under_way = true;
                match send(destination, namespace, doing, command()).await {
                    Ok(Reply::Read(reply)) if !lets_mixed_in && has_mixed_schema(&reply) => {
                        let_mixed_buckets_in(destination, namespace).await?;
                        lets_mixed_in = true;
                        continue;
                    }
                    Ok(reply) => return Ok(reply),
                    Err(fault) => fault,
                }
            }
            Err(fault) => fault,
        };
        if tried == TRIES || !fault.retryable {
            return Err(fault);
        }
        tried += 1;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

fn has_mixed_schema(reply: &Document) -> bool {
    errors(reply).any(|error| {
        error.get_i32("code").is_ok_and(|code| {
            code == server_code::CANNOT_INSERT_TIMESERIES_BUCKETS_WITH_MIXED_SCHEMA
        })
    })
}

/// Has a time-series collection take the buckets that it has on the source, where it has had them
/// since an older version.
async fn let_mixed_buckets_in(destination: &Deployment, buckets: &Namespace) -> Result<(), Fault> {
    let Some(series) = catalog::owner_of(buckets) else { return Ok(()) };
    tracing::info!(namespace = %series, "it has buckets of mixed schema on the source; the \
         destination is told so");
    let mut modify = command("collMod", &series.collection);
    append(&mut modify, "timeseriesBucketsMayHaveMixedSchemaData", true);
    append(&mut modify, "writeConcern", &*rawdoc! { "w": "majority" });
    let modified = destination.raw_command(&series.db, modify).await;
    modified.map(drop).map_err(|e| {
        destination.fault(&format!("letting buckets of mixed schema into {series}"), &e)
    })
}

async fn send(
    destination: &Deployment,
    namespace: &Namespace,
    doing: &str,
    command: RawDocumentBuf,
) -> Result<Reply, Fault> {
    match destination.raw_command(&namespace.db, command).await {
        Ok(reply) => match concern_error(&reply).or_else(|| passing_error(&reply)) {
            None => Ok(Reply::Read(reply)),
            Some((code, message)) => {
                let mut fault = Fault::new(
                    FaultCode::DestinationWriteFailed,
                    format!(
                        "{doing} {namespace} on the destination ({}): {message} (code {code})",
                        destination.hosts
                    ),
                );
                fault.retryable = error::is_transient_code(code);
                Err(fault)
            }
        },
        Err(e) if error::is_unreadable(&e) => Ok(Reply::Unreadable),
        Err(e) => {
            let mut fault = destination.fault(&format!("{doing} {namespace}"), &e);
            fault.retryable = error::is_transient(&e);
            Err(fault)
        }
    }
}

fn concern_error(reply: &Document) -> Option<(i32, String)> {
    let error = reply.get_document("writeConcernError").ok()?;
    Some((
        error.get_i32("code").unwrap_or(0),
        error.get_str("errmsg").unwrap_or("write concern").to_owned(),
    ))
}

/// A statement's error that may pass: the whole command is then sent again, which repeats nothing
/// that is not the same again.
fn passing_error(reply: &Document) -> Option<(i32, String)> {
    errors(reply)
        .map(|error| error.get_i32("code").unwrap_or(0))
        .find(|code| error::is_transient_code(*code))
        .map(|code| (code, "a statement failed for the time being".to_owned()))
}

fn count(reply: &Document) -> u64 {
    RawDocumentBuf::try_from(reply)
        .ok()
        .and_then(|reply| crate::mongo::number(&reply, "n"))
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(0)
}

fn errors(reply: &Document) -> impl Iterator<Item = &Document> {
    reply.get_array("writeErrors").into_iter().flatten().filter_map(|error| error.as_document())
}

fn refused(reply: &Document) -> impl Iterator<Item = Refused> {
    errors(reply).map(|error| Refused {
        index: error.get_i32("index").ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        why: match error.get_i32("code").unwrap_or(0) {
            server_code::DUPLICATE_KEY if is_on_id(error) => Why::IdTaken,
            server_code::DUPLICATE_KEY => Why::KeyTaken,
            server_code::COMMAND_NOT_SUPPORTED_ON_VIEW => Why::View,
            server_code::SHARD_KEY_NOT_FOUND => Why::NoPlace,
            code => Why::Code(code),
        },
    })
}

/// Whether a duplicate is one of `_id`. A server that does not say is taken to mean that: during a
/// sync no other index is unique.
fn is_on_id(error: &Document) -> bool {
    error.get_document("keyPattern").map_or(true, |key| {
        key.len() == 1 && matches!(key.get("_id"), Some(value) if value.as_str().is_none())
    })
}

/// Makes a fault of a refused statement. The server's words can quote a document's values, and so
/// are left out but for its code. `id`: a document `{_id: …}`, that of the statement.
#[must_use]
pub fn refusal(
    destination: &Deployment,
    namespace: &Namespace,
    verb: Verb,
    why: Why,
    id: Option<&RawDocument>,
) -> Fault {
    let words = match why {
        Why::IdTaken => "the _id is taken".to_owned(),
        Why::KeyTaken => "a key of a unique index is taken".to_owned(),
        Why::View => "the name is a view's".to_owned(),
        Why::NoPlace => {
            let id = id
                .and_then(|id| id.get("_id").ok().flatten())
                .and_then(|id| mongodb::bson::Bson::try_from(id).ok());
            let id = id.map_or_else(|| "that cannot be read".to_owned(), |id| id.to_string());
            let message = format!(
                "the document with _id {id} of {namespace} has an array in a field of the \
                 collection's shard key on the destination"
            );
            return Fault::new(FaultCode::ShardKeyUnfit, message);
        }
        Why::Unreadable => "the server refused it in words that are no UTF-8".to_owned(),
        Why::Code(code) => format!("the server refused it with code {code}"),
    };
    let fault = Fault::new(
        FaultCode::DestinationWriteFailed,
        format!("{} {namespace} on the destination ({}): {words}", verb.doing(), destination.hosts),
    );
    // What passes by itself was tried again already: the same statement would be refused again, and
    // again.
    Fault { retryable: false, ..fault }.with_remedy(format!(
        "the destination's log says why it refuses that; once it takes it, or {namespace} is left \
         out (namespaces.exclude, and a raised `generation`), `cutover resume` goes on where the \
         run stands"
    ))
}

/// What is done about documents that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They stay, and are no error.
    Keep,
    /// Their places in the batch are returned.
    Report,
}

/// What became of an insertion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inserted {
    /// The places of documents whose `_id` was there, where that was asked for.
    pub there: Vec<usize>,
    /// Those that the server refused for another reason.
    pub refused: Vec<Refused>,
}

/// Inserts documents as they are. What it does twice gives the same.
pub async fn insert(
    destination: &Deployment,
    namespace: &Namespace,
    documents: &RawArray,
    existing: Existing,
) -> Result<Inserted, Fault> {
    let mut outcome = insert_runs(destination, namespace, documents).await?;
    if outcome.iter().any(|refused| refused.why == Why::KeyTaken) {
        // Only a trial of a unique index that a crash cut short leaves one that refuses duplicates.
        index::let_duplicates_in(destination, namespace).await?;
        outcome = insert_runs(destination, namespace, documents).await?;
    }
    let mut inserted = Inserted::default();
    let mut unclear = Vec::new();
    for refused in outcome {
        match refused.why {
            Why::IdTaken => inserted.there.push(refused.index),
            Why::Unreadable | Why::Code(_) => unclear.push(refused),
            Why::KeyTaken | Why::View | Why::NoPlace => inserted.refused.push(refused),
        }
    }
    for slice in unclear.chunks(LOOKED_FOR_AT_ONCE) {
        look_whether_there(destination, namespace, documents, slice, &mut inserted).await?;
    }
    if existing == Existing::Keep {
        inserted.there.clear();
    }
    Ok(inserted)
}

/// Inserts documents in their order: those that a server would write its own time into by updates,
/// and what lies between them by insertions.
async fn insert_runs(
    destination: &Deployment,
    namespace: &Namespace,
    documents: &RawArray,
) -> Result<Vec<Refused>, Fault> {
    let all: Vec<&RawDocument> =
        documents.into_iter().flatten().filter_map(|value| value.as_document()).collect();
    if !all.iter().any(|document| element::has_zero_timestamp(document)) {
        return Ok(run(destination, namespace, Verb::Insert, documents).await?.refused);
    }
    let placed = destination.placed(namespace);
    let mut refused = Vec::new();
    let mut first = 0;
    for run_of in
        all.chunk_by(|a, b| element::has_zero_timestamp(a) == element::has_zero_timestamp(b))
    {
        let verb = if element::has_zero_timestamp(run_of[0]) { Verb::Update } else { Verb::Insert };
        let of_id =
            |document: &RawDocument| element::id_of(document).map_or(0, |id| id.as_bytes().len());
        let around = |document: &RawDocument| match verb {
            Verb::Update => EXACT_INSERTION + of_id(document),
            Verb::Insert | Verb::Delete => 0,
        };
        let bytes =
            run_of.iter().map(|document| document.as_bytes().len() + around(document)).sum();
        let make = || {
            let mut statements = RawArrayBuf::new();
            for document in run_of {
                match verb {
                    Verb::Update => statements.push(&*exact_insertion(document, placed.as_deref())),
                    Verb::Insert | Verb::Delete => statements.push(*document),
                }
            }
            statements
        };
        let outcome = run_made(destination, namespace, verb, bytes, make).await?;
        refused.extend(
            outcome
                .refused
                .into_iter()
                .map(|refused| Refused { index: first + refused.index, ..refused }),
        );
        first += run_of.len();
    }
    Ok(refused)
}

/// An update that inserts a document with its zero timestamps, which only a pipeline keeps, and is
/// refused where its `_id` is taken: its filter meets nothing, so that the server derives no delta
/// (see [`super::duplicate_fields`]). Where its place is not told by its `_id` the filter has the
/// shard key too; a document without a place is refused as any other.
fn exact_insertion(document: &RawDocument, placed: Option<&PlacedBy>) -> RawDocumentBuf {
    let mut filter = element::id_of(document).map(|id| element::by_id(&id)).unwrap_or_default();
    if let Some(Ok(key)) = placed.map(|placed| placed.filter(document)) {
        let mut whole = element::Writer::default();
        element::elements(&filter).for_each(|field| whole.copy(&field));
        element::elements(&key)
            .filter(|field| field.name != b"_id")
            .for_each(|field| whole.copy(&field));
        filter = whole.finish();
    }
    let mut nothing = RawArrayBuf::new();
    nothing.push(&*RawDocumentBuf::new());
    append(&mut filter, "$nor", &*nothing);
    let mut literal = RawDocumentBuf::new();
    append(&mut literal, "$literal", document);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$replaceWith": literal });
    rawdoc! { "q": filter, "u": pipeline, "upsert": true }
}

/// Tells documents whose `_id` is there from those that are refused for what they hold, where the
/// server's answer leaves it open.
///
/// A clustered collection answers some duplicates with the code of a number that it fails to decode
/// from the record id: 15 and 50810 to 50833 were met on 6.0.5 and 6.0.27, for fractions, NaN,
/// infinities, large and small numbers and texts with a NUL.
async fn look_whether_there(
    destination: &Deployment,
    namespace: &Namespace,
    documents: &RawArray,
    unclear: &[Refused],
    inserted: &mut Inserted,
) -> Result<(), Fault> {
    let wanted: HashSet<usize> = unclear.iter().map(|refused| refused.index).collect();
    let ids: HashMap<usize, RawDocumentBuf> = documents
        .into_iter()
        .enumerate()
        .filter(|(place, _)| wanted.contains(place))
        .filter_map(|(place, value)| Some((place, element::id_of(value.ok()?.as_document()?)?)))
        .collect();
    let all = element::by_ids(ids.values().map(|id| &**id));
    // After a command that was repeated all are there, which one look tells.
    let are_all_there =
        ids.len() == unclear.len() && found(destination, namespace, &all).await? == ids.len();
    for refused in unclear {
        let is_there = are_all_there
            || match ids.get(&refused.index) {
                Some(id) => found(destination, namespace, &element::by_id(id)).await? > 0,
                None => false,
            };
        if is_there {
            inserted.there.push(refused.index);
        } else {
            inserted.refused.push(*refused);
        }
    }
    Ok(())
}

/// How many documents a filter meets on the destination.
async fn found(
    destination: &Deployment,
    namespace: &Namespace,
    filter: &RawDocument,
) -> Result<usize, Fault> {
    let mut find = command("find", &namespace.collection);
    append(&mut find, "filter", filter);
    append(&mut find, "projection", &*rawdoc! { "_id": 1 });
    let found = destination.collect(&namespace.db, find).await;
    Ok(found
        .map_err(|e| destination.fault(&format!("looking for documents of {namespace}"), &e))?
        .len())
}

#[cfg(test)]
mod tests {
    use super::{Refused, Why, exact_insertion, halves, is_on_id, refused};
    use mongodb::bson::{RawArrayBuf, doc, rawdoc};

    #[test]
    fn duplicates_of_ids_are_told_from_others() {
        assert!(is_on_id(&doc! { "keyPattern": { "_id": 1 } }));
        assert!(is_on_id(&doc! {}));
        assert!(!is_on_id(&doc! { "keyPattern": { "_id": 1, "a": 1 } }));
        assert!(!is_on_id(&doc! { "keyPattern": { "a": 1 } }));
        let reply = doc! {
            "writeErrors": [
                { "index": 3, "code": 11000, "keyPattern": { "a": 1 } },
                { "index": 4, "code": 171 },
            ]
        };
        assert_eq!(
            refused(&reply).collect::<Vec<_>>(),
            [Refused { index: 3, why: Why::KeyTaken }, Refused { index: 4, why: Why::Code(171) }]
        );
    }

    #[test]
    fn statements_are_halved_down_to_one() {
        let mut statements = RawArrayBuf::new();
        for n in 0..5 {
            statements.push(n);
        }
        let parts = halves(&statements);
        assert_eq!(
            parts
                .iter()
                .map(|(first, part)| (*first, part.into_iter().count()))
                .collect::<Vec<_>>(),
            [(0, 2), (2, 3)]
        );
        let mut one = RawArrayBuf::new();
        one.push(1);
        assert_eq!(halves(&one).len(), 1);
    }

    #[test]
    fn an_exact_insertion_takes_the_document_as_it_is() {
        assert_eq!(
            exact_insertion(&rawdoc! { "_id": 1, "$a": "$b" }, None),
            rawdoc! {
                "q": { "_id": 1, "$nor": [{}] },
                "u": [{ "$replaceWith": { "$literal": { "_id": 1, "$a": "$b" } } }],
                "upsert": true,
            }
        );
    }
}
