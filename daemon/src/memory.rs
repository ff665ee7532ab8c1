//! The daemon's one account of large buffers: who reads a reply or sends a command takes its share
//! first, and gives it back.
//!
//! One account serves all runs, all shards, and whatever they do side by side, so that the memory
//! of the process is bounded by what it was given ([`MIN_BYTES`] or more), and not by how large
//! documents are or how many runs there are.
//!
//! ```text
//! limit = OUTSIDE                 the process itself: code, threads, connections, SQLite
//!       + commands                what is being sent, as often as the driver holds it
//!       + replies                 what is being read, and what was read and is still held
//!            of which at most replies - FOR_READERS for what the tails have read ahead
//! ```
//!
//! What a reply will weigh is not known before it is there, and may be 16 MB whatever the mean is.
//! So a reader takes what the largest takes, and gives back all but what came ([`Share::shrink`]):
//! many replies are held, few are on their way.
//!
//! **It cannot deadlock.** There are three kinds of shares, and a holder waits only for kinds
//! further on in this list:
//! 1. *ahead* ([`Memory::ahead`]): a tail's events, until they are applied, and those of the
//!    destination's own stream until they are judged. Its holder may wait for the tail's lock
//!    between two rounds, for replies, and for commands.
//! 2. *replies* ([`Memory::reply`], [`Memory::pair`]): what a copy, a comparison, or a second look
//!    reads. Its holder waits for commands only; never for the tail's lock, for a tail, nor for
//!    another reply but where the one it holds is given back meanwhile whatever becomes of the wait
//!    (the copy writes one batch while it reads the next).
//! 3. *commands* ([`Memory::command`]): held while the server works on one. Its holder waits for
//!    nothing but the server.
//!
//! Shares of a kind are given in the order in which they were asked for. So every command ends; so
//! every reply is given back; those always have [`FOR_READERS`] that no tail holds, which is the
//! largest share there is; so every round is applied and its events are given back. Only the shards
//! of one source wait for each other, since their events are merged: a shard whose events are
//! missing while the others' wait for them does not wait for a share ([`Memory::overdraw`]), and
//! may hold one reply beyond the account.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemas::fault::{Fault, FaultCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const MB: u64 = 1 << 20;
/// The largest reply, rounded up: a document of 16 MB and what is around it.
const REPLY: u64 = 16 * MB + 64 * 1024;
/// The driver holds a reply twice while it reads it: as it came from the socket, and as the
/// document in it.
const READING: u64 = 2 * REPLY;
/// A command is held three times at its height: as it was made, and, in the driver, as the copy
/// that is serialised and as what it is serialised to; or as the latter and what goes to the
/// socket.
const COPIES_OF_COMMAND: u64 = 3;
/// The largest command of ours: one document of 16 MB.
const COMMAND: u64 = COPIES_OF_COMMAND * REPLY;
/// Two replies that are read side by side: the most that anybody holds of replies.
const FOR_READERS: u64 = 2 * READING;
/// What is set aside for the process without large buffers, and for what the allocator keeps of
/// small ones: an estimate, held by the tests of memory, which see the whole process stay within
/// its bound.
const OUTSIDE: u64 = 44 * MB;
/// A tail's next reply is expected to weigh no less: nearly all are this small where documents are.
const LEAST_AHEAD: u64 = 512 * 1024;
/// Shares are counted in pieces of this many bytes.
const PIECE: u64 = 1024;

/// The least that a daemon works with: one document of 16 MB on its way through each of its parts.
pub const MIN_BYTES: u64 = OUTSIDE + COMMAND + FOR_READERS + READING;
/// What a daemon has unless it is told otherwise.
pub const DEFAULT_BYTES: u64 = 256 * MB;

/// The account.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Account>);

#[derive(Debug)]
struct Account {
    commands: Arc<Semaphore>,
    all_commands: u32,
    replies: Arc<Semaphore>,
    all_replies: u32,
    /// What of the replies' the tails may hold.
    ahead: Arc<Semaphore>,
    all_ahead: u32,
    /// Replies that were read beyond the account.
    overdrawn: AtomicU64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::of(DEFAULT_BYTES)
    }
}

/// Bytes as pieces, rounded up.
fn pieces(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX)
}

fn pool(pieces: u32) -> Arc<Semaphore> {
    // A semaphore has room for more than a `u32` where a `usize` has 64 bits, and it is bounded
    // where not.
    Arc::new(Semaphore::new(
        usize::try_from(pieces).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
    ))
}

async fn take(pool: &Arc<Semaphore>, pieces: u32) -> OwnedSemaphorePermit {
    Arc::clone(pool).acquire_many_owned(pieces).await.expect("no pool is ever closed")
}

