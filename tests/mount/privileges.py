"""Which set-id bits and capabilities of a program take effect after another user has changed it.

usage: privileges.py DIRECTORY CONTROL

Every way of changing a file is taken in DIRECTORY, on the mount under test, and in CONTROL, on a file system of the
kernel. Both must do the same, and what `expected` says. The program under change is id(1), which says what rights it got;
no call looks at the file between the change and the exec.
"""

import ctypes
import errno
import mmap
import os
import shutil
import stat
import subprocess
import sys

STRANGER, GROUP = 4321, 4322
KEEP, PUNCH, ZERO = 1, 2, 16
CAPABILITY = "security.capability"
# CAP_NET_RAW, effective and permitted.
NET_RAW = bytes([1, 0, 0, 2, 0, 32, 0, 0] + [0] * 12)
CONTENT = open("/bin/id", "rb").read()
libc = ctypes.CDLL(None, use_errno=True)
directory, control = sys.argv[1], sys.argv[2]


def opened(path, flags, change):
    fd = os.open(path, flags)
    try:
        change(fd)
    finally:
        os.close(fd)


def end(fd):
    os.lseek(fd, 0, os.SEEK_END)


def write(path):
    opened(path, os.O_WRONLY, lambda fd: (end(fd), os.write(fd, b"x")))


def rewrite_block(path, flags):
    page = mmap.mmap(-1, 4096)
    page.write(CONTENT[:4096])
    opened(path, os.O_WRONLY | flags, lambda fd: os.pwritev(fd, [page], 0))


def empty_and_write(path):
    opened(path, os.O_WRONLY | os.O_TRUNC, lambda fd: os.write(fd, CONTENT))


def allocate(mode, offset):
    def change(fd):
        size = os.fstat(fd).st_size
        call = libc.fallocate
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if call(fd, mode, size + offset, 4096) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")

    return lambda path: opened(path, os.O_RDWR, change)


def copy(source, seek=lambda fd: None):
    def change(fd):
        seek(fd)
        with open(source(os.path.dirname(sys.argv[1 if in_test else 2] + "/")), "rb") as file:
            left = os.fstat(file.fileno()).st_size
            while left > 0:
                left -= os.copy_file_range(file.fileno(), fd, left)

    return lambda path: opened(path, os.O_WRONLY, change)


def splice(path):
    def change(fd):
        out, into = os.pipe()
        os.write(into, CONTENT[:100])
        os.splice(out, fd, 100)

    opened(path, os.O_WRONLY, change)


def sendfile(path):
    def change(fd):
        with open("/bin/id", "rb") as file:
            os.sendfile(fd, file.fileno(), 0, 5000)

    opened(path, os.O_WRONLY, change)


def store(path):
    def change(fd):
        with mmap.mmap(fd, 0) as mapped:
            mapped[0] = CONTENT[0]
            mapped.flush()

    opened(path, os.O_RDWR, change)


LENGTH = len(CONTENT) + 5000
WAYS = {
    "write": write,
    "append": lambda path: opened(path, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"x")),
    "same bytes": lambda path: rewrite_block(path, 0),
    "direct": lambda path: rewrite_block(path, os.O_DIRECT),
    "synchronous": lambda path: rewrite_block(path, os.O_SYNC),
    "O_TRUNC": empty_and_write,
    "ftruncate": lambda path: opened(path, os.O_WRONLY, lambda fd: os.ftruncate(fd, LENGTH)),
    "truncate": lambda path: os.truncate(path, LENGTH),
    "fallocate": allocate(0, 0),
    "fallocate, same length": allocate(KEEP, 0),
    "punch": allocate(PUNCH | KEEP, 4096),
    "zero": allocate(ZERO, 0),
    "zero, same length": allocate(ZERO | KEEP, 0),
    "copy of the end": copy(lambda at: at + "/small", end),
    "copy of all": copy(lambda at: at + "/whole"),
    "copy out of the past": copy(lambda at: at + "/past"),
    "splice": splice,
    "sendfile": sendfile,
    # No file system of the kernel clears the bits for this call.
    "mmap": store,
}
in_test = True


def by(uid, gid, work):
    """Returns what `work` returns or prints in a process of `uid`."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(into, 1)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            work()
        except OSError as error:
            print(errno.errorcode[error.errno], flush=True)
        finally:
            os._exit(1)
    os.close(into)
    with os.fdopen(out) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said.strip()


def rights(said):
    """Returns the privileges in a program's output that its caller does not have."""
    lent = [name for name in ("euid", "egid") if f" {name}=" in said]
    return "+".join(lent) or ("none" if said.startswith("uid=") else said)


def make(path, mode, capability=False):
    with open(path, "wb") as file:
        file.write(CONTENT)
    os.chmod(path, mode)
    if capability:
        os.setxattr(path, CAPABILITY, NET_RAW)


