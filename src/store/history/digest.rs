//! SHA-256 of a version, for comparison with copies elsewhere. The digest is computed at each request and stored nowhere.

use std::fmt::Write;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::store::history::History;
use crate::store::model::error::StoreError;
use crate::store::model::version::{Kind, PastEntry};

/// Bytes read and hashed at once.
const STEP: u32 = 4 << 20;
/// Largest version in bytes that has a digest: reading a longer one takes too long for an extended attribute.
const LEN_MAX: u64 = 4 << 30;

impl History {
    /// Returns the SHA-256 of a historical file's bytes in lowercase hexadecimal; `None` for any other file type, and for files
    /// larger than 4 GiB.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn sha256_past(&self, entry: &PastEntry) -> Result<Option<String>, StoreError> {
        let len = entry.attrs.size;
        if entry.kind != Kind::File || len > LEN_MAX {
            return Ok(None);
        }
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < len {
            let bytes: Bytes = self.read_past(entry, at, STEP).await?;
            if bytes.is_empty() {
                return Err(StoreError::Corrupt(
                    "a version has fewer bytes than its recorded size".to_owned(),
                ));
            }
            at += bytes.len() as u64;
            let step = self.core.tasks.blocking("digest", move || {
                hash.update(&bytes);
                hash
            });
            hash = step.await.map_err(|_| StoreError::Closed)?;
        }
        let mut text = String::with_capacity(64);
        for byte in hash.finalize() {
            // Writing into a string cannot fail.
            let _written = write!(text, "{byte:02x}");
        }
        Ok(Some(text))
    }
}
