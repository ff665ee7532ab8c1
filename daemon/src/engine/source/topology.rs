//! What a sharded cluster is made of, as its router reports: shards, databases, sharded collections
//! and their chunks.
//!
//! Everything is read from the config database at majority. A shard is read from directly, with the
//! versions that [`Cluster::versions`] gives: it then leaves out what it does not own, and refuses
//! (`StaleConfig`) once a chunk has moved. That takes no privilege beyond reading (tried on 6.0.5).
//! What has changed between two looks is reported by [`Cluster::changes_since`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use placement::chunk_map::MapError;
use placement::{Chunk, ChunkMap};
use schemas::fault::{Fault, FaultCode};
use schemas::hcl::uri::MongoUri;
use schemas::id::ShardName;
use schemas::namespace::{Namespace, Scope};
use schemas::spec::ConnectionSpec;

use crate::engine::catalog;
use crate::engine::element;
use crate::mongo::{Deployment, append, command, error, server_code};

/// How often a chunk map that changed while it was read is read again: a migration commits in one
/// write, so that once is rare.
const READS: usize = 20;
/// Entries of the config database in one reply.
const BATCH: i32 = 10_000;

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name in the cluster.
    pub name: ShardName,
    /// Its replica set's name.
    pub replica_set: String,
    /// Its members, `HOST:PORT[,HOST:PORT]`, as the cluster reaches them.
    pub hosts: String,
    /// It is being emptied, to be removed.
    pub is_draining: bool,
}

/// Where a database's unsharded collections are.
#[derive(Debug, Clone, PartialEq)]
pub struct Home {
    /// Its primary shard.
    pub primary: ShardName,
    /// Its version, as commands carry it (`databaseVersion`).
    pub version: RawDocumentBuf,
}

/// A cluster at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its id: equal through every one of its routers.
    pub id: Option<ObjectId>,
    /// Its shards, by name.
    pub shards: Vec<Shard>,
    /// Its databases.
    pub databases: BTreeMap<String, Home>,
    /// Its sharded collections; what is not here is unsharded.
    pub collections: BTreeMap<Namespace, ChunkMap>,
}

/// Which shard is read, and as of which state of its cluster.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The cluster as it was when the shard's start point had been taken.
    pub cluster: Arc<Cluster>,
    /// The shard.
    pub shard: ShardName,
}

/// What a shard answers to a version that is not its own any more: `StaleConfig`, `StaleDbVersion`,
/// `StaleEpoch`.
const STALE: [i32; 3] =
    [server_code::STALE_CONFIG, server_code::STALE_DB_VERSION, server_code::STALE_EPOCH];

impl Placement {
    /// Whether any of a collection is the shard's.
    #[must_use]
    pub fn holds(&self, namespace: &Namespace) -> bool {
        self.cluster.holders(namespace).contains(&self.shard)
    }

    /// Makes a read see what the shard owns, and nothing else.
    pub fn append_versions(&self, read: &mut RawDocumentBuf, namespace: &Namespace) {
        for (name, value) in self
            .cluster
            .versions(namespace, &self.shard)
            .iter()
            .flat_map(|versions| versions.iter().flatten())
        {
            append(read, name.as_str(), value);
        }
    }

