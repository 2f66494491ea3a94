//! getattr and setattr: chmod, chown, utimensat and truncate, with the duties of set-id bits and access lists.

use crate::fs::acl::{ACCESS, Acl};
use crate::fs::handle::Handle;
use crate::fs::set_ids::{lends_rights, without_set_ids};
use crate::fs::{Caller, FileSystem, FsError, FsResult, Node};
use crate::store::{AttrChange, Ino, Kind, Stat, StoreError, Time, XattrMode};
use std::time::Duration;

/// A file time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This time.
    At(Time),
}

/// What setattr changes; a field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// Last change of the attributes; without it, the time of the call.
    pub ctime: Option<Time>,
    /// The open handle of an ftruncate(2) or fchmod(2).
    pub handle: Option<u64>,
}

/// Where the kernel keeps an executable's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

impl FileSystem {
    /// The attributes of `ino`, and how long they hold.
    ///
    /// # Errors
    /// `Stale` when the inode was removed.
    pub async fn getattr(&self, ino: u64, handle: Option<u64>) -> FsResult<(Stat, Duration)> {
        match self.node(ino)? {
            Node::Live(ino) => Ok(self.attributes(self.live_stat(ino, handle).await?)),
            Node::Past(node) => {
                let (stat, ttl) = self.past().stat(&node).await?;
                Ok((self.shown(stat), ttl))
            }
        }
    }

    /// Changes attributes; returns them as they are then, and how long they hold.
    ///
    /// # Errors
    /// `ReadOnly` for the past; `IsDirectory` or `Invalid` for the length of an inode that has none.
    pub async fn setattr(
        &self,
        caller: &Caller,
        ino: u64,
        change: SetAttr,
    ) -> FsResult<(Stat, Duration)> {
        let ino = self.writable(ino)?;
        let changed = self.change_attributes(caller, ino, change).await;
        Ok(self.attributes(changed.map_err(FsError::by_number)?))
    }

    async fn change_attributes(
        &self,
        caller: &Caller,
        ino: Ino,
        change: SetAttr,
    ) -> FsResult<Stat> {
        if let Some(size) = change.size {
            self.set_size(caller, ino, size, change.handle).await?;
        }
        let wanted = self.attr_change(caller, ino, &change).await?;
        if let Some(mode) = wanted.mode {
            self.follow_mode(ino, mode).await?;
        }
        let idle = wanted.mode.is_none()
            && wanted.uid.is_none()
            && wanted.gid.is_none()
            && wanted.atime.is_none()
            && wanted.mtime.is_none()
            && wanted.ctime.is_none();
        if idle {
            if change.size.is_none() {
                // Before a process that may not keep set-id bits changes a file, the kernel asks to take them away: it
                // sends a change of nothing, and the mode in the reply is what the next exec sees.
                self.drop_privileges(caller, ino, change.handle).await?;
            }
            return self.live_stat(ino, change.handle).await;
        }
        self.set_attributes(ino, wanted).await
    }

    /// Returns the attributes of a live inode, also of an unlinked one that is still referenced.
    pub(crate) async fn live_stat(&self, ino: Ino, handle: Option<u64>) -> FsResult<Stat> {
        if let Some(Ok(Handle::File(open))) = handle.map(|handle| self.handles.get(handle)) {
            return Ok(open.file.stat().await?);
        }
        match self.namespace().tree().stat(ino).await {
            Err(StoreError::NotFound) => self.live.last_attributes(ino).ok_or(FsError::Stale),
            other => Ok(other?),
        }
    }

    /// Removes the set-id bits and capabilities that a file may not keep when `caller` changes its content. The kernel itself
    /// removes the capabilities of a file that root changes.
    pub(crate) async fn drop_privileges(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Option<u64>,
    ) -> FsResult<()> {
        let stat = self.live_stat(ino, handle).await?;
        if caller.uid == 0
            && (!lends_rights(stat.kind, stat.attrs.mode) || caller.may_keep_set_ids())
        {
            return Ok(());
        }
        self.disarm(caller, &stat).await
    }

