//! What the destination's change stream has reported: how far it was read, and which changes were
//! none of ours.

use mongodb::bson::RawDocumentBuf;
use rusqlite::{Connection, OptionalExtension as _, params};
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::namespace::Namespace;
use schemas::observed::{ForeignWrite, ForeignWrites};

use super::Store;
use super::tally::{self, Tally};
use crate::engine::verify::difference::id_text;

/// Foreign writes that are named at most; all are counted, and every document is compared again.
const MOST_NAMED: i64 = 1_000;
/// Open ones that a status carries at most.
const MOST_TOLD: i64 = 10;

/// Where the stream is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Its token, once it has reported one.
    pub token: Option<RawDocumentBuf>,
    /// The time from which it was opened first.
    pub since: ClusterTime,
}

/// A change that was none of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// Where.
    pub namespace: Namespace,
    /// Of which document, as `{_id: …}`; `None`: of a definition.
    pub id: Option<RawDocumentBuf>,
    /// The stream's word for it.
    pub operation: String,
    /// When.
    pub time: ClusterTime,
}

/// What a stretch of the stream has reported.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Up to where.
    pub token: Option<RawDocumentBuf>,
    /// Documents to compare again, whoever changed them.
    pub unclear: Vec<(Namespace, RawDocumentBuf)>,
    /// Changes of others, compared again as well.
    pub foreign: Vec<Foreign>,
}

/// A document that was compared and found equal is no open foreign write any more.
pub(super) fn settle(connection: &Connection, namespace: &str, id: &[u8]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE foreign_write SET open = 0 WHERE ns = ?1 AND id = ?2 AND open = 1")?
        .execute(params![namespace, id])
        .map(drop)
}

/// Documents of a namespace that is gone, or compared anew as a whole, are no open foreign writes
/// any more.
pub(super) fn settle_all(connection: &Connection, namespace: &str) -> rusqlite::Result<()> {
    connection
        .execute("UPDATE foreign_write SET open = 0 WHERE ns = ?1 AND id IS NOT NULL", [namespace])
        .map(drop)
}

/// Takes foreign writes along to a namespace's new name.
pub(super) fn rename(connection: &Connection, from: &str, to: &str) -> rusqlite::Result<()> {
    connection.execute("UPDATE foreign_write SET ns = ?2 WHERE ns = ?1", [from, to]).map(drop)
}

fn queue(
    connection: &Connection,
    namespace: &Namespace,
    id: &RawDocumentBuf,
) -> rusqlite::Result<()> {
    // A new place: a comparison that is under way read it before this change, perhaps.
    connection
        .prepare_cached("INSERT OR REPLACE INTO queue (ns, id) VALUES (?1, ?2)")?
        .execute(params![namespace.to_string(), id.as_bytes()])
        .map(drop)
}

impl Store {
    /// Where the stream was left; `None`: it was never opened.
    pub async fn watched_to(&self) -> Result<Option<Place>, Fault> {
        self.with(|c| {
            c.query_row("SELECT token, t, i FROM watch", [], |row| {
                let token: Option<Vec<u8>> = row.get(0)?;
                let token = token.and_then(|bytes| RawDocumentBuf::from_bytes(bytes).ok());
                Ok(Place { token, since: ClusterTime { t: row.get(1)?, i: row.get(2)? } })
            })
            .optional()
        })
        .await
    }

    /// Stores the time from which the stream is read.
    pub async fn watch_from(&self, since: ClusterTime) -> Result<(), Fault> {
        self.with(move |c| {
            c.execute(
                "INSERT OR REPLACE INTO watch (one, token, t, i) VALUES (1, NULL, ?1, ?2)",
                params![since.t, since.i],
            )
            .map(drop)
        })
        .await
    }

