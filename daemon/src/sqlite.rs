//! How a database in the state directory is opened: whole, or not at all; and on a full disk as
//! well.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};

use crate::state_fault::Cause;

/// How long another connection of this process is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// Opens a database, makes it where it is not there, and sees that it is undamaged.
///
/// # Errors
/// SQLite's; what the check of its integrity finds is `SQLITE_CORRUPT`.
pub fn open(path: &Path, synchronous: &str) -> rusqlite::Result<Connection> {
    try_open(path, synchronous, false).or_else(|error| {
        // On a full disk there is no room for the index of the log that connections share; who is
        // alone has it in memory (<https://sqlite.org/wal.html#noshm>). What is stored is needed
        // there more than ever.
        if Cause::of_sqlite(&error).may_pass() {
            try_open(path, synchronous, true).map_err(|_| error)
        } else {
            Err(error)
        }
    })
}

fn try_open(path: &Path, synchronous: &str, alone: bool) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    if alone {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(connection) } else { Err(corrupt(found)) }
}

fn corrupt(found: String) -> rusqlite::Error {
    let mut error = ffi::Error::new(ffi::SQLITE_CORRUPT);
    error.code = ErrorCode::DatabaseCorrupt;
    rusqlite::Error::SqliteFailure(
        error,
        Some(format!("database disk image is malformed: {found}")),
    )
}

#[cfg(test)]
mod tests {
    use super::open;
    use crate::state_fault::Cause;

    #[test]
    fn a_damaged_database_is_not_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let connection = open(&path, "full").expect("made");
        connection
            .execute_batch("CREATE TABLE t (a TEXT); CREATE INDEX i ON t (a);")
            .expect("made");
        for n in 0..500 {
            connection.execute("INSERT INTO t VALUES (?1)", [format!("{n:0>64}")]).expect("put in");
        }
        drop(connection);
        let whole = std::fs::read(&path).expect("read");
        // A page in the middle that was never written.
        let mut torn = whole.clone();
        torn[whole.len() / 2 / 4096 * 4096..][..4096].fill(0);
        std::fs::write(&path, torn).expect("written");
        assert_eq!(Cause::of_sqlite(&open(&path, "full").expect_err("damaged")), Cause::Damaged);
        std::fs::write(&path, "no database, but long enough to be taken for one by its size alone")
            .expect("written");
        assert_eq!(Cause::of_sqlite(&open(&path, "full").expect_err("none")), Cause::Damaged);
        std::fs::write(&path, whole).expect("written");
        open(&path, "full").expect("whole");
    }
}
