//! `namespace.json`: the identity of a namespace.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backend::{Backend, BackendError};
use crate::env::Env;
use crate::store::model::config::check_name;
use crate::store::model::error::StoreError;

/// Format of `namespace.json` and of everything below it.
const FORMAT: u32 = 1;
const KEY: &str = "namespace.json";
/// The longest `namespace.json` that is read, in bytes: thousands of settings.
const BYTES_MAX: u64 = 4 << 20;

/// Largest `epoch_base`: the keys of objects have eight hexadecimal digits for an epoch.
const EPOCH_BASE_MAX: u64 = u32::MAX as u64;

/// Name of the last member: the CRC32C, in hexadecimal, of every byte before the name.
const CHECKSUM: &str = "\"crc32c\"";

/// `namespace.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) uuid: Uuid,
    pub(crate) engine: String,
    pub(crate) engine_version: String,
    pub(crate) created: u64,
    /// Settings of users; rewindfs only keeps and shows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<String, String>,
    /// Its deletion has begun; the namespace is not opened any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleting: bool,
    /// The namespace under whose prefix `data/`, `log/` and `epochs/` lie; `None`: under its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) objects_of: Option<String>,
    /// What is added to the epochs of the index's engine: writers before a rebuild had the epochs up to it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) epoch_base: u64,
    /// The rebuild that is making this namespace; `None`: it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rebuild: Option<RebuildStage>,
    /// The namespace that a rebuild made in its place; it is not opened any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaced_by: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How far the rebuild of a namespace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub(crate) enum RebuildStage {
    /// Its index is being written; nothing but the rebuild opens it.
    Building {
        /// The namespace that is rebuilt.
        from: String,
        /// The call that writes it.
        call: Uuid,
    },
    /// Its index is complete. The next writer brings back what uncited segments have from this one on.
    Recovering {
        /// Writer epoch of the segment.
        epoch: u64,
        /// Sequence of the segment.
        sequence: u64,
    },
}

/// Where the objects of a namespace lie.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceHome {
    /// The place of `namespace.json` and the index.
    pub(crate) index: Backend,
    /// The place of segments, log and `epochs/`.
    pub(crate) objects: Backend,
    /// What is added to the epochs of the index's engine.
    pub(crate) epoch_base: u64,
}

/// The member that every format has.
#[derive(Deserialize)]
struct FormatVersion {
    format: u32,
}

impl Manifest {
    pub(crate) fn fresh(env: &dyn Env) -> Self {
        Self {
            format: FORMAT,
            uuid: env.new_id(),
            engine: "slatedb".to_owned(),
            engine_version: "0.18".to_owned(),
            created: env.now(),
            settings: BTreeMap::new(),
            deleting: false,
            objects_of: None,
            epoch_base: 0,
            rebuild: None,
            replaced_by: None,
        }
    }

    /// Returns where the objects of the namespace `name` of `backend` lie.
    pub(crate) fn home(&self, backend: &Backend, name: &str) -> NamespaceHome {
        NamespaceHome {
            index: backend.child(name),
            objects: backend.child(self.owner_of_objects(name)),
            epoch_base: self.epoch_base,
        }
    }

    /// Returns the namespace under whose prefix the segments and the log of the namespace `name` lie.
    pub(crate) fn owner_of_objects<'a>(&'a self, name: &'a str) -> &'a str {
        self.objects_of.as_deref().unwrap_or(name)
    }

    pub(crate) fn encode(&self) -> Bytes {
        // proof: the identity is plain data with string keys.
        let text = serde_json::to_string_pretty(self).expect("an identity is plain data");
        Bytes::from(Self::seal(text))
    }

