//! Copies a capped collection again into another one, which takes its name once it is whole.
//!
//! The tail does it between two rounds, as it applies a definition: what it applies afterwards has
//! happened before or after the copy, and both is met again. Until the new one is renamed over it
//! the old one stays as it is, whatever ends the process.

use std::fmt::Write as _;

use mongodb::bson::doc;
use schemas::fault::Fault;
use schemas::namespace::{Namespace, Scope};
use sha2::{Digest as _, Sha256};

use crate::engine::catalog::{self, CollectionInfo};
use crate::engine::checkpoint::Recopied;
use crate::engine::index;
use crate::engine::tail::{Tail, Traits};
use crate::mongo::Deployment;

/// What the names of collections aside begin with.
const PREFIX: &str = "cutover.aside.";

/// Whether a collection of the destination is one aside, which belongs to a run and to nobody's
/// data.
#[must_use]
pub fn is_aside(namespace: &Namespace) -> bool {
    namespace.collection.starts_with(PREFIX)
}

/// The collection aside of this one. `tag` is that of the run's connection: another run has
/// another.
fn name(tag: &str, namespace: &Namespace) -> Namespace {
    let digest = Sha256::digest(format!("{tag} {namespace}"));
    let mut name = PREFIX.to_owned();
    for byte in digest.iter().take(12) {
        let _ = write!(name, "{byte:02x}");
    }
    Namespace::new(&namespace.db, name)
}

/// Drops the collections aside that a run has left behind.
pub async fn drop_left(
    destination: &Deployment,
    scope: &Scope,
    created: impl IntoIterator<Item = Namespace>,
) -> Result<(), Fault> {
    let left = catalog::asides(destination, scope).await?;
    if left.is_empty() {
        return Ok(());
    }
    let ours: Vec<Namespace> =
        created.into_iter().map(|namespace| name(&destination.tag, &namespace)).collect();
    for namespace in left.iter().filter(|namespace| ours.contains(namespace)) {
        tracing::info!(%namespace, "left by a copy that did not end; dropped");
        catalog::drop(destination, namespace).await?;
    }
    Ok(())
}

impl Tail {
    /// Copies a capped collection again, in the order in which the source has it now, and puts it
    /// in the place of what is there.
    pub(in crate::engine) async fn copy_aside(&self, namespace: &Namespace) -> Result<(), Fault> {
        let Some(info) =
            catalog::find(&self.source.entry, namespace).await?.filter(CollectionInfo::is_capped)
        else {
            // What made it go, or another one, is further on in the stream.
            return Ok(());
        };
        tracing::info!(%namespace, "a capped collection is in another order than on the source; \
             it is copied again, aside");
        self.note_created(vec![namespace.clone()]).await?;
        let aside = name(&self.destination.tag, namespace);
        catalog::drop(&self.destination, &aside).await?;
        let id_index = info.raw.get_document("idIndex").ok();
        let create = catalog::create_command(&aside.collection, info.options(), id_index);
        catalog::create(&self.destination, &aside.db, create).await?;
        self.copy_documents_to(&info, Some(&aside)).await?;
        let specs = catalog::indexes(&self.source.entry, namespace).await?;
        index::build(&self.destination, &aside, &specs, info.has_collation()).await?;
        // What is read from here on is as new as this, also should the process end between the two.
        let time = self.source.newest_optime().await?;
        self.set_recopied(namespace, Some(Recopied { whole: true, time })).await?;
        let rename = doc! {
            "renameCollection": aside.to_string(), "to": namespace.to_string(), "dropTarget": true,
            "writeConcern": { "w": "majority" },
        };
        self.destination.command("admin", rename).await.map_err(|e| {
            self.destination
                .fault(&format!("putting what was copied aside in the place of {namespace}"), &e)
        })?;
        self.set_traits(namespace, Some(Traits::of(&info)));
        self.verifier.copied_again(namespace).await
    }
}

#[cfg(test)]
mod tests {
    use super::{is_aside, name};
    use schemas::namespace::Namespace;

    #[test]
    fn each_run_has_its_own_name_for_each_collection() {
        let log = Namespace::new("shop", "log");
        let aside = name("orders-1-5c1e", &log);
        assert!(is_aside(&aside) && !is_aside(&log) && aside.db == "shop");
        assert_eq!(aside, name("orders-1-5c1e", &log));
        assert_ne!(aside, name("orders-2-5c1e", &log));
        assert_ne!(aside, name("orders-1-5c1e", &Namespace::new("shop", "logs")));
    }
}
