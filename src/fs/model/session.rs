//! Applies the calls of a program to the file system and to the model; the results must agree.

use std::fmt::Debug;
use std::time::Duration;

use super::compare::same;
use super::steps::{self, Any, Dir, Flags, Name, Open, Step, Who};
use super::tree::{Answer, Body, Id, Tree, When};
use crate::fs::testing::SUPER;
use crate::fs::{Caller, Entry, FileSystem, FsConfig, FsResult, Opened, SetAttr, SetTime};
use crate::store::testing::TestHost;
use crate::store::{Kind, Namespace, Time};
use crate::task::Tasks;

/// Most handles that a program has open at once.
const OPEN_MAX: usize = 4;
/// The last offset of a file.
pub(super) const END: u64 = i64::MAX as u64;

/// A description of the difference.
pub(crate) type Difference = String;

/// An open handle.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) number: u64,
    pub(crate) id: Id,
    pub(crate) flags: Flags,
    /// Whether a call through it changed the file since the open.
    pub(crate) changed: bool,
}

/// A file system, its model, and the open handles of a program.
pub(crate) struct Session {
    host: TestHost,
    mounted: Option<(Namespace, FileSystem)>,
    config: FsConfig,
    pub(crate) tree: Tree,
    pub(crate) handles: Vec<Handle>,
    /// Differs for every call, so that no two calls write the same bytes.
    pub(super) fill: u8,
}

/// Fails unless both succeeded, or both failed with the same errno. Returns the file system's value.
pub(super) fn same_result<T, M: Debug>(
    found: FsResult<T>,
    expected: &Answer<M>,
) -> Result<Option<T>, Difference> {
    match (found, expected) {
        (Ok(found), Ok(_)) => Ok(Some(found)),
        (Err(error), Err(errno)) if error.errno() == *errno => Ok(None),
        (Ok(_), Err(errno)) => Err(format!("found success, expected {}", describe(*errno))),
        (Err(error), Ok(_)) => Err(format!(
            "found {} ({error:?}), expected success",
            describe(error.errno())
        )),
        (Err(error), Err(errno)) => {
            let found = describe(error.errno());
            Err(format!(
                "found {found} ({error:?}), expected {}",
                describe(*errno)
            ))
        }
    }
}

