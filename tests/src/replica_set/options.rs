//! What a replica set is started with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use mongodb::bson::{Bson, doc};

use crate::mongod;
use crate::tls::TlsFiles;

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The replica set's name.
    pub name: String,
    /// The version of `mongod`, one of those that [`crate::mongod::version`] has; `None`: the one
    /// that tests run with.
    pub version: Option<String>,
    /// How many members.
    pub members: usize,
    /// One server that is no replica set.
    pub standalone: bool,
    /// Its part in a sharded cluster.
    pub role: Role,
    /// Access control and its users; `None`: everybody may do everything.
    pub auth: Option<Auth>,
    /// TLS for every connection.
    pub tls: Option<TlsMode>,
    /// The certificates for that; `None`: those of an authority of its own.
    pub certificates: Option<TlsFiles>,
    /// The oplog's size.
    pub oplog_mb: u32,
    /// Seconds between the no-ops that an idle primary writes; `None`: the server's default, 10.
    pub noop_interval_seconds: Option<u32>,
    /// Every member is reached, also by the others, through a
    /// [`FaultProxy`](crate::fault_proxy::FaultProxy).
    pub proxied: bool,
    /// How long the members wait for a dead primary.
    pub election_timeout: Duration,
    /// The storage engine's cache of each member.
    pub cache_gb: f32,
    /// More arguments for `mongod`.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// The program that is started.
    ///
    /// # Errors
    /// When there is none, and none can be fetched.
    pub(super) fn program(&self) -> Result<PathBuf> {
        match &self.version {
            Some(version) => mongod::version(version),
            None => mongod::path().map(Path::to_path_buf),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "rs0".to_owned(),
            version: None,
            members: 1,
            standalone: false,
            role: Role::Alone,
            auth: None,
            tls: None,
            certificates: None,
            oplog_mb: 1024,
            noop_interval_seconds: None,
            proxied: false,
            election_timeout: Duration::from_secs(5),
            cache_gb: 0.25,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// What a replica set is in a sharded cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is in none.
    Alone,
    /// It holds the cluster's catalogue.
    ConfigServer,
    /// It holds data.
    Shard,
}

/// Access control: the root user is always there.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// Users besides the root user.
    pub users: Vec<User>,
}

/// A user to create.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name; with `password: None` an X.509 subject, in the database `$external`.
    pub name: String,
    /// Its password; `None`: it is known by its certificate.
    pub password: Option<String>,
    /// Its roles: names of roles in `admin`, or documents `{role, db}`.
    pub roles: Vec<Bson>,
}

impl User {
    /// A user of the database `admin` with roles from there.
    #[must_use]
    pub fn new(name: &str, password: &str, roles: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            password: Some(password.to_owned()),
            roles: roles.iter().map(|&role| role.into()).collect(),
        }
    }

    /// A user known by the subject of its certificate.
    #[must_use]
    pub fn x509(subject: &str, roles: &[&str]) -> Self {
        let role = |&role: &&str| Bson::Document(doc! { "role": role, "db": "admin" });
        Self { name: subject.to_owned(), password: None, roles: roles.iter().map(role).collect() }
    }
}

/// How TLS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Clients may come without a certificate.
    ServerCertificate,
    /// Clients must show a certificate of the same authority.
    ClientCertificate,
}
