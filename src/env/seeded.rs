//! An environment for tests: a run with the same seed repeats exactly.

use super::Env;
use crate::sync::{Mutex, OnceLock, lock};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The first time of a [`SeededEnv`]: 2026-11-20 21:26:48 UTC, in nanoseconds since 1970-01-01 UTC.
const START: u64 = 1_795_210_008_000_000_000;

/// The step of the clock per call of [`SeededEnv::now`], in nanoseconds.
const STEP: u64 = 1_000;

/// A clock that steps with each reading, and ids from a seeded generator. Its uptime follows tokio's clock.
#[derive(Debug)]
pub(crate) struct SeededEnv {
    state: Mutex<SeededState>,
    /// When the uptime was read first.
    started: OnceLock<Instant>,
}

#[derive(Debug)]
struct SeededState {
    next_now: u64,
    random: u64,
    /// How long the machine has slept.
    slept: Duration,
}

impl SeededEnv {
    /// Creates an environment whose clock starts at [`START`] and whose ids follow from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(SeededState {
                next_now: START,
                random: seed,
                slept: Duration::ZERO,
            }),
            started: OnceLock::new(),
        }
    }

    /// Sets the clock back by `ns` nanoseconds.
    pub(crate) fn go_back(&self, ns: u64) {
        let mut state = lock(&self.state);
        state.next_now = state.next_now.saturating_sub(ns);
    }

    /// Lets the machine sleep: tokio's clock stands still meanwhile.
    pub(crate) fn sleep(&self, time: Duration) {
        lock(&self.state).slept += time;
    }

    /// Moves the clock forward by `ns` nanoseconds.
    pub(crate) fn advance(&self, ns: u64) {
        let mut state = lock(&self.state);
        state.next_now = state.next_now.saturating_add(ns);
    }
}

impl Env for SeededEnv {
    fn now(&self) -> u64 {
        let mut state = lock(&self.state);
        let now = state.next_now;
        state.next_now = now.saturating_add(STEP);
        now
    }

    fn uptime(&self) -> Duration {
        let started = self.started.get_or_init(Instant::now);
        started.elapsed() + lock(&self.state).slept
    }

    fn new_id(&self) -> Uuid {
        let mut state = lock(&self.state);
        let high = split_mix(&mut state.random);
        let low = split_mix(&mut state.random);
        let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// Steps the SplitMix64 generator: every 64-bit value occurs once per period.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_same_seed_gives_the_same_clock_and_ids() {
        let (one, two) = (SeededEnv::new(7), SeededEnv::new(7));
        for _ in 0..100 {
            assert_eq!(one.now(), two.now());
            assert_eq!(one.new_id(), two.new_id());
        }
        assert_ne!(SeededEnv::new(7).new_id(), SeededEnv::new(8).new_id());
    }

    #[test]
    fn the_seeded_clock_steps_and_advances() {
        let env = SeededEnv::new(1);
        assert_eq!(env.now(), START);
        assert_eq!(env.now(), START + STEP);
        env.advance(5_000_000);
        assert_eq!(env.now(), START + 2 * STEP + 5_000_000);
        env.go_back(5_000_000);
        assert_eq!(env.now(), START + 3 * STEP);
    }

    #[test]
    fn seeded_ids_differ_and_are_version_four() {
        let env = SeededEnv::new(3);
        let ids: HashSet<Uuid> = (0..1000).map(|_| env.new_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
