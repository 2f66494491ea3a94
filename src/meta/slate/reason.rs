//! The last error of the object store: the engine retries without reporting it.

use crate::meta::MetaError;
use crate::sync::Arc;
use std::fmt;
use std::time::Duration;

/// What the object store said last, while it fails; asked when a call took too long.
pub(crate) type Reason = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// A [`Reason`], if there is one.
#[derive(Clone, Default)]
pub(super) struct FailureReason(Option<Reason>);

impl fmt::Debug for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailureReason")
    }
}

impl From<Option<Reason>> for FailureReason {
    fn from(reason: Option<Reason>) -> Self {
        Self(reason)
    }
}

impl FailureReason {
    /// Makes the error of a call that exceeded its deadline, with the last error of the object store.
    pub(super) fn late(&self, what: &str, deadline: Duration) -> MetaError {
        let seconds = deadline.as_secs_f32();
        let said = self.0.as_ref().and_then(|reason| reason());
        MetaError::Unavailable(match said {
            Some(said) => format!("{what} took longer than {seconds} s: {said}"),
            None => format!("{what} took longer than {seconds} s"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_said_is_repeated() {
        let told = |reason: Option<Reason>| {
            let error = FailureReason::from(reason).late("a flush", Duration::from_secs(30));
            error.to_string()
        };
        let late = "the index cannot be reached: a flush took longer than 30 s";
        assert_eq!(told(None), late);
        assert_eq!(told(Some(Arc::new(|| None))), late);
        let said = told(Some(Arc::new(|| Some("403 ExpiredToken".to_owned()))));
        assert_eq!(said, format!("{late}: 403 ExpiredToken"));
    }
}
