//! The least that a copy takes: two cursors, replies passed on as bytes, four inserters, unordered,
//! the indexes afterwards.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, cstr, doc, rawdoc};
use mongodb::raw_batch_cursor::RawBatch;
use tokio::sync::{Mutex, mpsc};

use super::{Collection, collections};

const CURSORS: usize = 2;
const INSERTERS: usize = 4;

/// Copies everything, and gives how many documents that was.
pub(crate) async fn run(source: &Client, destination: &Client) -> Result<u64> {
    let all = collections(source).await?;
    let queue = Arc::new(Mutex::new(all.clone().into_iter()));
    let (batches, arriving) = mpsc::channel::<(Arc<Collection>, RawBatch)>(INSERTERS);
    let arriving = Arc::new(Mutex::new(arriving));
    let readers = try_join_all((0..CURSORS).map(|_| {
        let (queue, batches, source) = (Arc::clone(&queue), batches.clone(), source.clone());
        tokio::spawn(async move { read(&source, &queue, &batches).await })
    }));
    drop(batches);
    let writers = try_join_all((0..INSERTERS).map(|_| {
        let (arriving, destination) = (Arc::clone(&arriving), destination.clone());
        tokio::spawn(async move { insert(&destination, &arriving).await })
    }));
    let (read, written) = tokio::try_join!(readers, writers)?;
    read.into_iter().collect::<Result<Vec<()>>>()?;
    let documents = written.into_iter().sum::<Result<u64>>()?;
    for chunk in all.chunks(INSERTERS) {
        try_join_all(chunk.iter().map(|collection| index(source, destination, collection))).await?;
    }
    Ok(documents)
}

async fn read(
    source: &Client,
    queue: &Mutex<std::vec::IntoIter<Collection>>,
    batches: &mpsc::Sender<(Arc<Collection>, RawBatch)>,
) -> Result<()> {
    loop {
        let Some(collection) = queue.lock().await.next() else { return Ok(()) };
        let collection = Arc::new(collection);
        let mut find = RawDocumentBuf::new();
        find.append(cstr!("find"), collection.name.as_str());
        find.append(cstr!("hint"), rawdoc! { "$natural": 1 });
        find.append(cstr!("batchSize"), i64::from(collection.batch_size()));
        let database = source.database(&collection.db);
        let mut cursor = database
            .run_raw_cursor_command(find)
            .batch_size(collection.batch_size())
            .batch()
            .await?;
        while let Some(batch) = cursor.next().await {
            batches
                .send((Arc::clone(&collection), batch?))
                .await
                .context("the inserters have ended")?;
        }
    }
}

async fn insert(
    destination: &Client,
    arriving: &Mutex<mpsc::Receiver<(Arc<Collection>, RawBatch)>>,
) -> Result<u64> {
    let mut inserted = 0;
    loop {
        let Some((collection, batch)) = arriving.lock().await.recv().await else {
            return Ok(inserted);
        };
        let documents = batch.doc_slices()?;
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("insert"), collection.name.as_str());
        command.append(cstr!("ordered"), false);
        command.append(cstr!("documents"), documents);
        if documents.is_empty() {
            continue;
        }
        drop(batch);
        let reply = destination.database(&collection.db).run_raw_command(command).await?;
        inserted += u64::try_from(reply.get_i32("n")?)?;
    }
}

async fn index(source: &Client, destination: &Client, collection: &Collection) -> Result<()> {
    let listed = source
        .database(&collection.db)
        .run_cursor_command(doc! { "listIndexes": &collection.name })
        .await?;
    let specs: Vec<Document> = listed.try_collect().await?;
    let specs: Vec<Document> = specs
        .into_iter()
        .filter(|spec| !spec.get_str("name").is_ok_and(|name| name == "_id_"))
        .collect();
    if !specs.is_empty() {
        let build = doc! { "createIndexes": &collection.name, "indexes": specs };
        destination.database(&collection.db).run_command(build).await?;
    }
    Ok(())
}
