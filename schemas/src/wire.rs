//! The daemon's gRPC API: the generated types, and how faults and documents travel in them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::{Fault, FaultCode};

/// The generated types of `cutover.v1`.
#[expect(missing_docs, reason = "generated; the .proto file has the documentation")]
#[expect(clippy::allow_attributes_without_reason, clippy::allow_attributes, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("cutover.v1");
}

/// The version of the JSON documents inside messages. A daemon and a client of different versions
/// refuse each other.
pub const FORMAT_VERSION: u32 = 1;

/// The largest message either side takes, in bytes: 64 MiB holds the status of tens of thousands of
/// shards and rows.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The environment variable that names the authorities a daemon's certificate comes from.
pub const TLS_CA_VARIABLE: &str = "CUTOVER_TLS_CA_FILE";

/// The environment variable that names the caller's certificate and key.
pub const TLS_CERTIFICATE_KEY_VARIABLE: &str = "CUTOVER_TLS_CERTIFICATE_KEY_FILE";

/// The environment variable that names the daemon's endpoint.
pub const ENDPOINT_VARIABLE: &str = "CUTOVER_ENDPOINT";

/// Where the daemon listens, and clients look, unless told otherwise.
pub const DEFAULT_ENDPOINT: &str = "unix:///run/cutover/cutoverd.sock";

/// Writes a document as JSON.
#[must_use]
pub fn to_json<T: Serialize>(document: &T) -> String {
    serde_json::to_string(document).expect("the documents of this crate have string keys only")
}

/// Reads a document; `what` names it in the error.
pub fn from_json<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Fault> {
    serde_json::from_str(json).map_err(|error| {
        Fault::new(FaultCode::VersionMismatch, format!("{what} cannot be read: {error}"))
    })
}

/// Refuses documents of another version.
pub fn check_format(version: u32) -> Result<(), Fault> {
    if version == FORMAT_VERSION {
        Ok(())
    } else {
        Err(Fault::new(
            FaultCode::VersionMismatch,
            format!("documents of format {version} arrived where {FORMAT_VERSION} is spoken"),
        ))
    }
}

/// Carries a fault in a gRPC status: the code's class for machines, the fault itself as JSON in the
/// details.
#[must_use]
pub fn to_status(fault: &Fault) -> tonic::Status {
    use FaultCode as C;
    let code = match fault.code {
        C::UnknownMigration => tonic::Code::NotFound,
        C::PlanOutdated => tonic::Code::Aborted,
        C::NotPermitted => tonic::Code::PermissionDenied,
        C::Internal => tonic::Code::Internal,
        _ => tonic::Code::FailedPrecondition,
    };
    tonic::Status::with_details(code, fault.to_string(), to_json(fault).into_bytes().into())
}

/// Takes the fault out of a gRPC status; one that carries none was not made by the daemon's own
/// code.
#[must_use]
pub fn from_status(status: &tonic::Status) -> Fault {
    serde_json::from_slice(status.details()).unwrap_or_else(|_| {
        let code = match status.code() {
            tonic::Code::Unavailable => FaultCode::DaemonUnreachable,
            tonic::Code::Unimplemented => FaultCode::VersionMismatch,
            tonic::Code::PermissionDenied => FaultCode::NotPermitted,
            _ => FaultCode::Internal,
        };
        Fault::new(code, status.message().to_owned())
    })
}
