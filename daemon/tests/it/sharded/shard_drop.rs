//! What is written to one shard while a collection is being dropped on the others.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mongodb::bson::{Document, doc};
use mongodb::{Client, ClientSession};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};

use super::copy::{fill, spec};
use super::harness::Driven;

/// Waits until a shard has a collection no more.
async fn until_gone(shard: &Client, collection: &str) -> Result<()> {
    let began = Instant::now();
    while shard
        .database("shop")
        .list_collection_names()
        .await?
        .iter()
        .any(|name| name == collection)
    {
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "the first shard does not let {collection} go"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Commits a transaction at a time later than all that another shard has reported.
async fn commit_after(other: &Client, session: &mut ClientSession) -> Result<()> {
    // The shards' clocks are their own until somebody tells them of each other's.
    let mut seen = other.start_session().await?;
    other.database("admin").run_command(doc! { "ping": 1 }).session(&mut seen).await?;
    session.advance_cluster_time(seen.cluster_time().context("a time")?);
    Ok(session.commit_transaction().await?)
}

/// One shard's stream reports that the collection is gone, another's of a document that came
/// afterwards, by a transaction that it waits for, and only then that it is gone there, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shard_takes_before_it_drops_a_collection_goes_with_it() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let mut run = Driven::start(spec(&source, destination.uri())).await?;
    run.ready().await?;
    // Not the primary shard of its database, which is the last one.
    let (early, late) = (source.shards()[0].client().await?, source.shards()[1].client().await?);
    let mut session = late.start_session().await?;
    session.start_transaction().await?;
    let ranged = late.database("shop").collection::<Document>("ranged");
    // Its own by the chunks.
    ranged.insert_one(doc! { "_id": "late", "a": 450, "b": "late" }).session(&mut session).await?;
    let shop = source.client().await?.database("shop");
    let dropping = shop.clone();
    let dropping =
        tokio::spawn(async move { dropping.run_command(doc! { "drop": "ranged" }).await });
    until_gone(&early, "ranged").await?;
    commit_after(&early, &mut session).await?;
    dropping.await??;
    // What takes the name has nothing of what had it.
    shop.collection::<Document>("ranged").insert_one(doc! { "_id": "new" }).await?;
    run.cut_over().await?;
    let to = destination.client().await?;
    let report = compare(&source.client().await?, &to, &Scope::default()).await?;
    ensure!(report.is_equal(), "{report}");
    let carried =
        to.database("shop").collection::<Document>("ranged").count_documents(doc! {}).await?;
    ensure!(carried == 1, "{carried} documents");
    Ok(())
}

/// One shard's stream reports that a collection was renamed over another one, and another's only
/// then of documents of both, by a transaction that it waits for: those of the one are carried on
/// under its new name, and those of the other are nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shard_takes_before_it_renames_a_collection_goes_where_it_belongs() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let mut run = Driven::start(spec(&source, destination.uri())).await?;
    run.ready().await?;
    let (early, late) = (source.shards()[0].client().await?, source.shards()[1].client().await?);
    let on_late = late.database("shop");
    let (hashed, ranged) =
        (on_late.collection::<Document>("hashed"), on_late.collection::<Document>("ranged"));
    // What the shard has of what is renamed, by the hash of its `_id`; and two more that are
    // somewhere, none of which is changed.
    let of_late = hashed.find_one(doc! {}).await?.context("a document")?.get_i32("_id")?;
    let mut session = late.start_session().await?;
    session.start_transaction().await?;
    hashed
        .update_one(doc! { "_id": of_late }, doc! { "$set": { "late": true } })
        .session(&mut session)
        .await?;
    ranged.insert_one(doc! { "_id": "late", "a": 450, "b": "late" }).session(&mut session).await?;
    ranged
        .update_one(doc! { "_id": 450 }, doc! { "$set": { "old": true } })
        .session(&mut session)
        .await?;
    ranged.delete_one(doc! { "_id": 451 }).session(&mut session).await?;
    let renaming = source.client().await?;
    let renaming = tokio::spawn(async move {
        let rename =
            doc! { "renameCollection": "shop.hashed", "to": "shop.ranged", "dropTarget": true };
        renaming.database("admin").run_command(rename).await
    });
    until_gone(&early, "hashed").await?;
    commit_after(&early, &mut session).await?;
    renaming.await??;
    run.cut_over().await?;
    let to = destination.client().await?;
    let report = compare(&source.client().await?, &to, &Scope::default()).await?;
    ensure!(report.is_equal(), "{report}");
    let carried = to.database("shop").collection::<Document>("ranged");
    ensure!(
        carried.count_documents(doc! { "late": true }).await? == 1,
        "what was renamed was changed"
    );
    ensure!(
        carried.count_documents(doc! { "$or": [{ "_id": "late" }, { "old": true }] }).await? == 0,
        "it was replaced"
    );
    Ok(())
}
