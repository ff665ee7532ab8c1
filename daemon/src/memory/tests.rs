//! Every kind of holder at once, at its largest, in the least memory there is: all get through.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::RwLock;
use tokio::time::{Duration, timeout};

use super::{DEFAULT_BYTES, LEAST_AHEAD, MB, MIN_BYTES, Memory, REPLY};

const LARGEST: usize = REPLY as usize;

#[test]
fn the_least_is_enforced_and_told() {
    let least = MIN_BYTES.div_ceil(MB);
    assert!(Memory::of_mb(least).is_ok());
    let fault = Memory::of_mb(least - 1).unwrap_err();
    assert!(fault.message.contains(&least.to_string()), "{}", fault.message);
}

#[test]
fn nobody_takes_more_than_there_is() {
    for limit in [0, MIN_BYTES, DEFAULT_BYTES, 64 << 30] {
        let memory = Memory::of(limit);
        assert!(memory.pair().now_or_never().is_some());
        assert!(memory.reply().now_or_never().is_some());
        assert!(memory.ahead(u64::MAX).now_or_never().is_some());
        assert!(memory.command(LARGEST).now_or_never().is_some());
        assert!(memory.command(usize::MAX).now_or_never().is_some());
    }
}

#[test]
fn what_came_is_held_and_the_rest_given_back() {
    let memory = Memory::of(MIN_BYTES);
    let mut shares: Vec<_> = std::iter::from_fn(|| {
        let mut share = memory.reply().now_or_never()?;
        share.shrink(1 << 20);
        Some(share)
    })
    .collect();
    // The last one needs as much as the largest takes.
    let free = |memory: &Memory| memory.0.replies.available_permits() as u64 * super::PIECE;
    assert!(free(&memory) < 2 * REPLY && shares.len() > 60, "{}", shares.len());
    shares.clear();
    assert_eq!(free(&memory), MIN_BYTES - super::OUTSIDE - super::COMMAND);
}

#[test]
fn tails_leave_room_for_readers() {
    let memory = Memory::of(MIN_BYTES);
    let ahead: Vec<_> = std::iter::from_fn(|| memory.ahead(0).now_or_never()).collect();
    assert_eq!(ahead.len() as u64, 2 * REPLY / LEAST_AHEAD);
    assert!(memory.ahead(0).now_or_never().is_none());
    assert!(memory.pair().now_or_never().is_some());
}

#[test]
fn what_turns_out_heavier_takes_what_is_there_and_never_waits() {
    let memory = Memory::of(MIN_BYTES);
    let mut first = memory.ahead(0).now_or_never().unwrap();
    first.grow(&memory, LARGEST);
    let other = memory.ahead(u64::MAX).now_or_never();
    assert!(other.is_none());
    let mut second = memory.ahead(0).now_or_never().unwrap();
    // There is too little left: it goes on with what it has.
    second.grow(&memory, 2 * LARGEST);
    drop((first, second));
    assert!(memory.ahead(u64::MAX).now_or_never().is_some());
}

/// Copies, comparisons, tails with second looks, and rechecks under the gates of their runs, each
/// of several runs and again and again, always with the largest documents, in the least memory
/// there is. It takes no time but where all wait for each other.
#[tokio::test]
async fn all_kinds_of_holders_get_through_side_by_side() {
    const RUNS: usize = 4;
    const ROUNDS: usize = 25;
    let memory = &Memory::of(MIN_BYTES);
    let gates: &Vec<RwLock<()>> = &(0..RUNS).map(|_| RwLock::new(())).collect();
    let done = &AtomicU64::new(0);
    let server = async || {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    };
    let write = async || {
        let _share = memory.command(LARGEST).await;
        server().await;
    };
    let copy = async || {
        let mut writing = None;
        for _ in 0..ROUNDS {
            let read = async {
                let mut share = memory.reply().await;
                server().await;
                share.shrink(LARGEST);
                share
            };
            let written = async |share: Option<super::Share>| {
                if share.is_some() {
                    write().await;
                }
                drop(share);
            };
            let (share, ()) = tokio::join!(read, written(writing.take()));
            writing = Some(share);
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let compare = async |tail_lock: Option<&RwLock<()>>| {
        for _ in 0..ROUNDS {
            let _standing_still = match tail_lock {
                Some(tail_lock) => Some(tail_lock.write().await),
                None => None,
            };
            let mut share = memory.pair().await;
            server().await;
            share.shrink(2 * LARGEST);
            server().await;
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let tail = async |tail_lock: &RwLock<()>| {
        let (events, mut arrived) = tokio::sync::mpsc::channel(2);
        let read = async move {
            for _ in 0..ROUNDS {
                let mut share = memory.ahead(REPLY).await;
                server().await;
                share.shrink(2 * LARGEST);
                assert!(events.send(share).await.is_ok());
            }
        };
        let apply = async {
            while let Some(share) = arrived.recv().await {
                let _round = tail_lock.read().await;
                write().await;
                let mut again = memory.reply().await;
                server().await;
                again.shrink(2 * LARGEST);
                write().await;
                drop((again, share));
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        tokio::join!(read, apply);
    };
    let run = async |tail_lock: &RwLock<()>| {
        tokio::join!(copy(), copy(), compare(None), compare(Some(tail_lock)), tail(tail_lock));
    };
    let all = join_all(gates.iter().map(run));
    assert!(timeout(Duration::from_secs(120), all).await.is_ok(), "they wait for each other");
    assert_eq!(done.load(Ordering::Relaxed), (RUNS * 5 * ROUNDS) as u64);
}
