//! Writes to a source: backlogs to be applied afterwards, and loads that go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use mongodb::Client;
use mongodb::bson::{RawArrayBuf, RawDocumentBuf, cstr, doc, rawdoc};

use crate::data::{self, Numbers};
use crate::options::Backlog;

/// The database that is written to.
pub(crate) const DB: &str = "tail";
/// The collection that is made after a backlog: who follows has applied everything before it.
pub(crate) const DONE: &str = "backlog_done";
/// Writes at once.
const WRITERS: u64 = 4;
/// Statements of one write.
const BATCH: u64 = 100;
/// Documents that are there before updates.
const BASE: u64 = 100_000;
/// Documents of the hot backlog.
const HOT: u64 = 10;

impl Backlog {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Inserts => "inserts",
            Self::Updates => "updates",
            Self::Deletes => "deletes",
            Self::Mixed => "mixed",
            Self::Spread => "spread",
            Self::Hot => "hot",
        }
    }

    const fn collections(self) -> u64 {
        match self {
            Self::Spread => 100,
            Self::Inserts | Self::Updates | Self::Deletes | Self::Mixed | Self::Hot => 1,
        }
    }

    /// Documents there before, over all collections.
    const fn base(self, events: u64) -> u64 {
        match self {
            Self::Deletes | Self::Mixed | Self::Spread if events > BASE => events,
            Self::Inserts
            | Self::Updates
            | Self::Deletes
            | Self::Mixed
            | Self::Spread
            | Self::Hot => BASE,
        }
    }

    /// Lays what is there before.
    pub(crate) async fn fill(self, client: &Client, events: u64) -> Result<()> {
        let each = i64::try_from(self.base(events) / self.collections())?;
        for number in 0..self.collections() {
            data::insert(client, DB, &collection(number), each, 5_000, data::small).await?;
        }
        Ok(())
    }

    /// Writes so many events, and what says that they were all.
    pub(crate) async fn write(self, client: &Client, events: u64) -> Result<()> {
        let batches = events.div_ceil(BATCH * WRITERS);
        let base = self.base(events);
        try_join_all((0..WRITERS).map(|writer| async move {
            let mut hand = Hand::new(self, writer, base);
            for _ in 0..batches {
                hand.write(client).await?;
            }
            anyhow::Ok(())
        }))
        .await?;
        client.database(DB).run_command(doc! { "create": DONE }).await?;
        Ok(())
    }
}

fn collection(number: u64) -> String {
    format!("c{number}")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Insert,
    Update,
    Delete,
}

/// One of several writers, each of which makes and removes documents of its own.
struct Hand {
    kind: Backlog,
    writer: u64,
    base: u64,
    /// Deletes what it inserted so many turns before, so that it can go on for ever; `None`: what
    /// was there before.
    deletes_behind: Option<u64>,
    turn: u64,
    numbers: Numbers,
}

impl Hand {
    fn new(kind: Backlog, writer: u64, base: u64) -> Self {
        Self {
            kind,
            writer,
            base,
            deletes_behind: None,
            turn: 0,
            numbers: Numbers::new(writer + 17),
        }
    }

    /// Writes one batch.
    async fn write(&mut self, client: &Client) -> Result<()> {
        let verb = match self.kind {
            Backlog::Inserts => Verb::Insert,
            Backlog::Updates | Backlog::Hot => Verb::Update,
            Backlog::Deletes => Verb::Delete,
            Backlog::Mixed | Backlog::Spread => {
                [Verb::Insert, Verb::Update, Verb::Delete][(self.turn % 3) as usize]
            }
        };
        let collections = self.kind.collections();
        let name = collection((self.turn + self.writer * 31) % collections);
        let each = self.base / collections;
        let mut statements = RawArrayBuf::new();
        for place in 0..BATCH {
            // What this writer makes and removes nobody else does.
            let nth = self.turn * BATCH + place;
            let own = nth * WRITERS + self.writer;
            match verb {
                Verb::Insert => {
                    statements
                        .push(&*data::small(i64::try_from(self.base + own)?, &mut self.numbers));
                }
                Verb::Update => {
                    let below = if self.kind == Backlog::Hot { HOT } else { each };
                    let id = i64::try_from(self.numbers.below(below))?;
                    let n = i64::try_from(nth)?;
                    statements.push(&*rawdoc! {
                        "q": { "_id": id }, "u": { "$set": { "n": n, "customer": n / 2 } },
                    });
                }
                Verb::Delete => {
                    let id = match self.deletes_behind {
                        None => own % each.max(1),
                        Some(turns) => {
                            self.base + (nth.saturating_sub(turns * BATCH)) * WRITERS + self.writer
                        }
                    };
                    statements.push(&*rawdoc! { "q": { "_id": i64::try_from(id)? }, "limit": 1 });
                }
            }
        }
        self.turn += 1;
        let (verb, list) = match verb {
            Verb::Insert => (cstr!("insert"), cstr!("documents")),
            Verb::Update => (cstr!("update"), cstr!("updates")),
            Verb::Delete => (cstr!("delete"), cstr!("deletes")),
        };
        let mut command = RawDocumentBuf::new();
        command.append(verb, name.as_str());
        command.append(cstr!("ordered"), false);
        command.append(cstr!("writeConcern"), rawdoc! { "w": 1 });
        command.append(list, statements);
        let reply = client.database(DB).run_raw_command(command).await?;
        ensure!(!reply.contains_key("writeErrors"), "a write to the source failed: {reply}");
        Ok(())
    }
}

/// A load that goes on until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    began: Instant,
    writers: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts to write in batches of 100, at most `rate` writes a second; `None`: as fast as the
    /// source takes them.
    pub(crate) fn start(client: &Client, rate: Option<u64>) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..WRITERS).map(|writer| {
            let (client, stop, written) = (client.clone(), Arc::clone(&stop), Arc::clone(&written));
            tokio::spawn(async move {
                // A multiple of three turns and two: an insertion's turn.
                let mut hand =
                    Hand { deletes_behind: Some(302), ..Hand::new(Backlog::Mixed, writer, BASE) };
                let mut pace = rate.map(|rate| {
                    tokio::time::interval(Duration::from_secs_f64(
                        (BATCH * WRITERS) as f64 / rate as f64,
                    ))
                });
                while !stop.load(Ordering::Relaxed) {
                    if let Some(pace) = &mut pace {
                        pace.tick().await;
                    }
                    hand.write(&client).await?;
                    written.fetch_add(BATCH, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Self { writers: writers.collect(), stop, written, began: Instant::now() }
    }

    /// Ends it; gives how many statements were written, and in which time.
    pub(crate) async fn stop(self, client: &Client) -> Result<(u64, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await??;
        }
        let took = self.began.elapsed();
        client.database(DB).run_command(doc! { "create": DONE }).await?;
        Ok((self.written.load(Ordering::Relaxed), took))
    }
}

/// Waits until who follows has made [`DONE`] on the destination.
pub(crate) async fn wait_until_done(destination: &Client) -> Result<()> {
    while !destination.database(DB).list_collection_names().await?.iter().any(|name| name == DONE) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
