//! The cutover window on real deployments: it closes on time, whatever is down and whatever the
//! clock says, and goes on only when somebody extends it and the source still has what was missed.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, Timestamp, doc};
use rig::compare::{Scope, compare};
use rig::replica_set::{ROOT_PASSWORD, ROOT_USER};
use rig::scenario::MIGRATION;
use rig::workload::{Notes, WhenRefused};
use rig::{Auth, Declaration, Options, Stage, User, cutoverd, write_block};
use serde_json::Value;
use tempfile::TempDir;

const OFFSET_FILE: &str = "CUTOVERD_TEST_CLOCK_OFFSET_FILE";
const CRASH_AT: &str = "CUTOVERD_TEST_CRASH_AT";
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const HOUR: i64 = 3_600;

/// A stage whose daemon reads an offset to its clock, and the file of that.
async fn clocked(source: Options, destination: Options) -> (Stage, Offset) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offset");
    fs::write(&file, "0").unwrap();
    let daemon =
        cutoverd::Config::default().env(OFFSET_FILE, &file).env("ROOT_PASSWORD", ROOT_PASSWORD);
    (Stage::set(source, destination, daemon).await.unwrap(), Offset { file, _folder: folder })
}

struct Offset {
    file: PathBuf,
    _folder: TempDir,
}

impl Offset {
    /// Sets the daemon's wall clock this many seconds off.
    fn set(&self, seconds: i64) {
        // The daemon reads it at any moment, and must never find it empty.
        let whole = self.file.with_extension("new");
        fs::write(&whole, seconds.to_string()).unwrap();
        fs::rename(whole, &self.file).unwrap();
    }
}

fn named(name: &str) -> Options {
    Options { name: name.to_owned(), ..Options::default() }
}

/// A destination with access control, where others can be kept from writing.
fn guarded(users: Vec<User>) -> Options {
    Options { auth: Some(Auth { users }), ..named("rs-destination") }
}

fn as_root(declaration: Declaration) -> Declaration {
    declaration.user("destination", ROOT_USER, "ROOT_PASSWORD")
}

async fn lay(client: &Client) {
    let orders: Vec<Document> = (0..500_i64).map(|n| doc! { "_id": n, "n": n }).collect();
    client.database("shop").collection("orders").insert_many(orders).await.unwrap();
}

async fn notes_on(client: &Client) -> u64 {
    client.database("shop").collection::<Document>("notes").count_documents(doc! {}).await.unwrap()
}

/// Documents that a server has inserted since it started.
async fn inserted(client: &Client) -> i64 {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
    status
        .get_document("metrics")
        .unwrap()
        .get_document("document")
        .unwrap()
        .get_i64("inserted")
        .unwrap()
}

async fn until(what: &str, stage: &Stage, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "not {what} in time; {}", stage.daemon.log_end());
        tokio::time::sleep(POLL).await;
    }
}

fn remaining(status: &Value) -> f64 {
    status["window"]["remaining_seconds"]
        .as_f64()
        .unwrap_or_else(|| panic!("no window: {status:#}"))
}

fn events_applied(status: &Value) -> u64 {
    status["tail"]["events_applied"].as_u64().unwrap()
}

fn code(error: &Value) -> &str {
    error["code"].as_str().unwrap_or_default()
}

/// The only change that a plan holds.
fn change(plan: &Value) -> &Value {
    assert_eq!(plan["changes"].as_array().unwrap().len(), 1, "{plan:#}");
    &plan["changes"][0]
}

fn drift_of<'a>(plan: &'a Value, kind: &str) -> &'a Value {
    let found = plan["drift"].as_array().unwrap().iter().find(|drift| drift["kind"] == kind);
    found.unwrap_or_else(|| panic!("no drift {kind}: {plan:#}"))
}

async fn complete(stage: &Stage, declaration: &Declaration) {
    stage.acknowledge(declaration).await.unwrap();
    let completed = stage.wait_for("completed").await.unwrap();
    assert_eq!(completed["error"], Value::Null, "{completed:#}");
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let report = compare(&source, &destination, &Scope::default()).await.unwrap();
    assert!(report.is_equal(), "{report}");
}

