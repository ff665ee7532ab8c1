//! How a deployment is reached: secrets resolved, names and ports tried, the driver connected,
//! `hello` read.
//!
//! Names, ports, TLS and credentials are told apart, since each has another remedy. Host names and
//! ports are tried before the driver is: it reports all of them as one failed server selection.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerAddress, Tls, TlsOptions};
use provider::pem::{self, Holds};
use schemas::fault::{Fault, FaultCode};
use schemas::hcl::uri::{self, Beside, InvalidUri, Mechanism, MongoUri};
use schemas::spec::{ConnectionSpec, SecretRef};

use super::{Deployment, ServerVersion, Side, Topology, primary};
use crate::memory::Memory;

/// How long one TCP connection may take: a host behind a firewall that drops packets answers never.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to one server at most, where the URI says nothing (`maxPoolSize`): what drivers of
/// other languages have. There are only as many as commands at once, which the declared parallelism
/// bounds.
const MOST_CONNECTIONS: u32 = 100;

/// How long the driver looks for a primary: longer than an election takes by default (10 s) would
/// hide it from the caller, who retries with the reason on show.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A password is shorter by far; a file of another kind is not read whole.
const LONGEST_SECRET: u64 = 64 << 10;

/// Reads a secret. All line ends after it are cut: editors, `echo` and mounted secrets leave one,
/// or two.
///
/// # Errors
///
/// [`FaultCode::SecretUnavailable`] where it is not there, is empty, or has characters that no
/// password has.
pub fn resolve_secret(secret: &SecretRef) -> Result<String, Fault> {
    let unavailable = |message: String, remedy: &str| {
        Fault::new(FaultCode::SecretUnavailable, message).with_remedy(remedy)
    };
    let (place, bytes) = match secret {
        SecretRef::Env(name) => {
            let value = std::env::var_os(name).ok_or_else(|| {
                Fault::new(
                    FaultCode::SecretUnavailable,
                    format!("the environment of cutoverd has no variable {name}"),
                )
            })?;
            (format!("the variable {name}"), std::os::unix::ffi::OsStringExt::into_vec(value))
        }
        SecretRef::File(path) => {
            let failed = |error: io::Error| {
                Fault::new(
                    FaultCode::SecretUnavailable,
                    format!("reading the secret file {}: {error}", path.display()),
                )
            };
            let mut bytes = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(LONGEST_SECRET + 1).read_to_end(&mut bytes))
                .map_err(failed)?;
            (format!("the secret file {}", path.display()), bytes)
        }
    };
    let alone = "let it hold the password alone, in UTF-8";
    if bytes.len() as u64 > LONGEST_SECRET {
        return Err(unavailable(format!("{place} is longer than any password"), alone));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(unavailable(
            format!("{place} begins with a byte order mark"),
            "save it as UTF-8 without one",
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| unavailable(format!("{place} is no text in UTF-8"), alone))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(unavailable(format!("{place} is empty"), alone));
    }
    // SASLprep refuses them (RFC 4013, section 2.3), and the driver then says nothing else.
    if let Some((at, control)) = text.chars().enumerate().find(|(_, c)| c.is_control()) {
        let what = match control {
            '\n' | '\r' => "a line end".to_owned(),
            '\t' => "a tabulator".to_owned(),
            other => format!("the control character U+{:04X}", u32::from(other)),
        };
        return Err(unavailable(
            format!("{place} has {what} in it, as its character number {}", at + 1),
            alone,
        ));
    }
    Ok(text.to_owned())
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

/// What the driver's monitors have met, by which a server selection that failed is told apart: its
/// own error is one text for all.
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
            SdamEvent::ServerHeartbeatSucceeded(_) => {
                self.is_answered.store(true, Ordering::Release)
            }
            SdamEvent::ServerHeartbeatFailed(failed) => {
                let ErrorKind::Io(io) = &*failed.failure.kind else { return };
                // The rest is below TLS: a port at which nobody is any more, a server that hangs.
                let is_cut = matches!(
                    io.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                );
                self.is_cut.store(is_cut, Ordering::Release);
                if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                    self.is_refused.store(true, Ordering::Release);
                }
            }
            _ => {}
        }
    }

    /// Whether it is TLS that keeps the driver from every usable member. One that answers while
    /// another's certificate does not hold may be no primary: that is TLS, too. Otherwise an
    /// election, or a server that is away, is got over by waiting.
    fn is_tls_at_fault(&self) -> bool {
        let [is_refused, is_cut, is_answered] = [&self.is_refused, &self.is_cut, &self.is_answered]
            .map(|flag| flag.load(Ordering::Acquire));
        is_refused || (is_cut && !is_answered)
    }
}

/// What a declared connection says, read and held together.
struct Declared {
    uri: MongoUri,
    login: Option<uri::Login>,
}

