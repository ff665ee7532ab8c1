//! Applies changes of definitions: collections made, dropped, renamed, modified; indexes built and dropped.
//!
//! Each runs alone, after everything before it and before everything after it. Each may run twice: a crash can come between it and
//! its checkpoint. What is only settings (an index's expiry, a validator on a view) is compared once more at the cutover.
//!
//! A rename that happened while the collection's data was still being read is the one that cannot be replayed: what was read under
//! the old name may be part of it only. Its target is then copied again, whole.

use std::sync::PoisonError;

use mongodb::bson::{RawDocument, RawDocumentBuf, doc};
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::catalog::{self, CollectionInfo, NAMESPACE_NOT_FOUND};
use super::checkpoint::Recopied;
use super::copy::{Copier, batch_size};
use super::event::Definition;
use super::index;
use super::partition;
use super::tail::{Tail, Traits};
use crate::mongo::{append, command, error, timestamp};

/// Options of `collMod` that are carried as they come; an index's are given back at the end.
const CARRIED_OPTIONS: [&str; 4] = ["validator", "validationLevel", "validationAction", "changeStreamPreAndPostImages"];

impl Tail {
    /// Applies one change of a definition, committed at `time`.
    pub(super) async fn define(&self, definition: &Definition, time: ClusterTime) -> Result<(), Fault> {
        match definition {
            Definition::Create(namespace, options) if self.scope.contains(namespace) => self.create(namespace, options).await,
            Definition::Drop(namespace) if self.scope.contains(namespace) => self.drop(namespace).await,
            Definition::Rename(from, to) => self.rename(from, to, time).await,
            Definition::CreateIndexes(namespace, specs) if self.scope.contains(namespace) => {
                self.note_created(vec![namespace.clone()]).await?;
                for spec in specs {
                    self.progress.add_deferred(index::deferred(namespace, spec));
                    index::build_one(&self.destination, namespace, spec, self.traits_of(namespace).collated).await?;
                }
                Ok(())
            }
            Definition::DropIndexes(namespace, names) if self.scope.contains(namespace) => {
                for name in names {
                    index::drop_one(&self.destination, namespace, name).await?;
                }
                Ok(())
            }
            Definition::Modify(namespace, change) if self.scope.contains(namespace) => self.modify(namespace, change).await,
            // Its collections were dropped one by one, and its views are compared at the cutover.
            Definition::DropDatabase(_)
            | Definition::Create(..)
            | Definition::Drop(_)
            | Definition::CreateIndexes(..)
            | Definition::DropIndexes(..)
            | Definition::Modify(..) => Ok(()),
        }
    }

    async fn create(&self, namespace: &Namespace, options: &RawDocument) -> Result<(), Fault> {
        self.note_created(vec![namespace.clone()]).await?;
        let id_index = options.get_document("idIndex").ok();
        let mut wrapped = RawDocumentBuf::new();
        append(&mut wrapped, "name", namespace.collection.as_str());
        append(&mut wrapped, "options", options);
        if let Some(info) = CollectionInfo::new(&namespace.db, wrapped)
            && let Some(fault) = catalog::unsupported(&info)
        {
            return Err(fault);
        }
        catalog::create(
            &self.destination,
            &namespace.db,
            catalog::create_command(&namespace.collection, Some(options), id_index),
        )
        .await?;
        self.set_traits(
            namespace,
            Some(Traits {
                collated: options.get_document("collation").is_ok(),
                capped: options.get_bool("capped").unwrap_or(false),
            }),
        );
        Ok(())
    }

    async fn drop(&self, namespace: &Namespace) -> Result<(), Fault> {
        // Only what this run made: with `existing_data = "refuse"` there is nothing else in scope, but the rule is checked here too.
        if self.progress.created().contains(namespace) {
            catalog::drop(&self.destination, namespace).await?;
        }
        self.set_traits(namespace, None);
        self.verifier.gone(namespace).await?;
        self.set_recopied(namespace, None).await
    }