#[tokio::test]
async fn it_closes_while_the_daemon_is_up_and_an_extension_goes_on_from_the_checkpoint() {
    let application = User::new("shop", "application", &["readWriteAnyDatabase"]);
    let (stage, _offset) = clocked(named("rs-source"), guarded(vec![application.clone()])).await;
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    let other = stage.destination.client_as(&application).await.unwrap();
    lay(&source).await;
    let notes = Notes::start(&source, "shop", WhenRefused::Stop);
    let declaration = as_root(stage.declaration()).text("cutover.window", "10s");
    stage.apply(&declaration).await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();
    let token = ready["acknowledge_token"].as_str().unwrap().to_owned();
    let left = remaining(&ready);
    assert!(left > 0.0 && left <= 10.0, "{ready:#}");
    assert!(
        write_block::is_blocked(&destination).await.unwrap(),
        "others are kept from writing to the destination"
    );
    let mine = other.database("mine").collection("x");
    assert!(mine.insert_one(doc! { "_id": 0 }).await.is_err());

    // It closes by itself: nobody asks the daemon anything before the journal is read.
    let closes_in = Duration::from_secs_f64(left);
    let seen = Instant::now();
    until("freed", &stage, async || !write_block::is_blocked(&destination).await.unwrap()).await;
    assert!(
        seen.elapsed() + Duration::from_secs(1) > closes_in,
        "it closed early: {:?} of {closes_in:?}",
        seen.elapsed()
    );
    let expired = stage
        .status_where(MIGRATION, "expired", |status| status["phase"] == "expired")
        .await
        .unwrap();
    assert_eq!((remaining(&expired), code(&expired["error"])), (0.0, "CUT0025"), "{expired:#}");
    assert_eq!(
        (&expired["acknowledge_token"], &expired["ready"]["value"]),
        (&Value::Null, &Value::Bool(false))
    );
    assert_eq!(expired["window"]["expires_at"], ready["window"]["expires_at"]);
    let remedy = expired["error"]["remedy"].as_str().unwrap();
    assert!(
        ["extensions", "cutover extend", "generation"].iter().all(|way| remedy.contains(way)),
        "{remedy}"
    );
    let events = stage.events(MIGRATION).await.unwrap();
    let closed = events.iter().find(|event| event["to"] == "expired").unwrap();
    assert!(closed["from"] == "ready" || closed["from"] == "catching_up", "{closed}");
    assert!(closed["message"].as_str().unwrap().contains("an extension lets it go on"), "{closed}");

    // The sync has stopped, the data is kept, others may write, the source is as it was.
    let at_rest = notes_on(&destination).await;
    let written = notes.acknowledged();
    until("written on", &stage, async || notes.acknowledged() >= written + 100).await;
    assert_eq!(notes_on(&destination).await, at_rest, "it goes on applying");
    assert!(at_rest > 0 && !write_block::is_blocked(&source).await.unwrap());
    mine.insert_one(doc! { "_id": 0 }).await.unwrap();
    destination.database("mine").drop().await.unwrap();
    let marker = destination.database("cutover_internal").collection::<Document>("marker");
    let marker = marker.find_one(doc! {}).await.unwrap().unwrap();
    assert!(!marker.get_bool("blocks_writes").unwrap(), "{marker}");

    // What can be done is in the plan; the token is of no use any more.
    let (exit, plan) = stage.plan().await.unwrap();
    assert_eq!((exit, change(&plan)["action"].as_str()), (2, Some("no_op")), "{plan:#}");
    let words = drift_of(&plan, "expired")["message"].as_str().unwrap();
    assert!(words.contains("raise cutover.extensions"), "{words}");
    declaration.clone().text("cutover.acknowledge", &token).write(stage.folder()).unwrap();
    let (exit, plan) = stage.plan().await.unwrap();
    assert_eq!((exit, code(&plan["diagnostics"][0])), (1, "CUT0025"), "{plan:#}");
    let refused = stage.cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("error[CUT0025]"), "{refused}");

    // An extension goes on from the checkpoint: what was there is not copied and not applied again.
    let extended = declaration.set("cutover.extensions", 1);
    extended.write(stage.folder()).unwrap();
    let (exit, plan) = stage.plan().await.unwrap();
    assert_eq!((exit, change(&plan)["action"].as_str()), (2, Some("extend")), "{plan:#}");
    let effects = change(&plan)["effects"].to_string();
    assert!(
        effects.contains(
            "takes the run up again from where it stood: the source still holds that place"
        ),
        "{effects}"
    );
    let before = inserted(&destination).await;
    let missed = i64::try_from(notes.acknowledged() - at_rest).unwrap();
    stage.apply(&extended).await.unwrap();
    let again = stage.wait_for("ready").await.unwrap();
    assert!(write_block::is_blocked(&destination).await.unwrap(), "others are kept out again");
    assert_eq!(
        (&again["run"], &again["window"]["opened_at"]),
        (&ready["run"], &ready["window"]["opened_at"])
    );
    assert_eq!(again["copy"]["documents_copied"], ready["copy"]["documents_copied"]);
    assert!(events_applied(&again) >= events_applied(&expired), "{again:#}");
    let left = remaining(&again);
    assert!(left > 23.9 * 3_600.0 && left <= 24.0 * 3_600.0, "{again:#}");
    let arrived = inserted(&destination).await - before;
    let since = i64::try_from(notes.acknowledged()).unwrap() - i64::try_from(at_rest).unwrap();
    println!(
        "missed {missed} notes while it was closed; {arrived} documents inserted since, of \
         {since} written"
    );
    // The marker is one; a round at the checkpoint may come twice, and then finds its documents
    // there.
    assert!(arrived >= missed && arrived <= since + 1, "{arrived} inserted for {since} written");

    // By hand is drift, and declared it is none.
    let said = stage.cutover.succeed(["extend", MIGRATION, "--by", "24h"]).await.unwrap();
    assert!(said.stdout.contains("extended by 24 h"), "{said}");
    let longer = stage.cutover.status(MIGRATION).await.unwrap();
    assert_eq!(longer["window"]["extensions"], 2, "{longer:#}");
    assert!(remaining(&longer) > 47.9 * 3_600.0, "{longer:#}");
    let (exit, plan) = stage.plan().await.unwrap();
    let drift = drift_of(&plan, "extended");
    assert_eq!(
        (exit, &drift["declared"], &drift["actual"]),
        (2, &Value::from(1), &Value::from(2)),
        "{plan:#}"
    );
    let declared = extended.set("cutover.extensions", 2);
    stage.apply(&declared).await.unwrap();
    let (exit, plan) = stage.plan().await.unwrap();
    assert_eq!((exit, plan["drift"].as_array().map(Vec::len)), (0, Some(0)), "{plan:#}");
    let same = stage.cutover.status(MIGRATION).await.unwrap();
    assert_eq!(
        same["window"]["expires_at"], longer["window"]["expires_at"],
        "declared is not granted twice"
    );

    stage.wait_for("ready").await.unwrap();
    complete(&stage, &declared).await;
    let noted = notes.stop().await.unwrap();
    assert!(noted.refused > 0 && noted.missing_from(&destination).await.unwrap().is_empty());
    let users = destination.database("admin").run_command(doc! { "usersInfo": 1 }).await.unwrap();
    assert!(!users.to_string().contains("cutover_"), "{users}");
}

