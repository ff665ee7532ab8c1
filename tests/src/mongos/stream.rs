//! Change streams over all shards as one, in the order of their resume tokens.
//!
//! Every shard's stream is read ahead by a task of its own. An event is told once every other shard
//! has reported up to its token, or beyond; a shard without writes reports that by its
//! `postBatchResumeToken`, which its own no-ops, or notes, move on. Tokens compare as text: their
//! `_data` is a key string in hexadecimal, which begins with the cluster time. A stream is resumed
//! on every shard at the token's time, and what is not behind the token is left out.
//!
//! Unlike a `mongos` it does not follow shards that join after it was opened.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admin::value;
use super::command::{Command, Refusal, append, code, documents_in, is_ok, joined, number, with};
use super::cursor::Open;
use super::{Answer, Router, wire};

/// How long a `getMore` waits for events where it names no time, as a server has it.
const AWAIT: Duration = Duration::from_secs(1);
/// How long a shard is asked to wait: so often one without events tells how far it has come. A
/// `mongos` hands on what its client says.
const SHARD_AWAIT_MS: i64 = 100;
/// A reply stays under the largest document.
const BATCH_BYTES: usize = 15 << 20;
const RESUMABLE: &str = "ResumableChangeStreamError";

/// What one shard reported.
type Told = Result<(Vec<RawDocumentBuf>, Option<String>, bool), Refusal>;

struct Lane {
    told: mpsc::Receiver<Told>,
    events: VecDeque<RawDocumentBuf>,
    /// Nothing at or before this token is still to come.
    frontier: String,
    is_over: bool,
}

/// A change stream that a client holds.
pub(super) struct ChangeStream {
    namespace: String,
    lanes: Vec<Lane>,
    /// Everything up to this has been told.
    passed: String,
}

fn token_of(event: &RawDocument) -> String {
    event.get_document("_id").and_then(|id| id.get_str("_data")).unwrap_or_default().to_owned()
}

/// The cluster time inside a token: a type byte, then seconds and ordinal, in hexadecimal.
fn time_of(token: &str) -> Option<Timestamp> {
    let part = |from: usize| u32::from_str_radix(token.get(from..from + 8)?, 16).ok();
    token.starts_with("82").then_some(Timestamp { time: part(2)?, increment: part(10)? })
}

/// Whether a token is that of an `invalidate` event: behind the time come its version, its type and
/// its place in a transaction, which it is in none of, then whether it is one.
fn is_end(token: &str) -> bool {
    token.get(18..32) == Some("2B022C0100296F")
}

/// Whether a pipeline is a change stream.
pub(super) fn is_stream(pipeline: &[RawDocumentBuf]) -> bool {
    pipeline.first().is_some_and(|first| value(first, "$changeStream").is_some())
}

/// The stream's options with another beginning.
fn beginning(command: &Command, pipeline: &[RawDocumentBuf], begin: &RawDocument) -> Command {
    let options = pipeline.first().and_then(|first| first.get_document("$changeStream").ok());
    let options = options.map(|options| {
        with(options, &["resumeAfter", "startAfter", "startAtOperationTime"], begin)
    });
    let mut stages = RawArrayBuf::new();
    stages.push(&*rawdoc! { "$changeStream": options.unwrap_or_default() });
    pipeline.iter().skip(1).for_each(|stage| stages.push(&**stage));
    let mut added = RawDocumentBuf::new();
    append(&mut added, "pipeline", &*stages);
    append(&mut added, "cursor", &*rawdoc! { "batchSize": 0 });
    // The shards' cursors are the router's own, in no session.
    command.with(&["pipeline", "cursor", "lsid", "maxTimeMS"], &added)
}

