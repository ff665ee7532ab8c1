//! The attributes of a spec, one by one: what a plan shows, what the daemon compares, and what
//! needs a new generation.
//!
//! Every struct of a spec is taken apart here without `..`: an attribute that is added breaks the
//! build here, and is then shown, compared and judged everywhere.

use serde::Serialize;
use serde_json::Value;

use super::{
    ConnectionSpec, CopySpec, CutoverSpec, DestinationSpec, MigrationSpec, NamespacesSpec,
    SecretRef, ShardingSpec, SourceSpec, TlsSpec, VerifySpec,
};
use crate::namespace::Scope;

/// Whether an attribute of a run that exists may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutability {
    /// A run takes it as it is: how the source is reached, how it logs in, how fast it copies,
    /// whether it is paused, when and how it cuts over.
    Mutable,
    /// The run is built on it: it changes with a new generation.
    NeedsNewGeneration,
    /// It is no setting of the run, and has a way of its own: the generation itself, and the
    /// acknowledgement.
    Apart,
}

/// One attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// Its path in the `migration` block, such as `cutover.window`.
    pub path: String,
    /// Its value as JSON; `null` where it has none. A URI is whole: with what it may hold of
    /// secrets.
    pub value: Value,
    /// Whether it may change.
    pub mutability: Mutability,
    /// Whether it is a connection's URI, which is redacted before it is shown.
    pub is_uri: bool,
}

struct Walk(Vec<Attribute>);

impl Walk {
    fn add(&mut self, path: impl Into<String>, value: &impl Serialize, mutability: Mutability) {
        let value =
            serde_json::to_value(value).expect("an attribute is a scalar or a list of texts");
        self.0.push(Attribute { path: path.into(), value, mutability, is_uri: false });
    }

    fn connection(&mut self, side: &str, connection: &ConnectionSpec, uri: Mutability) {
        let ConnectionSpec { uri: address, username, password, tls } = connection;
        self.0.push(Attribute {
            path: format!("{side}.uri"),
            value: Value::from(address.as_str()),
            mutability: uri,
            is_uri: true,
        });
        self.add(format!("{side}.username"), username, Mutability::Mutable);
        let password = password.as_ref().map(SecretRef::to_string);
        self.add(format!("{side}.password"), &password, Mutability::Mutable);
        if let Some(TlsSpec { ca_file, certificate_key_file }) = tls {
            // The block's presence alone switches TLS on.
            self.add(format!("{side}.tls"), &true, Mutability::Mutable);
            self.add(format!("{side}.tls.ca_file"), ca_file, Mutability::Mutable);
            let path = format!("{side}.tls.certificate_key_file");
            self.add(path, certificate_key_file, Mutability::Mutable);
        }
    }
}

/// Every attribute of a spec but its name, in the order of the block.
///
/// A block that is not there has none. Not how the source is reached needs a new generation: a host
/// that was replaced within a run of days needs no run from scratch, and that it is the same
/// deployment the daemon proves when it connects.
#[must_use]
pub fn attributes(spec: &MigrationSpec) -> Vec<Attribute> {
    use Mutability::{Apart, Mutable, NeedsNewGeneration};
    let MigrationSpec {
        name: _,
        generation,
        paused,
        source: SourceSpec { connection: source },
        destination: DestinationSpec { connection: destination, existing_data, block_writes },
        namespaces: NamespacesSpec { scope: Scope { include, exclude }, include_users },
        copy: CopySpec { parallelism, indexes, rate_limit },
        sharding,
        verify: VerifySpec { mode },
        cutover,
    } = spec;
    let CutoverSpec {
        window,
        extensions,
        max_lag,
        max_downtime,
        source_writes,
        source_after,
        acknowledge,
    } = cutover;
    let mut walk = Walk(Vec::new());
    walk.add("generation", generation, Apart);
    walk.add("paused", paused, Mutable);
    walk.connection("source", source, Mutable);
    walk.connection("destination", destination, NeedsNewGeneration);
    walk.add("destination.existing_data", existing_data, NeedsNewGeneration);
    walk.add("destination.block_writes", block_writes, NeedsNewGeneration);
    walk.add("namespaces.include", include, NeedsNewGeneration);
    walk.add("namespaces.exclude", exclude, NeedsNewGeneration);
    walk.add("namespaces.include_users", include_users, NeedsNewGeneration);
    walk.add("copy.parallelism", parallelism, Mutable);
    walk.add("copy.indexes", indexes, NeedsNewGeneration);
    walk.add("copy.rate_limit", rate_limit, Mutable);
    if let Some(ShardingSpec { balancer, collections }) = sharding {
        walk.add("sharding.balancer", balancer, NeedsNewGeneration);
        for super::ShardKeySpec { namespace, key } in collections {
            let path = format!("sharding.collection.{:?}.key", namespace.to_string());
            walk.add(path, key, NeedsNewGeneration);
        }
    }
    walk.add("verify.mode", mode, NeedsNewGeneration);
    walk.add("cutover.window", window, Mutable);
    walk.add("cutover.extensions", extensions, Mutable);
    walk.add("cutover.max_lag", max_lag, Mutable);
    walk.add("cutover.max_downtime", max_downtime, Mutable);
    walk.add("cutover.source_writes", source_writes, Mutable);
    walk.add("cutover.source_after", source_after, Mutable);
    walk.add("cutover.acknowledge", acknowledge, Apart);
    walk.0
}

