//! Reads documents of one side one after the other, in the replies as they came: nothing is copied
//! that nobody keeps.

use std::ops::Range;

use futures_util::StreamExt as _;
use mongodb::bson::{RawDocument, RawDocumentBuf, rawdoc};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use schemas::fault::Fault;
use schemas::namespace::Namespace;
use sha2::{Digest as _, Sha256};

use crate::engine::catalog::{self, CollectionInfo, Kind};
use crate::memory::{Memory, Share};
use crate::mongo::{Deployment, append, error, server_code};

/// Documents of one side, in the server's order.
pub(super) struct Reader<'a> {
    deployment: &'a Deployment,
    namespace: &'a Namespace,
    cursor: Option<RawBatchCursor>,
    reply: Option<RawBatch>,
    /// Where documents lie in the reply.
    places: std::vec::IntoIter<Range<usize>>,
    front: Option<Range<usize>>,
}

impl<'a> Reader<'a> {
    /// Opens a `find`; a collection that does not exist has no documents, and neither has one that
    /// is a view by now.
    pub(super) async fn open(
        deployment: &'a Deployment,
        namespace: &'a Namespace,
        find: RawDocumentBuf,
        size: u32,
    ) -> Result<Self, Fault> {
        match Self::try_open(deployment, namespace, find, size).await {
            Ok(reader) => Ok(reader),
            Err(e) => match catalog::find(deployment, namespace).await? {
                None if error::code(&e) == Some(server_code::BAD_VALUE) => {
                    Ok(Self::new(deployment, namespace, None))
                }
                // It was a collection when it was listed, and is read as one: with what no view
                // takes.
                Some(CollectionInfo { kind: Kind::View, .. }) => {
                    Ok(Self::new(deployment, namespace, None))
                }
                None | Some(_) => Err(deployment.fault(&format!("reading {namespace}"), &e)),
            },
        }
    }

    /// Opens a `find`, and leaves what the server says to the caller.
    pub(super) async fn try_open(
        deployment: &'a Deployment,
        namespace: &'a Namespace,
        find: RawDocumentBuf,
        size: u32,
    ) -> Result<Self, mongodb::error::Error> {
        let mut find = find;
        append(&mut find, "batchSize", i64::from(size));
        let cursor = deployment.batches(&namespace.db, find, size).await?;
        Ok(Self::new(deployment, namespace, Some(cursor)))
    }

    fn new(
        deployment: &'a Deployment,
        namespace: &'a Namespace,
        cursor: Option<RawBatchCursor>,
    ) -> Self {
        Self {
            deployment,
            namespace,
            cursor,
            reply: None,
            places: Vec::new().into_iter(),
            front: None,
        }
    }

    /// Makes sure that a document is in front, unless there is none any more.
    pub(super) async fn fill(&mut self) -> Result<(), Fault> {
        while self.front.is_none() {
            let Some(cursor) = &mut self.cursor else { return Ok(()) };
            // The last reply goes before the next one comes: each can weigh 16 MB.
            self.reply = None;
            let fault = |e: mongodb::error::Error| {
                self.deployment.fault(&format!("reading {}", self.namespace), &e)
            };
            match cursor.next().await {
                None => self.cursor = None,
                Some(reply) => {
                    let reply = reply.map_err(fault)?;
                    let start = reply.as_raw_document().as_bytes().as_ptr() as usize;
                    let mut places: Vec<Range<usize>> = Vec::new();
                    for value in reply.doc_slices().map_err(fault)? {
                        if let Some(document) = value.map_err(|e| fault(e.into()))?.as_document() {
                            let from = document.as_bytes().as_ptr() as usize - start;
                            places.push(from..from + document.as_bytes().len());
                        }
                    }
                    self.reply = Some(reply);
                    self.places = places.into_iter();
                    self.front = self.places.next();
                }
            }
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.front.is_none() && self.cursor.is_none()
    }

    fn held(&self) -> usize {
        self.reply.as_ref().map_or(0, |reply| reply.as_raw_document().as_bytes().len())
    }

    /// The document in front, as bytes.
    pub(super) fn front(&self) -> Option<&[u8]> {
        self.reply.as_ref()?.as_raw_document().as_bytes().get(self.front.clone()?)
    }

    /// Goes on to the next document of the reply.
    pub(super) fn pass(&mut self) {
        self.front = self.places.next();
    }
}

/// The readers of both sides, within the memory that two replies take.
///
/// One side never waits for its next reply while the other holds one: two pairs would keep each
/// other from theirs. So both are read again only once all of both is passed.
pub(super) struct Pair<'a> {
    pub(super) ours: Reader<'a>,
    pub(super) theirs: Reader<'a>,
    memory: &'a Memory,
    /// Of the replies that are held.
    share: Option<Share>,
    /// Nothing was read but by opening.
    is_opened: bool,
}

impl<'a> Pair<'a> {
    /// `share`: for two replies, taken before the readers were opened, which has brought their
    /// first ones.
    pub(super) const fn new(
        ours: Reader<'a>,
        theirs: Reader<'a>,
        memory: &'a Memory,
        share: Share,
    ) -> Self {
        Self { ours, theirs, memory, share: Some(share), is_opened: true }
    }

    const fn is_passed(&self) -> bool {
        self.ours.front.is_none() && self.theirs.front.is_none()
    }

    /// Gives back what has come, where all of it is passed. Answers whether it is: then nothing is
    /// held, and anything may be waited for.
    pub(super) fn let_go(&mut self) -> bool {
        let lets_go = !self.is_opened && self.is_passed();
        if lets_go {
            (self.ours.reply, self.theirs.reply, self.share) = (None, None, None);
        }
        lets_go
    }

    /// Reads on where all that has come is passed. Answers whether there is anything more.
    pub(super) async fn fill(&mut self) -> Result<bool, Fault> {
        if !self.let_go() && !self.is_opened {
            return Ok(true);
        }
        if self.ours.has_ended() && self.theirs.has_ended() {
            return Ok(false);
        }
        let mut share = match self.share.take() {
            Some(share) => share,
            None => self.memory.pair().await,
        };
        self.is_opened = false;
        tokio::try_join!(self.ours.fill(), self.theirs.fill())?;
        share.shrink(self.ours.held() + self.theirs.held());
        self.share = Some(share);
        Ok(!self.is_passed())
    }
}

/// What is kept of a document until the other side's comes: enough to say whether the two are the
/// same bytes.
pub(super) type Imprint = [u8; 32];

/// The imprint of a document.
pub(super) fn imprint(document: &[u8]) -> Imprint {
    Sha256::digest(document).into()
}

/// A document `{_id: …}` with this one's `_id`, as bytes.
pub(super) fn only_id(document: &[u8]) -> RawDocumentBuf {
    RawDocument::from_bytes(document)
        .ok()
        .and_then(crate::engine::element::id_of)
        .unwrap_or_else(|| rawdoc! {})
}
