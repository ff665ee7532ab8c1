//! What concerns the whole cluster: `hello`, shards, zones, balancer, notes, and whatever else the
//! config server answers.

use mongodb::bson::raw::RawBsonRef;
use mongodb::bson::{DateTime, RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use placement::element;

use super::command::{self, Command, Refusal, append, append_times, is_ok, joined, number};
use super::shards::CONFIG;
use super::{Answer, Router, wire};

/// The wire version of the servers that the rig starts, 6.0.
const WIRE_VERSION: i32 = 17;

/// What a mongos does not report in its `serverStatus`: it holds no data, and belongs to no replica
/// set.
const OF_MONGOD: [&str; 8] = [
    "process",
    "repl",
    "storageEngine",
    "wiredTiger",
    "oplogTruncation",
    "flowControl",
    "opcountersRepl",
    "electionMetrics",
];

/// Commands on the database `admin` that a router carries out itself.
pub(super) const IS_OWN: [&str; 14] = [
    "aggregate",
    "listDatabases",
    "renameCollection",
    "balancerStart",
    "balancerStop",
    "balancerStatus",
    "ping",
    "endSessions",
    "killSessions",
    "refreshSessions",
    "getMore",
    "killCursors",
    "commitTransaction",
    "abortTransaction",
];

/// What a mongos says of itself. Without a `topologyVersion` drivers ask again instead of waiting
/// for news.
pub(super) fn hello(name: &str) -> RawDocumentBuf {
    let mut reply = RawDocumentBuf::new();
    append(&mut reply, if name == "hello" { "isWritablePrimary" } else { "ismaster" }, true);
    let rest = rawdoc! {
        "helloOk": true, "msg": "isdbgrid", "maxBsonObjectSize": 16 << 20,
        "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000, "localTime": DateTime::now(),
        "logicalSessionTimeoutMinutes": 30,
        "minWireVersion": 0, "maxWireVersion": WIRE_VERSION, "readOnly": false, "ok": 1.0,
    };
    joined(&reply, &rest)
}

fn majority() -> RawDocumentBuf {
    rawdoc! { "writeConcern": { "w": "majority" } }
}

impl Router {
    pub(super) async fn run_on_admin(&self, name: &str, command: &Command) -> Answer {
        let of_config = |own: &'static str| match name {
            "setUserWriteBlockMode"
            | "addShardToZone"
            | "removeShardFromZone"
            | "updateZoneKeyRange" => {
                let value = element::elements(&command.body).next();
                let mut first = RawDocumentBuf::new();
                match value.and_then(|_| command.body.get(name).ok().flatten()) {
                    Some(value) => append(&mut first, own, value),
                    None => append(&mut first, own, 1),
                }
                command.renamed(&first, &["writeConcern"], &majority())
            }
            _ => {
                let mut first = RawDocumentBuf::new();
                append(&mut first, own, 1);
                command.renamed(&first, &["maxTimeMS", "writeConcern"], &rawdoc! {})
            }
        };
        match name {
            "aggregate" => self.aggregate_database(command).await,
            "listShards" => {
                let shards = self.shards.config_find("shards", &rawdoc! {}).await?;
                let entries = wire::array_of(shards.iter().map(AsRef::as_ref));
                Ok(rawdoc! { "shards": entries, "ok": 1.0 })
            }
            "listDatabases" => self.list_databases(command).await,
            "serverStatus" => {
                let status = self.shards.ask(CONFIG, command).await?;
                Ok(command::with(&status, &OF_MONGOD, &rawdoc! { "process": "mongos" }))
            }
            "killOp" => self.kill_operation(command).await,
            "appendOplogNote" => {
                let notes = self
                    .shards
                    .names()
                    .await?
                    .into_iter()
                    .map(|shard| (shard, command.clone()))
                    .collect();
                all_of(self.shards.ask_each(notes).await?)
            }
            "setUserWriteBlockMode" => {
                self.shards.ask(CONFIG, &of_config("_configsvrSetUserWriteBlockMode")).await
            }
            "balancerStop" => self.shards.ask(CONFIG, &of_config("_configsvrBalancerStop")).await,
            "balancerStart" => self.shards.ask(CONFIG, &of_config("_configsvrBalancerStart")).await,
            "balancerStatus" => {
                self.shards.ask(CONFIG, &of_config("_configsvrBalancerStatus")).await
            }
            "addShardToZone" => {
                self.shards.ask(CONFIG, &of_config("_configsvrAddShardToZone")).await
            }
            "removeShardFromZone" => {
                self.shards.ask(CONFIG, &of_config("_configsvrRemoveShardFromZone")).await
            }
            "updateZoneKeyRange" => {
                self.shards.ask(CONFIG, &of_config("_configsvrUpdateZoneKeyRange")).await
            }
            "enableSharding" => self.enable_sharding(command).await,
            "shardCollection" => self.shard_collection(command).await,
            "split" => self.split(command).await,
            "moveChunk" | "moveRange" => self.move_range(command).await,
            "movePrimary" => self.move_primary(command).await,
            "refineCollectionShardKey" => self.refine_key(command).await,
            "reshardCollection" => self.reshard(command).await,
            "renameCollection" => self.rename(command).await,
            _ => self.shards.ask(CONFIG, command).await,
        }
    }

    /// `killOp` of an operation that `$currentOp` reported as `SHARD:NUMBER`.
    async fn kill_operation(&self, command: &Command) -> Answer {
        let operation = command.body.get_str("op").unwrap_or_default();
        let Some((shard, Ok(number))) =
            operation.rsplit_once(':').map(|(shard, number)| (shard, number.parse::<i32>()))
        else {
            return Err(Refusal::new(
                2,
                "BadValue",
                "The op argument to killOp must be of the format shardid:opid",
            ));
        };
        self.shards
            .ask(shard, &Command::new(rawdoc! { "killOp": 1, "op": number, "$db": "admin" }))
            .await
    }

    async fn list_databases(&self, command: &Command) -> Answer {
        let mut commands: Vec<(String, Command)> =
            self.shards.names().await?.into_iter().map(|shard| (shard, command.clone())).collect();
        commands.push((CONFIG.to_owned(), command.clone()));
        let replies = self.shards.ask_each(commands).await?;
        if let Some(failed) = replies.iter().find(|reply| !is_ok(reply)) {
            return Ok(failed.clone());
        }
        let mut databases: std::collections::BTreeMap<String, i64> =
            std::collections::BTreeMap::new();
        let config_server = replies.len() - 1;
        for (place, reply) in replies.iter().enumerate() {
            for entry in command::documents_in(reply, "databases") {
                let Ok(name) = entry.get_str("name") else { continue };
                // Each server has these of its own; the cluster's are the config server's.
                let is_own = matches!(name, "admin" | "config" | "local");
                if name != "local" && is_own == (place == config_server) {
                    *databases.entry(name.to_owned()).or_default() +=
                        number(&entry, "sizeOnDisk").unwrap_or(0);
                }
            }
        }
        let only_names = command.body.get_bool("nameOnly").unwrap_or(false);
        let mut entries = RawArrayBuf::new();
        let mut total = 0;
        for (name, size) in databases {
            total += size;
            let mut entry = rawdoc! { "name": name };
            if !only_names {
                append(&mut entry, "sizeOnDisk", size);
                append(&mut entry, "empty", size == 0);
            }
            entries.push(entry);
        }
        let mut reply = rawdoc! { "databases": entries };
        if !only_names {
            append(&mut reply, "totalSize", total);
        }
        append(&mut reply, "ok", 1.0);
        append_times(&mut reply, &replies);
        Ok(reply)
    }

    async fn enable_sharding(&self, command: &Command) -> Answer {
        let mut create =
            rawdoc! { "_configsvrCreateDatabase": command.collection(), "$db": "admin" };
        if let Ok(primary) = command.body.get_str("primaryShard") {
            append(&mut create, "primaryShardId", primary);
        }
        let reply = self.shards.ask(CONFIG, &Command::new(joined(&create, &majority()))).await;
        self.table.forget_database(command.collection());
        reply
    }

    async fn shard_collection(&self, command: &Command) -> Answer {
        let _no_capping = self.sharding.lock().await;
        let namespace = command.collection().to_owned();
        let (db, collection) = split_name(&namespace)?;
        let route = self.table.route_or_create(&self.shards, &namespace).await?;
        let mut create = rawdoc! { "_shardsvrCreateCollection": collection };
        append(
            &mut create,
            "shardKey",
            command.body.get_document("key").map_err(|_| missing("key"))?,
        );
        for field in ["unique", "numInitialChunks", "presplitHashedZones", "collation"] {
            if let Ok(Some(value)) = command.body.get(field) {
                append(&mut create, field, value);
            }
        }
        append(&mut create, "databaseVersion", &*route.database.version);
        append(&mut create, "$db", db);
        let reply = self
            .shards
            .ask(&route.database.primary, &Command::new(joined(&create, &majority())))
            .await;
        self.table.forget(&namespace);
        reply
    }

    /// Splits the chunk that holds `middle` there.
    async fn split(&self, command: &Command) -> Answer {
        let namespace = command.collection().to_owned();
        self.table.forget(&namespace);
        let route = self.table.route_or_create(&self.shards, &namespace).await?;
        let map = route.map.ok_or_else(|| {
            Refusal::new(118, "NamespaceNotSharded", format!("{namespace} is not sharded"))
        })?;
        let middle = command.body.get_document("middle").map_err(|_| missing("middle"))?;
        let chunk = map.chunk_of(middle);
        let version = map.version();
        let split = rawdoc! {
            "splitChunk": namespace.as_str(), "from": chunk.shard.as_str(),
            "min": chunk.min.clone(), "max": chunk.max.clone(),
            "keyPattern": map.key().pattern().to_owned(), "splitKeys": [middle.to_owned()],
            "epoch": version.epoch,
            "timestamp": version.timestamp, "$db": "admin",
        };
        let reply = self.shards.ask(&chunk.shard, &Command::new(split)).await;
        self.table.forget(&namespace);
        reply
    }

    async fn move_range(&self, command: &Command) -> Answer {
        let namespace = command.collection().to_owned();
        self.table.forget(&namespace);
        let route = self.table.route_or_create(&self.shards, &namespace).await?;
        let map = route.map.ok_or_else(|| {
            Refusal::new(118, "NamespaceNotSharded", format!("{namespace} is not sharded"))
        })?;
        let min = command.body.get_document("min").map_err(|_| missing("min"))?;
        let chunk = map.chunk_of(min);
        let to = command
            .body
            .get_str("toShard")
            .or_else(|_| command.body.get_str("to"))
            .map_err(|_| missing("toShard"))?;
        let version = map.version();
        let max =
            command.body.get_document("max").map_or_else(|_| chunk.max.clone(), ToOwned::to_owned);
        let order = rawdoc! {
            "_configsvrMoveRange": namespace.as_str(), "toShard": to, "min": min.to_owned(),
            "max": max, "epoch": version.epoch,
            "collectionTimestamp": version.timestamp,
            "waitForDelete": command.body.get_bool("waitForDelete").unwrap_or(false),
            "$db": "admin",
        };
        let reply = self.shards.ask(CONFIG, &Command::new(joined(&order, &majority()))).await;
        self.table.forget(&namespace);
        reply
    }

    async fn move_primary(&self, command: &Command) -> Answer {
        let db = command.collection().to_owned();
        let database = self.table.database(&self.shards, &db).await?;
        let database = database.ok_or_else(|| {
            Refusal::new(26, "NamespaceNotFound", format!("there is no database {db}"))
        })?;
        let to = command.body.get_str("to").map_err(|_| missing("to"))?;
        let order = rawdoc! {
            "_shardsvrMovePrimary": db.as_str(), "to": to,
            "databaseVersion": database.version.clone(), "$db": "admin",
        };
        let reply =
            self.shards.ask(&database.primary, &Command::new(joined(&order, &majority()))).await;
        self.table.forget_database(&db);
        reply
    }

    /// Adds fields to a collection's shard key, by what its database's primary shard does for that.
    async fn refine_key(&self, command: &Command) -> Answer {
        let namespace = command.collection().to_owned();
        let (db, collection) = split_name(&namespace)?;
        let route = self.table.route_or_create(&self.shards, &namespace).await?;
        let order = rawdoc! {
            "_shardsvrRefineCollectionShardKey": collection,
            "newShardKey": command.body.get_document("key").map_err(|_| missing("key"))?.to_owned(),
            "databaseVersion": route.database.version.clone(), "$db": db,
        };
        let reply = self
            .shards
            .ask(&route.database.primary, &Command::new(joined(&order, &majority())))
            .await;
        self.table.forget(&namespace);
        reply
    }

    /// Gives a collection another shard key, by what its database's primary shard does for that: it
    /// is copied beside itself.
    async fn reshard(&self, command: &Command) -> Answer {
        let namespace = command.collection().to_owned();
        let route = self.table.route_or_create(&self.shards, &namespace).await?;
        let mut order =
            rawdoc! { "_shardsvrReshardCollection": namespace.as_str(), "$db": "admin" };
        for field in
            ["key", "unique", "collation", "numInitialChunks", "zones", "_presetReshardedChunks"]
        {
            if let Some(value) = value(&command.body, field) {
                append(&mut order, field, value);
            }
        }
        append(&mut order, "databaseVersion", &*route.database.version);
        let reply = self
            .shards
            .ask(&route.database.primary, &Command::new(joined(&order, &majority())))
            .await;
        self.table.forget(&namespace);
        reply
    }

    async fn rename(&self, command: &Command) -> Answer {
        let _no_capping = self.sharding.lock().await;
        let from = command.collection().to_owned();
        let (db, collection) = split_name(&from)?;
        let to = command.body.get_str("to").map_err(|_| missing("to"))?;
        let database = self.table.database(&self.shards, db).await?;
        let database = database.ok_or_else(|| {
            Refusal::new(26, "NamespaceNotFound", format!("{from} does not exist"))
        })?;
        let order = rawdoc! {
            "_shardsvrRenameCollection": collection, "to": to,
            "databaseVersion": database.version.clone(),
            "dropTarget": command.body.get_bool("dropTarget").unwrap_or(false), "$db": db,
        };
        let reply =
            self.shards.ask(&database.primary, &Command::new(joined(&order, &majority()))).await;
        self.table.forget(&from);
        self.table.forget(to);
        reply
    }
}