/// The attributes that differ between two specs, by path: those of the new one in the order of the
/// block, then those that only the old one has.
#[must_use]
pub fn differing(old: &MigrationSpec, new: &MigrationSpec) -> Vec<Attribute> {
    let (before, after) = (attributes(old), attributes(new));
    let find = |all: &[Attribute], path: &str| all.iter().find(|one| one.path == path).cloned();
    let gone = before.iter().filter(|one| find(&after, &one.path).is_none()).cloned();
    let changed = after.iter().filter(|one| find(&before, &one.path).as_ref() != Some(*one));
    changed.cloned().chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::{Mutability, attributes, differing};
    use crate::spec::{Balancer, MigrationSpec, ShardKeySpec, ShardingSpec, TlsSpec};

    fn spec() -> MigrationSpec {
        MigrationSpec::between("orders".parse().expect("a name"), "mongodb://a", "mongodb://b")
    }

    #[test]
    fn paths_are_there_once() {
        let mut spec = spec();
        spec.source.connection.tls = Some(TlsSpec::default());
        let mut paths: Vec<String> = attributes(&spec).into_iter().map(|one| one.path).collect();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all);
    }

    #[test]
    fn a_block_that_comes_or_goes_differs() {
        let (old, mut new) = (spec(), spec());
        new.source.connection.tls = Some(TlsSpec::default());
        new.cutover.extensions = 2;
        let paths = |old, new| {
            let of: Vec<String> = differing(old, new).into_iter().map(|one| one.path).collect();
            of
        };
        let tls = ["source.tls", "source.tls.ca_file", "source.tls.certificate_key_file"];
        assert_eq!(paths(&old, &new), [&tls[..], &["cutover.extensions"]].concat());
        assert_eq!(paths(&new, &old), [&["cutover.extensions"], &tls[..]].concat());
        assert_eq!(paths(&old, &old), Vec::<String>::new());
    }

    #[test]
    fn what_a_run_is_built_on_needs_a_new_generation() {
        let mut sharded = spec();
        sharded.sharding = Some(ShardingSpec {
            balancer: Balancer::RequireOff,
            collections: vec![ShardKeySpec {
                namespace: "shop.orders".parse().expect("a namespace"),
                key: vec!["a:1".to_owned()],
            }],
        });
        let all = attributes(&sharded);
        let of = |path: &str| all.iter().find(|one| one.path == path).map(|one| one.mutability);
        for path in [
            "destination.uri",
            "namespaces.exclude",
            "sharding.balancer",
            "sharding.collection.\"shop.orders\".key",
            "verify.mode",
        ] {
            assert_eq!(of(path), Some(Mutability::NeedsNewGeneration), "{path}");
        }
        for path in ["source.uri", "copy.rate_limit"] {
            assert_eq!(of(path), Some(Mutability::Mutable), "{path}");
        }
        let apart: Vec<&str> = all
            .iter()
            .filter(|one| one.mutability == Mutability::Apart)
            .map(|one| one.path.as_str())
            .collect();
        assert_eq!(apart, ["generation", "cutover.acknowledge"]);
    }
}
