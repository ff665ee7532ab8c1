//! A run's lifecycle as a pure state machine.
