//! The bound of a capped collection: lifted on the destination while a run goes on, and given back
//! in the end.
//!
//! A source may hold more than its bound, since documents that grow and a `collMod` to less evict
//! nothing by themselves: only the next insertion does (tried on 6.0.5 and 6.0.27). A destination
//! under that bound would evict what the source still has, in the copy and by every insertion that
//! the tail repeats. So nothing on the destination evicts until all is there; the source's own
//! evictions are told as deletions. Giving the bound back evicts nothing either.
//!
//! A server changes bounds from version and feature compatibility 6.0 on. One that does not keeps
//! the bound that it was made with.

use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;

use crate::engine::catalog::{self, CollectionInfo};
use crate::mongo::{Deployment, append, command, error, number, server_code};

/// The largest size that servers take, in bytes (5.0.32, 6.0.5, 6.0.27: "value must be <=
/// 1125899906842624").
const LIFTED_SIZE: i64 = 1 << 50;
/// The limit of documents that servers list where `collMod` has taken it away.
const LIFTED_MAX: i64 = i32::MAX as i64;
/// Sizes are whole numbers of so many bytes on servers that round them up (6.0.5, and `create` on
/// all).
const STEP: i64 = 256;

/// The bound of a capped collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// In bytes.
    size: i64,
    /// In documents; [`LIFTED_MAX`] is none.
    max: i64,
}

impl Bound {
    /// Reads it of what a listing or a `create` reports; `None`: it is not capped.
    #[must_use]
    pub fn of(options: &RawDocument) -> Option<Self> {
        if !options.get_bool("capped").unwrap_or(false) {
            return None;
        }
        let max = number(options, "max").filter(|max| (1..LIFTED_MAX).contains(max));
        Some(Self { size: number(options, "size").unwrap_or(0), max: max.unwrap_or(LIFTED_MAX) })
    }

    /// Whether nothing reaches it.
    #[must_use]
    pub const fn is_lifted(self) -> bool {
        self.size >= LIFTED_SIZE && self.max == LIFTED_MAX
    }

    /// Whether so much is more than it.
    #[must_use]
    pub fn is_exceeded(self, documents: u64, bytes: u64) -> bool {
        let exceeds = |count: u64, bound: i64| i64::try_from(count).unwrap_or(i64::MAX) > bound;
        exceeds(bytes, self.size) || self.max < LIFTED_MAX && exceeds(documents, self.max)
    }

    /// Whether a server that was given this bound may list that one.
    fn is_listed_as(self, listed: Self) -> bool {
        let rounded = self.size.saturating_add(STEP - 1) / STEP * STEP;
        self.max == listed.max && (self.size == listed.size || rounded == listed.size)
    }

    fn change(namespace: &Namespace, from: Self, to: Self) -> RawDocumentBuf {
        let mut change = command("collMod", &namespace.collection);
        if from.size != to.size {
            append(&mut change, "cappedSize", to.size);
        }
        if from.max != to.max {
            append(&mut change, "cappedMax", to.max);
        }
        append(&mut change, "writeConcern", &*rawdoc! { "w": "majority" });
        change
    }
}

/// What is held off of a capped collection, in words.
#[must_use]
pub fn deferred(info: &CollectionInfo) -> Option<String> {
    info.is_capped().then(|| format!("the bound of {} (capped)", info.namespace))
}

/// Whether an option of a collection is the bound that is held off there during the sync.
#[must_use]
pub fn is_held_off(option: &str, there: Option<&RawDocument>) -> bool {
    let size = there.and_then(Bound::of).map_or(0, |bound| bound.size);
    ["size", "max"].contains(&option) && size >= LIFTED_SIZE
}

/// Lifts a bound on the destination. `false`: the server does not change bounds, and it stays.
pub async fn lift(
    destination: &Deployment,
    namespace: &Namespace,
    bound: Bound,
) -> Result<bool, Fault> {
    if bound.is_lifted() {
        return Ok(true);
    }
    let change = Bound::change(namespace, bound, Bound { size: LIFTED_SIZE, max: LIFTED_MAX });
    match destination.raw_command(&namespace.db, change).await {
        Ok(_) => Ok(true),
        Err(e) if error::is_transient(&e) || error::code(&e) == Some(server_code::UNAUTHORIZED) => {
            Err(destination.fault(&format!("lifting the bound of {namespace}"), &e))
        }
        Err(e) => {
            tracing::info!(%namespace, error = error::words(&e), "its bound cannot be lifted on \
                 the destination, and stays");
            Ok(false)
        }
    }
}

