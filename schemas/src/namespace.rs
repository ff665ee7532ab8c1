//! Namespaces (`db.collection`) and the patterns that choose among them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A collection or view: its database and its name there. The name may itself contain dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace {
    /// The database.
    pub db: String,
    /// The collection or view within it.
    pub collection: String,
}

/// A text without a `db.collection` shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a namespace; write it as db.collection")]
pub struct InvalidNamespace(String);

impl Namespace {
    /// From its two parts.
    #[must_use]
    pub fn new(db: impl Into<String>, collection: impl Into<String>) -> Self {
        Self { db: db.into(), collection: collection.into() }
    }
}

impl FromStr for Namespace {
    type Err = InvalidNamespace;
    fn from_str(text: &str) -> Result<Self, InvalidNamespace> {
        match text.split_once('.') {
            Some((db, collection)) if !db.is_empty() && !collection.is_empty() => {
                Ok(Self::new(db, collection))
            }
            _ => Err(InvalidNamespace(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Namespace {
    type Error = InvalidNamespace;
    fn try_from(text: String) -> Result<Self, InvalidNamespace> {
        text.parse()
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> String {
        namespace.to_string()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.collection)
    }
}

/// One `include` or `exclude` entry: `db.collection`, with `*` for any run of characters within a
/// part.
///
/// The part before the first dot is the database's; the rest is the collection's, whose own dots
/// are plain characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespacePattern {
    db: String,
    collection: String,
}

/// A text that is no namespace pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a namespace pattern; write db.collection, with * for any characters within a \
     part, as in shop.* or *.audit"
)]
pub struct InvalidPattern(String);

impl NamespacePattern {
    /// Whether the pattern names this namespace.
    #[must_use]
    pub fn matches(&self, namespace: &Namespace) -> bool {
        wildcard(&self.db, &namespace.db) && wildcard(&self.collection, &namespace.collection)
    }

    /// Whether the pattern names everything in a database.
    #[must_use]
    pub fn matches_all_of(&self, db: &str) -> bool {
        wildcard(&self.db, db) && self.collection.bytes().all(|c| c == b'*')
    }
}

impl FromStr for NamespacePattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        match text.split_once('.') {
            Some((db, collection))
                if !db.is_empty()
                    && !collection.is_empty()
                    && !text.contains(char::is_whitespace) =>
            {
                Ok(Self { db: db.to_owned(), collection: collection.to_owned() })
            }
            _ => Err(InvalidPattern(text.to_owned())),
        }
    }
}

impl TryFrom<String> for NamespacePattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<NamespacePattern> for String {
    fn from(pattern: NamespacePattern) -> String {
        pattern.to_string()
    }
}

impl fmt::Display for NamespacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.collection)
    }
}

/// Matches `*` as any run of characters, in time linear in both for each `*`: it backtracks to the
/// last star only.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, star_t + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Databases that are the server's own and never in scope.
pub const SYSTEM_DATABASES: [&str; 3] = ["admin", "local", "config"];

/// The one of the server's own collections in a database that users fill: functions that they have
/// stored.
pub const STORED_FUNCTIONS: &str = "system.js";

/// The database that holds the daemon's own records of a run on the destination; never in scope.
pub const OWN_DATABASE: &str = "cutover_internal";

/// Which namespaces a migration carries: everything user-made that `include` names (all, when
/// empty), less `exclude`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Patterns of what is carried; empty: all user data.
    pub include: Vec<NamespacePattern>,
    /// Patterns of what is left out, over `include`.
    pub exclude: Vec<NamespacePattern>,
}

impl Scope {
    /// Whether a namespace is carried.
    #[must_use]
    pub fn contains(&self, namespace: &Namespace) -> bool {
        self.has_database(&namespace.db)
            && (!namespace.collection.starts_with("system.")
                || namespace.collection == STORED_FUNCTIONS)
            && (self.include.is_empty()
                || self.include.iter().any(|pattern| pattern.matches(namespace)))
            && !self.exclude.iter().any(|pattern| pattern.matches(namespace))
    }

