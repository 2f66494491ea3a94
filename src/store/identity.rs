//! `namespace.json`: what a namespace says of itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::StoreError;
use crate::backend::{Backend, BackendError};
use crate::env::Env;

/// Format of `namespace.json` and of everything below it.
const FORMAT: u32 = 1;
const KEY: &str = "namespace.json";

/// `namespace.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    pub(crate) uuid: Uuid,
    pub(crate) engine: String,
    pub(crate) engine_version: String,
    pub(crate) created: u64,
    /// What users say of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<String, String>,
    /// Its objects are going.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleting: bool,
}

impl Identity {
    pub(crate) fn fresh(env: &dyn Env) -> Self {
        Self {
            format: FORMAT,
            uuid: env.new_id(),
            engine: "slatedb".to_owned(),
            engine_version: "0.18".to_owned(),
            created: env.now(),
            settings: BTreeMap::new(),
            deleting: false,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        // proof: the identity is plain data with string keys.
        let bytes = serde_json::to_vec_pretty(self).expect("an identity is plain data");
        Bytes::from(bytes)
    }

    fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let bad = |e: serde_json::Error| StoreError::Corrupt(format!("namespace.json: {e}"));
        let version: Version = serde_json::from_slice(bytes).map_err(bad)?;
        if version.format != FORMAT {
            return Err(StoreError::Corrupt(format!(
                "namespace.json says format {}, this build knows {FORMAT}; use a newer rewindfs",
                version.format
            )));
        }
        serde_json::from_slice(bytes).map_err(bad)
    }

    /// The one a backend has, if there is one.
    pub(crate) async fn find(backend: &Backend) -> Result<Option<Self>, StoreError> {
        match backend.get(KEY).await {
            Ok(bytes) => Self::read(&bytes).map(Some),
            Err(BackendError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it where there is none; whether there was none.
    pub(crate) async fn make(&self, backend: &Backend) -> Result<bool, StoreError> {
        match backend.put_new(KEY, self.encode()).await {
            Ok(()) => Ok(true),
            Err(BackendError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it over the one there is.
    pub(crate) async fn replace(&self, backend: &Backend) -> Result<(), StoreError> {
        Ok(backend.put(KEY, self.encode()).await?)
    }

    /// Takes it away.
    pub(crate) async fn remove(backend: &Backend) -> Result<(), StoreError> {
        Ok(backend.delete(KEY).await?)
    }

    /// Refuses a namespace whose deletion has begun.
    pub(crate) fn check_alive(&self) -> Result<(), StoreError> {
        if self.deleting {
            let why = "the namespace is being deleted: complete it with rewindfs namespace delete";
            return Err(StoreError::Busy(why.to_owned()));
        }
        Ok(())
    }
}

/// The identity of a namespace that is to be written; makes one where there is none.
pub(crate) async fn identity(backend: &Backend, env: &dyn Env) -> Result<Identity, StoreError> {
    for _ in 0..2 {
        if let Some(found) = Identity::find(backend).await? {
            found.check_alive()?;
            return Ok(found);
        }
        let fresh = Identity::fresh(env);
        if fresh.make(backend).await? {
            return Ok(fresh);
        }
    }
    Err(StoreError::Busy(
        "namespace.json is being made by somebody else".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let error = Identity::read(br#"{"format": 7}"#).unwrap_err().to_string();
        assert!(error.contains("format 7"), "{error}");
    }
}
