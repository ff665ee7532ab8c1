//! Who calls: the kernel reports the user, or TLS the certificate; the caller the rest.

use rustls::pki_types::CertificateDer;
use schemas::fault::{Fault, FaultCode};
use schemas::history::Actor;
use schemas::wire::to_status;
use schemas::wire::v1;
use sha2::{Digest as _, Sha256};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo};
use tonic::{Request, Status};
use webpki::EndEntityCert;

/// Characters of a name or revision that are kept; what CI systems give is far shorter.
const LONGEST: usize = 200;

/// Who is at the other end of the connection.
pub(super) enum Caller {
    /// A process of this machine, of this user.
    User(u32),
    /// Whoever holds this certificate, of an authority that the daemon was given for its callers.
    Certificate(String),
}

/// The caller. Only the daemon's own user and root may call on this machine; from elsewhere, whom
/// the authorities of callers have certified.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let refuse = |message: String| to_status(&Fault::new(FaultCode::NotPermitted, message));
    let connection = request.extensions();
    if let Some(certificates) =
        connection.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs)
    {
        let own = certificates
            .first()
            .ok_or_else(|| refuse("the caller has shown no certificate".to_owned()))?;
        return Ok(Caller::Certificate(describe(own)));
    }
    let uid = connection
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .map(|cred| cred.uid())
        .ok_or_else(|| refuse("the caller's user is not known".to_owned()))?;
    let own = rustix::process::geteuid().as_raw();
    if uid == own || uid == 0 {
        Ok(Caller::User(uid))
    } else {
        Err(refuse(format!("user {uid} may not use the daemon of user {own}")))
    }
}

/// A certificate's names, as far as it has any that are names of machines, and its SHA-256: what an
/// audit can look up.
fn describe(certificate: &CertificateDer<'_>) -> String {
    let fingerprint: String =
        Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    let names: Vec<String> = EndEntityCert::try_from(certificate)
        .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default();
    if names.is_empty() {
        format!("sha256:{fingerprint}")
    } else {
        format!("{} sha256:{fingerprint}", names.join(","))
    }
}

/// The caller, as the journal names it.
pub(super) fn actor<T>(request: &Request<T>, claimed: Option<&v1::Actor>) -> Result<Actor, Status> {
    let (uid, certificate) = match caller(request)? {
        Caller::User(uid) => (Some(uid), None),
        Caller::Certificate(certificate) => (None, Some(certificate)),
    };
    let text = |text: &str| {
        let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        (!text.is_empty()).then_some(text)
    };
    Ok(Actor {
        uid,
        certificate,
        name: claimed.and_then(|claimed| text(&claimed.name)),
        revision: claimed.and_then(|claimed| text(&claimed.revision)),
    })
}
