//! Settings of a consistency check, and the progress that it reports.

use std::time::Duration;

use crate::store::replay::sorted::Spill;

/// How many sorters a check uses at the same time, each with a part of the memory.
const SORTERS: usize = 4;

/// Whether a check reads the bytes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataReads {
    /// It only looks whether their segments exist and are long enough.
    #[default]
    Skipped,
    /// It fetches each extent that a row cites, and verifies its hash.
    All,
}

/// Settings of a consistency check.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// How long to wait for batches that the writer has committed and not logged yet.
    pub patience: Duration,
    /// Limits for the rows that the check sorts. The check uses up to two such amounts at the same time.
    pub spill: Spill,
    /// Whether bytes of files are verified.
    pub data: DataReads,
    /// The time, in nanoseconds since 1970. An object that was written less than `grace` before it is no orphan.
    pub now_ns: u64,
    /// How long an object may be there before a row cites it.
    pub grace: Duration,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self {
            patience: Duration::ZERO,
            spill: Spill {
                dir: std::env::temp_dir(),
                memory: 32 << 20,
            },
            data: DataReads::Skipped,
            now_ns: 0,
            grace: Duration::from_secs(3600),
        }
    }
}

impl CheckConfig {
    /// Returns the limits of one of the sorters that are in use at the same time.
    pub(super) fn share(&self) -> Spill {
        Spill {
            memory: self.spill.memory / SORTERS,
            ..self.spill.clone()
        }
    }

    /// Tells whether an object that was written at `modified_ns` has been there for the grace period.
    pub(super) fn is_old(&self, modified_ns: u64) -> bool {
        let age = self.now_ns.saturating_sub(modified_ns);
        u128::from(age) >= self.grace.as_nanos()
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
    /// The check has listed this many segments.
    Segments(u64),
    /// The check has verified some of the bytes of files.
    Data {
        /// Bytes verified.
        read: u64,
        /// Bytes of all extents that rows cite.
        all: u64,
    },
    /// The check looks which files show damaged bytes, and has read this many rows.
    Naming(u64),
    /// The repair has written this many rows.
    Mended(u64),
    /// The log is behind the index, because the namespace is being written: the check waits.
    Waiting,
}
