//! Writes: each operation of a command goes to the shard that owns it, and the answers become one.

use std::collections::BTreeMap;

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use placement::element;

use super::admin::value;
use super::command::{Command, Refusal, append, append_times, code, is_ok, is_stale, number, with};
use super::read::transient;
use super::table::Route;
use super::{Answer, Router, STALE_TRIES, target};

/// `WouldChangeOwningShard`: the shard tells the document before and after, and leaves the move to its router.
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
            None => Err(Refusal::new(61, "ShardKeyNotFound", "the document's shard key holds an array")),
        };
    }
    let query = operation.get_document("q").map(ToOwned::to_owned).unwrap_or_default();
    let has_collation = value(operation, "collation").is_some();
    if let Some(shard) = target::owner(route, &query, has_collation) {
        return Ok(vec![shard]);
    }
    // A replacement names the shard key too.
    let replacement =
        operation.get_document("u").ok().filter(|u| element::elements(u).all(|field| !field.name.starts_with(b"$")));
    let is_multi = operation.get_bool("multi").unwrap_or(false) || number(operation, "limit") == Some(0);
    let by_id = element::field(&query, "_id").is_some();
    if let (Some(replacement), Some(map)) = (replacement, &route.map)
        && !by_id
        && map.key().fields().all(|(name, _)| element::field(replacement, name).is_some())
    {
        return Ok(target::of_document(route, replacement).into_iter().collect());
    }
    if operation.get_bool("upsert").unwrap_or(false) {
        return Err(Refusal::new(61, "ShardKeyNotFound", "an upsert must have the shard key in its query"));
    }
    if is_multi || by_id {
        return Ok(route.shards());
    }
    Err(Refusal::new(72, "InvalidOptions", "a write to one document must have the shard key or _id in its query"))
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
            for (place, (shard, places)) in groups.iter().enumerate() {
                let part = part_of(command, list, &operations, places, &route, shard);
                let reply = self.send(shard, part.clone()).await?;
                if code(&reply) == Some(WOULD_CHANGE_SHARD) && places.len() == 1 {
                    if self.change_shard(command, &route, &reply).await? {
                        outcome.n += 1;
                        outcome.modified += 1;
                    } else {
                        again.push(places[0]);
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
                    // What follows waits for what is to be done again, or is not done.
                    if outcome.errors.is_empty() {
                        again.extend(groups[place + 1..].iter().flat_map(|(_, places)| places));
                    }
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
            pending = if is_stopped { Vec::new() } else { again };
            tries += 1;
            if !pending.is_empty() {
                self.table.forget(&namespace);
                if tries > STALE_TRIES {
                    return Err(Refusal::new(13388, "StaleConfig", format!("the chunks of {namespace} keep changing")));
                }
            }
        }
        Ok(outcome.reply(&name))
    }

    /// Carries out an update that moves its document to another shard; `false`: it is to be tried again.
    async fn change_shard(&self, command: &Command, route: &Route, told: &RawDocument) -> Result<bool, Refusal> {
        let image = |name| told.get_document(name).map_err(|_| super::admin::missing(name));
        let (before, after) = (image("preImage")?, image("postImage")?);
        let Some(map) = &route.map else { return Ok(false) };
        let owner = |document| target::of_document(route, document).ok_or_else(|| super::admin::missing("shard key"));
        let (from, to) = (owner(before)?, owner(after)?);
        let mut query = element::id_of(before).unwrap_or_default();
        for (name, _) in map.key().fields().filter(|(name, _)| *name != "_id" && !name.contains('.')) {
            if let Some(field) = value(before, name) {
                append(&mut query, name, field);
            }
        }
        let (collection, db) = (command.collection(), command.db());
        let delete = rawdoc! { "delete": collection, "deletes": [{ "q": query, "limit": 1 }], "$db": db };
        let insert = rawdoc! { "insert": collection, "documents": [after.to_owned()], "$db": db };
        let delete = Command::new(with(&delete, &[], &route.versions(&from)));
        let insert = Command::new(with(&insert, &[], &route.versions(&to)));
        Ok(self.move_document(command, (&from, delete), (&to, insert)).await?.is_some())
    }

    pub(super) async fn find_and_modify(&self, command: &Command) -> Answer {
        let namespace = command.namespace();
        let query = command.body.get_document("query").map(ToOwned::to_owned).unwrap_or_default();
        let has_collation = value(&command.body, "collation").is_some();
        for _ in 0..STALE_TRIES {
            let route = self.table.route_or_create(&self.shards, &namespace).await?;
            let Some(shard) = target::owner(&route, &query, has_collation) else {
                return Err(Refusal::new(61, "ShardKeyNotFound", "findAndModify must have the shard key in its query"));
            };
            let reply = self.send(&shard, command.with(&[], &route.versions(&shard))).await?;
            if code(&reply) == Some(WOULD_CHANGE_SHARD) {
                if self.change_shard(command, &route, &reply).await? {
                    let is_new = command.body.get_bool("new").unwrap_or(false);
                    let image = reply.get_document(if is_new { "postImage" } else { "preImage" });
                    let image = image.map_err(|_| super::admin::missing("image"))?.to_owned();
                    return Ok(rawdoc! { "lastErrorObject": { "n": 1, "updatedExisting": true }, "value": image, "ok": 1.0 });
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

/// The operations in groups, each for one shard: in their order where that counts, and one by one where an update may move a document.
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
    let one_by_one = name == "update" && route.map.is_some() && value(&command.body, "txnNumber").is_some();
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
    part.sequence = Some((list.to_owned(), places.iter().map(|place| operations[*place].clone()).collect()));
    part
}

impl Outcome {
    /// Takes a shard's answer in; returns the operations that met a stale route and are to be sent again.
    fn take(&mut self, reply: &RawDocumentBuf, places: &[usize], is_ordered: bool) -> Vec<usize> {
        self.n += number(reply, "n").unwrap_or(0);
        self.modified += number(reply, "nModified").unwrap_or(0);
        let place_of = |entry: &RawDocument| {
            number(entry, "index").and_then(|at| usize::try_from(at).ok()).and_then(|at| places.get(at).map(|place| (at, *place)))
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
        for (field, mut entries) in [("upserted", std::mem::take(&mut self.upserted)), ("writeErrors", self.errors)] {
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