    /// Has the shard look up what it owns of a collection: it does so once it has refused who named
    /// a version.
    async fn acquaint(&self, shard: &Deployment, namespace: &Namespace) -> Result<(), Fault> {
        let mut find = command("find", &namespace.collection);
        append(&mut find, "projection", &*rawdoc! { "_id": 1 });
        append(&mut find, "limit", 1);
        append(&mut find, "singleBatch", true);
        self.append_versions(&mut find, namespace);
        match shard.collect(&namespace.db, find).await {
            // Whether it has moved since shows when it is read.
            Err(e) if self.fault(namespace, &e).is_none() => {
                Err(shard.fault(&format!("reading {namespace}"), &e))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// What a refusal of such a read means, where it is about the versions.
    #[must_use]
    pub fn fault(&self, namespace: &Namespace, error: &mongodb::error::Error) -> Option<Fault> {
        let is_stale = error::code(error).is_some_and(|code| STALE.contains(&code));
        is_stale.then(|| {
            Fault::new(
                FaultCode::ChunksMoved,
                format!(
                    "{namespace} moved while shard {} was read: {}",
                    self.shard,
                    error::words(error)
                ),
            )
        })
    }
}

/// Documents and bytes of what a shard has of a collection, as it estimates them. After an election
/// a shard does not know what it owns, and reports nothing to who names no version.
pub async fn size(
    shard: &Deployment,
    placement: Option<&Placement>,
    namespace: &Namespace,
) -> Result<(u64, u64), Fault> {
    match (catalog::size(shard, namespace).await, placement) {
        (Err(fault), Some(placement)) if fault.code == FaultCode::ChunksMoved => {
            placement.acquaint(shard, namespace).await?;
            catalog::size(shard, namespace).await
        }
        (sized, _) => sized,
    }
}

/// What a sync that began on another state of the cluster must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A shard has joined.
    ShardAdded(ShardName),
    /// A shard has left.
    ShardRemoved(ShardName),
    /// A database's unsharded collections are elsewhere (`movePrimary`).
    HomeMoved(String),
    /// A database is gone.
    DatabaseGone(String),
    /// Chunks of a collection moved to another shard, or its key was changed.
    ChunksMoved(Namespace),
    /// A collection was sharded.
    Sharded(Namespace),
    /// A sharded collection is gone, or unsharded now.
    Unsharded(Namespace),
}

fn unreadable(router: &Deployment, what: &str) -> Fault {
    Fault::new(FaultCode::SourceReadFailed, format!("the cluster at {}: {what}", router.hosts))
}

/// All entries of a collection of the config database.
pub(in crate::engine) async fn entries(
    router: &Deployment,
    collection: &str,
    filter: &RawDocument,
) -> Result<Vec<RawDocumentBuf>, Fault> {
    let mut find = command("find", collection);
    append(&mut find, "filter", filter);
    append(&mut find, "readConcern", &*rawdoc! { "level": "majority" });
    append(&mut find, "batchSize", BATCH);
    router
        .collect("config", find)
        .await
        .map_err(|e| router.fault(&format!("reading config.{collection}"), &e))
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ShardAdded(shard) => write!(f, "shard {shard} was added"),
            Self::ShardRemoved(shard) => write!(f, "shard {shard} was removed"),
            Self::HomeMoved(db) => write!(f, "the database {db} has another primary shard"),
            Self::DatabaseGone(db) => write!(f, "the database {db} was dropped"),
            Self::ChunksMoved(namespace) => write!(f, "chunks of {namespace} moved"),
            Self::Sharded(namespace) => write!(f, "{namespace} was sharded"),
            Self::Unsharded(namespace) => {
                write!(f, "{namespace} was dropped, or is sharded no more")
            }
        }
    }
}

impl Change {
    /// Whether data may be on another shard than the one that was read: what came or went as a
    /// whole is reported by the streams.
    #[must_use]
    pub const fn moves_data(&self) -> bool {
        matches!(
            self,
            Self::ShardAdded(_) | Self::ShardRemoved(_) | Self::HomeMoved(_) | Self::ChunksMoved(_)
        )
    }

    /// Whether a copy of what is in scope cannot go on after it, not even with some collections
    /// copied anew.
    #[must_use]
    pub fn ends_copy(&self, scope: &Scope) -> bool {
        match self {
            Self::ShardAdded(_) | Self::ShardRemoved(_) => true,
            Self::HomeMoved(db) => scope.has_database(db),
            Self::DatabaseGone(_)
            | Self::ChunksMoved(_)
            | Self::Sharded(_)
            | Self::Unsharded(_) => false,
        }
    }
}

/// The names of the shards behind a router.
pub async fn shard_names(router: &Deployment) -> Result<BTreeSet<ShardName>, Fault> {
    let found = entries(router, "shards", &rawdoc! {}).await?;
    let name = |entry: &RawDocumentBuf| entry.get_str("_id").map(|name| ShardName(name.to_owned()));
    let unusable = |_| unreadable(router, "an entry of config.shards has no usable name");
    found.iter().map(|entry| name(entry).map_err(unusable)).collect()
}

/// Where a database's unsharded collections are now; `None`: the cluster does not know of it.
pub async fn home(router: &Deployment, db: &str) -> Result<Option<Home>, Fault> {
    let found = entries(router, "databases", &rawdoc! { "_id": db }).await?;
    Ok(found.first().and_then(|entry| Home::read(entry)).map(|(_, home)| home))
}

