//! The live checks before any data moves, each told apart, with its cause and remedy; and the
//! forecast.
//!
//! What could not be looked at is never `ok`: it fails where the migration depends on it, and else
//! warns and says so.

mod capped;
mod cluster;
pub(super) mod environment;
mod evidence;
mod forecast;
mod index_keys;
mod indexes;
mod privileges;
mod shard_indexes;
mod sharding;
mod write_block;

use std::collections::BTreeSet;

use schemas::fault::{Fault, FaultCode};
use schemas::id::{RunId, ShardName};
use schemas::namespace::Namespace;
use schemas::observed::{Check, Inspection, Outcome};
use schemas::principal::{Principal, PrincipalKind};
use schemas::spec::{ExistingData, MigrationSpec};

use super::Ours;
use super::catalog::{self, CollectionInfo, Kind};
use super::destination::guard::{self, Rival};
use super::destination::users;
use crate::memory::Memory;
use crate::mongo::{Deployment, ServerVersion, Side, Topology, connect};

/// The oldest server that is carried from and to.
const OLDEST: ServerVersion = ServerVersion::new(5, 0, 0);

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
    /// The replica sets that a run would follow.
    fn followed(&self) -> Vec<(ShardName, Deployment)> {
        match &self.source {
            Some(source) => match &source.topology {
                Topology::ReplicaSet(name) => vec![(ShardName(name.clone()), source.clone())],
                Topology::Standalone | Topology::Sharded => self.shards.clone(),
            },
            None => Vec::new(),
        }
    }

    fn note(&mut self, name: &str, outcome: Outcome, message: impl Into<String>) {
        self.checks.push(Check {
            name: name.to_owned(),
            outcome,
            message: message.into(),
            code: None,
            remedy: None,
        });
    }

    /// What does not stop the migration, with what to do about it.
    fn warn(&mut self, name: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.checks.push(Check {
            name: name.to_owned(),
            outcome: Outcome::Warn,
            message: message.into(),
            code: None,
            remedy: Some(remedy.into()),
        });
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

/// Makes the checks. What is in `ours` on the destination is this migration's own.
pub async fn check(spec: &MigrationSpec, ours: &Ours, run: Option<&RunId>) -> Findings {
    let mut findings = Findings::default();
    findings.source = reach(&mut findings, Side::Source, spec).await;
    findings.destination = reach(&mut findings, Side::Destination, spec).await;
    cluster::check(&mut findings, spec).await;
    let (source, destination) = (findings.source.clone(), findings.destination.clone());
    if let (Some(source), Some(destination)) = (&source, &destination) {
        versions(&mut findings, source, destination);
        same_deployment(&mut findings, source, destination).await;
        if !source.is_sharded() {
            environment::compatibility(&mut findings, source, destination).await;
        }
        environment::clocks(&mut findings, source, destination).await;
    }
    environment::addresses(&mut findings, spec, source.as_ref(), destination.as_ref()).await;
    if let Some(source) = &source {
        privileges::privileges(&mut findings, source, spec).await;
        if namespaces(&mut findings, source, spec).await {
            indexes::check(&mut findings, source).await;
            shard_indexes::check(&mut findings, source).await;
        }
        write_block::source(&mut findings, source, spec).await;
        evidence::unseen_writes(&mut findings).await;
        evidence::identities(&mut findings).await;
        write_block::transactions(&mut findings, spec).await;
    }
    if let Some(destination) = &destination {
        privileges::privileges(&mut findings, destination, spec).await;
        emptiness(&mut findings, destination, spec, ours, run).await;
        names_by_case(&mut findings, destination, spec, ours).await;
        write_block::destination(&mut findings, destination, spec, &ours.runs).await;
    }
    if let (Some(source), Some(destination)) = (&source, &destination) {
        if spec.namespaces.include_users {
            principals(&mut findings, source, destination, spec).await;
        }
        capped::check(&mut findings, source, destination).await;
        sharding::shard_keys(&mut findings, source, destination, spec).await;
    }
    findings
}

/// Makes the checks and the forecast, whose sample of the documents is held within `memory`.
pub async fn inspect(spec: &MigrationSpec, ours: &Ours, memory: &Memory) -> Inspection {
    let mut findings = check(spec, ours, None).await;
    let forecast = match findings.source.clone().map(|source| source.within(memory)) {
        Some(source) => {
            match forecast::forecast(
                &source,
                &findings.followed(),
                &findings.catalogue,
                spec.copy.rate_limit,
            )
            .await
            {
                Ok(forecast) => {
                    forecast::oplog(&mut findings, &source, &forecast);
                    if let Some(destination) = findings.destination.clone() {
                        environment::disk(&mut findings, &destination, forecast.bytes).await;
                    }
                    Some(forecast)
                }
                Err(fault) => {
                    findings.fail("forecast", &fault);
                    None
                }
            }
        }
        None => None,
    };
    Inspection {
        checks: findings.checks,
        forecast,
        drops: findings.drops,
        destination_access_control: findings.access_control,
    }
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
    findings.note(
        &name,
        Outcome::Ok,
        format!("{} answers, MongoDB {}", deployment.hosts, deployment.version),
    );
    let name = format!("{side}_topology");
    match &deployment.topology {
        Topology::ReplicaSet(set) => {
            findings.note(&name, Outcome::Ok, format!("replica set {set}"))
        }
        Topology::Standalone => {
            let fault = Fault::new(
                FaultCode::StandaloneSource,
                format!(
                    "the {side} at {} is a standalone server, not a replica set",
                    deployment.hosts
                ),
            )
            .with_remedy(format!(
                "restart the {side} with --replSet and run rs.initiate(); one member is enough"
            ));
            findings.fail(&name, &fault);
            return None;
        }
        Topology::Sharded => {
            findings.note(&name, Outcome::Ok, "a sharded cluster, through its router")
        }
    }
    Some(deployment)
}

fn versions(findings: &mut Findings, source: &Deployment, destination: &Deployment) {
    judge_versions(findings, source.version, destination.version);
}

fn judge_versions(findings: &mut Findings, from: ServerVersion, to: ServerVersion) {
    let problem = if from < OLDEST {
        Some(format!(
            "the source is MongoDB {from}; {}.{} is the oldest that can be migrated",
            OLDEST.major, OLDEST.minor
        ))
    } else if (to.major, to.minor) < (from.major, from.minor) {
        Some(format!("the destination is MongoDB {to}, older than the source's {from}"))
    } else {
        None
    };
    match problem {
        Some(message) => {
            findings.fail("versions", &Fault::new(FaultCode::UnsupportedVersion, message))
        }
        None if to < from => findings.warn(
            "versions",
            format!(
                "the destination is MongoDB {to}, an older patch release than the source's {from}: \
                 what was mended in between is not mended there"
            ),
            format!("bring the destination to {from} or later before the cutover"),
        ),
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
                    "source ({}) and destination ({}) are the same deployment, or one is a shard \
                     of the other",
                    source.hosts, destination.hosts
                ),
            ),
        ),
        Ok(false) => {
            findings.note(name, Outcome::Ok, "source and destination are different deployments")
        }
        Err(fault) => findings.fail(name, &fault),
    }
}