    async fn rename(&self, from: &Namespace, to: &Namespace, time: ClusterTime) -> Result<(), Fault> {
        match (self.scope.contains(from), self.scope.contains(to)) {
            (false, false) => Ok(()),
            (true, false) => self.drop(from).await,
            (false, true) => {
                self.drop(to).await?;
                self.copy_again(to).await
            }
            (true, true) if self.was_read_after(from, time) || self.was_read_after(to, time) => {
                self.drop(from).await?;
                self.drop(to).await?;
                self.copy_again(to).await
            }
            (true, true) => {
                self.note_created(vec![to.clone()]).await?;
                let rename = doc! {
                    "renameCollection": from.to_string(), "to": to.to_string(), "dropTarget": true,
                    "writeConcern": { "w": "majority" },
                };
                match self.destination.command("admin", rename).await {
                    Ok(_) => {}
                    // It ran before a crash, and its checkpoint was not stored: nothing before it is replayed.
                    Err(e) if error::code(&e) == Some(NAMESPACE_NOT_FOUND) => {}
                    Err(e) => return Err(self.destination.fault(&format!("renaming {from} to {to}"), &e)),
                }
                self.verifier.renamed(from, to).await?;
                let traits = self.traits_of(from);
                self.set_traits(from, None);
                self.set_traits(to, Some(traits));
                self.set_recopied(to, None).await
            }
        }
    }

    async fn modify(&self, namespace: &Namespace, change: &RawDocument) -> Result<(), Fault> {
        let mut modify = command("collMod", &namespace.collection);
        let mut carries = false;
        for (key, value) in change.iter().flatten() {
            if CARRIED_OPTIONS.contains(&key.as_str()) {
                append(&mut modify, key.as_str(), value);
                carries = true;
            }
        }
        if !carries {
            return Ok(());
        }
        match self.destination.raw_command(&namespace.db, modify).await {
            Ok(_) => Ok(()),
            // Replayed for a collection that was dropped since: its drop is further on.
            Err(e) if error::code(&e) == Some(NAMESPACE_NOT_FOUND) => Ok(()),
            Err(e) => Err(self.destination.fault(&format!("modifying {namespace}"), &e)),
        }
    }

    /// Copies one namespace whole, as it is on the source now.
    pub(super) async fn copy_again(&self, namespace: &Namespace) -> Result<(), Fault> {
        let start = self.source.oplog_note("cutover: copying a renamed collection again").await?;
        let Some(info) = catalog::find(&self.source, namespace).await? else {
            tracing::info!(%namespace, "renamed and gone again; what made it go is further on");
            return self.set_recopied(namespace, Some(Recopied { whole: false, time: start })).await;
        };
        if let Some(fault) = catalog::unsupported(&info) {
            return Err(fault);
        }
        tracing::info!(%namespace, "renamed while it was read; copying it again");
        self.note_created(vec![namespace.clone()]).await?;
        catalog::create(&self.destination, &namespace.db, info.create_command()).await?;
        let (documents, bytes) = catalog::size(&self.source, namespace).await?;
        let (source, _) = self.source.pinned().await?;
        let copier =
            Copier { source: &source, destination: &self.destination, progress: &self.progress, start: timestamp(start) };
        for part in partition::split(&source, &info, bytes).await? {
            copier.copy(namespace, &part, batch_size(documents, bytes, 1)).await?;
        }
        let specs = catalog::indexes(&self.source, namespace).await?;
        index::build(&self.destination, namespace, &specs, info.has_collation()).await?;
        self.set_traits(namespace, Some(Traits { collated: info.has_collation(), capped: info.is_capped() }));
        self.verifier.copied_again(namespace).await?;
        let time = self.source.majority_optime().await?;
        self.set_recopied(namespace, Some(Recopied { whole: true, time })).await
    }

    async fn set_recopied(&self, namespace: &Namespace, recopied: Option<Recopied>) -> Result<(), Fault> {
        self.checkpoints.store_recopied(namespace, recopied).await?;
        let mut known = self.recopied.lock().unwrap_or_else(PoisonError::into_inner);
        match recopied {
            Some(recopied) => known.insert(namespace.clone(), recopied),
            None => known.remove(namespace),
        };
        Ok(())
    }
}
