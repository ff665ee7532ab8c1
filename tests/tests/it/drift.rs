//! What the next plan finds changed.

mod by_hand;
mod environment;
