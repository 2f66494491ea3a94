//! The first requests to a store: they show whether it can be used.

use super::error::DaemonError;
use crate::backend::{Backend, BackendConfig, BackendError};
use crate::config::StoreUrl;
use crate::env::Env;
use std::time::Duration;

/// How long the first check of a store may take; the store's own limits are shorter and their errors say more.
const CHECK_MAX: Duration = Duration::from_secs(9);

/// How far this machine's clock may be from the store's: timestamps are made from it.
const CLOCK_MAX: Duration = Duration::from_secs(60);

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreUse {
    /// To write a namespace.
    Write,
    /// To read what another process writes.
    Follow,
}

/// Opens the store and checks, before anything depends on it, that it answers, and for a writer that it does what it must.
///
/// # Errors
/// [`DaemonError`] names the store; one that does not answer within 9 s is an error.
pub async fn open_store(
    url: &StoreUrl,
    config: &BackendConfig,
    how: StoreUse,
    env: &dyn Env,
) -> Result<Backend, DaemonError> {
    let backend = Backend::open(url.secret(), config).map_err(|error| match error {
        BackendError::Invalid { .. } => DaemonError::Url(error),
        error => error.into(),
    })?;
    let asked = async {
        backend.check().await?;
        if how == StoreUse::Write {
            let there = backend.probe(env).await?.store_time_ns;
            compare_clocks(backend.url(), env.now(), there)?;
        }
        Ok(())
    };
    match tokio::time::timeout(CHECK_MAX, asked).await {
        Ok(outcome) => outcome.map(|()| backend),
        Err(_) => Err(DaemonError::NoAnswer {
            url: backend.url().to_owned(),
            limit: CHECK_MAX,
        }),
    }
}

/// Fails when the clocks differ by more than [`CLOCK_MAX`]; both are in nanoseconds since 1970.
fn compare_clocks(url: &str, here: u64, there: u64) -> Result<(), DaemonError> {
    if Duration::from_nanos(here.abs_diff(there)) <= CLOCK_MAX {
        return Ok(());
    }
    let show = |time: u64| match jiff::Timestamp::from_nanosecond(time.into()) {
        Ok(time) => format!("{time:.0}"),
        Err(_) => format!("{time} ns"),
    };
    Err(DaemonError::Clock {
        url: url.to_owned(),
        limit: CLOCK_MAX,
        here: show(here),
        there: show(there),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_767_268_800_000_000_000;

    #[test]
    fn a_clock_more_than_a_minute_off_is_refused_with_both_times() {
        assert!(compare_clocks("s3://b", NOON, NOON + 60_000_000_000).is_ok());
        assert!(compare_clocks("s3://b", NOON + 60_000_000_000, NOON).is_ok());
        let error = compare_clocks("s3://b", NOON, NOON + 61_000_000_000).unwrap_err();
        let text = error.to_string();
        for part in ["s3://b", "2026-01-01T12:00:00Z", "2026-01-01T12:01:01Z"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
