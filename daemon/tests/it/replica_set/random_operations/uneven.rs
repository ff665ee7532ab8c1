//! Does what an operator does where an index is not the same on all shards of a collection: drops
//! it.
//!
//! A router builds an index shard by shard, and one shard may refuse it. What the source has is
//! then a matter of whom one asks, and the engine keeps such a run from its cutover.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use rig::ShardedCluster;

use super::generate::DATABASES;

/// The server's code for an index that is not there.
const INDEX_NOT_FOUND: i32 = 27;

/// Drops every index that is not the same on all shards that own some of its collection. Returns
/// how many.
pub(super) async fn heal(cluster: &ShardedCluster) -> Result<u64> {
    let router = cluster.client().await?;
    let config = router.database("config");
    let collections: Vec<Document> =
        config.collection("collections").find(doc! {}).await?.try_collect().await?;
    let mut dropped = 0;
    for entry in &collections {
        let Some((db, name)) =
            entry.get_str("_id")?.split_once('.').filter(|(db, _)| DATABASES.contains(db))
        else {
            continue;
        };
        let chunks = cluster.chunks(&format!("{db}.{name}")).await?;
        let holders: BTreeSet<&str> =
            chunks.iter().filter_map(|chunk| chunk.get_str("shard").ok()).collect();
        let mut forms: BTreeMap<String, Vec<Document>> = BTreeMap::new();
        for holder in &holders {
            let shard =
                cluster.shards().iter().find(|shard| shard.name() == *holder).context("a shard")?;
            for index in indexes(&shard.client().await?, db, name).await? {
                forms.entry(index.get_str("name")?.to_owned()).or_default().push(index);
            }
        }
        for (index, found) in forms {
            if found.len() < holders.len() || found.iter().any(|one| *one != found[0]) {
                println!(
                    "  {index} of {db}.{name} is not the same on all of {holders:?}, and is dropped"
                );
                let drop = router
                    .database(db)
                    .run_command(doc! { "dropIndexes": name, "index": index })
                    .await;
                // A shard that lacks it is reported as an error, when the others have dropped it.
                let is_over = |error: &Error| {
                    matches!(
                        &*error.kind, ErrorKind::Command(error) if error.code == INDEX_NOT_FOUND,
                    )
                };
                drop.map(|_| ())
                    .or_else(|error| if is_over(&error) { Ok(()) } else { Err(error) })?;
                dropped += 1;
            }
        }
    }
    Ok(dropped)
}

async fn indexes(shard: &Client, db: &str, name: &str) -> Result<Vec<Document>> {
    let listed = shard.database(db).run_cursor_command(doc! { "listIndexes": name }).await?;
    Ok(listed.try_collect().await?)
}
