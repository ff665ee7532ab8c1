//! Real sharded clusters on 127.0.0.1: a config server, shards, and a router before them.
//!
//! The router is `$CUTOVER_MONGOS`, else a `mongos` on the `PATH`, else the rig's own stand-in
//! ([`crate::mongos`]). Everything else is the servers' own: chunks, ownership, migrations,
//! orphans, coordinators. The balancer is off unless a test turns it on.

mod process;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use tempfile::TempDir;

use crate::fault_proxy::FaultProxy;
use crate::replica_set::{Auth, Options, ReplicaSet, Role, TlsMode};
use crate::tls::{Certificate, TlsFiles};
use process::{Access, RouterProcess};

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many shards.
    pub shards: usize,
    /// How many members the first shard has at least; the others have as many as `shard` says.
    pub first_members: usize,
    /// What each shard is started with; its name is `shard-0`, `shard-1`, and so on.
    pub shard: Options,
    /// What the config server is started with.
    pub config: Options,
    /// TLS for every connection to the cluster and within it.
    pub tls: Option<TlsMode>,
    /// What each shard shows; those that are not named, and where nothing is, everybody: a proper
    /// one.
    pub shard_certificates: Vec<Certificate>,
    /// The router is reached through a [`FaultProxy`].
    pub proxied: bool,
    /// The router tells its clients addresses of the shards at which nobody is. Takes the stand-in,
    /// whatever `mongos` there is.
    pub hides_shards: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            shards: 3,
            first_members: 1,
            shard: Options::default(),
            config: Options::default(),
            tls: None,
            shard_certificates: Vec::new(),
            proxied: false,
            hides_shards: false,
        }
    }
}

impl ClusterOptions {
    /// So many shards of one member each.
    #[must_use]
    pub fn shards(shards: usize) -> Self {
        Self { shards, ..Self::default() }
    }

    /// Access control on every server; the users besides root are made on the config server and on
    /// every shard.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.shard.auth = Some(auth.clone());
        self.config.auth = Some(auth);
        self
    }
}

impl ClusterOptions {
    /// TLS for every connection to the cluster and within it.
    #[must_use]
    pub fn tls(self, mode: TlsMode) -> Self {
        Self { tls: Some(mode), ..self }
    }
}

async fn add(config: &ReplicaSet, shard: &ReplicaSet) -> Result<()> {
    let add = doc! {
        "_configsvrAddShard": shard.seed(), "name": shard.name(),
        "writeConcern": { "w": "majority" },
    };
    config
        .client()
        .await?
        .database("admin")
        .run_command(add)
        .await
        .with_context(|| format!("failed to add {}", shard.name()))?;
    Ok(())
}

/// A running sharded cluster. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct ShardedCluster {
    router: RouterProcess,
    config: ReplicaSet,
    shards: Vec<ReplicaSet>,
    tls: Option<TlsFiles>,
    /// Where its certificates are.
    _folder: Option<TempDir>,
}

