//! What only sharded clusters need checked: that a whole one is given, its shards reached and read
//! directly, nothing moving in it.

use futures_util::future::join_all;
use mongodb::bson::{Bson, Document, RawDocument, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::observed::Outcome;
use schemas::spec::{Balancer as Mode, ConnectionSpec, MigrationSpec, VerifyMode};

use super::{Findings, OLDEST, environment};
use crate::engine::element;
use crate::engine::source::behind_router::{self, is_out_of_reach};
use crate::engine::source::topology::{self, Cluster, Shard};
use crate::engine::source::{balancer, balancer_hold};
use crate::mongo::{Deployment, Side, Topology, connect};

/// What a run does on each shard directly; a user of the cluster may have none of it there.
const ON_SHARDS: [Action; 7] = [
    Action::Anywhere("find"),
    Action::Anywhere("changeStream"),
    Action::Anywhere("listCollections"),
    Action::Anywhere("listIndexes"),
    Action::Anywhere("collStats"),
    Action::Cluster("listDatabases"),
    Action::Cluster("appendOplogNote"),
];

/// What stopping and starting the balancer needs, on `config.settings`.
const ON_BALANCER: Action = Action::Settings("update");

/// How collections begin in which a time-series collection keeps its measurements.
const BUCKETS: &str = "system.buckets.";

/// Something that a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// To the cluster or the server.
    Cluster(&'static str),
    /// With any database's collections.
    Anywhere(&'static str),
    /// With the cluster's settings.
    Settings(&'static str),
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Cluster(name) | Self::Anywhere(name) | Self::Settings(name) => name,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::Cluster(name) => format!("{name} on the cluster"),
            Self::Anywhere(name) => format!("{name} on the collections in scope"),
            Self::Settings(name) => format!("{name} on config.settings"),
        }
    }

    /// Whether a resource is one on which it can be granted. A grant on single databases may do for
    /// what is in scope.
    fn is_on(self, resource: &Document) -> bool {
        let text = |field: &str| resource.get_str(field).ok();
        resource.get_bool("anyResource").unwrap_or(false)
            || match self {
                Self::Cluster(_) => resource.get_bool("cluster").unwrap_or(false),
                Self::Anywhere(_) => {
                    text("db").is_some_and(|db| !matches!(db, "admin" | "config" | "local"))
                }
                Self::Settings(_) => {
                    text("db").is_some_and(|db| matches!(db, "" | "config"))
                        && text("collection")
                            .is_some_and(|collection| matches!(collection, "" | "settings"))
                }
            }
    }
}

/// Of these, what the user of a connection may not do; nothing where there is no access control.
async fn missing(deployment: &Deployment, needed: &[Action]) -> Result<Vec<String>, Fault> {
    if !deployment.is_authenticated {
        return Ok(Vec::new());
    }
    let status = deployment
        .command("admin", doc! { "connectionStatus": 1, "showPrivileges": true })
        .await
        .map_err(|e| deployment.fault("reading the privileges", &e))?;
    let granted = status
        .get_document("authInfo")
        .and_then(|auth| auth.get_array("authenticatedUserPrivileges"));
    let granted: Vec<&Document> =
        granted.map(|all| all.iter().filter_map(Bson::as_document).collect()).unwrap_or_default();
    let may = |action: Action| {
        granted.iter().any(|privilege| {
            privilege.get_document("resource").is_ok_and(|resource| action.is_on(resource))
                && privilege.get_array("actions").is_ok_and(|actions| {
                    actions.iter().any(|granted| granted.as_str() == Some(action.name()))
                })
        })
    };
    Ok(needed.iter().filter(|action| !may(**action)).map(|action| action.in_words()).collect())
}

/// Makes the checks of whichever side is sharded, and sees that neither is a part of a sharded
/// cluster.
pub(super) async fn check(findings: &mut Findings, spec: &MigrationSpec) {
    let (source, destination) = (findings.source.clone(), findings.destination.clone());
    let sides = [&source, &destination];
    for deployment in sides.into_iter().flatten() {
        if matches!(deployment.topology, Topology::ReplicaSet(_)) {
            whole(findings, deployment).await;
        }
    }
    if let Some(source) = source.filter(|source| source.is_sharded()) {
        reach(findings, &source, &spec.source.connection).await;
        compatibility(findings, destination.as_ref()).await;
        time_series(findings, &source, spec).await;
        one_per_id(findings, &source, spec).await;
        still(findings, &source, spec).await;
    }
}

/// What a replica set is of a sharded cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// None of one.
    No,
    /// The config server.
    ConfigServer,
    /// The shard of this name.
    Shard(String),
    /// It may not be seen.
    Unknown,
}

