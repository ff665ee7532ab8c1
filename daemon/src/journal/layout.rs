//! The journal's tables, their version, and how a record is read back.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use schemas::fault::Fault;
use schemas::history::Entry;
use schemas::id::RunId;
use schemas::phase::Phase;
use schemas::report::{Report, ReportVersion};
use schemas::time::UtcTime;

use super::Key;
use crate::state_fault::{self, Cause};

/// The version of the tables; a newer one is refused.
const VERSION: i64 = 2;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS migrations (
        workspace TEXT NOT NULL, name TEXT NOT NULL, serial INTEGER NOT NULL,
        declared INTEGER NOT NULL, spec TEXT NOT NULL, run TEXT NOT NULL,
        PRIMARY KEY (workspace, name)
    );
    CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, workspace TEXT NOT NULL,
        migration TEXT NOT NULL, run TEXT, kind TEXT NOT NULL, phase_from TEXT, phase_to TEXT,
        actor TEXT, message TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS entries_of_migration ON entries (workspace, migration, seq);
    CREATE TABLE IF NOT EXISTS created (
        run TEXT NOT NULL, namespace TEXT NOT NULL, PRIMARY KEY (run, namespace)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS clock (
        id INTEGER PRIMARY KEY CHECK (id = 1), utc_ms INTEGER NOT NULL,
        since_boot_ms INTEGER NOT NULL, boot TEXT NOT NULL
    );
";

/// What version 2 has over version 1: the reports of completed runs, which outlive their
/// migrations.
const REPORTS: &str = "
    CREATE TABLE IF NOT EXISTS reports (
        run TEXT PRIMARY KEY, workspace TEXT NOT NULL, migration TEXT NOT NULL, at INTEGER NOT NULL,
        report TEXT NOT NULL
    ) WITHOUT ROWID;
";

/// Refuses a journal that reports nothing of a run whose folder is there: it is gone, an older one,
/// or that of another daemon. A run that was forgotten or replaced has left its records.
pub(super) fn refuse_unknown(
    connection: &Connection,
    path: &Path,
    runs: &[String],
) -> Result<(), Fault> {
    let unusable =
        |error: rusqlite::Error| state_fault::of_sqlite("failed to read the journal", &error);
    let has_records: bool = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'entries')",
            [],
            |row| row.get(0),
        )
        .map_err(unusable)?;
    let mut unknown = Vec::new();
    for run in runs {
        let is_known = has_records
            && connection
                .query_row("SELECT EXISTS (SELECT 1 FROM entries WHERE run = ?1)", [run], |row| {
                    row.get::<_, bool>(0)
                })
                .map_err(unusable)?;
        if !is_known {
            unknown.push(run.as_str());
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the journal {} knows nothing of {}, which lies beside it in runs/: it is gone, or an \
         older one, and what that run holds is not known, a blocked source perhaps",
        path.display(),
        unknown.join(", ")
    );
    Err(Cause::Gone.fault(message).with_remedy(
        "put the newest journal.db back, with its journal.db-wal where there is one; where there \
         is none, `cutoverd unblock NAME --directory DIR` gives back what the run blocks; then \
         move its folder out of runs/",
    ))
}

/// Makes the tables where they are missing, and refuses those of a newer program.
pub(super) fn prepare(connection: &Connection) -> Result<(), Fault> {
    let unusable =
        |error: rusqlite::Error| state_fault::of_sqlite("failed to prepare the journal", &error);
    let exists: bool = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'format')",
            [],
            |row| row.get(0),
        )
        .map_err(unusable)?;
    let version: Option<i64> = if exists {
        connection
            .query_row("SELECT version FROM format", [], |row| row.get(0))
            .optional()
            .map_err(unusable)?
    } else {
        None
    };
    match version {
        Some(version) if version > VERSION => Err(Cause::OtherVersion.fault(format!(
            "the journal has format {version}, and this cutoverd reads formats up to {VERSION}"
        ))),
        Some(VERSION) => Ok(()),
        Some(_) => connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {REPORTS} UPDATE format SET version = {VERSION}; COMMIT;"
            ))
            .map_err(unusable),
        None => {
            let make = || {
                connection.execute_batch(&format!(
                    "BEGIN IMMEDIATE; {TABLES} {REPORTS} INSERT INTO format (version) VALUES \
                     ({VERSION}); COMMIT;"
                ))
            };
            make().map_err(unusable)
        }
    }
}

/// Reads a stored report; one of a newer program is refused.
pub(super) fn read_report(json: &str, key: &Key) -> Result<Report, Fault> {
    #[derive(serde::Deserialize)]
    struct Header {
        format_version: ReportVersion,
    }
    let unreadable = |why: &dyn std::fmt::Display| {
        Cause::OtherVersion.fault(format!("the report of {} cannot be read: {why}", key.name))
    };
    let header: Header = serde_json::from_str(json).map_err(|error| unreadable(&error))?;
    if header.format_version > ReportVersion::CURRENT {
        return Err(unreadable(&format!("it has format {}", header.format_version.0)));
    }
    serde_json::from_str(json).map_err(|error| unreadable(&error))
}

/// A record as it is stored.
pub(super) struct EntryRow {
    pub(super) seq: u64,
    pub(super) at: i64,
    pub(super) run: Option<String>,
    pub(super) kind: String,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) actor: Option<String>,
    pub(super) message: String,
}

impl EntryRow {
    pub(super) fn read(self, key: &Key) -> Result<Entry, Fault> {
        let seq = self.seq;
        let unreadable =
            |what: &str| Cause::Damaged.fault(format!("record {seq} of the journal has no {what}"));
        let phase = |text: Option<String>| {
            text.map(|text| text.parse::<Phase>().map_err(|_| unreadable("phase that is known")))
                .transpose()
        };
        let run: Option<RunId> = self
            .run
            .map(|run| {
                serde_json::from_value(serde_json::Value::String(run))
                    .map_err(|_| unreadable("readable run"))
            })
            .transpose()?;
        Ok(Entry {
            seq,
            at: UtcTime::from_millis(self.at),
            workspace: key.workspace.clone(),
            migration: key.name.clone(),
            run,
            kind: serde_json::from_str(&self.kind).map_err(|_| unreadable("kind that is known"))?,
            from: phase(self.from)?,
            to: phase(self.to)?,
            actor: self
                .actor
                .map(|json| serde_json::from_str(&json).map_err(|_| unreadable("readable actor")))
                .transpose()?,
            message: self.message,
        })
    }
}
