//! The destination in progress, with access control: a user of the run's own, a block on everybody
//! else's writes, and a marker; all of it gone when the run is over, however it ends.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;
use rig::workload::{Notes, WhenRefused, fill_small};
use rig::{Auth, Declaration, Options, Stage, User, cutoverd, write_block};
use rustix::process::getuid;
use serde_json::Value;

const CRASH_AT: &str = "CUTOVERD_TEST_CRASH_AT";
const PASSWORD: &str = "of-the-migrator";
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The roles of a source's user: the least of the built-in ones, and one for the block.
const READS: [&str; 3] = ["readAnyDatabase", "clusterMonitor", "backup"];
/// The roles of a destination's user that writes, and may neither make users nor block writes.
const WRITES: [&str; 3] = ["clusterMonitor", "readWriteAnyDatabase", "dbAdminAnyDatabase"];

fn with_users(name: &str, users: Vec<User>) -> Options {
    Options { name: name.to_owned(), auth: Some(Auth { users }), ..Options::default() }
}

fn environment() -> cutoverd::Config {
    cutoverd::Config::default().env("PASSWORD", PASSWORD)
}

/// Two deployments with access control, and one application on the destination.
struct Guarded {
    stage: Stage,
    source: Client,
    destination: Client,
    /// The application, as each side knows it.
    application: Client,
    other: Client,
}

