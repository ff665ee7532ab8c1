//! Capped collections keep an order that the change stream does not tell: concurrent inserts get their record ids in another order
//! than their oplog entries (the server reserves the entries first), so that even a replica set's members differ in it.
//!
//! Once the source takes no more writes, both sides are read side by side; one that differs is copied again, in order. Capped
//! collections are bounded by design, and so is this.

use futures_util::StreamExt as _;
use mongodb::bson::{Timestamp, rawdoc};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::catalog::{self, CollectionInfo};
use super::copy::Copier;
use super::crew::Crew;
use super::doubled::Doubled;
use super::pace::Pace;
use super::progress::ShardCounters;
use super::tuning::Tuning;
use super::{index, partition};
use crate::mongo::{Deployment, append, command};

/// Documents of one reply at most.
const BATCH_DOCUMENTS: u32 = 5_000;

/// Gives a capped collection the source's order where it has another. `as_of`: the source as it is at this time. Returns how many
/// documents were compared.
pub async fn mend(
    source: &Deployment,
    destination: &Deployment,
    progress: &ShardCounters,
    doubled: &Doubled,
    info: &CollectionInfo,
    as_of: Timestamp,
    tuning: &Tuning,
) -> Result<u64, Fault> {
    let namespace = &info.namespace;
    let compared = match compare(source, destination, namespace, as_of).await? {
        Order::Same(documents) => return Ok(documents),
        Order::Other(documents) => documents,
    };
    tracing::info!(%namespace, "a capped collection is in another order; copying it again");
    catalog::drop(destination, namespace).await?;
    catalog::create(destination, &namespace.db, info.create_command()).await?;
    let (documents, bytes) = catalog::size(source, namespace).await?;
    // The source takes no writes meanwhile, and its users wait.
    let (pace, crew) = (Pace::new(None, 1), Crew::of_one());
    let copier = Copier {
        source,
        entry: source,
        shards: &[],
        destination,
        progress,
        doubled,
        start: as_of,
        pace: &pace,
        crew: &crew,
        tuning,
        placement: None,
    };
    for part in partition::split(source, info, bytes, None, tuning).await? {
        copier.copy(namespace, &part, copier.batch(documents, bytes, 1)).await?;
    }
    let specs = catalog::indexes(source, namespace).await?;
    index::build(destination, namespace, &specs, info.has_collation()).await?;
    Ok(compared)
}

/// How two capped collections compare, after so many documents.
enum Order {
    Same(u64),
    Other(u64),
}

async fn compare(source: &Deployment, destination: &Deployment, namespace: &Namespace, as_of: Timestamp) -> Result<Order, Fault> {
    // Held by turns they could keep each other from their next replies.
    let _share = source.memory.pair().await;
    let (mut ours, mut theirs) =
        tokio::try_join!(Scan::open(source, namespace, Some(as_of)), Scan::open(destination, namespace, None))?;
    let mut documents = 0;
    loop {
        let (left, right) = tokio::try_join!(ours.next(), theirs.next())?;
        match (left, right) {
            (None, None) => return Ok(Order::Same(documents)),
            (Some(left), Some(right)) if left == right => documents += 1,
            _ => return Ok(Order::Other(documents)),
        }
    }
}

/// Documents in natural order, one after the other.
struct Scan<'a> {
    deployment: &'a Deployment,
    namespace: &'a Namespace,
    cursor: RawBatchCursor,
    batch: Vec<Vec<u8>>,
}

impl<'a> Scan<'a> {
    async fn open(deployment: &'a Deployment, namespace: &'a Namespace, as_of: Option<Timestamp>) -> Result<Self, Fault> {
        let mut find = command("find", &namespace.collection);
        append(&mut find, "hint", &*rawdoc! { "$natural": 1 });
        let mut concern = rawdoc! { "level": "majority" };
        if let Some(as_of) = as_of {
            append(&mut concern, "afterClusterTime", as_of);
        }
        append(&mut find, "readConcern", &*concern);
        let cursor = deployment
            .batches(&namespace.db, find, BATCH_DOCUMENTS)
            .await
            .map_err(|e| deployment.fault(&format!("reading {namespace}"), &e))?;
        Ok(Self { deployment, namespace, cursor, batch: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        while self.batch.is_empty() {
            let fault = |e: &mongodb::error::Error| self.deployment.fault(&format!("reading {}", self.namespace), e);
            let Some(batch) = self.cursor.next().await else { return Ok(None) };
            let batch: RawBatch = batch.map_err(|e| fault(&e))?;
            let documents = batch.doc_slices().map_err(|e| fault(&e))?;
            self.batch =
                documents.into_iter().flatten().filter_map(|value| Some(value.as_document()?.as_bytes().to_vec())).collect();
            self.batch.reverse();
        }
        Ok(self.batch.pop())
    }
}
