//! A cluster whose shards cannot be reached directly: one stream and reads through its router
//! serve.
//!
//! Shards' names may resolve inside their cluster alone, or a firewall may let nobody through but
//! to the routers. The run then has one source instead of several, the router, under [`NAME`]. What
//! is lost: figures by shard, a restart of one shard alone, scans that can begin behind a record,
//! the oplogs' windows. What is lost is said by preflight, in the plan, for each shard with why it
//! is not reached.
//!
//! **All or nothing, once.** Where one shard is out of reach all are read through the router: one
//! stream has one order. The choice is made when a run connects for the first time, and kept with
//! the run ([`Manner::keep`]) before its start point: a start point by the router is none of a
//! shard. So a shard that is down in the middle of a run that reads directly is an error that is
//! waited out, and a run that began through the router goes on so. A shard that is down for
//! everybody is no reason for it either: the router must be able to ask every shard ([`asks_all`]).
//! A user that a shard does not know is an error as before, since it has a remedy.
//!
//! **Reads.** A router leaves orphans out, and scans one state of a collection: it opens its
//! cursors on the shards under one version of the chunk map, or begins again, and each cursor goes
//! on with what its shard owned then (ranges are deleted behind open cursors). It takes no resume
//! token of a scan (its own tests hold it to that), so that a collection is one part. Chunks may
//! move meanwhile; only `movePrimary` may not, whose clones look like a user's collections
//! (`check_home`).
//!
//! **Time.** A router reports no optime of a shard. What it answers carries the newest time that it
//! knows of, so that nothing that it has answered before is newer. A note through it goes to every
//! shard (MongoDB 6.0; older routers refuse it, and are refused here) and answers with the newest
//! of the shards' times. Its stream reports everything up to the *oldest* time that the shards have
//! told, and an idle shard tells by itself every ten seconds. So whoever waits for a time writes
//! two notes: the second is behind the first one's time on every shard, and the stream passes it
//! ([`super::Source::notes`]).
//!
//! **Definitions** are reported in that one stream by each shard that has some of their collection,
//! one after the other: nothing else can happen to the collection in between. A repetition of the
//! last one of the same collection counts once ([`crate::engine::tail::shard_ddl`]).
//!
//! **The block on writes** is the cluster's own: its config server acknowledges it once every shard
//! keeps it, and keeps a record for as long as it is up (`config.user_writes_critical_sections`),
//! which is read through the router. A write that passes it all the same shows in the stream.

use std::path::Path;
use std::time::Duration;

use mongodb::bson::doc;
use schemas::durable_file;
use schemas::fault::{Fault, FaultCode};
use schemas::id::ShardName;
use serde::{Deserialize, Serialize};

use super::Reached;
use crate::mongo::{Deployment, ServerVersion};
use crate::state_fault;

/// What stands for all shards, in place of their names.
pub const NAME: &str = "all shards, through the router";

/// The first version whose routers write notes on all shards.
const NOTES: ServerVersion = ServerVersion::new(6, 0, 0);

/// How long the router may take to ask every shard: it waits for one that is away, as long as for
/// an election.
const ANSWER: Duration = Duration::from_secs(5);

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

/// Whether a fault of a connection says that nobody is reached there, rather than that somebody
/// refuses.
#[must_use]
pub fn is_out_of_reach(fault: &Fault) -> bool {
    matches!(fault.code, FaultCode::HostNotFound | FaultCode::Unreachable)
}

