//! The only place that talks to the daemon: its calls in this crate's types, its refusals as
//! faults.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use schemas::directory_watch::Watching;
use schemas::fault::{Fault, FaultCode};
use schemas::hcl::DaemonTls;
use schemas::history::Entry;
use schemas::id::{MigrationName, Workspace};
use schemas::observed::{Finding, ForeignWrite, Inspection, Mismatch, Observed};
use schemas::report::Report;
use schemas::spec::MigrationSpec;
use schemas::status::VerificationProgress;
use schemas::wire::v1::cutover_client::CutoverClient;
use schemas::wire::{self, v1};
use serde::Serialize;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::clock;
use crate::endpoint::Endpoint;
use crate::pem::{self, Holds};

/// A daemon that is there takes a connection at once; this is for one whose machine is starved.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The daemon answers these from memory or its journal.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Live checks connect to both sides, each with timeouts of its own, and measure a sample.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(300);

/// What a verification has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    /// Where it stands.
    pub verification: VerificationProgress,
    /// The open mismatches.
    pub mismatches: Vec<Mismatch>,
    /// What others wrote to the destination, the newest first.
    pub foreign_writes: Vec<ForeignWrite>,
}

/// A connection to a daemon.
#[derive(Debug, Clone)]
pub struct DaemonClient {
    client: CutoverClient<Channel>,
    endpoint: Endpoint,
}

