//! Writes: each operation of a command goes to the shard that owns it, and the answers become one.

use std::collections::BTreeMap;

use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use placement::element;

use super::admin::value;
use super::command::{Command, Refusal, append, append_times, code, is_ok, is_stale, number, with};
use super::read::transient;
use super::table::Route;
use super::{Answer, Router, STALE_TRIES, target};

/// `WouldChangeOwningShard`: the shard reports the document before and after, and leaves the move
/// to its router.
const WOULD_CHANGE_SHARD: i32 = 283;

/// What came of a command's operations so far.
#[derive(Default)]
struct Outcome {
    n: i64,
    modified: i64,
    upserted: Vec<(usize, RawDocumentBuf)>,
    errors: Vec<(usize, RawDocumentBuf)>,
    concern: Option<RawDocumentBuf>,
    replies: Vec<RawDocumentBuf>,
}

/// What came of an update whose document belongs to another shard afterwards.
pub(super) enum Moved {
    There,
    /// An upsert made it: its `_id`, as the answer reports it.
    Made(RawDocumentBuf),
    /// The other shard does not take it.
    Refused(RawDocumentBuf),
    /// It changed meanwhile: the update is to be tried again.
    Again,
}

/// Operations for one shard: their places in the command.
type Group = (String, Vec<usize>);

fn list_name(name: &str) -> &'static str {
    match name {
        "insert" => "documents",
        "update" => "updates",
        _ => "deletes",
    }
}

fn targets(route: &Route, name: &str, operation: &RawDocument) -> Result<Vec<String>, Refusal> {
    if name == "insert" {
        return match target::of_document(route, operation) {
            Some(shard) => Ok(vec![shard]),
            None => {
                Err(Refusal::new(61, "ShardKeyNotFound", "the document's shard key holds an array"))
            }
        };
    }
    let query = operation.get_document("q").map(ToOwned::to_owned).unwrap_or_default();
    let is_collated = route.collates(operation);
    if let Some(shard) = target::owner(route, &query, is_collated) {
        return Ok(vec![shard]);
    }
    if operation.get_bool("upsert").unwrap_or(false) {
        return Err(Refusal::new(
            61,
            "ShardKeyNotFound",
            "an upsert must have the shard key in its query",
        ));
    }
    // A replacement goes where the document that it makes belongs.
    let replacement = operation
        .get_document("u")
        .ok()
        .filter(|u| element::elements(u).all(|field| !field.name.starts_with(b"$")));
    if let Some(replacement) = replacement {
        return match target::of_document(route, replacement) {
            Some(shard) => Ok(vec![shard]),
            None => Err(Refusal::new(
                61,
                "ShardKeyNotFound",
                "the replacement's shard key holds an array",
            )),
        };
    }
    let is_multi =
        operation.get_bool("multi").unwrap_or(false) || number(operation, "limit") == Some(0);
    // Of one that is known by its `_id` alone every shard is asked: at most one has it, unless two
    // have the same `_id`. It compares as the collection does, unless the command says otherwise.
    let is_told = operation.get_document("collation").is_ok_and(|collation| !collation.is_empty());
    let is_told_otherwise = is_told && route.is_told_apart(operation);
    if is_multi || target::fixes(&query, "_id", is_told_otherwise) {
        return Ok(route.shards());
    }
    Err(if name == "delete" {
        Refusal::new(
            61,
            "ShardKeyNotFound",
            "a delete of one document must have the shard key or an exact _id in its query",
        )
    } else {
        Refusal::new(
            72,
            "InvalidOptions",
            "an update of one document must have the shard key or an exact _id in its query",
        )
    })
}

