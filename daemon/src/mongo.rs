//! One MongoDB deployment as the engine sees it: connected, known by its `hello`, spoken to with
//! raw commands.
//!
//! What errors mean to an operator is decided in [`error`]; how a deployment is reached in
//! [`mod@connect`].

pub mod connect;
pub mod connection_files;
pub mod error;
pub mod server_code;
pub mod shard_keys;
pub mod write_observer;

use std::sync::{Arc, OnceLock};

use futures_util::StreamExt as _;
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, Timestamp, doc};
use mongodb::options::{ReadPreference, SelectionCriteria, ServerAddress};
use mongodb::raw_batch_cursor::RawBatchCursor;
use mongodb::{ServerInfo, ServerType};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};

use self::write_observer::{OnItsWay, WriteObserver};
pub use connect::connect;
use shard_keys::ShardKeys;

use crate::memory::Memory;

/// Which of a migration's two deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Read from.
    Source,
    /// Written to.
    Destination,
}

impl Side {
    /// The side's name in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A server's version, as far as features depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl ServerVersion {
    /// From its three numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl std::fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What kind of deployment answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// A server outside of a replica set.
    Standalone,
    /// A replica set of this name.
    ReplicaSet(String),
    /// A sharded cluster, through a mongos.
    Sharded,
}

/// A connected deployment.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The driver's client; cheap to clone.
    pub client: mongodb::Client,
    /// Which side it is.
    pub side: Side,
    /// What it is.
    pub topology: Topology,
    /// Its primary's version.
    pub version: ServerVersion,
    /// The id of its primary's process: equal through any URI.
    pub process_id: Option<mongodb::bson::oid::ObjectId>,
    /// Whether somebody is logged in: it has access control then.
    pub is_authenticated: bool,
    /// The hosts of the URI, for messages.
    pub hosts: String,
    /// Connections that its client may have at once.
    pub most_connections: u32,
    /// Marks this run's writes (`comment`), so that those still under way can be found.
    pub tag: String,
    /// Which member is spoken to: the primary, unless it is [`Self::pinned`].
    pub member: SelectionCriteria,
    /// Is told of what is changed here.
    pub observer: Option<Arc<dyn WriteObserver>>,
    /// What is read here, and what is sent, is held within this.
    pub memory: Memory,
    /// How its collections are sharded, where it is a sharded cluster.
    pub shard_keys: Option<Arc<ShardKeys>>,
}

impl Deployment {
    /// The same, with what is read and sent held within an account that others share.
    #[must_use]
    pub fn within(self, memory: &Memory) -> Self {
        Self { memory: memory.clone(), ..self }
    }

    /// Whether it is a sharded cluster, reached through a router.
    #[must_use]
    pub fn is_sharded(&self) -> bool {
        self.topology == Topology::Sharded
    }

