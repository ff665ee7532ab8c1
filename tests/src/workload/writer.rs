//! An application at work: several workers that change the data at a steady rate, until they are
//! stopped or locked out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::operations::{Data, Hand};

/// What a server answers whose writes are blocked.
const USER_WRITES_BLOCKED: i32 = 371;
/// What two writers of one document, or of one unique value, may get: DuplicateKey, WriteConflict.
const CONFLICTS: [i32; 2] = [11_000, 112];
/// Errors in a row, of a server that is away or being elected, before a worker gives up.
const PATIENCE: u32 = 600;
/// How often a worker tries again after an error.
const RETRY: Duration = Duration::from_millis(20);

/// How the application works.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// The seed of everything random. Two writers on one deployment need two seeds.
    pub seed: u64,
    /// Operations a second, all workers together.
    pub rate: u32,
    /// Workers at once.
    pub workers: u32,
    /// Transactions among the operations.
    pub transactions: bool,
    /// Collections and indexes created, renamed and dropped among the operations, by the first
    /// worker.
    pub ddl: bool,
    /// Where the workers go once they are locked out; `None`: they stop.
    pub then: Option<Client>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { seed: 1, rate: 200, workers: 4, transactions: true, ddl: false, then: None }
    }
}

/// A note that a worker left in `app.ledger` and that the server acknowledged with the write
/// concern `majority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerEntry {
    /// The writer's seed.
    pub seed: u64,
    /// The worker.
    pub worker: u32,
    /// The number of its note.
    pub number: u64,
}

impl LedgerEntry {
    /// Its `_id` in `app.ledger`.
    #[must_use]
    pub fn id(self) -> String {
        format!("{}-{}-{}", self.seed, self.worker, self.number)
    }
}

/// What the workers did.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Operations that the server acknowledged.
    pub operations: u64,
    /// The same, by their kinds.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Operations that lost against another: they changed nothing.
    pub conflicts: u64,
    /// Operations that failed while a server was away.
    pub errors: u64,
    /// Every acknowledged note in the ledger, wherever it was written.
    pub ledger: Vec<LedgerEntry>,
    /// When the first write was refused because writes are blocked.
    pub blocked_at: Option<Instant>,
    /// When the last write before that was acknowledged.
    pub last_before_block: Option<Instant>,
    /// When the first write was acknowledged where the workers went then.
    pub first_after_block: Option<Instant>,
}

impl Stats {
    /// How long no write was taken, as the application saw it.
    #[must_use]
    pub fn downtime(&self) -> Option<Duration> {
        Some(self.first_after_block?.saturating_duration_since(self.last_before_block?))
    }

    /// The acknowledged notes that a deployment does not have.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn missing_from(&self, client: &Client) -> Result<Vec<LedgerEntry>> {
        let ledger = client.database("app").collection::<Document>("ledger");
        let found: Vec<Document> =
            ledger.find(doc! {}).projection(doc! { "_id": 1 }).await?.try_collect().await?;
        let found: BTreeSet<&str> =
            found.iter().filter_map(|entry| entry.get_str("_id").ok()).collect();
        Ok(self
            .ledger
            .iter()
            .copied()
            .filter(|entry| !found.contains(entry.id().as_str()))
            .collect())
    }

    fn add(&mut self, other: Self) {
        let earliest = |a: Option<Instant>, b: Option<Instant>| a.into_iter().chain(b).min();
        self.operations += other.operations;
        for (kind, count) in other.by_kind {
            *self.by_kind.entry(kind).or_default() += count;
        }
        self.conflicts += other.conflicts;
        self.errors += other.errors;
        self.ledger.extend(other.ledger);
        self.blocked_at = earliest(self.blocked_at, other.blocked_at);
        self.last_before_block = self.last_before_block.max(other.last_before_block);
        self.first_after_block = earliest(self.first_after_block, other.first_after_block);
    }
}

/// The application. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Writer {
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<Result<Stats>>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    operations: AtomicU64,
    blocked: watch::Sender<bool>,
    failure: Mutex<Option<String>>,
}

impl Writer {
    /// Starts the workers on data that [`super::fill()`] has laid.
    ///
    /// # Errors
    /// When the data cannot be counted.
    pub async fn start(client: &Client, options: WriterOptions) -> Result<Self> {
        let data = Data::survey(client).await.context("failed to survey the data")?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let workers = (0..options.workers.max(1))
            .map(|number| {
                let hand = Hand::new(
                    number,
                    &options,
                    data,
                    StdRng::seed_from_u64(options.seed.rotate_left(17) ^ u64::from(number)),
                );
                let worker = Worker {
                    hand,
                    options: options.clone(),
                    shared: Arc::clone(&shared),
                    stats: Stats::default(),
                };
                tokio::spawn(worker.run(client.clone(), stopped.clone()))
            })
            .collect();
        Ok(Self { stop, workers, shared })
    }

