//! One migration from its first line of HCL to the end, by the command line alone, while an
//! application keeps writing.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::collections::BTreeSet;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;
use rig::{FillOptions, Output, Stage, Writer, WriterOptions, fill};
use rustix::process::getuid;
use serde_json::Value;

/// What a server answers whose writes are blocked.
const USER_WRITES_BLOCKED: i32 = 371;

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
        .keys()
        .map(String::as_str)
        .collect()
}

#[track_caller]
fn assert_keys(value: &Value, expected: &[&str]) {
    assert_eq!(keys(value), expected.iter().copied().collect::<BTreeSet<_>>(), "{value:#}");
}

/// The members of the status that the design names, all of them and no other.
fn assert_status_keys(status: &Value) {
    const COPY: [&str; 7] = [
        "bytes_total",
        "bytes_copied",
        "documents_total",
        "documents_copied",
        "collections_total",
        "collections_copied",
        "eta_seconds",
    ];
    const TAIL: [&str; 3] = ["events_applied", "events_per_second", "catch_up_eta_seconds"];
    assert_keys(
        status,
        &[
            "name",
            "workspace",
            "generation",
            "run",
            "serial",
            "phase",
            "paused",
            "destination_writable",
            "lag_seconds",
            "copy",
            "tail",
            "indexes",
            "verification",
            "shards",
            "window",
            "ready",
            "acknowledge_token",
            "cutover",
            "error",
        ],
    );
    assert_keys(&status["copy"], &COPY);
    assert_keys(&status["tail"], &TAIL);
    assert_keys(&status["indexes"], &["total", "built"]);
    assert_keys(
        &status["verification"],
        &[
            "mode",
            "phase",
            "documents_total",
            "documents_verified",
            "mismatches",
            "pending_rechecks",
        ],
    );
    assert_keys(&status["window"], &["opened_at", "expires_at", "extensions", "remaining_seconds"]);
    assert_keys(&status["ready"], &["value", "reasons"]);
    assert_keys(&status["cutover"], &["started_at", "downtime_seconds", "acknowledged_by"]);
    for shard in status["shards"].as_array().unwrap() {
        assert_keys(
            shard,
            &[
                "name",
                "phase",
                "copy",
                "tail",
                "lag_seconds",
                "optime_gap",
                "oplog_window_seconds",
                "error",
            ],
        );
        assert_keys(&shard["copy"], &COPY);
        assert_keys(&shard["tail"], &TAIL);
        assert_keys(&shard["optime_gap"], &["source", "applied"]);
        for time in ["source", "applied"]
            .map(|side| &shard["optime_gap"][side])
            .into_iter()
            .filter(|time| !time.is_null())
        {
            assert_keys(time, &["t", "i"]);
        }
    }
    for error in [&status["error"]]
        .into_iter()
        .chain(status["shards"].as_array().unwrap().iter().map(|shard| &shard["error"]))
    {
        if !error.is_null() {
            assert_keys(error, &["code", "message", "remedy", "retryable"]);
        }
    }
}

fn assert_plan_keys(plan: &Value) {
    assert_keys(
        plan,
        &["format_version", "workspace", "fingerprint", "changes", "drift", "diagnostics"],
    );
    for change in plan["changes"].as_array().unwrap() {
        assert_keys(
            change,
            &["migration", "action", "serial", "attributes", "effects", "forecast"],
        );
        for attribute in change["attributes"].as_array().unwrap() {
            assert_keys(attribute, &["path", "before", "after", "sensitive"]);
        }
    }
    for drift in plan["drift"].as_array().unwrap() {
        assert_keys(drift, &["migration", "kind", "path", "declared", "actual", "message"]);
    }
}

/// `plan --detailed-exitcode`, by its exit code and its document.
async fn plan(stage: &Stage) -> (i32, Value) {
    let output = stage.cutover.run(["plan", "--detailed-exitcode", "--json"]).await.unwrap();
    let plan = output.json().unwrap();
    assert_plan_keys(&plan);
    (output.code, plan)
}

async fn plan_text(stage: &Stage) -> Output {
    stage.cutover.run(["plan", "--detailed-exitcode"]).await.unwrap()
}

fn action(plan: &Value) -> &str {
    assert_eq!(plan["changes"].as_array().unwrap().len(), 1, "{plan:#}");
    plan["changes"][0]["action"].as_str().unwrap()
}

