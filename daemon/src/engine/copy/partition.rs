//! Splits a collection into stretches of natural order that several readers can copy at once.
//!
//! Boundaries are record ids of sampled documents: a scan with `$_resumeAfter` can start behind any
//! record that exists. Natural order has no types to bracket by, so that mixed `_id`s, NaN and
//! collations need no care. Capped collections keep their order and so are one part; clustered
//! ones, as buckets are, have no numeric record ids.
//!
//! A router takes no resume token of a scan, and what is read through one is one part.
//!
//! Record ids are a member's own: another member, or the same one synced anew, has the same
//! documents in another order. Parts hold on the member that they were drawn on, alone.

use futures_util::StreamExt as _;
use mongodb::bson::{RawArrayBuf, RawDocumentBuf, rawdoc};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use crate::engine::catalog::{CollectionInfo, Kind};
use crate::engine::checkpoint::Part;
use crate::engine::element;
use crate::engine::source::topology::Placement;
use crate::engine::tuning::Tuning;
use crate::mongo::{Deployment, append, command, number};

/// The parts of one collection at most: with the largest collections parts grow instead.
const MOST_PARTS: u64 = 4096;

/// Samples for each part: enough that the largest part is seldom twice the mean.
const SAMPLES_PER_PART: u64 = 10;

/// Bounds that are looked at to see whether a member's records were numbered anew: one that differs
/// is enough.
const CHECKED_BOUNDS: usize = 100;

/// A record id and the `_id` of the document that has it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The record id.
    pub record: i64,
    /// A document `{_id: …}`.
    pub id: RawDocumentBuf,
}

/// How many parts a collection of this size is worth.
#[must_use]
pub fn part_count(bytes: u64, tuning: &Tuning) -> u64 {
    (bytes / tuning.part_bytes.max(1)).clamp(1, MOST_PARTS)
}

/// Splits a collection. One part where it is small, or cannot be split.
pub async fn split(
    source: &Deployment,
    info: &CollectionInfo,
    bytes: u64,
    placement: Option<&Placement>,
    tuning: &Tuning,
) -> Result<Vec<Part>, Fault> {
    let parts = part_count(bytes, tuning);
    if parts < 2
        || source.is_sharded()
        || info.is_capped()
        || info.is_clustered()
        || info.kind == Kind::TimeSeries
    {
        return Ok(join(&[], 1));
    }
    let samples = sample(source, &info.namespace, parts * SAMPLES_PER_PART, placement).await?;
    Ok(join(&samples, parts))
}

/// Draws documents at random and finds their record ids, in their order. Of a shard only documents
/// that it owns: a part that were to end with an orphan would not end there, since orphans are not
/// read.
pub async fn sample(
    source: &Deployment,
    namespace: &Namespace,
    size: u64,
    placement: Option<&Placement>,
) -> Result<Vec<Sample>, Fault> {
    let fault = |e| {
        let moved = placement.and_then(|placement| placement.fault(namespace, &e));
        moved.unwrap_or_else(|| source.fault(&format!("sampling {namespace}"), &e))
    };
    let mut draw = command("aggregate", &namespace.collection);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$sample": { "size": size } });
    pipeline.push(&*rawdoc! { "$project": { "_id": 1 } });
    append(&mut draw, "pipeline", &*pipeline);
    append(&mut draw, "cursor", &*rawdoc! {});
    if let Some(placement) = placement {
        placement.append_versions(&mut draw, namespace);
    }
    let drawn = source.collect(&namespace.db, draw).await.map_err(fault)?;
    let mut samples = records(source, namespace, &drawn).await?;
    samples.sort_by_key(|sample| sample.record);
    samples.dedup_by_key(|sample| sample.record);
    Ok(samples)
}

