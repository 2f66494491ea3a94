//! The live tree of a namespace: directory entries, cached inodes, open files, and the operations that change them.
//!
//! Every change locks the inodes it concerns, builds a transaction (rows, dependencies, referenced contents), and enqueues it
//! with the committer. The overlay shows the change to readers at once; the batch commit and the upload follow in the background.

pub(crate) mod attributes;
pub(crate) mod backlog;
pub(crate) mod create;
pub(crate) mod disk_space;
pub(crate) mod drain;
pub(crate) mod file;
mod filing_policy;
pub(crate) mod flush;
pub(crate) mod flush_content;
pub(crate) mod flush_late;
pub(crate) mod follow;
pub(crate) mod inode;
pub(crate) mod inode_cache;
pub(crate) mod locked;
pub(crate) mod lookup;
pub(crate) mod move_rows;
pub(crate) mod put;
pub(crate) mod read_ahead;
pub(crate) mod reflink;
pub(crate) mod rename;
pub(crate) mod restore_guard;
pub(crate) mod review;
pub(crate) mod room;
pub(crate) mod row_writer;
pub(crate) mod running;
pub(crate) mod seek;
pub(crate) mod unchanged;
pub(crate) mod under_restore;
pub(crate) mod unlink;
pub(crate) mod version_record;
pub(crate) mod writeback;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::store::commit::Committer;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::store::model::version::Ino;
use crate::store::tree::disk_space::DiskSpace;
use crate::store::tree::inode_cache::InodeCache;
use crate::store::tree::running::RunningPrograms;
use crate::store::tree::under_restore::UnderRestore;
use crate::sync::Arc;

/// The live tree of one namespace.
#[derive(Debug)]
pub struct Tree {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) commit: Arc<Committer>,
    pub(crate) inodes: InodeCache,
    pub(crate) under_restore: UnderRestore,
    programs: Arc<RunningPrograms>,
    pub(crate) space: DiskSpace,
    /// Receives each unlinked inode when its last handle is dropped, so that a task can delete the orphan.
    pub(crate) unlinked: UnboundedSender<Ino>,
    /// Serialises directory renames: two concurrent ones could each move a directory below the other and close a cycle.
    pub(crate) renames: tokio::sync::Mutex<()>,
}

impl Tree {
    /// Creates a tree with an empty inode cache. The receiver yields unlinked inodes whose last handle was dropped.
    pub(crate) fn new(
        core: Arc<Core>,
        data: Arc<DataStore>,
        commit: Arc<Committer>,
    ) -> (Self, UnboundedReceiver<Ino>) {
        let (unlinked, orphans) = unbounded_channel();
        let tree = Self {
            core,
            data,
            commit,
            inodes: InodeCache::default(),
            under_restore: UnderRestore::default(),
            programs: Arc::default(),
            space: DiskSpace::default(),
            unlinked,
            renames: tokio::sync::Mutex::new(()),
        };
        (tree, orphans)
    }

    /// Returns the programs that run from files of the tree.
    pub(crate) fn programs(&self) -> &Arc<RunningPrograms> {
        &self.programs
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // The tokens are dropped with the fields. A frozen journal keeps the files that hold operations the bucket lacks.
        self.core.journal.freeze();
    }
}
