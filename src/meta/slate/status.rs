//! The status of an engine, and its errors by what the caller can do.

use super::checksum::DamagedObject;
use super::config::SlateConfig;
use super::reason::FailureReason;
use crate::meta::error::chain;
use crate::meta::{Commit, MetaError, MetaState};
use slatedb::{CloseReason, DbStatus, ErrorKind};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The maximal time by which the engine's status lags behind the errors of its calls.
const STATUS_LAG: Duration = Duration::from_secs(1);

/// The status that the engine reports.
#[derive(Clone)]
pub(super) struct EngineStatus {
    pub(super) reported: watch::Receiver<DbStatus>,
    pub(super) why: FailureReason,
}

impl EngineStatus {
    pub(super) fn new(reported: watch::Receiver<DbStatus>, config: &SlateConfig) -> Self {
        let why = config.reason.clone().into();
        Self { reported, why }
    }

    pub(super) fn durable(&self) -> Commit {
        Commit(self.reported.borrow().durable_seq)
    }

    pub(super) fn state(&self) -> MetaState {
        match self.reported.borrow().close_reason {
            None => MetaState::Open,
            Some(CloseReason::Fenced) => MetaState::Fenced,
            Some(CloseReason::Clean) => MetaState::Closed,
            Some(other) => MetaState::Failed(format!("the engine stopped: {other:?}")),
        }
    }

    /// Classifies an error by what the caller can do, which depends on whether the engine is still running.
    pub(super) async fn classify(&self, error: slatedb::Error) -> MetaError {
        if matches!(error.kind(), ErrorKind::Closed(_)) {
            // A call can fail before the status changes. A caller that gets `Fenced` must also find it in the status.
            let _ = timeout(STATUS_LAG, self.ended()).await;
        }
        match (classify(&error), self.state()) {
            (MetaError::Unavailable(text), MetaState::Closed | MetaState::Failed(_)) => {
                MetaError::Closed(text)
            }
            (named, _) => named,
        }
    }

    /// Waits until the engine has stopped.
    pub(super) async fn ended(&self) {
        let mut status = self.reported.clone();
        // An error means that the engine was dropped; the last status has the reason.
        drop(
            status
                .wait_for(|status| status.close_reason.is_some())
                .await,
        );
    }

    /// Waits for a call of the engine, at most for `deadline`.
    pub(super) async fn within<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = Result<T, slatedb::Error>> + Send,
    ) -> Result<T, MetaError> {
        match timeout(deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.classify(error).await),
            Err(_) => Err(self.why.late(what, deadline)),
        }
    }
}

pub(super) fn classify(error: &slatedb::Error) -> MetaError {
    let text = chain(error);
    if DamagedObject::find(error).is_some() {
        return MetaError::Corrupt(text);
    }
    match error.kind() {
        ErrorKind::Transaction => MetaError::Conflict(text),
        ErrorKind::Unavailable => MetaError::Unavailable(text),
        ErrorKind::Closed(CloseReason::Fenced) => MetaError::Fenced(text),
        ErrorKind::Closed(_) => MetaError::Closed(text),
        _ => MetaError::Corrupt(text),
    }
}

/// Classifies the error of an open during a concurrent one: both write the same manifest, and the engine reports the conflict of
/// the slower one as damage.
pub(super) fn lost_race(error: MetaError) -> MetaError {
    match error {
        MetaError::Corrupt(text) if text.contains("version already exists") => {
            MetaError::Fenced(text)
        }
        other => other,
    }
}
