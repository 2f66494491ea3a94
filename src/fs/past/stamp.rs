//! The grammar of times: how `.versions/` prints a timestamp and which names it reads as one.
//!
//! Printed: UTC, fixed width, `2026-11-20T21-26-48.123Z`; nine digits of the second where two timestamps share
//! their millisecond. Read: that, any truncation of it, a space for the `T`, colons between the fields, a zone (`Z`,
//! `+0100`, `-0500`, after colons also `+01:00`), ages (`-30s`, `-15m`, `-2h`, `-3d`, `-1w`), and the names that SMB has for
//! snapshots (`@GMT-2026.11.20-21.26.48`). Nothing else is a time: names are matched whole and in full.
//!
//! Invariant: a name means a *period*, and a period means its last timestamp; what is printed reads back as a period that
//! holds the timestamp it was printed from.

use crate::store::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use std::ops::RangeInclusive;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Bytes of the longest stamp.
const STAMP_LEN: usize = 30;

/// The beginning of the names that SMB has for snapshots; a whole second in UTC follows.
const SMB_PREFIX: &[u8] = b"@GMT-";

/// Spellings of times, for the message about a text that is none.
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "commands print it in their messages")
)]
pub(crate) const SPELLINGS: &str = "-30s, -15m, -2h, -3d, -1w, 2026-11-20, 2026-11-20T21-26, '2026-11-20 21:26:48+0100', \
    @GMT-2026.11.20-21.26.48 and what `ls .versions` prints";

/// How many digits of the second a stamp shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Three digits: the usual form, 24 bytes.
    Millis,
    /// Nine digits, for timestamps that share their millisecond: 30 bytes.
    Nanos,
}

/// Prints `timestamp` as a stamp in UTC.
pub(crate) fn print(timestamp: Timestamp, precision: Precision) -> String {
    // 64 bits of nanoseconds end in the year 2554, well inside jiff's range, so the epoch is never printed instead.
    let stamp = jiff::Timestamp::from_nanosecond(i128::from(timestamp.0))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let at = Offset::UTC.to_datetime(stamp);
    let mut text = String::with_capacity(STAMP_LEN);
    // Not by a format string: a listing prints a hundred thousand of them.
    for (before, number, digits) in [
        ("", i32::from(at.year()), 4),
        ("-", i32::from(at.month()), 2),
        ("-", i32::from(at.day()), 2),
        ("T", i32::from(at.hour()), 2),
        ("-", i32::from(at.minute()), 2),
        ("-", i32::from(at.second()), 2),
    ] {
        text.push_str(before);
        push_digits(&mut text, number.unsigned_abs(), digits);
    }
    text.push('.');
    let nanos = at.subsec_nanosecond().unsigned_abs();
    match precision {
        Precision::Millis => push_digits(&mut text, nanos / 1_000_000, 3),
        Precision::Nanos => push_digits(&mut text, nanos, 9),
    }
    text.push('Z');
    text
}

/// Appends the last `digits` decimal digits of a number.
fn push_digits(text: &mut String, number: u32, digits: u32) {
    for place in (0..digits).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        text.extend(char::from_digit(digit, 10));
    }
}

/// Prints a listing's timestamps, which must be in order (either way): nine digits where neighbours share a millisecond.
pub(crate) fn print_all(timestamps: &[Timestamp]) -> Vec<String> {
    let millis = |index: usize| {
        timestamps
            .get(index)
            .map(|timestamp| timestamp.0 / 1_000_000)
    };
    (0..timestamps.len())
        .map(|index| {
            let before = index.checked_sub(1).and_then(millis);
            let tie = millis(index) == before || millis(index) == millis(index + 1);
            let precision = if tie {
                Precision::Nanos
            } else {
                Precision::Millis
            };
            print(timestamps[index], precision)
        })
        .collect()
}

/// Prints `timestamp` as the shortest stamp that means just this timestamp.
pub(crate) fn print_exact(timestamp: Timestamp) -> String {
    let ends_a_millisecond = timestamp.0 % 1_000_000 == 999_999;
    let precision = match ends_a_millisecond {
        true => Precision::Millis,
        false => Precision::Nanos,
    };
    print(timestamp, precision)
}

