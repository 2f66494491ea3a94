"""The mount after a crash: fsyncs by many threads, kill -9, mount."""

import os
import time

from ..step import FAILURES
from .clients import CLIENTS, in_threads
from .small import LINE


def crash(bench):
    if bench.system.name != "rewindfs":
        return
    for name, wiped in (("crash-kept", False), ("crash-wiped", True)):
        try:
            with bench.guard(bench.options.cap * 10):
                values = mount_again(bench, name, wiped)
        except FAILURES as error:
            bench.fail(name, error)
            return
        bench.figures.add(bench.system.name, name, **values)


def mount_again(bench, name, wiped):
    """Fills files, ends the daemon, and returns what the next mount takes. Raises OSError if acknowledged bytes are missing then."""
    system, servers = bench.system, bench.system.servers
    each, rest = divmod(bench.options.fsyncs, CLIENTS)
    counts = [each + (number < rest) for number in range(CLIENTS)]
    paths = [bench.path(f"{name}-{number}") for number in range(CLIENTS)]

    def appends(number):
        file = os.open(paths[number], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            for _ in range(counts[number]):
                os.write(file, LINE)
                os.fsync(file)
        finally:
            os.close(file)

    in_threads(CLIENTS, appends)
    system.kill()
    # The kernel still has the mount of the ended daemon.
    system.unmount()
    if wiped:
        system.empty_cache()
    before, start = servers.stats(), time.monotonic()
    system.mount()
    taken = time.monotonic() - start
    after = servers.stats()
    found = [os.stat(path).st_size // len(LINE) for path in paths]
    if found != counts:
        raise OSError(f"fsynced lines are missing after the crash: {found}, expected {counts}")
    return {"seconds": taken, "fsyncs": sum(counts), **{key: after[key] - before[key] for key in after}}
