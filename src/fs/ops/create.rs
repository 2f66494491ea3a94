//! create, open, mknod, mkdir, symlink: new nodes and new handles. Owner, group and mode follow the parent's set-group-id
//! bit and default access list; else the umask.

use crate::fs::acl::{ACCESS, Acl, DEFAULT};
use crate::fs::handle::{Access, Handle, OpenFile, OpenPast};
use crate::fs::past::PastContent;
use crate::fs::set_ids::SETGID;
use crate::fs::{Caller, Entry, FileSystem, FsError, FsResult, Node, Opened};
use crate::store::{File, Ino, Kind, NewNode, Stat, StoreError, Whence};
use crate::sync::Arc;
use bytes::Bytes;

impl FileSystem {
    /// Creates and opens a regular file; without `O_EXCL`, opens the one that exists.
    ///
    /// # Errors
    /// `Exists` with `O_EXCL`, `NotPermitted` for the reserved name, `ReadOnly` in the past.
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments are those of the system call"
    )]
    pub async fn create(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        flags: i32,
    ) -> FsResult<(Entry, Opened)> {
        let mark = self.live.xattr_mark();
        let dir = self.writable_name(parent, name)?;
        let author = caller.author();
        let node = self.new_node(caller, dir, Kind::File, mode, umask).await?;
        let made = self
            .namespace()
            .tree()
            .create_open(dir, name, node, &author)
            .await;
        let (stat, file) = match made {
            Err(StoreError::Exists) if flags & libc::O_EXCL == 0 => {
                return self.open_existing(caller, dir, name, flags).await;
            }
            other => other?,
        };
        let entry = self.made_entry(dir, name, stat, mark);
        self.live.opened(entry.stat.ino, entry.stat.content_stamp);
        let open = OpenFile::created(file, author, caller, flags);
        // The creation is a change of its own: an empty file is a version too.
        open.mark_changed();
        let opened = Opened {
            handle: self.handles.insert(Handle::File(Arc::new(open))),
            keep_cache: false,
            no_flush: false,
            cache_dir: false,
            direct: false,
        };
        Ok((entry, opened))
    }

    /// Opens a regular file; `O_TRUNC` empties it as the handle's first change.
    ///
    /// # Errors
    /// `ReadOnly` for writing to the past, `Stale` when the inode was removed, `ProgramRuns` where `O_TRUNC` without writing would empty a
    /// program that runs.
    pub async fn open(&self, caller: &Caller, ino: u64, flags: i32) -> FsResult<Opened> {
        let access = Access::from_flags(flags);
        if access.writes() || flags & libc::O_TRUNC != 0 {
            self.writable(ino)?;
        }
        match self.node(ino)? {
            Node::Live(ino) => self.open_live(caller, ino, flags).await,
            Node::Past(node) => {
                let bytes = match self.past().open(&node).await? {
                    PastContent::Stored(bytes) => bytes,
                    PastContent::Made(text) => {
                        return Ok(Opened {
                            handle: self.handles.insert(Handle::Text(text)),
                            keep_cache: false,
                            no_flush: true,
                            cache_dir: false,
                            // The kernel knows its length as 0: only a direct read passes that.
                            direct: true,
                        });
                    }
                };
                let open = OpenPast {
                    bytes,
                    read_ahead: Arc::default(),
                    times: self.past().in_use(&node),
                    node,
                };
                Ok(Opened {
                    handle: self.handles.insert(Handle::Past(Arc::new(open))),
                    // A version's bytes never change.
                    keep_cache: true,
                    no_flush: true,
                    cache_dir: false,
                    direct: false,
                })
            }
        }
    }

    /// Creates a node of the kind in `mode`; an empty regular file becomes a version at once.
    ///
    /// # Errors
    /// `Exists`, `Invalid` for an unknown kind, `NotPermitted` for the reserved name, `ReadOnly` in the past.
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments are those of the system call"
    )]
    pub async fn mknod(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> FsResult<Entry> {
        let mark = self.live.xattr_mark();
        let dir = self.writable_name(parent, name)?;
        let kind = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => Kind::File,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR => Kind::CharDevice,
            libc::S_IFBLK => Kind::BlockDevice,
            _ => return Err(FsError::Invalid("no kind of node".to_owned())),
        };
        let author = caller.author();
        let mut node = self.new_node(caller, dir, kind, mode, umask).await?;
        if kind != Kind::File {
            if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                node.rdev = u64::from(rdev);
            }
            let stat = self
                .namespace()
                .tree()
                .create(dir, name, node, &author)
                .await?;
            return Ok(self.made_entry(dir, name, stat, mark));
        }
        let (stat, file) = self
            .namespace()
            .tree()
            .create_open(dir, name, node, &author)
            .await?;
        let open = OpenFile::created(file, author, caller, libc::O_WRONLY);
        open.mark_changed();
        open.release().await?;
        Ok(self.made_entry(dir, name, stat, mark))
    }

    /// Creates a directory; in a `.versions` a label.
    ///
    /// # Errors
    /// `Exists`, `NotPermitted` for the reserved name, `ReadOnly` in the past. In a `.versions`, where it makes a label, `Invalid` for a
    /// name that is no label's, and those of `History::create_label`.
    pub async fn mkdir(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
    ) -> FsResult<Entry> {
        if let Some(labels) = self.labels_in(parent)? {
            return self.make_label(caller, labels, name).await;
        }
        let mark = self.live.xattr_mark();
        let dir = self.writable_name(parent, name)?;
        let node = self
            .new_node(caller, dir, Kind::Directory, mode, umask)
            .await?;
        let stat = self
            .namespace()
            .tree()
            .create(dir, name, node, &caller.author())
            .await?;
        Ok(self.made_entry(dir, name, stat, mark))
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// `Exists`, `NotPermitted` for the reserved name, `ReadOnly` in the past.
    pub async fn symlink(
        &self,
        caller: &Caller,
        parent: u64,
        name: &[u8],
        target: &[u8],
    ) -> FsResult<Entry> {
        let mark = self.live.xattr_mark();
        let dir = self.writable_name(parent, name)?;
        let mut node = self.new_node(caller, dir, Kind::Symlink, 0o777, 0).await?;
        node.target = Bytes::copy_from_slice(target);
        let stat = self
            .namespace()
            .tree()
            .create(dir, name, node, &caller.author())
            .await?;
        Ok(self.made_entry(dir, name, stat, mark))
    }

    async fn open_live(&self, caller: &Caller, ino: Ino, flags: i32) -> FsResult<Opened> {
        let file = self.namespace().tree().file(ino).await;
        let file: Arc<File> = file.map_err(|error| FsError::from(error).by_number())?;
        let runs = match flags & FOR_EXECUTION {
            0 => None,
            _ => Some(self.namespace().tree().programs().run(ino).await),
        };
        let open = OpenFile::new(file, caller, flags).running(runs);
        if open.access.writes() {
            self.namespace().tree().check_writable(ino).await?;
        }
        if flags & libc::O_TRUNC != 0 {
            let _not_run = match is_for_writing(flags) {
                true => None,
                false => {
                    let change = self.namespace().tree().programs().change(ino).await;
                    Some(change.ok_or(FsError::ProgramRuns)?)
                }
            };
            self.drop_privileges(caller, ino, None).await?;
            open.file.truncate(0, open.author()).await?;
            open.mark_changed();
        }
        let stat = open.file.stat().await?;
        let unchanged = self.live.opened(ino, stat.content_stamp);
        // After an open that keeps no pages the kernel writes back what programs stored into their mappings. Without that write-back
        // a copy that asks for data and holes reads zeros where a program stored into a hole.
        let stored = self.handles.may_be_mapped(ino) && has_holes(&open.file, &stat).await?;
        Ok(Opened {
            keep_cache: unchanged && !stored,
            no_flush: !open.access.writes() && !open.has_changed(),
            handle: self.handles.insert(Handle::File(Arc::new(open))),
            cache_dir: false,
            direct: false,
        })
    }

    /// Opens the file that another call created under the name first.
    async fn open_existing(
        &self,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
        flags: i32,
    ) -> FsResult<(Entry, Opened)> {
        let found = self.namespace().tree().lookup(dir, name).await?;
        let stat = found.ok_or(FsError::Stale)?;
        match stat.kind {
            Kind::File => {}
            Kind::Directory => return Err(FsError::IsDirectory),
            // ESTALE makes the kernel walk the path again and follow or open it itself.
            _ => return Err(FsError::Stale),
        }
        let opened = self.open_live(caller, stat.ino, flags).await?;
        let mark = self.live.xattr_mark();
        let stat = self.live_stat(stat.ino, Some(opened.handle)).await?;
        Ok((self.live_entry(dir, name, stat, mark), opened))
    }

    /// The owner, the group, the mode and the access lists of a new node in `dir`.
    async fn new_node(
        &self,
        caller: &Caller,
        dir: Ino,
        kind: Kind,
        mode: u32,
        umask: u32,
    ) -> FsResult<NewNode> {
        let parent = self.namespace().tree().stat(dir).await?.attrs;
        let mut node = NewNode {
            kind,
            mode: mode & 0o7777,
            uid: caller.uid,
            gid: caller.gid,
            rdev: 0,
            target: Bytes::new(),
            xattrs: Vec::new(),
        };
        if parent.mode & SETGID != 0 {
            node.gid = parent.gid;
            if kind == Kind::Directory {
                node.mode |= SETGID;
            }
        }
        if kind != Kind::Symlink {
            let default = self.namespace().tree().get_xattr(dir, DEFAULT).await?;
            inherit(&mut node, default, umask)?;
        }
        Ok(node)
    }
}

