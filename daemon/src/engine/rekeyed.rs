//! Collections that have got another shard key on the source than they have on the destination.
//!
//! Servers from 6.0.14 on tell that a collection has another shard key, and it is copied again under that. Older ones do not: its data
//! arrives all the same, and lies by the old key on a sharded destination until somebody decides what is to become of it.

use std::collections::BTreeMap;

use schemas::fault::{Fault, FaultCode};
use schemas::namespace::{Namespace, Scope};
use schemas::spec::ShardingSpec;

use super::distribute;
use crate::mongo::Deployment;

/// Finds them: what is sharded on both sides, and not by the same key.
pub async fn look(
    source: &Deployment,
    destination: &Deployment,
    sharding: Option<&ShardingSpec>,
    scope: &Scope,
) -> Result<Vec<Fault>, Fault> {
    if !source.is_sharded() || !destination.is_sharded() {
        return Ok(Vec::new());
    }
    let (wanted, there) = tokio::try_join!(source.all_sharded(), destination.all_sharded())?;
    let there: BTreeMap<Namespace, _> = there.into_iter().collect();
    let in_scope = wanted.into_iter().filter(|(namespace, _)| scope.contains(namespace));
    Ok(in_scope
        .filter_map(|(namespace, wanted)| {
            let wanted = distribute::declared(sharding, &namespace).unwrap_or(wanted.key);
            let there = &there.get(&namespace)?.key;
            (!distribute::is_same(&wanted, there)).then(|| {
                let (wanted, there) = (distribute::in_words(&wanted), distribute::in_words(there));
                let message = format!("{namespace} is sharded by {wanted} by now, and on the destination by {there}");
                let remedy = "raise `generation` to run again with the new key";
                Fault::new(FaultCode::ShardKeyUnfit, message).with_remedy(remedy)
            })
        })
        .collect())
}