/// A number of things, in words.
fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// What is in scope, and whether all of it can be carried. Gives whether it could be listed.
async fn namespaces(findings: &mut Findings, source: &Deployment, spec: &MigrationSpec) -> bool {
    let found = match catalog::list(source, &spec.namespaces.scope).await {
        Ok(found) => found,
        Err(fault) => {
            findings.fail("namespaces", &fault);
            return false;
        }
    };
    let mut refused: Vec<Fault> =
        found.values().filter_map(|info| catalog::unsupported(info, source.version)).collect();
    match catalog::stray_buckets(source, &spec.namespaces.scope).await {
        Ok(stray) => refused.extend(stray),
        Err(fault) => {
            findings.fail("namespaces", &fault);
            return false;
        }
    }
    match refused.first() {
        Some(first) => {
            let message =
                refused.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; ");
            findings.fail("namespaces", &Fault { message, ..first.clone() });
        }
        None if found.is_empty() => findings.warn(
            "namespaces",
            "nothing on the source is in scope",
            "see whether the URI and namespaces.include name what you mean",
        ),
        None => {
            let views = found.values().filter(|info| info.kind == Kind::View).count();
            let (collections, views) =
                (counted(found.len() - views, "collection"), counted(views, "view"));
            findings.note("namespaces", Outcome::Ok, format!("{collections} and {views} in scope"));
        }
    }
    findings.catalogue = found.into_values().collect();
    true
}