async fn part(deployment: &Deployment) -> Part {
    let ask = async |command: Document| deployment.command("admin", command).await;
    let Ok(hello) = ask(doc! { "hello": 1 }).await else { return Part::Unknown };
    if hello.contains_key("configsvr") {
        return Part::ConfigServer;
    }
    if let Ok(state) = ask(doc! { "shardingState": 1 }).await {
        return match state.get_bool("enabled") {
            Ok(true) => Part::Shard(state.get_str("shardName").unwrap_or_default().to_owned()),
            _ => Part::No,
        };
    }
    let identity =
        rawdoc! { "find": "system.version", "filter": { "_id": "shardIdentity" }, "limit": 1 };
    match deployment.collect("admin", identity).await {
        Ok(found) => found.first().map_or(Part::No, |identity| {
            Part::Shard(identity.get_str("shardName").unwrap_or_default().to_owned())
        }),
        Err(_) => Part::Unknown,
    }
}

/// Sees that a replica set is no part of a sharded cluster: alone it shows orphans, and hides what
/// is on the others.
async fn whole(findings: &mut Findings, deployment: &Deployment) {
    let (side, hosts) = (deployment.side, &deployment.hosts);
    let name = format!("{side}_whole");
    let refuse = |what: String| {
        let why = match side {
            Side::Source => {
                "by itself it shows documents that are not its own (orphans) and hides those of \
                 the others"
            }
            Side::Destination => {
                "what is written to it directly belongs to no chunk of the cluster"
            }
        };
        Fault::new(FaultCode::PartOfCluster, format!("the {side} at {hosts} is {what}: {why}"))
    };
    match part(deployment).await {
        Part::No => {
            findings.note(&name, Outcome::Ok, format!("the {side} is no part of a sharded cluster"))
        }
        Part::ConfigServer => {
            findings.fail(&name, &refuse("the config server of a sharded cluster".to_owned()))
        }
        Part::Shard(shard) => {
            findings.fail(&name, &refuse(format!("shard {shard} of a sharded cluster")))
        }
        Part::Unknown => findings.warn(
            &name,
            format!("whether the {side} is one shard of a cluster may not be seen (shardingState)"),
            format!("grant clusterMonitor to the user on the {side}"),
        ),
    }
}

/// Connects to every shard directly, and looks whether it can be read there, or through the router
/// where nobody gets there.
async fn reach(findings: &mut Findings, router: &Deployment, connection: &ConnectionSpec) {
    let shards = match Cluster::shards_behind(router).await {
        Ok(shards) if shards.is_empty() => {
            let message = format!("the cluster at {} has no shard", router.hosts);
            return findings
                .fail("source_shards", &Fault::new(FaultCode::InvalidConfiguration, message));
        }
        Ok(shards) => shards,
        Err(fault) => return findings.fail("source_shards", &fault),
    };
    let reached = join_all(shards.iter().map(|shard| async {
        let deployment =
            connect(Side::Source, &shard.connection(connection), None, "cutover-preflight").await?;
        let missing = missing(&deployment, &ON_SHARDS).await?;
        Ok::<_, Fault>((deployment, missing))
    }))
    .await;
    let faults = || reached.iter().filter_map(|reached| reached.as_ref().err());
    if faults().next().is_some() && faults().all(is_out_of_reach) {
        match behind_router::asks_all(router).await {
            Ok(()) => return through_router(findings, router, &shards, &reached).await,
            Err(fault) if fault.code == FaultCode::UnsupportedVersion => {
                return findings.fail("source_shards", &fault);
            }
            // Out of the router's reach, too: each is told as what it is.
            Err(_) => {}
        }
    }
    for (shard, reached) in shards.iter().zip(reached) {
        match reached
            .map_err(|fault| on_shard(shard, fault))
            .and_then(|(deployment, missing)| usable(shard, deployment, &missing))
        {
            Ok(deployment) => {
                let answers = format!(
                    "shard {} at {} answers, MongoDB {}",
                    shard.name, shard.hosts, deployment.version
                );
                note_shard(findings, shard, answers);
                findings.shards.push((shard.name.clone(), deployment));
            }
            Err(fault) => findings.fail("source_shards", &fault),
        }
    }
}

