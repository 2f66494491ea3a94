//! Objects whose bytes say whether they are what was asked for, read until they are, or until they are known to be damaged.

use super::Backend;
use super::error::{BackendError, Class};
use bytes::Bytes;
use std::time::Duration;

/// The pauses after which an object is read again whose bytes did not fit.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1200),
];

/// The same for a local directory, whose bytes pass through nothing that could change them.
const AGAIN_LOCAL: [Duration; 1] = [Duration::from_millis(50)];

impl Backend {
    /// Reads a whole object and makes a value of it by `read`, which says what is wrong with bytes that are not this object's.
    /// Such bytes may come from a proxy in between: the object is read again for a few seconds.
    ///
    /// # Errors
    /// As [`Backend::get`]; `Damaged` when the same wrong bytes came each time, `Unavailable` when they differed.
    pub async fn get_as<T>(
        &self,
        key: &str,
        read: impl Fn(&Bytes) -> Result<T, String>,
    ) -> Result<T, BackendError> {
        let pauses: &[Duration] = match self.is_local() {
            true => &AGAIN_LOCAL,
            false => &AGAIN,
        };
        let first = self.get(key).await?;
        let mut reason = match read(&first) {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        let mut class = Class::Damaged;
        for pause in pauses {
            tracing::warn!(object = self.name(key), reason, "read again");
            tokio::time::sleep(*pause).await;
            let bytes = self.get(key).await?;
            match read(&bytes) {
                Ok(value) => return Ok(value),
                Err(why) => reason = why,
            }
            if bytes != first {
                class = Class::Unavailable;
            }
        }
        Err(class.error(self.name(key), reason))
    }
}
