//! Options of sharded collections whose databases' primary shards hold none of them: what changes
//! there is not told to the primary shard, which is the one whose options a router lists.

use anyhow::Result;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, ShardedCluster};
use schemas::spec::{SourceWrites, VerifyMode};

use super::copy::{fill, spec};
use super::harness::Driven;

/// Moves all of `shop.ranged` to another shard than the primary one of its database.
async fn move_off_primary(cluster: &ShardedCluster) -> Result<()> {
    let client = cluster.client().await?;
    let config = client.database("config");
    let home = config
        .collection::<Document>("databases")
        .find_one(doc! { "_id": "shop" })
        .await?
        .unwrap_or_default();
    let primary = home.get_str("primary")?;
    let other = usize::from(cluster.shards()[0].name() == primary);
    for chunk in cluster.chunks("shop.ranged").await? {
        if chunk.get_str("shard")? == primary {
            cluster.move_range("shop.ranged", chunk.get_document("min")?.clone(), other).await?;
        }
    }
    Ok(())
}

/// The lowest `a` that the collection's validator asks for, as the router lists it.
async fn listed(cluster: &ShardedCluster) -> Result<Option<i32>> {
    let list = doc! { "listCollections": 1, "filter": { "name": "ranged" } };
    let mut entries = cluster.client().await?.database("shop").run_cursor_command(list).await?;
    assert!(entries.advance().await?);
    let entry = entries.deserialize_current()?;
    let validator = entry.get_document("options")?.get_document("validator");
    Ok(validator.ok().and_then(|validator| validator.get_document("a").ok()?.get_i32("$gte").ok()))
}

async fn ask_for(cluster: &ShardedCluster, lowest: i32) -> Result<()> {
    let change = doc! {
        "collMod": "ranged", "validator": { "a": { "$gte": lowest } }, "validationAction": "warn",
    };
    cluster.client().await?.database("shop").run_command(change).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_shards_with_the_documents_have_counts() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ShardedCluster::start(ClusterOptions::shards(2))
    )?;
    fill(&source).await?;
    move_off_primary(&source).await?;
    ask_for(&source, -1).await?;
    assert_eq!(
        listed(&source).await?,
        None,
        "the servers tell more than they did: is all of this still needed?"
    );
    let mut spec = spec(&source, destination.uri());
    spec.verify.mode = VerifyMode::Full;
    spec.cutover.source_writes = SourceWrites::Block;
    let mut run = Driven::start(spec.clone()).await?;
    run.ready().await?;
    move_off_primary(&destination).await?;
    ask_for(&source, -2).await?;
    run.cut_over().await?;
    let report =
        compare(&source.client().await?, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    // The comparison itself looks at the right place.
    assert_eq!((listed(&source).await?, listed(&destination).await?), (None, Some(-1)));
    ask_for(&destination, -3).await?;
    let report =
        compare(&source.client().await?, &destination.client().await?, &Scope::default()).await?;
    assert!(!report.is_equal() && report.to_string().contains("validator"), "{report}");
    Ok(())
}
