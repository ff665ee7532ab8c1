//! The daemon beside its API.

mod http;
mod two_daemons;
