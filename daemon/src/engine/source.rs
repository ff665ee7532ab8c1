//! What a run reads from: the deployment that it is given, and the replica sets that hold its data.
//!
//! Of a replica set both are the same one. Of a sharded cluster the first, the *entry*, is a
//! router: it answers for the cluster whole, that is for catalogues, for documents by their `_id`,
//! for users and for the block on writes. What belongs to one replica set (start points, scans,
//! change streams, oplogs) is asked of each shard directly.
//!
//! Servers of a cluster tell each other what time it is with every message that passes between
//! them. Nothing passes between a shard that was just read from and one that is idle, or a router
//! that did not carry the write: they may not have heard of a time that we know of, and refuse to
//! read as of it. [`Source::introduce`] tells them.
//!
//! Where shards cannot be reached, the router stands for all of them: [`behind_router`].

pub mod balancer;
pub mod balancer_hold;
pub mod behind_router;
pub mod topology;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use schemas::namespace::Namespace;
use schemas::spec::ConnectionSpec;
use tokio::sync::Mutex;

use self::topology::{Cluster, Shard};
use super::tail::stream::EXPANDED;
use crate::memory::Memory;
use crate::mongo::{Deployment, Side, Topology, connect};
use behind_router::Manner;

/// A cluster time of each shard.
pub type Times = BTreeMap<ShardName, ClusterTime>;

/// A replica set that holds data.
#[derive(Debug, Clone)]
pub struct ShardSource {
    /// Its name in its cluster, or its own where it is the whole source.
    pub name: ShardName,
    /// Its connection.
    pub deployment: Arc<Deployment>,
}

/// Each shard behind a router that was reached as `spec` says, or why it is not reached.
pub type Reached = Vec<(ShardName, Result<Arc<Deployment>, Fault>)>;

async fn reach(entry: &Deployment, shards: &[Shard], spec: &ConnectionSpec) -> Reached {
    let connections = shards.iter().map(|shard| async {
        let connection = shard.connection(spec);
        (
            shard.name.clone(),
            connect(Side::Source, &connection, None, &entry.tag)
                .await
                .map(|deployment| Arc::new(deployment.within(&entry.memory))),
        )
    });
    join_all(connections).await
}

/// What is asked for the data behind a deployment, as far as it is reached: of a replica set
/// itself. `manner`: how the run reads a cluster, once it has chosen.
pub async fn holders(
    entry: &Arc<Deployment>,
    spec: &ConnectionSpec,
    manner: Option<Manner>,
) -> Result<Reached, Fault> {
    match &entry.topology {
        Topology::Sharded if manner.is_some_and(|manner| manner.is_through_router()) => {
            Ok(vec![(ShardName(behind_router::NAME.to_owned()), Ok(Arc::clone(entry)))])
        }
        Topology::Sharded => Ok(reach(entry, &Cluster::shards_behind(entry).await?, spec).await),
        Topology::ReplicaSet(name) => Ok(vec![(ShardName(name.clone()), Ok(Arc::clone(entry)))]),
        Topology::Standalone => Ok(vec![(ShardName(entry.hosts.clone()), Ok(Arc::clone(entry)))]),
    }
}

/// What a run reads from.
#[derive(Debug)]
pub struct Source {
    /// Answers for the whole of it.
    pub entry: Arc<Deployment>,
    /// What holds its data, in the order of the names.
    pub shards: Vec<ShardSource>,
    /// What it is made of, as of when it was connected to; `None`: it is no cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// How its data is read, where it is one.
    pub manner: Manner,
    /// The newest time that the entry has been told of.
    introduced: Mutex<Option<ClusterTime>>,
}

impl Source {
    /// Connects to what is declared, and to every shard behind it, or in the manner that a run has
    /// chosen. What is read there is held within `memory`.
    pub async fn connect(
        spec: &ConnectionSpec,
        tag: &str,
        memory: &Memory,
        manner: Option<Manner>,
    ) -> Result<Self, Fault> {
        Self::behind(
            Arc::new(connect(Side::Source, spec, None, tag).await?.within(memory)),
            spec,
            manner,
        )
        .await
    }

