//! The namespace's clock: it gives out strictly increasing timestamps, and knows which of them are reserved for operations that
//! are not queued yet.
//!
//! Invariant: no timestamp is given out twice, not even by different mounts ([`Timestamps::raise`]). Reservations keep the low
//! watermark at or below every timestamp whose operation is not committed.

use std::collections::BTreeMap;

use tokio::sync::Notify;

use crate::env::Env;
use crate::store::model::version::{Time, Timestamp};
use crate::sync::{Arc, Mutex, lock};

/// The namespace's clock. Timestamps are in nanoseconds since 1970.
#[derive(Debug)]
pub(crate) struct Timestamps {
    env: Arc<dyn Env>,
    state: Mutex<TimestampsState>,
    /// A reservation was given back.
    released: Notify,
}

#[derive(Debug, Default)]
struct TimestampsState {
    /// Every later timestamp is greater: the newest one given out, or a higher value from `raise` or `next`.
    last: u64,
    /// Timestamps whose operation is not queued yet, each with the number of its reservations.
    reserved: BTreeMap<u64, u32>,
}

/// A timestamp given to an operation that is not queued yet. While the reservation exists, no timestamp at or above it is
/// final.
#[derive(Debug)]
pub(crate) struct Reservation {
    clock: Arc<Timestamps>,
    at: Timestamp,
}

impl Reservation {
    /// Returns the reserved timestamp.
    pub(crate) fn at(&self) -> Timestamp {
        self.at
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = lock(&self.clock.state);
        if let Some(count) = state.reserved.get_mut(&self.at.0) {
            *count -= 1;
            if *count == 0 {
                state.reserved.remove(&self.at.0);
            }
        }
        drop(state);
        self.clock.released.notify_waiters();
    }
}

impl Timestamps {
    /// Returns a clock that takes the time of the machine's clock from `env`.
    pub(crate) fn new(env: Arc<dyn Env>) -> Arc<Self> {
        Arc::new(Self {
            env,
            state: Mutex::default(),
            released: Notify::new(),
        })
    }

    /// Makes every later timestamp greater than `mark`.
    pub(crate) fn raise(&self, mark: u64) {
        let mut state = lock(&self.state);
        state.last = state.last.max(mark);
    }

    /// Gives out the next timestamp and reserves it: the machine's time, or one nanosecond after the last timestamp if that is
    /// later.
    pub(crate) fn begin(self: &Arc<Self>) -> Reservation {
        let wall = self.env.now();
        let mut state = lock(&self.state);
        state.last = wall.max(state.last + 1);
        let at = state.last;
        *state.reserved.entry(at).or_default() += 1;
        Reservation {
            clock: Arc::clone(self),
            at: Timestamp(at),
        }
    }

    /// Returns the present time of the namespace's clock, without giving out a timestamp.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.env.now().max(lock(&self.state).last))
    }

    /// Returns the time of the machine's clock, for the file times that stat(2) shows. Unlike timestamps it may go back.
    pub(crate) fn wall(&self) -> Time {
        Timestamp(self.env.now()).time()
    }

    /// Returns a timestamp that is above all that were given out and not above any that will be given out, even if the
    /// machine's clock goes back.
    pub(crate) fn next(&self) -> Timestamp {
        let wall = self.env.now();
        let mut state = lock(&self.state);
        let next = wall.max(state.last + 1);
        state.last = next - 1;
        Timestamp(next)
    }

    /// Returns the newest timestamp given out, or a higher one; every later timestamp is greater.
    pub(crate) fn last(&self) -> u64 {
        lock(&self.state).last
    }

    /// Waits until no timestamp at or before `at` is reserved.
    pub(crate) async fn wait_released(&self, at: Timestamp) {
        loop {
            // Created before the look: a reservation that is given back after the look ends the wait.
            let released = self.released.notified();
            if self.oldest_reservation().is_none_or(|oldest| oldest > at) {
                return;
            }
            released.await;
        }
    }

    /// Returns the oldest reserved timestamp; `None` if none is reserved.
    pub(crate) fn oldest_reservation(&self) -> Option<Timestamp> {
        lock(&self.state)
            .reserved
            .keys()
            .next()
            .copied()
            .map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SeededEnv;

    #[test]
    fn timestamps_grow_even_when_the_machines_clock_does_not() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        let first = clock.begin().at();
        clock.raise(first.0 + 1_000_000_000_000);
        assert_eq!(clock.begin().at().0, first.0 + 1_000_000_000_001);
    }

    #[test]
    fn file_times_follow_the_machines_clock_when_timestamps_are_ahead_of_it() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        let before = clock.wall();
        clock.raise(clock.begin().at().0 + 7_200_000_000_000);
        let given = clock.begin().at().time();
        let after = clock.wall();
        assert!(before < after && after.seconds <= before.seconds + 1);
        assert!(given.seconds >= after.seconds + 7_199);
    }

    #[test]
    fn no_later_timestamp_is_below_the_answer_of_next() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        // As after the machine's clock went back: timestamps are ahead of it.
        clock.raise(clock.now().0 + 1_000_000_000_000);
        let given = clock.begin().at();
        let next = clock.next();
        assert!(given < next);
        assert!(clock.begin().at() >= next);
    }

    #[test]
    fn the_oldest_reservation_counts_until_it_is_dropped() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        let (a, b) = (clock.begin(), clock.begin());
        assert_eq!(clock.oldest_reservation(), Some(a.at()));
        drop(a);
        assert_eq!(clock.oldest_reservation(), Some(b.at()));
        drop(b);
        assert_eq!(clock.oldest_reservation(), None);
    }
}
