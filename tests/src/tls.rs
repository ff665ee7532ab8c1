//! A certificate authority of one test, with a certificate for its servers and one for its clients.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use mongodb::options::{Tls, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::replica_set::TlsMode;

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
    /// Servers, and the rig's own clients, look whether a certificate is of the host that they are
    /// at.
    pub checks_hosts: bool,
}

/// Which certificate a server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// One that everybody takes.
    Proper,
    /// One of the same authority for a host of another name.
    OfAnotherHost,
    /// One of an authority of which clients that know `ca_file` alone know nothing.
    OfAnotherAuthority,
}

/// The files in a folder that [`TlsFiles::showing`] names.
const STRAY_SERVER: &str = "stray-server.pem";
const FOREIGN_SERVER: &str = "foreign-server.pem";
const BOTH_AUTHORITIES: &str = "both-ca.pem";

impl TlsFiles {
    /// Makes an authority and its certificates and writes them to a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(folder: &Path) -> Result<Self> {
        let (authority, foreign) = (authority("cutover rig")?, authority("somebody else")?);
        let files = Self {
            ca_file: folder.join("ca.pem"),
            server_file: folder.join("server.pem"),
            client_file: folder.join("client.pem"),
            client_subject: "CN=migrator,OU=clients,O=cutover".to_owned(),
            foreign_ca_file: folder.join("foreign-ca.pem"),
            checks_hosts: true,
        };
        // Members of the cluster and clients must differ in their subject's O, OU or DC, or the
        // server takes one for the other.
        let server = leaf(
            "server",
            "servers",
            &["localhost", "127.0.0.1"],
            ExtendedKeyUsagePurpose::ServerAuth,
            &authority,
        )?;
        let stray = leaf(
            "server",
            "servers",
            &["elsewhere.invalid"],
            ExtendedKeyUsagePurpose::ServerAuth,
            &authority,
        )?;
        let foreign_server = leaf(
            "server",
            "servers",
            &["localhost", "127.0.0.1"],
            ExtendedKeyUsagePurpose::ServerAuth,
            &foreign,
        )?;
        let client =
            leaf("migrator", "clients", &[], ExtendedKeyUsagePurpose::ClientAuth, &authority)?;
        for (path, text) in [
            (&files.ca_file, authority.as_ref().pem()),
            (&files.server_file, server),
            (&files.client_file, client),
            (&files.foreign_ca_file, foreign.as_ref().pem()),
            (&folder.join(STRAY_SERVER), stray),
            (&folder.join(FOREIGN_SERVER), foreign_server),
            (&folder.join(BOTH_AUTHORITIES), authority.as_ref().pem() + &foreign.as_ref().pem()),
        ] {
            fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(files)
    }

    /// The driver's settings with this authority and the client's certificate.
    #[must_use]
    pub fn driver_settings(&self) -> Tls {
        let mut options = TlsOptions::builder()
            .ca_file_path(self.ca_file.clone())
            .cert_key_file_path(self.client_file.clone())
            .build();
        // The driver knows no other way to pass over a host's name.
        options.allow_invalid_certificates = Some(!self.checks_hosts);
        Tls::Enabled(options)
    }

    /// The files of servers of which some show other certificates: they trust both authorities, and
    /// take a certificate of any host.
    #[must_use]
    pub fn showing(&self, certificate: Certificate) -> Self {
        let mut files = self.clone();
        files.ca_file.set_file_name(BOTH_AUTHORITIES);
        files.checks_hosts = false;
        match certificate {
            Certificate::Proper => {}
            Certificate::OfAnotherHost => files.server_file.set_file_name(STRAY_SERVER),
            Certificate::OfAnotherAuthority => files.server_file.set_file_name(FOREIGN_SERVER),
        }
        files
    }

    /// The arguments of a server, `mongod` or `mongos`, that speaks TLS alone.
    #[must_use]
    pub fn arguments(&self, mode: TlsMode) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--tlsMode".into(), "requireTLS".into()];
        for (name, file) in
            [("--tlsCAFile", &self.ca_file), ("--tlsCertificateKeyFile", &self.server_file)]
        {
            arguments.extend([name.into(), file.into()]);
        }
        if mode == TlsMode::ServerCertificate {
            arguments.push("--tlsAllowConnectionsWithoutCertificates".into());
        }
        if !self.checks_hosts {
            arguments.push("--tlsAllowInvalidHostnames".into());
        }
        arguments
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?)
}

fn leaf(
    name: &str,
    unit: &str,
    addresses: &[&str],
    usage: ExtendedKeyUsagePurpose,
    authority: &CertifiedIssuer<'_, KeyPair>,
) -> Result<String> {
    let mut parameters = CertificateParams::new(
        addresses.iter().map(|&address| address.to_owned()).collect::<Vec<_>>(),
    )?;
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
