//! How large the copy is and how long it takes, by a measured sample; and the source's oplog
//! against that time.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use mongodb::bson::{Bson, Document, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::observed::{Forecast, Outcome, ShardForecast};
use schemas::spec::RateLimit;
use tokio::sync::Semaphore;

use super::Findings;
use crate::engine::catalog::{self, CollectionInfo};
use crate::engine::concurrent::{self, Piece};
use crate::engine::source::behind_router;
use crate::mongo::{Deployment, append, command};

/// How long the source's reading speed is measured for the forecast: a plan waits for it.
const SAMPLE_TIME: Duration = Duration::from_millis(700);
/// Collections whose sizes are read at once for the forecast.
const SIZED_AT_ONCE: usize = 8;
/// One sample at a time: several would measure each other.
static SAMPLING: Semaphore = Semaphore::const_new(1);
/// The share of the oplog's window that a copy may be expected to take: the sample is of reading
/// alone.
const WELL_WITHIN: f64 = 0.5;
/// A copy that takes less, in seconds, is no loss where it has to begin anew: a burst of writes is
/// no reason to stop it.
const WORTH_STOPPING: f64 = 60.0;
/// An oplog that is this full drops its oldest entries for new ones.
const FULL: f64 = 0.95;

/// Sizes from the catalogue, and the copy's time from a measured sample of the source's reading
/// speed; no less than what a declared rate makes of it.
///
/// `followed`: the replica sets whose oplogs must span that time.
pub(super) async fn forecast(
    source: &Deployment,
    followed: &[(ShardName, Deployment)],
    catalogue: &[CollectionInfo],
    rate_limit: Option<RateLimit>,
) -> Result<Forecast, Fault> {
    let sizes = catalogue.iter().filter(|info| info.has_documents()).map(
        |info| -> Piece<'_, (Namespace, (u64, u64))> {
            Box::pin(async move {
                let data = info.data();
                let size = catalog::size(source, &data).await?;
                Ok((data, size))
            })
        },
    );
    let sizes = concurrent::all(SIZED_AT_ONCE, sizes.collect()).await?;
    let mut forecast = Forecast::default();
    let mut largest: Option<(u64, Namespace)> = None;
    for (data, (documents, bytes)) in sizes {
        forecast.collections += 1;
        forecast.documents += documents;
        forecast.bytes += bytes;
        if largest.as_ref().is_none_or(|(most, _)| bytes > *most) {
            largest = Some((bytes, data));
        }
    }
    let measured = match largest {
        None => Some(0.0),
        Some((_, data)) => read_speed(source, &data)
            .await?
            .map(|bytes_per_second| forecast.bytes as f64 / bytes_per_second),
    };
    forecast.copy_seconds = measured
        .map(|seconds| seconds.max(at_rate(rate_limit, forecast.documents, forecast.bytes)));
    let windows = join_all(followed.iter().map(|(_, shard)| oplog_window(shard))).await;
    for ((name, _), oplog_window_seconds) in followed.iter().zip(windows) {
        let fits = forecast
            .copy_seconds
            .zip(oplog_window_seconds)
            .map(|(copy, window)| copy <= window as f64 * WELL_WITHIN);
        forecast.shards.push(ShardForecast { name: name.clone(), oplog_window_seconds, fits });
    }
    Ok(forecast)
}

/// How many seconds so much takes at a declared rate; 0 without one.
fn at_rate(rate_limit: Option<RateLimit>, documents: u64, bytes: u64) -> f64 {
    match rate_limit {
        None => 0.0,
        Some(RateLimit::Bytes(a_second)) => bytes as f64 / a_second as f64,
        Some(RateLimit::Documents(a_second)) => documents as f64 / a_second as f64,
    }
}

/// How many seconds of writes the oplog holds: what it spans, and where it is not full yet, what it
/// will at the same rate.
async fn oplog_window(source: &Deployment) -> Option<u64> {
    let span = source.oplog_window_seconds().await?;
    let stats = doc! {
        "aggregate": "oplog.rs", "pipeline": [{ "$collStats": { "storageStats": {} } }],
        "cursor": {},
    };
    let fill = source.command("local", stats).await.ok().and_then(|reply| {
        let stats = reply
            .get_document("cursor")
            .ok()?
            .get_array("firstBatch")
            .ok()?
            .first()?
            .as_document()?;
        fill(stats.get_document("storageStats").ok()?)
    });
    Some(window(span, fill))
}

