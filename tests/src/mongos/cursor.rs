//! Cursors over several shards as one, in the order of a sort key where there is one.

use std::cmp::Ordering;
use std::collections::VecDeque;

use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use placement::{element, order};

use super::admin::value;
use super::command::{
    self, Command, Refusal, append, append_times, documents_in, is_ok, joined, number,
};
use super::shards::CONFIG;
use super::stream::ChangeStream;
use super::{Answer, Router};

/// The field in which shards report a document's sort key; only they may name a field so.
pub(super) const SORT_KEY: &str = "$sortKey";
/// Documents of a first batch where none is asked for, as a server has it.
const FIRST_BATCH: usize = 101;
/// A reply stays under the largest document.
const BATCH_BYTES: usize = 15 << 20;

/// A cursor that clients hold.
pub(super) enum Open {
    /// A shard's own: what comes for it goes there.
    Single(String),
    /// Several, read as one.
    Merged(Merged),
    /// A change stream.
    Stream(ChangeStream),
}

struct Stream {
    shard: String,
    id: i64,
    buffer: VecDeque<RawDocumentBuf>,
}

/// Several shards' cursors, read as one.
pub(super) struct Merged {
    namespace: String,
    /// The fields of the client's session, which a shard's cursor belongs to.
    session: RawDocumentBuf,
    streams: Vec<Stream>,
    /// The field with the sort key and, for each of its values, whether it descends.
    order: Option<(String, Vec<bool>)>,
    skip: u64,
    left: Option<u64>,
}

impl Merged {
    /// Opens one over the replies of shards.
    pub(super) fn new(
        command: &Command,
        replies: Vec<(String, RawDocumentBuf)>,
        order: Option<(String, Vec<bool>)>,
        skip: u64,
        left: Option<u64>,
    ) -> Self {
        let mut session = RawDocumentBuf::new();
        for name in ["lsid", "txnNumber", "autocommit"] {
            if let Some(field) = value(&command.body, name) {
                append(&mut session, name, field);
            }
        }
        let mut namespace = command.namespace();
        let streams = replies.into_iter().filter_map(|(shard, reply)| {
            let cursor = reply.get_document("cursor").ok()?;
            if let Ok(own) = cursor.get_str("ns") {
                own.clone_into(&mut namespace);
            }
            Some(Stream {
                shard,
                id: number(cursor, "id").unwrap_or(0),
                buffer: documents_in(cursor, "firstBatch").into(),
            })
        });
        let streams = streams.collect();
        Self { namespace, session, streams, order, skip, left }
    }

    /// One over documents that are here already.
    pub(super) fn of_documents(command: &Command, documents: Vec<RawDocumentBuf>) -> Self {
        let mut merged = Self::new(command, Vec::new(), None, 0, None);
        merged.streams.push(Stream { shard: CONFIG.to_owned(), id: 0, buffer: documents.into() });
        merged
    }

    async fn fill(&mut self, router: &Router) -> Result<(), Refusal> {
        let needs_all = self.order.is_some();
        let is_waiting = self.streams.iter().all(|stream| stream.buffer.is_empty());
        for stream in &mut self.streams {
            if !stream.buffer.is_empty() || stream.id == 0 || !(needs_all || is_waiting) {
                continue;
            }
            let (db, collection) = self.namespace.split_once('.').unwrap_or((&self.namespace, ""));
            let more = rawdoc! { "getMore": stream.id, "collection": collection, "$db": db };
            let reply =
                router.send(&stream.shard, Command::new(joined(&more, &self.session))).await?;
            if !is_ok(&reply) {
                let message = reply.get_str("errmsg").unwrap_or_default().to_owned();
                return Err(Refusal::new(
                    command::code(&reply).unwrap_or(1),
                    "OperationFailed",
                    message,
                ));
            }
            let cursor =
                reply.get_document("cursor").map_err(|_| super::admin::missing("cursor"))?;
            stream.id = number(cursor, "id").unwrap_or(0);
            stream.buffer = documents_in(cursor, "nextBatch").into();
        }
        Ok(())
    }

    fn lowest(&self) -> Option<usize> {
        let with_any =
            self.streams.iter().enumerate().filter(|(_, stream)| !stream.buffer.is_empty());
        match &self.order {
            None => with_any.map(|(place, _)| place).next(),
            Some((field, descending)) => with_any
                .min_by(|(_, a), (_, b)| {
                    compare_keys(&a.buffer[0], &b.buffer[0], field, descending)
                })
                .map(|(place, _)| place),
        }
    }

    pub(super) async fn next(
        &mut self,
        router: &Router,
    ) -> Result<Option<RawDocumentBuf>, Refusal> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            while self.streams.iter().any(|stream| stream.buffer.is_empty() && stream.id != 0)
                && (self.order.is_some()
                    || self.streams.iter().all(|stream| stream.buffer.is_empty()))
            {
                self.fill(router).await?;
            }
            let Some(place) = self.lowest() else { return Ok(None) };
            let Some(document) = self.streams[place].buffer.pop_front() else { return Ok(None) };
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.left = self.left.map(|left| left - 1);
            return Ok(Some(match &self.order {
                Some((field, _)) => command::with(&document, &[field], &rawdoc! {}),
                None => document,
            }));
        }
    }

    fn is_over(&self) -> bool {
        self.left == Some(0)
            || self.streams.iter().all(|stream| stream.buffer.is_empty() && stream.id == 0)
    }
}

