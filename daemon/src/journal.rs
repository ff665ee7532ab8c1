//! The journal: what the daemon holds, and what happened, in SQLite. A state and its records are
//! written in one transaction.

mod layout;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Note, Run};
use rusqlite::{Connection, OptionalExtension as _, params};
use schemas::fault::Fault;
use schemas::history::Entry;
use schemas::id::{MigrationName, RunId, Serial, Workspace};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::report::Report;
use schemas::spec::MigrationSpec;
use schemas::time::UtcTime;

use crate::clock::Mark;
use crate::sqlite;
use crate::state_fault::{self, Cause};

/// Names a migration on a daemon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its workspace.
    pub workspace: Workspace,
    /// Its label.
    pub name: MigrationName,
}

/// A migration as the daemon holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub key: Key,
    /// Rises with each change that was applied.
    pub serial: Serial,
    /// Whether its block is still declared.
    pub declared: bool,
    /// What was last applied.
    pub spec: Arc<MigrationSpec>,
    /// Its run.
    pub run: Run,
}

/// One migration's part of a transaction.
#[derive(Debug)]
pub struct Change {
    /// The migration.
    pub key: Key,
    /// The run that the notes are about.
    pub run: RunId,
    /// What it is now; `None`: it is forgotten.
    pub record: Option<Record>,
    /// What happened.
    pub notes: Vec<Note>,
}

/// An error of SQLite's, with what was being done.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} the journal")]
pub struct JournalError {
    what: &'static str,
    #[source]
    source: rusqlite::Error,
}

impl JournalError {
    /// The error as an operator sees it, with its cause.
    #[must_use]
    pub fn fault(&self) -> Fault {
        state_fault::of_sqlite(self, &self.source)
    }
}

fn failed(what: &'static str) -> impl Fn(rusqlite::Error) -> JournalError {
    move |source| JournalError { what, source }
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    connection: Connection,
    /// While this file is there, a test has the disk be full.
    full_while: Option<PathBuf>,
}

impl Journal {
    /// Opens the journal, and makes it where it is missing. `runs` have a folder beside it: one
    /// that reports none of them is not the journal that they were made with.
    pub fn open_beside(path: &Path, runs: &[String]) -> Result<Self, Fault> {
        Self::open_with(path, |connection| layout::refuse_unknown(connection, path, runs))
    }