    /// Connects to every shard behind a deployment that was reached as `spec` says, or in the
    /// manner that a run has chosen.
    pub async fn behind(
        entry: Arc<Deployment>,
        spec: &ConnectionSpec,
        manner: Option<Manner>,
    ) -> Result<Self, Fault> {
        let itself = |name: &str| {
            vec![ShardSource { name: ShardName(name.to_owned()), deployment: Arc::clone(&entry) }]
        };
        let (shards, cluster, manner) = match &entry.topology {
            Topology::ReplicaSet(name) => (itself(name), None, Manner::Direct),
            Topology::Standalone => {
                let message = format!("the source at {} is a standalone server", entry.hosts);
                return Err(Fault::new(FaultCode::StandaloneSource, message));
            }
            Topology::Sharded => {
                let cluster = Cluster::discover(&entry).await?;
                let (reached, manner) = match manner {
                    Some(Manner::ThroughRouter { unreached }) => {
                        (Vec::new(), Manner::ThroughRouter { unreached })
                    }
                    Some(Manner::Direct) => {
                        (reach(&entry, &cluster.shards, spec).await, Manner::Direct)
                    }
                    None => {
                        let reached = reach(&entry, &cluster.shards, spec).await;
                        match Manner::choose(&entry, &reached).await? {
                            Manner::Direct => (reached, Manner::Direct),
                            // The choice is for good, and the router may have waited for an
                            // election.
                            Manner::ThroughRouter { .. } => {
                                let again = reach(&entry, &cluster.shards, spec).await;
                                let manner = Manner::choose(&entry, &again).await?;
                                (again, manner)
                            }
                        }
                    }
                };
                let shards = match &manner {
                    Manner::ThroughRouter { .. } => itself(behind_router::NAME),
                    Manner::Direct => {
                        let each = reached.into_iter();
                        let each = each.map(|(name, reached)| {
                            reached.map(|deployment| ShardSource { name, deployment })
                        });
                        each.collect::<Result<_, Fault>>()?
                    }
                };
                (shards, Some(Arc::new(cluster)), manner)
            }
        };
        Ok(Self { entry, shards, cluster, manner, introduced: Mutex::default() })
    }

    /// Whether its change streams tell of definitions. Where they do not, those are looked at.
    #[must_use]
    pub fn tells_definitions(&self) -> bool {
        self.entry.version >= EXPANDED
    }

    /// Whether it is a sharded cluster.
    #[must_use]
    pub const fn is_sharded(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether it is a sharded cluster all of whose shards are read through its router.
    #[must_use]
    pub const fn is_behind_router(&self) -> bool {
        self.manner.is_through_router()
    }

    /// Whether it is a sharded cluster each of whose shards is read by itself.
    #[must_use]
    pub const fn tells_shards_apart(&self) -> bool {
        self.is_sharded() && !self.is_behind_router()
    }

    /// The shards' names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &ShardName> {
        self.shards.iter().map(|shard| &shard.name)
    }

    /// A shard by its name.
    #[must_use]
    pub fn shard(&self, name: &ShardName) -> Option<&ShardSource> {
        self.shards.iter().find(|shard| shard.name == *name)
    }

    /// The shard that holds a collection that is not sharded.
    pub async fn home_of(&self, namespace: &Namespace) -> Result<&ShardSource, Fault> {
        let home = match self.tells_shards_apart() {
            // From 8.0 on one may lie on another shard than its database's primary; the cluster
            // then lists it with its one chunk.
            true => match topology::map_of(&self.entry, namespace).await? {
                Some(map) => map
                    .shards()
                    .into_iter()
                    .next()
                    .and_then(|name| self.shard(&ShardName(name.to_owned()))),
                None => topology::home(&self.entry, &namespace.db)
                    .await?
                    .and_then(|home| self.shard(&home.primary)),
            },
            false => self.shards.first(),
        };
        home.ok_or_else(|| {
            Fault::new(
                FaultCode::ChunksMoved,
                format!("no shard that was there when the run began has {namespace}"),
            )
        })
    }

