//! What a verification remembers: the scan's parts, the queue of documents to compare again, the
//! open mismatches. On disk, so that its memory does not grow with them.

pub mod foreign_writes;
pub mod parts;
pub mod tally;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mongodb::bson::RawDocumentBuf;
use rusqlite::{Connection, params};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;
use schemas::observed::{Mismatch, MismatchKind};

use crate::sqlite;
use crate::state_fault::{self, Cause};
use tally::{Tallies, Tally};

/// The version of the tables; another one is refused.
const FORMAT: i64 = 2;
/// What it lacks are tables, which are made where they are missing.
const READABLE: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS flag (name TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS part (
    ns TEXT NOT NULL, number INTEGER NOT NULL, min BLOB, max BLOB, done INTEGER NOT NULL DEFAULT 0,
    documents INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (ns, number)
) STRICT;
CREATE TABLE IF NOT EXISTS queue (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, ns TEXT NOT NULL, id BLOB NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS queue_key ON queue (ns, id);
CREATE TABLE IF NOT EXISTS mismatch (
    ns TEXT NOT NULL, id BLOB NOT NULL, kind TEXT NOT NULL, paths TEXT NOT NULL,
    PRIMARY KEY (ns, id)
) STRICT;
CREATE TABLE IF NOT EXISTS tally (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS watch (
    one INTEGER PRIMARY KEY CHECK (one = 1), token BLOB, t INTEGER NOT NULL, i INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS foreign_write (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, ns TEXT NOT NULL, id BLOB, operation TEXT NOT NULL,
    t INTEGER NOT NULL, i INTEGER NOT NULL, open INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS foreign_write_key ON foreign_write (ns, id);
";

/// A document to compare again.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Its place in the queue: another one once it has changed again.
    pub seq: i64,
    /// Where it is.
    pub namespace: Namespace,
    /// A document `{_id: …}`.
    pub id: RawDocumentBuf,
    /// Exact comparisons that it has failed in a row.
    pub failures: u32,
}

/// How a comparison failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// In what way.
    pub kind: MismatchKind,
    /// The paths that differ.
    pub paths: Vec<String>,
    /// Whether it is a mismatch now.
    pub is_open: bool,
}

/// Sums over what is stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Documents in parts that stand compared.
    pub verified: u64,
    /// Documents that wait to be compared again.
    pub pending: u64,
    /// Open mismatches.
    pub mismatches: u64,
    /// Documents of the source among them: those that the destination has otherwise or not at all.
    pub unequal: u64,
    /// What has been done.
    pub tallies: Tallies,
}

/// The file.
#[derive(Debug, Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
}

fn failed(error: &rusqlite::Error) -> Fault {
    state_fault::of_sqlite("the run's verification", error)
}

/// Runs work that blocks off the async threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Fault::new(FaultCode::Internal, format!("a verification's task: {error}"))
    })?
}

