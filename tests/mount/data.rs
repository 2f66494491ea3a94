//! System calls on a file's data: space and holes, direct and synchronous I/O, mappings, appends, copies.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::scale;

/// A fresh namespace on a local directory, mounted.
pub(crate) fn mounted(flags: &[&str]) -> (tempfile::TempDir, TestMount) {
    let store = tempfile::tempdir().unwrap();
    let mount = TestMount::start(&Place::local(store.path()), flags);
    (store, mount)
}

/// The beginning of every script.
const PRELUDE: &str = r"
import ctypes, errno, fcntl, mmap, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def fallocate(fd, mode, offset, length):
    check(libc.fallocate(fd, mode, offset, length))
def error(call, *arguments):
    try:
        call(*arguments)
    except OSError as e:
        # Two errors have two names each.
        return {errno.EOPNOTSUPP: 'EOPNOTSUPP', errno.EDEADLK: 'EDEADLK'}.get(e.errno) or errno.errorcode[e.errno]
    return 'no error'
def same(found, expected):
    assert found == expected, (found, expected)
def new(name, flags=0):
    return os.open(name, os.O_RDWR | os.O_CREAT | flags, 0o644)
KEEP, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
MAX = 2**63 - 1
";

/// Runs a Python script in the mount.
#[track_caller]
pub(crate) fn python(mount: &TestMount, script: &str) -> String {
    mount.sh_within(
        &format!("python3 - <<'END'\n{PRELUDE}\n{script}\nEND"),
        Duration::from_secs(scale(300, 3600)),
    )
}

#[test]
fn fallocate_allocates_punches_and_zeroes() {
    let (_store, mut mount) = mounted(&[]);
    python(
        &mount,
        r"
fd = new('f')
os.write(fd, b'x' * 100_000)
model = bytearray(b'x' * 100_000)
os.posix_fallocate(fd, 50_000, 70_000)
model += bytes(20_000)
fallocate(fd, KEEP, 100_000, 1 << 20)                    # the length stays
same(os.fstat(fd).st_size, 120_000)
fallocate(fd, PUNCH | KEEP, 1_000, 5_000)
model[1_000:6_000] = bytes(5_000)
fallocate(fd, PUNCH | KEEP, 119_000, 50_000)             # over the end
model[119_000:] = bytes(1_000)
fallocate(fd, ZERO | KEEP, 10_001, 8_191)
model[10_001:18_192] = bytes(8_191)
fallocate(fd, ZERO, 118_000, 12_000)
model[118_000:] = bytes(12_000)
for mode in (COLLAPSE, INSERT, UNSHARE, PUNCH, COLLAPSE | KEEP):
    same(error(fallocate, fd, mode, 0, 4096), 'EOPNOTSUPP')
same(error(fallocate, fd, 0, 0, 0), 'EINVAL')
same(error(fallocate, fd, 0, -1, 10), 'EINVAL')
same(error(fallocate, fd, 0, MAX, 10), 'EFBIG')
read_only = os.open('f', os.O_RDONLY)
same(error(fallocate, read_only, 0, 0, 10), 'EBADF')
past = os.open('.versions/@files', os.O_RDONLY)
same(error(fallocate, past, 0, 0, 10), 'EBADF')
same(os.pread(fd, 200_000, 0), bytes(model))
os.close(fd)
open('model', 'wb').write(model)
        ",
    );
    for _ in 0..2 {
        mount.sh("cmp f model; cmp .versions/@files/f/latest model; test $(stat -c %s f) = 130000");
        mount.remount(Cache::Wiped);
    }
}

