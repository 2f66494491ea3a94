//! The policy of a directory, as its attribute `user.versions.keep`.

use crate::fs::{FileSystem, FsError, FsResult};
use crate::store::{Ino, Policy, XattrMode};
use bytes::Bytes;

impl FileSystem {
    /// The directory's own policy, in words.
    ///
    /// # Errors
    /// `NoAttribute` if it has none; `Stale` when it was removed.
    pub(super) async fn own_policy(&self, ino: Ino) -> FsResult<Bytes> {
        let policy = self.policy_of(ino).await?.ok_or(FsError::NoAttribute)?;
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
        match (mode, self.policy_of(ino).await?) {
            (XattrMode::Create, Some(_)) => return Err(FsError::Exists),
            (XattrMode::Replace, None) => return Err(FsError::NoAttribute),
            _ => {}
        }
        let policy = match value {
            Some(value) => {
                let text =
                    str::from_utf8(value).map_err(|error| FsError::Invalid(error.to_string()))?;
                let policy = Policy::of_directory(text);
                Some(policy.map_err(|error| FsError::Invalid(error.to_string()))?)
            }
            None => None,
        };
        let retention = self.namespace.retention();
        Ok(retention.set_directory_policy(ino, policy).await?)
    }

    async fn policy_of(&self, ino: Ino) -> FsResult<Option<Policy>> {
        Ok(self.namespace.retention().own_policy(ino).await?)
    }
}
