//! A daemon in memory, behind a real Unix socket: it takes declarations, answers, and refuses as it
//! is told to.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use schemas::fault::{Fault, FaultCode};
use schemas::history::Entry;
use schemas::observed::{Inspection, Observed};
use schemas::report::Report;
use schemas::spec::MigrationSpec;
use schemas::wire::v1::cutover_server::{Cutover, CutoverServer};
use schemas::wire::{self, v1};
use serde_json::{Value, json};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Lets time pass for the migrations.
type Pass = Box<dyn FnMut(&mut Vec<Observed>) + Send>;

/// What the daemon has and does.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) observed: Vec<Observed>,
    pub(crate) inspections: BTreeMap<String, Inspection>,
    pub(crate) events: Vec<Entry>,
    /// What is reported of completed migrations, by name.
    pub(crate) reports: BTreeMap<String, Report>,
    /// Refuses every `Apply`.
    pub(crate) refuse_apply: Option<Fault>,
    /// What was applied, in order.
    pub(crate) applied: Vec<v1::ApplyRequest>,
    /// What was done by hand, in order.
    pub(crate) acts: Vec<v1::ActRequest>,
    /// What it says of a directory that it watches.
    pub(crate) watching: String,
    /// Runs after each `Observe`.
    pub(crate) on_observe: Option<Pass>,
}

/// A running daemon; it stops when dropped.
pub(crate) struct FakeDaemon {
    pub(crate) socket: PathBuf,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeDaemon {
    pub(crate) fn start(folder: &Path) -> Self {
        let socket = folder.join("d.sock");
        let state = Arc::new(Mutex::new(State::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener =
            runtime.block_on(async { tokio::net::UnixListener::bind(&socket) }).expect("a socket");
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))
            .expect("its mode");
        let service = CutoverServer::new(Service(Arc::clone(&state)))
            .max_decoding_message_size(wire::MAX_MESSAGE_BYTES);
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self { socket, state, _runtime: runtime }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in it")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// A migration as it is, freshly started from a declaration.
pub(crate) fn started(workspace: &str, spec: &MigrationSpec, serial: u64) -> Observed {
    let copy = json!({"bytes_total": 2_000_000, "bytes_copied": 500_000,
        "documents_total": 1000, "documents_copied": 250,
        "collections_total": 2, "collections_copied": 0, "eta_seconds": 3.0});
    let tail = json!({"events_applied": 0, "events_per_second": 0.0, "catch_up_eta_seconds": null});
    let value = json!({
        "spec": spec, "declared": true,
        "status": {
            "name": spec.name, "workspace": workspace, "generation": spec.generation,
            "run": format!(
                "{}-{}-00000000000000aa", spec.name, spec.generation,
            ), "serial": serial, "phase": "copying",
            "paused": spec.paused, "destination_writable": false, "lag_seconds": null, "copy": copy,
            "tail": tail,
            "indexes": {"total": 3, "built": 0},
            "verification": {"mode": "full", "phase": "waiting", "documents_total": 0,
                "documents_verified": 0, "mismatches": 0,
                "pending_rechecks": 0},
            "shards": [{"name": "rs0", "phase": "copying", "copy": copy, "tail": tail,
                "lag_seconds": null,
                "optime_gap": {
                    "source": null, "applied": null,
                }, "oplog_window_seconds": 86400, "error": null}],
            "window": {
                "opened_at": null, "expires_at": null, "extensions": 0, "remaining_seconds": null,
            },
            "ready": {
                "value": false, "reasons": ["the copy is not done"],
            }, "acknowledge_token": null,
            "cutover": {
                "started_at": null, "downtime_seconds": null, "acknowledged_by": null,
            }, "error": null
        },
        "by_hand": {
            "paused": null, "extensions": 0, "cancelled": false,
        }, "acknowledged_token": null,
        "created_namespaces": [], "deferred_settings": [], "expected_downtime_seconds": null
    });
    from_value(value)
}

/// The report of a migration that has cut over.
pub(crate) fn report() -> Report {
    from_value(json!({
        "format_version": 1, "name": "orders", "workspace": "payments", "generation": 2,
        "run": "orders-2-00000000000000aa",
        "declared_at": "2026-03-01T08:00:00.000Z", "completed_at": "2026-03-02T10:30:00.000Z",
        "phases": [
            {"phase": "validating", "seconds": 2.5}, {"phase": "copying", "seconds": 3600.0},
            {"phase": "catching_up", "seconds": 600.0}, {"phase": "ready", "seconds": 91200.0},
            {"phase": "draining", "seconds": 3.0}, {"phase": "finalizing", "seconds": 1.0}],
        "acknowledged": {
            "by": {"uid": 1000, "name": "ada", "revision": "4f2c9e1"},
            "at": "2026-03-02T10:29:50.000Z",
        },
        "downtime_seconds": 3.4,
        "migrated": {"collections": 14, "documents": 5_000_000, "bytes": 12_000_000_000_u64,
            "indexes": 31,
            "events_applied": 1_204_511},
        "verification": {"mode": "full", "documents_compared": 5_000_000,
            "documents_compared_again": 1_300_000,
            "generations": 41, "mismatches_found": 1, "mismatches_open": 0, "foreign_writes": 2,
            "compared_after_block": 1207, "duration_seconds": 512.0}
    }))
}

/// What the daemon finds about a migration that may start.
pub(crate) fn well() -> Inspection {
    from_value(json!({
        "checks": [{"name": "source_reachable", "outcome": "ok", "message": "127.0.0.1:27999 \
             answers", "code": null, "remedy": null}],
        "forecast": {"bytes": 2_000_000, "documents": 1000, "collections": 2, "copy_seconds": 4.0,
            "shards": [{"name": "rs0", "oplog_window_seconds": 86400, "fits": true}]},
        "drops": [], "destination_access_control": false
    }))
}

/// What the daemon finds about a migration whose source is down.
pub(crate) fn source_down() -> Inspection {
    from_value(json!({
        "checks": [{"name": "source_reachable", "outcome": "fail", "message": "cannot reach \
             127.0.0.1:27999: connection refused",
            "code": "CUT0012", "remedy": null}],
        "forecast": null, "drops": [], "destination_access_control": null
    }))
}

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the shape of the shared types")
}

struct Service(Arc<Mutex<State>>);

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no handler panics in it")
    }
}