#[test]
fn lseek_finds_holes_and_data() {
    let (_store, mut mount) = mounted(&[]);
    let script = r"
def holes(fd):
    found, at = [], 0
    while at < os.fstat(fd).st_size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            same(e.errno, errno.ENXIO)
            break
        at = os.lseek(fd, data, os.SEEK_HOLE)
        found.append((data, at))
    return found
expected = [(1 << 20, (1 << 20) + 5_000), (20 << 20, (20 << 20) + 50_000), (30 << 20, (30 << 20) + 100_000)]
def look(fd):
    same(holes(fd), expected)
    same(os.lseek(fd, 0, os.SEEK_HOLE), 0)
    same(os.lseek(fd, (20 << 20) + 7, os.SEEK_DATA), (20 << 20) + 7)
    same(os.lseek(fd, 35 << 20, os.SEEK_HOLE), 35 << 20)
    same(error(os.lseek, fd, 35 << 20, os.SEEK_DATA), 'ENXIO')
    same(error(os.lseek, fd, 40 << 20, os.SEEK_HOLE), 'ENXIO')
    same(error(os.lseek, fd, -1, os.SEEK_DATA), 'ENXIO')
if not os.path.exists('f'):
    fd = new('f')
    for start, end in expected:
        os.pwrite(fd, b'd' * (end - start), start)
    os.pwrite(fd, b'punched' * 10_000, 25 << 20)
    os.fsync(fd)
    fallocate(fd, PUNCH | KEEP, 25 << 20, 70_000)
    os.ftruncate(fd, 40 << 20)
    look(fd)                                             # not yet in the bucket
    os.fsync(fd)
    look(fd)
    os.close(fd)
look(os.open('f', os.O_RDONLY))
look(os.open('.versions/@files/f/latest', os.O_RDONLY))
";
    for _ in 0..3 {
        python(&mount, script);
        mount.sh(
            "cp --sparse=auto f copy; cmp f copy; test $(du -k copy | cut -f 1) -lt 2000; rm copy",
        );
        mount.remount(Cache::Wiped);
    }
}

#[test]
fn lseek_after_an_open_finds_data_stored_through_a_mapping() {
    let (_store, mut mount) = mounted(&[]);
    python(
        &mount,
        r"
import subprocess
SIZE, STEP = 4 << 20, 512 << 10
fd = new('f')
os.ftruncate(fd, SIZE)
mapped = mmap.mmap(fd, SIZE)
model = bytearray(SIZE)
for round in range(8):
    # The second store of a round is made after an lseek through another descriptor has found the first one.
    for at in (round * STEP, round * STEP + (STEP >> 1)):
        mapped[at:at + 3] = model[at:at + 3] = b'abc'
        other = os.open('f', os.O_RDONLY)
        same(os.lseek(other, at, os.SEEK_DATA), at)
        assert os.fstat(other).st_blocks >= 8 * (round + 1), os.fstat(other).st_blocks
        os.close(other)
    mapped[round * STEP + 9000:round * STEP + 9003] = model[round * STEP + 9000:round * STEP + 9003] = b'xyz'
    subprocess.run(['cp', '--sparse=auto', 'f', 'copy'], check=True)
    same(open('copy', 'rb').read(), bytes(model))
same(bytes(mapped), bytes(model))
mapped.close()
os.close(fd)
same(open('f', 'rb').read(), bytes(model))
",
    );
    mount.umount();
}

#[test]
fn a_file_of_the_maximum_length_is_sparse() {
    let (_store, mut mount) = mounted(&[]);
    let script = r"
if not os.path.exists('f'):
    fd = new('f')
    os.ftruncate(fd, MAX)
    os.pwrite(fd, b'end', MAX - 3)
    os.pwrite(fd, b'middle', 1 << 61)
    os.pwrite(fd, b'gone', 1 << 60)
    os.fsync(fd)
    fallocate(fd, PUNCH | KEEP, 1 << 60, 1 << 60)
    fallocate(fd, ZERO, (1 << 61) + 6, 1 << 61)
    same(error(os.pwrite, fd, b'beyond', MAX - 3), 'EINVAL')
    same(error(os.ftruncate, fd, -1), 'EINVAL')
    os.close(fd)
    other = new('other')                                 # lengths that add up to more than 2**63
    os.ftruncate(other, MAX)
    os.close(other)
for name in ('f', '.versions/@files/f/latest'):
    fd = os.open(name, os.O_RDONLY)
    same(os.fstat(fd).st_size, MAX)
    assert os.fstat(fd).st_blocks < 100, os.fstat(fd)
    same(os.pread(fd, 8, (1 << 61) - 1), b'\0middle\0')
    same(os.pread(fd, 3, MAX - 3), b'end')
    same(os.pread(fd, 4, 1 << 60), bytes(4))
    same(os.lseek(fd, 0, os.SEEK_DATA), 1 << 61)
    same(os.lseek(fd, 1 << 61, os.SEEK_HOLE), (1 << 61) + 6)
    same(os.lseek(fd, (1 << 61) + 6, os.SEEK_DATA), MAX - 3)
";
    for cache in [Cache::Kept, Cache::Wiped] {
        python(&mount, script);
        mount.remount(cache);
    }
    python(&mount, script);
    mount.sh("truncate -s 10 f; test $(stat -c %s f) = 10; rm f other");
    println!("{}", mount.check_log("main"));
}

