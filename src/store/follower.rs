//! A namespace that another process writes, shown at the same time: its live tree about as the bucket has it, its past up to
//! the last timestamp that is final.
//!
//! Nothing is written, neither to the bucket nor into its index. Inodes are read anew when the index shows a newer state;
//! bytes are given only if the rows they were found by still stood after they were read ([`File::read`]).
//! On this machine a follower has a directory of its own, so that it lies beside the writer and other followers.
//!
//! [`File::read`]: crate::store::File::read

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::Backend;
use crate::env::Env;
use crate::meta::{Journal, JournalError, MetaError, MetaRead, SlateConfig, SlateFollower};
use crate::store::index::overlay::Index;
use crate::store::model::error::StoreError;
use crate::store::model::version::Timestamp;
use crate::store::namespace::{
    Namespace, NamespaceConfig, NamespaceParts, Shared, check_name, why_not,
};
use crate::store::recovery::evidence::{self, Evidence};
use crate::store::schema::keys;
use crate::store::schema::manifest::Manifest;
use crate::store::schema::rows::{self, AppliedRow};
use crate::store::tree::inode::{CachedInode, Inode, LinkState};
use crate::sync::{Arc, lock};
use crate::task::Tasks;

/// How many followers of one namespace may use a cache directory at the same time.
const FOLLOWERS_MAX: u32 = 64;

/// The one that is under way may have begun too early, and each takes a while.
const LOOKS: u32 = 3;

/// After a state that could not be read.
const PAUSE: Duration = Duration::from_secs(1);

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

/// What a process is to a namespace.
#[derive(Debug)]
pub(crate) enum Role {
    /// It alone writes.
    Writer,
    /// It shows what another one writes.
    Follower(Follower),
}

/// What a follower knows of the writer.
#[derive(Debug)]
pub(crate) struct Follower {
    index: Arc<SlateFollower>,
    low_watermark: AtomicU64,
}

impl Follower {
    /// The oldest timestamp that is not final.
    pub(crate) fn low_watermark(&self) -> Timestamp {
        Timestamp(self.low_watermark.load(Ordering::SeqCst))
    }

    /// The newest timestamp that is final.
    pub(crate) fn newest(&self) -> Timestamp {
        Timestamp(self.low_watermark().0.saturating_sub(1))
    }

    /// Waits until the bucket has been asked for a newer state, if it answers.
    pub(crate) async fn look_again(&self) {
        for _ in 0..LOOKS {
            self.index.changed().await;
        }
    }

    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        match self.index.close().await {
            Ok(()) | Err(MetaError::Closed(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Namespace {
    /// The last final timestamp, where another process writes; `None` where this one does.
    pub fn shown(&self) -> Option<Timestamp> {
        match &self.0.role {
            Role::Writer => None,
            Role::Follower(follower) => Some(follower.newest()),
        }
    }

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
        (env, tasks): (Arc<dyn Env>, Tasks),
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
            ..SlateConfig::new(rows::merge)
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
        let Some(applied) = view.row::<AppliedRow>("G A", &keys::applied()).await? else {
            // Its writer has not come so far, or was killed before; or the index has lost everything.
            return Err(damage.map_or(StoreError::NotFound, StoreError::Damaged));
        };
        let role = Role::Follower(Follower {
            index: Arc::clone(&index),
            low_watermark: AtomicU64::new(applied.low_watermark),
        });
        let place = NamespaceParts {
            backend,
            dir,
            epoch: applied.batch.0,
            role,
            journal,
        };
        let (shared, _nobody_reaps) = Shared::assemble(place, view, config, (env, tasks)).await?;
        if let Some(what) = damage {
            tracing::error!(%what, "a damaged index is shown as it is");
            shared.health.note(format!("shown as it is: {what}"));
        }
        shared.health.stop(StoreError::ReadOnly);
        shared.health.uses((applied.bytes, applied.files));
        let task = Arc::clone(&shared).follow_loop(index);
        drop(shared.tasks.spawn("follow", task));
        Ok(Self(shared))
    }
}

impl Shared {
    /// Takes note of newer states of the index.
    async fn follow_loop(self: Arc<Self>, index: Arc<SlateFollower>) {
        while !self.tasks.is_stopped() {
            tokio::select! {
                () = index.changed() => {}
                () = self.tasks.stopped() => return,
            }
            if let Err(error) = self.refresh().await {
                self.health.failed(&error.to_string());
                tracing::warn!(%error, "the namespace is shown as it was");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Forgets what an older state said, if the index shows a newer one.
    async fn refresh(&self) -> Result<(), StoreError> {
        let Role::Follower(follower) = &self.role else {
            return Ok(());
        };
        let Some(applied) = self
            .index
            .row::<AppliedRow>("G A", &keys::applied())
            .await?
        else {
            return Err(StoreError::NotFound);
        };
        if self.applied_now() == applied {
            return Ok(());
        }
        // The inodes first: whoever sees the new floor sees what lies below it.
        for inode in self.inodes.used() {
            self.reload(&inode).await;
        }
        self.health.uses((applied.bytes, applied.files));
        follower
            .low_watermark
            .fetch_max(applied.low_watermark, Ordering::SeqCst);
        *lock(&self.applied) = applied;
        Ok(())
    }
}

impl Shared {
    /// Lets whoever asks next see the rows as they are now. An open file that has lost its last name stays what it was: its
    /// bytes are given for as long as something shows them.
    pub(crate) async fn reload(&self, inode: &Arc<Inode>) {
        let mut locked = inode.lock().await;
        if inode.is_pinned()
            && let Some(file) = locked.file()
        {
            match self.read_inode(inode.ino).await {
                Ok(Some(cached)) => *locked.cached() = cached,
                Ok(None) => file.link_state = LinkState::Unlinked,
                // The next state is read like this one.
                Err(error) => tracing::warn!(ino = inode.ino.0, %error, "shown as it was"),
            }
            return;
        }
        *locked.cached() = CachedInode::No;
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