/// Whether a collection is sharded now.
pub async fn is_sharded(router: &Deployment, namespace: &Namespace) -> Result<bool, Fault> {
    Ok(!entries(router, "collections", &rawdoc! { "_id": namespace.to_string() }).await?.is_empty())
}

/// The chunks of one collection; `None`: it is not sharded.
pub async fn map_of(router: &Deployment, namespace: &Namespace) -> Result<Option<ChunkMap>, Fault> {
    match entries(router, "collections", &rawdoc! { "_id": namespace.to_string() }).await?.pop() {
        Some(entry) => chunk_map(router, namespace, entry).await,
        None => Ok(None),
    }
}

impl Cluster {
    /// The id of the cluster behind a router, or of which this is a config server.
    pub async fn id_behind(router: &Deployment) -> Result<Option<ObjectId>, Fault> {
        let versions = entries(router, "version", &rawdoc! {}).await?;
        Ok(versions.first().and_then(|entry| entry.get_object_id("clusterId").ok()))
    }

    /// The shards of the cluster behind a router, by name.
    pub async fn shards_behind(router: &Deployment) -> Result<Vec<Shard>, Fault> {
        let mut shards = Vec::new();
        for entry in entries(router, "shards", &rawdoc! {}).await? {
            shards.push(Shard::read(&entry).ok_or_else(|| {
                unreadable(router, "an entry of config.shards has no usable host")
            })?);
        }
        shards.sort_by(|a, b| a.name.0.cmp(&b.name.0));
        Ok(shards)
    }

    /// Reads the cluster behind a router. Chunks that move meanwhile are read again.
    pub async fn discover(router: &Deployment) -> Result<Self, Fault> {
        let all = &*rawdoc! {};
        let id = Self::id_behind(router).await?;
        let shards = Self::shards_behind(router).await?;
        let mut databases = BTreeMap::new();
        for entry in entries(router, "databases", all).await? {
            let (name, home) = Home::read(&entry).ok_or_else(|| {
                unreadable(router, "an entry of config.databases has no usable version")
            })?;
            databases.insert(name, home);
        }
        let mut collections = BTreeMap::new();
        for entry in entries(router, "collections", all).await? {
            // One that is no UTF-8 is known by what is shown of it, which its database's catalogue
            // reports it by, too.
            let namespace: Namespace =
                match element::text(&entry, "_id").map(|name| element::shown(name).parse()) {
                    Some(Ok(namespace)) => namespace,
                    Some(Err(_)) | None => {
                        return Err(unreadable(
                            router,
                            "an entry of config.collections has no usable name",
                        ));
                    }
                };
            // The cluster's own sessions.
            if namespace.db == "config" {
                continue;
            }
            if let Some(map) = chunk_map(router, &namespace, entry).await? {
                collections.insert(namespace, map);
            }
        }
        Ok(Self { id, shards, databases, collections })
    }

    /// Where a collection is: every shard that owns any of it.
    #[must_use]
    pub fn holders(&self, namespace: &Namespace) -> Vec<ShardName> {
        match (self.collections.get(namespace), self.databases.get(&namespace.db)) {
            (Some(map), _) => {
                map.shards().into_iter().map(|name| ShardName(name.to_owned())).collect()
            }
            (None, Some(home)) => vec![home.primary.clone()],
            (None, None) => Vec::new(),
        }
    }

    /// The fields that make a shard answer as of this state of the cluster: without its orphans,
    /// and not at all once it has changed. `None`: the database is not known.
    #[must_use]
    pub fn versions(&self, namespace: &Namespace, shard: &ShardName) -> Option<RawDocumentBuf> {
        if let Some(map) = self.collections.get(namespace) {
            return Some(
                rawdoc! { "shardVersion": map.shard_version(&shard.0).to_shard_version() },
            );
        }
        let home = self.databases.get(&namespace.db)?;
        let none = Timestamp { time: 0, increment: 0 };
        let unsharded = rawdoc! { "e": ObjectId::from_bytes([0; 12]), "t": none, "v": none };
        Some(rawdoc! { "shardVersion": unsharded, "databaseVersion": home.version.clone() })
    }

    /// Time-series collections that are sharded.
    pub fn sharded_series(&self) -> impl Iterator<Item = Namespace> {
        self.collections.keys().filter_map(catalog::owner_of)
    }

