//! Several shards' change streams as one, in the order of their cluster times.
//!
//! A document whose shard key changes is deleted on one shard and inserted on another, and a
//! definition is reported by every shard that holds its collection: what is applied must be in one
//! order over all shards. So an event is let out only when no other shard can still report an
//! earlier one. How far a shard has reported is its *frontier*: the time of the newest token it
//! gave, with or without an event. Events of different shards at one and the same time do not
//! depend on each other, but for the halves of one transaction, and those commute: a delete names
//! the whole shard key of the document that it removes.
//!
//! Of a single stream every event is let out at once. Memory is bounded by the caller, who takes
//! replies only of the shards that [`Merge::wanted`] names: of each other one, part of a reply is
//! here already.

use std::collections::VecDeque;

use mongodb::bson::RawDocumentBuf;
use schemas::cluster_time::ClusterTime;

/// Something that happened at a cluster time.
pub trait Timed {
    /// When.
    fn time(&self) -> ClusterTime;
}

impl Timed for crate::engine::change_event::Event {
    fn time(&self) -> ClusterTime {
        self.time
    }
}

/// A place among the shards, in the order in which the merge was given them.
pub type ShardIndex = usize;

/// Up to where everything of a shard has been told.
#[derive(Debug, Clone, PartialEq)]
pub struct Passed {
    /// The token behind it.
    pub token: RawDocumentBuf,
    /// Its time.
    pub time: ClusterTime,
}

#[derive(Debug)]
struct Stream<E> {
    queue: VecDeque<E>,
    /// Nothing earlier is still to come.
    frontier: ClusterTime,
    /// The token of the frontier, from a reply that is not yet passed.
    told: Option<Passed>,
}

/// Merges streams.
#[derive(Debug)]
pub struct Merge<E> {
    streams: Vec<Stream<E>>,
}

impl<E: Timed> Merge<E> {
    /// A merge of streams that begin at these times.
    #[must_use]
    pub fn new(begin: impl IntoIterator<Item = ClusterTime>) -> Self {
        let stream = |frontier| Stream { queue: VecDeque::new(), frontier, told: None };
        Self { streams: begin.into_iter().map(stream).collect() }
    }

    /// Takes a shard's reply in: its events, and the token and time up to which it has reported
    /// everything.
    pub fn push(&mut self, shard_index: ShardIndex, events: Vec<E>, told: Option<Passed>) {
        let stream = &mut self.streams[shard_index];
        if stream.queue.is_empty() {
            stream.queue = events.into();
        } else {
            stream.queue.extend(events);
        }
        if let Some(last) = stream.queue.back() {
            stream.frontier = stream.frontier.max(last.time());
        }
        if let Some(told) = told {
            stream.frontier = stream.frontier.max(told.time);
            stream.told = Some(told);
        }
    }

    /// Lets out the next event and its shard; `None`: another shard may still report an earlier
    /// one.
    pub fn pop(&mut self) -> Option<(ShardIndex, E)> {
        if let [only] = &mut self.streams[..] {
            return only.queue.pop_front().map(|event| (0, event));
        }
        let (shard_index, time) = self
            .streams
            .iter()
            .enumerate()
            .filter_map(|(shard_index, stream)| {
                stream.queue.front().map(|event| (shard_index, event.time()))
            })
            .min_by_key(|(shard_index, time)| (*time, *shard_index))?;
        let is_next = self.streams.iter().enumerate().all(|(other, stream)| {
            other == shard_index || !stream.queue.is_empty() || stream.frontier >= time
        });
        if !is_next {
            return None;
        }
        self.streams[shard_index].queue.pop_front().map(|event| (shard_index, event))
    }

