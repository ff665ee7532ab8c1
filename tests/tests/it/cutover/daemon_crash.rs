//! The daemon dies, as by `kill -9`, at every place of a cutover; the next start completes it or
//! takes it back.
//!
//! On real deployments, one pair of them for many places: each place has a migration of its own, on
//! a database of its own, while an application writes to it.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::doc;
use rig::compare::{Scope, compare};
use rig::workload::{Notes, WhenRefused, fill_small};
use rig::{Declaration, Stage, cutoverd, write_block};
use serde_json::Value;

/// Names the place at which the daemon dies, once.
const CRASH_AT: &str = "CUTOVERD_TEST_CRASH_AT";
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
/// Longer than `max_downtime` where a drain is to be too slow.
const SLOW: Duration = Duration::from_secs(3);

/// What leads a cutover through a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// The source's writes are blocked, and stay so.
    Blocked,
    /// They are blocked and given back once completed.
    Open,
    /// The application stops by itself.
    Observed,
    /// The first drain takes longer than `max_downtime`.
    TooSlow,
}

/// One pair of deployments with its daemon, on which places are tried one after the other.
struct Lane {
    stage: Stage,
    source: Client,
    destination: Client,
    number: u32,
}

impl Lane {
    async fn open() -> Self {
        let stage = Stage::plain().await.unwrap();
        let (source, destination) =
            (stage.source.client().await.unwrap(), stage.destination.client().await.unwrap());
        Self { stage, source, destination, number: 0 }
    }

    /// A migration of one new database, with settings that wait for the cutover.
    async fn lay(&mut self) -> (Declaration, String) {
        self.number += 1;
        let db = format!("d{}", self.number);
        fill_small(&self.source, &db).await.unwrap();
        let name = format!("m{}", self.number);
        let declaration = self.stage.declaration_of(&name, &db);
        (declaration, db)
    }

    /// Holds up what the daemon writes to the destination.
    async fn slow_down(&self, on: bool) {
        let mode = if on { "alwaysOn" } else { "off" };
        let data = doc! {
            "failCommands": ["insert", "update", "delete"], "appName": "cutover",
            "blockConnection": true, "blockTimeMS": i64::try_from(SLOW.as_millis()).unwrap(),
        };
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        self.destination.database("admin").run_command(command).await.unwrap();
    }