/// Makes sure that the router itself reaches every shard, and can tell the time of all of them.
pub async fn asks_all(router: &Deployment) -> Result<(), Fault> {
    if router.version < NOTES {
        let message = format!(
            "the router at {} is MongoDB {}: reading through it, where shards cannot be reached, \
             needs {NOTES}",
            router.hosts, router.version
        );
        return Err(Fault::new(FaultCode::UnsupportedVersion, message)
            .with_remedy("let the daemon's machine resolve and reach every shard"));
    }
    // Every shard has to answer this.
    let ask = doc! { "listDatabases": 1, "nameOnly": true };
    match tokio::time::timeout(ANSWER, router.command("admin", ask)).await {
        Ok(answer) => {
            answer.map(drop).map_err(|e| router.fault("asking every shard through the router", &e))
        }
        Err(_) => {
            let seconds = ANSWER.as_secs();
            let message = format!(
                "the router at {} gets no answer of every shard within {seconds} s",
                router.hosts
            );
            Err(Fault::new(FaultCode::Unreachable, message))
        }
    }
}

impl Manner {
    /// Chooses by what was reached. A fault that no other way remedies is given back.
    pub async fn choose(router: &Deployment, reached: &Reached) -> Result<Self, Fault> {
        let mut faults =
            reached.iter().filter_map(|(name, reached)| Some((name, reached.as_ref().err()?)));
        let Some((first, fault)) = faults.clone().next() else { return Ok(Self::Direct) };
        if let Some((_, refused)) = faults.clone().find(|(_, fault)| !is_out_of_reach(fault)) {
            return Err(refused.clone());
        }
        if let Err(why) = asks_all(router).await {
            // Down for everybody, as far as can be told.
            return Err(match why.code {
                FaultCode::UnsupportedVersion => why,
                _ => Fault {
                    message: format!("shard {first}: {}; and {}", fault.message, why.message),
                    ..fault.clone()
                },
            });
        }
        let unreached =
            faults.by_ref().map(|(name, fault)| (name.clone(), fault.message.clone())).collect();
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
        durable_file::write(&path, schemas::wire::to_json(self).as_bytes()).map_err(|error| {
            state_fault::of_io(format!("failed to write {}", path.display()), &error)
        })
    }

    /// What a run has kept; `None`: it has not connected yet, or its source is no cluster.
    ///
    /// One that is torn is had again from the shards that the run has `read` from, which have other
    /// names where it is the router.
    pub fn kept(run_dir: &Path, read: &[ShardName]) -> Result<Option<Self>, Fault> {
        let path = run_dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // A run of a version that knew of no other way.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((!read.is_empty()).then_some(Self::Direct));
            }
            Err(error) => {
                return Err(state_fault::of_io(
                    format!("failed to read {}", path.display()),
                    &error,
                ));
            }
        };
        match serde_json::from_str(&text) {
            Ok(manner) => Ok(Some(manner)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "how the run reads its source is \
                     told by what it has read");
                Ok(match read {
                    [] => None,
                    [one] if one.0 == NAME => Some(Self::ThroughRouter { unreached: Vec::new() }),
                    _ => Some(Self::Direct),
                })
            }
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
        assert!(
            !is(FaultCode::AuthenticationFailed)
                && !is(FaultCode::TlsFailed)
                && !is(FaultCode::MissingPrivileges)
        );
    }

    #[test]
    fn the_choice_is_kept_with_the_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = |read: &[&str]| {
            let read: Vec<_> = read.iter().map(|name| ShardName((*name).to_owned())).collect();
            Manner::kept(folder.path(), &read)
        };
        assert_eq!(kept(&[]), Ok(None));
        assert_eq!(kept(&["a"]), Ok(Some(Manner::Direct)));
        let chosen = Manner::ThroughRouter {
            unreached: vec![(ShardName("a".to_owned()), "refused".to_owned())],
        };
        chosen.keep(folder.path()).expect("kept");
        assert_eq!(kept(&[]), Ok(Some(chosen)));
        for torn in ["", "{"] {
            std::fs::write(folder.path().join(super::FILE), torn).expect("written");
            assert_eq!(kept(&[]), Ok(None), "nothing is read yet: it is chosen anew");
            assert_eq!(kept(&["a", "b"]), Ok(Some(Manner::Direct)));
            assert_eq!(
                kept(&[super::NAME]),
                Ok(Some(Manner::ThroughRouter { unreached: Vec::new() }))
            );
        }
    }
}
