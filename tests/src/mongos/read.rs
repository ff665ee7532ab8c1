//! Reads: `find`, `count`, `distinct`, `listCollections`, `listIndexes`, and `aggregate` as far as
//! it merges.
//!
//! One shard's answer passes as it is. Of several shards: `find` in any order, with skip and limit;
//! pipelines of stages that look at one document each, then at most one of `$sort`, `$limit`,
//! `$skip`, `$count`, or a `$group` of sums. Anything else is refused.

use std::collections::BTreeMap;

use mongodb::bson::raw::RawBsonRef;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use placement::element;

use super::admin::value;
use super::command::{
    self, Command, Refusal, append, append_times, documents_in, is_ok, is_stale, joined, number,
};
use super::cursor::{Merged, SORT_KEY};
use super::shards::CONFIG;
use super::table::Route;
use super::{Answer, Router, STALE_TRIES, target};

/// Stages that look at one document at a time: each shard runs them for itself.
const PER_DOCUMENT: [&str; 13] = [
    "$match",
    "$project",
    "$addFields",
    "$set",
    "$unset",
    "$replaceRoot",
    "$replaceWith",
    "$unwind",
    "$redact",
    "$collStats",
    "$indexStats",
    "$listCatalog",
    "$lookup",
];
/// Where a pipeline's shards put their sort key; a stage may not name a field as a `find` may.
const PIPELINE_SORT_KEY: &str = "__sort_key_of_the_shard";

/// What the router does with the answers of several shards.
enum Merge {
    /// Nothing but to read them as one.
    Concatenate { order: Option<(String, Vec<bool>)>, skip: u64, limit: Option<u64> },
    /// Adds up numbers of documents with one `_id`.
    Sum { id: String },
}

fn directions(sort: &RawDocument) -> Vec<bool> {
    sort.iter()
        .flatten()
        .map(|(_, direction)| {
            matches!(direction, RawBsonRef::Int32(..0) | RawBsonRef::Int64(..0))
                || direction.as_f64().is_some_and(|d| d < 0.0)
        })
        .collect()
}

impl Router {
    /// Asks every shard of a filter with `make`, again where a route is stale. `None`: there is no
    /// such database.
    async fn ask_targets(
        &self,
        command: &Command,
        filter: &RawDocument,
        make: impl Fn(bool) -> Result<Command, Refusal>,
    ) -> Result<Option<(Route, Vec<(String, RawDocumentBuf)>)>, Refusal> {
        let namespace = command.namespace();
        let mut last = None;
        for _ in 0..STALE_TRIES {
            let Some(route) = self.table.route(&self.shards, &namespace).await? else {
                return Ok(None);
            };
            let shards = target::of_filter(&route, filter, route.collates(&command.body));
            let made = make(shards.len() > 1)?;
            let commands = shards
                .iter()
                .map(|shard| (shard.clone(), made.with(&[], &route.versions(shard))))
                .collect();
            let replies = self.send_each(commands).await?;
            let stale = replies.iter().find(|reply| is_stale(reply)).cloned();
            let found = (route, shards.into_iter().zip(replies).collect());
            match stale {
                None => return Ok(Some(found)),
                Some(reply) => {
                    self.table.forget(&namespace);
                    if command.is_in_transaction() {
                        return Err(transient(&reply));
                    }
                    last = Some(found);
                }
            }
        }
        Ok(last)
    }

