//! Two daemons on one migration: on one state directory the second does not start; on two, it keeps off what the first is at work on.

use std::fs;

use mongodb::bson::{Document, doc};
use rig::stage::MIGRATION;
use rig::{Cutover, Cutoverd, Stage, cutoverd};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_does_not_start_on_the_first_ones_state() {
    let daemon = Cutoverd::start(cutoverd::Config::default()).await.unwrap();
    let config = cutoverd::Config::default().state_folder(daemon.state_folder());
    let refused = format!("{:#}", Cutoverd::start(config).await.unwrap_err());
    assert!(refused.contains("CUT0006") && refused.contains(&format!("pid {}", daemon.pid())), "{refused}");
    assert!(daemon.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_keeps_off_the_migration_of_the_first() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) = (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let documents: Vec<Document> = (0..100).map(|n| doc! { "_id": n }).collect();
    source.database("shop").collection("orders").insert_many(documents).await.unwrap();
    let there = async || destination.database("shop").collection::<Document>("orders").count_documents(doc! {}).await.unwrap();
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
        for command in [&["preflight"][..], &["plan"], &["plan", "--json"], &["apply", "--auto-approve"]] {
            let refused = other.run(command).await.unwrap();
            assert_eq!(refused.code, 1, "{command:?}: {refused}");
            assert!(format!("{}{}", refused.stdout, refused.stderr).contains("CUT0035"), "{command:?}: {refused}");
            assert!(format!("{}{}", refused.stdout, refused.stderr).contains(run), "{command:?}: {refused}");
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
