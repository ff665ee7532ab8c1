//! Tells somebody of the commands that change a deployment, before they are sent and after their
//! replies.

use std::sync::Arc;

use mongodb::bson::{Document, RawDocument};
use schemas::cluster_time::ClusterTime;

/// Is told of the commands that one deployment is sent.
pub trait WriteObserver: std::fmt::Debug + Send + Sync {
    /// A command is about to be sent; `None` where it is of no interest.
    fn began(&self, db: &str, command: &RawDocument) -> Option<u64>;

    /// It has ended: everything it did was done by `time`. `None`: it is not known whether it has.
    fn ended(&self, ticket: u64, time: Option<ClusterTime>);
}

/// A command on its way. One that is dropped before its reply counts as one of which it is not
/// known whether it has ended.
#[derive(Debug)]
pub struct OnItsWay {
    observer: Arc<dyn WriteObserver>,
    ticket: Option<u64>,
}

impl OnItsWay {
    /// Tells the observer of a command that is about to be sent.
    #[must_use]
    pub fn begin(
        observer: Option<&Arc<dyn WriteObserver>>,
        db: &str,
        command: &RawDocument,
    ) -> Option<Self> {
        let observer = Arc::clone(observer?);
        let ticket = observer.began(db, command)?;
        Some(Self { observer, ticket: Some(ticket) })
    }

    /// Tells the observer of its reply.
    pub fn end(mut self, reply: Option<&Document>) {
        let time = reply
            .and_then(|reply| reply.get_timestamp("operationTime").ok())
            .map(super::cluster_time);
        if let Some(ticket) = self.ticket.take() {
            self.observer.ended(ticket, time);
        }
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.observer.ended(ticket, None);
        }
    }
}