impl DaemonClient {
    /// Connects to a daemon. `tls` is for one on TCP, and left alone for a socket.
    pub async fn connect(endpoint: &Endpoint, tls: Option<&DaemonTls>) -> Result<Self, Fault> {
        let channel = match endpoint {
            Endpoint::Unix(path) => {
                let path = path.clone();
                // The address is never looked up: the connector goes to the socket whatever it
                // says.
                tonic::transport::Endpoint::from_static("http://cutoverd.invalid")
                    .connect_timeout(CONNECT_TIMEOUT)
                    .connect_with_connector(tower::service_fn(move |_| {
                        let path = path.clone();
                        async move { UnixStream::connect(path).await.map(TokioIo::new) }
                    }))
                    .await
            }
            Endpoint::Tcp { host, port } => {
                let tls = tls.ok_or_else(|| no_tls(endpoint))?;
                tonic::transport::Endpoint::from_shared(format!("https://{host}:{port}"))
                    .map_err(|error| unreachable(endpoint, &error))?
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tls_config(client_tls(tls)?)
                    .map_err(|error| unreachable(endpoint, &error))?
                    .connect()
                    .await
            }
        }
        .map_err(|error| unreachable(endpoint, &error))?;
        let client = CutoverClient::new(channel)
            .max_decoding_message_size(wire::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(wire::MAX_MESSAGE_BYTES);
        let client = Self { client, endpoint: endpoint.clone() };
        if matches!(endpoint, Endpoint::Tcp { .. }) {
            client.introduce_itself().await?;
        }
        Ok(client)
    }

    /// Makes a first call. With TLS 1.3 a caller's connection stands before the other side has seen
    /// its certificate: the refusal comes instead of the first answer, as an alert or, where that
    /// is lost, as a closed connection.
    async fn introduce_itself(&self) -> Result<(), Fault> {
        let mut client = self.client.clone();
        let call =
            tokio::time::timeout(ANSWER_TIMEOUT, client.get_daemon(v1::GetDaemonRequest {})).await;
        match call {
            Ok(Err(status)) if is_broken(&status) => {
                Err(refused_certificate(&self.endpoint, &why_broken(&status)))
            }
            Ok(Err(status)) => Err(refused(&self.endpoint, &status)),
            // What hangs is reported by the call that waits for it.
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    /// Where the daemon is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The migrations as they are, of all workspaces or one, all names or one; in the order of
    /// workspace and name.
    pub async fn observe(
        &self,
        workspace: Option<&Workspace>,
        name: Option<&MigrationName>,
    ) -> Result<Vec<Observed>, Fault> {
        let request = v1::ObserveRequest {
            workspace: workspace.map(ToString::to_string).unwrap_or_default(),
            name: name.map(ToString::to_string).unwrap_or_default(),
        };
        let mut client = self.client.clone();
        let response = self.answer(ANSWER_TIMEOUT, client.observe(request)).await?;
        wire::check_format(response.format_version)?;
        let mut observed = response
            .observed
            .iter()
            .map(|json| wire::from_json::<Observed>("the daemon's answer", json))
            .collect::<Result<Vec<_>, _>>()?;
        observed.sort_by(|a, b| {
            (&a.status.workspace, &a.status.name).cmp(&(&b.status.workspace, &b.status.name))
        });
        Ok(observed)
    }

    /// The daemon's state directory, absolute.
    pub async fn state_dir(&self) -> Result<PathBuf, Fault> {
        let mut client = self.client.clone();
        let response =
            self.answer(ANSWER_TIMEOUT, client.get_daemon(v1::GetDaemonRequest {})).await?;
        wire::check_format(response.format_version)?;
        Ok(response.state_dir.into())
    }

    /// What a look at both sides finds around the migrations under way, by name.
    pub async fn look(
        &self,
        workspace: &Workspace,
    ) -> Result<BTreeMap<MigrationName, Vec<Finding>>, Fault> {
        let mut client = self.client.clone();
        let request = v1::LookRequest { workspace: workspace.to_string() };
        let response = self.answer(ANSWER_TIMEOUT, client.look(request)).await?;
        let found = response.found.into_iter().map(|one| {
            let findings = one
                .findings
                .iter()
                .map(|json| wire::from_json::<Finding>("the daemon's answer", json));
            let name = MigrationName::new(one.name).map_err(|error| {
                Fault::new(
                    FaultCode::VersionMismatch,
                    format!("the daemon's answer cannot be read: {error}"),
                )
            })?;
            Ok((name, findings.collect::<Result<_, _>>()?))
        });
        found.collect()
    }

    /// The directory that the daemon watches and what it has made of it; `None` where it watches
    /// none.
    pub async fn watching(&self) -> Result<Option<Watching>, Fault> {
        let mut client = self.client.clone();
        let response =
            self.answer(ANSWER_TIMEOUT, client.get_daemon(v1::GetDaemonRequest {})).await?;
        wire::check_format(response.format_version)?;
        if response.watching.is_empty() {
            Ok(None)
        } else {
            wire::from_json("the daemon's answer", &response.watching).map(Some)
        }
    }

    /// Has passwords kept, for declarations that are to refer to them.
    pub async fn keep_secrets(
        &self,
        workspace: &Workspace,
        name: &MigrationName,
        secrets: Vec<v1::Secret>,
    ) -> Result<(), Fault> {
        let request = v1::KeepSecretsRequest {
            workspace: workspace.to_string(),
            name: name.to_string(),
            secrets,
        };
        let mut client = self.client.clone();
        self.answer(ANSWER_TIMEOUT, client.keep_secrets(request)).await.map(drop)
    }

    /// Runs the live checks of a declaration.
    pub async fn inspect(
        &self,
        workspace: &Workspace,
        spec: &MigrationSpec,
    ) -> Result<Inspection, Fault> {
        self.inspect_with(workspace, spec, Vec::new()).await
    }

    /// Runs the live checks of a declaration with passwords that the daemon does not have.
    pub async fn inspect_with(
        &self,
        workspace: &Workspace,
        spec: &MigrationSpec,
        secrets: Vec<v1::Secret>,
    ) -> Result<Inspection, Fault> {
        let request = v1::InspectRequest {
            format_version: wire::FORMAT_VERSION,
            workspace: workspace.to_string(),
            spec: wire::to_json(spec),
            secrets,
        };
        let mut client = self.client.clone();
        let response = self.answer(INSPECT_TIMEOUT, client.inspect(request)).await?;
        wire::from_json("the daemon's inspection", &response.inspection)
    }

    /// Hands declared changes over: all are taken, or none.
    pub async fn apply(
        &self,
        workspace: &Workspace,
        changes: Vec<v1::Change>,
        actor: v1::Actor,
    ) -> Result<Vec<v1::Applied>, Fault> {
        let request = v1::ApplyRequest {
            format_version: wire::FORMAT_VERSION,
            workspace: workspace.to_string(),
            changes,
            actor: Some(actor),
        };
        let mut client = self.client.clone();
        Ok(self.answer(ANSWER_TIMEOUT, client.apply(request)).await?.applied)
    }

    /// Acts by hand on one migration; gives what was done, in words.
    pub async fn act(
        &self,
        workspace: Option<&Workspace>,
        name: &MigrationName,
        act: v1::act_request::Act,
        actor: v1::Actor,
    ) -> Result<String, Fault> {
        let request = v1::ActRequest {
            workspace: workspace.map(ToString::to_string).unwrap_or_default(),
            name: name.to_string(),
            actor: Some(actor),
            act: Some(act),
        };
        let mut client = self.client.clone();
        Ok(self.answer(ANSWER_TIMEOUT, client.act(request)).await?.message)
    }

    /// What a migration's verification has found.
    pub async fn mismatches(
        &self,
        workspace: Option<&Workspace>,
        name: &MigrationName,
    ) -> Result<Findings, Fault> {
        let request = v1::MismatchesRequest {
            workspace: workspace.map(ToString::to_string).unwrap_or_default(),
            name: name.to_string(),
        };
        let mut client = self.client.clone();
        let answer = self.answer(ANSWER_TIMEOUT, client.mismatches(request)).await?;
        let foreign =
            answer.foreign_writes.iter().map(|json| wire::from_json("a foreign write", json));
        Ok(Findings {
            verification: wire::from_json("the verification's progress", &answer.progress)?,
            mismatches: answer
                .mismatches
                .iter()
                .map(|json| wire::from_json("a mismatch", json))
                .collect::<Result<_, _>>()?,
            foreign_writes: foreign.collect::<Result<_, _>>()?,
        })
    }

    /// What a completed migration was, what proved it, and how long it took.
    pub async fn report(
        &self,
        workspace: Option<&Workspace>,
        name: &MigrationName,
    ) -> Result<Report, Fault> {
        let request = v1::ReportRequest {
            workspace: workspace.map(ToString::to_string).unwrap_or_default(),
            name: name.to_string(),
        };
        let mut client = self.client.clone();
        let answer = self.answer(ANSWER_TIMEOUT, client.report(request)).await?;
        wire::from_json("the report", &answer.report)
    }

    /// The journal of one migration; with `follow` it goes on as long as somebody reads.
    pub async fn events(
        &self,
        workspace: Option<&Workspace>,
        name: &MigrationName,
        follow: bool,
    ) -> Result<EventStream, Fault> {
        let request = v1::EventsRequest {
            workspace: workspace.map(ToString::to_string).unwrap_or_default(),
            name: name.to_string(),
            follow,
        };
        let mut client = self.client.clone();
        let stream = self.answer(ANSWER_TIMEOUT, client.events(request)).await?;
        Ok(EventStream { stream, endpoint: self.endpoint.clone() })
    }

    async fn answer<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(refused(&self.endpoint, &status)),
            Err(_) => Err(Fault::new(
                FaultCode::DaemonUnreachable,
                format!(
                    "the daemon at {} has not answered for {} s",
                    self.endpoint,
                    limit.as_secs()
                ),
            )
            .with_remedy(
                "look at cutoverd's log; restart it if it hangs: runs go on where they were",
            )),
        }
    }
}

/// The records of a journal, one after the other.
#[derive(Debug)]
pub struct EventStream {
    stream: tonic::Streaming<v1::EventsResponse>,
    endpoint: Endpoint,
}

impl EventStream {
    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Entry>, Fault> {
        match self.stream.message().await {
            Ok(None) => Ok(None),
            Ok(Some(response)) => wire::from_json("the daemon's record", &response.entry).map(Some),
            Err(status) => Err(refused(&self.endpoint, &status)),
        }
    }
}

fn no_tls(endpoint: &Endpoint) -> Fault {
    Fault::new(
        FaultCode::InvalidConfiguration,
        format!("nothing says how to prove who calls the daemon at {endpoint}"),
    )
    .with_remedy(format!(
        "give the daemon block a block tls with ca_file and certificate_key_file, or set {} and {}",
        wire::TLS_CA_VARIABLE,
        wire::TLS_CERTIFICATE_KEY_VARIABLE
    ))
}

fn client_tls(tls: &DaemonTls) -> Result<ClientTlsConfig, Fault> {
    let read = |what: &str, path: &Path, holds: Holds| {
        pem::read(path, holds, clock::now()).map_err(|problem| {
            Fault::new(
                FaultCode::InvalidConfiguration,
                format!("{what} {} {}", path.display(), problem.what),
            )
            .with_remedy(problem.remedy)
        })
    };
    let authorities = read("ca_file", &tls.ca_file, Holds::Authorities)?;
    let own = read("certificate_key_file", &tls.certificate_key_file, Holds::CertificateAndKey)?;
    // One file holds both; each reader takes its own part of it.
    Ok(ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authorities))
        .identity(Identity::from_pem(&own, &own)))
}

