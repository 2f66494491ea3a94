//! Extended attributes: the caller's own, access control lists, and the read-only ones that tell about versions.

use crate::fs::acl::{ACCESS, Acl, DEFAULT};
use crate::fs::past::{attributes, is_past};
use crate::fs::set_ids::SETGID;
use crate::fs::{Caller, FileSystem, FsError, FsResult, Node};
use crate::store::{AttrChange, Ino, Kind, XattrMode};
use bytes::Bytes;

/// The prefixes of attributes that programs may set; the kernel checks the permission.
const KINDS: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

impl FileSystem {
    /// Whether the kernel can be told, without a wait, that a live inode has no attribute `name`: `NoAttribute` then, or the error of a
    /// mount that has failed. `ls -l` asks for two attributes of each file that it lists.
    pub fn lacks_attribute(&self, ino: u64, name: &[u8]) -> Option<FsError> {
        let known = !is_past(ino) && !attributes::is_ours(name) && self.has_no_xattrs(Ino(ino));
        let refusal = known.then(|| self.admit().err().unwrap_or(FsError::NoAttribute));
        // The call waits for a lease that is renewed in a moment.
        refusal.filter(|error| !matches!(error, FsError::LeaseOver))
    }

    /// The value of an attribute.
    ///
    /// # Errors
    /// `NoAttribute`; `Stale` when the inode was removed.
    pub async fn getxattr(&self, ino: u64, name: &[u8]) -> FsResult<Bytes> {
        match self.node(ino)? {
            Node::Live(ino) if name == attributes::KEEP => self.own_policy(ino).await,
            Node::Live(ino) if attributes::is_ours(name) => self.version_attribute(ino, name).await,
            Node::Live(ino) => {
                let value = self.xattr(ino, name).await?;
                value.ok_or(FsError::NoAttribute)
            }
            Node::Past(node) => self.past().getxattr(&node, name).await,
        }
    }

    /// The names of all attributes, each ended by a NUL. The list does not name those of versions, so that tools that copy
    /// attributes do not try to set them.
    ///
    /// # Errors
    /// `Stale` when the inode was removed.
    pub async fn listxattr(&self, ino: u64) -> FsResult<Vec<u8>> {
        let names = match self.node(ino)? {
            Node::Live(ino) => self.xattr_names(ino).await?,
            Node::Past(node) => self.past().listxattr(&node).await?,
        };
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    /// Sets an attribute; `flags` are setxattr(2)'s. An access list also sets the mode.
    ///
    /// # Errors
    /// `Exists`, `NoAttribute` by the flags; `NotSupported` for an unknown prefix; `NotPermitted` for those of versions;
    /// `Invalid` for a directory's policy with a word that is none; `ReadOnly` in the past, except for a hold: `Invalid` for no time or one in the past, `Held` for an earlier one.
    pub async fn setxattr(
        &self,
        caller: &Caller,
        ino: u64,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> FsResult<()> {
        let mode = match flags {
            0 => XattrMode::Any,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(FsError::Invalid("setxattr flags".to_owned())),
        };
        if name == attributes::HOLD
            && let Some(node) = self.holdable(ino)?
        {
            return self.hold(caller, &node, value, mode).await;
        }
        if name == attributes::KEEP {
            return self
                .set_own_policy(self.writable(ino)?, Some(value), mode)
                .await;
        }
        let ino = self.writable_attribute(ino, name)?;
        if value.len() > 65_536 {
            return Err(FsError::ArgumentTooBig);
        }
        if name == ACCESS || name == DEFAULT {
            return self.set_acl(caller, ino, name, value).await;
        }
        if !KINDS.iter().any(|kind| name.starts_with(kind)) {
            return Err(FsError::NotSupported);
        }
        let value = Some(Bytes::copy_from_slice(value));
        self.set_xattr(ino, name, value, mode).await
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `NoAttribute`; `NotPermitted` for those of versions; `ReadOnly` in the past.
    pub async fn removexattr(&self, _caller: &Caller, ino: u64, name: &[u8]) -> FsResult<()> {
        if name == attributes::HOLD && self.holdable(ino)?.is_some() {
            return Err(FsError::NotPermitted(
                "a hold ends by itself, or by rewindfs label release",
            ));
        }
        if name == attributes::KEEP {
            let directory = self.writable(ino)?;
            return self
                .set_own_policy(directory, None, XattrMode::Replace)
                .await;
        }
        let ino = self.writable_attribute(ino, name)?;
        if name == ACCESS || name == DEFAULT {
            return self.remove_acl(ino, name).await;
        }
        self.set_xattr(ino, name, None, XattrMode::Any).await
    }

    fn writable_attribute(&self, ino: u64, name: &[u8]) -> FsResult<Ino> {
        let ino = self.writable(ino)?;
        if attributes::is_ours(name) {
            return Err(FsError::NotPermitted("what a version says is read-only"));
        }
        Ok(ino)
    }

    /// An attribute of the current version of a live file.
    async fn version_attribute(&self, ino: Ino, name: &[u8]) -> FsResult<Bytes> {
        let (parent, slot) = self.live.name_of(ino).ok_or(FsError::NoAttribute)?;
        let now = self.namespace().now();
        let current = self
            .namespace()
            .history()
            .view()
            .entry_at(parent, &slot, now)
            .await?;
        let entry = current.filter(|entry| entry.ino == ino);
        let entry = entry.ok_or(FsError::NoAttribute)?;
        let value = self.past().attribute(&entry, name).await?;
        value.ok_or(FsError::NoAttribute)
    }

    /// Sets the mode that an access list implies, and stores the list if it says more than the mode.
    async fn set_acl(&self, caller: &Caller, ino: Ino, name: &[u8], value: &[u8]) -> FsResult<()> {
        let Some(acl) = Acl::parse(value)? else {
            return self.remove_acl(ino, name).await;
        };
        let stat = self.live_stat(ino, None).await?;
        if name == DEFAULT && stat.kind != Kind::Directory {
            return Err(FsError::AccessDenied);
        }
        if name == ACCESS && acl.is_minimal() {
            self.remove_acl(ino, name).await?;
        } else {
            let value = Some(acl.to_bytes());
            self.set_xattr(ino, name, value, XattrMode::Any).await?;
        }
        if name == DEFAULT {
            return Ok(());
        }
        let mut mode = stat.attrs.mode & !0o777 | acl.mode();
        if mode & SETGID != 0 && !caller.may_keep_setgid(stat.attrs.gid) {
            mode &= !SETGID;
        }
        if mode != stat.attrs.mode {
            let change = AttrChange {
                mode: Some(mode),
                ..AttrChange::default()
            };
            self.set_attributes(ino, change).await?;
        }
        Ok(())
    }

    /// Removes an access list; succeeds if there is none.
    async fn remove_acl(&self, ino: Ino, name: &[u8]) -> FsResult<()> {
        let removed = self.set_xattr(ino, name, None, XattrMode::Any);
        match removed.await {
            Ok(()) | Err(FsError::NoAttribute) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
