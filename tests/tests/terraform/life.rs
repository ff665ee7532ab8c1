//! One migration's life, as Terraform sees it.

use std::time::Duration;

use serde_json::json;

use crate::scene::{ADDRESS, Scene, ends, says};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_migration_lives_from_its_creation_to_its_end() {
    let scene = Scene::set().await.unwrap();
    let terraform = &scene.terraform;

    // Created, and waited for.
    scene.write("wait_for = \"completed\"", "window = \"48h\"").unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "Plan: 1 to add, 0 to change, 0 to destroy.");
    let applied = terraform.apply().await.unwrap();
    ends(&applied, 0);
    let state = terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(state["phase"], "ready", "{state:#}");
    assert_eq!(state["id"], "shop/orders");
    assert_eq!(state["ready"], json!({"value": true, "reasons": []}));
    let token = state["acknowledge_token"].as_str().unwrap().to_owned();
    let run = state["run"].as_str().unwrap().to_owned();

    // Nothing differs now, nor does another word for the same. Nor does a refresh, whatever is
    // measured by then.
    ends(&terraform.plan().await.unwrap(), 0);
    for _ in 0..2 {
        let refreshed = terraform
            .run(["plan", "-refresh-only", "-detailed-exitcode", "-out=refreshed.tfplan"])
            .await
            .unwrap();
        if refreshed.code != 0 {
            let shown = terraform
                .succeed(["show", "-json", "refreshed.tfplan"])
                .await
                .unwrap()
                .json()
                .unwrap();
            let after = &shown["prior_state"]["values"]["root_module"]["resources"][0]["values"];
            panic!("from {state:#}\nto {after:#}\n{refreshed}");
        }
    }
    scene.write("wait_for = \"completed\"\n  paused = false", "window = \"2d\"").unwrap();
    ends(&terraform.plan().await.unwrap(), 0);

    // An edit in place.
    scene.write("wait_for = \"completed\"", "window = \"72h\"").unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "Plan: 0 to add, 1 to change, 0 to destroy.");
    says(&planned, "\"48h\" -> \"72h\"");
    ends(&terraform.apply().await.unwrap(), 0);
    ends(&terraform.plan().await.unwrap(), 0);
    let state = terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(state["run"], json!(run));
    let newer = state["acknowledge_token"].as_str().unwrap().to_owned();
    assert_ne!(newer, token, "a token fits one declaration");

    // What a run is built on changes with a new one alone.
    let other = scene
        .module("", "")
        .replace("  cutover {", "  namespaces {\n    include = [\"x.*\"]\n  }\n  cutover {");
    terraform.write("main.tf", &other).unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "[CUT0034]");
    says(&planned, "generation = 2");

    // A hold by hand shows as a change, and an apply undoes it; an extension by hand is reported.
    scene.write("wait_for = \"completed\"", "window = \"72h\"").unwrap();
    scene.cutover.succeed(["pause", "orders", "--workspace", "shop"]).await.unwrap();
    scene
        .cutover
        .succeed(["extend", "orders", "--workspace", "shop", "--by", "24h"])
        .await
        .unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "paused by hand");
    says(&planned, "was extended by hand by 24 h");
    says(&planned, "orders will go on");
    says(&planned, "Plan: 0 to add, 1 to change, 0 to destroy.");
    ends(&terraform.apply().await.unwrap(), 0);
    let state = terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(
        (&state["phase"], &state["window"]["extensions"]),
        (&json!("ready"), &json!(1)),
        "{state:#}"
    );

    // A stale token is refused by the plan.
    scene
        .write(
            "wait_for = \"completed\"",
            &format!("window = \"72h\"\n    acknowledge = {token:?}"),
        )
        .unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "[CUT0022]");
    says(&planned, "acknowledge = ");

    // The run's own token cuts over.
    let token = state["acknowledge_token"].as_str().unwrap();
    scene
        .write(
            "wait_for = \"completed\"",
            &format!("window = \"72h\"\n    acknowledge = {token:?}"),
        )
        .unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "orders will cut over");
    says(&planned, "blocks all writes on");
    ends(&terraform.apply().await.unwrap(), 0);
    let state = terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(
        (&state["phase"], &state["destination_writable"]),
        (&json!("completed"), &json!(true)),
        "{state:#}"
    );
    ends(&terraform.plan().await.unwrap(), 0);

    // Imported into an empty state, it differs in nothing.
    std::fs::remove_file(terraform.folder().join("terraform.tfstate")).unwrap();
    ends(&terraform.run(["import", ADDRESS, "shop/orders"]).await.unwrap(), 0);
    let planned = terraform.plan().await.unwrap();
    says(&planned, "wait_for");
    let without = format!("window = \"72h\"\n    acknowledge = {token:?}");
    scene.write("", &without).unwrap();
    ends(&terraform.plan().await.unwrap(), 0);
    let unknown =
        terraform.run(["import", "cutover_migration.other", "elsewhere/orders"]).await.unwrap();
    ends(&unknown, 1);

    // Destroyed, it is forgotten: it was completed.
    let destroyed = terraform.run(["destroy", "-auto-approve"]).await.unwrap();
    ends(&destroyed, 0);
    says(&destroyed, "orders will be forgotten");
    let status = scene.cutover.succeed(["status", "--json"]).await.unwrap().json().unwrap();
    assert_eq!(status["migrations"], json!([]));
    let client = scene.destination.client().await.unwrap();
    let copied = client.database("shop").collection::<mongodb::bson::Document>("orders");
    assert_eq!(copied.count_documents(mongodb::bson::doc! {}).await.unwrap(), 500);
}

