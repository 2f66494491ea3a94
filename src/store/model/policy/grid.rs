//! The grid: the last nanoseconds of UTC hours, days, weeks, months and years.
//!
//! The grid is one for a whole namespace, so the versions that a grid time shows are a consistent tree.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use crate::store::model::version::Timestamp;

/// Nanoseconds of an hour.
pub(crate) const HOUR: u64 = 3600 * 1_000_000_000;
/// Nanoseconds of a day.
pub(crate) const DAY: u64 = 24 * HOUR;
/// From a Thursday, 1970-01-01, to the first Monday.
const FIRST_MONDAY: u64 = 4 * DAY;
const WEEK: u64 = 7 * DAY;

/// A period whose ends are grid times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Hours.
    Hourly,
    /// Days.
    Daily,
    /// Weeks, from Monday to Sunday.
    Weekly,
    /// Months.
    Monthly,
    /// Years.
    Yearly,
}

impl Tier {
    /// All tiers, the shortest period first.
    pub const ALL: [Self; 5] = [
        Self::Hourly,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
        Self::Yearly,
    ];

    /// Returns the beginning of the period that includes `at`; `None` for a time in the first week, which began before 1970.
    fn period_start(self, at: Timestamp) -> Option<u64> {
        let month = |of: fn(Date) -> Option<Date>| {
            let nanoseconds = i128::from(at.0);
            let at = jiff::Timestamp::from_nanosecond(nanoseconds).ok()?;
            let first = of(Date::from(TimeZone::UTC.to_datetime(at)))?;
            let midnight = first.to_datetime(Time::midnight());
            let start = TimeZone::UTC.to_timestamp(midnight).ok()?;
            u64::try_from(start.as_nanosecond()).ok()
        };
        match self {
            Self::Hourly => Some(at.0 / HOUR * HOUR),
            Self::Daily => Some(at.0 / DAY * DAY),
            Self::Weekly => {
                let since = at.0.checked_sub(FIRST_MONDAY)?;
                Some(FIRST_MONDAY + since / WEEK * WEEK)
            }
            Self::Monthly => month(|date| Some(date.first_of_month())),
            Self::Yearly => month(|date| Some(date.first_of_year())),
        }
    }

    /// Tells whether a time is the last nanosecond of one of the tier's periods.
    pub(crate) fn is_grid_time(self, at: Timestamp) -> bool {
        let after = Timestamp(at.0.saturating_add(1));
        self.last_before(after) == Some(at)
    }

    /// Returns the newest grid time before `end`; `None` if there is none since 1970.
    pub fn last_before(self, end: Timestamp) -> Option<Timestamp> {
        let last = self.period_start(end)?.checked_sub(1)?;
        Some(Timestamp(last))
    }

    /// Returns the oldest grid time that is not before `at`.
    pub fn first_from(self, at: Timestamp) -> Timestamp {
        let longest = match self {
            Self::Hourly => HOUR,
            Self::Daily => DAY,
            Self::Weekly => WEEK,
            Self::Monthly => 32 * DAY,
            Self::Yearly => 366 * DAY,
        };
        // After the longest period from its start on, another one has begun, and only one.
        let start = self.period_start(at);
        let next =
            start.and_then(|start| self.period_start(Timestamp(start.checked_add(longest)?)));
        let next = match (start, next) {
            (None, _) => FIRST_MONDAY,
            (Some(_), next) => next.unwrap_or(u64::MAX),
        };
        Timestamp(next - 1)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}
