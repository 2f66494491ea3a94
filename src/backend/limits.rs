//! The settings of a backend, the retry settings that follow from them, and the deadline of an operation.
//!
//! Invariant: `object_store` does the retries. The deadline bounds them from outside, so that every operation of a
//! [`super::Backend`] ends, with an answer or with [`BackendError::Unavailable`].

use super::error::{BackendError, Class};
use super::redact::redacted;
use object_store::{BackoffConfig, RetryConfig};
use std::fmt;
use std::time::Duration;

/// Settings of a backend.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// The URL of the service, for stores that are not the provider's own. Plain HTTP is used only if it begins with `http://`.
    pub endpoint: Option<String>,
    /// The region of the bucket; S3 only. The default is the environment's, and `us-east-1` if there is none.
    pub region: Option<String>,
    /// The limit of a whole operation, retries included. The limit of one request is half of it.
    pub deadline: Duration,
    /// The retries of a failed request.
    pub retry: Retry,
}

/// How often a failed request is sent again, and after which pauses. `object_store` repeats a request after the statuses 408,
/// 429 and 5xx, after a lost connection, and after a lost answer if the request is idempotent. The first pause is `base`; each
/// further one is random between `base` and twice the previous one, so that many clients do not retry at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The maximal number of retries of one request.
    pub count: usize,
    /// The first and shortest pause; at least 1 ms and at most `cap`.
    pub base: Duration,
    /// The longest pause, at most [`Retry::CAP_MAX`].
    pub cap: Duration,
}

impl Retry {
    /// No retries: every failure is returned to the caller.
    pub const NONE: Self = Self {
        count: 0,
        ..Self::STANDARD
    };

    /// Retries with short pauses until the deadline: for an unreliable network.
    pub const AGGRESSIVE: Self = Self {
        count: 1000,
        base: Duration::from_millis(20),
        cap: Duration::from_secs(2),
    };

    /// The upper bound of [`Self::cap`]: longer pauses would take most of the deadline.
    pub const CAP_MAX: Duration = Duration::from_secs(15);

    const STANDARD: Self = Self {
        count: 10,
        base: Duration::from_millis(100),
        cap: Self::CAP_MAX,
    };
}

impl Default for Retry {
    fn default() -> Self {
        Self::STANDARD
    }
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            deadline: Duration::from_secs(60),
            retry: Retry::default(),
        }
    }
}

impl fmt::Debug for BackendConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendConfig")
            .field("endpoint", &self.endpoint.as_deref().map(redacted))
            .field("region", &self.region)
            .field("deadline", &self.deadline)
            .field("retry", &self.retry)
            .finish()
    }
}

/// The deadline of [`super::Backend::check`], for which a user waits at a prompt.
const CHECK_DEADLINE: Duration = Duration::from_secs(8);

/// The longest time to wait for a connection. TCP's own retransmissions would take minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest pause before a request is sent again.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How much longer than the one before a pause may be.
const PAUSE_GROWTH: f64 = 2.0;

impl BackendConfig {
    /// The settings of a check that a user waits for: a short deadline and at most one retry.
    pub(super) fn hasty(&self) -> Self {
        Self {
            deadline: self.deadline.min(CHECK_DEADLINE),
            retry: Retry {
                count: self.retry.count.min(1),
                ..self.retry
            },
            ..self.clone()
        }
    }

    /// The settings of a request without retries.
    pub(super) fn once(&self) -> Self {
        Self {
            retry: Retry {
                count: 0,
                ..self.retry
            },
            ..self.clone()
        }
    }

    /// The retry settings of the library; retries end with the deadline.
    pub(super) fn retry_config(&self) -> RetryConfig {
        let cap = self.retry.cap.min(self.deadline / 4);
        RetryConfig {
            max_retries: self.retry.count,
            retry_timeout: self.deadline,
            backoff: BackoffConfig {
                // The library draws a random pause between the two and panics over an empty range.
                init_backoff: self.retry.base.clamp(PAUSE_MIN, cap.max(PAUSE_MIN)),
                max_backoff: cap.max(PAUSE_MIN),
                base: PAUSE_GROWTH,
            },
        }
    }

    /// The maximal number of attempts of a conditional write, as long as its outcome is unknown and no object is found. The
    /// library does not repeat such a write, because only a read tells that a second attempt is safe.
    pub(super) fn create_attempts(&self) -> usize {
        self.retry.count + 1
    }

    /// The pause after the attempt with this number, from 1.
    pub(super) fn create_pause(&self, attempt: usize) -> Duration {
        let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
        let pause = self.retry.base.saturating_mul(attempt);
        pause.min(self.retry.cap)
    }

    /// The limit of one request: half the deadline, so that a second attempt is possible after a request without an answer.
    pub(super) fn request_timeout(&self) -> Duration {
        self.deadline / 2
    }

    /// The limit of a connection attempt.
    pub(super) fn connect_timeout(&self) -> Duration {
        CONNECT_TIMEOUT.min(self.request_timeout())
    }
}

/// Waits for `operation` on `place` for at most `deadline`. If the deadline passes, the operation is cancelled; it may have
/// taken effect.
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
    fn a_check_has_a_short_deadline_and_keeps_stricter_settings() {
        let hasty = BackendConfig::default().hasty();
        assert_eq!(hasty.deadline, CHECK_DEADLINE);
        assert_eq!(hasty.retry_config().max_retries, 1);
        assert!(hasty.connect_timeout() < hasty.deadline);
        let strict = BackendConfig {
            deadline: Duration::from_secs(2),
            retry: Retry::NONE,
            ..BackendConfig::default()
        };
        assert_eq!(strict.hasty(), strict);
    }

    #[test]
    fn retries_end_with_the_deadline() {
        let retry = BackendConfig::default().retry_config();
        assert_eq!(retry.retry_timeout, Duration::from_secs(60));
        assert_eq!(retry.max_retries, 10);
    }

    #[test]
    fn retry_settings_are_translated_for_the_library() {
        let told = |retry| {
            let config = BackendConfig {
                retry,
                ..BackendConfig::default()
            };
            let made = config.retry_config();
            let pauses = (made.backoff.init_backoff, made.backoff.max_backoff);
            (made.max_retries, pauses.0.as_millis(), pauses.1.as_millis())
        };
        assert_eq!(told(Retry::default()), (10, 100, 15_000));
        assert_eq!(told(Retry::NONE).0, 0);
        assert_eq!(told(Retry::AGGRESSIVE), (1000, 20, 2_000));
        let own = Retry {
            count: 3,
            base: Duration::from_millis(7),
            cap: Duration::from_millis(9),
        };
        assert_eq!(told(own), (3, 7, 9));
        // Pauses from which the library could not draw are corrected.
        let odd = Retry {
            count: 3,
            base: Duration::from_secs(9),
            cap: Duration::ZERO,
        };
        assert_eq!(told(odd), (3, 1, 1));
    }

    #[test]
    fn a_short_deadline_gives_a_valid_range_of_pauses() {
        let hasty = BackendConfig::default().hasty().retry_config();
        assert_eq!(hasty.backoff.max_backoff, CHECK_DEADLINE / 4);
        assert!(hasty.backoff.init_backoff <= hasty.backoff.max_backoff);
    }

    #[test]
    fn debug_output_hides_the_credentials_of_an_endpoint() {
        let config = BackendConfig {
            endpoint: Some("http://key:hidden@host:9000".into()),
            ..BackendConfig::default()
        };
        let text = format!("{config:?}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
