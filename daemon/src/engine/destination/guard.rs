//! Guards the destination while a run goes on: a user of the run's own, a block on everybody else's
//! writes, and a marker that tells a person with a shell what is going on.
//!
//! The user is made where the given one may make users. It may do what a sync does and nothing
//! else, from this daemon's address only. Its password is never stored: a daemon that starts again
//! gives it a new one.

use std::collections::BTreeSet;

use mongodb::bson::{Document, RawArrayBuf, RawDocument, RawDocumentBuf, bson, doc, rawdoc};
use rand::Rng as _;
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, RunId, Workspace};
use schemas::namespace::{NamespacePattern, OWN_DATABASE, Scope};

use crate::mongo::connect::Login;
use crate::mongo::{Deployment, ServerVersion, append, cluster_time, error, number, server_code};

/// The first version that can block its users' writes.
pub const WRITE_BLOCK: ServerVersion = ServerVersion::new(6, 0, 0);
/// How long a server may take to block writes, in milliseconds: it waits for those under way. It
/// gives up itself, so that no request lands later than its answer.
const BLOCK_MS: i64 = 20_000;
/// The collection of the marker in [`OWN_DATABASE`].
pub(in crate::engine) const MARKER: &str = "marker";

/// What a sync does to collections.
const ON_COLLECTIONS: [&str; 17] = [
    "bypassDocumentValidation",
    "changeStream",
    "collMod",
    "collStats",
    "convertToCapped",
    "createCollection",
    "createIndex",
    "dropCollection",
    "dropDatabase",
    "dropIndex",
    "find",
    "insert",
    "listCollections",
    "listIndexes",
    "remove",
    "renameCollectionSameDB",
    "update",
];

/// What a sync does besides to the collections of a sharded cluster.
const ON_SHARDED: [&str; 3] = ["enableSharding", "moveChunk", "splitChunk"];

/// What a sync does to the cluster.
const ON_CLUSTER: [&str; 4] =
    ["bypassWriteBlockingMode", "listDatabases", "serverStatus", "setUserWriteBlockMode"];

/// The name of a run's own user and role.
fn own_name(run: &RunId) -> String {
    format!("cutover_{run}")
}

fn fault(destination: &Deployment, doing: &str) -> impl Fn(mongodb::error::Error) -> Fault {
    let (destination, doing) = (destination.clone(), doing.to_owned());
    move |e| destination.fault(&doing, &e)
}

