//! The daemon as a whole: puts its parts together, serves, and stops cleanly.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemas::fault::{Fault, FaultCode};
use schemas::wire::MAX_MESSAGE_BYTES;
use schemas::wire::v1::cutover_server::CutoverServer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api::Api;
use crate::api::tcp_tls::{KEEPALIVE, Remote};
use crate::api::unix_socket::{Socket, listen};
use crate::clock::Clock;
use crate::config::Config;
use crate::connections::{Bounded, most_callers};
use crate::crash_point::CrashPoint;
use crate::directory_watch::{Board, Watch};
use crate::engine::Engine;
use crate::http::Http;
use crate::journal::Journal;
use crate::open_runs::Engines;
use crate::registry::{Parts, Registry, start};
use crate::secret_store::SecretStore;
use crate::state_dir::StateDir;
use crate::supervisor::Supervisor;

/// How long the parts of the daemon may take to stop; a service manager kills after longer.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// What tests change of a daemon.
#[derive(Debug)]
pub struct TestHooks {
    /// Where it dies.
    pub crash_point: CrashPoint,
    /// A file with seconds to add to the wall clock.
    pub clock_offset_file: Option<std::path::PathBuf>,
    /// A file while which is there the journal's disk is full.
    pub full_disk_file: Option<std::path::PathBuf>,
}

impl TestHooks {
    /// What the environment says; nothing outside of tests.
    pub fn from_environment() -> Result<Self, Fault> {
        Ok(Self {
            crash_point: CrashPoint::from_environment()?,
            clock_offset_file: std::env::var_os(crate::clock::OFFSET_FILE_VARIABLE).map(Into::into),
            // A process meets a disk that is really full.
            full_disk_file: None,
        })
    }
}

/// A running daemon.
pub struct Daemon {
    registry: Registry,
    engines: Arc<Engines>,
    supervisors: TaskTracker,
    stop_work: CancellationToken,
    stop_serving: CancellationToken,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    socket: Socket,
    /// Held until everything else has stopped.
    state_dir: StateDir,
}

