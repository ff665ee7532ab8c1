//! What a migration plays on: two deployments, a daemon, and a folder with the HCL that declares
//! it.

mod ask;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mongodb::Client;
use serde_json::Value;

use crate::cutover::{Cutover, Output};
use crate::cutoverd::{self, Cutoverd};
use crate::declaration::Declaration;
use crate::replica_set::{Options, ReplicaSet};
use crate::sharded_cluster::ShardedCluster;

/// How long a run may take from one phase to the next on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// The migration's label where a test does not care.
pub const MIGRATION: &str = "orders";

/// One side of a migration.
pub trait Deployed {
    /// Its connection string.
    fn uri(&self) -> String;

    /// A client of it that may do everything.
    ///
    /// # Errors
    /// When the client cannot be made; it connects later.
    fn client(&self) -> impl Future<Output = Result<Client>>;
}

impl Deployed for ReplicaSet {
    fn uri(&self) -> String {
        self.uri()
    }

    async fn client(&self) -> Result<Client> {
        self.client().await
    }
}

impl Deployed for ShardedCluster {
    fn uri(&self) -> String {
        self.uri()
    }

    async fn client(&self) -> Result<Client> {
        self.client().await
    }
}

/// What is started: replica sets where nothing else is said. Dropping it stops and removes all of
/// it.
#[derive(Debug)]
pub struct Stage<S = ReplicaSet, D = ReplicaSet> {
    /// Where the data is.
    pub source: S,
    /// Where it goes.
    pub destination: D,
    /// The daemon.
    pub daemon: Cutoverd,
    /// The command line, run in the folder of the HCL.
    pub cutover: Cutover,
}

impl Stage {
    /// Starts two replica sets and a daemon.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn set(
        source: Options,
        destination: Options,
        daemon: cutoverd::Config,
    ) -> Result<Self> {
        Self::between(ReplicaSet::start(source), ReplicaSet::start(destination), daemon).await
    }

    /// Starts two replica sets of one member without access control, and a daemon.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub async fn plain() -> Result<Self> {
        let named = |name: &str| Options { name: name.to_owned(), ..Options::default() };
        Self::set(named("rs-source"), named("rs-destination"), cutoverd::Config::default()).await
    }
}

impl<S: Deployed, D: Deployed> Stage<S, D> {
    /// Starts two deployments and a daemon.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn between(
        source: impl Future<Output = Result<S>>,
        destination: impl Future<Output = Result<D>>,
        daemon: cutoverd::Config,
    ) -> Result<Self> {
        let (source, destination, daemon) =
            tokio::try_join!(source, destination, Cutoverd::start(daemon))?;
        // In the daemon's own folder, which goes with it however the test ends.
        let folder = daemon.folder().join("hcl");
        fs::create_dir(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        let cutover = Cutover::new(folder).daemon(&daemon);
        Ok(Self { source, destination, daemon, cutover })
    }

    /// The folder of the HCL.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.cutover.folder()
    }

    /// The least that declares the migration between the two deployments.
    #[must_use]
    pub fn declaration(&self) -> Declaration {
        Declaration::new(MIGRATION, &self.source.uri(), &self.destination.uri())
    }

    /// The least that declares a migration of one database between the two deployments.
    #[must_use]
    pub fn declaration_of(&self, name: &str, db: &str) -> Declaration {
        Declaration::new(name, &self.source.uri(), &self.destination.uri())
            .set("namespaces.include", format_args!("[\"{db}.*\"]"))
    }

    /// Writes a declaration and applies it.
    ///
    /// # Errors
    /// When the HCL cannot be written, or `apply` does not end with exit code 0.
    pub async fn apply(&self, declaration: &Declaration) -> Result<Output> {
        declaration.write(self.folder())?;
        self.cutover.succeed(["apply", "--auto-approve"]).await
    }

    /// Waits until the migration is in a phase, and gives its status there.
    ///
    /// # Errors
    /// When it fails on the way, or is not there in time; with the end of the daemon's log.
    pub async fn wait_for(&self, phase: &str) -> Result<Value> {
        self.cutover
            .wait_for_phase(MIGRATION, phase, PATIENCE)
            .await
            .with_context(|| self.daemon.log_end())
    }

    /// Acknowledges a ready run in its HCL and applies that. Gives the declaration as it is then.
    ///
    /// # Errors
    /// When the run offers no token, or `apply` fails.
    pub async fn acknowledge(&self, declaration: &Declaration) -> Result<Declaration> {
        let start = Instant::now();
        let mut status = self.wait_for("ready").await?;
        // A short trouble takes the readiness away for as long as it lasts, and not the phase.
        while status["ready"]["value"] != true {
            ensure!(start.elapsed() < PATIENCE, "the run does not stay ready: {status:#}");
            tokio::time::sleep(POLL).await;
            status = self.wait_for("ready").await?;
        }
        let token = status["acknowledge_token"].as_str().context("a ready run offers no token")?;
        let acknowledged = declaration.clone().text("cutover.acknowledge", token);
        self.apply(&acknowledged).await?;
        Ok(acknowledged)
    }

    /// Takes a declared migration the whole way: applied, ready, acknowledged, completed. Gives the
    /// last status.
    ///
    /// # Errors
    /// When it does not come so far.
    pub async fn migrate(&self, declaration: &Declaration) -> Result<Value> {
        self.apply(declaration).await?;
        self.acknowledge(declaration).await?;
        self.wait_for("completed").await
    }
}
