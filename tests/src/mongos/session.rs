//! One client's connection: reads its commands, finds who carries each out, answers.

use std::sync::Arc;

use mongodb::bson::{RawDocumentBuf, rawdoc};

use super::command::{Command, Refusal, append, documents_in, with};
use super::link::Link;
use super::login::Login;
use super::shards::{CLUSTER_TIME, CONFIG};
use super::{Answer, Router, stream, wire};

/// The field of `hello` that names a user, and tells how it may log in.
const SASL_MECHANISMS: &str = "saslSupportedMechs";

pub(super) async fn serve(router: Arc<Router>, mut stream: Link) {
    // A client that is gone, or speaks something else, ends its connection.
    let mut login = Login::default();
    while let Ok(Some(message)) = wire::read(&mut stream).await {
        // Whatever it is that is asked, and whoever answers it.
        router.shards.note_newest(&message.command.body);
        let reply = router
            .admit(&message.command, &mut login)
            .await
            .unwrap_or_else(|refusal| refusal.reply());
        let reply = router.with_times(reply);
        if message.wants_answer && wire::answer(&mut stream, &message, &reply).await.is_err() {
            return;
        }
    }
}

impl Router {
    /// Adds the times that every answer of a server carries: where no shard reported them, what is
    /// known of the whole cluster.
    fn with_times(&self, reply: RawDocumentBuf) -> RawDocumentBuf {
        let Some(newest) = self.shards.newest() else { return reply };
        let mut times = RawDocumentBuf::new();
        if !matches!(reply.get("operationTime"), Ok(Some(_)))
            && let Ok(time) = newest.get_timestamp("clusterTime")
        {
            append(&mut times, "operationTime", time);
        }
        append(&mut times, CLUSTER_TIME, &*newest);
        with(&reply, &[CLUSTER_TIME], &times)
    }

    /// Carries out what a client may do: everything, where the cluster has no key.
    async fn admit(self: &Arc<Self>, command: &Command, login: &mut Login) -> Answer {
        let name = command.name();
        match name.as_str() {
            "hello" | "isMaster" | "ismaster" => self.greet(command).await,
            "saslStart" | "saslContinue" => login.step(self, command).await,
            _ if !self.shards.has_key() => self.run(command).await,
            _ => {
                let judged = login.judge(command)?;
                if login.is_for_config(command) {
                    login.ask(self, command).await
                } else {
                    self.run(&judged).await
                }
            }
        }
    }

    /// Answers `hello`; how a user may log in, the config server knows.
    async fn greet(&self, command: &Command) -> Answer {
        let hello = super::admin::hello(&command.name());
        let Some(user) =
            super::admin::value(&command.body, SASL_MECHANISMS).and_then(|user| user.as_str())
        else {
            return Ok(hello);
        };
        let mut ask = rawdoc! { "hello": 1, "$db": "admin" };
        append(&mut ask, SASL_MECHANISMS, user);
        let told = self.shards.ask(CONFIG, &Command::new(ask)).await?;
        let mut mechanisms = RawDocumentBuf::new();
        if let Some(known) = super::admin::value(&told, SASL_MECHANISMS) {
            append(&mut mechanisms, SASL_MECHANISMS, known);
        }
        Ok(with(&hello, &[], &mechanisms))
    }

    async fn run(self: &Arc<Self>, command: &Command) -> Answer {
        let name = command.name();
        match name.as_str() {
            "ping" | "endSessions" | "killSessions" | "refreshSessions" => return Ok(wire::fine()),
            "getMore" => return self.get_more(command).await,
            "killCursors" => return self.kill_cursors(command).await,
            "aggregate" => {
                let pipeline = documents_in(&command.body, "pipeline");
                if stream::is_stream(&pipeline) {
                    return self.open_stream(command, &pipeline).await;
                }
            }
            "commitTransaction" | "abortTransaction" => return self.end_transaction(command).await,
            _ => {}
        }
        match command.db() {
            "config" if self.hides_shards && command.collection() == "shards" => {
                Ok(super::admin::with_hidden_hosts(&self.shards.ask(CONFIG, command).await?))
            }
            "config" => self.shards.ask(CONFIG, command).await,
            "local" => Err(Refusal::unsupported("the database local")),
            "admin" => self.run_on_admin(&name, command).await,
            _ => self.run_on_data(&name, command).await,
        }
    }

    async fn run_on_data(&self, name: &str, command: &Command) -> Answer {
        match name {
            "find" => self.find(command).await,
            "aggregate" => self.aggregate(command).await,
            "count" | "distinct" => self.gather(command).await,
            "insert" | "update" | "delete" => self.write(command).await,
            "findAndModify" | "findandmodify" => self.find_and_modify(command).await,
            "listCollections" => self.list_collections(command).await,
            "listIndexes" => self.list_indexes(command).await,
            _ => self.define(name, command).await,
        }
    }
}