    /// Polls the status until it is in one of these phases. All the while the source is blocked
    /// only where it may be.
    async fn settle(&self, name: &str, keeps_block: bool, phases: &[&str]) -> Value {
        let start = Instant::now();
        let may_block = |phase: &str| {
            matches!(phase, "draining" | "finalizing") || (keeps_block && phase == "completed")
        };
        loop {
            let before = self.stage.cutover.status(name).await.unwrap();
            let blocked = write_block::is_blocked(&self.source).await.unwrap();
            let phase = before["phase"].as_str().unwrap();
            if blocked && !may_block(phase) {
                // The look at the phase came first; what counts is whether it is so still.
                let after = self.stage.cutover.status(name).await.unwrap();
                assert!(
                    may_block(after["phase"].as_str().unwrap()),
                    "{name} leaves the source blocked: {after:#}"
                );
            }
            if phases.contains(&phase) {
                return before;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{name} is not {phases:?}: {before:#}\n{}",
                self.stage.daemon.log_end()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn until_dead(&self, place: &str) {
        let start = Instant::now();
        while self.stage.daemon.is_running() {
            assert!(
                start.elapsed() < PATIENCE,
                "the daemon does not die {place}\n{}",
                self.stage.daemon.log_end()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Declares and acknowledges, until it is done or the daemon is dead; whatever fails then,
    /// fails for that.
    async fn drive(&self, declaration: &Declaration, course: Course) -> anyhow::Result<()> {
        self.stage.apply(declaration).await?;
        let ready =
            self.stage.cutover.wait_for_phase(declaration.name(), "ready", PATIENCE).await?;
        if course == Course::TooSlow {
            self.slow_down(true).await;
        }
        let acknowledged = declaration
            .clone()
            .text("cutover.acknowledge", ready["acknowledge_token"].as_str().unwrap());
        self.stage.apply(&acknowledged).await?;
        Ok(())
    }

    /// Takes one migration through a place at which the daemon dies. Returns in which phase the
    /// next start found rest.
    async fn die_at(&mut self, place: &str, course: Course) {
        let start = Instant::now();
        let (declaration, db) = self.lay().await;
        let name = declaration.name().to_owned();
        let declaration = match course {
            Course::Blocked => declaration,
            Course::Open => declaration.text("cutover.source_after", "open"),
            Course::Observed => declaration.text("cutover.source_writes", "observe"),
            Course::TooSlow => declaration.text("cutover.max_downtime", "1s"),
        };
        let keeps_block = matches!(course, Course::Blocked | Course::TooSlow);
        // What is written to an open source after the cutover belongs to nobody.
        let when_refused =
            if course == Course::Open { WhenRefused::Stop } else { WhenRefused::TryAgain };
        let mut notes = Some(Notes::start(&self.source, &db, when_refused));

        self.stage.daemon.terminate().await.unwrap();
        self.stage
            .daemon
            .restart_with(cutoverd::Config::default().env(CRASH_AT, place))
            .await
            .unwrap();
        let noted = if course == Course::Observed {
            // The application is stopped by its owners, who then acknowledge.
            let writing = notes.as_ref().unwrap();
            let start = Instant::now();
            while writing.acknowledged() < 50 {
                assert!(start.elapsed() < PATIENCE, "the application does not write");
                tokio::time::sleep(POLL).await;
            }
            let noted = notes.take().unwrap().stop().await.unwrap();
            assert!(!noted.numbers.is_empty());
            Some(noted)
        } else {
            None
        };
        if let Err(error) = self.drive(&declaration, course).await {
            let start = Instant::now();
            while self.stage.daemon.is_running() {
                assert!(start.elapsed() < Duration::from_secs(10), "{place}: {error:#}");
                tokio::time::sleep(POLL).await;
            }
        }
        self.until_dead(place).await;
        let blocked_at_death = write_block::is_blocked(&self.source).await.unwrap();

        if course == Course::TooSlow {
            self.slow_down(false).await;
        }
        self.stage.daemon.restart_with(cutoverd::Config::default()).await.unwrap();
        let rest = self.settle(&name, keeps_block, &["ready", "completed"]).await;
        let rested = rest["phase"].as_str().unwrap().to_owned();
        if rested == "ready" {
            assert!(!write_block::is_blocked(&self.source).await.unwrap(), "{place}");
            let taken = rest["acknowledge_token"].as_str().unwrap();
            self.stage
                .status_where(&name, "ready to cut over", |status| status["ready"]["value"] == true)
                .await
                .unwrap();
            self.stage
                .apply(&declaration.clone().text("cutover.acknowledge", taken))
                .await
                .unwrap();
            self.settle(&name, keeps_block, &["completed"]).await;
        }
        let completed = self.stage.cutover.status(&name).await.unwrap();
        assert_eq!(
            (&completed["destination_writable"], &completed["error"]),
            (&Value::Bool(true), &Value::Null),
            "{place}"
        );
        assert_eq!(write_block::is_blocked(&self.source).await.unwrap(), keeps_block, "{place}");
        assert!(!write_block::is_blocked(&self.destination).await.unwrap(), "{place}");

        let noted = match noted {
            Some(noted) => noted,
            None => notes.take().unwrap().stop().await.unwrap(),
        };
        assert!(
            !noted.numbers.is_empty()
                && noted.missing_from(&self.destination).await.unwrap().is_empty(),
            "{place}"
        );
        let report = compare(&self.source, &self.destination, &Scope::only(&[&format!("{db}.*")]))
            .await
            .unwrap();
        assert!(report.is_equal() && report.collections == 4, "{place}: {report}");
        let left = self.destination.list_database_names().await.unwrap();
        assert!(!left.iter().any(|name| name == "cutover_internal"), "{place}: {left:?}");
        println!(
            "{place:25} {course:?}: died {}, rested {rested}, completed equal with {} notes, \
             downtime {} s; {:.1} s in all",
            if blocked_at_death { "blocked" } else { "open" },
            noted.numbers.len(),
            completed["cutover"]["downtime_seconds"],
            start.elapsed().as_secs_f64()
        );

        // Forgotten, a completed run gives the source back for the next one.
        self.stage.remove(&name).await.unwrap();
        assert!(
            !write_block::is_blocked(&self.source).await.unwrap(),
            "{place}: forgotten, and the source is still blocked"
        );
    }
}

#[tokio::test]
async fn dying_while_it_drains() {
    let mut lane = Lane::open().await;
    for place in [
        "journaled:draining",
        "before:prepare_cutover",
        "after:prepare_cutover",
        "before:block_source",
        "after:block_source",
        "before:drain",
        "after:drain",
        "journaled:ready",
    ] {
        lane.die_at(place, Course::Blocked).await;
    }
}

#[tokio::test]
async fn dying_while_it_finalizes() {
    let mut lane = Lane::open().await;
    for place in [
        "journaled:finalizing",
        "before:stop_sync",
        "after:stop_sync",
        "before:restore_settings",
        "after:restore_settings",
        "before:open_destination",
        "after:open_destination",
        "before:clean_up",
        "after:clean_up",
        "journaled:completed",
    ] {
        lane.die_at(place, Course::Blocked).await;
    }
}

#[tokio::test]
async fn dying_while_it_gives_the_source_back_or_watches_it() {
    let mut lane = Lane::open().await;
    for place in ["before:unblock_source", "after:unblock_source"] {
        lane.die_at(place, Course::TooSlow).await;
        lane.die_at(place, Course::Open).await;
    }
    for place in ["before:watch_source", "after:watch_source", "after:drain"] {
        lane.die_at(place, Course::Observed).await;
    }
}
