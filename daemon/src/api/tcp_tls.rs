//! Callers from other machines: TCP, with mutual TLS and never without.

use std::path::Path;
use std::time::Duration;

use provider::pem::{self, Holds};
use schemas::fault::{Fault, FaultCode};
use schemas::wire::v1::cutover_server::CutoverServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::info;

use super::Api;
use crate::config::Config;
use crate::connections::{Bounded, most_callers};

/// How long a caller may take to show who it is. A handshake is two exchanges.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// How often the daemon asks whether a silent connection still has somebody at its end.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(60);

/// A listener for callers from other machines.
pub(crate) struct Remote {
    server: Server,
    listener: Bounded<TcpListener>,
}

impl Remote {
    /// Listens where the configuration says; `None` where it says nothing.
    pub(crate) async fn listen(config: &Config) -> Result<Option<Self>, Fault> {
        let Some(address) = config.listen_tls else { return Ok(None) };
        let own = file(
            "--tls-certificate-key-file",
            config.tls_certificate_key_file.as_deref(),
            Holds::CertificateAndKey,
        )?;
        let authorities =
            file("--tls-client-ca-file", config.tls_client_ca_file.as_deref(), Holds::Authorities)?;
        // One file holds both; each reader takes its own part of it.
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&own, &own))
            .client_ca_root(Certificate::from_pem(authorities))
            .timeout(HANDSHAKE_PATIENCE);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .tls_config(tls)
            .map_err(|error| {
                let cause = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                Fault::new(FaultCode::InvalidConfiguration, format!("failed to set up TLS for \
                 {address}: {cause}")).with_remedy(
                "give --tls-certificate-key-file a PEM file with a certificate and its key, and \
                 --tls-client-ca-file one with authorities",
            )
            })?;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Fault::new(
                FaultCode::StateDirUnusable,
                format!("failed to listen on {address}: {error}"),
            )
            .with_remedy(
                "give --listen-tls an address of this machine and a port that nothing else uses",
            )
        })?;
        info!(address = %address, "listening for callers from other machines");
        Ok(Some(Self { server, listener: Bounded::new(listener, most_callers(), None) }))
    }

    /// Serves until it is told to stop.
    pub(crate) async fn serve(
        mut self,
        service: CutoverServer<Api>,
        until: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        self.server
            .add_service(service)
            .serve_with_incoming_shutdown(self.listener.incoming(), until.cancelled_owned())
            .await
    }
}

fn file(flag: &str, path: Option<&Path>, holds: Holds) -> Result<Vec<u8>, Fault> {
    let path = path.ok_or_else(|| {
        Fault::new(
            FaultCode::InvalidConfiguration,
            format!("{flag} is missing beside --listen-tls"),
        )
        .with_remedy(format!("give {flag} a PEM file"))
    })?;
    pem::read(path, holds, provider::clock::now()).map_err(|problem| {
        Fault::new(
            FaultCode::InvalidConfiguration,
            format!("{flag} {} {}", path.display(), problem.what),
        )
        .with_remedy(problem.remedy)
    })
}