impl Declared {
    fn read(side: Side, spec: &ConnectionSpec) -> Result<Self, Fault> {
        let wrong = |error: InvalidUri| {
            let unknown = error.unknown.map(|name| format!(" ({name:?})")).unwrap_or_default();
            let message = format!("the {side}: {}{unknown}", error.summary);
            Fault::new(FaultCode::InvalidConfiguration, message).with_remedy(error.detail)
        };
        let uri = MongoUri::parse(&spec.uri).map_err(wrong)?;
        let beside = Beside {
            username: spec.username.as_deref(),
            has_password: spec.password.is_some(),
            tls: spec
                .tls
                .as_ref()
                .map(|tls| (tls.ca_file.as_deref(), tls.certificate_key_file.as_deref())),
        };
        match uri.login(&beside) {
            Ok(login) => Ok(Self { uri, login }),
            Err(conflicts) => Err(conflicts.into_iter().next().map_or_else(
                || Fault::new(FaultCode::Internal, "a connection was refused without a reason"),
                |conflict| wrong(conflict.error),
            )),
        }
    }
}

/// The credential of who is declared; `found` is what the driver has made of the user alone, which
/// knows what DNS says.
fn credential(
    login: &uri::Login,
    password: Option<&SecretRef>,
    found: Option<Credential>,
) -> Result<Credential, Fault> {
    let mut credential = found.unwrap_or_default();
    credential.username.clone_from(&login.username);
    if let Some(source) = &login.source {
        credential.source = Some(source.clone());
    }
    credential.mechanism = match login.mechanism {
        Mechanism::Negotiated => None,
        Mechanism::ScramSha1 => Some(AuthMechanism::ScramSha1),
        Mechanism::ScramSha256 => Some(AuthMechanism::ScramSha256),
        Mechanism::X509 => Some(AuthMechanism::MongoDbX509),
        Mechanism::Plain => Some(AuthMechanism::Plain),
    };
    credential.password = password.map(resolve_secret).transpose()?;
    Ok(credential)
}

/// Looks at the files of a connection's TLS; a failed handshake does not say which of them it is,
/// and why.
fn check_files(side: Side, spec: &ConnectionSpec, tls: &TlsOptions) -> Result<(), Fault> {
    let of_block = spec.tls.as_ref();
    let files = [
        (
            Holds::Authorities,
            &tls.ca_file_path,
            of_block.is_some_and(|tls| tls.ca_file.is_some()),
            "ca_file",
            "tlsCAFile",
        ),
        (
            Holds::CertificateAndKey,
            &tls.cert_key_file_path,
            of_block.is_some_and(|tls| tls.certificate_key_file.is_some()),
            "certificate_key_file",
            "tlsCertificateKeyFile",
        ),
    ];
    for (holds, path, is_of_block, attribute, option) in files {
        let Some(path) = path else { continue };
        pem::read(path, holds, provider::clock::now()).map_err(|problem| {
            let name = if is_of_block { format!("tls.{attribute}") } else { option.to_owned() };
            Fault::new(
                FaultCode::TlsFailed,
                format!("the {side}'s {name} {} {}", path.display(), problem.what),
            )
            .with_remedy(problem.remedy)
        })?;
    }
    Ok(())
}

