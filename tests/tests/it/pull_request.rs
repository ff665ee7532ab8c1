//! The whole way of a migration through a repository: each change is proposed, planned as a
//! comment, merged and applied, with the real programs, real servers and a real git.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

mod pipelines;
mod repository;

use std::fs;

use mongodb::bson::{Document, doc};
use rig::scenario::MIGRATION;
use rig::{Cutover, Declaration, Output, Stage};

use self::repository::Repository;

/// Two deployments, one of them with orders.
async fn filled() -> Stage {
    let stage = Stage::plain().await.unwrap();
    let client = stage.source.client().await.unwrap();
    let orders: Vec<Document> = (0..500).map(|id| doc! { "_id": id, "customer": id % 7 }).collect();
    client.database("shop").collection("orders").insert_many(orders).await.unwrap();
    stage
}

/// The pipeline of a stage's repository.
struct Pipeline {
    stage: Stage,
    repository: Repository,
    cutover: Cutover,
}

impl Pipeline {
    async fn set() -> Self {
        let stage = filled().await;
        let folder = stage.daemon.folder().join("git");
        fs::create_dir(&folder).unwrap();
        let repository = Repository::new(&folder);
        let cutover = Cutover::new(&repository.pipeline).daemon(&stage.daemon);
        Self { stage, repository, cutover }
    }

    /// Proposes a declaration; gives the comment that the pipeline posts.
    async fn proposed(&self, branch: &str, declaration: &Declaration) -> String {
        self.repository.propose(branch, declaration);
        self.repository.check_out(branch);
        let plan = self.cutover.succeed(["plan", "migrations", "--markdown"]).await.unwrap();
        plan.stdout
    }

    /// Merges a branch, applies it as the pipeline of the main branch does, and gives the revision.
    async fn merged(&self, branch: &str, phase: &str) -> String {
        let revision = self.repository.merge(branch);
        self.repository.check_out("main");
        let cutover =
            self.cutover.clone().env("CUTOVER_ACTOR", "grace").env("CUTOVER_REVISION", &revision);
        cutover
            .succeed([
                "apply",
                "migrations",
                "--auto-approve",
                "--wait",
                phase,
                "--timeout",
                "110s",
            ])
            .await
            .unwrap();
        revision
    }

    async fn drift(&self) -> Output {
        self.cutover.run(["drift", "migrations", "--markdown"]).await.unwrap()
    }

    async fn token(&self) -> String {
        let status =
            self.cutover.succeed(["status", MIGRATION, "--json"]).await.unwrap().json().unwrap();
        status["migrations"][0]["acknowledge_token"].as_str().unwrap().to_owned()
    }

    async fn assert_moved(&self) {
        let destination = self.stage.destination.client().await.unwrap();
        let count = destination
            .database("shop")
            .collection::<Document>("orders")
            .count_documents(doc! {})
            .await
            .unwrap();
        assert_eq!(count, 500);
    }
}

#[track_caller]
fn assert_says(comment: &str, words: &[&str]) {
    for word in words {
        assert!(comment.contains(word), "{word:?} is not in\n{comment}");
    }
}

#[tokio::test]
async fn a_migration_is_proposed_merged_acknowledged_and_completed() {
    let pipeline = Pipeline::set().await;
    let declared = pipeline.stage.declaration().text("cutover.window", "48h");

    let comment = pipeline.proposed("migrate-orders", &declared).await;
    assert_says(&comment, &["orders", "will be created", "<details>", "1 to create"]);
    let status = pipeline.cutover.succeed(["status", "--json"]).await.unwrap().json().unwrap();
    assert_eq!(status["migrations"].as_array().map(Vec::len), Some(0), "a proposal starts nothing");
    let started_by = pipeline.merged("migrate-orders", "ready").await;
    let drift = pipeline.drift().await;
    assert_eq!(drift.code, 0, "{drift}");

    let token = pipeline.token().await;
    let acknowledged = declared.text("cutover.acknowledge", &token);
    let comment = pipeline.proposed("cut-over-orders", &acknowledged).await;
    assert_says(&comment, &["orders", "will cut over", "blocks all writes on", &token]);
    assert_eq!(pipeline.token().await, token, "a proposal cuts nothing over");
    let cut_over_by = pipeline.merged("cut-over-orders", "completed").await;

    let status = pipeline.stage.wait_for("completed").await.unwrap();
    let by = status["cutover"]["acknowledged_by"].as_str().unwrap();
    assert!(by.contains("grace") && by.contains(&cut_over_by), "{by}");
    let events = pipeline.cutover.succeed(["events", MIGRATION, "--json"]).await.unwrap();
    assert_says(&events.stdout, &[&started_by, &cut_over_by]);
    let drift = pipeline.drift().await;
    assert_eq!(drift.code, 0, "{drift}");
    let plan = pipeline.cutover.run(["plan", "migrations", "--detailed-exitcode"]).await.unwrap();
    assert_eq!(plan.code, 0, "{plan}");
    pipeline.assert_moved().await;
}

#[tokio::test]
async fn what_somebody_does_by_hand_in_between_is_drift_until_it_is_declared_or_undone() {
    let pipeline = Pipeline::set().await;
    let declared = pipeline.stage.declaration().text("cutover.window", "48h");
    pipeline.proposed("migrate-orders", &declared).await;
    pipeline.merged("migrate-orders", "ready").await;

    pipeline.cutover.succeed(["extend", MIGRATION, "--by", "24h"]).await.unwrap();
    pipeline.cutover.succeed(["pause", MIGRATION]).await.unwrap();
    pipeline.stage.wait_for("paused").await.unwrap();
    let drift = pipeline.drift().await;
    assert_eq!(drift.code, 2, "{drift}");
    assert_says(&drift.stdout, &["paused by hand", "extended by hand", "cutover.extensions = 1"]);

    // The reviewers see it in the next proposal; what is declared is no drift any more, what is not
    // is undone.
    let extended = declared.set("cutover.extensions", 1);
    let comment = pipeline.proposed("declare-the-extension", &extended).await;
    assert_says(
        &comment,
        &["paused by hand", "as it is by hand already", "go on from where it was held"],
    );
    assert!(!comment.contains("extended by hand"), "{comment}");
    pipeline.merged("declare-the-extension", "ready").await;
    let drift = pipeline.drift().await;
    assert_eq!(drift.code, 0, "{drift}");

    let acknowledged = extended.text("cutover.acknowledge", &pipeline.token().await);
    let comment = pipeline.proposed("cut-over-orders", &acknowledged).await;
    assert_says(&comment, &["will cut over"]);
    pipeline.merged("cut-over-orders", "completed").await;
    let drift = pipeline.drift().await;
    assert_eq!(drift.code, 0, "{drift}");
    pipeline.assert_moved().await;
}
