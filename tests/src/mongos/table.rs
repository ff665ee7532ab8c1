//! The routing table: where databases and collections are, as the config server says, kept until a
//! shard calls it stale.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mongodb::bson::{Binary, RawDocument, RawDocumentBuf, Timestamp, oid::ObjectId, rawdoc};
use placement::{Chunk, ChunkMap};

use super::Router;
use super::command::{Refusal, append};
use super::shards::{CONFIG, Shards};

/// A database: its primary shard and its version.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) primary: String,
    pub(super) version: RawDocumentBuf,
}

/// Where a collection is.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) database: Database,
    /// `None`: it is not sharded, and lies on its database's primary shard.
    pub(super) map: Option<Arc<ChunkMap>>,
    /// Texts compare otherwise than byte by byte where a command says nothing else.
    pub(super) is_collated: bool,
}

impl Route {
    /// Whether a command, or an operation of one, compares texts by a collation here.
    pub(super) fn collates(&self, command: &RawDocument) -> bool {
        match command.get_document("collation") {
            Ok(collation) if !collation.is_empty() => !is_simple(Some(collation)),
            _ => self.is_collated,
        }
    }

    /// Whether an operation's own collation may be another than the collection's.
    pub(super) fn is_told_apart(&self, operation: &RawDocument) -> bool {
        self.is_collated || !is_simple(operation.get_document("collation").ok())
    }

    /// The shards that hold any of it.
    pub(super) fn shards(&self) -> Vec<String> {
        match &self.map {
            Some(map) => map.shards().into_iter().map(str::to_owned).collect(),
            None => vec![self.database.primary.clone()],
        }
    }

    /// The versions that a command for this shard carries.
    pub(super) fn versions(&self, shard: &str) -> RawDocumentBuf {
        match &self.map {
            Some(map) => rawdoc! { "shardVersion": map.shard_version(shard).to_shard_version() },
            None => {
                let none = Timestamp { time: 0, increment: 0 };
                let unsharded =
                    rawdoc! { "e": ObjectId::from_bytes([0; 12]), "t": none, "v": none };
                let mut versions = rawdoc! { "shardVersion": unsharded };
                // The config server's own databases have no version.
                if !self.database.version.is_empty() {
                    append(&mut versions, "databaseVersion", &*self.database.version);
                }
                versions
            }
        }
    }
}

/// What is known.
#[derive(Default)]
pub(super) struct Table {
    routes: Mutex<HashMap<String, Route>>,
}

impl Table {
    /// A database, read anew; `None` where there is none.
    pub(super) async fn database(
        &self,
        shards: &Shards,
        db: &str,
    ) -> Result<Option<Database>, Refusal> {
        let found = shards.config_find("databases", &rawdoc! { "_id": db }).await?;
        let Some(entry) = found.first() else { return Ok(None) };
        let primary = text(entry, "primary")?;
        let version = entry.get_document("version").map_err(|_| unreadable("version"))?.to_owned();
        Ok(Some(Database { primary, version }))
    }

    /// A collection's route; `None` where its database does not exist.
    pub(super) async fn route(
        &self,
        shards: &Shards,
        namespace: &str,
    ) -> Result<Option<Route>, Refusal> {
        if let Some(known) = Router::lock(&self.routes).get(namespace) {
            return Ok(Some(known.clone()));
        }
        let db = namespace.split_once('.').map_or(namespace, |(db, _)| db);
        if db == "config" || db == "admin" {
            let database = Database { primary: CONFIG.to_owned(), version: RawDocumentBuf::new() };
            return Ok(Some(Route { database, map: None, is_collated: false }));
        }
        let Some(database) = self.database(shards, db).await? else { return Ok(None) };
        // A map that was read while it changed has gaps, or another version than its collection:
        // read again.
        for _ in 0..super::STALE_TRIES {
            let collections =
                shards.config_find("collections", &rawdoc! { "_id": namespace }).await?;
            let map = match collections.first() {
                None => None,
                Some(collection) => {
                    let uuid: Binary = match collection.get("uuid") {
                        Ok(Some(mongodb::bson::RawBsonRef::Binary(uuid))) => uuid.to_binary(),
                        _ => return Err(unreadable("uuid")),
                    };
                    let chunks = shards.config_find("chunks", &rawdoc! { "uuid": uuid }).await?;
                    let chunks: Result<Vec<Chunk>, _> =
                        chunks.iter().map(|entry| Chunk::read(entry)).collect();
                    match chunks.and_then(|chunks| ChunkMap::new(collection, chunks)) {
                        Ok(map) => Some(Arc::new(map)),
                        Err(placement::chunk_map::MapError::Torn) => continue,
                        Err(error) => {
                            return Err(Refusal::new(1, "InternalError", error.to_string()));
                        }
                    }
                }
            };
            let is_collated = collections
                .first()
                .is_some_and(|entry| !is_simple(entry.get_document("defaultCollation").ok()));
            let route = Route { database, map, is_collated };
            Router::lock(&self.routes).insert(namespace.to_owned(), route.clone());
            return Ok(Some(route));
        }
        Err(Refusal::new(13388, "StaleConfig", format!("the chunks of {namespace} keep changing")))
    }

    /// As [`Self::route`], and makes the database where there is none, as the first write to one
    /// does.
    pub(super) async fn route_or_create(
        &self,
        shards: &Shards,
        namespace: &str,
    ) -> Result<Route, Refusal> {
        if let Some(route) = self.route(shards, namespace).await? {
            return Ok(route);
        }
        let db = namespace.split_once('.').map_or(namespace, |(db, _)| db);
        let create = rawdoc! {
            "_configsvrCreateDatabase": db, "writeConcern": { "w": "majority" }, "$db": "admin",
        };
        let reply = shards.ask(CONFIG, &super::command::Command::new(create)).await?;
        match self.route(shards, namespace).await? {
            Some(route) => Ok(route),
            None => Err(Refusal::new(
                26,
                "NamespaceNotFound",
                format!("creating the database {db}: {reply:?}"),
            )),
        }
    }

    /// Forgets a route that a shard called stale.
    pub(super) fn forget(&self, namespace: &str) {
        Router::lock(&self.routes).remove(namespace);
    }

    /// Forgets a whole database.
    pub(super) fn forget_database(&self, db: &str) {
        let prefix = format!("{db}.");
        Router::lock(&self.routes).retain(|namespace, _| !namespace.starts_with(&prefix));
    }
}

/// Whether a collation compares byte by byte, as none at all does.
fn is_simple(collation: Option<&RawDocument>) -> bool {
    collation.is_none_or(|collation| {
        collation.is_empty() || collation.get_str("locale").is_ok_and(|locale| locale == "simple")
    })
}

fn unreadable(field: &str) -> Refusal {
    Refusal::new(1, "InternalError", format!("an entry of the config server has no usable {field}"))
}

fn text(entry: &RawDocument, field: &str) -> Result<String, Refusal> {
    entry.get_str(field).map(str::to_owned).map_err(|_| unreadable(field))
}
