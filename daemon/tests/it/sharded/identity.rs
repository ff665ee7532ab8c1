//! A shard that was made anew under its address and its name is another shard.

use anyhow::{Context as _, Result, ensure};
use mongodb::bson::{Document, doc};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};
use schemas::fault::FaultCode;

use super::copy::{fill, spec};
use super::harness::Driven;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_was_made_anew_is_named() -> Result<()> {
    let (mut source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let mut run = Driven::start(spec(&source, destination.uri())).await?;
    run.ready().await?;
    let copied = run.engine.progress().copy.documents_copied;
    run.stop().await;
    run.start_again().await?;
    run.ready().await?;
    run.stop().await;
    source.shard_mut(1).begin_anew().await?;
    let refused =
        run.start_again().await.err().context("it goes on from another shard")?.to_string();
    ensure!(
        refused.contains(FaultCode::OtherDeployment.as_str()) && refused.contains("shard-1"),
        "{refused}"
    );
    let client = destination.client().await?;
    let mut kept = 0;
    for db in client.list_database_names().await? {
        if !["admin", "local", "config", "cutover_internal"].contains(&db.as_str()) {
            for name in client.database(&db).list_collection_names().await? {
                kept += client
                    .database(&db)
                    .collection::<Document>(&name)
                    .count_documents(doc! {})
                    .await?;
            }
        }
    }
    ensure!(kept > 0 && kept >= copied, "{kept} of {copied} documents are left");
    Ok(())
}
