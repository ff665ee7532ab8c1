//! Users and roles of the databases in scope, between servers with access control: with their
//! passwords, through the tail, and never others' of the same name.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use daemon::engine::tuning::Tuning;
use daemon::engine::{DropWhat, Engine as _, Ours, run::MongoEngine};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential};
use rig::replica_set::{Auth, Options, ReplicaSet, User};
use schemas::fault::FaultCode;
use schemas::id::RunId;
use schemas::namespace::Namespace;
use schemas::observed::Outcome;
use schemas::spec::{ExistingData, MigrationSpec, SecretRef};
use tempfile::TempDir;

use super::harness::{Pair, Run, at_rest, run};

const ON_SOURCE: [&str; 4] = ["backup", "clusterMonitor", "readAnyDatabase", "hostManager"];
const ON_DESTINATION: [&str; 5] = [
    "clusterMonitor",
    "readWriteAnyDatabase",
    "dbAdminAnyDatabase",
    "restore",
    "userAdminAnyDatabase",
];

async fn guarded() -> Result<Pair> {
    let with = |roles: &[&str]| Options {
        auth: Some(Auth {
            users: vec![
                User::new("mover", "moving", roles),
                User::new("weak", "moving", &["readWriteAnyDatabase"]),
            ],
        }),
        ..Options::default()
    };
    Pair::start_with(with(&ON_SOURCE), with(&ON_DESTINATION)).await
}

/// The declaration of a migration with users, as the user `mover`.
fn spec(pair: &Pair, dir: &TempDir) -> Result<MigrationSpec> {
    let password = dir.path().join("password");
    std::fs::write(&password, "moving\n")?;
    let mut spec = pair.spec();
    for connection in [&mut spec.source.connection, &mut spec.destination.connection] {
        connection.username = Some("mover".to_owned());
        connection.password = Some(SecretRef::File(password.clone()));
    }
    spec.namespaces.include_users = true;
    spec.namespaces.scope.exclude = vec!["left_out.*".parse().expect("a pattern")];
    Ok(spec)
}

/// Everything that defines users and roles, once from the start and once in the tail.
async fn define(client: &Client, db: &str) -> Result<()> {
    let on = |collection: &str| doc! { "db": db, "collection": collection };
    let commands = [
        // Named so that none comes after those it inherits from.
        doc! {
            "createRole": "z_base",
            "privileges": [{ "resource": on("orders"), "actions": ["find", "insert"] }],
            "roles": [],
        },
        doc! {
            "createRole": "m_middle", "privileges": [], "roles": ["z_base", "read"],
            "authenticationRestrictions": [{ "clientSource": ["127.0.0.1"] }],
        },
        doc! {
            "createRole": "a_top", "privileges": [{ "resource": on(""), "actions": ["collStats"] }],
            "roles": ["m_middle"],
        },
        doc! {
            "createUser": "app", "pwd": "first password", "roles": ["a_top"],
            "customData": { "team": "payments", "n": 1_i64 },
        },
        doc! {
            "createUser": "sha256", "pwd": "p",
            "roles": [{ "role": "custom", "db": "admin" }, "readWrite"],
            "mechanisms": ["SCRAM-SHA-256"],
        },
        doc! {
            "createUser": "odd.name @/\u{e4}", "pwd": "p", "roles": [],
            "authenticationRestrictions": [{ "clientSource": ["127.0.0.1"] }],
        },
        doc! { "createUser": "leaves", "pwd": "p", "roles": ["read"] },
    ];
    for command in commands {
        run(client, db, command).await?;
    }
    Ok(())
}

async fn change(client: &Client, db: &str) -> Result<()> {
    let privileges = vec![doc! {
        "resource": { "db": db, "collection": "orders" },
        "actions": ["find", "insert", "update"],
    }];
    let commands = [
        doc! { "updateUser": "app", "pwd": "second password", "roles": ["a_top", "z_late"] },
        doc! { "updateRole": "z_base", "privileges": privileges },
        doc! { "dropUser": "leaves" },
        doc! { "revokeRolesFromRole": "m_middle", "roles": ["read"] },
        doc! { "createUser": "late", "pwd": "late password", "roles": ["z_late"] },
    ];
    run(client, db, doc! { "createRole": "z_late", "privileges": [], "roles": ["readWrite"] })
        .await?;
    for command in commands {
        run(client, db, command).await?;
    }
    Ok(())
}