    /// Whether some name is surely in both. Tells only what the patterns alone make certain: equal
    /// ones, or a scope of everything.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        let left_out = |pattern: &NamespacePattern| {
            self.exclude.contains(pattern) || other.exclude.contains(pattern)
        };
        if self.include.is_empty() || other.include.is_empty() {
            // Where one takes everything, the other's patterns must all be left out of it.
            let named = if self.include.is_empty() { &other.include } else { &self.include };
            return named.is_empty() || named.iter().any(|pattern| !left_out(pattern));
        }
        self.include.iter().any(|pattern| other.include.contains(pattern) && !left_out(pattern))
    }

    /// Whether a database can hold namespaces in scope.
    #[must_use]
    pub fn has_database(&self, db: &str) -> bool {
        !SYSTEM_DATABASES.contains(&db)
            && db != OWN_DATABASE
            && (self.include.is_empty()
                || self.include.iter().any(|pattern| wildcard(&pattern.db, db)))
    }

    /// The only databases that can hold namespaces in scope, where the patterns spell them out;
    /// `None` where a list of all databases must tell.
    #[must_use]
    pub fn named_databases(&self) -> Option<BTreeSet<&str>> {
        // What a server might not take as the name of a database is looked for among those that it
        // has.
        let is_spelled_out = |db: &str| {
            db.len() < 64
                && db.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
        };
        if self.include.is_empty()
            || !self.include.iter().all(|pattern| is_spelled_out(&pattern.db))
        {
            return None;
        }
        Some(
            self.include
                .iter()
                .map(|pattern| pattern.db.as_str())
                .filter(|db| self.has_database(db))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Namespace, NamespacePattern, Scope};

    fn scope(include: &[&str], exclude: &[&str]) -> Scope {
        let parse = |list: &[&str]| list.iter().map(|p| p.parse().expect("a pattern")).collect();
        Scope { include: parse(include), exclude: parse(exclude) }
    }

    fn carries(scope: &Scope, namespace: &str) -> bool {
        scope.contains(&namespace.parse().expect("a namespace"))
    }

    #[test]
    fn databases_are_named_where_all_patterns_spell_them_out() {
        let named = |include: &[&str]| {
            let scope = scope(include, &["shop.tmp_*"]);
            scope
                .named_databases()
                .map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(
            named(&["shop.*", "b-2.orders", "shop.orders"]),
            Some(vec!["b-2".to_owned(), "shop".to_owned()])
        );
        assert_eq!(named(&["admin.*", "cutover_internal.*", "config.x"]), Some(Vec::new()));
        assert_eq!(named(&[]), None);
        assert_eq!(named(&["shop.*", "s*.orders"]), None);
        assert_eq!(named(&["sh$p.*"]), None);
        assert_eq!(named(&[&format!("{}.*", "x".repeat(64))]), None);
    }

    #[test]
    fn stars_stay_within_their_part() {
        let all_of_shop = scope(&["shop.*"], &["shop.tmp_*"]);
        assert!(carries(&all_of_shop, "shop.orders"));
        assert!(carries(&all_of_shop, "shop.orders.2024"));
        assert!(!carries(&all_of_shop, "shop.tmp_1"));
        assert!(!carries(&all_of_shop, "shopping.orders"));
        assert!(carries(&scope(&["*.a*b*c"], &[]), "x.aabbcc"));
        assert!(!carries(&scope(&["*.a*b*c"], &[]), "x.aabbccd"));
    }

    #[test]
    fn system_namespaces_are_never_in_scope() {
        let everything = scope(&[], &[]);
        for namespace in [
            "admin.system.users",
            "local.oplog.rs",
            "config.chunks",
            "shop.system.views",
            "cutover_internal.marker",
        ] {
            assert!(!carries(&everything, namespace), "{namespace}");
        }
        assert!(carries(&everything, "shop.systems"));
        assert!(carries(&everything, "shop.system.js"));
        assert!(!carries(&everything, "admin.system.js"));
    }

    #[test]
    fn texts_without_two_parts_are_refused() {
        for text in ["", "shop", ".x", "shop.", "a b.c"] {
            assert!(text.parse::<NamespacePattern>().is_err(), "{text:?}");
        }
        assert!("shop".parse::<Namespace>().is_err());
    }
}
