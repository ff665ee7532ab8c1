//! A certificate authority of one test, with a certificate for its servers and one for its clients.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use mongodb::options::{Tls, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The files of one authority, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca_file: PathBuf,
    /// The servers' certificate and key, for `localhost` and `127.0.0.1`.
    pub server_file: PathBuf,
    /// The clients' certificate and key.
    pub client_file: PathBuf,
    /// The clients' subject as MongoDB names an X.509 user.
    pub client_subject: String,
    /// Another authority's certificate, which signed none of them.
    pub foreign_ca_file: PathBuf,
}

impl TlsFiles {
    /// Makes an authority and its certificates and writes them to a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(folder: &Path) -> Result<Self> {
        let authority = authority("cutover rig")?;
        let foreign = authority_pem("somebody else")?;
        let files = Self {
            ca_file: folder.join("ca.pem"),
            server_file: folder.join("server.pem"),
            client_file: folder.join("client.pem"),
            client_subject: "CN=migrator,OU=clients,O=cutover".to_owned(),
            foreign_ca_file: folder.join("foreign-ca.pem"),
        };
        // Members of the cluster and clients must differ in their subject's O, OU or DC, or the server takes one for the other.
        let server = leaf("server", "servers", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth, &authority)?;
        let client = leaf("migrator", "clients", &[], ExtendedKeyUsagePurpose::ClientAuth, &authority)?;
        for (path, text) in [
            (&files.ca_file, authority.as_ref().pem()),
            (&files.server_file, server),
            (&files.client_file, client),
            (&files.foreign_ca_file, foreign),
        ] {
            fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(files)
    }

    /// The driver's settings with this authority and the client's certificate.
    #[must_use]
    pub fn driver_settings(&self) -> Tls {
        Tls::Enabled(
            TlsOptions::builder().ca_file_path(self.ca_file.clone()).cert_key_file_path(self.client_file.clone()).build(),
        )
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?)
}

fn authority_pem(name: &str) -> Result<String> {
    Ok(authority(name)?.as_ref().pem())
}

fn leaf(
    name: &str,
    unit: &str,
    addresses: &[&str],
    usage: ExtendedKeyUsagePurpose,
    authority: &CertifiedIssuer<'_, KeyPair>,
) -> Result<String> {
    let mut parameters = CertificateParams::new(addresses.iter().map(|&address| address.to_owned()).collect::<Vec<_>>())?;
    // The default has a common name in front; the order is part of what MongoDB calls the subject.
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, "cutover");
    parameters.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    parameters.distinguished_name.push(DnType::CommonName, name);
    // A server that is a member of a replica set is its peers' client too.
    parameters.extended_key_usages = vec![usage, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, authority)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}
