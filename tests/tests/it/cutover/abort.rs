//! Cutovers that are not carried out: the run is back at `ready` with the reason, the source takes
//! writes, nothing is lost, and a new token cuts over later.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::workload::{Noted, Notes, WhenRefused, fill_small};
use rig::{Declaration, Options, Stage, cutoverd, write_block};
use serde_json::Value;

const CRASH_AT: &str = "CUTOVERD_TEST_CRASH_AT";
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// A pair of deployments with a daemon, for several migrations of databases of their own.
struct Pair {
    stage: Stage,
    source: Client,
    destination: Client,
}

/// One migration on a pair, with an application that writes to its database.
struct Play<'a> {
    pair: &'a mut Pair,
    name: String,
    db: String,
    declaration: Declaration,
    notes: Notes,
    /// What the application had written when it was stopped.
    noted: Option<Noted>,
}

impl Pair {
    async fn plain() -> Self {
        Self::of(Stage::plain().await.unwrap()).await
    }

    async fn of(stage: Stage) -> Self {
        let (source, destination) =
            (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
        Self { stage, source, destination }
    }

    /// Lays a database, has an application write to it, and declares its migration with these
    /// settings of the cutover.
    async fn play(&mut self, name: &str, settings: &[(&str, &str)]) -> Play<'_> {
        let db = format!("db_{name}");
        fill_small(&self.source, &db).await.unwrap();
        let notes = Notes::start(&self.source, &db, WhenRefused::TryAgain);
        let declaration = settings
            .iter()
            .fold(self.stage.declaration_of(name, &db), |declaration, (path, text)| {
                declaration.text(path, text)
            });
        self.stage.apply(&declaration).await.unwrap();
        Play { pair: self, name: name.to_owned(), db, declaration, notes, noted: None }
    }

    /// Holds up what the daemon writes to the destination's collections.
    async fn slow_down(&self, by: Option<Duration>) {
        let commands = ["insert", "update", "delete"];
        hold_up(&self.destination, &commands, by.map(|by| (by, "alwaysOn".into()))).await;
    }
}

/// Holds up commands of the daemon on a server, each by this long.
async fn hold_up(client: &Client, commands: &[&str], by: Option<(Duration, mongodb::bson::Bson)>) {
    let (by, mode) = by.unwrap_or((Duration::ZERO, "off".into()));
    let data = doc! {
        "failCommands": commands.to_vec(),
        "appName": "cutover",
        "blockConnection": true,
        "blockTimeMS": i64::try_from(by.as_millis()).unwrap().max(1),
    };
    client
        .database("admin")
        .run_command(doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data })
        .await
        .unwrap();
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "not {what} in time");
        tokio::time::sleep(POLL).await;
    }
}

fn code(status: &Value) -> &str {
    status["error"]["code"].as_str().unwrap_or_default()
}

fn token(status: &Value) -> &str {
    status["acknowledge_token"].as_str().unwrap_or_else(|| panic!("no token: {status:#}"))
}

