//! How a check goes about it, and what it is doing.

use std::time::Duration;

use crate::store::check::sorted::Spill;

/// How a check goes about it.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// How long to wait for what the writer has not yet logged.
    pub patience: Duration,
    /// Where rows lie that do not fit into memory. Two such amounts are in use at a time.
    pub spill: Spill,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self {
            patience: Duration::ZERO,
            spill: Spill {
                dir: std::env::temp_dir(),
                memory: 32 << 20,
            },
        }
    }
}

/// What a check is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// It has read so many of the log's objects.
    Log {
        /// Objects read.
        read: usize,
        /// Objects that are known.
        all: usize,
    },
    /// It has compared so many rows of the index.
    Rows(u64),
    /// The namespace is being written, and its log is behind: it waits.
    Waiting,
}
