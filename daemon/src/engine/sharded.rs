//! A sharded source: each shard is a source of its own, with its own start point, parts, checkpoint, progress and error.
//!
//! ```text
//! router --> topology (shards, chunk maps, versions) ------------------- compared again: what moved is an error
//! shard 0 --> start point --> definitions --> documents --\
//! shard 1 --> start point --> definitions --> documents ---+--> indexes --> the streams, merged --> tail
//! shard 2 --> start point --> definitions --> documents --/
//! ```
//!
//! **Order.** Every shard's start point is stored before a document of any is read: a document whose shard key changes meanwhile
//! leaves one shard and comes to another, and only the streams tell. The cluster is looked at after the start points. Definitions
//! are made one shard after another, since each tells of the same collections; documents are copied side by side, and a shard that
//! fails keeps its error to itself while the others go on. Indexes are built once all documents are there.
//!
//! **Ownership.** Reads carry the versions of that look at the cluster ([`Placement`]): a shard then leaves out its orphans, and
//! answers `StaleConfig` once a chunk has moved. A scan that is open goes on with what the shard owned when it began. So as long as
//! every scan began under one state of the cluster, each document was read from one shard, or a stream tells of it; that it was one
//! state is checked when all are done, and, by what was stored of it, when the copy goes on after the daemon was down.
//!
//! **Streams.** [`super::merge`] lets events out in the order of cluster time over all shards. What is applied is one stream, then:
//! rounds, workers and checkpoint stay as they are, but for one token a shard, stored together. A shard that is idle holds the others
//! up ([`super::merge::Merge::holds_up`]) and gets a note in its oplog. Definitions are told by each shard that holds the collection:
//! [`super::told::Told`] lets the first through. A delete in a collection whose key is more than `_id` is taken as "read again through
//! the router", since the insert on the other shard may come before it at nearly the same time.
//!
//! **Restart of one shard.** Its parts and checkpoint are its own rows; [`ShardedCopy::copy_shard`] goes on from them. From scratch
//! (its start point is lost) what it had brought is first deleted: the documents on the destination whose owner, by the chunk map, it
//! is. While the documents are copied that needs nothing of the other shards; once the tail runs the whole run begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;

use super::balancer;
use super::progress::Progress;
use super::sync::Sync;
use super::topology::{Change, Cluster, Placement, Shard};
use crate::mongo::{Deployment, Side, connect};

/// The copy of one shard.
#[derive(Debug)]
pub struct ShardCopy {
    /// The shard.
    pub shard: Shard,
    /// Its work, with a progress of its own.
    pub sync: Sync,
}

/// The copy of all shards.
#[derive(Debug)]
pub struct ShardedCopy {
    router: Arc<Deployment>,
    cluster: Arc<Cluster>,
    shards: Vec<ShardCopy>,
}

/// What came of each shard's documents: the time by which all of them had been read, or why they were not.
pub type Outcomes = BTreeMap<ShardName, Result<ClusterTime, Fault>>;

fn moved(changes: &[Change]) -> Fault {
    let told: Vec<String> = changes.iter().filter(|change| change.moves_data()).map(ToString::to_string).collect();
    Fault::new(FaultCode::ChunksMoved, format!("while the shards were read, {}", told.join("; ")))
}

impl ShardedCopy {
    /// Connects to every shard behind the router that `run` reads from, and stores each one's start point.
    ///
    /// The balancer must be still already.
    pub async fn open(run: &Sync) -> Result<Self, Fault> {
        let router = Arc::clone(&run.source);
        if !balancer::look(&router).await?.is_still() {
            return Err(Fault::new(FaultCode::ChunksMoved, format!("the balancer of the cluster at {} is on", router.hosts))
                .with_remedy("stop it, or set `balancer = \"manage\"` in the block `sharding`"));
        }
        let before = Cluster::discover(&router).await?;
        let connected = try_join_all(before.shards.iter().map(|shard| async {
            let connection = shard.connection(&run.spec.source.connection);
            connect(Side::Source, &connection, None, &router.tag).await.map(Arc::new)
        }))
        .await?;
        let mut shards = Vec::new();
        for (shard, source) in before.shards.iter().zip(connected) {
            let progress = Arc::new(Progress::new(run.spec.verify.mode));
            progress.set_shard(&shard.name.0);
            let sync = Sync { source, progress, ..run.clone() };
            sync.start_point(&shard.name.0).await?;
            shards.push(ShardCopy { shard: shard.clone(), sync });
        }
        // As the cluster is once every stream has begun: what moves from here on is noticed.
        let cluster = Arc::new(Cluster::discover(&router).await?);
        if cluster.shards != before.shards {
            return Err(moved(&cluster.changes_since(&before)));
        }
        let stored = run.checkpoints.places().await?;
        if stored.is_empty() {
            run.checkpoints.store_places(cluster.places()).await?;
        }
        let elsewhere = cluster.moved_from(&stored);
        if !elsewhere.is_empty() {
            let message = format!("since the copy began these moved to other shards: {}", elsewhere.join(", "));
            return Err(Fault::new(FaultCode::ChunksMoved, message));
        }
        for copy in &mut shards {
            let placement = Placement { cluster: Arc::clone(&cluster), shard: copy.shard.name.clone() };
            copy.sync.placement = Some(Arc::new(placement));
        }
        Ok(Self { router, cluster, shards })
    }

    /// The shards, each with its progress.
    #[must_use]
    pub fn shards(&self) -> &[ShardCopy] {
        &self.shards
    }

    /// Makes the definitions, then copies every shard's documents side by side. A shard that fails keeps the others from nothing.
    pub async fn copy(&self) -> Result<Outcomes, Fault> {
        for copy in &self.shards {
            let row = copy.sync.start_point(&copy.shard.name.0).await?;
            copy.sync.prepare(&copy.shard.name.0, &row).await?;
        }
        let copies = self.shards.iter().map(|copy| async { (copy.shard.name.clone(), copy.copy().await) });
        Ok(join_all(copies).await.into_iter().collect())
    }

    /// Copies what is left of one shard's documents, after it had failed.
    pub async fn copy_shard(&self, name: &ShardName) -> Result<ClusterTime, Fault> {
        match self.shards.iter().find(|copy| copy.shard.name == *name) {
            Some(copy) => copy.copy().await,
            None => Err(Fault::new(FaultCode::InvalidConfiguration, format!("the source has no shard {name}"))),
        }
    }

    /// Ends the copy once every shard's documents are there: makes sure that nothing moved meanwhile, and builds the indexes.
    pub async fn finish(&self) -> Result<(), Fault> {
        let changes = Cluster::discover(&self.router).await?.changes_since(&self.cluster);
        if changes.iter().any(Change::moves_data) {
            return Err(moved(&changes));
        }
        for copy in &self.shards {
            copy.sync.build_all_indexes(&copy.shard.name.0).await?;
        }
        Ok(())
    }
}

impl ShardCopy {
    async fn copy(&self) -> Result<ClusterTime, Fault> {
        let shard = self.shard.name.0.as_str();
        let copied = self
            .sync
            .patiently(|| {
                Box::pin(async {
                    let row = self.sync.start_point(shard).await?;
                    let prepared = self.sync.prepare(shard, &row).await?;
                    self.sync.copy_documents(shard, &row, &prepared).await
                })
            })
            .await;
        if let Err(fault) = &copied {
            tracing::warn!(shard, code = %fault.code, error = %fault.message, "a shard's copy stopped");
            self.sync.progress.set_error(Some(fault.clone()));
        }
        copied
    }
}
