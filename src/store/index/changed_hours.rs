//! Which hours in which names changed have a row already.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::store::model::policy::HOUR;
use crate::store::model::version::Timestamp;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// How many hours are remembered: an operation is seldom older.
const REMEMBERED: usize = 48;

/// The hours, each a number since 1970, that have a row: those of this process, newest first.
#[derive(Debug, Default)]
pub(crate) struct ChangedHours {
    /// The hour that was asked for last, plus one.
    last: AtomicU64,
    recorded: Mutex<BTreeSet<u64>>,
}

/// Returns the hour of a timestamp.
pub(crate) fn hour_of(at: Timestamp) -> u64 {
    at.0 / HOUR
}

/// Returns the timestamps of an hour.
pub(crate) fn time_of(hour: u64) -> Range<Timestamp> {
    let from = hour.saturating_mul(HOUR);
    Timestamp(from)..Timestamp(from.saturating_add(HOUR))
}

impl ChangedHours {
    /// Returns the hour of a timestamp if it needs a row; the next call does not return it.
    pub(crate) fn needs_row(&self, at: Timestamp) -> Option<u64> {
        let hour = hour_of(at);
        if self.last.swap(hour + 1, Ordering::SeqCst) == hour + 1 {
            return None;
        }
        let mut recorded = lock(&self.recorded);
        let is_new = recorded.insert(hour);
        if recorded.len() > REMEMBERED {
            recorded.pop_first();
        }
        is_new.then_some(hour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_needs_one_row() {
        let hours = ChangedHours::default();
        let needed = [5, 5, 6, 5, 6, 7].map(|hour| hours.needs_row(time_of(hour).start));
        assert_eq!(needed, [Some(5), None, Some(6), None, None, Some(7)]);
        assert_eq!(hour_of(Timestamp(time_of(7).end.0 - 1)), 7);
    }
}
