//! The daemon's gRPC service: checks who calls and what they send, and passes it on.

mod caller;
pub(super) mod tcp_tls;
pub mod unix_socket;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use lifecycle::Opened;
use schemas::fault::{Fault, FaultCode};
use schemas::id::{MigrationName, Serial, ShardName, Workspace};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::spec::MigrationSpec;
use schemas::wire::v1::act_request::Act;
use schemas::wire::v1::cutover_server::Cutover;
use schemas::wire::v1::open::Side;
use schemas::wire::v1::{
    ActRequest, ActResponse, Applied, ApplyRequest, ApplyResponse, EventsRequest, EventsResponse,
    Found, GetDaemonRequest, GetDaemonResponse, InspectRequest, InspectResponse,
    KeepSecretsRequest, KeepSecretsResponse, LookRequest, LookResponse, MismatchesRequest,
    MismatchesResponse, ObserveRequest, ObserveResponse, Open, ReportRequest, ReportResponse,
};
use schemas::wire::{FORMAT_VERSION, check_format, from_json, to_json, to_status};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::directory_watch::Board;
use crate::engine::drift::Fresh;
use crate::engine::{EngineProgress, Ours};
use crate::open_runs::Engines;
use crate::registry::{ByHandAct, DeclaredChange, Registry, check_shard};
use crate::secret_store::SecretStore;
use crate::status::observed;

/// Changes that one request may carry: far more than one HCL directory has.
const MOST_CHANGES: usize = 1_000;

/// Mismatches that one answer lists; status has their number.
const MOST_MISMATCHES: usize = 10_000;

/// Foreign writes that one answer lists.
const MOST_FOREIGN_WRITES: usize = 1_000;

/// How long a look at a source may hold up an answer that does without it.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// Runs that are looked around at once.
const LOOKED_AT_ONCE: usize = 32;

/// How long a look around one run may take: it connects anew to both sides, and lists their
/// collections.
const LOOK_AROUND_PATIENCE: Duration = Duration::from_secs(20);

/// Records that wait for a slow reader of `Events`.
const ENTRIES_AHEAD: usize = 64;

/// The service.
#[derive(Clone)]
pub struct Api {
    registry: Registry,
    engines: Arc<Engines>,
    secrets: SecretStore,
    state_dir: String,
    watching: Board,
    stop: CancellationToken,
}

impl Api {
    /// From its parts; `stop` ends the streams.
    #[must_use]
    pub fn new(
        registry: Registry,
        engines: Arc<Engines>,
        state_dir: PathBuf,
        watching: Board,
        stop: CancellationToken,
    ) -> Self {
        let path = state_dir.display().to_string();
        Self {
            registry,
            engines,
            secrets: SecretStore::new(state_dir),
            state_dir: path,
            watching,
            stop,
        }
    }
}

impl Api {
    /// Has the engine begin the copy of one shard again, while documents are copied; what else may
    /// be is the lifecycle's to say.
    async fn begin_shard_again(
        &self,
        workspace: Option<Workspace>,
        name: MigrationName,
        shard: &ShardName,
    ) -> Result<(), Fault> {
        let key = self.registry.resolve(workspace, name).await?;
        let views =
            self.registry.observe(Some(key.workspace.clone()), Some(key.name.clone())).await?;
        let Some(record) = views
            .into_iter()
            .map(|view| view.record)
            .find(|record| record.run.phase() == Phase::Copying)
        else {
            return Ok(());
        };
        check_shard(self.engines.progress(&record.run.id), &key.name, shard)?;
        match self.engines.for_reading(&key.workspace, &record.run, &record.spec).await {
            Some(engine) => engine.restart_shard(shard).await,
            None => Ok(()),
        }
    }

