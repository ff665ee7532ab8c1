//! Which collection a change belongs to that a shard reports while names change.
//!
//! A rename is carried out shard by shard, and the first shard's word counts. Another may tell
//! afterwards of a transaction that it had prepared before: of a document of the renamed
//! collection, under its old name, or of one that the renamed collection has replaced. The former
//! is carried on under the new name. The latter is nothing of the collection that has the name now;
//! but nor is what is reported of a collection that was resharded, or moved with its database, and
//! has another UUID since, which no stream reports. Where the source has that one under the name,
//! it is the one. Otherwise what becomes of the document is read from the source, as it is there
//! now.

use std::collections::HashSet;

use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::Tail;
use super::shard_ddl::{Told, Whose};
use crate::engine::catalog;
use crate::engine::change_event::Change;

/// Collections that do not have the name under which they are reported, as far as it was asked for
/// since the last definition.
#[derive(Debug, Default)]
pub(super) struct Strangers(HashSet<(Namespace, Vec<u8>)>);

impl Strangers {
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Tail {
    /// The change under the name that its collection has by what was reported, and whether it is
    /// that collection's for sure.
    pub(super) async fn named(
        &self,
        change: Change,
        uuid: &[u8],
        told: &mut Told,
        strangers: &mut Strangers,
    ) -> Result<(Change, bool), Fault> {
        match told.whose(&change.namespace, uuid) {
            Whose::Named => Ok((change, true)),
            Whose::Renamed(namespace) => Ok((Change { namespace, ..change }, true)),
            Whose::Another => {
                let stranger = (change.namespace.clone(), uuid.to_vec());
                if strangers.0.contains(&stranger) {
                    return Ok((change, false));
                }
                let now = catalog::find(&self.source.entry, &change.namespace).await?;
                if now.and_then(|info| info.uuid()).is_some_and(|now| now == uuid) {
                    self.checkpoints.store_identity(&change.namespace, None).await?;
                    told.forget_identity(&change.namespace);
                    return Ok((change, true));
                }
                tracing::info!(namespace = %change.namespace, "told of a collection that does not \
                     have the name any more");
                strangers.0.insert(stranger);
                Ok((change, false))
            }
        }
    }
}