    pub(super) async fn find(&self, command: &Command) -> Answer {
        let filter = command.body.get_document("filter").map(ToOwned::to_owned).unwrap_or_default();
        let sort = command.body.get_document("sort").map(ToOwned::to_owned).unwrap_or_default();
        let is_natural = sort.iter().flatten().any(|(name, _)| name.as_str() == "$natural");
        let is_sorted = !sort.is_empty() && !is_natural;
        let skip =
            number(&command.body, "skip").and_then(|skip| u64::try_from(skip).ok()).unwrap_or(0);
        let limit = number(&command.body, "limit")
            .and_then(|limit| u64::try_from(limit).ok())
            .filter(|limit| *limit > 0);
        let found = self
            .ask_targets(command, &filter, |several| {
                if !several {
                    return Ok(command.clone());
                }
                let mut added = RawDocumentBuf::new();
                if is_sorted {
                    let projection = command
                        .body
                        .get_document("projection")
                        .map(ToOwned::to_owned)
                        .unwrap_or_default();
                    let mut key = RawDocumentBuf::new();
                    append(&mut key, SORT_KEY, &*rawdoc! { "$meta": "sortKey" });
                    append(&mut added, "projection", &*joined(&projection, &key));
                }
                if let Some(limit) = limit {
                    append(&mut added, "limit", i64::try_from(limit + skip).unwrap_or(i64::MAX));
                }
                if let Some(size @ 1..) = number(&command.body, "batchSize") {
                    append(&mut added, "batchSize", size);
                }
                Ok(command.with(
                    &["projection", "limit", "skip", "batchSize", "singleBatch"]
                        [usize::from(!is_sorted)..],
                    &added,
                ))
            })
            .await?;
        let order = is_sorted.then(|| (SORT_KEY.to_owned(), directions(&sort)));
        self.answer_cursor(command, found, Merge::Concatenate { order, skip, limit }).await
    }

    async fn answer_cursor(
        &self,
        command: &Command,
        found: Option<(Route, Vec<(String, RawDocumentBuf)>)>,
        merge: Merge,
    ) -> Answer {
        let Some((_, mut replies)) = found else {
            return self.first_batch(command, Merged::of_documents(command, Vec::new()), &[]).await;
        };
        if let Some((_, failed)) = replies.iter().find(|(_, reply)| !is_ok(reply)) {
            return Ok(failed.clone());
        }
        if replies.len() == 1
            && let Some((shard, reply)) = replies.pop()
        {
            return Ok(self.keep_single(&shard, reply));
        }
        let times: Vec<RawDocumentBuf> = replies.iter().map(|(_, reply)| reply.clone()).collect();
        match merge {
            Merge::Concatenate { order, skip, limit } => {
                self.first_batch(command, Merged::new(command, replies, order, skip, limit), &times)
                    .await
            }
            Merge::Sum { id } => {
                let mut all = Vec::new();
                let mut merged = Merged::new(command, replies, None, 0, None);
                while let Some(document) = merged.next(self).await? {
                    all.push(document);
                }
                self.first_batch(command, Merged::of_documents(command, sums(all, &id)?), &times)
                    .await
            }
        }
    }

    pub(super) async fn aggregate(&self, command: &Command) -> Answer {
        if command.collection().is_empty() {
            return self.aggregate_database(command).await;
        }
        let pipeline = documents_in(&command.body, "pipeline");
        let filter = pipeline
            .first()
            .and_then(|first| first.get_document("$match").ok())
            .map(ToOwned::to_owned);
        let filter = filter.unwrap_or_default();
        let namespace = command.namespace();
        let route = self.table.route(&self.shards, &namespace).await?;
        let sharded = route.as_ref().filter(|route| route.map.is_some());
        let (mine, merge) = if let Some(route) = sharded {
            split_pipeline(&pipeline, route.shards().len())
        } else {
            (pipeline.clone(), Ok(Merge::Concatenate { order: None, skip: 0, limit: None }))
        };
        let is_of_shards = pipeline.first().is_some_and(|first| {
            ["$indexStats", "$listCatalog"].iter().any(|stage| value(first, stage).is_some())
        });
        let found = self
            .ask_targets(command, &filter, |several| {
                if is_of_shards {
                    // Shards then name themselves.
                    return Ok(command.with(&["fromMongos"], &rawdoc! { "fromMongos": true }));
                }
                if !several {
                    return Ok(command.clone());
                }
                if let Err(refusal) = &merge {
                    return Err(refusal.clone());
                }
                let mut added = RawDocumentBuf::new();
                append(
                    &mut added,
                    "pipeline",
                    &*super::wire::array_of(mine.iter().map(AsRef::as_ref)),
                );
                let mut cursor =
                    command.body.get_document("cursor").map(ToOwned::to_owned).unwrap_or_default();
                if number(&cursor, "batchSize") == Some(0) {
                    cursor = RawDocumentBuf::new();
                }
                append(&mut added, "cursor", &*cursor);
                Ok(command.with(&["pipeline", "cursor"], &added))
            })
            .await?;
        let merge = merge.unwrap_or(Merge::Concatenate { order: None, skip: 0, limit: None });
        self.answer_cursor(command, found, merge).await
    }

