//! What people do by hand holds at once, is in the journal, and shows as drift until it is declared
//! or undone.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::scenario::MIGRATION;
use rig::{Declaration, FillOptions, Output, Stage, fill};
use rustix::process::getuid;
use serde_json::Value;

const HOUR: f64 = 3600.0;

/// Runs a command as a person who says who they are.
async fn by_hand(stage: &Stage, arguments: &[&str]) -> Output {
    stage
        .cutover
        .clone()
        .env("CUTOVER_ACTOR", "linus")
        .env("CUTOVER_REVISION", "")
        .run(arguments)
        .await
        .unwrap()
}

async fn done_by_hand(stage: &Stage, arguments: &[&str]) {
    let output = by_hand(stage, arguments).await;
    assert_eq!(output.code, 0, "{output}");
    assert!(output.stdout.contains(MIGRATION), "it says what it did: {output}");
}

/// `plan --detailed-exitcode` and `drift`, which agree: the exit code and the kinds of drift.
async fn drift(stage: &Stage) -> (i32, Vec<String>, Value) {
    let plan = stage.cutover.run(["plan", "--detailed-exitcode", "--json"]).await.unwrap();
    let document = plan.json().unwrap();
    let kinds = |document: &Value| -> Vec<String> {
        document["drift"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let alone = stage.cutover.run(["drift", "--json"]).await.unwrap();
    assert_eq!(kinds(&alone.json().unwrap()), kinds(&document), "{alone}");
    assert_eq!(alone.code, if kinds(&document).is_empty() { 0 } else { 2 }, "{alone}");
    let undetailed = stage.cutover.run(["plan"]).await.unwrap();
    assert_eq!(undetailed.code, if plan.code == 2 { 0 } else { plan.code }, "{undetailed}");
    for one in document["drift"].as_array().unwrap() {
        assert_eq!(one["migration"], MIGRATION);
        assert!(
            !one["message"].as_str().unwrap().is_empty() && one["declared"] != one["actual"],
            "{one:#}"
        );
        // A person sees it too, with the edit that would be applied or without one.
        assert!(undetailed.stdout.contains("by hand"), "{undetailed}");
    }
    (plan.code, kinds(&document), document)
}

async fn none_left(stage: &Stage) {
    let (code, kinds, document) = drift(stage).await;
    assert_eq!((code, kinds), (0, Vec::new()), "{document:#}");
}

async fn status(stage: &Stage) -> Value {
    stage.cutover.status(MIGRATION).await.unwrap()
}

async fn insert(client: &Client, name: &str, id: i32) {
    client.database("shop").collection(name).insert_one(doc! { "_id": id }).await.unwrap();
}

async fn count(client: &Client, name: &str) -> u64 {
    client.database("shop").collection::<Document>(name).count_documents(doc! {}).await.unwrap()
}

/// The records of what was done by hand, each with its actor.
async fn acts(stage: &Stage) -> Vec<String> {
    let document =
        stage.cutover.succeed(["events", MIGRATION, "--json"]).await.unwrap().json().unwrap();
    let events =
        document["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "by_hand");
    events
        .map(|event| {
            let actor = &event["actor"];
            assert_eq!(
                (&actor["name"], actor["uid"].as_u64()),
                (&"linus".into(), Some(getuid().as_raw().into())),
                "{event:#}"
            );
            event["message"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn pause_resume_extend_and_cancel() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    insert(&source, "orders", 1).await;
    let unknown = by_hand(&stage, &["pause", MIGRATION]).await;
    assert!(unknown.code == 1 && unknown.stderr.contains("error[CUT0008]"), "{unknown}");
    let declaration = stage.declaration();
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    none_left(&stage).await;

    // Paused: it holds, and the plan says so. Resumed: nothing is left of it.
    done_by_hand(&stage, &["pause", MIGRATION]).await;
    let paused = status(&stage).await;
    assert_eq!(
        (&paused["phase"], &paused["paused"]),
        (&"paused".into(), &true.into()),
        "{paused:#}"
    );
    assert!(
        paused["acknowledge_token"].is_null() && paused["ready"]["value"] == false,
        "{paused:#}"
    );
    assert!(paused["window"]["remaining_seconds"].is_f64(), "the window goes on: {paused:#}");
    let (code, kinds, document) = drift(&stage).await;
    assert_eq!((code, kinds.as_slice()), (2, &["paused".to_owned()][..]), "{document:#}");
    assert_eq!(
        (&document["drift"][0]["declared"], &document["drift"][0]["actual"]),
        (&false.into(), &true.into())
    );
    insert(&source, "orders", 2).await;
    assert_eq!(count(&destination, "orders").await, 1);
    done_by_hand(&stage, &["resume", MIGRATION]).await;
    stage.wait_for("ready").await.unwrap();
    assert_eq!(count(&destination, "orders").await, 2);
    none_left(&stage).await;

    // An apply undoes it.
    done_by_hand(&stage, &["pause", MIGRATION]).await;
    stage.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    none_left(&stage).await;
    stage.wait_for("ready").await.unwrap();

    // The other way round: declared to be held, let go by hand.
    let held = declaration.clone().set("paused", true);
    stage.apply(&held).await.unwrap();
    assert_eq!(status(&stage).await["phase"], "paused");
    none_left(&stage).await;
    done_by_hand(&stage, &["resume", MIGRATION]).await;
    assert_eq!(drift(&stage).await.1, ["resumed"]);
    stage.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    assert_eq!(status(&stage).await["phase"], "paused");
    stage.apply(&declaration).await.unwrap();
    let before = stage.wait_for("ready").await.unwrap();

    // Extended: a day more, until it is declared, which moves nothing.
    for by in ["12h", "0h", "soon"] {
        assert_eq!(by_hand(&stage, &["extend", MIGRATION, "--by", by]).await.code, 1, "{by}");
    }
    done_by_hand(&stage, &["extend", MIGRATION, "--by", "24h"]).await;
    let extended = status(&stage).await;
    assert_eq!(
        (&extended["window"]["extensions"], &extended["phase"]),
        (&1.into(), &"ready".into()),
        "{extended:#}"
    );
    let gained = |now: &Value| {
        now["window"]["remaining_seconds"].as_f64().unwrap()
            - before["window"]["remaining_seconds"].as_f64().unwrap()
    };
    assert!((23.9 * HOUR..=24.0 * HOUR).contains(&gained(&extended)), "{extended:#}");
    let (code, kinds, document) = drift(&stage).await;
    assert_eq!((code, kinds.as_slice()), (2, &["extended".to_owned()][..]), "{document:#}");
    stage.apply(&declaration.clone().set("cutover.extensions", 1)).await.unwrap();
    none_left(&stage).await;
    let declared = status(&stage).await;
    assert_eq!(declared["window"]["expires_at"], extended["window"]["expires_at"], "{declared:#}");

    // Cancelled for good: the data stays, both sides take writes, and nothing starts it again.
    done_by_hand(&stage, &["cancel", MIGRATION]).await;
    stage.wait_for("cancelled").await.unwrap();
    let (code, kinds, document) = drift(&stage).await;
    assert_eq!((code, kinds.as_slice()), (2, &["cancelled".to_owned()][..]), "{document:#}");
    insert(&source, "orders", 3).await;
    insert(&destination, "orders", 4).await;
    assert_eq!((count(&source, "orders").await, count(&destination, "orders").await), (3, 3));
    for act in ["resume", "pause"] {
        let refused = by_hand(&stage, &[act, MIGRATION]).await;
        assert!(refused.code == 1 && refused.stderr.contains("error[CUT0010]"), "{refused}");
        assert!(refused.stderr.contains("remedy: "), "{refused}");
    }

    let acts = acts(&stage).await;
    let words: Vec<&str> = acts.iter().map(|act| act.split([' ', ',']).next().unwrap()).collect();
    assert_eq!(
        words,
        ["paused", "resumed", "paused", "resumed", "extended", "cancelled"],
        "{acts:?}"
    );
}

/// The namespaces that the plan of a new generation says it drops.
fn dropped(plan: &Value) -> BTreeSet<String> {
    let effects = plan["changes"][0]["effects"].as_array().unwrap();
    let drops =
        effects.iter().filter_map(Value::as_str).find(|effect| effect.contains("created by run"));
    let drops = drops.unwrap_or_else(|| panic!("nothing is dropped: {plan:#}"));
    drops.rsplit_once(": ").unwrap().1.split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn a_new_generation_drops_what_the_cancelled_one_made_and_nothing_else() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    fill(&source, &FillOptions { documents: 500, ..FillOptions::default() }).await.unwrap();
    destination.database("other").collection("kept").insert_one(doc! { "_id": 1 }).await.unwrap();
    let declaration = stage.declaration().set("namespaces.exclude", r#"["other.*"]"#);
    stage.apply(&declaration).await.unwrap();
    let first = stage.wait_for("ready").await.unwrap();
    insert(&source, "made_in_the_tail", 1).await;
    let start = Instant::now();
    while count(&destination, "made_in_the_tail").await == 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "the tail does not go on");
    }
    let mut made = BTreeSet::new();
    for db in ["blobs", "catalog", "crm", "mixed", "shop", "telemetry"] {
        let names = destination.database(db).list_collection_names().await.unwrap();
        made.extend(
            names
                .into_iter()
                .filter(|name| !name.starts_with("system."))
                .map(|name| format!("{db}.{name}")),
        );
    }
    done_by_hand(&stage, &["cancel", MIGRATION]).await;
    stage.wait_for("cancelled").await.unwrap();

    // Rehearsed on the destination meanwhile; and the source has gone on.
    destination
        .database("shop")
        .collection::<Document>("orders")
        .delete_many(doc! {})
        .await
        .unwrap();
    destination
        .database("shop")
        .collection("rehearsal")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    source.database("crm").collection::<Document>("notes").drop().await.unwrap();
    insert(&source, "after_the_cancel", 1).await;

    // What somebody else put there is in the way, and it alone.
    let next = declaration.set("generation", 2);
    next.write(stage.folder()).unwrap();
    let refused = stage.cutover.run(["plan"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("error[CUT0018]"), "{refused}");
    assert!(refused.stderr.contains("has shop.rehearsal already"), "{refused}");
    let kept_token =
        next.clone().text("cutover.acknowledge", first["acknowledge_token"].as_str().unwrap());
    kept_token.write(stage.folder()).unwrap();
    let refused = stage.cutover.run(["plan"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("error[CUT0022]"), "{refused}");
    destination.database("shop").collection::<Document>("rehearsal").drop().await.unwrap();

    next.write(stage.folder()).unwrap();
    let plan = stage.cutover.run(["plan", "--json", "--detailed-exitcode"]).await.unwrap();
    let document = plan.json().unwrap();
    assert_eq!(
        (plan.code, &document["changes"][0]["action"]),
        (2, &"rerun".into()),
        "{document:#}"
    );
    assert_eq!(dropped(&document), made);
    assert_eq!(document["drift"].as_array().map(Vec::len), Some(0), "{document:#}");
    assert!(document["changes"][0]["forecast"]["documents"].as_u64() > Some(0), "{document:#}");
    stage.apply(&next).await.unwrap();
    let second = stage.wait_for("ready").await.unwrap();
    assert_eq!(
        (&second["generation"], second["run"] != first["run"]),
        (&2.into(), true),
        "{second:#}"
    );
    assert_ne!(second["acknowledge_token"], first["acknowledge_token"]);
    assert_eq!(count(&destination, "after_the_cancel").await, 1);
    stage.acknowledge(&next).await.unwrap();
    stage.wait_for("completed").await.unwrap();
    let report = compare(&source, &destination, &Scope::without(&["other.*"])).await.unwrap();
    assert!(report.is_equal(), "{report}");
    let kept = destination.database("other").collection::<Document>("kept");
    assert_eq!(kept.count_documents(doc! {}).await.unwrap(), 1);
}

#[tokio::test]
async fn removing_the_block_cancels() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    insert(&source, "orders", 1).await;
    let other = Declaration::new("other", &stage.source.uri(), &stage.destination.uri())
        .set("namespaces.include", r#"["crm.*"]"#)
        .set("paused", true);
    other.write(stage.folder()).unwrap();
    stage.apply(&stage.declaration().set("namespaces.include", r#"["shop.*"]"#)).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    std::fs::remove_file(stage.folder().join(format!("{MIGRATION}.hcl"))).unwrap();
    let plan = stage.cutover.run(["plan", "--json", "--detailed-exitcode"]).await.unwrap();
    let document = plan.json().unwrap();
    let action = |name: &str| {
        let changes = document["changes"].as_array().unwrap();
        changes
            .iter()
            .find(|change| change["migration"] == name)
            .map(|change| change["action"].clone())
            .unwrap_or_default()
    };
    assert_eq!(
        (plan.code, action(MIGRATION), action("other")),
        (2, "cancel".into(), "no_op".into()),
        "{document:#}"
    );
    stage.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    stage.wait_for("cancelled").await.unwrap();
    assert_eq!(count(&destination, "orders").await, 1);
    insert(&source, "orders", 2).await;
    insert(&destination, "orders", 3).await;
    let plan = stage.cutover.run(["plan", "--detailed-exitcode"]).await.unwrap();
    assert_eq!(plan.code, 0, "{plan}");
    assert_eq!(stage.cutover.status("other").await.unwrap()["phase"], "paused");
}

/// A cutover that finalizing cannot end: one side is opened by a command, and never both.
#[tokio::test]
async fn a_cutover_that_stays_in_finalizing_is_ended_with_either_side() {
    let stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let expires = doc! { "key": { "t": 1 }, "name": "t_1", "expireAfterSeconds": 5_000 };
    source
        .database("shop")
        .run_command(doc! { "createIndexes": "orders", "indexes": [expires] })
        .await
        .unwrap();
    insert(&source, "orders", 1).await;
    // What is tried aside passes, and what is then done does not.
    let fail = |mode: &str| {
        let data = doc! {
            "failCommands": ["collMod"], "namespace": "shop.orders", "appName": "cutover",
            "errorCode": 72,
        };
        doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data }
    };
    destination.database("admin").run_command(fail("alwaysOn")).await.unwrap();
    let declaration = stage.declaration();
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    let early = by_hand(&stage, &["cancel", MIGRATION, "--open-source"]).await;
    assert!(early.code == 1 && early.stderr.contains("error[CUT0010]"), "{early}");
    stage.acknowledge(&declaration).await.unwrap();
    let is_stuck =
        |status: &Value| status["phase"] == "finalizing" && status["error"]["code"] == "CUT0030";
    stage.status_where(MIGRATION, "stuck in finalizing", is_stuck).await.unwrap();
    let refused = by_hand(&stage, &["cancel", MIGRATION]).await;
    assert!(refused.code == 1 && refused.stderr.contains("--open-source"), "{refused}");

    // The source goes on as if nothing had been.
    done_by_hand(&stage, &["cancel", MIGRATION, "--open-source"]).await;
    stage.wait_for("cancelled").await.unwrap();
    insert(&source, "orders", 2).await;
    let other = by_hand(&stage, &["cancel", MIGRATION, "--open-destination"]).await;
    assert!(other.code == 1 && other.stderr.contains("error[CUT0010]"), "{other}");

    // Once more, and the destination is opened as it is; what it lacks is in the journal.
    let again = stage.declaration().set("generation", 2);
    stage.apply(&again).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    stage.acknowledge(&again).await.unwrap();
    stage.status_where(MIGRATION, "stuck in finalizing", is_stuck).await.unwrap();
    done_by_hand(&stage, &["cancel", MIGRATION, "--open-destination"]).await;
    let completed = stage.wait_for("completed").await.unwrap();
    assert_eq!(completed["destination_writable"], true, "{completed:#}");
    insert(&destination, "orders", 3).await;
    let refused = source
        .database("shop")
        .collection::<Document>("orders")
        .insert_one(doc! { "_id": 3 })
        .await;
    assert!(refused.is_err(), "both sides take writes");
    let acts = acts(&stage).await;
    assert!(
        acts.iter().any(|act| act.contains("what it lacks") && act.contains("expireAfterSeconds")),
        "{acts:#?}"
    );
}
