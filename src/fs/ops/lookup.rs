//! lookup, readlink, access: from names to numbers.

use crate::fs::{Caller, Entry, FileSystem, FsError, FsResult, Node, check_name};
use crate::store::Ino;
use bytes::Bytes;

impl FileSystem {
    /// Finds what `name` in `parent` is to `caller` and counts one lookup of it. `.` and `..` work for any directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NameTooLong`, `Stale` when the directory was removed.
    pub async fn lookup(&self, caller: &Caller, parent: u64, name: &[u8]) -> FsResult<Entry> {
        match self.node(parent)? {
            Node::Live(dir) if name == b"." => self.find_number(dir.0).await,
            Node::Live(dir) if name == b".." => {
                self.find_number(self.namespace().tree().parent(dir).await?.0)
                    .await
            }
            Node::Past(node) if name == b"." => self.find_number(node.number()).await,
            Node::Past(node) if name == b".." => self.find_number(node.parent()).await,
            Node::Live(dir) => self.find_live(dir, name).await,
            Node::Past(node) => {
                check_name(name)?;
                let mut entry = self.past().lookup(caller, &node, name).await?;
                entry.stat = self.shown(entry.stat);
                Ok(entry)
            }
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` when `ino` is no symbolic link.
    pub async fn readlink(&self, ino: u64) -> FsResult<Bytes> {
        match self.node(ino)? {
            Node::Live(ino) => {
                let target = self.namespace().tree().readlink(ino).await;
                target.map_err(|error| FsError::from(error).by_number())
            }
            Node::Past(node) => self.past().readlink(&node).await,
        }
    }

    /// Refuses write access to the past and to a read-only mount. The kernel has checked the modes.
    ///
    /// # Errors
    /// `ReadOnly` for writing to the past or to a read-only mount.
    pub async fn access(&self, _caller: &Caller, ino: u64, mask: i32) -> FsResult<()> {
        if mask & libc::W_OK != 0 {
            self.writable(ino)?;
        }
        self.node(ino).map(drop)
    }

    async fn find_live(&self, dir: Ino, name: &[u8]) -> FsResult<Entry> {
        check_name(name)?;
        if name == self.config().versions_name {
            let mut entry = self.past().versions_of(dir).await?;
            entry.stat = self.shown(entry.stat);
            return Ok(entry);
        }
        let mark = self.live.xattr_mark();
        let found = self.namespace().tree().lookup(dir, name).await?;
        let stat = found.ok_or(FsError::NotFound)?;
        Ok(self.live_entry(dir, name, stat, mark))
    }

    /// Finds the node of a number, for an NFS server that kept the number after a FORGET.
    async fn find_number(&self, ino: u64) -> FsResult<Entry> {
        match self.node(ino)? {
            Node::Live(ino) => {
                let found = self.namespace().tree().stat(ino).await;
                let stat = found.map_err(|error| FsError::from(error).by_number())?;
                self.live.looked_up_unnamed(stat.ino);
                Ok(self.live_reply(stat))
            }
            Node::Past(node) => {
                let mut entry = self.past().again(&node).await?;
                entry.stat = self.shown(entry.stat);
                Ok(entry)
            }
        }
    }
}