    /// A pipeline over no collection: what servers are doing, from all of them; anything else from
    /// the config server or a primary.
    pub(super) async fn aggregate_database(&self, command: &Command) -> Answer {
        let pipeline = documents_in(&command.body, "pipeline");
        if pipeline
            .first()
            .is_some_and(|first| first.get("$currentOp").is_ok_and(|stage| stage.is_some()))
        {
            let shards = self.shards.names().await?;
            let commands = shards
                .iter()
                .map(|shard| (shard.clone(), operations_of(command, &pipeline, shard)));
            let replies = self.shards.ask_each(commands.collect()).await?;
            let replies: Vec<_> = shards.into_iter().zip(replies).collect();
            if let Some((_, failed)) = replies.iter().find(|(_, reply)| !is_ok(reply)) {
                return Ok(failed.clone());
            }
            return self
                .first_batch(command, Merged::new(command, replies, None, 0, None), &[])
                .await;
        }
        let shard = match command.db() {
            "admin" => CONFIG.to_owned(),
            db => {
                self.table.route_or_create(&self.shards, &format!("{db}.")).await?.database.primary
            }
        };
        let reply = self.send(&shard, command.clone()).await?;
        Ok(self.keep_single(&shard, reply))
    }

    /// `count` and `distinct`: the sum, or the union, of what the shards answer.
    pub(super) async fn gather(&self, command: &Command) -> Answer {
        let filter = command.body.get_document("query").map(ToOwned::to_owned).unwrap_or_default();
        let is_count = command.name() == "count";
        let amount = |name| number(&command.body, name).unwrap_or(0);
        let (skip, limit) = (amount("skip"), amount("limit").abs());
        let found = self
            .ask_targets(command, &filter, |several| {
                if !several {
                    return Ok(command.clone());
                }
                let mut added = RawDocumentBuf::new();
                if limit > 0 {
                    append(&mut added, "limit", limit + skip);
                }
                Ok(command.with(&["skip", "limit"], &added))
            })
            .await?;
        let Some((_, replies)) = found else {
            return Ok(if is_count {
                rawdoc! { "n": 0, "ok": 1.0 }
            } else {
                rawdoc! { "values": [], "ok": 1.0 }
            });
        };
        let replies: Vec<RawDocumentBuf> = replies.into_iter().map(|(_, reply)| reply).collect();
        if let [only] = replies.as_slice() {
            return Ok(only.clone());
        }
        if let Some(failed) = replies.iter().find(|reply| !is_ok(reply)) {
            return Ok(failed.clone());
        }
        let mut reply = if is_count {
            let all: i64 = replies.iter().filter_map(|reply| number(reply, "n")).sum();
            let behind = (all - skip).max(0);
            rawdoc! { "n": if limit > 0 { behind.min(limit) } else { behind } }
        } else {
            let mut seen = Vec::new();
            for reply in &replies {
                let values = element::field(reply, "values")
                    .and_then(|field| field.document().map(ToOwned::to_owned));
                for item in values.unwrap_or_default().iter().flatten() {
                    let item: mongodb::bson::RawBson = item.1.into();
                    if !seen.contains(&item) {
                        seen.push(item);
                    }
                }
            }
            let mut values = RawArrayBuf::new();
            seen.into_iter().for_each(|item| values.push(item));
            rawdoc! { "values": values }
        };
        append(&mut reply, "ok", 1.0);
        append_times(&mut reply, &replies);
        Ok(reply)
    }

