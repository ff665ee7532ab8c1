//! A connection of the router's, to a client or to a server: plain, or within TLS as `mongos` is
//! told to by the same arguments.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The files of TLS, and how strict it is.
#[derive(Debug, Clone)]
pub struct RouterTls {
    /// The authorities that clients and servers are checked by.
    pub ca_file: PathBuf,
    /// The router's certificate and key: to its clients, and to servers that ask for one.
    pub certificate_key_file: PathBuf,
    /// Clients may come without a certificate.
    pub clients_without_certificates: bool,
    /// Servers may show a certificate of another host.
    pub invalid_hostnames: bool,
}

/// How the router speaks with others.
#[derive(Default)]
pub(super) struct Links {
    tls: Option<(TlsAcceptor, TlsConnector)>,
}

impl Links {
    /// Reads the files.
    pub(super) fn new(tls: Option<&RouterTls>) -> anyhow::Result<Self> {
        Ok(Self { tls: tls.map(configure).transpose()? })
    }

    /// Takes a client's connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Link::Plain(stream),
            Some((acceptor, _)) => Link::Tls(Box::new(acceptor.accept(stream).await?.into())),
        })
    }

    /// Connects to a server, `HOST:PORT`.
    pub(super) async fn connect(&self, host: &str) -> io::Result<Link> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let Some((_, connector)) = &self.tls else { return Ok(Link::Plain(stream)) };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(Link::Tls(Box::new(connector.connect(name, stream).await?.into())))
    }
}

fn configure(tls: &RouterTls) -> anyhow::Result<(TlsAcceptor, TlsConnector)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(&tls.ca_file).context("--tlsCAFile")? {
        roots.add(authority.context("--tlsCAFile")?)?;
    }
    let roots = Arc::new(roots);
    let own = CertificateDer::pem_file_iter(&tls.certificate_key_file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .context("--tlsCertificateKeyFile")?;
    let key = PrivateKeyDer::from_pem_file(&tls.certificate_key_file)
        .context("--tlsCertificateKeyFile")?;
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let clients =
        if tls.clients_without_certificates { clients.allow_unauthenticated() } else { clients };
    let to_clients = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients.build()?)
        .with_single_cert(own.clone(), key.clone_key())?;
    let mut to_servers = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(&roots))
        .with_client_auth_cert(own, key)?;
    if tls.invalid_hostnames {
        let strict = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
        to_servers.dangerous().set_certificate_verifier(Arc::new(OfAnyHost(strict)));
    }
    Ok((Arc::new(to_clients).into(), Arc::new(to_servers).into()))
}

/// Checks everything of a certificate but the host's name.
#[derive(Debug)]
struct OfAnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for OfAnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is checked last, when everything else holds.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// One connection.
pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Link {
    /// Whether the other end has not closed it while nobody used it. What arrives unasked for is an
    /// end, too: TLS says goodbye.
    pub(super) fn is_open(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "plain",
            Self::Tls(_) => "within TLS",
        })
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