impl Router {
    pub(super) async fn write(&self, command: &Command) -> Answer {
        let name = command.name();
        let list = list_name(&name);
        let operations = command.documents(list);
        let is_ordered = command.body.get_bool("ordered").unwrap_or(true);
        let namespace = command.namespace();
        let mut outcome = Outcome::default();
        let mut pending: Vec<usize> = (0..operations.len()).collect();
        let mut tries = 0;
        while !pending.is_empty() {
            let route = self.table.route_or_create(&self.shards, &namespace).await?;
            let (groups, refused) = plan(&route, &name, &operations, &pending, is_ordered, command);
            let mut again = Vec::new();
            let part = |(shard, places): &Group| {
                (shard.clone(), part_of(command, list, &operations, places, &route, shard))
            };
            // What has no order goes to all shards at once.
            let mut ahead = match is_ordered {
                true => Vec::new(),
                false => self.send_each(groups.iter().map(part).collect()).await?,
            }
            .into_iter();
            for (place, (shard, places)) in groups.iter().enumerate() {
                let reply = match ahead.next() {
                    Some(reply) => reply,
                    None => self.send(shard, part(&groups[place]).1).await?,
                };
                if code(&reply) == Some(WOULD_CHANGE_SHARD) && places.len() == 1 {
                    match self.change_shard(command, &route, &reply).await? {
                        Moved::There => {
                            outcome.n += 1;
                            outcome.modified += 1;
                        }
                        Moved::Made(id) => {
                            outcome.n += 1;
                            outcome.upserted.push((places[0], id));
                        }
                        Moved::Refused(reply) => outcome.errors.push((places[0], reply)),
                        Moved::Again => again.push(places[0]),
                    }
                    if is_ordered && (!again.is_empty() || !outcome.errors.is_empty()) {
                        break;
                    }
                    continue;
                }
                if is_stale(&reply) {
                    again.extend(places);
                } else if !is_ok(&reply) {
                    return Ok(reply);
                } else {
                    again.extend(outcome.take(&reply, places, is_ordered));
                }
                if !again.is_empty() && command.is_in_transaction() {
                    return Err(transient(&reply));
                }
                if is_ordered && (!again.is_empty() || !outcome.errors.is_empty()) {
                    break;
                }
            }
            let is_stopped = is_ordered && !outcome.errors.is_empty();
            if !is_stopped && (again.is_empty() || !is_ordered) {
                for (place, refusal) in refused {
                    outcome.errors.push((place, refusal.reply()));
                }
            }
            again.sort_unstable();
            again.dedup();
            pending = match again.first() {
                _ if is_stopped => Vec::new(),
                // What follows waits for what is to be done again.
                Some(&first) if is_ordered => {
                    pending.into_iter().filter(|place| *place >= first).collect()
                }
                _ => again,
            };
            tries += 1;
            if !pending.is_empty() {
                self.table.forget(&namespace);
                if tries > STALE_TRIES {
                    return Err(Refusal::new(
                        13388,
                        "StaleConfig",
                        format!("the chunks of {namespace} keep changing"),
                    ));
                }
            }
        }
        Ok(outcome.reply(&name))
    }

    /// Carries out an update, or an upsert, whose document belongs to another shard afterwards.
    async fn change_shard(
        &self,
        command: &Command,
        route: &Route,
        told: &RawDocument,
    ) -> Result<Moved, Refusal> {
        let image = |name| told.get_document(name).map_err(|_| super::admin::missing(name));
        let (before, after) = (image("preImage")?, image("postImage")?);
        let Some(map) = &route.map else { return Ok(Moved::Again) };
        let owner = |document| {
            target::of_document(route, document).ok_or_else(|| super::admin::missing("shard key"))
        };
        let (collection, db) = (command.collection(), command.db());
        let is_made = told.get_bool("shouldUpsert").unwrap_or(false);
        let to = owner(after)?;
        let insert = rawdoc! { "insert": collection, "documents": [after.to_owned()], "$db": db };
        let insert = Command::new(with(&insert, &[], &route.versions(&to)));
        if is_made {
            return self.move_document(command, None, (&to, insert), after).await;
        }
        let from = owner(before)?;
        let mut query = element::id_of(before).unwrap_or_default();
        for (name, _) in
            map.key().fields().filter(|(name, _)| *name != "_id" && !name.contains('.'))
        {
            if let Some(field) = value(before, name) {
                append(&mut query, name, field);
            }
        }
        let delete =
            rawdoc! { "delete": collection, "deletes": [{ "q": query, "limit": 1 }], "$db": db };
        let delete = Command::new(with(&delete, &[], &route.versions(&from)));
        self.move_document(command, Some((&from, delete)), (&to, insert), after).await
    }

    pub(super) async fn find_and_modify(&self, command: &Command) -> Answer {
        let namespace = command.namespace();
        let query = command.body.get_document("query").map(ToOwned::to_owned).unwrap_or_default();
        for _ in 0..STALE_TRIES {
            let route = self.table.route_or_create(&self.shards, &namespace).await?;
            let Some(shard) = target::owner(&route, &query, route.collates(&command.body)) else {
                return Err(Refusal::new(
                    61,
                    "ShardKeyNotFound",
                    "findAndModify must have the shard key in its query",
                ));
            };
            let reply = self.send(&shard, command.with(&[], &route.versions(&shard))).await?;
            if code(&reply) == Some(WOULD_CHANGE_SHARD) {
                let is_new = command.body.get_bool("new").unwrap_or(false);
                let image = reply.get_document(if is_new { "postImage" } else { "preImage" });
                let image = image.map_err(|_| super::admin::missing("image"))?.to_owned();
                match self.change_shard(command, &route, &reply).await? {
                    Moved::There => {
                        return Ok(rawdoc! {
                            "lastErrorObject": { "n": 1, "updatedExisting": true },
                            "value": image, "ok": 1.0,
                        });
                    }
                    Moved::Made(_) => {
                        let mut reply =
                            rawdoc! { "lastErrorObject": { "n": 1, "updatedExisting": false } };
                        if is_new {
                            append(&mut reply, "value", &*image);
                        } else {
                            append(&mut reply, "value", RawBsonRef::Null);
                        }
                        append(&mut reply, "ok", 1.0);
                        return Ok(reply);
                    }
                    Moved::Refused(reply) => {
                        return Ok(with(&reply, &["ok"], &rawdoc! { "ok": 0.0 }));
                    }
                    Moved::Again => {}
                }
                continue;
            }
            if !is_stale(&reply) {
                return Ok(reply);
            }
            self.table.forget(&namespace);
            if command.is_in_transaction() {
                return Err(transient(&reply));
            }
        }
        Err(Refusal::new(13388, "StaleConfig", format!("the chunks of {namespace} keep changing")))
    }
}