#[tokio::test]
async fn a_daemon_that_was_down_when_it_closed_applies_nothing_more() {
    let mut stage = Stage::plain().await.unwrap();
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    lay(&source).await;
    let notes = Notes::start(&source, "shop", WhenRefused::TryAgain);
    let declaration = stage.declaration().text("cutover.window", "5s");
    for (generation, kill) in [(1, true), (2, false)] {
        let declaration = declaration.clone().set("generation", generation);
        stage.apply(&declaration).await.unwrap();
        let ready = stage.wait_for("ready").await.unwrap();
        assert_eq!(ready["generation"], generation);
        let left = Duration::from_secs_f64(remaining(&ready));
        let seen = Instant::now();
        if kill {
            stage.daemon.kill9().await.unwrap();
        } else {
            stage.daemon.terminate().await.unwrap();
        }
        // What a killed daemon had sent may still arrive for a moment.
        let mut count = notes_on(&destination).await;
        until("past the deadline", &stage, async || {
            seen.elapsed() > left + Duration::from_millis(100)
        })
        .await;
        count = count.max(notes_on(&destination).await);
        let log_before = stage.daemon.log().len();
        stage.daemon.restart().await.unwrap();
        // The first thing that it says of itself.
        let expired = stage.cutover.status(MIGRATION).await.unwrap();
        assert_eq!(
            (&expired["phase"], code(&expired["error"])),
            (&Value::from("expired"), "CUT0025"),
            "{expired:#}"
        );
        let events = stage.events(MIGRATION).await.unwrap();
        let freed = async || {
            stage.events(MIGRATION).await.unwrap().last().unwrap()["message"]
                == "others may write to the destination"
        };
        until("freed", &stage, freed).await;
        assert_eq!(notes_on(&destination).await, count, "something was applied after the deadline");
        assert!(
            !stage.daemon.log()[log_before..].contains("the run writes as"),
            "{}",
            stage.daemon.log_end()
        );
        assert!(notes.acknowledged() > count, "there was nothing to apply");
        assert!(
            events.iter().any(|event| event["from"] == "ready" && event["to"] == "expired"),
            "{events:#?}"
        );
        println!("generation {generation}: {count} notes there, {} written", notes.acknowledged());
    }
    let extended = declaration.set("generation", 2).set("cutover.extensions", 1);
    stage.apply(&extended).await.unwrap();
    complete(&stage, &extended).await;
    assert!(notes.stop().await.unwrap().missing_from(&destination).await.unwrap().is_empty());
}

