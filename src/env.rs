//! The clock and the source of fresh ids: the two things a program takes from outside without asking.
//!
//! Invariant: no other room reads a wall clock or makes a random id, so a run over a [`SeededEnv`] repeats exactly.
//! Waiting and timeouts are tokio's, whose clock a test can pause.

use crate::sync::{Mutex, lock};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Where time and identity come from.
pub trait Env: Send + Sync + std::fmt::Debug + 'static {
    /// Tells the wall clock in nanoseconds since 1970-01-01 UTC. It may stand still or jump back, as wall clocks do.
    fn now(&self) -> u64;

    /// Makes an id that no other call has returned.
    fn new_id(&self) -> Uuid;
}

/// The machine's clock and the kernel's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now(&self) -> u64 {
        // A clock before 1970 reads as 1970; nanoseconds fill 64 bits in the year 2554.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            })
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that makes ids"
    )]
    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// 2026-01-01 00:00:00 UTC, the first instant a [`SeededEnv`] tells.
const SEEDED_START: u64 = 1_795_210_008_000_000_000;

/// What a call of [`SeededEnv::now`] adds, in nanoseconds.
const SEEDED_STEP: u64 = 1_000;

/// A clock and ids that follow from a seed alone.
#[derive(Debug)]
pub struct SeededEnv {
    state: Mutex<SeededState>,
}

#[derive(Debug)]
struct SeededState {
    next_now: u64,
    random: u64,
}

impl SeededEnv {
    /// Makes an environment whose clock stands at 2026-01-01 UTC and whose ids follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(SeededState {
                next_now: SEEDED_START,
                random: seed,
            }),
        }
    }

    /// Sets the clock back by `ns` nanoseconds.
    pub fn go_back(&self, ns: u64) {
        let mut state = lock(&self.state);
        state.next_now = state.next_now.saturating_sub(ns);
    }

    /// Moves the clock forward by `ns` nanoseconds.
    pub fn advance(&self, ns: u64) {
        let mut state = lock(&self.state);
        state.next_now = state.next_now.saturating_add(ns);
    }
}

impl Env for SeededEnv {
    fn now(&self) -> u64 {
        let mut state = lock(&self.state);
        let now = state.next_now;
        state.next_now = now.saturating_add(SEEDED_STEP);
        now
    }

    fn new_id(&self) -> Uuid {
        let mut state = lock(&self.state);
        let high = split_mix(&mut state.random);
        let low = split_mix(&mut state.random);
        let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// Steps the SplitMix64 generator: every 64-bit value comes once per period.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_system_clock_is_of_this_century() {
        assert!(SystemEnv.now() > SEEDED_START - 366 * 86_400_000_000_000);
        assert_ne!(SystemEnv.new_id(), SystemEnv.new_id());
    }

    #[test]
    fn a_seed_repeats() {
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
        assert_eq!(env.now(), SEEDED_START);
        assert_eq!(env.now(), SEEDED_START + SEEDED_STEP);
        env.advance(5_000_000);
        assert_eq!(env.now(), SEEDED_START + 2 * SEEDED_STEP + 5_000_000);
        env.go_back(5_000_000);
        assert_eq!(env.now(), SEEDED_START + 3 * SEEDED_STEP);
    }

    #[test]
    fn seeded_ids_differ_and_are_version_four() {
        let env = SeededEnv::new(3);
        let ids: HashSet<Uuid> = (0..1000).map(|_| env.new_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
