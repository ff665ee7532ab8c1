//! Collections that go on the source while the tail has still to come there: what is compared
//! meanwhile is no mismatch.

use anyhow::{Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::bson::{DateTime, doc};

use super::harness::Pair;

/// A server has no snapshot of a collection that is gone, and answers as if there had been none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_what_is_gone_on_the_source_by_now_are_no_mismatch() -> Result<()> {
    let pair = Pair::start().await?;
    let shop = pair.from.database("shop");
    shop.run_command(doc! { "create": "series", "timeseries": { "timeField": "t" } }).await?;
    for name in ["dropped", "renamed", "over"] {
        shop.run_command(doc! { "insert": name, "documents": [{ "_id": 0 }] }).await?;
    }
    let mut run = pair.run_with(Tuning { reply_events: 1, ..Tuning::default() }).await?;
    run.until_clean().await?;
    // Each event comes by itself, and there is time to compare what it has changed.
    let data = doc! {
        "failCommands": ["getMore"], "appName": "cutover", "blockConnection": true,
        "blockTimeMS": 400,
    };
    let slowly = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data };
    pair.from.database("admin").run_command(slowly).await?;
    shop.run_command(doc! { "insert": "series", "documents": [{ "t": DateTime::now(), "n": 1 }] })
        .await?;
    for name in ["dropped", "renamed", "over"] {
        shop.run_command(doc! { "insert": name, "documents": [{ "_id": name }] }).await?;
    }
    shop.run_command(doc! { "drop": "series" }).await?;
    shop.run_command(doc! { "drop": "dropped" }).await?;
    let rename = doc! { "renameCollection": "shop.renamed", "to": "shop.over", "dropTarget": true };
    pair.from.database("admin").run_command(rename).await?;
    let there = pair.to.database("shop");
    while there.list_collection_names().await?.iter().any(|name| name == "renamed") {
        run.look().await?;
        ensure!(
            run.engine.progress().proof.mismatches_found == 0,
            "{:?}",
            run.engine.mismatches(10).await?
        );
    }
    pair.from
        .database("admin")
        .run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" })
        .await?;
    run.until_clean().await?;
    ensure!(
        run.engine.progress().proof.mismatches_found == 0,
        "{:?}",
        run.engine.mismatches(10).await?
    );
    run.stop().await;
    Ok(())
}