/// Whether bounds that were drawn on a member before still hold there: not once it was synced anew,
/// which numbers its records anew.
pub async fn hold(
    source: &Deployment,
    namespace: &Namespace,
    bounds: &[Sample],
) -> Result<bool, Fault> {
    let Some(last) = bounds.last() else { return Ok(true) };
    let asked: Vec<&Sample> =
        bounds.iter().step_by(bounds.len().div_ceil(CHECKED_BOUNDS)).collect();
    let ids: Vec<RawDocumentBuf> = asked.iter().map(|bound| bound.id.clone()).collect();
    let found = records(source, namespace, &ids).await?;
    // A document that was deleted and inserted again has a record behind all that were there.
    let fits = |found: &Sample| {
        found.record > last.record
            || asked.iter().any(|bound| bound.id == found.id && bound.record == found.record)
    };
    Ok(found.iter().all(fits))
}

/// The records of documents `{_id: …}`, as far as they exist, in no order.
async fn records(
    source: &Deployment,
    namespace: &Namespace,
    of: &[RawDocumentBuf],
) -> Result<Vec<Sample>, Fault> {
    let fault = |e| source.fault(&format!("sampling {namespace}"), &e);
    let mut samples = Vec::with_capacity(of.len());
    // A hundred thousand ids are far below the 16 MB of a command unless ids are huge; so they go
    // in slices.
    for slice in of.chunks(1_000) {
        let mut find = command("find", &namespace.collection);
        append(&mut find, "filter", &*element::by_ids(slice.iter().map(|document| &**document)));
        append(&mut find, "projection", &*rawdoc! { "_id": 1 });
        append(&mut find, "showRecordId", true);
        let mut cursor = source.batches(&namespace.db, find, 1_000).await.map_err(fault)?;
        while let Some(batch) = cursor.next().await {
            for value in batch.map_err(fault)?.doc_slices().map_err(fault)?.into_iter().flatten() {
                let Some(document) = value.as_document() else { continue };
                if let (Some(record), Some(id)) =
                    (number(document, "$recordId"), element::id_of(document))
                {
                    samples.push(Sample { record, id });
                }
            }
        }
    }
    Ok(samples)
}

/// Parts between evenly chosen samples.
fn join(samples: &[Sample], parts: u64) -> Vec<Part> {
    let mut bounds: Vec<&Sample> = Vec::new();
    let wanted = usize::try_from(parts.saturating_sub(1)).unwrap_or(usize::MAX).min(samples.len());
    for nth in 1..=wanted {
        bounds.push(&samples[nth * samples.len() / (wanted + 1)]);
    }
    bounds.dedup_by_key(|sample| sample.record);
    let mut after = None;
    let mut joined = Vec::with_capacity(bounds.len() + 1);
    for (number, bound) in (0_u32..).zip(&bounds) {
        joined.push(Part {
            number,
            after,
            until: Some(bound.record),
            until_id: Some(bound.id.clone()),
        });
        after = Some(bound.record);
    }
    let number = u32::try_from(joined.len()).expect("at most MOST_PARTS parts");
    joined.push(Part { number, after, until: None, until_id: None });
    joined
}

#[cfg(test)]
mod tests {
    use super::{Sample, join, part_count};
    use crate::engine::tuning::Tuning;
    use mongodb::bson::rawdoc;

    fn samples(count: i64) -> Vec<Sample> {
        (1..=count).map(|record| Sample { record, id: rawdoc! { "_id": record } }).collect()
    }

    #[test]
    fn parts_cover_everything_once() {
        for (count, parts) in [(0, 4), (1, 4), (3, 4), (40, 4), (1000, 37)] {
            let joined = join(&samples(count), parts);
            assert_eq!(joined[0].after, None);
            assert_eq!(joined.last().map(|p| p.until), Some(None));
            for pair in joined.windows(2) {
                assert_eq!(pair[0].until, pair[1].after, "{count} samples, {parts} parts");
                assert!(pair[0].until.is_some());
            }
            assert!(joined.len() as u64 <= parts.max(1));
        }
    }

    #[test]
    fn small_collections_are_one_part() {
        assert_eq!(part_count(0, &Tuning::default()), 1);
        assert_eq!(part_count(u64::MAX, &Tuning::default()), 4096);
    }
}
