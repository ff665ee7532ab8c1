//! Transactions: who takes part, who coordinates, and how they end.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};

use super::command::{Command, Refusal, append, is_ok, is_stale, joined, number};
use super::write::Moved;
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
                let read_concern =
                    command.body.get_document("readConcern").ok().map(ToOwned::to_owned);
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
    pub(super) async fn send_each(
        &self,
        commands: Vec<(String, Command)>,
    ) -> Result<Vec<RawDocumentBuf>, Refusal> {
        futures_util::future::try_join_all(
            commands
                .into_iter()
                .map(|(shard, command)| async move { self.send(&shard, command).await }),
        )
        .await
    }

    /// Commits or aborts. What ended stays known until the session's next transaction: a commit may
    /// be asked for again.
    pub(super) async fn end_transaction(&self, command: &Command) -> Answer {
        let session = session_of(command)?;
        let wanted = number(&command.body, "txnNumber").unwrap_or(0);
        let participants = {
            let open = Self::lock(&self.transactions);
            open.get(&session)
                .filter(|transaction| transaction.number == wanted)
                .map(|known| known.participants.clone())
        };
        let Some(participants) = participants else {
            return Err(Refusal::new(
                251,
                "NoSuchTransaction",
                format!("transaction {wanted} is not known to this router"),
            ));
        };
        let command = command.with(&["recoveryToken"], &rawdoc! {});
        match participants.as_slice() {
            [] => Ok(wire::fine()),
            [only] => self.shards.ask(only, &command).await,
            [coordinator, ..] if command.name() == "commitTransaction" => {
                let mut names = RawArrayBuf::new();
                participants
                    .iter()
                    .for_each(|shard| names.push(rawdoc! { "shardId": shard.as_str() }));
                let first = rawdoc! { "coordinateCommitTransaction": 1, "participants": names };
                self.shards.ask(coordinator, &command.renamed(&first, &[], &rawdoc! {})).await
            }
            all => super::admin::all_of(
                self.shards
                    .ask_each(all.iter().map(|shard| (shard.clone(), command.clone())).collect())
                    .await?,
            ),
        }
    }

    /// Moves a document whose shard key an update changed: deletes it here and inserts it there, in
    /// one transaction; one that an upsert makes is inserted only.
    pub(super) async fn move_document(
        &self,
        command: &Command,
        from: Option<(&str, Command)>,
        to: (&str, Command),
        after: &RawDocument,
    ) -> Result<Moved, Refusal> {
        let mut own = RawDocumentBuf::new();
        if command.is_in_transaction() {
            for name in ["lsid", "txnNumber", "autocommit"] {
                if let Some(value) = super::admin::value(&command.body, name) {
                    append(&mut own, name, value);
                }
            }
        } else {
            let id =
                Binary { subtype: BinarySubtype::Uuid, bytes: rand::random::<[u8; 16]>().to_vec() };
            own = rawdoc! { "lsid": { "id": id }, "txnNumber": 1_i64, "autocommit": false };
        }
        let mut moved = match from {
            None => Moved::Made(joined(
                &rawdoc! { "index": 0 },
                &placement::element::id_of(after).unwrap_or_default(),
            )),
            Some((shard, delete)) => {
                let deleted = self.send(shard, delete.with(&[], &own)).await?;
                if number(&deleted, "n") == Some(1) { Moved::There } else { Moved::Again }
            }
        };
        if !matches!(moved, Moved::Again) {
            let inserted = self.send(to.0, to.1.with(&[], &own)).await?;
            if number(&inserted, "n") != Some(1) {
                let error =
                    super::command::documents_in(&inserted, "writeErrors").into_iter().next();
                let error = error
                    .or_else(|| (!is_ok(&inserted)).then(|| inserted.clone()))
                    .filter(|error| !is_stale(error));
                moved = error.map_or(Moved::Again, Moved::Refused);
            }
        }
        if command.is_in_transaction() {
            return match moved {
                Moved::Again => Err(super::read::transient(&wire::fine())),
                moved => Ok(moved),
            };
        }
        let end = |name: &str| {
            let mut first = RawDocumentBuf::new();
            append(&mut first, name, 1);
            let rest = rawdoc! { "writeConcern": { "w": "majority" }, "$db": "admin" };
            Command::new(joined(&first, &joined(&own, &rest)))
        };
        let is_moved = matches!(moved, Moved::There | Moved::Made(_));
        let ended = self
            .end_transaction(&end(if is_moved { "commitTransaction" } else { "abortTransaction" }))
            .await?;
        Self::lock(&self.transactions).remove(&session_of(&end("commitTransaction"))?);
        Ok(if is_moved && !is_ok(&ended) { Moved::Again } else { moved })
    }
}
