//! The namespace's clock: timestamps that only grow, and which of them are still on their way.
//!
//! Invariant: no timestamp is given twice, not even across mounts ([`Timestamps::raise`]); the floor is never above a timestamp
//! whose operation is not yet committed.

use std::collections::BTreeMap;

use tokio::sync::Notify;

use crate::env::Env;
use crate::store::model::version::{Time, Timestamp};
use crate::sync::{Arc, Mutex, lock};

/// Gives out timestamps.
#[derive(Debug)]
pub(crate) struct Timestamps {
    env: Arc<dyn Env>,
    state: Mutex<TimestampsState>,
    /// A reservation was given back.
    released: Notify,
}

#[derive(Debug, Default)]
struct TimestampsState {
    last: u64,
    /// Given out, their operation not yet queued: how many hold each.
    reserved: BTreeMap<u64, u32>,
}

/// A timestamp whose operation is being worked out; until it is dropped nothing at or above it is final.
#[derive(Debug)]
pub(crate) struct Reservation {
    clock: Arc<Timestamps>,
    at: Timestamp,
}

impl Reservation {
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
    pub(crate) fn new(env: Arc<dyn Env>) -> Arc<Self> {
        Arc::new(Self {
            env,
            state: Mutex::default(),
            released: Notify::new(),
        })
    }

    /// Never gives a timestamp at or below `mark` again.
    pub(crate) fn raise(&self, mark: u64) {
        let mut state = lock(&self.state);
        state.last = state.last.max(mark);
    }

    /// The next timestamp, as of now.
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

    /// The present, without giving it out.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.env.now().max(lock(&self.state).last))
    }

    /// The machine's clock, for the times that stat(2) shows: it may go back, as timestamps may not.
    pub(crate) fn wall(&self) -> Time {
        Timestamp(self.env.now()).time()
    }

    /// A timestamp above all that were given out and not above any that will be, whatever the wall clock does.
    pub(crate) fn next(&self) -> Timestamp {
        let wall = self.env.now();
        let mut state = lock(&self.state);
        let next = wall.max(state.last + 1);
        state.last = next - 1;
        Timestamp(next)
    }

    /// The newest timestamp given out.
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

    /// The oldest timestamp whose operation is still being worked out.
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
    fn instants_grow_even_when_the_wall_clock_does_not() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        let first = clock.begin().at();
        clock.raise(first.0 + 1_000_000_000_000);
        assert_eq!(clock.begin().at().0, first.0 + 1_000_000_000_001);
    }

    #[test]
    fn the_wall_is_the_machines_clock_however_far_the_instants_are() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        let before = clock.wall();
        clock.raise(clock.begin().at().0 + 7_200_000_000_000);
        let given = clock.begin().at().time();
        let after = clock.wall();
        assert!(before < after && after.seconds <= before.seconds + 1);
        assert!(given.seconds >= after.seconds + 7_199);
    }

    #[test]
    fn nothing_is_given_below_what_was_said_to_be_next() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        // As after a wall clock that went back: what is given out is ahead of it.
        clock.raise(clock.now().0 + 1_000_000_000_000);
        let given = clock.begin().at();
        let next = clock.next();
        assert!(given < next);
        assert!(clock.begin().at() >= next);
    }

    #[test]
    fn the_oldest_answer_is_known_until_it_is_given() {
        let clock = Timestamps::new(Arc::new(SeededEnv::new(1)));
        let (a, b) = (clock.begin(), clock.begin());
        assert_eq!(clock.oldest_reservation(), Some(a.at()));
        drop(a);
        assert_eq!(clock.oldest_reservation(), Some(b.at()));
        drop(b);
        assert_eq!(clock.oldest_reservation(), None);
    }
}
