//! The same between sharded clusters and replica sets: load on all shards, transactions over them,
//! shard keys that change, ranges that left orphans behind, collections that are sharded, renamed
//! and dropped, elections on shards and on the config server.
//!
//! `CUTOVER_SEEDS` and `CUTOVER_SEED` as for replica sets; `CUTOVER_SHAPE=ClusterToSet`,
//! `ClusterToCluster` or `SetToCluster` holds to one shape.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Bson, Document, Timestamp, doc};
use mongodb::options::ClientOptions;
use rig::compare::{Difference, Kind, Report, Scope, compare};
use rig::replica_set::{Options, ReplicaSet};
use rig::{ClusterOptions, ShardedCluster};
use schemas::fault::FaultCode;
use schemas::namespace::Namespace;
use schemas::spec::{Balancer, MigrationSpec, ShardKeySpec, ShardingSpec};

use super::generate::cluster::{KEYED, Shape};
use super::generate::{DATABASES, Event, Plan};
use super::tally::{self, Tally};
use super::{PACE, PATIENCE, history, operate, uneven};
use crate::replica_set::harness::{Run, drop_databases, run, spec};

/// Seeds that a normal run tries of each shape, which together draw every kind of operation and
/// event.
const fn quick(shape: Shape) -> [u64; 2] {
    match shape {
        Shape::ClusterToSet => [85, 86],
        Shape::ClusterToCluster => [241, 416],
        Shape::SetToCluster => [65, 78],
    }
}

/// Chunks of which one is moved, if any can be.
const CHUNK_TRIES: usize = 4;
/// So many seeds bring everything about that can come about.
const MANY: usize = 20;

/// One side.
enum Deployed {
    Set(Box<ReplicaSet>),
    Cluster(Box<ShardedCluster>),
}

impl Deployed {
    async fn start(shards: Option<usize>) -> Result<Self> {
        // An idle shard tells how far it is by a no-op.
        let shard = Options { noop_interval_seconds: Some(1), ..Options::default() };
        Ok(match shards {
            None => Self::Set(Box::new(ReplicaSet::start(Options::default()).await?)),
            Some(shards) => {
                let options = ClusterOptions { shard, ..ClusterOptions::shards(shards) };
                Self::Cluster(Box::new(ShardedCluster::start(options).await?))
            }
        })
    }

    fn uri(&self) -> String {
        match self {
            Self::Set(set) => set.uri(),
            Self::Cluster(cluster) => cluster.uri(),
        }
    }

    /// A client that gives up where there is no primary for long.
    async fn client(&self) -> Result<Client> {
        let mut options = ClientOptions::parse(self.uri()).await?;
        options.server_selection_timeout = Some(Duration::from_secs(20));
        Ok(Client::with_options(options)?)
    }

    /// The replica sets that hold data.
    fn holders(&self) -> Vec<&ReplicaSet> {
        match self {
            Self::Set(set) => vec![set],
            Self::Cluster(cluster) => cluster.shards().iter().collect(),
        }
    }

