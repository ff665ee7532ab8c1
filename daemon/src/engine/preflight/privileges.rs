//! Whether the users of both sides may do what a migration does, action by action.

use mongodb::bson::{Document, doc};
use schemas::fault::{Fault, FaultCode};
use schemas::observed::Outcome;
use schemas::principal::PrincipalKind;
use schemas::spec::{MigrationSpec, SourceWrites, VerifyMode};

use super::Findings;
use crate::mongo::{Deployment, Side, error};

/// An action on the cluster, on any database's collections, on one collection of `admin`, or on one
/// of a sharded cluster's `config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    Cluster(&'static str),
    Anywhere(&'static str),
    Kept(PrincipalKind, &'static str),
    Config(&'static str, &'static str),
}

/// What is read of a sharded cluster's own records: which it is, what lies where.
const OF_CLUSTER: [&str; 5] = ["version", "shards", "databases", "collections", "chunks"];
/// The same of what moves between its shards.
const OF_BALANCER: [&str; 2] = ["settings", "migrations"];

/// What the records of a sharded cluster need.
fn needed_for_cluster(side: Side) -> Vec<Needed> {
    let mut needed: Vec<Needed> = OF_CLUSTER.map(|records| Needed::Config(records, "find")).into();
    match side {
        Side::Source => {
            // Stopping it is checked with the balancer itself.
            needed.extend(OF_BALANCER.map(|records| Needed::Config(records, "find")));
        }
        Side::Destination => {
            needed.push(Needed::Config("tags", "find"));
            // A router shows what the shards are at for it to no other user, not even a user's own
            // writes.
            needed.push(Needed::Cluster("inprog"));
            needed.extend(["enableSharding", "moveChunk", "splitChunk"].map(Needed::Anywhere));
        }
    }
    needed
}

/// What carrying users and roles needs.
fn needed_for_users(side: Side) -> Vec<Needed> {
    use Needed::{Anywhere, Kept};
    let mut needed = vec![Kept(PrincipalKind::User, "find"), Kept(PrincipalKind::Role, "find")];
    if side == Side::Destination {
        needed.extend([Kept(PrincipalKind::User, "insert"), Kept(PrincipalKind::User, "update")]);
        let managing = [
            "createRole",
            "grantRole",
            "revokeRole",
            "dropRole",
            "dropUser",
            "setAuthenticationRestriction",
            "viewRole",
        ];
        needed.extend(managing.map(Anywhere));
    }
    needed
}

fn needed(side: Side, spec: &MigrationSpec) -> Vec<Needed> {
    let mut needed = needed_for_data(side, spec);
    if spec.namespaces.include_users {
        needed.extend(needed_for_users(side));
    }
    needed
}

fn needed_for_data(side: Side, spec: &MigrationSpec) -> Vec<Needed> {
    use Needed::{Anywhere, Cluster};
    match side {
        Side::Source => {
            let mut needed = vec![
                Anywhere("find"),
                Anywhere("changeStream"),
                Anywhere("listCollections"),
                Anywhere("listIndexes"),
                Anywhere("collStats"),
                Cluster("listDatabases"),
                Cluster("appendOplogNote"),
            ];
            if spec.cutover.source_writes == SourceWrites::Block {
                needed.push(Cluster("setUserWriteBlockMode"));
            }
            needed
        }
        Side::Destination => {
            let mut needed = vec![
                Anywhere("find"),
                Anywhere("insert"),
                Anywhere("update"),
                Anywhere("remove"),
                Anywhere("createCollection"),
                Anywhere("createIndex"),
                Anywhere("dropCollection"),
                Anywhere("dropIndex"),
                Anywhere("collMod"),
                Anywhere("listCollections"),
                Anywhere("listIndexes"),
                Anywhere("bypassDocumentValidation"),
                Anywhere("collStats"),
                // What the source's users do to their collections meanwhile.
                Anywhere("convertToCapped"),
                Anywhere("dropDatabase"),
                Anywhere("renameCollectionSameDB"),
                Cluster("listDatabases"),
            ];
            if spec.verify.mode == VerifyMode::Full {
                // What others write there is followed.
                needed.push(Anywhere("changeStream"));
            }
            needed
        }
    }
}

/// Looks which of the actions that a side needs its user lacks.
pub(super) async fn privileges(
    findings: &mut Findings,
    deployment: &Deployment,
    spec: &MigrationSpec,
) {
    let mut needed = needed(deployment.side, spec);
    if deployment.is_sharded() {
        needed.extend(needed_for_cluster(deployment.side));
    }
    let side = deployment.side;
    let name = format!("{side}_privileges");
    let status = match deployment
        .command("admin", doc! { "connectionStatus": 1, "showPrivileges": true })
        .await
    {
        Ok(status) => status,
        Err(e) => return findings.fail(&name, &deployment.fault("reading the privileges", &e)),
    };
    let Ok(auth) = status.get_document("authInfo") else {
        return findings.fail(
            &name,
            &Fault::new(
                FaultCode::MissingPrivileges,
                format!("the {side} does not tell the privileges of this connection"),
            ),
        );
    };
    let nobody = auth.get_array("authenticatedUsers").is_ok_and(Vec::is_empty);
    if nobody {
        // Nobody is logged in: either there is no access control, or nothing may be done at all.
        let open = deployment
            .command(
                "admin",
                doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": false },
            )
            .await;
        // A name that cannot be read has been listed.
        let open =
            open.map(drop).or_else(|e| if error::is_unreadable(&e) { Ok(()) } else { Err(e) });
        return match open {
            Ok(()) => {
                if side == Side::Destination {
                    findings.access_control = Some(false);
                }
                findings.note(&name, Outcome::Ok, format!("the {side} has no access control"));
            }
            Err(_) => findings.fail(
                &name,
                &Fault::new(
                    FaultCode::AuthenticationFailed,
                    format!(
                        "the {side} at {} requires a login and none is given",
                        deployment.hosts
                    ),
                )
                .with_remedy("add username and password = { env = \"NAME\" } to the block"),
            ),
        };
    }
    if side == Side::Destination {
        findings.access_control = Some(true);
    }
    let granted = auth.get_array("authenticatedUserPrivileges").cloned().unwrap_or_default();
    let granted: Vec<&Document> =
        granted.iter().filter_map(|privilege| privilege.as_document()).collect();
    let missing: Vec<String> = needed
        .iter()
        .filter(|needed| !is_granted(&granted, **needed))
        .map(|needed| needed.in_words())
        .collect();
    if missing.is_empty() {
        findings.note(
            &name,
            Outcome::Ok,
            format!("the user has the {} privileges that the {side} needs", needed.len()),
        );
    } else {
        let roles = match side {
            Side::Source => "backup, clusterMonitor, readAnyDatabase",
            Side::Destination if needed.iter().any(|needed| matches!(needed, Needed::Kept(..))) => {
                "clusterMonitor, readWriteAnyDatabase, dbAdminAnyDatabase, restore, \
                 userAdminAnyDatabase"
            }
            Side::Destination => {
                "clusterMonitor, readWriteAnyDatabase, dbAdminAnyDatabase, restore"
            }
        };
        findings.fail(
            &name,
            &Fault::new(
                FaultCode::MissingPrivileges,
                format!(
                    "the user on the {side} at {} may not: {}",
                    deployment.hosts,
                    missing.join(", ")
                ),
            )
            .with_remedy(format!("grant the actions, or the built-in roles {roles}")),
        );
    }
}

impl Needed {
    const fn action(self) -> &'static str {
        match self {
            Self::Cluster(action)
            | Self::Anywhere(action)
            | Self::Kept(_, action)
            | Self::Config(_, action) => action,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::Cluster(action) | Self::Anywhere(action) => action.to_owned(),
            Self::Kept(kind, action) => format!("{action} (on admin.{})", kind.collection()),
            Self::Config(collection, action) => format!("{action} (on config.{collection})"),
        }
    }
}

fn is_granted(granted: &[&Document], needed: Needed) -> bool {
    granted.iter().any(|privilege| {
        let Ok(resource) = privilege.get_document("resource") else { return false };
        let covers = match needed {
            Needed::Cluster(_) => resource.get_bool("cluster").unwrap_or(false),
            // A grant on single databases may do for what is in scope; the server then has the last
            // word.
            Needed::Anywhere(_) => {
                resource.get_str("db").is_ok_and(|db| !matches!(db, "admin" | "config" | "local"))
            }
            Needed::Kept(kind, _) => {
                resource.get_str("db").is_ok_and(|db| matches!(db, "" | "admin"))
                    && resource
                        .get_str("collection")
                        .is_ok_and(|collection| collection == kind.collection())
            }
            Needed::Config(records, _) => {
                let of = (resource.get_str("db").ok(), resource.get_str("collection").ok());
                of == (Some("config"), Some(""))
                    || (matches!(of.0, Some("" | "config")) && of.1 == Some(records))
            }
        } || resource.get_bool("anyResource").unwrap_or(false);
        covers
            && privilege.get_array("actions").is_ok_and(|actions| {
                actions.iter().any(|action| action.as_str() == Some(needed.action()))
            })
    })
}