impl ShardedCluster {
    /// Starts its servers side by side, adds the shards, stops the balancer and starts the router.
    ///
    /// # Errors
    /// When a server does not start.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        ensure!(options.shards > 0, "a sharded cluster has at least one shard");
        let program = RouterProcess::program(options.hides_shards).await?;
        let folder = options
            .tls
            .map(|_| tempfile::Builder::new().prefix("cutover-rig-").tempdir())
            .transpose()?;
        let tls = folder.as_ref().map(|folder| TlsFiles::write(folder.path())).transpose()?;
        let showing = |certificate| match &tls {
            // The servers trust both authorities only where they have to.
            Some(files) if !options.shard_certificates.is_empty() => {
                Some(files.showing(certificate))
            }
            files => files.clone(),
        };
        let proper = showing(Certificate::Proper);
        let config = Options {
            name: "config".to_owned(),
            role: Role::ConfigServer,
            tls: options.tls,
            certificates: proper.clone(),
            ..options.config
        };
        let named = |index| {
            let members = if index == 0 {
                options.first_members.max(options.shard.members)
            } else {
                options.shard.members
            };
            Options {
                name: format!("shard-{index}"),
                role: Role::Shard,
                members,
                tls: options.tls,
                certificates: showing(
                    options.shard_certificates.get(index).copied().unwrap_or(Certificate::Proper),
                ),
                ..options.shard.clone()
            }
        };
        let (config, shards) = tokio::try_join!(
            ReplicaSet::start(config),
            try_join_all((0..options.shards).map(|index| ReplicaSet::start(named(index)))),
        )?;
        for shard in &shards {
            add(&config, shard).await?;
        }
        let admin = config.client().await?.database("admin");
        admin
            .run_command(doc! { "_configsvrBalancerStop": 1 })
            .await
            .context("failed to stop the balancer")?;
        let access = Access { key: config.key_file(), tls: options.tls.zip(proper) };
        let router = RouterProcess::start(program, &config.seed(), access, options.proxied).await?;
        Ok(Self { router, config, shards, tls, _folder: folder })
    }

    /// The connection string of the router.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("mongodb://{}/", self.router.host())
    }

    /// A client of the router that may do everything.
    ///
    /// # Errors
    /// When the client cannot be made; it connects later.
    pub async fn client(&self) -> Result<Client> {
        self.config.client_of(&self.uri()).await
    }

    /// The certificates for its clients, where it uses TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// The config server.
    #[must_use]
    pub fn config(&self) -> &ReplicaSet {
        &self.config
    }

    /// The config server, to be stopped and started.
    pub fn config_mut(&mut self) -> &mut ReplicaSet {
        &mut self.config
    }

    /// The shards.
    #[must_use]
    pub fn shards(&self) -> &[ReplicaSet] {
        &self.shards
    }

    /// A shard, to be stopped and started.
    pub fn shard_mut(&mut self, shard: usize) -> &mut ReplicaSet {
        &mut self.shards[shard]
    }

    /// Starts one more shard of one member, and adds it.
    ///
    /// # Errors
    /// When it does not start, or is not taken.
    pub async fn add_shard(&mut self) -> Result<()> {
        let name = format!("shard-{}", self.shards.len());
        let shard =
            ReplicaSet::start(Options { name, role: Role::Shard, ..Options::default() }).await?;
        add(&self.config, &shard).await?;
        self.shards.push(shard);
        Ok(())
    }

    /// Removes the last shard, which holds nothing, and gives it, running still.
    ///
    /// # Errors
    /// When it holds something, or the config server refuses.
    pub async fn remove_shard(&mut self) -> Result<ReplicaSet> {
        let shard = self.shards.pop().context("a cluster without shards")?;
        let admin = self.config.client().await?.database("admin");
        let remove =
            doc! { "_configsvrRemoveShard": shard.name(), "writeConcern": { "w": "majority" } };
        // The first call begins it, and one that finds nothing left there ends it.
        let mut state = String::new();
        for _ in 0..3 {
            let reply = admin
                .run_command(remove.clone())
                .await
                .with_context(|| format!("failed to remove {}", shard.name()))?;
            state = reply.get_str("state").unwrap_or_default().to_owned();
            if state == "completed" {
                return Ok(shard);
            }
        }
        bail!("{} is not removed: {state}", shard.name())
    }

    /// The proxy before the router, where it was started with `proxied`.
    #[must_use]
    pub fn proxy(&self) -> Option<&FaultProxy> {
        self.router.proxy()
    }

    /// Kills the router and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill_router(&mut self) -> Result<()> {
        self.router.kill().await
    }

    /// Starts the router again, on its port.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart_router(&mut self) -> Result<()> {
        self.router.restart().await
    }

    /// Runs a command on the router's database `admin`.
    ///
    /// # Errors
    /// What the router answers.
    pub async fn admin(&self, command: Document) -> Result<Document> {
        let what = command.keys().next().cloned().unwrap_or_default();
        self.client()
            .await?
            .database("admin")
            .run_command(command)
            .await
            .with_context(|| format!("failed to {what}"))
    }

    /// Makes a database whose unsharded collections lie on this shard.
    ///
    /// # Errors
    /// When it lies elsewhere already.
    pub async fn create_database(&self, db: &str, primary: usize) -> Result<()> {
        self.admin(doc! { "enableSharding": db, "primaryShard": self.shards[primary].name() })
            .await
            .map(drop)
    }

    /// Shards a collection by a key; a hashed one at first into as many chunks as are given.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn shard_collection(
        &self,
        namespace: &str,
        key: Document,
        chunks: Option<i32>,
    ) -> Result<()> {
        let mut command = doc! { "shardCollection": namespace, "key": key };
        if let Some(chunks) = chunks {
            command.insert("numInitialChunks", chunks);
        }
        self.admin(command).await.map(drop)
    }

    /// Splits the chunks of a collection at these keys, which rise, and deals the ranges out to the
    /// shards in turn; nothing stays behind.
    ///
    /// # Errors
    /// When a chunk cannot be split or moved.
    pub async fn deal_out(&self, namespace: &str, at: &[Document]) -> Result<()> {
        for middle in at {
            self.admin(doc! { "split": namespace, "middle": middle.clone() }).await?;
        }
        let lowest = at
            .first()
            .map(|key| key.keys().map(|name| (name.clone(), Bson::MinKey)).collect::<Document>());
        for (place, min) in lowest.iter().chain(at).enumerate() {
            self.send_range(namespace, min.clone(), place % self.shards.len(), true).await?;
        }
        Ok(())
    }

    /// Moves the chunk that begins at a key to a shard that did not give it away before; its
    /// documents stay behind as orphans.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn move_range(&self, namespace: &str, min: Document, to: usize) -> Result<()> {
        self.send_range(namespace, min, to, false).await
    }

    /// A shard takes no range of which it has orphans still: unless they are deleted at once, that
    /// is for a quarter of an hour.
    async fn send_range(
        &self,
        namespace: &str,
        min: Document,
        to: usize,
        deletes: bool,
    ) -> Result<()> {
        let to = self.shards[to].name();
        self.admin(
            doc! { "moveRange": namespace, "min": min, "toShard": to, "waitForDelete": deletes },
        )
        .await
        .map(drop)
    }

    /// The chunks of a collection as the config server has them, in the order of their keys; none
    /// where it is not sharded.
    ///
    /// # Errors
    /// When the config server cannot be read.
    pub async fn chunks(&self, namespace: &str) -> Result<Vec<Document>> {
        let config = self.config.client().await?.database("config");
        let Some(entry) = config
            .collection::<Document>("collections")
            .find_one(doc! { "_id": namespace })
            .await?
        else {
            return Ok(Vec::new());
        };
        let chunks = config
            .collection("chunks")
            .find(doc! { "uuid": entry.get("uuid") })
            .sort(doc! { "min": 1 })
            .await?;
        Ok(chunks.try_collect().await?)
    }

    /// Ties a range of keys to a zone, and the zone to a shard.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn zone(
        &self,
        namespace: &str,
        zone: &str,
        shard: usize,
        min: Document,
        max: Document,
    ) -> Result<()> {
        self.admin(doc! { "addShardToZone": self.shards[shard].name(), "zone": zone }).await?;
        self.admin(doc! { "updateZoneKeyRange": namespace, "min": min, "max": max, "zone": zone })
            .await
            .map(drop)
    }

    /// Writes documents to a shard behind the router's back: where it does not own them they are
    /// orphans, which no change stream reports.
    ///
    /// # Errors
    /// When the shard refuses.
    pub async fn plant(&self, shard: usize, namespace: &str, documents: &[Document]) -> Result<()> {
        let (db, collection) = namespace.split_once('.').context("a namespace")?;
        let client = self.shards[shard].client().await?;
        client
            .database(db)
            .collection::<Document>(collection)
            .insert_many(documents)
            .await
            .context("failed to plant orphans")?;
        Ok(())
    }
}
