//! The plugin's process: its socket, its handshake line, and its end, whoever ends it.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemas::plugin_protocol::go_plugin::grpc_controller_server::{
    GrpcController, GrpcControllerServer,
};
use schemas::plugin_protocol::go_plugin::{ShutdownRequest, ShutdownResponse};
use schemas::plugin_protocol::tfplugin6::provider_server::ProviderServer;
use schemas::plugin_protocol::{
    CLIENT_CERTIFICATE_VARIABLE, COOKIE, COOKIE_VARIABLE, PROTOCOL_VERSION, SOCKET_FOLDER_VARIABLE,
    VERSIONS_VARIABLE,
};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::log::{self, Level};
use super::service::Service;
use super::tls::Identity;

/// The go-plugin handshake's own version.
const CORE_PROTOCOL: u32 = 1;

/// What a state of thousands of migrations in one message takes.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// How often the plugin looks whether Terraform is still there.
const ORPHAN_INTERVAL: Duration = Duration::from_millis(500);

/// How long answers that are under way may take once the end is asked for. Terraform kills the
/// process after 2 s.
const GRACE: Duration = Duration::from_millis(500);

/// The longest path that a socket can have.
const LONGEST_SOCKET: usize = 107;

/// Whether Terraform started this process.
#[must_use]
pub fn is_plugin() -> bool {
    std::env::var(COOKIE_VARIABLE).is_ok_and(|cookie| cookie == COOKIE)
}

/// Serves Terraform until it says so, or is gone.
pub async fn serve() -> io::Result<()> {
    if let Ok(versions) = std::env::var(VERSIONS_VARIABLE)
        && !versions.split(',').any(|version| version.trim() == PROTOCOL_VERSION.to_string())
    {
        let message = format!(
            "this plugin speaks protocol {PROTOCOL_VERSION}, and Terraform asks for {versions}"
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    // `TF_DISABLE_PLUGIN_TLS` leaves the certificate out.
    let identity = match std::env::var(CLIENT_CERTIFICATE_VARIABLE) {
        Ok(pem) if !pem.trim().is_empty() => Some(Identity::for_client(&pem)?),
        _ => None,
    };
    ignore_interrupts()?;
    let (folder, listener) = listen()?;
    let socket = folder.path().join(SOCKET);
    let certificate =
        identity.as_ref().map(|identity| identity.certificate.as_str()).unwrap_or_default();
    let line = format!(
        "{CORE_PROTOCOL}|{PROTOCOL_VERSION}|unix|{}|grpc|{certificate}\n",
        socket.display()
    );
    let mut stdout = io::stdout();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()?;

    let (end, ended) = watch::channel(false);
    let end = Arc::new(end);
    tokio::spawn(watch_parent(Arc::clone(&end)));
    answer(listener, identity, Arc::new(Service::default()), end, ended).await
}

/// Serves whoever was given the address by hand (`TF_REATTACH_PROVIDERS`), until an interrupt.
pub(crate) async fn serve_for_debugger(address: &str) -> io::Result<()> {
    let (folder, listener) = listen()?;
    let reattach = serde_json::json!({
        address: {
            "Protocol": "grpc",
            "ProtocolVersion": PROTOCOL_VERSION,
            "Pid": std::process::id(),
            "Test": true,
            "Addr": {"Network": "unix", "String": folder.path().join(SOCKET)},
        }
    });
    writeln!(io::stdout(), "TF_REATTACH_PROVIDERS='{reattach}'")?;
    let (end, ended) = watch::channel(false);
    let end = Arc::new(end);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let until_interrupt = Arc::clone(&end);
    tokio::spawn(async move {
        interrupt.recv().await;
        until_interrupt.send_replace(true);
    });
    // Terraform does not send Shutdown to a provider that it did not start.
    answer(listener, None, Arc::new(Service::default()), end, ended).await
}

const SOCKET: &str = "plugin.sock";

/// A socket in a folder of its own, which only this user can enter and which goes with the process.
fn listen() -> io::Result<(TempDir, UnixListener)> {
    let asked = std::env::var_os(SOCKET_FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
    let mut parent = asked.map_or_else(std::env::temp_dir, PathBuf::from);
    if parent.as_os_str().len() + "/tf-cutover-XXXXXX/".len() + SOCKET.len() > LONGEST_SOCKET {
        parent = Path::new("/tmp").to_owned();
    }
    let owners = Permissions::from_mode(0o700);
    let folder =
        tempfile::Builder::new().prefix("tf-cutover-").permissions(owners).tempdir_in(&parent)?;
    let socket = folder.path().join(SOCKET);
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    Ok((folder, listener))
}

async fn answer(
    listener: UnixListener,
    identity: Option<Identity>,
    service: Arc<Service>,
    end: Arc<watch::Sender<bool>>,
    mut ended: watch::Receiver<bool>,
) -> io::Result<()> {
    let provider = ProviderServer::from_arc(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let routes = tonic::transport::Server::builder()
        .add_service(provider)
        .add_service(GrpcControllerServer::new(Controller(end)));
    let mut until = ended.clone();
    let serving = async {
        match identity {
            Some(identity) => {
                routes
                    .serve_with_incoming_shutdown(over_tls(listener, identity), async move {
                        wait(&mut until).await
                    })
                    .await
            }
            None => {
                routes
                    .serve_with_incoming_shutdown(over_plain(listener), async move {
                        wait(&mut until).await
                    })
                    .await
            }
        }
    };
    let cut_short = async {
        wait(&mut ended).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served.map_err(io::Error::other),
        () = cut_short => Ok(()),
    }
}

async fn wait(ended: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it everybody who could ask for the end.
    let _ = ended.wait_for(|ended| *ended).await;
}

fn over_tls(
    listener: UnixListener,
    identity: Identity,
) -> ReceiverStream<io::Result<tokio_rustls::server::TlsStream<UnixStream>>> {
    let acceptor = TlsAcceptor::from(identity.config);
    let (accepted, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            // A caller that never ends its handshake must not hold the next one up.
            tokio::spawn(async move {
                match acceptor.accept(connection).await {
                    Ok(connection) => drop(accepted.send(Ok(connection)).await),
                    Err(error) => log::line(
                        Level::Warn,
                        "refused a connection",
                        &[("error", &error.to_string())],
                    ),
                }
            });
        }
    });
    ReceiverStream::new(stream)
}

fn over_plain(listener: UnixListener) -> ReceiverStream<io::Result<UnixStream>> {
    let (accepted, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            if accepted.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// An interrupt on the terminal reaches the plugin too, but is Terraform's to handle: it asks with
/// `StopProvider`.
fn ignore_interrupts() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move { while interrupt.recv().await.is_some() {} });
    Ok(())
}

/// Ends the plugin when its parent is no longer the one that started it.
async fn watch_parent(end: Arc<watch::Sender<bool>>) {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(ORPHAN_INTERVAL).await;
    }
    end.send_replace(true);
}

#[derive(Debug)]
struct Controller(Arc<watch::Sender<bool>>);

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(
        &self,
        _: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        self.0.send_replace(true);
        Ok(Response::new(ShutdownResponse {}))
    }
}