    /// Sees that a destination was not handed over before its source is opened in its place: where
    /// the journal could not be written, it need not say so. Whether the run is one whose source
    /// may be opened is the lifecycle's to say.
    async fn see_destination_closed(
        &self,
        workspace: Option<Workspace>,
        name: MigrationName,
    ) -> Result<(), Fault> {
        let key = self.registry.resolve(workspace, name).await?;
        let views =
            self.registry.observe(Some(key.workspace.clone()), Some(key.name.clone())).await?;
        let Some(record) = views
            .into_iter()
            .map(|view| view.record)
            .find(|record| record.run.phase() == Phase::Finalizing)
        else {
            return Ok(());
        };
        let remedy = "once it is seen to be closed, run this again; or open the source on the \
             server itself, if you know that nobody has written to the destination: \
             setUserWriteBlockMode { global: false }";
        let Some(engine) =
            self.engines.for_reading(&key.workspace, &record.run, &record.spec).await
        else {
            let message = format!(
                "the run of {} is not open, so that its destination cannot be asked",
                key.name
            );
            return Err(Fault::new(FaultCode::WrongState, message).with_remedy(remedy));
        };
        match engine.handed_over().await {
            Ok(false) => Ok(()),
            Ok(true) => {
                let message = format!(
                    "the destination of {} has its settings back, and may have taken writes",
                    key.name
                );
                Err(Fault::new(FaultCode::WrongState, message).with_remedy("let it go on"))
            }
            Err(fault) => {
                let message = format!(
                    "it is not seen whether the destination of {} has taken writes: {}",
                    key.name, fault.message
                );
                Err(Fault::new(FaultCode::WrongState, message).with_remedy(remedy))
            }
        }
    }
}

fn refuse(fault: Fault) -> Status {
    to_status(&fault)
}

fn invalid(error: impl std::fmt::Display) -> Status {
    to_status(&Fault::new(FaultCode::InvalidConfiguration, error.to_string()))
}

fn workspace(text: String) -> Result<Option<Workspace>, Status> {
    if text.is_empty() { Ok(None) } else { Workspace::new(text).map(Some).map_err(invalid) }
}

fn name(text: String) -> Result<MigrationName, Status> {
    MigrationName::new(text).map_err(invalid)
}

