//! The live checks before any data moves, each told apart, with its cause and remedy; and the forecast.
//!
//! What could not be looked at is never `ok`: it fails where the migration depends on it, and else warns and says so.

mod cluster;
mod sharding;
mod surroundings;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use mongodb::bson::{Document, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::id::{RunId, ShardName};
use schemas::namespace::Namespace;
use schemas::observed::{Check, Forecast, Inspection, Outcome, ShardForecast};
use schemas::principal::{Principal, PrincipalKind};
use schemas::spec::{ExistingData, MigrationSpec, SourceWrites};

use super::catalog::{self, CollectionInfo, Kind};
use super::concurrent::{self, Piece};
use super::guard::{self, WRITE_BLOCK};
use super::users;
use crate::mongo::{Deployment, ServerVersion, Side, Topology, append, command, connect};

/// The oldest server that is carried from and to.
const OLDEST: ServerVersion = ServerVersion::new(5, 0, 0);
/// How long the source's reading speed is measured for the forecast: a plan waits for it.
const SAMPLE_TIME: Duration = Duration::from_millis(700);
/// Collections whose sizes are read at once for the forecast.
const SIZED_AT_ONCE: usize = 8;

/// What was found on the way, for those who go on from it.
#[derive(Debug, Default)]
pub struct Findings {
    /// The checks, in order.
    pub checks: Vec<Check>,
    source: Option<Deployment>,
    destination: Option<Deployment>,
    /// Those of a sharded source that can be read.
    shards: Vec<(ShardName, Deployment)>,
    catalogue: Vec<CollectionInfo>,
    drops: Vec<Namespace>,
    access_control: Option<bool>,
}

impl Findings {
    fn note(&mut self, name: &str, outcome: Outcome, message: impl Into<String>) {
        self.checks.push(Check { name: name.to_owned(), outcome, message: message.into(), code: None, remedy: None });
    }

    fn fail(&mut self, name: &str, fault: &Fault) {
        self.checks.push(Check {
            name: name.to_owned(),
            outcome: Outcome::Fail,
            message: fault.message.clone(),
            code: Some(fault.code),
            remedy: Some(fault.remedy.clone()),
        });
    }

