//! Every operation, once while the copy is still to read its data, once while it reads, once when
//! it has read, and once in the tail.

mod cases;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use daemon::engine::tuning::Tuning;
use mongodb::Client;
use mongodb::bson::{Bson, DateTime, Document, doc};
use schemas::spec::{CopySpec, IndexBuild};

use self::cases::{Case, cases, insert, numbered};
use super::harness::{Pair, Run, run, tiny};

fn placed(value: Bson, db: &str) -> Bson {
    match value {
        Bson::String(text) => text.replace('@', db).into(),
        Bson::Array(items) => {
            items.into_iter().map(|item| placed(item, db)).collect::<Vec<_>>().into()
        }
        Bson::Document(inner) => inner
            .into_iter()
            .map(|(key, value)| (key, placed(value, db)))
            .collect::<Document>()
            .into(),
        other => other,
    }
}

async fn do_all(client: &Client, db: &str, commands: &[Document]) -> Result<()> {
    for command in commands {
        let Bson::Document(command) = placed(command.clone().into(), db) else {
            unreachable!("a document stays one")
        };
        let on = if command.contains_key("renameCollection") { "admin" } else { db };
        let reply = run(client, on, command.clone())
            .await
            .with_context(|| format!("on {db}: {command}"))?;
        if let Some(errors) = reply.get("writeErrors") {
            anyhow::bail!("{db}: {errors}");
        }
    }
    Ok(())
}

/// When the operations happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// The copy is under way and has not read their data.
    BeforeRead,
    /// It reads.
    WhileRead,
    /// It has read their data, and reads on elsewhere.
    AfterRead,
    /// In the tail.
    Tail,
}

/// Slows the destination's insertions into a namespace, or all.
async fn slow(pair: &Pair, namespace: Option<&str>, milliseconds: i32) -> Result<()> {
    let mut data =
        doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": milliseconds };
    if let Some(namespace) = namespace {
        data.insert("namespace", namespace);
    }
    run(
        &pair.to,
        "admin",
        doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data },
    )
    .await?;
    Ok(())
}

