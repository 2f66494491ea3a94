//! The namespace that is rebuilt: its identity, its writers, and its index as far as it can be read.
//!
//! Invariant: of the old namespace only `namespace.json` is changed, at the end of a rebuild, and the epoch of an index that is whole.

use std::path::Path;

use bytes::Bytes;
use uuid::Uuid;

use crate::backend::{Backend, BackendError};
use crate::env::Env;
use crate::meta::{Inspection, MetaError, MetaStore, SlateStore, inspect, is_in_use};
use crate::store::commit::epoch_object;
use crate::store::lease::acquire::revoke;
use crate::store::lease::identity::WriterIdentity;
use crate::store::model::config::check_name;
use crate::store::model::error::StoreError;
use crate::store::rebuild::engine::slate;
use crate::store::rebuild::report::UuidOrigin;
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::schema::manifest::{Manifest, NamespaceHome, RebuildStage, existing_part};
use crate::store::schema::object_names::object_numbers;
use crate::store::schema::writer_object::{self, WriterObject, WriterPhase};

/// What is known about the last writer of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastWriter {
    /// It has ended.
    Ended,
    /// It may live, on the named machine if that is known: `writer.json` says so, or there is none, and another machine wrote last.
    MayLive(Option<String>),
}

/// Returns the id of a namespace whose objects may be lost or damaged, if it can be read, and what is known about its last writer. That writer
/// has also ended if it worked with a cache directory below `cache_dir` that no process uses, and if there is no `writer.json` and `host` wrote
/// last.
///
/// # Errors
/// `Invalid` for a bad name, `Unavailable`.
pub async fn last_writer(
    backend: &Backend,
    name: &str,
    cache_dir: Option<&Path>,
    host: &str,
) -> Result<(Option<Uuid>, LastWriter), StoreError> {
    check_name(name)?;
    let place = backend.child(name);
    let identity = match Manifest::find(&place).await {
        Ok(found) => found,
        Err(StoreError::Corrupt(_)) => None,
        Err(error) => return Err(error),
    };
    let owner = identity
        .as_ref()
        .map_or(name, |id| id.owner_of_objects(name));
    let uuid = identity.as_ref().map(|identity| identity.uuid);
    let told = match place.get(writer_object::KEY).await {
        Ok(bytes) => bytes,
        Err(BackendError::NotFound { .. }) => {
            let newest = epoch_object::newest_writer(&backend.child(owner)).await?;
            let last = newest.map(|newest| newest.host);
            let writer = match last.as_deref() == Some(host) {
                true => LastWriter::Ended,
                false => LastWriter::MayLive(last),
            };
            return Ok((uuid, writer));
        }
        Err(error) => return Err(error.into()),
    };
    let Ok(told) = WriterObject::decode(&told) else {
        return Ok((uuid, LastWriter::MayLive(None)));
    };
    let dir = cache_dir
        .zip(uuid)
        .map(|(all, uuid)| all.join(uuid.to_string()));
    let has_ended = told.phase == WriterPhase::Ended
        || dir.is_some_and(|dir| is_of_unused_directory(&told, &dir));
    let writer = match has_ended {
        true => LastWriter::Ended,
        false => LastWriter::MayLive(Some(told.host)),
    };
    Ok((uuid, writer))
}

/// Whether a writer worked with the cache directory `dir`, and no process uses that. What cannot be read says no.
fn is_of_unused_directory(writer: &WriterObject, dir: &Path) -> bool {
    let Ok(Some(identity)) = WriterIdentity::read(dir) else {
        return false;
    };
    identity.is_own(writer.writer, writer.epoch)
        && is_in_use(&dir.join("journal")).is_ok_and(|used| !used)
}

/// The newest segment and the newest log object of a namespace, by their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewestObjects {
    data: Option<String>,
    log: Option<String>,
}

/// Whether `namespace.json` exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdentityObject {
    Exists,
    Missing,
}

/// A namespace that is rebuilt.
#[derive(Debug)]
pub(super) struct OldNamespace {
    pub(super) name: String,
    /// The namespace under whose prefix the segments and the log lie.
    pub(super) owner: String,
    pub(super) home: NamespaceHome,
    pub(super) identity: Manifest,
    pub(super) uuid_origin: UuidOrigin,
    object: IdentityObject,
}

