//! Whether the deployments of a run are still those that it began with: known by what they say of
//! themselves, never by an address.
//!
//! A source that was emptied and initiated anew under its address and name lets an old stream
//! resume, as if nothing had ever been in it; a destination that was restored from a backup lacks
//! what the checkpoints say is there. So a run keeps with its checkpoints what tells a deployment
//! from every other one, and holds it against both sides whenever a try of its sync begins, every
//! few seconds while it runs, before the source is blocked, and before anything is dropped since
//! the source has it no more.
//!
//! | evidence | who may read it |
//! |---|---|
//! | the replica set's id, made when it was initiated (`replSetGetConfig`) | `clusterMonitor` |
//! | the cluster's id (`config.version`) | `clusterMonitor` |
//! | the UUID of `admin.system.version`, made with the first member's data | `backup` |
//! | a majority-committed oplog entry: its cluster time, term and wall clock | `backup` |
//! | on the destination, a number in the run's marker that rises with time | the run itself |
//!
//!
//! `readAnyDatabase` may read the third as well, and `clusterMonitor` the fourth.
//!
//! The first three tell one deployment from another; the last two tell a state of it from an
//! earlier one, which a snapshot brings back. An election, another host, a member more or less, or
//! a new version of the set's configuration change none of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc, rawdoc};
use schemas::cluster_time::ClusterTime;
use schemas::fault::{Fault, FaultCode};
use schemas::id::RunId;
use schemas::spec::{ConnectionSpec, MigrationSpec};

use crate::engine::catalog::CollectionInfo;
use crate::engine::checkpoint::Checkpoints;
use crate::engine::destination::guard;
use crate::engine::source::topology::Cluster;
use crate::engine::source::{ShardSource, Source};
use crate::mongo::{Deployment, Side, cluster_time, connect, error, server_code, timestamp};

/// Between two looks while a sync runs.
const EVERY: Duration = Duration::from_secs(3);
/// How long a majority may take to acknowledge the note that shows a primary to be one, in
/// milliseconds: longer than an election.
const PROOF_MS: i32 = 20_000;
/// The server's codes for what its user may not do, and for a command that it does not have.
const NOT_TO_BE_SEEN: [i32; 2] = [server_code::UNAUTHORIZED, server_code::COMMAND_NOT_FOUND];

/// What is kept of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Whether it is a replica set or a sharded cluster.
    Kind,
    /// The id that a replica set was given when it was initiated.
    SetId,
    /// A sharded cluster's id.
    ClusterId,
    /// The UUID of `admin.system.version`.
    Catalogue,
    /// An entry of its oplog.
    Entry,
    /// The number that the run's marker had.
    Beat,
}

impl What {
    /// How it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::SetId => "set id",
            Self::ClusterId => "cluster id",
            Self::Catalogue => "catalogue",
            Self::Entry => "entry",
            Self::Beat => "beat",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Self::Kind => "kind of deployment",
            Self::SetId => "replica set id",
            Self::ClusterId => "cluster id",
            Self::Catalogue => "UUID of admin.system.version",
            Self::Entry => "oplog entry",
            Self::Beat => "run's marker",
        }
    }
}

/// What tells one deployment from another, as far as its user may see it.
pub type Evidence = BTreeMap<What, String>;

/// The ids, the best first: a worse one is asked where a better one is not known of both.
const IDS: [What; 3] = [What::SetId, What::ClusterId, What::Catalogue];

fn may_not_see(e: &mongodb::error::Error) -> bool {
    error::code(e).is_some_and(|code| NOT_TO_BE_SEEN.contains(&code))
}

