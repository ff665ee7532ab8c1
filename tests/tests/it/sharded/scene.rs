//! A sharded source, whichever destination, a daemon, and the command line; and what is asked of
//! them again and again.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection};
use rig::compare::{Scope, compare};
use rig::scenario::{Deployed, MIGRATION};
use rig::{
    ClusterOptions, Declaration, Options, Output, ReplicaSet, ShardedCluster, Stage, cutoverd,
};
use serde_json::Value;
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Where it goes.
#[derive(Debug)]
pub(crate) enum Destination {
    Set(Box<ReplicaSet>),
    Cluster(Box<ShardedCluster>),
}

impl Destination {
    pub(crate) async fn set(options: Options) -> anyhow::Result<Self> {
        Ok(Self::Set(Box::new(
            ReplicaSet::start(Options { name: "rs-destination".to_owned(), ..options }).await?,
        )))
    }

    pub(crate) async fn cluster(options: ClusterOptions) -> anyhow::Result<Self> {
        Ok(Self::Cluster(Box::new(ShardedCluster::start(options).await?)))
    }

    /// The replica sets that hold its data.
    pub(crate) fn holders(&self) -> Vec<&ReplicaSet> {
        match self {
            Self::Set(set) => vec![set],
            Self::Cluster(cluster) => cluster.shards().iter().collect(),
        }
    }

    pub(crate) fn as_cluster(&self) -> &ShardedCluster {
        match self {
            Self::Cluster(cluster) => cluster,
            Self::Set(_) => panic!("the destination is no cluster"),
        }
    }

    pub(crate) fn cluster_mut(&mut self) -> &mut ShardedCluster {
        match self {
            Self::Cluster(cluster) => cluster,
            Self::Set(_) => panic!("the destination is no cluster"),
        }
    }
}

impl Deployed for Destination {
    fn uri(&self) -> String {
        match self {
            Self::Set(set) => set.uri(),
            Self::Cluster(cluster) => cluster.uri(),
        }
    }

    async fn client(&self) -> anyhow::Result<Client> {
        match self {
            Self::Set(set) => set.client().await,
            Self::Cluster(cluster) => cluster.client().await,
        }
    }
}

/// A stage whose trouble ends the test, reported with all that is known.
pub(crate) struct Scene(Stage<ShardedCluster, Destination>);