impl Play<'_> {
    async fn status(&self) -> Value {
        self.pair.stage.cutover.status(&self.name).await.unwrap()
    }

    async fn status_where(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.pair.stage.status_where(&self.name, what, holds).await.unwrap()
    }

    /// Waits until a cutover may be acknowledged.
    async fn ready(&self) -> Value {
        self.status_where("ready to cut over", |status| {
            assert_ne!(status["phase"], "failed", "{status:#}");
            status["phase"] == "ready" && status["ready"]["value"] == true
        })
        .await
    }

    /// Acknowledges with a token. Gives the declaration as it is then.
    async fn acknowledge(&self, ready: &Value) -> Declaration {
        let acknowledged = self.declaration.clone().text("cutover.acknowledge", token(ready));
        self.pair.stage.apply(&acknowledged).await.unwrap();
        acknowledged
    }

    /// Waits until a cutover has been given up for a reason, and checks that everything is as it
    /// was, but for the token.
    async fn given_up(&self, before: &Value, reason: &str) -> Value {
        let given_up = self
            .status_where("given up", |status| {
                status["phase"] == "ready" && status["error"]["code"] == reason
            })
            .await;
        assert!(!write_block::is_blocked(&self.pair.source).await.unwrap(), "{given_up:#}");
        assert_ne!(token(&given_up), token(before));
        assert_eq!(given_up["run"], before["run"]);
        assert_eq!(
            (&given_up["destination_writable"], &given_up["cutover"]["started_at"]),
            (&Value::Bool(false), &Value::Null)
        );
        for member in ["opened_at", "expires_at"] {
            assert_eq!(given_up["window"][member], before["window"][member], "{given_up:#}");
        }
        let remaining = |status: &Value| status["window"]["remaining_seconds"].as_f64().unwrap();
        assert!(
            remaining(&given_up) > 0.0 && remaining(&given_up) <= remaining(before),
            "the window still runs: {given_up:#}"
        );
        let events = self.pair.stage.events(&self.name).await.unwrap();
        let back = events.iter().rfind(|event| event["from"] == "draining").unwrap();
        assert!(
            back["to"] == "ready" && back["message"].as_str().unwrap().contains(reason),
            "{back}"
        );

        // The plan shows it as drift, and that a used token is of no use.
        let (exit, plan) = self.pair.stage.plan().await.unwrap();
        let drift = plan["drift"].as_array().unwrap();
        let aborted = drift
            .iter()
            .find(|drift| drift["kind"] == "aborted")
            .unwrap_or_else(|| panic!("no drift: {plan:#}"));
        assert!(exit == 2 && aborted["message"].as_str().unwrap().contains(reason), "{aborted}");
        self.pair.stage.apply(&self.declaration).await.unwrap();
        self.ready().await;
        self.declaration
            .clone()
            .text("cutover.acknowledge", token(before))
            .write(self.pair.stage.folder())
            .unwrap();
        let (exit, plan) = self.pair.stage.plan().await.unwrap();
        assert_eq!(
            (exit, &plan["diagnostics"][0]["code"]),
            (1, &Value::from("CUT0022")),
            "{plan:#}"
        );
        let refused = self.pair.stage.cutover.run(["apply", "--auto-approve"]).await.unwrap();
        assert!(refused.code == 1 && refused.stderr.contains("error[CUT0022]"), "{refused}");
        self.declaration.write(self.pair.stage.folder()).unwrap();
        given_up
    }

    /// Waits for the end of an acknowledged cutover; both sides are equal then, and every
    /// acknowledged note is there.
    async fn completed(self) -> Value {
        let Self { pair, name, db, notes, noted, .. } = self;
        let completed = pair
            .stage
            .status_where(&name, "completed", |status| status["phase"] == "completed")
            .await
            .unwrap();
        assert_eq!(
            (&completed["error"], &completed["destination_writable"]),
            (&Value::Null, &Value::Bool(true)),
            "{completed:#}"
        );
        let noted = match noted {
            Some(noted) => noted,
            None => notes.stop().await.unwrap(),
        };
        assert!(
            !noted.numbers.is_empty()
                && noted.missing_from(&pair.destination).await.unwrap().is_empty()
        );
        let report = compare(&pair.source, &pair.destination, &Scope::only(&[&format!("{db}.*")]))
            .await
            .unwrap();
        assert!(report.is_equal() && report.collections == 4, "{report}");
        println!(
            "{name}: completed equal with {} notes, {} of them refused for a while",
            noted.numbers.len(),
            noted.refused
        );
        completed
    }
}

#[tokio::test]
async fn writes_that_do_not_stop_are_left_alone() {
    let mut pair = Pair::plain().await;
    let watch = write_block::Watch::start(&pair.source);
    let mut play = pair
        .play("observed", &[("cutover.source_writes", "observe"), ("cutover.max_downtime", "3s")])
        .await;
    let ready = play.ready().await;
    let began = Instant::now();
    play.acknowledge(&ready).await;
    let given_up = play.given_up(&ready, "CUT0029").await;
    println!(
        "given up {:.1} s after the acknowledgement, with max_downtime 3 s",
        began.elapsed().as_secs_f64()
    );
    let written = play.notes.acknowledged();
    until("writing on", async || play.notes.acknowledged() >= written + 100).await;
    assert_eq!(play.notes.refused(), 0, "the application has noticed something");

    // Its owners stop it, and acknowledge again.
    let ready = play.ready().await;
    assert_eq!(token(&ready), token(&given_up));
    play.noted = Some(play.notes.halt().await.unwrap());
    play.acknowledge(&ready).await;
    play.completed().await;
    assert!(!watch.was_blocked().await.unwrap(), "an observed source was blocked");
}

