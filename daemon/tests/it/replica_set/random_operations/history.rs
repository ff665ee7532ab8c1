//! What both sides report of the namespaces that a failure names: their oplogs, side by side in
//! time.

use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Document, Timestamp, doc};

/// Of one entry's text at most: a batch of documents has more to say than helps.
const MOST_CHARACTERS: usize = 600;
/// Entries of one side at most, the newest.
const MOST_ENTRIES: usize = 400;

/// A server's newest cluster time.
pub(super) async fn now(client: &Client) -> Result<Timestamp> {
    let reply = client.database("admin").run_command(doc! { "ping": 1 }).await?;
    Ok(reply.get_timestamp("operationTime")?)
}

/// Words of an error that name a namespace, as `(database, collection)`.
pub(super) fn named(error: &str, databases: &[&str]) -> BTreeSet<(String, String)> {
    let is_of_name = |c: char| c.is_alphanumeric() || "._".contains(c);
    error
        .split(|c| !is_of_name(c))
        .map(|word| word.trim_matches('.'))
        .filter_map(|word| word.split_once('.'))
        .filter(|(db, _)| databases.contains(db))
        .map(|(db, name)| (db.to_owned(), name.trim_start_matches("system.buckets.").to_owned()))
        .collect()
}

/// Whether an entry is of this namespace: its documents, or a command that names it.
fn is_of(entry: &Document, (db, name): &(String, String)) -> bool {
    if let Ok(operations) = entry.get_document("o").and_then(|o| o.get_array("applyOps")) {
        return operations
            .iter()
            .filter_map(|operation| operation.as_document())
            .any(|operation| is_of(operation, &(db.clone(), name.clone())));
    }
    let Ok(ns) = entry.get_str("ns") else { return false };
    let Some((of_db, of_name)) = ns.split_once('.') else { return false };
    let texts = || {
        entry
            .get_document("o")
            .into_iter()
            .flat_map(|o| o.values())
            .filter_map(|value| value.as_str())
    };
    let names = |text: &str| {
        let text = text.strip_prefix(&format!("{db}.")).unwrap_or(text);
        text == name || text.strip_prefix("system.buckets.") == Some(name)
    };
    let is_command = ["$cmd", "system.views"].contains(&of_name);
    match is_command {
        // A rename is reported in the database that it leaves.
        true => {
            entry.get_document("o").is_ok_and(|o| o.contains_key("dropDatabase")) && of_db == db
                || texts().any(names)
        }
        false => of_db == db && names(of_name),
    }
}

/// Prints what the oplog of a side has on these namespaces, from this time on.
pub(super) async fn print(
    side: &str,
    client: &Client,
    since: Timestamp,
    of: &BTreeSet<(String, String)>,
) -> Result<()> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let entries: Vec<Document> =
        oplog.find(doc! { "ts": { "$gte": since } }).await?.try_collect().await?;
    let mut entries: Vec<Document> = entries
        .into_iter()
        .filter(|entry| of.iter().any(|namespace| is_of(entry, namespace)))
        .collect();
    println!("  {side}: {} entries of {of:?} since {since}", entries.len());
    for entry in entries.drain(entries.len().saturating_sub(MOST_ENTRIES)..) {
        let shown: Document = entry
            .into_iter()
            .filter(|(key, _)| {
                ["op", "ns", "o", "o2", "ts", "wall", "fromMigrate"].contains(&key.as_str())
            })
            .collect();
        println!("    {}", shown.to_string().chars().take(MOST_CHARACTERS).collect::<String>());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{is_of, named};
    use mongodb::bson::doc;

    #[test]
    fn the_namespaces_of_an_error_are_found_in_an_oplog() {
        let found = named(
            "one.e.f: 3 documents differ; four.system.buckets.series0 is not there, 127.0.0.1",
            &["one", "four"],
        );
        let names =
            [("four".to_owned(), "series0".to_owned()), ("one".to_owned(), "e.f".to_owned())];
        assert_eq!(found, names.clone().into());
        let series = &names[0];
        assert!(is_of(&doc! { "ns": "four.system.buckets.series0", "o": { "_id": 1 } }, series));
        assert!(is_of(
            &doc! { "ns": "four.$cmd", "o": { "create": "system.buckets.series0" } },
            series
        ));
        assert!(is_of(&doc! { "ns": "four.system.views", "o": { "_id": "four.series0" } }, series));
        assert!(is_of(
            &doc! { "ns": "admin.$cmd", "o": { "applyOps": [{ "ns": "one.e.f", "o": {} }] } },
            &names[1]
        ));
        assert!(is_of(
            &doc! { "ns": "two.$cmd", "o": { "renameCollection": "two.a", "to": "one.e.f" } },
            &names[1]
        ));
        assert!(is_of(&doc! { "ns": "one.$cmd", "o": { "dropDatabase": 1 } }, &names[1]));
        assert!(!is_of(&doc! { "ns": "two.$cmd", "o": { "dropDatabase": 1 } }, &names[1]));
        assert!(!is_of(&doc! { "ns": "one.e", "o": { "_id": 1 } }, &names[1]));
    }
}