impl Deref for Scene {
    type Target = Stage<ShardedCluster, Destination>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Scene {
    pub(crate) async fn set(
        source: ClusterOptions,
        destination: impl Future<Output = anyhow::Result<Destination>>,
        daemon: cutoverd::Config,
    ) -> Self {
        Self(Stage::between(ShardedCluster::start(source), destination, daemon).await.unwrap())
    }

    /// A collection on every shard by the hash of its `_id`, with this many documents of this many
    /// bytes; one that is cut at keys; and one that is not sharded.
    pub(crate) async fn fill(&self, documents: i32, bytes: usize) {
        let shards = self.source.shards().len();
        self.source.create_database("shop", shards - 1).await.unwrap();
        self.source
            .shard_collection(
                "shop.hashed",
                doc! { "_id": "hashed" },
                Some(i32::try_from(2 * shards).unwrap()),
            )
            .await
            .unwrap();
        self.source.shard_collection("shop.ranged", doc! { "a": 1, "_id": 1 }, None).await.unwrap();
        let cuts: Vec<Document> = (1..shards)
            .map(|n| doc! { "a": i32::try_from(n * 1_000 / shards).unwrap(), "_id": 0 })
            .collect();
        self.source.deal_out("shop.ranged", &cuts).await.unwrap();
        let db = self.source.client().await.unwrap().database("shop");
        let document = |n: i32| doc! { "_id": n, "a": n * 7 % 1_000, "text": "x".repeat(bytes) };
        for start in (0..documents).step_by(500) {
            db.collection("hashed")
                .insert_many((start..documents.min(start + 500)).map(document))
                .await
                .unwrap();
        }
        for name in ["ranged", "plain"] {
            db.collection(name)
                .insert_many((0..300).map(|n| doc! { "_id": n, "a": n * 7 % 1_000 }))
                .await
                .unwrap();
        }
    }

    pub(crate) async fn apply(&self, declaration: &Declaration) -> Output {
        declaration.write(self.cutover.folder()).unwrap();
        let output = self.cutover.run(["apply", "--auto-approve"]).await.unwrap();
        assert_eq!(output.code, 0, "{output}\n{}", self.daemon.log_end());
        output
    }

    /// Asks for the status until something holds, and gives that status.
    pub(crate) async fn status_where(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.cutover.status(MIGRATION).await.unwrap();
            if holds(&status) {
                return status;
            }
            if start.elapsed() > PATIENCE || status["phase"] == "failed" {
                let mismatches = self.cutover.run(["verify", MIGRATION]).await.unwrap();
                panic!("{what}: {status:#}\n{mismatches}\n{}", self.daemon.log_end());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) async fn wait_for(&self, phase: &str) -> Value {
        self.status_where(phase, |status| status["phase"] == phase).await
    }

    /// Waits until more than so many documents are copied.
    pub(crate) async fn copied(&self, documents: u64) -> Value {
        let status = self
            .status_where("copied", |status| {
                status["copy"]["documents_copied"].as_u64() > Some(documents)
            })
            .await;
        assert_eq!(status["phase"], "copying", "the copy ended too early: {status:#}");
        status
    }

    /// Acknowledges what is ready.
    pub(crate) async fn acknowledge(&self, declaration: &Declaration) {
        let status = self.status_where("ready", |status| status["ready"]["value"] == true).await;
        let token = status["acknowledge_token"].as_str().unwrap();
        self.apply(&declaration.clone().text("cutover.acknowledge", token)).await;
    }

    /// Compares both sides.
    pub(crate) async fn prove(&self) {
        let report = compare(
            &self.source.client().await.unwrap(),
            &self.destination.client().await.unwrap(),
            &Scope::default(),
        )
        .await
        .unwrap();
        assert!(
            report.is_equal() && report.equal_documents > 0,
            "{report}\n{}",
            self.daemon.log_end()
        );
    }

    /// Holds up what arrives on the destination, so that the copy lasts.
    pub(crate) async fn slow_inserts(&self, slow: bool) {
        let data = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 500 };
        for holder in self.destination.holders() {
            fail_point(
                &holder.client().await.unwrap(),
                if slow { "alwaysOn" } else { "off" },
                data.clone(),
            )
            .await;
        }
    }
}

/// Sets the server's fail point of commands, whatever election goes on.
pub(crate) async fn fail_point(client: &Client, mode: &str, data: Document) {
    let start = Instant::now();
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    while let Err(error) = client.database("admin").run_command(command.clone()).await {
        assert!(start.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(POLL).await;
    }
}

/// An application that writes to the source and lives through whatever happens to it.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u32, u32)>,
}

impl Load {
    pub(crate) async fn start(source: &ShardedCluster) -> Self {
        let mut options = ClientOptions::parse(source.uri()).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_secs(2));
        let client = Client::with_options(options).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(client, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Ends it; tells how many of its writes went well, and how many did not.
    pub(crate) async fn stop(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

async fn write(client: Client, stop: Arc<AtomicBool>) -> (u32, u32) {
    let db = client.database("shop");
    let (mut well, mut ill) = (0, 0);
    let mut round: i32 = 0;
    while !stop.load(Ordering::Acquire) {
        round += 1;
        for name in ["hashed", "ranged", "plain"] {
            let collection: Collection<Document> = db.collection(name);
            let n = round * 31 % 300;
            let all = [
                collection
                    .insert_one(doc! { "_id": 100_000 + round, "a": round * 7 % 1_000 })
                    .await
                    .map(drop),
                collection
                    .update_one(doc! { "_id": n }, doc! { "$set": { "seen": round } })
                    .await
                    .map(drop),
                collection.delete_one(doc! { "_id": 100_000 + round - 5 }).await.map(drop),
            ];
            for one in all {
                match one {
                    Ok(()) => well += 1,
                    Err(_) => ill += 1,
                }
            }
        }
        // A document that goes over to another shard.
        match db
            .collection::<Document>("ranged")
            .update_one(
                doc! { "_id": 100_000 + round, "a": round * 7 % 1_000 },
                doc! { "$set": { "a": round * 377 % 1_000 } },
            )
            .await
        {
            Ok(_) => well += 1,
            Err(_) => ill += 1,
        }
        match over_shards(&client, round).await {
            Ok(()) => well += 1,
            Err(_) => ill += 1,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (well, ill)
}

/// Two documents on two shards at once, and one that is there no more once they are.
async fn over_shards(client: &Client, round: i32) -> mongodb::error::Result<()> {
    let ranged: Collection<Document> = client.database("shop").collection("ranged");
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    for (start, a) in [(200_000, 5), (300_000, 995)] {
        ranged.insert_one(doc! { "_id": start + round, "a": a }).session(&mut session).await?;
    }
    ranged.delete_one(doc! { "_id": 200_000 + round - 7, "a": 5 }).session(&mut session).await?;
    session.commit_transaction().await
}
