//! The clock and the ids of a simulated machine.

use std::sync::Mutex;
use std::time::Duration;

use rewindfs::env::Env;
use tokio::time::Instant;
use uuid::Uuid;

use crate::randomness::step;

/// 2026-11-20 21:26:48 UTC, in nanoseconds since 1970-01-01 UTC.
const START: u64 = 1_795_210_008_000_000_000;

/// Whether a machine sees how long a pause was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uptime {
    Runs,
    /// A planted fault: no lease ends.
    StandsStill,
}

/// A clock that follows tokio's, with an error of its own.
#[derive(Debug)]
pub(crate) struct SimulatedEnv {
    began: Instant,
    /// By how much the wall clock is wrong, in nanoseconds.
    error: i64,
    uptime: Uptime,
    /// The generator of ids.
    ids: Mutex<u64>,
}

impl SimulatedEnv {
    pub(crate) fn new(began: Instant, error: i64, uptime: Uptime, seed: u64) -> Self {
        Self {
            began,
            error,
            uptime,
            ids: Mutex::new(seed),
        }
    }
}

impl Env for SimulatedEnv {
    fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_nanos()).unwrap();
        (START + elapsed).saturating_add_signed(self.error)
    }

    fn uptime(&self) -> Duration {
        match self.uptime {
            Uptime::Runs => self.began.elapsed(),
            Uptime::StandsStill => Duration::ZERO,
        }
    }

    fn new_id(&self) -> Uuid {
        let mut state = self.ids.lock().unwrap();
        let (high, low) = (step(&mut state), step(&mut state));
        uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
            .into_uuid()
    }
}
