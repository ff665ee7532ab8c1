//! The verification of a real daemon: killed in the middle it goes on, and when all is done it is
//! reported.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use rig::Stage;
use rig::scenario::MIGRATION;
use rig::workload::fill_uniform;

/// Large documents, so that a comparison takes its time and documents stand for bytes.
const DOCUMENT_BYTES: usize = 16_000;
const DOCUMENTS: i64 = 12_000;
/// A part is of 32 MB in the mean; between sampled bounds hardly one is twice that. It is what a
/// killed daemon repeats at most.
const PART_DOCUMENTS: i64 = 2 * (32 << 20) / DOCUMENT_BYTES as i64;
/// What else a daemon reads of the source: events, catalogues.
const OTHERS: i64 = 200;

/// Documents that a server has returned since it started.
async fn returned(client: &Client) -> i64 {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
    let documents = status.get_document("metrics").unwrap().get_document("document").unwrap();
    match documents.get("returned") {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        other => panic!("returned is {other:?}"),
    }
}

/// Holds up each batch that the daemon reads.
async fn slow_reads(client: &Client, mode: &str) {
    let data = doc! {
        "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 100,
        "appName": "cutover",
    };
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    client.database("admin").run_command(command).await.unwrap();
}

#[tokio::test]
async fn a_killed_verification_goes_on_and_is_reported_in_the_end() {
    let mut stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    fill_uniform(&source, "rest", "data", DOCUMENTS.try_into().unwrap(), DOCUMENT_BYTES)
        .await
        .unwrap();
    slow_reads(&source, "alwaysOn").await;
    let declaration = stage.declaration();
    stage.apply(&declaration).await.unwrap();
    let early = stage.cutover.run(["report", MIGRATION]).await.unwrap();
    assert_eq!(early.code, 1);
    assert!(
        early.stderr.contains("CUT0010") && early.stderr.contains("there is no report"),
        "{}",
        early.stderr
    );

    let verified =
        |status: &serde_json::Value| status["verification"]["documents_verified"].as_i64().unwrap();
    let there = stage
        .status_where(MIGRATION, "compared by half", |status| verified(status) > DOCUMENTS * 6 / 10)
        .await
        .unwrap();
    assert_eq!(there["verification"]["phase"], "comparing");
    assert!(verified(&there) < DOCUMENTS, "it was over before it could be killed: {there:#}");
    assert!(
        there["ready"]["reasons"].to_string().contains("the copy is being compared: "),
        "{there:#}"
    );
    stage.daemon.kill9().await.unwrap();
    let before = returned(&source).await;
    stage.daemon.restart().await.unwrap();
    slow_reads(&source, "off").await;
    let ready = stage.wait_for("ready").await.unwrap();
    let again = returned(&source).await - before;
    println!(
        "{} of {DOCUMENTS} were compared when it was killed, {again} were read after that",
        verified(&there)
    );
    assert!(
        again <= DOCUMENTS - verified(&there) + PART_DOCUMENTS + OTHERS,
        "{again} were read again"
    );
    assert!(again >= DOCUMENTS - verified(&there), "{again} are too few");
    assert_eq!(
        (&ready["verification"]["phase"], verified(&ready)),
        (&"clean".into(), DOCUMENTS),
        "{ready:#}"
    );

    // A few changes, so that something is compared again.
    let data = source.database("rest").collection::<Document>("data");
    data.update_many(doc! { "_id": { "$lt": 25 } }, doc! { "$set": { "changed": true } })
        .await
        .unwrap();
    stage.acknowledge(&declaration).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();
    let report =
        stage.cutover.succeed(["report", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    println!("{report:#}");
    let proof = &report["verification"];
    assert_eq!(
        (proof["documents_compared"].as_i64(), proof["mismatches_found"].as_i64()),
        (Some(DOCUMENTS), Some(0))
    );
    assert!(
        proof["documents_compared_again"].as_i64() >= Some(25)
            && proof["generations"].as_i64() >= Some(2),
        "{proof}"
    );
    // The killed daemon's part of it counts: six batches in ten were held up.
    assert!(proof["duration_seconds"].as_f64() > Some(1.0), "{proof}");
    assert_eq!(proof["foreign_writes"], 0);
    assert_eq!(report["migrated"]["documents"].as_i64(), Some(DOCUMENTS));
    assert_eq!(report["downtime_seconds"], completed["cutover"]["downtime_seconds"]);
    assert_eq!(report["run"], completed["run"]);
    assert_eq!(
        report["acknowledged"]["by"]["uid"].as_u64(),
        Some(u64::from(rustix::process::getuid().as_raw()))
    );
    let phases: Vec<&str> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|spent| spent["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["validating", "copying", "catching_up", "ready", "draining", "finalizing"]);

    // It outlives the daemon, and the migration itself.
    stage.daemon.kill9().await.unwrap();
    stage.daemon.restart().await.unwrap();
    let again =
        stage.cutover.succeed(["report", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    assert_eq!(again, report);
    stage.remove(MIGRATION).await.unwrap();
    let forgotten =
        stage.cutover.succeed(["report", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    assert_eq!(forgotten, report);
}

#[tokio::test]
async fn what_others_write_is_drift_until_it_is_equal_again() {
    let stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    fill_uniform(&source, "rest", "data", 1_000, 200).await.unwrap();
    stage.apply(&stage.declaration()).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    assert_eq!(stage.plan().await.unwrap().0, 0);

    let theirs =
        stage.destination.client().await.unwrap().database("rest").collection::<Document>("data");
    theirs.update_one(doc! { "_id": 5_i64 }, doc! { "$set": { "stranger": 1 } }).await.unwrap();
    let held = stage
        .status_where(MIGRATION, "held", |status| status["ready"]["value"] == false)
        .await
        .unwrap();
    stage
        .status_where(MIGRATION, "a mismatch", |status| status["verification"]["mismatches"] == 1)
        .await
        .unwrap();
    println!("{}", held["ready"]["reasons"]);
    let drift = stage.cutover.run(["drift", "--json"]).await.unwrap();
    assert_eq!(drift.code, 2);
    let drift = drift.json().unwrap();
    assert_eq!(drift["drift"][0]["kind"], "foreign_writes", "{drift:#}");
    assert!(
        drift["drift"][0]["message"].as_str().unwrap().contains("update of rest.data _id 5"),
        "{drift:#}"
    );
    let (code, plan) = stage.plan().await.unwrap();
    assert_eq!((code, &plan["drift"][0]["kind"]), (2, &"foreign_writes".into()));
    let found =
        stage.cutover.succeed(["verify", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    assert_eq!(
        (&found["mismatches"][0]["_id"], &found["mismatches"][0]["paths"][0]),
        (&"5".into(), &"stranger".into())
    );
    assert_eq!(
        (&found["foreign_writes"][0]["_id"], &found["foreign_writes"][0]["operation"]),
        (&"5".into(), &"update".into())
    );

    theirs.update_one(doc! { "_id": 5_i64 }, doc! { "$unset": { "stranger": 1 } }).await.unwrap();
    stage
        .status_where(MIGRATION, "ready again", |status| status["ready"]["value"] == true)
        .await
        .unwrap();
    assert_eq!(stage.plan().await.unwrap().0, 0);
}
