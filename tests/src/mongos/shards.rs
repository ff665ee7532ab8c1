//! The servers behind the router: who is primary of a shard, connections to it, and commands sent
//! there.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mongodb::bson::{RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use tokio::net::TcpStream;

use super::command::{self, Command, Refusal, number};
use super::link::{Link, Links};
use super::scram::Key;
use super::{Router, wire};

/// The config server's name among the shards.
pub(super) const CONFIG: &str = "config";
/// The field in which servers and clients tell each other the newest time that they know of.
pub(super) const CLUSTER_TIME: &str = "$clusterTime";
/// How long a shard without a primary is waited for: longer than the rig's elections.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// A server that hangs must not hold up the search for another.
const CONNECT: Duration = Duration::from_secs(1);
/// What a member answers that is no primary any more, or not yet.
const NOT_PRIMARY: [i32; 6] = [10107, 13435, 11600, 11602, 189, 91];

/// The members of each shard, and connections that nobody uses now.
#[derive(Default)]
pub(super) struct Shards {
    hosts: Mutex<HashMap<String, Vec<String>>>,
    primaries: Mutex<HashMap<String, String>>,
    idle: Mutex<HashMap<String, Vec<Link>>>,
    /// The newest `$clusterTime` that any server has reported: each command carries it on, so that
    /// what one server was reported, all know.
    newest: Mutex<Option<RawDocumentBuf>>,
    /// By which the members of a cluster with access control know each other.
    key: Option<Key>,
    links: Links,
}

fn unreachable(message: String) -> Refusal {
    Refusal::new(6, "HostUnreachable", message)
}

impl Shards {
    /// Knows the config server's members, and learns of the others there.
    pub(super) fn new(config_hosts: &str, key: Option<Key>, links: Links) -> Self {
        let shards = Self { key, links, ..Self::default() };
        shards.add(CONFIG, config_hosts);
        shards
    }

