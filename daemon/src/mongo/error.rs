//! What a driver's error means to an operator: its code, whether trying again helps. Decided by
//! kinds and server codes, never by text.

use super::server_code;
use mongodb::error::{Error, ErrorKind};
use schemas::fault::{Fault, FaultCode};

use super::Side;

/// Server codes after which the same command may pass: elections, shutdowns, network errors inside
/// the cluster, lock and cache pressure, a full disk. From the server's `error_codes.yml`
/// (categories RetriableError, NotPrimaryError, ShutdownError, NetworkError).
const TRANSIENT_CODES: [i32; 25] = [
    server_code::HOST_UNREACHABLE,
    server_code::HOST_NOT_FOUND,
    server_code::LOCK_TIMEOUT,
    server_code::CURSOR_NOT_FOUND,
    server_code::LOCK_BUSY,
    server_code::MAX_TIME_MS_EXPIRED,
    server_code::WRITE_CONCERN_FAILED,
    server_code::NETWORK_TIMEOUT,
    server_code::SHUTDOWN_IN_PROGRESS,
    server_code::LOCK_FAILED,
    server_code::WRITE_CONFLICT,
    server_code::FAILED_TO_SATISFY_READ_PREFERENCE,
    server_code::READ_CONCERN_MAJORITY_NOT_AVAILABLE_YET,
    server_code::CAPPED_POSITION_LOST,
    server_code::QUERY_PLAN_KILLED,
    server_code::PRIMARY_STEPPED_DOWN,
    server_code::NETWORK_INTERFACE_EXCEEDED_TIME_LIMIT,
    server_code::CURSOR_KILLED,
    server_code::EXCEEDED_TIME_LIMIT,
    server_code::CONNECTION_POOL_EXPIRED,
    server_code::SOCKET_EXCEPTION,
    server_code::NOT_WRITABLE_PRIMARY,
    server_code::INTERRUPTED_AT_SHUTDOWN,
    server_code::INTERRUPTED_DUE_TO_REPL_STATE_CHANGE,
    server_code::OUT_OF_DISK_SPACE,
];

/// Like [`TRANSIENT_CODES`]: not primary in its older forms.
const NOT_PRIMARY_CODES: [i32; 3] = [
    server_code::LEGACY_NOT_PRIMARY,
    server_code::NOT_PRIMARY_NO_SECONDARY_OK,
    server_code::NOT_PRIMARY_OR_SECONDARY,
];

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
            Some(server_code::AUTHENTICATION_FAILED) => {
                Fault::new(FaultCode::AuthenticationFailed, message)
            }
            Some(server_code::UNAUTHORIZED) => Fault::new(FaultCode::MissingPrivileges, message),
            Some(
                server_code::CHANGE_STREAM_HISTORY_LOST
                | server_code::CHANGE_STREAM_FATAL_ERROR
                | server_code::CLOSE_CHANGE_STREAM,
            ) => Fault::new(FaultCode::ResumePointLost, message),
            _ => {
                let mut fault = Fault::new(of_side, message);
                fault.retryable = is_transient(error);
                fault
            }
        },
    }
}
