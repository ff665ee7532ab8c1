//! The bounds that a run works within: on memory, on commands, and on what is done twice after a
//! crash.
//!
//! They are one value and no constants, so that tests can make rounds and batches so small that
//! every border is met.

use std::time::Duration;

/// The bounds. The default is what a daemon uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of a part of a collection: repeated at most once by a killed daemon, and large enough
    /// that its start (a sample's look-up, an open cursor, one synced checkpoint) is small beside
    /// it.
    pub part_bytes: u64,
    /// What a batch of the copy should weigh where the readers are few: more does not make it
    /// faster.
    pub batch_bytes: u64,
    /// What the batches of all readers should weigh together. Each is held about six times: while
    /// it is read, read, in its command, in the command that is sent, as what is sent, and as what
    /// the allocator has not given back.
    pub batches_bytes: u64,
    /// A reply is as large as this where a stretch of large documents follows on many small ones,
    /// up to the server's 16 MB. It is then written in pieces, and the next one is not read
    /// meanwhile.
    pub large_batch_bytes: usize,
    /// Documents in one batch of the copy at most: the server's `maxWriteBatchSize`.
    pub batch_documents: u64,
    /// Events in one round of the tail at most.
    pub round_events: usize,
    /// Bytes of events in one round at most.
    pub round_bytes: usize,
    /// Events in one reply of the stream at most: a reply is held whole, and so are those that are
    /// read ahead.
    pub reply_events: u32,
    /// Writers at work at once on one round.
    pub workers: usize,
    /// Changes of one collection in a round that are worth a command of their own: fewer are not
    /// split among writers.
    pub lane_events: usize,
    /// Deltas of one write at most: the server runs each as a stage.
    pub write_deltas: usize,
    /// Bytes of the deltas of one write, which with the delta that passes the bound fit into a
    /// command.
    pub write_delta_bytes: usize,
    /// Bytes of statements in one command of the tail: under the 16 MiB that a command may have; a
    /// document of 16 MiB goes alone.
    pub command_bytes: usize,
    /// Statements in one command of the tail at most: the server's `maxWriteBatchSize`.
    pub command_statements: usize,
    /// Keys that one deletion names at most: the server plans it once, which is a third of what a
    /// deletion costs it.
    pub delete_ids: usize,
    /// Whether updates are asked for as the server's own deltas, where both servers know them.
    /// Otherwise each updated document is read again, as it is from sources of another version.
    pub raw_deltas: bool,
    /// Whether the stream is always read without the documents' contents, as it otherwise is past
    /// an event that is too large.
    pub lean_stream: bool,
    /// Documents read again at once: their sizes are not known, and a reply's batch holds at least
    /// one.
    pub reread_documents: usize,
    /// Operations that queue on the source from which on the copy's readers back off: a server has
    /// 128 places for each kind, so that some in the queue are a burst, and many are users who
    /// wait.
    pub source_queue: u64,
    /// The mean latency of the source's writes from which on they do, unless the writes take about
    /// so long at all times.
    pub source_write_latency: Duration,
    /// How long transactions that are open on the source are waited for before a cutover is put
    /// off: longer than the server lets one be open, unless it was told otherwise.
    pub open_transactions: Duration,
    /// How long a batch of the copy's own may take until they do.
    pub source_read_latency: Duration,
    /// Readers, and writers, of a copy at most where the declaration does not say: more than that
    /// is no matter of waiting any more.
    pub most_workers: usize,
    /// How long a copy is measured until it is said whether it has too few or too many of them:
    /// shorter is a matter of which documents came, longer gets there late.
    pub crew_stretch: Duration,
    /// How often progress of the tail is stored: more often costs a write each, less often is
    /// applied twice after a crash.
    pub checkpoint_every: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            part_bytes: 32 << 20,
            batch_bytes: 2 << 20,
            batches_bytes: 16 << 20,
            large_batch_bytes: 8 << 20,
            batch_documents: 100_000,
            round_events: 20_000,
            round_bytes: 16 << 20,
            reply_events: 5_000,
            workers: 4,
            lane_events: 500,
            write_deltas: 200,
            write_delta_bytes: 4 << 20,
            command_bytes: 12 << 20,
            command_statements: 100_000,
            delete_ids: 2_500,
            raw_deltas: true,
            lean_stream: false,
            reread_documents: 1_000,
            source_queue: 32,
            source_write_latency: Duration::from_millis(100),
            open_transactions: Duration::from_secs(70),
            source_read_latency: Duration::from_secs(5),
            most_workers: 16,
            crew_stretch: Duration::from_secs(2),
            checkpoint_every: Duration::from_millis(250),
        }
    }
}

impl Tuning {
    /// How many documents a batch of the copy asks for, of documents of this mean size, where so
    /// many readers share the memory.
    #[must_use]
    pub fn batch_size(&self, documents: u64, bytes: u64, readers: usize) -> u32 {
        let mean = bytes.checked_div(documents).unwrap_or(1024).max(16);
        let weight = self.batch_bytes.min(self.batches_bytes / (readers as u64).max(1));
        u32::try_from((weight / mean).clamp(1, self.batch_documents.max(1))).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Tuning;

    #[test]
    fn batches_weigh_a_few_megabytes() {
        let tuning = Tuning::default();
        assert_eq!(tuning.batch_size(0, 0, 4), 2048);
        assert_eq!(tuning.batch_size(1, 16 << 20, 4), 1);
        assert_eq!(tuning.batch_size(1_000_000, 16_000_000, 1), 100_000);
        for readers in [8, 16, 64, 256] {
            assert_eq!(
                u64::from(tuning.batch_size(1, 1024, readers)) * 1024 * readers as u64,
                tuning.batches_bytes
            );
        }
    }
}