    /// Adds the checksum to the text of an identity.
    pub(crate) fn seal(mut text: String) -> String {
        text.truncate(text.strip_suffix("\n}").map_or(0, str::len));
        text.push_str(",\n  ");
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("{CHECKSUM}: \"{crc:08x}\"\n}}\n"));
        text
    }

    /// Checks the checksum, if the format is known.
    fn fits(bytes: &[u8]) -> Result<(), String> {
        let version: FormatVersion = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        match version.format {
            FORMAT => check(bytes).map_err(str::to_owned),
            _ => Ok(()),
        }
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let bad = |e: serde_json::Error| changed(&e.to_string());
        let version: FormatVersion = serde_json::from_slice(bytes).map_err(bad)?;
        if version.format != FORMAT {
            return Err(StoreError::Corrupt(format!(
                "namespace.json says format {}, this build knows {FORMAT}; use a newer rewindfs",
                version.format
            )));
        }
        check(bytes).map_err(changed)?;
        let identity: Self = serde_json::from_slice(bytes).map_err(bad)?;
        if identity.epoch_base > EPOCH_BASE_MAX {
            return Err(changed("its epoch_base is too large"));
        }
        if let Some(owner) = &identity.objects_of {
            check_name(owner).map_err(|error| changed(&error.to_string()))?;
        }
        Ok(identity)
    }

    /// Returns the uuid in a manifest whose checksum does not match; `None` if it cannot be read.
    pub(crate) fn unchecked_uuid(bytes: &[u8]) -> Option<Uuid> {
        #[derive(Deserialize)]
        struct UncheckedIdentity {
            uuid: Uuid,
        }
        let id: UncheckedIdentity = serde_json::from_slice(bytes).ok()?;
        Some(id.uuid)
    }

    /// Reads the manifest; `None` if there is none.
    pub(crate) async fn find(backend: &Backend) -> Result<Option<Self>, StoreError> {
        let whole = |bytes: &Bytes| Self::fits(bytes).map(|()| bytes.clone());
        match backend.get_as(KEY, BYTES_MAX, whole).await {
            Ok(bytes) => Self::read(&bytes).map(Some),
            Err(BackendError::NotFound { .. }) => Ok(None),
            Err(BackendError::Damaged { reason, .. }) => Err(changed(&reason)),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates the object. Returns `false`, and changes nothing, if it exists.
    pub(crate) async fn make(&self, backend: &Backend) -> Result<bool, StoreError> {
        match backend.put_new(KEY, self.encode()).await {
            Ok(()) => Ok(true),
            Err(BackendError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Overwrites the object. `Invalid` if it would be too long to be read.
    pub(crate) async fn replace(&self, backend: &Backend) -> Result<(), StoreError> {
        let bytes = self.encode();
        if bytes.len() as u64 > BYTES_MAX {
            let len = bytes.len();
            return Err(StoreError::Invalid(format!(
                "{KEY} would have {len} bytes, of which {BYTES_MAX} are read: remove settings first"
            )));
        }
        Ok(backend.put(KEY, bytes).await?)
    }

    /// Deletes the object.
    pub(crate) async fn remove(backend: &Backend) -> Result<(), StoreError> {
        Ok(backend.delete(KEY).await?)
    }

    /// Refuses a namespace whose deletion has begun, and one that is not the whole result of a rebuild or was rebuilt itself.
    pub(crate) fn check_alive(&self) -> Result<(), StoreError> {
        if self.deleting {
            let why = "the namespace is being deleted: complete it with rewindfs namespace delete";
            return Err(StoreError::Busy(why.to_owned()));
        }
        self.check_complete()
    }

    /// Refuses a namespace that is not the whole result of a rebuild, and one that was rebuilt.
    pub(crate) fn check_complete(&self) -> Result<(), StoreError> {
        if let Some(RebuildStage::Building { from, .. }) = &self.rebuild {
            return Err(StoreError::Busy(format!(
                "the namespace is half-made: `rewindfs rebuild` of namespace {from} was not completed; run it again with the same --to"
            )));
        }
        match &self.replaced_by {
            Some(new) => Err(StoreError::Busy(format!(
                "the namespace was rebuilt as namespace {new}: use --namespace {new}"
            ))),
            None => Ok(()),
        }
    }
}

fn changed(why: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "namespace.json was changed or cut: {why}; put it back from a copy or from the bucket's own versions"
    ))
}

/// Compares the bytes of `namespace.json` with the checksum in it.
fn check(bytes: &[u8]) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    struct Checksum {
        crc32c: String,
    }
    let member = CHECKSUM.as_bytes();
    let at = bytes.windows(member.len()).rposition(|part| part == member);
    let at = at.ok_or("its checksum is missing")?;
    let told: Checksum =
        serde_json::from_slice(bytes).map_err(|_| "its checksum cannot be read")?;
    match told.crc32c == format!("{:08x}", crc32c::crc32c(&bytes[..at])) {
        true => Ok(()),
        false => Err("its checksum does not match"),
    }
}

/// The folders of a namespace beside `namespace.json`.
pub(crate) const PARTS: [&str; 4] = ["meta", "data", "log", "epochs"];

/// Attempts before the absence of `namespace.json` is an error: another mount may be creating the namespace.
const LOOKS: u32 = 3;

/// Reads the manifest of a namespace that is to be written; creates it if the namespace has no object yet.
///
/// # Errors
/// `Damaged` if other objects exist without a manifest; `Busy` if another process creates or deletes the namespace.
pub(crate) async fn identity(backend: &Backend, env: &dyn Env) -> Result<Manifest, StoreError> {
    let mut unlinked = None;
    for _ in 0..LOOKS {
        if let Some(found) = Manifest::find(backend).await? {
            found.check_alive()?;
            return Ok(found);
        }
        unlinked = existing_part(backend).await?;
        if unlinked.is_none() {
            let fresh = Manifest::fresh(env);
            if fresh.make(backend).await? {
                return Ok(fresh);
            }
        }
    }
    Err(match unlinked {
        Some(part) => lost_beside(backend, part),
        None => StoreError::Busy("another process is making namespace.json".to_owned()),
    })
}

/// Reads the manifest of a namespace.
///
/// # Errors
/// `NotFound` if the namespace has no object; `Damaged` if other objects exist without a manifest; `Corrupt`, `Unavailable`.
pub(crate) async fn existing_identity(backend: &Backend) -> Result<Manifest, StoreError> {
    match Manifest::find(backend).await? {
        Some(found) => Ok(found),
        None => Err(match existing_part(backend).await? {
            Some(part) => lost_beside(backend, part),
            None => StoreError::NotFound,
        }),
    }
}

/// Returns the error of a namespace whose manifest is missing, while it has objects below `part`.
fn lost_beside(backend: &Backend, part: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{0}/namespace.json is missing, though objects lie below {0}/{part}. It is not made anew, because the journals of this \
         namespace are found by the uuid in it. Nothing was changed: put it back from a copy or from the bucket's own versions",
        backend.url()
    ))
}

