//! Data and traffic to migrate: seeded, so that a failing run can be had again.
//!
//! `fill` lays the data, `Writer` keeps changing it, as an application would.

mod awkward;
mod fill;
mod notes;
mod operations;
mod shapes;
mod writer;

pub use fill::{FillOptions, Filled, fill, fill_small, fill_uniform};
pub use notes::{Noted, Notes, WhenRefused};
pub use writer::{LedgerEntry, Stats, Writer, WriterOptions};
