//! Results of the file system as `fuser`'s replies, and the undo of a result that was too late for its reply.
//!
//! Invariant: each conversion is total. A number or a time that the kernel's format cannot hold is replaced by the
//! nearest one it can hold, because a panic here would leave a caller without its answer.

use crate::fs::{DirEntry, DirSink, Entry, FileSystem, FsError, Opened, Room, Statfs};
use crate::store::{Kind, Stat, Time};
use crate::sync::{Arc, Mutex, lock};
use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A reply that is sent exactly once: with a value or with an error number.
pub(super) trait Reply<T>: Send + 'static {
    /// Sends `value`.
    fn succeed(self, value: T);

    /// Sends `errno`.
    fn fail(self, errno: Errno);
}

/// A result that gives the kernel a reference which it returns later: a counted lookup, an open handle.
pub(super) trait KernelReference: Send + 'static {
    /// Drops the reference: the request was answered with an error before, so the kernel does not know of it.
    fn undo(self, fs: &FileSystem) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        let _ = fs;
        std::future::ready(())
    }
}

/// A file that was opened.
pub(super) struct OpenedFile {
    pub(super) ino: u64,
    pub(super) opened: Opened,
}

/// A directory that was opened.
pub(super) struct OpenedDirectory {
    pub(super) ino: u64,
    pub(super) opened: Opened,
}

/// A file that was created and opened.
pub(super) struct Created {
    pub(super) entry: Entry,
    pub(super) opened: Opened,
}

/// Attributes of an inode, and how long the kernel may keep them.
pub(super) struct Attributes {
    pub(super) stat: Stat,
    pub(super) ttl: Duration,
}

/// The entries of a directory listing that counted a lookup.
pub(super) struct CountedLookups(pub(super) Vec<u64>);

impl KernelReference for () {}
impl KernelReference for u32 {}
impl KernelReference for i64 {}
impl KernelReference for Bytes {}
impl KernelReference for Statfs {}
impl KernelReference for Attributes {}

impl KernelReference for Entry {
    async fn undo(self, fs: &FileSystem) {
        fs.forget(self.stat.ino.0, 1);
    }
}

impl KernelReference for OpenedFile {
    async fn undo(self, fs: &FileSystem) {
        let outcome = fs.release(self.ino, self.opened.handle).await;
        released(fs, self.ino, outcome).await;
    }
}

impl KernelReference for OpenedDirectory {
    async fn undo(self, fs: &FileSystem) {
        let outcome = fs.releasedir(self.ino, self.opened.handle).await;
        released(fs, self.ino, outcome).await;
    }
}

impl KernelReference for Created {
    async fn undo(self, fs: &FileSystem) {
        let ino = self.entry.stat.ino.0;
        let outcome = fs.release(ino, self.opened.handle).await;
        released(fs, ino, outcome).await;
        fs.forget(ino, 1);
    }
}

impl KernelReference for CountedLookups {
    async fn undo(self, fs: &FileSystem) {
        for ino in self.0 {
            fs.forget(ino, 1);
        }
    }
}

/// Logs a release that failed: no request reports its result.
pub(super) async fn released(fs: &FileSystem, ino: u64, outcome: Result<(), FsError>) {
    if let Err(error) = outcome {
        let file = fs.named(ino).await;
        tracing::error!(%file, %error, "a handle was released with an error");
    }
}

