//! Until when something lasts, as people write it: a date or a time in the grammar of `.versions`, or a duration from now.

use super::stamp::TimeName;
use crate::store::Timestamp;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Why a text says no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UntilError {
    /// It is neither a time nor a duration.
    #[error(
        "{0:?} is neither a time nor a duration; write 2027-01-01, '2027-01-01 09:00+0100', 12h, 30d, 8w or 1y"
    )]
    NoTime(String),
    /// It is not in the future.
    #[error("{0:?} is not in the future")]
    Past(String),
}

/// Reads `text` at `now`. A date means the end of that day, as everywhere in `.versions`.
///
/// # Errors
/// [`UntilError`] names the text.
pub(crate) fn parse_until(text: &[u8], now: Timestamp) -> Result<Timestamp, UntilError> {
    let shown = || String::from_utf8_lossy(text).into_owned();
    let until = match TimeName::parse(text) {
        Some(TimeName::Stamp(period)) => Some(period.last),
        Some(TimeName::Ago(_)) => return Err(UntilError::Past(shown())),
        None => duration(text).map(|length| Timestamp(now.0.saturating_add(length))),
    };
    match until {
        Some(until) if until > now => Ok(until),
        Some(_) => Err(UntilError::Past(shown())),
        None => Err(UntilError::NoTime(shown())),
    }
}

/// Reads a duration, in nanoseconds.
fn duration(text: &[u8]) -> Option<u64> {
    let (unit, digits) = text.split_last()?;
    let unit = match unit {
        b's' => SECOND,
        b'm' => 60 * SECOND,
        b'h' => 3600 * SECOND,
        b'd' => DAY,
        b'w' => 7 * DAY,
        b'y' => 365 * DAY,
        _ => return None,
    };
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20T21:26:48Z.
    const NOW: Timestamp = Timestamp(1_795_210_008_000_000_000);

    #[test]
    fn dates_times_and_durations_end_in_the_future() {
        let until = |text: &str| parse_until(text.as_bytes(), NOW).map(|until| until.0 - NOW.0);
        let to_midnight = 2 * 3600 + 33 * 60 + 12;
        for (text, seconds) in [
            ("30s", 30),
            ("2h", 7200),
            ("30d", 30 * 86_400),
            ("1y", 365 * 86_400),
            ("2w", 14 * 86_400),
        ] {
            assert_eq!(until(text), Ok(seconds * SECOND), "{text}");
        }
        assert_eq!(until("2026-11-20"), Ok(to_midnight * SECOND - 1));
        assert_eq!(until("2026-11-20 22:26:48+0100"), Ok(SECOND - 1));
        for text in [
            "2026-11-19",
            "1970",
            "-1h",
            "0d",
            "@GMT-2026.11.20-21.26.47",
        ] {
            assert_eq!(until(text), Err(UntilError::Past(text.to_owned())));
        }
        for text in [
            "",
            "d",
            "30",
            "30x",
            "tomorrow",
            "1.5d",
            "30d ",
            "9999999999s",
        ] {
            assert_eq!(until(text), Err(UntilError::NoTime(text.to_owned())));
        }
    }
}
