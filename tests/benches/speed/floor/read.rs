//! The least that a comparison takes: every document of both sides is read, side by side, and
//! nothing is done with it.

use anyhow::Result;
use futures_util::StreamExt as _;
use mongodb::Client;
use mongodb::bson::{RawDocumentBuf, cstr};

use super::collections;

/// Reads both sides, and gives how many documents one of them has.
pub(crate) async fn run(source: &Client, destination: &Client) -> Result<u64> {
    let (documents, _) = tokio::try_join!(read(source), read(destination))?;
    Ok(documents)
}

async fn read(client: &Client) -> Result<u64> {
    let mut documents = 0;
    for collection in collections(client).await? {
        let mut find = RawDocumentBuf::new();
        find.append(cstr!("find"), collection.name.as_str());
        let database = client.database(&collection.db);
        let mut cursor = database
            .run_raw_cursor_command(find)
            .batch_size(collection.batch_size())
            .batch()
            .await?;
        while let Some(batch) = cursor.next().await {
            documents += batch?.doc_slices()?.into_iter().count() as u64;
        }
    }
    Ok(documents)
}