async fn client_options(
    side: Side,
    spec: &ConnectionSpec,
    login: Option<&Login>,
) -> Result<ClientOptions, Fault> {
    let declared = Declared::read(side, spec)?;
    let user = declared.login.as_ref().and_then(|login| login.username.as_deref());
    let mut options =
        ClientOptions::parse(declared.uri.for_driver(user)).await.map_err(|error| {
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
    } else {
        let found = options.credential.take();
        let login = declared.login.as_ref();
        options.credential =
            login.map(|login| credential(login, spec.password.as_ref(), found)).transpose()?;
    }
    if let Some(tls) = &spec.tls {
        // What the URI says of TLS stays, and the block's files go over it.
        let mut tls_options = match options.tls.take() {
            Some(Tls::Enabled(from_uri)) => from_uri,
            Some(Tls::Disabled) | None => TlsOptions::default(),
        };
        if tls.ca_file.is_some() {
            tls_options.ca_file_path.clone_from(&tls.ca_file);
        }
        if tls.certificate_key_file.is_some() {
            tls_options.cert_key_file_path.clone_from(&tls.certificate_key_file);
        }
        options.tls = Some(Tls::Enabled(tls_options));
    }
    if let Some(Tls::Enabled(tls)) = &options.tls {
        check_files(side, spec, tls)?;
    }
    options.app_name = Some("cutover".to_owned());
    // The driver's own bound is 10, which a declared parallelism would be held at in silence. What
    // the URI says stands.
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
            Err(error) => Fault::new(
                FaultCode::HostNotFound,
                format!("the {side}'s host {host} does not resolve: {error}"),
            ),
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.collect();
                match tokio::time::timeout(
                    CONNECT_TIMEOUT,
                    tokio::net::TcpStream::connect(&addresses[..]),
                )
                .await
                {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => Fault::new(
                        FaultCode::Unreachable,
                        format!("cannot connect to the {side} at {host}:{port}: {error}"),
                    ),
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
    Err(first.unwrap_or_else(|| {
        Fault::new(FaultCode::InvalidConfiguration, format!("the {side}'s URI names no host"))
    }))
}

/// The address of this machine from which it would connect to a URI's first host; `None` where that
/// cannot be told.
pub async fn local_address(uri: &str) -> Option<std::net::IpAddr> {
    let options = ClientOptions::parse(MongoUri::parse(uri).ok()?.for_driver(None)).await.ok()?;
    let ServerAddress::Tcp { host, port } = options.hosts.first()? else { return None };
    let target =
        tokio::net::lookup_host((host.as_str(), port.unwrap_or(27017))).await.ok()?.next()?;
    let any: std::net::IpAddr = if target.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
    // Sends nothing: the system only picks the way.
    socket.connect(target).await.ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Connects and reads what the deployment is. `tag` marks the writes of this run; `login` goes over
/// the declared user.
///
/// It has an account of memory of its own, until it is put [`within`](Deployment::within) another:
/// what only asks needs none.
pub async fn connect(
    side: Side,
    spec: &ConnectionSpec,
    login: Option<&Login>,
    tag: &str,
) -> Result<Deployment, Fault> {
    let mut options = client_options(side, spec, login).await?;
    let handshakes = Arc::new(Handshakes::default());
    let noted = Arc::clone(&handshakes);
    options.sdam_event_handler = Some(EventHandler::callback(move |event| noted.note(&event)));
    let hosts = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    probe(side, &options.hosts).await?;
    let with_tls = matches!(options.tls, Some(Tls::Enabled(_)));
    let most_connections = options.max_pool_size.unwrap_or(MOST_CONNECTIONS);
    let client = mongodb::Client::with_options(options).map_err(|error| match &*error.kind {
        ErrorKind::InvalidTlsConfig { .. } => Fault::new(
            FaultCode::TlsFailed,
            format!("the {side}'s TLS settings: {}", super::error::words(&error)),
        ),
        _ => super::error::classify(side, &hosts, "connecting", &error),
    })?;
    let hello = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .selection_criteria(primary())
        .await
        .map_err(|error| {
            match &*error.kind {
                // The port answers and the driver finds no server: without TLS most often for its
                // absence.
                ErrorKind::ServerSelection { .. } if with_tls && handshakes.is_tls_at_fault() => {
                    Fault::new(
                        FaultCode::TlsFailed,
                        format!(
                            "no TLS connection to the {side} at {hosts}: {}",
                            super::error::words(&error)
                        ),
                    )
                }
                ErrorKind::ServerSelection { .. } => Fault::new(
                    FaultCode::Unreachable,
                    format!(
                        "the {side} at {hosts} has no usable primary: {}",
                        super::error::words(&error)
                    ),
                )
                .with_remedy(
                    "check that the replica set has a primary, that its member names resolve here, \
                     and whether it requires TLS (a tls block)",
                ),
                _ => super::error::classify(side, &hosts, "connecting", &error),
            }
        })?;
    let topology = topology(&hello);
    // A direct connection reaches whatever member it names. What is read there may be rolled back,
    // and a secondary would hide that its primary is the other side.
    if let Topology::ReplicaSet(name) = &topology
        && !hello.get_bool("isWritablePrimary").unwrap_or(false)
    {
        let actual =
            hello.get_str("primary").map(|host| format!(": that is {host}")).unwrap_or_default();
        return Err(Fault::new(
            FaultCode::Unreachable,
            format!("the {side} at {hosts} is not the primary of replica set {name}{actual}"),
        )
        .with_remedy(format!(
            "name the members with replicaSet={name} in the URI, and leave directConnection out"
        )));
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
        .map_err(|error| {
            super::error::classify(side, &hosts, "reading who is logged in", &error)
        })?;
    let users =
        status.get_document("authInfo").and_then(|info| info.get_array("authenticatedUsers"));
    let shard_keys = (topology == Topology::Sharded).then(Default::default);
    Ok(Deployment {
        is_authenticated: users.is_ok_and(|users| !users.is_empty()),
        topology,
        version: version(&build),
        process_id: hello
            .get_document("topologyVersion")
            .ok()
            .and_then(|v| v.get_object_id("processId").ok()),
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
        .map(|array| {
            array
                .iter()
                .map(|n| n.as_i32().and_then(|n| u32::try_from(n).ok()).unwrap_or(0))
                .collect()
        })
        .unwrap_or_default();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    ServerVersion::new(at(0), at(1), at(2))
}

#[cfg(test)]
mod tests;
