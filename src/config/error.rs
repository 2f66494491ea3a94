//! The error of an invalid setting, and the check that most settings share.

use std::fmt;
use std::time::Duration;

/// An invalid setting, with the name of its flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} {value}: {why}")]
pub struct ConfigError {
    flag: &'static str,
    value: String,
    why: String,
}

impl ConfigError {
    pub(super) fn new(
        flag: &'static str,
        value: impl fmt::Display,
        why: impl Into<String>,
    ) -> Self {
        Self {
            flag,
            value: value.to_string(),
            why: why.into(),
        }
    }
}

/// Refuses a time below `least`.
pub(super) fn at_least(
    flag: &'static str,
    value: Duration,
    least: Duration,
) -> Result<(), ConfigError> {
    if value < least {
        let why = format!("must be at least {least:?}");
        return Err(ConfigError::new(flag, format!("{value:?}"), why));
    }
    Ok(())
}
