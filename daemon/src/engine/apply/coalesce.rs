//! Folds a worker's changes into as few writes as give the same documents.
//!
//! The result is a list of rounds. Within a round each key occurs once, so that its commands may
//! run unordered; the rounds run in order. What a document was before its last whole content does
//! not matter and is left out.

use std::collections::HashMap;

use mongodb::bson::RawDocumentBuf;

use crate::engine::change_event::{Change, Op};
use crate::engine::tuning::Tuning;

/// A document's whole content.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// It is new: inserted.
    New(RawDocumentBuf),
    /// It is there, or may be: replaced, or inserted.
    Changed(RawDocumentBuf),
    /// It is read from the source.
    Reread,
}

/// What is deleted of a document.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Deletion {
    /// Nothing.
    #[default]
    None,
    /// It, whatever it holds.
    Whatever,
    /// It, where it has this key still.
    Keyed(RawDocumentBuf),
}

/// What becomes of one document in one round, in this order: deletion, content, deltas.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// A document `{_id: …}`.
    pub id: RawDocumentBuf,
    /// Whether it is deleted first.
    pub delete: Deletion,
    /// Its content, if that is reported whole.
    pub content: Option<Content>,
    /// Changes of it.
    pub deltas: Vec<RawDocumentBuf>,
    delta_bytes: usize,
}

impl Write {
    fn new(id: RawDocumentBuf) -> Self {
        Self { id, delete: Deletion::None, content: None, deltas: Vec::new(), delta_bytes: 0 }
    }

    /// A document's whole content, to replace what is there.
    #[must_use]
    pub fn whole(id: RawDocumentBuf, document: RawDocumentBuf) -> Self {
        Self { content: Some(Content::Changed(document)), ..Self::new(id) }
    }

    /// A document that is new.
    #[must_use]
    pub fn new_document(id: RawDocumentBuf, document: RawDocumentBuf) -> Self {
        Self { content: Some(Content::New(document)), ..Self::new(id) }
    }

    /// Its content, where that is reported whole.
    #[must_use]
    pub fn document(&self) -> Option<&RawDocumentBuf> {
        match &self.content {
            Some(Content::New(document) | Content::Changed(document)) => Some(document),
            Some(Content::Reread) | None => None,
        }
    }

    /// Whether another change of the document goes with these. What a keyed deletion meets depends
    /// on everything before it, and decides on nothing after it: it is alone.
    fn takes(&self, op: &Op, tuning: &Tuning) -> bool {
        match op {
            _ if matches!(self.delete, Deletion::Keyed(_)) => false,
            Op::DeleteKeyed(_) => false,
            Op::Diff(delta) => {
                let bytes = self.delta_bytes + delta.as_bytes().len();
                self.deltas.is_empty()
                    || (self.deltas.len() < tuning.write_deltas
                        && bytes <= tuning.write_delta_bytes)
            }
            Op::Insert(_) | Op::Replace(_) | Op::Reread | Op::Delete => true,
        }
    }

    fn put(&mut self, op: Op) {
        match op {
            Op::Delete => {
                (self.delete, self.content) = (Deletion::Whatever, None);
                self.clear_deltas();
            }
            Op::DeleteKeyed(key) => self.delete = Deletion::Keyed(key),
            Op::Insert(document) => {
                self.content = Some(Content::New(document));
                self.clear_deltas();
            }
            Op::Replace(document) => {
                self.content = Some(match self.content {
                    Some(Content::New(_)) => Content::New(document),
                    _ if self.delete == Deletion::Whatever => Content::New(document),
                    _ => Content::Changed(document),
                });
                self.clear_deltas();
            }
            Op::Reread => {
                self.content = Some(Content::Reread);
                self.clear_deltas();
            }
            Op::Diff(delta) => {
                self.delta_bytes += delta.as_bytes().len();
                self.deltas.push(delta);
            }
        }
    }

    fn clear_deltas(&mut self) {
        self.deltas.clear();
        self.delta_bytes = 0;
    }
}

