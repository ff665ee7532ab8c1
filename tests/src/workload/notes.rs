//! A small application: leaves numbered notes in one collection, one after the other, and knows
//! which were acknowledged.
//!
//! Unlike [`super::Writer`] it needs no data to work on, so that several can write to databases of
//! their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::WriteConcern;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a server answers whose writes are blocked.
const USER_WRITES_BLOCKED: i32 = 371;
/// Between two notes, and between two tries while the server refuses.
const PAUSE: Duration = Duration::from_millis(5);

/// What the application does when the server refuses its writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenRefused {
    /// It ends.
    Stop,
    /// It tries again until the server takes them.
    TryAgain,
}

/// The application at work; it ends when it is dropped.
#[derive(Debug)]
pub struct Notes {
    db: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<BTreeSet<i64>>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

/// What was acknowledged.
#[derive(Debug, Clone)]
pub struct Noted {
    db: String,
    /// The numbers of the acknowledged notes.
    pub numbers: BTreeSet<i64>,
    /// How many were refused because writes are blocked.
    pub refused: u64,
}

impl Notes {
    /// Starts to write to `notes` in a database.
    #[must_use]
    pub fn start(client: &Client, db: &str, when_refused: WhenRefused) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let options = mongodb::options::CollectionOptions::builder()
            .write_concern(WriteConcern::majority())
            .build();
        let notes = client.database(db).collection_with_options::<Document>("notes", options);
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut acknowledged = BTreeSet::new();
            for number in 0.. {
                loop {
                    if *stopped.borrow() {
                        return Ok(acknowledged);
                    }
                    match notes
                        .insert_one(doc! { "_id": number, "text": format!("note {number}") })
                        .await
                    {
                        Ok(_) => {
                            acknowledged.insert(number);
                            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        Err(error) if is_refusal(&error) => {
                            shared.refused.fetch_add(1, Ordering::Relaxed);
                            if when_refused == WhenRefused::Stop {
                                return Ok(acknowledged);
                            }
                        }
                        Err(error) => bail!("a note was neither taken nor refused: {error}"),
                    }
                    let _ = tokio::time::timeout(PAUSE, stopped.changed()).await;
                }
                let _ = tokio::time::timeout(PAUSE, stopped.changed()).await;
            }
            Ok(acknowledged)
        });
        Self { db: db.to_owned(), stop, task, counts }
    }

    /// How many were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(Ordering::Relaxed)
    }

    /// How many were refused so far because writes are blocked.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::Relaxed)
    }

    /// Stops after the note at hand, and says what was acknowledged.
    ///
    /// # Errors
    /// When a note failed in another way than by a refusal.
    pub async fn stop(mut self) -> Result<Noted> {
        self.halt().await
    }

    /// As [`Self::stop`], and its counts can still be read. Only once.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn halt(&mut self) -> Result<Noted> {
        let _ = self.stop.send(true);
        let numbers = (&mut self.task).await.context("the application panicked")??;
        Ok(Noted { db: self.db.clone(), numbers, refused: self.refused() })
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Noted {
    /// The acknowledged notes that a deployment does not have.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn missing_from(&self, client: &Client) -> Result<Vec<i64>> {
        let notes = client.database(&self.db).collection::<Document>("notes");
        let found: Vec<Document> =
            notes.find(doc! {}).projection(doc! { "_id": 1 }).await?.try_collect().await?;
        let found: BTreeSet<i64> =
            found.iter().filter_map(|note| note.get_i64("_id").ok()).collect();
        Ok(self.numbers.difference(&found).copied().collect())
    }
}

fn is_refusal(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => error.code == USER_WRITES_BLOCKED,
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == USER_WRITES_BLOCKED,
        _ => false,
    }
}
