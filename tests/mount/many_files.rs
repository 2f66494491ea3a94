//! Large numbers: names in a directory that is listed while it changes, files open at once.

use crate::data::{mounted, python};
use crate::support::mount::{Cache, TestMount};
use crate::support::place::Place;
use crate::support::scale;

#[test]
fn a_listing_is_stable_while_names_come_and_go() {
    let (_store, mut mount) = mounted(&[]);
    let many = scale(20_000, 1_000_000);
    let script = r"
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.opendir.argtypes = [ctypes.c_char_p]
for call in (libc.readdir, libc.telldir, libc.rewinddir, libc.closedir):
    call.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
def step(stream):
    entry = libc.readdir(stream)                         # ino, off, reclen, type, name
    return ctypes.string_at(entry + 19).decode() if entry else None
def rest(stream):
    return [name for name in iter(lambda: step(stream), None) if name not in ('.', '..')]
expected = {f'name-{n:07}' for n in range(MANY)}
if not os.path.exists('d'):
    os.mkdir('d')
    for name in sorted(expected):
        os.close(os.open('d/' + name, os.O_CREAT | os.O_WRONLY))
stream = libc.opendir(b'd')
names, places = [], {}
gone = {f'name-{n:07}' for n in range(MANY) if n % 10 == 3}
while True:
    n = len(names)
    if n % (MANY // 40) == 0:
        places[n] = libc.telldir(stream)
    name = step(stream)
    if name is None:
        break
    names.append(name)
    if n == MANY // 2:                                   # in the middle of the listing names are removed and added
        for name in gone:
            os.unlink('d/' + name)
        for k in range(MANY // 100):
            os.close(os.open(f'd/later-{k:07}', os.O_CREAT | os.O_WRONLY))
        os.rename('d/name-0000000', 'd/renamed')
found = [name for name in names if name not in ('.', '..') and not name.startswith(('later', 'renamed'))]
same(len(found), len(set(found)))                        # each name once
assert expected - gone - {'name-0000000'} <= set(found), 'a name that stayed is missing'
for n, place in sorted(places.items(), reverse=True):    # seekdir(3) to each saved position
    libc.seekdir(stream, place)
    same(libc.telldir(stream), place)
    same(step(stream), names[n] if n < len(names) else None)
libc.rewinddir(stream)                                   # after a rewind the listing has the current names
now = rest(stream)
same(len(now), len(set(now)))
expected = expected - gone - {'name-0000000'} | {'renamed'} | {f'later-{k:07}' for k in range(MANY // 100)}
same(set(now) ^ expected, set())
libc.closedir(stream)
";
    python(&mount, &script.replace("MANY", &many.to_string()));
    mount.remount(Cache::Wiped);
    let left = many - many / 10 + many / 100;
    mount.sh(&format!(
        "test $(ls -f d | wc -l) = {}; find d -name 'later-*' -delete; test $(ls -A d | wc -l) = {}",
        left + 2,
        many - many / 10
    ));
}

#[test]
fn many_files_are_open_at_once() {
    let (_store, mut mount) = mounted(&[]);
    let script = r"
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
want = MANY + 100
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, max(want, hard)))
except (ValueError, PermissionError):
    print('only', hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    want = hard
many = want - 100
os.mkdir('d')
fds = []
for n in range(many):
    fd = os.open(f'd/{n}', os.O_RDWR | os.O_CREAT)
    os.write(fd, b'%d' % n)
    if n % 20 == 0:
        os.pwrite(fd, b'staged' * 12_000, 100)           # too much to stay in memory
    fds.append(fd)
for n, fd in enumerate(fds):
    same(os.pread(fd, 20, 0)[:len(str(n))], b'%d' % n)
    if n % 20 == 0:
        same(os.pread(fd, 6, 100 + 6 * 11_999), b'staged')
for n in range(0, many, 7):
    os.unlink(f'd/{n}')
for n, fd in enumerate(fds):
    same(os.pread(fd, 20, 0)[:len(str(n))], b'%d' % n)
    os.close(fd)
same(len(os.listdir('d')), many - len(range(0, many, 7)))
same(open('d/1').read(), '1')
";
    let many = scale(3000, 100_000).to_string();
    println!("{}", python(&mount, &script.replace("MANY", &many)));
    mount.remount(Cache::Wiped);
    mount.sh("test $(cat d/8) = 8; test $(head -c 2 d/20) = 20; test $(stat -c %s d/20) = 72100");
}

#[test]
fn more_files_await_upload_than_the_daemon_may_have_open() {
    let store = tempfile::tempdir().unwrap();
    let mut mount = TestMount::start_with_open_files(128, &Place::local(store.path()));
    let script = r"
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, max(2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
fds = [os.open(f'{n}', os.O_RDWR | os.O_CREAT) for n in range(1000)]
for n, fd in enumerate(fds):
    same(os.write(fd, b'%03d' % n * 30_000), 90_000)     # too much to stay in memory
for n, fd in enumerate(fds):
    same(os.write(fd, b'%03d' % n * 30_000), 90_000)
    if n % 100 == 0:
        os.fsync(fd)
for n, fd in enumerate(fds):
    assert os.pread(fd, 180_000, 0) == b'%03d' % n * 60_000, n
    os.close(fd)
";
    python(&mount, script);
    let read = "for n in range(1000): assert open(str(n), 'rb').read() == b'%03d' % n * 60_000, n";
    mount.kill9();
    mount.recover(Cache::Kept);
    python(&mount, read);
    mount.remount(Cache::Wiped);
    python(&mount, read);
}

#[test]
fn statfs_reports_files_and_bytes() {
    let (_store, mount) = mounted(&[]);
    python(
        &mount,
        r"
before = os.statvfs('.')
same((before.f_namemax, before.f_frsize), (255, 4096))
assert before.f_bavail * before.f_frsize >= 1 << 40 and before.f_favail > 1 << 20
with open('f', 'wb') as file:
    file.write(b'x' * 10_000_000)
os.mkdir('d')
used = lambda s: (s.f_blocks - s.f_bfree) * s.f_frsize
# The release of a handle is carried out after close(2) has returned.
for _ in range(500):
    after = os.statvfs('d')
    if used(after) > used(before):
        break
    time.sleep(0.02)
assert used(after) - used(before) >= 10_000_000, (used(before), used(after))
assert after.f_files - after.f_ffree >= before.f_files - before.f_ffree + 1
same(after.f_bavail, before.f_bavail)
os.unlink('f')
        ",
    );
    let table = mount.sh("df -k . | tail -n 1");
    assert!(table.contains("file:///"), "{table}");
}
