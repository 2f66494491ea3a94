//! The retries of a request, from the flags that set them.

use super::error::{ConfigError, at_least};
use crate::backend::Retry;
use std::time::Duration;

/// Combines the retry options. A default pause is adjusted if it contradicts one that the user has set.
pub(super) fn retry(
    retry: Option<Retry>,
    base: Option<Duration>,
    cap: Option<Duration>,
) -> Result<Retry, ConfigError> {
    let retry = retry.unwrap_or_default();
    let least = Duration::from_millis(1);
    at_least("retry-base", base.unwrap_or(least), least)?;
    at_least("retry-cap", cap.unwrap_or(least), least)?;
    let longest = cap.unwrap_or_else(|| retry.cap.max(base.unwrap_or(retry.base)));
    for (flag, value) in [("retry-cap", cap), ("retry-base", base)] {
        let limit = match flag {
            "retry-base" => longest.min(Retry::CAP_MAX),
            _ => Retry::CAP_MAX,
        };
        if let Some(value) = value.filter(|value| *value > limit) {
            let why = format!("must be at most {limit:?}");
            return Err(ConfigError::new(flag, format!("{value:?}"), why));
        }
    }
    Ok(Retry {
        base: base.unwrap_or(retry.base.min(longest)),
        cap: longest,
        ..retry
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_pauses_are_adjusted_to_those_that_are_set() {
        let ms = Duration::from_millis;
        let told = |given, base: Option<u64>, cap: Option<u64>| {
            let made = retry(given, base.map(ms), cap.map(ms)).unwrap();
            (made.count, made.base.as_millis(), made.cap.as_millis())
        };
        assert_eq!(told(None, None, None), (10, 100, 15_000));
        assert_eq!(told(Some(Retry::NONE), None, None).0, 0);
        assert_eq!(told(Some(Retry::AGGRESSIVE), None, None), (1000, 20, 2000));
        assert_eq!(
            told(Some(Retry::AGGRESSIVE), Some(5), None),
            (1000, 5, 2000)
        );
        assert_eq!(told(None, Some(3), Some(40)), (10, 3, 40));
        // Only one of the two is set: the other one is adjusted.
        assert_eq!(told(None, None, Some(50)), (10, 50, 50));
        assert_eq!(
            told(Some(Retry::AGGRESSIVE), Some(4000), None),
            (1000, 4000, 4000)
        );
        for (flag, base, cap) in [
            ("--retry-base 0ns", Some(0), None),
            ("--retry-cap 0ns", None, Some(0)),
            ("--retry-base 200ms", Some(200), Some(100)),
            ("--retry-base 16s", Some(16_000), None),
            ("--retry-cap 16s", None, Some(16_000)),
        ] {
            let error = retry(None, base.map(ms), cap.map(ms)).unwrap_err();
            assert!(error.to_string().starts_with(flag), "{flag}: {error}");
        }
    }
}