#[tonic::async_trait]
impl Cutover for Api {
    async fn get_daemon(
        &self,
        request: Request<GetDaemonRequest>,
    ) -> Result<Response<GetDaemonResponse>, Status> {
        caller::caller(&request)?;
        Ok(Response::new(GetDaemonResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            format_version: FORMAT_VERSION,
            state_dir: self.state_dir.clone(),
            watching: self.watching.get().map_or_else(String::new, |watching| to_json(&watching)),
        }))
    }

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<ObserveResponse>, Status> {
        caller::caller(&request)?;
        let request = request.into_inner();
        let wanted = if request.name.is_empty() { None } else { Some(name(request.name)?) };
        let views =
            self.registry.observe(workspace(request.workspace)?, wanted).await.map_err(refuse)?;
        let observed = views.into_iter().map(|view| async {
            let record = view.record.clone();
            let run = record.run.id.clone();
            let engine =
                self.engines.for_reading(&record.key.workspace, &record.run, &record.spec).await;
            let progress = engine.map(|engine| engine.progress());
            let mut observed = observed(view, progress);
            // Whether an extension helps is for its plan to say, and nothing else looks while the
            // run stands still.
            if observed.status.phase == Phase::Expired {
                observed.resume_point_held =
                    tokio::time::timeout(LOOK_PATIENCE, self.engines.resume_point_held(&run))
                        .await
                        .ok()
                        .flatten();
            }
            to_json(&observed)
        });
        let observed = futures_util::future::join_all(observed).await;
        Ok(Response::new(ObserveResponse { format_version: FORMAT_VERSION, observed }))
    }

    async fn look(&self, request: Request<LookRequest>) -> Result<Response<LookResponse>, Status> {
        caller::caller(&request)?;
        let views = self
            .registry
            .observe(workspace(request.into_inner().workspace)?, None)
            .await
            .map_err(refuse)?;
        let connections = Fresh::default();
        let found = views.into_iter().map(async |view| {
            let record = view.record;
            let is_under_way = match record.run.phase() {
                Phase::Copying
                | Phase::CatchingUp
                | Phase::Ready
                | Phase::Paused
                | Phase::Failed
                | Phase::Expired => true,
                Phase::Validating
                | Phase::Draining
                | Phase::Finalizing
                | Phase::Completed
                | Phase::Cancelled => false,
            };
            if !record.declared || !is_under_way {
                return None;
            }
            let engine =
                self.engines.for_reading(&record.key.workspace, &record.run, &record.spec).await?;
            let findings =
                tokio::time::timeout(LOOK_AROUND_PATIENCE, engine.look(&connections)).await.ok()?;
            Some(Found {
                workspace: record.key.workspace.to_string(),
                name: record.key.name.to_string(),
                findings: findings.iter().map(to_json).collect(),
            })
        });
        let found = stream::iter(found)
            .buffer_unordered(LOOKED_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        Ok(Response::new(LookResponse { found }))
    }

    async fn inspect(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<InspectResponse>, Status> {
        caller::caller(&request)?;
        let request = request.into_inner();
        check_format(request.format_version).map_err(refuse)?;
        let mut spec: MigrationSpec =
            from_json("the declaration", &request.spec).map_err(refuse)?;
        let tried_out = self.secrets.try_out(&mut spec, &request.secrets).map_err(refuse)?;
        // What earlier runs of this migration made there is dropped by a new one, and so is no
        // obstacle to it.
        let views = self
            .registry
            .observe(workspace(request.workspace)?, Some(spec.name.clone()))
            .await
            .map_err(refuse)?;
        let all = self.registry.observe(None, None).await.map_err(refuse)?;
        let neighbours = all.into_iter().map(|view| view.record.run.id.clone()).collect();
        let mut ours = Ours { neighbours, ..Ours::default() };
        for view in views {
            let run = view.record.run.id.clone();
            let progress = self.engines.progress(&run);
            ours.namespaces.extend(observed(view, progress).created_namespaces);
            ours.runs.insert(run);
        }
        let inspection = self.engines.inspect(&spec, &ours).await;
        drop(tried_out);
        Ok(Response::new(InspectResponse { inspection: to_json(&inspection) }))
    }

    async fn keep_secrets(
        &self,
        request: Request<KeepSecretsRequest>,
    ) -> Result<Response<KeepSecretsResponse>, Status> {
        caller::caller(&request)?;
        let request = request.into_inner();
        let workspace = Workspace::new(request.workspace).map_err(invalid)?;
        let name = name(request.name)?;
        let views = self
            .registry
            .observe(Some(workspace.clone()), Some(name.clone()))
            .await
            .map_err(refuse)?;
        let declared = views.first().map(|view| &*view.record.spec);
        self.secrets.keep(&workspace, &name, &request.secrets, declared).map_err(refuse)?;
        Ok(Response::new(KeepSecretsResponse {}))
    }

    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let actor = caller::actor(&request, request.get_ref().actor.as_ref())?;
        let request = request.into_inner();
        check_format(request.format_version).map_err(refuse)?;
        let workspace = Workspace::new(request.workspace).map_err(invalid)?;
        if request.changes.len() > MOST_CHANGES {
            return Err(invalid(format!(
                "{} changes at once are more than {MOST_CHANGES}",
                request.changes.len()
            )));
        }
        let mut changes = Vec::with_capacity(request.changes.len());
        for change in request.changes {
            let spec = if change.spec.is_empty() {
                None
            } else {
                Some(from_json("the declaration", &change.spec).map_err(refuse)?)
            };
            let drops = change
                .drops
                .iter()
                .map(|drop| drop.parse())
                .collect::<Result<Vec<Namespace>, _>>()
                .map_err(invalid)?;
            changes.push(DeclaredChange {
                name: name(change.name)?,
                expected: Serial(change.expected_serial),
                spec,
                drops,
            });
        }
        let applied = self.registry.apply(workspace, changes, actor).await.map_err(refuse)?;
        let applied = applied
            .into_iter()
            .map(|applied| Applied {
                name: applied.name.as_str().to_owned(),
                serial: applied.serial.0,
                run: applied.run.as_str().to_owned(),
            })
            .collect();
        Ok(Response::new(ApplyResponse { applied }))
    }

    async fn act(&self, request: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        let actor = caller::actor(&request, request.get_ref().actor.as_ref())?;
        let request = request.into_inner();
        let act = match request.act {
            Some(Act::Pause(_)) => ByHandAct::Pause,
            Some(Act::Resume(_)) => ByHandAct::Resume,
            Some(Act::Cancel(_)) => ByHandAct::Cancel,
            Some(Act::Open(Open { side: Some(Side::Source(_)) })) => {
                self.see_destination_closed(
                    workspace(request.workspace.clone())?,
                    name(request.name.clone())?,
                )
                .await
                .map_err(refuse)?;
                ByHandAct::Open(Opened::Source)
            }
            Some(Act::Open(Open { side: Some(Side::Destination(_)) })) => {
                ByHandAct::Open(Opened::Destination)
            }
            Some(Act::Open(Open { side: None })) => {
                return Err(invalid("the request names no side to open"));
            }
            Some(Act::Extend(extend)) => ByHandAct::Extend(extend.extensions),
            Some(Act::RestartShard(restart)) => {
                let shard = ShardName(restart.shard);
                let owner = workspace(request.workspace.clone())?;
                self.begin_shard_again(owner, name(request.name.clone())?, &shard)
                    .await
                    .map_err(refuse)?;
                ByHandAct::RestartShard(shard)
            }
            None => {
                return Err(refuse(Fault::new(
                    FaultCode::VersionMismatch,
                    "the request names no act that this daemon knows",
                )));
            }
        };
        let message = self
            .registry
            .act(workspace(request.workspace)?, name(request.name)?, act, actor)
            .await
            .map_err(refuse)?;
        Ok(Response::new(ActResponse { message }))
    }

    async fn mismatches(
        &self,
        request: Request<MismatchesRequest>,
    ) -> Result<Response<MismatchesResponse>, Status> {
        caller::caller(&request)?;
        let request = request.into_inner();
        let key = self
            .registry
            .resolve(workspace(request.workspace)?, name(request.name)?)
            .await
            .map_err(refuse)?;
        let views = self
            .registry
            .observe(Some(key.workspace.clone()), Some(key.name.clone()))
            .await
            .map_err(refuse)?;
        let Some(view) = views.into_iter().next() else {
            return Err(refuse(Fault::new(
                FaultCode::UnknownMigration,
                format!("there is no migration {}", key.name),
            )));
        };
        let record = view.record;
        let (mismatches, foreign_writes, verification) =
            match self.engines.for_reading(&key.workspace, &record.run, &record.spec).await {
                Some(engine) => (
                    engine.mismatches(MOST_MISMATCHES).await.map_err(refuse)?,
                    engine.foreign_writes(MOST_FOREIGN_WRITES).await.map_err(refuse)?,
                    engine.progress().verification,
                ),
                None => (
                    Vec::new(),
                    Vec::new(),
                    EngineProgress::none(record.spec.verify.mode).verification,
                ),
            };
        Ok(Response::new(MismatchesResponse {
            mismatches: mismatches.iter().map(to_json).collect(),
            progress: to_json(&verification),
            foreign_writes: foreign_writes.iter().map(to_json).collect(),
        }))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        caller::caller(&request)?;
        let request = request.into_inner();
        let report = self
            .registry
            .report(workspace(request.workspace)?, name(request.name)?)
            .await
            .map_err(refuse)?;
        Ok(Response::new(ReportResponse { report: to_json(&report) }))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<EventsResponse, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        caller::caller(&request)?;
        let request = request.into_inner();
        let key = self
            .registry
            .resolve(workspace(request.workspace)?, name(request.name)?)
            .await
            .map_err(refuse)?;
        let (sender, receiver) = mpsc::channel(ENTRIES_AHEAD);
        let (registry, stop) = (self.registry.clone(), self.stop.clone());
        tokio::spawn(async move {
            let mut news = registry.last_entry();
            let mut after = 0;
            loop {
                news.mark_unchanged();
                loop {
                    let page = match registry.entries(key.clone(), after).await {
                        Ok(page) => page,
                        Err(fault) => {
                            // The reader may have gone; there is nobody else to tell.
                            let _ = sender.send(Err(refuse(fault))).await;
                            return;
                        }
                    };
                    let Some(last) = page.last() else { break };
                    after = last.seq;
                    for entry in &page {
                        if sender.send(Ok(EventsResponse { entry: to_json(entry) })).await.is_err()
                        {
                            return;
                        }
                    }
                }
                if !request.follow {
                    return;
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    changed = news.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
