//! Compares single documents exactly: while the tail stands still the destination is what the
//! source was at one cluster time.
//!
//! As exactly as the source reports: a collection that is dropped or has another name by now has no
//! documents as of a time at which it had (seen on 6.0.5). What failed is therefore compared again
//! only when the tail has come to where the source was after the failure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::Fault;
use schemas::namespace::Namespace;
use schemas::observed::MismatchKind;
use schemas::spec::VerifyMode;

use super::reader::{Imprint, Pair, Reader, imprint, only_id};
use super::store::{Failure, Queued};
use super::{Sides, Until, Verifier, difference};
use crate::engine::concurrent::{self, Piece};
use crate::engine::element;
use crate::mongo::{Deployment, append, command, error, server_code, timestamp};

/// Documents rechecked at once: the tail stands still for as long as it takes to read them on both
/// sides.
const RECHECK_DOCUMENTS: usize = 1_000;
/// Documents in one reply: a few small ones or one of 16 MB.
const REPLY_DOCUMENTS: u32 = RECHECK_DOCUMENTS as u32;
/// The server's codes for a snapshot that a collection does not have (any more).
const SNAPSHOT_GONE: [i32; 2] = [server_code::SNAPSHOT_TOO_OLD, server_code::SNAPSHOT_UNAVAILABLE];
/// Exact comparisons that a document fails before it is a mismatch. One can fall between two events
/// of one transaction.
const FAILURES: u32 = 2;
/// The same where the source cannot be read as of the time that is applied, and so may only be
/// ahead.
const INEXACT_FAILURES: u32 = 10;
/// Namespaces compared at once: each is two small commands, mostly a wait; those of large documents
/// take turns by the memory.
const AT_ONCE: usize = 8;

impl Verifier {
    /// Compares what is queued. Returns how many documents that were.
    pub async fn recheck(self: &Arc<Self>, sides: &Sides, until: Until) -> Result<usize, Fault> {
        if self.mode == VerifyMode::Off {
            return Ok(0);
        }
        let mut done = 0;
        loop {
            let mut slice = self.store.next(RECHECK_DOCUMENTS).await?;
            if slice.iter().any(|queued| queued.failures > 0) {
                sides.catch_up().await?;
                slice = self.store.next(RECHECK_DOCUMENTS).await?;
            }
            let Some(oldest) = slice.first() else {
                self.count().await?;
                return Ok(done);
            };
            self.store.next_generation(oldest.seq).await?;
            done += slice.len();
            let mut by_namespace: BTreeMap<Namespace, Vec<Queued>> = BTreeMap::new();
            for queued in slice {
                by_namespace.entry(queued.namespace.clone()).or_default().push(queued);
            }
            {
                let _standing_still = sides.tail_lock.write().await;
                let comparisons =
                    by_namespace.into_iter().map(|(namespace, queued)| -> Piece<'_, ()> {
                        Box::pin(
                            async move { self.compare_exactly(sides, &namespace, queued).await },
                        )
                    });
                concurrent::all(AT_ONCE, comparisons.collect()).await?;
            }
            match until {
                Until::Slice if done < RECHECK_DOCUMENTS => {
                    self.count().await?;
                    return Ok(done);
                }
                Until::Slice => {
                    self.count_now_and_then().await?;
                    return Ok(done);
                }
                Until::Empty => {}
            }
        }
    }

    async fn compare_exactly(
        &self,
        sides: &Sides,
        namespace: &Namespace,
        queued: Vec<Queued>,
    ) -> Result<(), Fault> {
        let Some(applied) = sides.progress.applied() else { return Ok(()) };
        let ids = || queued.iter().map(|one| &*one.id);
        sides.source.introduce(applied).await?;
        // What opens the readers brings their first replies.
        let memory = &sides.source.entry.memory;
        let share = memory.pair().await;
        let snapshot = rawdoc! { "level": "snapshot", "atClusterTime": timestamp(applied) };
        let (ours, exact) =
            match source(sides, namespace, find(namespace, ids(), Some(&snapshot))).await? {
                Some(ours) => (ours, true),
                // Capped collections have no snapshots, and one whose definition has just changed
                // none that is old enough.
                None => {
                    let concern = rawdoc! { "level": "majority" };
                    let found = Reader::open(
                        &sides.source.entry,
                        namespace,
                        find(namespace, ids(), Some(&concern)),
                        REPLY_DOCUMENTS,
                    );
                    (found.await?, false)
                }
            };
        let theirs = Reader::open(
            &sides.destination,
            namespace,
            find(namespace, ids(), None),
            REPLY_DOCUMENTS,
        )
        .await?;
        let mut found = pair(Pair::new(ours, theirs, memory, share)).await?;
        let failures = if exact { FAILURES } else { INEXACT_FAILURES };
        let mut verdicts = Vec::with_capacity(queued.len());
        for one in queued {
            let failure = match found.remove(one.id.as_bytes()) {
                None | Some(Verdict::Equal) => None,
                Some(Verdict::Unequal(kind)) => {
                    let is_open = one.failures + 1 >= failures;
                    let paths = match kind {
                        MismatchKind::Different if is_open => {
                            let concern = exact.then_some(&snapshot);
                            paths(sides, namespace, &one.id, concern).await?
                        }
                        _ => Vec::new(),
                    };
                    Some(Failure { kind, paths, is_open })
                }
            };
            verdicts.push((one, failure));
        }
        self.store.judge(verdicts, self.is_source_stopped.load(Ordering::Acquire)).await
    }
}

