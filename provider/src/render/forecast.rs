//! A forecast in rows of a label and a sentence.

use schemas::observed::{Forecast, ShardForecast};

use super::clean;
use crate::units;

/// What the copy time leaves out: it is the size of all over the speed of one reader of the largest
/// collection.
const NOT_KNOWN: &str = "how fast the destination takes the data, what index builds add, and the \
     load of both sides meanwhile";

/// The forecast's rows.
#[must_use]
pub fn rows(forecast: &Forecast) -> Vec<(String, String)> {
    let data = format!(
        "{} in {} of {}",
        units::bytes(forecast.bytes),
        units::counted(forecast.documents, "document"),
        units::counted(forecast.collections, "collection")
    );
    let time = match forecast.copy_seconds {
        Some(seconds) if seconds < 1.0 => {
            format!("{}, from a measured sample", units::estimate(seconds))
        }
        Some(seconds) => format!("about {}, from a measured sample", units::estimate(seconds)),
        None => "unknown: nothing could be measured".to_owned(),
    };
    let mut rows = vec![("data".to_owned(), data), ("copy time".to_owned(), time)];
    if forecast.copy_seconds.is_some_and(|seconds| seconds > 0.0) {
        rows.push(("not known".to_owned(), NOT_KNOWN.to_owned()));
    }
    rows.extend(
        forecast
            .shards
            .iter()
            .map(|shard| (format!("oplog of {}", clean(&shard.name.0)), oplog(shard))),
    );
    rows
}

fn oplog(shard: &ShardForecast) -> String {
    let window = match shard.oplog_window_seconds {
        Some(seconds) => format!("spans {}", units::whole_seconds(seconds)),
        None => "its span is unknown".to_owned(),
    };
    let fits = match shard.fits {
        Some(true) => "the copy ends well within it",
        Some(false) => "too short: the copy may not end before it rolls over",
        None => "whether the copy ends within it is unknown",
    };
    format!("{window}; {fits}")
}