#[tokio::test]
async fn no_clock_lengthens_it() {
    let (mut stage, offset) = clocked(named("rs-source"), named("rs-destination")).await;
    let source = stage.source.client().await.unwrap();
    lay(&source).await;

    // Set back by a day, and by ten: it closes when it would have.
    let declaration = stage.declaration().text("cutover.window", "8s");
    stage.apply(&declaration).await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();
    let (left, seen) = (remaining(&ready), Instant::now());
    offset.set(-24 * HOUR);
    let back = stage.cutover.status(MIGRATION).await.unwrap();
    assert_eq!(back["window"]["expires_at"], ready["window"]["expires_at"]);
    assert!(remaining(&back) <= left, "{back:#}");
    stage.daemon.terminate().await.unwrap();
    offset.set(-240 * HOUR);
    stage.daemon.restart().await.unwrap();
    let restarted = stage.cutover.status(MIGRATION).await.unwrap();
    assert!(
        restarted["phase"] == "expired" || remaining(&restarted) <= remaining(&back),
        "{restarted:#}"
    );
    let expired = stage
        .status_where(MIGRATION, "expired", |status| status["phase"] == "expired")
        .await
        .unwrap();
    let lasted = seen.elapsed().as_secs_f64();
    println!("{left} s were left when the clock was set back; it closed after {lasted:.1} s");
    assert!(lasted > left - 0.5, "{expired:#}");
    assert!(lasted < left + 20.0, "it was lengthened");

    // Set forward over the deadline: it closes at once, and stays so when the clock is set right.
    offset.set(0);
    let declaration = stage.declaration().set("generation", 2);
    stage.apply(&declaration).await.unwrap();
    let ready = stage.wait_for("ready").await.unwrap();
    assert!(remaining(&ready) > 119.0 * 3_600.0, "{ready:#}");
    offset.set(121 * HOUR);
    let expired = stage
        .status_where(MIGRATION, "expired", |status| status["phase"] == "expired")
        .await
        .unwrap();
    assert_eq!(expired["window"]["expires_at"], ready["window"]["expires_at"]);
    offset.set(0);
    stage.daemon.kill9().await.unwrap();
    stage.daemon.restart().await.unwrap();
    let still = stage.cutover.status(MIGRATION).await.unwrap();
    assert_eq!((&still["phase"], remaining(&still)), (&Value::from("expired"), 0.0), "{still:#}");

    // An extension counts from the same deadline, by the time that the daemon trusts.
    let extended = declaration.set("cutover.extensions", 1);
    stage.apply(&extended).await.unwrap();
    let again = stage.wait_for("ready").await.unwrap();
    let left = remaining(&again);
    assert!(left > 22.9 * 3_600.0 && left < 23.1 * 3_600.0, "{again:#}");
    complete(&stage, &extended).await;
}

