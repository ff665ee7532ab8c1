//! What a comparison found.

use std::fmt;

/// How many differences are kept with their details; the rest is counted.
const KEPT: usize = 50;

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A collection or view is not on the destination.
    MissingCollection,
    /// A collection or view is on the destination alone.
    ExtraCollection,
    /// One side has a collection, the other a view, or a capped collection.
    Shape,
    /// An option of a collection or view.
    Option,
    /// An index is not on the destination.
    MissingIndex,
    /// An index is on the destination alone.
    ExtraIndex,
    /// An index's specification.
    Index,
    /// A document is not on the destination.
    MissingDocument,
    /// A document is on the destination alone.
    ExtraDocument,
    /// A document's bytes.
    Document,
    /// The order of a capped collection's documents.
    Order,
}

/// One difference.
#[derive(Debug, Clone)]
pub struct Difference {
    /// `db.collection`.
    pub namespace: String,
    /// What differs.
    pub kind: Kind,
    /// The document's `_id` with its type, or the index's name.
    pub id: Option<String>,
    /// How it differs.
    pub detail: String,
}

/// What a comparison found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Collections and views that are on both sides.
    pub collections: u64,
    /// Indexes that are equal.
    pub indexes: u64,
    /// Documents read from the source.
    pub source_documents: u64,
    /// Documents read from the destination.
    pub destination_documents: u64,
    /// Documents that are equal, byte for byte.
    pub equal_documents: u64,
    /// Bytes of the equal documents.
    pub equal_bytes: u64,
    /// How many differences there are.
    pub total_differences: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl Report {
    /// Whether both sides are equal.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.total_differences == 0
    }

    /// Whether a difference of a kind is among those kept.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.differences.iter().any(|difference| difference.kind == kind)
    }

    pub(super) fn add(&mut self, namespace: &str, kind: Kind, id: Option<String>, detail: String) {
        self.total_differences += 1;
        if self.differences.len() < KEPT {
            self.differences.push(Difference { namespace: namespace.to_owned(), kind, id, detail });
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingCollection => "collection missing on the destination",
            Self::ExtraCollection => "collection only on the destination",
            Self::Shape => "another type of collection",
            Self::Option => "option differs",
            Self::MissingIndex => "index missing on the destination",
            Self::ExtraIndex => "index only on the destination",
            Self::Index => "index differs",
            Self::MissingDocument => "document missing on the destination",
            Self::ExtraDocument => "document only on the destination",
            Self::Document => "document differs",
            Self::Order => "documents in another order",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.namespace, self.kind)?;
        if let Some(id) = &self.id {
            write!(f, " {id}")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} collections and views, {} indexes, {} documents on the source, {} on the \
             destination",
            self.collections, self.indexes, self.source_documents, self.destination_documents
        )?;
        writeln!(
            f,
            "{} documents equal byte for byte ({:.1} MB)",
            self.equal_documents,
            megabytes(self.equal_bytes)
        )?;
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        match self.total_differences.saturating_sub(self.differences.len() as u64) {
            0 => {}
            more => writeln!(f, "  and {more} more")?,
        }
        match self.total_differences {
            0 => write!(f, "no difference"),
            count => write!(f, "{count} differences"),
        }
    }
}

fn megabytes(bytes: u64) -> f64 {
    // For the eye: a comparison of 2^53 bytes is not to be expected.
    #[expect(clippy::cast_precision_loss, reason = "rounded to one decimal for display")]
    let bytes = bytes as f64;
    bytes / 1e6
}