/// Folds changes of one namespace, each with the hash of its key, in their order.
#[must_use]
pub fn fold(changes: impl IntoIterator<Item = (u64, Change)>, tuning: &Tuning) -> Vec<Vec<Write>> {
    let mut rounds: Vec<Vec<Write>> = Vec::new();
    // Where the last write of a key class is. Keys that are equal to the server and differ in their
    // bytes share a class, and so do keys whose hashes collide: the later one then only waits for a
    // round of its own.
    let mut last: HashMap<u64, (usize, usize)> = HashMap::new();
    for (hash, change) in changes {
        let place = match last.get(&hash) {
            Some(&(round, at)) => {
                let write = &rounds[round][at];
                (write.id == change.id && write.takes(&change.op, tuning)).then_some((round, at))
            }
            None => None,
        };
        let (round, at) = place.unwrap_or_else(|| {
            let round = last.get(&hash).map_or(0, |(round, _)| round + 1);
            if round == rounds.len() {
                rounds.push(Vec::new());
            }
            rounds[round].push(Write::new(change.id));
            (round, rounds[round].len() - 1)
        });
        last.insert(hash, (round, at));
        rounds[round][at].put(change.op);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::{Content, Deletion};
    use crate::engine::change_event::{Change, Op};
    use crate::engine::tuning::Tuning;
    use mongodb::bson::{RawDocumentBuf, rawdoc};

    fn change(id: RawDocumentBuf, op: Op) -> (u64, Change) {
        let hash = crate::engine::document_key::hash(&id, false);
        (hash, Change { namespace: "a.b".parse().expect("a namespace"), id, op })
    }

    fn fold(changes: impl IntoIterator<Item = (u64, Change)>) -> Vec<Vec<super::Write>> {
        super::fold(changes, &Tuning::default())
    }

    fn delta(n: i32) -> Op {
        Op::Diff(rawdoc! { "$v": 2, "diff": { "u": { "n": n } } })
    }

    #[test]
    fn changes_of_one_document_become_one_write() {
        let id = || rawdoc! { "_id": 1 };
        let rounds = fold([
            change(id(), Op::Insert(rawdoc! { "_id": 1, "n": 0 })),
            change(id(), delta(1)),
            change(rawdoc! { "_id": 2 }, Op::Delete),
            change(id(), delta(2)),
        ]);
        assert_eq!(rounds.len(), 1);
        assert_eq!(rounds[0].len(), 2);
        assert_eq!(rounds[0][0].deltas.len(), 2);
        assert_eq!(rounds[0][0].content, Some(Content::New(rawdoc! { "_id": 1, "n": 0 })));
        assert_eq!(rounds[0][1].delete, Deletion::Whatever);
    }

    #[test]
    fn what_came_before_a_whole_content_is_left_out() {
        let id = || rawdoc! { "_id": 1 };
        let rounds = fold([
            change(id(), delta(1)),
            change(id(), Op::Replace(rawdoc! { "_id": 1 })),
            change(id(), Op::Delete),
        ]);
        assert_eq!(rounds.len(), 1);
        let write = &rounds[0][0];
        assert!(
            write.delete == Deletion::Whatever
                && write.content.is_none()
                && write.deltas.is_empty()
        );
    }

    #[test]
    fn a_document_made_anew_is_deleted_first() {
        let id = || rawdoc! { "_id": 1 };
        let rounds = fold([
            change(id(), Op::Delete),
            change(id(), Op::Insert(rawdoc! { "_id": 1, "n": 2 })),
        ]);
        assert_eq!(rounds[0][0].delete, Deletion::Whatever);
        assert_eq!(rounds[0][0].content, Some(Content::New(rawdoc! { "_id": 1, "n": 2 })));
    }

    #[test]
    fn equal_keys_with_other_bytes_keep_their_order() {
        let rounds = fold([
            change(rawdoc! { "_id": 1 }, Op::Delete),
            change(rawdoc! { "_id": 1.0 }, Op::Insert(rawdoc! { "_id": 1.0 })),
            change(rawdoc! { "_id": 1.0 }, Op::Delete),
            change(rawdoc! { "_id": 1_i64 }, Op::Insert(rawdoc! { "_id": 1_i64 })),
        ]);
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn a_deletion_by_shard_key_is_alone() {
        let id = || rawdoc! { "_id": 1 };
        let keyed = |a: i32| Op::DeleteKeyed(rawdoc! { "a": a, "_id": 1 });
        let inserted = |a: i32| Op::Insert(rawdoc! { "_id": 1, "a": a });
        let rounds = fold(
            [inserted(2), keyed(1), inserted(3), delta(4), keyed(2)].map(|op| change(id(), op)),
        );
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1]);
        let deletions: Vec<&Deletion> = rounds.iter().map(|round| &round[0].delete).collect();
        let of = |a: i32| Deletion::Keyed(rawdoc! { "a": a, "_id": 1 });
        assert_eq!(deletions, [&Deletion::None, &of(1), &Deletion::None, &of(2)]);
        assert!(rounds[1][0].content.is_none() && rounds[2][0].deltas.len() == 1);
    }

    #[test]
    fn a_hot_document_is_bounded() {
        let rounds = fold((0..1000).map(|n| change(rawdoc! { "_id": 1 }, delta(n))));
        assert_eq!(rounds.len(), 5);
    }

    #[test]
    fn large_deltas_do_not_share_a_command() {
        let large = |n: i32| {
            Op::Diff(rawdoc! { "$v": 2, "diff": { "u": { "n": n, "text": "x".repeat(3 << 20) } } })
        };
        let rounds =
            fold([change(rawdoc! { "_id": 1 }, large(1)), change(rawdoc! { "_id": 1 }, large(2))]);
        assert_eq!(rounds.len(), 2);
    }
}
