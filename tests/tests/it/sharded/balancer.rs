//! A balancer that a run stops is given back whenever the daemon dies, however the run ends; one
//! that somebody starts meanwhile is reported.

use std::time::{Duration, Instant};

use mongodb::bson::doc;
use rig::scenario::{Deployed as _, MIGRATION};
use rig::{ClusterOptions, Declaration, Options, cutoverd};

use super::scene::{Destination, PATIENCE, POLL, Scene};

/// Names the place at which the daemon dies, once.
const CRASH_AT: &str = "CUTOVERD_TEST_CRASH_AT";

impl Scene {
    async fn is_on(&self) -> bool {
        self.source.admin(doc! { "balancerStatus": 1 }).await.unwrap().get_str("mode").unwrap()
            == "full"
    }

    /// A migration of a database of its own.
    async fn lay(&self, name: &str) -> Declaration {
        self.source.create_database(name, 0).await.unwrap();
        let db = self.source.client().await.unwrap().database(name);
        db.collection("things").insert_many((0..20).map(|n| doc! { "_id": n })).await.unwrap();
        Declaration::new(name, &self.source.uri(), &self.destination.uri())
            .set("namespaces.include", format_args!("[\"{name}.*\"]"))
            .text("sharding.balancer", "manage")
            .text("cutover.source_after", "open")
    }

    /// Holds that there is drift of this kind about this.
    async fn drifts(&self, kind: &str, path: &str) {
        let drift = self.cutover.run(["drift", "--json"]).await.unwrap();
        let json = drift.json().unwrap();
        let found = json["drift"].as_array().unwrap();
        assert!(
            drift.code == 2 && found.iter().any(|one| one["kind"] == kind && one["path"] == path),
            "{json:#}"
        );
        let text = self.cutover.run(["drift"]).await.unwrap();
        assert!(text.code == 2 && text.stdout.contains(kind), "{text}");
    }

    /// Takes the block of a migration out, which cancels it.
    async fn take_out(&self, name: &str) {
        std::fs::remove_file(self.folder().join(format!("{name}.hcl"))).unwrap();
        std::fs::write(self.folder().join("others.hcl"), "# nothing else\n").unwrap();
    }

