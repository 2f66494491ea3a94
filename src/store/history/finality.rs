//! Finality of the past: up to which timestamp reads always give the same result.

use crate::store::history::History;
use crate::store::model::version::Timestamp;
use crate::store::tree::move_rows::TRANSIENT_MAX;

/// The low watermark at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finality {
    low_watermark: Timestamp,
}

impl Finality {
    /// Tells whether the state at `at` is final: no operation can get a timestamp at or before `at` any more.
    pub fn is_final(self, at: Timestamp) -> bool {
        at < self.low_watermark
    }

    /// Tells whether a version that began at `at` stays in its name's list of versions: its name can no longer become a
    /// transient name.
    pub fn is_listed_for_good(self, at: Timestamp) -> bool {
        at < self.listed_for_good()
    }

    /// Returns the timestamp below which [`Self::is_listed_for_good`] holds.
    pub fn listed_for_good(self) -> Timestamp {
        let traceless = u64::try_from(TRANSIENT_MAX.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.low_watermark.0.saturating_sub(traceless))
    }
}

impl History {
    /// Returns the finality of the past now. What is read later at a final timestamp does not change.
    pub fn finality(&self) -> Finality {
        Finality {
            low_watermark: self.commit.low_watermark(),
        }
    }

    /// Tells whether the state at `at` is final now.
    pub fn is_final(&self, at: Timestamp) -> bool {
        self.finality().is_final(at)
    }
}