    /// Operations acknowledged so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.operations.load(Ordering::Relaxed)
    }

    /// Whether a worker was locked out.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        *self.shared.blocked.borrow()
    }

    /// What a worker gave up on, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops the workers after the operations at hand, and says what they did.
    ///
    /// # Errors
    /// When a worker had given up on an error that is neither a conflict nor a server away.
    pub async fn stop(mut self) -> Result<Stats> {
        let _ = self.stop.send(true);
        let mut stats = Stats::default();
        for worker in self.workers.drain(..) {
            stats.add(worker.await.context("a worker panicked")??);
        }
        stats.ledger.sort_unstable();
        Ok(stats)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.abort();
        }
    }
}

struct Worker {
    hand: Hand,
    options: WriterOptions,
    shared: Arc<Shared>,
    stats: Stats,
}

impl Worker {
    async fn run(mut self, client: Client, stopped: watch::Receiver<bool>) -> Result<Stats> {
        let outcome = self.work(client, stopped).await;
        if let Err(error) = &outcome {
            *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("{error:#}"));
        }
        outcome.map(|()| self.stats)
    }

    async fn work(&mut self, mut client: Client, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let period =
            Duration::from_secs(1) * self.options.workers.max(1) / self.options.rate.max(1);
        let mut ticks = tokio::time::interval(period);
        // The rate holds over seconds: a slow operation is made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut errors_in_a_row = 0;
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                _ = ticks.tick() => {}
            }
            match self.hand.operate(&client).await {
                Ok(done) => {
                    errors_in_a_row = 0;
                    self.stats.operations += 1;
                    *self.stats.by_kind.entry(done.kind).or_default() += 1;
                    self.stats.ledger.extend(done.note);
                    self.shared.operations.fetch_add(1, Ordering::Relaxed);
                    if self.stats.blocked_at.is_none() {
                        self.stats.last_before_block = Some(Instant::now());
                    }
                }
                Err(error) if code(&error) == Some(USER_WRITES_BLOCKED) => {
                    self.stats.blocked_at.get_or_insert_with(Instant::now);
                    self.shared.blocked.send_replace(true);
                    let Some(next) = self.options.then.take() else { return Ok(()) };
                    client = next;
                    if !self.wait_until_accepted(&client, &mut stopped).await {
                        return Ok(());
                    }
                    ticks.reset();
                }
                Err(error) if is_conflict(&error) => self.stats.conflicts += 1,
                Err(error) if is_passing(&error) => {
                    self.stats.errors += 1;
                    errors_in_a_row += 1;
                    if errors_in_a_row > PATIENCE {
                        bail!("the server is away for too long: {error}");
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error).context("a worker's operation failed"),
            }
        }
    }

    /// Whether the next deployment took a write before the worker was stopped.
    async fn wait_until_accepted(
        &mut self,
        client: &Client,
        stopped: &mut watch::Receiver<bool>,
    ) -> bool {
        loop {
            if *stopped.borrow() {
                return false;
            }
            if let Ok(note) = self.hand.note(client).await {
                self.stats.first_after_block = Some(Instant::now());
                self.stats.ledger.extend(note);
                return true;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        ErrorKind::InsertMany(errors) => {
            errors.write_errors.as_ref()?.first().map(|error| error.code)
        }
        _ => None,
    }
}

fn is_conflict(error: &Error) -> bool {
    code(error).is_some_and(|code| CONFLICTS.contains(&code))
        || error.contains_label("TransientTransactionError")
}

/// Whether the server was away, stepping down or being elected.
fn is_passing(error: &Error) -> bool {
    /// NotWritablePrimary, InterruptedAtShutdown, InterruptedDueToReplStateChange,
    /// NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary, PrimarySteppedDown, ShutdownInProgress,
    /// HostUnreachable, NetworkTimeout, NoSuchTransaction, IndexBuildAborted.
    const CODES: [i32; 11] = [10_107, 11_600, 11_602, 13_435, 13_436, 189, 91, 6, 89, 251, 276];
    let away = matches!(
        error.kind.as_ref(),
        ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::ServerSelection { .. }
    );
    away || error.contains_label("RetryableWriteError")
        || code(error).is_some_and(|code| CODES.contains(&code))
}
