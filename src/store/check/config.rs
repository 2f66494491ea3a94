//! Settings of a consistency check, and the progress that it reports.

use std::time::Duration;

use crate::store::check::sorted::Spill;

/// Settings of a consistency check.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// How long to wait for batches that the writer has committed and not logged yet.
    pub patience: Duration,
    /// Limits for the rows that the check sorts. The check uses up to two such sorters at the same time.
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

/// The progress of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// The check has read some of the log objects.
    Log {
        /// Number of objects read.
        read: usize,
        /// Number of objects known so far.
        all: usize,
    },
    /// The check has compared this many rows of the index.
    Rows(u64),
    /// The log is behind the index, because the namespace is being written: the check waits.
    Waiting,
}