    /// The same, but everything goes to the member that is the primary now, also when it is none
    /// any more; and that member's name.
    ///
    /// Record ids are a member's own: what begins with them on one member must go on there. A
    /// router knows of none, and is its own.
    pub async fn pinned(&self) -> Result<(Self, String), Fault> {
        if self.is_sharded() {
            return Ok((self.clone(), "router".to_owned()));
        }
        let chosen: OnceLock<ServerAddress> = OnceLock::new();
        let is_chosen = move |server: &ServerInfo<'_>| match chosen.get() {
            Some(address) => address == server.address(),
            None => {
                server.server_type() == ServerType::RsPrimary
                    && chosen.get_or_init(|| server.address().clone()) == server.address()
            }
        };
        let pinned =
            Self { member: SelectionCriteria::Predicate(Arc::new(is_chosen)), ..self.clone() };
        let hello = pinned
            .command("admin", doc! { "hello": 1 })
            .await
            .map_err(|e| self.fault("looking for the primary", &e))?;
        let name = hello.get_str("me").map_err(|_| {
            Fault::new(
                FaultCode::Internal,
                format!("the {} at {} does not tell its member's name", self.side, self.hosts),
            )
        })?;
        Ok((pinned, name.to_owned()))
    }

    /// Runs a command on the primary and returns its reply.
    pub async fn command(
        &self,
        db: &str,
        command: Document,
    ) -> Result<Document, mongodb::error::Error> {
        self.raw_command(db, RawDocumentBuf::try_from(&command)?).await
    }

    /// Runs a raw command on the primary and returns its reply.
    pub async fn raw_command(
        &self,
        db: &str,
        command: RawDocumentBuf,
    ) -> Result<Document, mongodb::error::Error> {
        let on_its_way = OnItsWay::begin(self.observer.as_ref(), db, &command);
        let reply = self
            .client
            .database(db)
            .run_raw_command(command)
            .selection_criteria(self.member.clone())
            .await;
        if let Some(command) = on_its_way {
            command.end(reply.as_ref().ok());
        }
        reply
    }

    /// The newest operation that the primary knows of: everything that was acknowledged before the
    /// call is at or before it.
    pub async fn operation_time(&self) -> Result<ClusterTime, Fault> {
        let reply = self
            .command("admin", doc! { "ping": 1 })
            .await
            .map_err(|e| self.fault("asking for the time", &e))?;
        reply.get_timestamp("operationTime").map(cluster_time).map_err(|_| {
            Fault::new(
                FaultCode::Internal,
                format!("the {} at {} tells no operationTime", self.side, self.hosts),
            )
        })
    }

    /// Runs a command that answers with a cursor, read as raw batches of about `batch_size`
    /// documents.
    pub async fn batches(
        &self,
        db: &str,
        command: RawDocumentBuf,
        batch_size: u32,
    ) -> Result<RawBatchCursor, mongodb::error::Error> {
        self.client
            .database(db)
            .run_raw_cursor_command(command)
            .selection_criteria(self.member.clone())
            .batch_size(batch_size)
            .batch()
            .await
    }

    /// Runs a command that answers with a cursor and collects all documents: for catalogues, not
    /// for data.
    pub async fn collect(
        &self,
        db: &str,
        command: RawDocumentBuf,
    ) -> Result<Vec<RawDocumentBuf>, mongodb::error::Error> {
        let mut cursor = self
            .client
            .database(db)
            .run_raw_cursor_command(command)
            .selection_criteria(self.member.clone())
            .batch()
            .await?;
        let mut documents = Vec::new();
        while let Some(batch) = cursor.next().await {
            for value in batch?.doc_slices()? {
                if let Some(document) = value?.as_document() {
                    documents.push(document.to_owned());
                }
            }
        }
        Ok(documents)
    }

    /// Makes a fault of a driver's error; `doing` says what was tried, as in
    /// `listing the collections of shop`.
    #[must_use]
    pub fn fault(&self, doing: &str, error: &mongodb::error::Error) -> Fault {
        error::classify(self.side, &self.hosts, doing, error)
    }

    /// The newest majority-committed operation of the primary.
    pub async fn majority_optime(&self) -> Result<ClusterTime, Fault> {
        let reply = self
            .command("admin", doc! { "hello": 1 })
            .await
            .map_err(|e| self.fault("reading the optime", &e))?;
        reply
            .get_document("lastWrite")
            .and_then(|last| last.get_document("majorityOpTime"))
            .ok()
            .and_then(|optime| optime.get_timestamp("ts").ok())
            .map(cluster_time)
            .ok_or_else(|| {
                Fault::new(
                    FaultCode::Internal,
                    format!("the {} at {} reports no majority optime", self.side, self.hosts),
                )
            })
    }

    /// Writes a note to the oplog with majority and returns its cluster time: every operation that
    /// was acknowledged before the call is at or before it.
    pub async fn oplog_note(&self, message: &str) -> Result<ClusterTime, Fault> {
        let command = doc! {
            "appendOplogNote": 1, "data": { "msg": message }, "writeConcern": { "w": "majority" },
        };
        let reply = self
            .command("admin", command)
            .await
            .map_err(|e| self.fault("writing an oplog note", &e))?;
        reply.get_timestamp("operationTime").map(cluster_time).map_err(|_| {
            Fault::new(
                FaultCode::Internal,
                format!("the {} at {} gave an oplog note no operationTime", self.side, self.hosts),
            )
        })
    }

    /// The newest time of its cluster that the server knows of, signed so that other servers of the
    /// cluster believe it.
    pub async fn clock(&self) -> Result<Option<mongodb::ClusterTime>, Fault> {
        self.exchange_clocks(None).await
    }

    /// Tells the server, and the driver's client for all that it sends from now on, what time it is
    /// in its cluster.
    pub async fn learn(&self, clock: &mongodb::ClusterTime) -> Result<(), Fault> {
        self.exchange_clocks(Some(clock)).await.map(drop)
    }

    async fn exchange_clocks(
        &self,
        ours: Option<&mongodb::ClusterTime>,
    ) -> Result<Option<mongodb::ClusterTime>, Fault> {
        let fault = |e: mongodb::error::Error| self.fault("asking for the cluster's time", &e);
        let mut session = self.client.start_session().await.map_err(fault)?;
        if let Some(ours) = ours {
            session.advance_cluster_time(ours);
        }
        let admin = self.client.database("admin");
        let ping = admin.run_command(doc! { "ping": 1 }).selection_criteria(self.member.clone());
        ping.session(&mut session).await.map_err(fault)?;
        Ok(session.cluster_time().cloned())
    }

    /// Waits until no write whose mark begins so is under way; marks hold letters, digits, `-`,
    /// `_`, `:` and `;` only. A connection that broke, or a process that died, can leave writes
    /// behind that the server still works on: one that landed after its own repetition would undo
    /// what came between.
    pub async fn wait_for_writes(&self, mark: &str) -> Result<(), Fault> {
        if self.is_sharded() {
            // What the router itself has not sent on yet; the shards are looked at after it.
            self.wait_for_writes_of(
                mark,
                doc! { "allUsers": false, "idleConnections": false, "localOps": true },
            )
            .await?;
        }
        self.wait_for_writes_of(mark, doc! { "allUsers": false, "idleConnections": false }).await
    }

    async fn wait_for_writes_of(&self, mark: &str, whose: Document) -> Result<(), Fault> {
        loop {
            let look = doc! {
                "aggregate": 1,
                "pipeline": [
                    { "$currentOp": whose.clone() },
                    { "$match": { "command.comment": { "$regex": format!("^{mark}") } } },
                    { "$limit": 1 },
                ],
                "cursor": {},
            };
            let reply = self
                .command("admin", look)
                .await
                .map_err(|e| self.fault("looking for writes under way", &e))?;
            let is_quiet = reply
                .get_document("cursor")
                .and_then(|c| c.get_array("firstBatch"))
                .is_ok_and(Vec::is_empty);
            if is_quiet {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Seconds between the oldest and the newest entry of the oplog; `None` where it may not be
    /// read.
    pub async fn oplog_window_seconds(&self) -> Option<u64> {
        let first = self.oplog_end(1).await?;
        let last = self.oplog_end(-1).await?;
        Some(u64::from(last.t.saturating_sub(first.t)))
    }

    /// The oldest entry of the oplog; `None` where it may not be read.
    pub async fn oplog_start(&self) -> Option<ClusterTime> {
        self.oplog_end(1).await
    }

    async fn oplog_end(&self, direction: i32) -> Option<ClusterTime> {
        let command = doc! {
            "find": "oplog.rs", "sort": { "$natural": direction }, "limit": 1,
            "projection": { "ts": 1 },
        };
        let reply = self.command("local", command).await.ok()?;
        let entry = reply
            .get_document("cursor")
            .ok()?
            .get_array("firstBatch")
            .ok()?
            .first()?
            .as_document()?;
        entry.get_timestamp("ts").ok().map(cluster_time)
    }
}

/// Reads and commands go to the primary, which alone knows what is committed now.
#[must_use]
pub fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

/// A BSON timestamp as a cluster time.
#[must_use]
pub const fn cluster_time(timestamp: Timestamp) -> ClusterTime {
    ClusterTime { t: timestamp.time, i: timestamp.increment }
}

/// A cluster time as a BSON timestamp.
#[must_use]
pub const fn timestamp(time: ClusterTime) -> Timestamp {
    Timestamp { time: time.t, increment: time.i }
}

/// The whole number in a reply's field, of whatever numeric type.
#[must_use]
pub fn number(document: &RawDocument, key: &str) -> Option<i64> {
    use mongodb::bson::RawBsonRef as B;
    match document.get(key).ok().flatten()? {
        B::Int32(n) => Some(i64::from(n)),
        B::Int64(n) => Some(n),
        // Counters of the server fit; a fraction cannot occur.
        B::Double(n) => Some(n as i64),
        _ => None,
    }
}

/// Quotes a collection name as a database command's argument.
#[must_use]
pub fn command(name: &str, target: &str) -> RawDocumentBuf {
    let mut command = RawDocumentBuf::new();
    append(&mut command, name, target);
    command
}

/// Appends a field whose name is not known at compile time. Names of fields that we write have no
/// NUL byte.
pub fn append(
    document: &mut RawDocumentBuf,
    key: &str,
    value: impl mongodb::bson::raw::BindRawBsonRef,
) {
    let key: &mongodb::bson::raw::CStr =
        key.try_into().expect("the keys of our own commands have no NUL byte");
    document.append(key, value);
}