/// Whether a user or role is among what a migration carries.
pub fn carries(spec: &MigrationSpec, principal: &Principal) -> bool {
    spec.namespaces.include_users && spec.namespaces.scope.has_principals_of(&principal.db)
}

/// Users and roles of the databases in scope: that their roles will be there, and that the daemon
/// does not stand in their way.
async fn principals(
    findings: &mut Findings,
    source: &Deployment,
    destination: &Deployment,
    spec: &MigrationSpec,
) {
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
        let message = format!(
            "the user that this daemon is on the destination is defined in {own}, whose users are \
             to be carried"
        );
        let remedy = format!("use one that is defined in admin, or leave {own} out of scope");
        findings
            .fail(name, &Fault::new(FaultCode::InvalidConfiguration, message).with_remedy(remedy));
    } else if homeless.is_empty() {
        let of = |kind| found.keys().filter(|principal| principal.kind == kind).count();
        let (users, roles) = (of(PrincipalKind::User), of(PrincipalKind::Role));
        findings.note(
            name,
            Outcome::Ok,
            format!("{} and {} in scope", counted(users, "user"), counted(roles, "role")),
        );
    } else {
        findings.fail(name, &users::refusal(&homeless));
    }
}

/// Another run that writes on the destination to namespaces of this migration, by what is on the
/// source now.
pub async fn rival(
    source: &Deployment,
    destination: &Deployment,
    spec: &MigrationSpec,
    own: &BTreeSet<RunId>,
) -> Result<Option<Rival>, Fault> {
    if guard::rivals(destination, own).await?.is_empty() {
        return Ok(None);
    }
    let of_source = catalog::list(source, &spec.namespaces.scope).await?.into_keys().collect();
    rival_in(destination, spec, own, of_source).await
}

/// The same, by these namespaces in scope of the source.
async fn rival_in(
    destination: &Deployment,
    spec: &MigrationSpec,
    own: &BTreeSet<RunId>,
    of_source: Vec<Namespace>,
) -> Result<Option<Rival>, Fault> {
    let collides = |rival: &Rival| {
        spec.namespaces.scope.shares_with(&rival.scope)
            || of_source.iter().any(|namespace| rival.scope.contains(namespace))
    };
    Ok(guard::rivals(destination, own).await?.into_iter().find(collides))
}

/// Looks once more, when others are kept out, whether nothing but what is in `ours` is in scope on
/// the destination.
pub async fn check_emptiness(
    source: &Deployment,
    destination: &Deployment,
    spec: &MigrationSpec,
    ours: &Ours,
    run: &RunId,
) -> Result<(), Fault> {
    let catalogue = catalog::list(source, &spec.namespaces.scope).await?.into_values().collect();
    let mut findings = Findings { catalogue, ..Findings::default() };
    emptiness(&mut findings, destination, spec, ours, Some(run)).await;
    findings.first_failure()
}