    pub(super) async fn list_collections(&self, command: &Command) -> Answer {
        for _ in 0..STALE_TRIES {
            let Some(database) = self.table.database(&self.shards, command.db()).await? else {
                let namespace = format!("{}.$cmd.listCollections", command.db());
                return Ok(rawdoc! {
                    "cursor": { "id": 0_i64, "ns": namespace, "firstBatch": [] }, "ok": 1.0,
                });
            };
            let versions = rawdoc! { "databaseVersion": database.version.clone() };
            let reply = self.send(&database.primary, command.with(&[], &versions)).await?;
            if !is_stale(&reply) {
                return Ok(self.keep_single(&database.primary, reply));
            }
        }
        Err(Refusal::new(
            249,
            "StaleDbVersion",
            format!("the database {} keeps moving", command.db()),
        ))
    }

    pub(super) async fn list_indexes(&self, command: &Command) -> Answer {
        let namespace = command.namespace();
        for _ in 0..STALE_TRIES {
            let Some(route) = self.table.route(&self.shards, &namespace).await? else {
                return Err(Refusal::new(
                    26,
                    "NamespaceNotFound",
                    format!("ns does not exist: {namespace}"),
                ));
            };
            let shard = match &route.map {
                Some(map) => {
                    map.chunks().first().map(|chunk| chunk.shard.clone()).unwrap_or_default()
                }
                None => route.database.primary.clone(),
            };
            let reply = self.send(&shard, command.with(&[], &route.versions(&shard))).await?;
            if !is_stale(&reply) {
                return Ok(self.keep_single(&shard, reply));
            }
            self.table.forget(&namespace);
        }
        Err(Refusal::new(13388, "StaleConfig", format!("the chunks of {namespace} keep changing")))
    }
}

/// A stale route in a transaction ends it: the client begins anew.
pub(super) fn transient(reply: &RawDocument) -> Refusal {
    let mut refusal = Refusal::new(
        13388,
        "StaleConfig",
        reply.get_str("errmsg").unwrap_or("the route is stale").to_owned(),
    );
    refusal.labels.push("TransientTransactionError");
    refusal
}

/// `$currentOp` on a shard, whose operations have numbers of its own: they are reported with the
/// shard's name before them, which `killOp` takes.
fn operations_of(command: &Command, pipeline: &[RawDocumentBuf], shard: &str) -> Command {
    let named =
        rawdoc! { "$concat": [{ "$literal": format!("{shard}:") }, { "$toString": "$opid" }] };
    let own = rawdoc! { "$set": { "shard": { "$literal": shard }, "opid": named } };
    let mut stages: Vec<RawDocumentBuf> = pipeline.to_vec();
    stages.insert(1, own);
    let mut added = RawDocumentBuf::new();
    append(&mut added, "pipeline", &*super::wire::array_of(stages.iter().map(AsRef::as_ref)));
    command.with(&["pipeline"], &added)
}

