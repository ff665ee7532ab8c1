//! The checkpoints of the copy: each shard's catalogue, the parts of its collections, and what is
//! to be copied anew.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::RawDocumentBuf;
use rusqlite::{OptionalExtension as _, params};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::{Checkpoints, CollectionRow, Part, Rows, Stage};

impl Checkpoints {
    /// The namespaces in the shards' catalogues.
    pub async fn listed(&self) -> Result<Vec<Namespace>, Fault> {
        self.namespaces("SELECT DISTINCT ns FROM collection ORDER BY ns").await
    }

    /// Forgets all that was stored of the copy of these namespaces, so that every shard lists them
    /// anew, and stores where the source has its data now.
    pub async fn copy_anew(
        &self,
        namespaces: BTreeSet<Namespace>,
        places: BTreeMap<String, String>,
    ) -> Result<(), Fault> {
        self.with(move |c| {
            let transaction = c.transaction()?;
            for namespace in &namespaces {
                let namespace = namespace.to_string();
                for table in ["collection", "split", "part"] {
                    transaction
                        .execute(&format!("DELETE FROM {table} WHERE ns = ?1"), [&namespace])?;
                }
                transaction.execute(
                    "INSERT OR IGNORE INTO unlisted (shard, ns) SELECT name, ?1 FROM shard",
                    [&namespace],
                )?;
            }
            transaction.execute("UPDATE shard SET copied_t = NULL, copied_i = NULL", [])?;
            transaction.execute("DELETE FROM place", [])?;
            for (what, at) in &places {
                transaction
                    .execute("INSERT INTO place (what, at) VALUES (?1, ?2)", params![what, at])?;
            }
            transaction.commit()
        })
        .await
    }