fn describe(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

impl Session {
    /// An empty file system.
    pub(crate) async fn new(config: FsConfig) -> Self {
        let mut session = Self {
            host: TestHost::new(),
            mounted: None,
            config,
            tree: Tree::new(),
            handles: Vec::new(),
            fill: 0,
        };
        session.mount().await;
        session.tree.nodes[0].ino = crate::fs::testing::ROOT;
        session
    }

    async fn mount(&mut self) {
        let namespace = self.host.open().await;
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let fs = FileSystem::new(namespace.clone(), self.config.clone(), tasks);
        self.mounted = Some((namespace, fs));
    }

    pub(crate) fn fs(&self) -> &FileSystem {
        &self.mounted.as_ref().unwrap().1
    }

    fn namespace(&self) -> &Namespace {
        &self.mounted.as_ref().unwrap().0
    }

    /// The current time of the host's clock.
    pub(crate) fn now(&self) -> Time {
        self.namespace().wall()
    }

    pub(super) fn ino(&self, id: Id) -> u64 {
        self.tree.nodes[id].ino
    }

    /// An existing directory; for the highest numbers a removed one, if there is one.
    fn dir(&self, number: Dir) -> Id {
        let known = self.tree.known().into_iter();
        let (there, gone): (Vec<Id>, Vec<Id>) = known
            .filter(|id| self.tree.nodes[*id].kind == Kind::Directory)
            .partition(|id| self.tree.is_there(*id));
        let among = if number >= 248 && !gone.is_empty() {
            gone
        } else {
            there
        };
        among[usize::from(number) % among.len()]
    }

    fn any(&self, number: Any) -> Id {
        let known = self.tree.known();
        known[usize::from(number) % known.len()]
    }

    /// Number, node and flags of the handle at `at`.
    pub(super) fn parts(&self, at: usize) -> (u64, Id, Flags) {
        let handle = &self.handles[at];
        (handle.number, handle.id, handle.flags)
    }

    fn handle(&self, number: Open) -> Option<usize> {
        (!self.handles.is_empty()).then(|| usize::from(number) % self.handles.len())
    }

    /// Makes one call; does nothing if the call needs a handle and none is open.
    pub(crate) async fn apply(&mut self, step: &Step) -> Result<(), Difference> {
        use Step::*;
        self.fill = self.fill.wrapping_add(1);
        match *step {
            Create(dir, name, mode, flags, who) => self.create((dir, name), mode, flags, who).await,
            Open(any, flags, who) => self.open(self.any(any), flags, &steps::caller(who)).await,
            Mknod(..) | Mkdir(..) | Symlink(..) => self.make_node(step).await,
            Link(..) | Unlink(..) | Rmdir(..) | Rename(..) => self.change_names(step).await,
            Truncate(any, len, who) => self.truncate(any, len, &steps::caller(who)).await,
            Chmod(..) | Chown(..) | Utimes(..) => self.change_attributes(step).await,
            SetXattr(any, name, len, flags) => self.set_xattr(any, name, len, flags).await,
            RemoveXattr(any, name) => {
                let (id, name) = (self.any(any), steps::xattr(name));
                let expected = self.tree.remove_xattr(id, name);
                let found = self.fs().removexattr(&SUPER, self.ino(id), name).await;
                same_result(found, &expected).map(drop)
            }
            Fsyncdir(dir) => self.fsyncdir(dir).await,
            Forget(any) => {
                self.forget(any);
                Ok(())
            }
            Wait(_) | Back(_) | Halt(_) | Drain | Crash | Remount => self.advance(step).await,
            Write(h, ..)
            | Read(h, ..)
            | Ftruncate(h, ..)
            | Fallocate(h, ..)
            | Seek(h, ..)
            | Flush(h)
            | Release(h)
            | Close(h)
            | Fsync(h)
            | Copy(h, ..) => match self.handle(h) {
                Some(at) => self.apply_to_handle(at, step).await,
                None => Ok(()),
            },
        }
    }

    /// Records the inode number of a new node and checks that no other node has it.
    fn check_new(
        &mut self,
        expected: Answer<Id>,
        found: FsResult<Entry>,
    ) -> Result<(), Difference> {
        if let Some(entry) = same_result(found, &expected)?
            && let Ok(id) = expected
        {
            let ino = entry.stat.ino.0;
            if self.tree.nodes.iter().any(|node| node.ino == ino) {
                return Err(format!("inode number {ino} was given to two inodes"));
            }
            self.tree.nodes[id].ino = ino;
        }
        Ok(())
    }

    async fn create(
        &mut self,
        (dir, name): (Dir, Name),
        mode: u32,
        flags: Flags,
        who: Who,
    ) -> Result<(), Difference> {
        if self.handles.len() == OPEN_MAX {
            return Ok(());
        }
        let (dir, name, caller) = (self.dir(dir), steps::name(name), steps::caller(who));
        let exclusive = flags == Flags::Exclusive;
        let (parent, umask) = (self.ino(dir), 0o022);
        let expected = self
            .tree
            .create((dir, name), &caller, mode & !umask, exclusive);
        let found = self
            .fs()
            .create(&caller, parent, name, mode, umask, flags.bits())
            .await;
        let (found, opened) = match found {
            Ok((entry, opened)) => (Ok(entry), Some(opened)),
            Err(error) => (Err(error), None),
        };
        let Ok((id, new)) = expected else {
            return same_result(found, &expected).map(drop);
        };
        if new {
            self.check_new(Ok(id), found)?;
        } else if let Some(entry) = same_result(found, &expected)? {
            same("number", entry.stat.ino.0, self.ino(id))?;
        }
        match opened {
            Some(opened) => self.opened(id, (flags, new), &caller, opened),
            None => Ok(()),
        }
    }

    async fn open(&mut self, id: Id, flags: Flags, caller: &Caller) -> Result<(), Difference> {
        if self.handles.len() == OPEN_MAX {
            return Ok(());
        }
        let expected = self.tree.open(id);
        let found = self.fs().open(caller, self.ino(id), flags.bits()).await;
        match same_result(found, &expected)? {
            Some(opened) => self.opened(id, (flags, false), caller, opened),
            None => Ok(()),
        }
    }

    fn opened(
        &mut self,
        id: Id,
        (flags, new): (Flags, bool),
        caller: &Caller,
        opened: Opened,
    ) -> Result<(), Difference> {
        let node = &mut self.tree.nodes[id];
        let truncates = flags == Flags::Truncate && !new;
        if truncates {
            if caller.uid != 0 {
                node.strip(caller);
            }
            node.edit(Vec::clear);
        }
        node.opens += 1;
        self.handles.push(Handle {
            number: opened.handle,
            id,
            flags,
            changed: truncates || new,
        });
        self.check_keep_cache(id, opened)
    }

    /// Checks that `keep_cache` is set only if the bytes have not changed since the last open.
    pub(crate) fn check_keep_cache(&mut self, id: Id, opened: Opened) -> Result<(), Difference> {
        let node = &mut self.tree.nodes[id];
        let seen = node.seen.replace(node.edits);
        if opened.keep_cache && seen != Some(node.edits) {
            return Err(
                "open has keep_cache although the bytes changed since the last open".to_owned(),
            );
        }
        Ok(())
    }

    async fn make_node(&mut self, step: &Step) -> Result<(), Difference> {
        let umask = 0o027;
        let (expected, found) = match *step {
            Step::Mknod(dir, name, kind, mode, who) => {
                let (format, kind) = [
                    (libc::S_IFREG, Kind::File),
                    (libc::S_IFIFO, Kind::Fifo),
                    (libc::S_IFSOCK, Kind::Socket),
                    (libc::S_IFCHR, Kind::CharDevice),
                    (libc::S_IFBLK, Kind::BlockDevice),
                    (0, Kind::File),
                ][usize::from(kind)];
                let (dir, name, caller) = (self.dir(dir), steps::name(name), steps::caller(who));
                let body = match kind {
                    Kind::File => Body::File(Vec::new()),
                    _ => Body::Special,
                };
                let made = (kind, mode & !umask);
                let expected = self.tree.make((dir, name), &caller, made, body);
                if let (Ok(id), Kind::CharDevice | Kind::BlockDevice) = (expected, kind) {
                    self.tree.nodes[id].rdev = 259;
                }
                let (fs, parent) = (self.fs(), self.ino(dir));
                let found = fs.mknod(&caller, parent, name, format | mode, umask, 259);
                (expected, found.await)
            }
            Step::Mkdir(dir, name, mode, who) => {
                let (dir, name, caller) = (self.dir(dir), steps::name(name), steps::caller(who));
                let made = (Kind::Directory, mode & !umask);
                let body = Body::Directory(Default::default());
                let expected = self.tree.make((dir, name), &caller, made, body);
                let found = self
                    .fs()
                    .mkdir(&caller, self.ino(dir), name, mode, umask)
                    .await;
                (expected, found)
            }
            Step::Symlink(dir, name, target) => {
                let (dir, name) = (self.dir(dir), steps::name(name));
                let target = vec![b'x'; usize::from(target) + 1];
                let made = (Kind::Symlink, 0o777);
                let body = Body::Symlink(target.clone());
                let expected = self.tree.make((dir, name), &SUPER, made, body);
                let found = self
                    .fs()
                    .symlink(&SUPER, self.ino(dir), name, &target)
                    .await;
                (expected, found)
            }
            _ => return Ok(()),
        };
        self.check_new(expected, found)
    }

    async fn change_names(&mut self, step: &Step) -> Result<(), Difference> {
        let who = &SUPER;
        match *step {
            Step::Link(any, dir, name) => {
                let (id, dir, name) = (self.any(any), self.dir(dir), steps::name(name));
                let expected = self.tree.link(id, (dir, name));
                let found = self.fs().link(who, self.ino(id), self.ino(dir), name).await;
                if let Some(entry) = same_result(found, &expected)? {
                    same("number", entry.stat.ino.0, self.ino(id))?;
                    same("links", entry.stat.nlink, self.tree.nlink(id))?;
                }
                Ok(())
            }
            Step::Unlink(dir, name) => {
                let (dir, name) = (self.dir(dir), steps::name(name));
                let expected = self.tree.unlink((dir, name));
                let found = self.fs().unlink(who, self.ino(dir), name).await;
                same_result(found, &expected).map(drop)
            }
            Step::Rmdir(dir, name) => {
                let (dir, name) = (self.dir(dir), steps::name(name));
                let expected = self.tree.rmdir((dir, name));
                let found = self.fs().rmdir(who, self.ino(dir), name).await;
                same_result(found, &expected).map(drop)
            }
            Step::Rename(dir, from, other, to, flags) => {
                let (from, to) = (steps::name(from), steps::name(to));
                let (dir, other) = (self.dir(dir), self.dir(other));
                let expected = self.tree.rename((dir, from), (other, to), flags);
                let (dir, other) = (self.ino(dir), self.ino(other));
                let found = self.fs().rename(who, dir, from, other, to, flags).await;
                same_result(found, &expected).map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn truncate(&mut self, any: Any, len: usize, caller: &Caller) -> Result<(), Difference> {
        let id = self.any(any);
        let expected = self.tree.truncate(id, caller, len);
        if expected.is_ok() {
            self.tree.nodes[id].save();
            for handle in self.handles.iter_mut().filter(|handle| handle.id == id) {
                handle.changed |= handle.flags != Flags::Read;
            }
        }
        let change = SetAttr {
            size: Some(len as u64),
            ..SetAttr::default()
        };
        let found = self.fs().setattr(caller, self.ino(id), change).await;
        same_result(found, &expected).map(drop)
    }

    async fn change_attributes(&mut self, step: &Step) -> Result<(), Difference> {
        let time = |seconds: Option<i64>| match seconds {
            None => (SetTime::Now, When::Now),
            Some(seconds) => {
                let time = Time {
                    seconds,
                    nanos: 123_456_789,
                };
                (SetTime::At(time), When::At(time))
            }
        };
        let (id, change, expected) = match *step {
            Step::Chmod(any, mode) => {
                let id = self.any(any);
                let change = SetAttr {
                    mode: Some(mode),
                    ..SetAttr::default()
                };
                let what = (Some(mode), None, None);
                (id, change, self.tree.set_attributes(id, what, (None, None)))
            }
            Step::Chown(any, uid, gid) => {
                let id = self.any(any);
                let change = SetAttr {
                    uid,
                    gid,
                    ..SetAttr::default()
                };
                if uid.is_none() && gid.is_none() {
                    return Ok(());
                }
                let what = (None, uid, gid);
                (id, change, self.tree.set_attributes(id, what, (None, None)))
            }
            Step::Utimes(any, atime, mtime) => {
                let id = self.any(any);
                let (atime, mtime) = (time(atime), time(mtime));
                let change = SetAttr {
                    atime: Some(atime.0),
                    mtime: Some(mtime.0),
                    ..SetAttr::default()
                };
                let times = (Some(atime.1), Some(mtime.1));
                (
                    id,
                    change,
                    self.tree.set_attributes(id, (None, None, None), times),
                )
            }
            _ => return Ok(()),
        };
        let found = self.fs().setattr(&SUPER, self.ino(id), change).await;
        same_result(found, &expected).map(drop)
    }

    async fn set_xattr(
        &mut self,
        any: Any,
        name: u8,
        len: usize,
        flags: i32,
    ) -> Result<(), Difference> {
        let (id, name) = (self.any(any), steps::xattr(name));
        let value = vec![self.fill; len];
        let expected = self.tree.set_xattr(id, (name, &value), flags);
        let found = self
            .fs()
            .setxattr(&SUPER, self.ino(id), name, &value, flags)
            .await;
        same_result(found, &expected).map(drop)
    }

    async fn fsyncdir(&mut self, dir: Dir) -> Result<(), Difference> {
        let id = self.dir(dir);
        self.host.set_failpoint(self.namespace(), 0);
        let found = self.fs().fsyncdir(self.ino(id), 0).await;
        same_result(found, &Ok(())).map(drop)
    }

    /// FORGET of an inode without an open handle.
    fn forget(&mut self, any: Any) {
        let id = self.any(any);
        if id != 0 && self.tree.nodes[id].opens == 0 {
            self.fs().forget(self.ino(id), u64::MAX);
            self.tree.nodes[id].known = self.tree.is_there(id);
            self.tree.nodes[id].seen = None;
        }
    }

    async fn advance(&mut self, step: &Step) -> Result<(), Difference> {
        match *step {
            Step::Wait(ms) => {
                self.host.env.advance(ms * 1_000_000);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Step::Back(seconds) => self.host.env.go_back(seconds * 1_000_000_000),
            Step::Halt(before) => self.host.set_failpoint(self.namespace(), before),
            Step::Drain => {
                self.host.set_failpoint(self.namespace(), 0);
                self.namespace()
                    .drain()
                    .await
                    .map_err(|error| error.to_string())?;
            }
            Step::Crash => {
                self.kill().await;
                self.tree.end(true);
                self.mount().await;
            }
            Step::Remount => {
                self.host.set_failpoint(self.namespace(), 0);
                self.fs().end_session().await;
                self.namespace()
                    .close()
                    .await
                    .map_err(|error| error.to_string())?;
                self.kill().await;
                self.tree.end(false);
                self.mount().await;
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends the daemon as kill -9 does.
    pub(crate) async fn kill(&mut self) {
        self.handles.clear();
        if let Some((namespace, fs)) = self.mounted.take() {
            drop(fs);
            self.host.kill(namespace).await;
        }
    }

    /// A call through the handle at `at`.
    async fn apply_to_handle(&mut self, at: usize, step: &Step) -> Result<(), Difference> {
        let (number, id, flags) = self.parts(at);
        let changed = self.handles[at].changed;
        let (ino, writes) = (self.ino(id), flags != Flags::Read);
        match *step {
            Step::Write(_, offset, len, strips) => self.write(at, offset, len, strips).await,
            Step::Read(_, offset, len) => {
                let found = self.fs().read(ino, number, offset, len).await;
                let found = same_result(found, &Ok(()))?.unwrap_or_default();
                let bytes = self.tree.nodes[id].bytes();
                let from = usize::try_from(offset).unwrap().min(bytes.len());
                let to = (from + len as usize).min(bytes.len());
                same("read", &found[..], &bytes[from..to])
            }
            Step::Ftruncate(_, len, who) => {
                let caller = steps::caller(who);
                let expected = match writes {
                    true => self.tree.truncate(id, &caller, len),
                    false => Err(libc::EBADF),
                };
                self.handles[at].changed |= writes;
                let change = SetAttr {
                    size: Some(len as u64),
                    handle: Some(number),
                    ..SetAttr::default()
                };
                same_result(self.fs().setattr(&caller, ino, change).await, &expected).map(drop)
            }
            Step::Fallocate(_, offset, len, mode) => self.fallocate(at, (offset, len), mode).await,
            Step::Copy(_, from, to, to_offset, len, who) => {
                let to = self.handle(to).unwrap_or(at);
                let caller = steps::caller(who);
                self.copy((at, from), (to, to_offset), len, &caller).await
            }
            Step::Seek(_, offset, data) => self.seek(at, offset, data).await,
            Step::Flush(_) => {
                self.mark_saved(id, changed);
                same_result(self.fs().flush(ino, number).await, &Ok(())).map(drop)
            }
            Step::Close(_) | Step::Release(_) => {
                self.handles.remove(at);
                self.tree.nodes[id].opens -= 1;
                self.mark_saved(id, changed);
                if matches!(step, Step::Close(_)) {
                    same_result(self.fs().flush(ino, number).await, &Ok(()))?;
                }
                let released = self.fs().release(ino, number).await;
                // An inode without a name and without a handle is removed by a background task.
                tokio::time::sleep(Duration::from_millis(1)).await;
                same_result(released, &Ok(())).map(drop)
            }
            Step::Fsync(_) => {
                self.host.set_failpoint(self.namespace(), 0);
                self.mark_saved(id, true);
                same_result(self.fs().fsync(ino, number, false).await, &Ok(())).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Records a flush of a handle through which the file was changed: the whole file is durable as it is.
    fn mark_saved(&mut self, id: Id, changed: bool) {
        if changed {
            self.tree.nodes[id].save();
        }
    }
}
