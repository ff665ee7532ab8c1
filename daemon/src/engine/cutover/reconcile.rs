//! Compares the catalogues of both sides once the source takes no more writes, and gives the
//! destination what is left: views whose changes an older server does not report, options, and at
//! the very end the expiry that was held off.

use std::collections::BTreeSet;

use mongodb::bson::{RawBsonRef, RawDocumentBuf, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, Scope};

use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::engine::checkpoint::Checkpoints;
use crate::engine::progress::Progress;
use crate::mongo::{Deployment, append, command};

/// Options that `collMod` gives, as `listCollections` tells them and as `collMod` takes them.
const OPTIONS: [(&str, &str); 4] = [
    ("validator", "validator"),
    ("validationLevel", "validationLevel"),
    ("validationAction", "validationAction"),
    ("changeStreamPreAndPostImages", "changeStreamPreAndPostImages"),
];

/// Makes views and options on the destination what they are on the source. Returns the collections
/// that are capped on the source and not on the destination: they are to be copied again.
///
/// # Errors
/// The destination has documents under a name that the source has no more, and no event reported
/// why: nothing of them is dropped.
pub async fn catalogues(
    source: &Deployment,
    destination: &Deployment,
    scope: &Scope,
    checkpoints: &Checkpoints,
    progress: &Progress,
) -> Result<Vec<Namespace>, Fault> {
    let mut done = pass(source, destination, scope, checkpoints, progress).await?;
    if let Some(first) = done.views.first().cloned() {
        // What was made again is compared again.
        done = pass(source, destination, scope, checkpoints, progress).await?;
        if !done.views.is_empty() {
            let message =
                format!("the view {first} is not the same on both sides after it was made again");
            return Err(Fault {
                retryable: true,
                ..Fault::new(FaultCode::VerificationMismatch, message)
            });
        }
    }
    Ok(done.uncapped)
}

/// What one pass has done and found.
#[derive(Debug, Default)]
struct Pass {
    /// Views that were dropped or made.
    views: Vec<Namespace>,
    /// Capped on the source only.
    uncapped: Vec<Namespace>,
}

async fn pass(
    source: &Deployment,
    destination: &Deployment,
    scope: &Scope,
    checkpoints: &Checkpoints,
    progress: &Progress,
) -> Result<Pass, Fault> {
    let mut done = Pass::default();
    let (wanted, mut found) =
        tokio::try_join!(catalog::list(source, scope), catalog::list(destination, scope))?;
    let ours: BTreeSet<Namespace> = progress.created();
    for (namespace, there) in &found {
        let is_stale = match (wanted.get(namespace), there.kind) {
            (None, Kind::Collection | Kind::TimeSeries) if ours.contains(namespace) => {
                return Err(not_told_of(source, namespace).await?);
            }
            (None, Kind::View) => ours.contains(namespace),
            (Some(wanted), Kind::View) => {
                wanted.kind != Kind::View || wanted.options() != there.options()
            }
            (None | Some(_), Kind::Collection | Kind::TimeSeries) => false,
        };
        if is_stale {
            tracing::info!(%namespace, "a view that is not so on the source; dropped on the \
                 destination");
            catalog::drop(destination, namespace).await?;
            done.views.push(namespace.clone());
        }
    }
    for namespace in &done.views {
        found.remove(namespace);
    }
    for (namespace, info) in &wanted {
        match (info.kind, found.get(namespace)) {
            (Kind::View, None) => {
                checkpoints.store_created(vec![namespace.clone()]).await?;
                progress.add_created([namespace.clone()]);
                catalog::create(destination, &namespace.db, info.create_command()).await?;
                done.views.push(namespace.clone());
            }
            (Kind::Collection, Some(there))
                if there.kind == Kind::Collection && info.is_capped() != there.is_capped() =>
            {
                // Nothing makes a capped collection unlimited again but a copy, and that of an
                // unlimited one is not bounded.
                if there.is_capped() || !ours.contains(namespace) {
                    return Err(not_the_same(namespace, is_capped(info), is_capped(there)));
                }
                done.uncapped.push(namespace.clone());
            }
            (kind, Some(there)) if kind == there.kind => {
                if let Some(change) = change_of_options(info, there) {
                    modify(destination, namespace, "giving the source's options", change).await?;
                }
            }
            (kind @ (Kind::View | Kind::Collection | Kind::TimeSeries), there) => {
                let there = there.map_or("not there", |there| there.kind.with_article());
                return Err(not_the_same(namespace, kind.with_article(), there));
            }
        }
    }
    Ok(done)
}