/// Reads what a deployment says of itself, less what is known already and would decide nothing.
///
/// # Errors
/// When it does not answer. What its user may not read is left out.
pub async fn evidence(deployment: &Deployment, kept: &Evidence) -> Result<Evidence, Fault> {
    let mut found = Evidence::new();
    if deployment.is_sharded() {
        found.insert(What::Kind, "sharded cluster".to_owned());
        match Cluster::id_behind(deployment).await {
            Ok(id) => found.extend(id.map(|id| (What::ClusterId, id.to_hex()))),
            Err(fault) if fault.code == FaultCode::MissingPrivileges => {}
            Err(fault) => return Err(fault),
        }
    } else {
        found.insert(What::Kind, "replica set".to_owned());
        match deployment.command("admin", doc! { "replSetGetConfig": 1 }).await {
            Ok(reply) => found.extend(set_id(&reply).map(|id| (What::SetId, id))),
            Err(e) if may_not_see(&e) => {}
            Err(e) => return Err(deployment.fault("reading the replica set's id", &e)),
        }
    }
    let is_told_apart = [What::SetId, What::ClusterId]
        .iter()
        .any(|what| found.contains_key(what) && kept.contains_key(what));
    if is_told_apart && kept.contains_key(&What::Catalogue) {
        return Ok(found);
    }
    let list = rawdoc! { "listCollections": 1, "filter": { "name": "system.version" } };
    match deployment.collect("admin", list).await {
        Ok(listed) => {
            let uuid = listed.into_iter().find_map(|raw| CollectionInfo::new("admin", raw)?.uuid());
            found.extend(uuid.map(|uuid| {
                (What::Catalogue, uuid.iter().map(|byte| format!("{byte:02x}")).collect())
            }));
        }
        Err(e) if may_not_see(&e) => {}
        Err(e) => return Err(deployment.fault("reading the UUID of admin.system.version", &e)),
    }
    Ok(found)
}

fn set_id(reply: &Document) -> Option<String> {
    let settings = reply.get_document("config").ok()?.get_document("settings").ok()?;
    settings.get_object_id("replicaSetId").ok().map(|id| id.to_hex())
}

/// By what a deployment is told from others, in words; `None`: its user may read nothing of that.
#[must_use]
pub fn known_by(evidence: &Evidence) -> Option<&'static str> {
    IDS.into_iter().find(|what| evidence.contains_key(what)).map(What::in_words)
}

/// What was found when kept evidence was held against what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    Same,
    /// This was otherwise.
    Other(What),
    /// Nothing that was kept can be seen.
    Unseen,
}

fn judge(kept: &Evidence, now: &Evidence) -> Judgement {
    let both = |what: What| Some((kept.get(&what)?, now.get(&what)?));
    if both(What::Kind).is_some_and(|(kept, now)| kept != now) {
        return Judgement::Other(What::Kind);
    }
    match IDS.into_iter().find_map(|what| Some((what, both(what)?))) {
        Some((_, (kept, now))) if kept == now => Judgement::Same,
        Some((what, _)) => Judgement::Other(what),
        None if IDS.into_iter().any(|what| kept.contains_key(&what)) => Judgement::Unseen,
        None => Judgement::Same,
    }
}

/// An entry of an oplog that a majority had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    time: ClusterTime,
    term: i64,
    /// Milliseconds of the wall clock.
    wall: i64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.time.t, self.time.i, self.term, self.wall)
    }
}

