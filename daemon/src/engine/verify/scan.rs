//! Compares whole collections, once: both sides read in the order of `_id`, part by part, and
//! paired as they come.
//!
//! The order is the server's on both sides, so that nothing here compares `_id`s but for their
//! bytes. Documents that find no partner, or another content, are queued by their `_id`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mongodb::bson::{RawArrayBuf, RawDocumentBuf, rawdoc};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::reader::{Imprint, Pair, Reader, imprint, only_id};
use super::store::parts::Part;
use super::{Sides, Verifier, YIELD_FOR, is_behind};
use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::concurrent::{self, Piece};
use crate::engine::tuning::Tuning;
use crate::mongo::{Deployment, append, command};

/// Bytes of a part: what is compared again after a crash.
const PART_BYTES: u64 = 32 << 20;
const MOST_PARTS: u64 = 4096;
const SAMPLES_PER_PART: u64 = 10;
/// Parts compared at once, with a reader a side: of large documents each holds two replies of 16
/// MB, and the tail goes first.
const AT_ONCE: usize = 2;
/// Documents without a partner that are remembered; more than that are queued as they are.
const UNPAIRED: usize = 2_000;

/// Compares every collection that is not compared yet.
pub async fn all(verifier: &Arc<Verifier>, sides: &Sides) -> Result<(), Fault> {
    let found = catalog::list(&sides.source.entry, &sides.spec.namespaces.scope).await?;
    let mut work: Vec<Piece<'_, ()>> = Vec::new();
    let mut total = 0;
    for info in found.into_values().filter(CollectionInfo::has_documents) {
        // Measurements are compared as the buckets that hold them.
        let data = info.data();
        let (documents, bytes) = catalog::size(&sides.source.entry, &data).await?;
        total += documents;
        let parts = match verifier.store.open_parts(&data).await? {
            Some(parts) => parts,
            None => {
                let parts = split(&sides.source.entry, &info, bytes).await?;
                verifier.store.store_parts(&data, parts.clone()).await?;
                parts
            }
        };
        let size = Tuning::default().batch_size(documents, bytes, 2 * AT_ONCE);
        for part in parts {
            let namespace = data.clone();
            work.push(Box::pin(
                async move { compare(verifier, sides, &namespace, &part, size).await },
            ));
        }
    }
    verifier.documents_total.store(total, Ordering::Relaxed);
    concurrent::all(AT_ONCE, work).await.map(drop)
}

async fn split(source: &Deployment, info: &CollectionInfo, bytes: u64) -> Result<Vec<Part>, Fault> {
    // The bounds of a clustered collection's records are none of an index.
    let splits = info.kind == Kind::Collection && !info.is_clustered();
    let parts = if splits { (bytes / PART_BYTES).clamp(1, MOST_PARTS) } else { 1 };
    let mut bounds: Vec<RawDocumentBuf> = Vec::new();
    if parts > 1 {
        let mut draw = command("aggregate", &info.namespace.collection);
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(&*rawdoc! {
            "$sample": { "size": i64::try_from(parts * SAMPLES_PER_PART).unwrap_or(i64::MAX) }
        });
        pipeline.push(&*rawdoc! { "$project": { "_id": 1 } });
        pipeline.push(&*rawdoc! { "$sort": { "_id": 1 } });
        append(&mut draw, "pipeline", &*pipeline);
        append(&mut draw, "cursor", &*rawdoc! {});
        let drawn = source
            .collect(&info.namespace.db, draw)
            .await
            .map_err(|e| source.fault(&format!("sampling {}", info.namespace), &e))?;
        bounds = drawn
            .into_iter()
            .skip(5)
            .step_by(usize::try_from(SAMPLES_PER_PART).unwrap_or(10))
            .collect();
        bounds.dedup();
    }
    let mut split = Vec::with_capacity(bounds.len() + 1);
    let mut min = None;
    for (number, bound) in (0_u32..).zip(bounds) {
        split.push(Part { number, min, max: Some(bound.clone()) });
        min = Some(bound);
    }
    let number = u32::try_from(split.len()).unwrap_or(u32::MAX);
    split.push(Part { number, min, max: None });
    Ok(split)
}

