//! The rows that a namespace's log tells, and a recount of their counts: for the comparison with an index, and for a new one.
//!
//! Invariant: memory is bounded by [`sorted::Spill`], independent of the size of the namespace. Beyond it, only the names of the log
//! objects are kept.

pub(crate) mod faulty;
pub(crate) mod log_damage;
pub(crate) mod log_replay;
pub(crate) mod recount;
pub(crate) mod sorted;