/// Gives a capped collection the source's bound, in the end. Nothing is evicted by that.
///
/// # Errors
/// The server does not take it, or lists another one afterwards.
pub async fn give_back(destination: &Deployment, wanted: &CollectionInfo) -> Result<(), Fault> {
    let namespace = &wanted.namespace;
    let Some(bound) = wanted.options().and_then(Bound::of) else { return Ok(()) };
    let listed = async || {
        let there = catalog::find(destination, namespace).await?;
        there.as_ref().and_then(CollectionInfo::options).and_then(Bound::of).ok_or_else(|| {
            let message =
                format!("{namespace} is capped on the source, and on the destination it is not");
            Fault::new(FaultCode::VerificationMismatch, message)
        })
    };
    let there = listed().await?;
    if bound.is_listed_as(there) {
        return Ok(());
    }
    destination
        .raw_command(&namespace.db, Bound::change(namespace, there, bound))
        .await
        .map_err(|e| destination.fault(&format!("giving its bound back to {namespace}"), &e))?;
    let there = listed().await?;
    if bound.is_listed_as(there) {
        return Ok(());
    }
    let words = |bound: Bound| format!("{} bytes and {} documents", bound.size, bound.max);
    let message = format!(
        "the bound of {namespace} is {} on the source, and on the destination it is {}",
        words(bound),
        words(there)
    );
    Err(Fault::new(FaultCode::VerificationMismatch, message))
}

#[cfg(test)]
mod tests {
    use super::{Bound, LIFTED_MAX, LIFTED_SIZE, is_held_off};
    use mongodb::bson::rawdoc;
    use schemas::namespace::Namespace;

    #[test]
    fn a_bound_is_what_is_listed_whatever_its_type() {
        assert_eq!(Bound::of(&rawdoc! { "size": 4096 }), None);
        let bound = Bound::of(&rawdoc! { "capped": true, "size": 4096.0, "max": 5_i64 });
        assert_eq!(bound, Some(Bound { size: 4096, max: 5 }));
        let unlimited = Some(Bound { size: 1, max: LIFTED_MAX });
        assert_eq!(Bound::of(&rawdoc! { "capped": true, "size": 1 }), unlimited);
        assert_eq!(Bound::of(&rawdoc! { "capped": true, "size": 1, "max": i32::MAX }), unlimited);
    }

    #[test]
    fn more_than_a_bound_is_more_in_bytes_or_in_documents() {
        let bound = Bound { size: 100, max: 3 };
        assert!(!bound.is_exceeded(3, 100) && bound.is_exceeded(4, 1) && bound.is_exceeded(1, 101));
        assert!(!Bound { size: 100, max: LIFTED_MAX }.is_exceeded(u64::MAX, 100));
    }

    #[test]
    fn a_size_may_be_rounded_up() {
        let [given, rounded, other] = [1000, 1024, 1280].map(|size| Bound { size, max: 3 });
        assert!(given.is_listed_as(given) && given.is_listed_as(rounded));
        assert!(!given.is_listed_as(other) && !rounded.is_listed_as(given));
    }

    #[test]
    fn only_a_lifted_bound_is_held_off() {
        let lifted = rawdoc! { "capped": true, "size": LIFTED_SIZE };
        assert!(is_held_off("size", Some(&lifted)) && is_held_off("max", Some(&lifted)));
        assert!(!is_held_off("validator", Some(&lifted)));
        assert!(
            !is_held_off("size", Some(&rawdoc! { "capped": true, "size": 4096 }))
                && !is_held_off("size", None)
        );
    }

    #[test]
    fn only_what_differs_is_changed() {
        let (namespace, lifted) =
            (Namespace::new("a", "b"), Bound { size: LIFTED_SIZE, max: LIFTED_MAX });
        let change = Bound::change(&namespace, Bound { size: 9, max: LIFTED_MAX }, lifted);
        assert_eq!(
            change,
            rawdoc! {
                "collMod": "b", "cappedSize": LIFTED_SIZE, "writeConcern": { "w": "majority" },
            }
        );
    }
}