/// The `find` of a part, in the order of `_id`.
fn find(deployment: &Deployment, namespace: &Namespace, part: &Part) -> RawDocumentBuf {
    let mut find = command("find", &namespace.collection);
    append(&mut find, "hint", &*rawdoc! { "_id": 1 });
    if deployment.is_sharded() {
        // Of several shards a router merges what it is told to.
        append(&mut find, "sort", &*rawdoc! { "_id": 1 });
    }
    if let Some(min) = &part.min {
        append(&mut find, "min", &**min);
    }
    if let Some(max) = &part.max {
        append(&mut find, "max", &**max);
    }
    append(&mut find, "noCursorTimeout", true);
    append(&mut find, "readConcern", &*rawdoc! { "level": "majority" });
    find
}

async fn compare(
    verifier: &Arc<Verifier>,
    sides: &Sides,
    namespace: &Namespace,
    part: &Part,
    size: u32,
) -> Result<(), Fault> {
    yield_to_tail(sides).await;
    // What opens the readers brings their first replies.
    let memory = &sides.source.entry.memory;
    let share = memory.pair().await;
    let (ours, theirs) = tokio::try_join!(
        Reader::open(
            &sides.source.entry,
            namespace,
            find(&sides.source.entry, namespace, part),
            size
        ),
        Reader::open(
            &sides.destination,
            namespace,
            find(&sides.destination, namespace, part),
            size
        )
    )?;
    let mut pair = Pair::new(ours, theirs, memory, share);
    let mut documents = 0_u64;
    let mut counted = 0_u64;
    // Documents that were met on one side only, so far.
    let mut alone: [HashMap<Vec<u8>, Imprint>; 2] = [HashMap::new(), HashMap::new()];
    let mut unequal: Vec<RawDocumentBuf> = Vec::new();
    loop {
        if pair.let_go() {
            // Nobody waits for the tail who holds what it may need.
            yield_to_tail(sides).await;
        }
        if !pair.fill().await? {
            break;
        }
        let Pair { ours, theirs, .. } = &mut pair;
        // In step, as nearly all are.
        while let (Some(mine), Some(other)) = (ours.front(), theirs.front())
            && mine == other
        {
            ours.pass();
            theirs.pass();
            documents += 1;
        }
        for (side, reader) in [(0, ours), (1, theirs)] {
            let Some(document) = reader.front() else { continue };
            let (id, print) = (only_id(document), imprint(document));
            reader.pass();
            documents += u64::from(side == 0);
            match alone[1 - side].remove(id.as_bytes()) {
                Some(partner) if partner == print => {}
                Some(_) => unequal.push(id),
                None => {
                    alone[side].insert(id.into_bytes(), print);
                }
            }
        }
        if alone[0].len() + alone[1].len() > UNPAIRED {
            unequal.extend(drained(&mut alone));
        }
        if unequal.len() > UNPAIRED {
            // They are few, or the memory would grow with them.
            verifier.queue_unequal(namespace, std::mem::take(&mut unequal)).await?;
        }
        if documents - counted >= 10_000 {
            verifier.documents_verified.fetch_add(documents - counted, Ordering::Relaxed);
            counted = documents;
        }
    }
    unequal.extend(drained(&mut alone));
    verifier.documents_verified.fetch_add(documents - counted, Ordering::Relaxed);
    verifier.pending.fetch_add(unequal.len() as u64, Ordering::Relaxed);
    let spent = verifier.spent_scanning();
    verifier.store.store_compared(namespace, part.number, documents, unequal, spent).await
}

/// Waits while the tail is behind, which goes first.
async fn yield_to_tail(sides: &Sides) {
    while is_behind(sides) {
        tokio::time::sleep(YIELD_FOR).await;
    }
}

fn drained(alone: &mut [HashMap<Vec<u8>, Imprint>; 2]) -> Vec<RawDocumentBuf> {
    alone
        .iter_mut()
        .flat_map(HashMap::drain)
        .filter_map(|(id, _)| RawDocumentBuf::from_bytes(id).ok())
        .collect()
}
