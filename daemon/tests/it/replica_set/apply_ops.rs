//! What an atomic `applyOps` writes on the source is reported by no change stream, and arrives all
//! the same.

use anyhow::{Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::bson::{Document, doc};

use super::harness::{Pair, Run, run, tiny};

async fn apply(pair: &Pair, operations: Vec<Document>) -> Result<()> {
    let reply = run(&pair.from, "admin", doc! { "applyOps": operations }).await?;
    ensure!(
        reply.get_array("results")?.iter().all(|result| result.as_bool() == Some(true)),
        "{reply}"
    );
    Ok(())
}

/// One of each kind, in two collections, between ordinary writes of the same documents.
async fn write(pair: &Pair, from: i32) -> Result<()> {
    let insert = |n: i32| doc! { "op": "i", "ns": "shop.a", "o": { "_id": n, "by": "applyOps" } };
    let documents: Vec<Document> = (from..from + 6).map(|n| doc! { "_id": n, "n": 1 }).collect();
    run(&pair.from, "shop", doc! { "insert": "b", "documents": documents }).await?;
    apply(
        pair,
        vec![
            insert(from),
            insert(from + 1),
            doc! {
                "op": "u", "ns": "shop.b", "o2": { "_id": from },
                "o": { "$v": 2, "diff": { "u": { "n": 2 } } },
            },
            doc! {
                "op": "u", "ns": "shop.b", "o2": { "_id": from + 1 },
                "o": { "_id": from + 1, "replaced": true },
            },
            doc! { "op": "d", "ns": "shop.b", "o": { "_id": from + 2 } },
            doc! { "op": "d", "ns": "shop.b", "o": { "_id": from + 3 } },
        ],
    )
    .await?;
    // Back again, and changed once more.
    run(
        &pair.from,
        "shop",
        doc! { "insert": "b", "documents": [{ "_id": from + 3, "again": true }] },
    )
    .await?;
    run(
        &pair.from,
        "shop",
        doc! { "update": "a", "updates": [{ "q": { "_id": from }, "u": { "$set": { "n": 3 } } }] },
    )
    .await?;
    apply(
        pair,
        vec![doc! { "op": "d", "ns": "shop.a", "o": { "_id": from + 1 } }, insert(from + 2)],
    )
    .await?;
    // Under another name from then on; and out of what is carried.
    apply(pair, vec![doc! { "op": "i", "ns": "shop.moves", "o": { "_id": from } }]).await?;
    let to = format!("shop.moved_{from}");
    run(&pair.from, "admin", doc! { "renameCollection": "shop.moves", "to": &to }).await?;
    apply(pair, vec![doc! { "op": "i", "ns": to, "o": { "_id": from + 1 } }]).await?;
    run(&pair.from, "shop", doc! { "create": "moves" }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_by_an_atomic_apply_ops_arrive() -> Result<()> {
    for tuning in [Tuning::default(), tiny()] {
        let pair = Pair::start().await?;
        for name in ["a", "b", "moves"] {
            run(&pair.from, "shop", doc! { "create": name }).await?;
        }
        write(&pair, 0).await?;
        let mut sync = Run::start_with(&pair, pair.spec(), tuning).await?;
        write(&pair, 100).await?;
        sync.caught_up().await?;
        write(&pair, 200).await?;
        sync.kill().await?;
        write(&pair, 300).await?;
        sync.restart().await?;
        write(&pair, 400).await?;
        let report = sync.prove(&pair).await?;
        ensure!(report.source_documents > 30, "{report}");
    }
    Ok(())
}
