//! Nothing is lost or changed: documents, collections, indexes and events, each once during the
//! copy and once during the tail, on real replica sets, and compared by the rig's comparer, which
//! shares no code with the engine.

mod apply_ops;
mod capped;
mod collections;
mod definitions;
mod documents;
mod events;
mod faults;
mod harness;
mod identity;
mod odd_names;
mod outages;
mod pace;
mod races;
mod random_operations;
mod refusals;
mod users;
mod whole_run;