/// The fault of documents on the destination that finalizing would have to drop for no known
/// reason.
async fn not_told_of(source: &Deployment, namespace: &Namespace) -> Result<Fault, Fault> {
    let buckets = catalog::buckets_of(namespace);
    if catalog::find(source, &buckets).await?.is_some() {
        // An election between the two leaves the buckets that the server makes first, and
        // measurements go on into them (6.0.5).
        let message = format!(
            "{namespace} is no time-series collection on the source, and has buckets of one there \
             ({buckets})"
        );
        return Ok(Fault::new(FaultCode::VerificationMismatch, message).with_remedy(
            "drop the buckets on the source, or make the time-series collection there",
        ));
    }
    let message = format!(
        "{namespace} is on the destination, the source has it no more, and no drop or rename of \
         it was told; nothing of it is dropped"
    );
    Ok(Fault::new(FaultCode::VerificationMismatch, message).with_remedy(
        "find out what became of it on the source; then drop it on the destination by hand, or \
         raise `generation`",
    ))
}

fn is_capped(info: &CollectionInfo) -> &'static str {
    if info.is_capped() { "capped" } else { "not capped" }
}

fn not_the_same(namespace: &Namespace, wanted: &str, there: &str) -> Fault {
    Fault::new(
        FaultCode::VerificationMismatch,
        format!(
            "after everything was applied {namespace} is {wanted} on the source, and on the \
             destination it is {there}"
        ),
    )
}

/// Gives a clustered or time-series collection the source's expiry, which was held off.
pub async fn expiry(destination: &Deployment, wanted: &CollectionInfo) -> Result<(), Fault> {
    if wanted.kind != Kind::TimeSeries && !wanted.is_clustered() {
        return Ok(());
    }
    let there = catalog::find(destination, &wanted.namespace).await?;
    let now = there.as_ref().and_then(|there| option_of(there, "expireAfterSeconds"));
    let mut change = command("collMod", &wanted.namespace.collection);
    match option_of(wanted, "expireAfterSeconds") {
        wanted if wanted == now => return Ok(()),
        Some(seconds) => append(&mut change, "expireAfterSeconds", seconds),
        None => append(&mut change, "expireAfterSeconds", "off"),
    }
    modify(destination, &wanted.namespace, "giving its expiry back to", change).await
}

pub(in crate::engine) async fn modify(
    destination: &Deployment,
    namespace: &Namespace,
    doing: &str,
    change: RawDocumentBuf,
) -> Result<(), Fault> {
    let mut change = change;
    append(&mut change, "writeConcern", &*rawdoc! { "w": "majority" });
    destination
        .raw_command(&namespace.db, change)
        .await
        .map(drop)
        .map_err(|e| destination.fault(&format!("{doing} {namespace}"), &e))
}

/// The `collMod` that gives a collection the source's options; `None` where they are the same.
pub(in crate::engine) fn change_of_options(
    wanted: &CollectionInfo,
    there: &CollectionInfo,
) -> Option<RawDocumentBuf> {
    let mut modify = command("collMod", &wanted.namespace.collection);
    let mut differs = false;
    for (option, setting) in OPTIONS {
        let (wanted, there) = (option_of(wanted, option), option_of(there, option));
        if wanted == there {
            continue;
        }
        match (wanted, option) {
            (Some(value), _) => append(&mut modify, setting, value),
            (None, "validator") => append(&mut modify, setting, &*RawDocumentBuf::new()),
            (None, "validationLevel") => append(&mut modify, setting, "strict"),
            (None, "validationAction") => append(&mut modify, setting, "error"),
            (None, _) => append(&mut modify, setting, &*rawdoc! { "enabled": false }),
        }
        differs = true;
    }
    let granularity = |info: &CollectionInfo| {
        let series = option_of(info, "timeseries")
            .and_then(|value| value.as_document().map(ToOwned::to_owned))?;
        series.get_str("granularity").ok().map(str::to_owned)
    };
    if let Some(wanted) = granularity(wanted)
        && granularity(there).is_some_and(|there| there != wanted)
    {
        append(&mut modify, "timeseries", &*rawdoc! { "granularity": wanted });
        differs = true;
    }
    differs.then_some(modify)
}

fn option_of<'a>(info: &'a CollectionInfo, option: &str) -> Option<RawBsonRef<'a>> {
    info.options()?.get(option).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::change_of_options;
    use crate::engine::catalog::CollectionInfo;
    use mongodb::bson::{RawDocumentBuf, rawdoc};

    fn info(options: RawDocumentBuf) -> CollectionInfo {
        CollectionInfo::new("a", rawdoc! { "name": "b", "options": options }).expect("an entry")
    }

    #[test]
    fn options_are_given_and_taken_away() {
        // The bounds of capped collections are given back in the end.
        let wanted =
            info(rawdoc! { "validator": { "a": 1 }, "capped": true, "size": 4096, "max": 5 });
        let there = info(rawdoc! { "validationAction": "warn", "capped": true, "size": 8192 });
        assert_eq!(
            change_of_options(&wanted, &there),
            Some(rawdoc! { "collMod": "b", "validator": { "a": 1 }, "validationAction": "error" })
        );
        assert_eq!(change_of_options(&wanted, &wanted), None);
    }
}
