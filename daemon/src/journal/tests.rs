//! What is stored comes back, and only what may be read.
