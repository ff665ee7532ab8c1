//! Several shards' change streams as one, in the order of their cluster times.
//!
//! A document whose shard key changes is deleted on one shard and inserted on another, and a definition is told by every shard that
//! holds its collection: what is applied must be in one order over all shards. So an event is let out only when no other shard can
//! still tell of an earlier one. How far a shard has told is its *frontier*: the time of the newest token it gave, with or without an
//! event. Events of different shards at one and the same time do not depend on each other, but for the halves of one transaction,
//! and those commute: a delete names the whole shard key of the document that it removes.
//!
//! Of a single stream every event is let out at once. Memory is bounded by the caller, who takes replies only of the shards that
//! [`Merge::wanted`] names: of each other one, part of a reply is here already.

use std::collections::VecDeque;

use mongodb::bson::RawDocumentBuf;
use schemas::cluster_time::ClusterTime;

/// Something that happened at a cluster time.
pub trait Timed {
    /// When.
    fn time(&self) -> ClusterTime;
    /// To go on behind it.
    fn token(&self) -> &RawDocumentBuf;
}

impl Timed for super::event::Event {
    fn time(&self) -> ClusterTime {
        self.time
    }

    fn token(&self) -> &RawDocumentBuf {
        &self.token
    }
}

/// A place among the shards, in the order in which the merge was given them.
pub type Lane = usize;

/// Up to where everything of a shard has been let out.
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
    /// The token of the frontier, once a reply has told one.
    told: Option<RawDocumentBuf>,
    /// The last event that was let out.
    passed: Option<Passed>,
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
        let stream = |frontier| Stream { queue: VecDeque::new(), frontier, told: None, passed: None };
        Self { streams: begin.into_iter().map(stream).collect() }
    }

    /// Takes a shard's reply in: its events, and the token and time up to which it has told everything.
    pub fn push(&mut self, lane: Lane, events: impl IntoIterator<Item = E>, told: Option<Passed>) {
        let stream = &mut self.streams[lane];
        stream.queue.extend(events);
        if let Some(last) = stream.queue.back() {
            stream.frontier = stream.frontier.max(last.time());
        }
        if let Some(told) = told {
            stream.frontier = stream.frontier.max(told.time);
            stream.told = Some(told.token);
        }
    }

    /// Lets out the next event and its shard; `None`: another shard may still tell of an earlier one.
    pub fn pop(&mut self) -> Option<(Lane, E)> {
        let (lane, time) = self
            .streams
            .iter()
            .enumerate()
            .filter_map(|(lane, stream)| stream.queue.front().map(|event| (lane, event.time())))
            .min_by_key(|(lane, time)| (*time, *lane))?;
        let is_next = self
            .streams
            .iter()
            .enumerate()
            .all(|(other, stream)| other == lane || !stream.queue.is_empty() || stream.frontier >= time);
        if !is_next {
            return None;
        }
        let stream = &mut self.streams[lane];
        let event = stream.queue.pop_front()?;
        stream.passed = Some(Passed { token: event.token().clone(), time: event.time() });
        Some((lane, event))
    }

    /// The shards whose next reply is needed: nothing of them is waiting here.
    pub fn wanted(&self) -> impl Iterator<Item = Lane> {
        self.streams.iter().enumerate().filter(|(_, stream)| stream.queue.is_empty()).map(|(lane, _)| lane)
    }

    /// The shard that holds the others up, where their events wait for it: a note in its oplog lets it tell how far it is.
    #[must_use]
    pub fn holds_up(&self) -> Option<Lane> {
        let earliest = self.streams.iter().filter_map(|stream| stream.queue.front().map(Timed::time)).min()?;
        let behind = self.streams.iter().enumerate().filter(|(_, stream)| stream.queue.is_empty() && stream.frontier < earliest);
        behind.min_by_key(|(_, stream)| stream.frontier).map(|(lane, _)| lane)
    }

    /// Up to where a shard has been let out: what its checkpoint may hold once that is applied. `None`: nothing yet.
    #[must_use]
    pub fn passed(&self, lane: Lane) -> Option<Passed> {
        let stream = &self.streams[lane];
        match (&stream.told, stream.queue.is_empty()) {
            (Some(token), true) => Some(Passed { token: token.clone(), time: stream.frontier }),
            _ => stream.passed.clone(),
        }
    }

    /// The time up to which all of them have been let out.
    #[must_use]
    pub fn all_passed(&self) -> Option<ClusterTime> {
        let passed = |stream: &Stream<E>| match stream.queue.front() {
            Some(next) => stream.passed.as_ref().map_or(next.time(), |passed| passed.time),
            None => stream.frontier,
        };
        self.streams.iter().map(passed).min()
    }
}

