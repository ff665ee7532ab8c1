//! The parts in which whole collections are compared, and which of them stand compared.

use std::time::Duration;

use mongodb::bson::RawDocumentBuf;
use rusqlite::params;
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::Store;
use super::tally::{self, Tally};

/// A stretch of a collection in the order of `_id`; `None`: no bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its place, from 0.
    pub number: u32,
    /// From this `_id` on, as a document `{_id: …}`.
    pub min: Option<RawDocumentBuf>,
    /// Up to but without this one.
    pub max: Option<RawDocumentBuf>,
}

impl Store {
    /// The parts of a namespace that are not compared yet; `None`: it was not split yet.
    pub async fn open_parts(&self, namespace: &Namespace) -> Result<Option<Vec<Part>>, Fault> {
        let namespace = namespace.to_string();
        self.with(move |c| {
            let all: i64 =
                c.query_row("SELECT count(*) FROM part WHERE ns = ?1", [&namespace], |row| {
                    row.get(0)
                })?;
            if all == 0 {
                return Ok(None);
            }
            let mut statement = c.prepare(
                "SELECT number, min, max FROM part WHERE ns = ?1 AND done = 0 ORDER BY number",
            )?;
            let bound = |bytes: Option<Vec<u8>>| {
                bytes.and_then(|bytes| RawDocumentBuf::from_bytes(bytes).ok())
            };
            let parts: rusqlite::Result<Vec<Part>> = statement
                .query_map([&namespace], |row| {
                    Ok(Part {
                        number: row.get(0)?,
                        min: bound(row.get(1)?),
                        max: bound(row.get(2)?),
                    })
                })?
                .collect();
            parts.map(Some)
        })
        .await
    }

    /// Stores a namespace's parts.
    pub async fn store_parts(&self, namespace: &Namespace, parts: Vec<Part>) -> Result<(), Fault> {
        let namespace = namespace.to_string();
        self.with(move |c| {
            let transaction = c.transaction()?;
            for part in &parts {
                transaction.execute(
                    "INSERT OR REPLACE INTO part (ns, number, min, max) VALUES (?1, ?2, ?3, ?4)",
                    params![
                        namespace,
                        part.number,
                        part.min.as_ref().map(|id| id.as_bytes()),
                        part.max.as_ref().map(|id| id.as_bytes())
                    ],
                )?;
            }
            transaction.commit()
        })
        .await
    }

    /// Stores that a part stands compared: its unequal documents are queued with it. `spent`: since
    /// that was stored the last time.
    pub async fn store_compared(
        &self,
        namespace: &Namespace,
        number: u32,
        documents: u64,
        unequal: Vec<RawDocumentBuf>,
        spent: Duration,
    ) -> Result<(), Fault> {
        let namespace = namespace.to_string();
        self.with(move |c| {
            let transaction = c.transaction()?;
            for id in &unequal {
                transaction.execute(
                    "INSERT OR IGNORE INTO queue (ns, id) VALUES (?1, ?2)",
                    params![namespace, id.as_bytes()],
                )?;
            }
            transaction.execute(
                "UPDATE part SET done = 1, documents = ?3 WHERE ns = ?1 AND number = ?2",
                params![namespace, number, documents],
            )?;
            tally::add(
                &transaction,
                Tally::ScanMs,
                i64::try_from(spent.as_millis()).unwrap_or(i64::MAX),
            )?;
            transaction.commit()
        })
        .await
    }

    /// Forgets which parts stand compared: everything is compared anew.
    pub async fn forget_parts(&self) -> Result<(), Fault> {
        self.with(|c| c.execute("DELETE FROM part", []).map(drop)).await
    }
}
