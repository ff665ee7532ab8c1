//! How the programs log in and reach each other.

mod authentication;
mod daemon_over_tls;
