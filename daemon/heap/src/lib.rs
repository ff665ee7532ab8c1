//! What the daemon asks of the C library's allocator, so that memory that is free is given back to
//! the system.
//!
//! glibc maps a large block by itself and gives it back when it is freed, but raises its idea of
//! "large" to the size of each such block, up to 32 MiB (mallopt(3), `M_MMAP_THRESHOLD`,
//! "dynamic"). After the first document of 16 MB all further ones come from the arenas, one for
//! each thread, where what is freed stays: with eight workers at such documents a third more was
//! held than was in use.
//!
//! Naming that size stops glibc from raising with it what an arena may keep free at its end, 128
//! KiB, so that each batch of a copy was given back and had to be had from the system again: a
//! third of all the processor time of a copy of 0.5 GB (1.4 s, and 0.95 s without). That has to be
//! named, too, and how many arenas may keep it.

/// Blocks of this many bytes or more are mapped by themselves. Batches of ordinary documents are
/// smaller, and do not pay for it.
pub const MAPPED_FROM_BYTES: usize = 4 << 20;

/// What an arena keeps free at its end: twice the largest block in it, as glibc would have it.
pub const KEPT_BYTES: usize = 2 * MAPPED_FROM_BYTES;

/// Arenas at most, whatever the number of processors: together they keep no more than 32 MiB.
pub const ARENAS: usize = 4;

/// Has blocks from [`MAPPED_FROM_BYTES`] on given back to the system as soon as they are freed, for
/// the whole process.
///
/// To be called before threads are started. Answers whether the allocator took it all: other C
/// libraries than glibc have no such setting and are left as they are.
#[must_use]
pub fn give_back_large_blocks() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let settings = [
            (libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
            (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
            (libc::M_ARENA_MAX, ARENAS),
        ];
        settings.into_iter().all(|(setting, value)| {
            let Ok(value) = libc::c_int::try_from(value) else {
                return false;
            };
            // SAFETY: mallopt takes two numbers and touches the allocator's own settings alone,
            // under its lock.
            unsafe { libc::mallopt(setting, value) == 1 }
        })
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        false
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::{MAPPED_FROM_BYTES, give_back_large_blocks};

    /// A block whose pages have all been written.
    fn block(bytes: usize) -> Vec<u8> {
        vec![1; bytes]
    }

    #[test]
    fn what_is_freed_is_given_back_even_under_what_is_still_held() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
        };
        assert!(give_back_large_blocks());
        let before = resident();
        for _ in 0..8 {
            // The first would raise the threshold; what is held on top keeps an arena from
            // shrinking.
            drop(block(4 * MAPPED_FROM_BYTES));
            let large: Vec<Vec<u8>> = (0..4).map(|_| block(2 * MAPPED_FROM_BYTES)).collect();
            let held = block(1 << 10);
            drop(large);
            let after = resident();
            assert!(after < before + MAPPED_FROM_BYTES, "{before} bytes, then {after}");
            drop(held);
        }
    }
}
