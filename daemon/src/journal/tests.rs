//! What is stored comes back, and only what may be read.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Note, Now, begin};
use schemas::fault::FaultCode;
use schemas::history::{Actor, EntryKind};
use schemas::id::{MigrationName, RunId, Serial, Workspace};
use schemas::namespace::Namespace;
use schemas::phase::Phase;
use schemas::report::{Acknowledged, Migrated, Proof, Report, ReportVersion};
use schemas::spec::{MigrationSpec, VerifyMode};
use schemas::time::UtcTime;

use super::{Change, Journal, Key, Record};
use crate::clock::Mark;

const SPEC: &str = r#"{"name":"orders","generation":1,"paused":false,
    "source":{"uri":"mongodb://a:1","username":null,"password":null,"tls":null},
    "destination":{"uri":"mongodb://b:1","username":null,"password":null,"tls":null,
    "existing_data":"refuse","block_writes":null},
    "namespaces":{"include":[],"exclude":[],"include_users":false},
    "copy":{"parallelism":null,"indexes":"after_copy","rate_limit":null}, "sharding":null,
    "verify":{"mode":"full"},
    "cutover":{"window":"120h","extensions":0,"max_lag":"10s","max_downtime":"5m",
    "source_writes":"block",
    "source_after":"blocked","acknowledge":null}}"#;

fn record() -> Record {
    let spec: MigrationSpec = serde_json::from_str(SPEC).expect("a spec");
    let name = MigrationName::new("orders").expect("a name");
    let run = begin(
        RunId::new(&name, spec.generation, 7),
        &spec,
        Now { utc: UtcTime::from_millis(1_000) },
    );
    let key = Key { workspace: Workspace::default(), name };
    Record { key, serial: Serial(3), declared: true, spec: Arc::new(spec), run }
}

fn mark() -> Mark {
    Mark {
        utc: UtcTime::from_millis(1_700_000_000_123),
        since_boot: Duration::from_millis(4_567),
        boot: "a".to_owned(),
    }
}

fn note(message: &str) -> Note {
    let actor =
        Actor { uid: Some(7), certificate: None, name: Some("ada".to_owned()), revision: None };
    Note {
        kind: EntryKind::Transition,
        from: Some(Phase::Ready),
        to: Some(Phase::Draining),
        actor: Some(actor),
        message: message.to_owned(),
    }
}

fn change(record: &Record, keep: bool, notes: Vec<Note>) -> Change {
    Change {
        key: record.key.clone(),
        run: record.run.id.clone(),
        record: keep.then(|| record.clone()),
        notes,
    }
}

fn report(run: &RunId, at: i64) -> Report {
    Report {
        format_version: ReportVersion::CURRENT,
        name: MigrationName::new("orders").expect("a name"),
        workspace: Workspace::default(),
        generation: schemas::id::Generation(1),
        run: run.clone(),
        declared_at: UtcTime::from_millis(0),
        completed_at: UtcTime::from_millis(at),
        phases: Vec::new(),
        acknowledged: Acknowledged { by: Actor::default(), at: UtcTime::from_millis(at) },
        downtime_seconds: 1.5,
        migrated: Migrated::default(),
        verification: Proof::none(VerifyMode::Full),
    }
}

#[test]
fn reports_outlive_their_migrations_and_older_journals_take_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let record = record();
    {
        let journal = Journal::open(&path).expect("it opens");
        // As version 1 left it.
        journal
            .connection
            .execute_batch("DROP TABLE reports; UPDATE format SET version = 1")
            .expect("written");
    }
    let name = &record.key.name;
    let runs = [7, 8].map(|n| RunId::new(name, schemas::id::Generation(1), n));
    {
        let mut journal = Journal::open(&path).expect("it opens");
        assert_eq!(journal.report(&record.key, None).expect("readable"), None);
        journal
            .write_with(&[change(&record, true, vec![])], &[report(&runs[1], 20)], &mark())
            .expect("written");
        journal
            .write_with(&[change(&record, false, vec![])], &[report(&runs[0], 10)], &mark())
            .expect("written");
    }
    let journal = Journal::open(&path).expect("it opens");
    assert_eq!(journal.report(&record.key, None).expect("readable"), Some(report(&runs[1], 20)));
    assert_eq!(
        journal.report(&record.key, Some(&runs[0])).expect("readable"),
        Some(report(&runs[0], 10))
    );
    journal
        .connection
        .execute(
            "UPDATE reports SET report = replace(report, '\"format_version\":1', \
             '\"format_version\":9')",
            [],
        )
        .expect("written");
    let fault = journal.report(&record.key, None).expect_err("it is newer");
    assert_eq!(fault.code, FaultCode::StateDirUnusable);
}

#[test]
fn what_is_written_is_read_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let record = record();
    {
        let mut journal = Journal::open(&path).expect("it opens");
        assert_eq!(journal.mark().expect("readable"), None);
        let last = journal
            .write(&[change(&record, true, vec![note("one"), note("two")])], &mark())
            .expect("written");
        assert_eq!(last, Some(2));
        let created = [Namespace::new("shop", "b.c"), Namespace::new("shop", "a")];
        journal.add_created(&record.run.id, &created).expect("written");
        journal.add_created(&record.run.id, &created).expect("written again");
    }
    let mut journal = Journal::open(&path).expect("it opens");
    assert_eq!(journal.records().expect("readable"), std::slice::from_ref(&record));
    assert_eq!(journal.mark().expect("readable"), Some(mark()));
    assert_eq!(
        journal.created(&record.run.id).expect("readable"),
        [Namespace::new("shop", "a"), Namespace::new("shop", "b.c")]
    );
    let entries = journal.entries(&record.key, 1, 10).expect("readable");
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].message.as_str(), entries[0].at, entries[0].seq),
        ("two", mark().utc, 2)
    );
    assert_eq!(entries[0].run, Some(record.run.id.clone()));
    assert_eq!((entries[0].actor.clone(), entries[0].to), (note("").actor, Some(Phase::Draining)));

    journal.write(&[change(&record, false, vec![note("gone")])], &mark()).expect("written");
    assert!(journal.records().expect("readable").is_empty());
    assert!(journal.created(&record.run.id).expect("readable").is_empty());
    assert_eq!(journal.entries(&record.key, 0, 10).expect("readable").len(), 3, "records stay");
    assert_eq!(
        journal.workspaces_with(&record.key.name).expect("readable"),
        [Workspace::default()]
    );
}

#[test]
fn newer_formats_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.db");
    let record = record();
    let mut journal = Journal::open(&path).expect("it opens");
    journal.write(&[change(&record, true, Vec::new())], &mark()).expect("written");
    let newer_run = record.run.to_json().replacen("\"format\":1", "\"format\":2", 1);
    journal.connection.execute("UPDATE migrations SET run = ?1", [newer_run]).expect("written");
    let refused = journal.records().expect_err("a newer run");
    assert_eq!(refused.code, FaultCode::StateDirUnusable);
    assert!(refused.message.contains("format 2"), "{refused}");
    journal.connection.execute("UPDATE format SET version = 9", []).expect("written");
    drop(journal);
    let refused = Journal::open(&path).expect_err("newer tables");
    assert!(refused.message.contains("format 9"), "{refused}");
}
