//! The bounds that a run works within: on memory, on commands, and on what is done twice after a crash.
//!
//! They are one value and no constants, so that tests can make rounds and batches so small that every border is met.

use std::time::Duration;

/// The bounds. The default is what a daemon uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of a part of a collection: repeated at most once by a killed daemon, and large enough that its start (a sample's
    /// look-up, an open cursor, one synced checkpoint) is small beside it.
    pub part_bytes: u64,
    /// What a batch of the copy should weigh: large enough that a command's fixed cost vanishes, small enough that a handful in
    /// flight fit into the memory bound.
    pub batch_bytes: u64,
    /// Documents in one batch of the copy at most: the server's `maxWriteBatchSize`.
    pub batch_documents: u64,
    /// Events in one round of the tail at most.
    pub round_events: usize,
    /// Bytes of events in one round at most.
    pub round_bytes: usize,
    /// Events in one reply of the stream at most: a reply is held whole, and so are those that are read ahead.
    pub reply_events: u32,
    /// Writers at work at once on one round.
    pub workers: usize,
    /// Deltas of one write at most: the server runs each as a stage.
    pub write_deltas: usize,
    /// Bytes of the deltas of one write, which with the delta that passes the bound fit into a command.
    pub write_delta_bytes: usize,
    /// Bytes of statements in one command of the tail: under the 16 MiB that a command may have; a document of 16 MiB goes alone.
    pub command_bytes: usize,
    /// Statements in one command of the tail at most: the server's `maxWriteBatchSize`.
    pub command_statements: usize,
    /// Documents read again at once: their sizes are not known, and a reply's batch holds at least one.
    pub reread_documents: usize,
    /// How often progress of the tail is stored: more often costs a write each, less often is applied twice after a crash.
    pub checkpoint_every: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            part_bytes: 32 << 20,
            batch_bytes: 4 << 20,
            batch_documents: 100_000,
            round_events: 20_000,
            round_bytes: 16 << 20,
            reply_events: 5_000,
            workers: 4,
            write_deltas: 200,
            write_delta_bytes: 4 << 20,
            command_bytes: 12 << 20,
            command_statements: 100_000,
            reread_documents: 1_000,
            checkpoint_every: Duration::from_millis(250),
        }
    }
}

impl Tuning {
    /// How many documents a batch of the copy asks for, so that it weighs about [`Self::batch_bytes`].
    #[must_use]
    pub fn batch_size(&self, documents: u64, bytes: u64) -> u32 {
        let mean = bytes.checked_div(documents).unwrap_or(1024).max(16);
        u32::try_from((self.batch_bytes / mean).clamp(1, self.batch_documents.max(1))).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Tuning;

    #[test]
    fn batches_weigh_a_few_megabytes() {
        let tuning = Tuning::default();
        assert_eq!(tuning.batch_size(0, 0), 4096);
        assert_eq!(tuning.batch_size(1, 16 << 20), 1);
        assert_eq!(tuning.batch_size(1_000_000, 16_000_000), 100_000);
    }
}
