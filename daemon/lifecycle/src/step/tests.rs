//! Each transition alone: what it demands, and what it refuses.
