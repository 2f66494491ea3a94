//! Settings of a namespace: values by name, stored in the bucket in `namespace.json`.

use std::collections::BTreeMap;

use super::BlobStore;
use super::error::BlobError;
use crate::store::{parse_setting, set_namespace, show_namespace};

impl BlobStore {
    /// Returns all settings by name.
    ///
    /// # Errors
    /// `Store` with `Unavailable`.
    pub async fn settings(&self) -> Result<BTreeMap<String, String>, BlobError> {
        let info = show_namespace(&self.0.backend, &self.0.name).await?;
        Ok(info.settings)
    }

    /// Changes a setting, or removes it if `value` is `None`. The change is in the bucket when the call returns;
    /// `rewindfs namespace show` shows it.
    ///
    /// # Errors
    /// `Store`: `Invalid` if the name is not 1 to 64 of a-z, 0-9, `-`, `_` and `.`, or if the value is longer than 1024
    /// bytes; `Unavailable`.
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
