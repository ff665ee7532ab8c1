//! Counts that a verification keeps over restarts, for its report.

use rusqlite::{Connection, params};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tally {
    /// Rounds of comparing again what the one before had left.
    Generations,
    /// The last place of the queue when the present one began.
    GenerationEnd,
    /// Comparisons of single documents.
    ComparedAgain,
    /// Mismatches that were opened.
    MismatchesFound,
    /// Documents found equal after the source took no more writes.
    AfterBlock,
    /// Milliseconds spent on comparing whole collections.
    ScanMs,
    /// Writes of others to the destination.
    ForeignWrites,
    /// The last place of the queue that one of those has.
    ForeignThrough,
}

impl Tally {
    const ALL: [Self; 8] = [
        Self::Generations,
        Self::GenerationEnd,
        Self::ComparedAgain,
        Self::MismatchesFound,
        Self::AfterBlock,
        Self::ScanMs,
        Self::ForeignWrites,
        Self::ForeignThrough,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Generations => "generations",
            Self::GenerationEnd => "generation_end",
            Self::ComparedAgain => "compared_again",
            Self::MismatchesFound => "mismatches_found",
            Self::AfterBlock => "after_block",
            Self::ScanMs => "scan_ms",
            Self::ForeignWrites => "foreign_writes",
            Self::ForeignThrough => "foreign_through",
        }
    }
}

/// All counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallies([i64; Tally::ALL.len()]);

impl Tallies {
    /// One of them.
    #[must_use]
    pub fn of(&self, tally: Tally) -> i64 {
        Tally::ALL.iter().position(|known| *known == tally).map_or(0, |at| self.0[at])
    }

    /// One that is a count.
    #[must_use]
    pub fn count(&self, tally: Tally) -> u64 {
        u64::try_from(self.of(tally)).unwrap_or(0)
    }
}

pub(super) fn read(connection: &Connection) -> rusqlite::Result<Tallies> {
    let mut tallies = Tallies::default();
    let mut statement = connection.prepare_cached("SELECT name, value FROM tally")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if let Some(at) = Tally::ALL.iter().position(|tally| tally.name() == name) {
            tallies.0[at] = row.get(1)?;
        }
    }
    Ok(tallies)
}

pub(super) fn add(connection: &Connection, tally: Tally, amount: i64) -> rusqlite::Result<()> {
    if amount == 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO tally (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO \
             UPDATE SET value = value + ?2",
        )?
        .execute(params![tally.name(), amount])
        .map(drop)
}

pub(super) fn set(connection: &Connection, tally: Tally, value: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO tally (name, value) VALUES (?1, ?2)")?
        .execute(params![tally.name(), value])
        .map(drop)
}