fn note_shard(findings: &mut Findings, shard: &Shard, answers: String) {
    if shard.is_draining {
        let remedy = "let the removal of the shard end first, or hold it up until the cutover";
        findings.warn("source_shards", format!("{answers}, and is being drained"), remedy);
    } else {
        findings.note("source_shards", Outcome::Ok, answers);
    }
}

/// Says that shards cannot be reached, and what it costs that the router is read in their place;
/// and looks whether it can be.
async fn through_router<T>(
    findings: &mut Findings,
    router: &Deployment,
    shards: &[Shard],
    reached: &[Result<T, Fault>],
) {
    for (shard, reached) in shards.iter().zip(reached) {
        match reached {
            Err(fault) => {
                let message = format!(
                    "shard {}: {}; a run that begins so reads all shards through the router to its \
                     end: more slowly, with one figure for all of them, and without the windows of \
                     their oplogs",
                    shard.name, fault.message
                );
                let remedy = format!(
                    "let the daemon's machine resolve and reach {} before the run begins, so that \
                     each shard is read by itself",
                    shard.hosts
                );
                findings.warn("source_shards", message, remedy);
            }
            Ok(_) => {
                note_shard(
                    findings,
                    shard,
                    format!(
                        "shard {} at {} answers, and is read through the router",
                        shard.name, shard.hosts
                    ),
                );
            }
        }
    }
    match missing(router, &ON_SHARDS).await {
        Ok(missing) if missing.is_empty() => {
            findings.shards.push((ShardName(behind_router::NAME.to_owned()), router.clone()));
        }
        Ok(missing) => {
            let message = format!(
                "the user lacks, to read all shards through the router: {}",
                missing.join(", ")
            );
            findings.fail("source_shards", &Fault::new(FaultCode::MissingPrivileges, message));
        }
        Err(fault) => findings.fail("source_shards", &fault),
    }
}

/// A fault of a direct connection, with the shard's name, and what is to be done that the cluster's
/// own users do not need.
fn on_shard(shard: &Shard, fault: Fault) -> Fault {
    let (name, hosts) = (&shard.name, &shard.hosts);
    let remedy = match fault.code {
        FaultCode::AuthenticationFailed | FaultCode::MissingPrivileges => format!(
            "shards have users of their own: connect to {hosts} and make the user there, with the \
             roles that it has on the cluster"
        ),
        FaultCode::HostNotFound | FaultCode::Unreachable => {
            format!(
                "every shard is read directly: let the daemon's machine resolve and reach {hosts}"
            )
        }
        _ => fault.remedy.clone(),
    };
    Fault { message: format!("shard {name}: {}", fault.message), ..fault }.with_remedy(remedy)
}

