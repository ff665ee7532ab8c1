//! Transactions over shards, whose parts all have one cluster time.

use anyhow::{Result, ensure};
use mongodb::bson::{Document, doc};
use rig::compare::{Scope, compare};
use rig::{ClusterOptions, Options, ReplicaSet, ShardedCluster};

use super::copy::{fill, spec};
use super::harness::Driven;

/// A document that is put on one shard, changed there and put on another is reported by both, and
/// which of them came first is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_goes_from_shard_to_shard_in_one_transaction_arrives_as_it_ends()
-> Result<()> {
    let (source, destination) = tokio::try_join!(
        ShardedCluster::start(ClusterOptions::shards(3)),
        ReplicaSet::start(Options::default())
    )?;
    fill(&source).await?;
    let client = source.client().await?;
    let ranged = client.database("shop").collection::<Document>("ranged");
    // 120 lies on the first shard, 450 on the second, 220 on the third: each way between two, since
    // the one is heard before the other.
    let ways = [(120, 450), (450, 120), (120, 220), (220, 120), (450, 220), (220, 450)];
    for (from, to) in ways {
        ranged
            .insert_one(
                doc! { "_id": format!("moves {from} {to}"), "a": from, "b": "b", "list": [1] },
            )
            .await?;
    }
    let mut run = Driven::start(spec(&source, destination.uri())).await?;
    run.ready().await?;
    for (from, to) in ways {
        let mut session = client.start_session().await?;
        session.start_transaction().await?;
        let id = format!("comes {from} {to}");
        ranged.insert_one(doc! { "_id": &id, "a": from, "b": "b" }).session(&mut session).await?;
        ranged.delete_one(doc! { "_id": &id, "a": from, "b": "b" }).session(&mut session).await?;
        ranged.insert_one(doc! { "_id": &id, "a": to, "b": "b" }).session(&mut session).await?;
        let of = doc! { "_id": format!("moves {from} {to}"), "a": from, "b": "b" };
        ranged
            .update_one(of.clone(), doc! { "$push": { "list": 2 } })
            .session(&mut session)
            .await?;
        ranged.update_one(of, doc! { "$set": { "a": to } }).session(&mut session).await?;
        session.commit_transaction().await?;
    }
    run.cut_over().await?;
    let report = compare(&client, &destination.client().await?, &Scope::default()).await?;
    ensure!(report.is_equal(), "{report}");
    Ok(())
}
