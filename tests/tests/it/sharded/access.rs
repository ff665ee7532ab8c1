//! Access control on both clusters: exactly the privileges that preflight names suffice, and a
//! shard that does not know the user is reported.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential};
use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::scenario::Deployed as _;
use rig::{Auth, ClusterOptions, Declaration, cutoverd};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::scene::{Destination, PATIENCE, Scene};

const PASSWORD: &str = "of-the-migrator";

/// Makes a user that may do these actions, as preflight names them, and nothing else.
async fn grant(client: &Client, name: &str, actions: &BTreeSet<String>) {
    let on_cluster = ["inprog", "listDatabases", "appendOplogNote", "setUserWriteBlockMode"];
    let (mut cluster, mut anywhere, mut privileges) = (Vec::new(), Vec::new(), Vec::new());
    for action in actions {
        match action.strip_suffix(')').and_then(|action| action.split_once(" (on config.")) {
            Some((action, collection)) => {
                privileges.push(doc! {
                    "resource": { "db": "config", "collection": collection },
                    "actions": [action],
                });
            }
            None if on_cluster.contains(&action.as_str()) => cluster.push(action.clone()),
            None => anywhere.push(action.clone()),
        }
    }
    if !anywhere.is_empty() {
        privileges.push(doc! { "resource": { "db": "", "collection": "" }, "actions": anywhere });
    }
    if !cluster.is_empty() {
        privileges.push(doc! { "resource": { "cluster": true }, "actions": cluster });
    }
    let admin = client.database("admin");
    admin
        .run_command(doc! { "createRole": name, "privileges": privileges, "roles": [] })
        .await
        .unwrap();
    let user = doc! {
        "createUser": name, "pwd": PASSWORD, "roles": [name], "mechanisms": ["SCRAM-SHA-256"],
    };
    admin.run_command(user).await.unwrap();
}

impl Scene {
    fn declared(&self, user: &str) -> Declaration {
        self.declaration().user("source", user, "PASSWORD").user("destination", user, "PASSWORD")
    }

    /// The failed checks of a declaration.
    async fn failed(&self, declaration: &Declaration) -> Vec<Value> {
        declaration.write(self.cutover.folder()).unwrap();
        let document = self.cutover.run(["preflight", "--json"]).await.unwrap().json().unwrap();
        let checks = document["preflight"][0]["checks"].as_array().unwrap();
        checks.iter().filter(|check| check["outcome"] == "fail").cloned().collect()
    }
}