/// A period from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Period {
    /// Its first timestamp.
    pub(crate) first: Timestamp,
    /// Its last timestamp.
    pub(crate) last: Timestamp,
}

impl Period {
    /// All its timestamps.
    pub(crate) fn timestamps(&self) -> RangeInclusive<Timestamp> {
        self.first..=self.last
    }

    fn of_length(start: jiff::Timestamp, ns: u64) -> Option<Self> {
        // Before 1970 and after 2554 nothing can have been saved: not a time here.
        let first = u64::try_from(start.as_nanosecond()).ok()?;
        Some(Self {
            first: Timestamp(first),
            last: Timestamp(first.saturating_add(ns - 1)),
        })
    }

    fn of_days(first: Date, next: Date) -> Option<Self> {
        let midnight = |date: Date| Offset::UTC.to_timestamp(date.to_datetime(Time::midnight()));
        let (start, end) = (midnight(first).ok()?, midnight(next).ok()?);
        let ns = end.as_nanosecond() - start.as_nanosecond();
        Self::of_length(start, u64::try_from(ns).ok()?)
    }
}

/// A name that is a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TimeName {
    /// A stamp, whole or truncated.
    Stamp(Period),
    /// So many nanoseconds ago, to the second.
    Ago(u64),
}

/// Whether a name keeps meaning the same timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeStability {
    /// Its period has ended: always the same timestamp.
    Constant,
    /// An age, or a period that still runs: another timestamp at the next call.
    Moving,
}

impl TimeName {
    /// Reads a name. `None`: it is not a time, or not one of the years 1970 to 2554.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        match name.first()? {
            b'-' => parse_age(&name[1..]).map(Self::Ago),
            b'0'..=b'9' => parse_stamp(name).map(Self::Stamp),
            b'@' => parse_smb(name.strip_prefix(SMB_PREFIX)?).map(Self::Stamp),
            _ => None,
        }
    }

    /// The timestamp the name means at `now`. `None`: it is in the future, or before 1970.
    pub(crate) fn resolve(self, now: Timestamp) -> Option<(Timestamp, TimeStability)> {
        match self {
            Self::Stamp(period) if period.first > now => None,
            Self::Stamp(period) if period.last < now => {
                Some((period.last, TimeStability::Constant))
            }
            Self::Stamp(_) => Some((now, TimeStability::Moving)),
            Self::Ago(ns) => {
                let at = now.0.checked_sub(ns)?;
                // The last timestamp of its second, as with stamps.
                let at = (at - at % SECOND).saturating_add(SECOND - 1).min(now.0);
                Some((Timestamp(at), TimeStability::Moving))
            }
        }
    }
}

/// Reads a stamp exactly as [`print`](fn@print) writes it; `None` for every other spelling.
pub(crate) fn parse_printed(name: &[u8]) -> Option<Period> {
    let precision = match name.len() {
        24 => Precision::Millis,
        30 => Precision::Nanos,
        _ => return None,
    };
    let period = parse_stamp(name)?;
    (print(period.first, precision).as_bytes() == name).then_some(period)
}

fn parse_age(text: &[u8]) -> Option<u64> {
    let (unit, digits) = text.split_last()?;
    let unit = match unit {
        b's' => SECOND,
        b'm' => MINUTE,
        b'h' => HOUR,
        b'd' => DAY,
        b'w' => 7 * DAY,
        _ => return None,
    };
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    u64::from(number(digits)?).checked_mul(unit)
}

/// Reads `2026.11.20-21.26.48`, a second in UTC.
fn parse_smb(text: &[u8]) -> Option<Period> {
    let mut rest = Scanner(text);
    let year = i16::try_from(rest.digits(4)?).ok()?;
    let (month, day) = (rest.after(b".")?, rest.after(b".")?);
    let (hour, minute, second) = (rest.after(b"-")?, rest.after(b".")?, rest.after(b".")?);
    if !rest.is_empty() {
        return None;
    }
    let date = Date::new(year, month, day).ok()?;
    let time = Time::new(hour, minute, second, 0).ok()?;
    period(date.to_datetime(time), Offset::UTC, SECOND)
}