    /// The namespaces that a shard is to list anew.
    pub async fn unlisted(&self, shard: &str) -> Result<Vec<Namespace>, Fault> {
        let shard = shard.to_owned();
        let texts = self
            .with(move |c| {
                let mut statement =
                    c.prepare("SELECT ns FROM unlisted WHERE shard = ?1 ORDER BY ns")?;
                statement.query_map([&shard], |row| row.get(0))?.collect::<Rows<String>>()
            })
            .await?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// The catalogue of a shard.
    pub async fn collections(&self, shard: &str) -> Result<Vec<CollectionRow>, Fault> {
        let shard = shard.to_owned();
        self.with(move |c| {
            let mut statement = c.prepare(
                "SELECT ns, info, documents, bytes, stage FROM collection WHERE shard = ?1 ORDER \
                 BY bytes DESC, ns",
            )?;
            let rows: Rows<Option<CollectionRow>> = statement
                .query_map([&shard], |row| {
                    let namespace: String = row.get(0)?;
                    Ok((|| {
                        Some(CollectionRow {
                            namespace: namespace.parse().ok()?,
                            info: RawDocumentBuf::from_bytes(row.get(1).ok()?).ok()?,
                            documents: row.get(2).ok()?,
                            bytes: row.get(3).ok()?,
                            stage: Stage::from_number(row.get(4).ok()?)?,
                        })
                    })())
                })?
                .collect();
            rows
        })
        .await?
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            Fault::new(
                FaultCode::StateDirUnusable,
                "the run's checkpoints hold a collection that cannot be read",
            )
        })
    }

    /// Stores the whole catalogue of a shard, or what of it was to be listed anew.
    pub async fn store_collections(
        &self,
        shard: &str,
        rows: Vec<CollectionRow>,
    ) -> Result<(), Fault> {
        let shard = shard.to_owned();
        self.with(move |c| {
            let transaction = c.transaction()?;
            for row in &rows {
                transaction.execute(
                    "INSERT OR IGNORE INTO collection (shard, ns, info, documents, bytes, stage) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        shard,
                        row.namespace.to_string(),
                        row.info.as_bytes(),
                        row.documents,
                        row.bytes,
                        row.stage.number()
                    ],
                )?;
            }
            transaction.execute("DELETE FROM unlisted WHERE shard = ?1", [&shard])?;
            transaction.commit()
        })
        .await
    }

    /// Stores how far a collection has come.
    pub async fn store_stage(
        &self,
        shard: &str,
        namespace: &Namespace,
        stage: Stage,
    ) -> Result<(), Fault> {
        let (shard, namespace) = (shard.to_owned(), namespace.to_string());
        self.with_repeatable(move |c| {
            c.execute(
                "UPDATE collection SET stage = ?3 WHERE shard = ?1 AND ns = ?2",
                params![shard, namespace, stage.number()],
            )
            .map(drop)
        })
        .await
    }

    /// Stores that a collection's indexes are built, whatever shards it lies on.
    pub async fn store_indexed(&self, namespace: &Namespace) -> Result<(), Fault> {
        let namespace = namespace.to_string();
        self.with_repeatable(move |c| {
            c.execute(
                "UPDATE collection SET stage = ?2 WHERE ns = ?1",
                params![namespace, Stage::Indexed.number()],
            )
            .map(drop)
        })
        .await
    }

    /// Stores a collection's parts, drawn on this member, in place of what was there, and that it
    /// is split.
    pub async fn store_parts(
        &self,
        shard: &str,
        namespace: &Namespace,
        member: &str,
        parts: Vec<Part>,
    ) -> Result<(), Fault> {
        let (shard, namespace, member) =
            (shard.to_owned(), namespace.to_string(), member.to_owned());
        self.with_repeatable(move |c| {
            let transaction = c.transaction()?;
            transaction.execute(
                "DELETE FROM part WHERE shard = ?1 AND ns = ?2",
                params![shard, namespace],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO split (shard, ns, member) VALUES (?1, ?2, ?3)",
                params![shard, namespace, member],
            )?;
            for part in &parts {
                transaction.execute(
                    "INSERT INTO part (shard, ns, number, after, until, until_id) VALUES (?1, ?2, \
                     ?3, ?4, ?5, ?6)",
                    params![
                        shard,
                        namespace,
                        part.number,
                        part.after,
                        part.until,
                        part.until_id.as_ref().map(|id| id.as_bytes())
                    ],
                )?;
            }
            transaction.execute(
                "UPDATE collection SET stage = ?3 WHERE shard = ?1 AND ns = ?2",
                params![shard, namespace, Stage::Split.number()],
            )?;
            transaction.commit()
        })
        .await
    }

    /// The parts of a collection that are not written yet.
    pub async fn open_parts(&self, shard: &str, namespace: &Namespace) -> Result<Vec<Part>, Fault> {
        let (shard, namespace) = (shard.to_owned(), namespace.to_string());
        self.with(move |c| {
            let mut statement = c.prepare(
                "SELECT number, after, until, until_id FROM part WHERE shard = ?1 AND ns = ?2 AND \
                 done = 0 ORDER BY number",
            )?;
            statement
                .query_map(params![shard, namespace], |row| {
                    Ok(Part {
                        number: row.get(0)?,
                        after: row.get(1)?,
                        until: row.get(2)?,
                        until_id: row
                            .get::<_, Option<Vec<u8>>>(3)?
                            .and_then(|bytes| RawDocumentBuf::from_bytes(bytes).ok()),
                    })
                })?
                .collect()
        })
        .await
    }

    /// The bounds between a collection's parts, written or not: record ids, each with its document
    /// `{_id: …}`.
    pub async fn bounds(
        &self,
        shard: &str,
        namespace: &Namespace,
    ) -> Result<Vec<(i64, RawDocumentBuf)>, Fault> {
        let (shard, namespace) = (shard.to_owned(), namespace.to_string());
        self.with(move |c| {
            let mut statement = c.prepare(
                "SELECT until, until_id FROM part WHERE shard = ?1 AND ns = ?2 AND until IS NOT \
                 NULL ORDER BY number",
            )?;
            let rows: Rows<(i64, Vec<u8>)> = statement
                .query_map(params![shard, namespace], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect();
            let id = |(record, bytes)| Some((record, RawDocumentBuf::from_bytes(bytes).ok()?));
            Ok(rows?.into_iter().filter_map(id).collect())
        })
        .await
    }

    /// The member that a collection's parts were drawn on.
    pub async fn split_on(
        &self,
        shard: &str,
        namespace: &Namespace,
    ) -> Result<Option<String>, Fault> {
        let (shard, namespace) = (shard.to_owned(), namespace.to_string());
        self.with(move |c| {
            c.query_row(
                "SELECT member FROM split WHERE shard = ?1 AND ns = ?2",
                [shard, namespace],
                |row| row.get(0),
            )
            .optional()
        })
        .await
    }

    /// Stores that a part is written, with what it held.
    pub async fn store_part_done(
        &self,
        shard: &str,
        namespace: &Namespace,
        number: u32,
        documents: u64,
        bytes: u64,
    ) -> Result<(), Fault> {
        let (shard, namespace) = (shard.to_owned(), namespace.to_string());
        self.with_repeatable(move |c| {
            c.execute(
                "UPDATE part SET done = 1, documents = ?4, bytes = ?5 WHERE shard = ?1 AND ns = \
                 ?2 AND number = ?3",
                params![shard, namespace, number, documents, bytes],
            )
            .map(drop)
        })
        .await
    }

    /// Documents and bytes of the parts that are written.
    pub async fn copied(&self, shard: &str) -> Result<(u64, u64), Fault> {
        let shard = shard.to_owned();
        self.with(move |c| {
            c.query_row(
                "SELECT coalesce(sum(documents), 0), coalesce(sum(bytes), 0) FROM part WHERE \
                 shard = ?1 AND done = 1",
                [&shard],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })
        .await
    }
}
