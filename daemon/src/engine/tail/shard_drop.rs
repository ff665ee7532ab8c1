//! What it means that a shard reports a collection's drop.
//!
//! Not every drop is a user's. Where a collection was renamed over another one, the shards that had
//! some of that one alone report that it was dropped, and it is gone already. `movePrimary` makes a
//! database's collections on another shard and drops them where they were. And a collection that is
//! resharded is another one under its old name from then on; no stream reports that on servers
//! before 6.0.14, so that it cannot be known whose drop is reported. What is doubtful is copied
//! again, as the source has it now: nothing is lost by that, whatever it was, and what is further
//! on in the streams is met again.

use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use super::Tail;
use super::merge::ShardIndex;
use crate::engine::catalog;
use crate::engine::source::topology;

/// What it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The collection of that name is gone.
    Gone,
    /// Another one, which a rename has replaced.
    Replaced,
    /// Nobody can tell.
    Doubtful,
}

/// Tells them apart by the UUIDs of the collection that was dropped, of the one that the streams
/// have told to have the name (where they have), and of the one that has the name on the source
/// now; `None`: there is none now. `is_placed_anew`: that one need not have been told.
fn judge(
    dropped: &[u8],
    named: Option<&[u8]>,
    now: Option<&[u8]>,
    is_placed_anew: bool,
) -> Dropped {
    match (named, now) {
        (Some(named), Some(now)) if named == now && named != dropped => Dropped::Replaced,
        (Some(named), _) if named != dropped => Dropped::Doubtful,
        (_, Some(_)) if is_placed_anew => Dropped::Doubtful,
        (_, Some(_) | None) => Dropped::Gone,
    }
}

impl Tail {
    /// Judges a drop that a shard of a cluster reports. `named`: the UUID that the collection of
    /// that name has, as far as it was reported.
    pub(super) async fn dropped(
        &self,
        shard_index: ShardIndex,
        namespace: &Namespace,
        uuid: Option<&[u8]>,
        named: Option<&[u8]>,
    ) -> Result<Dropped, Fault> {
        if self.carried(namespace).is_none() || catalog::owner_of(namespace).is_some() {
            return Ok(Dropped::Gone);
        }
        let now = catalog::find(&self.source.entry, namespace).await?;
        let is_elsewhere = self.is_elsewhere(shard_index, namespace, now.is_some()).await?;
        if now.is_some() && self.is_copied_in_part(namespace) {
            // What it was taken for before that failed is not known any more.
            return Ok(Dropped::Doubtful);
        }
        let Some(uuid) = uuid else { return Ok(Dropped::Gone) };
        let is_placed_anew = now.is_some()
            && (is_elsewhere || topology::is_sharded(&self.source.entry, namespace).await?);
        Ok(judge(uuid, named, now.as_ref().and_then(|info| info.uuid()).as_deref(), is_placed_anew))
    }

    /// Refuses what a shard reports a database whose primary shard has moved: `movePrimary` makes
    /// the collections there and drops them here, and that looks as if a user had done it. A
    /// database that was dropped and made anew may well be elsewhere. One that is new, whose first
    /// primary shard was not noted, may have moved: then this is true.
    async fn is_elsewhere(
        &self,
        shard_index: ShardIndex,
        namespace: &Namespace,
        is_there: bool,
    ) -> Result<bool, Fault> {
        let shard = &self.source.shards[shard_index].name;
        let Some(home) = topology::home(&self.source.entry, &namespace.db).await? else {
            return Ok(false);
        };
        let place = home.place(&namespace.db);
        let primary = home.primary;
        let Some(before) = self.checkpoints.places().await?.remove(&place) else {
            self.checkpoints.store_places([(place, primary.0.clone())].into()).await?;
            return Ok(primary != *shard);
        };
        // Of a sharded collection every shard that had some of it reports that it is gone, and then
        // it is.
        if primary.0 != before && primary != *shard && is_there {
            return Err(Fault::new(
                FaultCode::ChunksMoved,
                format!(
                    "{shard} tells that {namespace} was dropped, and it is there on {primary}, \
                     the primary shard of its database by now"
                ),
            ));
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::{Dropped, judge};

    #[test]
    fn what_a_rename_replaced_is_not_dropped_again_by_its_name() {
        assert_eq!(judge(b"old", Some(b"new"), Some(b"new"), false), Dropped::Replaced);
        assert_eq!(judge(b"new", Some(b"new"), None, false), Dropped::Gone);
        // Told by another shard, after what took its name was.
        assert_eq!(judge(b"old", Some(b"next"), Some(b"next"), true), Dropped::Replaced);
        assert_eq!(
            judge(b"new", Some(b"new"), Some(b"next"), false),
            Dropped::Gone,
            "made again further on"
        );
    }

    #[test]
    fn what_may_have_been_resharded_or_moved_is_doubtful() {
        assert_eq!(judge(b"resharded", Some(b"told"), None, false), Dropped::Doubtful);
        assert_eq!(judge(b"resharded", Some(b"told"), Some(b"next"), true), Dropped::Doubtful);
        assert_eq!(judge(b"any", None, Some(b"other"), true), Dropped::Doubtful);
        assert_eq!(judge(b"any", None, Some(b"other"), false), Dropped::Gone);
        assert_eq!(judge(b"any", None, None, true), Dropped::Gone);
    }
}
