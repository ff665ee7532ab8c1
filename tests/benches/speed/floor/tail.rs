//! The least that a tail takes: one stream, events by document key to four workers, and of them
//! rounds in which each key occurs once: one insert, one update and one delete command for each
//! collection, unordered. Nothing is stored, folded or looked at twice.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use mongodb::Client;
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, cstr, rawdoc};
use tokio::sync::mpsc;

const WORKERS: usize = 4;
/// Events in a round at most.
const ROUND: usize = 5_000;
/// Messages to a worker that may wait.
const AHEAD: usize = 4;

enum Op {
    Insert(RawDocumentBuf),
    Update(RawDocumentBuf),
    Delete(RawDocumentBuf),
}

struct Change {
    namespace: (String, String),
    id: Vec<u8>,
    op: Op,
}

/// Applies what has changed since `start` until the collection [`crate::backlog::DONE`] is made;
/// gives the number of events.
pub(crate) async fn run(source: &Client, destination: &Client, start: Timestamp) -> Result<u64> {
    let mut senders = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let destination = destination.clone();
        senders.push(sender);
        workers.push(tokio::spawn(async move { work(&destination, receiver).await }));
    }
    let stream = rawdoc! {
        "allChangesForCluster": true, "showExpandedEvents": true, "startAtOperationTime": start,
    };
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(&*rawdoc! { "$changeStream": stream });
    let mut open = rawdoc! { "aggregate": 1 };
    open.append(cstr!("pipeline"), pipeline);
    open.append(cstr!("cursor"), rawdoc! {});
    let mut cursor =
        source.database("admin").run_raw_cursor_command(open).batch_size(5_000).batch().await?;
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut events = 0;
    'stream: while let Some(batch) = cursor.next().await {
        let batch = batch?;
        let mut split: Vec<Vec<Change>> = (0..WORKERS).map(|_| Vec::new()).collect();
        let mut done = false;
        for value in batch.doc_slices()? {
            let event = value?;
            let event = event.as_document().context("an event is a document")?;
            if event.get_str("operationType")? == "create" {
                done = event.get_document("ns")?.get_str("coll")? == crate::backlog::DONE;
                if done {
                    break;
                }
                continue;
            }
            events += 1;
            let change = change(event)?;
            let worker = usize::try_from(hasher.hash_one(&change.id) % WORKERS as u64)?;
            split[worker].push(change);
        }
        for (sender, changes) in senders.iter().zip(split) {
            if !changes.is_empty() {
                sender.send(changes).await.context("a worker has ended")?;
            }
        }
        if done {
            break 'stream;
        }
    }
    drop(senders);
    for ended in try_join_all(workers).await? {
        ended?;
    }
    Ok(events)
}

fn change(event: &RawDocument) -> Result<Change> {
    let ns = event.get_document("ns")?;
    let key = event.get_document("documentKey")?;
    let op = match event.get_str("operationType")? {
        "insert" => Op::Insert(event.get_document("fullDocument")?.to_owned()),
        "update" => {
            let set = event.get_document("updateDescription")?.get_document("updatedFields")?;
            Op::Update(rawdoc! { "q": key.to_owned(), "u": { "$set": set.to_owned() } })
        }
        "delete" => Op::Delete(rawdoc! { "q": key.to_owned(), "limit": 1 }),
        other => bail!("the backlog holds no {other}"),
    };
    let namespace = (ns.get_str("db")?.to_owned(), ns.get_str("coll")?.to_owned());
    Ok(Change { namespace, id: key.as_bytes().to_vec(), op })
}

#[derive(Default)]
struct Round {
    ids: HashSet<(usize, Vec<u8>)>,
    places: BTreeMap<(String, String), usize>,
    commands: Vec<[RawArrayBuf; 3]>,
}

async fn work(destination: &Client, mut arriving: mpsc::Receiver<Vec<Change>>) -> Result<()> {
    let mut round = Round::default();
    while let Some(changes) = arriving.recv().await {
        for change in changes {
            let next = round.places.len();
            let place = *round.places.entry(change.namespace.clone()).or_insert(next);
            if place == round.commands.len() {
                round.commands.push(Default::default());
            }
            if !round.ids.insert((place, change.id.clone())) || round.ids.len() > ROUND {
                send(destination, std::mem::take(&mut round)).await?;
                round.places.insert(change.namespace.clone(), 0);
                round.commands.push(Default::default());
                round.ids.insert((0, change.id));
                push(&mut round.commands[0], &change.op);
            } else {
                push(&mut round.commands[place], &change.op);
            }
        }
        if arriving.is_empty() {
            send(destination, std::mem::take(&mut round)).await?;
        }
    }
    send(destination, round).await
}

fn push(commands: &mut [RawArrayBuf; 3], op: &Op) {
    match op {
        Op::Insert(document) => commands[0].push(&**document),
        Op::Update(statement) => commands[1].push(&**statement),
        Op::Delete(statement) => commands[2].push(&**statement),
    }
}

async fn send(destination: &Client, round: Round) -> Result<()> {
    for ((db, name), place) in &round.places {
        for (statements, (verb, list)) in round.commands[*place].iter().zip([
            (cstr!("insert"), cstr!("documents")),
            (cstr!("update"), cstr!("updates")),
            (cstr!("delete"), cstr!("deletes")),
        ]) {
            if statements.is_empty() {
                continue;
            }
            let mut command = RawDocumentBuf::new();
            command.append(verb, name.as_str());
            command.append(cstr!("ordered"), false);
            command.append(list, &**statements);
            let reply = destination.database(db).run_raw_command(command).await?;
            ensure!(!reply.contains_key("writeErrors"), "the floor's write failed: {reply}");
        }
    }
    Ok(())
}