#[tonic::async_trait]
impl Cutover for Service {
    async fn get_daemon(
        &self,
        _: Request<v1::GetDaemonRequest>,
    ) -> Result<Response<v1::GetDaemonResponse>, Status> {
        Ok(Response::new(v1::GetDaemonResponse {
            version: "0".to_owned(),
            pid: 1,
            format_version: wire::FORMAT_VERSION,
            state_dir: String::new(),
            watching: self.0.lock().expect("no test panics in it").watching.clone(),
        }))
    }

    async fn observe(
        &self,
        request: Request<v1::ObserveRequest>,
    ) -> Result<Response<v1::ObserveResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let observed = state
            .observed
            .iter()
            .filter(|one| {
                request.workspace.is_empty() || one.status.workspace.as_str() == request.workspace
            })
            .filter(|one| request.name.is_empty() || one.status.name.as_str() == request.name)
            .map(wire::to_json)
            .collect();
        let state = &mut *state;
        if let Some(pass) = &mut state.on_observe {
            pass(&mut state.observed);
        }
        Ok(Response::new(v1::ObserveResponse { format_version: wire::FORMAT_VERSION, observed }))
    }

    async fn look(
        &self,
        _: Request<v1::LookRequest>,
    ) -> Result<Response<v1::LookResponse>, Status> {
        Ok(Response::new(v1::LookResponse { found: Vec::new() }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<v1::InspectResponse>, Status> {
        let spec: MigrationSpec = wire::from_json("the spec", &request.into_inner().spec)
            .map_err(|f| wire::to_status(&f))?;
        let inspection =
            self.state().inspections.get(spec.name.as_str()).cloned().unwrap_or_else(well);
        Ok(Response::new(v1::InspectResponse { inspection: wire::to_json(&inspection) }))
    }

    async fn mismatches(
        &self,
        request: Request<v1::MismatchesRequest>,
    ) -> Result<Response<v1::MismatchesResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let known = state.observed.iter().find(|one| one.status.name.as_str() == request.name);
        let Some(known) = known else {
            return Err(wire::to_status(&Fault::new(
                FaultCode::UnknownMigration,
                format!("there is no migration {}", request.name),
            )));
        };
        let progress = wire::to_json(&known.status.verification);
        let foreign_writes = known.foreign_writes.named.iter().map(wire::to_json).collect();
        Ok(Response::new(v1::MismatchesResponse {
            mismatches: Vec::new(),
            progress,
            foreign_writes,
        }))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        match state.reports.get(&request.name) {
            Some(report) => Ok(Response::new(v1::ReportResponse { report: wire::to_json(report) })),
            None if !state.observed.iter().any(|one| one.status.name.as_str() == request.name) => {
                let message = format!("there is no migration {}", request.name);
                Err(wire::to_status(&Fault::new(FaultCode::UnknownMigration, message)))
            }
            None => {
                let message = format!("there is no report of {} yet", request.name);
                Err(wire::to_status(&Fault::new(FaultCode::WrongState, message)))
            }
        }
    }

    async fn keep_secrets(
        &self,
        _: Request<v1::KeepSecretsRequest>,
    ) -> Result<Response<v1::KeepSecretsResponse>, Status> {
        Ok(Response::new(v1::KeepSecretsResponse {}))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        if let Some(fault) = &state.refuse_apply {
            return Err(wire::to_status(fault));
        }
        let mut applied = Vec::new();
        for change in &request.changes {
            let serial = change.expected_serial + 1;
            let at = state.observed.iter().position(|one| one.status.name.as_str() == change.name);
            let run = match (at, change.spec.is_empty()) {
                (Some(at), true) => {
                    state.observed.remove(at);
                    String::new()
                }
                (None, true) => {
                    return Err(wire::to_status(&Fault::new(
                        FaultCode::UnknownMigration,
                        change.name.clone(),
                    )));
                }
                (at, false) => {
                    let spec: MigrationSpec = wire::from_json("the spec", &change.spec)
                        .map_err(|f| wire::to_status(&f))?;
                    let observed = started(&request.workspace, &spec, serial);
                    let run = observed.status.run.to_string();
                    match at {
                        Some(at) => state.observed[at] = observed,
                        None => state.observed.push(observed),
                    }
                    run
                }
            };
            applied.push(v1::Applied { name: change.name.clone(), serial, run });
        }
        state.applied.push(request);
        Ok(Response::new(v1::ApplyResponse { applied }))
    }

    async fn act(
        &self,
        request: Request<v1::ActRequest>,
    ) -> Result<Response<v1::ActResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        if !state.observed.iter().any(|one| one.status.name.as_str() == request.name) {
            let fault = Fault::new(
                FaultCode::UnknownMigration,
                format!("there is no migration {}", request.name),
            );
            return Err(wire::to_status(&fault));
        }
        let message = format!("{} was acted upon", request.name);
        state.acts.push(request);
        Ok(Response::new(v1::ActResponse { message }))
    }

    type EventsStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<v1::EventsResponse, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        let entries: Vec<_> = self
            .state()
            .events
            .iter()
            .filter(|entry| entry.migration.as_str() == request.name)
            .map(|entry| Ok(v1::EventsResponse { entry: wire::to_json(entry) }))
            .collect();
        if entries.is_empty() {
            let fault = Fault::new(
                FaultCode::UnknownMigration,
                format!("there is no migration {}", request.name),
            );
            return Err(wire::to_status(&fault));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(entries))))
    }
}
