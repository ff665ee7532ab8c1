//! Runs many small pieces of work, a few at a time.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use schemas::fault::Fault;

/// A piece of work.
pub type Piece<'a, T> = BoxFuture<'a, Result<T, Fault>>;

/// Runs every piece, at most `limit` at once, and collects what they give in the order in which
/// they end. The first fault ends it.
pub async fn all<T>(limit: usize, pieces: Vec<Piece<'_, T>>) -> Result<Vec<T>, Fault> {
    stream::iter(pieces).buffer_unordered(limit).try_collect().await
}