impl Memory {
    /// An account of so many bytes, for the whole process; [`MIN_BYTES`] where it is less.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let room = limit.max(MIN_BYTES) - OUTSIDE;
        // A third to the writers: a command weighs three times what a reply of the same documents
        // does, and is held as long.
        let commands = (room / 3).max(COMMAND);
        let replies = room - commands;
        let (all_commands, all_replies, all_ahead) =
            (pieces(commands), pieces(replies), pieces(replies - FOR_READERS));
        Self(Arc::new(Account {
            commands: pool(all_commands),
            all_commands,
            replies: pool(all_replies),
            all_replies,
            ahead: pool(all_ahead),
            all_ahead,
            overdrawn: AtomicU64::new(0),
        }))
    }

    /// An account of so many MiB, as an operator sets it.
    ///
    /// # Errors
    /// Where that is less than it takes.
    pub fn of_mb(limit: u64) -> Result<Self, Fault> {
        let least = MIN_BYTES.div_ceil(MB);
        if limit < least {
            let message = format!(
                "--memory-mb {limit} is too little: a document of 16 MB on its way takes {least}"
            );
            let remedy = format!("give it {least} or more; {} is the default", DEFAULT_BYTES / MB);
            return Err(Fault::new(FaultCode::InvalidConfiguration, message).with_remedy(remedy));
        }
        Ok(Self::of(limit.saturating_mul(MB)))
    }

    /// How many replies may be on their way at once.
    #[must_use]
    pub fn replies_at_once(&self) -> usize {
        (self.0.all_replies / pieces(READING)) as usize
    }

    /// How many commands of these bytes may be on their way at once.
    #[must_use]
    pub fn commands_at_once(&self, bytes: u64) -> usize {
        (self.0.all_commands / pieces(bytes.saturating_mul(COPIES_OF_COMMAND)).max(1)).max(1)
            as usize
    }

    /// A share for one reply of whatever weight, while it is read; to be shrunk to what came.
    pub async fn reply(&self) -> Share {
        Share { replies: Some(take(&self.0.replies, pieces(READING)).await), ahead: None }
    }

    /// A share for two replies that are read side by side; to be shrunk to what came.
    pub async fn pair(&self) -> Share {
        Share { replies: Some(take(&self.0.replies, pieces(FOR_READERS)).await), ahead: None }
    }

    /// A share for a tail's next reply, where the last one weighed so much. One that turns out
    /// heavier is met by [`Share::grow`].
    pub async fn ahead(&self, last: u64) -> Share {
        let wanted =
            pieces(last.saturating_mul(2).clamp(LEAST_AHEAD, READING)).min(self.0.all_ahead);
        // First the right to it, so that those who wait for it keep nothing from others.
        let ahead = take(&self.0.ahead, wanted).await;
        let replies = take(&self.0.replies, wanted).await;
        Share { replies: Some(replies), ahead: Some(ahead) }
    }

    /// A share of nothing, for a reply that nobody can wait with.
    pub fn overdraw(&self) -> Share {
        self.0.overdrawn.fetch_add(1, Ordering::Relaxed);
        Share { replies: None, ahead: None }
    }

    /// How many replies were read beyond the account since it was made.
    #[must_use]
    pub fn overdrawn(&self) -> u64 {
        self.0.overdrawn.load(Ordering::Relaxed)
    }

    /// A share for a command of these bytes, until it is answered.
    pub async fn command(&self, bytes: usize) -> Share {
        let wanted =
            pieces((bytes as u64).saturating_mul(COPIES_OF_COMMAND)).clamp(1, self.0.all_commands);
        Share { replies: Some(take(&self.0.commands, wanted).await), ahead: None }
    }
}

/// A part of the account, given back when it is dropped.
#[derive(Debug)]
#[must_use = "it is given back when it is dropped"]
pub struct Share {
    replies: Option<OwnedSemaphorePermit>,
    ahead: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Gives back all but so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let keep = usize::try_from(pieces(bytes as u64)).unwrap_or(usize::MAX);
        for permit in [&mut self.replies, &mut self.ahead].into_iter().flatten() {
            // The part that is split off is dropped at once.
            let _ =
                permit.num_permits().checked_sub(keep).and_then(|surplus| permit.split(surplus));
        }
    }

    /// Takes what is missing of so many bytes, where it is there at once. It never waits: what is
    /// to be paid for is held already.
    pub fn grow(&mut self, memory: &Memory, bytes: usize) {
        for (permit, pool) in
            [(&mut self.ahead, &memory.0.ahead), (&mut self.replies, &memory.0.replies)]
        {
            let Some(permit) = permit else { continue };
            let have = u32::try_from(permit.num_permits()).unwrap_or(u32::MAX);
            let missing = pieces(bytes as u64).saturating_sub(have);
            if missing > 0
                && let Ok(more) = Arc::clone(pool).try_acquire_many_owned(missing)
            {
                permit.merge(more);
            }
        }
    }
}

#[cfg(test)]
mod tests;