/// Where nobody listens: the lowest port, which only an administrator could take.
const NOWHERE: &str = "127.0.0.1:1";

/// A reply with entries of `config.shards`, each under its own name and at an address where nobody
/// is.
pub(super) fn with_hidden_hosts(reply: &RawDocument) -> RawDocumentBuf {
    let Ok(cursor) = reply.get_document("cursor") else { return reply.to_owned() };
    let mut entries = RawArrayBuf::new();
    for entry in command::documents_in(cursor, "firstBatch") {
        let set = entry
            .get_str("host")
            .ok()
            .and_then(|host| host.split_once('/'))
            .map_or("", |(set, _)| set)
            .to_owned();
        entries.push(&*command::with(
            &entry,
            &["host"],
            &rawdoc! { "host": format!("{set}/{NOWHERE}") },
        ));
    }
    let cursor = command::with(cursor, &["firstBatch"], &rawdoc! { "firstBatch": entries });
    command::with(reply, &["cursor"], &rawdoc! { "cursor": cursor })
}

/// The reply to a command that went to several shards: an error of one, or that it went well with
/// the newest times.
pub(super) fn all_of(replies: Vec<RawDocumentBuf>) -> Answer {
    if let Some(failed) = replies.iter().find(|reply| !is_ok(reply)) {
        return Ok(failed.clone());
    }
    let mut reply = wire::fine();
    append_times(&mut reply, &replies);
    Ok(reply)
}

pub(super) fn missing(field: &str) -> Refusal {
    Refusal::new(9, "FailedToParse", format!("the field {field} is missing"))
}

fn split_name(namespace: &str) -> Result<(&str, &str), Refusal> {
    namespace
        .split_once('.')
        .ok_or_else(|| Refusal::new(73, "InvalidNamespace", format!("{namespace} is no namespace")))
}

/// The value of a field, where it is there.
pub(super) fn value<'a>(body: &'a RawDocument, name: &str) -> Option<RawBsonRef<'a>> {
    body.get(name).ok().flatten()
}