#[tokio::test]
async fn a_new_generation_replaces_the_run_and_lists_what_it_drops() {
    let scene = Scene::set().await.unwrap();
    let terraform = &scene.terraform;
    scene.write("wait_for = \"ready\"", "").unwrap();
    ends(&terraform.apply().await.unwrap(), 0);
    let first = terraform.attributes(ADDRESS).await.unwrap();

    scene.write("wait_for = \"ready\"\n  generation = 2", "").unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "Plan: 1 to add, 0 to change, 1 to destroy.");
    says(&planned, "generation = 1 -> 2 # forces replacement");
    says(&planned, "drops 1 collection on the destination");
    says(&planned, "shop.orders");
    ends(&terraform.apply().await.unwrap(), 0);
    let second = terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(
        (&second["generation"], &second["phase"]),
        (&json!(2), &json!("ready")),
        "{second:#}"
    );
    assert_ne!(first["run"], second["run"]);
    ends(&terraform.plan().await.unwrap(), 0);

    // A generation that was raised already is not lowered.
    scene.write("wait_for = \"ready\"\n  generation = 1", "").unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "generation cannot be lowered from 2 to 1");

    // A removed resource cancels its run; what was copied stays.
    terraform.write("main.tf", &crate::scene::provider(&scene.daemon.endpoint())).unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "orders will be cancelled");
    ends(&terraform.apply().await.unwrap(), 0);
    scene.cutover.wait_for_phase("orders", "cancelled", PATIENCE).await.unwrap();

    // Declared again, it needs another generation, as it does for the command line.
    scene.write("wait_for = \"ready\"\n  generation = 2", "").unwrap();
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "Write generation = 3 to run again from scratch");
    scene.write("wait_for = \"ready\"\n  generation = 3", "").unwrap();
    ends(&terraform.apply().await.unwrap(), 0);
    assert_eq!(terraform.attributes(ADDRESS).await.unwrap()["phase"], "ready");
}

#[tokio::test]
async fn what_is_dropped_is_listed_and_held_to() {
    let scene = Scene::set().await.unwrap();
    let terraform = &scene.terraform;
    let client = scene.destination.client().await.unwrap();
    client
        .database("shop")
        .collection("orders")
        .insert_one(mongodb::bson::doc! { "old": true })
        .await
        .unwrap();
    let write = |name: &str, head: &str, cutover: &str, existing_data: &str| {
        let module =
            scene.module(head, cutover).replace("name = \"orders\"", &format!("name = {name:?}"));
        let module = module.replace(
            "destination {",
            &format!("destination {{\n    existing_data = {existing_data:?}"),
        );
        terraform.write("main.tf", &module).unwrap();
    };
    write("orders", "wait_for = \"completed\"", "", "refuse");
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 1);
    says(&planned, "[CUT0018]");

    write("orders", "wait_for = \"completed\"", "", "drop");
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "drops 1 collection on the destination: shop.orders");
    says(&planned, "+ drops = [ + \"shop.orders\", ]");
    // What has come since is in no plan that was approved.
    ends(&terraform.run(["plan", "-out=saved.tfplan"]).await.unwrap(), 0);
    client
        .database("shop")
        .collection("more")
        .insert_one(mongodb::bson::doc! { "old": true })
        .await
        .unwrap();
    let source = scene.source.client().await.unwrap();
    source.database("shop").collection("more").insert_one(mongodb::bson::doc! {}).await.unwrap();
    let applied = terraform.run(["apply", "saved.tfplan"]).await.unwrap();
    ends(&applied, 1);
    says(&applied, "drops");
    ends(&terraform.apply().await.unwrap(), 0);
    let state = terraform.attributes(ADDRESS).await.unwrap();
    assert_eq!(
        (&state["drops"], &state["phase"]),
        (&json!(["shop.more", "shop.orders"]), &json!("ready")),
        "{state:#}"
    );
    ends(&terraform.plan().await.unwrap(), 0);

    // A completed migration can be run again, and the plan says what that throws away.
    let acknowledge = format!("acknowledge = {}", state["acknowledge_token"]);
    write("orders", "wait_for = \"completed\"", &acknowledge, "drop");
    ends(&terraform.apply().await.unwrap(), 0);
    assert_eq!(terraform.attributes(ADDRESS).await.unwrap()["phase"], "completed");
    write("orders", "wait_for = \"completed\"\n  generation = 2", "", "drop");
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "throws away a completed migration");
    ends(&terraform.apply().await.unwrap(), 0);
    assert_eq!(terraform.attributes(ADDRESS).await.unwrap()["phase"], "ready");

    // Another name is another migration: the old one is cancelled first.
    write("renamed", "wait_for = \"completed\"", "", "drop");
    let planned = terraform.plan().await.unwrap();
    ends(&planned, 2);
    says(&planned, "\"orders\" -> \"renamed\" # forces replacement");
    says(&planned, "orders will be cancelled");
    ends(&terraform.apply().await.unwrap(), 0);
    assert_eq!(terraform.attributes(ADDRESS).await.unwrap()["id"], "shop/renamed");
    assert_eq!(scene.cutover.status("orders").await.unwrap()["phase"], "cancelled");
}
