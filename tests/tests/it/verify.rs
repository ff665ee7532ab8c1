//! The proof of the copy.

mod daemon_crash;
