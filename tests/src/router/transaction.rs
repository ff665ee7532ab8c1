//! Transactions: who takes part, who coordinates, and how they end.

use mongodb::bson::{RawArrayBuf, RawDocumentBuf, rawdoc};

use super::command::{Command, Refusal, append, joined, number};
use super::{Answer, Router, wire};

/// A transaction that a client has begun.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    number: i64,
    /// The first coordinates.
    participants: Vec<String>,
    read_concern: Option<RawDocumentBuf>,
}

fn session_of(command: &Command) -> Result<Vec<u8>, Refusal> {
    let lsid = command.body.get_document("lsid").map_err(|_| super::admin::missing("lsid"))?;
    Ok(lsid.as_bytes().to_vec())
}

impl Router {
    /// Sends a command to a shard. In a transaction the shard takes part from then on.
    pub(super) async fn send(&self, shard: &str, command: Command) -> Answer {
        if !command.is_in_transaction() {
            return self.shards.ask(shard, &command).await;
        }
        let session = session_of(&command)?;
        let number = number(&command.body, "txnNumber").unwrap_or(0);
        let mut added = RawDocumentBuf::new();
        {
            let mut open = Self::lock(&self.transactions);
            let transaction = open.entry(session).or_default();
            if transaction.number != number || transaction.participants.is_empty() {
                let read_concern = command.body.get_document("readConcern").ok().map(ToOwned::to_owned);
                *transaction = Transaction { number, participants: Vec::new(), read_concern };
            }
            if !transaction.participants.iter().any(|participant| participant == shard) {
                append(&mut added, "startTransaction", true);
                if transaction.participants.is_empty() {
                    append(&mut added, "coordinator", true);
                }
                if let Some(read_concern) = &transaction.read_concern {
                    append(&mut added, "readConcern", &**read_concern);
                }
                transaction.participants.push(shard.to_owned());
            }
        }
        self.shards.ask(shard, &command.with(&["startTransaction", "readConcern"], &added)).await
    }

    /// Sends each shard its command, side by side.
    pub(super) async fn send_each(&self, commands: Vec<(String, Command)>) -> Result<Vec<RawDocumentBuf>, Refusal> {
        futures_util::future::try_join_all(
            commands.into_iter().map(|(shard, command)| async move { self.send(&shard, command).await }),
        )
        .await
    }

    /// Commits or aborts. What ended stays known until the session's next transaction: a commit may be asked for again.
    pub(super) async fn end_transaction(&self, command: &Command) -> Answer {
        let session = session_of(command)?;
        let wanted = number(&command.body, "txnNumber").unwrap_or(0);
        let participants = {
            let open = Self::lock(&self.transactions);
            open.get(&session).filter(|transaction| transaction.number == wanted).map(|known| known.participants.clone())
        };
        let Some(participants) = participants else {
            return Err(Refusal::new(251, "NoSuchTransaction", format!("transaction {wanted} is not known to this router")));
        };
        let command = command.with(&["recoveryToken"], &rawdoc! {});
        match participants.as_slice() {
            [] => Ok(wire::fine()),
            [only] => self.shards.ask(only, &command).await,
            [coordinator, ..] if command.name() == "commitTransaction" => {
                let mut names = RawArrayBuf::new();
                participants.iter().for_each(|shard| names.push(rawdoc! { "shardId": shard.as_str() }));
                let first = rawdoc! { "coordinateCommitTransaction": 1, "participants": names };
                self.shards.ask(coordinator, &command.renamed(&first, &[], &rawdoc! {})).await
            }
            all => super::admin::all_of(
                self.shards.ask_each(all.iter().map(|shard| (shard.clone(), command.clone())).collect()).await?,
            ),
        }
    }

    /// Moves a document whose shard key an update changed: deletes it here and inserts it there, in one transaction. `None`: it
    /// changed meanwhile, and the update is to be tried again.
    pub(super) async fn move_document(
        &self,
        command: &Command,
        from: (&str, Command),
        to: (&str, Command),
    ) -> Result<Option<RawDocumentBuf>, Refusal> {
        let fields = if command.is_in_transaction() {
            super::command::with(&command.body, &[], &rawdoc! {})
        } else {
            let id = mongodb::bson::Binary {
                subtype: mongodb::bson::spec::BinarySubtype::Uuid,
                bytes: rand::random::<[u8; 16]>().to_vec(),
            };
            rawdoc! { "lsid": { "id": id }, "txnNumber": 1_i64, "autocommit": false }
        };
        let mut own = RawDocumentBuf::new();
        for name in ["lsid", "txnNumber", "autocommit"] {
            if let Some(value) = super::admin::value(&fields, name) {
                append(&mut own, name, value);
            }
        }
        let deleted = self.send(from.0, from.1.with(&[], &own)).await?;
        let inserted = if number(&deleted, "n") == Some(1) { Some(self.send(to.0, to.1.with(&[], &own)).await?) } else { None };
        let is_moved = inserted.as_ref().is_some_and(|reply| number(reply, "n") == Some(1));
        if command.is_in_transaction() {
            return Ok(if is_moved { inserted } else { Some(deleted) });
        }
        let end = |name: &str| {
            let mut first = RawDocumentBuf::new();
            append(&mut first, name, 1);
            let rest = rawdoc! { "writeConcern": { "w": "majority" }, "$db": "admin" };
            Command::new(joined(&first, &joined(&own, &rest)))
        };
        let ended = self.end_transaction(&end(if is_moved { "commitTransaction" } else { "abortTransaction" })).await?;
        Self::lock(&self.transactions).remove(&session_of(&end("commitTransaction"))?);
        Ok(if is_moved && super::command::is_ok(&ended) { Some(ended) } else { None })
    }
}
