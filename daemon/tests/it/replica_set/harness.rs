//! A pair of replica sets and a run between them, driven as the daemon's shell drives it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use daemon::engine::run::MongoEngine;
use daemon::engine::source::behind_router::Manner;
use daemon::engine::tuning::Tuning;
use daemon::engine::{
    Ending, Engine as _, EngineContext, RunEngine, ShardProgress, SyncReport, element,
};
use daemon::memory::{MIN_BYTES, Memory};
use mongodb::Client;
use mongodb::bson::{Document, RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, doc, rawdoc};
use rig::compare::{Report, Scope, compare};
use rig::replica_set::{Options, ReplicaSet};
use schemas::cluster_time::ClusterTime;
use schemas::fault::Fault;
use schemas::id::{MigrationName, RunId, Workspace};
use schemas::spec::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// How long a small run may take to get somewhere on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long no write may come before a source that cannot be blocked counts as quiet.
const QUIET: Duration = Duration::from_millis(200);
/// The server's code for a command that it does not have.
const COMMAND_NOT_FOUND: i32 = 59;

/// Two replica sets, and a client of each.
pub(crate) struct Pair {
    /// The source blocks writes when it is told to, which servers before 6.0 do not.
    blocks: bool,
    pub(crate) source: ReplicaSet,
    pub(crate) destination: ReplicaSet,
    pub(crate) from: Client,
    pub(crate) to: Client,
}

