//! The wall clock, the clock for leases, and the source of new ids.
//!
//! Invariant: no other room reads a wall clock or generates a random id, so that a test with an environment of its own
//! repeats exactly. Pauses and timeouts use tokio's clock, which a test can pause.

#[cfg(test)]
mod seeded;

#[cfg(test)]
pub(crate) use seeded::SeededEnv;

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// A source of time and of ids.
pub trait Env: Send + Sync + std::fmt::Debug + 'static {
    /// Reads the wall clock, in nanoseconds since 1970-01-01 UTC. It may stand still or jump back.
    fn now(&self) -> u64;

    /// Reads a clock that never jumps, and that also runs while the process is stopped and while the machine sleeps. Only the difference of
    /// two readings has a meaning.
    fn uptime(&self) -> Duration;

    /// Generates an id that no other call has returned.
    fn new_id(&self) -> Uuid;
}

/// The machine's clock and random ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now(&self) -> u64 {
        // A clock before 1970 reads as 1970. Nanoseconds exceed 64 bits in the year 2554.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            })
    }

    fn uptime(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that generates ids"
    )]
    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-01-01 00:00:00 UTC, in nanoseconds since 1970-01-01 UTC.
    const PAST: u64 = 1_735_689_600_000_000_000;

    #[test]
    fn the_system_clock_runs_and_its_ids_differ() {
        assert!(SystemEnv.now() > PAST);
        let earlier = SystemEnv.uptime();
        assert!(SystemEnv.uptime() >= earlier && earlier > Duration::ZERO);
        assert_ne!(SystemEnv.new_id(), SystemEnv.new_id());
    }
}