    /// Where its data is, in words that can be stored: other words for the same thing mean that
    /// data moved.
    #[must_use]
    pub fn places(&self) -> BTreeMap<String, String> {
        let names: Vec<&str> = self.shards.iter().map(|shard| shard.name.0.as_str()).collect();
        let homes =
            self.databases.iter().map(|(db, home)| (home.place(db), home.primary.0.clone()));
        let collections =
            self.collections.iter().map(|(namespace, map)| (place_name(namespace), place(map)));
        homes.chain(collections).chain([("shards".to_owned(), names.join(" "))]).collect()
    }

    /// What of an earlier [`Self::places`] has become of the shards and the databases. A database
    /// that has come or gone is not among it: the streams report it.
    #[must_use]
    pub fn moved_from(&self, places: &BTreeMap<String, String>) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(before) = places.get("shards") {
            let before: BTreeSet<&str> = before.split(' ').collect();
            let now: BTreeSet<&str> =
                self.shards.iter().map(|shard| shard.name.0.as_str()).collect();
            let names = |of: &BTreeSet<&str>, but: &BTreeSet<&str>| -> Vec<ShardName> {
                of.difference(but).map(|name| ShardName((*name).to_owned())).collect()
            };
            changes.extend(names(&now, &before).into_iter().map(Change::ShardAdded));
            changes.extend(names(&before, &now).into_iter().map(Change::ShardRemoved));
        }
        let moved = self.databases.iter().filter(|(db, home)| {
            places.get(&home.place(db)).is_some_and(|at| *at != home.primary.0)
        });
        changes.extend(moved.map(|(db, _)| Change::HomeMoved(db.clone())));
        changes
    }

    /// Whether a collection that was listed at the time of an earlier [`Self::places`] lies
    /// otherwise over the shards now, has another key, or is another one of that name, or none.
    #[must_use]
    pub fn is_elsewhere(&self, namespace: &Namespace, places: &BTreeMap<String, String>) -> bool {
        match (self.collections.get(namespace), places.get(&place_name(namespace))) {
            (Some(map), Some(before)) => place(map) != *before,
            (None, None) => {
                let home = self.databases.get(&namespace.db);
                home.is_none_or(|home| !places.contains_key(&home.place(&namespace.db)))
            }
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    /// What has changed since an earlier look, as far as data may be on another shard. Splits and
    /// merges of chunks change nothing.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let names = |cluster: &Self| {
            cluster.shards.iter().map(|shard| shard.name.clone()).collect::<Vec<_>>()
        };
        let (now, before) = (names(self), names(earlier));
        changes.extend(
            now.iter().filter(|name| !before.contains(name)).cloned().map(Change::ShardAdded),
        );
        changes.extend(
            before.iter().filter(|name| !now.contains(name)).cloned().map(Change::ShardRemoved),
        );
        for (db, home) in &earlier.databases {
            match self.databases.get(db) {
                None => changes.push(Change::DatabaseGone(db.clone())),
                Some(now)
                    if now.primary != home.primary && now.incarnation() == home.incarnation() =>
                {
                    changes.push(Change::HomeMoved(db.clone()))
                }
                Some(_) => {}
            }
        }
        for (namespace, map) in &earlier.collections {
            match self.collections.get(namespace) {
                None => changes.push(Change::Unsharded(namespace.clone())),
                Some(now) if now.version().moved_since(map.version()) => {
                    changes.push(Change::ChunksMoved(namespace.clone()))
                }
                Some(_) => {}
            }
        }
        let sharded = self
            .collections
            .keys()
            .filter(|namespace| !earlier.collections.contains_key(*namespace));
        changes.extend(sharded.cloned().map(Change::Sharded));
        changes
    }
}

/// The name of a sharded collection among the places of [`Cluster::places`].
fn place_name(namespace: &Namespace) -> String {
    format!("collection {namespace}")
}

/// Where its chunks are, in words. Splits and merges raise the minor version alone.
fn place(map: &ChunkMap) -> String {
    let version = map.version();
    format!("{} {:?} {}", version.epoch, version.timestamp, version.chunks.time)
}

