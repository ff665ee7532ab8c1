//! A cluster whose shards cannot be reached directly: one stream and reads through its router serve.
//!
//! Shards' names may resolve inside their cluster alone, or a firewall may let nobody through but to the routers. The run then has one
//! source instead of several, the router, under [`NAME`]. What is lost: figures by shard, a restart of one shard alone, scans that can
//! begin behind a record, the oplogs' windows. What is lost is said by preflight, in the plan, for each shard with why it is not reached.
//!
//! **All or nothing, once.** Where one shard is out of reach all are read through the router: one stream has one order. The choice is
//! made when a run connects for the first time, and kept with the run ([`Manner::keep`]) before its start point: a start point by the
//! router is none of a shard. So a shard that is down in the middle of a run that reads directly is an error that is waited out, and a
//! run that began through the router goes on so. A shard that is down for everybody is no reason for it either: the router must be
//! able to ask every shard ([`asks_all`]). A user that a shard does not know is an error as before, since it has a remedy.
//!
//! **Reads.** A router leaves orphans out, and scans one state of a collection: it opens its cursors on the shards under one version of
//! the chunk map, or begins again, and each cursor goes on with what its shard owned then (ranges are deleted behind open cursors). It
//! takes no resume token of a scan (`mongos_does_not_support_resume`, jstests), so that a collection is one part. Chunks may
//! move meanwhile; only `movePrimary` may not, whose clones look like a user's collections (`check_home`).
//!
//! **Time.** A router tells no optime of a shard. What it answers carries the newest time that it knows of, so that nothing that it has
//! answered before is newer. A note through it goes to every shard (MongoDB 6.0; older routers refuse it, and are refused here) and
//! answers with the newest of the shards' times. Its stream tells everything up to the *oldest* time that the shards have told, and an
//! idle shard tells by itself every ten seconds. So whoever waits for a time writes two notes: the second is behind the first one's
//! time on every shard, and the stream passes it ([`super::Source::notes`]).
//!
//! **Definitions** are told in that one stream by each shard that has some of their collection, one after the other: nothing else can
//! happen to the collection in between. A repetition of the last one of the same collection counts once ([`crate::engine::told`]).
//!
//! **The block on writes** is the cluster's own: its config server acknowledges it once every shard keeps it, and keeps a record for as
//! long as it is up (`config.user_writes_critical_sections`), which is read through the router. A write that passes it all the same
//! shows in the stream.

use std::path::Path;

use mongodb::bson::doc;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use serde::{Deserialize, Serialize};

use super::Reached;
use crate::mongo::{Deployment, ServerVersion};

/// What stands for all shards, in place of their names.
pub const NAME: &str = "all shards, through the router";

/// The first version whose routers write notes on all shards.
const NOTES: ServerVersion = ServerVersion::new(6, 0, 0);

/// Where a run keeps how it reads its source.
const FILE: &str = "manner.json";

/// How the data of a sharded source is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// From each shard directly.
    Direct,
    /// Through the router, since these shards were not reached when the run began.
    ThroughRouter {
        /// The shards, each with why.
        unreached: Vec<(ShardName, String)>,
    },
}

/// Whether a fault of a connection says that nobody is reached there, rather than that somebody refuses.
#[must_use]
pub fn is_out_of_reach(fault: &Fault) -> bool {
    matches!(fault.code, FaultCode::HostNotFound | FaultCode::Unreachable)
}

/// Makes sure that the router itself reaches every shard, and can tell the time of all of them.
pub async fn asks_all(router: &Deployment) -> Result<(), Fault> {
    if router.version < NOTES {
        let message = format!(
            "the router at {} is MongoDB {}: reading through it, where shards cannot be reached, needs {NOTES}",
            router.hosts, router.version
        );
        return Err(Fault::new(FaultCode::UnsupportedVersion, message)
            .with_remedy("let the daemon's machine resolve and reach every shard"));
    }
    // Every shard has to answer this.
    let ask = doc! { "listDatabases": 1, "nameOnly": true };
    router.command("admin", ask).await.map(drop).map_err(|e| router.fault("asking every shard through the router", &e))
}

impl Manner {
    /// Chooses by what was reached. A fault that no other way remedies is given back.
    pub async fn choose(router: &Deployment, reached: &Reached) -> Result<Self, Fault> {
        let mut faults = reached.iter().filter_map(|(name, reached)| Some((name, reached.as_ref().err()?)));
        let Some((first, fault)) = faults.clone().next() else { return Ok(Self::Direct) };
        if let Some((_, refused)) = faults.clone().find(|(_, fault)| !is_out_of_reach(fault)) {
            return Err(refused.clone());
        }
        if let Err(why) = asks_all(router).await {
            // Down for everybody, as far as can be told.
            return Err(match why.code {
                FaultCode::UnsupportedVersion => why,
                _ => Fault { message: format!("shard {first}: {}; and {}", fault.message, why.message), ..fault.clone() },
            });
        }
        let unreached = faults.by_ref().map(|(name, fault)| (name.clone(), fault.message.clone())).collect();
        Ok(Self::ThroughRouter { unreached })
    }

    /// Whether it is through the router.
    #[must_use]
    pub const fn is_through_router(&self) -> bool {
        matches!(self, Self::ThroughRouter { .. })
    }

    /// Keeps it for a run.
    pub fn keep(&self, run_dir: &Path) -> Result<(), Fault> {
        let path = run_dir.join(FILE);
        let aside = path.with_extension("tmp");
        std::fs::write(&aside, schemas::wire::to_json(self))
            .and_then(|()| std::fs::rename(&aside, &path))
            .map_err(|error| Fault::new(FaultCode::StateDirUnusable, format!("failed to write {}: {error}", path.display())))
    }

    /// What a run has kept; `None`: it has not connected yet, or its source is no cluster.
    pub fn kept(run_dir: &Path) -> Result<Option<Self>, Fault> {
        let path = run_dir.join(FILE);
        let unusable = |why: String| Fault::new(FaultCode::StateDirUnusable, format!("failed to read {}: {why}", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| unusable(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Manner, is_out_of_reach};
    use schemas::fault::{Fault, FaultCode};
    use schemas::id::ShardName;

    #[test]
    fn a_refusal_is_no_reason_to_go_through_the_router() {
        let is = |code| is_out_of_reach(&Fault::new(code, ""));
        assert!(is(FaultCode::HostNotFound) && is(FaultCode::Unreachable));
        assert!(!is(FaultCode::AuthenticationFailed) && !is(FaultCode::TlsFailed) && !is(FaultCode::MissingPrivileges));
    }

    #[test]
    fn the_choice_is_kept_with_the_run() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Manner::kept(folder.path()), Ok(None));
        let chosen = Manner::ThroughRouter { unreached: vec![(ShardName("a".to_owned()), "refused".to_owned())] };
        chosen.keep(folder.path()).expect("kept");
        assert_eq!(Manner::kept(folder.path()), Ok(Some(chosen)));
        std::fs::write(folder.path().join(super::FILE), "{").expect("written");
        assert_eq!(Manner::kept(folder.path()).expect_err("unreadable").code, FaultCode::StateDirUnusable);
    }
}