/// What TLS itself says is wrong, somewhere in a chain of causes.
fn tls_trouble<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error does not count what it wraps among its sources.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(trouble) =
            error.downcast_ref().or_else(|| wrapped.and_then(|wrapped| wrapped.downcast_ref()))
        {
            return Some(trouble);
        }
        next = error.source();
    }
    None
}

/// The fault of a connection on which one side did not believe the other.
fn distrust(endpoint: &Endpoint, trouble: &rustls::Error) -> Fault {
    let (what, remedy) = match trouble {
        rustls::Error::AlertReceived(_) => {
            return refused_certificate(endpoint, &trouble.to_string());
        }
        rustls::Error::InvalidCertificate(_) => (
            "shows a certificate that is not believed",
            "name the authority of the daemon's certificate in ca_file, and the daemon as its \
             certificate does",
        ),
        _ => (
            "does not speak TLS as expected",
            "name the port that cutoverd was given with --listen-tls",
        ),
    };
    Fault::new(FaultCode::DaemonUnreachable, format!("the daemon at {endpoint} {what}: {trouble}"))
        .with_remedy(remedy)
}

fn refused_certificate(endpoint: &Endpoint, why: &str) -> Fault {
    Fault::new(
        FaultCode::DaemonUnreachable,
        format!("the daemon at {endpoint} refuses this caller's certificate: {why}"),
    )
    .with_remedy(
        "use a certificate of an authority that cutoverd was given with --tls-client-ca-file, and \
         that is still valid",
    )
}

