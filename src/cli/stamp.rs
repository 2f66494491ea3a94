//! `rewindfs stamp`: the timestamp that a time means now, as a name of `.versions` whose meaning does not change.

use super::error::CliError;
use crate::env::{Env, SystemEnv};
use crate::fs::past::stamp::{SPELLINGS, TimeName, print_exact};
use crate::store::Timestamp;
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Prints the stamp of `time` by this machine's clock.
///
/// # Errors
/// A usage error for a text that is no time, a failure for a time in the future or before 1970.
pub(super) fn stamp(time: &OsStr, json: bool) -> Result<(), CliError> {
    let at = resolved_time(time, Timestamp(SystemEnv.now()))?;
    let stamp = print_exact(at);
    match json {
        true => println!(
            "{:#}",
            json!({ "time": time.to_string_lossy(), "stamp": stamp, "nanoseconds": at.0 })
        ),
        false => println!("{stamp}"),
    }
    Ok(())
}

fn resolved_time(time: &OsStr, now: Timestamp) -> Result<Timestamp, CliError> {
    let shown = time.display();
    let name = TimeName::parse(time.as_bytes()).ok_or_else(|| {
        CliError::usage(format!(
            "\"{shown}\" is no time between 1970 and 2554; times are {SPELLINGS}"
        ))
    })?;
    match name.resolve(now) {
        Some((at, _)) => Ok(at),
        None => Err(CliError::failure(format!(
            "{shown}: is in the future, or before 1970"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T01:00:00.5Z.
    const NOW: Timestamp = Timestamp(1_795_222_800_500_000_000);

    fn printed(time: &str) -> Result<String, u8> {
        let at = resolved_time(OsStr::new(time), NOW).map_err(|cli_error| cli_error.status())?;
        Ok(print_exact(at))
    }

    #[test]
    fn a_time_is_resolved_as_by_a_mount() {
        for (time, stamp) in [
            ("-1m", "2026-11-21T00-59-00.999Z"),
            ("-30s", "2026-11-21T00-59-30.999Z"),
            ("-1w", "2026-11-14T01-00-00.999Z"),
            ("-0m", "2026-11-21T01-00-00.500000000Z"),
            ("2026", "2026-11-21T01-00-00.500000000Z"),
            ("2026-11-20", "2026-11-20T23-59-59.999Z"),
            ("2026-11-20 22:26:48+0100", "2026-11-20T21-26-48.999Z"),
            ("@GMT-2026.11.20-21.26.48", "2026-11-20T21-26-48.999Z"),
            ("2026-11-20T21-26-48.123Z", "2026-11-20T21-26-48.123Z"),
        ] {
            assert_eq!(printed(time).as_deref(), Ok(stamp), "{time}");
        }
    }

    #[test]
    fn a_text_that_is_no_time_is_usage_and_a_time_in_the_future_a_failure() {
        for wrong in [
            "",
            "-",
            "-1",
            "-1y",
            "yesterday",
            "latest",
            "2026-13",
            "1795123608",
        ] {
            assert_eq!(printed(wrong), Err(2), "{wrong}");
        }
        for far in [
            "2027",
            "2026-11-21T01-00-01",
            "@GMT-2026.11.21-01.00.01",
            "-9999w",
        ] {
            assert_eq!(printed(far), Err(1), "{far}");
        }
    }
}
