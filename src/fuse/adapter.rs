//! The kernel's calls, all of one form: copy the arguments, pass on a future, return.
//!
//! Invariant: no method waits or decides anything; what differs between calls is in [`FileSystem`]. The kernel handles calls
//! that are not here (locks, poll, bmap) alone, because their flags are never negotiated.
//!
//! [`FileSystem`]: crate::fs::FileSystem

use super::dispatcher::{Call, Dispatcher};
use super::negotiate::negotiate;
use super::reply::{
    AttributeReply, Attributes, Created, ListingReply, OpenedDirectory, OpenedFile, file_time,
    released,
};
use super::thread_end::ThreadEnd;
use crate::fs::{Caller, FileSystem, HandleOffset, SetAttr, SetTime, WriteMode};
use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;
use tokio::sync::watch;

/// fuser's callbacks over a [`Dispatcher`].
pub(super) struct Adapter {
    dispatcher: Dispatcher,
    end: watch::Sender<bool>,
}

impl Adapter {
    /// Makes the callbacks over `dispatcher`; `end` becomes true when the session has ended.
    pub(super) fn new(dispatcher: Dispatcher, end: watch::Sender<bool>) -> Self {
        Self { dispatcher, end }
    }

    /// The dispatcher. The end of the calling thread will end the session.
    fn dispatcher(&self) -> &Dispatcher {
        ThreadEnd::watch(&self.end);
        &self.dispatcher
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

fn owned(name: &OsStr) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::SpecificTime(time) => SetTime::At(file_time(time)),
        TimeOrNow::Now => SetTime::Now,
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "the argument lists are those of the trait"
)]
impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config, self.dispatcher.follows());
        Ok(())
    }

    fn destroy(&mut self) {
        self.end.send_replace(true);
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::metadata("lookup", parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.lookup(&caller, parent.0, &name).await
        });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let call = Call::metadata("forget", ino.0);
        self.dispatcher()
            .run_inline(call, |fs| fs.forget(ino.0, count));
    }

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let call = Call::metadata("getattr", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            let (stat, ttl) = fs.getattr(ino.0, handle.map(|handle| handle.0)).await?;
            Ok(Attributes { stat, ttl })
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let caller = caller(request);
        let change = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(file_time),
            handle: handle.map(|handle| handle.0),
        };
        let call = Call::metadata("setattr", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            let (stat, ttl) = fs.setattr(&caller, ino.0, change).await?;
            Ok(Attributes { stat, ttl })
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let call = Call::metadata("readlink", ino.0);
        self.dispatcher().run(
            call,
            reply,
            move |fs| async move { fs.readlink(ino.0).await },
        );
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (caller, call) = (caller(request), Call::metadata("access", ino.0));
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.access(&caller, ino.0, mask.bits()).await
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::metadata("mknod", parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.mknod(&caller, parent.0, &name, mode, umask, rdev).await
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::mkdir(parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.mkdir(&caller, parent.0, &name, mode, umask).await
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (caller, name, target) = (caller(request), owned(name), owned(target.as_os_str()));
        let call = Call::metadata("symlink", parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.symlink(&caller, parent.0, &name, &target).await
        });
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::metadata("link", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.link(&caller, ino.0, parent.0, &name).await
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::metadata("unlink", parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.unlink(&caller, parent.0, &name).await
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::metadata("rmdir", parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.rmdir(&caller, parent.0, &name).await
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (caller, name, new_name) = (caller(request), owned(name), owned(new_name));
        let call = Call::metadata("rename", parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.rename(&caller, parent.0, &name, to.0, &new_name, flags.bits())
                .await
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::metadata("create", parent.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.create(&caller, parent.0, &name, mode, umask, flags)
                .await
                .map(|(entry, opened)| Created { entry, opened })
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (caller, call) = (caller(request), Call::metadata("open", ino.0));
        self.dispatcher().run(call, reply, move |fs| async move {
            let opened = fs.open(&caller, ino.0, flags.0).await?;
            Ok(OpenedFile { ino: ino.0, opened })
        });
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let call = Call::transfer("read", ino.0, size as usize);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.read(ino.0, handle.0, offset, size).await
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (caller, data) = (caller(request), Bytes::copy_from_slice(data));
        let how = WriteMode {
            from_page_cache: how.contains(WriteFlags::FUSE_WRITE_CACHE),
            kill_privileges: how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        let call = Call::transfer("write", ino.0, data.len());
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.write(&caller, ino.0, handle.0, offset, data, how).await
        });
    }

    fn flush(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let call = Call::data("flush", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.flush(ino.0, handle.0).await
        });
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // close(2) does not report the result of RELEASE, and an unanswered RELEASE takes one of the background requests that read-ahead needs.
        reply.ok();
        let call = Call::metadata("release", ino.0);
        self.dispatcher().run_detached(call, move |fs| async move {
            released(&fs, ino.0, fs.release(ino.0, handle.0).await).await;
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let call = Call::data("fsync", ino.0).on_runtime();
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.fsync(ino.0, handle.0, data_only).await
        });
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (caller, call) = (caller(request), Call::metadata("opendir", ino.0));
        self.dispatcher().run(call, reply, move |fs| async move {
            let opened = fs.opendir(&caller, ino.0).await?;
            Ok(OpenedDirectory { ino: ino.0, opened })
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let reply = ListingReply::names(reply);
        let mut sink = reply.sink();
        let call = Call::metadata("readdir", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            let outcome = fs.readdir(ino.0, handle.0, offset, false, &mut sink).await;
            sink.finish(outcome)
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let reply = ListingReply::full(reply);
        let mut sink = reply.sink();
        let call = Call::metadata("readdirplus", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            let outcome = fs.readdir(ino.0, handle.0, offset, true, &mut sink).await;
            sink.finish(outcome)
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        let call = Call::metadata("releasedir", ino.0);
        self.dispatcher().run_detached(call, move |fs| async move {
            released(&fs, ino.0, fs.releasedir(ino.0, handle.0).await).await;
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let call = Call::data("fsyncdir", ino.0).on_runtime();
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.fsyncdir(ino.0, handle.0).await
        });
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let call = Call::metadata("statfs", ino.0).on_runtime();
        self.dispatcher()
            .run(call, reply, move |fs| async move { fs.statfs(ino.0).await });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (caller, name, value) = (caller(request), owned(name), Bytes::copy_from_slice(value));
        let call = Call::metadata("setxattr", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.setxattr(&caller, ino.0, &name, &value, flags).await
        });
    }

    fn getxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        room: u32,
        reply: ReplyXattr,
    ) {
        let (call, reply) = (
            Call::metadata("getxattr", ino.0),
            AttributeReply { reply, room },
        );
        let lacks = |fs: &FileSystem| fs.lacks_attribute(ino.0, name.as_bytes());
        let Some(reply) = self.dispatcher().refuse_at_once(call, reply, lacks) else {
            return;
        };
        let name = owned(name);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.getxattr(ino.0, &name).await
        });
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, room: u32, reply: ReplyXattr) {
        let (call, reply) = (
            Call::metadata("listxattr", ino.0),
            AttributeReply { reply, room },
        );
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.listxattr(ino.0).await.map(Bytes::from)
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), owned(name));
        let call = Call::metadata("removexattr", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.removexattr(&caller, ino.0, &name).await
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _room: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        let call = Call::data("fallocate", ino.0).on_runtime();
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.fallocate(&caller, ino.0, handle.0, offset, length, mode)
                .await
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let call = Call::metadata("lseek", ino.0);
        self.dispatcher().run(call, reply, move |fs| async move {
            fs.lseek(ino.0, handle.0, offset, whence).await
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        to: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let caller = caller(request);
        let from = HandleOffset {
            ino: ino.0,
            handle: handle.0,
            offset,
        };
        let to = HandleOffset {
            ino: to.0,
            handle: to_handle.0,
            offset: to_offset,
        };
        // The reply has 32 bits for what was copied; the kernel asks again for the rest.
        let length = length.min(COPY_MAX);
        let call = Call::data("copy_file_range", ino.0).on_runtime();
        self.dispatcher().run(call, reply, move |fs| async move {
            let copied = fs.copy_file_range(&caller, from, to, length).await?;
            Ok(u32::try_from(copied).unwrap_or(u32::MAX))
        });
    }
}

/// The longest copy one request may ask for, in bytes: whole blocks, and a count that fits 32 bits.
const COPY_MAX: u64 = 1 << 30;