impl Entry {
    fn read(raw: &RawDocument) -> Option<Self> {
        let time = cluster_time(raw.get_timestamp("ts").ok()?);
        // Servers have written both since 4.0.
        Some(Self {
            time,
            term: raw.get_i64("t").ok()?,
            wall: raw.get_datetime("wall").ok()?.timestamp_millis(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let mut next = || parts.next();
        let time = ClusterTime { t: next()?.parse().ok()?, i: next()?.parse().ok()? };
        Some(Self { time, term: next()?.parse().ok()?, wall: next()?.parse().ok()? })
    }
}

/// What an oplog holds from a time on.
enum Oplog {
    /// It may not be read.
    Unreadable,
    /// Nothing.
    Ended,
    /// This is the first.
    From(Entry),
}

async fn oplog_from(deployment: &Deployment, filter: RawDocumentBuf) -> Result<Oplog, Fault> {
    let find = rawdoc! {
        "find": "oplog.rs", "filter": filter, "limit": 1, "singleBatch": true,
        "projection": { "ts": 1, "t": 1, "wall": 1 },
    };
    match deployment.collect("local", find).await {
        Ok(found) => match found.first() {
            None => Ok(Oplog::Ended),
            Some(raw) => Entry::read(raw).map(Oplog::From).ok_or_else(|| {
                let hosts = &deployment.hosts;
                Fault::new(
                    FaultCode::Internal,
                    format!("an entry of the oplog of {hosts} has no time, term or wall clock"),
                )
            }),
        },
        Err(e) if may_not_see(&e) => Ok(Oplog::Unreadable),
        Err(e) => Err(deployment.fault("looking for what was read in the oplog", &e)),
    }
}

/// Whether an entry that a majority had is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    /// The oplog has rolled over it, or may not be read.
    Unknown,
    No,
}

async fn holds(deployment: &Deployment, entry: Entry) -> Result<Held, Fault> {
    Ok(match oplog_from(deployment, rawdoc! { "ts": { "$gte": timestamp(entry.time) } }).await? {
        Oplog::Unreadable => Held::Unknown,
        Oplog::Ended => Held::No,
        Oplog::From(found) if found == entry => Held::Yes,
        Oplog::From(found) if found.time == entry.time => Held::No,
        Oplog::From(_) => match deployment.oplog_start().await {
            Some(oldest) if oldest < entry.time => Held::No,
            // Whether the resume point went with it is asked elsewhere, and is an error of its own.
            Some(_) | None => Held::Unknown,
        },
    })
}

/// Looks again on a primary that a majority follows: one that was deposed and does not know it yet
/// lacks what the others have.
async fn is_lost(deployment: &Deployment, entry: Entry) -> Result<bool, Fault> {
    if holds(deployment, entry).await? != Held::No {
        return Ok(false);
    }
    let note = doc! {
        "appendOplogNote": 1,
        "data": { "msg": "cutover: whose oplog is this" },
        "writeConcern": { "w": "majority", "wtimeout": PROOF_MS },
    };
    deployment.command("admin", note).await.map_err(|e| Fault {
        retryable: true,
        ..deployment.fault(
            "looking whether a majority follows the primary, whose oplog lacks what was read",
            &e,
        )
    })?;
    Ok(holds(deployment, entry).await? == Held::No)
}

fn other(
    deployment: &Deployment,
    name: &str,
    what: What,
    kept: &Evidence,
    now: &Evidence,
) -> Fault {
    let side = deployment.side;
    let text = |of: &Evidence| of.get(&what).cloned().unwrap_or_default();
    let message = format!(
        "{name} at {} is not the deployment that the run began with: its {} is {}, and was {}",
        deployment.hosts,
        what.in_words(),
        text(now),
        text(kept)
    );
    let keeps = match side {
        Side::Source => "nothing was taken from it, and the destination keeps what it has",
        Side::Destination => "nothing more was written to it",
    };
    Fault::new(FaultCode::OtherDeployment, format!("{message}; {keeps}"))
}

fn earlier(deployment: &Deployment, what: String) -> Fault {
    let message = format!(
        "{what}: it was restored from an older snapshot or backup, or its writes were taken back"
    );
    let hosts = &deployment.hosts;
    Fault::new(
        FaultCode::OtherDeployment,
        format!("the {} at {hosts} is in an earlier state; {message}", deployment.side),
    )
}

/// The deployments of a run, held against what was kept of them.
#[derive(Debug)]
pub struct Identity {
    /// Read from.
    pub source: Arc<Source>,
    /// Written to, as the declared user, who may see what it is.
    pub destination: Arc<Deployment>,
    /// Written to, as the user who writes.
    pub writer: Arc<Deployment>,
    /// How they are reached.
    pub spec: Arc<MigrationSpec>,
    /// Where it is kept.
    pub checkpoints: Checkpoints,
    /// The run.
    pub run: RunId,
}

impl Identity {
    /// Makes sure that both are what they were, and keeps what is not known yet.
    ///
    /// # Errors
    /// [`FaultCode::OtherDeployment`] where one is another, or in an earlier state;
    /// [`FaultCode::MissingPrivileges`] where nothing of what was kept may be seen any more; what a
    /// server answers else.
    pub async fn hold(&self) -> Result<(), Fault> {
        self.hold_source().await?;
        self.hold_destination().await
    }

    /// As [`Self::hold`], where a shard that does not answer is left to its own copy: that looks at
    /// it before it reads, and the others go on.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub async fn hold_reachable(&self) -> Result<(), Fault> {
        if let Err(fault) = self.hold_source().await {
            let is_clear =
                matches!(fault.code, FaultCode::OtherDeployment | FaultCode::MissingPrivileges);
            if is_clear || self.source.shards.len() == 1 {
                return Err(fault);
            }
            hold_one(&self.checkpoints, &self.source.entry, "", "the source").await?;
            tracing::warn!(code = %fault.code, error = %fault.message, "a shard cannot be looked \
                 at; its own copy does that again");
        }
        self.hold_destination().await
    }

    /// The same of one shard.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub async fn hold_shard(&self, shard: &ShardSource) -> Result<(), Fault> {
        hold_shard(&self.checkpoints, &self.source, shard).await
    }