/// `__FMODE_EXEC` of the kernel: it opens a program that is about to run. No flag of open(2) has this bit.
pub(super) const FOR_EXECUTION: i32 = 0x20;

/// Tells whether the kernel has made sure that no program runs from the file: it does so for the opens that may write.
fn is_for_writing(flags: i32) -> bool {
    matches!(flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
}

/// Tells whether a part of a file is not stored. Its blocks may count bytes twice, so a full count proves nothing.
async fn has_holes(file: &File, stat: &Stat) -> FsResult<bool> {
    if stat.blocks * 512 < stat.attrs.size {
        return Ok(true);
    }
    let hole = file.seek(0, Whence::Hole).await?;
    Ok(hole.is_some_and(|at| at < stat.attrs.size))
}

/// Gives a new node its parent's default access list; without such a list, the umask applies.
fn inherit(node: &mut NewNode, default: Option<Bytes>, umask: u32) -> FsResult<()> {
    let acl = match &default {
        Some(value) => Acl::parse(value)?,
        None => None,
    };
    let (Some(mut acl), Some(value)) = (acl, default) else {
        node.mode &= !umask;
        return Ok(());
    };
    acl.restrict(node.mode);
    node.mode = node.mode & !0o777 | acl.mode();
    if !acl.is_minimal() {
        node.xattrs
            .push((Bytes::from_static(ACCESS), acl.to_bytes()));
    }
    if node.kind == Kind::Directory {
        node.xattrs.push((Bytes::from_static(DEFAULT), value));
    }
    Ok(())
}
