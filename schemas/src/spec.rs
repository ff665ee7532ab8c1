//! What a user declares: one migration, checked and with every default filled in.
//!
//! The HCL loader and the Terraform plugin both end here, and the daemon keeps it. Its canonical
//! JSON (this type through serde) is what is stored and what digests are taken of. Files are
//! absolute paths by now; secrets stay references.

pub mod attribute;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{Generation, MigrationName};
use crate::namespace::{Namespace, Scope};
use crate::time::Length;

/// One declared migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationSpec {
    /// The block's label.
    pub name: MigrationName,
    /// Raised to run again from scratch.
    pub generation: Generation,
    /// Holds the run where it stands.
    pub paused: bool,
    /// Where the data is.
    pub source: SourceSpec,
    /// Where the data goes.
    pub destination: DestinationSpec,
    /// What is carried.
    pub namespaces: NamespacesSpec,
    /// How the initial copy works.
    pub copy: CopySpec,
    /// Settings of sharded sources and destinations; `None` where the block is absent.
    pub sharding: Option<ShardingSpec>,
    /// How the copy is proved.
    pub verify: VerifySpec,
    /// When and how it cuts over.
    pub cutover: CutoverSpec,
}

impl MigrationSpec {
    /// The least that declares a migration: everything, between two deployments, with the defaults
    /// of all else.
    #[must_use]
    pub fn between(
        name: MigrationName,
        source: impl Into<String>,
        destination: impl Into<String>,
    ) -> Self {
        let connection =
            |uri: String| ConnectionSpec { uri, username: None, password: None, tls: None };
        Self {
            name,
            generation: Generation(1),
            paused: false,
            source: SourceSpec { connection: connection(source.into()) },
            destination: DestinationSpec {
                connection: connection(destination.into()),
                existing_data: ExistingData::Refuse,
                block_writes: None,
            },
            namespaces: NamespacesSpec::default(),
            copy: CopySpec::default(),
            sharding: None,
            verify: VerifySpec { mode: VerifyMode::Full },
            cutover: CutoverSpec::default(),
        }
    }
}

/// A deployment to read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// How it is reached.
    #[serde(flatten)]
    pub connection: ConnectionSpec,
}

/// A deployment to write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationSpec {
    /// How it is reached.
    #[serde(flatten)]
    pub connection: ConnectionSpec,
    /// What happens to data that is there already.
    pub existing_data: ExistingData,
    /// Whether others are kept from writing there until cutover; `None`: on where the destination
    /// has access control.
    pub block_writes: Option<bool>,
}

/// How a deployment is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSpec {
    /// The connection string, without a password.
    pub uri: String,
    /// Over the URI's user, when given.
    pub username: Option<String>,
    /// Where the daemon finds the password.
    pub password: Option<SecretRef>,
    /// TLS settings; `None` where the block is absent (the URI's options then decide).
    pub tls: Option<TlsSpec>,
}

/// Where a secret is; never the secret itself. Resolved by the daemon each time it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// A variable of the daemon's environment.
    Env(String),
    /// A file that the daemon can read; a line end at its end is not part of the secret.
    File(PathBuf),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// A `tls` block. Its presence switches TLS on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// PEM file with the authorities to trust; the system's, when absent.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate and its key (MongoDB's `tlsCertificateKeyFile`).
    pub certificate_key_file: Option<PathBuf>,
}

/// What happens to user data that is on the destination already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExistingData {
    /// The migration does not start.
    Refuse,
    /// Namespaces in scope are dropped; the plan lists them.
    Drop,
}

/// What is carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacesSpec {
    /// The collections and views.
    #[serde(flatten)]
    pub scope: Scope,
    /// Whether users and roles defined in the databases in scope are carried too.
    pub include_users: bool,
}

/// How the initial copy works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopySpec {
    /// Readers and writers at work at once, to begin with and at most; `None`: chosen from the
    /// cores, the connections and the memory.
    pub parallelism: Option<u16>,
    /// When indexes are built.
    pub indexes: IndexBuild,
    /// A bound on what is read.
    pub rate_limit: Option<RateLimit>,
}

/// When the destination's indexes are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexBuild {
    /// After a collection's documents: faster.
    AfterCopy,
    /// Before them.
    BeforeCopy,
}

/// A bound on the copy's speed, as in `50MB/s` or `20000docs/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RateLimit {
    /// Bytes of documents a second.
    Bytes(u64),
    /// Documents a second.
    Documents(u64),
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rate; write it like 50MB/s or 20000docs/s")]
pub struct InvalidRate(String);