    /// The same of the source.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub async fn hold_source(&self) -> Result<(), Fault> {
        hold_source(&self.source, &self.spec.source.connection, &self.checkpoints).await
    }

    /// The same of the destination.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub async fn hold_destination(&self) -> Result<(), Fault> {
        if let Err(fault) =
            hold_one(&self.checkpoints, &self.destination, "", "the destination").await
        {
            if fault.code == FaultCode::Unreachable {
                let (spec, tag) = (&self.spec.destination.connection, &self.destination.tag);
                if let Ok(anew) = connect(Side::Destination, spec, None, tag).await {
                    hold_one(&self.checkpoints, &anew, "", "the destination").await?;
                }
            }
            return Err(fault);
        }
        let kept = self.checkpoints.deployment(Side::Destination.as_str(), "").await?;
        let Some(kept) = kept.get(What::Beat.as_str()).and_then(|beat| beat.parse::<i64>().ok())
        else {
            return Ok(());
        };
        match guard::beat(&self.writer, &self.run).await? {
            Some(found) if found >= kept => Ok(()),
            Some(found) => {
                let what = format!(
                    "the run's marker there is that of beat {found}, and had come to {kept}"
                );
                Err(earlier(&self.destination, what))
            }
            None => Err(earlier(
                &self.destination,
                "the run's marker is not there, which only the run removes".to_owned(),
            )),
        }
    }

    /// Writes on the destination that the run has come so far, and keeps it.
    ///
    /// # Errors
    /// When the marker is not there, or not as it was left; what a server answers else.
    pub async fn beat(&self) -> Result<(), Fault> {
        let side = Side::Destination.as_str();
        let kept = self.checkpoints.deployment(side, "").await?;
        let kept =
            kept.get(What::Beat.as_str()).and_then(|beat| beat.parse::<i64>().ok()).unwrap_or(0);
        // A process that died in between has written what it did not keep.
        let found = guard::beat(&self.writer, &self.run).await?.unwrap_or(0).max(kept);
        if !guard::set_beat(&self.writer, &self.run, found, found + 1).await? {
            if kept == 0 {
                // Nothing of the run is there yet that could be missing.
                return Ok(());
            }
            return Err(earlier(
                &self.destination,
                format!("the run's marker there is not at beat {found}, which it was left at"),
            ));
        }
        keep(&self.checkpoints, side, "", What::Beat, (found + 1).to_string()).await
    }

    /// Looks again and again, until one of them is another.
    pub async fn watch(&self) -> Fault {
        loop {
            tokio::time::sleep(EVERY).await;
            let looked = async {
                self.hold().await?;
                self.beat().await
            };
            match looked.await {
                Ok(()) => {}
                Err(fault) if fault.code == FaultCode::OtherDeployment => return fault,
                // Whoever works with that server meets it as well; each try of the sync begins with
                // a look that has to pass.
                Err(fault) => {
                    tracing::debug!(error = %fault, "whether the deployments are the same cannot \
                         be seen now")
                }
            }
        }
    }
}

/// Makes sure that a source is what it was when the run began, and that its oplogs hold what was
/// read; keeps what is not known yet.
///
/// # Errors
/// As [`Identity::hold`].
pub async fn hold_source(
    source: &Source,
    spec: &ConnectionSpec,
    checkpoints: &Checkpoints,
) -> Result<(), Fault> {
    let Err(fault) = hold_reached(source, checkpoints).await else { return Ok(()) };
    if fault.code == FaultCode::Unreachable {
        // A driver that has known a primary of a later election takes the one of a set that was
        // initiated anew for a stale one, and says that there is none: a new one knows nothing of
        // that.
        let (entry, manner) = (&source.entry, Some(source.manner.clone()));
        if let Ok(anew) = Source::connect(spec, &entry.tag, &entry.memory, manner).await {
            hold_reached(&anew, checkpoints).await?;
        }
    }
    Err(fault)
}

async fn hold_reached(source: &Source, checkpoints: &Checkpoints) -> Result<(), Fault> {
    hold_one(checkpoints, &source.entry, "", "the source").await?;
    try_join_all(source.shards.iter().map(|shard| hold_shard(checkpoints, source, shard))).await?;
    Ok(())
}

async fn hold_shard(
    checkpoints: &Checkpoints,
    source: &Source,
    shard: &ShardSource,
) -> Result<(), Fault> {
    if source.tells_shards_apart() {
        let name = format!("the source's shard {}", shard.name);
        hold_one(checkpoints, &shard.deployment, &shard.name.0, &name).await?;
    }
    if source.is_behind_router() { Ok(()) } else { hold_history(checkpoints, shard).await }
}

