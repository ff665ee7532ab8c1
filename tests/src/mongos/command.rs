//! A command as it came, and as it is rewritten for a shard; replies, and what is refused.

use mongodb::bson::raw::{BindRawBsonRef, CStr};
use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use placement::element::{self, Writer};

/// A command: its body, and documents that came beside it.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) body: RawDocumentBuf,
    pub(super) sequence: Option<(String, Vec<RawDocumentBuf>)>,
}

impl Command {
    pub(super) fn new(body: RawDocumentBuf) -> Self {
        Self { body, sequence: None }
    }

    /// The command's name.
    pub(super) fn name(&self) -> String {
        element::elements(&self.body)
            .next()
            .map(|first| String::from_utf8_lossy(first.name).into_owned())
            .unwrap_or_default()
    }

    pub(super) fn db(&self) -> &str {
        self.body.get_str("$db").unwrap_or("admin")
    }

    /// The collection it is about; empty where it is about none.
    pub(super) fn collection(&self) -> &str {
        self.body.get_str(self.name()).unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> String {
        format!("{}.{}", self.db(), self.collection())
    }

    /// The documents beside the command, or in its field of this name.
    pub(super) fn documents(&self, name: &str) -> Vec<RawDocumentBuf> {
        match &self.sequence {
            Some((sequence, documents)) if sequence == name => documents.clone(),
            _ => documents_in(&self.body, name),
        }
    }

    /// The same command with other fields: some left out, some added.
    pub(super) fn with(&self, left_out: &[&str], added: &RawDocument) -> Self {
        Self { body: with(&self.body, left_out, added), sequence: self.sequence.clone() }
    }

    /// A command of another name and value, with the fields of this one.
    pub(super) fn renamed(
        &self,
        first: &RawDocument,
        left_out: &[&str],
        added: &RawDocument,
    ) -> Self {
        let own = self.name();
        let left_out: Vec<&str> = left_out.iter().copied().chain([own.as_str()]).collect();
        Self { body: joined(first, &with(&self.body, &left_out, added)), sequence: None }
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.body.get_bool("autocommit").is_ok_and(|autocommit| !autocommit)
    }

    /// Whether sending it twice does no harm.
    pub(super) fn is_repeatable(&self) -> bool {
        const READS: [&str; 9] = [
            "find",
            "aggregate",
            "count",
            "distinct",
            "listCollections",
            "listIndexes",
            "listDatabases",
            "hello",
            "ping",
        ];
        !self.is_in_transaction()
            && (self.body.get("txnNumber").is_ok_and(|number| number.is_some())
                || READS.contains(&self.name().as_str()))
    }
}

/// A document's fields but for some, and more behind them.
pub(super) fn with(body: &RawDocument, left_out: &[&str], added: &RawDocument) -> RawDocumentBuf {
    let mut writer = Writer::default();
    let is_kept = |name: &[u8]| !left_out.iter().any(|left| left.as_bytes() == name);
    for field in
        element::elements(body).filter(|field| is_kept(field.name)).chain(element::elements(added))
    {
        writer.push(field.kind, field.name, field.value);
    }
    writer.finish()
}

/// The fields of both.
pub(super) fn joined(first: &RawDocument, second: &RawDocument) -> RawDocumentBuf {
    with(first, &[], second)
}

/// Adds a field whose name is not known at compile time.
pub(super) fn append(document: &mut RawDocumentBuf, name: &str, value: impl BindRawBsonRef) {
    let name: &CStr = name.try_into().expect("the names of commands and shards have no NUL");
    document.append(name, value);
}

/// The documents of an array in a field.
pub(super) fn documents_in(body: &RawDocument, name: &str) -> Vec<RawDocumentBuf> {
    let array = element::field(body, name).and_then(|field| field.document());
    array
        .into_iter()
        .flat_map(element::elements)
        .filter_map(|item| item.document().map(ToOwned::to_owned))
        .collect()
}

/// A number of any type.
pub(super) fn number(body: &RawDocument, name: &str) -> Option<i64> {
    match body.get(name).ok().flatten()? {
        RawBsonRef::Int32(n) => Some(i64::from(n)),
        RawBsonRef::Int64(n) => Some(n),
        RawBsonRef::Double(n) => Some(n as i64),
        RawBsonRef::Boolean(b) => Some(i64::from(b)),
        _ => None,
    }
}

/// Whether a reply says that its command went well.
pub(super) fn is_ok(reply: &RawDocument) -> bool {
    number(reply, "ok") == Some(1)
}

/// The error code of a reply that failed.
pub(super) fn code(reply: &RawDocument) -> Option<i32> {
    if is_ok(reply) {
        None
    } else {
        number(reply, "code").and_then(|code| i32::try_from(code).ok())
    }
}

/// What a shard answers to a version that is not its own: `StaleConfig`, `StaleDbVersion`,
/// `StaleEpoch`.
const STALE: [i32; 3] = [13388, 249, 150];

/// Whether a reply, or an error of a write, says that the route is stale.
pub(super) fn is_stale(reply: &RawDocument) -> bool {
    number(reply, "code")
        .and_then(|code| i32::try_from(code).ok())
        .is_some_and(|code| STALE.contains(&code))
}

/// Why a command is not carried out: answered as a server answers errors.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: i32,
    pub(super) name: &'static str,
    pub(super) message: String,
    pub(super) labels: Vec<&'static str>,
}

impl Refusal {
    pub(super) fn new(code: i32, name: &'static str, message: impl Into<String>) -> Self {
        Self { code, name, message: message.into(), labels: Vec::new() }
    }

    /// For what a mongos does and this stand-in does not.
    pub(super) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new(238, "NotImplemented", format!("the stand-in for mongos does not support {what}"))
    }

    pub(super) fn reply(&self) -> RawDocumentBuf {
        let mut reply = rawdoc! {
            "ok": 0.0, "errmsg": self.message.as_str(), "code": self.code, "codeName": self.name,
        };
        if !self.labels.is_empty() {
            let mut labels = RawArrayBuf::new();
            self.labels.iter().for_each(|label| labels.push(*label));
            append(&mut reply, "errorLabels", &*labels);
        }
        reply
    }
}

/// The newest times of several replies, for a reply made of them.
pub(super) fn append_times(reply: &mut RawDocumentBuf, from: &[RawDocumentBuf]) {
    let time = |of: &&RawDocumentBuf| of.get_timestamp("operationTime").ok();
    if let Some(newest) = from.iter().max_by_key(time).filter(|newest| time(newest).is_some()) {
        for name in ["operationTime", "$clusterTime"] {
            if let Ok(Some(value)) = newest.get(name) {
                append(reply, name, value);
            }
        }
    }
}