fn parse_stamp(name: &[u8]) -> Option<Period> {
    let mut rest = Scanner(name);
    let year = i16::try_from(rest.digits(4)?).ok()?;
    if rest.is_empty() {
        return Period::of_days(Date::new(year, 1, 1).ok()?, Date::new(year + 1, 1, 1).ok()?);
    }
    let month = rest.after(b"-")?;
    if rest.is_empty() {
        let first = Date::new(year, month, 1).ok()?;
        return Period::of_days(first, first.last_of_month().tomorrow().ok()?);
    }
    let day = rest.after(b"-")?;
    let date = Date::new(year, month, day).ok()?;
    if let Some(zone) = zone(rest.0, None) {
        return period(date.to_datetime(Time::midnight()), zone, DAY);
    }
    let hour = rest.after(b"T ")?;
    parse_time(rest, date, hour)
}

/// Reads what follows the hour. The first separator binds the second, and only colons allow a zone with a colon, so
/// that `T21-05` has one reading.
fn parse_time(mut rest: Scanner<'_>, date: Date, hour: i8) -> Option<Period> {
    let at = |minute, second, nanos| {
        Some(date.to_datetime(Time::new(hour, minute, second, nanos).ok()?))
    };
    if let Some(zone) = zone(rest.0, None) {
        return period(at(0, 0, 0)?, zone, HOUR);
    }
    let separator = *rest.0.first()?;
    if !b"-:".contains(&separator) {
        return None;
    }
    let minute = rest.after(&[separator])?;
    if let Some(zone) = zone(rest.0, Some(separator)) {
        return period(at(minute, 0, 0)?, zone, MINUTE);
    }
    let second = rest.after(&[separator])?;
    if let Some(zone) = zone(rest.0, Some(separator)) {
        return period(at(minute, second, 0)?, zone, SECOND);
    }
    let (nanos, length) = rest.fraction()?;
    let zone = zone(rest.0, Some(separator))?;
    period(at(minute, second, nanos)?, zone, length)
}

fn period(start: DateTime, zone: Offset, ns: u64) -> Option<Period> {
    Period::of_length(zone.to_timestamp(start).ok()?, ns)
}

/// Reads all of `rest` as a zone; nothing at all is UTC.
fn zone(rest: &[u8], separator: Option<u8>) -> Option<Offset> {
    let (sign, hours, minutes) = match *rest {
        [] | [b'Z'] => return Some(Offset::UTC),
        [sign, h1, h2, m1, m2] => (sign, [h1, h2], [m1, m2]),
        [sign, h1, h2, b':', m1, m2] if separator == Some(b':') => (sign, [h1, h2], [m1, m2]),
        _ => return None,
    };
    let sign = match sign {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (number(&hours)?, number(&minutes)?);
    if hours > 14 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    Offset::from_seconds(sign * seconds).ok()
}

/// Reads decimal digits; at most nine of them, so 32 bits hold them.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u32::from(digit - b'0'))
    })
}

/// What of a name is still unread.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let (head, tail) = self.0.split_at_checked(count)?;
        let value = number(head)?;
        self.0 = tail;
        Some(value)
    }

    /// Reads one of `separators` and two digits.
    fn after(&mut self, separators: &[u8]) -> Option<i8> {
        let (first, tail) = self.0.split_first()?;
        if !separators.contains(first) {
            return None;
        }
        self.0 = tail;
        i8::try_from(self.digits(2)?).ok()
    }

    /// Reads `.` and one to nine digits: the nanoseconds, and how long a period that many digits mean.
    fn fraction(&mut self) -> Option<(i32, u64)> {
        let tail = self.0.strip_prefix(b".")?;
        let count = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > 9 {
            return None;
        }
        let (digits, tail) = tail.split_at(count);
        self.0 = tail;
        let length = (count..9).fold(1_u32, |length, _| length * 10);
        let nanos = i32::try_from(number(digits)? * length).ok()?;
        Some((nanos, u64::from(length)))
    }
}

#[cfg(test)]
#[path = "stamp_tests.rs"]
mod tests;
