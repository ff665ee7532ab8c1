//! Looks after the order of capped collections while a run goes on, and settles it once the source
//! takes no more writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::Timestamp;
use schemas::fault::{Fault, FaultCode};
use schemas::namespace::Namespace;
use tokio::sync::Notify;

use super::order::{self, Expect, Mark, Order};
use crate::engine::catalog::{self, CollectionInfo};
use crate::engine::source::Times;
use crate::engine::verify::{Sides, is_behind};

/// Between two looks at least, and the part of the time that looking takes at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;
/// The source's capped collections are listed this often.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// Between two copies of one collection at least this many times what one took: where documents are
/// deleted and inserted again all the time, what is on its way looks like another order.
const REST: u32 = 10;
/// Looks without an answer after which a collection is left to the comparison behind the block: it
/// changes too fast.
const MOST_UNCLEAR: u32 = 3;
/// Between two looks at whether the tail is done.
const POLL: Duration = Duration::from_millis(10);

/// What is known of one collection.
#[derive(Debug, Default)]
struct State {
    /// Up to here it is in order.
    mark: Option<Mark>,
    /// It has been found in one order with the source's since it was last made.
    is_checked: bool,
    /// Looks that could not tell, one after the other.
    unclear: u32,
    /// It is being copied again.
    is_mending: bool,
    /// How long the last comparison from its beginning took.
    whole: Duration,
    /// When it was copied again, and how long that took.
    mended: Option<(Instant, Duration)>,
}

/// Looks after the order of a run's capped collections.
#[derive(Debug, Default)]
pub struct Keeper {
    states: Mutex<BTreeMap<Namespace, State>>,
    /// What the tail is to copy again.
    asked: Mutex<BTreeSet<Namespace>>,
    wake: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// What the tail is to copy again, one of them.
    pub fn wanted(&self) -> Option<Namespace> {
        locked(&self.asked).first().cloned()
    }

    /// Waits until there is something for the tail to do.
    pub async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Has the tail copy one again: it is known to be otherwise than on the source.
    pub fn ask(&self, namespace: &Namespace) {
        self.with(namespace, |state| (state.mark, state.is_checked) = (None, false));
        locked(&self.asked).insert(namespace.clone());
        self.wake.notify_one();
    }

    /// The tail has copied this one again.
    pub fn done(&self, namespace: &Namespace) {
        locked(&self.asked).remove(namespace);
    }

    /// Why the run is not ready yet.
    pub fn blockers(&self) -> Vec<String> {
        let states = locked(&self.states);
        let waits =
            |state: &State| state.is_mending || (!state.is_checked && state.unclear < MOST_UNCLEAR);
        let words = states.iter().filter(|(_, state)| waits(state)).map(|(namespace, state)| {
            match state.is_mending {
                true => format!(
                    "{namespace} (capped) is in another order than on the source; it is being \
                     copied again"
                ),
                false => format!("the order of {namespace} (capped) has not been compared yet"),
            }
        });
        words.collect()
    }

    /// Seconds that comparing what is left would take once the source takes no more writes.
    pub fn seconds_left(&self) -> f64 {
        locked(&self.states)
            .values()
            .filter(|state| state.mark.is_none())
            .map(|state| state.whole.as_secs_f64())
            .sum()
    }

    /// Looks again and again, from when the tail has applied what came during the copy, until it is
    /// dropped.
    pub async fn watch(&self, sides: &Sides, copied: &Times) -> Result<(), Fault> {
        while !sides.progress.has_applied(copied) || is_behind(sides) {
            tokio::time::sleep(POLL * 10).await;
        }
        let mut listed: Option<Instant> = None;
        loop {
            if listed.is_none_or(|at| at.elapsed() > LIST_EVERY) {
                self.list(sides).await?;
                listed = Some(Instant::now());
            }
            let began = Instant::now();
            if !is_behind(sides) {
                self.look(sides).await?;
            }
            tokio::time::sleep(LOOK_EVERY.max(began.elapsed() * SHARE)).await;
        }
    }

    /// Takes note of the source's capped collections.
    async fn list(&self, sides: &Sides) -> Result<(), Fault> {
        let found = catalog::list(&sides.source.entry, &sides.spec.namespaces.scope).await?;
        let capped: BTreeSet<Namespace> = found
            .into_values()
            .filter(CollectionInfo::is_capped)
            .map(|info| info.namespace)
            .collect();
        let mut states = locked(&self.states);
        states.retain(|namespace, _| capped.contains(namespace));
        for namespace in capped {
            states.entry(namespace).or_default();
        }
        Ok(())
    }

    /// Looks at each once before a cutover, so that little is left to compare behind the block.
    pub async fn begin_cutover(&self, sides: &Sides) -> Result<(), Fault> {
        self.list(sides).await?;
        self.look(sides).await
    }

