//! How long a backend may take: settings, the retries they mean, and the deadline around a whole operation.
//!
//! Invariant: only `object_store` retries. What is here bounds it from outside, so that every operation of a
//! [`super::Backend`] ends, with an answer or with [`BackendError::Unavailable`].

use super::error::{BackendError, Class};
use super::location::redacted;
use object_store::{BackoffConfig, RetryConfig};
use std::fmt;
use std::time::Duration;

/// Settings of a backend.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// The URL of the service, for stores that are not the provider's own. Plain http is spoken only if it says so.
    pub endpoint: Option<String>,
    /// The region of the bucket; S3 only. Without it the environment's, without that `us-east-1`.
    pub region: Option<String>,
    /// The time a whole operation may take, retries included. One request gets half of it.
    pub deadline: Duration,
    /// How often a failed request is sent again.
    pub retries: usize,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            deadline: Duration::from_secs(60),
            retries: 10,
        }
    }
}

impl fmt::Debug for BackendConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendConfig")
            .field("endpoint", &self.endpoint.as_deref().map(redacted))
            .field("region", &self.region)
            .field("deadline", &self.deadline)
            .field("retries", &self.retries)
            .finish()
    }
}

/// The time [`super::Backend::check`] may take: somebody is waiting at a prompt.
const CHECK_DEADLINE: Duration = Duration::from_secs(8);

/// The longest time to wait for a connection, as TCP's own retransmissions would take minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl BackendConfig {
    /// Makes the settings for a question that somebody waits for.
    pub(super) fn hasty(&self) -> Self {
        Self {
            deadline: self.deadline.min(CHECK_DEADLINE),
            retries: self.retries.min(1),
            ..self.clone()
        }
    }

    /// Makes the retry settings: they end with the deadline.
    pub(super) fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig::default();
        RetryConfig {
            max_retries: self.retries,
            retry_timeout: self.deadline,
            backoff: BackoffConfig {
                max_backoff: backoff.max_backoff.min(self.deadline / 4),
                init_backoff: backoff.init_backoff.min(self.deadline / 4),
                ..backoff
            },
        }
    }

    /// Tells how long one request may take: half the deadline, so that a hung one leaves time for a second.
    pub(super) fn request_timeout(&self) -> Duration {
        self.deadline / 2
    }

    /// Tells how long making a connection may take.
    pub(super) fn connect_timeout(&self) -> Duration {
        CONNECT_TIMEOUT.min(self.request_timeout())
    }
}

/// Waits for `operation` on `place`, at most `deadline`; afterwards it is dropped and may or may not have happened.
pub(super) async fn within<T>(
    deadline: Duration,
    place: &str,
    operation: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    match tokio::time::timeout(deadline, operation).await {
        Ok(result) => result,
        Err(_) => Err(Class::Unavailable.error(
            place,
            format!("no answer within {} s", deadline.as_secs_f32()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_an_operation() {
        let hang = std::future::pending::<Result<(), BackendError>>();
        let error = within(Duration::from_secs(8), "s3://b/k", hang)
            .await
            .unwrap_err();
        assert!(matches!(error, BackendError::Unavailable { .. }));
        assert_eq!(
            error.to_string(),
            "s3://b/k: the store is unavailable: no answer within 8 s"
        );
    }

    #[test]
    fn a_check_is_hasty_and_never_slower_than_asked() {
        let hasty = BackendConfig::default().hasty();
        assert_eq!(hasty.deadline, CHECK_DEADLINE);
        assert_eq!(hasty.retry().max_retries, 1);
        assert!(hasty.connect_timeout() < hasty.deadline);
        let strict = BackendConfig {
            deadline: Duration::from_secs(2),
            retries: 0,
            ..BackendConfig::default()
        };
        assert_eq!(strict.hasty(), strict);
    }

    #[test]
    fn retries_end_with_the_deadline() {
        let retry = BackendConfig::default().retry();
        assert_eq!(retry.retry_timeout, Duration::from_secs(60));
        assert_eq!(retry.max_retries, 10);
    }

    #[test]
    fn debug_hides_what_an_endpoint_may_carry() {
        let config = BackendConfig {
            endpoint: Some("http://key:hidden@host:9000".into()),
            ..BackendConfig::default()
        };
        let text = format!("{config:?}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
