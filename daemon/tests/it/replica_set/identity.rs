//! A deployment that is another one than the run began with, or an earlier state of it, is an error
//! by name: nothing is dropped by it, and no cutover goes on from there. What only looks so from
//! afar is none.

use anyhow::{Context as _, Result, ensure};
use mongodb::bson::{Document, doc};
use rig::replica_set::Options;
use schemas::fault::{Fault, FaultCode};

use super::harness::{Pair, Run, insert, run};

const DOCUMENTS: i32 = 300;

async fn fill(pair: &Pair, from: i32) -> Result<()> {
    let documents: Vec<_> = (from..from + DOCUMENTS)
        .map(|n| mongodb::bson::rawdoc! { "_id": n, "text": "x" })
        .collect();
    insert(&pair.from, "shop", "orders", &documents).await
}

async fn arrived(pair: &Pair) -> Result<u64> {
    Ok(pair.to.database("shop").collection::<Document>("orders").count_documents(doc! {}).await?)
}

fn is_other(fault: &Fault, words: &str) -> Result<()> {
    ensure!(
        fault.code == FaultCode::OtherDeployment
            && !fault.retryable
            && fault.message.contains(words),
        "{fault}"
    );
    Ok(())
}

/// A run that is started again says so at once.
async fn is_refused(sync: &mut Run, words: &str) -> Result<()> {
    let refused = sync.kill().await.err().context("it starts")?.to_string();
    ensure!(refused.contains("CUT0056") && refused.contains(words), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_was_made_anew_takes_nothing_from_the_destination() -> Result<()> {
    let mut pair = Pair::start_with(
        Options { name: "rs-source".into(), ..Options::default() },
        Options::default(),
    )
    .await?;
    fill(&pair, 0).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;

    // What is the same deployment for all that: an election, and a new version of its
    // configuration.
    pair.source.step_down(1).await?;
    pair.source.primary().await?;
    let mut config = run(&pair.from, "admin", doc! { "replSetGetConfig": 1 })
        .await?
        .get_document("config")?
        .clone();
    config.insert("version", config.get_i32("version")? + 1);
    config.get_array_mut("members")?[0]
        .as_document_mut()
        .context("a member")?
        .insert("priority", 2);
    run(&pair.from, "admin", doc! { "replSetReconfig": config }).await?;
    fill(&pair, 1_000).await?;
    sync.caught_up().await?;
    sync.restart().await?;
    sync.caught_up().await?;

    // Its volume is lost while the run follows it.
    pair.source.begin_anew().await?;
    is_other(&sync.end().await?, "replica set id")?;
    let refused = sync.engine().prepare_cutover().await.err().context("it prepares a cutover")?;
    is_other(&refused, "the source")?;
    is_other(
        &sync.engine().block_source().await.err().context("it blocks another source")?,
        "the source",
    )?;
    ensure!(
        sync.engine().drain().await.is_err() && sync.engine().restore_settings().await.is_err(),
        "it goes on"
    );
    ensure!(
        sync.engine().resume_point_held().await.is_err(),
        "another source holds what comes next"
    );
    is_refused(&mut sync, "replica set id").await?;
    ensure!(arrived(&pair).await? == 2 * DOCUMENTS as u64, "the destination has lost its copy");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_before_is_told_on_either_side() -> Result<()> {
    let mut pair = Pair::start().await?;
    fill(&pair, 0).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    sync.stop().await?;
    pair.source.take_snapshot().await?;
    pair.destination.take_snapshot().await?;
    sync.restart().await?;
    fill(&pair, 1_000).await?;
    sync.caught_up().await?;
    sync.stop().await?;

    // With the source's older state, and writes since, the destination has what the source has not.
    pair.source.restore_snapshot().await?;
    fill(&pair, 2_000).await?;
    is_refused(&mut sync, "the source").await?;
    ensure!(arrived(&pair).await? == 2 * DOCUMENTS as u64, "the destination has lost something");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_lacks_what_was_written_is_told() -> Result<()> {
    let mut pair = Pair::start().await?;
    fill(&pair, 0).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    sync.stop().await?;
    pair.destination.take_snapshot().await?;
    sync.restart().await?;
    fill(&pair, 1_000).await?;
    sync.caught_up().await?;
    sync.stop().await?;
    pair.destination.restore_snapshot().await?;
    is_refused(&mut sync, "the destination").await?;

    // One that was made anew in the middle of a run, also where the driver gets over it.
    pair.clear().await?;
    fill(&pair, 0).await?;
    let mut sync = Run::start(&pair).await?;
    sync.caught_up().await?;
    pair.destination.begin_anew().await?;
    is_other(&sync.end().await?, "the destination")?;
    is_refused(&mut sync, "the destination").await
}
