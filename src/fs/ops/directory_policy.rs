//! The policy of a directory, as its attribute `user.versions.keep`.

use crate::fs::{FileSystem, FsError, FsResult};
use crate::store::{Ino, Policy, StoreError, XattrMode};
use bytes::Bytes;

impl FileSystem {
    /// The directory's own policy, in words.
    ///
    /// # Errors
    /// `NoAttribute` if it has none; `Stale` when it was removed.
    pub(super) async fn own_policy(&self, ino: Ino) -> FsResult<Bytes> {
        let policy = self.namespace().retention().own_policy(ino).await?;
        let policy = policy.ok_or(FsError::NoAttribute)?;
        let words = policy.limits().into_iter();
        let words: Vec<String> = words
            .map(|(word, value)| format!("{word}={value}"))
            .collect();
        Ok(Bytes::from(words.join(" ")))
    }

    /// Sets the directory's own policy; `None` takes it back.
    ///
    /// # Errors
    /// `Invalid` for words that are none; `NotDirectory`; `Exists`, `NoAttribute` by the mode.
    pub(super) async fn set_own_policy(
        &self,
        ino: Ino,
        value: Option<&[u8]>,
        mode: XattrMode,
    ) -> FsResult<()> {
        let change = |own: Option<Policy>| {
            match (mode, own) {
                (XattrMode::Create, Some(_)) => return Err(StoreError::Exists),
                (XattrMode::Replace, None) => return Err(StoreError::NoAttribute),
                _ => {}
            }
            value.map(of_value).transpose()
        };
        let retention = self.namespace().retention();
        Ok(retention.change_directory_policy(ino, change).await?)
    }
}

/// Returns the policy that a value of the attribute means.
fn of_value(value: &[u8]) -> Result<Policy, StoreError> {
    let text = str::from_utf8(value).map_err(|error| StoreError::Invalid(error.to_string()))?;
    Policy::of_directory(text).map_err(|error| StoreError::Invalid(error.to_string()))
}