impl Daemon {
    /// Takes hold of the state directory, takes up every migration in it, and serves.
    pub async fn start(
        config: &Config,
        engine: Arc<dyn Engine>,
        hooks: TestHooks,
    ) -> Result<Self, Fault> {
        let state_dir = StateDir::take(&config.state_dir)?;
        let (journal_path, runs) = (state_dir.journal(), state_dir.runs()?);
        let journal = blocking(move || Journal::open_beside(&journal_path, &runs))
            .await?
            .full_while(hooks.full_disk_file);
        // Before anything is taken up: a daemon that cannot be reached must not begin to work. The
        // socket comes last: who can connect to it finds a daemon that listens wherever it was told
        // to.
        let remote = Remote::listen(config).await?;
        let http = match config.http {
            Some(address) => Some(Http::listen(address).await?),
            None => None,
        };
        let (listener, socket) = listen(&config.listen.path)?;
        let mark = journal.mark().map_err(|error| error.fault())?;
        let clock = Arc::new(Clock::resume(mark.as_ref(), hooks.clock_offset_file));
        let engines = Arc::new(Engines::new(engine, config.state_dir.clone()));
        let crash_point = Arc::new(hooks.crash_point);
        let (stop_work, stop_serving) = (crash_point.stop_token(), CancellationToken::new());
        let supervisors = TaskTracker::new();
        let supervisor = Supervisor::new(
            Arc::clone(&engines),
            Arc::clone(&crash_point),
            supervisors.clone(),
            stop_work.clone(),
        );
        let runtime = tokio::runtime::Handle::current();
        let parts = Parts {
            journal,
            clock,
            engines: Arc::clone(&engines),
            crash_point,
            supervise: Box::new(move |key, orders, registry| {
                supervisor.supervise(key, orders, registry, &runtime)
            }),
        };
        let board = Board::new(Arc::clone(&parts.clock));
        let registry = blocking(move || start(parts)).await?;
        let state_path = absolute(state_dir.path())?;
        // Nothing is declared yet in this process: what no declaration refers to now is needed by
        // none.
        let declared = registry.observe(None, None).await?;
        SecretStore::new(state_path.clone()).prune(declared.iter().map(|view| &*view.record.spec));
        let api = Api::new(
            registry.clone(),
            Arc::clone(&engines),
            state_path.clone(),
            board.clone(),
            stop_serving.clone(),
        );
        let service = CutoverServer::new(api)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let until = stop_serving.clone();
        let server = tokio::spawn(async move {
            let callers = Bounded::new(listener, most_callers(), None);
            let local = tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(KEEPALIVE))
                .add_service(service.clone())
                .serve_with_incoming_shutdown(callers.incoming(), until.clone().cancelled_owned());
            let remote = async {
                match remote {
                    Some(remote) => remote.serve(service, until).await,
                    None => Ok(()),
                }
            };
            tokio::try_join!(local, remote).map(|((), ())| ())
        });
        if let Some(http) = http {
            if let Ok(address) = http.address() {
                info!(%address, "answers /healthz and /metrics");
            }
            let (registry, engines, until) =
                (registry.clone(), Arc::clone(&engines), stop_serving.clone());
            supervisors.spawn(async move {
                if let Err(error) = http.serve(registry, engines, until).await {
                    warn!(%error, "HTTP is no longer served");
                }
            });
        }
        if let Some(directory) = &config.watch {
            let watch =
                Watch::new(absolute(directory)?, socket.path().to_owned(), &state_path, board);
            supervisors.spawn(watch.run(stop_serving.clone()));
        }
        info!(
            socket = %socket.path().display(), state_dir = %state_dir.path().display(),
            pid = std::process::id(), "ready",
        );
        Ok(Self {
            registry,
            engines,
            supervisors,
            stop_work,
            stop_serving,
            server,
            socket,
            state_dir,
        })
    }

    /// Where the daemon listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Waits until the server ends by itself, which only an error makes it do.
    pub async fn failed(&mut self) -> Fault {
        let cause = match (&mut self.server).await {
            Ok(Ok(())) => "it ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Fault::new(FaultCode::Internal, format!("the daemon's server has stopped: {cause}"))
    }

    /// Lets go of everything where it is, as a crash does. For tests within one process.
    pub async fn abandon(self) {
        let Self {
            registry,
            engines,
            supervisors,
            stop_work,
            stop_serving,
            server,
            socket,
            state_dir,
        } = self;
        stop_work.cancel();
        stop_serving.cancel();
        server.abort();
        supervisors.close();
        supervisors.wait().await;
        drop((registry, engines, socket, state_dir));
    }

    /// Stops: no more calls, then every sync with its checkpoints written, then the journal.
    pub async fn stop(self) {
        let Self {
            registry,
            engines,
            supervisors,
            stop_work,
            stop_serving,
            server,
            socket,
            state_dir,
        } = self;
        info!("stopping");
        stop_serving.cancel();
        stop_work.cancel();
        supervisors.close();
        if tokio::time::timeout(STOP_PATIENCE, supervisors.wait()).await.is_err() {
            warn!("an effect on its way did not end in time; the next start asks for it again");
        }
        if tokio::time::timeout(STOP_PATIENCE, engines.stop_all()).await.is_err() {
            warn!("a sync did not stop in time; the next start goes on from its last checkpoint");
        }
        registry.stop().await;
        drop(socket);
        // Connections that linger end with the process.
        server.abort();
        drop(state_dir);
        info!("stopped");
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path).map_err(|error| {
        Fault::new(
            FaultCode::StateDirUnusable,
            format!("failed to find the directory {}: {error}", path.display()),
        )
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Fault::new(FaultCode::Internal, format!("the start was cut off: {error}")))
    })
}
