//! Users and roles of a database, as things that a run makes on the destination beside its
//! collections.
//!
//! Wherever such things are listed (what a run created, what a plan drops) they are namespaces: a
//! user `app` of `shop` is `shop.system.users.app`, a role `shop.system.roles.app`. No collection
//! can have such a name, since `system.` is the server's.

use std::fmt;

use crate::namespace::{Namespace, Scope};

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalKind {
    /// Somebody who may log in.
    User,
    /// A set of privileges.
    Role,
}

impl PrincipalKind {
    /// The collection of `admin` in which the server keeps them.
    #[must_use]
    pub const fn collection(self) -> &'static str {
        match self {
            Self::User => "system.users",
            Self::Role => "system.roles",
        }
    }

    /// The kind in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
        }
    }
}

/// A user or a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// What it is.
    pub kind: PrincipalKind,
    /// The database that it is defined in.
    pub db: String,
    /// Its name there.
    pub name: String,
}

impl Principal {
    /// The principal that a namespace stands for; `None` for a collection or view.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Option<Self> {
        [PrincipalKind::User, PrincipalKind::Role].into_iter().find_map(|kind| {
            let name = namespace.collection.strip_prefix(kind.collection())?.strip_prefix('.')?;
            Some(Self { kind, db: namespace.db.clone(), name: name.to_owned() })
        })
    }

    /// The namespace that stands for it.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace::new(&self.db, format!("{}.{}", self.kind.collection(), self.name))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.kind.as_str(), self.name, self.db)
    }
}

/// The database of users that other systems authenticate; it holds no data, and is never in scope.
const EXTERNAL: &str = "$external";

impl Scope {
    /// Whether users and roles that are defined in a database are in scope: where anything in it
    /// can be.
    #[must_use]
    pub fn has_principals_of(&self, db: &str) -> bool {
        db != EXTERNAL
            && self.has_database(db)
            && !self.exclude.iter().any(|pattern| pattern.matches_all_of(db))
    }
}

#[cfg(test)]
mod tests {
    use super::{Principal, PrincipalKind};
    use crate::namespace::{Namespace, Scope};

    #[test]
    fn principals_are_namespaces_that_no_collection_has() {
        let user = Principal {
            kind: PrincipalKind::User,
            db: "shop".to_owned(),
            name: "a.b c".to_owned(),
        };
        assert_eq!(user.namespace().to_string(), "shop.system.users.a.b c");
        assert_eq!(Principal::of(&user.namespace()), Some(user.clone()));
        assert_eq!(
            Principal::of(&user.namespace().to_string().parse().expect("a namespace")),
            Some(user)
        );
        for collection in ["users.app", "system.users", "system.usersx.app", "system.js", "orders"]
        {
            assert_eq!(Principal::of(&Namespace::new("shop", collection)), None, "{collection}");
        }
    }

    #[test]
    fn the_servers_own_and_external_principals_are_never_in_scope() {
        let everything = Scope::default();
        assert!(everything.has_principals_of("shop"));
        for db in ["admin", "local", "config", "$external", "cutover_internal"] {
            assert!(!everything.has_principals_of(db), "{db}");
        }
        let parse = |text: &str| vec![text.parse().expect("a pattern")];
        let less = Scope { include: parse("s*.orders"), exclude: parse("sh*.*") };
        assert!(less.has_principals_of("sales"));
        assert!(!less.has_principals_of("shop"));
        assert!(!less.has_principals_of("crm"));
        assert!(
            Scope { include: Vec::new(), exclude: parse("shop.tmp_*") }.has_principals_of("shop")
        );
    }
}
