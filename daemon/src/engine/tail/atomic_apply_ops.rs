//! Writes that a change stream does not tell of: those of an atomic `applyOps`.
//!
//! `mongorestore --oplogReplay` and tools that keep deployments alike write so. The server writes
//! such a command to its oplog as one entry, `{op: "c", o: {applyOps: […]}}`, and its change
//! streams take entries of this form for transactions only, which have a `txnNumber` (seen on 5.0
//! and 6.0; what is reported twice does no harm). Everything within is an insert, an update or a
//! delete: with a command among them, or with `allowAtomic: false`, the server applies each by
//! itself and writes an entry of its own for each, which is reported.
//!
//! So for each reply of a stream, which has come up to some cluster time, the entries up to that
//! time are looked for in the oplog, and put among its events; what they have written is read from
//! the source. That time is a majority's, so that nothing is read which is taken back. A router has
//! no oplog, and no `applyOps`.

use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::oplog_rollover;
use crate::engine::change_event::{Change, Event, Op, What};
use crate::engine::element::{self, elements};
use crate::mongo::{Deployment, cluster_time, error, server_code, timestamp};

/// A stretch of the oplog, in seconds, from which on it is seen to that it was still there whole: a
/// shorter one has just been told.
const LONG: u32 = 2;

/// Entries that no change stream reports.
fn filter() -> RawDocumentBuf {
    rawdoc! {
        "op": "c", "ns": "admin.$cmd", "o.applyOps": { "$exists": true },
        "txnNumber": { "$exists": false },
    }
}

/// Whether the user may read the oplog.
///
/// # Errors
/// What the server answers else.
pub(in crate::engine) async fn may_look(source: &Deployment) -> Result<bool, Fault> {
    let find =
        rawdoc! { "find": "oplog.rs", "limit": 1, "singleBatch": true, "projection": { "ts": 1 } };
    match source.collect("local", find).await {
        Ok(_) => Ok(true),
        Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => Ok(false),
        Err(e) => Err(source.fault("reading the oplog", &e)),
    }
}

/// What was written so after one time and up to another, without tokens, in order.
///
/// # Errors
/// When the oplog no longer holds all of that, may not be read (any more), or an entry cannot be
/// read; what the server answers else.
pub(super) async fn between(
    source: &Deployment,
    after: ClusterTime,
    through: ClusterTime,
) -> Result<Vec<Event>, Fault> {
    let mut filter = filter();
    filter.append(
        mongodb::bson::cstr!("ts"),
        rawdoc! { "$gt": timestamp(after), "$lte": timestamp(through) },
    );
    let find = rawdoc! { "find": "oplog.rs", "filter": filter };
    let entries = match source.collect("local", find).await {
        Ok(entries) => entries,
        Err(e) => {
            return Err(
                source.fault("looking in the oplog for what the change stream does not report", &e)
            );
        }
    };
    if through.t.saturating_sub(after.t) > LONG
        && source.oplog_start().await.is_some_and(|oldest| oldest > after)
    {
        let message = format!(
            "the oplog of the source ({}) no longer holds all that its change stream has told",
            source.hosts
        );
        return Err(Fault::new(FaultCode::ResumePointLost, message)
            .with_remedy(oplog_rollover::remedy("the source")));
    }
    let mut events = Vec::new();
    for entry in entries {
        read(&entry, &mut events)?;
    }
    Ok(events)
}

fn unusable() -> Fault {
    Fault::new(FaultCode::Internal, "an entry of the oplog with applyOps cannot be read")
}

fn read(entry: &RawDocument, events: &mut Vec<Event>) -> Result<(), Fault> {
    let time = entry.get_timestamp("ts").map(cluster_time).map_err(|_| unusable())?;
    let list = entry
        .get_document("o")
        .ok()
        .and_then(|o| element::field(o, "applyOps")?.document())
        .ok_or_else(unusable)?;
    for operation in elements(list) {
        let operation = operation.document().ok_or_else(unusable)?;
        events.push(Event {
            time,
            token: RawDocumentBuf::new(),
            what: what(operation)?,
            bytes: operation.as_bytes().len(),
            kind: Vec::new(),
            uuid: element::field(operation, "ui").map(|uuid| uuid.value.to_vec()),
        });
    }
    Ok(())
}