impl Pair {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(Options::default(), Options::default()).await
    }

    pub(crate) async fn start_with(source: Options, destination: Options) -> Result<Self> {
        let (source, destination) =
            tokio::try_join!(ReplicaSet::start(source), ReplicaSet::start(destination))?;
        let (from, to) = (source.client().await?, destination.client().await?);
        let version = run(&from, "admin", doc! { "buildInfo": 1 }).await?;
        let major: u32 =
            version.get_str("version")?.split('.').next().unwrap_or_default().parse()?;
        Ok(Self { blocks: major >= 6, source, destination, from, to })
    }

    /// The same with a source of this version; `None`: the one that tests run with.
    pub(crate) async fn start_from(version: Option<&str>) -> Result<Self> {
        Self::start_with(
            Options { version: version.map(str::to_owned), ..Options::default() },
            Options::default(),
        )
        .await
    }

    pub(crate) fn spec(&self) -> MigrationSpec {
        let mut spec = spec(self.source.uri(), self.destination.uri());
        if !self.blocks {
            spec.cutover.source_writes = SourceWrites::Observe;
        }
        spec
    }

    /// Whether the source reports collections that are made, of indexes and of options: from 6.0
    /// on.
    pub(crate) const fn tells_definitions(&self) -> bool {
        self.blocks
    }

    /// Drops every user database of both sides, for the next run.
    pub(crate) async fn clear(&self) -> Result<()> {
        // An election may have been a moment ago.
        let mut tries = 0;
        while let Err(error) = self.drop_all().await {
            tries += 1;
            ensure!(tries < 20, "{error:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    async fn drop_all(&self) -> Result<()> {
        drop_databases(&self.from).await?;
        drop_databases(&self.to).await
    }

    pub(crate) async fn compare(&self) -> Result<Report> {
        compare(&self.from, &self.to, &Scope::default()).await
    }
}

/// A migration of everything between two deployments.
///
/// A server whose fail point says that it is no primary is asked again within half a second. It has
/// no news for those who wait for some, as a real election brings, and a driver waits ten seconds.
pub(crate) fn spec(source: String, destination: String) -> MigrationSpec {
    let own = |uri: String| {
        format!("{uri}{}heartbeatFrequencyMS=500", if uri.contains('?') { '&' } else { '?' })
    };
    let spec = MigrationSpec::between(
        MigrationName::new("carry").expect("a name"),
        own(source),
        own(destination),
    );
    MigrationSpec { verify: VerifySpec { mode: VerifyMode::Off }, ..spec }
}

/// The same with its indexes built then.
pub(crate) fn with_indexes(spec: MigrationSpec, indexes: IndexBuild) -> MigrationSpec {
    MigrationSpec { copy: CopySpec { indexes, ..spec.copy }, ..spec }
}

/// Lifts the write block and drops every user database.
pub(crate) async fn drop_databases(client: &Client) -> Result<()> {
    set_write_block(client, false).await?;
    for name in client.list_database_names().await? {
        if !["admin", "local", "config"].contains(&name.as_str()) {
            client.database(&name).drop().await?;
        }
    }
    Ok(())
}

async fn set_write_block(client: &Client, on: bool) -> Result<()> {
    // A connection that has lived through an election and written nothing since hears of it when
    // a command changes nothing.
    client
        .database("admin")
        .run_command(doc! { "appendOplogNote": 1, "data": { "msg": "lifting the block" } })
        .await?;
    match client
        .database("admin")
        .run_command(doc! { "setUserWriteBlockMode": 1, "global": on })
        .await
    {
        Err(error) if is_unknown_command(&error) => Ok(()),
        set => Ok(set.map(drop)?),
    }
}

fn is_unknown_command(error: &mongodb::error::Error) -> bool {
    matches!(
        &*error.kind, mongodb::error::ErrorKind::Command(error) if error.code == COMMAND_NOT_FOUND,
    )
}

/// A run, open and syncing. It has a runtime of its own, so that it can be killed at whatever it
/// waits for.
pub(crate) struct Run {
    runtime: Option<Runtime>,
    engine: Arc<dyn RunEngine>,
    reports: mpsc::Receiver<SyncReport>,
    spec: MigrationSpec,
    tuning: Tuning,
    dir: TempDir,
    /// The source, or each of its shards in the order of their names.
    source: Vec<Client>,
    caught_up: bool,
    blockers: Vec<String>,
}

impl Run {
    pub(crate) async fn start(pair: &Pair) -> Result<Self> {
        Self::start_with(pair, pair.spec(), Tuning::default()).await
    }

    pub(crate) async fn start_with(
        pair: &Pair,
        spec: MigrationSpec,
        tuning: Tuning,
    ) -> Result<Self> {
        Self::begin(vec![pair.from.clone()], spec, tuning, None).await
    }

    /// Starts one from a source whose shards, or which itself, these are.
    ///
    /// `manner`: how it reads a sharded source, in place of how it would choose.
    pub(crate) async fn begin(
        source: Vec<Client>,
        spec: MigrationSpec,
        tuning: Tuning,
        manner: Option<Manner>,
    ) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        if let Some(manner) = manner {
            manner.keep(dir.path())?;
        }
        Self::begin_in(dir, source, spec, tuning).await
    }

    /// The same in a folder that the run has already.
    pub(crate) async fn begin_in(
        dir: TempDir,
        source: Vec<Client>,
        spec: MigrationSpec,
        tuning: Tuning,
    ) -> Result<Self> {
        let (runtime, engine, reports) = open(&spec, &tuning, dir.path()).await?;
        Ok(Self {
            runtime: Some(runtime),
            engine,
            reports,
            spec,
            tuning,
            dir,
            source,
            caught_up: false,
            blockers: Vec::new(),
        })
    }

    pub(crate) fn engine(&self) -> &dyn RunEngine {
        &*self.engine
    }

    /// Stops the engine, forgets it, and opens it again on its checkpoints.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.look()?;
        self.reopen().await
    }

    /// Ends the engine wherever it is, as the end of its process does, and opens it again on its
    /// checkpoints.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.look()?;
        self.reopen().await
    }

    async fn reopen(&mut self) -> Result<()> {
        if let Some(runtime) = self.runtime.take() {
            // What blocks is a statement of SQLite, which ends by itself, as it would in a process
            // that dies behind it.
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)))
                .await?;
        }
        let (runtime, engine, reports) = open(&self.spec, &self.tuning, self.dir.path()).await?;
        (self.runtime, self.engine, self.reports, self.caught_up) =
            (Some(runtime), engine, reports, false);
        Ok(())
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().context("the run was killed")
    }

    /// Waits for the fault that the sync ends with.
    pub(crate) async fn end(&mut self) -> Result<Fault> {
        let end = async {
            loop {
                if let SyncReport::Failed(fault) =
                    self.reports.recv().await.context("the sync tells no more")?
                {
                    return Ok(fault);
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.context("the sync goes on")?
    }

    /// Whether the source still holds what comes next.
    pub(crate) async fn resume_point_held(&self) -> Result<Option<bool>> {
        let engine = Arc::clone(&self.engine);
        Ok(self.runtime()?.spawn(async move { engine.resume_point_held().await }).await??)
    }

    /// Takes note of what the sync has reported.
    pub(crate) fn look(&mut self) -> Result<()> {
        while let Ok(report) = self.reports.try_recv() {
            match report {
                SyncReport::Health { caught_up, blockers, .. } => {
                    self.caught_up |= caught_up;
                    self.blockers = blockers;
                }
                SyncReport::Failed(fault) => bail!("the sync failed: {fault}"),
                SyncReport::ShardStopped { .. }
                | SyncReport::CopyFinished
                | SyncReport::IndexesBuilt
                | SyncReport::Preparing { .. } => {}
            }
        }
        Ok(())
    }

    /// What it last said to keep it from being ready.
    pub(crate) fn blockers(&mut self) -> Result<&[String]> {
        self.look()?;
        Ok(&self.blockers)
    }

    /// Waits until all that the source holds now is applied.
    pub(crate) async fn caught_up(&mut self) -> Result<()> {
        let mut now = Vec::new();
        for source in &self.source {
            let reply = source
                .database("admin")
                .run_command(doc! { "appendOplogNote": 1, "data": { "msg": "now" } })
                .await?;
            let Timestamp { time, increment } = reply.get_timestamp("operationTime")?;
            now.push(ClusterTime { t: time, i: increment });
        }
        let began = Instant::now();
        loop {
            self.look()?;
            let shards = self.engine.progress().shards;
            let is_applied = |(shard, now): (&ShardProgress, &ClusterTime)| {
                shard.optime_gap.applied >= Some(*now)
            };
            let is_all_applied = match &shards[..] {
                // One stream may tell of all shards.
                [one] => one.optime_gap.applied >= now.iter().max().copied(),
                shards => shards.len() == now.len() && shards.iter().zip(&now).all(is_applied),
            };
            if self.caught_up && is_all_applied {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "not caught up: {:?}", self.engine.progress());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Cuts over as the shell does.
    pub(crate) async fn cut_over(&mut self) -> Result<()> {
        self.cut_over_after(async || Ok(())).await
    }

    /// The same, with something that happens on the source at the last moment before it takes no
    /// more writes.
    pub(crate) async fn cut_over_after(
        &mut self,
        late: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<()> {
        self.caught_up().await?;
        let engine = Arc::clone(&self.engine);
        self.runtime()?.spawn(async move { engine.prepare_cutover().await }).await??;
        late().await?;
        let (engine, writes) = (Arc::clone(&self.engine), self.spec.cutover.source_writes);
        self.runtime()?
            .spawn(async move {
                match writes {
                    SourceWrites::Block => engine.block_source().await?,
                    SourceWrites::Observe => engine.watch_source_quiet(QUIET).await?,
                }
                engine.drain().await?;
                engine.stop_sync().await;
                engine.restore_settings().await?;
                engine.open_destination().await?;
                engine.clean_up(Ending::Completed).await
            })
            .await??;
        self.look()
    }

    /// Cuts over, and holds both sides against each other.
    pub(crate) async fn prove(&mut self, pair: &Pair) -> Result<Report> {
        self.cut_over().await?;
        let report = pair.compare().await?;
        ensure!(report.is_equal(), "{report}");
        Ok(report)
    }

    pub(crate) async fn stop(&self) -> Result<()> {
        let engine = Arc::clone(&self.engine);
        self.runtime()?.spawn(async move { engine.stop_sync().await }).await?;
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An engine that does nothing yet.
pub(crate) fn at_rest(
    spec: &MigrationSpec,
    tuning: &Tuning,
    dir: &std::path::Path,
) -> Result<Arc<dyn RunEngine>> {
    let context = EngineContext {
        run: RunId::new(&spec.name, spec.generation, 7),
        workspace: Workspace::default(),
        spec: Arc::new(spec.clone()),
        run_dir: dir.to_owned(),
        has_begun: false,
        replaces: Arc::from([]),
    };
    let memory = Memory::of(MIN_BYTES);
    Ok(MongoEngine { tuning: tuning.clone(), memory, ..MongoEngine::default() }.open(context)?)
}

async fn open(
    spec: &MigrationSpec,
    tuning: &Tuning,
    dir: &std::path::Path,
) -> Result<(Runtime, Arc<dyn RunEngine>, mpsc::Receiver<SyncReport>)> {
    let engine = at_rest(spec, tuning, dir)?;
    let (sender, reports) = mpsc::channel(1_000);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let began = Instant::now();
    loop {
        let (starting, sender) = (Arc::clone(&engine), sender.clone());
        let started = runtime.spawn(async move { starting.start_sync(sender).await }).await;
        match started {
            Ok(Ok(())) => return Ok((runtime, engine, reports)),
            // As the shell does: the servers may be failing just now.
            Ok(Err(fault)) if fault.retryable && began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(Err(fault)) => {
                runtime.shutdown_background();
                bail!("the sync does not start: {fault}");
            }
            Err(error) => {
                runtime.shutdown_background();
                return Err(error.into());
            }
        }
    }
}

/// Bounds so small that every border is met.
pub(crate) fn tiny() -> Tuning {
    Tuning {
        part_bytes: 1 << 10,
        batch_bytes: 1 << 10,
        batch_documents: 7,
        round_events: 5,
        reply_events: 3,
        lane_events: 1,
        write_deltas: 2,
        write_delta_bytes: 256,
        command_bytes: 512,
        command_statements: 3,
        delete_ids: 3,
        reread_documents: 2,
        checkpoint_every: Duration::ZERO,
        ..Tuning::default()
    }
}

/// A command on a database.
pub(crate) async fn run(client: &Client, db: &str, command: Document) -> Result<Document> {
    let words = command.keys().next().cloned().unwrap_or_default();
    client
        .database(db)
        .run_command(command)
        .await
        .with_context(|| format!("failed to run {words} on {db}"))
}

/// Inserts documents as they are, each in a command of its own where they are large.
pub(crate) async fn insert(
    client: &Client,
    db: &str,
    name: &str,
    documents: &[RawDocumentBuf],
) -> Result<()> {
    let mut rest = documents;
    while !rest.is_empty() {
        let (mut batch, mut bytes, mut count) = (RawArrayBuf::new(), 0, 0);
        for document in rest.iter().take_while(|document| {
            bytes += document.as_bytes().len();
            bytes < 8 << 20
        }) {
            batch.push(&**document);
            count += 1;
        }
        if count == 0 {
            batch.push(&*rest[0]);
            count = 1;
        }
        let mut command = rawdoc! { "insert": name };
        command.append(mongodb::bson::cstr!("documents"), &*batch);
        let reply = client.database(db).run_raw_command(command).await?;
        ensure!(!reply.contains_key("writeErrors"), "{reply}");
        rest = &rest[count..];
    }
    Ok(())
}

/// Gives documents exactly these bytes, which an insertion or a replacement does not always do.
pub(crate) async fn put(
    client: &Client,
    db: &str,
    name: &str,
    documents: &[RawDocumentBuf],
) -> Result<()> {
    for document in documents {
        if element::has_doubled_names(document) {
            // A pipeline over such a document can end the server.
            classic_update(client, db, name, document, document).await?;
        } else {
            update(
                client,
                db,
                name,
                document,
                &[rawdoc! { "$replaceWith": { "$literal": document.clone() } }],
            )
            .await?;
        }
    }
    Ok(())
}

/// Updates, or inserts, the document with this one's `_id` by operators or a replacement.
pub(crate) async fn classic_update(
    client: &Client,
    db: &str,
    name: &str,
    of: &RawDocument,
    update: &RawDocument,
) -> Result<()> {
    let id = element::id_of(of).context("a document without _id")?;
    let statement = rawdoc! { "q": element::by_id(&id), "u": update.to_owned(), "upsert": true };
    let reply = client
        .database(db)
        .run_raw_command(rawdoc! { "update": name, "updates": [statement] })
        .await?;
    ensure!(!reply.contains_key("writeErrors"), "{reply}");
    Ok(())
}

/// Updates, or inserts, the document with this one's `_id` by a pipeline.
pub(crate) async fn update(
    client: &Client,
    db: &str,
    name: &str,
    of: &RawDocument,
    pipeline: &[RawDocumentBuf],
) -> Result<()> {
    let id = element::id_of(of).context("a document without _id")?;
    let mut stages = RawArrayBuf::new();
    pipeline.iter().for_each(|stage| stages.push(&**stage));
    let statement = rawdoc! { "q": element::by_id(&id), "u": stages, "upsert": true };
    let reply = client
        .database(db)
        .run_raw_command(rawdoc! { "update": name, "updates": [statement] })
        .await
        .with_context(|| format!("failed to update {id:?}"))?;
    ensure!(!reply.contains_key("writeErrors"), "{reply}");
    Ok(())
}

/// Deletes the documents with these documents' `_id`s.
pub(crate) async fn delete(
    client: &Client,
    db: &str,
    name: &str,
    documents: &[RawDocumentBuf],
) -> Result<()> {
    for document in documents {
        let id = element::id_of(document).context("a document without _id")?;
        let statement = rawdoc! { "q": element::by_id(&id), "limit": 1 };
        let reply = client
            .database(db)
            .run_raw_command(rawdoc! { "delete": name, "deletes": [statement] })
            .await?;
        ensure!(reply.get_i32("n")? == 1, "{reply}");
    }
    Ok(())
}