/// Returns a folder of the namespace that has objects.
pub(crate) async fn existing_part(backend: &Backend) -> Result<Option<&'static str>, StoreError> {
    let folders = backend.folders("").await?;
    for part in PARTS {
        // On a local store a folder may exist without an object.
        let has_folder = folders.iter().any(|folder| folder == part);
        if has_folder && !backend.list(part).await?.is_empty() {
            return Ok(Some(part));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_of_an_identity_is_refused() {
        let mut identity = Manifest::fresh(&crate::env::SeededEnv::new(1));
        identity
            .settings
            .insert("crc32c".to_owned(), "x".to_owned());
        let bytes = identity.encode();
        let read = Manifest::read(&bytes).unwrap();
        assert_eq!(
            (read.uuid, read.settings),
            (identity.uuid, identity.settings)
        );
        let end = bytes.len() - 2;
        for at in 0..end {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert!(Manifest::read(&bad).is_err(), "byte {at}");
            assert!(Manifest::read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_namespace_that_was_rebuilt_or_is_half_made_is_refused_with_the_next_command() {
        let fresh = Manifest::fresh(&crate::env::SeededEnv::new(1));
        let whole = String::from_utf8(fresh.encode().to_vec()).unwrap();
        for member in ["objects_of", "epoch_base", "rebuild", "replaced_by"] {
            assert!(!whole.contains(member), "{whole}");
        }
        assert!(fresh.check_alive().is_ok());
        let replaced = Manifest {
            replaced_by: Some("new".to_owned()),
            ..fresh.clone()
        };
        let building = Manifest {
            rebuild: Some(RebuildStage::Building {
                from: "old".to_owned(),
                call: fresh.uuid,
            }),
            objects_of: Some("old".to_owned()),
            epoch_base: 8192,
            ..fresh
        };
        for (identity, part) in [
            (replaced, "--namespace new"),
            (building, "of namespace old"),
        ] {
            let read = Manifest::read(&identity.encode()).unwrap();
            assert_eq!(
                (read.objects_of.clone(), read.epoch_base, &read.rebuild),
                (identity.objects_of, identity.epoch_base, &identity.rebuild)
            );
            let why = read.check_alive().unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let error = Manifest::read(br#"{"format": 7}"#).unwrap_err().to_string();
        assert!(error.contains("format 7"), "{error}");
    }
}