    /// Takes a client's connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Link> {
        self.links.accept(stream).await
    }

    /// Connects to a server, as nobody yet.
    pub(super) async fn connect(&self, host: &str) -> io::Result<Link> {
        self.links.connect(host).await
    }

    /// Whether clients have to log in.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Looks for a shard's primary anew the next time.
    pub(super) fn forget_primary(&self, shard: &str) {
        Router::lock(&self.primaries).remove(shard);
    }

    fn add(&self, shard: &str, hosts: &str) {
        Router::lock(&self.hosts)
            .insert(shard.to_owned(), hosts.split(',').map(str::to_owned).collect());
    }

    /// The names of all shards, read from the config server.
    pub(super) async fn names(&self) -> Result<Vec<String>, Refusal> {
        let entries = self.config_find("shards", &rawdoc! {}).await?;
        let mut names = Vec::new();
        for entry in entries {
            if let (Ok(name), Ok(host)) = (entry.get_str("_id"), entry.get_str("host")) {
                self.add(name, host.split_once('/').map_or(host, |(_, hosts)| hosts));
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The whole result of a `find` in the config database, at majority.
    pub(super) async fn config_find(
        &self,
        collection: &str,
        filter: &RawDocument,
    ) -> Result<Vec<RawDocumentBuf>, Refusal> {
        let mut find = rawdoc! { "find": collection };
        command::append(&mut find, "filter", filter);
        let rest = rawdoc! {
            "readConcern": { "level": "majority" }, "batchSize": 1_000_000, "$db": "config",
        };
        let mut reply = self.ask(CONFIG, &Command::new(command::joined(&find, &rest))).await?;
        let mut found = Vec::new();
        let mut field = "firstBatch";
        loop {
            let cursor = match reply.get_document("cursor") {
                Ok(cursor) => cursor.to_owned(),
                Err(_) => return Err(unreachable(format!("the config server answered {reply:?}"))),
            };
            found.extend(command::documents_in(&cursor, field));
            let id = number(&cursor, "id").unwrap_or(0);
            if id == 0 {
                return Ok(found);
            }
            let more = rawdoc! { "getMore": id, "collection": collection, "$db": "config" };
            reply = self.ask(CONFIG, &Command::new(more)).await?;
            field = "nextBatch";
        }
    }

    /// The address of a shard's primary, looked for where it is not known.
    pub(super) async fn primary(&self, shard: &str) -> Result<String, Refusal> {
        let start = Instant::now();
        loop {
            if let Some(known) = Router::lock(&self.primaries).get(shard) {
                return Ok(known.clone());
            }
            let known = Router::lock(&self.hosts).get(shard).cloned();
            let hosts = match known {
                Some(hosts) => hosts,
                None => {
                    Box::pin(self.names()).await?;
                    Router::lock(&self.hosts).get(shard).cloned().ok_or_else(|| {
                        Refusal::new(70, "ShardNotFound", format!("there is no shard {shard}"))
                    })?
                }
            };
            for host in hosts {
                let hello = rawdoc! { "hello": 1, "$db": "admin" };
                let asked = tokio::time::timeout(CONNECT, async {
                    let mut stream = self.connect(&host).await?;
                    wire::ask(&mut stream, &hello, None).await
                });
                if let Ok(Ok(reply)) = asked.await
                    && reply.get_bool("isWritablePrimary").unwrap_or(false)
                {
                    Router::lock(&self.primaries).insert(shard.to_owned(), host);
                    break;
                }
            }
            if start.elapsed() > PATIENCE {
                return Err(Refusal::new(
                    133,
                    "FailedToSatisfyReadPreference",
                    format!("shard {shard} has no primary"),
                ));
            }
            if !Router::lock(&self.primaries).contains_key(shard) {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    fn forget(&self, shard: &str, host: &str) {
        Router::lock(&self.primaries).remove(shard);
        Router::lock(&self.idle).remove(host);
    }

    /// The newest `$clusterTime`, where any is known.
    pub(super) fn newest(&self) -> Option<RawDocumentBuf> {
        Router::lock(&self.newest).clone()
    }

    /// Takes note of the time that somebody reports.
    pub(super) fn note_newest(&self, from: &RawDocument) {
        let Ok(told) = from.get_document("$clusterTime") else { return };
        let mut newest = Router::lock(&self.newest);
        if newest.as_ref().is_none_or(|known| time_of(known) < time_of(told)) {
            *newest = Some(told.to_owned());
        }
    }

    fn with_newest(&self, body: &RawDocument) -> RawDocumentBuf {
        self.note_newest(body);
        match self.newest() {
            Some(newest) => {
                let mut added = RawDocumentBuf::new();
                command::append(&mut added, CLUSTER_TIME, &*newest);
                command::with(body, &[CLUSTER_TIME], &added)
            }
            None => body.to_owned(),
        }
    }

    async fn try_once(&self, host: &str, command: &Command) -> io::Result<RawDocumentBuf> {
        let idle = Router::lock(&self.idle).get_mut(host).and_then(Vec::pop);
        let mut stream = match idle.filter(Link::is_open) {
            Some(stream) => stream,
            None => {
                let mut stream = self.connect(host).await?;
                if let Some(key) = &self.key {
                    key.log_in(&mut stream).await?;
                }
                stream
            }
        };
        let reply =
            wire::ask(&mut stream, &self.with_newest(&command.body), command.sequence.as_ref())
                .await?;
        self.note_newest(&reply);
        Router::lock(&self.idle).entry(host.to_owned()).or_default().push(stream);
        Ok(reply)
    }

    /// Sends a command to a shard's primary. What does no harm twice is sent again after an
    /// election; the rest is not.
    pub(super) async fn ask(
        &self,
        shard: &str,
        command: &Command,
    ) -> Result<RawDocumentBuf, Refusal> {
        let start = Instant::now();
        loop {
            let host = self.primary(shard).await?;
            let again = command.is_repeatable() && start.elapsed() < PATIENCE;
            match self.try_once(&host, command).await {
                Ok(reply)
                    if command::code(&reply).is_some_and(|code| NOT_PRIMARY.contains(&code)) =>
                {
                    self.forget(shard, &host);
                    if !again {
                        return Ok(reply);
                    }
                }
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    self.forget(shard, &host);
                    if !again {
                        let mut refusal = unreachable(format!(
                            "{} on shard {shard} at {host}: {error}",
                            command.name()
                        ));
                        if command.is_in_transaction() && command.name() != "commitTransaction" {
                            refusal.labels.push("TransientTransactionError");
                        }
                        return Err(refusal);
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends each shard its command, side by side; the answers in the same order.
    pub(super) async fn ask_each(
        &self,
        commands: Vec<(String, Command)>,
    ) -> Result<Vec<RawDocumentBuf>, Refusal> {
        futures_util::future::try_join_all(
            commands
                .into_iter()
                .map(|(shard, command)| async move { self.ask(&shard, &command).await }),
        )
        .await
    }
}

fn time_of(cluster_time: &RawDocument) -> Option<Timestamp> {
    cluster_time.get_timestamp("clusterTime").ok()
}