async fn oldest(client: &Client) -> Timestamp {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    oplog
        .find_one(doc! {})
        .sort(doc! { "$natural": 1 })
        .await
        .unwrap()
        .unwrap()
        .get_timestamp("ts")
        .unwrap()
}

#[tokio::test]
async fn an_extension_without_the_place_to_go_on_from_says_so_before_it_is_applied() {
    // A small oplog, and checkpoints often: what comes after the last one is kept.
    let source = Options {
        oplog_mb: 8,
        arguments: vec!["--syncdelay".into(), "1".into()],
        ..named("rs-source")
    };
    let (stage, offset) = clocked(source, named("rs-destination")).await;
    let source = stage.source.client().await.unwrap();
    lay(&source).await;
    let declaration = stage.declaration().set("namespaces.include", "[\"shop.*\"]");
    stage.apply(&declaration).await.unwrap();
    stage.wait_for("ready").await.unwrap();
    offset.set(121 * HOUR);
    let expired = stage
        .status_where(MIGRATION, "expired", |status| status["phase"] == "expired")
        .await
        .unwrap();
    let stood = &expired["shards"][0]["optime_gap"]["applied"];
    let number = |name: &str| u32::try_from(stood[name].as_u64().unwrap()).unwrap();
    let stood = Timestamp { time: number("t"), increment: number("i") };

    // Writes outside of what is migrated push it out of the oplog.
    let filler = source.database("elsewhere").collection::<Document>("filler");
    let text = "x".repeat(100_000);
    let mut written = 0_u32;
    let start = Instant::now();
    while oldest(&source).await <= stood {
        assert!(
            start.elapsed() < PATIENCE,
            "the oplog does not roll over after {written} documents"
        );
        filler.insert_many((0..20).map(|_| doc! { "text": &text })).await.unwrap();
        written += 20;
    }
    println!(
        "the oplog has rolled over after {written} documents of 100 kB and {:.1} s",
        start.elapsed().as_secs_f64()
    );

    // The drift alone says it, and the plan of an extension is refused.
    let (exit, plan) = stage.plan().await.unwrap();
    let words = drift_of(&plan, "expired")["message"].as_str().unwrap();
    assert!(
        exit == 2 && words.contains("no longer holds the place") && words.contains("`generation`"),
        "{plan:#}"
    );
    let extended = declaration.clone().set("cutover.extensions", 1);
    extended.write(stage.folder()).unwrap();
    let (exit, plan) = stage.plan().await.unwrap();
    let told = &plan["diagnostics"][0];
    assert_eq!((exit, code(told)), (1, "CUT0024"), "{plan:#}");
    assert!(
        told.to_string().contains("the source's oplog no longer holds")
            && told.to_string().contains("generation = 2"),
        "{told}"
    );
    let refused = stage.cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("error[CUT0024]"), "{refused}");
    assert_eq!(
        stage.cutover.status(MIGRATION).await.unwrap()["phase"],
        "expired",
        "a refused plan changes nothing"
    );

    // By hand nobody is asked first; the run says why it cannot go on.
    stage.cutover.succeed(["extend", MIGRATION, "--by", "24h"]).await.unwrap();
    let failed = stage
        .status_where(MIGRATION, "failed", |status| status["phase"] == "failed")
        .await
        .unwrap();
    assert_eq!(code(&failed["error"]), "CUT0024", "{failed:#}");
    assert!(failed["error"]["remedy"].as_str().unwrap().contains("generation"), "{failed:#}");
    declaration.write(stage.folder()).unwrap();
    let (exit, plan) = stage.plan().await.unwrap();
    let words = drift_of(&plan, "failed")["message"].as_str().unwrap();
    assert!(
        exit == 2 && words.contains("CUT0024") && words.contains("raise `generation`"),
        "{words}"
    );

    let next = declaration.set("generation", 2);
    stage.apply(&next).await.unwrap();
    stage.acknowledge(&next).await.unwrap();
    stage.wait_for("completed").await.unwrap();
    let report =
        compare(&source, &stage.destination.client().await.unwrap(), &Scope::only(&["shop.*"]))
            .await
            .unwrap();
    assert!(report.is_equal(), "{report}");
}

