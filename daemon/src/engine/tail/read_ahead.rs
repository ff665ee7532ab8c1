//! What of the memory the events hold that were read ahead: until the round is applied that has the
//! last event of their reply.

use std::collections::VecDeque;

use super::merge::Lane;
use crate::memory::Share;

/// The shares of the replies whose events are not all in a round yet, in their order.
#[derive(Debug)]
pub(super) struct Held {
    lanes: Vec<VecDeque<(usize, Share)>>,
}

impl Held {
    /// Nothing, of so many lanes.
    pub(super) fn nothing(lanes: usize) -> Self {
        Self { lanes: (0..lanes).map(|_| VecDeque::new()).collect() }
    }

    /// A reply with so many events has come; one without any holds nothing.
    pub(super) fn push(&mut self, lane: Lane, events: usize, share: Share) {
        if events > 0 {
            self.lanes[lane].push_back((events, share));
        }
    }

    /// The lane's next event goes into a round. Gives its reply's share, where it is the last of
    /// it.
    pub(super) fn pop(&mut self, lane: Lane) -> Option<Share> {
        let (left, _) = self.lanes[lane].front_mut()?;
        *left -= 1;
        if *left == 0 { self.lanes[lane].pop_front().map(|(_, share)| share) } else { None }
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
        let given: Vec<bool> = [0, 1, 0, 0, 0].map(|lane| held.pop(lane).is_some()).to_vec();
        assert_eq!(given, [false, true, true, true, false]);
    }
}