fn compare_keys(a: &RawDocument, b: &RawDocument, field: &str, descending: &[bool]) -> Ordering {
    let key = |of: &RawDocument| {
        element::field(of, field)
            .and_then(|key| key.document().map(ToOwned::to_owned))
            .unwrap_or_default()
    };
    let (a, b) = (key(a), key(b));
    for ((a, b), descending) in element::elements(&a).zip(element::elements(&b)).zip(descending) {
        let order = order::compare(&a, &b);
        if order.is_ne() {
            return if *descending { order.reverse() } else { order };
        }
    }
    Ordering::Equal
}

impl Router {
    /// Answers with a shard's reply and remembers whose cursor it is.
    pub(super) fn keep_single(&self, shard: &str, reply: RawDocumentBuf) -> RawDocumentBuf {
        if let Ok(cursor) = reply.get_document("cursor")
            && let Some(id) = number(cursor, "id").filter(|id| *id != 0)
        {
            Self::lock(&self.cursors).insert(id, Open::Single(shard.to_owned()));
        }
        reply
    }

    /// Answers with a batch of a merged cursor, and keeps it where more is to come.
    pub(super) async fn batch(
        &self,
        mut merged: Merged,
        size: Option<i64>,
        field: &str,
        id: i64,
        is_last: bool,
    ) -> Answer {
        let most = match (field, size) {
            (_, Some(size)) if size > 0 || field == "firstBatch" => {
                usize::try_from(size).unwrap_or(0)
            }
            ("firstBatch", _) => FIRST_BATCH,
            _ => usize::MAX,
        };
        let mut batch = RawArrayBuf::new();
        let mut count = 0;
        while count < most && batch.as_bytes().len() < BATCH_BYTES {
            match merged.next(self).await? {
                Some(document) => batch.push(document),
                None => break,
            }
            count += 1;
        }
        let is_over = merged.is_over() || is_last;
        let mut cursor = RawDocumentBuf::new();
        append(&mut cursor, field, &*batch);
        append(&mut cursor, "id", if is_over { 0 } else { id });
        append(&mut cursor, "ns", merged.namespace.as_str());
        let reply = rawdoc! { "cursor": cursor, "ok": 1.0 };
        if is_over {
            self.kill(&merged).await;
        } else {
            Self::lock(&self.cursors).insert(id, Open::Merged(merged));
        }
        Ok(reply)
    }

    /// Opens a merged cursor and answers with its first batch.
    pub(super) async fn first_batch(
        &self,
        command: &Command,
        merged: Merged,
        times: &[RawDocumentBuf],
    ) -> Answer {
        let asked =
            command.body.get_document("cursor").ok().and_then(|cursor| number(cursor, "batchSize"));
        let size = asked.or_else(|| number(&command.body, "batchSize"));
        let is_last = command.body.get_bool("singleBatch").unwrap_or(false);
        let id = rand::random_range(1..i64::MAX);
        let mut reply = self.batch(merged, size, "firstBatch", id, is_last).await?;
        append_times(&mut reply, times);
        Ok(reply)
    }

    pub(super) async fn get_more(&self, command: &Command) -> Answer {
        let id = number(&command.body, "getMore").unwrap_or(0);
        let open = Self::lock(&self.cursors).remove(&id);
        match open {
            Some(Open::Single(shard)) => {
                let reply = self.send(&shard, command.clone()).await?;
                Ok(self.keep_single(&shard, reply))
            }
            Some(Open::Merged(merged)) => {
                self.batch(merged, number(&command.body, "batchSize"), "nextBatch", id, false).await
            }
            Some(Open::Stream(stream)) => self.more_of_stream(stream, id, command).await,
            None if matches!(command.db(), "admin" | "config") => {
                self.shards.ask(CONFIG, command).await
            }
            None => Err(Refusal::new(43, "CursorNotFound", format!("cursor id {id} not found"))),
        }
    }

    pub(super) async fn kill_cursors(&self, command: &Command) -> Answer {
        let ids = element::field(&command.body, "cursors")
            .and_then(|field| field.document().map(ToOwned::to_owned));
        let ids: Vec<i64> =
            ids.unwrap_or_default().iter().flatten().filter_map(|(_, id)| id.as_i64()).collect();
        let mut killed = RawArrayBuf::new();
        for id in ids {
            let open = Self::lock(&self.cursors).remove(&id);
            match open {
                Some(Open::Single(shard)) => self.kill_one(&shard, &command.namespace(), id).await,
                Some(Open::Merged(merged)) => self.kill(&merged).await,
                // Its tasks notice, and end the shards' cursors.
                Some(Open::Stream(_)) => {}
                None => self.kill_one(CONFIG, &command.namespace(), id).await,
            }
            killed.push(id);
        }
        let none = RawArrayBuf::new;
        Ok(rawdoc! {
            "cursorsKilled": killed, "cursorsNotFound": none(), "cursorsAlive": none(),
            "cursorsUnknown": none(), "ok": 1.0,
        })
    }

    async fn kill(&self, merged: &Merged) {
        for stream in merged.streams.iter().filter(|stream| stream.id != 0) {
            self.kill_one(&stream.shard, &merged.namespace, stream.id).await;
        }
    }

    pub(super) async fn kill_one(&self, shard: &str, namespace: &str, id: i64) {
        let (db, collection) = namespace.split_once('.').unwrap_or((namespace, ""));
        let kill = rawdoc! { "killCursors": collection, "cursors": [id], "$db": db };
        // A cursor that cannot be reached ends by itself.
        let _ = self.shards.ask(shard, &Command::new(kill)).await;
    }
}
