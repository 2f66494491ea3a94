//! Sizes, durations and modes in the form that people write.

use crate::backend::Retry;
use std::time::Duration;

/// Reads `10G`, `512MiB`, `4096`: bytes, with units of 1024.
///
/// # Errors
/// A message that says what is expected.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("expected a size like 512M or 10G".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a size like 512M or 10G".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `1d`; a bare number counts seconds.
///
/// # Errors
/// A message that says what is expected.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("expected a duration like 500ms, 30s or 5m".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a duration like 500ms, 30s or 5m".to_owned())?;
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(|| "too long".to_owned())
}

/// Reads `none`, `aggressive` or a number: how often a failed request is sent again.
///
/// # Errors
/// A message that says what is expected.
pub(super) fn retries(text: &str) -> Result<Retry, String> {
    match text {
        "none" => Ok(Retry::NONE),
        "aggressive" => Ok(Retry::AGGRESSIVE),
        number => match number.parse() {
            Ok(count @ 0..=1000) => Ok(Retry {
                count,
                ..Retry::default()
            }),
            _ => Err("expected none, aggressive or a number up to 1000".to_owned()),
        },
    }
}

/// Reads permission bits, `022`.
///
/// # Errors
/// A message that says what is expected.
pub(super) fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| "expected permission bits like 022".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Writes bytes for a person: `1.5 MiB`.
pub(super) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    // The smallest unit in which the number is below 1024, with one decimal.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Writes a duration for a person: `350 ms`, `42 s`, `2 h 5 min`.
pub(super) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1k", 1024),
            ("512M", 512 << 20),
            ("10GiB", 10 << 30),
            ("2 tb", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "1x", "99999999999T", "1 G G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in ["", "s", "-1s", "1w", "1.5s", "999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn retries_are_a_preset_or_a_number() {
        assert_eq!(retries("none"), Ok(Retry::NONE));
        assert_eq!(retries("aggressive"), Ok(Retry::AGGRESSIVE));
        assert_eq!(retries("0").map(|retry| retry.count), Ok(0));
        assert_eq!(retries("25").map(|retry| retry.count), Ok(25));
        for text in ["", "-1", "1001", "some", "None", "3s"] {
            assert!(retries(text).is_err(), "{text}");
        }
    }

    #[test]
    fn permission_bits() {
        assert_eq!(octal("022"), Ok(0o22));
        assert!(octal("9").is_err() && octal("").is_err());
    }

    #[test]
    fn for_people() {
        assert_eq!(show_size(1023), "1023 bytes");
        assert_eq!(show_size(1536), "1.5 KiB");
        assert_eq!(show_size(1 << 20), "1.0 MiB");
        assert_eq!(show_size(u64::MAX), "15.9 EiB");
        assert_eq!(show_duration(Duration::from_millis(350)), "350 ms");
        assert_eq!(show_duration(Duration::from_secs(7500)), "2 h 5 min");
    }
}
