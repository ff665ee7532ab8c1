//! What is wrong with the state directory, told apart by cause: each has a remedy of its own, and
//! only some pass by themselves.

use std::fmt::Display;
use std::io;

use rusqlite::ErrorCode;
use rusqlite::ffi;
use schemas::fault::{Fault, FaultCode};

/// Why something in the state directory cannot be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No room: the disk, its inodes or a quota.
    Full,
    /// The disk does not read or write, is mounted read-only, or a file is not let to this user.
    Refused,
    /// Its content makes no sense.
    Damaged,
    /// Another version of the program wrote it.
    OtherVersion,
    /// It was there, and is there no more, or an older copy of it is.
    Gone,
}

impl Cause {
    /// The cause of an error of SQLite's, by its class (<https://sqlite.org/rescode.html>).
    #[must_use]
    pub fn of_sqlite(error: &rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(failure, _) = error else {
            // A column of another type, or text that is none.
            return Self::Damaged;
        };
        match failure.code {
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ReadOnly if failure.extended_code == ffi::SQLITE_READONLY_DBMOVED => {
                Self::Gone
            }
            ErrorCode::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_CORRUPTFS => {
                Self::Damaged
            }
            ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::TypeMismatch
            | ErrorCode::SchemaChanged
            | ErrorCode::ConstraintViolation
            | ErrorCode::TooBig => Self::Damaged,
            // What is read or written failed in the system below, or was not let.
            _ => Self::Refused,
        }
    }

    /// The cause of an error of the system's.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full,
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::Refused,
        }
    }

    /// Whether it may pass, so that trying again helps.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Full | Self::Refused => true,
            Self::Damaged | Self::OtherVersion | Self::Gone => false,
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Full => {
                "free some space, or lift the quota, where the state directory is: it is tried \
                 again by itself; a run that has failed goes on with `cutover resume NAME`"
            }
            Self::Refused => {
                "see that the disk of the state directory works, is mounted for writing, and lets \
                 the user that runs cutoverd in: it is tried again by itself; a run that has \
                 failed goes on with `cutover resume NAME`"
            }
            Self::Damaged => {
                "stop cutoverd, keep the state directory for inquiry, and put an undamaged copy of \
                 the file back; where there is none, `cutoverd unblock NAME --directory DIR` gives \
                 back what a lost run blocks"
            }
            Self::OtherVersion => "start the version of cutoverd that wrote it",
            Self::Gone => {
                "put back what was removed, as it was last; where there is no copy, \
                 `cutoverd unblock NAME --directory DIR` gives back what a lost run blocks"
            }
        }
    }

    /// The fault of this cause.
    #[must_use]
    pub fn fault(self, message: impl Into<String>) -> Fault {
        let mut fault = Fault::new(FaultCode::StateDirUnusable, message).with_remedy(self.remedy());
        fault.retryable = self.may_pass();
        fault
    }
}

/// The fault of an error of SQLite's; `what` says what it happened to.
#[must_use]
pub fn of_sqlite(what: impl Display, error: &rusqlite::Error) -> Fault {
    Cause::of_sqlite(error).fault(format!("{what}: {error}"))
}

/// The fault of an error of the system's; `what` says what it happened to.
#[must_use]
pub fn of_io(what: impl Display, error: &io::Error) -> Fault {
    Cause::of_io(error).fault(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use rusqlite::ffi;

    use super::Cause;

    fn sqlite(code: i32) -> Cause {
        Cause::of_sqlite(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn what_may_pass_is_told_from_what_needs_a_person() {
        assert_eq!(sqlite(ffi::SQLITE_FULL), Cause::Full);
        for code in [
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_BUSY,
        ] {
            assert_eq!(sqlite(code), Cause::Refused, "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_IOERR_CORRUPTFS] {
            assert_eq!(sqlite(code), Cause::Damaged, "{code}");
        }
        assert_eq!(sqlite(ffi::SQLITE_READONLY_DBMOVED), Cause::Gone);
        let system = |code| Cause::of_io(&io::Error::from_raw_os_error(code));
        // ENOSPC, EDQUOT, EROFS, EIO, EACCES, ENOENT.
        let causes = [28, 122, 30, 5, 13, 2].map(system);
        use Cause::{Full, Gone, Refused};
        assert_eq!(causes, [Full, Full, Refused, Refused, Refused, Gone]);
        assert!(
            Full.may_pass() && Refused.may_pass() && !Gone.may_pass() && !Cause::Damaged.may_pass()
        );
        assert!(Full.fault("x").retryable && Full.fault("x").remedy.contains("cutover resume"));
    }
}
