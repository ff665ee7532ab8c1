//! Every error that an operator is likely to meet, by what the real programs print and end with.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use rig::ports::ReservedPort;
use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;
use rig::{Auth, Cutover, Cutoverd, Declaration, Options, Output, ReplicaSet, Stage, cutoverd};

const PATIENCE: Duration = Duration::from_secs(60);

fn named(name: &str) -> Options {
    Options { name: name.to_owned(), ..Options::default() }
}

/// An error on stderr: its code, what the message names, and a remedy. Nothing of it is on stdout.
#[track_caller]
fn assert_error(output: &Output, exit_code: i32, code: &str, names: &[&str]) {
    assert_eq!(output.code, exit_code, "{output}");
    assert!(output.stderr.contains(&format!("error[{code}]: ")), "{code}: {output}");
    assert!(output.stderr.contains("remedy: "), "{output}");
    for name in names {
        assert!(output.stderr.contains(name), "{name}: {output}");
    }
    assert!(!output.stdout.contains(code), "{output}");
}

/// What `plan` and `apply` say of a declaration that the daemon refuses; nothing comes of either.
async fn refused(
    daemon: &Cutoverd,
    declaration: &Declaration,
    code: &str,
    names: &[&str],
) -> Output {
    let folder = tempfile::tempdir().unwrap();
    declaration.write(folder.path()).unwrap();
    let cutover = Cutover::new(folder.path()).daemon(daemon);
    let plan = cutover.run(["plan"]).await.unwrap();
    assert_error(&plan, 1, code, names);
    let apply = cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert_error(&apply, 1, code, names);
    let json = cutover.run(["plan", "--json"]).await.unwrap();
    let document = json.json().unwrap();
    let diagnostics = document["diagnostics"].as_array().unwrap();
    assert!(
        json.code == 1
            && diagnostics.iter().any(|one| one["code"] == code && one["severity"] == "error"),
        "{document:#}"
    );
    let preflight = cutover.run(["preflight"]).await.unwrap();
    assert!(
        preflight.code == 1 && format!("{}{}", preflight.stdout, preflight.stderr).contains(code),
        "{preflight}"
    );
    let status = cutover.succeed(["status", "--json"]).await.unwrap().json().unwrap();
    assert_eq!(status["migrations"].as_array().map(Vec::len), Some(0), "{status:#}");
    plan
}

