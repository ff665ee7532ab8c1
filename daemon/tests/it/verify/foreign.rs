//! What others write to the destination is found, named and compared; what the run itself writes is
//! not taken for it.

use std::time::Duration;

use anyhow::Result;
use mongodb::bson::{Document, doc};
use rig::workload::{FillOptions, Writer, WriterOptions, fill};

use super::harness::{Pair, named};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_is_named_and_keeps_the_run_from_being_ready_until_it_is_equal()
-> Result<()> {
    let pair = Pair::start().await?;
    let orders = pair.from.database("shop").collection::<Document>("orders");
    orders.insert_many((0..2_000).map(|n| doc! { "_id": n, "a": n })).await?;
    let mut run = pair.run().await?;
    run.until_clean().await?;

    let theirs = pair.to.database("shop").collection::<Document>("orders");
    theirs.update_one(doc! { "_id": 5 }, doc! { "$set": { "a": -5 } }).await?;
    theirs.insert_one(doc! { "_id": "stranger" }).await?;
    theirs.delete_one(doc! { "_id": 6 }).await?;
    // What is not in scope, and what leaves nothing behind.
    pair.to.database("admin").collection::<Document>("aside").insert_one(doc! { "_id": 1 }).await?;
    theirs.insert_one(doc! { "_id": "passing" }).await?;
    theirs.delete_one(doc! { "_id": "passing" }).await?;
    let found = run.mismatches(3).await?;
    assert_eq!(named(&found, "shop.orders"), ["different 5 a", "extra \"stranger\"", "missing 6"]);
    run.until("a foreign write keeps it from being ready", |run| {
        run.blockers.iter().any(|why| why.contains("somebody else to the destination"))
    })
    .await?;
    let progress = run.engine.progress();
    assert_eq!(progress.foreign_writes.open, 3, "{:?}", progress.foreign_writes);
    let written = async |run: &super::harness::Run| -> Result<Vec<String>> {
        let mut written: Vec<String> = run
            .engine
            .foreign_writes(100)
            .await?
            .iter()
            .map(|one| {
                format!("{} {} {}", one.operation, one.id.as_deref().unwrap_or("-"), one.open)
            })
            .collect();
        written.sort();
        Ok(written)
    };
    let all = [
        "delete \"passing\" false",
        "delete 6 true",
        "insert \"passing\" false",
        "insert \"stranger\" true",
        "update 5 true",
    ];
    assert_eq!(written(&run).await?, all);
    run.stop().await;

    // A restart forgets none of it, and finds what was written meanwhile.
    theirs.update_one(doc! { "_id": 7 }, doc! { "$set": { "a": -7 } }).await?;
    let mut run = pair.run().await?;
    let found = run.mismatches(4).await?;
    assert_eq!(
        named(&found, "shop.orders"),
        ["different 5 a", "different 7 a", "extra \"stranger\"", "missing 6"]
    );
    assert_eq!(written(&run).await?, all);

    // Mended: by the source's own change, and by hand.
    orders.update_one(doc! { "_id": 5 }, doc! { "$set": { "a": 55 } }).await?;
    orders.update_one(doc! { "_id": 7 }, doc! { "$set": { "a": 77 } }).await?;
    theirs.delete_one(doc! { "_id": "stranger" }).await?;
    theirs.insert_one(doc! { "_id": 6, "a": 6 }).await?;
    run.until_clean().await?;
    assert_eq!(run.engine.progress().foreign_writes.open, 0);
    assert!(written(&run).await?.iter().all(|one| one.ends_with("false")));

    // A collection that was emptied by a drop is compared anew.
    theirs.drop().await?;
    pair.to.database("shop").create_collection("orders").await?;
    run.until("all documents are missing", |run| {
        run.engine.progress().verification.mismatches >= 2_000
    })
    .await?;
    assert!(
        written(&run).await?.contains(&"drop - true".to_owned())
            || written(&run).await?.contains(&"drop - false".to_owned())
    );
    run.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_run_writes_itself_is_nobody_elses() -> Result<()> {
    let pair = Pair::start().await?;
    fill(&pair.from, &FillOptions { documents: 3_000, ..FillOptions::default() }).await?;
    let writer = Writer::start(
        &pair.from,
        WriterOptions { rate: 500, ddl: true, ..WriterOptions::default() },
    )
    .await?;
    for seconds in [4, 2, 3] {
        let run = pair.run().await?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        run.stop().await;
    }
    writer.stop().await?;
    let mut run = pair.run().await?;
    run.until_clean().await?;
    assert_eq!(run.engine.foreign_writes(100).await?, []);
    assert_eq!(run.engine.progress().proof.foreign_writes, 0);
    assert!(run.engine.progress().proof.documents_compared_again > 0, "the writer was at work");
    run.stop().await;
    Ok(())
}
