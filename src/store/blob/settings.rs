//! Settings of a namespace: values by name, in the bucket beside the namespace's identity.

use std::collections::BTreeMap;

use super::BlobStore;
use super::error::BlobError;
use crate::store::{parse_setting, set_namespace, show_namespace};

impl BlobStore {
    /// All settings, by name.
    ///
    /// # Errors
    /// `Store` with `Unavailable`.
    pub async fn settings(&self) -> Result<BTreeMap<String, String>, BlobError> {
        let info = show_namespace(&self.0.backend, &self.0.name).await?;
        Ok(info.settings)
    }

    /// Sets a setting, or takes it away with `None`; at once in the bucket, and what `rewindfs namespace show` shows.
    ///
    /// # Errors
    /// `Store`: `Invalid` for a name that is not made of 1 to 64 of a-z, 0-9, `-`, `_` and `.`, and for a value beyond
    /// 1024 bytes; `Unavailable`.
    pub async fn set_setting(&self, name: &str, value: Option<&str>) -> Result<(), BlobError> {
        let text = format!("{name}={}", value.unwrap_or_default());
        let (parsed, _) = parse_setting(&text)?;
        if parsed != name {
            let text = format!("setting name {name:?} must not have '=' in it");
            return Err(BlobError::Invalid(text));
        }
        let changes = vec![(parsed, value.map(str::to_owned))];
        let _one_at_a_time = self.0.alone.lock().await;
        set_namespace(&self.0.backend, &self.0.name, changes).await?;
        Ok(())
    }
}
