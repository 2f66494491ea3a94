//! `epochs/{epoch}`: proof that the index of a namespace once held a batch of that writer.
//!
//! Written once, after the first batch of an epoch is durable. If an epoch has such an object and the index has no batch
//! of it, the index has lost the batch. The key is the proof; the content of the object tells people who the writer was.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::backend::{Backend, BackendError};
use crate::store::model::error::StoreError;

/// Folder of these objects, below the namespace.
const FOLDER: &str = "epochs";
/// The longest note that is read, in bytes.
const NOTE_MAX: u64 = 64 << 10;

/// Content of an epoch's object.
#[derive(Serialize)]
struct EpochNote<'a> {
    epoch: u64,
    host: &'a str,
    /// When the writer opened the namespace, nanoseconds since 1970.
    opened: u64,
}

/// A writer, as the object of its epoch tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct EpochWriter {
    pub(crate) host: String,
}

/// The object of this writer's epoch.
#[derive(Debug)]
pub(crate) struct EpochObject {
    backend: Backend,
    epoch: u64,
    bytes: Bytes,
    written: OnceCell<()>,
}

impl EpochObject {
    /// Prepares the object of a writer on `host` that opened the namespace at `opened`, in nanoseconds since 1970.
    pub(crate) fn new(backend: Backend, epoch: u64, host: &str, opened: u64) -> Self {
        let note = EpochNote {
            epoch,
            host,
            opened,
        };
        // proof: the note is plain data with string keys.
        let bytes = serde_json::to_vec(&note).expect("a note is plain data");
        Self {
            backend,
            epoch,
            bytes: bytes.into(),
            written: OnceCell::new(),
        }
    }

    /// Writes the object, once. To be called after a batch of the epoch is durable.
    ///
    /// # Errors
    /// `Unavailable`; the next call tries again.
    pub(crate) async fn write(&self) -> Result<(), StoreError> {
        let writing = async || {
            let key = key(self.epoch);
            self.backend.put_new(&key, self.bytes.clone()).await
        };
        self.written.get_or_try_init(writing).await?;
        Ok(())
    }
}

/// An epoch that has an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProvenEpoch {
    pub(crate) epoch: u64,
    pub(crate) key: String,
}

fn key(epoch: u64) -> String {
    format!("{FOLDER}/{:05x}/{:03x}", epoch >> 12, epoch & 0xfff)
}

/// Returns the newest epoch after `epoch` that has an object.
///
/// # Errors
/// `Unavailable`.
pub(crate) async fn newer(
    backend: &Backend,
    epoch: u64,
) -> Result<Option<ProvenEpoch>, StoreError> {
    let later = backend.list_after(FOLDER, &key(epoch)).await?;
    Ok(later.into_iter().rev().find_map(|object| {
        let digits: String = object.key.strip_prefix(FOLDER)?.split('/').collect();
        let epoch = u64::from_str_radix(&digits, 16).ok()?;
        (key(epoch) == object.key).then_some(ProvenEpoch {
            epoch,
            key: object.key,
        })
    }))
}

/// Returns the writer of the newest epoch that has an object; `None` if none has one, or if it cannot be read.
///
/// # Errors
/// `Unavailable`.
pub(crate) async fn newest_writer(backend: &Backend) -> Result<Option<EpochWriter>, StoreError> {
    let Some(newest) = newer(backend, 0).await? else {
        return Ok(None);
    };
    match backend.get_at_most(&newest.key, NOTE_MAX).await {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(BackendError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendConfig;

    #[tokio::test]
    async fn the_newest_epoch_after_any_older_one_is_found() {
        let backend = Backend::open("memory://epochs", &BackendConfig::default()).unwrap();
        assert_eq!(newer(&backend, 0).await.unwrap(), None);
        for epoch in [1, 2, 0xfff, 0x1000, 0x12345] {
            let object = EpochObject::new(backend.clone(), epoch, "host", 7);
            object.write().await.unwrap();
            object.write().await.unwrap();
            // The object may exist already: the response to an earlier attempt may have been lost.
            let again = EpochObject::new(backend.clone(), epoch, "host", 7);
            again.write().await.unwrap();
            for before in [0, 1, epoch - 1] {
                let found = newer(&backend, before).await.unwrap().map(|p| p.epoch);
                assert_eq!(found, (epoch > before).then_some(epoch), "after {before}");
            }
            assert_eq!(newer(&backend, epoch).await.unwrap(), None);
        }
    }
}
