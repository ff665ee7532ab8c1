//! A stand-in for `mongos`, for machines that have none: routes commands to the shards of a real
//! cluster.
//!
//! ```text
//! client --wire--> session --> admin, definition       (config server, or a primary shard)
//!                    (login: who the client is, and whether it may)
//!                          --> read, write --> target  (by the real chunk map, with versions)
//!                          --> stream              (every shard's change streams, merged)
//!                          --> transaction             (several shards: the server's coordinator)
//! ```
//!
//! Chunks, ownership, versions and coordinators are the servers' own; a stale version is answered
//! by them, and the route is then read again. It is no `mongos`: it merges only what [`read`]
//! names, and judges what a user may do as far as [`login`] says. `$CUTOVER_MONGOS`, or a `mongos`
//! on the `PATH`, takes its place.

mod admin;
mod command;
mod cursor;
mod definition;
mod link;
mod login;
mod read;
mod scram;
mod session;
mod shards;
mod stream;
mod table;
mod target;
mod transaction;
mod wire;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use mongodb::bson::RawDocumentBuf;
use tokio::net::TcpListener;

use self::link::Links;
pub use self::link::RouterTls;
use self::shards::{CONFIG, Shards};
use self::table::Table;

/// A command's answer, or an error that is answered in its place.
type Answer = Result<RawDocumentBuf, command::Refusal>;

/// The exit code of a server that finds its port taken, as `mongod` and `mongos` have it.
pub const EXIT_ADDRESS_IN_USE: i32 = 48;

/// How often a route is read again before a stale version is given back to the client.
const STALE_TRIES: usize = 20;

/// What all connections share.
struct Router {
    shards: Shards,
    table: Table,
    cursors: Mutex<HashMap<i64, cursor::Open>>,
    transactions: Mutex<HashMap<Vec<u8>, transaction::Transaction>>,
    /// Held while a collection is sharded, or capped: the servers' own locks for that do not keep
    /// the two apart.
    sharding: tokio::sync::Mutex<()>,
    /// Clients are told addresses of the shards at which nobody is, as where shards are named
    /// inside of a cluster's network alone.
    hides_shards: bool,
}

impl Router {
    fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves clients until the process ends.
///
/// `config` is the config server as `mongos` takes it: `SET/HOST:PORT[,HOST:PORT]`; `key` what the
/// key file of a cluster with access control holds; `tls`: every connection is within TLS.
/// `hides_shards`: clients cannot reach the shards by what `config.shards` tells them.
///
/// # Errors
/// When the config server cannot be named so, a file of TLS holds something else, or no connection
/// can be taken any more.
pub async fn serve(
    listener: TcpListener,
    config: &str,
    key: Option<&str>,
    tls: Option<&RouterTls>,
    hides_shards: bool,
) -> Result<()> {
    let (_, hosts) =
        config.split_once('/').context("--configdb wants SET/HOST:PORT[,HOST:PORT]")?;
    let shards = Shards::new(hosts, key.map(scram::Key::new), Links::new(tls)?);
    let router = Arc::new(Router {
        table: Table::default(),
        shards,
        cursors: Mutex::default(),
        transactions: Mutex::default(),
        sharding: tokio::sync::Mutex::default(),
        hides_shards,
    });
    router
        .shards
        .primary(CONFIG)
        .await
        .map_err(|refusal| anyhow::anyhow!("the config server: {}", refusal.message))?;
    loop {
        let (stream, _) = listener.accept().await.context("failed to take a connection")?;
        let router = Arc::clone(&router);
        tokio::spawn(async move {
            // Who does not get through the handshake is no client.
            if let Ok(link) = router.shards.accept(stream).await {
                session::serve(router, link).await;
            }
        });
    }
}
