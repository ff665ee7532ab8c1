//! The command line, from the declaration to the cutover.

mod errors;
mod examples;
mod whole_migration;
