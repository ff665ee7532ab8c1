//! What changes around a run while it waits: credentials, versions, the destination's indexes; as
//! drift, and got over where the daemon can.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::scenario::MIGRATION;
use rig::{Auth, Options, Output, Stage, User, cutoverd};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

fn named(name: &str) -> Options {
    Options { name: name.to_owned(), ..Options::default() }
}

/// Holds that every form of drift reports this kind, or that there is none; gives the text.
async fn drift_is(stage: &Stage, expected: Option<&str>) -> Output {
    let json = stage.cutover.run(["drift", "--json"]).await.unwrap();
    let text = stage.cutover.run(["drift"]).await.unwrap();
    let markdown = stage.cutover.run(["drift", "--markdown"]).await.unwrap();
    let plan = stage.cutover.run(["plan", "--detailed-exitcode"]).await.unwrap();
    let code = if expected.is_some() { 2 } else { 0 };
    for output in [&json, &text, &markdown, &plan] {
        assert_eq!(output.code, code, "{output}");
    }
    if let Some(kind) = expected {
        assert!(
            json.json().unwrap()["drift"].as_array().unwrap().iter().any(|one| one["kind"] == kind),
            "{json}"
        );
        assert!(text.stdout.contains(kind) && plan.stdout.contains(kind), "{text}{plan}");
        assert!(markdown.stdout.contains(&kind.replace('_', " ")), "{markdown}");
    }
    text
}

/// Waits until there is no drift: the comparison of what was taken back goes on by itself.
async fn wait_for_no_drift(stage: &Stage) {
    let start = Instant::now();
    loop {
        let told = stage.cutover.run(["drift"]).await.unwrap();
        if told.code == 0 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{told}");
        tokio::time::sleep(POLL).await;
    }
}

/// How often a server was asked for its databases.
async fn lists_of_databases(client: &Client) -> i64 {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
    let commands = status
        .get_document("metrics")
        .and_then(|metrics| metrics.get_document("commands"))
        .unwrap();
    commands.get_document("listDatabases").and_then(|counted| counted.get_i64("total")).unwrap()
}

#[tokio::test]
async fn indexes_and_versions_that_are_not_as_they_were_are_drift() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    source
        .database("shop")
        .collection("orders")
        .insert_one(doc! { "_id": 1, "customer": 1 })
        .await
        .unwrap();
    stage.apply(&stage.declaration_of(MIGRATION, "shop")).await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();
    // A migration that names its databases is looked at without a list of all that there are.
    let (of_source, of_destination) =
        (lists_of_databases(&source).await, lists_of_databases(&destination).await);
    drift_is(&stage, None).await;
    assert_eq!(
        (lists_of_databases(&source).await, lists_of_databases(&destination).await),
        (of_source, of_destination)
    );

    let make = doc! {
        "createIndexes": "orders", "indexes": [{ "key": { "customer": 1 }, "name": "customer_1" }],
    };
    destination.database("shop").run_command(make).await.unwrap();
    let told = drift_is(&stage, Some("definitions_changed")).await;
    assert!(
        told.stdout.contains("indexes of shop.orders") && told.stdout.contains("customer_1"),
        "{told}"
    );
    destination
        .database("shop")
        .run_command(doc! { "dropIndexes": "orders", "index": "customer_1" })
        .await
        .unwrap();

    // As if the run had begun before an upgrade.
    let kept: PathBuf = stage
        .daemon
        .state_folder()
        .join("runs")
        .join(ready["run"].as_str().unwrap())
        .join("versions.json");
    let began = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, r#"{"source":"5.0.1","destination":"5.0.2"}"#).unwrap();
    let told = stage.cutover.run(["drift"]).await.unwrap();
    assert_eq!(told.code, 2, "{told}");
    for words in
        ["version_changed", "was 5.0.1", "was 5.0.2", "source.version", "destination.version"]
    {
        assert!(told.stdout.contains(words), "{words}: {told}");
    }
    fs::write(&kept, began).unwrap();
    wait_for_no_drift(&stage).await;
}

#[tokio::test]
async fn a_password_that_is_replaced_is_drift_until_its_file_is_and_then_used_without_a_restart() {
    let reads = ["readAnyDatabase", "clusterMonitor", "backup"];
    let protected = Options {
        auth: Some(Auth { users: vec![User::new("migrator", "one", &reads)] }),
        ..named("rs-source")
    };
    let stage =
        Stage::set(protected, named("rs-destination"), cutoverd::Config::default()).await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let orders = source.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": 1 }).await.unwrap();
    let password = stage.daemon.folder().join("password");
    fs::write(&password, "one\n").unwrap();
    let declaration = stage
        .declaration()
        .text("source.username", "migrator")
        .set("source.password", format_args!("{{ file = \"{}\" }}", password.display()))
        .text("cutover.source_writes", "observe");
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    drift_is(&stage, None).await;

    let change = |to: &str| doc! { "updateUser": "migrator", "pwd": to };
    source.database("admin").run_command(change("two")).await.unwrap();
    let told = stage.cutover.run(["drift"]).await.unwrap();
    assert!(
        told.code == 2
            && told.stdout.contains("credentials_invalid")
            && told.stdout.contains("CUT0014"),
        "{told}"
    );
    assert!(!told.to_string().contains("\"one\""), "{told}");

    fs::write(&password, "two\n").unwrap();
    let start = Instant::now();
    while !stage.daemon.log().contains("has changed") {
        assert!(start.elapsed() < PATIENCE, "{}", stage.daemon.log_end());
        tokio::time::sleep(POLL).await;
    }
    orders.insert_one(doc! { "_id": 2 }).await.unwrap();
    let copied = destination.database("shop").collection::<Document>("orders");
    while copied.count_documents(doc! {}).await.unwrap() < 2 {
        assert!(start.elapsed() < PATIENCE, "{}", stage.daemon.log_end());
        tokio::time::sleep(POLL).await;
    }
    let status = stage.cutover.wait_for_phase(MIGRATION, "ready", PATIENCE).await.unwrap();
    assert_eq!(status["error"], serde_json::Value::Null, "{status:#}");
    drift_is(&stage, None).await;
}
