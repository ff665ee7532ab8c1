//! What holds bounds of time and memory. What is timed runs alone; bounds of memory are those of
//! one daemon, and may be tried side by side.

mod downtime;
mod memory;
mod verification_cost;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::const_new(());

/// Waits until no other test of this program runs, and keeps others from running.
async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// Waits until no test runs that needs the machine for itself.
async fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// What others set for a measurement at full size.
fn sized(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}
