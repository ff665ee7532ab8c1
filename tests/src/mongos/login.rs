//! A client's login: who it is, by the config server's word, and what it may do.
//!
//! The conversation goes to the config server on a connection of its own, which is then the
//! client's: commands about users, and reads of the cluster's catalogue, are carried out there with
//! the client's rights. Commands on data are checked here, by the privileges that the config server
//! reported at the login, and go to the shards by the cluster's key, as a `mongos` does it. Unlike
//! a `mongos` it does not check what a pipeline writes or looks up, takes no X.509 logins, and
//! learns of changed privileges at the next login only.

use std::io;

use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};

use super::command::{Command, Refusal, append, documents_in, is_ok};
use super::link::Link;
use super::shards::{CLUSTER_TIME, CONFIG};
use super::{Answer, Router, wire};

/// What may be said by anybody.
const OPEN: [&str; 12] = [
    "hello",
    "isMaster",
    "ismaster",
    "ping",
    "buildInfo",
    "buildinfo",
    "saslStart",
    "saslContinue",
    "logout",
    "connectionStatus",
    "whatsmyuri",
    "endSessions",
];

/// A client's connection to the config server.
#[derive(Default)]
pub(super) struct Login {
    stream: Option<Link>,
    /// Set once it is logged in.
    privileges: Option<Vec<RawDocumentBuf>>,
}

fn lost(error: &io::Error) -> Refusal {
    Refusal::new(6, "HostUnreachable", format!("the config server: {error}"))
}

/// What a command does, and whether to the whole cluster; `None`: the config server judges it, or
/// it is anybody's.
fn action(name: &str) -> Option<(&'static str, bool)> {
    Some(match name {
        "find" | "aggregate" | "count" | "distinct" => ("find", false),
        "insert" => ("insert", false),
        "update" | "findAndModify" | "findandmodify" => ("update", false),
        "delete" => ("remove", false),
        "create" => ("createCollection", false),
        "drop" => ("dropCollection", false),
        "dropDatabase" => ("dropDatabase", false),
        "createIndexes" => ("createIndex", false),
        "dropIndexes" | "deleteIndexes" => ("dropIndex", false),
        "collMod" => ("collMod", false),
        "listCollections" => ("listCollections", false),
        "listIndexes" => ("listIndexes", false),
        "collStats" => ("collStats", false),
        "convertToCapped" => ("convertToCapped", false),
        "shardCollection" | "enableSharding" => ("enableSharding", false),
        "split" => ("splitChunk", false),
        "moveChunk" | "moveRange" => ("moveChunk", false),
        "movePrimary" => ("moveChunk", false),
        "refineCollectionShardKey" => ("refineCollectionShardKey", false),
        "reshardCollection" => ("reshardCollection", false),
        "appendOplogNote" => ("appendOplogNote", true),
        "listShards" => ("listShards", true),
        "serverStatus" => ("serverStatus", true),
        "killOp" => ("killop", true),
        "setUserWriteBlockMode" => ("setUserWriteBlockMode", true),
        "addShardToZone" | "removeShardFromZone" | "updateZoneKeyRange" => {
            ("enableSharding", false)
        }
        _ => return None,
    })
}

fn allows(
    privilege: &RawDocument,
    action: &str,
    db: &str,
    collection: &str,
    is_of_cluster: bool,
) -> bool {
    let names = privilege.get_array("actions").into_iter().flatten().flatten();
    if !names
        .into_iter()
        .any(|name| matches!(name.as_str(), Some(name) if name == action || name == "anyAction"))
    {
        return false;
    }
    let Ok(resource) = privilege.get_document("resource") else { return false };
    if resource.get_bool("anyResource").unwrap_or(false) {
        return true;
    }
    if is_of_cluster {
        return resource.get_bool("cluster").unwrap_or(false);
    }
    match (resource.get_str("db"), resource.get_str("collection")) {
        (Ok(of_db), Ok(of_collection)) => {
            // Of every database are the users' own, without what belongs to the system.
            let is_plain = !db.is_empty()
                && db != "config"
                && db != "local"
                && !collection.starts_with("system.");
            (of_db == db || (of_db.is_empty() && is_plain))
                && (of_collection == collection || of_collection.is_empty())
        }
        _ => false,
    }
}

impl Login {
    /// Whether the client has logged in.
    pub(super) fn is_done(&self) -> bool {
        self.privileges.is_some()
    }