    async fn look(&self, sides: &Sides) -> Result<(), Fault> {
        let known: Vec<Namespace> = locked(&self.states).keys().cloned().collect();
        for namespace in known {
            if self.look_at(sides, &namespace, Expect::SameOrder).await? {
                continue;
            }
            // What is on its way may look like that.
            sides.catch_up().await?;
            self.with(&namespace, |state| state.mark = None);
            if self.look_at(sides, &namespace, Expect::SameOrder).await? {
                continue;
            }
            let rests = |state: &mut State| {
                state.mended.is_some_and(|(at, took)| at.elapsed() < took * REST)
            };
            if !self.with(&namespace, rests) {
                self.mend(sides, &namespace).await;
            }
        }
        Ok(())
    }

    fn with<T>(&self, namespace: &Namespace, change: impl FnOnce(&mut State) -> T) -> T {
        change(locked(&self.states).entry(namespace.clone()).or_default())
    }

    /// Compares one from where it was left. `false`: it is in another order.
    async fn look_at(
        &self,
        sides: &Sides,
        namespace: &Namespace,
        expect: Expect,
    ) -> Result<bool, Fault> {
        let mark = self.with(namespace, |state| state.mark.take());
        let began = Instant::now();
        let home = sides.source.home_of(namespace).await?;
        let mut order =
            order::compare(&home.deployment, &sides.destination, namespace, mark.as_ref(), expect)
                .await?;
        if mark.is_none()
            && catalog::find(&sides.destination, namespace)
                .await?
                .is_some_and(|there| !there.is_capped())
        {
            // Whoever made it so; it is made again.
            order = Order::Other;
        }
        let took = began.elapsed();
        Ok(self.with(namespace, |state| {
            if mark.is_none() {
                state.whole = took;
            }
            match order {
                Order::Same { mark, .. } => {
                    (state.mark, state.is_checked, state.unclear) = (mark, true, 0)
                }
                Order::Other => {
                    state.is_checked = false;
                    return false;
                }
                Order::Unclear => state.unclear += 1,
            }
            true
        }))
    }

    /// Has the tail copy one again, and waits until it has.
    async fn mend(&self, sides: &Sides, namespace: &Namespace) {
        let began = Instant::now();
        self.with(namespace, |state| (state.is_mending, state.mark) = (true, None));
        locked(&self.asked).insert(namespace.clone());
        self.wake.notify_one();
        // The tail may be at work on a look at the tail's lock.
        while locked(&self.asked).contains(namespace) {
            if sides.progress.error().is_some_and(|fault| !fault.retryable) {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        let mended = Some((Instant::now(), began.elapsed()));
        self.with(namespace, |state| {
            (state.is_mending, state.is_checked, state.mended) = (false, false, mended)
        });
    }

    /// Sees that a collection holds the source's documents in the source's order, once the source
    /// takes no more writes and all is applied; one that does not is copied again, and looked at
    /// again. `is_uncapped`: it is not capped on the destination, and is copied again first.
    /// Returns how many documents were compared.
    ///
    /// # Errors
    /// It is still in another order, or has fewer documents than the source.
    pub async fn settle(
        &self,
        sides: &Sides,
        namespace: &Namespace,
        as_of: Timestamp,
        is_uncapped: bool,
    ) -> Result<u64, Fault> {
        if is_uncapped {
            self.mend(sides, namespace).await;
        }
        let expect = Expect::SameDocuments(as_of);
        let home = sides.source.home_of(namespace).await?;
        let mark = self.with(namespace, |state| state.mark.clone());
        let mut compared = 0;
        let mut mark = mark.as_ref();
        // From the mark; whole; and once more when it was copied again.
        for pass in 0..3 {
            match order::compare(&home.deployment, &sides.destination, namespace, mark, expect)
                .await?
            {
                Order::Same { documents, .. } => {
                    compared = documents;
                    break;
                }
                Order::Other | Order::Unclear if pass == 0 && mark.is_some() => mark = None,
                Order::Other | Order::Unclear if pass < 2 => {
                    self.mend(sides, namespace).await;
                    mark = None;
                }
                Order::Other | Order::Unclear => {
                    let message = format!(
                        "{namespace} (capped) is in another order than on the source, or has \
                         other documents"
                    );
                    return Err(Fault {
                        retryable: true,
                        ..Fault::new(FaultCode::VerificationMismatch, message)
                    });
                }
            }
        }
        let (ours, theirs) = tokio::try_join!(
            catalog::size(&home.deployment, namespace),
            catalog::size(&sides.destination, namespace)
        )?;
        if ours.0 != theirs.0 {
            // What servers count by the way is not exact after a crash.
            let (ours, theirs) = tokio::try_join!(
                catalog::count(&home.deployment, namespace),
                catalog::count(&sides.destination, namespace)
            )?;
            if theirs < ours {
                let message = format!(
                    "{namespace} (capped) has {ours} documents on the source and {theirs} on the \
                     destination"
                );
                return Err(Fault::new(FaultCode::VerificationMismatch, message));
            }
        }
        Ok(compared)
    }
}
