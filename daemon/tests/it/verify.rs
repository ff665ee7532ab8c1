//! What the verification finds on real replica sets: planted faults in every kind of collection,
//! and what others write.

mod dropped_collections;
mod foreign;
mod harness;
mod planted;