    /// The first failed check as a fault.
    pub fn first_failure(&self) -> Result<(), Fault> {
        match self.checks.iter().find(|check| check.outcome == Outcome::Fail) {
            None => Ok(()),
            Some(check) => {
                let code = check.code.unwrap_or(FaultCode::Internal);
                Err(Fault::new(code, check.message.clone())
                    .with_remedy(check.remedy.clone().unwrap_or_else(|| code.remedy().to_owned())))
            }
        }
    }
}

/// Makes the checks. Namespaces in `ours` on the destination are this migration's own.
pub async fn check(spec: &MigrationSpec, ours: &BTreeSet<Namespace>, run: Option<&RunId>) -> Findings {
    let mut findings = Findings::default();
    findings.source = reach(&mut findings, Side::Source, spec).await;
    findings.destination = reach(&mut findings, Side::Destination, spec).await;
    cluster::check(&mut findings, spec).await;
    if let (Some(source), Some(destination)) = (findings.source.clone(), findings.destination.clone()) {
        versions(&mut findings, &source, &destination);
        same_deployment(&mut findings, &source, &destination).await;
        if source.topology != Topology::Sharded {
            surroundings::compatibility(&mut findings, &source, &destination).await;
        }
        surroundings::clocks(&mut findings, &source, &destination).await;
        surroundings::addresses(&mut findings, &source, &destination).await;
    }
    if let Some(source) = findings.source.clone() {
        privileges(&mut findings, &source, &needed(Side::Source, spec)).await;
        namespaces(&mut findings, &source, spec).await;
        write_block(&mut findings, &source, spec);
        let mut followed = findings.shards.clone();
        if let Topology::ReplicaSet(name) = &source.topology {
            followed.push((ShardName(name.clone()), source));
        }
        for (name, shard) in &followed {
            oplog(&mut findings, name, shard).await;
        }
    }
    if let Some(destination) = findings.destination.clone() {
        let mut needed = needed(Side::Destination, spec);
        if destination.is_sharded() {
            needed.extend(["enableSharding", "moveChunk", "splitChunk"].map(Needed::Anywhere));
        }
        privileges(&mut findings, &destination, &needed).await;
        emptiness(&mut findings, &destination, spec, ours, run).await;
        destination_block(&mut findings, &destination, spec, run).await;
    }
    if let (Some(source), Some(destination)) = (findings.source.clone(), findings.destination.clone()) {
        if spec.namespaces.include_users {
            principals(&mut findings, &source, &destination, spec).await;
        }
        sharding::shard_keys(&mut findings, &source, &destination, spec).await;
    }
    findings
}

/// Makes the checks and the forecast.
pub async fn inspect(spec: &MigrationSpec, ours: &BTreeSet<Namespace>) -> Inspection {
    let mut findings = check(spec, ours, None).await;
    let forecast = match findings.source.clone() {
        Some(source) => match forecast(&source, &findings.catalogue).await {
            Ok(mut forecast) => {
                forecast.shards.extend(cluster::forecast(&findings, forecast.copy_seconds).await);
                if let Some(destination) = findings.destination.clone() {
                    surroundings::disk(&mut findings, &destination, forecast.bytes).await;
                }
                Some(forecast)
            }
            Err(fault) => {
                findings.fail("forecast", &fault);
                None
            }
        },
        None => None,
    };
    Inspection { checks: findings.checks, forecast, drops: findings.drops, destination_access_control: findings.access_control }
}

async fn reach(findings: &mut Findings, side: Side, spec: &MigrationSpec) -> Option<Deployment> {
    let connection = match side {
        Side::Source => &spec.source.connection,
        Side::Destination => &spec.destination.connection,
    };
    let name = format!("{side}_reachable");
    let deployment = match connect(side, connection, None, "cutover-preflight").await {
        Ok(deployment) => deployment,
        Err(fault) => {
            findings.fail(&name, &fault);
            return None;
        }
    };
    findings.note(&name, Outcome::Ok, format!("{} answers, MongoDB {}", deployment.hosts, deployment.version));
    let name = format!("{side}_topology");
    match &deployment.topology {
        Topology::ReplicaSet(set) => findings.note(&name, Outcome::Ok, format!("replica set {set}")),
        Topology::Standalone => {
            let fault = Fault::new(
                FaultCode::StandaloneSource,
                format!("the {side} at {} is a standalone server, not a replica set", deployment.hosts),
            )
            .with_remedy(format!("restart the {side} with --replSet and run rs.initiate(); one member is enough"));
            findings.fail(&name, &fault);
            return None;
        }
        Topology::Sharded if side == Side::Destination => {
            findings.note(&name, Outcome::Ok, "a sharded cluster, through its router");
        }
        Topology::Sharded => {
            let fault = Fault::new(
                FaultCode::NotSupportedYet,
                format!("the {side} at {} is a sharded cluster, which this version does not support yet", deployment.hosts),
            )
            .with_remedy("migrate between replica sets");
            findings.fail(&name, &fault);
        }
    }
    Some(deployment)
}

fn versions(findings: &mut Findings, source: &Deployment, destination: &Deployment) {
    let (from, to) = (source.version, destination.version);
    let problem = if from < OLDEST {
        Some(format!("the source is MongoDB {from}; {}.{} is the oldest that can be migrated", OLDEST.major, OLDEST.minor))
    } else if (to.major, to.minor) < (from.major, from.minor) {
        Some(format!("the destination is MongoDB {to}, older than the source's {from}"))
    } else {
        None
    };
    match problem {
        Some(message) => findings.fail("versions", &Fault::new(FaultCode::UnsupportedVersion, message)),
        None => findings.note("versions", Outcome::Ok, format!("from MongoDB {from} to {to}")),
    }
}

async fn same_deployment(findings: &mut Findings, source: &Deployment, destination: &Deployment) {
    let name = "different_deployments";
    match sharding::is_same(source, destination).await {
        Ok(true) => findings.fail(
            name,
            &Fault::new(
                FaultCode::SameDeployment,
                format!(
                    "source ({}) and destination ({}) are the same deployment, or one is a shard of the other",
                    source.hosts, destination.hosts
                ),
            ),
        ),
        Ok(false) => findings.note(name, Outcome::Ok, "source and destination are different deployments"),
        Err(fault) => findings.fail(name, &fault),
    }
}

async fn namespaces(findings: &mut Findings, source: &Deployment, spec: &MigrationSpec) {
    let found = match catalog::list(source, &spec.namespaces.scope).await {
        Ok(found) => found,
        Err(fault) => return findings.fail("namespaces", &fault),
    };
    let mut refused: Vec<Fault> = found.values().filter_map(|info| catalog::unsupported(info, source.version)).collect();
    match catalog::stray_buckets(source, &spec.namespaces.scope).await {
        Ok(stray) => refused.extend(stray),
        Err(fault) => return findings.fail("namespaces", &fault),
    }
    match refused.first() {
        Some(first) => {
            let message = refused.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; ");
            findings.fail("namespaces", &Fault { message, ..first.clone() });
        }
        None if found.is_empty() => findings.note("namespaces", Outcome::Warn, "nothing on the source is in scope"),
        None => {
            let views = found.values().filter(|info| info.kind == Kind::View).count();
            findings.note("namespaces", Outcome::Ok, format!("{} collections and {views} views in scope", found.len() - views));
        }
    }
    findings.catalogue = found.into_values().collect();
}

/// Whether a user or role is among what a migration carries.
pub fn carries(spec: &MigrationSpec, principal: &Principal) -> bool {
    spec.namespaces.include_users && spec.namespaces.scope.has_principals_of(&principal.db)
}

/// Users and roles of the databases in scope: that their roles will be there, and that the daemon does not stand in their way.
async fn principals(findings: &mut Findings, source: &Deployment, destination: &Deployment, spec: &MigrationSpec) {
    let name = "users";
    let looked = async {
        let found = users::list(source, &spec.namespaces.scope).await?;
        let homeless = users::homeless_roles(&found, destination).await?;
        let own = users::own_database(destination).await?;
        Ok::<_, Fault>((found, homeless, own))
    };
    let (found, homeless, own) = match looked.await {
        Ok(looked) => looked,
        Err(fault) => return findings.fail(name, &fault),
    };
    if let Some(own) = own.filter(|db| spec.namespaces.scope.has_principals_of(db)) {
        let message =
            format!("the user that this daemon is on the destination is defined in {own}, whose users are to be carried");
        let remedy = format!("use one that is defined in admin, or leave {own} out of scope");
        findings.fail(name, &Fault::new(FaultCode::InvalidConfiguration, message).with_remedy(remedy));
    } else if homeless.is_empty() {
        let of = |kind| found.keys().filter(|principal| principal.kind == kind).count();
        let (users, roles) = (of(PrincipalKind::User), of(PrincipalKind::Role));
        findings.note(name, Outcome::Ok, format!("{users} users and {roles} roles in scope"));
    } else {
        findings.fail(name, &users::refusal(&homeless));
    }
}

fn write_block(findings: &mut Findings, source: &Deployment, spec: &MigrationSpec) {
    match spec.cutover.source_writes {
        SourceWrites::Observe => findings.note("write_block", Outcome::Ok, "not used: the source's writes are observed"),
        SourceWrites::Block if source.version >= WRITE_BLOCK => {
            findings.note("write_block", Outcome::Ok, "the source can block writes (setUserWriteBlockMode)");
        }
        SourceWrites::Block => findings.fail(
            "write_block",
            &Fault::new(
                FaultCode::WriteBlockUnavailable,
                format!("the source is MongoDB {}, whose writes cannot be blocked: that needs {WRITE_BLOCK}", source.version),
            ),
        ),
    }
}

/// Whether others can be kept from writing to the destination, where that is wanted.
async fn destination_block(findings: &mut Findings, destination: &Deployment, spec: &MigrationSpec, run: Option<&RunId>) {
    let name = "destination_write_block";
    let wanted = spec.destination.block_writes;
    let refuse = |why: String| {
        Fault::new(FaultCode::WriteBlockUnavailable, format!("the destination's writes cannot be blocked for others: {why}"))
            .with_remedy(
                "leave out destination.block_writes, or set it to false, and keep others from writing there by other means",
            )
    };
    let may_block = match guard::may_block(destination).await {
        Ok(may_block) => may_block,
        Err(fault) => return findings.fail(name, &fault),
    };
    let problem = if wanted == Some(false) {
        return findings.note(name, Outcome::Ok, "not used: block_writes = false");
    } else if !destination.is_authenticated {
        Some("it has no access control, so that it cannot tell this daemon from others".to_owned())
    } else if destination.version < WRITE_BLOCK {
        Some(format!("it is MongoDB {}, and that needs {WRITE_BLOCK}", destination.version))
    } else if !may_block {
        Some("its user may neither make users nor do it itself (setUserWriteBlockMode with bypassWriteBlockingMode)".to_owned())
    } else {
        None
    };
    match (problem, wanted) {
        (Some(why), Some(true)) => findings.fail(name, &refuse(why)),
        (Some(why), _) => {
            findings.note(name, Outcome::Warn, format!("others can write to the destination during the run: {why}"))
        }
        (None, _) => match guard::other_blockers(destination, run).await {
            Ok(others) if others.is_empty() => {
                findings.note(name, Outcome::Ok, "others cannot write to the destination during the run")
            }
            Ok(others) => findings.fail(
                name,
                &Fault::new(
                    FaultCode::DestinationInUse,
                    format!(
                        "{} blocks the destination's writes already, and the block is one for the whole deployment",
                        others.join(", ")
                    ),
                )
                .with_remedy("complete or cancel that run first, or set destination.block_writes = false on both"),
            ),
            Err(fault) => findings.fail(name, &fault),
        },
    }
}

async fn oplog(findings: &mut Findings, name: &ShardName, shard: &Deployment) {
    match shard.oplog_window_seconds().await {
        Some(seconds) => findings.note("oplog_window", Outcome::Ok, format!("the oplog of {name} spans {seconds} s at present")),
        None => findings.note(
            "oplog_window",
            Outcome::Warn,
            format!("the oplog of {name} (local.oplog.rs) may not be read, so that its window is not known: grant clusterMonitor or read on local"),
        ),
    }
}

async fn emptiness(
    findings: &mut Findings,
    destination: &Deployment,
    spec: &MigrationSpec,
    ours: &BTreeSet<Namespace>,
    run: Option<&RunId>,
) {
    let found = match catalog::list(destination, &spec.namespaces.scope).await {
        Ok(found) => found,
        Err(fault) => return findings.fail("destination_empty", &fault),
    };
    let mut there: Vec<Namespace> = found.into_keys().collect();
    if spec.namespaces.include_users {
        match users::list(destination, &spec.namespaces.scope).await {
            Ok(found) => there.extend(found.keys().map(Principal::namespace)),
            Err(fault) => return findings.fail("destination_empty", &fault),
        }
    }
    there.retain(|namespace| !ours.contains(namespace));
    match spec.destination.existing_data {
        _ if there.is_empty() => findings.note("destination_empty", Outcome::Ok, "nothing in scope is on the destination"),
        ExistingData::Drop if run.is_none() => {
            findings.note(
                "destination_empty",
                Outcome::Ok,
                format!("{} namespaces on the destination will be dropped", there.len()),
            );
            findings.drops = there;
        }
        // A run that starts drops what its plan listed, and nothing else.
        ExistingData::Drop | ExistingData::Refuse => {
            let some = there.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let more = if there.len() > 5 { format!(" and {} more", there.len() - 5) } else { String::new() };
            findings.fail(
                "destination_empty",
                &Fault::new(FaultCode::DestinationNotEmpty, format!("the destination has {some}{more} already")),
            );
        }
    }
}

/// An action on the cluster, on any database's collections, or on one collection of `admin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    Cluster(&'static str),
    Anywhere(&'static str),
    Kept(PrincipalKind, &'static str),
}

/// What carrying users and roles needs.
fn needed_for_users(side: Side) -> Vec<Needed> {
    use Needed::{Anywhere, Kept};
    let mut needed = vec![Kept(PrincipalKind::User, "find"), Kept(PrincipalKind::Role, "find")];
    if side == Side::Destination {
        needed.extend([Kept(PrincipalKind::User, "insert"), Kept(PrincipalKind::User, "update")]);
        let managing =
            ["createRole", "grantRole", "revokeRole", "dropRole", "dropUser", "setAuthenticationRestriction", "viewRole"];
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
                Cluster("listDatabases"),
            ];
            if spec.destination.existing_data == ExistingData::Drop {
                needed.push(Anywhere("dropCollection"));
            }
            needed
        }
    }
}