fn unreachable(endpoint: &Endpoint, error: &tonic::transport::Error) -> Fault {
    if let Some(trouble) = tls_trouble(error) {
        return distrust(endpoint, trouble);
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let (why, remedy) = match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => ("no such file".to_owned(), None),
        Some(io::ErrorKind::ConnectionRefused) => {
            ("connection refused: no daemon listens there".to_owned(), None)
        }
        Some(io::ErrorKind::PermissionDenied) => (
            "permission denied".to_owned(),
            Some("run the command as the user that runs cutoverd, whose socket it is"),
        ),
        _ => (cause.to_string(), None),
    };
    let fault = Fault::new(
        FaultCode::DaemonUnreachable,
        format!("cannot reach the daemon at {endpoint}: {why}"),
    );
    match remedy {
        Some(remedy) => fault.with_remedy(remedy),
        None => fault,
    }
}

/// A status of the daemon's own carries a fault; any other is the transport's.
fn refused(endpoint: &Endpoint, status: &tonic::Status) -> Fault {
    if is_broken(status) {
        let why = why_broken(status);
        return Fault::new(
            FaultCode::DaemonUnreachable,
            format!("the connection to the daemon at {endpoint} broke: {why}"),
        );
    }
    wire::from_status(status)
}

/// Whether a status is the transport's own.
fn is_broken(status: &tonic::Status) -> bool {
    status.details().is_empty()
        && (status.code() == tonic::Code::Unavailable || status.source().is_some())
}

/// The deepest cause that the transport names.
fn why_broken(status: &tonic::Status) -> String {
    let mut cause = status.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| status.message().to_owned(), ToString::to_string)
}