impl OldNamespace {
    /// Finds the namespace `name`, to be rebuilt as `to`.
    ///
    /// # Errors
    /// `NotFound` if no object lies below the name; `Busy` if it is being deleted, or half-made, or was rebuilt under another name.
    pub(super) async fn find(
        backend: &Backend,
        name: &str,
        to: &str,
        env: &dyn Env,
    ) -> Result<Self, StoreError> {
        let place = backend.child(name);
        let (identity, uuid_origin, object) = match Manifest::find(&place).await {
            Ok(Some(found)) => (found, UuidOrigin::Kept, IdentityObject::Exists),
            Ok(None) if existing_part(&place).await?.is_none() => return Err(StoreError::NotFound),
            Ok(None) => (
                Manifest::fresh(env),
                UuidOrigin::New,
                IdentityObject::Missing,
            ),
            Err(StoreError::Corrupt(_)) => {
                let (identity, origin) = salvaged(&place, env).await?;
                (identity, origin, IdentityObject::Exists)
            }
            Err(error) => return Err(error),
        };
        if identity.deleting || matches!(identity.rebuild, Some(RebuildStage::Building { .. })) {
            identity.check_alive()?;
        }
        if identity.replaced_by.as_deref().is_some_and(|new| new != to) {
            identity.check_complete()?;
        }
        Ok(Self {
            name: name.to_owned(),
            owner: identity.owner_of_objects(name).to_owned(),
            home: identity.home(backend, name),
            identity,
            uuid_origin,
            object,
        })
    }

    /// Takes an index that is whole from a writer that may have it. A damaged one is not opened: that would write to it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(super) async fn fence(&self) -> Result<(), StoreError> {
        let slate = slate(&self.home.index);
        match evidence::examine(&self.home, &slate).await? {
            Evidence::Whole | Evidence::LogUnreadable(_) => {}
            Evidence::Unused | Evidence::Damaged(_) => return Ok(()),
        }
        let store = self.home.index.object_store();
        match SlateStore::open(store, "meta", slate).await {
            Ok(index) => Ok(index.close().await?),
            Err(error @ MetaError::Unavailable(_)) => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "the old index cannot be opened");
                Ok(())
            }
        }
    }

    /// Returns the keys of the newest objects.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(super) async fn newest(&self) -> Result<NewestObjects, StoreError> {
        Ok(NewestObjects {
            data: newest_key(&self.home.objects, "data").await?,
            log: newest_key(&self.home.objects, "log").await?,
        })
    }

    /// Returns the highest writer epoch that is known.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(super) async fn highest_epoch(&self) -> Result<u64, StoreError> {
        let newest = self.newest().await?;
        let of = |kind, key: &Option<String>| {
            let (epoch, _) = object_numbers(kind, key.as_deref()?)?;
            Some(epoch)
        };
        let proven = epoch_object::newer(&self.home.objects, 0).await?;
        let (place, slate) = (self.home.index.object_store(), slate(&self.home.index));
        let inspected = inspect(place, "meta", &slate, &[]).await?;
        let engine = match inspected {
            Inspection::Whole(state) => state.writer_epoch,
            Inspection::Absent | Inspection::Damaged(_) => 0,
        };
        let known = [
            of("data", &newest.data),
            of("log", &newest.log),
            proven.map(|proven| proven.epoch),
            Some(self.home.epoch_base.saturating_add(engine)),
        ];
        Ok(known.into_iter().flatten().max().unwrap_or(0))
    }

    /// Notes in `namespace.json` that the namespace `to` has taken its place, and in that of the namespace that has its objects. A writer that
    /// may have it loses it.
    ///
    /// # Errors
    /// `Unavailable`; `Busy` if another process made `namespace.json` meanwhile, or changes `writer.json` all the time.
    pub(super) async fn replace_by(&self, backend: &Backend, to: &str) -> Result<(), StoreError> {
        let replaced = |identity: &Manifest| Manifest {
            replaced_by: Some(to.to_owned()),
            ..identity.clone()
        };
        revoke(&self.home.index).await?;
        let identity = replaced(&self.identity);
        match self.object {
            IdentityObject::Exists => identity.replace(&self.home.index).await?,
            IdentityObject::Missing => {
                if !identity.make(&self.home.index).await? {
                    let why =
                        "another process made namespace.json meanwhile; run the command again";
                    return Err(StoreError::Busy(why.to_owned()));
                }
            }
        }
        let place = backend.child(&self.owner);
        if self.owner != self.name
            && let Some(owner) = Manifest::find(&place).await?
        {
            replaced(&owner).replace(&place).await?;
        }
        Ok(())
    }
}

/// Returns an identity with the id of a `namespace.json` whose checksum does not match, if the id can be read.
async fn salvaged(place: &Backend, env: &dyn Env) -> Result<(Manifest, UuidOrigin), StoreError> {
    let bytes = match place.get("namespace.json").await {
        Ok(bytes) => bytes,
        Err(BackendError::NotFound { .. }) => Bytes::new(),
        Err(error) => return Err(error.into()),
    };
    let fresh = Manifest::fresh(env);
    Ok(match Manifest::unchecked_uuid(&bytes) {
        Some(uuid) => (Manifest { uuid, ..fresh }, UuidOrigin::Damaged),
        None => (fresh, UuidOrigin::New),
    })
}

/// Returns the key of the newest object below a folder with folders of limited size.
async fn newest_key(objects: &Backend, part: &str) -> Result<Option<String>, StoreError> {
    let mut path = part.to_owned();
    while let Some(last) = objects.folders(&path).await?.pop() {
        path = format!("{path}/{last}");
    }
    let listed = objects.list(&path).await?;
    Ok(listed.into_iter().next_back().map(|object| object.key))
}
