//! How a command ends: its exit code, and what keeps it from its result.

use std::io;

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::Diagnostic;

/// The exit codes, as scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or no difference.
    Done = 0,
    /// An error.
    Error = 1,
    /// A difference or drift, where it was asked for.
    Difference = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// What keeps a command from its result.
#[derive(Debug)]
pub enum Failure {
    /// An error, to be told on stderr.
    Fault(Fault),
    /// Mistakes in the HCL, to be told on stderr.
    Diagnostics(Vec<Diagnostic>),
    /// Nobody reads the output any more: `cutover events | head`.
    OutputClosed,
}

impl Failure {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Fault(fault) if fault.code == FaultCode::DaemonUnreachable => {
                ExitCode::Unreachable
            }
            Self::Fault(_) | Self::Diagnostics(_) => ExitCode::Error,
            Self::OutputClosed => ExitCode::Done,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// An error of writing the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Fault(Fault::new(
                FaultCode::OutputFailed,
                format!("failed to write the output: {error}"),
            ))
        }
    }
}