fn usable(shard: &Shard, deployment: Deployment, missing: &[String]) -> Result<Deployment, Fault> {
    let (name, hosts) = (&shard.name, &shard.hosts);
    if !matches!(deployment.topology, Topology::ReplicaSet(_)) {
        let message = format!("shard {name} at {hosts} is a standalone server, not a replica set");
        return Err(Fault::new(FaultCode::StandaloneSource, message));
    }
    if deployment.version < OLDEST {
        let message = format!(
            "shard {name} is MongoDB {}; {}.{} is the oldest",
            deployment.version, OLDEST.major, OLDEST.minor
        );
        return Err(Fault::new(FaultCode::UnsupportedVersion, message));
    }
    if !missing.is_empty() {
        let message = format!("the user lacks on shard {name}: {}", missing.join(", "));
        return Err(on_shard(shard, Fault::new(FaultCode::MissingPrivileges, message)));
    }
    Ok(deployment)
}

async fn compatibility(findings: &mut Findings, destination: Option<&Deployment>) {
    let name = "feature_compatibility";
    let Some(destination) = destination else { return };
    let shards =
        join_all(findings.shards.iter().map(|(_, shard)| environment::compatibility_of(shard)))
            .await;
    let (Some(from), Some(to)) =
        (shards.into_iter().flatten().max(), environment::compatibility_of(destination).await)
    else {
        let remedy = "grant clusterMonitor to the users of both sides";
        return findings.warn(name, "it may not be read on both sides (getParameter)", remedy);
    };
    if to < from {
        let message = format!(
            "the destination's is {}.{}, below the {}.{} of a shard",
            to.0, to.1, from.0, from.1
        );
        findings.fail(name, &Fault::new(FaultCode::UnsupportedVersion, message));
    } else {
        findings.note(
            name,
            Outcome::Ok,
            format!("{}.{} on the shards, {}.{} on the destination", from.0, from.1, to.0, to.1),
        );
    }
}

/// Names the time-series collections in scope that are sharded.
async fn time_series(findings: &mut Findings, router: &Deployment, spec: &MigrationSpec) {
    let name = "sharded_time_series";
    let entries = match topology::entries(
        router,
        "collections",
        &rawdoc! { "timeseriesFields": { "$exists": true } },
    )
    .await
    {
        Ok(entries) => entries,
        Err(fault) => return findings.fail(name, &fault),
    };
    let sharded: Vec<String> = entries
        .iter()
        .filter_map(|entry| element::shown(element::text(entry, "_id")?).parse::<Namespace>().ok())
        .map(|buckets| match buckets.collection.strip_prefix(BUCKETS) {
            Some(own) => Namespace::new(&buckets.db, own),
            None => buckets,
        })
        .filter(|namespace| spec.namespaces.scope.contains(namespace))
        .map(|namespace| namespace.to_string())
        .collect();
    if sharded.is_empty() {
        return findings.note(name, Outcome::Ok, "no time-series collection in scope is sharded");
    }
    let message =
        format!("sharded time-series collections cannot be migrated: {}", sharded.join(", "));
    findings.fail(name, &Fault::new(FaultCode::UnsupportedNamespace, message));
}

/// Sees that two documents of one `_id` would be found: where the shard key is more than that, two
/// shards may hold one each, and a replica set holds one of them only. The comparison of every
/// document tells them; the copy does not.
async fn one_per_id(findings: &mut Findings, router: &Deployment, spec: &MigrationSpec) {
    let name = "one_document_per_id";
    if spec.verify.mode == VerifyMode::Full {
        return findings.note(
            name,
            Outcome::Ok,
            "documents of one _id on two shards are found by the comparison",
        );
    }
    let sharded = match topology::entries(
        router,
        "collections",
        &rawdoc! { "key": { "$nin": [{ "_id": 1 }, { "_id": "hashed" }] } },
    )
    .await
    {
        Ok(sharded) => sharded,
        Err(fault) => return findings.fail(name, &fault),
    };
    let names = sharded
        .iter()
        .filter_map(|entry| element::shown(element::text(entry, "_id")?).parse::<Namespace>().ok());
    let carried: Vec<String> = names
        .filter(|namespace| spec.namespaces.scope.contains(namespace))
        .map(|namespace| namespace.to_string())
        .collect();
    if carried.is_empty() {
        return findings.note(
            name,
            Outcome::Ok,
            "every collection in scope is sharded by its _id, or not at all",
        );
    }
    let message = format!(
        "{} may hold two documents of one _id, on two shards: with verify {{ mode = \"off\" }} \
         one of them would be lost unseen",
        carried.join(", ")
    );
    let remedy =
        "set verify { mode = \"full\" }, or leave the namespaces out with namespaces.exclude";
    findings.fail(name, &Fault::new(FaultCode::UnsupportedNamespace, message).with_remedy(remedy));
}

