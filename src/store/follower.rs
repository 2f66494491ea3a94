//! A namespace that another process writes, shown at the same time: its live tree about as the bucket has it, its past up to
//! the last timestamp that is final.
//!
//! Nothing is written, neither to the bucket nor into its index. Inodes are read anew when the index shows a newer state;
//! bytes are given only if the rows they were found by still stood after they were read ([`File::read`]).
//! On this machine a follower has a directory of its own, so that it lies beside the writer and other followers.
//!
//! [`File::read`]: crate::store::File::read

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backend::Backend;
use crate::env::Env;
use crate::meta::{Journal, JournalError, MetaRead, SlateConfig, SlateFollower};
use crate::store::index::overlay::Index;
use crate::store::model::config::{NamespaceConfig, check_name};
use crate::store::model::error::StoreError;
use crate::store::model::role::{Follower, Role};
use crate::store::namespace::{Namespace, NamespaceParts, why_not};
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::schema::keys;
use crate::store::schema::manifest::Manifest;
use crate::store::schema::merge;
use crate::sync::Arc;
use crate::task::Tasks;

/// How many followers of one namespace may use a cache directory at the same time.
const FOLLOWERS_MAX: u32 = 64;

/// What to do about an index that lacks what other objects prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Refuse to show it.
    #[default]
    Refuse,
    /// Show what the index still has.
    Show,
}

/// How a process follows the writer of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowConfig {
    /// How often newer states are looked for.
    pub every: Duration,
    /// Whether a damaged index is shown.
    pub on_damage: OnDamage,
}

impl Namespace {
    /// Opens the namespace `name` of `backend` for reading, beside the process that writes it or without one, and looks for
    /// newer states as often as `follow` says. Nothing is written; every change fails with `ReadOnly`.
    ///
    /// # Errors
    /// `NotFound` where there is no such namespace or nothing in it yet, `Invalid` for a bad name, `Unavailable` when the
    /// bucket does not answer, `Busy` when too many followers use the cache directory, `Corrupt` for a format this build does
    /// not know, `Damaged` when the index lacks what other objects prove and it is not to be shown.
    pub async fn follow(
        backend: &Backend,
        name: &str,
        config: NamespaceConfig,
        follow: FollowConfig,
        env: Arc<dyn Env>,
        tasks: Tasks,
    ) -> Result<Self, StoreError> {
        check_name(name)?;
        let backend = backend.child(name);
        let identity = Manifest::find(&backend).await?;
        let identity = identity.ok_or(StoreError::NotFound)?;
        identity.check_alive()?;
        let (dir, journal) = own_directory(&config.cache_dir, identity.uuid)?;
        let slate = SlateConfig {
            local: backend.is_local(),
            reason: Some(why_not(&backend)),
            ..SlateConfig::new(merge::merge)
        };
        let damage = match evidence::examine(&backend, &slate).await? {
            Evidence::Damaged(what) => Some(what),
            Evidence::Unused => return Err(StoreError::NotFound),
            Evidence::Whole | Evidence::LogUnreadable(_) => None,
        };
        if let Some(what) = &damage
            && follow.on_damage == OnDamage::Refuse
        {
            return Err(StoreError::Damaged(what.clone()));
        }
        let store = backend.object_store();
        let opened = SlateFollower::open(store, "meta", &slate, follow.every).await;
        // What the look found says more than what the engine meets first.
        let index = Arc::new(opened.map_err(|error| match &damage {
            Some(what) => StoreError::Damaged(what.clone()),
            None => error.into(),
        })?);
        let view = Index::following(Arc::clone(&index) as Arc<dyn MetaRead>);
        let Some(applied) = view.row(&keys::applied()).await? else {
            // Its writer has not come so far, or was killed before; or the index has lost everything.
            return Err(damage.map_or(StoreError::NotFound, StoreError::Damaged));
        };
        let role = Role::Follower(Follower::new(Arc::clone(&index), applied.low_watermark));
        let parts = NamespaceParts {
            config,
            env,
            tasks,
            backend,
            dir,
            epoch: applied.batch.0,
            role,
            journal,
            index: view,
        };
        let (namespace, _orphans) = Self::assemble(parts).await?;
        let core = &namespace.core;
        if let Some(what) = damage {
            tracing::error!(%what, "a damaged index is shown as it is");
            core.health.note(format!("shown as it is: {what}"));
        }
        core.health.stop(StoreError::ReadOnly);
        core.health.uses((applied.bytes, applied.files));
        let task = Arc::clone(&namespace.tree).follow_loop(index);
        drop(core.tasks.spawn("follow", task));
        Ok(namespace)
    }
}

/// The first directory of a follower's own that no other process uses, with its lock.
fn own_directory(cache_dir: &Path, uuid: uuid::Uuid) -> Result<(PathBuf, Journal), StoreError> {
    let mut busy = StoreError::Closed;
    for number in 0..FOLLOWERS_MAX {
        let dir = cache_dir.join(format!("{uuid}-follower-{number}"));
        match Journal::open(&dir.join("journal"), uuid) {
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