/// Makes the run's own user, or gives it a new password. `None`: the given user may not make one,
/// and works itself.
pub async fn make_user(destination: &Deployment, run: &RunId) -> Result<Option<Login>, Fault> {
    let name = own_name(run);
    let address = own_address(destination).await?;
    let restrictions = || vec![doc! { "clientSource": [&address] }];
    let actions =
        |list: &[&str]| list.iter().copied().map(mongodb::bson::Bson::from).collect::<Vec<_>>();
    let mut privileges = mongodb::bson::bson!([
            { "resource": { "db": "", "collection": "" }, "actions": actions(&ON_COLLECTIONS) },
            // What a privilege on every collection leaves out: measurements, stored functions.
            { "resource": { "db": "", "system_buckets": "" }, "actions": actions(&ON_COLLECTIONS) },
            {
                "resource": { "db": "", "collection": "system.js" },
                "actions": actions(&ON_COLLECTIONS),
            },
            // What is left of a database when its last view is dropped.
            {
                "resource": { "db": "", "collection": "system.views" },
                "actions": ["dropCollection"],
            },
            { "resource": { "cluster": true }, "actions": actions(&ON_CLUSTER) },
    ]);
    if let (true, Some(privileges)) = (destination.is_sharded(), privileges.as_array_mut()) {
        privileges.push(mongodb::bson::bson!(
            { "resource": { "db": "", "collection": "" }, "actions": actions(&ON_SHARDED) }
        ));
        // A router shows what the shards are at for it to nobody else, not even a user's own
        // writes.
        privileges.push(mongodb::bson::bson!(
            { "resource": { "cluster": true }, "actions": ["appendOplogNote", "inprog"] }
        ));
        // By what collections are sharded, and whether writes are blocked.
        privileges.push(mongodb::bson::bson!(
            { "resource": { "db": "config", "collection": "" }, "actions": ["find"] }
        ));
    }
    let role = doc! {
        "createRole": &name,
        "privileges": privileges,
        "roles": [],
        "authenticationRestrictions": restrictions(),
        "writeConcern": { "w": "majority" },
    };
    match run_unless(destination, role, server_code::ROLE_EXISTS).await {
        Ok(()) => {}
        Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => return Ok(None),
        Err(e) => return Err(destination.fault("making the run's own role", &e)),
    }
    let password: String = {
        let mut random = rand::rng();
        (0..32).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
    };
    let settings = |command: &str| -> Document {
        doc! {
            command: &name,
            "pwd": &password,
            "roles": [{ "role": &name, "db": "admin" }],
            "authenticationRestrictions": restrictions(),
            "writeConcern": { "w": "majority" },
        }
    };
    match destination.command("admin", settings("createUser")).await {
        Ok(_) => {}
        Err(e) if error::code(&e) == Some(server_code::USER_EXISTS) => {
            destination
                .command("admin", settings("updateUser"))
                .await
                .map_err(fault(destination, "giving the run's own user a new password"))?;
        }
        Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => {
            drop_role(destination, &name).await?;
            return Ok(None);
        }
        Err(e) => return Err(destination.fault("making the run's own user", &e)),
    }
    Ok(Some(Login { username: name, password }))
}

/// Drops the run's own user and role; what is not there is a success.
pub async fn drop_user(destination: &Deployment, run: &RunId) -> Result<(), Fault> {
    let name = own_name(run);
    let user = doc! { "dropUser": &name, "writeConcern": { "w": "majority" } };
    match run_unless(destination, user, server_code::USER_NOT_FOUND).await {
        Ok(()) => drop_role(destination, &name).await,
        // Who may not drop users could not make one.
        Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => Ok(()),
        Err(e) => Err(destination.fault("dropping the run's own user", &e)),
    }
}

async fn drop_role(destination: &Deployment, name: &str) -> Result<(), Fault> {
    let role = doc! { "dropRole": name, "writeConcern": { "w": "majority" } };
    run_unless(destination, role, server_code::ROLE_NOT_FOUND)
        .await
        .map_err(fault(destination, "dropping the run's own role"))
}

async fn run_unless(
    destination: &Deployment,
    command: Document,
    accepted: i32,
) -> Result<(), mongodb::error::Error> {
    match destination.command("admin", command).await {
        Ok(_) => Ok(()),
        Err(e) if error::code(&e) == Some(accepted) => Ok(()),
        Err(e) => Err(e),
    }
}

/// This daemon's address as the server sees it.
async fn own_address(destination: &Deployment) -> Result<String, Fault> {
    let reply = destination
        .command("admin", doc! { "whatsmyuri": 1 })
        .await
        .map_err(fault(destination, "asking for this daemon's address"))?;
    let you = reply.get_str("you").unwrap_or_default();
    match you.rsplit_once(':') {
        Some((address, _)) if !address.is_empty() => {
            Ok(address.trim_matches(['[', ']']).to_owned())
        }
        _ => Err(Fault::new(
            FaultCode::Internal,
            format!("the destination ({}) does not tell this daemon's address", destination.hosts),
        )),
    }
}

/// Blocks the writes of everybody who may not bypass it, or lifts the block.
pub async fn set_write_block(
    deployment: &Deployment,
    on: bool,
) -> Result<(), mongodb::error::Error> {
    let set = || {
        deployment.command(
            "admin",
            doc! { "setUserWriteBlockMode": 1, "global": on, "maxTimeMS": BLOCK_MS },
        )
    };
    match set().await {
        // Where it changes nothing, a connection that has lived through an election hears of it
        // again and again, until it has written something.
        Err(e) if error::code(&e) == Some(server_code::PRIMARY_STEPPED_DOWN) => {
            let _ = deployment.oplog_note("cutover: after an election").await;
            set().await.map(drop)
        }
        set => set.map(drop),
    }
}