/// Whether the destination has databases whose names differ from the source's by case alone, which
/// no server takes beside each other. One that is left empty by what this migration drops goes with
/// that.
async fn names_by_case(
    findings: &mut Findings,
    destination: &Deployment,
    spec: &MigrationSpec,
    ours: &Ours,
) {
    let name = "database_names";
    let wanted: BTreeSet<String> =
        findings.catalogue.iter().map(|info| info.namespace.db.clone()).collect();
    let there = match catalog::like_but_for_case(destination, &wanted).await {
        Ok(there) => there,
        Err(fault) => return findings.fail(name, &fault),
    };
    let goes = |info: &catalog::CollectionInfo| {
        let is_dropped = spec.destination.existing_data == ExistingData::Drop
            && spec.namespaces.scope.contains(&info.namespace);
        is_dropped
            || ours.namespaces.contains(&info.namespace)
            || info.namespace.collection.starts_with("system.")
    };
    let mut stay = Vec::new();
    for (there, wanted) in there {
        match catalog::list_database(destination, &there).await {
            Ok(listed) if listed.iter().all(goes) => {}
            Ok(_) => stay.push(format!("{there}, and the source has {wanted}")),
            Err(fault) => return findings.fail(name, &fault),
        }
    }
    if !stay.is_empty() {
        let message = format!(
            "the destination has the database {}: the names differ by case alone, and no server \
             takes both",
            stay.join("; ")
        );
        let remedy =
            "drop or rename that database on the destination, or leave the source's out of scope";
        findings
            .fail(name, &Fault::new(FaultCode::DestinationNotEmpty, message).with_remedy(remedy));
    }
}

async fn emptiness(
    findings: &mut Findings,
    destination: &Deployment,
    spec: &MigrationSpec,
    ours: &Ours,
    run: Option<&RunId>,
) {
    let of_source = findings.catalogue.iter().map(|info| info.namespace.clone()).collect();
    match rival_in(destination, spec, &(&ours.runs | &ours.neighbours), of_source).await {
        Ok(None) => {}
        Ok(Some(rival)) => return findings.fail("destination_empty", &rival.fault(destination)),
        Err(fault) => return findings.fail("destination_empty", &fault),
    }
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
    there.retain(|namespace| !ours.namespaces.contains(namespace));
    match spec.destination.existing_data {
        _ if there.is_empty() => findings.note(
            "destination_empty",
            Outcome::Ok,
            "nothing in scope is on the destination",
        ),
        ExistingData::Drop if run.is_none() => {
            findings.note(
                "destination_empty",
                Outcome::Ok,
                format!("{} on the destination will be dropped", counted(there.len(), "namespace")),
            );
            findings.drops = there;
        }
        // A run that starts drops what its plan listed, and nothing else.
        ExistingData::Drop | ExistingData::Refuse => {
            let some = there.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let more = if there.len() > 5 {
                format!(" and {} more", there.len() - 5)
            } else {
                String::new()
            };
            findings.fail(
                "destination_empty",
                &Fault::new(
                    FaultCode::DestinationNotEmpty,
                    format!("the destination has {some}{more} already"),
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Findings, judge_versions};
    use crate::mongo::ServerVersion;
    use schemas::observed::{Check, Outcome};

    fn judged(from: (u32, u32, u32), to: (u32, u32, u32)) -> Check {
        let version = |(major, minor, patch)| ServerVersion::new(major, minor, patch);
        let mut findings = Findings::default();
        judge_versions(&mut findings, version(from), version(to));
        findings.checks.pop().expect("a check")
    }

    #[test]
    fn an_older_destination_is_refused_and_an_older_patch_release_is_told() {
        assert_eq!(judged((6, 0, 27), (6, 0, 27)).outcome, Outcome::Ok);
        assert_eq!(judged((6, 0, 27), (7, 0, 1)).outcome, Outcome::Ok);
        assert_eq!(judged((6, 0, 5), (5, 0, 32)).outcome, Outcome::Fail);
        let older = judged((6, 0, 27), (6, 0, 5));
        assert_eq!(older.outcome, Outcome::Warn);
        assert!(
            older.message.contains("6.0.5, an older patch release than the source's 6.0.27"),
            "{}",
            older.message
        );
        assert!(older.remedy.is_some_and(|remedy| remedy.contains("6.0.27")));
    }
}
