//! Up to where the past is final: what is read there stays as it is.

use crate::store::history::History;
use crate::store::model::version::Timestamp;
use crate::store::tree::row_writer::TRANSIENT_MAX;

/// Up to where the past was final at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finality {
    low_watermark: Timestamp,
}

impl Finality {
    /// Whether nothing at or before `at` can change any more.
    pub fn is_final(self, at: Timestamp) -> bool {
        at < self.low_watermark
    }

    /// Whether a version of `at` stays in its name's list of versions: the name can no longer turn out to be one in passing.
    pub fn is_listed_for_good(self, at: Timestamp) -> bool {
        at < self.listed_for_good()
    }

    /// The timestamp below which that is so.
    pub fn listed_for_good(self) -> Timestamp {
        let traceless = u64::try_from(TRANSIENT_MAX.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.low_watermark.0.saturating_sub(traceless))
    }
}

impl History {
    /// Up to where the past is final now. What is read afterwards stays as it is there.
    pub fn finality(&self) -> Finality {
        Finality {
            low_watermark: self.commit.low_watermark(),
        }
    }

    /// Whether nothing at or before `at` can change any more.
    pub fn is_final(&self, at: Timestamp) -> bool {
        self.finality().is_final(at)
    }
}