async fn write_error(client: &mongodb::Client) -> Option<i32> {
    let written =
        client.database("app").collection("after").insert_one(doc! { "late": true }).await;
    match *written.err()?.kind {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteError(error)) => Some(error.code),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn from_the_first_line_to_the_end() {
    let mut stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let filled =
        fill(&source, &FillOptions { documents: 4_000, ..FillOptions::default() }).await.unwrap();
    let declaration = stage.declaration();

    // Before any run: valid, and what is to come.
    declaration.write(stage.folder()).unwrap();
    stage.cutover.succeed(["validate"]).await.unwrap();
    let nothing = stage.cutover.succeed(["status", "--json"]).await.unwrap().json().unwrap();
    assert_eq!(nothing, serde_json::json!({ "migrations": [] }));
    let (code, create) = plan(&stage).await;
    assert_eq!((code, action(&create)), (2, "create"), "{create:#}");
    let change = &create["changes"][0];
    assert_eq!(
        (change["migration"].as_str(), change["serial"].as_u64()),
        (Some(MIGRATION), Some(0))
    );
    assert!(
        !change["effects"].as_array().unwrap().is_empty()
            && !change["attributes"].as_array().unwrap().is_empty()
    );
    let forecast = &change["forecast"];
    assert_eq!(forecast["documents"].as_u64(), Some(filled.documents), "{forecast:#}");
    assert!(
        forecast["bytes"].as_u64() > Some(0) && forecast["copy_seconds"].as_f64() >= Some(0.0),
        "{forecast:#}"
    );
    assert_eq!(forecast["shards"][0]["name"], stage.source.name());
    assert!(
        forecast["shards"][0]["oplog_window_seconds"].is_u64()
            && forecast["shards"][0]["fits"].is_boolean()
    );
    let text = plan_text(&stage).await;
    assert_eq!(text.code, 2, "{text}");
    assert!(text.stdout.contains("create"), "{text}");
    assert_eq!(stage.cutover.succeed(["plan"]).await.unwrap().code, 0);
    assert_eq!(
        compare(&destination, &destination, &Scope::default()).await.unwrap().collections,
        0,
        "a plan writes nothing"
    );

    // Applied: at once there is no difference.
    let writer = Writer::start(&source, WriterOptions { rate: 150, ..WriterOptions::default() })
        .await
        .unwrap();
    let applied =
        stage.cutover.clone().env("CUTOVER_ACTOR", "ada").env("CUTOVER_REVISION", "4f2c1e0");
    applied.succeed(["apply", "--auto-approve"]).await.unwrap();
    let (code, same) = plan(&stage).await;
    assert_eq!((code, action(&same)), (0, "no_op"), "{same:#}");
    assert_eq!(same["drift"].as_array().map(Vec::len), Some(0));
    assert_status_keys(&stage.cutover.status(MIGRATION).await.unwrap());

    // An edit is shown, applied, and then no difference any more.
    let declaration = declaration.text("cutover.max_lag", "7s");
    declaration.write(stage.folder()).unwrap();
    let (code, edit) = plan(&stage).await;
    assert_eq!((code, action(&edit)), (2, "update"), "{edit:#}");
    let attributes = &edit["changes"][0]["attributes"];
    assert_eq!(
        attributes,
        &serde_json::json!(
            [{ "path": "cutover.max_lag", "before": "10s", "after": "7s", "sensitive": false }]
        )
    );
    let text = plan_text(&stage).await;
    assert!(
        text.code == 2
            && ["cutover.max_lag", "10s", "7s"].iter().all(|part| text.stdout.contains(part)),
        "{text}"
    );
    stage.apply(&declaration).await.unwrap();
    assert_eq!(plan(&stage).await.0, 0);

    // Ready: a window, a token, nothing wrong.
    let ready = stage.wait_for("ready").await.unwrap();
    assert_status_keys(&ready);
    assert_eq!(
        (&ready["ready"]["value"], &ready["error"]),
        (&Value::Bool(true), &Value::Null),
        "{ready:#}"
    );
    assert_eq!(
        (&ready["paused"], &ready["destination_writable"]),
        (&Value::Bool(false), &Value::Bool(false)),
        "{ready:#}"
    );
    assert!(
        ready["lag_seconds"].as_f64().unwrap() < 7.0
            && ready["shards"].as_array().unwrap().len() == 1,
        "{ready:#}"
    );
    assert!(ready["copy"]["documents_copied"].as_u64() >= Some(filled.documents), "{ready:#}");
    assert_eq!(ready["copy"]["collections_copied"], ready["copy"]["collections_total"]);
    assert_eq!(ready["indexes"]["built"], ready["indexes"]["total"]);
    assert!(ready["indexes"]["total"].as_u64() >= Some(filled.indexes), "{ready:#}");
    let remaining = ready["window"]["remaining_seconds"].as_f64().unwrap();
    assert!((119.0 * 3600.0..=120.0 * 3600.0).contains(&remaining), "{ready:#}");
    assert!(
        ready["window"]["opened_at"].is_string() && ready["window"]["expires_at"].is_string(),
        "{ready:#}"
    );
    let token = ready["acknowledge_token"].as_str().unwrap().to_owned();

    // A token that is not this run's changes nothing.
    declaration
        .clone()
        .text("cutover.acknowledge", &format!("{token}x"))
        .write(stage.folder())
        .unwrap();
    for arguments in [&["plan", "--detailed-exitcode"][..], &["apply", "--auto-approve"]] {
        let refused = stage.cutover.run(arguments).await.unwrap();
        assert_eq!(refused.code, 1, "{refused}");
        assert!(
            refused.stderr.contains("error[CUT0022]") && refused.stderr.contains("remedy: "),
            "{refused}"
        );
    }
    let (code, refused) = plan(&stage).await;
    assert_eq!(
        (code, &refused["diagnostics"][0]["code"]),
        (1, &Value::from("CUT0022")),
        "{refused:#}"
    );
    let still = stage.cutover.status(MIGRATION).await.unwrap();
    for member in ["phase", "serial", "run", "acknowledge_token", "cutover"] {
        assert_eq!(still[member], ready[member], "{member}");
    }
    assert_eq!(write_error(&source).await, None, "the source takes writes");

    // The acknowledgement: its plan says what will happen.
    let acknowledged = declaration.clone().text("cutover.acknowledge", &token);
    acknowledged.write(stage.folder()).unwrap();
    let (code, cut_over) = plan(&stage).await;
    assert_eq!((code, action(&cut_over)), (2, "cut_over"), "{cut_over:#}");
    let effects = cut_over["changes"][0]["effects"].to_string();
    for part in [
        "blocks all writes on",
        "expected downtime",
        "leaves the source blocked",
        "cannot be undone",
    ] {
        assert!(effects.contains(part), "{part}: {effects}");
    }
    assert_eq!(still["phase"], "ready", "a plan changes nothing");
    let reviewed =
        stage.cutover.clone().env("CUTOVER_ACTOR", "grace").env("CUTOVER_REVISION", "b7d9aa2");
    reviewed.succeed(["apply", "--auto-approve"]).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();
    let stats = writer.stop().await.unwrap();
    assert_status_keys(&completed);
    assert_eq!(
        (&completed["destination_writable"], &completed["error"]),
        (&Value::Bool(true), &Value::Null),
        "{completed:#}"
    );
    assert_eq!(completed["lag_seconds"], completed["shards"][0]["lag_seconds"], "{completed:#}");
    assert!(
        completed["acknowledge_token"].is_null() && completed["cutover"]["started_at"].is_string(),
        "{completed:#}"
    );
    let downtime = completed["cutover"]["downtime_seconds"].as_f64().unwrap();
    assert!(downtime > 0.0 && downtime < 60.0, "{downtime}");
    let by = completed["cutover"]["acknowledged_by"].as_str().unwrap();
    assert!(by.contains("grace") && by.contains("b7d9aa2"), "{by}");
    assert_eq!(plan(&stage).await.0, 0);
    println!("downtime {downtime} s while {} operations were done", stats.operations);

    // The source is still blocked; both sides are equal, and nothing acknowledged is missing.
    assert_eq!(write_error(&source).await, Some(USER_WRITES_BLOCKED));
    assert!(stats.blocked_at.is_some(), "the application was locked out");
    let report = compare(&source, &destination, &Scope::default()).await.unwrap();
    assert!(report.is_equal() && report.equal_documents >= filled.documents / 2, "{report}");
    assert_eq!(stats.missing_from(&destination).await.unwrap(), []);
    assert!(!stats.ledger.is_empty());

    assert_history(&stage).await;

    // What was proved stands, whichever daemon reports it.
    stage.daemon.terminate().await.unwrap();
    stage.daemon.restart().await.unwrap();
    let still = stage.cutover.status(MIGRATION).await.unwrap();
    for (told, verification) in
        [("at once", &completed["verification"]), ("by another daemon", &still["verification"])]
    {
        assert_eq!(
            (&verification["phase"], &verification["mismatches"]),
            (&"clean".into(), &0.into()),
            "{told}: {verification:#}"
        );
    }

    // The block goes: the run is forgotten, and the source opens.
    std::fs::write(stage.folder().join(format!("{MIGRATION}.hcl")), "# moved\n").unwrap();
    let (code, forget) = plan(&stage).await;
    assert_eq!((code, action(&forget)), (2, "forget"), "{forget:#}");
    stage.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    let start = std::time::Instant::now();
    while stage.cutover.run(["status", MIGRATION]).await.unwrap().code == 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "the run is not forgotten");
    }
    assert_eq!(write_error(&source).await, None);
}