impl Guarded {
    async fn set(destination_roles: &[&str]) -> Self {
        let application = User::new("shop", "application", &["readWriteAnyDatabase"]);
        let stage = Stage::set(
            with_users("rs-source", vec![application.clone()]),
            with_users(
                "rs-destination",
                vec![User::new("migrator", PASSWORD, destination_roles), application.clone()],
            ),
            environment(),
        )
        .await
        .unwrap();
        let (source, destination) =
            (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
        let block =
            [doc! { "resource": { "cluster": true }, "actions": ["setUserWriteBlockMode"] }];
        let role = doc! { "createRole": "blocksWrites", "privileges": block.to_vec(), "roles": [] };
        source.database("admin").run_command(role).await.unwrap();
        let roles: Vec<&str> = READS.into_iter().chain(["blocksWrites"]).collect();
        source
            .database("admin")
            .run_command(doc! { "createUser": "migrator", "pwd": PASSWORD, "roles": roles })
            .await
            .unwrap();
        let other = stage.destination.client_as(&application).await.unwrap();
        let application = stage.source.client_as(&application).await.unwrap();
        Self { stage, source, destination, application, other }
    }

    fn declaration(&self, db: &str) -> Declaration {
        self.stage.declaration_of(MIGRATION, db).user("source", "migrator", "PASSWORD").user(
            "destination",
            "migrator",
            "PASSWORD",
        )
    }

    async fn ready(&self) -> Value {
        self.stage.wait_for("ready").await.unwrap();
        self.stage
            .status_where(MIGRATION, "ready to cut over", |status| status["ready"]["value"] == true)
            .await
            .unwrap()
    }

    /// The users and roles of runs on the destination, by name.
    async fn own(&self) -> (Vec<Document>, Vec<Document>) {
        let list = async |collection: &str, name: &str| -> Vec<Document> {
            let all = self.destination.database("admin").collection::<Document>(collection);
            all.find(doc! { name: { "$regex": "^cutover_" } })
                .await
                .unwrap()
                .try_collect()
                .await
                .unwrap()
        };
        (list("system.users", "user").await, list("system.roles", "role").await)
    }

    async fn marker(&self) -> Option<Document> {
        self.destination
            .database("cutover_internal")
            .collection::<Document>("marker")
            .find_one(doc! {})
            .await
            .unwrap()
    }

    /// Waits until the daemon has died at the place that it was given.
    async fn until_dead(&self, place: &str) {
        let start = Instant::now();
        while self.stage.daemon.is_running() {
            assert!(
                start.elapsed() < PATIENCE,
                "it does not die {place}: {}",
                self.stage.daemon.log_end()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn may_write(&self) -> bool {
        let mine = self.other.database("mine").collection("x");
        mine.insert_one(doc! { "at": "all times" }).await.is_ok()
    }

    /// Who is at work on the destination for the daemon.
    async fn at_work(&self) -> Vec<String> {
        let look = [
            doc! { "$currentOp": { "allUsers": true, "idleConnections": true } },
            doc! { "$match": { "appName": "cutover" } },
            doc! { "$unwind": "$effectiveUsers" },
            doc! { "$group": { "_id": "$effectiveUsers.user" } },
        ];
        let reply = self
            .destination
            .database("admin")
            .run_command(doc! { "aggregate": 1, "pipeline": look.to_vec(), "cursor": {} })
            .await
            .unwrap();
        let found = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        found
            .iter()
            .map(|one| one.as_document().unwrap().get_str("_id").unwrap().to_owned())
            .collect()
    }

    /// Nothing of a run is left, and everybody may write.
    async fn nothing_left(&self, after: &str) {
        let (users, roles) = self.own().await;
        assert!(users.is_empty() && roles.is_empty(), "{after}: {users:?} {roles:?}");
        let databases = self.destination.list_database_names().await.unwrap();
        assert!(!databases.iter().any(|name| name == "cutover_internal"), "{after}: {databases:?}");
        assert!(
            !write_block::is_blocked(&self.destination).await.unwrap() && self.may_write().await,
            "{after}"
        );
    }

    /// Waits until a cancelled run has given back what it held.
    async fn cancelled(&self) {
        let cancelled = self.stage.wait_for("cancelled").await.unwrap();
        let given_back = |event: &Value| {
            event["run"] == cancelled["run"]
                && event["message"] == "the destination is given back with its data"
        };
        let start = Instant::now();
        while !self.stage.events(MIGRATION).await.unwrap().iter().any(given_back) {
            assert!(start.elapsed() < PATIENCE, "not given back: {}", self.stage.daemon.log_end());
            tokio::time::sleep(POLL).await;
        }
    }
}

#[tokio::test]
async fn a_user_of_its_own_a_block_and_a_marker_while_it_goes_on() {
    let mut guarded = Guarded::set(&["root"]).await;
    fill_small(&guarded.source, "shop").await.unwrap();
    let notes = Notes::start(&guarded.application, "shop", WhenRefused::TryAgain);
    let declaration = guarded.declaration("shop");
    guarded.stage.apply(&declaration).await.unwrap();
    let ready = guarded.ready().await;
    let run = ready["run"].as_str().unwrap();

    // The user: its own, from here alone, with what a sync needs.
    let (users, roles) = guarded.own().await;
    assert_eq!((users.len(), roles.len()), (1, 1), "{users:?} {roles:?}");
    assert_eq!(users[0].get_str("user").unwrap(), format!("cutover_{run}"));
    for one in [&users[0], &roles[0]] {
        assert!(
            one.get_array("authenticationRestrictions").unwrap()[0]
                .to_string()
                .contains("127.0.0.1"),
            "{one}"
        );
    }
    let privileges = roles[0].get_array("privileges").unwrap();
    let actions: Vec<String> = privileges
        .iter()
        .flat_map(|privilege| privilege.as_document().unwrap().get_array("actions").unwrap())
        .map(|action| action.as_str().unwrap().to_owned())
        .collect();
    for needless in ["anyAction", "createUser", "grantRole", "shutdown", "replSetConfigure"] {
        assert!(!actions.iter().any(|action| action == needless), "{actions:?}");
    }
    let at_work = guarded.at_work().await;
    assert!(at_work.contains(&format!("cutover_{run}")), "{at_work:?}");
    // The block, and what a person with a shell finds.
    assert!(
        write_block::is_blocked(&guarded.destination).await.unwrap() && !guarded.may_write().await
    );
    let marker = guarded.marker().await.unwrap();
    assert_eq!(
        (marker.get_str("_id").unwrap(), marker.get_str("migration").unwrap()),
        (run, MIGRATION)
    );
    assert!(
        marker.get_str("by").unwrap().contains("cutoverd on ")
            && marker.get_bool("blocks_writes").unwrap(),
        "{marker}"
    );
    assert!(marker.get_str("message").unwrap().contains("no valid copy"), "{marker}");

    // A daemon that was killed gives it a new password, and goes on as it.
    guarded.stage.daemon.kill9().await.unwrap();
    guarded.stage.daemon.restart().await.unwrap();
    let ready = guarded.ready().await;
    assert_eq!((guarded.own().await.0.len(), guarded.may_write().await), (1, false));

    // Completed; who approved it, and where that is written down, is known from the build system's
    // variables too.
    let acknowledged = declaration
        .clone()
        .text("cutover.acknowledge", ready["acknowledge_token"].as_str().unwrap());
    acknowledged.write(guarded.stage.folder()).unwrap();
    let mut merge =
        guarded.stage.cutover.clone().env("GITHUB_ACTOR", "grace").env("GITHUB_SHA", "b7d9aa2c");
    for ours in ["CUTOVER_ACTOR", "CUTOVER_REVISION"] {
        merge = merge.env(ours, "");
    }
    let began = Instant::now();
    merge.succeed(["apply", "--auto-approve"]).await.unwrap();
    let completed = guarded.stage.wait_for("completed").await.unwrap();
    guarded.nothing_left("completed").await;
    let noted = notes.stop().await.unwrap();
    assert!(
        noted.refused > 0 && noted.missing_from(&guarded.destination).await.unwrap().is_empty()
    );
    let report =
        compare(&guarded.source, &guarded.destination, &Scope::only(&["shop.*"])).await.unwrap();
    assert!(report.is_equal() && report.collections == 4, "{report}");
    println!(
        "completed in {:.1} s, downtime {} s",
        began.elapsed().as_secs_f64(),
        completed["cutover"]["downtime_seconds"]
    );

    let events = guarded.stage.events(MIGRATION).await.unwrap();
    let taken =
        events.iter().find(|event| event["from"] == "ready" && event["to"] == "draining").unwrap();
    let uid = u64::from(getuid().as_raw());
    assert_eq!(
        taken["actor"],
        serde_json::json!(
            { "uid": uid, "certificate": null, "name": "grace", "revision": "b7d9aa2c" }
        ),
        "{taken}"
    );
    assert!(
        taken["at"].as_str().unwrap().ends_with('Z')
            && taken["message"] == "the cutover was acknowledged",
        "{taken}"
    );
    let by = completed["cutover"]["acknowledged_by"].as_str().unwrap();
    assert!(by.contains("grace") && by.contains("b7d9aa2c"), "{by}");

    // The source stays closed, until that is declared otherwise.
    assert!(write_block::is_blocked(&guarded.source).await.unwrap());
    let opened = acknowledged.text("cutover.source_after", "open");
    opened.write(guarded.stage.folder()).unwrap();
    let (exit, plan) = guarded.stage.plan().await.unwrap();
    assert!(
        exit == 2
            && plan["changes"][0]["effects"]
                .to_string()
                .contains("opens the source to writes again"),
        "{plan:#}"
    );
    guarded.stage.apply(&opened).await.unwrap();
    let start = Instant::now();
    while write_block::is_blocked(&guarded.source).await.unwrap() {
        assert!(start.elapsed() < PATIENCE, "the source stays blocked");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_cancelled_run_leaves_nothing_but_its_data() {
    let mut guarded = Guarded::set(&["root"]).await;
    fill_small(&guarded.source, "shop").await.unwrap();
    let declaration = guarded.declaration("shop");
    let there = async |guarded: &Guarded| {
        guarded
            .destination
            .database("shop")
            .collection::<Document>("items")
            .count_documents(doc! {})
            .await
            .unwrap()
    };

    guarded.stage.apply(&declaration).await.unwrap();
    guarded.ready().await;
    assert_eq!(
        (guarded.own().await.0.len(), guarded.marker().await.is_some(), guarded.may_write().await),
        (1, true, false)
    );
    guarded.stage.cutover.succeed(["cancel", MIGRATION]).await.unwrap();
    guarded.cancelled().await;
    guarded.nothing_left("cancelled by hand").await;
    assert_eq!(there(&guarded).await, 300);

    // Dying on the way changes nothing about that.
    let mut declaration = declaration;
    for (generation, place) in [
        (2, "journaled:cancelled"),
        (3, "before:free_destination"),
        (4, "after:free_destination"),
        (5, "before:clean_up"),
        (6, "after:clean_up"),
    ] {
        guarded.stage.daemon.terminate().await.unwrap();
        let environment = environment();
        // An earlier run is cleaned up as a part of `retire_earlier`, which is no place of its own.
        guarded.stage.daemon.restart_with(environment.clone().env(CRASH_AT, place)).await.unwrap();
        declaration = declaration.set("generation", generation);
        guarded.stage.apply(&declaration).await.unwrap();
        guarded.ready().await;
        assert_eq!(guarded.own().await.0.len(), 1);
        // It may die before it has answered.
        let _ = guarded.stage.cutover.run(["cancel", MIGRATION]).await.unwrap();
        guarded.until_dead(place).await;
        guarded.stage.daemon.restart_with(environment).await.unwrap();
        guarded.cancelled().await;
        guarded.nothing_left(place).await;
        assert_eq!(there(&guarded).await, 300, "{place}");
        println!("{place}: cancelled, nothing left");
    }
}

#[tokio::test]
async fn a_user_that_may_make_none_works_itself() {
    let guarded = Guarded::set(&WRITES).await;
    fill_small(&guarded.source, "shop").await.unwrap();
    let declaration = guarded.declaration("shop");

    // It can neither block writes nor make a user that can: said, or refused where it is asked for.
    let (exit, plan) = {
        declaration
            .clone()
            .set("destination.block_writes", true)
            .write(guarded.stage.folder())
            .unwrap();
        guarded.stage.plan().await.unwrap()
    };
    let told: Vec<&Value> = plan["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["severity"] == "error")
        .collect();
    assert_eq!((exit, told.len(), &told[0]["code"]), (1, 1, &Value::from("CUT0028")), "{plan:#}");
    declaration.write(guarded.stage.folder()).unwrap();
    let (exit, plan) = guarded.stage.plan().await.unwrap();
    assert!(
        exit == 2
            && plan["diagnostics"]
                .to_string()
                .contains("others can write to the destination during the run"),
        "{plan:#}"
    );
    guarded.stage.apply(&declaration).await.unwrap();
    guarded.ready().await;
    assert_eq!(
        (guarded.own().await.0.len(), guarded.at_work().await),
        (0, vec!["migrator".to_owned()])
    );
    let marker = guarded.marker().await.unwrap();
    assert!(!marker.get_bool("blocks_writes").unwrap() && guarded.may_write().await, "{marker}");
    guarded.stage.cutover.succeed(["cancel", MIGRATION]).await.unwrap();
    guarded.cancelled().await;
    guarded.nothing_left("cancelled").await;

    // With the two actions it blocks others itself.
    let actions = ["setUserWriteBlockMode", "bypassWriteBlockingMode"];
    let privileges = [doc! { "resource": { "cluster": true }, "actions": actions.to_vec() }];
    let admin = guarded.destination.database("admin");
    admin
        .run_command(
            doc! { "createRole": "guards", "privileges": privileges.to_vec(), "roles": [] },
        )
        .await
        .unwrap();
    admin.run_command(doc! { "grantRolesToUser": "migrator", "roles": ["guards"] }).await.unwrap();
    let declaration = declaration.set("generation", 2).set("destination.block_writes", true);
    guarded.stage.apply(&declaration).await.unwrap();
    guarded.ready().await;
    assert_eq!((guarded.own().await.0.len(), guarded.may_write().await), (0, false));
    guarded.stage.acknowledge(&declaration).await.unwrap();
    guarded.stage.wait_for("completed").await.unwrap();
    guarded.nothing_left("completed").await;
    let report =
        compare(&guarded.source, &guarded.destination, &Scope::only(&["shop.*"])).await.unwrap();
    assert!(report.is_equal(), "{report}");
}

#[tokio::test]
async fn a_writer_that_may_bypass_the_block_is_noticed() {
    let guarded = Guarded::set(&["root"]).await;
    fill_small(&guarded.source, "shop").await.unwrap();
    let notes = Notes::start(&guarded.source, "shop", WhenRefused::TryAgain);
    let declaration = guarded.declaration("shop");
    guarded.stage.apply(&declaration).await.unwrap();
    let ready = guarded.ready().await;
    let acknowledged = declaration
        .clone()
        .text("cutover.acknowledge", ready["acknowledge_token"].as_str().unwrap());
    guarded.stage.apply(&acknowledged).await.unwrap();
    let given_up = guarded
        .stage
        .status_where(MIGRATION, "given up", |status| {
            assert_ne!(status["phase"], "completed", "{status:#}");
            status["error"]["code"] == "CUT0029"
        })
        .await
        .unwrap();
    assert!(
        given_up["error"]["message"].as_str().unwrap().contains("may bypass the block"),
        "{given_up:#}"
    );
    let noted = notes.stop().await.unwrap();
    guarded.ready().await;
    assert!(!write_block::is_blocked(&guarded.source).await.unwrap());
    guarded.stage.apply(&declaration).await.unwrap();
    guarded.stage.acknowledge(&declaration).await.unwrap();
    guarded.stage.wait_for("completed").await.unwrap();
    assert!(noted.missing_from(&guarded.destination).await.unwrap().is_empty());
}

/// `cutoverd unblock`, on the state directory and the declaration of the scene.
async fn unblock(guarded: &Guarded, arguments: &[&str]) -> std::process::Output {
    let cutoverd = &rig::programs::programs().unwrap().cutoverd;
    tokio::process::Command::new(cutoverd)
        .env("PASSWORD", PASSWORD)
        .env("CUTOVERD_STATE_DIR", guarded.stage.daemon.state_folder())
        .args(["unblock", MIGRATION, "--directory"])
        .arg(guarded.stage.folder())
        .args(arguments)
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn what_a_run_blocks_whose_journal_is_lost_is_given_back_by_a_command() {
    let mut guarded = Guarded::set(&["root"]).await;
    fill_small(&guarded.source, "shop").await.unwrap();
    let crash = environment().env(CRASH_AT, "before:open_destination");
    guarded.stage.daemon.terminate().await.unwrap();
    guarded.stage.daemon.restart_with(crash).await.unwrap();
    let declaration = guarded.declaration("shop");
    guarded.stage.apply(&declaration).await.unwrap();
    let ready = guarded.ready().await;
    let run = ready["run"].as_str().unwrap().to_owned();

    // A daemon that is at work is not overtaken.
    let refused = unblock(&guarded, &["--source"]).await;
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && stderr.contains("error[CUT0090]"), "{stderr}");
    assert!(stderr.contains(&run) && stderr.contains("--force"), "{stderr}");

    let acknowledged =
        declaration.text("cutover.acknowledge", ready["acknowledge_token"].as_str().unwrap());
    // It may die before it has answered.
    let _ = guarded.stage.apply(&acknowledged).await;
    guarded.until_dead("before:open_destination").await;
    assert!(write_block::is_blocked(&guarded.source).await.unwrap());
    assert!(!guarded.may_write().await);

    let state = guarded.stage.daemon.state_folder();
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("journal.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(guarded.stage.daemon.restart_with(environment()).await.is_err(), "it starts");
    let log = guarded.stage.daemon.log_end();
    assert!(log.contains("CUT0007") && log.contains("cutoverd unblock"), "{log}");

    // It says what is blocked, and changes nothing unasked.
    let shown = unblock(&guarded, &["--json"]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["source_blocked"], &shown["destination_blocked"]),
        (&true.into(), &true.into())
    );
    assert_eq!(shown["runs"][0]["run"], run.as_str());
    assert_eq!(shown["runs"][0]["may_be_at_work"], false);
    assert!(write_block::is_blocked(&guarded.source).await.unwrap());

    let done = unblock(&guarded, &["--source"]).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!write_block::is_blocked(&guarded.source).await.unwrap());
    assert!(!guarded.may_write().await, "it was not asked for");
    let done = unblock(&guarded, &["--destination"]).await;
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && text.contains("The destination takes writes"), "{text}");
    assert!(guarded.may_write().await);
    assert!(guarded.marker().await.is_none());
    assert_eq!(guarded.own().await.0.len(), 0);

    // Once more there is nothing that a run holds.
    let again = unblock(&guarded, &["--source"]).await;
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && stderr.contains("no run of"), "{stderr}");
}