    async fn phase_of(&self, name: &str, phase: &str) {
        let start = Instant::now();
        loop {
            let status = self.cutover.status(name).await.unwrap();
            if status["phase"] == phase && (phase != "ready" || status["ready"]["value"] == true) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{name} is not {phase}: {status:#}\n{}",
                self.daemon.log_end()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn apply_one(&self, declaration: &Declaration) {
        declaration.write(self.cutover.folder()).unwrap();
        let output = self
            .cutover
            .run(["apply", "--auto-approve", "--target", declaration.name()])
            .await
            .unwrap();
        // A daemon that dies while it answers is what is tried here.
        assert!(output.code == 0 || output.code == 3, "{output}\n{}", self.daemon.log_end());
    }

    /// Lets the daemon start again, to die at a place.
    async fn dies_at(&mut self, place: &str) {
        self.daemon.kill9().await.unwrap();
        self.daemon.restart_with(cutoverd::Config::default().env(CRASH_AT, place)).await.unwrap();
    }

    async fn has_died(&mut self, place: &str) {
        let start = Instant::now();
        while self.daemon.is_running() {
            assert!(
                start.elapsed() < PATIENCE,
                "it does not come past {place}: {}",
                self.daemon.log_end()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.daemon.restart_with(cutoverd::Config::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_balancer_is_given_back_and_what_others_do_to_the_cluster_is_told() {
    let destination = Destination::set(Options::default());
    let mut scene =
        Scene::set(ClusterOptions::shards(1), destination, cutoverd::Config::default()).await;
    what_changes_around_a_run_is_told(&mut scene).await;
    a_stopped_balancer_is_given_back_whenever_the_daemon_dies(&mut scene).await;
}

async fn a_stopped_balancer_is_given_back_whenever_the_daemon_dies(scene: &mut Scene) {
    // Until it is there, and until the run is over: which of the two a place lies in does not
    // matter.
    let places = ["before:start_sync", "after:start_sync", "after:drain", "after:clean_up"];
    for (number, place) in places.into_iter().enumerate() {
        scene.source.admin(doc! { "balancerStart": 1 }).await.unwrap();
        let name = format!("m{number}");
        let declaration = scene.lay(&name).await;
        scene.dies_at(place).await;
        scene.apply_one(&declaration).await;
        let is_early = place.ends_with("start_sync");
        if is_early {
            scene.has_died(place).await;
        }
        scene.phase_of(&name, "ready").await;
        assert!(!scene.is_on().await, "{place}");
        let token = scene.cutover.status(&name).await.unwrap()["acknowledge_token"]
            .as_str()
            .unwrap()
            .to_owned();
        scene.apply_one(&declaration.text("cutover.acknowledge", &token)).await;
        if !is_early {
            scene.has_died(place).await;
        }
        scene.phase_of(&name, "completed").await;
        assert!(scene.is_on().await, "{place}: {}", scene.daemon.log_end());
    }
    let (name, place) = ("cancelled", "journaled:cancelled");
    let declaration = scene.lay(name).await;
    scene.dies_at(place).await;
    scene.apply_one(&declaration).await;
    scene.phase_of(name, "ready").await;
    assert!(!scene.is_on().await, "{place}");
    // The daemon dies while it answers.
    scene.cutover.run(["cancel", name]).await.unwrap();
    scene.has_died(place).await;
    scene.phase_of(name, "cancelled").await;
    let start = Instant::now();
    while !scene.is_on().await {
        assert!(start.elapsed() < PATIENCE, "{place}: {}", scene.daemon.log_end());
        tokio::time::sleep(POLL).await;
    }
}

async fn what_changes_around_a_run_is_told(scene: &mut Scene) {
    scene.source.admin(doc! { "balancerStart": 1 }).await.unwrap();
    let declaration = scene.lay(MIGRATION).await;
    // Declared to be off, and on.
    let refused = declaration.clone().without("sharding.balancer");
    refused.write(scene.cutover.folder()).unwrap();
    let output = scene.cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert!(
        output.code == 1 && output.stderr.contains("CUT0061") && output.stderr.contains("manage"),
        "{output}"
    );

    scene.apply_one(&declaration).await;
    scene.phase_of(MIGRATION, "ready").await;
    let quiet = scene.cutover.run(["drift"]).await.unwrap();
    assert_eq!(quiet.code, 0, "{quiet}");
    let text = scene.cutover.run(["status"]).await.unwrap().stdout;
    assert!(text.contains("balancer     the source's, stopped by this run"), "{text}");

    // Somebody starts it, and a shard is added.
    scene.source.admin(doc! { "balancerStart": 1 }).await.unwrap();
    let status = scene.status_where("not ready", |status| status["ready"]["value"] == false).await;
    assert!(status["ready"]["reasons"].to_string().contains("CUT0061"), "{status:#}");
    assert!(
        status["acknowledge_token"].is_null() || status["ready"]["value"] == false,
        "{status:#}"
    );
    let drift = scene.cutover.run(["drift"]).await.unwrap();
    assert!(drift.code == 2 && drift.stdout.contains("sh.stopBalancer()"), "{drift}");
    scene.drifts("balancer_on", "source.balancer").await;
    scene.source.admin(doc! { "balancerStop": 1 }).await.unwrap();
    scene.phase_of(MIGRATION, "ready").await;

    scene.source.add_shard().await.unwrap();
    scene.drifts("shard_added", "source.shards.shard-1").await;

    // What cancelling does is reported before, and done.
    scene.take_out(MIGRATION).await;
    let plan = scene.cutover.run(["plan"]).await.unwrap();
    assert!(
        plan.stdout.contains("but for its balancer, which the run has stopped and now gives back"),
        "{plan}"
    );
    scene.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
    let start = Instant::now();
    while !scene.is_on().await {
        assert!(start.elapsed() < PATIENCE, "{}", scene.daemon.log_end());
        tokio::time::sleep(POLL).await;
    }

    // The next run begins with that shard, and it goes.
    let later = scene.lay("later").await;
    scene.apply_one(&later).await;
    scene.phase_of("later", "ready").await;
    let quiet = scene.cutover.run(["drift"]).await.unwrap();
    assert_eq!(quiet.code, 0, "{quiet}");
    let _gone = scene.source.remove_shard().await.unwrap();
    scene.drifts("shard_removed", "source.shards.shard-1").await;
    scene.take_out("later").await;
    scene.cutover.succeed(["apply", "--auto-approve"]).await.unwrap();
}