enum Verdict {
    Equal,
    Unequal(MismatchKind),
}

/// Opens the source as of the time that is applied; `None`: it has no snapshot of that time.
async fn source<'a>(
    sides: &'a Sides,
    namespace: &'a Namespace,
    find: RawDocumentBuf,
) -> Result<Option<Reader<'a>>, Fault> {
    let mut reader =
        match Reader::try_open(&sides.source.entry, namespace, find, REPLY_DOCUMENTS).await {
            Ok(reader) => reader,
            Err(e) if error::code(&e).is_some_and(|code| SNAPSHOT_GONE.contains(&code)) => {
                return Ok(None);
            }
            Err(e) => return Err(sides.source.entry.fault(&format!("comparing {namespace}"), &e)),
        };
    reader.fill().await?;
    Ok(Some(reader))
}

/// Finds what two sides hold of the same documents: by their bytes where they come in step, and by
/// imprints of them where not.
async fn pair(mut pair: Pair<'_>) -> Result<HashMap<Vec<u8>, Verdict>, Fault> {
    let mut alone: [HashMap<Vec<u8>, Imprint>; 2] = [HashMap::new(), HashMap::new()];
    let mut found = HashMap::new();
    while pair.fill().await? {
        let Pair { ours, theirs, .. } = &mut pair;
        match (ours.front(), theirs.front()) {
            (Some(mine), Some(other)) if mine == other => {
                found.insert(only_id(mine).into_bytes(), Verdict::Equal);
                ours.pass();
                theirs.pass();
            }
            _ => {
                for (side, reader) in [(0, ours), (1, theirs)] {
                    let Some(document) = reader.front() else { continue };
                    let (id, print) = (only_id(document).into_bytes(), imprint(document));
                    reader.pass();
                    match alone[1 - side].remove(&id) {
                        Some(partner) if partner == print => found.insert(id, Verdict::Equal),
                        Some(_) => found.insert(id, Verdict::Unequal(MismatchKind::Different)),
                        None => {
                            alone[side].insert(id, print);
                            None
                        }
                    };
                }
            }
        }
    }
    let [only_ours, only_theirs] = alone;
    found.extend(only_ours.into_keys().map(|id| (id, Verdict::Unequal(MismatchKind::Missing))));
    found.extend(only_theirs.into_keys().map(|id| (id, Verdict::Unequal(MismatchKind::Extra))));
    Ok(found)
}

/// The paths at which one document differs.
async fn paths(
    sides: &Sides,
    namespace: &Namespace,
    id: &RawDocument,
    concern: Option<&RawDocumentBuf>,
) -> Result<Vec<String>, Fault> {
    let one = |deployment: Arc<Deployment>, concern: Option<RawDocumentBuf>| async move {
        let found =
            deployment.collect(&namespace.db, find(namespace, [id], concern.as_ref())).await;
        found
            .map(|documents| documents.into_iter().next())
            .map_err(|e| deployment.fault(&format!("comparing {namespace}"), &e))
    };
    let _share = sides.source.entry.memory.pair().await;
    let (ours, theirs) = tokio::try_join!(
        one(Arc::clone(&sides.source.entry), concern.cloned()),
        one(Arc::clone(&sides.destination), None)
    )?;
    Ok(match (ours, theirs) {
        (Some(ours), Some(theirs)) => difference::paths(&ours, &theirs),
        _ => Vec::new(),
    })
}

fn find<'a>(
    namespace: &Namespace,
    ids: impl IntoIterator<Item = &'a RawDocument>,
    concern: Option<&RawDocumentBuf>,
) -> RawDocumentBuf {
    let mut find = command("find", &namespace.collection);
    append(&mut find, "filter", &*element::by_ids(ids));
    // Both sides in one order: documents then meet their partners, and need not be kept.
    append(&mut find, "sort", &*rawdoc! { "_id": 1 });
    if let Some(concern) = concern {
        append(&mut find, "readConcern", &**concern);
    }
    find
}
