//! An independent comparer: every user collection and view of two deployments, with options,
//! indexes and documents.
//!
//! It shares no code with the engine, so that a mistake there cannot hide here. Both sides must be
//! quiet while it reads.

mod catalog;
mod documents;
mod report;

use anyhow::{Context as _, Result};
use mongodb::Client;

use catalog::{Collection, Shape};
pub use report::{Difference, Kind, Report};

/// Databases that are the servers' or the daemon's own.
const NOT_COMPARED: [&str; 4] = ["admin", "local", "config", "cutover_internal"];

/// What is compared: patterns `db.collection`, with `*` for any characters within a part.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// What is compared; empty: everything.
    pub include: Vec<String>,
    /// What is left out, over `include`.
    pub exclude: Vec<String>,
}

impl Scope {
    /// Everything but what the patterns name.
    #[must_use]
    pub fn without(patterns: &[&str]) -> Self {
        Self {
            include: Vec::new(),
            exclude: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        }
    }

    /// Only what the patterns name.
    #[must_use]
    pub fn only(patterns: &[&str]) -> Self {
        Self {
            include: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            exclude: Vec::new(),
        }
    }

    fn contains(&self, db: &str, collection: &str) -> bool {
        let named = |patterns: &[String]| {
            patterns.iter().any(|pattern| matches_namespace(pattern, db, collection))
        };
        (self.include.is_empty() || named(&self.include)) && !named(&self.exclude)
    }
}

/// Compares what is in scope on two deployments.
///
/// # Errors
/// When a side cannot be read. Differences are no error.
pub async fn compare(source: &Client, destination: &Client, scope: &Scope) -> Result<Report> {
    let ours =
        catalog::read(source, scope).await.context("failed to list the source's collections")?;
    let theirs = catalog::read(destination, scope)
        .await
        .context("failed to list the destination's collections")?;
    let mut report = Report::default();
    for (namespace, collection) in &ours {
        let Some(other) = theirs.get(namespace) else {
            report.add(namespace, Kind::MissingCollection, None, String::new());
            continue;
        };
        report.collections += 1;
        catalog::compare(namespace, collection, other, &mut report);
        if collection.shape == other.shape && collection.shape != Shape::View {
            compare_documents(source, destination, collection, namespace, &mut report).await?;
        }
    }
    for namespace in theirs.keys().filter(|namespace| !ours.contains_key(*namespace)) {
        report.add(namespace, Kind::ExtraCollection, None, String::new());
    }
    Ok(report)
}

async fn compare_documents(
    source: &Client,
    destination: &Client,
    collection: &Collection,
    namespace: &str,
    report: &mut Report,
) -> Result<()> {
    let open = |client: &Client| documents::Stream::open(client, collection);
    documents::compare(open(source), open(destination), collection.shape, namespace, report)
        .await
        .with_context(|| format!("failed to read {namespace}"))
}

fn matches_namespace(pattern: &str, db: &str, collection: &str) -> bool {
    let (db_pattern, collection_pattern) = pattern.split_once('.').unwrap_or((pattern, "*"));
    matches(db_pattern, db) && matches(collection_pattern, collection)
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len())
                .filter(|&at| tail.is_char_boundary(at))
                .any(|at| matches(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn patterns_choose_namespaces() {
        let scope = Scope {
            include: vec!["shop.*".into(), "crm.a*z".into()],
            exclude: vec!["*.tmp_*".into()],
        };
        assert!(scope.contains("shop", "orders.2024"));
        assert!(scope.contains("crm", "abcz"));
        assert!(!scope.contains("crm", "abc"));
        assert!(!scope.contains("shop", "tmp_1"));
        assert!(!scope.contains("shops", "orders"));
        assert!(Scope::default().contains("any", "thing"));
    }
}