/// Bytes of all files below a directory.
fn stored(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => stored(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}

#[test]
fn ficlone_is_refused_and_copy_file_range_uploads_no_bytes() {
    let (store, mount) = mounted(&[]);
    mount.sh("head -c 5000000 /dev/urandom > f; : > empty");
    mount.drain();
    let data = store.path().join("main/data");
    let before = stored(&data);
    python(
        &mount,
        r"
FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940d, 0xc0189436
source, target = os.open('f', os.O_RDONLY), os.open('empty', os.O_RDWR)
same(error(fcntl.ioctl, target, FICLONE, source), 'EOPNOTSUPP')
same(error(fcntl.ioctl, target, FICLONERANGE, struct.pack('=qQQQ', source, 0, 0, 0)), 'EOPNOTSUPP')
same(os.fstat(target).st_size, 0)
same(os.copy_file_range(source, target, 1 << 40), 5_000_000)
same(os.copy_file_range(source, target, 1 << 40), 0)      # the end
same(error(os.copy_file_range, source, target, 10, 0, -1), 'EOVERFLOW')
same(error(os.copy_file_range, target, source, 10), 'EBADF')
same(error(os.copy_file_range, target, target, 1000, 0, 500), 'EINVAL')
        ",
    );
    mount.sh("cmp f empty; cp f copy; cmp f copy
         if cp --reflink=always f clone 2>/dev/null; then echo 'a clone'; exit 1; fi");
    mount.drain();
    let moved = stored(&data) - before;
    assert!(moved < 4096, "{moved} bytes of segments for two copies");
}

#[test]
fn direct_and_buffered_io_agree() {
    let (_store, mut mount) = mounted(&[]);
    python(
        &mount,
        r"
fd, direct = new('f'), new('f', os.O_DIRECT)
buffer = mmap.mmap(-1, 1 << 20)
def page(byte, count=1):
    buffer[:4096 * count] = byte * 4096 * count
    return memoryview(buffer)[:4096 * count]
os.write(fd, b'b' * 100_000)                             # buffered, then read past the cache
same(os.preadv(direct, [buffer], 0), 100_000)
same(buffer[:100_000], b'b' * 100_000)
os.pread(fd, 100_000, 0)                                 # fills the page cache
same(os.pwritev(direct, [page(b'd', 2)], 4096), 8192)
same(os.pread(fd, 3, 4095), b'bdd')
same(os.pread(fd, 2, 4096 + 8191), b'db')
mapped, through = mmap.mmap(fd, 100_000), mmap.mmap(direct, 100_000)
mapped[0:5] = b'store'
same(os.preadv(direct, [buffer], 0), 100_000)
same(buffer[:6], b'storeb')
same(through[0:5], b'store')
same(os.pwritev(direct, [page(b'n')], 8192), 4096)
same(mapped[8192:8195], b'nnn')
through[20_000:20_006] = b'direct'
same(os.pread(fd, 6, 20_000), b'direct')
same(os.pwrite(direct, b'odd', 50_001), 3)               # no alignment is asked for
same(os.pread(fd, 5, 50_000), b'boddb')
same(os.preadv(direct, [buffer], 99_999), 1)             # the end
appending = os.open('f', os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
os.writev(appending, [page(b'a')])
same(os.fstat(fd).st_size, 104_096)
same(os.pread(fd, 3, 99_999), b'baa')
os.ftruncate(fd, 10_000)
same(os.preadv(direct, [buffer], 8192), 1808)
        ",
    );
    let before = fs::read(mount.path("f")).unwrap();
    assert_eq!(before.len(), 10_000);
    mount.remount(Cache::Wiped);
    assert!(fs::read(mount.path("f")).unwrap() == before);
}

#[test]
fn synchronous_writes_survive_the_loss_of_the_machine() {
    let (_store, mut mount) = mounted(&[]);
    python(
        &mount,
        r"
for name, flag in (('sync', os.O_SYNC), ('dsync', os.O_DSYNC)):
    fd = new(name, flag)
    os.write(fd, b'written by ' + name.encode())
    globals()[name] = fd                                 # stays open
mapped = new('mapped')
os.ftruncate(mapped, 8192)
m = mmap.mmap(mapped, 8192)
m[5000:5005] = b'store'
m.flush()                                                # msync(MS_SYNC)
os.mkdir('d')
open('d/file', 'w').write('named')
os.rename('d/file', 'd/renamed')
os.symlink('renamed', 'd/link')
d = os.open('d', os.O_RDONLY)
os.fsync(d)
os.fsync(os.open('.', os.O_RDONLY))
sys.stdout.flush()
        ",
    );
    mount.kill9();
    mount.recover(Cache::Wiped);
    let read = |name: &str| fs::read(mount.path(name)).unwrap_or_default();
    assert_eq!(read("sync"), b"written by sync");
    assert_eq!(read("dsync"), b"written by dsync");
    assert_eq!(&read("mapped")[4999..5006], b"\0store\0");
    assert_eq!(
        read("d/link"),
        b"named",
        "the name exists after fsync of the directory"
    );
    assert!(!mount.path("d/file").exists());
}

#[test]
fn appends_through_several_handles_never_overlap() {
    let (_store, mut mount) = mounted(&[]);
    python(
        &mount,
        r"
children = []
for who in range(4):
    if os.fork() == 0:
        fd = new('log', os.O_APPEND | (os.O_DIRECT if who == 3 else 0))
        for n in range(250):
            os.lseek(fd, 0, os.SEEK_SET)                 # an offset is no matter
            record = b'%d %d %s\n' % (who, n, b'x' * (n % 90))
            same(os.write(fd, record), len(record))
        os._exit(0)
for _ in range(4):
    same(os.wait()[1], 0)
lines = open('log', 'rb').read().splitlines()
same(len(lines), 1000)
for who in range(4):
    own = [line for line in lines if line.startswith(b'%d ' % who)]
    same(own, [b'%d %d %s' % (who, n, b'x' * (n % 90)) for n in range(250)])
        ",
    );
    let before = fs::read(mount.path("log")).unwrap();
    mount.remount(Cache::Wiped);
    assert!(fs::read(mount.path("log")).unwrap() == before);
}

#[test]
fn mappings_are_shared_or_private() {
    let (_store, mut mount) = mounted(&[]);
    python(
        &mount,
        r"
fd = new('f')
os.write(fd, b'f' * 10_000)
ready, go = os.pipe()
shared = mmap.mmap(fd, 10_000)
private = mmap.mmap(fd, 10_000, mmap.MAP_PRIVATE)
if os.fork() == 0:                                       # another process, with a descriptor of its own
    own = mmap.mmap(os.open('f', os.O_RDWR), 10_000)
    own[0:5] = b'child'
    same(own[9_000:9_006], b'ffffff')
    os.write(go, b'.')
    deadline = time.time() + 60
    while own[9_000:9_006] != b'parent':
        assert time.time() < deadline
    os._exit(0)
os.read(ready, 1)
same(shared[0:5], b'child')                              # without msync: the same pages
same(os.pread(fd, 5, 0), b'child')
private[100:107] = b'private'
shared[9_000:9_006] = b'parent'
same(os.wait()[1], 0)
same(os.pread(fd, 7, 100), b'fffffff')
same(shared[100:107], b'fffffff')
shared.flush(8192, 1808)
os.pwrite(fd, b'written', 5_000)
same(shared[5_000:5_007], b'written')
same(bytes(shared[9_999:10_000]), b'f')
os.ftruncate(fd, 9_999)
os.ftruncate(fd, 10_000)
same(os.pread(fd, 2, 9_998), b'f\0')
read_only = os.open('f', os.O_RDONLY)
same(error(lambda: mmap.mmap(read_only, 100)), 'EACCES')
        ",
    );
    let expected = |bytes: &[u8]| {
        assert_eq!(bytes.len(), 10_000);
        assert_eq!(&bytes[..6], b"childf");
        assert_eq!(&bytes[100..107], b"fffffff");
        assert_eq!(&bytes[5000..5007], b"written");
        assert_eq!(&bytes[9000..9006], b"parent");
        assert_eq!(&bytes[9998..], b"f\0");
    };
    expected(&fs::read(mount.path("f")).unwrap());
    mount.remount(Cache::Wiped);
    expected(&fs::read(mount.path("f")).unwrap());
}