/// The operations in groups, each for one shard: in their order where that counts, and one by one
/// where an update may move a document.
fn plan(
    route: &Route,
    name: &str,
    operations: &[RawDocumentBuf],
    pending: &[usize],
    is_ordered: bool,
    command: &Command,
) -> (Vec<Group>, Vec<(usize, Refusal)>) {
    let mut refused = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    let one_by_one =
        name == "update" && route.map.is_some() && value(&command.body, "txnNumber").is_some();
    let mut of_shard: BTreeMap<String, usize> = BTreeMap::new();
    for &place in pending {
        let shards = match targets(route, name, &operations[place]) {
            Ok(shards) => shards,
            Err(refusal) => {
                refused.push((place, refusal));
                if is_ordered {
                    break;
                }
                continue;
            }
        };
        let is_single = shards.len() == 1 && !one_by_one;
        for shard in shards {
            let joins = match is_ordered {
                true => groups.last().filter(|(last, _)| *last == shard).map(|_| groups.len() - 1),
                false => of_shard.get(&shard).copied(),
            };
            match joins.filter(|_| is_single) {
                Some(group) => groups[group].1.push(place),
                None => {
                    groups.push((shard.clone(), vec![place]));
                    if is_single {
                        of_shard.insert(shard, groups.len() - 1);
                    }
                }
            }
        }
    }
    (groups, refused)
}

fn part_of(
    command: &Command,
    list: &str,
    operations: &[RawDocumentBuf],
    places: &[usize],
    route: &Route,
    shard: &str,
) -> Command {
    let mut added = route.versions(shard);
    if value(&command.body, "txnNumber").is_some() && !command.is_in_transaction() {
        let mut statements = RawArrayBuf::new();
        places.iter().for_each(|place| statements.push(i32::try_from(*place).unwrap_or(i32::MAX)));
        append(&mut added, "stmtIds", &*statements);
    }
    let mut part = command.with(&[list], &added);
    part.sequence =
        Some((list.to_owned(), places.iter().map(|place| operations[*place].clone()).collect()));
    part
}

impl Outcome {
    /// Takes a shard's answer in; returns the operations that met a stale route and are to be sent
    /// again.
    fn take(&mut self, reply: &RawDocumentBuf, places: &[usize], is_ordered: bool) -> Vec<usize> {
        self.n += number(reply, "n").unwrap_or(0);
        self.modified += number(reply, "nModified").unwrap_or(0);
        let place_of = |entry: &RawDocument| {
            number(entry, "index")
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| places.get(at).map(|place| (at, *place)))
        };
        for entry in super::command::documents_in(reply, "upserted") {
            if let Some((_, place)) = place_of(&entry) {
                self.upserted.push((place, entry));
            }
        }
        if let Ok(concern) = reply.get_document("writeConcernError") {
            self.concern = Some(concern.to_owned());
        }
        let mut again = Vec::new();
        for entry in super::command::documents_in(reply, "writeErrors") {
            let Some((at, place)) = place_of(&entry) else { continue };
            if !is_stale(&entry) {
                self.errors.push((place, entry));
            } else if is_ordered {
                again.extend(&places[at..]);
            } else {
                again.push(place);
            }
        }
        self.replies.push(reply.clone());
        again
    }

    fn reply(mut self, name: &str) -> RawDocumentBuf {
        let mut reply = rawdoc! { "n": i32::try_from(self.n).unwrap_or(i32::MAX) };
        if name == "update" {
            append(&mut reply, "nModified", i32::try_from(self.modified).unwrap_or(i32::MAX));
        }
        for (field, mut entries) in
            [("upserted", std::mem::take(&mut self.upserted)), ("writeErrors", self.errors)]
        {
            if entries.is_empty() {
                continue;
            }
            entries.sort_by_key(|(place, _)| *place);
            let mut list = RawArrayBuf::new();
            for (place, entry) in entries {
                let index = rawdoc! { "index": i32::try_from(place).unwrap_or(i32::MAX) };
                list.push(with(&index, &[], &with(&entry, &["index", "ok"], &rawdoc! {})));
            }
            append(&mut reply, field, &*list);
        }
        if let Some(concern) = &self.concern {
            append(&mut reply, "writeConcernError", &**concern);
        }
        append(&mut reply, "ok", 1.0);
        append_times(&mut reply, &self.replies);
        reply
    }
}