/// Follows a shard's cursor until nobody listens.
async fn follow(
    router: std::sync::Arc<Router>,
    shard: String,
    cursor: (i64, String),
    behind: String,
    told: mpsc::Sender<Told>,
) {
    let (id, namespace) = cursor;
    let (db, collection) = namespace.split_once('.').unwrap_or((&namespace, ""));
    loop {
        let more = rawdoc! {
            "getMore": id, "collection": collection, "maxTimeMS": SHARD_AWAIT_MS, "$db": db,
        };
        let more = Command::new(more);
        let asked = router.shards.ask(&shard, &more);
        let reply = tokio::select! {
            // Nobody listens any more.
            () = told.closed() => break,
            reply = asked => reply,
        };
        let batch = reply.and_then(|reply| read(&reply, &behind, "nextBatch"));
        let is_last = batch.as_ref().map_or(true, |(_, _, is_over)| *is_over);
        if told.send(batch).await.is_err() || is_last {
            break;
        }
    }
    router.kill_one(&shard, &namespace, id).await;
}

/// The events of a reply that are behind a token, the token up to which all is reported, and
/// whether the stream has ended.
fn read(reply: &RawDocumentBuf, behind: &str, field: &str) -> Told {
    if !is_ok(reply) {
        return Err(failure(reply));
    }
    let cursor = reply.get_document("cursor").map_err(|_| super::admin::missing("cursor"))?;
    let events = documents_in(cursor, field)
        .into_iter()
        .filter(|event| token_of(event).as_str() > behind)
        .collect();
    let token =
        cursor.get_document("postBatchResumeToken").and_then(|token| token.get_str("_data")).ok();
    Ok((events, token.map(str::to_owned), number(cursor, "id") == Some(0)))
}

fn failure(reply: &RawDocument) -> Refusal {
    let message = reply.get_str("errmsg").unwrap_or("a shard's change stream failed").to_owned();
    let mut refusal = Refusal::new(code(reply).unwrap_or(1), "OperationFailed", message);
    let labels = reply.get_array("errorLabels").into_iter().flatten().flatten();
    if labels.into_iter().any(|label| label.as_str() == Some(RESUMABLE)) {
        refusal.labels.push(RESUMABLE);
    }
    refusal
}

impl ChangeStream {
    fn take(&mut self, lane: usize, told: Told) -> Result<(), Refusal> {
        let (events, token, is_over) = told?;
        let lane = &mut self.lanes[lane];
        lane.events.extend(events);
        if let Some(last) = lane.events.back() {
            lane.frontier = token_of(last).max(std::mem::take(&mut lane.frontier));
        }
        lane.frontier = token.unwrap_or_default().max(std::mem::take(&mut lane.frontier));
        lane.is_over |= is_over;
        Ok(())
    }

    /// The next event that no shard can tell an earlier one of.
    fn next(&mut self) -> Option<RawDocumentBuf> {
        let with_any = self.lanes.iter().enumerate();
        let (place, token) = with_any
            .filter_map(|(place, lane)| lane.events.front().map(|event| (place, token_of(event))))
            .min_by(|a, b| a.1.cmp(&b.1))?;
        let is_next = self.lanes.iter().enumerate().all(|(other, lane)| {
            other == place || lane.is_over || !lane.events.is_empty() || lane.frontier >= token
        });
        if !is_next {
            return None;
        }
        self.passed = token;
        self.lanes[place].events.pop_front()
    }

