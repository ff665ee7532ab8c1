//! Brings the insertions of a round of the tail into the order of the source's records.
//!
//! The stream reports concurrent insertions in the order of their oplog entries. Which of them
//! comes first in the collection is asked of the source: the records between the last one that was
//! inserted and the newest of this round. What is among them and is reported further on is inserted
//! now, as it is by now; when it is reported it is there already, and what changes it is met again,
//! as after the copy.

use std::collections::{HashMap, HashSet};

use mongodb::bson::{RawDocumentBuf, Timestamp, rawdoc};
use schemas::fault::Fault;
use schemas::namespace::Namespace;

use super::order;
use crate::engine::apply::coalesce::{Content, Write};
use crate::engine::apply::route::Keyed;
use crate::engine::change_event::Op;
use crate::engine::tail::Tail;
use crate::engine::{document_key, element};
use crate::mongo::{Deployment, append, command, error, number, server_code};

/// Records of others that are looked through at most, and of which so many are inserted early: as
/// many as are inserted at once.
const SLACK: usize = 2_000;
const EARLY: usize = 500;
/// `_id`s of one `find`.
const IDS: usize = 1_000;
/// The server's codes for a record to go on from that is gone, a scan that was overtaken by
/// evictions, and one whose collection is gone.
const GONE: [i32; 4] = [
    server_code::KEY_NOT_FOUND,
    server_code::CAPPED_POSITION_LOST,
    server_code::QUERY_PLAN_KILLED,
    server_code::CURSOR_NOT_FOUND,
];

/// The order of a round's insertions.
#[derive(Debug, Default)]
pub(in crate::engine) struct Sequence {
    records: HashMap<u64, i64>,
    /// What is reported further on, in its order.
    early: Vec<(i64, Write)>,
    collated: bool,
}

impl Sequence {
    /// Brings what is new among these writes into the order. What the source no longer has was
    /// evicted, and was there before.
    pub(in crate::engine) fn arrange(&mut self, round: &mut Vec<Write>) {
        if self.records.is_empty() {
            return;
        }
        let collated = self.collated;
        let is_new = |write: &Write| matches!(write.content, Some(Content::New(_)));
        let record = |write: &Write| match is_new(write) {
            true => self
                .records
                .get(&document_key::hash(&write.id, collated))
                .copied()
                .unwrap_or(i64::MIN),
            false => i64::MIN,
        };
        let Some(last) = round.iter().filter(|write| is_new(write)).map(record).max() else {
            return;
        };
        let mut placed: Vec<(i64, Write)> =
            round.drain(..).map(|write| (record(&write), write)).collect();
        let taken: HashSet<u64> =
            placed.iter().map(|(_, write)| document_key::hash(&write.id, collated)).collect();
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.early).into_iter().partition(|(record, _)| *record <= last);
        self.early = later;
        placed.extend(
            now.into_iter()
                .filter(|(_, write)| !taken.contains(&document_key::hash(&write.id, collated))),
        );
        placed.sort_by_key(|(record, _)| *record);
        round.extend(placed.into_iter().map(|(_, write)| write));
    }
}