impl std::str::FromStr for RateLimit {
    type Err = InvalidRate;
    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let invalid = || InvalidRate(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let number: u64 = text[..digits].parse().map_err(|_| invalid())?;
        if number == 0 {
            return Err(invalid());
        }
        let bytes = |scale: u64| number.checked_mul(scale).map(Self::Bytes).ok_or_else(invalid);
        match &text[digits..] {
            "docs/s" => Ok(Self::Documents(number)),
            "B/s" => bytes(1),
            "kB/s" | "KB/s" => bytes(1_000),
            "MB/s" => bytes(1_000_000),
            "GB/s" => bytes(1_000_000_000),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for RateLimit {
    type Error = InvalidRate;
    fn try_from(text: String) -> Result<Self, InvalidRate> {
        text.parse()
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Documents(number) => write!(f, "{number}docs/s"),
            Self::Bytes(bytes) => {
                for (scale, unit) in [(1_000_000_000, "GB/s"), (1_000_000, "MB/s"), (1_000, "kB/s")]
                {
                    if bytes % scale == 0 {
                        return write!(f, "{}{unit}", bytes / scale);
                    }
                }
                write!(f, "{bytes}B/s")
            }
        }
    }
}

impl From<RateLimit> for String {
    fn from(rate: RateLimit) -> String {
        rate.to_string()
    }
}

/// Settings of sharded sources and destinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardingSpec {
    /// What is done about the source's balancer.
    pub balancer: Balancer,
    /// Shard keys on the destination that differ from the source's.
    pub collections: Vec<ShardKeySpec>,
}

impl ShardKeySpec {
    /// The key's fields in their order, each with whether it is hashed.
    pub fn fields(&self) -> impl Iterator<Item = (&str, bool)> {
        self.key.iter().map(|text| match text.rsplit_once(':') {
            Some((field, kind)) => (field, kind == "hashed"),
            None => (text.as_str(), false),
        })
    }

    /// The key in the words of a shell, as in `{customer: 1, _id: hashed}`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let fields = self.fields().map(|(field, is_hashed)| {
            format!("{field}: {}", if is_hashed { "hashed" } else { "1" })
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
    }
}

/// What is done about a sharded cluster's balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balancer {
    /// It must be off already.
    RequireOff,
    /// It is stopped for the run and given back after it.
    Manage,
}

/// The shard key of one collection on the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardKeySpec {
    /// The collection.
    pub namespace: Namespace,
    /// `field:1` or `field:hashed`, in key order.
    pub key: Vec<String>,
}

/// How the copy is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifySpec {
    /// How much is compared.
    pub mode: VerifyMode,
}

/// How much of the copy is compared with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyMode {
    /// Every document, both ways, byte for byte.
    Full,
    /// Nothing.
    Off,
}

/// When and how a migration cuts over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutoverSpec {
    /// How long a cutover may be acknowledged from the first `ready` on.
    pub window: Length,
    /// Each adds 24 h to the window.
    pub extensions: u32,
    /// Readiness needs a lag below this.
    pub max_lag: Length,
    /// Past this the cutover is given up and the source unblocked.
    pub max_downtime: Length,
    /// How the source's writes are stopped.
    pub source_writes: SourceWrites,
    /// What becomes of the source once completed.
    pub source_after: SourceAfter,
    /// The token that a reviewer acknowledges.
    pub acknowledge: Option<String>,
}

/// How the source's writes are stopped at cutover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceWrites {
    /// The server refuses them (`setUserWriteBlockMode`).
    Block,
    /// Their owners stop them; the run watches.
    Observe,
}

/// What becomes of the source once the run is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceAfter {
    /// It stays blocked: a forgotten writer gets an error instead of losing its writes.
    Blocked,
    /// It takes writes again.
    Open,
}

impl Default for CopySpec {
    fn default() -> Self {
        Self { parallelism: None, indexes: IndexBuild::AfterCopy, rate_limit: None }
    }
}

impl Default for CutoverSpec {
    fn default() -> Self {
        Self {
            window: Length::from_hours(120),
            extensions: 0,
            max_lag: Length::from_secs(10),
            max_downtime: Length::from_secs(300),
            source_writes: SourceWrites::Block,
            source_after: SourceAfter::Blocked,
            acknowledge: None,
        }
    }
}

/// The SHA-256 of a spec's canonical JSON, without the acknowledgement: an acknowledgement fits
/// exactly one such spec.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpecDigest(String);

impl SpecDigest {
    /// The digest in lowercase hexadecimal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpecDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lowercase hexadecimal of a SHA-256.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        use fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl MigrationSpec {
    /// The spec's digest. `cutover.acknowledge` is left out, and so is `paused`, which no `ready`
    /// run can have set.
    #[must_use]
    pub fn digest(&self) -> SpecDigest {
        let mut spec = self.clone();
        spec.cutover.acknowledge = None;
        spec.paused = false;
        SpecDigest(sha256_hex(spec.canonical_json().as_bytes()))
    }

    /// The spec as the JSON that is stored and digested: fields in the order of the types, no white
    /// space.
    #[must_use]
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(self).expect("a spec has string keys only and no failing serializer")
    }
}
