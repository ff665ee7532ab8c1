//! Definitions: collections and indexes made, changed and dropped, through the servers' own
//! coordinators where they have them.

use mongodb::bson::{RawDocumentBuf, rawdoc};

use super::admin::all_of;
use super::command::{Command, Refusal, append, is_ok, is_stale, number};
use super::{Answer, Router, STALE_TRIES};

impl Router {
    /// Carries out a command on a database that is neither a read nor a write.
    pub(super) async fn define(&self, name: &str, command: &Command) -> Answer {
        match name {
            "create" => self.on_primary(command, true, None).await,
            "drop" => self.coordinated(command, "_shardsvrDropCollection").await,
            "dropIndexes" | "deleteIndexes" => {
                self.coordinated(command, "_shardsvrDropIndexes").await
            }
            "collMod" => self.coordinated(command, "_shardsvrCollMod").await,
            "dropDatabase" => self.drop_database(command).await,
            "createIndexes" => self.create_indexes(command).await,
            "convertToCapped" => self.convert_to_capped(command).await,
            "collStats" | "dbStats" | "dbstats" | "dataSize" => self.sizes(command).await,
            _ => self.on_primary(command, false, None).await,
        }
    }

    /// Sends a command to the database's primary shard, with the database's version.
    async fn on_primary(
        &self,
        command: &Command,
        creates: bool,
        first: Option<&RawDocumentBuf>,
    ) -> Answer {
        for _ in 0..STALE_TRIES {
            let database = match self.table.database(&self.shards, command.db()).await? {
                Some(database) => database,
                None if creates => {
                    self.table.route_or_create(&self.shards, &command.namespace()).await?.database
                }
                None => {
                    return Err(Refusal::new(
                        26,
                        "NamespaceNotFound",
                        format!("there is no database {}", command.db()),
                    ));
                }
            };
            let mut added = rawdoc! { "databaseVersion": database.version.clone() };
            let sent = match first {
                None => command.with(&[], &added),
                Some(first) => {
                    append(&mut added, "writeConcern", &*rawdoc! { "w": "majority" });
                    command.renamed(first, &["writeConcern"], &added)
                }
            };
            let reply = self.send(&database.primary, sent).await?;
            if !is_stale(&reply) {
                return Ok(reply);
            }
        }
        Err(Refusal::new(
            249,
            "StaleDbVersion",
            format!("the database {} keeps moving", command.db()),
        ))
    }

    async fn coordinated(&self, command: &Command, own: &str) -> Answer {
        let mut first = RawDocumentBuf::new();
        append(&mut first, own, command.collection());
        let reply = self.on_primary(command, false, Some(&first)).await;
        self.table.forget(&command.namespace());
        reply
    }

    async fn drop_database(&self, command: &Command) -> Answer {
        if self.table.database(&self.shards, command.db()).await?.is_none() {
            return Ok(super::wire::fine());
        }
        let reply =
            self.on_primary(command, false, Some(&rawdoc! { "_shardsvrDropDatabase": 1 })).await;
        self.table.forget_database(command.db());
        reply
    }

    /// A router refuses this for a sharded collection; its primary shard would convert what it
    /// holds of it, and leave the rest.
    async fn convert_to_capped(&self, command: &Command) -> Answer {
        let _no_sharding = self.sharding.lock().await;
        let namespace = command.namespace();
        self.table.forget(&namespace);
        for _ in 0..STALE_TRIES {
            let Some(route) = self.table.route(&self.shards, &namespace).await? else {
                return Err(Refusal::new(
                    26,
                    "NamespaceNotFound",
                    format!("there is no database {}", command.db()),
                ));
            };
            if route.map.is_some() {
                return Err(Refusal::new(
                    20,
                    "IllegalOperation",
                    format!("{namespace} is sharded, and cannot be capped"),
                ));
            }
            let primary = &route.database.primary;
            let reply = self.send(primary, command.with(&[], &route.versions(primary))).await?;
            self.table.forget(&namespace);
            if !is_stale(&reply) {
                return Ok(reply);
            }
        }
        Err(Refusal::new(13388, "StaleConfig", format!("the chunks of {namespace} keep changing")))
    }

    /// Sizes: the sums of what the shards report.
    async fn sizes(&self, command: &Command) -> Answer {
        let names = if command.collection().is_empty() {
            self.shards.names().await?
        } else {
            self.table.route_or_create(&self.shards, &command.namespace()).await?.shards()
        };
        let replies = self
            .shards
            .ask_each(names.into_iter().map(|shard| (shard, command.clone())).collect())
            .await?;
        if let [only] = replies.as_slice() {
            return Ok(only.clone());
        }
        if let Some(failed) = replies.iter().find(|reply| !is_ok(reply)) {
            return Ok(failed.clone());
        }
        let mut reply = RawDocumentBuf::new();
        for field in [
            "count",
            "size",
            "storageSize",
            "totalIndexSize",
            "objects",
            "dataSize",
            "indexSize",
            "totalSize",
            "numObjects",
        ] {
            if replies.iter().any(|reply| number(reply, field).is_some()) {
                append(
                    &mut reply,
                    field,
                    replies.iter().filter_map(|reply| number(reply, field)).sum::<i64>(),
                );
            }
        }
        Ok(super::command::joined(&reply, &super::wire::fine()))
    }

    async fn create_indexes(&self, command: &Command) -> Answer {
        let namespace = command.namespace();
        for _ in 0..STALE_TRIES {
            let route = self.table.route_or_create(&self.shards, &namespace).await?;
            let commands = route.shards().into_iter().map(|shard| {
                let versioned = command.with(&[], &route.versions(&shard));
                (shard, versioned)
            });
            let mut replies = self.send_each(commands.collect()).await?;
            if replies.iter().any(|reply| is_stale(reply)) {
                self.table.forget(&namespace);
                continue;
            }
            return match replies.len() {
                1 => Ok(replies.remove(0)),
                _ if replies.iter().all(|reply| is_ok(reply)) => Ok(replies.remove(0)),
                _ => all_of(replies),
            };
        }
        Err(Refusal::new(13388, "StaleConfig", format!("the chunks of {namespace} keep changing")))
    }
}