    /// Stores what the stream has reported, and how far, at once.
    pub async fn store_told(&self, told: Told) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for (namespace, id) in &told.unclear {
                queue(&transaction, namespace, id)?;
            }
            for foreign in &told.foreign {
                let id = foreign.id.as_ref().map(|id| id.as_bytes());
                if let Some(id) = &foreign.id {
                    queue(&transaction, &foreign.namespace, id)?;
                }
                let named: i64 =
                    transaction
                        .query_row("SELECT count(*) FROM foreign_write", [], |row| row.get(0))?;
                if named >= MOST_NAMED {
                    // What is settled makes room.
                    transaction.execute(
                        "DELETE FROM foreign_write WHERE seq = (SELECT seq FROM foreign_write \
                         WHERE open = 0 ORDER BY seq LIMIT 1)",
                        [],
                    )?;
                }
                let again = transaction
                    .prepare_cached(
                        "UPDATE foreign_write SET open = 1, t = ?4, i = ?5 WHERE ns = ?1 AND id \
                         IS ?2 AND operation = ?3",
                    )?
                    .execute(params![
                        foreign.namespace.to_string(),
                        id,
                        foreign.operation,
                        foreign.time.t,
                        foreign.time.i
                    ])?;
                if again == 0 {
                    transaction.execute(
                        "INSERT INTO foreign_write (ns, id, operation, t, i, open)
                         SELECT ?1, ?2, ?3, ?4, ?5, 1 WHERE (SELECT count(*) FROM foreign_write) \
                         < ?6",
                        params![
                            foreign.namespace.to_string(),
                            id,
                            foreign.operation,
                            foreign.time.t,
                            foreign.time.i,
                            MOST_NAMED
                        ],
                    )?;
                }
            }
            if !told.foreign.is_empty() {
                tally::add(
                    &transaction,
                    Tally::ForeignWrites,
                    i64::try_from(told.foreign.len()).unwrap_or(i64::MAX),
                )?;
                let last: i64 = transaction.query_row(
                    "SELECT coalesce(max(seq), 0) FROM queue",
                    [],
                    |row| row.get(0),
                )?;
                tally::set(&transaction, Tally::ForeignThrough, last)?;
            }
            if let Some(token) = &told.token {
                transaction.execute("UPDATE watch SET token = ?1", params![token.as_bytes()])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Settles foreign changes of definitions in namespaces other than these.
    pub async fn settle_definitions(&self, but: Vec<Namespace>) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            let open: Vec<(i64, String)> = transaction
                .prepare_cached("SELECT seq, ns FROM foreign_write WHERE id IS NULL AND open = 1")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (seq, _) in open
                .iter()
                .filter(|(_, namespace)| !but.iter().any(|but| but.to_string() == *namespace))
            {
                transaction.execute("UPDATE foreign_write SET open = 0 WHERE seq = ?1", [seq])?;
            }
            transaction.commit()
        })
        .await
    }

    /// The namespaces whose definitions somebody else has changed, as far as that is open.
    pub async fn foreign_definitions(&self) -> Result<Vec<Namespace>, Fault> {
        self.with(|c| {
            let mut statement = c.prepare_cached(
                "SELECT DISTINCT ns FROM foreign_write WHERE id IS NULL AND open = 1",
            )?;
            let names: Vec<String> =
                statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
        })
        .await
    }

    /// The foreign writes: how many there were, and those that are not compared yet, or differ.
    pub fn foreign_writes(&self) -> Result<ForeignWrites, Fault> {
        self.now(|c| {
            let tallies = tally::read(c)?;
            let oldest: Option<i64> =
                c.query_row("SELECT min(seq) FROM queue", [], |row| row.get(0))?;
            let named: u64 =
                c.query_row("SELECT count(*) FROM foreign_write WHERE open = 1", [], |row| {
                    row.get(0)
                })?;
            let waits = oldest.is_some_and(|oldest| oldest <= tallies.of(Tally::ForeignThrough));
            let open = read(c, true, MOST_TOLD)?;
            Ok(ForeignWrites {
                found: tallies.count(Tally::ForeignWrites),
                open: named.max(u64::from(waits)),
                named: open,
            })
        })
    }

    /// The foreign writes that are named, newest first.
    pub async fn named_foreign_writes(&self, most: usize) -> Result<Vec<ForeignWrite>, Fault> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.with(move |c| read(c, false, most)).await
    }
}

