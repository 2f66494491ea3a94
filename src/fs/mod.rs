//! POSIX meaning over a namespace: numbers, names, handles, and `.versions/`. It names neither FUSE nor the object
//! store.
//!
//! The path of a call: a number is a live inode or a node of the past (`Node`); where the whole tree is shown as of a timestamp, every
//! number is one of the past, the root's among them. A call that changes something asks for a live inode
//! first and so returns EROFS for the past. Then it calls the namespace, and updates the tables of this room after the store has
//! answered.
//! Invariants: the kernel checks permissions (`default_permissions`), nothing here does; no lock of this room is held
//! while the store works, except a handle's own; every call may run beside every other, in any order.

pub(crate) mod acl;
mod caller;
mod config;
mod dir_snapshot;
mod entry;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handle;
mod inode;
mod kernel_cache;
mod listings;
#[cfg(test)]
mod model;
mod named;
mod ops;
pub(crate) mod past;
mod served;
mod set_ids;
#[cfg(test)]
mod testing;

pub use caller::Caller;
pub use config::{FsConfig, SyncOn};
pub use entry::{Entry, Opened};
pub use error::{FsError, FsResult};
pub use kernel_cache::KernelCache;
pub use ops::attr::{SetAttr, SetTime};
pub use ops::dir::{DirEntry, DirSink, Room};
pub use ops::io::WriteMode;
pub use ops::space::{HandleOffset, Statfs};

use crate::fs::handle::HandleTable;
use crate::fs::inode::{Forgotten, LiveTable, XattrMark};
use crate::fs::kernel_cache::ForgetCached;
use crate::fs::listings::Listings;
use crate::fs::past::{Past, PastNode};
use crate::fs::served::Served;
use crate::fs::set_ids::lends_rights;
use crate::store::{Ino, Namespace, Stat};
use crate::sync::{Arc, OnceLock};
use crate::task::Tasks;
use std::time::Duration;

/// The node of a number.
pub(crate) enum Node {
    /// An inode of the live tree.
    Live(Ino),
    /// A node of the past.
    Past(Arc<PastNode>),
}

/// A namespace as a POSIX file system; used behind an `Arc` by concurrent calls.
pub struct FileSystem {
    first: Served,
    /// What a standby serves once it has taken the namespace.
    taken: OnceLock<Served>,
    tasks: Tasks,
    live: LiveTable,
    handles: HandleTable,
    listings: Listings,
    forget: OnceLock<ForgetCached>,
    poisoned: OnceLock<String>,
}