/// The actions that the user may take somewhere.
async fn granted(deployment: &Deployment) -> Result<BTreeSet<String>, mongodb::error::Error> {
    let status =
        deployment.command("admin", doc! { "connectionStatus": 1, "showPrivileges": true }).await?;
    let privileges = status
        .get_document("authInfo")
        .and_then(|info| info.get_array("authenticatedUserPrivileges"));
    Ok(privileges
        .into_iter()
        .flatten()
        .filter_map(|privilege| privilege.as_document()?.get_array("actions").ok())
        .flatten()
        .filter_map(|action| action.as_str().map(str::to_owned))
        .collect())
}

/// Whether the user may take an action somewhere.
pub async fn is_granted(deployment: &Deployment, action: &str) -> Result<bool, Fault> {
    let granted = granted(deployment).await.map_err(fault(deployment, "reading the privileges"))?;
    Ok(granted.contains(action))
}

/// Whether the given user can block others' writes and write on: it makes a user that can, or can
/// itself.
pub async fn may_block(destination: &Deployment) -> Result<bool, Fault> {
    let granted =
        granted(destination).await.map_err(fault(destination, "reading the privileges"))?;
    let may = |actions: &[&str]| actions.iter().all(|action| granted.contains(*action));
    Ok(may(&["createUser", "createRole", "grantRole", "setAuthenticationRestriction"])
        || may(&["setUserWriteBlockMode", "bypassWriteBlockingMode"]))
}

/// Whether a deployment blocks its users' writes; `None` where that may not be seen.
pub async fn is_write_blocked(deployment: &Deployment) -> Result<Option<bool>, Fault> {
    if deployment.is_sharded() {
        return is_cluster_blocked(deployment).await;
    }
    let look = doc! { "serverStatus": 1, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0 };
    match deployment.command("admin", look).await {
        Ok(status) => Ok(Some(
            status
                .get_document("repl")
                .and_then(|repl| repl.get_i32("userWriteBlockMode"))
                .is_ok_and(|mode| mode == 2),
        )),
        Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => Ok(None),
        Err(e) => Err(deployment.fault("looking whether writes are blocked", &e)),
    }
}

/// The same of a sharded cluster. A router has no such status. The config server writes down a
/// block before the first shard refuses a write and removes it once the last one takes them again;
/// what it says of users' writes lags behind the shards both ways, so that any entry counts: a
/// cluster that is blocked in part is blocked.
async fn is_cluster_blocked(router: &Deployment) -> Result<Option<bool>, Fault> {
    let mut find = crate::mongo::command("find", "user_writes_critical_sections");
    append(&mut find, "readConcern", &*rawdoc! { "level": "majority" });
    match router.collect("config", find).await {
        Ok(found) => Ok(Some(!found.is_empty())),
        Err(e) if error::code(&e) == Some(server_code::UNAUTHORIZED) => Ok(None),
        Err(e) => Err(router.fault("looking whether writes are blocked", &e)),
    }
}

/// What the marker says.
#[derive(Debug, Clone)]
pub struct Marker<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Its migration.
    pub migration: &'a MigrationName,
    /// Its workspace.
    pub workspace: &'a Workspace,
    /// What it carries there.
    pub scope: &'a Scope,
    /// Whether others' writes are blocked meanwhile.
    pub blocks_writes: bool,
}