async fn keep(
    checkpoints: &Checkpoints,
    side: &str,
    holder: &str,
    what: What,
    value: String,
) -> Result<(), Fault> {
    checkpoints.store_deployment(side, holder, vec![(what.as_str(), value)]).await
}

/// `holder`: the shard; empty: the deployment whole.
async fn hold_one(
    checkpoints: &Checkpoints,
    deployment: &Deployment,
    holder: &str,
    name: &str,
) -> Result<(), Fault> {
    let side = deployment.side.as_str();
    let stored = checkpoints.deployment(side, holder).await?;
    let whats = IDS.into_iter().chain([What::Kind]);
    let kept: Evidence =
        whats.filter_map(|what| Some((what, stored.get(what.as_str())?.clone()))).collect();
    let now = evidence(deployment, &kept).await?;
    match judge(&kept, &now) {
        Judgement::Same => {}
        Judgement::Other(what) => return Err(other(deployment, name, what, &kept, &now)),
        Judgement::Unseen => {
            let message = format!(
                "whether {name} at {} is still the deployment that the run began with may no \
                 longer be seen by its user",
                deployment.hosts
            );
            return Err(Fault::new(FaultCode::MissingPrivileges, message).with_remedy(
                "grant the user clusterMonitor again (replSetGetConfig, find on config.version)",
            ));
        }
    }
    let fresh: Vec<_> = now.into_iter().filter(|(what, _)| !kept.contains_key(what)).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let fresh = fresh.into_iter().map(|(what, value)| (what.as_str(), value)).collect();
    checkpoints.store_deployment(side, holder, fresh).await
}

/// Makes sure that a shard's oplog holds what was seen in it, and keeps its newest entry that a
/// majority has.
async fn hold_history(checkpoints: &Checkpoints, shard: &ShardSource) -> Result<(), Fault> {
    let (deployment, side) = (&shard.deployment, Side::Source.as_str());
    let kept = checkpoints.deployment(side, &shard.name.0).await?;
    if let Some(entry) = kept.get(What::Entry.as_str()).and_then(|text| Entry::parse(text))
        && is_lost(deployment, entry).await?
    {
        let what = format!(
            "the oplog of {} does not hold the entry of {} that was read from it",
            shard.name, entry.time
        );
        return Err(earlier(deployment, what));
    }
    let newest = deployment.majority_optime().await?;
    if let Oplog::From(found) = oplog_from(deployment, rawdoc! { "ts": timestamp(newest) }).await? {
        keep(checkpoints, side, &shard.name.0, What::Entry, found.to_string()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Entry, Evidence, Judgement, What, judge};
    use schemas::cluster_time::ClusterTime;

    fn of(pairs: &[(What, &str)]) -> Evidence {
        pairs.iter().map(|(what, value)| (*what, (*value).to_owned())).collect()
    }

    #[test]
    fn the_best_id_that_both_have_decides() {
        use What::{Catalogue, ClusterId, Kind, SetId};
        let kept = of(&[(Kind, "replica set"), (SetId, "a"), (Catalogue, "1")]);
        assert_eq!(judge(&Evidence::new(), &kept), Judgement::Same);
        assert_eq!(judge(&kept, &kept), Judgement::Same);
        assert_eq!(
            judge(&kept, &of(&[(Kind, "replica set"), (SetId, "b"), (Catalogue, "1")])),
            Judgement::Other(SetId)
        );
        assert_eq!(
            judge(&kept, &of(&[(Kind, "replica set"), (Catalogue, "2")])),
            Judgement::Other(Catalogue)
        );
        assert_eq!(judge(&kept, &of(&[(Kind, "replica set"), (Catalogue, "1")])), Judgement::Same);
        assert_eq!(
            judge(&kept, &of(&[(Kind, "sharded cluster"), (ClusterId, "a")])),
            Judgement::Other(Kind)
        );
        assert_eq!(judge(&kept, &of(&[(Kind, "replica set")])), Judgement::Unseen);
    }

    #[test]
    fn an_entry_is_kept_whole() {
        let entry = Entry { time: ClusterTime { t: 7, i: 2 }, term: 3, wall: 1_700_000_000_123 };
        assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
        assert_eq!(Entry::parse("1,2,3"), None);
    }
}
