//! The live tree: inodes, names, open files.

pub(crate) mod attributes;
pub(crate) mod backlog;
pub(crate) mod create;
pub(crate) mod disk_space;
pub(crate) mod drain;
pub(crate) mod file;
pub(crate) mod flush;
pub(crate) mod flush_content;
pub(crate) mod flush_late;
pub(crate) mod follow;
pub(crate) mod inode;
pub(crate) mod lookup;
pub(crate) mod put;
pub(crate) mod reflink;
pub(crate) mod rename;
pub(crate) mod room;
pub(crate) mod row_writer;
pub(crate) mod unchanged;
pub(crate) mod unlink;
pub(crate) mod writeback;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::store::commit::Committer;
use crate::store::core::Core;
use crate::store::data::DataStore;
use crate::store::model::version::Ino;
use crate::store::tree::disk_space::DiskSpace;
use crate::store::tree::inode::InodeCache;
use crate::sync::Arc;

/// The live tree of a namespace.
#[derive(Debug)]
pub struct Tree {
    pub(crate) core: Arc<Core>,
    pub(crate) data: Arc<DataStore>,
    pub(crate) commit: Arc<Committer>,
    pub(crate) inodes: InodeCache,
    pub(crate) space: DiskSpace,
    /// Takes the inodes without a name that no handle uses any more.
    pub(crate) unlinked: UnboundedSender<Ino>,
    /// Renames of directories, one at a time: two could make a circle.
    pub(crate) renames: tokio::sync::Mutex<()>,
}

impl Tree {
    /// A tree with no inode cached. The receiver gets the inodes without a name that no handle uses any more.
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
            space: DiskSpace::default(),
            unlinked,
            renames: tokio::sync::Mutex::new(()),
        };
        (tree, orphans)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Journal tokens go with the fields: the journal must keep the files that the bucket lacks.
        self.core.journal.freeze();
    }
}
