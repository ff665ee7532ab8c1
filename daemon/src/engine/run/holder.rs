//! Who has a run: one daemon at a time, as the run's marker on the destination says.
//!
//! Two daemons on copies of one state directory know the same run, and neither knows of the other.
//! The destination does: each start of a run's sync takes the run with a term that is one higher
//! than the marker's, and the run's folder keeps the term that it has taken. So a marker with a
//! higher term than the folder knows was taken by somebody else, or the folder is an older copy;
//! and one that is gone, although it was put up, was removed by whoever completed the run. Either
//! stops this daemon's part before it writes, and is looked at every few seconds while the sync
//! runs. What gives the source back looks as well, but waits for no answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mongodb::bson::{Document, RawArrayBuf, doc, rawdoc};
use schemas::fault::{Fault, FaultCode};
use schemas::id::RunId;
use schemas::namespace::OWN_DATABASE;

use crate::engine::checkpoint::Checkpoints;
use crate::engine::destination::guard::{MARKER, Marker};
use crate::mongo::{Deployment, append, server_code};
use crate::state_fault::Cause;

/// Between two looks at the marker while a sync runs.
pub const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long what gives something back waits for a look.
const BRIEFLY: Duration = Duration::from_secs(5);

/// One start of the engine, which tells its holds from those of every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartId(Arc<str>);

impl Default for StartId {
    fn default() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }
}

/// What a run's folder knows of its hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The newest term that was taken from here; 0: none.
    pub term: i64,
    /// Whether the marker was put up, and not removed by the run itself.
    pub is_put: bool,
    /// Whether the run was cleaned up: it is over.
    pub has_ended: bool,
}

/// The holder as the marker says.
#[derive(Debug, Clone, Default)]
pub(super) struct Holder {
    start: String,
    term: i64,
    host: String,
    process: i64,
    /// Whether the settings were given back, after which nothing is synced any more.
    is_restored: bool,
    /// The marker's word for a person.
    pub(super) by: String,
}

impl Holder {
    pub(super) fn read(marker: &Document) -> Self {
        let by = marker.get_str("by").unwrap_or_default().to_owned();
        // One of a version that had none holds the run by no term.
        let is_restored = marker.contains_key("restored");
        let Ok(holder) = marker.get_document("holder") else {
            return Self { by, is_restored, ..Self::default() };
        };
        let text = |name: &str| holder.get_str(name).unwrap_or_default().to_owned();
        let number = |name: &str| holder.get_i64(name).unwrap_or_default();
        Self {
            start: text("start"),
            term: number("term"),
            host: text("host"),
            process: number("process"),
            is_restored,
            by,
        }
    }

