//! Transactions that are open on a source. A block of its writes waits for them, and every read of
//! the source waits behind that (seen on 5.0.32 to 6.0.27): so they are looked for before the block
//! is asked for, and waited out for a bounded time.

use std::time::Duration;

use futures_util::future::try_join_all;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;

use crate::engine::source::Source;
use crate::mongo::{Deployment, append, error, number, server_code};

/// One that is open for less is as good as over: an application at work has some at any moment.
const LONG: Duration = Duration::from_secs(1);
/// Those that are named at most.
const NAMED: usize = 3;

/// What anybody can do about them.
pub const REMEDY: &str = "have the application commit or abort them, or end their sessions on the \
     source (killSessions); the server ends one itself after transactionLifetimeLimitSeconds, \
     which is 60 s unless it was changed";

/// A transaction that has been open for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// For how long.
    pub open_for: Duration,
    /// Where, and whose, in words.
    words: String,
}

/// What a look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// These, the longest first.
    Open(Vec<Open>),
    /// Not all of them may be seen, for this reason.
    Hidden(String),
}

impl Open {
    fn read(shard: &ShardName, operation: &RawDocument) -> Option<Self> {
        let transaction = operation.get_document("transaction").ok()?;
        let micros = u64::try_from(number(transaction, "timeOpenMicros")?).ok()?;
        let open_for = Duration::from_micros(micros);
        let text = |key: &str| operation.get_str(key).ok().filter(|text| !text.is_empty());
        let session = operation.get_document("lsid").and_then(|lsid| lsid.get_binary("id")).ok();
        let session =
            session.map(|id| id.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        // Through a router each reports its shard.
        let shard = text("shard").unwrap_or(&shard.0);
        let mut words = format!("on {shard} for {} s", open_for.as_secs());
        let client = text("client").or_else(|| text("client_s"));
        for (what, value) in
            [("client", client), ("application", text("appName")), ("session", session.as_deref())]
        {
            if let Some(value) = value {
                words.push_str(&format!(", {what} {value}"));
            }
        }
        Some(Self { open_for, words })
    }
}

/// Says how many there are, and names the longest.
#[must_use]
pub fn words(open: &[Open]) -> String {
    let named: Vec<&str> = open.iter().take(NAMED).map(|one| &*one.words).collect();
    let more = if open.len() > NAMED {
        format!("; and {} more", open.len() - NAMED)
    } else {
        String::new()
    };
    let (number, are) = if open.len() == 1 {
        ("1 transaction".to_owned(), "is")
    } else {
        (format!("{} transactions", open.len()), "are")
    };
    format!("{number} {are} open on the source: {}{more}", named.join("; "))
}

/// Looks for transactions that have been open for a while, on these.
///
/// # Errors
///
/// A server that does not answer.
pub async fn look(shards: &[(&ShardName, &Deployment)]) -> Result<Found, Fault> {
    let looks = shards.iter().map(|(name, shard)| async move {
        let stage = rawdoc! { "allUsers": true, "idleSessions": true, "idleConnections": false };
        let least = i64::try_from(LONG.as_micros()).unwrap_or(i64::MAX);
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(&*rawdoc! { "$currentOp": stage });
        pipeline.push(&*rawdoc! { "$match": { "transaction.timeOpenMicros": { "$gte": least } } });
        let fields = rawdoc! {
            "transaction": 1, "lsid": 1, "client": 1, "client_s": 1, "appName": 1, "shard": 1,
        };
        pipeline.push(&*rawdoc! { "$project": fields });
        let mut ask = RawDocumentBuf::new();
        append(&mut ask, "aggregate", 1);
        append(&mut ask, "pipeline", &*pipeline);
        append(&mut ask, "cursor", &*rawdoc! {});
        match shard.collect("admin", ask).await {
            Ok(operations) => {
                Ok(Found::Open(operations.iter().filter_map(|one| Open::read(name, one)).collect()))
            }
            Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => {
                let why = format!(
                    "the user on the source ({}) may not see what others do there: it lacks inprog",
                    shard.hosts
                );
                Ok(Found::Hidden(why))
            }
            Err(e) => Err(shard.fault("looking for open transactions", &e)),
        }
    });
    let mut all = Vec::new();
    for found in try_join_all(looks).await? {
        match found {
            Found::Open(open) => all.extend(open),
            hidden @ Found::Hidden(_) => return Ok(hidden),
        }
    }
    all.sort_by_key(|one: &Open| std::cmp::Reverse(one.open_for));
    Ok(Found::Open(all))
}

/// Looks on a whole source.
///
/// # Errors
///
/// A server that does not answer.
pub async fn of(source: &Source) -> Result<Found, Fault> {
    let shards: Vec<_> =
        source.shards.iter().map(|shard| (&shard.name, &*shard.deployment)).collect();
    look(&shards).await
}

/// The fault for transactions that do not end.
#[must_use]
pub fn fault(open: &[Open]) -> Fault {
    let message = format!(
        "{}; a block of its writes waits for them, and every read of the source behind it",
        words(open)
    );
    Fault::new(FaultCode::WritesContinued, message)
        .with_remedy(format!("{REMEDY}; then acknowledge again"))
}

#[cfg(test)]
mod tests {
    use super::{Open, fault, words};
    use mongodb::bson::{Binary, rawdoc, spec::BinarySubtype};
    use schemas::id::ShardName;

    #[test]
    fn an_open_transaction_is_named_by_where_and_whose_it_is() {
        let id = Binary { subtype: BinarySubtype::Uuid, bytes: vec![0xab, 1] };
        let operation = rawdoc! {
            "type": "idleSession", "client": "10.0.0.7:5123", "appName": "", "lsid": { "id": id },
            "transaction": {
                "parameters": { "txnNumber": 2_i64 }, "timeOpenMicros": 14_500_000_i64,
            },
        };
        let open = [Open::read(&ShardName("rs0".to_owned()), &operation).expect("a transaction")];
        assert_eq!(
            words(&open),
            "1 transaction is open on the source: on rs0 for 14 s, client 10.0.0.7:5123, session \
             ab01"
        );
        assert!(fault(&open).remedy.contains("killSessions"));
        assert_eq!(Open::read(&ShardName("rs0".to_owned()), &rawdoc! { "type": "op" }), None);
    }
}
