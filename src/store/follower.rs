//! A follower: a read-only namespace that shows what another process writes. It shows the live tree as the index has
//! it, and the past up to the last final timestamp.
//!
//! Invariants: a follower writes neither to the bucket nor to its index. An inode is read again when the index shows a
//! newer state. Bytes are returned only if the rows that led to them were still current after the bytes were read
//! ([`File::read`]).
//! A follower has its own local directory, so that it can run on the same machine as the writer and other followers.
//!
//! [`File::read`]: crate::store::File::read

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backend::Backend;
use crate::env::Env;
use crate::meta::{Journal, JournalError, MetaRead, SlateConfig, SlateFollower};
use crate::store::index::current::Index;
use crate::store::model::config::{NamespaceConfig, check_name};
use crate::store::model::error::StoreError;
use crate::store::model::memory_shares::MemoryShares;
use crate::store::model::role::{Follower, Role};
use crate::store::namespace::{Namespace, NamespaceParts, why_not};
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::schema::keys;
use crate::store::schema::manifest::Manifest;
use crate::store::schema::merge;
use crate::sync::Arc;
use crate::task::Tasks;

/// Maximum number of followers of one namespace that share a cache directory.
const FOLLOWERS_MAX: u32 = 64;

/// What a follower does if the index lacks what other objects prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// It refuses to open the namespace.
    #[default]
    Refuse,
    /// It shows what the index still contains.
    Show,
}

/// Settings of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowConfig {
    /// Interval at which the follower polls for newer states.
    pub every: Duration,
    /// What to do with a damaged index.
    pub on_damage: OnDamage,
}

impl Namespace {
    /// Opens the namespace `name` of `backend` for reading, whether or not a writer has it open, and polls for newer
    /// states as often as `follow` says. Nothing is written; every change fails with `ReadOnly`.
    ///
    /// # Errors
    /// `NotFound` if the namespace does not exist or is empty, `Invalid` for a bad name, `Unavailable` if the bucket
    /// does not answer, `Busy` if too many followers use the cache directory, `Corrupt` for a format that this build
    /// does not know, `Damaged` if the index lacks what other objects prove and `follow` refuses damage.
    pub async fn follow(
        backend: &Backend,
        name: &str,
        config: NamespaceConfig,
        follow: FollowConfig,
        env: Arc<dyn Env>,
        tasks: Tasks,
    ) -> Result<Self, StoreError> {
        check_name(name)?;
        let identity = Manifest::find(&backend.child(name)).await?;
        let identity = identity.ok_or(StoreError::NotFound)?;
        identity.check_alive()?;
        let home = identity.home(backend, name);
        let (dir, journal) = own_directory(&config.cache_dir, identity.uuid)?;
        let shares = MemoryShares::of(config.memory_bytes);
        let slate = SlateConfig {
            local: backend.is_local(),
            cache_bytes: shares.index_cache + shares.index_rows,
            reason: Some(why_not(backend)),
            ..SlateConfig::new(merge::merge)
        };
        let damage = match evidence::examine(&home, &slate).await? {
            Evidence::Damaged(what) => Some(what),
            Evidence::Unused => return Err(StoreError::NotFound),
            Evidence::Whole | Evidence::LogUnreadable(_) => None,
        };
        if let Some(what) = &damage
            && follow.on_damage == OnDamage::Refuse
        {
            return Err(StoreError::Damaged(what.clone()));
        }
        let store = home.index.object_store();
        let opened = SlateFollower::open(store, "meta", &slate, follow.every).await;
        // The result of the evidence check is more precise than the first error of the engine.
        let index = Arc::new(opened.map_err(|error| match &damage {
            Some(what) => StoreError::Damaged(what.clone()),
            None => error.into(),
        })?);
        let view = Index::of_follower(Arc::clone(&index) as Arc<dyn MetaRead>);
        let Some(applied) = view.row(&keys::applied()).await? else {
            // The writer has not committed its first batch, or the index has lost all rows.
            return Err(damage.map_or(StoreError::NotFound, StoreError::Damaged));
        };
        let role = Role::Follower(Follower::new(Arc::clone(&index), applied.low_watermark));
        let parts = NamespaceParts {
            config,
            env,
            tasks,
            home,
            uuid: identity.uuid,
            dir,
            epoch: applied.batch.epoch,
            role,
            journal,
            index: view,
            lease: None,
        };
        let (namespace, _orphans) = Self::assemble(parts).await?;
        let core = &namespace.core;
        if let Some(what) = damage {
            tracing::error!(%what, "the index is damaged; showing what it still contains");
            core.health
                .note(format!("shown although the index is damaged: {what}"));
        }
        core.health.stop(StoreError::ReadOnly);
        core.health.uses(applied.bytes, applied.files);
        let task = Arc::clone(&namespace.tree).follow_loop(index);
        drop(core.tasks.spawn("follow", task));
        Ok(namespace)
    }
}

/// Returns the first follower directory that no other process uses, and its journal, which is its lock.
fn own_directory(cache_dir: &Path, uuid: uuid::Uuid) -> Result<(PathBuf, Journal), StoreError> {
    let mut busy = StoreError::Closed;
    for number in 0..FOLLOWERS_MAX {
        let dir = cache_dir.join(format!("{uuid}-follower-{number}"));
        match Journal::open_in(&dir, uuid) {
            Ok((journal, _nothing)) => {
                journal.freeze();
                return Ok((dir, journal));
            }
            Err(error @ JournalError::Busy { .. }) => busy = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(busy)
}