async fn log_in(set: &ReplicaSet, db: &str, name: &str, password: &str) -> Result<Client> {
    let mut options = ClientOptions::parse(set.uri()).await?;
    options.credential = Some(
        Credential::builder()
            .username(name.to_owned())
            .password(password.to_owned())
            .source(db.to_owned())
            .build(),
    );
    let client = Client::with_options(options)?;
    client
        .database(db)
        .run_command(doc! { "ping": 1 })
        .await
        .with_context(|| format!("{name} of {db} cannot log in"))?;
    Ok(client)
}

/// What a server keeps of users and roles, as it keeps them; the order in which a role lists others
/// is each server's own.
async fn kept(client: &Client, db: &str) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for collection in ["system.users", "system.roles"] {
        let find = doc! {
            "find": collection, "filter": { "db": db }, "sort": { "_id": 1 }, "batchSize": 1_000,
        };
        let reply = run(client, "admin", find).await?;
        let found = reply
            .get_document("cursor")?
            .get_array("firstBatch")?
            .iter()
            .filter_map(|kept| kept.as_document().cloned());
        all.push(
            found
                .map(|mut kept| {
                    if let (true, Ok(roles)) =
                        (collection == "system.roles", kept.get_array_mut("roles"))
                    {
                        roles.sort_by_key(ToString::to_string);
                    }
                    kept.to_string()
                })
                .collect(),
        );
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_roles_come_along_with_their_passwords() -> Result<()> {
    let pair = guarded().await?;
    let dir = tempfile::tempdir()?;
    for client in [&pair.from, &pair.to] {
        run(
            client,
            "admin",
            doc! { "createRole": "custom", "privileges": [], "roles": ["readWriteAnyDatabase"] },
        )
        .await?;
    }
    run(&pair.from, "admin", doc! { "createUser": "of_admin", "pwd": "p", "roles": [] }).await?;
    run(&pair.from, "left_out", doc! { "createUser": "excluded", "pwd": "p", "roles": ["read"] })
        .await?;
    run(&pair.from, "left_out", doc! { "insert": "c", "documents": [{ "_id": 1 }] }).await?;
    define(&pair.from, "shop").await?;
    run(&pair.from, "shop", doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await?;

    let spec = spec(&pair, &dir)?;
    let folder = tempfile::tempdir()?;
    at_rest(&spec, &Tuning::default(), folder.path())?.validate().await?;
    let mut sync = Run::begin_in(folder, vec![pair.from.clone()], spec, Tuning::default()).await?;
    sync.caught_up().await?;
    log_in(&pair.destination, "shop", "app", "first password").await?;
    let made = sync.engine().progress().created_namespaces;
    for name in ["shop.system.users.app", "shop.system.roles.z_base", "shop.orders"] {
        ensure!(made.contains(&name.parse()?), "{name} is not among what the run made: {made:?}");
    }

    change(&pair.from, "shop").await?;
    define(&pair.from, "later").await?;
    // A kill between: what the run made is known to be its own.
    sync.kill().await?;
    sync.cut_over().await?;

    for db in ["shop", "later"] {
        let (ours, theirs) = (kept(&pair.from, db).await?, kept(&pair.to, db).await?);
        ensure!(ours == theirs && ours.iter().all(|kept| kept.len() >= 3), "{ours:?}\n{theirs:?}");
    }
    ensure!(
        kept(&pair.to, "left_out").await?.iter().all(Vec::is_empty),
        "what is out of scope came along"
    );
    ensure!(
        !format!("{:?}", kept(&pair.to, "admin").await?).contains("of_admin"),
        "a user of admin came along"
    );
    ensure!(
        log_in(&pair.destination, "shop", "app", "first password").await.is_err(),
        "the old password is still good"
    );
    let app = log_in(&pair.destination, "shop", "app", "second password").await?;
    run(&app, "shop", doc! { "insert": "orders", "documents": [{ "_id": 2 }] }).await?;
    ensure!(
        run(&app, "other", doc! { "insert": "c", "documents": [{ "_id": 2 }] }).await.is_err(),
        "it may do what it may not"
    );
    for (db, name, password) in [
        ("shop", "late", "late password"),
        ("later", "sha256", "p"),
        ("shop", "odd.name @/\u{e4}", "p"),
    ] {
        log_in(&pair.destination, db, name, password).await?;
    }
    ensure!(
        log_in(&pair.destination, "shop", "leaves", "p").await.is_err(),
        "a dropped user is there"
    );
    Ok(())
}

/// The message of the first failed check, with its code.
async fn refusal(spec: &MigrationSpec, folder: &TempDir) -> Result<(FaultCode, String)> {
    let engine = at_rest(spec, &Tuning::default(), folder.path())?;
    let fault = engine.validate().await.err().context("it is not refused")?;
    Ok((fault.code, fault.message))
}

/// No change stream reports what an atomic `applyOps` writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_read_the_oplog_is_refused() -> Result<()> {
    let pair = guarded().await?;
    let dir = tempfile::tempdir()?;
    run(&pair.from, "shop", doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await?;
    let actions = [
        "appendOplogNote",
        "setUserWriteBlockMode",
        "replSetGetConfig",
        "replSetGetStatus",
        "serverStatus",
        "inprog",
        "listDatabases",
        "hostInfo",
        "getParameter",
    ];
    let role = doc! {
        "createRole": "no_oplog",
        "privileges": [{ "resource": { "cluster": true }, "actions": actions.to_vec() }],
        "roles": ["readAnyDatabase"],
    };
    run(&pair.from, "admin", role).await?;
    let user = doc! { "createUser": "no_oplog", "pwd": "moving", "roles": ["no_oplog"] };
    run(&pair.from, "admin", user).await?;
    let mut spec = spec(&pair, &dir)?;
    spec.namespaces.include_users = false;
    spec.source.connection.username = Some("no_oplog".to_owned());
    let found = MongoEngine::default().inspect(&spec, &Ours::default()).await;
    let check = found.checks.iter().find(|check| check.name == "writes_by_apply_ops");
    let check = check.context("the oplog is not looked at")?;
    ensure!(
        check.outcome == Outcome::Fail
            && check.code == Some(FaultCode::MissingPrivileges)
            && check.message.contains("local.oplog.rs"),
        "{check:?}"
    );
    let folder = tempfile::tempdir()?;
    let (code, message) = refusal(&spec, &folder).await?;
    ensure!(code == FaultCode::MissingPrivileges, "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_that_are_there_are_refused_or_dropped_as_declared_and_dropped_with_their_generation()
-> Result<()> {
    let pair = guarded().await?;
    let dir = tempfile::tempdir()?;
    run(&pair.from, "shop", doc! { "createUser": "app", "pwd": "ours", "roles": ["read"] }).await?;
    run(&pair.from, "shop", doc! { "createRole": "clerk", "privileges": [], "roles": ["read"] })
        .await?;
    run(&pair.from, "shop", doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await?;
    let spec = spec(&pair, &dir)?;
    let folder = tempfile::tempdir()?;

    // Roles that would be missing are named, with who has them.
    run(&pair.from, "admin", doc! { "createRole": "auditor", "privileges": [], "roles": [] })
        .await?;
    run(
        &pair.from,
        "shop",
        doc! { "grantRolesToUser": "app", "roles": [{ "role": "auditor", "db": "admin" }] },
    )
    .await?;
    let (code, message) = refusal(&spec, &folder).await?;
    ensure!(
        code == FaultCode::UnsupportedNamespace
            && message.contains("user app of shop has the role auditor of admin"),
        "{message}"
    );
    run(
        &pair.from,
        "shop",
        doc! { "revokeRolesFromUser": "app", "roles": [{ "role": "auditor", "db": "admin" }] },
    )
    .await?;

    // So are privileges.
    let mut weak = spec.clone();
    weak.destination.connection.username = Some("weak".to_owned());
    let (code, message) = refusal(&weak, &folder).await?;
    ensure!(
        code == FaultCode::MissingPrivileges && message.contains("find (on admin.system.roles)"),
        "{message}"
    );
    let found = MongoEngine::default().inspect(&spec, &Ours::default()).await;
    let users =
        found.checks.iter().find(|check| check.name == "users").context("users are not checked")?;
    ensure!(
        users.outcome == Outcome::Ok && users.message == "1 user and 1 role in scope",
        "{users:?}"
    );

    // Somebody else's of the same name, and of another.
    run(&pair.to, "shop", doc! { "createUser": "app", "pwd": "theirs", "roles": [] }).await?;
    run(&pair.to, "shop", doc! { "createUser": "other", "pwd": "theirs", "roles": [] }).await?;
    let (code, message) = refusal(&spec, &folder).await?;
    ensure!(
        code == FaultCode::DestinationNotEmpty && message.contains("shop.system.users.app"),
        "{message}"
    );
    // A sync that is started all the same touches none.
    let engine = at_rest(&spec, &Tuning::default(), folder.path())?;
    let (sender, _reports) = tokio::sync::mpsc::channel(10);
    let fault =
        engine.start_sync(sender).await.err().context("it starts over a stranger's user")?;
    ensure!(
        fault.code == FaultCode::DestinationNotEmpty && fault.message.contains("user app of shop"),
        "{fault}"
    );
    log_in(&pair.destination, "shop", "app", "theirs").await?;
    run(&pair.to, "admin", doc! { "setUserWriteBlockMode": 1, "global": false }).await?;

    // Dropped where that is declared: what the plan listed.
    let mut dropping = spec.clone();
    dropping.destination.existing_data = ExistingData::Drop;
    let ours = Ours {
        runs: BTreeSet::from([RunId::new(&spec.name, spec.generation, 7)]),
        ..Ours::default()
    };
    let drops = MongoEngine::default().inspect(&dropping, &ours).await.drops;
    let names: Vec<String> = drops.iter().map(ToString::to_string).collect();
    ensure!(names == ["shop.system.users.app", "shop.system.users.other"], "{names:?}");
    let admins: Vec<Namespace> = vec!["admin.system.users.mover".parse()?];
    let engine = at_rest(&dropping, &Tuning::default(), folder.path())?;
    engine.drop_namespaces(DropWhat::Listed([drops, admins].concat())).await?;
    log_in(&pair.destination, "admin", "mover", "moving").await?;
    ensure!(
        kept(&pair.to, "shop").await?.iter().all(Vec::is_empty),
        "listed users are not dropped"
    );
    let mut sync =
        Run::begin_in(folder, vec![pair.from.clone()], dropping, Tuning::default()).await?;
    sync.caught_up().await?;
    log_in(&pair.destination, "shop", "app", "ours").await?;

    // A new generation drops what this one made, and no more.
    sync.stop().await?;
    run(&pair.to, "shop", doc! { "createUser": "stranger", "pwd": "theirs", "roles": [] }).await?;
    let made = sync.engine().progress().created_namespaces;
    sync.engine().drop_namespaces(DropWhat::Created(made)).await?;
    let left: Vec<Vec<String>> = kept(&pair.to, "shop").await?;
    ensure!(
        left[0].len() == 1 && left[0][0].contains("stranger") && left[1].is_empty(),
        "{left:?}"
    );
    let listed: Document = run(&pair.to, "shop", doc! { "listCollections": 1 }).await?;
    ensure!(listed.get_document("cursor")?.get_array("firstBatch")?.is_empty(), "{listed}");
    Ok(())
}