def left(path):
    """Returns the mode and the capabilities."""
    mode = "%o" % stat.S_IMODE(os.stat(path).st_mode)
    return mode + ("+cap" if CAPABILITY in os.listxattr(path) else "")


def places():
    global in_test
    for in_test, place in ((True, directory), (False, control)):
        yield place


def same(what, found, expected):
    # The control file system may not support the call.
    found = {place: value for place, value in found.items() if value != "ENOTSUP" or place == directory}
    assert found == {place: expected for place in found}, (what, found, expected)


def execs(after, prepare):
    """Checks the privileges with which a program runs after a user who is neither owner nor member of the group changed it."""
    for place in places():
        for way in WAYS:
            make(f"{place}/{after} {way}", 0o6777, True)
            if way in ("write", "fallocate", "copy of all"):
                os.link(f"{place}/{after} {way}", f"{place}/{after} {way}, other name")
    prepare()
    for way, change in WAYS.items():
        for name in (way, f"{way}, other name"):
            found, modes = {}, {}
            for place in places():
                path, program = f"{place}/{after} {way}", f"{place}/{after} {name}"
                if not os.path.exists(program):
                    continue
                if name != way:
                    os.chmod(path, 0o6777)
                    os.setxattr(path, CAPABILITY, NET_RAW)
                run = lambda: os.execv(program, ["id"])
                before = rights(by(STRANGER, GROUP, run))
                assert before == "euid+egid", (place, way, before)

                def changed_and_run():
                    change(path)
                    run()

                found[place] = rights(by(STRANGER, GROUP, changed_and_run))
                modes[place] = left(path) if found[place] != "ENOTSUP" else found[place]
            expected = "euid+egid" if way == "mmap" else "none"
            same((after, name), found, expected)
            same((after, name), modes, "6777+cap" if way == "mmap" else "777")


def modes():
    """Checks which bits of each mode are kept, by the user who made the change."""
    everybody = {"stranger": (STRANGER, GROUP), "member": (STRANGER, 0), "root": (0, 0)}
    for way, change in WAYS.items():
        for mode in (0o6666, 0o6766, 0o6676, 0o6777, 0o2666, 0o4755 | 0o022, 0o2777):
            for who, (uid, gid) in everybody.items():
                found = {}
                for place in places():
                    path = f"{place}/mode"
                    make(path, mode, True)
                    os.stat(path)
                    said = by(uid, gid, lambda: change(path))
                    found[place] = said or left(path)
                kept = mode
                if way != "mmap" and who != "root":
                    kept &= ~0o4000
                    if who == "stranger" or mode & 0o010:
                        kept &= ~0o2000
                # File capabilities are cleared when any user changes the content.
                cap = "+cap" if way == "mmap" else ""
                same((way, who, "%o" % mode), found, "%o" % kept + cap)


def owners():
    """Checks which bits chown(2) clears, also when root calls it."""
    calls = {
        "owner": lambda path: os.chown(path, STRANGER, -1),
        "group": lambda path: os.chown(path, -1, GROUP),
        "same": lambda path: os.chown(path, 0, 0),
    }
    for name, call in calls.items():
        for mode in (0o6777, 0o6666, 0o2767):
            found = {}
            for place in places():
                path = f"{place}/owner"
                make(path, mode, True)
                os.chown(path, 0, 0)
                os.chmod(path, mode)
                os.setxattr(path, CAPABILITY, NET_RAW)
                call(path)
                found[place] = left(path)
            kept = mode & ~(0o6000 if mode & 0o010 else 0o4000)
            same((name, "%o" % mode), found, "%o" % kept)


def emptied():
    """Checks open(2) with O_TRUNC and without a write: no later call would clear the bits."""
    found = {}
    for place in places():
        path = f"{place}/emptied"
        make(path, 0o6777)
        run = lambda: os.execv(path, ["id"])
        assert rights(by(STRANGER, GROUP, run)) == "euid+egid"
        by(STRANGER, GROUP, lambda: opened(path, os.O_WRONLY | os.O_TRUNC, lambda fd: None))
        opened(path, os.O_WRONLY, lambda fd: os.write(fd, CONTENT))
        found[place] = rights(by(STRANGER, GROUP, run))
    same("emptied", found, "none")


def main():
    for place in places():
        os.chmod(place, 0o777)
        shutil.copyfile("/bin/id", f"{place}/whole")
        shutil.copyfile("/bin/id", f"{place}/past")
        with open(f"{place}/small", "wb") as file:
            file.write(b"x" * 10)
    os.remove(f"{directory}/past")
    version = sorted(os.listdir(f"{directory}/.versions/@files/past"))[0]
    os.symlink(f"{directory}/.versions/@files/past/{version}", f"{directory}/past")
    execs("fresh", lambda: None)
    execs("at rest", lambda: subprocess.run(["./rewindfs", "drain", directory], check=True))
    emptied()
    owners()
    modes()


main()