#[tokio::test]
async fn dying_while_it_closes_or_is_extended_changes_nothing() {
    let (mut stage, offset) = clocked(named("rs-source"), guarded(Vec::new())).await;
    let environment = |place: Option<&str>| {
        let config = cutoverd::Config::default()
            .env(OFFSET_FILE, &offset.file)
            .env("ROOT_PASSWORD", ROOT_PASSWORD);
        place.map_or_else(|| config.clone(), |place| config.clone().env(CRASH_AT, place))
    };
    let (source, destination) =
        (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
    lay(&source).await;
    let places = [
        "journaled:expired",
        "before:free_destination",
        "after:free_destination",
        "before:check_resume_point",
        "after:check_resume_point",
    ];
    let mut days = 0;
    let mut declaration = as_root(stage.declaration());
    stage.apply(&declaration).await.unwrap();
    for (number, place) in (1_u32..).zip(places) {
        let ready = stage.wait_for("ready").await.unwrap();
        stage.daemon.terminate().await.unwrap();
        stage.daemon.restart_with(environment(Some(place))).await.unwrap();
        stage.wait_for("ready").await.unwrap();
        days += if number == 1 { 6 } else { 1 };
        offset.set(days * 24 * HOUR);
        let dies_late = place.ends_with("check_resume_point");
        if dies_late {
            stage
                .status_where(MIGRATION, "expired", |status| status["phase"] == "expired")
                .await
                .unwrap();
        } else {
            until("dead", &stage, async || !stage.daemon.is_running()).await;
            stage.daemon.restart_with(environment(None)).await.unwrap();
            let expired = stage.cutover.status(MIGRATION).await.unwrap();
            assert_eq!(expired["phase"], "expired", "{place}");
            assert_eq!(expired["window"]["expires_at"], ready["window"]["expires_at"], "{place}");
        }
        until("freed", &stage, async || !write_block::is_blocked(&destination).await.unwrap())
            .await;
        // One extension a time is enough to be one day ahead of the clock, which stands at one day
        // past the last deadline.
        declaration = declaration.set("cutover.extensions", number + 1);
        // The daemon may die before it has answered.
        let applied = stage.apply(&declaration).await;
        if dies_late {
            until("dead", &stage, async || !stage.daemon.is_running()).await;
            stage.daemon.restart_with(environment(None)).await.unwrap();
        } else {
            applied.unwrap();
        }
        let again = stage.wait_for("ready").await.unwrap();
        assert_eq!(
            (&again["run"], &again["window"]["extensions"]),
            (&ready["run"], &Value::from(number + 1)),
            "{place}"
        );
        assert!(
            write_block::is_blocked(&destination).await.unwrap(),
            "{place}: others are kept out again"
        );
        println!("{place}: expired, extended, ready again");
    }
    complete(&stage, &declaration).await;
    assert!(!write_block::is_blocked(&destination).await.unwrap());
}