fn what(operation: &RawDocument) -> Result<What, Fault> {
    let kind = element::text(operation, "op").ok_or_else(unusable)?;
    if kind == b"n" {
        return Ok(What::Nothing);
    }
    let name = element::text(operation, "ns").ok_or_else(unusable)?;
    let namespace: Namespace = element::shown(name).parse().map_err(|_| unusable())?;
    if std::str::from_utf8(name).is_err() {
        return Ok(What::Odd(namespace, "applyOps".to_owned(), None));
    }
    let id_in = |field: &str| operation.get_document(field).ok().and_then(element::id_of);
    let (id, op) = match kind {
        // Where there is a document of that `_id` it is a replacement, which keeps the form that
        // its `_id` has.
        b"i" => (id_in("o"), Op::Reread),
        b"d" => (id_in("o"), Op::Delete),
        // A description of a change, in one of several forms, or a replacement, which may be an
        // insertion as well.
        b"u" => (id_in("o2").or_else(|| id_in("o")), Op::Reread),
        _ => {
            return Ok(What::Unknown(
                format!("{} in applyOps", element::shown(kind)),
                Some(namespace),
            ));
        }
    };
    Ok(What::Change(Change { namespace, id: id.ok_or_else(unusable)?, op }))
}

/// Puts what was not reported among what was, each with the token of what comes before it.
/// `before`: the token that the first event of the reply comes after.
///
/// # Errors
/// When there is no such token.
pub(super) fn among(
    told: Vec<Event>,
    untold: Vec<Event>,
    before: Option<&RawDocumentBuf>,
) -> Result<Vec<Event>, Fault> {
    if untold.is_empty() {
        return Ok(told);
    }
    let mut all = Vec::with_capacity(told.len() + untold.len());
    let mut untold = untold.into_iter().peekable();
    let mut token = before.cloned();
    let no_token = || {
        let mut fault = Fault::new(
            FaultCode::Internal,
            "a change stream tells of something before it has told where it stands",
        );
        fault.retryable = true;
        fault
    };
    for event in told {
        while let Some(earlier) = untold.next_if(|untold| untold.time < event.time) {
            all.push(Event { token: token.clone().ok_or_else(no_token)?, ..earlier });
        }
        token = Some(event.token.clone());
        all.push(event);
    }
    for later in untold {
        all.push(Event { token: token.clone().ok_or_else(no_token)?, ..later });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{RawDocumentBuf, Timestamp, rawdoc};
    use schemas::cluster_time::ClusterTime;

    use super::{among, read};
    use crate::engine::change_event::{Event, Op, What};

    fn event(i: u32, token: &str) -> Event {
        Event {
            time: ClusterTime { t: 5, i },
            token: rawdoc! { "_data": token },
            what: What::Nothing,
            bytes: 1,
            kind: Vec::new(),
            uuid: None,
        }
    }

    #[test]
    fn each_operation_is_a_change() {
        let entry = rawdoc! {
            "op": "c", "ts": Timestamp { time: 5, increment: 2 },
            "o": { "applyOps": [
                {
                    "op": "i", "ns": "a.b.c", "o": { "x": 1, "_id": 7 },
                }, { "op": "u", "ns": "a.b", "o2": { "_id": 8 }, "o": { "$v": 2, "diff": {} } },
                { "op": "d", "ns": "a.b", "o": { "_id": 9 } }, { "op": "n", "ns": "", "o": {} },
            ] },
        };
        let mut events = Vec::new();
        read(&entry, &mut events).expect("an entry");
        let told: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event.what {
                What::Change(change) => Some((change.namespace.to_string(), change.id, change.op)),
                _ => None,
            })
            .collect();
        let expected = [("a.b.c", 7, Op::Reread), ("a.b", 8, Op::Reread), ("a.b", 9, Op::Delete)];
        assert_eq!(
            told,
            expected.map(|(name, id, op)| (name.to_owned(), rawdoc! { "_id": id }, op))
        );
        assert!(
            read(
                &rawdoc! {
                    "ts": Timestamp { time: 5, increment: 2 }, "o": { "applyOps": [{ "op": "i" }] },
                },
                &mut Vec::new(),
            )
            .is_err()
        );
    }

    #[test]
    fn what_was_not_told_stands_at_its_time_behind_the_token_before() {
        let told = vec![event(2, "two"), event(4, "four")];
        let untold = |times: &[u32]| times.iter().map(|i| event(*i, "")).collect::<Vec<_>>();
        let before = rawdoc! { "_data": "before" };
        let all = among(told.clone(), untold(&[1, 3, 5]), Some(&before)).expect("all");
        let tokens: Vec<(u32, &str)> = all
            .iter()
            .map(|event| (event.time.i, event.token.get_str("_data").expect("a token")))
            .collect();
        assert_eq!(tokens, [(1, "before"), (2, "two"), (3, "two"), (4, "four"), (5, "four")]);
        assert!(among(told.clone(), untold(&[1]), None).is_err());
        assert!(among(told.clone(), untold(&[3]), None).is_ok_and(|all| all.len() == 3));
        assert_eq!(among(told.clone(), Vec::new(), None::<&RawDocumentBuf>).expect("all"), told);
    }
}
