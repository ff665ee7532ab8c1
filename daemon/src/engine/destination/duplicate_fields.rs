//! Namespaces with documents in which a name occurs twice.
//!
//! A server keeps such documents, and changes them by replication. An update by a pipeline, which
//! is how a delta reaches the destination, ends the server process instead: it derives a delta of
//! its own, and aborts where one name is in it twice (seen on 6.0.5). In these namespaces a changed
//! document is therefore read again and put in place whole. A namespace is stored here before such
//! a document is written.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use schemas::fault::Fault;
use schemas::namespace::Namespace;

use crate::engine::checkpoint::Checkpoints;

/// The namespaces of a run in which names occur twice.
#[derive(Debug)]
pub struct DuplicateFields {
    checkpoints: Checkpoints,
    known: Mutex<HashSet<Namespace>>,
}

impl DuplicateFields {
    /// Those that are stored.
    pub async fn load(checkpoints: &Checkpoints) -> Result<Self, Fault> {
        let known = checkpoints.duplicate_fields().await?.into_iter().collect();
        Ok(Self { checkpoints: checkpoints.clone(), known: Mutex::new(known) })
    }

    /// Whether it is one of them.
    pub fn contains(&self, namespace: &Namespace) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }

    /// Adds one, and stores it.
    pub async fn add(&self, namespace: &Namespace) -> Result<(), Fault> {
        if !self.contains(namespace) {
            tracing::info!(%namespace, "has documents in which a name occurs twice");
            self.checkpoints.store_doubled(namespace).await?;
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone());
        }
        Ok(())
    }
}
