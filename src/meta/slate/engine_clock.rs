//! The engine's clock, which never shows a time before the newest row of the index.
//!
//! The engine refuses a commit whose time is more than ten seconds before that of the row before it, and stops. Rows may be from a machine
//! whose clock was ahead, or from before this machine's clock was set back.

use chrono::{DateTime, Utc};
use slatedb_common::clock::{DefaultSystemClock, SystemClock, SystemClockTicker};
use std::pin::Pin;
use std::time::Duration;

/// The furthest that the clock is moved: a row with an impossible time, from a damaged bucket, moves it no further.
const AHEAD_MAX: Duration = Duration::from_secs(366 * 86_400);

/// The machine's clock as of the open, which then runs without jumps, moved ahead by as much as the newest row is ahead of it.
#[derive(Debug)]
pub(super) struct EngineClock {
    machine: DefaultSystemClock,
    ahead: Duration,
}

impl EngineClock {
    /// Makes a clock that shows a time after `newest`, in milliseconds since 1970-01-01 UTC.
    pub(super) fn after(newest: i64) -> Self {
        let machine = DefaultSystemClock::new();
        let now = machine.now().timestamp_millis();
        let behind = u64::try_from(newest.saturating_sub(now)).unwrap_or(0);
        Self {
            machine,
            ahead: Duration::from_millis(behind).min(AHEAD_MAX),
        }
    }
}

impl SystemClock for EngineClock {
    fn now(&self) -> DateTime<Utc> {
        self.machine.now() + self.ahead
    }

    fn sleep<'a>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.machine.sleep(duration)
    }

    fn ticker<'a>(&'a self, duration: Duration) -> SystemClockTicker<'a> {
        SystemClockTicker::new(self, duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_clock_is_ahead_of_the_newest_row_and_else_the_machines() {
        let machine = DefaultSystemClock::new();
        let now = machine.now().timestamp_millis();
        let hour = 3_600_000;
        assert!(EngineClock::after(now + hour).now().timestamp_millis() >= now + hour);
        let behind = EngineClock::after(now - hour).now().timestamp_millis();
        assert!((now..now + hour / 60).contains(&behind), "{behind}");
        for impossible in [i64::MIN, i64::MAX] {
            assert!(EngineClock::after(impossible).now().timestamp_millis() >= now);
        }
    }
}