fn told(failed: &[Value], name: &str, after: &str) -> BTreeSet<String> {
    let check = failed
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {failed:#?}"));
    assert_eq!(check["code"], "CUT0016", "{check:#}");
    let (_, actions) =
        check["message"].as_str().unwrap().split_once(after).unwrap_or_else(|| panic!("{check:#}"));
    actions.split(", ").map(str::to_owned).collect()
}

/// What a cutover may keep an application from writing. A shard without writes tells of itself
/// every ten seconds by itself.
const LONGEST_DOWNTIME: Duration = Duration::from_secs(5);

/// An application that writes to the source until that refuses, and then to the destination as soon
/// as that takes it.
struct Application {
    source: Client,
    destination: Client,
}

impl Application {
    async fn of(scene: &Scene) -> Self {
        let mut clients = Vec::new();
        for (root, uri) in [
            (scene.source.client().await.unwrap(), scene.source.uri()),
            (scene.destination.client().await.unwrap(), scene.destination.uri()),
        ] {
            let user = doc! {
                "createUser": "application", "pwd": PASSWORD, "roles": ["readWriteAnyDatabase"],
                "mechanisms": ["SCRAM-SHA-256"],
            };
            root.database("admin").run_command(user).await.unwrap();
            let mut options = ClientOptions::parse(uri).await.unwrap();
            options.credential = Some(
                Credential::builder()
                    .username("application".to_owned())
                    .password(PASSWORD.to_owned())
                    .build(),
            );
            clients.push(Client::with_options(options).unwrap());
        }
        let destination = clients.pop().unwrap();
        Self { source: clients.pop().unwrap(), destination }
    }

    /// How many documents it wrote on both sides, and how long none was taken.
    fn write(self) -> JoinHandle<(u64, Duration)> {
        tokio::spawn(async move {
            let [source, destination] = [&self.source, &self.destination]
                .map(|client| client.database("more").collection::<Document>("things"));
            let (mut written, mut last) = (0, Instant::now());
            let next = |written: u64| doc! { "_id": format!("written {written}") };
            while source.insert_one(next(written)).await.is_ok() {
                (written, last) = (written + 1, Instant::now());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            while let Err(error) = destination.insert_one(next(written)).await {
                assert!(last.elapsed() < PATIENCE, "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (written + 1, last.elapsed())
        })
    }
}

#[tokio::test]
async fn what_preflight_names_suffices_on_routers_and_shards() {
    let protected = || ClusterOptions::shards(2).auth(Auth::default());
    let environment =
        cutoverd::Config::default().env("PASSWORD", PASSWORD).env("ROOT", ROOT_PASSWORD);
    let scene = Scene::set(protected(), Destination::cluster(protected()), environment).await;
    scene.fill(300, 200).await;
    let (source, destination) =
        (scene.source.client().await.unwrap(), scene.destination.client().await.unwrap());
    let mut shards = Vec::new();
    for shard in scene.source.shards() {
        shards.push(shard.client().await.unwrap());
    }
    // A user that may do nothing is told everything.
    for client in [&source, &destination] {
        grant(client, "nobody", &BTreeSet::new()).await;
    }
    let failed = scene.failed(&scene.declared("nobody")).await;
    let of_source = told(&failed, "source_privileges", "may not: ");
    let of_destination = told(&failed, "destination_privileges", "may not: ");
    for records in
        ["shards", "databases", "collections", "chunks", "version", "settings", "migrations"]
    {
        assert!(of_source.contains(&format!("find (on config.{records})")), "{of_source:?}");
    }

    // The router knows the user, and the shards do not.
    grant(&source, "least", &of_source).await;
    grant(&destination, "least", &of_destination).await;
    let declaration = scene.declared("least");
    let failed = scene.failed(&declaration).await;
    assert!(
        !failed.is_empty() && failed.iter().all(|check| check["name"] == "source_shards"),
        "{failed:#?}"
    );
    for (place, check) in failed.iter().enumerate() {
        assert_eq!(check["code"], "CUT0014", "{check:#}");
        assert!(
            check["message"].as_str().unwrap().starts_with(&format!("shard shard-{place}: ")),
            "{check:#}"
        );
        assert!(
            check["remedy"].as_str().unwrap().contains("shards have users of their own"),
            "{check:#}"
        );
    }
    let refused = scene.cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("CUT0014"), "{refused}");

    // They know it, and it may do nothing there.
    grant(&shards[0], "least", &BTreeSet::new()).await;
    grant(&shards[1], "least", &BTreeSet::new()).await;
    let failed = scene.failed(&declaration).await;
    let of_shard = told(&failed, "source_shards", "the user lacks on shard shard-0: ");
    let plain: BTreeSet<String> =
        of_shard.iter().map(|action| action.split(' ').next().unwrap().to_owned()).collect();
    for shard in &shards {
        shard.database("admin").run_command(doc! { "dropUser": "least" }).await.unwrap();
        shard.database("admin").run_command(doc! { "dropRole": "least" }).await.unwrap();
        grant(shard, "least", &plain).await;
    }
    // What an atomic applyOps writes stands in the shards' oplogs alone.
    let failed = scene.failed(&declaration).await;
    assert!(
        !failed.is_empty() && failed.iter().all(|check| check["name"] == "writes_by_apply_ops"),
        "{failed:#?}"
    );
    assert!(failed[0]["message"].as_str().unwrap().contains("local.oplog.rs"), "{failed:#?}");
    for shard in &shards {
        let find = doc! {
            "resource": { "db": "local", "collection": "oplog.rs" }, "actions": ["find"],
        };
        let more = doc! { "grantPrivilegesToRole": "least", "privileges": [find] };
        shard.database("admin").run_command(more).await.unwrap();
    }
    assert_eq!(scene.failed(&declaration).await, Vec::<Value>::new());

    // And with exactly that it goes the whole way.
    scene.apply(&declaration).await;
    scene.wait_for("ready").await;
    let orders = source.database("shop").collection::<Document>("ranged");
    orders
        .update_many(doc! { "_id": { "$lt": 100 } }, doc! { "$set": { "seen": true } })
        .await
        .unwrap();
    orders.delete_many(doc! { "_id": { "$gte": 250 } }).await.unwrap();
    scene.acknowledge(&declaration).await;
    scene.wait_for("completed").await;
    scene.prove().await;

    // One that may make users has the run write as a user of its own, which may do no less.
    scene.source.admin(doc! { "setUserWriteBlockMode": 1, "global": false }).await.unwrap();
    source
        .database("more")
        .collection("things")
        .insert_many((0..50).map(|n| doc! { "_id": n }))
        .await
        .unwrap();
    let application = Application::of(&scene).await;
    let more = Declaration::new("more", &scene.source.uri(), &scene.destination.uri())
        .user("source", "least", "PASSWORD")
        .user("destination", ROOT_USER, "ROOT")
        .set("namespaces.include", "[\"more.*\"]")
        .shard_key("more.things", &["_id:hashed"]);
    scene.apply(&more).await;
    let status = scene.cutover.wait_for_phase("more", "ready", PATIENCE).await.unwrap();
    assert!(
        scene.daemon.log().contains("the run writes as a user of its own"),
        "{}",
        scene.daemon.log_end()
    );
    // Each shard reports its options to who may list collections and indexes.
    assert!(
        !scene.daemon.log().contains("its shards do not tell theirs"),
        "{}",
        scene.daemon.log_end()
    );
    let token = status["acknowledge_token"].as_str().unwrap();
    // The other shard is idle, and must not hold up what follows.
    let writing = application.write();
    scene.apply(&more.text("cutover.acknowledge", token)).await;
    let completed = scene.cutover.wait_for_phase("more", "completed", PATIENCE).await.unwrap();
    let (written, downtime) = writing.await.unwrap();
    println!(
        "the application waited {:.2} s, the daemon says {}",
        downtime.as_secs_f64(),
        completed["cutover"]["downtime_seconds"]
    );
    assert!(downtime < LONGEST_DOWNTIME, "{downtime:?}: {completed:#}");
    let things = destination.database("more").collection::<Document>("things");
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 50 + written);
}
