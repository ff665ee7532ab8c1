//! Two daemons on one migration: on one state directory the second does not start; on two, it keeps
//! off what the first is at work on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use rig::scenario::MIGRATION;
use rig::{Cutover, Cutoverd, Stage, cutoverd};
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_does_not_start_on_the_first_ones_state() {
    let daemon = Cutoverd::start(cutoverd::Config::default()).await.unwrap();
    let config = cutoverd::Config::default().state_folder(daemon.state_folder());
    let refused = format!("{:#}", Cutoverd::start(config).await.unwrap_err());
    assert!(
        refused.contains("CUT0006") && refused.contains(&format!("pid {}", daemon.pid())),
        "{refused}"
    );
    assert!(daemon.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_keeps_off_the_migration_of_the_first() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let documents: Vec<Document> = (0..100).map(|n| doc! { "_id": n }).collect();
    source.database("shop").collection("orders").insert_many(documents).await.unwrap();
    let there = async || {
        destination
            .database("shop")
            .collection::<Document>("orders")
            .count_documents(doc! {})
            .await
            .unwrap()
    };
    let declared = stage.declaration();
    stage.apply(&declared).await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();
    let run = ready["run"].as_str().unwrap();

    let daemon = Cutoverd::start(cutoverd::Config::default()).await.unwrap();
    let folder = daemon.folder().join("hcl");
    fs::create_dir(&folder).unwrap();
    let other = Cutover::new(&folder).daemon(&daemon);
    // The same declaration, one that would drop what is there, and one that names it otherwise.
    for declared in [
        declared.clone(),
        declared.clone().text("destination.existing_data", "drop"),
        stage.declaration_of("copy", "s*").text("destination.existing_data", "drop"),
    ] {
        declared.write(&folder).unwrap();
        for command in
            [&["preflight"][..], &["plan"], &["plan", "--json"], &["apply", "--auto-approve"]]
        {
            let refused = other.run(command).await.unwrap();
            assert_eq!(refused.code, 1, "{command:?}: {refused}");
            assert!(
                format!("{}{}", refused.stdout, refused.stderr).contains("CUT0035"),
                "{command:?}: {refused}"
            );
            assert!(
                format!("{}{}", refused.stdout, refused.stderr).contains(run),
                "{command:?}: {refused}"
            );
        }
        assert_eq!(other.run(["status"]).await.unwrap().stdout, "No migrations.\n");
        fs::remove_file(folder.join(format!("{}.hcl", declared.name()))).unwrap();
    }
    assert_eq!(there().await, 100);
    // What the first does not carry is nobody's.
    stage.declaration_of("elsewhere", "stock").write(&folder).unwrap();
    let refused = other.run(["plan"]).await.unwrap();
    assert_eq!(refused.code, 1, "the first carries everything: {refused}");
    fs::remove_file(folder.join("elsewhere.hcl")).unwrap();

    // Its own run is in nobody's way: not in that of a next generation, and not when it is over.
    let again = declared.clone().set("generation", 2);
    again.write(stage.folder()).unwrap();
    let plan = stage.cutover.succeed(["plan"]).await.unwrap();
    assert!(plan.stdout.contains("will run again from scratch"), "{plan}");
    stage.cutover.succeed(["cancel", MIGRATION]).await.unwrap();
    stage.wait_for("cancelled").await.unwrap();
    declared.text("destination.existing_data", "drop").write(&folder).unwrap();
    let plan = other.succeed(["plan"]).await.unwrap();
    assert!(plan.stdout.contains("drops"), "{plan}");
    assert_eq!(there().await, 100);
}

/// Copies a state directory while its daemon stands still, as a snapshot of its disk would.
fn snapshot(daemon: &Cutoverd, to: &Path) {
    let pid = Pid::from_raw(daemon.pid()).expect("it runs");
    kill_process(pid, Signal::STOP).expect("it stands still");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(daemon.state_folder()).arg(to).status();
    kill_process(pid, Signal::CONT).expect("it goes on");
    assert!(copied.is_ok_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_on_copies_of_one_state_the_older_stops_before_it_writes() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let orders =
        |client: &mongodb::Client| client.database("shop").collection::<Document>("orders");
    orders(&source).insert_many((0..100).map(|n| doc! { "_id": n, "v": "old" })).await.unwrap();
    let declared = stage.declaration();
    stage.apply(&declared).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let (newest, stale) = (folder.path().join("newest"), folder.path().join("stale"));
    snapshot(&stage.daemon, &newest);
    snapshot(&stage.daemon, &stale);

    // A second one takes the run, and the first notices.
    let second = Cutoverd::start(cutoverd::Config::default().state_folder(&newest)).await.unwrap();
    let failed = stage.wait_for("failed").await.unwrap();
    assert_eq!(failed["error"]["code"], "CUT0090", "{failed}");
    assert_eq!(failed["error"]["retryable"], false, "{failed}");
    let cutover = Cutover::new(stage.folder()).daemon(&second);
    let ready = cutover.wait_for_phase(MIGRATION, "ready", Duration::from_secs(120)).await.unwrap();
    orders(&source).insert_one(doc! { "_id": 100, "v": "old" }).await.unwrap();
    let token = ready["acknowledge_token"].as_str().unwrap();
    declared.clone().text("cutover.acknowledge", token).write(stage.folder()).unwrap();
    cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    cutover.wait_for_phase(MIGRATION, "completed", Duration::from_secs(120)).await.unwrap();
    assert_eq!(orders(&destination).count_documents(doc! {}).await.unwrap(), 101);

    // The destination is in use; one that is started on the older copy writes nothing there,
    // whatever the source says.
    let admin = source.database("admin");
    admin.run_command(doc! { "setUserWriteBlockMode": 1, "global": false }).await.unwrap();
    orders(&destination).update_many(doc! {}, doc! { "$set": { "v": "new" } }).await.unwrap();
    orders(&source).update_many(doc! {}, doc! { "$set": { "v": "stale" } }).await.unwrap();
    orders(&source).insert_one(doc! { "_id": 101, "v": "stale" }).await.unwrap();
    let third = Cutoverd::start(cutoverd::Config::default().state_folder(&stale)).await.unwrap();
    let cutover = Cutover::new(stage.folder()).daemon(&third);
    let failed =
        cutover.wait_for_phase(MIGRATION, "failed", Duration::from_secs(120)).await.unwrap();
    // From there it looks like a destination that was restored, too: whichever is seen first stops
    // it.
    assert!(
        ["CUT0056", "CUT0090"].contains(&failed["error"]["code"].as_str().unwrap()),
        "{failed}"
    );
    assert!(failed["error"]["message"].as_str().unwrap().contains("marker"), "{failed}");
    assert_eq!(orders(&destination).count_documents(doc! { "v": "new" }).await.unwrap(), 101);
    assert_eq!(orders(&destination).count_documents(doc! {}).await.unwrap(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_checkpoints_are_named_and_nothing_begins_from_scratch() {
    let mut stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    source
        .database("shop")
        .collection("orders")
        .insert_many((0..100).map(|n| doc! { "_id": n }))
        .await
        .unwrap();
    let declared = stage.declaration();
    stage.apply(&declared).await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();
    let run = ready["run"].as_str().unwrap().to_owned();
    stage.daemon.kill9().await.unwrap();
    fs::remove_dir_all(stage.daemon.state_folder().join("runs").join(&run)).unwrap();
    stage.daemon.restart().await.unwrap();
    let failed = stage.wait_for("failed").await.unwrap();
    assert_eq!(failed["error"]["code"], "CUT0007", "{failed}");
    let told = failed["error"].to_string();
    assert!(
        told.contains("are gone") && told.contains("raise `generation`") && told.contains(&run),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_knows_nothing_of_a_run_beside_it_is_refused() {
    let mut stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    source
        .database("shop")
        .collection("orders")
        .insert_many((0..100).map(|n| doc! { "_id": n }))
        .await
        .unwrap();
    stage.apply(&stage.declaration()).await.unwrap();
    let run = stage.wait_for("ready").await.unwrap()["run"].as_str().unwrap().to_owned();
    stage.daemon.kill9().await.unwrap();
    let state = stage.daemon.state_folder();
    let kept = state.with_extension("kept");
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(&state)
            .arg(&kept)
            .status()
            .unwrap()
            .success()
    );
    let put_back = |name: &str| {
        let from = kept.join(name);
        if from.exists() {
            fs::copy(from, state.join(name)).map(drop).unwrap()
        } else {
            drop(fs::remove_file(state.join(name)))
        }
    };
    let journal = state.join("journal.db");
    let refusals: [(&str, &dyn Fn()); 4] = [
        (run.as_str(), &|| fs::remove_file(&journal).unwrap()),
        (run.as_str(), &|| fs::write(&journal, "").unwrap()),
        // What had been written since the start is in the log only.
        (run.as_str(), &|| fs::remove_file(state.join("journal.db-wal")).unwrap()),
        // What is in the log alone is whole as long as that is there.
        ("not a database", &|| {
            fs::remove_file(state.join("journal.db-wal")).unwrap();
            fs::write(&journal, "flipped".repeat(4_096)).unwrap();
        }),
    ];
    for (told, harm) in refusals {
        for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            put_back(name);
        }
        harm();
        for _ in 0..2 {
            let refused = format!("{:#}", stage.daemon.restart().await.unwrap_err());
            assert!(refused.contains("CUT0007") && refused.contains(told), "{refused}");
        }
    }
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        put_back(name);
    }
    stage.daemon.restart().await.unwrap();
    stage.wait_for("ready").await.unwrap();
}