/// The share of its size that the oplog has filled.
fn fill(stats: &Document) -> Option<f64> {
    let bytes = |name: &str| match stats.get(name)? {
        Bson::Int32(n) => Some(f64::from(*n)),
        Bson::Int64(n) => Some(*n as f64),
        Bson::Double(n) => Some(*n),
        _ => None,
    };
    let (used, most) = (bytes("size")?, bytes("maxSize")?);
    (used > 0.0 && most > 0.0).then(|| used / most)
}

fn window(span: u64, fill: Option<f64>) -> u64 {
    match fill {
        // A server that has just begun has written for less than a second.
        Some(fill) if fill < FULL => (span.max(1) as f64 / fill) as u64,
        Some(_) | None => span,
    }
}

/// Whether the source's oplog still holds what was written at the copy's start when the copy ends:
/// the tail begins there.
pub(super) fn oplog(findings: &mut Findings, source: &Deployment, forecast: &Forecast) {
    let name = "oplog_window";
    let remedy =
        "enlarge the source's oplog (replSetResizeOplog), or migrate in parts, by `namespaces`";
    for shard in &forecast.shards {
        let name_of = &shard.name.0;
        let Some(window) = shard.oplog_window_seconds else {
            if *name_of == behind_router::NAME {
                findings.warn(
                    name,
                    "the shards' oplogs cannot be read through the router: whether they hold what \
                     is written during the copy is not known",
                    "let the daemon's machine reach the shards, or see to it on each shard that \
                     its oplog spans the copy",
                );
                continue;
            }
            findings.warn(
                name,
                format!(
                    "the oplog of {name_of} (local.oplog.rs) may not be read, so that its \
                     window is not known"
                ),
                format!(
                    "grant clusterMonitor, or read on local, to the user on the source at {}",
                    source.hosts
                ),
            );
            continue;
        };
        let holds = format!("the oplog of {name_of} holds {window} s of writes");
        match forecast.copy_seconds {
            None => findings.note(
                name,
                Outcome::Ok,
                format!("{holds}; there is nothing to measure the copy by"),
            ),
            Some(copy) if copy > window as f64 && copy >= WORTH_STOPPING => {
                let message = format!(
                    "{holds}, and the copy takes {copy:.0} s at the least: what is written \
                     meanwhile would be lost"
                );
                findings.fail(
                    name,
                    &Fault::new(FaultCode::ResumePointLost, message).with_remedy(remedy),
                );
            }
            Some(copy) if shard.fits == Some(false) => {
                findings.warn(
                    name,
                    format!(
                        "{holds}, and the copy may take most of that: {copy:.0} s at the least"
                    ),
                    remedy,
                );
            }
            Some(copy) => findings.note(
                name,
                Outcome::Ok,
                format!("{holds}, and the copy takes about {copy:.0} s"),
            ),
        }
    }
}

/// Bytes a second that one reader gets from a collection; `None` where there is nothing to read.
async fn read_speed(source: &Deployment, namespace: &Namespace) -> Result<Option<f64>, Fault> {
    let fault = |e: mongodb::error::Error| source.fault(&format!("sampling {namespace}"), &e);
    let mut find = command("find", &namespace.collection);
    append(&mut find, "hint", &*rawdoc! { "$natural": 1 });
    let _alone = SAMPLING.acquire().await;
    let _share = source.memory.reply().await;
    let began = Instant::now();
    let mut cursor = source.batches(&namespace.db, find, 2_000).await.map_err(fault)?;
    let mut bytes = 0_usize;
    // The first batch counts however long it takes: a source may be that slow.
    while let Some(batch) = cursor.next().await {
        bytes += batch.map_err(fault)?.doc_slices().map_err(fault)?.as_bytes().len();
        if began.elapsed() >= SAMPLE_TIME {
            break;
        }
    }
    // An empty batch is an array of five bytes.
    Ok((bytes > 5).then(|| bytes as f64 / began.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use schemas::spec::RateLimit;

    use super::{at_rate, fill, window};

    #[test]
    fn a_declared_rate_takes_its_time() {
        assert_eq!(at_rate(Some(RateLimit::Documents(800)), 10_000, 1 << 30), 12.5);
        assert_eq!(at_rate(Some(RateLimit::Bytes(1_000_000)), 1, 3_000_000), 3.0);
        assert_eq!(at_rate(None, 10_000, 3_000_000), 0.0);
    }

    #[test]
    fn an_oplog_that_is_not_full_will_hold_more() {
        assert_eq!(fill(&doc! { "size": 250, "maxSize": 1_000_i64 }), Some(0.25));
        assert_eq!(fill(&doc! { "size": 0, "maxSize": 1_000_i64 }), None);
        assert_eq!(
            (window(60, Some(0.25)), window(60, Some(0.99)), window(60, None)),
            (240, 60, 60)
        );
        assert_eq!(window(0, Some(0.001)), 1_000);
    }
}
