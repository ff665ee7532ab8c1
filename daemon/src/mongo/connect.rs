//! How a deployment is reached: secrets resolved, names and ports tried, the driver connected, `hello` read.
//!
//! Names, ports, TLS and credentials are told apart, since each has another remedy. Host names and ports are tried before the
//! driver is: it reports all of them as one failed server selection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerAddress, Tls, TlsOptions};
use schemas::fault::{Fault, FaultCode};
use schemas::spec::{ConnectionSpec, SecretRef};

use super::{Deployment, ServerVersion, Side, Topology, primary};
use crate::memory::Memory;

/// How long one TCP connection may take: a host behind a firewall that drops packets answers never.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to one server at most, where the URI says nothing (`maxPoolSize`): what drivers of other languages have. There are only
/// as many as commands at once, which the declared parallelism bounds.
const MOST_CONNECTIONS: u32 = 100;

/// How long the driver looks for a primary: longer than an election takes by default (10 s) would hide it from the caller, who
/// retries with the reason on show.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// What a certificate begins with in PEM, but for the dashes: some write `TRUSTED CERTIFICATE`.
const PEM_CERTIFICATE: &[u8] = b"CERTIFICATE-----";

/// Reads a secret; a trailing line end of a file is not part of it.
pub fn resolve_secret(secret: &SecretRef) -> Result<String, Fault> {
    match secret {
        SecretRef::Env(name) => std::env::var(name)
            .map_err(|_| Fault::new(FaultCode::SecretUnavailable, format!("the environment of cutoverd has no variable {name}"))),
        SecretRef::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Fault::new(FaultCode::SecretUnavailable, format!("reading the secret file {}: {error}", path.display()))
            })?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
    }
}

/// The value of one option of a connection string.
fn uri_option<'a>(uri: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = uri.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// A user of the daemon's own making.
#[derive(Clone)]
pub struct Login {
    /// Its name, in the database `admin`.
    pub username: String,
    /// Its password, which is nowhere but here and in the server.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What the driver's monitors have met, by which a server selection that failed is told apart: its own error is one text for all.
#[derive(Debug, Default)]
struct Handshakes {
    /// A certificate, or the handshake itself, did not hold at some member.
    is_refused: AtomicBool,
    /// The last failure was a connection cut in the handshake, as by a member that speaks no TLS.
    is_cut: AtomicBool,
    /// Some member has answered.
    is_answered: AtomicBool,
}

impl Handshakes {
    fn note(&self, event: &SdamEvent) {
        match event {
            SdamEvent::ServerHeartbeatSucceeded(_) => self.is_answered.store(true, Ordering::Release),
            SdamEvent::ServerHeartbeatFailed(failed) => {
                let ErrorKind::Io(io) = &*failed.failure.kind else { return };
                // The rest is below TLS: a port at which nobody is any more, a server that hangs.
                let is_cut = matches!(io.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
                self.is_cut.store(is_cut, Ordering::Release);
                if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                    self.is_refused.store(true, Ordering::Release);
                }
            }
            _ => {}
        }
    }