impl Tail {
    /// Asks the source for the order of what is inserted by these changes, as of after the newest
    /// of them.
    pub(in crate::engine) async fn sequence(
        &self,
        namespace: &Namespace,
        changes: &[Keyed],
        as_of: Timestamp,
    ) -> Result<Sequence, Fault> {
        let collated = self.traits_of(namespace).collated;
        let ids: Vec<&RawDocumentBuf> = changes
            .iter()
            .filter(|(_, change)| matches!(change.op, Op::Insert(_)))
            .map(|(_, change)| &change.id)
            .collect();
        // A router knows of no records. There the order is compared in the end.
        if ids.is_empty() || self.source.is_behind_router() {
            return Ok(Sequence::default());
        }
        let source = &self.source.home_of(namespace).await?.deployment;
        let mut records = HashMap::new();
        for slice in ids.chunks(IDS) {
            let mut find = command("find", &namespace.collection);
            append(&mut find, "filter", &*element::by_ids(slice.iter().map(|id| &***id)));
            append(&mut find, "projection", &*rawdoc! { "_id": 1 });
            append(&mut find, "showRecordId", true);
            append(
                &mut find,
                "readConcern",
                &*rawdoc! { "level": "majority", "afterClusterTime": as_of },
            );
            let found = source.collect(&namespace.db, find).await;
            let found = found
                .map_err(|e| source.fault(&format!("looking for the order of {namespace}"), &e))?;
            records.extend(found.iter().filter_map(|document| {
                Some((
                    document_key::hash(&element::id_of(document)?, collated),
                    number(document, "$recordId")?,
                ))
            }));
        }
        let (Some(&first), Some(&newest)) = (records.values().min(), records.values().max()) else {
            return Ok(Sequence::default());
        };
        let last = self
            .records
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(namespace.clone(), newest);
        let after = match last {
            Some(last) if last >= newest => {
                // As far as it was there is nothing new.
                self.records
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .insert(namespace.clone(), last);
                return Ok(Sequence { records, early: Vec::new(), collated });
            }
            Some(last) => last,
            None => first,
        };
        let limit = records.len() + SLACK;
        let between = match records_after(source, namespace, after, limit, as_of).await? {
            None if after != first => records_after(source, namespace, first, limit, as_of).await?,
            between => between,
        };
        let others = between.unwrap_or_default().into_iter().filter(|(record, _)| *record < newest);
        let others: HashMap<u64, (i64, RawDocumentBuf)> = others
            .map(|(record, id)| (document_key::hash(&id, collated), (record, id)))
            .filter(|(hash, _)| !records.contains_key(hash))
            .collect();
        let mut early = Vec::new();
        if !others.is_empty() && others.len() <= EARLY {
            let mut find = command("find", &namespace.collection);
            append(&mut find, "filter", &*element::by_ids(others.values().map(|(_, id)| &**id)));
            // What does not fit into one reply of 16 MB comes when it is reported.
            append(&mut find, "singleBatch", true);
            append(&mut find, "batchSize", i64::try_from(EARLY).unwrap_or(i64::MAX));
            append(
                &mut find,
                "readConcern",
                &*rawdoc! { "level": "majority", "afterClusterTime": as_of },
            );
            let found = source.collect(&namespace.db, find).await;
            let found = found.map_err(|e| {
                source.fault(&format!("reading documents of {namespace} early"), &e)
            })?;
            self.note_reread(namespace).await?;
            if found.iter().any(|document| element::has_doubled_names(document)) {
                self.duplicate_fields.add(namespace).await?;
            }
            for document in found {
                let Some(id) = element::id_of(&document) else { continue };
                let hash = document_key::hash(&id, collated);
                if let Some((record, _)) = others.get(&hash) {
                    records.insert(hash, *record);
                    early.push((*record, Write::new_document(id, document)));
                }
            }
            early.sort_by_key(|(record, _)| *record);
        }
        Ok(Sequence { records, early, collated })
    }
}

/// Records and `_id`s in natural order; `None`: the one to go on from is gone.
async fn records_after(
    source: &Deployment,
    namespace: &Namespace,
    after: i64,
    limit: usize,
    as_of: Timestamp,
) -> Result<Option<Vec<(i64, RawDocumentBuf)>>, Fault> {
    let mut find = order::find(source, namespace, Some(after), Some(as_of));
    append(&mut find, "limit", i64::try_from(limit).unwrap_or(i64::MAX));
    match source.collect(&namespace.db, find).await {
        Ok(found) => {
            let read = |document: &RawDocumentBuf| {
                Some((number(document, "$recordId")?, element::id_of(document)?))
            };
            Ok(Some(found.iter().filter_map(read).collect()))
        }
        Err(e) if error::code(&e).is_some_and(|code| GONE.contains(&code)) => Ok(None),
        Err(e) => Err(source.fault(&format!("reading {namespace} in its order"), &e)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::Sequence;
    use crate::engine::apply::coalesce::{Deletion, Write};
    use crate::engine::document_key;
    use mongodb::bson::{RawDocumentBuf, rawdoc};

    fn new(n: i32) -> Write {
        Write::new_document(rawdoc! { "_id": n }, rawdoc! { "_id": n })
    }

    fn ids(round: &[Write]) -> Vec<RawDocumentBuf> {
        round.iter().map(|write| write.id.clone()).collect()
    }

    #[test]
    fn what_is_new_comes_in_the_order_of_the_records_with_what_is_told_later() {
        let hash = |n: i32| document_key::hash(&rawdoc! { "_id": n }, false);
        let records = HashMap::from([
            (hash(1), 30),
            (hash(2), 10),
            (hash(3), 20),
            (hash(4), 40),
            (hash(5), 25),
        ]);
        let mut sequence = Sequence {
            records,
            early: vec![(20, new(3)), (25, new(5)), (40, new(4))],
            collated: false,
        };
        let mut gone = new(5);
        (gone.delete, gone.content) = (Deletion::Whatever, None);
        let mut round = vec![new(1), gone, new(9), new(2)];
        sequence.arrange(&mut round);
        // 9 is evicted already; 5 has a write of its own; 4 is behind all of them.
        assert_eq!(ids(&round), [5, 9, 2, 3, 1].map(|n| rawdoc! { "_id": n }));
        assert_eq!(sequence.early.len(), 1);
    }
}