impl Reply<()> for ReplyEmpty {
    fn succeed(self, (): ()) {
        self.ok();
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<Entry> for ReplyEntry {
    fn succeed(self, value: Entry) {
        self.entry_with_ttls(
            &value.attr_ttl,
            &value.entry_ttl,
            &attributes(&value.stat),
            Generation(value.stat.generation),
        );
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<Attributes> for ReplyAttr {
    fn succeed(self, value: Attributes) {
        self.attr(&value.ttl, &attributes(&value.stat));
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<Bytes> for ReplyData {
    fn succeed(self, value: Bytes) {
        self.data(&value);
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<OpenedFile> for ReplyOpen {
    fn succeed(self, value: OpenedFile) {
        self.opened(FileHandle(value.opened.handle), open_flags(&value.opened));
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<OpenedDirectory> for ReplyOpen {
    fn succeed(self, value: OpenedDirectory) {
        self.opened(FileHandle(value.opened.handle), open_flags(&value.opened));
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<Created> for ReplyCreate {
    fn succeed(self, value: Created) {
        // The kernel's format has two times to live here, fuser's has one: the shorter one serves for both.
        self.created(
            &value.entry.attr_ttl.min(value.entry.entry_ttl),
            &attributes(&value.entry.stat),
            Generation(value.entry.stat.generation),
            FileHandle(value.opened.handle),
            open_flags(&value.opened),
        );
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<u32> for ReplyWrite {
    fn succeed(self, value: u32) {
        self.written(value);
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<i64> for ReplyLseek {
    fn succeed(self, value: i64) {
        self.offset(value);
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

impl Reply<Statfs> for ReplyStatfs {
    fn succeed(self, value: Statfs) {
        self.statfs(
            value.blocks,
            value.bfree,
            value.bavail,
            value.files,
            value.ffree,
            value.bsize,
            value.namelen,
            value.frsize,
        );
    }

    fn fail(self, errno: Errno) {
        self.error(errno);
    }
}

/// The reply to a read of extended attributes: a caller with no room asks how much it needs.
pub(super) struct AttributeReply {
    pub(super) reply: ReplyXattr,
    /// Bytes the caller has room for; zero asks for the size alone.
    pub(super) room: u32,
}

impl Reply<Bytes> for AttributeReply {
    fn succeed(self, value: Bytes) {
        match u32::try_from(value.len()) {
            Ok(size) if self.room == 0 => self.reply.size(size),
            Ok(size) if size <= self.room => self.reply.data(&value),
            Ok(_) => self.reply.error(Errno::ERANGE),
            Err(_) => self.reply.error(Errno::E2BIG),
        }
    }

    fn fail(self, errno: Errno) {
        self.reply.error(errno);
    }
}

/// The kernel's buffer for a listing, in the two forms it may ask for.
enum DirectoryBuffer {
    Names(ReplyDirectory),
    Full(ReplyDirectoryPlus),
}

/// A listing's buffer, shared by the task that fills it and the one that watches the deadline; the first answer consumes it.
#[derive(Clone)]
pub(super) struct ListingReply(Arc<Mutex<Option<DirectoryBuffer>>>);

impl ListingReply {
    /// Makes the reply of a READDIR.
    pub(super) fn names(reply: ReplyDirectory) -> Self {
        Self(Arc::new(Mutex::new(Some(DirectoryBuffer::Names(reply)))))
    }

    /// Makes the reply of a READDIRPLUS.
    pub(super) fn full(reply: ReplyDirectoryPlus) -> Self {
        Self(Arc::new(Mutex::new(Some(DirectoryBuffer::Full(reply)))))
    }

    /// Makes the sink that fills this reply.
    pub(super) fn sink(&self) -> ListingSink {
        ListingSink {
            reply: self.clone(),
            counted: Vec::new(),
            added: 0,
        }
    }

    fn take(&self) -> Option<DirectoryBuffer> {
        lock(&self.0).take()
    }
}

impl Reply<CountedLookups> for ListingReply {
    fn succeed(self, _: CountedLookups) {
        match self.take() {
            Some(DirectoryBuffer::Names(reply)) => reply.ok(),
            Some(DirectoryBuffer::Full(reply)) => reply.ok(),
            None => {}
        }
    }

    fn fail(self, errno: Errno) {
        match self.take() {
            Some(DirectoryBuffer::Names(reply)) => reply.error(errno),
            Some(DirectoryBuffer::Full(reply)) => reply.error(errno),
            None => {}
        }
    }
}

/// Fills a listing's buffer and remembers which entries counted a lookup.
pub(super) struct ListingSink {
    reply: ListingReply,
    counted: Vec<u64>,
    added: usize,
}

impl ListingSink {
    /// Returns the entries that counted a lookup. An error after the first entry is left to the next call, as in getdents(2).
    pub(super) fn finish(self, outcome: Result<(), FsError>) -> Result<CountedLookups, FsError> {
        match outcome {
            Err(error) if self.added == 0 => Err(error),
            _ => Ok(CountedLookups(self.counted)),
        }
    }
}

impl DirSink for ListingSink {
    fn add(&mut self, entry: DirEntry<'_>) -> Room {
        let name = OsStr::from_bytes(entry.name);
        // fuser's `add` says true when the entry was *not* added.
        let full = match lock(&self.reply.0).as_mut() {
            None => true,
            Some(DirectoryBuffer::Names(reply)) => reply.add(
                INodeNo(entry.ino),
                entry.next_offset,
                file_type(entry.kind),
                name,
            ),
            Some(DirectoryBuffer::Full(reply)) => {
                let (attr, ttl, generation) = match entry.full {
                    Some(full) => (
                        attributes(&full.stat),
                        full.attr_ttl.min(full.entry_ttl),
                        full.stat.generation,
                    ),
                    None => (placeholder(entry.ino, entry.kind), Duration::ZERO, 0),
                };
                reply.add(
                    attr.ino,
                    entry.next_offset,
                    name,
                    &ttl,
                    &attr,
                    Generation(generation),
                )
            }
        };
        if full {
            return Room::Full;
        }
        self.added += 1;
        if entry.full.is_some() {
            self.counted.push(entry.ino);
        }
        Room::Left
    }
}

/// Converts attributes to fuser's type.
pub(super) fn attributes(stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.ino.0),
        size: stat.attrs.size,
        blocks: stat.blocks,
        atime: system_time(stat.attrs.atime),
        mtime: system_time(stat.attrs.mtime),
        ctime: system_time(stat.attrs.ctime),
        crtime: system_time(stat.attrs.btime),
        kind: file_type(stat.kind),
        // Twelve bits are left, which fit.
        perm: (stat.attrs.mode & 0o7777) as u16,
        nlink: stat.nlink,
        uid: stat.attrs.uid,
        gid: stat.attrs.gid,
        rdev: u32::try_from(stat.attrs.rdev).unwrap_or(0),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The unit stat(2) recommends for reads and writes: one page. Tools that move data choose larger ones themselves, and
/// libraries that buffer take it literally.
const BLOCK_SIZE: u32 = 4096;

/// What the kernel sees of "." and ".." in a full listing: it uses the number and the kind only.
fn placeholder(ino: u64, kind: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

fn open_flags(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags.set(FopenFlags::FOPEN_CACHE_DIR, opened.cache_dir);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}

/// Converts a file time to the type fuser sends; before 1970 the nanoseconds still count forward.
fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| {
            second.checked_add(Duration::from_nanos(time.nanos.min(999_999_999).into()))
        })
        .unwrap_or(UNIX_EPOCH)
}

/// Converts a file time from the type fuser delivers.
///
/// fuser 0.18 subtracts the nanoseconds of a time before 1970 where they must be added, so that -1.2 s arrives as -2.8 s;
/// the distance from 1970 still holds both fields as the kernel sent them.
pub(super) fn file_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => Time {
            seconds: 0i64
                .checked_sub_unsigned(before.duration().as_secs())
                .unwrap_or(i64::MIN),
            nanos: before.duration().subsec_nanos(),
        },
    }
}

/// The errno of `error` in fuser's type.
pub(super) fn errno(error: &FsError) -> Errno {
    Errno::from_i32(error.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_unchanged_after_both_conversions() {
        for (seconds, nanos) in [(0, 0), (0, 1), (1_700_000_000, 999_999_999), (i64::MAX, 7)] {
            let time = Time { seconds, nanos };
            assert_eq!(file_time(system_time(time)), time);
        }
    }

    #[test]
    fn a_time_before_1970_is_sent_correctly() {
        let time = Time {
            seconds: -2,
            nanos: 800_000_000,
        };
        let before = UNIX_EPOCH.duration_since(system_time(time)).unwrap();
        assert_eq!(before, Duration::from_millis(1_200));
    }

    #[test]
    fn a_time_before_1970_is_received_correctly_although_fuser_converts_it_wrongly() {
        // What fuser makes of (-2 s, +800 ms).
        let delivered = UNIX_EPOCH - Duration::new(2, 800_000_000);
        let time = Time {
            seconds: -2,
            nanos: 800_000_000,
        };
        assert_eq!(file_time(delivered), time);
    }

    #[test]
    fn a_time_out_of_range_does_not_panic() {
        let far = Time {
            seconds: i64::MIN,
            nanos: u32::MAX,
        };
        let _ = system_time(far);
    }
}
