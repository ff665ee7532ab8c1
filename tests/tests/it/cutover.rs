//! The window, the cutover, and how it is undone.

mod abort;
mod daemon_crash;
mod destination_guard;
mod window;