async fn privileges(findings: &mut Findings, deployment: &Deployment, needed: &[Needed]) {
    let side = deployment.side;
    let name = format!("{side}_privileges");
    let status = match deployment.command("admin", doc! { "connectionStatus": 1, "showPrivileges": true }).await {
        Ok(status) => status,
        Err(e) => return findings.fail(&name, &deployment.fault("reading the privileges", &e)),
    };
    let Ok(auth) = status.get_document("authInfo") else {
        return findings.fail(
            &name,
            &Fault::new(FaultCode::MissingPrivileges, format!("the {side} does not tell the privileges of this connection")),
        );
    };
    let nobody = auth.get_array("authenticatedUsers").is_ok_and(Vec::is_empty);
    if nobody {
        // Nobody is logged in: either there is no access control, or nothing may be done at all.
        let open = deployment.command("admin", doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": false }).await;
        return match open {
            Ok(_) => {
                if side == Side::Destination {
                    findings.access_control = Some(false);
                }
                findings.note(&name, Outcome::Ok, format!("the {side} has no access control"));
            }
            Err(_) => findings.fail(
                &name,
                &Fault::new(
                    FaultCode::AuthenticationFailed,
                    format!("the {side} at {} requires a login and none is given", deployment.hosts),
                )
                .with_remedy("add username and password = { env = \"NAME\" } to the block"),
            ),
        };
    }
    if side == Side::Destination {
        findings.access_control = Some(true);
    }
    let granted = auth.get_array("authenticatedUserPrivileges").cloned().unwrap_or_default();
    let granted: Vec<&Document> = granted.iter().filter_map(|privilege| privilege.as_document()).collect();
    let missing: Vec<String> =
        needed.iter().filter(|needed| !is_granted(&granted, **needed)).map(|needed| needed.in_words()).collect();
    if missing.is_empty() {
        findings.note(&name, Outcome::Ok, format!("the user has the {} privileges that the {side} needs", needed.len()));
    } else {
        let roles = match side {
            Side::Source => {
                "backup, clusterMonitor, readAnyDatabase, and a role with setUserWriteBlockMode (in clusterManager's place: hostManager, or a role of your own)"
            }
            Side::Destination if needed.iter().any(|needed| matches!(needed, Needed::Kept(..))) => {
                "clusterMonitor, readWriteAnyDatabase, dbAdminAnyDatabase, restore, userAdminAnyDatabase"
            }
            Side::Destination => "clusterMonitor, readWriteAnyDatabase, dbAdminAnyDatabase, restore",
        };
        findings.fail(
            &name,
            &Fault::new(
                FaultCode::MissingPrivileges,
                format!("the user on the {side} at {} may not: {}", deployment.hosts, missing.join(", ")),
            )
            .with_remedy(format!("grant the actions, or the built-in roles {roles}")),
        );
    }
}

impl Needed {
    const fn action(self) -> &'static str {
        match self {
            Self::Cluster(action) | Self::Anywhere(action) | Self::Kept(_, action) => action,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::Cluster(action) | Self::Anywhere(action) => action.to_owned(),
            Self::Kept(kind, action) => format!("{action} (on admin.{})", kind.collection()),
        }
    }
}