    /// Whether its process may still be at work: it cannot be seen from here that it has ended.
    pub(super) fn may_live(&self) -> bool {
        if self.start.is_empty() {
            return false;
        }
        let is_here = self.host == host();
        let has_ended = || !std::path::Path::new(&format!("/proc/{}", self.process)).exists();
        // A process has one daemon.
        !(is_here && (self.process == i64::from(std::process::id()) || has_ended()))
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// One run's hold by this engine.
#[derive(Debug)]
pub struct Hold {
    run: RunId,
    start: StartId,
    checkpoints: Checkpoints,
    /// The term that this engine has taken.
    taken: Mutex<Option<i64>>,
}

impl Hold {
    /// The hold of a run that nobody has taken yet.
    #[must_use]
    pub fn new(run: RunId, start: StartId, checkpoints: Checkpoints) -> Self {
        Self { run, start, checkpoints, taken: Mutex::new(None) }
    }

    fn taken(&self) -> Option<i64> {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the run, or sees that this engine still has it, and says so in its marker.
    ///
    /// Where another process may have it still, that one gets the time to notice.
    pub async fn take(&self, writer: &Deployment, marker: &Marker<'_>) -> Result<(), Fault> {
        let found = self.look(writer).await?;
        let known = self.checkpoints.hold().await?;
        self.compare(writer, found.as_ref(), known)?;
        let before = found.unwrap_or_default();
        if known.has_ended || before.is_restored {
            let what = if known.has_ended {
                "it has ended, says its folder"
            } else {
                "it has handed the destination over"
            };
            let message = format!(
                "run {} was to go on, and {what}: the journal is an older one than the run's last",
                self.run
            );
            return Err(Cause::Gone.fault(message));
        }
        let term = match self.taken() {
            Some(term) => term,
            None => {
                // Known before it is there: a start that was cut off in between finds a lower one.
                let term = before.term.max(known.term) + 1;
                self.checkpoints.store_hold(Known { term, ..known }).await?;
                term
            }
        };
        self.put(writer, marker, &before, term).await?;
        self.checkpoints.store_hold(Known { term, is_put: true, ..known }).await?;
        let is_new =
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).replace(term).is_none();
        if is_new && before.may_live() {
            tracing::warn!(run = %self.run, before = before.by, "taken from another process, \
                 which gets the time to notice");
            tokio::time::sleep(LOOK_EVERY * 2).await;
        }
        Ok(())
    }

    /// Writes the marker, where its holder is still the one that was seen.
    async fn put(
        &self,
        writer: &Deployment,
        marker: &Marker<'_>,
        before: &Holder,
        term: i64,
    ) -> Result<(), Fault> {
        let mut set = marker.fields();
        append(
            &mut set,
            "holder",
            &*rawdoc! {
                "start": &*self.start.0, "term": term, "host": host(),
                "process": i64::from(std::process::id()),
            },
        );
        let mut seen = rawdoc! { "_id": self.run.as_str() };
        if before.term == 0 {
            append(&mut seen, "holder.term", &*rawdoc! { "$exists": false });
        } else {
            append(&mut seen, "holder.term", before.term);
            append(&mut seen, "holder.start", before.start.as_str());
        }
        let mut updates = RawArrayBuf::new();
        updates.push(&*rawdoc! { "q": seen, "u": { "$set": set }, "upsert": before.term == 0 });
        let mut update = crate::mongo::command("update", MARKER);
        append(&mut update, "updates", &*updates);
        append(&mut update, "writeConcern", &*rawdoc! { "w": "majority" });
        let reply = writer
            .raw_command(OWN_DATABASE, update)
            .await
            .map_err(|e| writer.fault("putting the marker", &e))?;
        let refused = reply
            .get_array("writeErrors")
            .ok()
            .and_then(|errors| errors.first()?.as_document().cloned());
        match refused {
            Some(refused)
                if !refused
                    .get_i32("code")
                    .is_ok_and(|code| code == server_code::DUPLICATE_KEY) =>
            {
                let message =
                    format!("putting the marker on the destination ({}): {refused}", writer.hosts);
                Err(Fault::new(FaultCode::DestinationWriteFailed, message))
            }
            // Another one is there than was seen just before.
            Some(_) => Err(self.overtaken(writer, before)),
            None if reply.get_i32("n").is_ok_and(|n| n == 0) => Err(self.overtaken(writer, before)),
            None => Ok(()),
        }
    }

    /// Sees that nobody else has the run, without taking it.
    pub async fn check(&self, destination: &Deployment) -> Result<(), Fault> {
        let found = self.look(destination).await?;
        let known = self.checkpoints.hold().await?;
        self.compare(destination, found.as_ref(), known)
    }

    /// As [`Self::check`], where the marker may be gone, since the run may have removed it itself.
    pub async fn check_holder(&self, destination: &Deployment) -> Result<(), Fault> {
        let found = self.look(destination).await?;
        let known = self.checkpoints.hold().await?;
        self.compare(destination, found.as_ref(), Known { is_put: false, ..known })
    }

    /// Whether this engine has yet to take the run: what an earlier one saw may be otherwise now.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.taken().is_none()
    }

    /// As [`Self::check`], for what gives something back: only a clear answer stops that.
    pub async fn check_briefly(
        &self,
        destination: impl Future<Output = Result<Arc<Deployment>, Fault>>,
    ) -> Result<(), Fault> {
        let look = async { self.check(&*destination.await?).await };
        match tokio::time::timeout(BRIEFLY, look).await {
            Ok(Err(fault)) if fault.code == FaultCode::RunHeldElsewhere => Err(fault),
            Ok(Err(fault)) => {
                tracing::warn!(run = %self.run, %fault, "given back without a look at who has the \
                     run");
                Ok(())
            }
            Ok(Ok(())) => Ok(()),
            Err(_) => {
                tracing::warn!(run = %self.run, "given back without a look at who has the run: \
                     the destination does not answer");
                Ok(())
            }
        }
    }

    /// Looks at the marker every few seconds, until somebody else has the run.
    pub async fn lost(&self, destination: &Deployment) -> Fault {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.check(destination).await {
                Err(fault) if fault.code == FaultCode::RunHeldElsewhere => return fault,
                // A destination that does not answer takes no writes either.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Notes that the run itself is about to remove its marker, and whether it is over.
    pub async fn let_go(&self, has_ended: bool) -> Result<(), Fault> {
        let known = self.checkpoints.hold().await?;
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.checkpoints.store_hold(Known { is_put: false, has_ended, ..known }).await
    }

    async fn look(&self, destination: &Deployment) -> Result<Option<Holder>, Fault> {
        let mut find = crate::mongo::command("find", MARKER);
        append(&mut find, "filter", &*rawdoc! { "_id": self.run.as_str() });
        append(&mut find, "limit", 1_i32);
        append(&mut find, "readConcern", &*rawdoc! { "level": "majority" });
        let found = destination
            .collect(OWN_DATABASE, find)
            .await
            .map_err(|e| destination.fault("reading the run's marker", &e))?;
        let unreadable =
            |e| Fault::new(FaultCode::Internal, format!("the run's marker cannot be read: {e}"));
        found
            .first()
            .map(|marker| Document::try_from(&**marker).map(|marker| Holder::read(&marker)))
            .transpose()
            .map_err(unreadable)
    }

    fn compare(
        &self,
        destination: &Deployment,
        found: Option<&Holder>,
        known: Known,
    ) -> Result<(), Fault> {
        match found {
            None if known.is_put => {
                let message = format!(
                    "the marker of run {} on the destination ({}) is gone, and this daemon has \
                     not removed it",
                    self.run, destination.hosts
                );
                Err(Fault::new(FaultCode::RunHeldElsewhere, message))
            }
            None => Ok(()),
            Some(holder) => {
                let is_ours = match self.taken() {
                    Some(term) => holder.term == term && holder.start == *self.start.0,
                    None => holder.term <= known.term,
                };
                if is_ours { Ok(()) } else { Err(self.overtaken(destination, holder)) }
            }
        }
    }

    fn overtaken(&self, destination: &Deployment, holder: &Holder) -> Fault {
        let message = format!(
            "run {} is held by another start of cutoverd, says the destination ({}): {}, start \
             {}, term {}",
            self.run, destination.hosts, holder.by, holder.start, holder.term
        );
        Fault::new(FaultCode::RunHeldElsewhere, message)
    }
}

/// What was still to be made unique when a run's settings were given back; `None`: they were not
/// yet.
///
/// It is on the destination since it must outlive a disk that is full: settings are never given
/// back twice, since the destination may be in use by then.
pub async fn restored(
    destination: &Deployment,
    run: &RunId,
) -> Result<Option<Vec<(String, String)>>, Fault> {
    let mut find = crate::mongo::command("find", MARKER);
    append(&mut find, "filter", &*rawdoc! { "_id": run.as_str(), "restored": { "$exists": true } });
    append(&mut find, "limit", 1_i32);
    let found = destination
        .collect(OWN_DATABASE, find)
        .await
        .map_err(|e| destination.fault("reading the run's marker", &e))?;
    let Some(marker) = found.first().and_then(|marker| Document::try_from(&**marker).ok()) else {
        return Ok(None);
    };
    let unfinished = marker.get_array("restored").into_iter().flatten().filter_map(|one| {
        let one = one.as_document()?;
        Some((one.get_str("ns").ok()?.to_owned(), one.get_str("index").ok()?.to_owned()))
    });
    Ok(Some(unfinished.collect()))
}

/// Notes that a run's settings are given back, and what is still to be made unique.
pub async fn note_restored(
    writer: &Deployment,
    run: &RunId,
    unfinished: &[(String, String)],
) -> Result<(), Fault> {
    let restored: Vec<Document> =
        unfinished.iter().map(|(ns, index)| doc! { "ns": ns, "index": index }).collect();
    let update = doc! {
        "update": MARKER,
        "updates": [{ "q": { "_id": run.as_str() }, "u": { "$set": { "restored": restored } } }],
        "writeConcern": { "w": "majority" },
    };
    writer
        .command(OWN_DATABASE, update)
        .await
        .map(drop)
        .map_err(|e| writer.fault("writing to the marker", &e))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::{Holder, host};

    #[test]
    fn a_holder_that_has_ended_here_is_not_waited_for() {
        let read = |host: &str, process: i64| {
            Holder::read(&doc! {
                "holder": { "start": "a", "term": 3_i64, "host": host, "process": process }
            })
        };
        assert!(!read(&host(), i64::from(std::process::id())).may_live());
        assert!(!read(&host(), i64::from(i32::MAX)).may_live());
        assert!(read(&host(), 1).may_live());
        assert!(read("elsewhere", i64::from(i32::MAX)).may_live());
        // A marker of a version that knew of no holders.
        assert!(!Holder::read(&doc! { "by": "cutoverd on elsewhere, process 7" }).may_live());
    }
}