fn read(
    connection: &Connection,
    only_open: bool,
    most: i64,
) -> rusqlite::Result<Vec<ForeignWrite>> {
    let mut statement = connection.prepare_cached(
        "SELECT ns, id, operation, t, i, open FROM foreign_write WHERE open >= ?1 ORDER BY t \
         DESC, i DESC, seq DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![only_open, most], |row| {
        let namespace: String = row.get(0)?;
        let id: Option<Vec<u8>> = row.get(1)?;
        let (operation, time, open) =
            (row.get(2)?, ClusterTime { t: row.get(3)?, i: row.get(4)? }, row.get(5)?);
        let id = id.and_then(|bytes| RawDocumentBuf::from_bytes(bytes).ok()).map(|id| id_text(&id));
        Ok(namespace.parse().ok().map(|namespace| ForeignWrite {
            namespace,
            id,
            operation,
            time,
            open,
        }))
    })?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::{Foreign, MOST_NAMED, Store, Told};
    use mongodb::bson::rawdoc;
    use schemas::cluster_time::ClusterTime;
    use schemas::namespace::Namespace;

    fn told(namespace: &Namespace, ids: std::ops::Range<i64>) -> Told {
        let foreign = ids.map(|id| Foreign {
            namespace: namespace.clone(),
            id: Some(rawdoc! { "_id": id }),
            operation: "update".to_owned(),
            time: ClusterTime { t: 10, i: 1 },
        });
        Told { foreign: foreign.collect(), ..Told::default() }
    }

    #[tokio::test]
    async fn foreign_writes_are_open_until_their_documents_are_found_equal_or_are_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("it opens");
        let (here, there) = (Namespace::new("shop", "orders"), Namespace::new("shop", "moved"));
        store.store_told(told(&here, 0..3)).await.expect("stored");
        let stands =
            || store.foreign_writes().map(|writes| (writes.found, writes.open)).expect("readable");
        assert_eq!(stands(), (3, 3));
        store.rename(here.clone(), there.clone()).await.expect("renamed");
        let queued = store.next(10).await.expect("readable");
        assert!(queued.iter().all(|one| one.namespace == there));
        // Another change of the second comes while they are compared.
        store.store_told(told(&there, 1..2)).await.expect("stored");
        store
            .judge(queued.into_iter().map(|one| (one, None)).collect(), false)
            .await
            .expect("judged");
        assert_eq!(stands(), (4, 1));
        store.forget(there).await.expect("forgotten");
        assert_eq!(stands(), (4, 0));
    }

    #[tokio::test]
    async fn their_list_is_bounded_and_none_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("it opens");
        let namespace = Namespace::new("shop", "orders");
        let many = MOST_NAMED + 500;
        store.store_told(told(&namespace, 0..many)).await.expect("stored");
        let named = store.named_foreign_writes(10_000).await.expect("readable");
        assert_eq!(i64::try_from(named.len()).expect("few"), MOST_NAMED);
        let all = store.next(10_000).await.expect("readable");
        assert_eq!(i64::try_from(all.len()).expect("few"), many, "all are compared again");
        // Those that are named are equal; the others are waited for all the same.
        let first = all
            .into_iter()
            .take(usize::try_from(MOST_NAMED).expect("few"))
            .map(|one| (one, None))
            .collect();
        store.judge(first, false).await.expect("judged");
        let stands = store.foreign_writes().expect("readable");
        assert_eq!((stands.found, stands.open), (u64::try_from(many).expect("few"), 1));
    }
}
