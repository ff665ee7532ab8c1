//! What runs hold whose state directory is gone, found by their markers on the destination.

use std::path::Path;
use std::sync::Arc;

use mongodb::bson::{Document, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::id::{RunId, Workspace};
use schemas::namespace::OWN_DATABASE;
use schemas::spec::MigrationSpec;

use super::holder::Holder;
use crate::engine::cutover::give_back::Bare;
use crate::engine::destination::guard::{self, MARKER};
use crate::engine::{EngineContext, Relief as _};
use crate::memory::Memory;
use crate::mongo::{Deployment, Side, connect};

/// How what is looked at names itself to the servers.
const TAG: &str = "unblock";

/// A run whose marker is on the destination.
#[derive(Debug, Clone)]
pub struct LostRun {
    /// The run.
    pub run: RunId,
    /// Who holds it, in the marker's words.
    pub by: String,
    /// Whether that process may still be at work: nothing shows that it has ended.
    pub may_live: bool,
    /// Whether it says that it blocks others' writes to the destination.
    pub blocks_destination: bool,
}

/// What is blocked, and by which runs of the migration.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// The runs, by their ids.
    pub runs: Vec<LostRun>,
    /// Whether the source blocks its users' writes; `None`: that may not be seen.
    pub source_blocked: Option<bool>,
    /// The same of the destination.
    pub destination_blocked: Option<bool>,
}

/// A migration whose state directory is gone.
#[derive(Debug)]
pub struct Lost {
    spec: Arc<MigrationSpec>,
    workspace: Workspace,
    memory: Memory,
    source: Deployment,
    destination: Deployment,
}

impl Lost {
    /// Connects to both sides.
    ///
    /// # Errors
    /// When one cannot be reached, or refuses the login.
    pub async fn connect(
        spec: MigrationSpec,
        workspace: Workspace,
        memory: Memory,
    ) -> Result<Self, Fault> {
        let source = connect(Side::Source, &spec.source.connection, None, TAG).await?;
        let destination =
            connect(Side::Destination, &spec.destination.connection, None, TAG).await?;
        Ok(Self { spec: Arc::new(spec), workspace, memory, source, destination })
    }

    /// Looks what is blocked, and which runs of the migration have a marker.
    ///
    /// # Errors
    /// What a server answers; a marker that cannot be read.
    pub async fn look(&self) -> Result<Blocked, Fault> {
        let find = rawdoc! {
            "find": MARKER,
            "filter": {
                "migration": self.spec.name.as_str(), "workspace": self.workspace.as_str(),
            },
            "sort": { "_id": 1 },
        };
        let found = self
            .destination
            .collect(OWN_DATABASE, find)
            .await
            .map_err(|e| self.destination.fault("reading the markers of runs", &e))?;
        let mut runs = Vec::with_capacity(found.len());
        for raw in found {
            let unreadable = |why: String| {
                let hosts = &self.destination.hosts;
                let message = format!("a run's marker on the destination ({hosts}): {why}");
                Fault::new(FaultCode::Internal, message)
            };
            let marker =
                Document::try_from(&*raw).map_err(|error| unreadable(error.to_string()))?;
            let id = marker.get_str("_id").map_err(|error| unreadable(error.to_string()))?;
            let holder = Holder::read(&marker);
            runs.push(LostRun {
                run: serde_json::from_value(id.into())
                    .map_err(|error| unreadable(error.to_string()))?,
                may_live: holder.may_live(),
                by: holder.by,
                blocks_destination: marker.get_bool("blocks_writes").unwrap_or(true),
            });
        }
        Ok(Blocked {
            runs,
            source_blocked: guard::is_write_blocked(&self.source).await?,
            destination_blocked: guard::is_write_blocked(&self.destination).await?,
        })
    }

    fn relief(&self, run: &RunId, run_dir: &Path) -> Bare {
        let context = EngineContext {
            run: run.clone(),
            workspace: self.workspace.clone(),
            spec: Arc::clone(&self.spec),
            run_dir: run_dir.to_owned(),
            has_begun: true,
            replaces: Arc::from([]),
        };
        Bare { context, memory: self.memory.clone() }
    }

    /// Lifts the block of the source's writes.
    ///
    /// # Errors
    /// Unless every shard is seen to take writes again.
    pub async fn unblock_source(&self, run: &RunId, run_dir: &Path) -> Result<(), Fault> {
        self.relief(run, run_dir).unblock_source().await
    }

    /// Lets others write to the destination, and removes what the run has there: its marker, its
    /// user and its role. The data stays.
    ///
    /// # Errors
    /// Unless the destination is seen to take writes; what it answers else.
    pub async fn open_destination(&self, run: &RunId, run_dir: &Path) -> Result<(), Fault> {
        self.relief(run, run_dir).open_destination().await?;
        guard::remove_marker(&self.destination, run).await?;
        guard::drop_user(&self.destination, run).await
    }
}