impl Marker<'_> {
    /// The marker's fields, for a person who looks around.
    pub(in crate::engine) fn fields(&self) -> RawDocumentBuf {
        let marker = self;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut set = rawdoc! {
            "migration": marker.migration.as_str(),
            "workspace": marker.workspace.as_str(),
            "by": format!("cutoverd on {host}, process {}", std::process::id()),
            "blocks_writes": marker.blocks_writes,
            "message": "A migration by cutover writes to this deployment. Until it has cut over, \
                 this is no valid copy of its source, and what others write may be lost. See \
                 `cutover status` on the host named here.",
        };
        for (name, patterns) in
            [("include", &marker.scope.include), ("exclude", &marker.scope.exclude)]
        {
            let mut list = RawArrayBuf::new();
            patterns.iter().for_each(|pattern| list.push(pattern.to_string()));
            append(&mut set, name, &*list);
        }
        append(&mut set, "since", mongodb::bson::DateTime::now());
        set
    }
}

/// Says in the run's marker whether it blocks others' writes. One that is gone is not put up again:
/// somebody has removed it.
pub async fn note_block(
    destination: &Deployment,
    run: &RunId,
    blocks_writes: bool,
) -> Result<(), Fault> {
    let update = doc! {
        "update": MARKER,
        "updates": [
            { "q": { "_id": run.as_str() }, "u": { "$set": { "blocks_writes": blocks_writes } } }
        ],
        "writeConcern": { "w": "majority" },
    };
    destination
        .command(OWN_DATABASE, update)
        .await
        .map(drop)
        .map_err(fault(destination, "writing to the marker"))
}

/// Writes to the run's marker, and returns when: what the destination's own change stream reports
/// after that came after it.
pub async fn touch_marker(destination: &Deployment, run: &RunId) -> Result<ClusterTime, Fault> {
    let touch = doc! {
        "update": MARKER,
        "updates": [{ "q": { "_id": run.as_str() }, "u": [{ "$set": { "seen": "$$NOW" } }] }],
        "writeConcern": { "w": "majority" },
    };
    let reply = destination
        .command(OWN_DATABASE, touch)
        .await
        .map_err(fault(destination, "writing to the marker"))?;
    if reply.get_i32("n").is_ok_and(|n| n == 0) {
        let message =
            format!("the marker of run {run} on the destination ({}) is gone", destination.hosts);
        return Err(Fault::new(FaultCode::RunHeldElsewhere, message));
    }
    reply.get_timestamp("operationTime").map(cluster_time).map_err(|_| {
        Fault::new(
            FaultCode::Internal,
            format!("the destination ({}) tells no operationTime", destination.hosts),
        )
    })
}

/// The number that a run's marker has come to: 0 where it was never raised; `None`: there is no
/// marker.
///
/// # Errors
/// What the server answers.
pub async fn beat(destination: &Deployment, run: &RunId) -> Result<Option<i64>, Fault> {
    let find = rawdoc! {
        "find": MARKER, "filter": { "_id": run.as_str() }, "limit": 1, "projection": { "beat": 1 },
    };
    let found = destination
        .collect(OWN_DATABASE, find)
        .await
        .map_err(fault(destination, "reading the run's marker"))?;
    Ok(found.first().map(|marker| number(marker, "beat").unwrap_or(0)))
}

/// Raises that number from what it is thought to be, with majority. Gives whether it was that.
///
/// # Errors
/// What the server answers.
pub async fn set_beat(
    destination: &Deployment,
    run: &RunId,
    from: i64,
    to: i64,
) -> Result<bool, Fault> {
    // A reply that was lost may be of an update that was done.
    let was = if from == 0 { bson!([null, 0, to]) } else { bson!([from, to]) };
    let query = doc! { "_id": run.as_str(), "beat": { "$in": was } };
    let update = doc! {
        "update": MARKER,
        "updates": [{ "q": query, "u": { "$set": { "beat": to } } }],
        "writeConcern": { "w": "majority" },
    };
    let reply = destination
        .command(OWN_DATABASE, update)
        .await
        .map_err(fault(destination, "writing to the marker"))?;
    Ok(reply.get_i32("n").is_ok_and(|matched| matched == 1))
}