    /// Opens the journal, and makes it where it is missing.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, |_| Ok(()))
    }

    fn open_with(
        path: &Path,
        check: impl FnOnce(&Connection) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        // SQLite would create the file for everybody that the umask lets; its side files take after
        // it.
        std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(
            |error| {
                state_fault::of_io(format!("failed to open the journal {}", path.display()), &error)
            },
        )?;
        // A transition must survive a power cut before its effects run.
        let connection =
            sqlite::open(path, "FULL").map_err(|source| failed("open")(source).fault())?;
        check(&connection)?;
        layout::prepare(&connection)?;
        Ok(Self { connection, full_while: None })
    }

    /// Has the disk of the journal be full while a file is there, for tests.
    #[must_use]
    pub fn full_while(self, file: Option<PathBuf>) -> Self {
        Self { full_while: file, ..self }
    }

    /// Whether there is room, as far as a test has a say.
    fn room(&self) -> rusqlite::Result<()> {
        match &self.full_while {
            Some(file) if file.exists() => Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                None,
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Everything that the daemon holds.
    pub fn records(&self) -> Result<Vec<Record>, Fault> {
        let rows = self.rows().map_err(|error| failed("read")(error).fault())?;
        rows.into_iter().map(Row::read).collect()
    }

    fn rows(&self) -> rusqlite::Result<Vec<Row>> {
        let mut statement = self
            .connection
            .prepare("SELECT workspace, name, serial, declared, spec, run FROM migrations")?;
        let rows = statement.query_map([], |row| {
            Ok(Row {
                workspace: row.get(0)?,
                name: row.get(1)?,
                serial: row.get(2)?,
                declared: row.get(3)?,
                spec: row.get(4)?,
                run: row.get(5)?,
            })
        })?;
        rows.collect()
    }

    /// Writes changes and their records, all of them or none, and the clock's mark. Returns the
    /// number of the last record.
    pub fn write(&mut self, changes: &[Change], mark: &Mark) -> Result<Option<u64>, JournalError> {
        self.write_with(changes, &[], mark)
    }

    /// The same, and the reports of the runs that complete with these changes.
    pub fn write_with(
        &mut self,
        changes: &[Change],
        reports: &[Report],
        mark: &Mark,
    ) -> Result<Option<u64>, JournalError> {
        self.write_all(changes, reports, mark).map_err(failed("write"))
    }

    fn write_all(
        &mut self,
        changes: &[Change],
        reports: &[Report],
        mark: &Mark,
    ) -> rusqlite::Result<Option<u64>> {
        self.room()?;
        let transaction = self.connection.transaction()?;
        let mut last = None;
        for change in changes {
            let (workspace, name) = (change.key.workspace.as_str(), change.key.name.as_str());
            match &change.record {
                Some(record) => {
                    transaction
                        .prepare_cached(
                            "INSERT INTO migrations (workspace, name, serial, declared, spec, \
                             run) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                             ON CONFLICT (workspace, name) DO UPDATE SET
                             serial = excluded.serial, declared = excluded.declared, spec = \
                             excluded.spec, run = excluded.run",
                        )?
                        .execute(params![
                            workspace,
                            name,
                            record.serial.0,
                            record.declared,
                            record.spec.canonical_json(),
                            record.run.to_json()
                        ])?;
                }
                None => {
                    transaction.execute(
                        "DELETE FROM migrations WHERE workspace = ?1 AND name = ?2",
                        params![workspace, name],
                    )?;
                    transaction.execute(
                        "DELETE FROM created WHERE run = ?1",
                        params![change.run.as_str()],
                    )?;
                }
            }
            for note in &change.notes {
                let phase = |phase: Option<Phase>| phase.map(Phase::as_str);
                transaction
                    .prepare_cached(
                        "INSERT INTO entries (at, workspace, migration, run, kind, phase_from, \
                         phase_to, actor, message)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    )?
                    .execute(params![
                        mark.utc.as_millis(),
                        workspace,
                        name,
                        change.run.as_str(),
                        schemas::wire::to_json(&note.kind),
                        phase(note.from),
                        phase(note.to),
                        note.actor.as_ref().map(schemas::wire::to_json),
                        note.message,
                    ])?;
                last = u64::try_from(transaction.last_insert_rowid()).ok();
            }
        }
        for report in reports {
            transaction.execute(
                "INSERT OR REPLACE INTO reports (run, workspace, migration, at, report) VALUES \
                 (?1, ?2, ?3, ?4, ?5)",
                params![
                    report.run.as_str(),
                    report.workspace.as_str(),
                    report.name.as_str(),
                    report.completed_at.as_millis(),
                    schemas::wire::to_json(report)
                ],
            )?;
        }
        write_mark(&transaction, mark)?;
        transaction.commit()?;
        Ok(last)
    }

    /// The clock's mark as it was last stored.
    pub fn mark(&self) -> Result<Option<Mark>, JournalError> {
        self.connection
            .query_row("SELECT utc_ms, since_boot_ms, boot FROM clock", [], |row| {
                Ok(Mark {
                    utc: UtcTime::from_millis(row.get(0)?),
                    since_boot: Duration::from_millis(row.get(1)?),
                    boot: row.get(2)?,
                })
            })
            .optional()
            .map_err(failed("read"))
    }

    /// Stores the clock's mark alone.
    pub fn write_mark(&self, mark: &Mark) -> Result<(), JournalError> {
        self.room().and_then(|()| write_mark(&self.connection, mark)).map_err(failed("write"))
    }

    /// Remembers what a run created on its destination.
    pub fn add_created(
        &mut self,
        run: &RunId,
        namespaces: &[Namespace],
    ) -> Result<(), JournalError> {
        self.room().map_err(failed("write"))?;
        let mut add = || {
            let transaction = self.connection.transaction()?;
            for namespace in namespaces {
                transaction
                    .prepare_cached(
                        "INSERT OR IGNORE INTO created (run, namespace) VALUES (?1, ?2)",
                    )?
                    .execute(params![run.as_str(), namespace.to_string()])?;
            }
            transaction.commit()
        };
        add().map_err(failed("write"))
    }

    /// What a run created on its destination, as far as it was remembered here.
    pub fn created(&self, run: &RunId) -> Result<Vec<Namespace>, JournalError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT namespace FROM created WHERE run = ?1 ORDER BY namespace",
            )?;
            let rows = statement.query_map(params![run.as_str()], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        // Only namespaces were put in.
        Ok(read().map_err(failed("read"))?.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// Records of one migration after a number, oldest first, at most `limit`.
    pub fn entries(&self, key: &Key, after: u64, limit: u32) -> Result<Vec<Entry>, Fault> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT seq, at, run, kind, phase_from, phase_to, actor, message FROM entries
                 WHERE workspace = ?1 AND migration = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
            )?;
            let rows = statement.query_map(
                params![key.workspace.as_str(), key.name.as_str(), after, limit],
                |row| {
                    Ok(layout::EntryRow {
                        seq: row.get(0)?,
                        at: row.get(1)?,
                        run: row.get(2)?,
                        kind: row.get(3)?,
                        from: row.get(4)?,
                        to: row.get(5)?,
                        actor: row.get(6)?,
                        message: row.get(7)?,
                    })
                },
            )?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(|error| failed("read")(error).fault())?;
        rows.into_iter().map(|row| row.read(key)).collect()
    }

    /// When a run went to which phase, in order.
    pub fn transitions(&self, run: &RunId) -> Result<Vec<(UtcTime, Phase)>, JournalError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT at, phase_to FROM entries WHERE run = ?1 AND phase_to IS NOT NULL ORDER BY \
                 seq",
            )?;
            let rows = statement.query_map(params![run.as_str()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        // Only phases were put in.
        let rows = read().map_err(failed("read"))?;
        Ok(rows
            .into_iter()
            .filter_map(|(at, phase)| Some((UtcTime::from_millis(at), phase.parse().ok()?)))
            .collect())
    }

    /// The report of a run, or where none is named of the migration's last run that has one.
    pub fn report(&self, key: &Key, run: Option<&RunId>) -> Result<Option<Report>, Fault> {
        let stored: Option<String> = self
            .connection
            .query_row(
                "SELECT report FROM reports WHERE workspace = ?1 AND migration = ?2 AND (?3 IS \
                 NULL OR run = ?3)
                 ORDER BY at DESC LIMIT 1",
                params![key.workspace.as_str(), key.name.as_str(), run.map(RunId::as_str)],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| failed("read")(error).fault())?;
        stored.map(|json| layout::read_report(&json, key)).transpose()
    }

    /// Workspaces in which a migration of this name has left records.
    pub fn workspaces_with(&self, name: &MigrationName) -> Result<Vec<Workspace>, Fault> {
        let read = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT DISTINCT workspace FROM entries WHERE migration = ?1")?;
            let rows =
                statement.query_map(params![name.as_str()], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        };
        let names = read().map_err(|error| failed("read")(error).fault())?;
        Ok(names.into_iter().filter_map(|name| Workspace::new(name).ok()).collect())
    }
}

fn write_mark(connection: &Connection, mark: &Mark) -> rusqlite::Result<()> {
    let since_boot = u64::try_from(mark.since_boot.as_millis()).unwrap_or(u64::MAX);
    connection
        .prepare_cached(
            "INSERT INTO clock (id, utc_ms, since_boot_ms, boot) VALUES (1, ?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET utc_ms = excluded.utc_ms, since_boot_ms = \
             excluded.since_boot_ms, boot = excluded.boot",
        )?
        .execute(params![mark.utc.as_millis(), since_boot, mark.boot])?;
    Ok(())
}

/// A migration as it is stored.
struct Row {
    workspace: String,
    name: String,
    serial: u64,
    declared: bool,
    spec: String,
    run: String,
}

impl Row {
    fn read(self) -> Result<Record, Fault> {
        let name = self.name.clone();
        let unreadable = |what: &str, error: &dyn std::fmt::Display| {
            Cause::Damaged
                .fault(format!("the journal's {what} of migration {name} cannot be read: {error}"))
        };
        let workspace =
            Workspace::new(self.workspace).map_err(|error| unreadable("workspace", &error))?;
        let label = MigrationName::new(self.name).map_err(|error| unreadable("name", &error))?;
        let spec: MigrationSpec =
            serde_json::from_str(&self.spec).map_err(|error| unreadable("declaration", &error))?;
        let run = Run::from_json(&self.run).map_err(|error| unreadable("run", &error))?;
        Ok(Record {
            key: Key { workspace, name: label },
            serial: Serial(self.serial),
            declared: self.declared,
            spec: Arc::new(spec),
            run,
        })
    }
}

#[cfg(test)]
mod tests;