#[tokio::test]
async fn a_unique_index_that_cannot_be_made_is_found_before_the_source_is_blocked() {
    let mut pair = Pair::plain().await;
    let watch = write_block::Watch::start(&pair.source);
    let destination = pair.destination.clone();
    // A verification would find the planted document as well, and perhaps before.
    let play = pair.play("unique", &[("verify.mode", "off")]).await;
    let ready = play.ready().await;
    // Past the daemon: the index is a plain one until the end, and nobody is kept out without
    // access control.
    let items = destination.database(&play.db).collection::<Document>("items");
    items.insert_one(doc! { "_id": "planted", "sku": "sku-7" }).await.unwrap();
    play.acknowledge(&ready).await;
    let given_up = play.given_up(&ready, "CUT0026").await;
    let message = given_up["error"]["message"].as_str().unwrap();
    println!("{message}");
    for part in ["index sku", "db_unique.items", "7", "planted"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(play.notes.refused(), 0);
    assert!(!watch.was_blocked().await.unwrap(), "the source was blocked");

    items.delete_one(doc! { "_id": "planted" }).await.unwrap();
    let ready = play.ready().await;
    play.acknowledge(&ready).await;
    play.completed().await;
}

#[tokio::test]
async fn a_drain_past_max_downtime_is_taken_back() {
    let mut pair = Pair::plain().await;

    // A destination that is too slow.
    let play = pair.play("slow", &[("cutover.max_downtime", "2s")]).await;
    let ready = play.ready().await;
    play.pair.slow_down(Some(Duration::from_secs(4))).await;
    play.acknowledge(&ready).await;
    until("blocked", async || write_block::is_blocked(&play.pair.source).await.unwrap()).await;
    let blocked = Instant::now();
    until("unblocked", async || !write_block::is_blocked(&play.pair.source).await.unwrap()).await;
    println!("blocked for {:.1} s with max_downtime 2 s", blocked.elapsed().as_secs_f64());
    assert!(blocked.elapsed() < Duration::from_secs(20));
    play.pair.slow_down(None).await;
    play.given_up(&ready, "CUT0027").await;
    let ready = play.ready().await;
    play.acknowledge(&ready).await;
    play.completed().await;
    pair.stage.remove("slow").await.unwrap();

    // A daemon that is down for longer, with the source blocked.
    let play = pair.play("down", &[("cutover.max_downtime", "2s")]).await;
    let ready = play.ready().await;
    play.pair.slow_down(Some(Duration::from_secs(1))).await;
    play.acknowledge(&ready).await;
    until("blocked", async || write_block::is_blocked(&play.pair.source).await.unwrap()).await;
    play.pair.stage.daemon.kill9().await.unwrap();
    let killed = Instant::now();
    play.pair.slow_down(None).await;
    until("past max_downtime", async || killed.elapsed() > Duration::from_secs(2)).await;
    assert!(
        write_block::is_blocked(&play.pair.source).await.unwrap(),
        "nobody is there to unblock it"
    );
    play.pair.stage.daemon.restart().await.unwrap();
    let started = Instant::now();
    until("unblocked", async || !write_block::is_blocked(&play.pair.source).await.unwrap()).await;
    println!("unblocked {:.1} s after the start", started.elapsed().as_secs_f64());
    play.status_where("given up", |status| {
        code(status) == "CUT0027" && status["phase"] != "draining"
    })
    .await;
    let ready = play.ready().await;
    play.acknowledge(&ready).await;
    play.completed().await;
    pair.stage.remove("down").await.unwrap();

    // Its request to block is still under way when the next daemon takes the cutover back.
    let play = pair.play("late", &[("cutover.max_downtime", "1s")]).await;
    let ready = play.ready().await;
    let late = Duration::from_secs(6);
    hold_up(
        &play.pair.source,
        &["setUserWriteBlockMode"],
        Some((late, doc! { "times": 1 }.into())),
    )
    .await;
    play.acknowledge(&ready).await;
    let asked = async || {
        let events = play.pair.stage.events("late").await.unwrap();
        events.iter().any(|event| event["message"] == "blocking the source's writes")
    };
    until("asked for", asked).await;
    let asked_at = Instant::now();
    play.pair.stage.daemon.kill9().await.unwrap();
    until("past max_downtime", async || asked_at.elapsed() > Duration::from_secs(1)).await;
    play.pair.stage.daemon.restart().await.unwrap();
    play.status_where("given up", |status| {
        code(status) == "CUT0027" && status["phase"] != "draining"
    })
    .await;
    println!("given up {:.1} s after a request that takes 6 s", asked_at.elapsed().as_secs_f64());
    until("past the request", async || {
        assert!(
            !write_block::is_blocked(&play.pair.source).await.unwrap(),
            "a late request has blocked the source"
        );
        asked_at.elapsed() > late + Duration::from_secs(2)
    })
    .await;
    let ready = play.ready().await;
    play.acknowledge(&ready).await;
    play.completed().await;
    pair.stage.remove("late").await.unwrap();

    // Somebody lifts the block: what was written then is not lost.
    let play = pair.play("lifted", &[]).await;
    let ready = play.ready().await;
    let before = final_notes(&play.pair.source).await;
    play.pair.slow_down(Some(Duration::from_secs(4))).await;
    play.acknowledge(&ready).await;
    until("blocked", async || {
        write_block::is_blocked(&play.pair.source).await.unwrap() && play.notes.refused() > 0
    })
    .await;
    // Once the drain has taken the source's last time nobody blocks it once more.
    until("draining", async || final_notes(&play.pair.source).await > before).await;
    write_block::set(&play.pair.source, false).await.unwrap();
    play.pair.slow_down(None).await;
    play.given_up(&ready, "CUT0029").await;
    let ready = play.ready().await;
    play.acknowledge(&ready).await;
    play.completed().await;
}

#[tokio::test]
async fn a_transaction_that_stays_open_holds_the_block_up_until_it_is_given_up() {
    let mut pair = Pair::plain().await;
    let watch = write_block::Watch::start(&pair.source);
    let play = pair.play("open", &[("cutover.max_downtime", "2s")]).await;
    let ready = play.ready().await;
    let mut session = play.pair.source.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let items = play.pair.source.database(&play.db).collection::<Document>("items");
    items.insert_one(doc! { "_id": "in a transaction" }).session(&mut session).await.unwrap();
    play.acknowledge(&ready).await;
    play.given_up(&ready, "CUT0027").await;
    // A request to block that was left behind would land now.
    session.commit_transaction().await.unwrap();
    let written = play.notes.acknowledged();
    until("writing on", async || play.notes.acknowledged() >= written + 300).await;
    assert!(!watch.was_blocked().await.unwrap(), "the source was blocked");
    let ready = play.ready().await;
    play.acknowledge(&ready).await;
    play.completed().await;
}

/// How often a drain has noted the source's last time.
async fn final_notes(source: &Client) -> u64 {
    let oplog = source.database("local").collection::<Document>("oplog.rs");
    oplog.count_documents(doc! { "op": "n", "o.msg": "cutover: final" }).await.unwrap()
}

fn proxied(name: &str) -> Options {
    Options { name: name.to_owned(), proxied: true, ..Options::default() }
}

#[tokio::test]
async fn servers_that_are_away_in_a_cutover_hold_it_up_and_no_more() {
    let stage =
        Stage::set(proxied("rs-source"), proxied("rs-destination"), cutoverd::Config::default())
            .await
            .unwrap();
    let mut pair = Pair::of(stage).await;
    // Past the proxies, which are the daemon's way alone from here on.
    pair.source = pair.stage.source.member_client(0).await.unwrap();
    pair.destination = pair.stage.destination.member_client(0).await.unwrap();

    // The source is away when its block is to be taken down.
    let play = pair.play("unreached", &[("cutover.max_downtime", "2s")]).await;
    let ready = play.ready().await;
    play.pair.slow_down(Some(Duration::from_secs(3))).await;
    play.acknowledge(&ready).await;
    until("blocked", async || write_block::is_blocked(&play.pair.source).await.unwrap()).await;
    play.pair.stage.source.proxy(0).unwrap().partition();
    let stuck = play.status_where("unable to unblock", |status| code(status) == "CUT0012").await;
    assert_eq!(stuck["phase"], "draining", "{stuck:#}");
    assert!(
        stuck["error"]["retryable"] == true
            && write_block::is_blocked(&play.pair.source).await.unwrap(),
        "{stuck:#}"
    );
    play.pair.slow_down(None).await;
    let undoing = async || {
        let events = play.pair.stage.events("unreached").await.unwrap();
        events.iter().any(|event| {
            event["message"].as_str().unwrap().starts_with("giving the cutover up: CUT0027")
        })
    };
    until("given up", undoing).await;
    play.pair.stage.source.proxy(0).unwrap().heal();
    until("unblocked", async || !write_block::is_blocked(&play.pair.source).await.unwrap()).await;
    let ready = play.ready().await;
    assert_eq!(code(&ready), "CUT0027", "{ready:#}");
    play.acknowledge(&ready).await;
    play.completed().await;
    pair.stage.remove("unreached").await.unwrap();

    // The destination is away when it is to be handed over.
    pair.stage.daemon.terminate().await.unwrap();
    let dies = cutoverd::Config::default().env(CRASH_AT, "before:restore_settings");
    pair.stage.daemon.restart_with(dies).await.unwrap();
    let play = pair.play("away", &[]).await;
    let ready = play.ready().await;
    let acknowledged = play.declaration.clone().text("cutover.acknowledge", token(&ready));
    // It may die before it has answered.
    let _ = play.pair.stage.apply(&acknowledged).await;
    until("dead", async || !play.pair.stage.daemon.is_running()).await;
    play.pair.stage.destination.proxy(0).unwrap().partition();
    play.pair.stage.daemon.restart_with(cutoverd::Config::default()).await.unwrap();
    let stuck = play.status_where("unable to go on", |status| code(status) == "CUT0012").await;
    assert_eq!(
        (&stuck["phase"], &stuck["destination_writable"]),
        (&Value::from("finalizing"), &Value::Bool(false)),
        "{stuck:#}"
    );
    assert!(
        stuck["error"]["message"].as_str().unwrap().contains("destination")
            && stuck["error"]["retryable"] == true
    );
    assert!(
        write_block::is_blocked(&play.pair.source).await.unwrap(),
        "there is no way back, and no writer is let in"
    );
    assert_eq!(play.status().await["phase"], "finalizing");
    play.pair.stage.destination.proxy(0).unwrap().heal();
    play.completed().await;
}

#[tokio::test]
async fn two_migrations_of_one_source_share_its_block() {
    let mut pair = Pair::plain().await;
    let blocked = async |pair: &Pair| write_block::is_blocked(&pair.source).await.unwrap();
    for name in ["first", "second", "third"] {
        let play = pair.play(name, &[("cutover.max_downtime", "2s")]).await;
        play.ready().await;
        play.notes.stop().await.unwrap();
    }
    let declaration = |pair: &Pair, name: &str| {
        pair.stage.declaration_of(name, &format!("db_{name}")).text("cutover.max_downtime", "2s")
    };
    let acknowledge = async |pair: &Pair, name: &str| {
        let status = pair
            .stage
            .status_where(name, "ready", |status| status["ready"]["value"] == true)
            .await
            .unwrap();
        let acknowledged = declaration(pair, name).text("cutover.acknowledge", token(&status));
        pair.stage.apply(&acknowledged).await.unwrap();
    };
    let phase = async |pair: &Pair, name: &str, phase: &str| {
        pair.stage.status_where(name, phase, |status| status["phase"] == phase).await.unwrap()
    };

    // One that is given up takes nothing from one that is completed.
    acknowledge(&pair, "first").await;
    phase(&pair, "first", "completed").await;
    hold_up(&pair.source, &["appendOplogNote"], Some((Duration::from_secs(4), "alwaysOn".into())))
        .await;
    acknowledge(&pair, "second").await;
    pair.stage
        .status_where("second", "given up", |status| {
            code(status) == "CUT0027" && status["phase"] != "draining"
        })
        .await
        .unwrap();
    hold_up(&pair.source, &["appendOplogNote"], None).await;
    assert!(blocked(&pair).await, "the first one's source is open");

    // Nor does one that is forgotten, until the last is.
    acknowledge(&pair, "second").await;
    phase(&pair, "second", "completed").await;
    pair.stage.remove("first").await.unwrap();
    assert!(blocked(&pair).await, "the second one's source is open");
    acknowledge(&pair, "third").await;
    phase(&pair, "third", "completed").await;
    for name in ["second", "third"] {
        std::fs::remove_file(pair.stage.folder().join(format!("{name}.hcl"))).unwrap();
    }
    pair.stage.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    until("open", async || !blocked(&pair).await).await;
}