fn is_granted(granted: &[&Document], needed: Needed) -> bool {
    granted.iter().any(|privilege| {
        let Ok(resource) = privilege.get_document("resource") else { return false };
        let covers = match needed {
            Needed::Cluster(_) => resource.get_bool("cluster").unwrap_or(false),
            // A grant on single databases may do for what is in scope; the server then has the last word.
            Needed::Anywhere(_) => resource.get_str("db").is_ok_and(|db| !matches!(db, "admin" | "config" | "local")),
            Needed::Kept(kind, _) => {
                resource.get_str("db").is_ok_and(|db| matches!(db, "" | "admin"))
                    && resource.get_str("collection").is_ok_and(|collection| collection == kind.collection())
            }
        } || resource.get_bool("anyResource").unwrap_or(false);
        covers
            && privilege
                .get_array("actions")
                .is_ok_and(|actions| actions.iter().any(|action| action.as_str() == Some(needed.action())))
    })
}

/// Sizes from the catalogue, and the copy's time from a measured sample of the source's reading speed.
async fn forecast(source: &Deployment, catalogue: &[CollectionInfo]) -> Result<Forecast, Fault> {
    let collections: Vec<&CollectionInfo> = catalogue.iter().filter(|info| info.kind == Kind::Collection).collect();
    let sizes = collections.into_iter().map(|info| -> Piece<'_, (&CollectionInfo, (u64, u64))> {
        Box::pin(async move { Ok((info, catalog::size(source, &info.namespace).await?)) })
    });
    let sizes = concurrent::all(SIZED_AT_ONCE, sizes.collect()).await?;
    let mut forecast = Forecast::default();
    let mut largest: Option<(u64, &Namespace)> = None;
    for (info, (documents, bytes)) in sizes {
        forecast.collections += 1;
        forecast.documents += documents;
        forecast.bytes += bytes;
        if largest.is_none_or(|(most, _)| bytes > most) {
            largest = Some((bytes, &info.namespace));
        }
    }
    forecast.copy_seconds = match largest {
        None => Some(0.0),
        Some((_, namespace)) => {
            read_speed(source, namespace).await?.map(|bytes_per_second| forecast.bytes as f64 / bytes_per_second)
        }
    };
    let oplog_window_seconds = source.oplog_window_seconds().await;
    if let Topology::ReplicaSet(name) = &source.topology {
        forecast.shards.push(ShardForecast {
            name: ShardName(name.clone()),
            oplog_window_seconds,
            fits: forecast.copy_seconds.zip(oplog_window_seconds).map(|(copy, window)| copy <= window as f64 / 2.0),
        });
    }
    Ok(forecast)
}

/// Bytes a second that one reader gets from a collection; `None` where there is nothing to read.
async fn read_speed(source: &Deployment, namespace: &Namespace) -> Result<Option<f64>, Fault> {
    let fault = |e: mongodb::error::Error| source.fault(&format!("sampling {namespace}"), &e);
    let mut find = command("find", &namespace.collection);
    append(&mut find, "hint", &*rawdoc! { "$natural": 1 });
    let began = Instant::now();
    let mut cursor = source.batches(&namespace.db, find, 2_000).await.map_err(fault)?;
    let mut bytes = 0_usize;
    while began.elapsed() < SAMPLE_TIME
        && let Some(batch) = cursor.next().await
    {
        bytes += batch.map_err(fault)?.doc_slices().map_err(fault)?.as_bytes().len();
    }
    // An empty batch is an array of five bytes.
    Ok((bytes > 5).then(|| bytes as f64 / began.elapsed().as_secs_f64()))
}
