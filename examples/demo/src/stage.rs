//! What the story plays on: two replica sets with users, a daemon, and a copy of the example's HCL.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rig::programs::workspace_folder;
use rig::{Auth, Cutover, Cutoverd, ReplicaSet, User, cutoverd};

/// The migration's label in the example.
pub(crate) const MIGRATION: &str = "orders";

/// The passwords of one demo; its servers listen on 127.0.0.1 and are gone after it.
const APPLICATION_PASSWORD: &str = "demo-application";
const SOURCE_PASSWORD: &str = "demo-source";
const DESTINATION_PASSWORD: &str = "demo-destination";

/// Everything that was started; dropping it stops and removes all of it.
pub(crate) struct Stage {
    pub(crate) source: ReplicaSet,
    pub(crate) destination: ReplicaSet,
    pub(crate) cutover: Cutover,
    pub(crate) daemon: Cutoverd,
}

impl Stage {
    /// Starts the servers and the daemon.
    pub(crate) async fn set() -> Result<Self> {
        let source = ReplicaSet::start(rig::Options {
            name: "orders-a".to_owned(),
            auth: Some(Auth {
                users: vec![
                    application(),
                    User::new(
                        "migrator",
                        SOURCE_PASSWORD,
                        &["backup", "clusterMonitor", "readAnyDatabase", "clusterManager"],
                    ),
                ],
            }),
            ..rig::Options::default()
        });
        let destination = ReplicaSet::start(rig::Options {
            name: "orders-b".to_owned(),
            auth: Some(Auth {
                users: vec![
                    application(),
                    User::new(
                        "migrator",
                        DESTINATION_PASSWORD,
                        &[
                            "clusterManager",
                            "clusterMonitor",
                            "readWriteAnyDatabase",
                            "dbAdminAnyDatabase",
                            "restore",
                            "backup",
                        ],
                    ),
                ],
            }),
            ..rig::Options::default()
        });
        let (source, destination) = tokio::try_join!(source, destination)?;
        let environment = cutoverd::Config::default()
            .env("ORDERS_SOURCE_PASSWORD", SOURCE_PASSWORD)
            .env("ORDERS_DESTINATION_PASSWORD", DESTINATION_PASSWORD);
        let daemon = Cutoverd::start(environment).await?;
        let folder = daemon.folder().join("orders");
        fs::create_dir(&folder).context("failed to create a folder for the HCL")?;
        let example = workspace_folder().join("examples/orders/main.hcl");
        fs::copy(&example, folder.join("main.hcl"))
            .with_context(|| format!("failed to copy {}", example.display()))?;
        let cutover = Cutover::new(folder)
            .daemon(&daemon)
            .env("CUTOVER_VAR_source_uri", source.uri())
            .env("CUTOVER_VAR_destination_uri", destination.uri());
        Ok(Self { source, destination, cutover, daemon })
    }

    /// The user that the application is: it may write, unless the server blocks its users' writes.
    pub(crate) async fn application(&self) -> Result<mongodb::Client> {
        self.source.client_as(&application()).await
    }

    /// The HCL that the demo edits.
    pub(crate) fn hcl(&self) -> PathBuf {
        self.cutover.folder().join("main.hcl")
    }
}

fn application() -> User {
    User::new("shop", APPLICATION_PASSWORD, &["readWriteAnyDatabase", "dbAdminAnyDatabase"])
}