/// Another run that is at work on a destination, by its marker: a run of another daemon, or of this
/// one under another spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The run.
    pub run: String,
    migration: String,
    workspace: String,
    by: String,
    /// What it carries there.
    pub scope: Scope,
    /// Whether it blocks others' writes.
    pub blocks_writes: bool,
}

impl Rival {
    fn read(marker: &RawDocument) -> Self {
        let text = |name: &str| marker.get_str(name).unwrap_or_default().to_owned();
        let patterns = |name: &str| -> Vec<NamespacePattern> {
            let listed = marker.get_array(name).into_iter().flatten().flatten();
            listed.filter_map(|pattern| pattern.as_str()?.parse().ok()).collect()
        };
        Self {
            run: text("_id"),
            migration: text("migration"),
            workspace: text("workspace"),
            by: text("by"),
            scope: Scope { include: patterns("include"), exclude: patterns("exclude") },
            blocks_writes: marker.get_bool("blocks_writes").unwrap_or(false),
        }
    }

    /// The fault of a run that would write where this one does.
    #[must_use]
    pub fn fault(&self, destination: &Deployment) -> Fault {
        let Self { run, migration, workspace, by, .. } = self;
        let message = format!(
            "run {run} of migration {migration} (workspace {workspace}) writes to namespaces in \
             scope on the destination ({}): {by}",
            destination.hosts
        );
        Fault::new(FaultCode::DestinationInUse, message).with_remedy(format!(
            "complete or cancel that run where it is; if that daemon is gone for good, remove its \
             marker on the destination: \
             db.getSiblingDB(\"{OWN_DATABASE}\").{MARKER}.deleteOne({{_id: \"{run}\"}})"
        ))
    }
}

/// The runs but these that have their marker on a destination.
pub async fn rivals(destination: &Deployment, own: &BTreeSet<RunId>) -> Result<Vec<Rival>, Fault> {
    let found = destination
        .collect(OWN_DATABASE, rawdoc! { "find": MARKER })
        .await
        .map_err(fault(destination, "reading the markers of runs"))?;
    let rivals = found.iter().map(|marker| Rival::read(marker));
    Ok(rivals.filter(|rival| !own.iter().any(|own| own.as_str() == rival.run)).collect())
}

/// Whether the run's own marker says that it blocks writes. It is put before they are blocked, and
/// changed after.
pub async fn says_that_it_blocks(destination: &Deployment, run: &RunId) -> Result<bool, Fault> {
    let find = rawdoc! {
        "find": MARKER, "filter": { "blocks_writes": true, "_id": run.as_str() }, "limit": 1,
    };
    let found = destination
        .collect(OWN_DATABASE, find)
        .await
        .map_err(fault(destination, "reading the run's marker"))?;
    Ok(!found.is_empty())
}

/// Removes the run's marker, and the database where it was the last.
pub async fn remove_marker(destination: &Deployment, run: &RunId) -> Result<(), Fault> {
    let delete = doc! {
        "delete": MARKER, "deletes": [{ "q": { "_id": run.as_str() }, "limit": 1 }],
        "writeConcern": { "w": "majority" },
    };
    destination
        .command(OWN_DATABASE, delete)
        .await
        .map_err(fault(destination, "removing the marker"))?;
    let left = destination
        .collect(OWN_DATABASE, rawdoc! { "find": MARKER, "limit": 1, "projection": { "_id": 1 } })
        .await
        .map_err(fault(destination, "reading the markers of runs"))?;
    if left.is_empty() {
        let drop = doc! { "drop": MARKER, "writeConcern": { "w": "majority" } };
        match destination.command(OWN_DATABASE, drop).await {
            Ok(_) => {}
            Err(e) if error::code(&e) == Some(server_code::NAMESPACE_NOT_FOUND) => {}
            Err(e) => return Err(destination.fault("removing the markers' collection", &e)),
        }
    }
    Ok(())
}