#[tokio::test]
async fn sides_that_cannot_be_reached_are_told_apart() {
    let protected = Options { auth: Some(Auth::default()), ..named("rs-source") };
    let daemon =
        cutoverd::Config::default().env("RIGHT", ROOT_PASSWORD).env("WRONG", "not-the-password");
    let stage = Stage::set(protected, named("rs-destination"), daemon).await.unwrap();
    let free = ReservedPort::take().unwrap();
    let (source, destination) = (stage.source.uri(), stage.destination.uri());
    let nobody = format!("127.0.0.1:{}", free.number());
    let down = format!("mongodb://{nobody}/?replicaSet=rs-source");

    refused(
        &stage.daemon,
        &Declaration::new(MIGRATION, &down, &destination),
        "CUT0012",
        &["the source", &nobody],
    )
    .await;
    let right = Declaration::new(MIGRATION, &source, &down).user("source", ROOT_USER, "RIGHT");
    refused(&stage.daemon, &right, "CUT0012", &["the destination", &nobody]).await;

    let wrong = stage.declaration().user("source", ROOT_USER, "WRONG");
    let told =
        refused(&stage.daemon, &wrong, "CUT0014", &["the source", &stage.source.host(0)]).await;
    assert!(!told.to_string().contains("not-the-password"), "{told}");
    refused(&stage.daemon, &stage.declaration(), "CUT0014", &["the source", "requires a login"])
        .await;
    let unset = stage.declaration().user("source", ROOT_USER, "NOT_SET");
    refused(&stage.daemon, &unset, "CUT0015", &["NOT_SET"]).await;
    let no_file = stage
        .declaration()
        .text("source.username", ROOT_USER)
        .set("source.password", r#"{ file = "/no/such/file" }"#);
    refused(&stage.daemon, &no_file, "CUT0015", &["/no/such/file"]).await;

    let nowhere =
        Declaration::new(MIGRATION, "mongodb://nowhere.invalid:27017/?replicaSet=rs", &destination);
    refused(&stage.daemon, &nowhere, "CUT0011", &["the source", "nowhere.invalid"]).await;
}

#[tokio::test]
async fn a_standalone_source_and_a_destination_with_data() {
    let standalone = Options { standalone: true, ..Options::default() };
    let stage =
        Stage::set(standalone, named("rs-destination"), cutoverd::Config::default()).await.unwrap();
    refused(&stage.daemon, &stage.declaration(), "CUT0017", &["standalone", &stage.source.host(0)])
        .await;
    // The same behind `replicaSet=`, which it is not.
    let as_set = format!("mongodb://{}/?replicaSet=rs", stage.source.host(0));
    let declaration = Declaration::new(MIGRATION, &as_set, &stage.destination.uri());
    let folder = tempfile::tempdir().unwrap();
    declaration.write(folder.path()).unwrap();
    let told = Cutover::new(folder.path()).daemon(&stage.daemon).run(["plan"]).await.unwrap();
    assert!(
        told.code == 1
            && told.stderr.contains(&stage.source.host(0))
            && told.stderr.contains("remedy: "),
        "{told}"
    );

    let source = ReplicaSet::start(named("rs-source")).await.unwrap();
    let client = stage.destination.client().await.unwrap();
    client.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    let declaration = Declaration::new(MIGRATION, &source.uri(), &stage.destination.uri());
    refused(&stage.daemon, &declaration, "CUT0018", &["shop.orders", "existing_data"]).await;
    assert_eq!(
        client
            .database("shop")
            .collection::<Document>("orders")
            .count_documents(doc! {})
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn a_deployment_is_never_migrated_to_itself() {
    let source = Options { members: 2, ..named("rs-source") };
    let stage =
        Stage::set(source, named("rs-destination"), cutoverd::Config::default()).await.unwrap();
    let client = stage.source.client().await.unwrap();
    client.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    let uri = stage.source.uri();

    // The same text is a mistake of the HCL already.
    let folder = tempfile::tempdir().unwrap();
    Declaration::new(MIGRATION, &uri, &uri).write(folder.path()).unwrap();
    let told = Cutover::new(folder.path()).daemon(&stage.daemon).run(["plan"]).await.unwrap();
    assert!(told.code == 1 && told.stderr.contains("error[CUT00"), "{told}");

    let (first, second) = (stage.source.host(0), stage.source.host(1));
    let primary = stage.source.primary().await.unwrap();
    let (primary, secondary) = if primary == 0 { (&first, &second) } else { (&second, &first) };
    for (from, to, code) in [
        // Another spelling, another member, one member alone.
        (uri.clone(), uri.replace("127.0.0.1", "localhost"), "CUT0019"),
        (
            format!("mongodb://{first}/?replicaSet=rs-source"),
            format!("mongodb://{second}/?replicaSet=rs-source"),
            "CUT0019",
        ),
        (uri.clone(), format!("mongodb://{primary}/?directConnection=true"), "CUT0019"),
        (uri.clone(), format!("mongodb://{secondary}/?directConnection=true"), "CUT00"),
        (format!("mongodb://{secondary}/?directConnection=true"), uri.clone(), "CUT00"),
        (
            format!("mongodb://{secondary}/?directConnection=true"),
            format!("mongodb://{primary}/?directConnection=true"),
            "CUT00",
        ),
    ] {
        // The worst that could be declared: what is there is to be dropped first.
        let folder = tempfile::tempdir().unwrap();
        Declaration::new(MIGRATION, &from, &to)
            .text("destination.existing_data", "drop")
            .write(folder.path())
            .unwrap();
        let cutover = Cutover::new(folder.path()).daemon(&stage.daemon);
        let plan = cutover.run(["plan"]).await.unwrap();
        assert!(
            plan.code == 1 && plan.stderr.contains(&format!("error[{code}")),
            "{from} {to}: {plan}"
        );
        assert_eq!(cutover.run(["apply", "--auto-approve"]).await.unwrap().code, 1, "{from} {to}");
    }
    assert_eq!(
        client
            .database("shop")
            .collection::<Document>("orders")
            .count_documents(doc! {})
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn mistakes_in_the_hcl_are_shown_at_their_place() {
    const SECRET: &str = "hunter2-literal";
    let base = Declaration::new(MIGRATION, "mongodb://a.example.net/", "mongodb://b.example.net/");
    let text = |declaration: &Declaration| declaration.hcl();
    let cases = [
        (
            text(&base.clone().text("cutover.max_lagg", "10s")),
            vec!["max_lagg", "max_lag", "orders.hcl:3:5"],
        ),
        (text(&base.clone().text("cutover.extensions", "two")), vec!["extensions", "number"]),
        (text(&base.clone().text("cutover.window", "5 days ago")), vec!["window", "5 days ago"]),
        (text(&base.clone().without("source.uri")), vec!["source"]),
        (format!("migration \"{MIGRATION}\" {{\n}}\n"), vec!["source", "destination"]),
        (format!("{}{}", base.hcl(), base.hcl()), vec![MIGRATION, "orders.hcl:9"]),
        (
            text(&base.clone().text("source.username", "u").text("source.password", SECRET)),
            vec!["password", "env"],
        ),
        (
            text(&Declaration::new(
                MIGRATION,
                &format!("mongodb://u:{SECRET}@a.example.net/"),
                "mongodb://b.example.net/",
            )),
            vec!["uri", "password"],
        ),
        (
            text(&base.clone().text("copy.indexes", "before_the_copy")),
            vec!["indexes", "before_copy"],
        ),
    ];
    for (hcl, names) in cases {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("orders.hcl"), &hcl).unwrap();
        // No daemon is needed to see them, and none hides them.
        let cutover = Cutover::new(folder.path()).env("CUTOVER_ENDPOINT", "unix:///no/such/socket");
        for command in
            [&["validate"][..], &["plan"], &["apply", "--auto-approve"], &["plan", "--json"]]
        {
            let output = cutover.run(command).await.unwrap();
            assert_eq!(output.code, 1, "{command:?} {hcl}: {output}");
            assert!(output.stderr.contains("error[CUT000"), "{command:?} {hcl}: {output}");
            assert!(output.stderr.contains("orders.hcl:"), "{command:?} {hcl}: {output}");
            for name in &names {
                assert!(output.stderr.contains(name), "{name} {command:?} {hcl}: {output}");
            }
            assert!(!output.to_string().contains(SECRET), "{command:?} {hcl}: {output}");
        }
    }
    // What is right, is right.
    let folder = tempfile::tempdir().unwrap();
    base.write(folder.path()).unwrap();
    let output = Cutover::new(folder.path()).run(["validate"]).await.unwrap();
    assert!(output.code == 0 && output.stderr.is_empty(), "{output}");
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_exit_code_three() {
    let folder = tempfile::tempdir().unwrap();
    Declaration::new(MIGRATION, "mongodb://a.example.net/", "mongodb://b.example.net/")
        .write(folder.path())
        .unwrap();
    let cutover =
        Cutover::new(folder.path()).env("CUTOVER_ENDPOINT", "unix:///tmp/cutover-no-such/d.sock");
    let by_hand =
        [["pause", MIGRATION], ["resume", MIGRATION], ["cancel", MIGRATION], ["events", MIGRATION]];
    let mut commands: Vec<Vec<&str>> = by_hand.iter().map(|command| command.to_vec()).collect();
    commands.extend([
        vec!["extend", MIGRATION, "--by", "24h"],
        vec!["plan"],
        vec!["plan", "--detailed-exitcode"],
    ]);
    commands.extend([
        vec!["apply", "--auto-approve"],
        vec!["status"],
        vec!["status", "--json"],
        vec!["preflight"],
        vec!["drift"],
    ]);
    for command in commands {
        let output = cutover.run(&command).await.unwrap();
        assert_error(&output, 3, "CUT0003", &["/tmp/cutover-no-such/d.sock", "cutoverd"]);
        assert_eq!(output.stdout, "", "{command:?}");
    }
    // A socket file without a daemon behind it, and an endpoint that is none.
    let socket = folder.path().join("d.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let stale = format!("unix://{}", socket.display());
    assert_error(
        &cutover.run(["status", "--endpoint", &stale]).await.unwrap(),
        3,
        "CUT0003",
        &["d.sock"],
    );
    assert_error(
        &cutover.run(["status", "--endpoint", "tcp://127.0.0.1:1"]).await.unwrap(),
        1,
        "CUT0001",
        &["tcp://127.0.0.1:1"],
    );
    // A command that is none is an error, not drift.
    assert_eq!(cutover.run(["plann"]).await.unwrap().code, 1);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_state_is_one_daemons_and_its_owners() {
    let first = Cutoverd::start(cutoverd::Config::default()).await.unwrap();
    let state = first.state_folder();
    assert_eq!((mode(&first.socket()), mode(&state)), (0o600, 0o700));
    for entry in fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap().path();
        assert_eq!(mode(&entry) & 0o077, 0, "{}", entry.display());
    }
    let second = Cutoverd::start(cutoverd::Config::default().state_folder(&state))
        .await
        .unwrap_err()
        .to_string();
    assert!(second.contains("exit code 1") && second.contains("error[CUT0006]"), "{second}");
    assert!(
        second.contains("remedy: ") && second.contains(&state.display().to_string()),
        "{second}"
    );
    // The first one is none the worse.
    let folder = tempfile::tempdir().unwrap();
    Cutover::new(folder.path()).daemon(&first).succeed(["status"]).await.unwrap();
}

async fn poll<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn sigterm_stops_cleanly_and_the_next_start_goes_on() {
    let mut stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    fill_uniform(&source, "bulk", "data", 5_000, 16_000).await.unwrap();
    source.database("bulk").collection("small").insert_one(doc! { "_id": 1 }).await.unwrap();
    let slow = doc! {
        "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 200,
        "appName": "cutover",
    };
    let set = |data: Document| {
        doc! {
            "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data,
        }
    };
    destination.database("admin").run_command(set(slow)).await.unwrap();
    let declaration = stage.declaration().set("copy.parallelism", 1);
    stage.apply(&declaration).await.unwrap();
    poll("the copy", async || {
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        (status["copy"]["bytes_copied"].as_u64() > Some(40_000_000)).then_some(())
    })
    .await;
    let before = stage.cutover.status(MIGRATION).await.unwrap();
    let start = Instant::now();
    assert_eq!(stage.daemon.terminate().await.unwrap(), 0, "{}", stage.daemon.log_end());
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    assert!(!stage.daemon.socket().exists(), "its socket is gone");
    assert_eq!(stage.cutover.run(["status"]).await.unwrap().code, 3);
    stage.daemon.restart().await.unwrap();
    let after = stage.cutover.status(MIGRATION).await.unwrap();
    assert_eq!((&after["run"], &after["phase"]), (&before["run"], &before["phase"]));
    destination
        .database("admin")
        .run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" })
        .await
        .unwrap();
    stage.wait_for("ready").await.unwrap();

    // Stopped in the tail, it goes on behind the last event that it has applied: nothing is
    // reported twice.
    let applied = stage.cutover.status(MIGRATION).await.unwrap()["tail"]["events_applied"].as_u64();
    assert_eq!(stage.daemon.terminate().await.unwrap(), 0);
    source.database("bulk").collection("small").insert_one(doc! { "_id": 2 }).await.unwrap();
    stage.daemon.restart().await.unwrap();
    poll("the tail", async || {
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        (status["tail"]["events_applied"].as_u64() > applied).then_some(())
    })
    .await;
    let again = stage.wait_for("ready").await.unwrap();
    assert_eq!(again["run"], before["run"]);
    assert_eq!(
        destination
            .database("bulk")
            .collection::<Document>("small")
            .count_documents(doc! {})
            .await
            .unwrap(),
        2
    );
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_is_told_and_waited_for() {
    let mut stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    source.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    stage.apply(&stage.declaration()).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    stage.source.kill_member(0).await.unwrap();
    let away = poll("the error", async || {
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        (status["ready"]["value"] == false
            && status["error"].is_object()
            && status["phase"] == "catching_up")
            .then_some(status)
    })
    .await;
    let error = &away["error"];
    assert_eq!(
        (error["code"].as_str(), error["retryable"].as_bool()),
        (Some("CUT0012"), Some(true)),
        "{away:#}"
    );
    assert!(error["message"].as_str().unwrap().contains(&stage.source.host(0)), "{away:#}");
    assert!(
        away["acknowledge_token"].is_null() && !error["remedy"].as_str().unwrap().is_empty(),
        "{away:#}"
    );
    let told = stage.cutover.succeed(["status", MIGRATION]).await.unwrap();
    assert!(told.stdout.contains("CUT0012"), "{told}");
    stage.source.restart_member(0).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    poll("the error to go", async || {
        let status = stage.cutover.status(MIGRATION).await.unwrap();
        (status["ready"]["value"] == true && status["error"].is_null()).then_some(())
    })
    .await;
}