    /// A client of each of those.
    async fn holding(&self) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for holder in self.holders() {
            clients.push(holder.client().await?);
        }
        Ok(clients)
    }

    /// Everything that elects a primary.
    fn electing(&self) -> Vec<&ReplicaSet> {
        let mut all = self.holders();
        if let Self::Cluster(cluster) = self {
            all.push(cluster.config());
        }
        all
    }

    /// What each server that holds data has of a collection, orphans among it: the names of the
    /// server, of the collection's UUID and options, and the `_id`s.
    async fn spread(&self, namespace: &str) -> Result<Vec<String>> {
        let (db, name) = namespace.split_once('.').context("a namespace")?;
        let mut told = Vec::new();
        for set in self.holders() {
            let db = set.client().await?.database(db);
            let listed: Vec<Document> = db
                .run_cursor_command(doc! { "listCollections": 1, "filter": { "name": name } })
                .await?
                .try_collect()
                .await?;
            let found: Vec<Document> = db
                .collection(name)
                .find(doc! {})
                .projection(doc! { "_id": 1 })
                .await?
                .try_collect()
                .await?;
            told.push(format!("{} {listed:?} {found:?}", set.name()));
        }
        Ok(told)
    }

    /// A shard that takes chunks of an earlier collection of that name, with another key, for some
    /// of it: 6.0.5 sometimes does once a collection was renamed over a sharded one, and then shows
    /// nobody the documents that fall among those.
    async fn mixed(&self, namespace: &str) -> Result<Option<String>> {
        for set in self.holders() {
            let admin = set.client().await?.database("admin");
            let known = admin
                .run_command(doc! { "getShardVersion": namespace, "fullMetadata": true })
                .await?;
            let Ok(metadata) = known.get_document("metadata") else { continue };
            let (Ok(key), Ok(chunks)) =
                (metadata.get_document("keyPattern"), metadata.get_array("chunks"))
            else {
                continue;
            };
            let is_of_another = |bound: &Document| !bound.keys().eq(key.keys());
            let mut bounds =
                chunks.iter().filter_map(Bson::as_array).flatten().filter_map(Bson::as_document);
            if let Some(bound) = bounds.find(|bound| is_of_another(bound)) {
                return Ok(Some(format!(
                    "{} has a chunk of {namespace}, by {key}, that begins or ends at {bound}",
                    set.name()
                )));
            }
        }
        Ok(None)
    }

    /// One of those that hold data elects a primary.
    async fn step_down(&self, nth: usize) -> Result<()> {
        let all = self.holders();
        all[nth % all.len()].step_down(1).await
    }

    /// The next commands of some kinds fail on one of those that hold data; whether its server has
    /// taken that.
    async fn fail(&self, nth: usize, times: i32, data: Document) -> Result<bool> {
        let all = self.holders();
        let client = all[nth % all.len()].client().await?;
        let fail =
            doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        // One that is being elected may not.
        Ok(run(&client, "admin", fail).await.is_ok())
    }

    /// One chunk goes to another shard, with or without its documents being deleted where they
    /// were; whether there was one, and the cluster has let it go.
    async fn move_chunk(&self, nth: usize) -> Result<bool> {
        let Self::Cluster(cluster) = self else { bail!("a replica set has no chunks") };
        let chunks = async {
            let sharded = cluster
                .config()
                .client()
                .await?
                .database("config")
                .collection::<Document>("collections");
            let of_users = doc! { "_id": { "$regex": format!(r"^({})\.", DATABASES.join("|")) } };
            let sharded: Vec<Document> =
                sharded.find(of_users).sort(doc! { "_id": 1 }).await?.try_collect().await?;
            let mut chunks = Vec::new();
            for entry in &sharded {
                let namespace = entry.get_str("_id")?;
                chunks.extend(
                    cluster
                        .chunks(namespace)
                        .await?
                        .into_iter()
                        .map(|chunk| (namespace.to_owned(), chunk)),
                );
            }
            anyhow::Ok(chunks)
        };
        // The config server may be electing a primary.
        let Ok(chunks) = chunks.await else { return Ok(false) };
        // What is dropped, spread or sharded anew meanwhile cannot be moved.
        for (namespace, chunk) in chunks
            .iter()
            .cycle()
            .skip(nth % chunks.len().max(1))
            .take(chunks.len().min(CHUNK_TRIES))
        {
            let holder = chunk.get_str("shard")?;
            let others: Vec<&str> = cluster
                .shards()
                .iter()
                .map(ReplicaSet::name)
                .filter(|name| *name != holder)
                .collect();
            let command = doc! {
                "moveRange": namespace,
                "min": chunk.get_document("min")?,
                "toShard": others[nth % others.len()],
                "waitForDelete": nth.is_multiple_of(3),
            };
            if cluster.admin(command).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn config_steps_down(&self) -> Result<()> {
        match self {
            Self::Set(_) => bail!("a replica set has no config server"),
            Self::Cluster(cluster) => cluster.config().step_down(1).await,
        }
    }
}

/// A source and a destination of a shape.
struct Sides {
    shape: Shape,
    source: Deployed,
    destination: Deployed,
}

impl Sides {
    async fn start(shape: Shape) -> Result<Self> {
        let (source, destination) = match shape {
            Shape::ClusterToSet => (Some(3), None),
            Shape::ClusterToCluster => (Some(3), Some(2)),
            Shape::SetToCluster => (None, Some(3)),
        };
        let (source, destination) =
            tokio::try_join!(Deployed::start(source), Deployed::start(destination))?;
        Ok(Self { shape, source, destination })
    }

    fn spec(&self) -> Result<MigrationSpec> {
        let mut spec = spec(self.source.uri(), self.destination.uri());
        if self.shape == Shape::SetToCluster {
            let declared = |db: &str, name: &str, key: &[(&str, bool)]| ShardKeySpec {
                namespace: Namespace::new(db, name),
                key: key
                    .iter()
                    .map(|(field, is_hashed)| {
                        format!("{field}:{}", if *is_hashed { "hashed" } else { "1" })
                    })
                    .collect(),
            };
            let mut collections = Vec::new();
            for db in ["one", "two", "three"] {
                collections.push(declared(db, "h1", &[("_id", true)]));
                collections.extend(KEYED.iter().map(|(name, key)| declared(db, name, key)));
            }
            spec.sharding = Some(ShardingSpec { balancer: Balancer::RequireOff, collections });
        }
        Ok(spec)
    }

    /// Whether nothing differs but what must: a collection that was made anew without the index of
    /// the key that is declared for it has that index once it is sharded.
    fn is_equal(&self, report: &Report) -> bool {
        let is_of_key = |difference: &Difference| {
            let name = difference.id.as_deref().unwrap_or_default();
            difference.kind == Kind::ExtraIndex
                && ["_id_hashed", "a_1_b_1", "n.x_hashed"].contains(&name)
        };
        let expected =
            |difference: &&Difference| self.shape == Shape::SetToCluster && is_of_key(difference);
        report.total_differences == report.differences.iter().filter(expected).count() as u64
    }

    /// Drops what a run left on both sides.
    async fn clear(&self) -> Result<()> {
        for side in [&self.source, &self.destination] {
            let client = side.client().await?;
            let mut tries = 0;
            while let Err(error) = drop_databases(&client).await {
                tries += 1;
                ensure!(tries < 20, "{error:#}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }

    /// Every server that holds data, in words, and from when on its oplog reports a plan that
    /// begins now.
    async fn oplogs(&self) -> Result<Vec<(String, Client, Timestamp)>> {
        let mut oplogs = Vec::new();
        for (name, side) in [("source", &self.source), ("destination", &self.destination)] {
            for (place, client) in side.holding().await?.into_iter().enumerate() {
                let since = history::now(&client).await?;
                oplogs.push((format!("{name} {place}"), client, since));
            }
        }
        Ok(oplogs)
    }

    /// Runs a plan on sides that have nothing, and compares.
    async fn hold(&self, plan: &Plan, tally: &Tally) -> Result<()> {
        let (from, to) = (self.source.client().await?, self.destination.client().await?);
        for operation in &plan.before {
            operate(&from, operation).await;
        }
        let mut shards = Vec::new();
        for shard in self.source.holding().await? {
            let since = history::now(&shard).await?;
            shards.push((shard, since));
        }
        if self.shape.has_cluster_source() {
            tally.look_for_orphans(shards.iter().map(|(shard, _)| shard)).await?;
        }
        if let Some(milliseconds) = plan.slow_copy {
            let data = doc! {
                "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": milliseconds,
            };
            run(
                &to,
                "admin",
                doc! { "configureFailPoint": "failCommand", "mode": { "times": 60 }, "data": data },
            )
            .await?;
        }
        let spec = plan.declared.apply(self.spec()?);
        let manner = plan.declared.manner();
        let mut sync =
            Run::begin(self.source.holding().await?, spec, plan.tuning.clone(), manner).await?;
        let working = plan.clients.iter().map(|operations| async move {
            let client = self.source.client().await?;
            for (pause, operation) in operations {
                tokio::time::sleep(PACE.mul_f64(*pause)).await;
                if operate(&client, operation).await
                    && let Some(kind) = tally::kind(operation)
                {
                    tally.add(kind, 1);
                }
            }
            Ok::<(), anyhow::Error>(())
        });
        let disturbing = async {
            for (place, (after, event)) in plan.events.iter().enumerate() {
                tokio::time::sleep(Duration::from_millis(*after)).await;
                sync.look()?;
                let nth = place + plan.operations();
                match event {
                    Event::Restart => sync.restart().await?,
                    Event::Kill => sync.kill().await?,
                    Event::SourceStepsDown => {
                        self.source.step_down(nth).await.context("the source")?
                    }
                    Event::DestinationStepsDown => {
                        self.destination.step_down(nth).await.context("the destination")?;
                    }
                    Event::SourceConfigStepsDown => self
                        .source
                        .config_steps_down()
                        .await
                        .context("the source's config server")?,
                    Event::DestinationConfigStepsDown => {
                        self.destination
                            .config_steps_down()
                            .await
                            .context("the destination's config server")?;
                    }
                    Event::DestinationChunkMoves => {
                        if !self.destination.move_chunk(nth).await? {
                            continue;
                        }
                    }
                    Event::Faults { on_source, times, data } => {
                        let side = if *on_source { &self.source } else { &self.destination };
                        let mut data = data.clone();
                        // A sharded destination is reached through its router alone.
                        if !on_source && self.shape.has_cluster_destination() {
                            data.remove("appName");
                        }
                        if !side.fail(nth, *times, data).await? {
                            continue;
                        }
                    }
                }
                tally.add(event.name(), 1);
            }
            Ok(())
        };
        tokio::try_join!(futures_util::future::try_join_all(working), disturbing)?;
        for side in [&self.source, &self.destination] {
            for set in side.electing() {
                set.primary().await?;
            }
            for client in side.holding().await? {
                run(&client, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" })
                    .await?;
            }
        }
        tally.look_at_writes(&shards).await?;
        if let Deployed::Cluster(source) = &self.source {
            tally.add("index of some shards only", uneven::heal(source).await?);
        }
        sync.cut_over().await?;
        let report = compare(&from, &to, &Scope::default()).await?;
        if !self.is_equal(&report) {
            bail!("{report}");
        }
        println!(
            "  {} collections, {} indexes, {} documents",
            report.collections, report.indexes, report.source_documents
        );
        Ok(())
    }
}

/// Whether a run ended because no sharded destination can keep what a plan made on its source, and
/// the engine says so.
fn is_refusal(error: &anyhow::Error) -> bool {
    let words = format!("{error:#}");
    words.contains(&FaultCode::ShardKeyUnfit.to_string()) && words.contains("the unique index")
}

async fn hold_seeds(shape: Shape) -> Result<()> {
    if let Ok(filter) = std::env::var("CUTOVER_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .try_init();
    }
    let seeds = super::seeds(quick(shape))?;
    let tally = Tally::default();
    let mut sides = Sides::start(shape).await?;
    let mut failed = Vec::new();
    for seed in &seeds {
        let plan = Plan::of_shape(*seed, shape);
        println!("{shape:?}, seed {seed}: {plan}");
        let began = Instant::now();
        let oplogs = sides.oplogs().await?;
        let held = match tokio::time::timeout(PATIENCE, sides.hold(&plan, &tally)).await {
            Ok(held) => held,
            Err(_) => Err(anyhow::anyhow!("it takes longer than {PATIENCE:?}")),
        };
        if held.as_ref().is_err_and(is_refusal) {
            println!("  refused: {:#}", held.as_ref().err().context("a refusal")?);
            sides = Sides::start(shape).await?;
        } else if let Err(error) = held {
            println!(
                "{shape:?} FAILED, replay it with CUTOVER_SHAPE={shape:?} CUTOVER_SEED={seed}: \
                 {error:#}"
            );
            let named = history::named(&format!("{error:#}"), &DATABASES);
            for (name, client, since) in &oplogs {
                history::print(name, client, *since, &named).await?;
            }
            let (from, to) = (sides.source.client().await?, sides.destination.client().await?);
            match compare(&from, &to, &Scope::default()).await {
                Ok(report) => println!("  compared now: {report}"),
                Err(error) => println!("  cannot be compared now: {error:#}"),
            }
            let mut mixed = None;
            for (db, name) in named {
                let namespace = format!("{db}.{name}");
                mixed = mixed.or(sides.source.mixed(&namespace).await?);
                for (side, deployed) in
                    [("source", &sides.source), ("destination", &sides.destination)]
                {
                    println!(
                        "  {namespace} on the {side}: {:#?}",
                        deployed.spread(&namespace).await?
                    );
                    if let Deployed::Cluster(cluster) = deployed {
                        for chunk in cluster.chunks(&namespace).await? {
                            println!("    {:?}, {chunk}", chunk.get_str("shard"));
                        }
                    }
                }
            }
            match mixed {
                Some(mixed) => {
                    println!("  refused, since the source's server is at fault: {mixed}")
                }
                None => failed.push(seed.to_string()),
            }
            sides = Sides::start(shape).await?;
        }
        println!("  {:?}", began.elapsed());
        sides.clear().await?;
    }
    ensure!(
        failed.is_empty(),
        "failed with CUTOVER_SHAPE={shape:?} CUTOVER_SEED={}",
        failed.join(", ")
    );
    println!("{shape:?}, {} seeds: {tally}", seeds.len());
    if seeds.len() > 1 {
        tally.check_load(sides.source.holders().len(), seeds.len() >= MANY)?;
    }
    if seeds.len() >= MANY {
        tally.check_kinds(shape)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_on_sharded_clusters_lose_nothing() -> Result<()> {
    let shapes = match std::env::var("CUTOVER_SHAPE") {
        Ok(only) => Shape::ALL.into_iter().filter(|shape| format!("{shape:?}") == only).collect(),
        Err(_) => Shape::ALL.to_vec(),
    };
    ensure!(!shapes.is_empty(), "CUTOVER_SHAPE names none of {:?}", Shape::ALL);
    for shape in shapes {
        hold_seeds(shape).await?;
    }
    Ok(())
}

#[test]
fn the_usual_seeds_draw_every_kind_of_operation_and_event() {
    for shape in Shape::ALL {
        let drawn = Tally::default();
        for plan in quick(shape).map(|seed| Plan::of_shape(seed, shape)) {
            let operations = plan.clients.iter().flatten().map(|(_, operation)| operation);
            operations.filter_map(tally::kind).for_each(|kind| drawn.add(kind, 1));
            plan.events.iter().for_each(|(_, event)| drawn.add(event.name(), 1));
        }
        drawn.check_kinds(shape).expect("every kind");
    }
}