/// What each shard runs, and what is done with its answers.
fn split_pipeline(
    pipeline: &[RawDocumentBuf],
    shards: usize,
) -> (Vec<RawDocumentBuf>, Result<Merge, Refusal>) {
    let mut mine = Vec::new();
    let (mut order, mut skip, mut limit) = (None, 0_u64, None);
    for (place, stage) in pipeline.iter().enumerate() {
        let name = stage
            .iter()
            .flatten()
            .next()
            .map(|(name, _)| name.as_str().to_owned())
            .unwrap_or_default();
        let is_last = place + 1 == pipeline.len();
        let amount = || number(stage, &name).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let is_first_of_end = order.is_none() && skip == 0 && limit.is_none();
        match name.as_str() {
            name if PER_DOCUMENT.contains(&name) && is_first_of_end => mine.push(stage.clone()),
            "$sort" if is_first_of_end => {
                let sort = stage.get_document("$sort").map(ToOwned::to_owned).unwrap_or_default();
                mine.push(stage.clone());
                let mut key = RawDocumentBuf::new();
                append(&mut key, PIPELINE_SORT_KEY, &*rawdoc! { "$meta": "sortKey" });
                mine.push(rawdoc! { "$addFields": key });
                order = Some((PIPELINE_SORT_KEY.to_owned(), directions(&sort)));
            }
            "$skip" if skip == 0 && limit.is_none() => skip = amount(),
            "$limit" if limit.is_none() => {
                limit = Some(amount());
                mine.push(rawdoc! { "$limit": i64::try_from(skip + amount()).unwrap_or(i64::MAX) });
            }
            // Each shard draws its share: fair where they hold about as much.
            "$sample" if is_first_of_end => {
                let size = stage
                    .get_document("$sample")
                    .ok()
                    .and_then(|sample| number(sample, "size"))
                    .unwrap_or(0);
                let share = (size + shards as i64 - 1) / shards.max(1) as i64;
                mine.push(rawdoc! { "$sample": { "size": share } });
            }
            "$count" if is_last && is_first_of_end => {
                mine.push(stage.clone());
                return (mine, Ok(Merge::Sum { id: String::new() }));
            }
            "$group" if is_last && is_first_of_end && groups_sums(stage) => {
                mine.push(stage.clone());
                return (mine, Ok(Merge::Sum { id: "_id".to_owned() }));
            }
            _ => {
                return (
                    mine,
                    Err(Refusal::unsupported(format!("{name} here over several shards"))),
                );
            }
        }
    }
    (mine, Ok(Merge::Concatenate { order, skip, limit }))
}

fn groups_sums(stage: &RawDocument) -> bool {
    let Ok(group) = stage.get_document("$group") else { return false };
    group.iter().flatten().filter(|(name, _)| name.as_str() != "_id").all(|(_, accumulator)| {
        accumulator.as_document().is_some_and(|accumulator| value(accumulator, "$sum").is_some())
    })
}

/// Adds up the numbers of documents whose field `id` is the same; of all, where that is no field's
/// name.
fn sums(documents: Vec<RawDocumentBuf>, id: &str) -> Result<Vec<RawDocumentBuf>, Refusal> {
    let mut groups: BTreeMap<Vec<u8>, Vec<(String, f64)>> = BTreeMap::new();
    let mut ids: BTreeMap<Vec<u8>, RawDocumentBuf> = BTreeMap::new();
    for document in documents {
        let key = element::field(&document, id)
            .map(|field| [&[field.kind], field.value].concat())
            .unwrap_or_default();
        if let Some(own) = element::id_of(&document).filter(|_| !id.is_empty()) {
            ids.insert(key.clone(), own);
        }
        let group = groups.entry(key).or_default();
        for (name, number) in document.iter().flatten().filter(|(name, _)| name.as_str() != id) {
            let number = match number {
                RawBsonRef::Int32(n) => f64::from(n),
                RawBsonRef::Int64(n) => n as f64,
                RawBsonRef::Double(n) => n,
                _ => return Err(Refusal::unsupported("sums of anything but numbers")),
            };
            match group.iter_mut().find(|(known, _)| known == name.as_str()) {
                Some((_, sum)) => *sum += number,
                None => group.push((name.as_str().to_owned(), number)),
            }
        }
    }
    let whole = |sum: f64| sum.fract() == 0.0 && sum.abs() < 9e15;
    Ok(groups
        .into_iter()
        .map(|(key, fields)| {
            let mut document = ids.remove(&key).unwrap_or_default();
            for (name, sum) in fields {
                if whole(sum) {
                    command::append(&mut document, &name, sum as i64);
                } else {
                    command::append(&mut document, &name, sum);
                }
            }
            document
        })
        .collect())
}