    /// Whether it is TLS that keeps the driver from every usable member. One that answers while another's certificate does not hold may
    /// be no primary: that is TLS, too. Otherwise an election, or a server that is away, is got over by waiting.
    fn is_tls_at_fault(&self) -> bool {
        let [is_refused, is_cut, is_answered] =
            [&self.is_refused, &self.is_cut, &self.is_answered].map(|flag| flag.load(Ordering::Acquire));
        is_refused || (is_cut && !is_answered)
    }
}

async fn client_options(side: Side, spec: &ConnectionSpec, login: Option<&Login>) -> Result<ClientOptions, Fault> {
    let mut options = ClientOptions::parse(&spec.uri).await.map_err(|error| {
        let code = match &*error.kind {
            ErrorKind::DnsResolve { .. } => FaultCode::HostNotFound,
            _ => FaultCode::InvalidConfiguration,
        };
        Fault::new(code, format!("the {side}'s URI: {}", super::error::words(&error)))
    })?;
    if let Some(login) = login {
        let mut credential = Credential::default();
        credential.username = Some(login.username.clone());
        credential.password = Some(login.password.clone());
        credential.source = Some("admin".to_owned());
        options.credential = Some(credential);
    } else if spec.username.is_some() || spec.password.is_some() {
        let mut credential = options.credential.take().unwrap_or_else(|| {
            let mut credential = Credential::default();
            credential.source =
                uri_option(&spec.uri, "authSource").map(str::to_owned).or_else(|| options.default_database.clone());
            credential
        });
        if let Some(username) = &spec.username {
            credential.username = Some(username.clone());
        }
        if let Some(secret) = &spec.password {
            credential.password = Some(resolve_secret(secret)?);
        }
        options.credential = Some(credential);
    }
    if let Some(tls) = &spec.tls {
        for (name, file) in [("ca_file", &tls.ca_file), ("certificate_key_file", &tls.certificate_key_file)] {
            let Some(path) = file else { continue };
            let failed = |why: &str, remedy: &str| {
                Fault::new(FaultCode::TlsFailed, format!("the {side}'s tls.{name} {}: {why}", path.display()))
                    .with_remedy(format!("correct tls.{name}, or {remedy}"))
            };
            let text = std::fs::read(path)
                .map_err(|error| failed(&error.to_string(), "make the file readable for the user that runs cutoverd"))?;
            // The driver takes an authority's file with nothing in it, and then trusts nobody.
            if !text.windows(PEM_CERTIFICATE.len()).any(|window| window == PEM_CERTIFICATE) {
                return Err(failed("it holds no certificate in PEM", "convert the file to PEM"));
            }
        }
        // What the URI says of TLS stays, and the block's files go over it.
        let mut tls_options = match options.tls.take() {
            Some(Tls::Enabled(from_uri)) => from_uri,
            _ => TlsOptions::default(),
        };
        if tls.ca_file.is_some() {
            tls_options.ca_file_path.clone_from(&tls.ca_file);
        }
        if tls.certificate_key_file.is_some() {
            tls_options.cert_key_file_path.clone_from(&tls.certificate_key_file);
        }
        options.tls = Some(Tls::Enabled(tls_options));
    }
    if let Some(credential) = &options.credential
        && credential.mechanism != Some(AuthMechanism::MongoDbX509)
        && credential.username.is_some()
        && credential.password.is_none()
    {
        return Err(Fault::new(FaultCode::SecretUnavailable, format!("the {side} has a user name and no password"))
            .with_remedy("add password = { env = \"NAME\" } or { file = \"PATH\" } to the block"));
    }
    options.app_name = Some("cutover".to_owned());
    // The driver's own bound is 10, which a declared parallelism would be held at in silence. What the URI says stands.
    options.max_pool_size.get_or_insert(MOST_CONNECTIONS);
    options.connect_timeout = Some(CONNECT_TIMEOUT);
    options.server_selection_timeout = Some(SELECTION_TIMEOUT);
    Ok(options)
}

/// Tries names and ports: one that answers is enough.
async fn probe(side: Side, hosts: &[ServerAddress]) -> Result<(), Fault> {
    let mut first: Option<Fault> = None;
    for address in hosts {
        let ServerAddress::Tcp { host, port } = address else { return Ok(()) };
        let port = port.unwrap_or(27017);
        let fault = match tokio::net::lookup_host((host.as_str(), port)).await {
            Err(error) => Fault::new(FaultCode::HostNotFound, format!("the {side}'s host {host} does not resolve: {error}")),
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.collect();
                match tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(&addresses[..])).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => {
                        Fault::new(FaultCode::Unreachable, format!("cannot connect to the {side} at {host}:{port}: {error}"))
                    }
                    Err(_) => Fault::new(
                        FaultCode::Unreachable,
                        format!(
                            "cannot connect to the {side} at {host}:{port}: no answer within {} s",
                            CONNECT_TIMEOUT.as_secs()
                        ),
                    ),
                }
            }
        };
        first.get_or_insert(fault);
    }
    Err(first.unwrap_or_else(|| Fault::new(FaultCode::InvalidConfiguration, format!("the {side}'s URI names no host"))))
}

