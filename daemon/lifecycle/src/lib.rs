//! A run's lifecycle as a pure state machine: no sockets, no database, no clock, no chance.
//!
//! ```text
//!   event, now --> step(run) --> the new run, what is to be done (effects), its history (notes)
//!                      |
//!                      +-----> a refusal, and nothing has changed
//! ```
//!
//! The caller journals the new run and the notes in one transaction, and carries the effects out
//! after that, in order. Each effect ends in an event. Effects are idempotent: [`duties()`] names
//! what a state demands, so that a start after a crash asks for it again. While the journal cannot
//! be written, [`ahead_of_journal`] says what is carried out all the same.

#![deny(clippy::wildcard_enum_match_arm)]

mod ahead;
mod begin;
mod duties;
mod effect;
mod event;
mod invariant;
mod readiness;
mod refusal;
mod run;
mod settings;
mod state;
mod step;
mod token;
mod window;

pub use crate::duties::duties;
pub use crate::readiness::{UNWELL_GRACE, VITALS_STALE_AFTER, Vitals, WELL_SETTLE};
pub use ahead::ahead_of_journal;
pub use begin::{begin, succeed};
pub use effect::{Effect, EffectKind};
pub use event::{By, Event, Opened};
pub use invariant::{Violation, check};
pub use refusal::{Guard, Refusal};
pub use run::{EarlierRun, FormatVersion, Run, UnreadableRun};
pub use settings::Settings;
pub use state::{AfterUndo, Cutover, Doing, DrainStage, FinalStage, Resting, State, Validation};
pub use step::{Note, Now, Step, step};
pub use token::{Attempt, Token};