async fn chunk_map(
    router: &Deployment,
    namespace: &Namespace,
    entry: RawDocumentBuf,
) -> Result<Option<ChunkMap>, Fault> {
    let mut entry = entry;
    for _ in 0..READS {
        let Ok(Some(RawBsonRef::Binary(uuid))) = entry.get("uuid") else {
            return Err(unreadable(
                router,
                &format!("{namespace} has no UUID in config.collections"),
            ));
        };
        let chunks = entries(router, "chunks", &rawdoc! { "uuid": uuid.to_binary() }).await?;
        let read =
            chunks.iter().map(|chunk| Chunk::read(chunk)).collect::<Result<Vec<Chunk>, MapError>>();
        match read.and_then(|chunks| ChunkMap::new(&entry, chunks)) {
            Ok(map) => return Ok(Some(map)),
            Err(MapError::Torn) => {}
            Err(error) => return Err(unreadable(router, &format!("{namespace}: {error}"))),
        }
        match entries(router, "collections", &rawdoc! { "_id": namespace.to_string() }).await?.pop()
        {
            Some(again) => entry = again,
            None => return Ok(None),
        }
    }
    let mut fault =
        unreadable(router, &format!("the chunks of {namespace} changed each time they were read"));
    fault.retryable = true;
    Err(fault)
}

impl Shard {
    fn read(entry: &RawDocument) -> Option<Self> {
        let (replica_set, hosts) = entry.get_str("host").ok()?.split_once('/')?;
        Some(Self {
            name: ShardName(entry.get_str("_id").ok()?.to_owned()),
            replica_set: replica_set.to_owned(),
            hosts: hosts.to_owned(),
            is_draining: entry.get_bool("draining").unwrap_or(false),
        })
    }

    /// How the shard is reached with what the router is reached with: the same user and TLS, at the
    /// shard's own members.
    #[must_use]
    pub fn connection(&self, router: &ConnectionSpec) -> ConnectionSpec {
        // The router was reached with it: that it cannot be read is not met.
        let uri = MongoUri::parse(&router.uri).map_or_else(
            |_| router.uri.clone(),
            |uri| uri.of_shard(&self.replica_set, &self.hosts),
        );
        ConnectionSpec { uri, ..router.clone() }
    }
}

impl Home {
    /// What tells a database from one of the same name that was dropped: a move of its primary
    /// shard does not change it.
    fn incarnation(&self) -> Option<Vec<u8>> {
        match self.version.get("uuid") {
            Ok(Some(RawBsonRef::Binary(uuid))) => Some(uuid.bytes.to_vec()),
            _ => None,
        }
    }

    /// Its name among the places of [`Cluster::places`].
    #[must_use]
    pub fn place(&self, db: &str) -> String {
        format!("database {db} {:02x?}", self.incarnation())
    }

    fn read(entry: &RawDocument) -> Option<(String, Self)> {
        let home = Self {
            primary: ShardName(entry.get_str("primary").ok()?.to_owned()),
            version: entry.get_document("version").ok()?.to_owned(),
        };
        Some((entry.get_str("_id").ok()?.to_owned(), home))
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;
    use schemas::id::ShardName;
    use schemas::spec::ConnectionSpec;

    fn uri_of(router: &str) -> String {
        let shard = Shard {
            name: ShardName("s0".to_owned()),
            replica_set: "rs-0".to_owned(),
            hosts: "a:1,b:2".to_owned(),
            is_draining: false,
        };
        let router =
            ConnectionSpec { uri: router.to_owned(), username: None, password: None, tls: None };
        shard.connection(&router).uri
    }

    #[test]
    fn a_shard_is_reached_as_its_router_is() {
        assert_eq!(uri_of("mongodb://m:27017"), "mongodb://a:1,b:2/?replicaSet=rs-0");
        assert_eq!(
            uri_of(
                "mongodb://u@m1,m2/auth?authMechanism=MONGODB-X509&directConnection=false&tls=true"
            ),
            "mongodb://u@a:1,b:2/auth?authMechanism=MONGODB-X509&tls=true&replicaSet=rs-0"
        );
        assert_eq!(
            uri_of("mongodb+srv://c.example.net/?srvMaxHosts=2"),
            "mongodb://a:1,b:2/?tls=true&replicaSet=rs-0"
        );
        assert_eq!(
            uri_of("mongodb+srv://c.example.net/?tls=false"),
            "mongodb://a:1,b:2/?tls=false&replicaSet=rs-0"
        );
    }
}
