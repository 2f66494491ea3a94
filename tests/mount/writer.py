"""One writer of the crash tests: works in a directory of its own until a call fails, and keeps a log of its calls.

usage: writer.py DIRECTORY LOG NUMBER SEED

Every call has a line `B call arguments` in the log before it is made and `A result` once it returned; the call that
failed has `E errno` and is the last. The log lies outside the mount. Contents follow from the numbers in the log
(`pattern`), so that who reads it can rebuild every state; crash_log.rs does.
"""

import os
import random
import sys

directory, log_path, number, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
choose = random.Random(seed * 100 + number)
log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
state = {"fd": -1, "count": 0}
sizes = {}


def say(line):
    os.write(log, (line + "\n").encode())


def call(line, function):
    say("B " + line)
    try:
        result = function()
    except OSError as error:
        say("E %d" % error.errno)
        sys.exit(0)
    say("A %d" % (result if isinstance(result, int) else 0))
    return result


def pattern(count, length):
    lines = (b"%02d %08d %06d\n" % (number, count, line) for line in range(length // 19 + 1))
    return b"".join(lines)[:length]


def path(name):
    return os.path.join(directory, name)


def length():
    kind = choose.random()
    if kind < 0.7:
        return choose.randint(1, 8000)
    if kind < 0.95:
        return choose.randint(1, 60000)
    return choose.randint(60000, 400000)


def open_file(line, name, flags):
    state["fd"] = call(line, lambda: os.open(path(name), os.O_WRONLY | flags, 0o644))


def write(offset):
    """Writes a pattern at an offset (-1: at the end), all of it."""
    state["count"] += 1
    count, size = state["count"], length()
    data, done = pattern(count, size), 0
    while done < size:
        at = offset if offset < 0 else offset + done
        rest = data[done:]
        put = (lambda: os.write(state["fd"], rest)) if at < 0 else (lambda: os.pwrite(state["fd"], rest, at))
        done += call("write %d %d %d %d" % (at, count, done, size), put)
    return size


def close():
    if choose.random() < 0.15:
        call("fsync", lambda: os.fsync(state["fd"]))
    call("close", lambda: os.close(state["fd"]))


def fresh():
    state["count"] += 1
    return "f%06d" % state["count"]


def create(name):
    open_file("create " + name, name, os.O_CREAT | os.O_EXCL)
    sizes[name] = write(0)
    if choose.random() < 0.3:
        sizes[name] += write(sizes[name])
    close()


def overwrite(name):
    open_file("open trunc " + name, name, os.O_TRUNC)
    sizes[name] = write(0)
    close()


def append(name):
    open_file("open append " + name, name, os.O_APPEND)
    sizes[name] += write(-1)
    close()


def patch(name):
    offset = choose.randint(0, sizes[name])
    open_file("open patch " + name, name, 0)
    sizes[name] = max(sizes[name], offset + write(offset))
    close()


def save(name):
    temporary = "." + fresh()
    create(temporary)
    rename(temporary, name)


def rename(old, new):
    call("rename %s %s" % (old, new), lambda: os.rename(path(old), path(new)))
    sizes[new] = sizes.pop(old)


def unlink(name):
    call("unlink " + name, lambda: os.unlink(path(name)))
    del sizes[name]


call("mkdir", lambda: os.mkdir(directory))
while True:
    names = sorted(sizes)
    kind = choose.random()
    if len(names) < 4 or (kind < 0.15 and len(names) < 12):
        create(fresh())
    elif kind < 0.35:
        overwrite(choose.choice(names))
    elif kind < 0.5:
        append(choose.choice(names))
    elif kind < 0.6:
        patch(choose.choice(names))
    elif kind < 0.8:
        save(choose.choice(names))
    elif kind < 0.95:
        old = choose.choice(names)
        over = [name for name in names if name != old]
        rename(old, choose.choice(over) if choose.random() < 0.3 else fresh())
    else:
        unlink(choose.choice(names))