/// The address of this machine from which it would connect to a URI's first host; `None` where that cannot be told.
pub async fn local_address(uri: &str) -> Option<std::net::IpAddr> {
    let options = ClientOptions::parse(uri).await.ok()?;
    let ServerAddress::Tcp { host, port } = options.hosts.first()? else { return None };
    let target = tokio::net::lookup_host((host.as_str(), port.unwrap_or(27017))).await.ok()?.next()?;
    let any: std::net::IpAddr =
        if target.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
    // Sends nothing: the system only picks the way.
    socket.connect(target).await.ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Connects and reads what the deployment is. `tag` marks the writes of this run; `login` goes over the declared user.
///
/// It has an account of memory of its own, until it is put [`within`](Deployment::within) another: what only asks needs none.
pub async fn connect(side: Side, spec: &ConnectionSpec, login: Option<&Login>, tag: &str) -> Result<Deployment, Fault> {
    let mut options = client_options(side, spec, login).await?;
    let handshakes = Arc::new(Handshakes::default());
    let noted = Arc::clone(&handshakes);
    options.sdam_event_handler = Some(EventHandler::callback(move |event| noted.note(&event)));
    let hosts = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    probe(side, &options.hosts).await?;
    let with_tls = matches!(options.tls, Some(Tls::Enabled(_)));
    // 0 in a URI is a driver's word for no bound.
    let most_connections = options.max_pool_size.filter(|most| *most > 0).unwrap_or(MOST_CONNECTIONS);
    let client = mongodb::Client::with_options(options).map_err(|error| match &*error.kind {
        ErrorKind::InvalidTlsConfig { .. } => {
            Fault::new(FaultCode::TlsFailed, format!("the {side}'s TLS settings: {}", super::error::words(&error)))
        }
        _ => super::error::classify(side, &hosts, "connecting", &error),
    })?;
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).selection_criteria(primary()).await.map_err(|error| {
        match &*error.kind {
            // The port answers and the driver finds no server: without TLS most often for its absence.
            ErrorKind::ServerSelection { .. } if with_tls && handshakes.is_tls_at_fault() => {
                Fault::new(FaultCode::TlsFailed, format!("no TLS connection to the {side} at {hosts}: {}", super::error::words(&error)))
            }
            ErrorKind::ServerSelection { .. } => {
                Fault::new(FaultCode::Unreachable, format!("the {side} at {hosts} has no usable primary: {}", super::error::words(&error)))
                    .with_remedy("check that the replica set has a primary, that its member names resolve here, and whether it requires TLS (a tls block)")
            }
            _ => super::error::classify(side, &hosts, "connecting", &error),
        }
    })?;
    let topology = topology(&hello);
    // A direct connection reaches whatever member it names. What is read there may be rolled back, and a secondary would hide that
    // its primary is the other side.
    if let Topology::ReplicaSet(name) = &topology
        && !hello.get_bool("isWritablePrimary").unwrap_or(false)
    {
        let actual = hello.get_str("primary").map(|host| format!(": that is {host}")).unwrap_or_default();
        return Err(Fault::new(
            FaultCode::Unreachable,
            format!("the {side} at {hosts} is not the primary of replica set {name}{actual}"),
        )
        .with_remedy(format!("name the members with replicaSet={name} in the URI, and leave directConnection out")));
    }
    let build = client
        .database("admin")
        .run_command(doc! { "buildInfo": 1 })
        .selection_criteria(primary())
        .await
        .map_err(|error| super::error::classify(side, &hosts, "reading the version", &error))?;
    let status = client
        .database("admin")
        .run_command(doc! { "connectionStatus": 1 })
        .selection_criteria(primary())
        .await
        .map_err(|error| super::error::classify(side, &hosts, "reading who is logged in", &error))?;
    let users = status.get_document("authInfo").and_then(|info| info.get_array("authenticatedUsers"));
    let shard_keys = (topology == Topology::Sharded).then(Default::default);
    Ok(Deployment {
        is_authenticated: users.is_ok_and(|users| !users.is_empty()),
        topology,
        version: version(&build),
        process_id: hello.get_document("topologyVersion").ok().and_then(|v| v.get_object_id("processId").ok()),
        client,
        side,
        hosts,
        most_connections,
        tag: tag.to_owned(),
        member: primary(),
        observer: None,
        memory: Memory::default(),
        shard_keys,
    })
}

fn topology(hello: &Document) -> Topology {
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        Topology::Sharded
    } else if let Ok(name) = hello.get_str("setName") {
        Topology::ReplicaSet(name.to_owned())
    } else {
        Topology::Standalone
    }
}

fn version(build: &Document) -> ServerVersion {
    let numbers: Vec<u32> = build
        .get_array("versionArray")
        .map(|array| array.iter().map(|n| n.as_i32().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)).collect())
        .unwrap_or_default();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    ServerVersion::new(at(0), at(1), at(2))
}
