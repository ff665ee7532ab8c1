//! What a run remembers of its work: start point, catalogue, parts of the copy, resume token. One
//! SQLite file a run.
//!
//! It lies beside the journal rather than in it: a run is dropped by removing its folder, and its
//! many small writes never hold up a transition. Everything that belongs to a shard carries the
//! shard's name. Writes that a later step relies on are synced to disk; progress of the tail may be
//! lost by a power cut, and is then applied again.

mod copy;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mongodb::bson::RawDocumentBuf;
use rusqlite::{Connection, OptionalExtension as _, params};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;

use super::run::holder::Known;
use crate::sqlite;
use crate::state_fault::{self, Cause};

pub use rows::{CollectionRow, Part, Recopied, ShardRow, ShardStreamRow, Stage, ToldRow};

/// The version of the tables; another one is refused.
const FORMAT: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS shard (
    name TEXT PRIMARY KEY, start_t INTEGER NOT NULL, start_i INTEGER NOT NULL, copied_t INTEGER,
    copied_i INTEGER, token BLOB, applied_t INTEGER, applied_i INTEGER,
    events INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS hold (
    one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, is_put INTEGER NOT NULL,
    has_ended INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS created (ns TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS place (what TEXT PRIMARY KEY, at TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS settled (one INTEGER PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS told (
    kind BLOB NOT NULL, shard TEXT NOT NULL, times INTEGER NOT NULL, PRIMARY KEY (kind, shard)
) STRICT;
CREATE TABLE IF NOT EXISTS identity (ns TEXT PRIMARY KEY, uuid BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS deployment (
    side TEXT NOT NULL, holder TEXT NOT NULL, what TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (side, holder, what)
) STRICT;
CREATE TABLE IF NOT EXISTS doubled (ns TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS recopied (
    ns TEXT PRIMARY KEY, whole INTEGER NOT NULL, t INTEGER NOT NULL, i INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS unfinished_unique (
    ns TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (ns, name)
) STRICT;
CREATE TABLE IF NOT EXISTS counted (ns TEXT PRIMARY KEY, documents INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS collection (
    shard TEXT NOT NULL, ns TEXT NOT NULL, info BLOB NOT NULL, documents INTEGER NOT NULL,
    bytes INTEGER NOT NULL, stage INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (shard, ns)
) STRICT;
CREATE TABLE IF NOT EXISTS unlisted (
    shard TEXT NOT NULL, ns TEXT NOT NULL, PRIMARY KEY (shard, ns)
) STRICT;
CREATE TABLE IF NOT EXISTS split (
    shard TEXT NOT NULL, ns TEXT NOT NULL, member TEXT NOT NULL, PRIMARY KEY (shard, ns)
) STRICT;
CREATE TABLE IF NOT EXISTS part (
    shard TEXT NOT NULL, ns TEXT NOT NULL, number INTEGER NOT NULL, after INTEGER, until INTEGER,
    until_id BLOB, done INTEGER NOT NULL DEFAULT 0, documents INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (shard, ns, number)
) STRICT;
";

/// A run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    connection: Arc<Mutex<Connection>>,
}

fn failed(error: &rusqlite::Error) -> Fault {
    state_fault::of_sqlite("the run's checkpoints", error)
}

/// The fault of a run whose checkpoints are not there any more: it must not begin from scratch,
/// over its own data.
fn lost(path: &Path) -> Fault {
    let message = format!("the checkpoints in {} are gone, and the run had begun", path.display());
    Cause::Gone.fault(message).with_remedy(
        "stop cutoverd and put the run's folder back as it was last; where there is no copy, raise \
         `generation` to run again from scratch",
    )
}

type Rows<T> = rusqlite::Result<Vec<T>>;

fn for_each(
    connection: &Connection,
    statement: &str,
    mut with: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(statement)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        with(row)?;
    }
    Ok(())
}

impl Checkpoints {
    /// Opens the file in this folder, and makes it where it is not there: unless the run
    /// `has_begun`, which had one.
    pub fn open(run_dir: &Path, has_begun: bool) -> Result<Self, Fault> {
        let path = run_dir.join("checkpoints.db");
        let what = || format!("the checkpoints in {}", path.display());
        if has_begun && !path.exists() {
            return Err(lost(&path));
        }
        std::fs::create_dir_all(run_dir).map_err(|error| state_fault::of_io(what(), &error))?;
        let open = || -> rusqlite::Result<Connection> {
            let connection = sqlite::open(&path, "full")?;
            connection.execute_batch(TABLES)?;
            Ok(connection)
        };
        let unusable = |error: rusqlite::Error| state_fault::of_sqlite(what(), &error);
        let connection = open().map_err(unusable)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(unusable)?;
        match version {
            0 => connection.pragma_update(None, "user_version", FORMAT).map_err(unusable)?,
            FORMAT => {}
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

    /// Runs statements off the async threads.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || {
            // A panic in a statement's closure leaves SQLite's own state whole: the transaction is
            // rolled back when it is dropped.
            let mut guard = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut guard).map_err(|error| failed(&error))
        })
        .await
        .map_err(|error| Fault::new(FaultCode::Internal, format!("a checkpoint's task: {error}")))?
    }

    /// Like [`Self::with`], for what is only done again where a power cut takes it back: it waits
    /// for no disk. A later statement that does wait takes it along.
    async fn with_repeatable<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        self.with(move |c| {
            c.pragma_update(None, "synchronous", "normal")?;
            let done = work(c);
            c.pragma_update(None, "synchronous", "full")?;
            done
        })
        .await
    }

    /// Sets the counters to what is stored, so that a run that is opened again shows where it was.
    pub fn restore(&self, progress: &super::progress::Progress) -> Result<(), Fault> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || -> rusqlite::Result<()> {
            let names: Rows<String> = connection
                .prepare("SELECT ns FROM created ORDER BY ns")?
                .query_map([], |row| row.get(0))?
                .collect();
            progress.add_created(names?.iter().filter_map(|name| name.parse().ok()));
            let whole = "SELECT count(*), count(*) FILTER (WHERE whole) FROM (SELECT min(stage) \
                 >= 2 AS whole FROM collection GROUP BY ns)";
            connection.query_row(whole, [], |row| {
                progress.set_collections(row.get(0)?, row.get(1)?);
                Ok(())
            })?;
            let totals =
                "SELECT shard, count(*), coalesce(sum(documents), 0), coalesce(sum(bytes), 0), \
                 count(*) FILTER (WHERE stage >= 2)
                FROM collection GROUP BY shard";
            let mut done: BTreeMap<String, u64> = BTreeMap::new();
            for_each(&connection, totals, |row| {
                let name: String = row.get(0)?;
                progress.shard(&ShardName(name.clone())).set_copy_totals(
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                );
                done.insert(name, row.get(4)?);
                Ok(())
            })?;
            let copied = "SELECT shard, coalesce(sum(documents), 0), coalesce(sum(bytes), 0) FROM \
                 part WHERE done = 1 GROUP BY shard";
            for_each(&connection, copied, |row| {
                let name: String = row.get(0)?;
                let collections = done.get(&name).copied().unwrap_or(0);
                progress.shard(&ShardName(name)).set_copied(collections, row.get(1)?, row.get(2)?);
                Ok(())
            })?;
            for_each(&connection, "SELECT name, applied_t, applied_i, events FROM shard", |row| {
                let shard = progress.shard(&ShardName(row.get(0)?));
                if let Some((t, i)) = row.get::<_, Option<u32>>(1)?.zip(row.get(2)?) {
                    shard.set_applied(ClusterTime { t, i }, row.get(3)?);
                }
                Ok(())
            })?;
            Ok(())
        };
        read().map_err(|error| failed(&error))
    }

    /// The shard's tail; `None` before its start point was stored.
    pub async fn shard(&self, shard: &str) -> Result<Option<ShardRow>, Fault> {
        let shard = shard.to_owned();
        self.with(move |c| {
            c.query_row(
                "SELECT start_t, start_i, copied_t, copied_i, token, applied_t, applied_i, events \
                 FROM shard WHERE name = ?1",
                [&shard],
                |row| {
                    let time = |t: Option<u32>, i: Option<u32>| {
                        t.zip(i).map(|(t, i)| ClusterTime { t, i })
                    };
                    Ok(ShardRow {
                        start: ClusterTime { t: row.get(0)?, i: row.get(1)? },
                        copied: time(row.get(2)?, row.get(3)?),
                        token: row
                            .get::<_, Option<Vec<u8>>>(4)?
                            .and_then(|bytes| RawDocumentBuf::from_bytes(bytes).ok()),
                        applied: time(row.get(5)?, row.get(6)?),
                        events: row.get(7)?,
                    })
                },
            )
            .optional()
        })
        .await
    }

    /// Stores the start point, once.
    pub async fn store_start(&self, shard: &str, start: ClusterTime) -> Result<(), Fault> {
        let shard = shard.to_owned();
        self.with(move |c| {
            c.execute(
                "INSERT INTO shard (name, start_t, start_i) VALUES (?1, ?2, ?3)",
                params![shard, start.t, start.i],
            )
            .map(drop)
        })
        .await
    }

    /// Stores that the copy of all shards has ended in one state of their cluster, and that every
    /// document of each was read by this time.
    pub async fn store_copied(&self, times: BTreeMap<ShardName, ClusterTime>) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for (shard, time) in &times {
                transaction.execute(
                    "UPDATE shard SET copied_t = ?2, copied_i = ?3 WHERE name = ?1",
                    params![shard.0, time.t, time.i],
                )?;
            }
            transaction.execute("INSERT OR IGNORE INTO settled (one) VALUES (1)", [])?;
            transaction.commit()
        })
        .await
    }

    /// Stores that everything up to these tokens is applied, and how often each shard has reported
    /// each definition. `durable`: before something that must not see an older token again.
    pub async fn store_tail(
        &self,
        shard_indexes: Vec<ShardStreamRow>,
        told: Vec<ToldRow>,
        durable: bool,
    ) -> Result<(), Fault> {
        self.with(move |c| {
            c.pragma_update(None, "synchronous", if durable { "full" } else { "normal" })?;
            let store = |c: &mut Connection| {
                let transaction = c.transaction()?;
                for ShardStreamRow { shard, token, applied, events } in &shard_indexes {
                    transaction.execute(
                        "UPDATE shard SET token = ?2, applied_t = ?3, applied_i = ?4, events = ?5 \
                         WHERE name = ?1",
                        params![shard.0, token.as_bytes(), applied.t, applied.i, events],
                    )?;
                }
                for ToldRow { kind, shard, times } in &told {
                    transaction.execute(
                        "INSERT OR REPLACE INTO told (kind, shard, times) VALUES (?1, ?2, ?3)",
                        params![kind, shard.0, times],
                    )?;
                }
                transaction.commit()
            };
            let stored = store(c);
            c.pragma_update(None, "synchronous", "full")?;
            stored
        })
        .await
    }

    /// What is known of who has the run.
    pub async fn hold(&self) -> Result<Known, Fault> {
        self.with(|c| {
            c.query_row("SELECT term, is_put, has_ended FROM hold", [], |row| {
                Ok(Known { term: row.get(0)?, is_put: row.get(1)?, has_ended: row.get(2)? })
            })
            .optional()
        })
        .await
        .map(Option::unwrap_or_default)
    }

    /// Stores it.
    pub async fn store_hold(&self, known: Known) -> Result<(), Fault> {
        self.with(move |c| {
            let store =
                "INSERT OR REPLACE INTO hold (one, term, is_put, has_ended) VALUES (1, ?1, ?2, ?3)";
            c.execute(store, params![known.term, known.is_put, known.has_ended]).map(drop)
        })
        .await
    }

    /// How often each shard has reported each definition.
    pub async fn told(&self) -> Result<Vec<ToldRow>, Fault> {
        self.with(|c| {
            c.prepare("SELECT kind, shard, times FROM told")?
                .query_map([], |row| {
                    Ok(ToldRow {
                        kind: row.get(0)?,
                        shard: ShardName(row.get(1)?),
                        times: row.get(2)?,
                    })
                })?
                .collect()
        })
        .await
    }

    /// The UUIDs of collections that were made or renamed since the tail began.
    pub async fn identities(&self) -> Result<Vec<(Namespace, Vec<u8>)>, Fault> {
        let rows: Vec<(String, Vec<u8>)> = self
            .with(|c| {
                c.prepare("SELECT ns, uuid FROM identity")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .await?;
        Ok(rows.into_iter().filter_map(|(ns, uuid)| Some((ns.parse().ok()?, uuid))).collect())
    }

    /// Stores which collection has a name by now; `None`: none that is known.
    pub async fn store_identity(
        &self,
        namespace: &Namespace,
        uuid: Option<Vec<u8>>,
    ) -> Result<(), Fault> {
        let namespace = namespace.to_string();
        self.with_repeatable(move |c| {
            match uuid {
                Some(uuid) => c.execute(
                    "INSERT OR REPLACE INTO identity (ns, uuid) VALUES (?1, ?2)",
                    params![namespace, uuid],
                ),
                None => c.execute("DELETE FROM identity WHERE ns = ?1", [namespace]),
            }
            .map(drop)
        })
        .await
    }

    /// What is known of a side's deployment (`holder`: one shard of it; empty: it whole), by what
    /// it is.
    pub async fn deployment(
        &self,
        side: &str,
        holder: &str,
    ) -> Result<BTreeMap<String, String>, Fault> {
        let (side, holder) = (side.to_owned(), holder.to_owned());
        self.with(move |c| {
            let mut statement =
                c.prepare("SELECT what, value FROM deployment WHERE side = ?1 AND holder = ?2")?;
            statement.query_map([side, holder], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .await
    }

    /// Stores what is known of a side's deployment by now.
    pub async fn store_deployment(
        &self,
        side: &str,
        holder: &str,
        known: Vec<(&'static str, String)>,
    ) -> Result<(), Fault> {
        let (side, holder) = (side.to_owned(), holder.to_owned());
        self.with_repeatable(move |c| {
            let transaction = c.transaction()?;
            for (what, value) in &known {
                transaction.execute(
                    "INSERT OR REPLACE INTO deployment (side, holder, what, value) VALUES (?1, \
                     ?2, ?3, ?4)",
                    params![side, holder, what, value],
                )?;
            }
            transaction.commit()
        })
        .await
    }

    /// Where the source had its data when the copy began; empty before it was stored, and where the
    /// source is not sharded.
    pub async fn places(&self) -> Result<BTreeMap<String, String>, Fault> {
        self.with(|c| {
            let mut statement = c.prepare("SELECT what, at FROM place")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .await
    }

    /// Stores where the source has its data, once, before the first document is read.
    pub async fn store_places(&self, places: BTreeMap<String, String>) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for (what, at) in &places {
                transaction
                    .execute("INSERT INTO place (what, at) VALUES (?1, ?2)", params![what, at])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Whether all shards were seen to have been read in one state of their cluster.
    pub async fn is_settled(&self) -> Result<bool, Fault> {
        self.with(|c| c.query_row("SELECT EXISTS (SELECT 1 FROM settled)", [], |row| row.get(0)))
            .await
    }

    /// Namespaces that the run created on the destination, or was about to.
    pub async fn created(&self) -> Result<Vec<Namespace>, Fault> {
        self.namespaces("SELECT ns FROM created ORDER BY ns").await
    }

    /// Stores that the run is about to create these namespaces.
    pub async fn store_created(&self, namespaces: Vec<Namespace>) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for namespace in &namespaces {
                transaction.execute(
                    "INSERT OR IGNORE INTO created (ns) VALUES (?1)",
                    [namespace.to_string()],
                )?;
            }
            transaction.commit()
        })
        .await
    }

    /// Namespaces with documents in which a name occurs twice.
    pub async fn duplicate_fields(&self) -> Result<Vec<Namespace>, Fault> {
        self.namespaces("SELECT ns FROM doubled ORDER BY ns").await
    }

    /// Stores that a namespace has such documents.
    pub async fn store_doubled(&self, namespace: &Namespace) -> Result<(), Fault> {
        let namespace = namespace.to_string();
        self.with(move |c| {
            c.execute("INSERT OR IGNORE INTO doubled (ns) VALUES (?1)", [namespace]).map(drop)
        })
        .await
    }

    /// Namespaces that were copied again by themselves.
    pub async fn recopied(&self) -> Result<Vec<(Namespace, Recopied)>, Fault> {
        let rows: Vec<(String, Recopied)> = self
            .with(move |c| {
                c.prepare("SELECT ns, whole, t, i FROM recopied")?
                    .query_map([], |row| {
                        let time = ClusterTime { t: row.get(2)?, i: row.get(3)? };
                        Ok((row.get(0)?, Recopied { whole: row.get(1)?, time }))
                    })?
                    .collect()
            })
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(ns, recopied)| Some((ns.parse().ok()?, recopied)))
            .collect())
    }

    /// Stores that a namespace was copied again by itself; `None`: that it is an ordinary one
    /// again.
    pub async fn store_recopied(
        &self,
        namespace: &Namespace,
        recopied: Option<Recopied>,
    ) -> Result<(), Fault> {
        let namespace = namespace.to_string();
        self.with(move |c| {
            match recopied {
                Some(Recopied { whole, time }) => c.execute(
                    "INSERT OR REPLACE INTO recopied (ns, whole, t, i) VALUES (?1, ?2, ?3, ?4)",
                    params![namespace, whole, time.t, time.i],
                ),
                None => c.execute("DELETE FROM recopied WHERE ns = ?1", [namespace]),
            }
            .map(drop)
        })
        .await
    }

    /// Indexes of the destination that refuse duplicates and are still to be made unique.
    pub async fn unfinished_unique(&self) -> Result<Vec<(Namespace, String)>, Fault> {
        let rows: Vec<(String, String)> = self
            .with(|c| {
                c.prepare("SELECT ns, name FROM unfinished_unique ORDER BY ns, name")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .await?;
        Ok(rows.into_iter().filter_map(|(ns, name)| Some((ns.parse().ok()?, name))).collect())
    }

    /// Stores that these are still to be made unique.
    pub async fn store_unfinished_unique(
        &self,
        indexes: Vec<(Namespace, String)>,
    ) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for (namespace, name) in &indexes {
                transaction.execute(
                    "INSERT OR IGNORE INTO unfinished_unique (ns, name) VALUES (?1, ?2)",
                    params![namespace.to_string(), name],
                )?;
            }
            transaction.commit()
        })
        .await
    }

    /// Stores that an index is unique.
    pub async fn store_finished_unique(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<(), Fault> {
        let (namespace, name) = (namespace.to_string(), name.to_owned());
        self.with(move |c| {
            c.execute(
                "DELETE FROM unfinished_unique WHERE ns = ?1 AND name = ?2",
                params![namespace, name],
            )
            .map(drop)
        })
        .await
    }

    /// Stores how many documents of each collection the destination has, now that all are verified.
    pub async fn store_counts(&self, counts: Vec<(Namespace, u64)>) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            transaction.execute("DELETE FROM counted", [])?;
            for (namespace, documents) in &counts {
                transaction.execute(
                    "INSERT OR REPLACE INTO counted (ns, documents) VALUES (?1, ?2)",
                    params![namespace.to_string(), i64::try_from(*documents).unwrap_or(i64::MAX)],
                )?;
            }
            transaction.commit()
        })
        .await
    }

    /// How many documents each collection had when all were verified, by its name.
    pub async fn counts(&self) -> Result<HashMap<String, u64>, Fault> {
        let rows: Vec<(String, i64)> = self
            .with(|c| {
                c.prepare("SELECT ns, documents FROM counted")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(ns, documents)| Some((ns, u64::try_from(documents).ok()?)))
            .collect())
    }

    async fn namespaces(&self, statement: &'static str) -> Result<Vec<Namespace>, Fault> {
        let texts: Vec<String> = self
            .with(move |c| {
                c.prepare(statement)?.query_map([], |row| row.get(0))?.collect::<Rows<String>>()
            })
            .await?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }
}
