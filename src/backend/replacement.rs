//! An object that several processes change: each replaces only the state that it has read.
//!
//! Invariant: on a store with conditional writes, a replacement never overwrites a state that its writer has not seen. A local directory has
//! none: there the object is compared before it is overwritten, so that of two writers at the same moment the later one wins. Nothing that must
//! not be lost may depend on such an object alone.

use super::Backend;
use super::base::{Tries, prefixed};
use super::error::{BackendError, Class};
use super::limits::within;
use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutPayload, UpdateVersion};
use std::time::Duration;

/// The longest state that is read, in bytes.
const STATE_MAX: u64 = 64 << 10;

/// An object as it was read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectState {
    bytes: Bytes,
    e_tag: Option<String>,
    /// The store's own number of the state, where it has one.
    version: Option<String>,
}

impl ObjectState {
    /// Returns the bytes of the object.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// The outcome of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// The object has this state now.
    Written(ObjectState),
    /// It had another state than the expected one, and was not changed. Or the store repeats a write that has succeeded: then the object has
    /// the bytes that were to be written.
    Changed,
}

impl Backend {
    /// Reads the state of an object; `None` if there is no object. The request is sent once and takes at most `limit`.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`.
    pub(crate) async fn state(
        &self,
        key: &str,
        limit: Duration,
    ) -> Result<Option<ObjectState>, BackendError> {
        let once = self.sent_once();
        let path = self.path(key)?;
        within(limit, &self.name(key), async {
            match once.fetch(&path, None, STATE_MAX).await {
                Ok((meta, bytes)) => Ok(Some(ObjectState {
                    bytes,
                    e_tag: meta.e_tag,
                    version: meta.version,
                })),
                Err(e) => match once.absence(key, &e).await {
                    BackendError::NotFound { .. } => Ok(None),
                    error => Err(error),
                },
            }
        })
        .await
    }

    /// Writes an object that has the state `old`, or that does not exist if `old` is `None`. The request is sent once and takes at most
    /// `limit`. After an error the object may have been written.
    ///
    /// # Errors
    /// `Denied`, `Unavailable`.
    pub(crate) async fn replace(
        &self,
        key: &str,
        old: Option<&ObjectState>,
        bytes: Bytes,
        limit: Duration,
    ) -> Result<Replaced, BackendError> {
        let once = self.sent_once();
        within(limit, &self.name(key), async {
            once.check_root().await?;
            let mode = match old {
                None => PutMode::Create,
                Some(old) if once.is_local() => {
                    if once.state(key, limit).await?.as_ref() != Some(old) {
                        return Ok(Replaced::Changed);
                    }
                    PutMode::Overwrite
                }
                Some(old) => PutMode::Update(UpdateVersion {
                    e_tag: old.e_tag.clone(),
                    version: old.version.clone(),
                }),
            };
            match once.replace_as(key, &bytes, mode).await {
                Err(BackendError::AlreadyExists { .. } | BackendError::NotFound { .. }) => {
                    Ok(Replaced::Changed)
                }
                written => written.map(Replaced::Written),
            }
        })
        .await
    }

    async fn replace_as(
        &self,
        key: &str,
        bytes: &Bytes,
        mode: PutMode,
    ) -> Result<ObjectState, BackendError> {
        let path = self.path(key)?;
        let payload = PutPayload::from_bytes(bytes.clone());
        let written = self.store.put_opts(&path, payload, mode.into()).await;
        let written = written.map_err(|e| self.failure(key, &e))?;
        if self.is_local() {
            // The next comparison reads the object, and what identifies its state there is not in this answer.
            let limit = self.base.config.deadline;
            return match self.state(key, limit).await? {
                Some(state) if state.bytes == *bytes => Ok(state),
                _ => Err(Class::AlreadyExists.error(self.name(key), "it was overwritten at once")),
            };
        }
        Ok(ObjectState {
            bytes: bytes.clone(),
            e_tag: written.e_tag,
            version: written.version,
        })
    }

    /// The same place, with a client that sends each request once.
    fn sent_once(&self) -> Self {
        Self {
            store: prefixed(self.base.once().clone(), &self.prefix),
            tries: Tries::One,
            ..self.clone()
        }
    }
}