    /// Makes sure that the source has the shards that it had. A router reads whatever shards there
    /// are.
    pub async fn check_shards(&self) -> Result<(), Fault> {
        if !self.tells_shards_apart() {
            return Ok(());
        }
        let now = topology::shard_names(&self.entry).await?;
        let added = now
            .iter()
            .find(|name| self.shard(name).is_none())
            .map(|name| format!("the shard {name} was added to"));
        let removed = self
            .names()
            .find(|name| !now.contains(name))
            .map(|name| format!("the shard {name} was removed from"));
        match added.or(removed) {
            None => Ok(()),
            Some(what) => Err(Fault::new(
                FaultCode::ChunksMoved,
                format!("{what} the source at {} since the run began", self.entry.hosts),
            )),
        }
    }

    /// Writes a note to every shard's oplog: what was acknowledged before the call is at or before
    /// its shard's time, and the streams will tell that they have come so far.
    pub async fn notes(&self, message: &str) -> Result<Times, Fault> {
        let notes = self.shards.iter().map(|shard| async {
            Ok::<_, Fault>((shard.name.clone(), shard.deployment.oplog_note(message).await?))
        });
        let notes = try_join_all(notes).await?.into_iter().collect();
        if self.is_behind_router() {
            // The shards wrote theirs at different times, of which the newest was reported: the
            // others come past it by this one.
            self.entry.oplog_note(message).await?;
        }
        Ok(notes)
    }

    /// The newest majority-committed operation of every shard. A router does not report it: what it
    /// knows of may be newer.
    pub async fn majority_optimes(&self) -> Result<Times, Fault> {
        if self.is_behind_router() {
            return self.notes("cutover: how far").await;
        }
        let looks = self.shards.iter().map(|shard| async {
            Ok::<_, Fault>((shard.name.clone(), shard.deployment.majority_optime().await?))
        });
        Ok(try_join_all(looks).await?.into_iter().collect())
    }

    /// A time that nothing read before the call is newer than.
    pub async fn newest_optime(&self) -> Result<ClusterTime, Fault> {
        if self.is_behind_router() {
            // A router's own answer carries the newest time that any of its shards has reported it.
            return self.entry.operation_time().await;
        }
        let optimes = self.majority_optimes().await?;
        optimes
            .into_values()
            .max()
            .ok_or_else(|| Fault::new(FaultCode::Internal, "the source has no shard"))
    }

    /// Makes a shard that is idle report that it has come past what the others have reported.
    pub async fn advance(&self, idle: &ShardSource) -> Result<ClusterTime, Fault> {
        if let Some(newest) = self.newest_clock().await? {
            idle.deployment.learn(&newest).await?;
        }
        idle.deployment.oplog_note("cutover: nothing here").await
    }

    /// Makes sure that the entry knows of a time that a shard has reported, so that it can be read
    /// as of it.
    pub async fn introduce(&self, time: ClusterTime) -> Result<(), Fault> {
        if !self.is_sharded() {
            return Ok(());
        }
        let mut introduced = self.introduced.lock().await;
        if *introduced >= Some(time) {
            return Ok(());
        }
        if let Some(newest) = self.newest_clock().await? {
            self.entry.learn(&newest).await?;
        }
        *introduced = Some(time);
        Ok(())
    }

    async fn newest_clock(&self) -> Result<Option<mongodb::ClusterTime>, Fault> {
        let clocks = try_join_all(self.shards.iter().map(|shard| shard.deployment.clock())).await?;
        Ok(clocks.into_iter().flatten().max())
    }
}
