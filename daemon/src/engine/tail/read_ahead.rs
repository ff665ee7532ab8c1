//! What of the memory the events hold that were read ahead: until the round is applied that has the
//! last event of their reply.

use std::collections::VecDeque;

use super::merge::ShardIndex;
use crate::memory::Share;

/// The shares of the replies whose events are not all in a round yet, in their order.
#[derive(Debug)]
pub(super) struct Held {
    shard_indexes: Vec<VecDeque<(usize, Share)>>,
}

impl Held {
    /// Nothing, of so many shards.
    pub(super) fn nothing(shard_indexes: usize) -> Self {
        Self { shard_indexes: (0..shard_indexes).map(|_| VecDeque::new()).collect() }
    }

    /// A reply with so many events has come; one without any holds nothing.
    pub(super) fn push(&mut self, shard_index: ShardIndex, events: usize, share: Share) {
        if events > 0 {
            self.shard_indexes[shard_index].push_back((events, share));
        }
    }

    /// The shard's next event goes into a round. Gives its reply's share, where it is the last of
    /// it.
    pub(super) fn pop(&mut self, shard_index: ShardIndex) -> Option<Share> {
        let (left, _) = self.shard_indexes[shard_index].front_mut()?;
        *left -= 1;
        if *left == 0 {
            self.shard_indexes[shard_index].pop_front().map(|(_, share)| share)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Held;
    use crate::memory::Memory;

    #[test]
    fn a_reply_is_held_until_its_last_event_is_in_a_round() {
        let memory = Memory::default();
        let mut held = Held::nothing(2);
        held.push(0, 2, memory.overdraw());
        held.push(0, 0, memory.overdraw());
        held.push(0, 1, memory.overdraw());
        held.push(1, 1, memory.overdraw());
        let given: Vec<bool> =
            [0, 1, 0, 0, 0].map(|shard_index| held.pop(shard_index).is_some()).to_vec();
        assert_eq!(given, [false, true, true, true, false]);
    }
}