impl std::fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSystem")
            .field("config", self.config())
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl FileSystem {
    /// Whether another process writes what this mount shows.
    pub fn follows(&self) -> bool {
        self.config().read_only
    }

    /// Shows `namespace`; a panic in `tasks` fails every later call.
    #[must_use]
    pub fn new(namespace: Namespace, config: FsConfig, tasks: Tasks) -> Self {
        Self {
            first: Served::new(namespace, config),
            taken: OnceLock::new(),
            tasks,
            live: LiveTable::default(),
            handles: HandleTable::default(),
            listings: Listings::default(),
            forget: OnceLock::new(),
            poisoned: OnceLock::new(),
        }
    }

    fn served(&self) -> &Served {
        self.taken.get().unwrap_or(&self.first)
    }

    /// Returns the namespace that is served.
    pub fn namespace(&self) -> &Namespace {
        &self.served().namespace
    }

    fn config(&self) -> &FsConfig {
        &self.served().config
    }

    fn past(&self) -> &Past {
        &self.served().past
    }

    /// Makes every later call fail with EIO, after an internal error: nothing more may be acknowledged.
    pub fn poison(&self, why: &str) {
        // The first reason stays, because later ones may be its consequences.
        drop(self.poisoned.set(why.to_owned()));
    }

    /// Sets the function that makes the kernel forget what it keeps. It is called before the change that made that outdated is
    /// answered; during a call of the kernel, for attributes only.
    pub fn tell_changes(&self, forget: impl Fn(KernelCache<'_>) + Send + Sync + 'static) {
        let forget: ForgetCached = Arc::new(forget);
        self.served().tell_changes(&forget);
        // A file system has one mount, so that there is no second function.
        drop(self.forget.set(forget));
    }

    /// Gives back `count` lookups of a number.
    pub fn forget(&self, ino: u64, count: u64) {
        if past::is_past(ino) {
            self.past().forget(ino, count);
        } else {
            let gone = self.live.forget(Ino(ino), count);
            if gone == Forgotten::Whole {
                self.listings.forget(Ino(ino));
            }
        }
    }

    /// Fails when the mount has failed.
    fn admit(&self) -> FsResult<()> {
        if let Some(why) = self.poisoned.get() {
            return Err(FsError::Poisoned(why.clone()));
        }
        match self.tasks.poisoned() {
            Some(task) => Err(FsError::Poisoned(format!("task {task} panicked"))),
            None if self.namespace().is_lease_held() => Ok(()),
            None => Err(FsError::LeaseOver),
        }
    }

    /// Waits a moment for the right to answer, if another process may have taken the namespace.
    pub async fn lease_renewed(&self) {
        self.namespace().lease_renewed().await;
    }

    /// How long the kernel may keep a name or attributes that may be kept for `ttl`: not beyond the writer's lease.
    fn within_lease(&self, ttl: Duration) -> Duration {
        self.namespace()
            .lease_remaining()
            .map_or(ttl, |remaining| remaining.min(ttl))
    }

    /// The node of `ino`.
    fn node(&self, ino: u64) -> FsResult<Node> {
        self.admit()?;
        if past::is_past(ino) || self.config().shown_at.is_some() {
            let node = self.past().node(ino).ok_or(FsError::Stale)?;
            Ok(Node::Past(node))
        } else {
            Ok(Node::Live(Ino(ino)))
        }
    }

    /// The live inode `ino`, for a change.
    fn writable(&self, ino: u64) -> FsResult<Ino> {
        self.admit()?;
        if past::is_past(ino) || self.config().read_only {
            return Err(FsError::ReadOnly);
        }
        Ok(Ino(ino))
    }

    /// The live directory `parent`, for a change of `name` in it.
    fn writable_name(&self, parent: u64, name: &[u8]) -> FsResult<Ino> {
        let parent = self.writable(parent)?;
        check_name(name)?;
        if name == self.config().versions_name {
            return Err(FsError::NotPermitted("the name is reserved for the past"));
        }
        Ok(parent)
    }

    /// Counts a lookup and makes the reply; `mark` was taken before the stat was read.
    fn live_entry(&self, parent: Ino, name: &[u8], stat: Stat, mark: XattrMark) -> Entry {
        self.live.looked_up(&stat, parent, name, mark);
        self.live_reply(stat)
    }

    /// The same for a name that was just created, which changed the times of its directory.
    fn made_entry(&self, parent: Ino, name: &[u8], stat: Stat, mark: XattrMark) -> Entry {
        self.past().changed(parent);
        self.live_entry(parent, name, stat, mark)
    }

    fn live_reply(&self, stat: Stat) -> Entry {
        Entry {
            attr_ttl: self.attr_ttl(&stat),
            stat: self.shown(stat),
            entry_ttl: self.within_lease(self.config().live_ttl),
        }
    }

    /// Attributes of a live inode as they are shown, and how long they hold.
    fn attributes(&self, stat: Stat) -> (Stat, Duration) {
        let ttl = self.attr_ttl(&stat);
        (self.shown(stat), ttl)
    }

    /// How long the kernel may keep attributes. It keeps no mode with set-id bits: exec takes
    /// the mode from the kernel's cache, and some calls that remove the bits (open with `O_TRUNC`) have no mode in their reply.
    fn attr_ttl(&self, stat: &Stat) -> Duration {
        match lends_rights(stat.kind, stat.attrs.mode) {
            true => Duration::ZERO,
            false => self.within_lease(self.config().live_ttl),
        }
    }

    /// Attributes as the mount's options show them.
    fn shown(&self, mut stat: Stat) -> Stat {
        stat.attrs.uid = self.config().uid.unwrap_or(stat.attrs.uid);
        stat.attrs.gid = self.config().gid.unwrap_or(stat.attrs.gid);
        stat.attrs.mode &= !self.config().umask.unwrap_or(0);
        stat
    }
}

/// Refuses what cannot be a name.
fn check_name(name: &[u8]) -> FsResult<()> {
    if name.len() > 255 {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| b"/\0".contains(b)) {
        return Err(FsError::Invalid("not a file name".to_owned()));
    }
    Ok(())
}
