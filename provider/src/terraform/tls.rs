//! Mutual TLS between Terraform and the plugin: each knows the other by its very certificate, made
//! for this process alone.

use std::io;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

/// The plugin's side of the connection.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// How connections are taken.
    pub(crate) config: Arc<ServerConfig>,
    /// The plugin's certificate as base64 of its DER without padding, as the handshake's line wants
    /// it.
    pub(crate) certificate: String,
}

impl Identity {
    /// Makes a certificate and key of this process, and takes only the client whose certificate
    /// this PEM is.
    pub(crate) fn for_client(client_pem: &str) -> io::Result<Self> {
        let client =
            CertificateDer::from_pem_slice(client_pem.as_bytes()).map_err(io::Error::other)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
        let parameters =
            CertificateParams::new(vec!["localhost".to_owned()]).map_err(io::Error::other)?;
        let certificate = parameters.self_signed(&key).map_err(io::Error::other)?;
        let base64 = unpadded_base64(&certificate.pem());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = OneClient { certificate: client, provider: Arc::clone(&provider) };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config), certificate: base64 })
    }
}

fn unpadded_base64(pem: &str) -> String {
    let lines = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    lines.collect::<String>().trim_end_matches('=').to_owned()
}

/// Takes one certificate, byte for byte. The usual verifier does not serve: Terraform's certificate
/// is an authority's, which it refuses for a client.
#[derive(Debug)]
struct OneClient {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for OneClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if end_entity.as_ref() == self.certificate.as_ref() {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