/// Sees that nothing moves between the shards, or that the run can see to it.
async fn still(findings: &mut Findings, router: &Deployment, spec: &MigrationSpec) {
    let name = "balancer";
    let balancer = match balancer::look(router).await {
        Ok(balancer) => balancer,
        Err(fault) => return findings.fail(name, &fault),
    };
    match balancer_hold::mode(spec) {
        Mode::RequireOff if balancer.is_on => {
            findings.fail(name, &balancer::on_fault(router, balancer))
        }
        Mode::RequireOff => findings.note(name, Outcome::Ok, "the source's balancer is off"),
        Mode::Manage => match missing(router, &[ON_BALANCER]).await {
            Ok(missing) if missing.is_empty() => {
                let message = format!(
                    "the source's balancer is {}; the run stops it and gives it back",
                    balancer.in_words()
                );
                findings.note(name, Outcome::Ok, message);
            }
            Ok(missing) => {
                let message = format!(
                    "the user on the source may not stop its balancer: it lacks {}",
                    missing.join(", ")
                );
                let fault = Fault::new(FaultCode::MissingPrivileges, message);
                findings.fail(
                    name,
                    &fault.with_remedy(
                        "grant clusterManager, or stop the balancer by hand for the run",
                    ),
                );
            }
            Err(fault) => findings.fail(name, &fault),
        },
    }
    // By a round that is ending, or by hand: a run that stops the balancer waits for the first.
    let moving = match topology::entries(router, "migrations", &rawdoc! {}).await {
        Ok(moving) => moving,
        Err(fault) => return findings.fail("moving_chunks", &fault),
    };
    let text = |one: &RawDocument, field: &str| one.get_str(field).unwrap_or("?").to_owned();
    let told: Vec<String> = moving
        .iter()
        .map(|one| {
            format!(
                "{} from {} to {}",
                text(one, "ns"),
                text(one, "fromShard"),
                text(one, "toShard")
            )
        })
        .collect();
    match balancer_hold::mode(spec) {
        _ if told.is_empty() => {
            findings.note("moving_chunks", Outcome::Ok, "no chunk is being moved")
        }
        Mode::Manage => findings.warn(
            "moving_chunks",
            format!("chunks are being moved: {}", told.join(", ")),
            "the run waits for the balancer's; let nobody move chunks by hand until the cutover",
        ),
        Mode::RequireOff => {
            let fault = Fault::new(
                FaultCode::BalancerOn,
                format!("chunks are being moved: {}", told.join(", ")),
            );
            findings.fail(
                "moving_chunks",
                &fault.with_remedy("wait until that has ended, and move nothing until the cutover"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::Action;

    #[test]
    fn a_grant_counts_where_it_is_given() {
        let update = Action::Settings("update");
        assert!(update.is_on(&doc! { "db": "config", "collection": "" }));
        assert!(update.is_on(&doc! { "db": "", "collection": "settings" }));
        assert!(!update.is_on(&doc! { "db": "shop", "collection": "settings" }));
        assert!(!update.is_on(&doc! { "cluster": true }));
        assert!(Action::Cluster("appendOplogNote").is_on(&doc! { "cluster": true }));
        assert!(Action::Anywhere("find").is_on(&doc! { "db": "shop", "collection": "" }));
        assert!(!Action::Anywhere("find").is_on(&doc! { "db": "config", "collection": "" }));
        assert!(Action::Anywhere("find").is_on(&doc! { "anyResource": true }));
    }
}
