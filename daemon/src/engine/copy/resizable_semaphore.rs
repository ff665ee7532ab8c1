//! A semaphore that lets a number through at once, which may change while they are inside. They
//! come in the order in which they asked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

#[derive(Debug)]
struct Width {
    now: usize,
    /// Places that are to go, and are still taken.
    owed: usize,
}

/// The semaphore.
#[derive(Debug)]
pub struct ResizableSemaphore {
    places: Semaphore,
    width: Mutex<Width>,
}

/// A place inside, given back when it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    semaphore: &'a ResizableSemaphore,
    permit: Option<SemaphorePermit<'a>>,
}

impl ResizableSemaphore {
    /// A semaphore for so many.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { places: Semaphore::new(width), width: Mutex::new(Width { now: width, owed: 0 }) }
    }

    fn width(&self) -> MutexGuard<'_, Width> {
        // Two numbers that are set together, by code that does not panic.
        self.width.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub async fn enter(&self) -> Place<'_> {
        Place {
            semaphore: self,
            permit: Some(self.places.acquire().await.expect("a semaphore is never closed")),
        }
    }

    /// Lets so many through from now on. Whoever is inside stays.
    pub fn resize(&self, width: usize) {
        let mut was = self.width();
        if width > was.now {
            let more = width - was.now;
            let kept = more.min(was.owed);
            was.owed -= kept;
            self.places.add_permits(more - kept);
        } else {
            let fewer = was.now - width;
            was.owed += fewer - self.places.forget_permits(fewer);
        }
        was.now = width;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut width = self.semaphore.width();
        if width.owed > 0 {
            width.owed -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ResizableSemaphore;
    use futures_util::FutureExt as _;

    fn fill(semaphore: &ResizableSemaphore) -> Vec<super::Place<'_>> {
        std::iter::from_fn(|| semaphore.enter().now_or_never()).collect()
    }

    #[test]
    fn so_many_are_inside_whatever_it_was_before() {
        let semaphore = ResizableSemaphore::new(4);
        let mut inside = fill(&semaphore);
        assert_eq!(inside.len(), 4);
        semaphore.resize(2);
        inside.truncate(2);
        assert_eq!(fill(&semaphore).len(), 0, "two went, and two were to go");
        semaphore.resize(1);
        semaphore.resize(3);
        inside.extend(fill(&semaphore));
        assert_eq!(inside.len(), 3);
        inside.clear();
        assert_eq!(fill(&semaphore).len(), 3);
        semaphore.resize(1);
        assert_eq!(fill(&semaphore).len(), 1);
    }
}
