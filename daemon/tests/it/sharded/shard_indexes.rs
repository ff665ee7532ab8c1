//! Indexes that only some of the source's shards have: they show before the copy, before a run is
//! ready, and before the source is blocked.

use anyhow::{Context as _, Result};
use daemon::engine::{Ours, preflight};
use daemon::memory::Memory;
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::fault::FaultCode;
use schemas::observed::{Check, Outcome};
use schemas::spec::{IndexBuild, MigrationSpec, SourceWrites};

use super::copy::{fill, spec};
use super::harness::Driven;

/// The shards that have an index of `shop.ranged`.
async fn having(source: &ShardedCluster, index: &str) -> Result<Vec<String>> {
    let mut having = Vec::new();
    for shard in source.shards() {
        let ranged = shard.client().await?.database("shop").collection::<Document>("ranged");
        if ranged.list_index_names().await?.iter().any(|name| name == index) {
            having.push(shard.name().to_owned());
        }
    }
    Ok(having)
}

/// Drops the indexes that `shard-1` has refused.
async fn even_out(source: &ShardedCluster, indexes: &[&str]) -> Result<()> {
    for shard in source.shards().iter().filter(|shard| shard.name() != "shard-1") {
        for index in indexes {
            shard
                .client()
                .await?
                .database("shop")
                .run_command(doc! { "dropIndexes": "ranged", "index": *index })
                .await?;
        }
    }
    Ok(())
}

async fn looked_at(spec: &MigrationSpec) -> Result<Check> {
    let inspection = preflight::inspect(spec, &Ours::default(), &Memory::default()).await;
    inspection
        .checks
        .into_iter()
        .find(|check| check.name == "indexes_of_shards")
        .context("the check")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_a_shard_refused_keeps_the_source_open() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let client = source.client().await?;
    let db = client.database("shop");
    let mut spec = spec(&source, destination.uri());
    spec.cutover.source_writes = SourceWrites::Block;
    assert_eq!(looked_at(&spec).await?.outcome, Outcome::Ok);
    let mut run = Driven::start(spec.clone()).await?;
    run.ready().await?;
    // One shard has an array where the index would hash.
    db.collection::<Document>("ranged")
        .update_one(doc! { "a": 450, "b": "450" }, doc! { "$set": { "tags": [1, 2] } })
        .await?;
    let index = doc! { "key": { "tags": "hashed" }, "name": "tags_hashed" };
    let refused = db.run_command(doc! { "createIndexes": "ranged", "indexes": [index] }).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(having(&source, "tags_hashed").await?, ["shard-0", "shard-2"]);

    let told =
        "CUT0063: index tags_hashed of shop.ranged is on shard-0, shard-2, and not on shard-1";
    run.blocked_by(told).await?;
    let fault = run.engine.prepare_cutover().await.err().context("it cannot succeed")?;
    assert_eq!((fault.code, fault.to_string().as_str()), (FaultCode::IndexUneven, told));
    assert!(!fault.retryable && fault.remedy.contains("mongos"), "{fault:?}");
    let check = looked_at(&spec).await?;
    assert_eq!(check.outcome, Outcome::Warn, "the run may begin: {check:?}");
    assert!(
        check.message.contains("tags_hashed") && check.message.contains("shard-1"),
        "{check:?}"
    );
    db.collection("plain")
        .insert_one(doc! { "_id": "open" })
        .await
        .context("the source takes writes")?;

    // Mended as an operator would.
    even_out(&source, &["tags_hashed"]).await?;
    run.ready().await?;
    run.cut_over().await?;
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_the_destination_has_may_be_lacking_on_a_shard() -> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let client = source.client().await?;
    let index = doc! { "key": { "b": 1 }, "name": "b_1" };
    let shards = source.shards();
    // Built shard by shard, and not everywhere yet; the router reports the indexes of the first.
    for shard in &shards[..2] {
        shard
            .client()
            .await?
            .database("shop")
            .run_command(doc! { "createIndexes": "ranged", "indexes": [&index] })
            .await?;
    }
    let mut spec = spec(&source, destination.uri());
    spec.cutover.source_writes = SourceWrites::Block;
    assert_eq!(looked_at(&spec).await?.outcome, Outcome::Warn);
    // What two shards make of one name is nothing that a destination can have.
    let otherwise = doc! { "key": { "b": -1 }, "name": "b_1" };
    let third = shards[2].client().await?.database("shop");
    third.run_command(doc! { "createIndexes": "ranged", "indexes": [otherwise] }).await?;
    let check = looked_at(&spec).await?;
    assert_eq!(
        (check.outcome, check.code),
        (Outcome::Fail, Some(FaultCode::IndexUneven)),
        "{check:?}"
    );
    third.run_command(doc! { "dropIndexes": "ranged", "index": "b_1" }).await?;
    // What a shard refused is held by no destination, also not where indexes are built before the
    // copy.
    let db = client.database("shop");
    let unfit = doc! { "$set": { "tags": [1, 2], "words": "some" } };
    db.collection::<Document>("ranged").update_one(doc! { "a": 450, "b": "450" }, unfit).await?;
    // Each kind of index says in a way of its own that it cannot hold a document.
    for index in [
        doc! { "key": { "tags": "hashed" }, "name": "tags_hashed" },
        doc! { "key": { "tags": 1, "words": "text" }, "name": "words_text" },
    ] {
        let refused = db.run_command(doc! { "createIndexes": "ranged", "indexes": [index] }).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    let told = "CUT0063: index tags_hashed of shop.ranged is on shard-0, shard-2, and not on \
         shard-1; index words_text";
    for indexes in [IndexBuild::AfterCopy, IndexBuild::BeforeCopy] {
        spec.copy.indexes = indexes;
        let mut run = Driven::start(spec.clone()).await?;
        run.blocked_by(told).await.with_context(|| format!("{indexes:?}"))?;
        run.stop().await;
        let theirs = destination.client().await?;
        for db in ["shop", "cutover_internal"] {
            theirs.database(db).drop().await?;
        }
    }
    let mut run = Driven::start(spec).await?;
    run.blocked_by(told).await?;
    // The run goes on by itself.
    even_out(&source, &["tags_hashed", "words_text"]).await?;
    run.ready().await?;
    run.cut_over().await?;
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    assert!(report.is_equal(), "{report}");
    Ok(())
}