    /// The shards whose next reply is needed: nothing of them is waiting here.
    pub fn wanted(&self) -> impl Iterator<Item = ShardIndex> {
        self.streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.queue.is_empty())
            .map(|(shard_index, _)| shard_index)
    }

    /// The shard that holds the others up, where their events wait for it: a note in its oplog lets
    /// it tell how far it is.
    #[must_use]
    pub fn holds_up(&self) -> Option<ShardIndex> {
        let earliest =
            self.streams.iter().filter_map(|stream| stream.queue.front().map(Timed::time)).min()?;
        let behind = self
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.queue.is_empty() && stream.frontier < earliest);
        behind.min_by_key(|(_, stream)| stream.frontier).map(|(shard_index, _)| shard_index)
    }

    /// How far a shard has reported past its last event, once all of its events are let out; each
    /// time that it has reported more, once.
    pub fn take_told(&mut self, shard_index: ShardIndex) -> Option<Passed> {
        let stream = &mut self.streams[shard_index];
        if stream.queue.is_empty() { stream.told.take() } else { None }
    }

    /// The time up to which everything of every shard has been told and let out; `None`: more is
    /// waiting of every one of them.
    ///
    /// What waits of a shard while nothing waits of another waits for that other one, and so is
    /// later than what it has reported.
    #[must_use]
    pub fn settled(&self) -> Option<ClusterTime> {
        self.streams
            .iter()
            .filter(|stream| stream.queue.is_empty())
            .map(|stream| stream.frontier)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::{Merge, Passed, Timed};
    use mongodb::bson::rawdoc;
    use rand::Rng as _;
    use schemas::cluster_time::ClusterTime;

    #[derive(Debug, Clone, PartialEq)]
    struct At(ClusterTime);

    impl Timed for At {
        fn time(&self) -> ClusterTime {
            self.0
        }
    }

    fn time(t: u32) -> ClusterTime {
        ClusterTime { t, i: 0 }
    }

    fn at(t: u32) -> At {
        At(time(t))
    }

    fn told(t: u32) -> Option<Passed> {
        Some(Passed { token: rawdoc! { "told": i64::from(t) }, time: time(t) })
    }

    fn times(merge: &mut Merge<At>) -> Vec<u32> {
        std::iter::from_fn(|| merge.pop()).map(|(_, event)| event.0.t).collect()
    }

    #[test]
    fn an_event_waits_until_no_other_shard_can_tell_an_earlier_one() {
        let mut merge = Merge::new([time(1), time(1), time(1)]);
        merge.push(0, vec![at(5), at(9)], told(9));
        assert_eq!(times(&mut merge), Vec::<u32>::new());
        assert_eq!(merge.holds_up(), Some(1));
        merge.push(1, vec![at(7)], told(7));
        assert_eq!((times(&mut merge), merge.holds_up()), (vec![], Some(2)));
        merge.push(2, vec![], told(8));
        assert_eq!(times(&mut merge), [5, 7]);
        assert_eq!(merge.wanted().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(merge.holds_up(), Some(1));
        assert_eq!(merge.settled(), Some(time(7)));
        merge.push(1, vec![], told(20));
        merge.push(2, vec![], told(9));
        assert_eq!(times(&mut merge), [9]);
        assert_eq!(merge.holds_up(), None);
        assert_eq!(merge.settled(), Some(time(9)));
    }

    #[test]
    fn a_checkpoint_never_passes_what_is_not_let_out() {
        let mut merge = Merge::new([time(1), time(1)]);
        merge.push(0, vec![at(5), at(9)], told(12));
        merge.push(1, vec![], told(6));
        assert_eq!(times(&mut merge), [5]);
        assert_eq!((merge.take_told(0), merge.take_told(1)), (None, told(6)));
        merge.push(1, vec![], told(30));
        assert_eq!(times(&mut merge), [9]);
        assert_eq!((merge.take_told(0), merge.take_told(0)), (told(12), None));
    }

    #[test]
    fn of_one_stream_everything_is_let_out_at_once() {
        let mut merge = Merge::new([time(1)]);
        merge.push(0, vec![at(5), at(5), at(6)], None);
        assert_eq!((merge.settled(), times(&mut merge)), (None, vec![5, 5, 6]));
        assert_eq!(merge.settled(), Some(time(6)));
    }

    #[test]
    fn whatever_arrives_when_the_order_is_that_of_time_and_nothing_is_lost() {
        let mut random = rand::rng();
        for _ in 0..200 {
            let shards = random.random_range(1..5);
            let mut left: Vec<Vec<u32>> = (0..shards)
                .map(|_| {
                    let mut times: Vec<u32> = (0..random.random_range(0..30))
                        .map(|_| random.random_range(2..60))
                        .collect();
                    times.sort_unstable();
                    times
                })
                .collect();
            let mut expected: Vec<u32> = left.concat();
            expected.sort_unstable();
            let mut merge = Merge::new(vec![time(1); shards]);
            let mut seen = Vec::new();
            let mut is_over = false;
            while !is_over {
                let wanted: Vec<usize> = merge.wanted().collect();
                is_over = wanted.len() == shards && left.iter().all(Vec::is_empty);
                for shard_index in wanted {
                    let count = random.random_range(0..=left[shard_index].len().min(4));
                    let events: Vec<At> = left[shard_index].drain(..count).map(at).collect();
                    let frontier = left[shard_index]
                        .first()
                        .map_or(Some(100), |next| events.last().map_or(Some(next - 1), |_| None));
                    merge.push(shard_index, events, frontier.and_then(told));
                }
                seen.extend(times(&mut merge));
            }
            assert_eq!(seen, expected);
        }
    }
}