    /// Carries out a command at the config server as the client.
    pub(super) async fn ask(&mut self, router: &Router, command: &Command) -> Answer {
        if self.stream.is_none() {
            let host = router.shards.primary(CONFIG).await?;
            self.stream = Some(router.shards.connect(&host).await.map_err(|error| lost(&error))?);
        }
        let Some(stream) = &mut self.stream else {
            return Err(Refusal::new(18, "AuthenticationFailed", "no connection"));
        };
        // Servers do not sign the time for members of their cluster, and take an unsigned one from
        // those alone.
        let body = command.with(&[CLUSTER_TIME], &rawdoc! {}).body;
        let asked = wire::ask(stream, &body, command.sequence.as_ref()).await;
        if asked.is_err() {
            router.shards.forget_primary(CONFIG);
            (self.stream, self.privileges) = (None, None);
        }
        asked.map_err(|error| lost(&error))
    }

    /// A step of the conversation by which the client logs in.
    pub(super) async fn step(&mut self, router: &Router, command: &Command) -> Answer {
        let reply = self.ask(router, command).await?;
        if is_ok(&reply) && reply.get_bool("done").unwrap_or(false) {
            let look = rawdoc! { "connectionStatus": 1, "showPrivileges": true, "$db": "admin" };
            let status = self.ask(router, &Command::new(look)).await?;
            let info =
                status.get_document("authInfo").map_err(|_| super::admin::missing("authInfo"))?;
            self.privileges = Some(documents_in(info, "authenticatedUserPrivileges"));
        }
        Ok(reply)
    }

    fn may(&self, action: &str, db: &str, collection: &str, is_of_cluster: bool) -> bool {
        self.privileges
            .iter()
            .flatten()
            .any(|privilege| allows(privilege, action, db, collection, is_of_cluster))
    }

    /// Judges a command; what is returned is to be carried out in its place.
    pub(super) fn judge(&self, command: &Command) -> Result<Command, Refusal> {
        let name = command.name();
        let refused = |why: String| Err(Refusal::new(13, "Unauthorized", why));
        if !self.is_done() {
            return match OPEN.contains(&name.as_str()) {
                true => Ok(command.clone()),
                false => refused(format!("command {name} requires authentication")),
            };
        }
        let namespace = command.body.get_str(&name).unwrap_or_default();
        let (db, collection) = match (command.db(), namespace.split_once('.')) {
            ("admin", Some(of)) => of,
            (db, _) => (db, namespace),
        };
        let first = documents_in(&command.body, "pipeline").into_iter().next().unwrap_or_default();
        let is_first = |stage: &str| {
            first.iter().flatten().next().is_some_and(|(name, _)| name.as_str() == stage)
        };
        let is_allowed = match name.as_str() {
            // Who looks for his own, at what the router itself is at, needs no privilege.
            "aggregate" if is_first("$currentOp") => {
                let look = first.get_document("$currentOp").ok();
                let says =
                    |name: &str| look.and_then(|look| look.get_bool(name).ok()).unwrap_or(false);
                (says("localOps") && !says("allUsers")) || self.may("inprog", "", "", true)
            }
            "aggregate" if is_first("$changeStream") => match (command.db(), collection) {
                ("admin", _) => {
                    self.may("changeStream", "any", "any", false)
                        && self.may("find", "any", "any", false)
                }
                _ => self.may("changeStream", db, collection, false),
            },
            "aggregate" if is_first("$collStats") => self.may("collStats", db, collection, false),
            "balancerStart" | "balancerStop" => self.may("update", "config", "settings", false),
            "balancerStatus" => self.may("find", "config", "settings", false),
            name => action(name).is_none_or(|(action, is_of_cluster)| {
                self.may(action, db, collection, is_of_cluster)
            }),
        };
        if !is_allowed {
            return refused(format!(
                "not authorized on {} to execute command {name}",
                command.db()
            ));
        }
        let mut added = RawDocumentBuf::new();
        append(
            &mut added,
            "mayBypassWriteBlocking",
            self.may("bypassWriteBlockingMode", "", "", true),
        );
        Ok(command.with(&[], &added))
    }

    /// Whether the config server itself carries a command out for the client.
    pub(super) fn is_for_config(&self, command: &Command) -> bool {
        let name = command.name();
        match command.db() {
            // Who a client is that has not logged in, the config server knows as well.
            _ if !self.is_done() => matches!(
                name.as_str(),
                "connectionStatus" | "whatsmyuri" | "buildInfo" | "buildinfo"
            ),
            "config" => true,
            "admin" => action(&name).is_none() && !super::admin::IS_OWN.contains(&name.as_str()),
            _ => IS_ABOUT_USERS.contains(&name.as_str()),
        }
    }
}

/// Commands about users and roles, of any database.
const IS_ABOUT_USERS: [&str; 15] = [
    "createUser",
    "updateUser",
    "dropUser",
    "dropAllUsersFromDatabase",
    "grantRolesToUser",
    "revokeRolesFromUser",
    "usersInfo",
    "createRole",
    "updateRole",
    "dropRole",
    "dropAllRolesFromDatabase",
    "grantRolesToRole",
    "revokeRolesFromRole",
    "grantPrivilegesToRole",
    "rolesInfo",
];