    /// Removes set-id bits and capabilities of a file; of the rights of `caller` only its groups count.
    pub(crate) async fn disarm(&self, caller: &Caller, stat: &Stat) -> FsResult<()> {
        if stat.kind != Kind::File {
            return Ok(());
        }
        let mode = without_set_ids(stat.attrs.mode, || caller.may_keep_setgid(stat.attrs.gid));
        if mode != stat.attrs.mode {
            let change = AttrChange {
                mode: Some(mode),
                ..AttrChange::default()
            };
            self.set_attributes(stat.ino, change).await?;
        }
        self.drop_capability(stat.ino).await
    }

    async fn drop_capability(&self, ino: Ino) -> FsResult<()> {
        if self.xattr(ino, CAPABILITY).await?.is_none() {
            return Ok(());
        }
        let removed = self.set_xattr(ino, CAPABILITY, None, XattrMode::Any);
        match removed.await {
            Ok(()) | Err(FsError::NoAttribute) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// truncate(2) and ftruncate(2). Through a handle it is one of the handle's changes; by path it is a change of its
    /// own, and of every handle that writes.
    async fn set_size(
        &self,
        caller: &Caller,
        ino: Ino,
        size: u64,
        handle: Option<u64>,
    ) -> FsResult<()> {
        let stat = self.live_stat(ino, handle).await?;
        match stat.kind {
            Kind::File => {}
            Kind::Directory => return Err(FsError::IsDirectory),
            _ => return Err(FsError::Invalid("it has no length to set".to_owned())),
        }
        let open = match handle {
            Some(handle) => Some(self.handles.writer(handle)?),
            None => None,
        };
        // A file without a name that no process has open has no content to change, and keeps its set-id bits.
        let _content = match open {
            Some(_) => None,
            None => Some(self.namespace().tree().file(ino).await?),
        };
        self.drop_privileges(caller, ino, handle).await?;
        if let Some(open) = open {
            let done = open.file.truncate(size, open.author()).await;
            open.mark_changed();
            done?;
        } else {
            let done = self
                .namespace()
                .tree()
                .truncate(ino, size, &caller.author())
                .await;
            self.handles.mark_writers(ino);
            done?;
        }
        Ok(())
    }

    /// The change for the store: with resolved times, and without the set-id bits that a new owner or group must not inherit.
    async fn attr_change(
        &self,
        caller: &Caller,
        ino: Ino,
        change: &SetAttr,
    ) -> FsResult<AttrChange> {
        let time = |time: SetTime| match time {
            SetTime::Now => self.namespace().wall(),
            SetTime::At(time) => time,
        };
        let mut wanted = AttrChange {
            mode: change.mode.map(|mode| mode & 0o7777),
            uid: change.uid,
            gid: change.gid,
            atime: change.atime.map(time),
            mtime: change.mtime.map(time),
            ctime: change.ctime,
        };
        if change.uid.is_some() || change.gid.is_some() {
            let stat = self.live_stat(ino, change.handle).await?;
            if stat.kind != Kind::Directory {
                let mode = wanted.mode.unwrap_or(stat.attrs.mode);
                let left = without_set_ids(mode, || caller.may_keep_setgid(stat.attrs.gid));
                wanted.mode = (left != stat.attrs.mode).then_some(left);
                self.drop_capability(ino).await?;
            }
        }
        Ok(wanted)
    }

    /// Keeps the access list in step with a new mode.
    async fn follow_mode(&self, ino: Ino, mode: u32) -> FsResult<()> {
        let value = self.xattr(ino, ACCESS).await?;
        let Some(value) = value else { return Ok(()) };
        let Some(mut acl) = Acl::parse(&value)? else {
            return Ok(());
        };
        if acl.mode() == mode & 0o777 {
            return Ok(());
        }
        acl.set_mode(mode);
        let value = Some(acl.to_bytes());
        self.set_xattr(ino, ACCESS, value, XattrMode::Any).await
    }
}
