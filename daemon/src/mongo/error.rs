//! What a driver's error means to an operator: its code, whether trying again helps. Decided by
//! kinds and server codes, never by text.

use mongodb::error::{Error, ErrorKind};
use schemas::fault::{Fault, FaultCode};

use super::Side;

/// Server codes after which the same command may pass: elections, shutdowns, network errors inside
/// the cluster, lock and cache pressure, a full disk. From the server's `error_codes.yml`
/// (categories RetriableError, NotPrimaryError, ShutdownError, NetworkError).
const TRANSIENT_CODES: [i32; 25] = [
    6, 7, 24, 43, 46, 50, 64, 89, 91, 107, 112, 133, 134, 136, 175, 189, 202, 237, 262, 317, 9001,
    10107, 11600, 11602, 14031,
];

/// Like [`TRANSIENT_CODES`]: not primary in its older forms.
const NOT_PRIMARY_CODES: [i32; 3] = [10058, 13435, 13436];

/// The server's code of a command error.
#[must_use]
pub fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteConcernError(concern)) => {
            Some(concern.code)
        }
        _ => None,
    }
}

/// The name of that code.
#[must_use]
pub fn name(error: &Error) -> Option<&str> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(&command.code_name),
        _ => None,
    }
}

/// Whether a server code is one after which the same command may pass.
#[must_use]
pub fn is_transient_code(code: i32) -> bool {
    TRANSIENT_CODES.contains(&code) || NOT_PRIMARY_CODES.contains(&code)
}

/// Whether the same command may pass when it is tried again.
#[must_use]
pub fn is_transient(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::InvalidResponse { .. } => true,
        _ => {
            code(error).is_some_and(is_transient_code)
                || error.contains_label("RetryableWriteError")
        }
    }
}

/// Whether the server has answered in a text that is no UTF-8, which the driver does not read.
#[must_use]
pub fn is_unreadable(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Bson(_) | ErrorKind::BsonDeserialization(_))
}

/// The error in words, without the driver's own decoration.
#[must_use]
pub fn words(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => format!("{} ({})", command.message, command.code_name),
        ErrorKind::Bson(_) | ErrorKind::BsonDeserialization(_) => {
            format!("the answer holds a name or a text that is no UTF-8 ({})", error.kind)
        }
        kind => kind.to_string(),
    }
}

/// Makes a fault of a driver's error.
#[must_use]
pub fn classify(side: Side, hosts: &str, doing: &str, error: &Error) -> Fault {
    let message = format!("{doing} on the {side} ({hosts}): {}", words(error));
    let of_side = match side {
        Side::Source => FaultCode::SourceReadFailed,
        Side::Destination => FaultCode::DestinationWriteFailed,
    };
    match &*error.kind {
        ErrorKind::Authentication { .. } => Fault::new(FaultCode::AuthenticationFailed, message),
        ErrorKind::DnsResolve { .. } => Fault::new(FaultCode::HostNotFound, message),
        ErrorKind::InvalidTlsConfig { .. } => Fault::new(FaultCode::TlsFailed, message),
        ErrorKind::InvalidArgument { .. } => Fault::new(FaultCode::InvalidConfiguration, message),
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. } => Fault::new(FaultCode::Unreachable, message),
        _ => match code(error) {
            Some(18) => Fault::new(FaultCode::AuthenticationFailed, message),
            Some(13) => Fault::new(FaultCode::MissingPrivileges, message),
            Some(286 | 280 | 222) => Fault::new(FaultCode::ResumePointLost, message),
            _ => {
                let mut fault = Fault::new(of_side, message);
                fault.retryable = is_transient(error);
                fault
            }
        },
    }
}
