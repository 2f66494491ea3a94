"""Changes attributes of inodes that have no name any more and are open.

usage: removed.py DIRECTORY
"""

import os
import stat
import sys

os.chdir(sys.argv[1])
top = os.getcwd()
home = os.open(".", os.O_RDONLY)


def check(what, path):
    """Changes the attributes of a removed inode through `path`, which still leads to it."""
    before = os.stat(path)
    assert before.st_nlink == 0, (what, before)
    os.chmod(path, 0o751)
    os.chown(path, 4321, 4322)
    os.utime(path, ns=(5_000_000_007, 6_000_000_008))
    found = os.stat(path)
    seen = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_atime_ns, found.st_mtime_ns)
    assert seen == (0o751, 4321, 4322, 5_000_000_007, 6_000_000_008), (what, seen)
    assert found.st_ctime_ns >= before.st_ctime_ns and found.st_ino == before.st_ino, what
    assert stat.S_IFMT(found.st_mode) == stat.S_IFMT(before.st_mode), what
    os.utime(path)
    assert os.stat(path).st_mtime > 1_000_000_000, what
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o751, what
    assert sorted(os.listxattr(path)) == sorted(had), (what, os.listxattr(path))
    for name, value in had.items():
        assert os.getxattr(path, name) == value, what
    os.setxattr(path, "trusted.new", b"1" * 100)
    os.setxattr(path, "trusted.new", b"2", os.XATTR_REPLACE)
    try:
        os.setxattr(path, "trusted.new", b"3", os.XATTR_CREATE)
        raise AssertionError(what)
    except FileExistsError:
        pass
    assert os.getxattr(path, "trusted.new") == b"2", what
    os.removexattr(path, "trusted.new")
    try:
        os.getxattr(path, "trusted.new")
        raise AssertionError(what)
    except OSError:
        pass
    assert sorted(os.listxattr(path)) == sorted(had), what


had = {"trusted.had": b"value"}
for how in ("rmdir", "replaced", "cwd"):
    os.mkdir("d")
    os.setxattr("d", "trusted.had", b"value")
    held = os.open("d", os.O_RDONLY)
    if how == "cwd":
        os.chdir("d")
    if how == "replaced":
        os.mkdir("e")
        os.rename("e", "d")
        os.rmdir("d")
    else:
        os.rmdir(f"{top}/d")
    check(how, "." if how == "cwd" else held)
    assert os.listdir(held) == [], how
    os.fsync(held)
    os.fchdir(home)
    os.close(held)

# A fifo and a symbolic link: the file system sees only their attributes.
os.mkfifo("p")
os.setxattr("p", "trusted.had", b"value")
held = os.open("p", os.O_RDWR)
os.unlink("p")
check("fifo", held)
os.close(held)

# A file opened without access to its content (O_PATH), and with access.
for flags in (os.O_PATH, os.O_RDONLY, os.O_RDWR):
    open("f", "wb").close()
    os.setxattr("f", "trusted.had", b"value")
    held = os.open("f", flags)
    os.unlink("f")
    check(f"file {flags}", f"/proc/self/fd/{held}")
    os.close(held)
print("as it should be")
