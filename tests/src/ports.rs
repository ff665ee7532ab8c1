//! Ports on 127.0.0.1 that no other process using this module has, held until they are dropped.
//!
//! A port found by binding port 0 is free only until it is closed again: another test, or the local
//! end of any outgoing connection, may take it before a server binds it, and between a server's
//! stop and its restart. So ports come from below the range of outgoing connections, and each is
//! reserved by a locked file, which the kernel unlocks when this process ends.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use rand::Rng as _;

/// Below lie the well-known services and MongoDB's own default ports are few; above it there is
/// room enough.
const LOWEST: u16 = 10_000;

/// A port, reserved.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _lock: File,
}

impl ReservedPort {
    /// Reserves a free port.
    ///
    /// # Errors
    /// When there is none, or the folder of the locks cannot be written.
    pub fn take() -> Result<Self> {
        let folder = lock_folder();
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        let highest = first_outgoing_port().max(LOWEST + 1_000);
        let count = highest - LOWEST;
        let start = rand::rng().random_range(0..count);
        for offset in 0..count {
            let number = LOWEST + (start + offset) % count;
            let path = folder.join(number.to_string());
            let lock = File::create(&path)
                .with_context(|| format!("failed to create {}", path.display()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => {
                    return Err(error)
                        .with_context(|| format!("failed to lock {}", path.display()));
                }
            }
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no port is free on 127.0.0.1 between {LOWEST} and {highest}")
    }

    /// The port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// One folder for a user: another user's could not be written.
fn lock_folder() -> PathBuf {
    std::env::temp_dir().join(format!("cutover-rig-ports-{}", rustix::process::getuid().as_raw()))
}

fn first_outgoing_port() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::ReservedPort;
    use std::collections::BTreeSet;

    #[test]
    fn ports_held_at_once_differ() {
        let ports: Vec<ReservedPort> = (0..50).map(|_| ReservedPort::take().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(ReservedPort::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }
}