    /// Whether every shard's stream has ended, and all of it was reported.
    fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_over && lane.events.is_empty())
    }

    /// Takes in what has been told already.
    fn drain(&mut self) -> Result<(), Refusal> {
        for lane in 0..self.lanes.len() {
            while self.lanes[lane].events.is_empty()
                && let Ok(told) = self.lanes[lane].told.try_recv()
            {
                self.take(lane, told)?;
            }
        }
        Ok(())
    }

    /// Waits until a shard of which nothing is here reports more.
    async fn wait(&mut self, until: Instant) -> Result<bool, Refusal> {
        let waiting = self
            .lanes
            .iter_mut()
            .enumerate()
            .filter(|(_, lane)| lane.events.is_empty() && !lane.is_over);
        let waiting: Vec<_> = waiting
            .map(|(place, lane)| async move { (place, lane.told.recv().await) }.boxed())
            .collect();
        if waiting.is_empty() {
            return Ok(false);
        }
        let told = tokio::time::timeout_at(until, select_all(waiting))
            .await
            .map(|((place, told), ..)| (place, told));
        match told {
            Ok((place, Some(told))) => self.take(place, told).map(|()| true),
            Ok((place, None)) => {
                self.lanes[place].is_over = true;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    /// The token up to which everything has been told.
    fn token(&mut self) -> &str {
        let idle = self
            .lanes
            .iter()
            .filter(|lane| lane.events.is_empty())
            .map(|lane| &lane.frontier)
            .min();
        let first = self
            .lanes
            .iter()
            .filter_map(|lane| lane.events.front())
            .map(|event| token_of(event))
            .min();
        if let Some(idle) = idle
            && first.is_none_or(|first| *idle < first)
            && *idle > self.passed
        {
            self.passed.clone_from(idle);
        }
        &self.passed
    }
}

impl Router {
    /// Opens a stream over every shard.
    pub(super) async fn open_stream(
        self: &std::sync::Arc<Self>,
        command: &Command,
        pipeline: &[RawDocumentBuf],
    ) -> Answer {
        let options = pipeline
            .first()
            .and_then(|first| first.get_document("$changeStream").ok())
            .ok_or_else(|| {
            Refusal::new(9, "FailedToParse", "$changeStream must take a nested object")
        })?;
        let shards = self.shards.names().await?;
        let token =
            ["resumeAfter", "startAfter"].iter().find_map(|name| options.get_document(name).ok());
        let behind =
            token.and_then(|token| token.get_str("_data").ok()).unwrap_or_default().to_owned();
        let begin = match (time_of(&behind), options.get_timestamp("startAtOperationTime")) {
            // Behind the end of a stream: what ended it would end it again.
            (Some(time), _) if is_end(&behind) => {
                Timestamp { time: time.time, increment: time.increment + 1 }
            }
            (Some(time), _) => time,
            (None, _) if token.is_some() => {
                return Err(Refusal::new(
                    260,
                    "InvalidResumeToken",
                    "the resume token is no token of a change stream",
                ));
            }
            (None, Ok(time)) => time,
            (None, Err(_)) => self.next_time().await?,
        };
        let at_time = beginning(command, pipeline, &rawdoc! { "startAtOperationTime": begin });
        let mut lanes = Vec::new();
        let mut namespace = String::new();
        for shard in shards {
            let reply = self.shards.ask(&shard, &at_time).await?;
            let (events, frontier, _) = read(&reply, &behind, "firstBatch")?;
            let cursor =
                reply.get_document("cursor").map_err(|_| super::admin::missing("cursor"))?;
            cursor.get_str("ns").unwrap_or_default().clone_into(&mut namespace);
            let (sender, told) = mpsc::channel(1);
            let id = number(cursor, "id").unwrap_or(0);
            if id != 0 {
                tokio::spawn(follow(
                    std::sync::Arc::clone(self),
                    shard,
                    (id, namespace.clone()),
                    behind.clone(),
                    sender,
                ));
            }
            lanes.push(Lane {
                told,
                events: events.into(),
                frontier: frontier.unwrap_or_default(),
                is_over: id == 0,
            });
        }
        let stream = ChangeStream { namespace, lanes, passed: behind };
        let asked =
            command.body.get_document("cursor").ok().and_then(|cursor| number(cursor, "batchSize"));
        let size = asked.and_then(|size| usize::try_from(size).ok()).unwrap_or(101);
        self.tell(stream, rand::random_range(1..i64::MAX), size, Duration::ZERO, "firstBatch").await
    }

    /// The time from which on nothing has happened yet.
    async fn next_time(&self) -> Result<Timestamp, Refusal> {
        let ping = Command::new(rawdoc! { "ping": 1, "$db": "admin" });
        let shards = self.shards.names().await?;
        let replies = self
            .shards
            .ask_each(shards.into_iter().map(|shard| (shard, ping.clone())).collect())
            .await?;
        let newest =
            replies.iter().filter_map(|reply| reply.get_timestamp("operationTime").ok()).max();
        let newest = newest.ok_or_else(|| super::admin::missing("operationTime"))?;
        Ok(Timestamp { time: newest.time, increment: newest.increment + 1 })
    }

    /// Answers a `getMore` of a stream.
    pub(super) async fn more_of_stream(
        &self,
        stream: ChangeStream,
        id: i64,
        command: &Command,
    ) -> Answer {
        let patience = number(&command.body, "maxTimeMS")
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis);
        let size = number(&command.body, "batchSize")
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| *size > 0);
        self.tell(stream, id, size.unwrap_or(usize::MAX), patience.unwrap_or(AWAIT), "nextBatch")
            .await
    }

    async fn tell(
        &self,
        mut stream: ChangeStream,
        id: i64,
        most: usize,
        patience: Duration,
        field: &str,
    ) -> Answer {
        let until = Instant::now() + patience;
        let mut batch = RawArrayBuf::new();
        let (mut count, mut is_ended) = (0, false);
        loop {
            stream.drain()?;
            is_ended |= stream.is_over();
            while count < most
                && batch.as_bytes().len() < BATCH_BYTES
                && !is_ended
                && let Some(event) = stream.next()
            {
                is_ended = event.get_str("operationType").is_ok_and(|kind| kind == "invalidate");
                batch.push(event);
                count += 1;
            }
            if count > 0
                || most == 0
                || is_ended
                || patience.is_zero()
                || !stream.wait(until).await?
            {
                break;
            }
        }
        // What is here of some shards may be told now that others have gone on: in the next batch.
        let mut cursor = RawDocumentBuf::new();
        append(&mut cursor, field, &*batch);
        append(&mut cursor, "id", if is_ended { 0 } else { id });
        append(&mut cursor, "ns", stream.namespace.as_str());
        let token = stream.token().to_owned();
        if !token.is_empty() {
            append(&mut cursor, "postBatchResumeToken", &*rawdoc! { "_data": token });
        }
        if !is_ended {
            Self::lock(&self.cursors).insert(id, Open::Stream(stream));
        }
        Ok(joined(&rawdoc! { "cursor": cursor }, &wire::fine()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::{ChangeStream, Lane, time_of};
    use mongodb::bson::{RawDocumentBuf, Timestamp, rawdoc};
    use tokio::sync::mpsc;

    fn event(token: &str) -> RawDocumentBuf {
        rawdoc! { "_id": { "_data": token } }
    }

    fn stream(lanes: usize) -> ChangeStream {
        let lane = |_| Lane {
            told: mpsc::channel(1).1,
            events: VecDeque::new(),
            frontier: String::new(),
            is_over: false,
        };
        ChangeStream {
            namespace: String::new(),
            lanes: (0..lanes).map(lane).collect(),
            passed: String::new(),
        }
    }

    fn tell(stream: &mut ChangeStream, lane: usize, events: &[&str], token: &str) {
        let events = events.iter().map(|token| event(token)).collect();
        stream.take(lane, Ok((events, Some(token.to_owned()), false))).expect("no refusal");
    }

    #[test]
    fn an_event_is_told_once_every_shard_has_told_that_far() {
        let mut stream = stream(2);
        tell(&mut stream, 0, &["82B", "82D"], "82E");
        assert_eq!(stream.next(), None);
        assert_eq!(stream.token(), "");
        tell(&mut stream, 1, &[], "82C");
        assert_eq!(stream.next(), Some(event("82B")));
        assert_eq!(stream.next(), None);
        assert_eq!(stream.token(), "82C");
        tell(&mut stream, 1, &["82CC"], "82CC");
        assert_eq!(stream.next(), Some(event("82CC")));
        assert_eq!(stream.next(), None);
        tell(&mut stream, 1, &[], "82F");
        assert_eq!(stream.next(), Some(event("82D")));
        assert_eq!(stream.token(), "82E");
    }

    #[test]
    fn a_token_holds_its_time() {
        assert_eq!(
            time_of("8265F0A1B2000000012B0229296E04"),
            Some(Timestamp { time: 0x65F0_A1B2, increment: 1 })
        );
        assert_eq!(time_of("81"), None);
    }
}