/// The journal: every transition joins the one before, and who asked for what is there.
async fn assert_history(stage: &Stage) {
    let document =
        stage.cutover.succeed(["events", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    let events = document["events"].as_array().unwrap();
    let sequence: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(sequence.is_sorted_by(|a, b| a < b), "{sequence:?}");
    for event in events {
        assert_keys(
            event,
            &[
                "seq",
                "at",
                "workspace",
                "migration",
                "run",
                "kind",
                "from",
                "to",
                "actor",
                "message",
            ],
        );
    }
    let transitions: Vec<(Option<&str>, &str)> = events
        .iter()
        .filter(|event| event["kind"] == "transition")
        .map(|event| (event["from"].as_str(), event["to"].as_str().unwrap()))
        .collect();
    for pair in transitions.windows(2) {
        assert_eq!(pair[1].0, Some(pair[0].1), "{transitions:?}");
    }
    let reached: Vec<&str> = transitions.iter().map(|(_, to)| *to).collect();
    for phase in ["copying", "catching_up", "ready", "draining", "finalizing", "completed"] {
        assert!(reached.contains(&phase), "{reached:?}");
    }
    assert_eq!(transitions[0].0.unwrap_or(transitions[0].1), "validating", "{transitions:?}");
    assert_eq!(reached.last(), Some(&"completed"));
    let uid = u64::from(getuid().as_raw());
    for (actor, revision, kind) in
        [("ada", "4f2c1e0", "applied"), ("grace", "b7d9aa2", "transition")]
    {
        let found =
            events.iter().find(|event| event["actor"]["name"] == actor && event["kind"] == kind);
        let by = &found.unwrap_or_else(|| panic!("nothing of {actor}: {document:#}"))["actor"];
        assert_keys(by, &["uid", "certificate", "name", "revision"]);
        assert_eq!(
            (by["uid"].as_u64(), by["revision"].as_str()),
            (Some(uid), Some(revision)),
            "{by}"
        );
    }
    let lines = stage.cutover.succeed(["events", MIGRATION]).await.unwrap();
    assert!(
        lines.stdout.contains("grace") && lines.stdout.contains("ready -> draining"),
        "{lines}"
    );
    assert_eq!(lines.stdout.lines().count(), events.len());
}

#[tokio::test]
async fn an_open_source_takes_writes_after_the_cutover_and_a_saved_plan_fits_its_inputs_alone() {
    let stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    source
        .database("shop")
        .collection::<Document>("few")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    let declaration = stage.declaration().text("cutover.source_after", "open");

    // Saved, then edited: not what was reviewed.
    declaration.write(stage.folder()).unwrap();
    stage.cutover.succeed(["plan", "--out", "reviewed.plan"]).await.unwrap();
    let shown =
        stage.cutover.succeed(["show", "reviewed.plan", "--json"]).await.unwrap().json().unwrap();
    assert_plan_keys(&shown);
    assert_eq!(action(&shown), "create");
    declaration.clone().text("cutover.window", "48h").write(stage.folder()).unwrap();
    let refused = stage.cutover.run(["apply", "reviewed.plan"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("error[CUT0009]"), "{refused}");
    assert!(stage.cutover.run(["status", MIGRATION]).await.unwrap().stderr.contains("CUT0008"));
    declaration.write(stage.folder()).unwrap();
    stage.cutover.succeed(["apply", "reviewed.plan"]).await.unwrap();
    assert_eq!(plan(&stage).await.0, 0);

    // Not confirmed: nothing is done.
    let status = stage.wait_for("ready").await.unwrap();
    let acknowledged =
        declaration.text("cutover.acknowledge", status["acknowledge_token"].as_str().unwrap());
    acknowledged.write(stage.folder()).unwrap();
    let refused = stage.cutover.run(["apply"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("error[CUT0036]"), "{refused}");
    assert_eq!(stage.cutover.status(MIGRATION).await.unwrap()["phase"], "ready");

    let applied = stage
        .cutover
        .succeed(["apply", "--auto-approve", "--wait", "completed", "--timeout", "60s", "--json"])
        .await;
    let applied = applied.unwrap().json().unwrap();
    assert_eq!(applied["statuses"][0]["phase"], "completed", "{applied:#}");
    assert_eq!(write_error(&source).await, None);
    assert_eq!(plan(&stage).await.0, 0);
}
