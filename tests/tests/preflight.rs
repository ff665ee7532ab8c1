//! Live checks that fail, or tell, for a reason of their own; those of reaching a side, of privileges, of what is there and of what
//! cannot be carried are held elsewhere.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use mongodb::bson::doc;
use rig::stage::MIGRATION;
use rig::{Cutover, Stage};
use serde_json::Value;

/// The checks of `cutover preflight --json`, by name: outcome, message and code.
async fn checks(cutover: &Cutover) -> (i32, Vec<(String, String, String, Value)>) {
    let output = cutover.run(["preflight", "--json"]).await.unwrap();
    let document = output.json().unwrap();
    let migration = document["preflight"].as_array().unwrap().iter().find(|one| one["migration"] == MIGRATION).unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = migration["checks"].as_array().unwrap().iter();
    let checks = checks.map(|one| (text(&one["name"]), text(&one["outcome"]), text(&one["message"]), one["code"].clone()));
    (output.code, checks.collect())
}

#[tokio::test]
async fn what_is_around_the_data_is_checked() {
    let stage = Stage::plain().await.unwrap();
    let source = stage.source.client().await.unwrap();
    source.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    stage.declaration().write(stage.folder()).unwrap();
    let (code, all) = checks(&stage.cutover).await;
    assert_eq!(code, 0, "{all:#?}");
    for (name, words) in [
        ("feature_compatibility", "6.0 on the source, 6.0 on the destination"),
        ("clock_skew", "agree"),
        ("addresses", "the source sees this daemon at 127.0.0.1, the destination at 127.0.0.1"),
        ("destination_disk", "free"),
    ] {
        let check = all.iter().find(|check| check.0 == name).unwrap_or_else(|| panic!("{name} is not among {all:#?}"));
        assert!(check.1 == "ok" && check.2.contains(words), "{check:?}");
    }

    let destination = stage.destination.client().await.unwrap();
    let lower = |to: &str| doc! { "setFeatureCompatibilityVersion": to };
    destination.database("admin").run_command(lower("5.0")).await.unwrap();
    let (code, all) = checks(&stage.cutover).await;
    let failed: Vec<_> = all.iter().filter(|check| check.1 == "fail").collect();
    assert!(code == 1 && failed.len() == 1, "{all:#?}");
    assert!(failed[0].0 == "feature_compatibility" && failed[0].3 == "CUT0020", "{failed:?}");
    assert!(failed[0].2.contains("is 5.0, below the source's 6.0"), "{failed:?}");
    let apply = stage.cutover.run(["apply", "--auto-approve"]).await.unwrap();
    assert!(apply.code == 1 && apply.stderr.contains("CUT0020"), "{apply}");
    destination.database("admin").run_command(lower("6.0")).await.unwrap();
    assert_eq!(checks(&stage.cutover).await.0, 0);
}