impl Store {
    /// Opens the file in this folder, and makes it where it is not there.
    pub fn open(run_dir: &Path) -> Result<Self, Fault> {
        let path = run_dir.join("verification.db");
        let what = || format!("the verification in {}", path.display());
        let unusable = |error: rusqlite::Error| state_fault::of_sqlite(what(), &error);
        std::fs::create_dir_all(run_dir).map_err(|error| state_fault::of_io(what(), &error))?;
        let open = || -> rusqlite::Result<Connection> {
            // What a power cut takes back is compared again: the tail's own checkpoint is older
            // then, or as old.
            let connection = sqlite::open(&path, "normal")?;
            connection.execute_batch(TABLES)?;
            Ok(connection)
        };
        let connection = open().map_err(unusable)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(unusable)?;
        match version {
            0 => connection.pragma_update(None, "user_version", FORMAT).map_err(unusable)?,
            FORMAT => {}
            READABLE => connection.pragma_update(None, "user_version", FORMAT).map_err(unusable)?,
            other => {
                let message = format!(
                    "{}: format {other} was written by another version of cutoverd",
                    what()
                );
                return Err(Cause::OtherVersion.fault(message));
            }
        }
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| state_fault::of_io(what(), &error))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    fn now<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(|error| failed(&error))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let store = self.clone();
        blocking(move || store.now(work)).await
    }

    /// Whether changes are queued.
    pub fn is_tracking(&self) -> Result<bool, Fault> {
        self.now(|c| {
            c.query_row("SELECT count(*) FROM flag WHERE name = 'tracking'", [], |row| {
                row.get::<_, i64>(0)
            })
        })
        .map(|count| count > 0)
    }

    /// Stores that changes are queued from now on.
    pub async fn set_tracking(&self) -> Result<(), Fault> {
        self.with(|c| {
            c.execute("INSERT OR IGNORE INTO flag (name) VALUES ('tracking')", []).map(drop)
        })
        .await
    }

    /// Sums over what is stored.
    pub fn counts(&self) -> Result<Counts, Fault> {
        self.now(|c| {
            c.query_row(
                "SELECT (SELECT coalesce(sum(documents), 0) FROM part), (SELECT count(*) FROM \
                 queue), (SELECT count(*) FROM mismatch), (SELECT count(*) FROM mismatch WHERE \
                 kind IN (?1, ?2))",
                [MismatchKind::Different.as_str(), MismatchKind::Missing.as_str()],
                |row| {
                    let tallies = Tallies::default();
                    let (verified, pending) = (row.get(0)?, row.get(1)?);
                    Ok(Counts {
                        verified,
                        pending,
                        mismatches: row.get(2)?,
                        unequal: row.get(3)?,
                        tallies,
                    })
                },
            )
            .and_then(|counts| Ok(Counts { tallies: tally::read(c)?, ..counts }))
        })
    }

    /// Queues documents; one that is there already gets a new place.
    pub async fn queue(&self, documents: Vec<(Namespace, RawDocumentBuf)>) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            {
                let mut statement = transaction
                    .prepare_cached("INSERT OR REPLACE INTO queue (ns, id) VALUES (?1, ?2)")?;
                for (namespace, id) in &documents {
                    statement.execute(params![namespace.to_string(), id.as_bytes()])?;
                }
            }
            transaction.commit()
        })
        .await
    }

    /// The oldest of the queue.
    pub async fn next(&self, most: usize) -> Result<Vec<Queued>, Fault> {
        self.with(move |c| {
            let mut statement =
                c.prepare_cached("SELECT seq, ns, id, failures FROM queue ORDER BY seq LIMIT ?1")?;
            let rows: rusqlite::Result<Vec<Option<Queued>>> = statement
                .query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
                    let namespace: String = row.get(1)?;
                    let id = RawDocumentBuf::from_bytes(row.get::<_, Vec<u8>>(2)?).ok();
                    let (seq, failures) = (row.get(0)?, row.get(3)?);
                    Ok(namespace.parse().ok().zip(id).map(|(namespace, id)| Queued {
                        seq,
                        namespace,
                        id,
                        failures,
                    }))
                })?
                .collect();
            Ok(rows?.into_iter().flatten().collect())
        })
        .await
    }

    /// The newest place in the queue; 0 where it is empty.
    pub async fn last_place(&self) -> Result<i64, Fault> {
        self.with(|c| c.query_row("SELECT coalesce(max(seq), 0) FROM queue", [], |row| row.get(0)))
            .await
    }

    /// Stores how comparisons ended. A document that has changed meanwhile has another place in the
    /// queue, and stays in it. `is_final`: nothing is written on the source any more.
    pub async fn judge(
        &self,
        verdicts: Vec<(Queued, Option<Failure>)>,
        is_final: bool,
    ) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            let (mut settled, mut opened) = (0, 0);
            for (one, failure) in &verdicts {
                let (namespace, id) = (one.namespace.to_string(), one.id.as_bytes());
                let was_there = transaction
                    .prepare_cached("DELETE FROM queue WHERE seq = ?1")?
                    .execute([one.seq])?
                    > 0;
                match failure {
                    None => {
                        transaction
                            .prepare_cached("DELETE FROM mismatch WHERE ns = ?1 AND id = ?2")?
                            .execute(params![namespace, id])?;
                        if was_there {
                            settled += 1;
                            foreign_writes::settle(&transaction, &namespace, id)?;
                        }
                    }
                    // What is no longer there has changed meanwhile, or is forgotten.
                    Some(failure) if failure.is_open && was_there => {
                        let (kind, paths) = (failure.kind.as_str(), failure.paths.join("\n"));
                        let changed = transaction
                            .prepare_cached(
                                "UPDATE mismatch SET kind = ?3, paths = ?4 WHERE ns = \
                                 ?1 AND id = ?2",
                            )?
                            .execute(params![namespace, id, kind, paths])?;
                        if changed == 0 {
                            opened += 1;
                            transaction.execute(
                                "INSERT INTO mismatch (ns, id, kind, paths) VALUES (?1, ?2, ?3, \
                                 ?4)",
                                params![namespace, id, kind, paths],
                            )?;
                        }
                    }
                    Some(_) if was_there => {
                        transaction.execute(
                            "INSERT OR IGNORE INTO queue (ns, id, failures) VALUES (?1, ?2, ?3)",
                            params![namespace, id, one.failures + 1],
                        )?;
                    }
                    Some(_) => {}
                }
            }
            tally::add(
                &transaction,
                Tally::ComparedAgain,
                i64::try_from(verdicts.len()).unwrap_or(i64::MAX),
            )?;
            tally::add(&transaction, Tally::MismatchesFound, opened)?;
            tally::add(&transaction, Tally::AfterBlock, if is_final { settled } else { 0 })?;
            transaction.commit()
        })
        .await
    }

    /// Begins another generation where everything that the last one began with has been compared.
    pub async fn next_generation(&self, oldest: i64) -> Result<(), Fault> {
        self.with(move |c| {
            let tallies = tally::read(c)?;
            if oldest <= tallies.of(Tally::GenerationEnd) {
                return Ok(());
            }
            let transaction = c.transaction()?;
            tally::add(&transaction, Tally::Generations, 1)?;
            let last: i64 =
                transaction
                    .query_row("SELECT coalesce(max(seq), 0) FROM queue", [], |row| row.get(0))?;
            tally::set(&transaction, Tally::GenerationEnd, last)?;
            transaction.commit()
        })
        .await
    }

    /// Adds to a tally.
    pub async fn add(&self, tally: Tally, amount: i64) -> Result<(), Fault> {
        self.with(move |c| tally::add(c, tally, amount)).await
    }

    /// Begins a tally anew.
    pub async fn reset(&self, tally: Tally) -> Result<(), Fault> {
        self.with(move |c| tally::set(c, tally, 0)).await
    }

    /// Puts the open mismatches back into the queue; one more failed comparison keeps each open.
    pub async fn requeue_mismatches(&self) -> Result<(), Fault> {
        self.with(|c| {
            c.execute(
                "INSERT OR IGNORE INTO queue (ns, id, failures) SELECT ns, id, 1 FROM \
                 mismatch LIMIT 10000",
                [],
            )
            .map(drop)
        })
        .await
    }

    /// The open mismatches.
    pub async fn mismatches(&self, most: usize) -> Result<Vec<Mismatch>, Fault> {
        self.with(move |c| {
            let mut statement =
                c.prepare("SELECT ns, id, kind, paths FROM mismatch ORDER BY ns, id LIMIT ?1")?;
            let rows: rusqlite::Result<Vec<Option<Mismatch>>> = statement
                .query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
                    let (namespace, kind, paths): (String, String, String) =
                        (row.get(0)?, row.get(2)?, row.get(3)?);
                    let id = RawDocumentBuf::from_bytes(row.get::<_, Vec<u8>>(1)?).ok();
                    Ok((|| {
                        Some(Mismatch {
                            namespace: namespace.parse().ok()?,
                            id: Some(super::difference::id_text(&id?)),
                            kind: MismatchKind::from_name(&kind)?,
                            paths: paths.lines().map(str::to_owned).collect(),
                        })
                    })())
                })?
                .collect();
            Ok(rows?.into_iter().flatten().collect())
        })
        .await
    }

    /// Forgets a namespace that is gone.
    pub async fn forget(&self, namespace: Namespace) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for table in ["queue", "mismatch", "part"] {
                transaction.execute(
                    &format!("DELETE FROM {table} WHERE ns = ?1"),
                    [namespace.to_string()],
                )?;
            }
            foreign_writes::settle_all(&transaction, &namespace.to_string())?;
            transaction.commit()
        })
        .await
    }

    /// Gives what is stored of a namespace to another name.
    pub async fn rename(&self, from: Namespace, to: Namespace) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for table in ["queue", "mismatch", "part"] {
                let statement = format!("UPDATE OR REPLACE {table} SET ns = ?2 WHERE ns = ?1");
                transaction.execute(&statement, [from.to_string(), to.to_string()])?;
            }
            // Compared before the tail came to the rename, they may have failed for it.
            transaction.execute("UPDATE queue SET failures = 0 WHERE ns = ?1", [to.to_string()])?;
            foreign_writes::rename(&transaction, &from.to_string(), &to.to_string())?;
            transaction.commit()
        })
        .await
    }
}
