//! Locks within a mount: exclusion, release, waiting and deadlock detection.

use crate::data::{mounted, python};

#[test]
fn posix_locks_exclude_and_end_with_the_process_or_the_close() {
    let (_store, mount) = mounted(&[]);
    python(
        &mount,
        r"
fd = new('f')
os.write(fd, b'x' * 100)
def other(do):
    # Whether another process gets the lock.
    child = os.fork()
    if child == 0:
        try:
            do(os.open('f', os.O_RDWR))
            os._exit(0)
        except OSError as e:
            os._exit(1 if e.errno in (errno.EAGAIN, errno.EACCES) else 2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status < 2, status
    return status == 0
EXCLUSIVE, SHARED, NOW = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB
lock = lambda how, length, start: lambda fd: fcntl.lockf(fd, how | NOW, length, start)
# fcntl(2) ranges: disjoint ones do not conflict, shared ones do not either, a part can be released.
fcntl.lockf(fd, EXCLUSIVE, 10, 0)
assert not other(lock(EXCLUSIVE, 1, 9))
assert not other(lock(SHARED, 1, 9))
assert other(lock(EXCLUSIVE, 10, 10))
fcntl.lockf(fd, fcntl.LOCK_UN, 5, 0)
assert other(lock(EXCLUSIVE, 5, 0)) and not other(lock(EXCLUSIVE, 6, 0))
fcntl.lockf(fd, SHARED, 10, 0)
assert other(lock(SHARED, 10, 0)) and not other(lock(EXCLUSIVE, 10, 0))
# F_GETLK names the holder.
def holder(fd):
    found = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('=hhiqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 10, 0))
    kind, pid = struct.unpack('=hhiqqi4x', found)[0], struct.unpack('=hhiqqi4x', found)[5]
    same((kind, pid), (fcntl.F_RDLCK, os.getppid()))
assert other(holder)
# A child of fork does not inherit it; any close of the file in the process ends it.
assert not other(lambda _: fcntl.lockf(fd, EXCLUSIVE | NOW, 10, 0))
os.close(os.open('f', os.O_RDONLY))
assert other(lock(EXCLUSIVE, 100, 0))
# flock(2) belongs to the open file: inherited by fork and dup, ended by its last close or an explicit unlock.
flock = lambda how: lambda fd: fcntl.flock(fd, how | NOW)
fcntl.flock(fd, EXCLUSIVE)
os.close(os.open('f', os.O_RDONLY))
assert not other(flock(SHARED))
assert other(lambda _: fcntl.flock(fd, SHARED | NOW))   # the same open file, through the child
assert other(flock(SHARED)) and not other(flock(EXCLUSIVE))
twin = os.dup(fd)
os.close(fd)
assert not other(flock(EXCLUSIVE))
os.close(twin)
assert other(flock(EXCLUSIVE))
# A killed holder loses both kinds.
child = os.fork()
if child == 0:
    held = os.open('f', os.O_RDWR)
    fcntl.flock(held, EXCLUSIVE)
    fcntl.lockf(held, EXCLUSIVE)
    open('held', 'w').close()
    time.sleep(600)
while not os.path.exists('held'):
    time.sleep(0.01)
assert not other(flock(EXCLUSIVE)) and not other(lock(EXCLUSIVE, 1, 0))
os.kill(child, 9)
os.waitpid(child, 0)
assert other(flock(EXCLUSIVE)) and other(lock(EXCLUSIVE, 1, 0))
        ",
    );
}

#[test]
fn a_waiting_lock_is_granted_or_fails_with_edeadlk() {
    let (_store, mount) = mounted(&[]);
    python(
        &mount,
        r"
import signal
fd = new('f')
os.write(fd, b'x' * 100)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
for how in (lambda own: fcntl.lockf(own, fcntl.LOCK_EX, 10, 0), lambda own: fcntl.flock(own, fcntl.LOCK_EX)):
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.path.exists('waits') and os.unlink('waits')
    child = os.fork()
    if child == 0:
        own = os.open('f', os.O_RDWR)
        open('waits', 'w').close()
        how(own)                                         # blocks until the parent lets go
        os._exit(0)
    while not os.path.exists('waits'):
        time.sleep(0.01)
    time.sleep(0.3)
    same(os.waitpid(child, os.WNOHANG), (0, 0))
    fcntl.lockf(fd, fcntl.LOCK_UN)
    fcntl.flock(fd, fcntl.LOCK_UN)
    same(os.waitpid(child, 0)[1], 0)
# A signal ends the wait.
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
child = os.fork()
if child == 0:
    def interrupt(*_):
        raise InterruptedError
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        fcntl.lockf(os.open('f', os.O_RDWR), fcntl.LOCK_EX, 10, 0)
    except InterruptedError:
        os._exit(0)
    os._exit(1)
same(os.waitpid(child, 0)[1], 0)
# Two processes each hold the lock that the other waits for: one gets EDEADLK.
fcntl.lockf(fd, fcntl.LOCK_UN)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
child = os.fork()
if child == 0:
    own = os.open('f', os.O_RDWR)
    fcntl.lockf(own, fcntl.LOCK_EX, 10, 50)
    open('has', 'w').close()
    fcntl.lockf(own, fcntl.LOCK_EX, 10, 0)
    os._exit(0)
while not os.path.exists('has'):
    time.sleep(0.01)
time.sleep(0.5)
same(error(fcntl.lockf, fd, fcntl.LOCK_EX, 10, 50), 'EDEADLK')
fcntl.lockf(fd, fcntl.LOCK_UN, 10, 0)
same(os.waitpid(child, 0)[1], 0)
        ",
    );
}
