//! What an opening knows when it asks for the lease, and its requests.

use crate::backend::{Backend, BackendError, ObjectState};
use crate::env::Env;
use crate::store::model::error::StoreError;
use crate::store::model::takeover::{LeaseTimes, Takeover};
use crate::store::schema::writer_object::KEY;
use crate::sync::Arc;
use std::path::Path;
use std::time::Duration;

/// The longest time of one request.
pub(crate) const REQUEST_MAX: Duration = Duration::from_secs(10);

/// How often a request is sent before its failure counts, and the pause before the next time.
const ATTEMPTS: u32 = 4;
pub(crate) const AGAIN: Duration = Duration::from_millis(500);

/// What an opening knows when it asks for the lease. It holds the lock of the local directory.
pub(crate) struct LeaseRequest<'a> {
    /// The namespace's place.
    pub(crate) backend: &'a Backend,
    /// The local directory of the namespace.
    pub(crate) dir: &'a Path,
    /// The name of this machine.
    pub(crate) host: &'a str,
    pub(crate) env: &'a Arc<dyn Env>,
    pub(crate) takeover: &'a Takeover,
    pub(crate) times: LeaseTimes,
}

impl LeaseRequest<'_> {
    /// Reads the object.
    pub(crate) async fn read(&self) -> Result<Option<ObjectState>, StoreError> {
        for attempt in 1.. {
            match self.backend.state(KEY, REQUEST_MAX).await {
                Ok(found) => return Ok(found),
                Err(error) => give_up(attempt, error)?,
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(None)
    }
}

/// Fails after the last attempt, and at once where another one cannot help.
pub(crate) fn give_up(attempt: u32, error: BackendError) -> Result<(), StoreError> {
    match error.is_retryable() && attempt < ATTEMPTS {
        true => Ok(()),
        false => Err(error.into()),
    }
}