async fn slow_no_more(pair: &Pair) -> Result<()> {
    run(&pair.to, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await?;
    Ok(())
}

/// Lays what is there before, starts the copy, and holds it where `when` says.
async fn begin(pair: &Pair, when: When, tuning: Tuning, indexes: IndexBuild) -> Result<Run> {
    let ballast = match when {
        // The largest collection is copied first, the smallest last.
        When::BeforeRead => Some(doc! { "text": "x".repeat(2_000) }),
        When::AfterRead => Some(doc! {}),
        When::WhileRead | When::Tail => None,
    };
    if let Some(ballast) = &ballast {
        let count = if when == When::BeforeRead { 400 } else { 1 };
        run(&pair.from, "ballast", insert("c", vec![ballast.clone(); count])).await?;
    }
    let mut spec = pair.spec();
    spec.copy = CopySpec { parallelism: Some(1), indexes, ..spec.copy };
    let tuning =
        if when == When::BeforeRead { Tuning { batch_documents: 4, ..tuning } } else { tuning };
    match when {
        When::BeforeRead => slow(pair, Some("ballast.c"), 200).await?,
        When::WhileRead => slow(pair, None, 120).await?,
        When::AfterRead => slow(pair, Some("ballast.c"), 20_000).await?,
        When::Tail => {}
    }
    let mut sync = Run::start_with(pair, spec, tuning).await?;
    if when == When::Tail {
        sync.caught_up().await?;
        return Ok(sync);
    }
    let began = Instant::now();
    let mut moved = (0, Instant::now());
    loop {
        sync.look()?;
        let copy = sync.engine().progress().copy;
        let is_there = match when {
            When::BeforeRead => copy.documents_copied > 0,
            When::WhileRead => {
                copy.collections_copied * 3 > copy.collections_total && copy.collections_total > 0
            }
            When::AfterRead => {
                if moved.0 != copy.documents_copied {
                    moved = (copy.documents_copied, Instant::now());
                }
                // All that is left are the ballast, which hangs, and what is empty.
                copy.collections_copied > 0 && moved.1.elapsed() > Duration::from_millis(1_500)
            }
            When::Tail => true,
        };
        if is_there {
            return Ok(sync);
        }
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "the copy does not come to {when:?}: {copy:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The operations are done; the copy goes on.
async fn go_on(pair: &Pair, when: When, sync: &Run) -> Result<()> {
    if when != When::Tail {
        let copy = sync.engine().progress().copy;
        ensure!(
            copy.collections_copied < copy.collections_total,
            "the copy was over before the operations were: {copy:?}"
        );
        slow_no_more(pair).await?;
    }
    Ok(())
}

async fn carry(when: When, tuning: Tuning, indexes: IndexBuild) -> Result<()> {
    let pair = Pair::start().await?;
    let cases = cases();
    let db = |case: &Case| case.name.replace(' ', "_");
    for case in &cases {
        do_all(&pair.from, &db(case), &case.before).await?;
    }
    let mut sync = begin(&pair, when, tuning, indexes).await?;
    futures_util::future::try_join_all(cases.iter().map(|case| {
        let (from, db) = (pair.from.clone(), db(case));
        async move { do_all(&from, &db, &case.act).await }
    }))
    .await?;
    go_on(&pair, when, &sync).await?;
    sync.prove(&pair).await?;
    let left = pair.to.list_database_names().await?;
    ensure!(
        !left.contains(&"drop_database_for_good".to_owned()),
        "a database is left that the source has dropped: {left:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_before_their_data_is_read() -> Result<()> {
    carry(When::BeforeRead, Tuning::default(), IndexBuild::AfterCopy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_while_their_data_is_read() -> Result<()> {
    carry(When::WhileRead, Tuning { batch_documents: 3, ..tiny() }, IndexBuild::AfterCopy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_between_their_indexes_and_their_data() -> Result<()> {
    carry(When::BeforeRead, Tuning::default(), IndexBuild::BeforeCopy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_while_their_data_is_read_into_indexes() -> Result<()> {
    carry(When::WhileRead, Tuning { batch_documents: 3, ..tiny() }, IndexBuild::BeforeCopy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_after_their_data_is_read() -> Result<()> {
    carry(When::AfterRead, Tuning::default(), IndexBuild::AfterCopy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_in_the_tail() -> Result<()> {
    carry(When::Tail, Tuning::default(), IndexBuild::AfterCopy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_in_the_tail_in_tiny_rounds() -> Result<()> {
    carry(When::Tail, tiny(), IndexBuild::AfterCopy).await
}

/// Transactions: over several collections, aborted, with one document again and again, and larger
/// than an oplog entry.
async fn transactions(client: &Client, db: &str) -> Result<()> {
    let database = client.database(db);
    let collection = |name: &str| database.collection::<Document>(name);
    for name in ["t1", "t2", "large"] {
        let _ = database.create_collection(name).await;
    }
    let mut session = client.start_session().await?;
    for round in 0..6_i32 {
        session.start_transaction().await?;
        for n in 0..20 {
            collection("t1")
                .insert_one(doc! { "_id": round * 100 + n, "n": n })
                .session(&mut session)
                .await?;
            collection("t2")
                .update_one(
                    doc! { "_id": n % 3 },
                    doc! { "$inc": { "n": 1 }, "$push": { "list": n } },
                )
                .upsert(true)
                .session(&mut session)
                .await?;
        }
        collection("t1").delete_one(doc! { "_id": round * 100 + 3 }).session(&mut session).await?;
        collection("t1")
            .replace_one(doc! { "_id": round * 100 + 4 }, doc! { "replaced": round })
            .session(&mut session)
            .await?;
        if round % 3 == 2 {
            session.abort_transaction().await?;
        } else {
            session.commit_transaction().await?;
        }
    }
    // Over 16 MB: the server splits it over several oplog entries.
    session.start_transaction().await?;
    for n in 0..10 {
        let text = format!("{n}").repeat(2 << 20);
        collection("large")
            .insert_one(doc! { "_id": n, "text": text })
            .session(&mut session)
            .await?;
    }
    collection("large")
        .update_many(doc! {}, doc! { "$set": { "done": true } })
        .session(&mut session)
        .await?;
    session.commit_transaction().await?;
    Ok(())
}

/// Documents that the source's own monitor deletes.
async fn expiry(client: &Client, db: &str) -> Result<()> {
    run(
        client,
        db,
        doc! {
            "createIndexes": "expires",
            "indexes": [{ "key": { "at": 1 }, "name": "at", "expireAfterSeconds": 1 }],
        },
    )
    .await?;
    let at = |n: i32| {
        if n % 2 == 0 { DateTime::from_millis(0) } else { DateTime::from_millis(i64::MAX / 2) }
    };
    run(client, db, insert("expires", (0..100).map(|n| doc! { "_id": n, "at": at(n) }).collect()))
        .await?;
    let began = Instant::now();
    let expires = client.database(db).collection::<Document>("expires");
    while expires.count_documents(doc! {}).await? > 50 {
        ensure!(began.elapsed() < Duration::from_secs(30), "the monitor does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Index builds that are cut off by a drop of the index or of the collection, and one that goes
/// through while documents come.
async fn builds(client: &Client, db: &str) -> Result<()> {
    for round in 0..6_i32 {
        let name = format!("build{}", round % 2);
        run(
            client,
            db,
            insert(
                &name,
                (0..2_000_i32).map(|n| doc! { "a": n, "b": [n, n + 1], "round": round }).collect(),
            ),
        )
        .await?;
        let build = doc! {
            "createIndexes": &name,
            "indexes": [
                { "key": { "a": 1 }, "name": "a" }, { "key": { "b": 1, "a": -1 }, "name": "b" },
            ],
        };
        let (building, other) = (client.clone(), db.to_owned());
        let building = tokio::spawn(async move { run(&building, &other, build).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(3 * u64::from(round.unsigned_abs()))).await;
        match round % 3 {
            0 => drop(run(client, db, doc! { "dropIndexes": &name, "index": "*" }).await),
            1 => drop(run(client, db, doc! { "drop": &name }).await),
            _ => drop(run(client, db, insert(&name, vec![doc! { "a": [1, 2], "b": 1 }])).await),
        }
        // What was cut off has failed, and that is right.
        let _ = building.await?;
    }
    Ok(())
}

/// A database that is dropped while others write to it.
async fn drops(client: &Client, db: &str) -> Result<()> {
    let db = format!("{db}_dropped");
    let writing = (0..3).map(|writer| {
        let (client, db) = (client.clone(), db.clone());
        async move {
            for n in 0..60 {
                // The server refuses writes while it drops, and so some are lost: on both sides.
                let _ = run(
                    &client,
                    &db,
                    insert(&format!("c{}", n % 4), vec![doc! { "writer": writer, "n": n }]),
                )
                .await;
                let _ = run(
                    &client,
                    &db,
                    doc! {
                        "update": "c0",
                        "updates": [{ "q": {}, "u": { "$inc": { "k": 1 } }, "multi": true }],
                    },
                )
                .await;
            }
        }
    });
    let dropping = async {
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            let _ = run(client, &db, doc! { "dropDatabase": 1 }).await;
        }
    };
    futures_util::future::join(futures_util::future::join_all(writing), dropping).await;
    Ok(())
}

async fn carry_busy(when: When, tuning: Tuning) -> Result<()> {
    let options = rig::replica_set::Options { cache_gb: 1.0, ..Default::default() };
    let pair = Pair::start_with(options.clone(), options).await?;
    run(&pair.from, "admin", doc! { "setParameter": 1, "ttlMonitorSleepSecs": 1 }).await?;
    let rest = (0..400).map(|n| doc! { "_id": n, "text": "x".repeat(2_000) }).collect();
    run(&pair.from, "busy", insert("rest", rest)).await?;
    run(&pair.from, "busy", insert("expires", numbered(10))).await?;
    let mut sync = begin(&pair, when, tuning, IndexBuild::AfterCopy).await?;
    let (client, db) = (&pair.from, "busy");
    tokio::try_join!(
        transactions(client, db),
        expiry(client, db),
        builds(client, db),
        drops(client, db)
    )?;
    if when != When::Tail {
        slow_no_more(&pair).await?;
    }
    sync.prove(&pair).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_expiry_and_builds_during_the_copy() -> Result<()> {
    carry_busy(When::BeforeRead, Tuning { batch_bytes: 20_000, ..Tuning::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_expiry_and_builds_in_the_tail() -> Result<()> {
    carry_busy(When::Tail, Tuning { round_events: 50, reply_events: 20, ..Tuning::default() }).await
}
