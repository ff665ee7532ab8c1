//! What the verification finds on real replica sets: planted faults in every kind of collection, and what others write.

mod foreign;
mod gone;
mod harness;
mod planted;