#[cfg(test)]
mod tests {
    use super::{Merge, Passed, Timed};
    use mongodb::bson::{RawDocumentBuf, rawdoc};
    use rand::Rng as _;
    use schemas::cluster_time::ClusterTime;

    #[derive(Debug, Clone, PartialEq)]
    struct At(ClusterTime, RawDocumentBuf);

    impl Timed for At {
        fn time(&self) -> ClusterTime {
            self.0
        }

        fn token(&self) -> &RawDocumentBuf {
            &self.1
        }
    }

    fn time(t: u32) -> ClusterTime {
        ClusterTime { t, i: 0 }
    }

    fn at(t: u32) -> At {
        At(time(t), rawdoc! { "event": i64::from(t) })
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
        merge.push(0, [at(5), at(9)], told(9));
        assert_eq!(times(&mut merge), Vec::<u32>::new());
        assert_eq!(merge.holds_up(), Some(1));
        merge.push(1, [at(7)], told(7));
        assert_eq!((times(&mut merge), merge.holds_up()), (vec![], Some(2)));
        merge.push(2, [], told(8));
        assert_eq!(times(&mut merge), [5, 7]);
        assert_eq!(merge.wanted().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(merge.holds_up(), Some(1));
        assert_eq!(merge.all_passed(), Some(time(5)));
        merge.push(1, [], told(20));
        merge.push(2, [], told(9));
        assert_eq!(times(&mut merge), [9]);
        assert_eq!(merge.holds_up(), None);
        assert_eq!(merge.all_passed(), Some(time(9)));
    }

    #[test]
    fn a_checkpoint_never_passes_what_is_not_let_out() {
        let mut merge = Merge::new([time(1), time(1)]);
        merge.push(0, [at(5), at(9)], told(12));
        assert_eq!(merge.passed(0), None);
        merge.push(1, [], told(6));
        assert_eq!(times(&mut merge), [5]);
        assert_eq!(merge.passed(0).map(|passed| passed.token), Some(rawdoc! { "event": 5_i64 }));
        assert_eq!(merge.passed(1).map(|passed| passed.time), Some(time(6)));
        merge.push(1, [], told(30));
        assert_eq!(times(&mut merge), [9]);
        assert_eq!(merge.passed(0), told(12));
    }

    #[test]
    fn of_one_stream_everything_is_let_out_at_once() {
        let mut merge = Merge::new([time(1)]);
        merge.push(0, [at(5), at(5), at(6)], None);
        assert_eq!(times(&mut merge), [5, 5, 6]);
        assert_eq!(merge.passed(0).map(|passed| passed.time), Some(time(6)));
    }

    #[test]
    fn whatever_arrives_when_the_order_is_that_of_time_and_nothing_is_lost() {
        let mut random = rand::rng();
        for _ in 0..200 {
            let shards = random.random_range(1..5);
            let mut left: Vec<Vec<u32>> = (0..shards)
                .map(|_| {
                    let mut times: Vec<u32> = (0..random.random_range(0..30)).map(|_| random.random_range(2..60)).collect();
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
                for lane in wanted {
                    let count = random.random_range(0..=left[lane].len().min(4));
                    let events: Vec<At> = left[lane].drain(..count).map(at).collect();
                    let frontier = left[lane].first().map_or(Some(100), |next| events.last().map_or(Some(next - 1), |_| None));
                    merge.push(lane, events, frontier.and_then(told));
                }
                seen.extend(times(&mut merge));
            }
            assert_eq!(seen, expected);
        }
    }
}
